"""What arXiv 1809.11086 has of ternary and binary weights, and what they are compared with."""

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
"""12-bit units whose area the paper fills with others."""
BASELINES = {"gates": "12-bit MAC (Booth)", "plain": "12-bit MAC (plain operators)"}
"""The smallest 12-bit unit found, and one as `*` and `+` leave it to synthesis, by structure."""


@dataclass(frozen=True)
class Kind:
    """Weights: what the paper has of them, and what this project had set itself."""

    weights: LevelKind
    design: str
    area: float
    """Area of 100 12-bit units over that of 100 of these."""
    power: float
    """Power of the same."""
    units: int
    """Units in about the area of 100 12-bit ones; each unit does as much in a cycle."""
    area_goal: float
    throughput_goal: float


KINDS = (
    Kind("ternary", "ternary_accumulate", 2.56 / 0.42, 336 / 61, 500, 10.5, 7),
    Kind("binary", "binary_accumulate", 2.56 / 0.24, 336 / 37, 1000, 12.5, 10),
)
"""Square millimetres and milliwatts of a 65 nm process at 400 MHz."""
