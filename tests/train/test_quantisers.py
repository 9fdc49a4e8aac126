"""Quantisers in PyTorch against golden's: levels on and beside every threshold, samples, scales."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fewbit.golden.lstm.ternary import levels_of
from fewbit.golden.quantize import ternary as golden
from fewbit.golden.quantize.batch_norm import fix_scales
from fewbit.golden.quantize.pow2 import normalized_pow2, normalized_thresholds
from fewbit.golden.quantize.ternary import ScaledWeights
from fewbit.golden.quantize.ternary_lstm import quantize_rows
from fewbit.train.quantisers import (
    RULES,
    Quantised,
    Rule,
    nearest_power_of_two,
    rule,
    straight_through,
)

Floats = npt.NDArray[np.float32]

HIDDEN, OPERANDS = 24, 40
SHAPE = (4, HIDDEN, OPERANDS)

CASES: dict[str, tuple[Rule, Callable[..., Any]]] = {
    "ardakani_binary": (rule("ardakani_binary"), golden.ardakani_binary),
    "ardakani_ternary": (rule("ardakani_ternary"), golden.ardakani_ternary),
    "ott_binary": (rule("ott_binary"), golden.ott_binary),
    "ott_ternary": (rule("ott_ternary"), golden.ott_ternary),
    "exponential": (rule("exponential"), golden.exponential),
    "normalized_ternary": (rule("normalized_ternary"), golden.normalized_ternary),
    "binary": (rule("binary"), lambda weights: quantize_rows(weights, "binary")),
}
for _magnitudes in (1, 2, 3, 4):
    CASES[f"normalized_pow2, {_magnitudes}"] = (
        rule("normalized_pow2", magnitudes=_magnitudes),
        lambda weights, exponents=_magnitudes: normalized_pow2(weights, exponents),
    )
for _m, _f in ((0, 1), (1, 0), (0, 2), (1, 2), (2, 3), (0, 11), (0, 15), (15, 0)):
    CASES[f"power_of_two, {_m}, {_f}"] = (
        rule("power_of_two", integer_bits=_m, fraction=_f),
        lambda weights, m=_m, f=_f: golden.power_of_two(weights, m, f),
    )
SAMPLED = [name for name, (each, _) in CASES.items() if each.sampled]


def means_of(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The mean magnitude of each gate's matrix."""
    return np.abs(weights.astype(np.float64)).mean(axis=(-2, -1))


class Given(np.random.Generator):
    """A generator that gives the numbers that were given to it."""

    def __init__(self, numbers: npt.NDArray[np.float64]) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = numbers

    def random(self, size: tuple[int, ...]) -> npt.NDArray[np.float64]:  # type: ignore[override]
        return self.numbers.reshape(size)


def thresholds(name: str, weights: Floats) -> list[float]:
    """All numbers at which a level of the rule may change."""
    ardakani, ott = golden.ardakani_scale(OPERANDS, HIDDEN), golden.ott_scale(OPERANDS, HIDDEN)
    if "normalized" in name:
        magnitudes = CASES[name][0].exponents
        return normalized_thresholds(means_of(weights), magnitudes).ravel().tolist()
    if "power_of_two" in name:
        return [(level + 0.5) * 2.0**-8 for level in range(40)] + [0.25, 0.5, 0.125, 2.5]
    if name == "exponential":
        return [2.0**e * point for e in range(-25, 13) for point in (1.0, 1.5)]
    return [0.0, ardakani / 3, ardakani, ott / 2, ott, 1.0]


def cases(name: str, seed: int) -> Floats:
    """Random weights; among them float32 numbers around the thresholds, and extremes."""
    rng = np.random.default_rng(seed)
    sizes = np.array([0.05, 0.3, 1.0, 2.0])[:, np.newaxis, np.newaxis]
    weights = (rng.normal(size=SHAPE) * sizes).astype(np.float32)
    points = np.array(thresholds(name, weights)).astype(np.float32)
    near = [points]
    for end in (-np.inf, np.inf):
        near += [
            np.nextafter(points, np.float32(end)),
            np.nextafter(near[-1], np.float32(end)),
        ]
    special = np.array([0.0, 1e-45, 1e-38, 1e-30, 7.0], np.float32)
    inserted = np.concatenate([*near, special])
    both = np.concatenate([inserted, -inserted])
    if "normalized" in name:
        # Twice each, in all gates; the means move a little, and the thresholds with them.
        both = both[:200]
    flat = weights.reshape(4, -1)
    flat[:, : len(both)] = both
    return weights


