"""Sigmoid and tanh of the FloatSD8 LSTM: the nearest value of their grids for every binary16 code.

A FloatSD8 gate value is quantised like a weight. The grid is fine near 0 and coarse near 1, so the
sigmoid is represented in two regions: by q = Q(sigmoid(x)) for x <= 0, and by 1 - q with
q = Q(sigmoid(-x)) for x > 0. In both regions q is from 0 to 0.5. A product of a gate value and a
factor is then q times the factor, or the factor minus q times the factor.

Inputs are binary16 codes; exponent 31, which IEEE 754 keeps for infinities and NaN, is one more
octave of finite values.

Source: arXiv 2001.08450 for the two regions and the formats; the rounding is this project's.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from fewbit.golden.formats import BINARY16, FloatSD8, Minifloat

__all__ = ["ACCUMULATOR_FORMAT", "GATE_FORMAT", "HIDDEN_FORMAT", "sigmoid_floatsd8", "tanh_e5m2"]

Codes = npt.NDArray[np.int64]

GATE_FORMAT = FloatSD8(11)
"""Format of q, from 2^-11 to 0.5. Bias 12 would have FloatSD8's one wide gap below 0.5."""
HIDDEN_FORMAT = Minifloat(5, 2, bias=15)
"""Format of tanh and of hidden values."""
ACCUMULATOR_FORMAT = Minifloat(5, 10, bias=15)
"""Format of pre-activations and cells: binary16 with exponent 31 as one more octave."""


def sigmoid_floatsd8(codes: npt.ArrayLike) -> tuple[Codes, Codes]:
    """Return the sigmoid of binary16 codes in two regions: q, or 1 - q where p is 1.

    Parameters
    ----------
    codes
        binary16 codes, any shape.

    Returns
    -------
    q
        Canonical codes of `GATE_FORMAT`, nearest to sigmoid(-abs(x)), ties to the even index. No x
        but zero gives a tie, and there 0.5 is exact.
    p
        1 where x > 0, else 0; both zeros give 0.

    Error: at most 2^-5, half the distance of the grid's values from 0.3125 to 0.5.
    """
    table, positive = _sigmoid_table()
    array = BINARY16.check(codes)
    return table[array], positive[array]


def tanh_e5m2(codes: npt.ArrayLike) -> Codes:
    """Return the `HIDDEN_FORMAT` codes nearest to tanh(x) of binary16 codes, with x's sign bit.

    Error: at most 2^-4, and a ninth of tanh(x) where that is a normal number.

    Parameters
    ----------
    codes
        binary16 codes, any shape.
    """
    return _tanh_table()[BINARY16.check(codes)]


@cache
def _reals() -> npt.NDArray[np.float64]:
    return ACCUMULATOR_FORMAT.decode(np.arange(1 << 16))


@cache
def _sigmoid_table() -> tuple[Codes, Codes]:
    # 1/(1 + exp(x)) without overflow; float64 is far finer than any distance to a midpoint.
    q = GATE_FORMAT.encode(np.exp(-np.logaddexp(0.0, np.abs(_reals()))))
    return _frozen(q), _frozen(np.greater(_reals(), 0).astype(np.int64))


@cache
def _tanh_table() -> Codes:
    return _frozen(HIDDEN_FORMAT.encode(np.tanh(_reals())))


def _frozen(table: Codes) -> Codes:
    table.setflags(write=False)
    return table
