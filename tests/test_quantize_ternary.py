"""Binary, ternary and power-of-two quantisers against their rules, written anew on fractions."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewbit.golden.quantize.ternary import (
    ExponentialWeights,
    ScaledWeights,
    ardakani_binary,
    ardakani_scale,
    ardakani_ternary,
    binary,
    exponential,
    normalized_ternary,
    ott_binary,
    ott_scale,
    ott_ternary,
    power_of_two,
    round_half_away,
    sample_binary,
    sample_ternary,
    ternary,
)

HIDDEN, INPUTS = 9, 5
SHAPE = (4, HIDDEN, INPUTS)
SIGMAS = 5.0
"""A correct sampler misses this bound for one seed in 1.7 million; the seeds are fixed."""

reals = st.floats(-4, 4)
Quantiser = Callable[..., ScaledWeights]


def around(*points: float) -> list[float]:
    """Points, their negatives, and the doubles on both sides of each."""
    both = [sign * point for point in points for sign in (1, -1)]
    return [np.nextafter(p, end) for p in both for end in (-np.inf, p, np.inf)]


def filled(values: list[float], shape: tuple[int, ...] = SHAPE) -> npt.NDArray[np.float64]:
    """An array of `shape` that starts with `values` and is 0 elsewhere."""
    array = np.zeros(shape)
    array.ravel()[: len(values)] = values
    return array


def by_rule(rule: Callable[[Fraction], int], weights: npt.NDArray[np.float64]) -> list[int]:
    return [rule(Fraction(weight)) for weight in weights.ravel().tolist()]


def three_levels(threshold: float) -> Callable[[Fraction], int]:
    """[w > -t] + [w > t] - 1, where t is a double."""
    t = Fraction(threshold)
    return lambda w: (w > -t) + (w > t) - 1


def test_scales_by_hand() -> None:
    # 5 + 4*9 = 41 and 5 + 9 = 14: Fraction 6/41 over 4, 6/14.
    assert Fraction(ardakani_scale(5, 9)) ** 2 == pytest.approx(6 / 41 / 4, rel=1e-15)
    assert ardakani_scale(6, 0 + 12) == pytest.approx(math.sqrt(6 / 54) / 2, rel=1e-15)
    assert ardakani_scale(2, 1) == 0.5
    assert ott_scale(4, 2) == 1.0
    assert ott_scale(3, 3) == 1.0
    assert ardakani_ternary(np.zeros((4, 9, 9))).scale == ardakani_scale(9, 9)
    assert ardakani_binary(np.zeros((4, 9, 5))).scale == ardakani_scale(5, 9)
    assert ott_ternary(np.zeros((4, 9, 5))).scale == ott_scale(5, 9)
    assert ott_binary(np.zeros((4, 9, 5))).scale == 1.0


@pytest.mark.parametrize("quantise", [ardakani_binary, ott_binary])
def test_binary_ties(quantise: Quantiser) -> None:
    tiny = np.nextafter(0, 1)
    weights = filled([0.0, -0.0, tiny, -tiny, 1.0, -1.0, *around(0.3)])
    levels = quantise(weights).levels.ravel()
    assert levels[:6].tolist() == [1, 1, 1, -1, 1, -1]
    assert levels.tolist() == by_rule(lambda w: 1 if w >= 0 else -1, weights)


@pytest.mark.parametrize(
    ("quantise", "scale", "divisor"),
    [
        (ardakani_ternary, ardakani_scale(INPUTS, HIDDEN), 3),
        (ott_ternary, ott_scale(INPUTS, HIDDEN), 2),
    ],
)
def test_ternary_ties(quantise: Quantiser, scale: float, divisor: int) -> None:
    threshold = scale / divisor
    assert abs(Fraction(threshold) - Fraction(scale) / divisor) <= Fraction(math.ulp(threshold)) / 2
    weights = filled([*around(threshold, scale, 0.0), 3.0, -3.0])
    quantised = quantise(weights)
    # Just below, at and just above both thresholds.
    assert quantised.levels.ravel()[:6].tolist() == [0, 0, 1, -1, -1, 0]
    assert quantised.levels.ravel().tolist() == by_rule(three_levels(threshold), weights)
    np.testing.assert_array_equal(quantised.reals, quantised.levels * scale)


def test_papers_differ_between_their_thresholds() -> None:
    """The same weight, the same scale: a third and a half of it; so the tests above can fail."""
    weights = np.array([0.4, -0.4])
    assert ternary(weights, 1.0, 1 / 3).levels.tolist() == [1, -1]
    assert ternary(weights, 1.0, 1 / 2).levels.tolist() == [0, 0]


@settings(max_examples=200, deadline=None)
@given(
    weights=st.lists(reals, min_size=1, max_size=8),
    scale=st.floats(1e-3, 2),
    threshold=st.floats(0, 1),
)
def test_levels_follow_the_rules(weights: list[float], scale: float, threshold: float) -> None:
    array = np.array(weights)
    assert ternary(array, scale, threshold).levels.tolist() == by_rule(
        three_levels(threshold), array
    )
    assert binary(array, scale).levels.tolist() == by_rule(lambda w: 1 if w >= 0 else -1, array)


def half_away(value: Fraction) -> int:
    """Nearest integer, ties away from zero."""
    magnitude = math.floor(abs(value) + Fraction(1, 2))
    return magnitude if value >= 0 else -magnitude


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e6, 1e6))
@example(0.49999999999999994)  # plus a half this is 1 in doubles
@example(-0.5)
@example(2.5)
@example(4503599627370497.0)
@example(4503599627370495.5)
def test_rounding_half_away(value: float) -> None:
    assert round_half_away(value) == half_away(Fraction(value))


def test_power_of_two_by_hand() -> None:
    weights = [0.25, -0.25, 0.0, 9.0, -9.0, *around(0.25)[:6]]
    quantised = power_of_two(weights)
    assert quantised.scale == 0.5
    assert quantised.levels.tolist() == [1, -1, 0, 1, -1, 0, 1, 1, -1, -1, 0]
    assert np.unique(power_of_two(np.linspace(-2, 2, 999), 0, 2).reals).tolist() == [
        -0.75,
        -0.5,
        -0.25,
        0.0,
        0.25,
        0.5,
        0.75,
    ]
    assert power_of_two([1e308, -1e308], 1, 14).levels.tolist() == [32767, -32767]


@pytest.mark.parametrize(("m", "f"), [(0, 1), (1, 0), (0, 2), (1, 2), (2, 3), (0, 15)])
def test_power_of_two_by_fractions(m: int, f: int) -> None:
    largest = 2 ** (m + f) - 1
    ties = [(level + 0.5) * 2.0**-f for level in range(min(largest + 2, 40))]
    rng = np.random.default_rng(m + f)
    weights = np.array([*around(*ties, largest * 2.0**-f), *rng.normal(0, 2.0**m, 500).tolist()])
    expected = by_rule(lambda w: min(max(half_away(w * 2**f), -largest), largest), weights)
    quantised = power_of_two(weights, m, f)
    assert quantised.levels.tolist() == expected
    assert quantised.scale == 2.0**-f


def exact_exponential(weight: Fraction) -> Fraction:
    """The deterministic rule, the logarithm found by search."""
    magnitude = abs(weight)
    floor = next((e for e in range(40, -41, -1) if Fraction(2) ** e <= magnitude), -40)
    low = min(max(floor, -22), 9)
    up = magnitude / Fraction(2) ** low - 1 > Fraction(1, 2)
    return (1 if weight > 0 else -1) * Fraction(2) ** (low + up)


def test_exponential_by_fractions() -> None:
    powers = [2.0**e for e in range(-25, 13)]
    rng = np.random.default_rng(3)
    weights = np.array(
        [
            *around(*powers, *(1.5 * power for power in powers)),
            *(rng.normal(size=500) * 2.0 ** rng.integers(-26, 12, 500)).tolist(),
        ]
    )
    expected = [exact_exponential(Fraction(weight)) for weight in weights.tolist()]
    assert [Fraction(real) for real in exponential(weights).reals.tolist()] == expected


def test_exponential_by_hand() -> None:
    weights = [1.5, np.nextafter(1.5, 2), -1.5, 3.1, 0.0, -0.0, 1e-300, -1e-300, 1e300, 768.0, 769]
    expected = [1, 2, -1, 4, -(2.0**-22), -(2.0**-22), 2.0**-22, -(2.0**-22), 1024, 512, 1024]
    assert exponential(weights).reals.tolist() == expected
    assert exponential(1e300).exponents == 10


@pytest.mark.parametrize("scale", [1.0, ardakani_scale(INPUTS, HIDDEN), 1e-308])
def test_certain_and_impossible_samples(scale: float) -> None:
    rng = np.random.default_rng(0)
    certain = np.repeat([scale, 2 * scale, 1e300, -scale, -2 * scale, -1e300], 2000)
    np.testing.assert_array_equal(sample_binary(certain, scale, rng).levels, np.sign(certain))
    np.testing.assert_array_equal(sample_ternary(certain, scale, rng).levels, np.sign(certain))
    zeros = np.repeat([0.0, -0.0], 2000)
    assert not sample_ternary(zeros, scale, rng).levels.any()


class Extreme(np.random.Generator):
    """A generator that gives one number only."""

    def __init__(self, value: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.value = value

    def random(self, size: tuple[int, ...]) -> npt.NDArray[np.float64]:  # type: ignore[override]
        return np.full(size, self.value)


def test_probabilities_0_and_1_are_exact() -> None:
    """Whatever number a generator gives, from 0 to the largest double below 1."""
    for value in (0.0, float(np.nextafter(1, 0))):
        rng = Extreme(value)
        assert sample_binary(np.array([-1.0, 1.0]), 1.0, rng).levels.tolist() == [-1, 1]
        assert sample_ternary(np.array([-1.0, 0.0, 1.0]), 1.0, rng).levels.tolist() == [-1, 0, 1]
        assert exponential(np.array([1.0, 0.0, 4000.0]), rng).exponents.tolist() == [0, -22, 10]


@pytest.mark.parametrize("relative", [-0.999, -0.5, -0.1, 0.0, 1e-3, 0.25, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("sample", [sample_binary, sample_ternary])
def test_samples_have_the_stated_mean_and_levels(sample: Quantiser, relative: float) -> None:
    """Mean within 5 sigma of the weight saturated to the scale, and the shares of levels, too."""
    count, scale = 40_000, 0.3
    levels = sample(np.full(count, relative * scale), scale, np.random.default_rng(11)).levels
    mean = min(max(relative, -1.0), 1.0)
    if sample is sample_binary:
        shares = {1: (mean + 1) / 2, -1: (1 - mean) / 2}
    else:
        shares = {1: max(mean, 0.0), -1: max(-mean, 0.0), 0: 1 - abs(mean)}
    assert set(np.unique(levels).tolist()) <= set(shares)
    for level, share in shares.items():
        sigma = math.sqrt(share * (1 - share) / count)
        assert abs(float((levels == level).mean()) - share) <= SIGMAS * sigma + 1e-12
    deviation = math.sqrt(
        sum(share * level**2 for level, share in shares.items()) - mean**2 + 1e-15
    )
    assert abs(float(levels.mean()) - mean) <= SIGMAS * deviation / math.sqrt(count) + 1e-12


@pytest.mark.parametrize("weight", [1.0, 1.25, -1.25, 1.9, 3e-7, -700.0])
def test_exponential_samples_have_the_weight_as_mean(weight: float) -> None:
    count = 40_000
    sampled = exponential(np.full(count, weight), np.random.default_rng(12)).reals / weight
    low = 2.0 ** math.floor(math.log2(abs(weight))) / abs(weight)
    assert set(np.unique(sampled).tolist()) <= {low, 2 * low}
    share = 1 / low - 1
    sigma = low * math.sqrt(share * (1 - share) / count)
    assert abs(float(sampled.mean()) - 1) <= SIGMAS * sigma + 1e-12


def test_exponential_samples_outside_the_range() -> None:
    rng = np.random.default_rng(13)
    assert set(exponential(np.full(1000, 1e-9), rng).reals.tolist()) == {2.0**-22}
    assert set(exponential(np.full(1000, -5000.0), rng).reals.tolist()) == {-1024.0}


def test_a_wrong_probability_is_seen() -> None:
    """The statistical bound can fail: a third more is far outside."""
    count = 40_000
    levels = sample_ternary(np.full(count, 0.3), 1.0, np.random.default_rng(11)).levels
    sigma = math.sqrt(0.4 * 0.6 / count)
    assert abs(float(levels.mean()) - 0.4) > SIGMAS * sigma


@pytest.mark.parametrize(
    "quantise", [ardakani_binary, ardakani_ternary, ott_binary, ott_ternary, exponential]
)
def test_seeds_reproduce_samples(
    quantise: Callable[..., ScaledWeights | ExponentialWeights],
) -> None:
    weights = np.random.default_rng(5).normal(0, 0.2, (4, 8, 6))

    def sample(seed: int) -> npt.NDArray[np.float64]:
        return quantise(weights, np.random.default_rng(seed)).reals

    np.testing.assert_array_equal(sample(1), sample(1))
    assert (sample(1) != sample(2)).any()
    assert (sample(1) != quantise(weights).reals).any()


def test_normalized_ternary_ties() -> None:
    # Rows of a matrix whose magnitudes have the mean 1, as doubles sum it.
    low, at, high = np.nextafter(0.7, 0), 0.7, np.nextafter(0.7, 1)
    weights = np.array([[[low, at, high, -low], [-at, -high, 3.8, 0.0]]])
    weights[0, 1, 3] = 8 - np.abs(weights).sum()
    assert np.abs(weights).mean() == 1.0
    levels = normalized_ternary(weights).levels
    assert levels.tolist() == [[[0, 0, 1, 0], [0, -1, 1, 0]]]


def test_normalized_ternary_scales_minimise_the_error() -> None:
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(4, 7, 11)) * rng.uniform(0.2, 2, (4, 7, 1))
    quantised = normalized_ternary(weights)
    for matrix, levels, scales in zip(weights, quantised.levels, quantised.scale, strict=True):
        threshold = 0.7 * np.abs(matrix).mean()
        assert levels.ravel().tolist() == by_rule(lambda w, t=threshold: (w > t) - (w < -t), matrix)
        for row, kept, scale in zip(matrix, levels, scales, strict=True):
            if not kept.any():
                assert scale == 0
                continue
            best = np.linalg.lstsq(kept[:, np.newaxis].astype(float), row, rcond=None)[0]
            assert scale == pytest.approx(float(best[0]), rel=1e-12)


@pytest.mark.torch
def test_normalized_ternary_with_a_norm_is_pytorchs_weight_norm() -> None:
    import torch

    rng = np.random.default_rng(7)
    weights, gains = rng.normal(size=(4, 6, 13)), rng.uniform(0.1, 3, (4, 6))
    quantised = normalized_ternary(weights, gains)
    for gate in range(4):
        expected = torch._weight_norm(
            torch.tensor(quantised.levels[gate], dtype=torch.float64),
            torch.tensor(gains[gate][:, np.newaxis]),
        )
        np.testing.assert_allclose(quantised.reals[gate], expected.numpy(), rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(quantised.reals, axis=-1), gains, rtol=1e-14)


def test_normalized_ternary_without_weights_has_the_scale_0() -> None:
    weights = np.zeros((1, 2, 3))
    weights[0, 0] = 1
    assert normalized_ternary(weights).scale.tolist() == [[1, 0]]
    assert normalized_ternary(weights, [[2, 2]]).scale.tolist() == [[2 / math.sqrt(3), 0]]
    assert not normalized_ternary(np.zeros((1, 2, 3))).reals.any()


def test_scaled_weights_are_frozen() -> None:
    quantised = ott_binary(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="read-only"):
        quantised.levels[0, 0] = 5
    assert quantised.row_scales.tolist() == [1, 1]
    by_row = ScaledWeights(np.ones((2, 3), np.int64), np.array([1.0, 2.0]))
    assert by_row.reals.tolist() == [[1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ott_binary([np.nan]), "weights must be finite, not nan."),
        (lambda: ott_binary(["a"]), "weights must be real numbers, not <U1."),
        (lambda: ott_ternary([1.0]), r"weights must have the shape \(gate, unit, operand\)"),
        (lambda: ardakani_ternary(np.ones((8, 3))), r"none of them 0, not \(8, 3\)."),
        (lambda: ternary([1.0], 0.0, 0.0), "scale must be a finite number above 0, not 0.0."),
        (lambda: ternary([1.0], 1.0, -1.0), "threshold must be a finite number of at least 0"),
        (lambda: ardakani_scale(0, 3), "operands must be an integer of at least 1, not 0."),
        (lambda: power_of_two([1.0], 0, 0), "must sum to 1 to 15, not 0 \\+ 0."),
        (lambda: power_of_two([1.0], -1, 2), "integer_bits must be an integer of at least 0"),
        (
            lambda: ScaledWeights(np.zeros((2, 3), np.int64), np.zeros(3)),
            r"scale must be one real number, or have the shape \(2,\), not float64",
        ),
        (
            lambda: ScaledWeights(np.zeros((2, 3)), np.zeros(2)),
            r"levels must be integers of shape \(..., row, operand\)",
        ),
        (
            lambda: ScaledWeights(np.zeros((2, 3), np.int64), np.array(-1.0)),
            "scale must be finite and at least 0, not -1.0.",
        ),
        (
            lambda: normalized_ternary(np.ones((1, 2, 3)), [1.0]),
            r"gains must be real numbers of shape \(1, 2\)",
        ),
    ],
)
def test_refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
