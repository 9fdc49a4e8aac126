"""The multiply-accumulate units, one in each module."""
