"""The arithmetic of each multiply-accumulate unit, bit for bit."""
