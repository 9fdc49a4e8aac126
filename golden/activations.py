"""Sigmoid and tanh of 16-bit raws as each circuit approximates them.

Inputs are raws of 16 bits with `integer_bits` integer and ``15 - integer_bits`` fraction bits
(Q3.12 for a gate); outputs are raws of 16 bits with the step 2^-15. Two kinds:

- *table*: linear interpolation in a table of 256 entries, one multiplication.
  Source: TensorFlow Lite Micro's 16-bit LOGISTIC and TANH.
- *gemmlowp*: exponential by a polynomial and a chain of constant factors, then a reciprocal by
  Newton's method, 15 to 19 multiplications of 16 bits. Source: gemmlowp's ``fixedpoint.h``, which
  LiteRT uses in its integer LSTM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from golden.arithmetic import (
    Raws,
    as_raws,
    rounding_shift_right,
    saturate,
    saturating_rounding_doubling_high_multiply,
)
from golden.parameter import parameter

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ActivationKind",
    "activation_parameter",
    "interpolation_table",
    "sigmoid_gemmlowp",
    "sigmoid_table",
    "tanh_gemmlowp",
    "tanh_table",
]

ActivationKind = Literal["table", "gemmlowp"]


def activation_parameter() -> Any:
    """The field ``activation`` of a contract."""
    return parameter(
        "table",
        "sigmoid and tanh: interpolated table, or LiteRT's gemmlowp polynomials",
        choices=get_args(ActivationKind),
    )


GATE_INTEGER_BITS = 3
HIGHEST_INTEGER_BITS = 6
_LOWEST, _HIGHEST = -(1 << 15), (1 << 15) - 1


def _words(raw: npt.ArrayLike) -> Raws:
    return as_raws(raw, "The raws of an activation", _LOWEST, _HIGHEST)


# Table and interpolation


@cache
def interpolation_table() -> Raws:
    """Table of ``sigmoid(i / 24)`` for i from 0 to 255, in steps of 2^-16.

    An entry is the function value raised by a sixteenth of ``|second derivative| / 24^2``, half of
    the most that a chord lies below the concave curve: the interpolated values are then as often
    too high as too low. The last is 65535 and is what the table saturates to.

    Returns
    -------
    Shape (256,), read-only.

    Source: the formula was fitted to TensorFlow Lite Micro's published ``sigmoid_table_uint16``
    and gives all of its 256 entries.
    """
    position = np.arange(256) / 24
    sigmoid = 1 / (1 + np.exp(-position))
    curvature = np.abs(sigmoid * (1 - sigmoid) * (1 - 2 * sigmoid))
    table = np.rint(65536 * (sigmoid + curvature / 24**2 / 16)).astype(np.int64)
    table[255] = 65535
    table.setflags(write=False)
    return table


def _interpolate(distance: Raws, fraction: int) -> Raws:
    """Height of the chord at `distance` table steps of ``2^fraction``, in 2^-(16+fraction).

    Beyond the table it is the last entry's.
    """
    table = interpolation_table()
    # The end of the last chord has that chord's height: no case of its own.
    within = np.minimum(distance, (len(table) - 1) << fraction)
    index = np.minimum(within >> fraction, len(table) - 2)
    part = within - (index << fraction)
    return (table[index] << fraction) + part * (table[index + 1] - table[index])


def sigmoid_table(raw: npt.ArrayLike) -> Raws:
    """Sigmoid of Q3.12 raws by table and interpolation.

    Monotone, and ``sigmoid(x) + sigmoid(-x) = 1`` exactly. The rounding to 2^-15 sends ties up for
    x at least 0, down below.

    Parameters
    ----------
    raw
        Raws of 16 bits with 12 fraction bits, any shape.

    Returns
    -------
    The shape of `raw`, from 11 to 32757, in steps of 2^-15.

    Error: at most 1.02 steps of 2^-15 against the real function.
    """
    # Times 24 for the table's steps, whose fraction is then 9 bits: 3/2^9 for each 2^-12.
    steps = 3 * _words(raw)
    # |steps| is at most 3 * 2^15 = 192 * 2^9: the end of the table is never reached.
    height = _interpolate(np.abs(steps), 9)
    return np.where(steps >= 0, (height + 512) >> 10, ((1 << 25) - height + 511) >> 10)


def tanh_table(raw: npt.ArrayLike, cell_exponent: int | None = None) -> Raws:
    """Tanh by ``2*sigmoid(2*x) - 1``, table and interpolation.

    Monotone; odd where `cell_exponent` is -12 or more. Below that the table's step is coarser than
    the input's, and the distance is rounded first, ties toward +infinity: ``tanh(x) + tanh(-x)`` is
    then from 0 to 3 steps. The rounding of the result sends ties away from zero.

    Parameters
    ----------
    raw
        Raws of 16 bits, any shape, with the step ``2^cell_exponent``.
    cell_exponent
        From -15 to -9; None for a gate, whose step is 2^-12.

    Returns
    -------
    The shape of `raw`, in steps of 2^-15.

    Error against the real function, in steps of 2^-15: at most 1.48 for a gate, for a cell 1.29
    (exponent -9) to 2.45 (exponent -13 and below).
    """
    words = _words(raw)
    exponent = GATE_INTEGER_BITS - 15 if cell_exponent is None else cell_exponent
    _check_integer_bits(15 + exponent)
    left = exponent + 12
    right = max(-left, 0)
    steps = (words * (3 << max(left, 0)) + ((1 << right) >> 1)) >> right
    height = _interpolate(np.abs(steps), 8)
    one = 1 << 23
    return np.where(steps >= 0, (height - one + 128) >> 8, (one - height + 127) >> 8)


# gemmlowp


def _multiply(a: npt.ArrayLike, b: npt.ArrayLike) -> Raws:
    return saturating_rounding_doubling_high_multiply(a, b, 16)


def _constant(word: int) -> int:
    """16-bit form of a 32-bit fixed-point constant; ties away from zero."""
    return int(rounding_shift_right(word, 16))


def _saturating_shift_left(raw: Raws, shift: int) -> Raws:
    """``raw * 2^shift``, saturated to 16 bits.

    The lowest value that the threshold lets through is one step above the lowest word.
    """
    threshold = (1 << (15 - shift)) - 1
    shifted = np.where(raw > threshold, _HIGHEST, raw << shift)
    return np.where(raw < -threshold, _LOWEST, shifted)


# exp(-2^k) for k from -2 to 4, in steps of 2^-31.
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
    """Exponential of raws of at most 0 with `integer_bits` integer bits, in steps of 2^-15.

    The remainder in [-1/4, 0) goes through a polynomial of degree 4 around -1/8; each higher bit
    of the distance contributes a constant factor.
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
    return np.where(raw == 0, _HIGHEST, result)


