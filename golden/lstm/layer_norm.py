"""Layer normalisation of a gate in integers: 16-bit raws in, Q3.12 raws out.

The mean has 10 fraction bits and the variance none. Five Newton steps in 32-bit words of 28
fraction bits give the inverse square root of the variance. Divisions truncate toward zero. The mean
square is a product with the integer reciprocal ``floor(2^20 / units)``, which makes the variance
too low where `units` is no power of two; that is part of the recipe.

Bounds, for up to 2^20 units: the sum of squares times the reciprocal is at most 2^50, the sum times
1024 at most 2^45, a gain's product plus bias below 2^47. So all numbers fit 64 bits. The last word
before requantisation wraps to 32 bits, which it fits for every usual number of units.

A gain's product plus bias may leave 32 bits where the bias nearly fills them. The sum is exact
here. In LiteRT's C++ it overflows, which is undefined, and outputs differ.

Source: LiteRT's integer LSTM with layer normalisation; Li and Alvarez, "On the quantization of
recurrent neural networks", arXiv 2101.05453, section 3.2.
"""

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import (
    Raws,
    Rounding,
    multiply_by_split_multiplier,
    rounding_shift_right,
    saturate,
    saturating_rounding_doubling_high_multiply,
    wrap,
)
from fewbit.golden.checks import as_raws, check_shape

__all__ = ["HIGHEST_UNITS", "inverse_square_root", "layer_norm"]

HIGHEST_UNITS = 1 << 20
"""Largest number of units: with more, the integer reciprocal would be 0."""

_HIGHEST_WORD = (1 << 31) - 1
_LOWEST_WORD = -(1 << 31)
_FRACTION = 28
_HALF_OF_SQUARE_ROOT_OF_TWO = 1518500250
"""Half the square root of two, in units of 2^-31."""


def layer_norm(
    v: npt.ArrayLike,
    gains: npt.ArrayLike,
    bias: npt.ArrayLike,
    guard: int,
    multiplier: int,
    shift: int,
    rounding: Rounding = "double",
) -> Raws:
    """Return raws normalised over their last axis, times a gain, plus a bias.

    Parameters
    ----------
    v
        Raws of 16 bits, shape (..., units), of any resolution.
    gains
        Raws of 16 bits, shape (units,).
    bias
        Raws of 32 bits, shape (units,), in units of the gain's resolution times 2^-10.
    guard
        Number that replaces a variance below 1, from 1 to 2^31 - 1.
    multiplier, shift
        Split multiplier from the gain's resolution to 2^-12; multiplier from 0 to 2^31 - 1, shift
        from -31 to 30.
    rounding
        Rounding of the split multiplications, "double" or "single".

    Returns
    -------
    The shape of `v`, raws of 16 bits in Q3.12.

    Raises
    ------
    ValueError
        If a shape or a range is wrong.
    """
    raw = as_raws(v, "v", -(1 << 15), (1 << 15) - 1)
    if not raw.ndim or not 1 <= raw.shape[-1] <= HIGHEST_UNITS:
        raise ValueError(
            f"v must have from 1 to {HIGHEST_UNITS} units in its last axis, but its shape is "
            f"{raw.shape}."
        )
    units = raw.shape[-1]
    gain = as_raws(gains, "gains", -(1 << 15), (1 << 15) - 1)
    check_shape(gain, "gains", (units,))
    offset = as_raws(bias, "bias", _LOWEST_WORD, _HIGHEST_WORD)
    check_shape(offset, "bias", (units,))
    stand_in = as_raws(guard, "guard", 1, _HIGHEST_WORD)

    mean = _truncated(1024 * raw.sum(axis=-1), units)
    scaled_mean_square = (raw * raw).sum(axis=-1) * ((1 << 20) // units)
    variance = _truncated(scaled_mean_square - mean * mean, 1 << 20)
    factor, exponent = inverse_square_root(np.where(variance < 1, stand_in, variance))
    deviation = 1024 * raw - mean[..., np.newaxis]
    normalised = multiply_by_split_multiplier(
        deviation, factor[..., np.newaxis], exponent[..., np.newaxis], rounding
    )
    # The quotient by 1024 is rounded to the nearest, ties away from zero.
    product = normalised * gain + offset
    rounded = _truncated(product + np.where(product > 0, 512, -512), 1024)
    return saturate(
        multiply_by_split_multiplier(wrap(rounded, 32), multiplier, shift, rounding), 16
    )


def _truncated(raw: Raws, divisor: int) -> Raws:
    """Return ``raw / divisor``, truncated toward zero."""
    return np.sign(raw) * (np.abs(raw) // divisor)


def _multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> Raws:
    return saturating_rounding_doubling_high_multiply(a, b, 32)


def _saturating_shift_left(raw: Raws, shift: int) -> Raws:
    """Return ``raw * 2^shift``, saturated to 32 bits."""
    threshold = (1 << (31 - shift)) - 1
    shifted = np.where(raw > threshold, _HIGHEST_WORD, raw << shift)
    return np.where(raw < -threshold, _LOWEST_WORD, shifted)


def inverse_square_root(variance: npt.ArrayLike) -> tuple[Raws, Raws]:
    """Return a split multiplier that is about ``1 / sqrt(variance)``.

    Parameters
    ----------
    variance
        From 1 to 2^31 - 1, any shape.

    Returns
    -------
    multiplier
        The shape of `variance`, from 0 to 2^31 - 1.
    shift
        The shape of `variance`, from -12 to 0.

    Source: TensorFlow Lite's ``GetInvSqrtQuantizedMultiplierExp``.
    """
    given = as_raws(variance, "variance", 1, _HIGHEST_WORD)
    # A power of four scales the variance into [2^27, 2^29), so that the root shifts by whole bits.
    right = np.where(given >= 1 << 29, 1, 0)
    quartered = given >> (2 * right)
    leading_zeros = 32 - np.frexp(quartered.astype(np.float64))[1].astype(np.int64)
    left = (leading_zeros - 1) // 2 - 1
    shift = 11 + right - left
    word = (quartered << (2 * left)) >> 1
    half_word = rounding_shift_right(word, 1)
    x = np.full(given.shape, 1 << _FRACTION, np.int64)
    for _ in range(5):
        # Each multiplication of words of 28 fraction bits loses 3 places.
        cube = _saturating_shift_left(_multiply(_multiply(x, x), x), 6)
        x = _saturating_shift_left(
            _multiply(3 << (_FRACTION - 1), x) - _multiply(half_word, cube), 3
        )
    multiplier = _multiply(x, _HALF_OF_SQUARE_ROOT_OF_TWO) << np.maximum(-shift, 0)
    # A variance of 1 is a special case: the result is the largest multiplier, which is nearly 1.
    one = given == 1
    return np.where(one, _HIGHEST_WORD, multiplier), np.where(one, 0, -np.maximum(shift, 0))
