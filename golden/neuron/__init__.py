"""What each neuron computes: one hidden unit of a layer at a time."""
