"""A whole LSTM layer: what passes through it, and where its parameters lie."""
