"""Exact operations on integers: saturation, wrapping, rounding shifts, split multipliers.

Every operation takes signed raws of any shape, works in int64, and broadcasts its operands as numpy
does. Nothing here knows a number format; widths and shifts are arguments.

The tie rules differ among the operations, as they do in the runtimes that these reproduce:

=============================================  ==================================
operation                                      a tie goes
=============================================  ==================================
`rounding_shift_right`                         away from zero
`saturating_rounding_doubling_high_multiply`   toward +infinity
`multiply_by_split_multiplier`, "double"       both of the above, one after the other
`multiply_by_split_multiplier`, "single"       toward +infinity
=============================================  ==================================

Source: the fixed-point primitives of gemmlowp and the requantisation of TensorFlow Lite (LiteRT),
which is the arithmetic of Li and Alvarez, "On the quantization of recurrent neural networks",
arXiv 2101.05453.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from fewbit.golden.checks import as_raws

__all__ = [
    "HIGHEST_SHIFT",
    "INT8_RANGE",
    "INT16_RANGE",
    "INT32_RANGE",
    "LOWEST_SHIFT",
    "SIGNIFICAND_POSITION",
    "Raws",
    "Rounding",
    "multiply_by_split_multiplier",
    "rounding_shift_right",
    "saturate",
    "saturating_rounding_doubling_high_multiply",
    "split_multiplier",
    "wrap",
]

Raws = npt.NDArray[np.int64]
Rounding = Literal["double", "single"]

WIDEST = 63
INT8_RANGE = (-(1 << 7), (1 << 7) - 1)
INT16_RANGE = (-(1 << 15), (1 << 15) - 1)
INT32_RANGE = (-(1 << 31), (1 << 31) - 1)
"""The lowest and the highest raw of a width."""
LOWEST_SHIFT = -31
HIGHEST_SHIFT = 30
SIGNIFICAND_POSITION = 7
"""A split multiplier has 31 bits, of which the 24 of a binary32 fill the upper ones."""


def _check_width(width: int) -> None:
    if not 1 <= width <= WIDEST:
        raise ValueError(f"width must be from 1 to {WIDEST} bits, not {width}.")


def _signed(raw: npt.ArrayLike, name: str, width: int) -> Raws:
    return as_raws(raw, name, -(1 << (width - 1)), (1 << (width - 1)) - 1)


def saturate(raw: npt.ArrayLike, width: int) -> Raws:
    """Return the nearest raw that a signed word of `width` bits can hold.

    Parameters
    ----------
    raw
        Integers of 64 bits, any shape.
    width
        Bits of the word, 1 to 63.

    Returns
    -------
    The shape of `raw`, each from -2^(width-1) to 2^(width-1) - 1.
    """
    _check_width(width)
    return np.clip(_signed(raw, "raw", 64), -(1 << (width - 1)), (1 << (width - 1)) - 1)


def wrap(raw: npt.ArrayLike, width: int) -> Raws:
    """Return the low `width` bits of `raw` as a signed two's complement word.

    Parameters
    ----------
    raw
        Integers of 64 bits, any shape.
    width
        Bits of the word, 1 to 63.

    Returns
    -------
    The shape of `raw`, each from -2^(width-1) to 2^(width-1) - 1.
    """
    _check_width(width)
    sign = 1 << (width - 1)
    return ((_signed(raw, "raw", 64) & ((1 << width) - 1)) ^ sign) - sign


def rounding_shift_right(raw: npt.ArrayLike, shift: npt.ArrayLike) -> Raws:
    """Return ``raw / 2^shift`` rounded to the nearest integer, ties away from zero.

    Parameters
    ----------
    raw
        Integers from -2^62 to 2^62 (so that the added half can't overflow), any shape.
    shift
        Whole numbers from 0 to 62, which broadcast with `raw`; 0 changes nothing.

    Returns
    -------
    The broadcast shape.

    Source: gemmlowp's ``RoundingDivideByPOT``.
    """
    value = as_raws(raw, "raw", -(1 << 62), 1 << 62)
    count = as_raws(shift, "shift", 0, 62)
    half = (np.int64(1) << count) >> 1
    # A negative number gets one less than half: the shift floors, so its ties go down.
    return (value + half - ((value < 0) & (count > 0))) >> count


def saturating_rounding_doubling_high_multiply(
    a: npt.ArrayLike, b: npt.ArrayLike, width: int
) -> Raws:
    """Return the product of two signed fractions, ``2*a*b / 2^width``, ties toward +infinity.

    In units of 2^-(width-1) the operands are in [-1, 1), and so is the product. The one exception
    is the lowest raw times itself: the product is 1 and saturates to the highest raw.

    Parameters
    ----------
    a, b
        Signed raws of `width` bits, which broadcast.
    width
        Bits of a word: 16 or 32.

    Returns
    -------
    The broadcast shape, signed raws of `width` bits.

    Source: gemmlowp's ``SaturatingRoundingDoublingHighMul``.
    """
    if width not in {16, 32}:
        raise ValueError(f"width must be 16 or 32 bits, not {width}.")
    product = _signed(a, "a", width) * _signed(b, "b", width)
    return saturate((product + (1 << (width - 2))) >> (width - 1), width)


def split_multiplier(real: float) -> tuple[int, int]:
    """Split a positive real into ``multiplier / 2^31 * 2^shift``.

    Parameters
    ----------
    real
        At least 0 and finite; it is rounded to binary32 first (ties to even). Below 2^-32 the
        multiplier is 0, as nothing of a 32-bit word would be left.

    Returns
    -------
    multiplier
        0, or from 2^30 to 2^31 - 2^7: a binary32 has 24 significant bits, so the low 7 are 0.
    shift
        From -31 to 30; 0 where the multiplier is 0.

    Raises
    ------
    ValueError
        If `real` is negative or no number, or 2^30 or more.

    Source: TensorFlow Lite's ``QuantizeMultiplier``.
    """
    if not 0 <= real < math.inf:
        raise ValueError(f"A multiplier must be a finite number of at least 0, not {real}.")
    if real >= 2.0**HIGHEST_SHIFT:
        raise ValueError(f"A multiplier must be below 2^{HIGHEST_SHIFT}, not {real}.")
    fraction, shift = math.frexp(float(np.float32(real)))
    if fraction == 0 or shift < LOWEST_SHIFT:
        return 0, 0
    if shift > HIGHEST_SHIFT:
        raise ValueError(f"A multiplier must be below 2^{HIGHEST_SHIFT} in binary32, not {real}.")
    return int(math.ldexp(fraction, 31)), shift


def multiply_by_split_multiplier(
    raw: npt.ArrayLike,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    rounding: Rounding = "double",
) -> Raws:
    """Return ``raw * multiplier / 2^31 * 2^shift``, rounded to an integer of 32 bits.

    "double" rounds twice for a negative `shift`: the 32-bit high product with ties toward
    +infinity, then the right shift with ties away from zero. For a positive `shift` the left shift
    comes before the product and wraps modulo 2^32. "single" rounds the exact product once, ties
    toward +infinity, and wraps a result that does not fit into 32 bits.

    Parameters
    ----------
    raw
        Signed raws of 32 bits.
    multiplier
        From 0 to 2^31 - 1.
    shift
        From -31 to 30. All three broadcast.
    rounding
        "double", the rule of LiteRT and TensorFlow Lite Micro, or "single".

    Returns
    -------
    The broadcast shape, signed raws of 32 bits.

    Source: TensorFlow Lite's ``MultiplyByQuantizedMultiplier`` in both of its builds.
    """
    value = _signed(raw, "raw", 32)
    factor = as_raws(multiplier, "multiplier", 0, (1 << 31) - 1)
    exponent = as_raws(shift, "shift", LOWEST_SHIFT, HIGHEST_SHIFT)
    if rounding == "single":
        half = np.int64(1) << (30 - exponent)
        return wrap((value * factor + half) >> (31 - exponent), 32)
    if rounding == "double":
        left = wrap(value << np.maximum(exponent, 0), 32)
        high = saturating_rounding_doubling_high_multiply(left, factor, 32)
        return rounding_shift_right(high, np.maximum(-exponent, 0))
    raise ValueError(f'rounding must be "double" or "single", not {rounding!r}.')
