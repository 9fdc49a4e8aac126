"""The structure of a circuit's sums: for gates or for FPGAs."""

from typing import Literal, get_args

__all__ = ["LaneStructure", "Structure", "check_structure"]

Structure = Literal["gates", "fpga"]
"""The structure of sums: full adders for gates, or adders on carry chains for FPGAs."""
LaneStructure = Literal["gates", "fpga", "plain"]
"""The same structures for a beat's products, or "plain": operators that are left to synthesis."""


def check_structure(structure: str, allowed: object = Structure) -> None:
    """Refuse a structure that is not among those of a type.

    Raises
    ------
    ValueError
        If the structure is not allowed.
    """
    choices = [f'"{choice}"' for choice in get_args(allowed)]
    if f'"{structure}"' not in choices:
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise ValueError(f"structure must be {listed}, not {structure!r}.")
