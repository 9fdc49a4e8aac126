"""The circuits of all designs, in Amaranth, and the registry of designs."""

if __name__ != "fewbit.hdl":
    # A second copy of every class would be loaded, none equal to its twin.
    raise ImportError("This folder is the package fewbit.hdl: write 'import fewbit.hdl'.")