def _half_of_reciprocal_of_one_plus(raw: Raws) -> Raws:
    """``1 / (1 + raw)`` for raws of 2^-15 in [0, 1), in steps of 2^-14; three Newton steps."""
    half_denominator = (raw + (1 << 15)) >> 1
    x = _48_SEVENTEENTHS + _multiply(half_denominator, _MINUS_32_SEVENTEENTHS)
    for _ in range(3):
        rest = (1 << 13) - _multiply(half_denominator, x)
        x = x + _saturating_shift_left(_multiply(x, rest), 2)
    return x


def sigmoid_gemmlowp(raw: npt.ArrayLike) -> Raws:
    """Sigmoid of Q3.12 raws as gemmlowp computes it.

    Not monotone everywhere; ``sigmoid(-x) = 32767 - sigmoid(x)`` in raws but for 0, which gives
    16384.

    Parameters
    ----------
    raw
        Raws of 16 bits with 12 fraction bits, any shape.

    Returns
    -------
    The shape of `raw`, from 11 to 32756, in steps of 2^-15.

    Error: at most 6.4 steps of 2^-15 against the real function.
    """
    words = _words(raw)
    exponential = _exponential_of_negative(-np.abs(words), GATE_INTEGER_BITS)
    positive = _saturating_shift_left(_half_of_reciprocal_of_one_plus(exponential), 1)
    result = np.where(words < 0, _HIGHEST - positive, positive)
    return np.where(words == 0, 1 << 14, result)


