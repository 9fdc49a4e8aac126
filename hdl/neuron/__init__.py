"""One neuron a number system."""
