"""Speaker recognition from two Japanese vowels: real recordings, and an LSTM trained on them."""
