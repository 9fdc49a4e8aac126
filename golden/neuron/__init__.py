"""The arithmetic of each neuron, which works on one hidden unit of a layer at a time."""
