"""Simulation: cocotb benches, the simulator runner, and compiled bulk simulation."""
