"""One multiply-accumulate unit a module."""
