"""Simulation: cocotb benches, the simulator runner, and compiled bulk simulation."""

if __name__ != "fewbit.sim":
    # A second copy of every class would be loaded, none equal to its twin.
    raise ImportError("This folder is the package fewbit.sim: write 'import fewbit.sim'.")
