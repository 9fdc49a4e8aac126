"""Checks of the raws that the integer LSTM's activations read: 16 bits, 0 to 6 integer bits."""

import numpy.typing as npt

from fewbit.golden.arithmetic import Raws
from fewbit.golden.checks import as_raws

__all__ = ["GATE_INTEGER_BITS", "HIGHEST_INTEGER_BITS", "WORD", "check_integer_bits", "words"]

GATE_INTEGER_BITS = 3
HIGHEST_INTEGER_BITS = 6
WORD = (-(1 << 15), (1 << 15) - 1)
"""The lowest raw and the highest."""


def words(raw: npt.ArrayLike) -> Raws:
    """Return the raws as int64, or refuse raws that do not fit 16 bits."""
    return as_raws(raw, "The raws of an activation", *WORD)


def check_integer_bits(integer_bits: int) -> None:
    """Refuse a number of integer bits that no activation has."""
    if not 0 <= integer_bits <= HIGHEST_INTEGER_BITS:
        raise ValueError(
            f"integer_bits must be from 0 to {HIGHEST_INTEGER_BITS} "
            f"(a cell exponent from -15 to -9), not {integer_bits}."
        )
