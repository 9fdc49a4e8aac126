"""The activation functions as circuits, one approximation in each module."""
