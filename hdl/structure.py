"""What a circuit is built for: gates or FPGAs."""

from typing import Literal, get_args

__all__ = ["LaneStructure", "Structure", "check_structure"]

Structure = Literal["gates", "fpga"]
"""How sums are built: of full adders for gates, of adders on carry chains for FPGAs."""
LaneStructure = Literal["gates", "fpga", "plain"]
"""The same of a beat's products; or operators alone, left to synthesis, to compare with."""


def check_structure(structure: str, allowed: object = Structure) -> None:
    """Refuse what is none of the structures of a type.

    Raises
    ------
    ValueError
        If it is none.
    """
    choices = [f'"{choice}"' for choice in get_args(allowed)]
    if f'"{structure}"' not in choices:
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise ValueError(f"structure must be {listed}, not {structure!r}.")
