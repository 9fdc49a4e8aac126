"""Activations: each function as its circuits approximate it."""
