"""The LSTM of each number system: one time step and whole sequences, over a batch."""
