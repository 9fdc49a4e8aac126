"""Golden training: what a circuit that trains a layer must compute, bit for bit."""