def tanh_gemmlowp(raw: npt.ArrayLike, integer_bits: int) -> Raws:
    """Tanh of 16-bit raws as gemmlowp computes it: ``2 / (1 + exp(-2x)) - 1``.

    Odd; monotone for 6 integer bits only.

    Parameters
    ----------
    raw
        Raws of 16 bits with ``15 - integer_bits`` fraction bits, any shape.
    integer_bits
        From 0 to 6; 3 for a gate.

    Returns
    -------
    The shape of `raw`, in steps of 2^-15.

    Error: at most 12.05 steps of 2^-15 against the real function.
    """
    words = _words(raw)
    _check_integer_bits(integer_bits)
    # One integer bit more reads the same raw as twice the value.
    exponential = _exponential_of_negative(-np.abs(words), integer_bits + 1)
    one = 1 << 13
    positive = _saturating_shift_left(_half_of_reciprocal_of_one_plus(exponential) - one, 2)
    return np.where(words < 0, -positive, positive) * (words != 0)


def _check_integer_bits(integer_bits: int) -> None:
    if not 0 <= integer_bits <= HIGHEST_INTEGER_BITS:
        raise ValueError(
            f"integer_bits must be from 0 to {HIGHEST_INTEGER_BITS} "
            f"(a cell exponent from -15 to -9), not {integer_bits}."
        )


@dataclass(frozen=True)
class Activation:
    """One way to approximate both functions, looked up among all 65,536 results.

    The results are computed once, by the two functions, on first use; a look-up is then as cheap
    for either kind, and takes `integer_bits` by element.

    Parameters
    ----------
    kind
        Its name in `ACTIVATIONS`.
    sigmoid_of
        Sigmoid of Q3.12 raws.
    tanh_of
        Tanh of raws with the integer bits in its second operand.
    """

    kind: ActivationKind
    sigmoid_of: Callable[[Raws], Raws]
    tanh_of: Callable[[Raws, int], Raws]

    @cached_property
    def _sigmoids(self) -> Raws:
        return self.sigmoid_of(np.arange(_LOWEST, _HIGHEST + 1))

    @cached_property
    def _tanhs(self) -> Raws:
        every = np.arange(_LOWEST, _HIGHEST + 1)
        return np.stack([self.tanh_of(every, bits) for bits in range(HIGHEST_INTEGER_BITS + 1)])

    def sigmoid(self, raw: npt.ArrayLike) -> Raws:
        """Sigmoid of Q3.12 raws of any shape, in steps of 2^-15."""
        return self._sigmoids[_words(raw) - _LOWEST]

    def tanh(self, raw: npt.ArrayLike, integer_bits: npt.ArrayLike = GATE_INTEGER_BITS) -> Raws:
        """Tanh of 16-bit raws, in steps of 2^-15.

        Parameters
        ----------
        raw
            Raws with ``15 - integer_bits`` fraction bits, any shape.
        integer_bits
            From 0 to 6; broadcasts with `raw`.

        Returns
        -------
        The broadcast shape.
        """
        bits = as_raws(integer_bits, "integer_bits", 0, HIGHEST_INTEGER_BITS)
        return self._tanhs[bits, _words(raw) - _LOWEST]


ACTIVATIONS: dict[ActivationKind, Activation] = {
    "table": Activation("table", sigmoid_table, lambda raw, bits: tanh_table(raw, bits - 15)),
    "gemmlowp": Activation("gemmlowp", sigmoid_gemmlowp, tanh_gemmlowp),
}
