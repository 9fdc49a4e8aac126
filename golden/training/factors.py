"""Numbers of the FloatSD8 training step that come from a table of codes: factors and gradients.

A *gradient* is an e5m2 code whose exponent bias is about 24, so that it reaches from 2^-25 to 224.
A *factor* is what multiplies a gradient, a FloatSD8 code:

===================  ====  ===================================================================
factor               bias  of
===================  ====  ===================================================================
slope of a sigmoid   12    the exact derivative at the pre-activation, at most 1/4
slope of tanh        10    the exact derivative at the pre-activation of g, or at the cell
g, tanh(c), hidden   10    the e5m2 values of the forward pass; exact from 2^-8 to 1
input                8     the e5m2 input; exact from 2^-6 to 5, saturated at 9
old cell             7     the binary16 cell, up to 18
===================  ====  ===================================================================

Biases keep FloatSD8's one wide gap, from 1280 to 1792 units, away from the numbers that matter: the
slope of a sigmoid has its top, 1/4, at 1024 units.

Every number is the nearest of its format, ties to the even index, saturated. Exponent 31 of a
binary16 code is read as one more octave, as in `fewbit.golden.activation.floatsd8`.

Source: arXiv 2001.08450 for e5m2 gradients; their bias is that of its group's published code. That
the other factor of each product is FloatSD8 in the backward pass, too, is this project's.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.floatsd8 import ACCUMULATOR_FORMAT, HIDDEN_FORMAT
from fewbit.golden.formats import BINARY16, FLOATSD8, FloatSD8, Format, Minifloat

__all__ = [
    "CELL_FACTOR_BIAS",
    "GRADIENT_BIAS",
    "HIDDEN_FACTOR_FORMAT",
    "INPUT_FACTOR_BIAS",
    "PIECES",
    "SIGMOID_SLOPE_FORMAT",
    "TANH_SLOPE_FORMAT",
    "cell_factor",
    "exceed_pieces",
    "gradient_format",
    "has_overflowed",
    "hidden_factor",
    "input_factor",
    "nearest_gradient",
    "pieces_of",
    "saturated_gradient",
    "sigmoid_slope",
    "tanh_slope",
    "widened",
]

Codes = npt.NDArray[np.int64]

GRADIENT_BIAS = 24
"""Usual exponent bias of gradients."""
CELL_FACTOR_BIAS = 7
"""Usual exponent bias of an old cell as a factor: from 2^-7 to 18."""
INPUT_FACTOR_BIAS = 8
"""Usual exponent bias of an input as a factor: from 2^-8 to 9."""
SIGMOID_SLOPE_FORMAT = FloatSD8(12)
TANH_SLOPE_FORMAT = FLOATSD8
HIDDEN_FACTOR_FORMAT = FLOATSD8
PIECES = 4
"""Number of gradients that represent a binary16 number: 11 bits, at least 3 in each piece."""
_TOP_EXPONENT = 31 << 2


def gradient_format(bias: int = GRADIENT_BIAS) -> Minifloat:
    """Return the format of gradients, e5m2 in which exponent 31 means overflow.

    The largest gradient without overflow is 1.75 * 2^(30 - bias). A gradient whose magnitude rounds
    to 2^(31 - bias) or more has overflowed, which is where a cast to torch's ``float8_e5m2``,
    scaled by 2^(bias - 15), gives infinity.
    """
    return Minifloat(5, 2, bias)


def sigmoid_slope(codes: npt.ArrayLike) -> Codes:
    """Return the derivative of the sigmoid at binary16 codes, as `SIGMOID_SLOPE_FORMAT` codes.

    Error: at most 2^-6; exactly 1/4 at zero, and 0 where the derivative is below 2^-13.
    """
    return _slope_table(1)[BINARY16.check(codes)]


def tanh_slope(codes: npt.ArrayLike) -> Codes:
    """Return the derivative of tanh at binary16 codes, as `TANH_SLOPE_FORMAT` codes.

    Error: at most 2^-4; exactly 1 at zero, and 0 where the derivative is below 2^-11.
    """
    return _slope_table(2)[BINARY16.check(codes)]


@cache
def _slope_table(times: int) -> Codes:
    """Return the slopes of sigmoid (1) and tanh (2), which is 2 sigmoid(2x) - 1."""
    # exp(-y) / (1 + exp(-y))^2 neither overflows nor cancels.
    small = np.exp(-times * np.abs(_reals()))
    slope = times**2 * small / (1 + small) ** 2
    return _frozen((SIGMOID_SLOPE_FORMAT if times == 1 else TANH_SLOPE_FORMAT).encode(slope))


def hidden_factor(codes: npt.ArrayLike) -> Codes:
    """Return hidden values, g or tanh(c), which are e5m2 codes, as `HIDDEN_FACTOR_FORMAT` codes."""
    return _recoding(HIDDEN_FORMAT, HIDDEN_FACTOR_FORMAT)[HIDDEN_FORMAT.check(codes)]


def input_factor(codes: npt.ArrayLike, input_bias: int, bias: int) -> Codes:
    """Return inputs, e5m2 codes of the bias `input_bias`, as FloatSD8 codes of the bias `bias`."""
    given = Minifloat(5, 2, input_bias)
    return _recoding(given, FloatSD8(bias))[given.check(codes)]


def cell_factor(codes: npt.ArrayLike, bias: int = CELL_FACTOR_BIAS) -> Codes:
    """Return cells, binary16 codes, as FloatSD8 codes of the bias `bias`."""
    return _recoding(ACCUMULATOR_FORMAT, FloatSD8(bias))[BINARY16.check(codes)]


def nearest_gradient(codes: npt.ArrayLike, bias: int = GRADIENT_BIAS) -> Codes:
    """Return the gradients nearest to binary16 codes: ties to even, sign kept.

    Beyond the largest code, 1.75 * 2^(31 - bias), the result saturates; see `has_overflowed`.
    """
    return _recoding(ACCUMULATOR_FORMAT, gradient_format(bias))[BINARY16.check(codes)]


def saturated_gradient(codes: npt.ArrayLike, bias: int = GRADIENT_BIAS) -> Codes:
    """Return the gradients nearest to binary16 codes, saturated below overflow.

    The largest result is 1.75 * 2^(30 - bias).
    """
    nearest = nearest_gradient(codes, bias)
    return np.where(has_overflowed(nearest), nearest & 0x80 | _TOP_EXPONENT - 1, nearest)


def has_overflowed(gradients: Codes) -> npt.NDArray[np.bool_]:
    """Return which gradients have exponent 31, that is a magnitude of 2^(31 - bias) or more."""
    return gradients & _TOP_EXPONENT == _TOP_EXPONENT


def pieces_of(codes: npt.ArrayLike, bias: int = GRADIENT_BIAS) -> Codes:
    """Return `PIECES` gradients whose sum is a binary16 number, the largest first.

    Each piece is what precedes it left of the number, truncated towards zero to a gradient. With a
    bias of 23 or more the sum is exact for magnitudes below 2^(32 - bias); with a lower bias, what
    lies below the smallest gradient is lost. A piece of zero is code 0.

    Parameters
    ----------
    codes
        binary16 codes, any shape.
    bias
        Exponent bias of the pieces.

    Returns
    -------
    The shape of `codes`, and an axis of `PIECES` more.
    """
    return _piece_table(bias)[BINARY16.check(codes)]


def exceed_pieces(codes: Codes, bias: int = GRADIENT_BIAS) -> npt.NDArray[np.bool_]:
    """Return which binary16 codes have a magnitude of 2^(32 - bias) or more, so no pieces."""
    return _magnitudes(codes) >= np.ldexp(1.0, 32 - bias)


def widened(gradients: Codes, bias: int = GRADIENT_BIAS) -> Codes:
    """Return gradients as binary16 codes, exactly if they are multiples of 2^-24.

    All results of `nearest_gradient` are; others are rounded to the nearest, ties to even.
    """
    return _widening_table(bias)[gradients]


@cache
def _widening_table(bias: int) -> Codes:
    return _frozen(BINARY16.encode(gradient_format(bias).decode(np.arange(256))))


def _magnitudes(codes: Codes) -> npt.NDArray[np.float64]:
    return np.abs(_reals()[codes])


@cache
def _reals() -> npt.NDArray[np.float64]:
    return ACCUMULATOR_FORMAT.decode(np.arange(1 << 16))


@cache
def _recoding(source: Format, target: Format) -> Codes:
    return _frozen(target.encode(source.decode(np.arange(1 << source.width))))


@cache
def _piece_table(bias: int) -> Codes:
    positive = gradient_format(bias).decode(np.arange(128))
    left = np.abs(_reals())
    sign = np.signbit(_reals()).astype(np.int64) << 7
    table = np.zeros((1 << 16, PIECES), np.int64)
    for place in range(PIECES):
        # Codes without sign ascend with their values.
        code = np.searchsorted(positive, left, side="right") - 1
        left = left - positive[code]
        table[:, place] = np.where(code, code | sign, 0)
    return _frozen(table)


def _frozen(table: Codes) -> Codes:
    table.setflags(write=False)
    return table
