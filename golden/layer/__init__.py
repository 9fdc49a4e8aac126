"""LSTM layers as circuits: their packets, their schedules, and the images of their constants."""
