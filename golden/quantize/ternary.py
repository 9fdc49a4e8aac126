"""Quantisers of real weights: to binary, ternary, power-of-two and exponential ones.

====================  ==================  ==================  ==================================
quantiser             scale               levels              rule for a real weight w
====================  ==================  ==================  ==================================
`ardakani_binary`     sqrt(6/(n + 4h))/2  -1, 1               1 where w >= 0
`ardakani_ternary`    sqrt(6/(n + 4h))/2  -1, 0, 1            [w > -scale/3] + [w > scale/3] - 1
`ott_binary`          1                   -1, 1               1 where w >= 0
`ott_ternary`         sqrt(6/(n + h))     -1, 0, 1            [w > -scale/2] + [w > scale/2] - 1
`power_of_two`        2^-f                -2^(m + f) + 1 ...  nearest, ties away from zero
`exponential`         none                ±2^-22 ... ±2^10    nearest, ties toward zero
`normalized_ternary`  one a row           -1, 0, 1            0 where abs(w) <= 0.7 mean(abs(w))
====================  ==================  ==================  ==================================

Here n is the length of a row (the number of inputs or of hidden units), and h is the number of
hidden units. A weight equal to a negative threshold gives -1, one equal to a positive threshold
gives 0. Thresholds are doubles: scale/3, scale/2 and 0.7 mean, each rounded to nearest.

With a random generator the first four quantisers and the exponential one sample instead. A binary
level is 1 with the probability (w/scale + 1)/2, else -1. A ternary level is sign(w) with the
probability abs(w)/scale, else 0. Both probabilities are saturated to 0...1. Inside ±scale the
expected value is w; that of the exponential quantiser is w from 2^-22 to 2^10. A circuit holds one
sample.

The thresholds of `normalized_ternary` for more than one magnitude are in
`fewbit.golden.quantize.pow2`.

`ardakani_binary`, `ardakani_ternary` and `normalized_ternary` quantise networks that are already
trained. The other quantisers and all samples are for training at few bits, where each step
quantises anew: they say in numpy what a trainer has to compute.

Sources: Ardakani, Ji, Smithson, Meyer and Gross, "Learning recurrent binary/ternary weights",
arXiv 1809.11086; Ott, Lin, Zhang, Liu and Bengio, "Recurrent neural networks with limited numerical
precision", arXiv 1608.06902; Hou, Zhu, Kwok, Gao, Qin and Liu, "Normalization helps training of
quantized LSTM", NeurIPS 2019; ties as in the code that the authors released.
"""

import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import Raws
from fewbit.golden.lstm.float64 import WEIGHT_AXES, Reals

__all__ = [
    "HIGHEST_EXPONENT",
    "LOWEST_EXPONENT",
    "NORMALIZED_THRESHOLD",
    "ExponentialWeights",
    "ScaledWeights",
    "ardakani_binary",
    "ardakani_scale",
    "ardakani_ternary",
    "binary",
    "exponential",
    "matrices",
    "normalized_ternary",
    "ott_binary",
    "ott_scale",
    "ott_ternary",
    "power_of_two",
    "round_half_away",
    "sample_binary",
    "sample_ternary",
    "ternary",
    "weight_norm_scales",
]

LOWEST_EXPONENT = -22
HIGHEST_EXPONENT = 10
"""Largest exponent; the paper's limit of 9 applies before the exponent is rounded up."""
_MOST_BITS = 15
NORMALIZED_THRESHOLD = 0.7
"""Threshold of `normalized_ternary`, in mean magnitudes of a gate's matrix."""


@dataclass(frozen=True, eq=False)
class ScaledWeights:
    """Integer levels times a real scale, one for all or one for each row.

    Arrays are copied and made read-only.

    Parameters
    ----------
    levels
        Integers, shape (..., row, operand).
    scale
        Real numbers of at least 0: one, or shape (..., row).

    Raises
    ------
    ValueError
        If a shape or a type is wrong, or a scale is negative or not finite.
    """

    levels: Raws
    scale: Reals

    def __post_init__(self) -> None:
        """Check shapes, types and ranges of both fields."""
        levels, scale = np.array(self.levels), np.array(self.scale)
        if levels.dtype.kind not in "iu" or levels.ndim == 0:
            raise ValueError(
                "levels must be integers of shape (..., row, operand), not "
                f"{levels.dtype} of shape {levels.shape}."
            )
        if scale.dtype.kind not in "iuf" or scale.shape not in {(), levels.shape[:-1]}:
            raise ValueError(
                f"scale must be one real number, or have the shape {levels.shape[:-1]}, not "
                f"{scale.dtype} of shape {scale.shape}."
            )
        wrong = ~((scale >= 0) & np.isfinite(scale))
        if wrong.any():
            raise ValueError(f"scale must be finite and at least 0, not {scale[wrong][0]}.")
        for name, kept in (("levels", levels.astype(np.int64)), ("scale", scale.astype(float))):
            kept.setflags(write=False)
            object.__setattr__(self, name, kept)

    @property
    def row_scales(self) -> Reals:
        """Return the scale of each row, shape (..., row)."""
        return np.broadcast_to(self.scale, self.levels.shape[:-1])

    @property
    def reals(self) -> Reals:
        """Return the real weights, shape (..., row, operand)."""
        return self.levels * self.row_scales[..., np.newaxis]


