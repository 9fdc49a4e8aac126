"""Registers and signals of the precision chosen per step, see `fewbit.golden.lstm.dynamic`."""

from typing import Literal

__all__ = ["ALWAYS_HIGH", "HIGHEST_THRESHOLD", "LARGEST_GROUP", "PrecisionSignal"]

ALWAYS_HIGH = 255
"""The hold at which all 8 bits of every weight are taken at every step; also the highest."""
HIGHEST_THRESHOLD = (1 << 16) - 1
LARGEST_GROUP = 1 << 16
PrecisionSignal = Literal["cell_change", "output_gate"]
