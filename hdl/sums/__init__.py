"""Sums of many addends: compressor columns, adders, and the addends of products."""
