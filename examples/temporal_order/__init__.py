"""Which of eight orders of three symbols: sequences of 200 steps from a generator, and an LSTM."""