def compare(name: str, found: Quantised, wanted: Any, weights: Floats) -> None:
    """Assert equal levels and scales, and show the first difference."""
    levels = wanted.levels if isinstance(wanted, ScaledWeights) else wanted.reals
    got = found.levels.numpy()
    wrong = got != levels
    if wrong.any():
        index = tuple(np.argwhere(wrong)[0].tolist())
        pytest.fail(
            f"{name}: {wrong.sum()} levels differ; first {float(weights[index]).hex()} at {index} "
            f"gives {got[index]}, golden {levels[index]}"
        )
    if isinstance(wanted, ScaledWeights):
        np.testing.assert_array_equal(found.scale.numpy(), wanted.scale.astype(np.float32))
        assert found.scale.dtype == torch.float32


@pytest.mark.parametrize("name", CASES)
def test_levels_and_scales_are_goldens(name: str) -> None:
    ours, theirs = CASES[name]
    for seed in range(8):
        weights = cases(name, seed)
        compare(name, ours.quantise(torch.from_numpy(weights)), theirs(weights), weights)


def with_threshold(threshold: float, exponents: int) -> Floats:
    """A float32 matrix a gate whose first threshold is this one, with weights on and around all.

    The threshold is moved by a few units in its 53rd bit, if there is no mean for it.
    """
    scaled = threshold * 2.0 ** (exponents - 1)
    mean = scaled / 0.7
    threshold = 0.7 * mean * 2.0 ** (1 - exponents)
    weights = np.zeros((16, 16), np.float32)
    middles = [1.0, 3.0, 6.0, 12.0][:exponents]
    points = np.array([threshold * middle for middle in middles], np.float32)
    near = np.concatenate([points, np.nextafter(points, 0), np.nextafter(points, np.float32(9))])
    weights.flat[: 2 * len(near)] = np.concatenate([near, -near])
    # The rest of the sum in a few float32 numbers, so that the mean is a float64 one.
    rest = mean * weights.size - float(np.abs(weights).astype(np.float64).sum())
    for index in range(4):
        part = np.float32(rest)
        part = np.nextafter(part, np.float32(0)) if float(part) > rest else part
        weights.flat[100 + index] = part
        rest -= float(part)
    assert rest == 0
    full = np.stack([weights] * 4)
    assert normalized_thresholds(means_of(full), exponents)[0, 0] == threshold
    return full


@pytest.mark.parametrize("exponents", [1, 2, 3, 4])
@pytest.mark.parametrize("excess", [0.0, -(2.0**-40), 2.0**-40])
def test_weights_on_a_threshold_of_the_mean(exponents: int, excess: float) -> None:
    """A weight that equals a threshold has the lower level; one that exceeds it a little, not."""
    weights = with_threshold(0.125 * (1 + excess), exponents)
    levels = rule("normalized_pow2", magnitudes=exponents).levels(torch.from_numpy(weights))
    assert weights[0, 0, 0] == 0.125
    assert levels[0, 0, 0] == (1 if excess < 0 else 0)
    assert levels[0].flatten()[2 * exponents] == 1
    compare("", Quantised(levels, torch.zeros(())), normalized_levels(weights, exponents), weights)
    if exponents == 1:
        ternary = rule("normalized_ternary").quantise(torch.from_numpy(weights))
        compare("", ternary, golden.normalized_ternary(weights), weights)


