"""Readers of model files, the project's own and others'."""
