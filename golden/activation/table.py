"""Sigmoid and tanh by linear interpolation in a table of 256 entries, with one multiplication.

Inputs are raws of 16 bits with `integer_bits` integer and ``15 - integer_bits`` fraction bits
(Q3.12 for a gate); outputs are raws of 16 bits in units of 2^-15.

Source: TensorFlow Lite Micro's 16-bit LOGISTIC and TANH.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.words import GATE_INTEGER_BITS, check_integer_bits, words
from fewbit.golden.arithmetic import Raws

__all__ = ["interpolation_table", "sigmoid_table", "tanh_table"]


@cache
def interpolation_table() -> Raws:
    """Return the table of ``sigmoid(i / 24)`` for i from 0 to 255, in units of 2^-16.

    Each entry is the function value plus a sixteenth of ``|second derivative| / 24^2``, which is
    half the largest distance of a chord below the concave curve. Interpolated values are then as
    often too high as too low. The last entry, 65535, is the value beyond the table.

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
    """Return the chord's height at `distance`, which counts table steps in units of 2^-fraction.

    The height is in units of 2^-(16 + fraction). Beyond the table it is the last entry's.
    """
    table = interpolation_table()
    # A point at the end of the last chord has that chord's height, so it is no special case.
    within = np.minimum(distance, (len(table) - 1) << fraction)
    index = np.minimum(within >> fraction, len(table) - 2)
    part = within - (index << fraction)
    return (table[index] << fraction) + part * (table[index + 1] - table[index])


def sigmoid_table(raw: npt.ArrayLike) -> Raws:
    """Return the sigmoid of Q3.12 raws, by table and interpolation.

    The function is monotone, and ``sigmoid(x) + sigmoid(-x) = 1`` exactly. The rounding to 2^-15
    sends ties up where x is at least 0, and down where x is negative.

    Parameters
    ----------
    raw
        Raws of 16 bits with 12 fraction bits, any shape.

    Returns
    -------
    The shape of `raw`, from 11 to 32757, in units of 2^-15.

    Error: at most 1.02 units of 2^-15 against the real function.
    """
    # Times 24 for the table's steps, whose fraction is then 9 bits: 3/2^9 for each 2^-12.
    steps = 3 * words(raw)
    # |steps| is at most 3 * 2^15 = 192 * 2^9: the end of the table is never reached.
    height = _interpolate(np.abs(steps), 9)
    return np.where(steps >= 0, (height + 512) >> 10, ((1 << 25) - height + 511) >> 10)


def tanh_table(raw: npt.ArrayLike, cell_exponent: int | None = None) -> Raws:
    """Return tanh of raws as ``2*sigmoid(2*x) - 1``, by table and interpolation.

    The function is monotone, and odd where `cell_exponent` is -12 or more. Below -12 the table's
    resolution is coarser than the input's, so the distance is rounded first, ties toward +infinity;
    ``tanh(x) + tanh(-x)`` is then from 0 to 3 units of 2^-15. The rounding of the result sends ties
    away from zero.

    Parameters
    ----------
    raw
        Raws of 16 bits, any shape, with the resolution ``2^cell_exponent``.
    cell_exponent
        From -15 to -9; None for a gate, whose resolution is 2^-12.

    Returns
    -------
    The shape of `raw`, in units of 2^-15.

    Error against the real function, in units of 2^-15: at most 1.48 for a gate, for a cell 1.29
    (exponent -9) to 2.45 (exponent -13 and below).
    """
    given = words(raw)
    exponent = GATE_INTEGER_BITS - 15 if cell_exponent is None else cell_exponent
    check_integer_bits(15 + exponent)
    left = exponent + 12
    right = max(-left, 0)
    steps = (given * (3 << max(left, 0)) + ((1 << right) >> 1)) >> right
    height = _interpolate(np.abs(steps), 8)
    one = 1 << 23
    return np.where(steps >= 0, (height - one + 128) >> 8, (one - height + 127) >> 8)
