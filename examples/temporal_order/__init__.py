"""The temporal order problem: eight orders of three symbols in 200 steps, and an LSTM."""
