"""Tests of fewbit: a package, so that what they share has a name of its own."""
