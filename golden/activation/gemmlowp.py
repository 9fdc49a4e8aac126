"""Sigmoid and tanh as gemmlowp computes them, and with gemmlowp LiteRT's integer LSTM.

A polynomial and a chain of constant factors give an exponential, then Newton's method gives a
reciprocal: 15 to 19 multiplications of 16 bits. Inputs are raws of 16 bits with `integer_bits`
integer and ``15 - integer_bits`` fraction bits (Q3.12 for a gate); outputs are raws of 16 bits in
units of 2^-15.

Source: gemmlowp's ``fixedpoint.h``.
"""

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.words import GATE_INTEGER_BITS, WORD, check_integer_bits, words
from fewbit.golden.arithmetic import (
    Raws,
    rounding_shift_right,
    saturate,
    saturating_rounding_doubling_high_multiply,
)

__all__ = ["sigmoid_gemmlowp", "tanh_gemmlowp"]


def _multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> Raws:
    return saturating_rounding_doubling_high_multiply(a, b, 16)


def _constant(word: int) -> int:
    """Return the 16-bit form of a 32-bit fixed-point constant; ties away from zero."""
    return int(rounding_shift_right(word, 16))


def _saturating_shift_left(raw: Raws, shift: int) -> Raws:
    """Return ``raw * 2^shift``, saturated to 16 bits.

    The lowest value that does not saturate gives the lowest word plus one.
    """
    threshold = (1 << (15 - shift)) - 1
    shifted = np.where(raw > threshold, WORD[1], raw << shift)
    return np.where(raw < -threshold, WORD[0], shifted)


# exp(-2^k) for k from -2 to 4, in units of 2^-31.
_EXPONENTIALS = {
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}
_EXPONENTIAL_OF_MINUS_EIGHTH = _constant(1895147668)
_THIRD = _constant(715827883)
_48_SEVENTEENTHS = _constant(1515870810)
_MINUS_32_SEVENTEENTHS = _constant(-1010580540)


def _exponential_of_negative(raw: Raws, integer_bits: int) -> Raws:
    """Return the exponential of raws of at most 0, in units of 2^-15.

    The raws have `integer_bits` integer bits.

    A raw is a remainder in [-1/4, 0) minus a distance, which is a multiple of 1/4. The exponential
    of the remainder is a polynomial of degree 4 around -1/8; each bit 2^k of the distance that is 1
    multiplies it by the constant exp(-2^k).
    """
    fraction = 15 - integer_bits
    quarter = 1 << (fraction - 2)
    remainder = (raw & (quarter - 1)) - quarter
    x = _saturating_shift_left(remainder, integer_bits) + (1 << 12)
    x2 = _multiply(x, x)
    x3 = _multiply(x2, x)
    x4 = _multiply(x2, x2)
    tail = rounding_shift_right(
        _multiply(rounding_shift_right(x4, 2) + x3, _THIRD) + x2,
        1,
    )
    factor = _EXPONENTIAL_OF_MINUS_EIGHTH
    result = saturate(factor + _multiply(factor, x + tail), 16)
    distance = remainder - raw
    for power, constant in _EXPONENTIALS.items():
        if integer_bits > power:
            chosen = (distance >> (fraction + power)) & 1 == 1
            result = np.where(chosen, _multiply(result, _constant(constant)), result)
    highest = max(_EXPONENTIALS) + 1
    if integer_bits > highest:
        # Below -2^5 the factors no longer cover the distance, and nothing is left anyway.
        result = np.where(raw < -(1 << (fraction + highest)), 0, result)
    return np.where(raw == 0, WORD[1], result)


def _half_of_reciprocal_of_one_plus(raw: Raws) -> Raws:
    """Return ``1 / (1 + raw)`` in units of 2^-14, by three Newton steps.

    The raws are in units of 2^-15 and from [0, 1).
    """
    half_denominator = (raw + (1 << 15)) >> 1
    x = _48_SEVENTEENTHS + _multiply(half_denominator, _MINUS_32_SEVENTEENTHS)
    for _ in range(3):
        rest = (1 << 13) - _multiply(half_denominator, x)
        x = x + _saturating_shift_left(_multiply(x, rest), 2)
    return x


def sigmoid_gemmlowp(raw: npt.ArrayLike) -> Raws:
    """Return the sigmoid of Q3.12 raws as gemmlowp computes it.

    The function is not monotone everywhere. In raws, ``sigmoid(-x) = 32767 - sigmoid(x)``, except
    that 0 gives 16384.

    Parameters
    ----------
    raw
        Raws of 16 bits with 12 fraction bits, any shape.

    Returns
    -------
    The shape of `raw`, from 11 to 32756, in units of 2^-15.

    Error: at most 6.4 units of 2^-15 against the real function.
    """
    given = words(raw)
    exponential = _exponential_of_negative(-np.abs(given), GATE_INTEGER_BITS)
    positive = _saturating_shift_left(_half_of_reciprocal_of_one_plus(exponential), 1)
    result = np.where(given < 0, WORD[1] - positive, positive)
    return np.where(given == 0, 1 << 14, result)


def tanh_gemmlowp(raw: npt.ArrayLike, integer_bits: int) -> Raws:
    """Return tanh of 16-bit raws as gemmlowp computes it, ``2 / (1 + exp(-2x)) - 1``.

    The function is odd. It is monotone for 6 integer bits only.

    Parameters
    ----------
    raw
        Raws of 16 bits with ``15 - integer_bits`` fraction bits, any shape.
    integer_bits
        From 0 to 6; 3 for a gate.

    Returns
    -------
    The shape of `raw`, in units of 2^-15.

    Error: at most 12.05 units of 2^-15 against the real function.
    """
    given = words(raw)
    check_integer_bits(integer_bits)
    # With one integer bit more, the same raw stands for twice the real.
    exponential = _exponential_of_negative(-np.abs(given), integer_bits + 1)
    one = 1 << 13
    positive = _saturating_shift_left(_half_of_reciprocal_of_one_plus(exponential) - one, 2)
    return np.where(given < 0, -positive, positive) * (given != 0)
