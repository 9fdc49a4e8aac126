"""Registers and signals of dynamic precision, see `fewbit.golden.lstm.dynamic`."""

from typing import Literal

__all__ = ["ALWAYS_HIGH", "HIGHEST_THRESHOLD", "LARGEST_GROUP", "PrecisionSignal"]

ALWAYS_HIGH = 255
"""The hold with which every time step uses whole weights; also the highest hold."""
HIGHEST_THRESHOLD = (1 << 16) - 1
LARGEST_GROUP = 1 << 16
PrecisionSignal = Literal["cell_change", "output_gate"]