@dataclass(frozen=True, eq=False)
class ExponentialWeights:
    """Weights ``signs * 2^exponents``: each is a shift, and none is zero.

    Parameters
    ----------
    signs
        -1 or 1, any shape.
    exponents
        From -22 to 10, the same shape.
    """

    signs: Raws
    exponents: Raws

    @property
    def reals(self) -> Reals:
        """Return the real weights, in the shape of `signs`."""
        return np.ldexp(self.signs.astype(np.float64), self.exponents)


def _finite(weights: npt.ArrayLike) -> Reals:
    given = np.asarray(weights)
    if given.dtype.kind not in "iuf":
        raise ValueError(f"weights must be real numbers, not {given.dtype}.")
    if not np.isfinite(given).all():
        raise ValueError(f"weights must be finite, not {given[~np.isfinite(given)][0]}.")
    return given.astype(np.float64)


def matrices(weights: npt.ArrayLike) -> Reals:
    """Return weights as float64, or refuse any that are not finite reals of three axes."""
    given = _finite(weights)
    if given.ndim != len(WEIGHT_AXES) or 0 in given.shape:
        raise ValueError(
            f"weights must have the shape (gate, unit, operand), none of them 0, not {given.shape}."
        )
    return given


def _check_scale(scale: float) -> None:
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a finite number above 0, not {scale}.")