def normalized_levels(weights: Floats, exponents: int) -> ScaledWeights:
    return ScaledWeights(normalized_pow2(weights, exponents).levels, np.zeros(()))


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_are_goldens_for_the_same_uniform_numbers(name: str) -> None:
    ours, theirs = CASES[name]
    for seed in range(4):
        weights = cases(name, seed)
        given = torch.from_numpy(weights)
        numbers = np.random.default_rng(seed).random(SHAPE)
        # Numbers that equal a probability exactly: the event must not happen.
        numbers.flat[::3] = np.abs(weights.ravel()[::3] % 1)
        numbers.flat[::7], numbers.flat[::11] = 0.0, np.nextafter(1, 0)
        compare(
            name,
            ours.quantise(given, torch.from_numpy(numbers)),
            theirs(weights, Given(numbers)),
            weights,
        )
        short = ours.uniforms(given, torch.Generator().manual_seed(seed))
        compare(
            name,
            ours.quantise(given, short),
            theirs(weights, Given(short.double().numpy())),
            weights,
        )


@pytest.mark.parametrize("relative", [-1.2, -1.0, -0.7, -0.1, 0.0, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("name", ["ardakani_binary", "ardakani_ternary", "ott_ternary"])
def test_samples_have_the_weight_as_mean(name: str, relative: float) -> None:
    """Within 5 sigma; the seed is fixed. A share that is off by 0.02 lies 8 sigma away."""
    ours = CASES[name][0]
    shape = (4, 100, 100)
    scale = ours.quantise(torch.zeros(shape)).scale
    weights = (relative * scale).expand(shape).contiguous()
    uniforms = ours.uniforms(weights, torch.Generator().manual_seed(5))
    levels = ours.levels(weights, uniforms)
    mean = min(max(relative, -1.0), 1.0)
    square = 1.0 if "binary" in name else abs(mean)
    sigma = math.sqrt((square - mean**2) / levels.numel())
    assert abs(float(levels.double().mean()) - mean) <= 5 * sigma + 1e-6
    assert abs(float(levels.square().double().mean()) - square) <= 5 * sigma + 0.01


def test_uniforms_follow_the_generator() -> None:
    weights = torch.zeros(SHAPE)
    first, second, other = (
        Rule.uniforms(weights, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() < 1


@pytest.mark.parametrize("name", CASES)
def test_kinds_hold_all_levels(name: str) -> None:
    ours = CASES[name][0]
    weights = torch.from_numpy(cases(name, 3))
    if ours.kind is not None:
        levels = set(ours.levels(weights).unique().tolist())
        assert levels <= {float(level) for level in levels_of(ours.kind, ours.exponents)}
        assert ours.exponents == 1 or ours.kind == "pow2"


def test_kinds() -> None:
    assert rule("power_of_two").kind == "ternary"
    assert rule("power_of_two", fraction=2).kind == "int12"
    assert rule("power_of_two", fraction=11).kind == "int12"
    assert rule("power_of_two", fraction=12).kind is None
    assert rule("exponential").kind is None
    assert set(RULES) >= {name.split(",")[0] for name in CASES}
    assert all(name == each.name for name, each in RULES.items())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_seen(name: str, bad: float) -> None:
    ours = CASES[name][0]
    weights = torch.zeros(SHAPE)
    weights[1, 2, 3] = bad
    levels = ours.levels(weights)
    assert levels[1, 2, 3].isnan()
    assert levels.isnan().sum() == 1


def test_operands_stay() -> None:
    for ours, _ in CASES.values():
        weights = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
        kept = weights.clone()
        strided = weights.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(ours.levels(strided), ours.levels(weights))
        ours.quantise(weights.requires_grad_())
        assert torch.equal(weights.detach(), kept)


def test_errors() -> None:
    with pytest.raises(ValueError, match="There is no rule 'ternry'; choose one of ardakani_bin"):
        rule("ternry")
    with pytest.raises(ValueError, match="rmalized_ternary has no setting 'magnitudes'; it has n"):
        rule("normalized_ternary", magnitudes=2)
    with pytest.raises(ValueError, match="has no setting 'bits'; it has integer_bits and fraction"):
        rule("power_of_two", bits=2)
    with pytest.raises(ValueError, match="plus fraction must be an integer from 1 to 15, not 16"):
        rule("power_of_two", integer_bits=8, fraction=8)
    with pytest.raises(ValueError, match="magnitudes must be an integer from 1 to 4, not True"):
        rule("normalized_pow2", magnitudes=True)
    with pytest.raises(ValueError, match="binary has no random form; those that have one: ardak"):
        rule("binary").levels(torch.zeros(SHAPE), torch.zeros(SHAPE))
    for wrong in (torch.zeros(4, 3), torch.zeros(SHAPE, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"must be float32 of shape \(4, hidden, operands\)"):
            rule("binary").levels(wrong)


def test_straight_through_by_hand() -> None:
    """Loss = sum(a q): the weights get a, whatever q is, and q gets nothing."""
    weights = torch.tensor([0.3, -0.1, 2.0], requires_grad=True)
    quantised = torch.tensor([1.0, -0.0, 1.0], requires_grad=True)
    result = straight_through(weights, quantised)
    # The sum w + (q - w) would give 0.0 for -0.0, and rounds: it gives 0.99999994 for some.
    assert result.detach().numpy().tobytes() == quantised.detach().numpy().tobytes()
    (result * torch.tensor([2.0, -3.0, 0.5])).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [2.0, -3.0, 0.5]
    assert quantised.grad is None
    with pytest.raises(ValueError, match=r"must have one shape, not \(3,\) and \(2,\)"):
        straight_through(weights, torch.zeros(2))


def test_a_weight_norm_over_levels_by_hand() -> None:
    """Reals are g l/|l|: with l = (1, 0, -1), g = 2: the gradient of g is sum(a l)/sqrt(2)."""
    weights = torch.tensor([[[0.9, 0.1, -0.8]]], requires_grad=True)
    gain = torch.tensor([[2.0]], requires_grad=True)
    levels = rule("normalized_ternary").levels(weights)
    assert levels.tolist() == [[[1, 0, -1]]]
    scale = gain / levels.square().sum(-1).sqrt()
    real = straight_through(weights, levels) * scale.unsqueeze(-1)
    (real * torch.tensor([3.0, 5.0, 7.0])).sum().backward()
    assert weights.grad is not None
    assert gain.grad is not None
    root = torch.tensor(2.0) / torch.tensor(2.0).sqrt()
    assert weights.grad.flatten().tolist() == [float(root * a) for a in (3.0, 5.0, 7.0)]
    assert float(gain.grad) == pytest.approx((3 - 7) / math.sqrt(2), rel=1e-6)


def powers(scale: Tensor, unit: float) -> npt.NDArray[np.float64]:
    return fix_scales(scale.abs().double().numpy() / unit, 1).reals * unit


@pytest.mark.parametrize("unit", [1.0, 2.0**-12, 0.37])
def test_powers_of_two_are_goldens(unit: float) -> None:
    points = [2.0**e * point for e in range(-36, 28) for point in (1.0, 1.5, 1.25)]
    exact = (np.array(points) * unit).astype(np.float32)
    around = [np.nextafter(exact, np.float32(end)) for end in (-np.inf, np.inf)]
    random = np.exp2(np.random.default_rng(1).uniform(-40, 28, 20_000)) * unit
    scale = torch.from_numpy(np.concatenate([exact, *around, random, [0.0]]).astype(np.float32))
    found = nearest_power_of_two(scale, unit)
    np.testing.assert_array_equal(found.numpy(), powers(scale, unit).astype(np.float32))
    np.testing.assert_array_equal(nearest_power_of_two(-scale, unit).numpy(), -found.numpy())
    per_row = nearest_power_of_two(scale, torch.full_like(scale, unit, dtype=torch.float64))
    assert torch.equal(per_row, found)


def test_powers_of_two_by_hand() -> None:
    scale = torch.tensor([1.49, 1.5, 2.99, 3.0, 0.0, -0.7, math.nan], requires_grad=True)
    found = nearest_power_of_two(scale)
    assert found[:6].tolist() == [1.0, 2.0, 2.0, 4.0, 0.0, -0.5]
    assert found[6].isnan()
    (found[:6] * torch.arange(6.0)).sum().backward()
    assert scale.grad is not None
    assert scale.grad.tolist() == [0, 1, 2, 3, 4, 5, 0]
