"""The quantiser of power-of-two weights for training, against its rule written on fractions."""

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.lstm.ternary import levels_of
from fewbit.golden.quantize.pow2 import normalized_pow2, normalized_thresholds
from fewbit.golden.quantize.ternary import normalized_ternary

SHAPE = (4, 7, 12)


def means_of(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The mean magnitude of each gate's matrix."""
    return np.abs(weights.astype(np.float64)).mean(axis=(-2, -1))


def exact_level(weight: Fraction, unit: Fraction, exponents: int) -> int:
    """The nearest level; of two, the smaller in magnitude."""
    levels = levels_of("pow2", exponents)
    return min(levels, key=lambda level: (abs(weight - level * unit), abs(level)))


def with_unit(exponents: int, seed: int) -> npt.NDArray[np.float64]:
    """A matrix whose mean magnitude is 1, with weights at and around all middles of levels."""
    unit = Fraction(1.4) / 2 ** (exponents - 1)
    middles = [unit / 2, *(unit * 3 * 2**index / 2 for index in range(exponents - 1))]
    points = [float(middle) for middle in middles]
    around = [np.nextafter(p, end) for p in points for end in (-np.inf, p, np.inf)]
    both = [sign * value for value in around for sign in (1, -1)]
    row = np.array([*both, *np.random.default_rng(seed).uniform(-0.2, 0.2, 6), 0.0, -0.0, 0.0])
    row[-1] = len(row) - np.abs(row).sum()
    matrix = np.tile(row, (4, 2, 1))
    assert np.abs(matrix[0]).mean() == 1.0
    return matrix


@pytest.mark.parametrize("exponents", [1, 2, 3, 4])
def test_levels_on_and_beside_ties(exponents: int) -> None:
    weights = with_unit(exponents, 3)
    quantised = normalized_pow2(weights, exponents)
    thresholds = normalized_thresholds(means_of(weights), exponents)
    # A weight that is the double nearest to a middle counts as a tie: the thresholds are doubles.
    for gate, row in enumerate(weights[:, 0]):
        for weight, level in zip(row.tolist(), quantised.levels[gate, 0].tolist(), strict=True):
            passed = sum(abs(weight) > threshold for threshold in thresholds[gate].tolist())
            assert level == (1 if weight > 0 else -1) * ((1 << passed) >> 1)
    unit = Fraction(1.4) / 2 ** (exponents - 1)
    middles = [unit / 2, *(unit * 3 * 2**index / 2 for index in range(exponents - 1))]
    assert thresholds[0].tolist() == [float(middle) for middle in middles]


@pytest.mark.parametrize("exponents", [1, 2, 3, 4])
def test_levels_by_fractions(exponents: int) -> None:
    weights = np.random.default_rng(exponents).normal(
        0, [[[1.0]], [[0.1]], [[3.0]], [[1e-9]]], SHAPE
    )
    quantised = normalized_pow2(weights, exponents)
    for matrix, levels in zip(weights, quantised.levels, strict=True):
        mean = sum(Fraction(abs(w)) for w in matrix.ravel().tolist()) / matrix.size
        unit = Fraction(14, 10) * mean / 2 ** (exponents - 1)
        exact = [exact_level(Fraction(w), unit, exponents) for w in matrix.ravel().tolist()]
        assert levels.ravel().tolist() == exact
    assert set(np.unique(quantised.levels).tolist()) == set(levels_of("pow2", exponents))


def test_by_hand() -> None:
    """Magnitudes with the mean 1: the unit is 1.4/8 = 0.175, the middles 0.0875, 0.2625, ..."""
    weights = np.array([[[0.08, -0.09, 0.26, 0.27], [-0.52, 0.53, 1.04, 5.21]]])
    assert np.abs(weights).mean() == 1.0
    quantised = normalized_pow2(weights)
    assert quantised.levels.tolist() == [[[0, -1, 1, 2], [-2, 4, 4, 8]]]
    assert quantised.scale[0, 0] == pytest.approx((0.09 + 0.26 + 0.54) / 6, rel=1e-15)


def test_one_magnitude_is_the_ternary_rule() -> None:
    rng = np.random.default_rng(5)
    weights, gains = rng.normal(size=SHAPE), rng.uniform(0, 2, SHAPE[:2])
    weights[2, 3] = 0
    for given in (None, gains):
        one, ternary = normalized_pow2(weights, 1, given), normalized_ternary(weights, given)
        np.testing.assert_array_equal(one.levels, ternary.levels)
        np.testing.assert_array_equal(one.scale, ternary.scale)


def test_scales() -> None:
    rng = np.random.default_rng(6)
    weights, gains = rng.normal(size=SHAPE), rng.uniform(0.1, 2, SHAPE[:2])
    weights[1, 2] = 0
    plain, normed = normalized_pow2(weights), normalized_pow2(weights, 4, gains)
    for index in np.ndindex(*SHAPE[:2]):
        levels, row = plain.levels[index].astype(float), weights[index]
        if not levels.any():
            assert plain.scale[index] == normed.scale[index] == 0
            continue
        best = np.linalg.lstsq(levels[:, np.newaxis], row, rcond=None)[0]
        assert plain.scale[index] == pytest.approx(float(best[0]), rel=1e-12)
        assert np.linalg.norm(normed.reals[index]) == pytest.approx(gains[index], rel=1e-14)


@pytest.mark.parametrize("exponents", [0, 5, True, 2.0])
def test_wrong_exponents(exponents: int) -> None:
    with pytest.raises(ValueError, match="exponents must be from 1 to 4, not"):
        normalized_pow2(np.ones(SHAPE), exponents)


def test_wrong_gains() -> None:
    with pytest.raises(ValueError, match=r"gains must be real numbers of shape \(4, 7\), not"):
        normalized_pow2(np.ones(SHAPE), 4, np.ones(7))