def _check_size(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, not {value!r}.")


def _happens(probability: Reals, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return whether each event happens: never at probability 0 or below, always at 1 or above."""
    return generator.random(probability.shape) < probability


def round_half_away(reals: npt.ArrayLike) -> Reals:
    """Return the nearest integers, ties away from zero: ``rnd`` of arXiv 1608.06902, C's ``round``.

    Parameters
    ----------
    reals
        Any shape.
    """
    values = np.asarray(reals, np.float64)
    # The fraction is exact, while the sum of a real and a half would not always be.
    fraction, whole = np.modf(values)
    return whole + np.where(np.abs(fraction) >= 0.5, np.sign(values), 0.0)


def ardakani_scale(operands: int, hidden: int) -> float:
    """Return ``sqrt(6/(operands + 4 hidden))/2``, the fixed scale of a matrix in arXiv 1809.11086.

    Parameters
    ----------
    operands
        Length of a row: the inputs, or for the recurrent weights `hidden`.
    hidden
        Units of the layer.
    """
    _check_size("operands", operands)
    _check_size("hidden", hidden)
    return math.sqrt(6 / (operands + 4 * hidden)) / 2


def ott_scale(operands: int, hidden: int) -> float:
    """Return ``sqrt(6/(operands + hidden))``, the scale of ternary weights in arXiv 1608.06902.

    Parameters
    ----------
    operands
        Length of a row: the inputs, or for the recurrent weights `hidden`.
    hidden
        Units of the layer.
    """
    _check_size("operands", operands)
    _check_size("hidden", hidden)
    return math.sqrt(6 / (operands + hidden))


def binary(weights: npt.ArrayLike, scale: float) -> ScaledWeights:
    """Return levels that are 1 where a weight is at least 0, else -1.

    Parameters
    ----------
    weights
        Reals, any shape but ().
    scale
        Scale of the result, above 0.
    """
    _check_scale(scale)
    return ScaledWeights(np.where(_finite(weights) >= 0, 1, -1), np.asarray(scale))


def sample_binary(
    weights: npt.ArrayLike, scale: float, generator: np.random.Generator
) -> ScaledWeights:
    """Return random levels: 1 with the probability (w/scale + 1)/2, saturated to 0...1, else -1.

    Parameters
    ----------
    weights
        Reals, any shape but ().
    scale
        Scale of the result, above 0.
    generator
        One number of it is used for each weight.
    """
    _check_scale(scale)
    with np.errstate(over="ignore"):
        probability = (_finite(weights) / scale + 1) / 2
    return ScaledWeights(np.where(_happens(probability, generator), 1, -1), np.asarray(scale))


def ternary(weights: npt.ArrayLike, scale: float, threshold: float) -> ScaledWeights:
    """Return the levels ``[w > -threshold] + [w > threshold] - 1``.

    So a weight of -threshold gives -1, and a weight of threshold gives 0.

    Parameters
    ----------
    weights
        Reals, any shape but ().
    scale
        Scale of the result, above 0.
    threshold
        At least 0.
    """
    _check_scale(scale)
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be a finite number of at least 0, not {threshold}.")
    values = _finite(weights)
    levels = (values > -threshold).astype(np.int64) + (values > threshold) - 1
    return ScaledWeights(levels, np.asarray(scale))


def sample_ternary(
    weights: npt.ArrayLike, scale: float, generator: np.random.Generator
) -> ScaledWeights:
    """Return random levels: sign(w) with the probability abs(w)/scale, saturated to 1, else 0.

    Parameters
    ----------
    weights
        Reals, any shape but ().
    scale
        Scale of the result, above 0.
    generator
        One number of it is used for each weight.
    """
    _check_scale(scale)
    values = _finite(weights)
    with np.errstate(over="ignore"):
        probability = np.abs(values) / scale
    kept = _happens(probability, generator)
    return ScaledWeights(np.where(kept, np.sign(values), 0).astype(np.int64), np.asarray(scale))


def ardakani_binary(
    weights: npt.ArrayLike, generator: np.random.Generator | None = None
) -> ScaledWeights:
    """Return the binary weights of arXiv 1809.11086.

    Parameters
    ----------
    weights
        All gates' input weights or recurrent weights, shape (4, hidden, operands).
    generator
        To sample; None for the deterministic rule.
    """
    values = matrices(weights)
    scale = ardakani_scale(values.shape[-1], values.shape[-2])
    return binary(values, scale) if generator is None else sample_binary(values, scale, generator)


def _ternary_of_matrices(
    values: Reals, scale: float, part: int, generator: np.random.Generator | None
) -> ScaledWeights:
    """Ternary weights with a threshold of ``scale/part``, or samples, which have none."""
    if generator is None:
        return ternary(values, scale, scale / part)
    return sample_ternary(values, scale, generator)


def ardakani_ternary(
    weights: npt.ArrayLike, generator: np.random.Generator | None = None
) -> ScaledWeights:
    """Return the ternary weights of arXiv 1809.11086, whose threshold is a third of the scale.

    Parameters
    ----------
    weights
        All gates' input weights or recurrent weights, shape (4, hidden, operands).
    generator
        To sample; None for the deterministic rule.
    """
    values = matrices(weights)
    scale = ardakani_scale(values.shape[-1], values.shape[-2])
    return _ternary_of_matrices(values, scale, 3, generator)


def ott_binary(
    weights: npt.ArrayLike, generator: np.random.Generator | None = None
) -> ScaledWeights:
    """Return the binary weights of arXiv 1608.06902, -1 and 1.

    The deterministic rule is the exact one: the authors' floats, which add 1 first, also give 1 for
    the nearest negatives.

    Parameters
    ----------
    weights
        Any shape but ().
    generator
        To sample; None for the deterministic rule.
    """
    return binary(weights, 1.0) if generator is None else sample_binary(weights, 1.0, generator)


def ott_ternary(
    weights: npt.ArrayLike, generator: np.random.Generator | None = None
) -> ScaledWeights:
    """Return the ternary weights of arXiv 1608.06902, whose threshold is half the scale.

    Parameters
    ----------
    weights
        All gates' input weights or recurrent weights, shape (4, hidden, operands).
    generator
        To sample; None for the deterministic rule.
    """
    values = matrices(weights)
    scale = ott_scale(values.shape[-1], values.shape[-2])
    return _ternary_of_matrices(values, scale, 2, generator)


def power_of_two(weights: npt.ArrayLike, integer_bits: int = 0, fraction: int = 1) -> ScaledWeights:
    """Return fixed-point weights Qm.f with a symmetric range: ``w 2^f``, ties away from zero.

    With one bit in all, m + f = 1, the levels are ternary: m = 0 and f = 1 give -1/2, 0 and 1/2,
    where abs(w) = 1/4 is a tie and gives 1/2.

    Parameters
    ----------
    weights
        Reals, any shape but ().
    integer_bits
        m, at least 0.
    fraction
        f, at least 0; m + f from 1 to 15.

    Returns
    -------
    Levels from -(2^(m + f) - 1) to 2^(m + f) - 1, and the scale 2^-f.
    """
    for name, value in (("integer_bits", integer_bits), ("fraction", fraction)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0, not {value!r}.")
    bits = integer_bits + fraction
    if not 1 <= bits <= _MOST_BITS:
        raise ValueError(
            f"integer_bits and fraction must sum to 1 to {_MOST_BITS}, not "
            f"{integer_bits} + {fraction}."
        )
    largest = (1 << bits) - 1
    # Saturating first is right, as no rounding crosses the largest level, and catches infinities.
    with np.errstate(over="ignore"):
        scaled = np.clip(np.ldexp(_finite(weights), fraction), -largest, largest)
    return ScaledWeights(round_half_away(scaled).astype(np.int64), np.asarray(2.0**-fraction))


def exponential(
    weights: npt.ArrayLike, generator: np.random.Generator | None = None
) -> ExponentialWeights:
    """Return weights that are signed powers of two, a shift for each.

    With e = floor(log2(abs(w))), saturated to -22...9, and p = abs(w)/2^e - 1, the exponent is
    e + 1 where p > 1/2, so that 1.5 * 2^e stays at e; sampled, it is e + 1 with the probability p,
    saturated to 0...1. There is no zero level: weights nearer to zero become 2^-22 with their sign,
    and 0 itself becomes -2^-22, as in the authors' code.

    Parameters
    ----------
    weights
        Reals, any shape.
    generator
        To sample; None for the deterministic rule.
    """
    values = _finite(weights)
    magnitudes = np.abs(values)
    # frexp's fraction is from 1/2 to 1: its exponent is one more than the floor of the logarithm.
    floors = np.where(magnitudes > 0, np.frexp(magnitudes)[1] - 1, LOWEST_EXPONENT)
    low = np.clip(floors, LOWEST_EXPONENT, HIGHEST_EXPONENT - 1).astype(np.int64)
    with np.errstate(over="ignore"):
        probability = np.ldexp(magnitudes, -low) - 1
    up = probability > 0.5 if generator is None else _happens(probability, generator)
    return ExponentialWeights(np.where(values > 0, 1, -1), low + up)


def weight_norm_scales(squares: npt.ArrayLike, gains: npt.ArrayLike) -> Reals:
    """Return the scales of rows at which their norms are `gains`; 0 for rows of levels 0.

    Parameters
    ----------
    squares
        Sum of the squared levels of each row, integers of any shape.
    gains
        Norm of each row, at least 0, the same shape.
    """
    sums, norms = np.asarray(squares), np.asarray(gains)
    if norms.dtype.kind not in "iuf" or norms.shape != sums.shape:
        raise ValueError(
            f"gains must be real numbers of shape {sums.shape}, not "
            f"{norms.dtype} of shape {norms.shape}."
        )
    return np.where(sums > 0, norms / np.sqrt(np.maximum(sums, 1)), 0.0)


def normalized_ternary(weights: npt.ArrayLike, gains: npt.ArrayLike | None = None) -> ScaledWeights:
    """Return ternary weights with a scale for each row.

    The level is sign(w) where abs(w) > 0.7 mean(abs(w)), else 0; the mean is that of a gate's
    matrix. Without `gains` the scale of a row is the mean magnitude of its weights whose level is
    not 0, which has the least squared error for these levels. With `gains` the scale is that of a
    weight norm over the levels, gain/sqrt(number of levels that are not 0). A row of levels 0 has
    the scale 0.

    Parameters
    ----------
    weights
        Shape (gate, unit, operand).
    gains
        Norm of each row, shape (gate, unit), at least 0.

    Source: arXiv 1605.04711 for threshold and least squares; NeurIPS 2019 for the norm, whose code
    adds 1e-8 to the root, which is left out here.
    """
    values = matrices(weights)
    magnitudes = np.abs(values)
    threshold = NORMALIZED_THRESHOLD * magnitudes.mean(axis=(-2, -1), keepdims=True)
    kept = magnitudes > threshold
    counts = kept.sum(axis=-1)
    if gains is None:
        scale = np.where(kept, magnitudes, 0.0).sum(axis=-1) / np.maximum(counts, 1)
    else:
        scale = weight_norm_scales(counts, gains)
    return ScaledWeights(np.where(kept, np.sign(values), 0).astype(np.int64), scale)
