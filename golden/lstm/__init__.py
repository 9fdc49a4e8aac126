"""One time step and a sequence of an LSTM in each number system, over a batch."""
