"""The quantiser of power-of-two weights for training: levels by the mean magnitude of a matrix.

A level is 0 or ±2^e, e from 0 to exponents - 1, the nearest to the weight in units u, ties toward
zero. The unit follows from the matrix: the largest level stands for twice the threshold of
`fewbit.golden.quantize.ternary.normalized_ternary`, u 2^(exponents - 1) = 1.4 mean(abs(w)). With
one magnitude this rule is that one.

Like a ternary rule it looks at no errors, so a training can apply it anew at every step. For
networks that are trained already, the least squares of `fewbit.golden.quantize.ternary_lstm` err
less.

Source: Hou, Zhu, Kwok, Gao, Qin and Liu, "Normalization helps training of quantized LSTM",
NeurIPS 2019, for one magnitude; more of them are this project's.
"""

from numbers import Integral

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import Raws
from fewbit.golden.lstm.float64 import Reals
from fewbit.golden.lstm.ternary import MOST_EXPONENTS
from fewbit.golden.quantize.ternary import (
    NORMALIZED_THRESHOLD,
    ScaledWeights,
    matrices,
    weight_norm_scales,
)

__all__ = ["normalized_pow2", "normalized_thresholds"]


def normalized_thresholds(means: npt.ArrayLike, exponents: int = MOST_EXPONENTS) -> Reals:
    """Return the magnitudes above which the level of a gate's weight rises by one place.

    They are the doubles nearest to 1/2, 3/2, 3 and 6 units, where the unit is an exact fraction of
    the double nearest to 0.7 times the mean.

    Parameters
    ----------
    means
        Mean magnitude of each gate's matrix, shape (gate,).
    exponents
        Number of magnitudes of levels, 1 to 4.

    Returns
    -------
    Shape (gate, exponents), ascending.
    """
    if (
        isinstance(exponents, bool)
        or not isinstance(exponents, Integral)
        or not 1 <= exponents <= MOST_EXPONENTS
    ):
        raise ValueError(f"exponents must be from 1 to {MOST_EXPONENTS}, not {exponents!r}.")
    count = int(exponents)
    middle = NORMALIZED_THRESHOLD * np.asarray(means, np.float64)
    half_units = np.array([1.0, 3.0, 6.0, 12.0])[:count]
    return np.ldexp(middle, 1 - count)[:, np.newaxis] * half_units


def normalized_pow2(
    weights: npt.ArrayLike,
    exponents: int = MOST_EXPONENTS,
    gains: npt.ArrayLike | None = None,
) -> ScaledWeights:
    """Return power-of-two weights with a scale for each row.

    Without `gains` the scale of a row is the one with the least squared error for its levels. With
    `gains` it is that of a weight norm over the levels, gain/sqrt(sum of their squares). A row of
    levels 0 has the scale 0.

    Parameters
    ----------
    weights
        Shape (gate, unit, operand).
    exponents
        Number of magnitudes of levels, 1 to 4.
    gains
        Norm of each row, shape (gate, unit), at least 0.
    """
    values = matrices(weights)
    magnitudes = np.abs(values)
    means = magnitudes.mean(axis=(-2, -1))
    thresholds = normalized_thresholds(means, exponents)[:, np.newaxis, np.newaxis]
    passed: Raws = (magnitudes[..., np.newaxis] > thresholds).sum(axis=-1)
    sizes: Raws = np.left_shift(1, passed) >> 1
    squares = (sizes**2).sum(axis=-1)
    if gains is None:
        scale = (sizes * magnitudes).sum(axis=-1) / np.maximum(squares, 1)
    else:
        scale = weight_norm_scales(squares, gains)
    return ScaledWeights(np.where(values < 0, -sizes, sizes), scale)
