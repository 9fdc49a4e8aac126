"""One activation a module."""
