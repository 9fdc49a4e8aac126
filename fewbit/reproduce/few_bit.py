"""Figures of arXiv 1809.11086 about ternary and binary weights, and their baselines."""

from dataclasses import dataclass

from fewbit.golden.lstm.ternary import LevelKind

__all__ = [
    "BASELINES",
    "KINDS",
    "MAC",
    "MACS",
    "STANDING",
    "Kind",
]

STANDING = "recalled, not checked"
MAC = "int12_mac"
MACS = 100
"""Number of 12-bit units whose area the paper compares with that of other units."""
BASELINES = {"gates": "12-bit MAC (Booth)", "plain": "12-bit MAC (plain operators)"}
"""By structure, the smallest known 12-bit unit, and one of operators `*` and `+`."""


@dataclass(frozen=True)
class Kind:
    """A kind of weights: the paper's figures, and this project's own goals."""

    weights: LevelKind
    design: str
    area: float
    """Area of 100 12-bit units over that of 100 units of this kind."""
    power: float
    """Power of 100 12-bit units over that of 100 units of this kind."""
    units: int
    """Number of units in about the area of 100 12-bit units, which have equal throughput each."""
    area_goal: float
    throughput_goal: float


KINDS = (
    Kind("ternary", "ternary_accumulate", 2.56 / 0.42, 336 / 61, 500, 10.5, 7),
    Kind("binary", "binary_accumulate", 2.56 / 0.24, 336 / 37, 1000, 12.5, 10),
)
"""The kinds with the paper's figures, in square millimetres and milliwatts at 65 nm and 400 MHz."""
