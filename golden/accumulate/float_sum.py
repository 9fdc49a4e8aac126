"""Sums of floating-point terms, rounded once: the contract of every float accumulate unit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from fewbit.golden.parameter import Value, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.formats import Minifloat

    Integers = npt.NDArray[np.int64]

__all__ = ["round_sum", "split", "window_parameter"]

_LARGEST_SHIFT = 62
"""Bits of an int64 that a magnitude may fill; wider sums use Python's own integers."""
_BLOCK = 2**13
"""Number of sums that are computed at a time, so that intermediate arrays fit the cache."""


def window_parameter(default: Value) -> Any:
    """Return the field ``window`` of a contract, see :func:`round_sum`."""
    return parameter(
        default,
        "bits kept below the top of the largest operand",
        8,
        48,
        none_means="all bits, an exact sum",
    )


def split(number_format: Minifloat, codes: Integers) -> tuple[Integers, Integers]:
    """Split codes into signed significands and exponents of their units: real = s * 2**ulp.

    An exponent code that IEEE 754 keeps for infinities and NaN is read as one more octave of
    finite values. Any shape.
    """
    bits = number_format.mantissa_bits
    exponent = (codes >> bits) & (2**number_format.exponent_bits - 1)
    significand = (codes & (2**bits - 1)) | (np.minimum(exponent, 1) << bits)
    sign = -(codes >> (number_format.width - 1) & 1)
    ulp = np.maximum(exponent, 1) - (number_format.bias + bits)
    # Minus one is all ones: -s is the complement of s, plus one.
    return (significand ^ sign) - sign, ulp


def round_sum(
    terms: Integers,
    ulps: Integers,
    widths: Sequence[int],
    window: int | None,
    target: Minifloat,
) -> Integers:
    """Return the codes of sums of terms[k] * 2**ulps[k], rounded once, ties to even.

    With ``window`` None the sum is exact. With a number, each term lies in a field of its own of
    ``widths[k]`` bits. All fields are aligned to the one whose top, ulps[k] + widths[k], is the
    highest; a term of value zero counts, too. Each magnitude loses the bits that lie more than
    ``window`` bits below that top, so it is truncated toward zero. The truncated terms are then
    summed exactly.

    Overflow saturates to the largest finite value. Subnormal results are kept. A sum of zero gives
    +0; a negative sum that rounds to zero gives -0.

    Parameters
    ----------
    terms
        Signed integers of fewer bits than their fields, shape (count, n).
    ulps
        Exponents of the terms' units, shape (count, n).
    widths
        Bits of each field, n numbers.
    window
        Bits below the highest top that count, or None for all.
    target
        Format of the result.

    Returns
    -------
    Codes, shape (count,).

    Source: this project's contract; arXiv 2001.08450 publishes none.
    """
    if len(terms) > _BLOCK:
        starts = range(0, len(terms), _BLOCK)
        blocks = [(terms[start : start + _BLOCK], ulps[start : start + _BLOCK]) for start in starts]
        return np.concatenate([round_sum(*block, widths, window, target) for block in blocks])
    growth = len(widths).bit_length()
    tops = [ulp + width for ulp, width in zip(ulps.T, widths, strict=True)]
    top: Integers = reduce(np.maximum, tops)
    if window is None:
        unit: Integers = reduce(np.minimum, ulps.T)
        bits = int((top - unit).max(initial=0)) + growth
    else:
        unit = top - window
        bits = max(window, *widths) + growth
    total = _sized(np.zeros(len(terms), np.int64), bits)
    # The loop goes lane by lane, because a lane is contiguous in memory and fits the cache.
    for term, ulp, width in zip(terms.T, ulps.T, widths, strict=True):
        if window is None:
            total += _sized(term, bits) << (ulp - unit)
            continue
        # Shift up to the top of the window, then down by the distance to the highest top.
        magnitude = _sized(np.abs(term), bits)
        magnitude <<= max(window - width, 0)
        distance = top - ulp
        distance -= min(window, width)
        # After so many places nothing is left, and an int64 must not be shifted by its width.
        magnitude >>= np.minimum(distance, max(window, width), out=distance)
        # Restore the sign, which is all ones or all zeros: -m is the complement of m, plus one.
        sign = term >> 63
        magnitude ^= sign
        magnitude -= sign
        total += magnitude
    return _round(total, unit, target)


def _sized(values: Integers, bits: int) -> Integers:
    """Return the integers as int64, or as Python's own (slow, exact) where ``bits`` don't fit."""
    if bits <= _LARGEST_SHIFT:
        return values
    return values.astype(object)  # pyright: ignore[reportReturnType]


def _bit_length(values: Integers) -> Integers:
    """Return the number of bits of each non-negative integer."""
    if values.dtype == object:
        return np.array([int(value).bit_length() for value in values], dtype=np.int64)
    # The exponent field of float64; zero's is 0.
    length = np.maximum((values.astype(np.float64).view(np.int64) >> 52) - 1022, 0)
    if int(values.max(initial=0)) >= 2**53:
        # The conversion may have rounded up to the next power of two.
        length -= (length > 0) & (values >> np.maximum(length - 1, 0) == 0)
    return length


def _round(sums: Integers, unit: Integers, target: Minifloat) -> Integers:
    """Return the codes of ``sums`` times 2**unit: nearest, ties to even, saturated."""
    significand_width = target.mantissa_bits + 1
    smallest_ulp = 1 - target.bias - target.mantissa_bits
    negative = np.less(sums, 0).astype(np.int64)
    magnitude: Integers = np.abs(sums)
    ulp = np.maximum(_bit_length(magnitude) + (unit - significand_width), smallest_ulp)
    gap = ulp - unit
    dropped = np.maximum(gap, 0)
    if magnitude.dtype != object:
        # After so many places nothing is left of a magnitude below 2**62.
        dropped = np.minimum(dropped, _LARGEST_SHIFT)
    quotient: Integers = magnitude >> dropped
    remainder: Integers = magnitude - (quotient << dropped)
    # Round up where twice the remainder is above 2**dropped, or equal and the quotient is odd.
    quotient += (remainder << 1) + (quotient & 1) > np.left_shift(1, dropped, dtype=magnitude.dtype)
    if int(gap.min(initial=0)) < 0:
        # A sum in units coarser than the result's is exact.
        quotient <<= np.maximum(-gap, 0)
        ulp = np.where(magnitude == 0, smallest_ulp, ulp)
    # A significand of 2**significand_width carries into the exponent; the hidden bit adds 1 to it.
    code = quotient.astype(np.int64) + ((ulp - smallest_ulp) << target.mantissa_bits)
    largest = (target.largest_exponent + 1 << target.mantissa_bits) - 1
    return np.minimum(code, largest) | (negative << (target.width - 1))
