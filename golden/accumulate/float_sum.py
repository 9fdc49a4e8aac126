"""Sums of floating-point terms, rounded once: the contract of every float accumulate unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from golden.formats import Minifloat

    Integers = npt.NDArray[np.int64]

__all__ = ["round_sum", "split"]

_LARGEST_SHIFT = 62
"""Bits of an int64 that a magnitude may fill; beyond it, Python's own integers take over."""


def split(number_format: Minifloat, codes: Integers) -> tuple[Integers, Integers]:
    """Codes as signed significands and the exponents of their units: real = s * 2**ulp.

    An exponent code that IEEE 754 keeps for infinities and NaN is read as one more octave of
    finite values. Any shape.
    """
    bits = number_format.mantissa_bits
    exponent = (codes >> bits) & (2**number_format.exponent_bits - 1)
    significand = (codes & (2**bits - 1)) | np.where(exponent > 0, 2**bits, 0)
    negative = codes >> (number_format.width - 1) & 1
    ulp = np.maximum(exponent, 1) - number_format.bias - bits
    signed: Integers = np.where(negative, -significand, significand)
    return signed, ulp


def round_sum(
    terms: Integers,
    ulps: Integers,
    widths: Sequence[int],
    window: int | None,
    target: Minifloat,
) -> Integers:
    """Codes of the sum over k of terms[k] * 2**ulps[k], rounded once: nearest, ties to even.

    With ``window`` None the sum is exact. With a number, each term lies in a field of its own of
    ``widths[k]`` bits. All fields are aligned to the one whose top, ulps[k] + widths[k], is the
    highest, terms of value zero included, and keep ``window`` bits below that top; what falls below
    is cut off each magnitude, toward zero. The sum of what is kept is exact.

    Overflow saturates to the largest finite value. Subnormal results are kept. A sum of zero gives
    +0; a negative sum that rounds to zero gives -0.

    Parameters
    ----------
    terms
        Signed integers of fewer bits than their fields, shape (count, n).
    ulps
        Exponents of their units, shape (count, n).
    widths
        Bits of each field.
    window
        Bits kept, or None.
    target
        Format of the result.

    Returns
    -------
    Codes, shape (count,).

    Source: this project's contract; arXiv 2001.08450 publishes none.
    """
    if window is None:
        unit: Integers = ulps.min(axis=1)
        top = ulps + np.array(widths, np.int64)
        span = int((top.max(axis=1) - unit).max(initial=0))
    else:
        unit = (ulps + np.array(widths, np.int64)).max(axis=1) - window
        span = max(window, *widths)
    shift = ulps - unit[:, np.newaxis]
    magnitude: Integers = np.abs(terms)
    if span + terms.shape[1].bit_length() > _LARGEST_SHIFT:
        magnitude = _unbounded(magnitude)
    # What lies wholly below the window goes; no shift of an int64 reaches its width.
    below = np.minimum(np.maximum(-shift, 0), max(widths))
    magnitude = magnitude << np.maximum(shift, 0) >> below
    total: Integers = np.where(terms < 0, -magnitude, magnitude).sum(axis=1)
    return _round(total, unit, target)


def _unbounded(values: Integers) -> Integers:
    """The same integers as Python's own, of any size: an array of objects, slow but exact."""
    return values.astype(object)  # pyright: ignore[reportReturnType]


def _bit_length(values: Integers) -> Integers:
    """Bits of non-negative integers."""
    if values.dtype == object:
        return np.array([int(value).bit_length() for value in values], dtype=np.int64)
    length = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    # Above 2**53 the conversion may have rounded up to the next power of two.
    return length - ((length > 0) & (values >> np.maximum(length - 1, 0) == 0))


def _round(sums: Integers, unit: Integers, target: Minifloat) -> Integers:
    """Codes of the integers ``sums`` times 2**unit: nearest, ties to even, saturated."""
    significand_width = target.mantissa_bits + 1
    smallest_ulp = 1 - target.bias - target.mantissa_bits
    negative = np.less(sums, 0).astype(np.int64)
    magnitude: Integers = np.abs(sums)
    ulp = np.maximum(_bit_length(magnitude) + unit - significand_width, smallest_ulp)
    # A sum in units coarser than the result's is exact.
    finer = np.maximum(unit - ulp, 0)
    dropped = np.maximum(ulp - unit, 0)
    if magnitude.dtype != object:
        # Nothing is left of a magnitude below 2**62 after as many places.
        dropped = np.minimum(dropped, _LARGEST_SHIFT)
    quotient: Integers = magnitude >> dropped
    remainder: Integers = magnitude - (quotient << dropped)
    # Twice the remainder against 2**dropped: above, at or below half an ulp.
    half: Integers = (remainder << 1) - (np.ones_like(magnitude) << dropped)
    quotient = quotient + ((half > 0) | ((half == 0) & (quotient & 1 == 1)))
    quotient = quotient << finer
    # A significand of 2**significand_width carries into the exponent; the hidden bit adds 1 to it.
    octave = np.where(magnitude == 0, 0, ulp - smallest_ulp)
    code = quotient.astype(np.int64) + (octave << target.mantissa_bits)
    largest = (target.largest_exponent + 1 << target.mantissa_bits) - 1
    return np.minimum(code, largest) | (negative << (target.width - 1))
