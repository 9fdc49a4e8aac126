"""Quantisers: from real weights to those of each number system."""
