"""Quantisers of weights in PyTorch: the rules of `fewbit.golden.quantize`, made anew at every step.

A `Rule` takes float32 weights of shape (4, hidden, operands) and gives levels and a scale. Both are
without gradients; `straight_through` hands the gradient on to the weights. `RULES` has every rule
by its name, with its default settings, and `rule` gives one with other settings.

Levels equal golden's on every float32 weight, those on a threshold included: a float32 number is
above a float64 threshold exactly if it is above the largest float32 number that is not above the
threshold. Scales are golden's float64 ones, rounded to float32. Two rules need a matrix's mean, a
float64 sum. On a CPU golden's own sum gives it; on other devices the sum is added up in another
order, so that a weight within one unit in its 53rd bit of a threshold may get the other level.

A weight that is not finite gives a level that is NaN, so that a training that diverges is seen.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewbit.golden.lstm.ternary import MOST_EXPONENTS, LevelKind
from fewbit.golden.quantize.pow2 import normalized_thresholds
from fewbit.golden.quantize.ternary import (
    HIGHEST_EXPONENT,
    LOWEST_EXPONENT,
    NORMALIZED_THRESHOLD,
    ardakani_scale,
    ott_scale,
)
from fewbit.train.formats import powers_of_two

__all__ = [
    "RULES",
    "ArdakaniBinary",
    "ArdakaniTernary",
    "Binary",
    "Exponential",
    "NormalizedPow2",
    "NormalizedTernary",
    "OttBinary",
    "OttTernary",
    "PowerOfTwo",
    "Quantised",
    "Rule",
    "nearest_power_of_two",
    "rule",
    "straight_through",
]

_WEIGHT_AXES = 3
_MOST_BITS = 15
_MOST_INTEGER_BITS = 11
"""Bits of the magnitude of a level of golden's "int12" weights."""
_FLOAT32_MANTISSA, _FLOAT32_BIAS = 23, 127


class Quantised(NamedTuple):
    """Levels and the scale that makes them reals; neither has a gradient."""

    levels: Tensor
    """float32, the shape of the weights."""
    scale: Tensor
    """float32, shape () or (4, hidden)."""

    @property
    def reals(self) -> Tensor:
        """Return levels times scale."""
        return self.levels * (self.scale if self.scale.ndim == 0 else self.scale.unsqueeze(-1))


@dataclass(frozen=True)
class Rule(ABC):
    """A rule that turns real weights into levels and a scale."""

    name: ClassVar[str]
    """Name of the rule in `RULES` and, but for "binary", of golden's function."""
    sampled: ClassVar[bool] = False
    """Whether the rule has a form in which levels are random."""

    kind: ClassVar[LevelKind | None]
    """The weights of golden's few-bit layer that have these levels; None if no layer has them."""

    @property
    def exponents(self) -> int:
        """Return the number of magnitudes of levels of the kind "pow2", else 1."""
        return 1

    @abstractmethod
    def _levels(self, weights: Tensor, uniforms: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _scale(self, weights: Tensor, levels: Tensor) -> Tensor: ...

    def levels(self, weights: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return the levels of weights.

        Parameters
        ----------
        weights
            float32, shape (4, hidden, operands).
        uniforms
            To sample: numbers from 0 to below 1, the shape of `weights`, as `uniforms` makes them.
            None for the deterministic rule.

        Raises
        ------
        ValueError
            If type or shape is wrong, or the rule has no samples.
        """
        values = weights.detach()
        if values.dtype != torch.float32 or values.ndim != _WEIGHT_AXES:
            raise ValueError(
                "weights must be float32 of shape (4, hidden, operands), not "
                f"{values.dtype} of shape {tuple(values.shape)}."
            )
        if uniforms is not None and not self.sampled:
            sampled = ", ".join(name for name, other in RULES.items() if other.sampled)
            raise ValueError(f"{self.name} has no random form; those that have one: {sampled}.")
        # A product with 0 is NaN where a weight is not finite, else it changes nothing.
        return self._levels(values, uniforms).add_(values, alpha=0)

    def scale(self, weights: Tensor, levels: Tensor) -> Tensor:
        """Return the rule's own scale of levels, float32 of shape () or (4, hidden).

        Parameters
        ----------
        weights, levels
            The operand and the result of `levels`.
        """
        return self._scale(weights.detach(), levels)

    def quantise(self, weights: Tensor, uniforms: Tensor | None = None) -> Quantised:
        """Return levels and scale; the parameters and errors are those of `levels`."""
        levels = self.levels(weights, uniforms)
        return Quantised(levels, self.scale(weights, levels))

    @staticmethod
    def uniforms(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return random numbers from 0 to below 1 in the shape of `weights`, multiples of 2^-24."""
        return torch.rand(weights.shape, generator=generator, device=weights.device)


def _constant(weights: Tensor, value: float) -> Tensor:
    """Return a real as a tensor beside the weights, without waiting for the device."""
    return torch.full((), value, dtype=torch.float32, device=weights.device)


def _not_above(threshold: float) -> float:
    """Return the largest float32 number that is not above a float64 one."""
    rounded = np.float32(threshold)
    down = np.nextafter(rounded, np.float32(-np.inf))
    return float(down if float(rounded) > threshold else rounded)


def _float64_sums(rows: Tensor) -> Tensor:
    """Return float64 sums of rows, on a CPU in numpy's order, which is golden's."""
    if rows.device.type == "cpu":
        return torch.from_numpy(rows.numpy().astype(np.float64).sum(axis=-1))
    return rows.double().sum(-1)


def _happens(probability: Tensor, uniforms: Tensor) -> Tensor:
    """Return whether each event happens: never at probability 0 or below, always at 1 or above."""
    return uniforms < probability


def _signs(weights: Tensor) -> Tensor:
    """Return 1 where a weight is at least 0, else -1."""
    return torch.ge(weights, 0, out=torch.empty_like(weights)).mul_(2).sub_(1)


def _steps(weights: Tensor, threshold: Tensor) -> Tensor:
    """Return the sign where a magnitude is above a threshold, else 0."""
    # Comparisons that write numbers take a fifth of the time of those that write truth values.
    above = torch.gt(weights, threshold, out=torch.empty_like(weights))
    return above.sub_(torch.lt(weights, -threshold, out=torch.empty_like(weights)))


class _FixedScaleRule(Rule):
    """A rule with one scale for a matrix, whatever its weights are."""

    sampled = True
    span: ClassVar[Callable[[int, int], float]]
    """Golden's scale of a matrix, from its operands and its hidden units."""

    def _span(self, weights: Tensor) -> float:
        return type(self).span(weights.shape[-1], weights.shape[-2])

    def _scale(self, weights: Tensor, levels: Tensor) -> Tensor:
        return _constant(weights, self._span(weights))


class _BinaryRule(_FixedScaleRule):
    """A rule whose levels are -1 and 1."""

    kind = "binary"

    def _levels(self, weights: Tensor, uniforms: Tensor | None) -> Tensor:
        if uniforms is None:
            return _signs(weights)
        probability = weights.double().div_(self._span(weights)).add_(1).div_(2)
        return _happens(probability, uniforms).float().mul_(2).sub_(1)


class ArdakaniBinary(_BinaryRule):
    """Binary weights of arXiv 1809.11086, see golden's `ardakani_binary`."""

    name = "ardakani_binary"
    span = staticmethod(ardakani_scale)


class OttBinary(_BinaryRule):
    """Binary weights of arXiv 1608.06902, see golden's `ott_binary`."""

    name = "ott_binary"

    @staticmethod
    def span(operands: int, hidden: int) -> float:
        """Return the scale 1, whatever the sizes are."""
        return 1.0


class Binary(Rule):
    """The sign, times the mean magnitude of a row, as golden quantises plain layers to binary."""

    name = "binary"
    kind = "binary"

    def _levels(self, weights: Tensor, uniforms: Tensor | None) -> Tensor:
        return _signs(weights)

    def _scale(self, weights: Tensor, levels: Tensor) -> Tensor:
        return (_float64_sums(weights.abs()) / weights.shape[-1]).float()


class _TernaryRule(_FixedScaleRule):
    """A rule whose levels are -1, 0 and 1, with a threshold that is a part of the scale."""

    kind = "ternary"
    parts: ClassVar[int]

    def _levels(self, weights: Tensor, uniforms: Tensor | None) -> Tensor:
        span = self._span(weights)
        if uniforms is not None:
            probability = weights.double().abs_().div_(span)
            return _happens(probability, uniforms).float().mul_(weights.sign())
        threshold = span / self.parts
        # [w > t] + [w > -t] - 1, the second with its comparison turned round.
        levels = torch.gt(weights, _not_above(threshold), out=torch.empty_like(weights))
        below = torch.le(weights, _not_above(-threshold), out=torch.empty_like(weights))
        return levels.sub_(below)


class ArdakaniTernary(_TernaryRule):
    """Ternary weights of arXiv 1809.11086, see golden's `ardakani_ternary`."""

    name = "ardakani_ternary"
    span = staticmethod(ardakani_scale)
    parts = 3


class OttTernary(_TernaryRule):
    """Ternary weights of arXiv 1608.06902, see golden's `ott_ternary`."""

    name = "ott_ternary"
    span = staticmethod(ott_scale)
    parts = 2


class _NormalizedRule(Rule):
    """A rule whose thresholds follow from the mean magnitude of a gate's matrix."""

    def _levels(self, weights: Tensor, uniforms: Tensor | None) -> Tensor:
        thresholds = self._thresholds(weights).unsqueeze(-1).unsqueeze(-1)
        levels = _steps(weights, thresholds[:, 0])
        for index, rise in enumerate((1, 2, 4)[: self.exponents - 1], 1):
            levels.add_(_steps(weights, thresholds[:, index]), alpha=rise)
        return levels

    def _thresholds(self, weights: Tensor) -> Tensor:
        """Return the largest float32 numbers that are not above golden's thresholds."""
        magnitudes, count = weights.abs(), self.exponents
        if weights.device.type == "cpu":
            means = magnitudes.numpy().astype(np.float64).mean(axis=(-2, -1))
            exact = torch.from_numpy(normalized_thresholds(means, count))
        else:
            half = magnitudes.double().mean((-2, -1)) * NORMALIZED_THRESHOLD * 2.0 ** (1 - count)
            exact = torch.stack([half * middle for middle in (1, 3, 6, 12)[:count]], dim=1)
        rounded = exact.float()
        down = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
        return torch.where(rounded.double() > exact, down, rounded)

    def _scale(self, weights: Tensor, levels: Tensor) -> Tensor:
        squares = levels.square().sum(-1).clamp_min_(1)
        return (_float64_sums(levels * weights) / squares.double()).float()


class NormalizedTernary(_NormalizedRule):
    """Ternary weights of NeurIPS 2019, see golden's `normalized_ternary`."""

    name = "normalized_ternary"
    kind = "ternary"


@dataclass(frozen=True)
class NormalizedPow2(_NormalizedRule):
    """Power-of-two weights, see golden's `normalized_pow2`.

    Parameters
    ----------
    magnitudes
        Number of magnitudes of levels, 1 to 4.
    """

    name = "normalized_pow2"
    kind = "pow2"
    magnitudes: int = MOST_EXPONENTS

    def __post_init__(self) -> None:
        """Refuse a number of magnitudes that no layer has."""
        _check_count("magnitudes", self.magnitudes, 1, MOST_EXPONENTS)

    @property
    def exponents(self) -> int:
        return self.magnitudes


@dataclass(frozen=True)
class PowerOfTwo(Rule):
    """Fixed-point weights Qm.f of arXiv 1608.06902, see golden's `power_of_two`.

    Parameters
    ----------
    integer_bits, fraction
        m and f, at least 0, with a sum from 1 to 15; 0 and 1 give ternary weights.
    """

    name = "power_of_two"
    integer_bits: int = 0
    fraction: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers of bits that golden's rule refuses."""
        _check_count("integer_bits", self.integer_bits, 0, _MOST_BITS)
        _check_count("fraction", self.fraction, 0, _MOST_BITS)
        _check_count("integer_bits plus fraction", self.integer_bits + self.fraction, 1, _MOST_BITS)

    @property
    def kind(self) -> LevelKind | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        bits = self.integer_bits + self.fraction
        if bits == 1:
            return "ternary"
        return "int12" if bits <= _MOST_INTEGER_BITS else None

    def _levels(self, weights: Tensor, uniforms: Tensor | None) -> Tensor:
        largest = float((1 << (self.integer_bits + self.fraction)) - 1)
        scaled = (weights * 2.0**self.fraction).clamp_(-largest, largest)
        # Ties go away from zero. The rest is exact, while a sum with a half would not always be.
        whole = scaled.trunc()
        rest = scaled.sub_(whole)
        whole.add_(torch.ge(rest, 0.5, out=torch.empty_like(rest)))
        return whole.sub_(torch.le(rest, -0.5, out=torch.empty_like(rest)))

    def _scale(self, weights: Tensor, levels: Tensor) -> Tensor:
        return _constant(weights, 2.0**-self.fraction)


class Exponential(Rule):
    """Signed powers of two of arXiv 1608.06902, see golden's `exponential`.

    The levels are the reals ±2^-22 ... ±2^10 themselves, and the scale is 1. No layer of golden has
    these weights.
    """

    name = "exponential"
    kind = None
    sampled = True

    def _levels(self, weights: Tensor, uniforms: Tensor | None) -> Tensor:
        magnitudes = weights.abs()
        exponents = magnitudes.view(torch.int32).bitwise_right_shift(_FLOAT32_MANTISSA)
        low = exponents.sub_(_FLOAT32_BIAS).clamp_(LOWEST_EXPONENT, HIGHEST_EXPONENT - 1)
        # Exact from 0 to 1; elsewhere only its side of that range matters.
        probability = magnitudes.mul_(powers_of_two(-low)).sub_(1)
        up = probability > 0.5 if uniforms is None else _happens(probability, uniforms)
        powers = powers_of_two(low + up)
        return torch.where(weights > 0, powers, -powers)

    def _scale(self, weights: Tensor, levels: Tensor) -> Tensor:
        return _constant(weights, 1.0)


def _check_count(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}.")


RULES: dict[str, Rule] = {
    each.name: each
    for each in (
        ArdakaniBinary(),
        ArdakaniTernary(),
        OttBinary(),
        OttTernary(),
        PowerOfTwo(),
        Exponential(),
        NormalizedTernary(),
        NormalizedPow2(),
        Binary(),
    )
}
"""All rules by their names, with their default settings."""


def rule(name: str, **settings: Any) -> Rule:
    """Return a rule by its name, with other settings than the default ones.

    Raises
    ------
    ValueError
        If there is no such rule or it has no such setting, or a setting is out of range.
    """
    if name not in RULES:
        raise ValueError(f"There is no rule {name!r}; choose one of {', '.join(RULES)}.")
    known = [field.name for field in fields(RULES[name])]
    for setting in settings:
        if setting not in known:
            has = f"it has {' and '.join(known)}" if known else "it has no settings"
            raise ValueError(f"The rule {name} has no setting {setting!r}; {has}.")
    return replace(RULES[name], **settings)


class _StraightThrough(torch.autograd.Function):
    """The quantised weights forward, the gradient to the real ones unchanged backward."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, quantised: Tensor) -> Tensor:
        """Return `quantised`."""
        return quantised.view_as(quantised)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Literal[None]]:
        """Return the gradient of `weights`, and none of `quantised`."""
        return gradients[0], None


def straight_through(weights: Tensor, quantised: Tensor) -> Tensor:
    """Return `quantised`, bit for bit, with the gradient of the identity on `weights`.

    Parameters
    ----------
    weights
        The real weights, which receive the result's gradient unchanged.
    quantised
        Numbers of the same shape; they receive no gradient.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if weights.shape != quantised.shape:
        raise ValueError(
            f"weights and quantised must have one shape, not {tuple(weights.shape)} and "
            f"{tuple(quantised.shape)}."
        )
    result = _StraightThrough.apply(weights, quantised.detach())
    assert isinstance(result, Tensor)
    return result


def nearest_power_of_two(scale: Tensor, unit: float | Tensor = 1.0) -> Tensor:
    """Return the nearest powers of two times a unit, with the gradient of the identity.

    The rounding is that of ``fix_scales(scale / unit, bits=1)`` in golden: to the nearest in value,
    so that 1.5 is a tie, which goes up, to the even one of 1 and 2. A result below 2^-32 units is
    0. The sign stays, as golden moves it to the levels; golden refuses 2^30 units and more, which
    are kept here.

    Parameters
    ----------
    scale
        float32, any shape.
    unit
        Above 0; broadcasts with `scale` to the shape of `scale`.
    """
    ratio = scale.detach().double() / unit
    fraction = torch.frexp(ratio.abs()).mantissa
    # The fraction is from 1/2 to 1: from 3/4 up, the nearest power of two is 1, else 1/2.
    rounded = ratio.abs() / fraction * torch.where(fraction >= 0.75, 1.0, 0.5)
    kept = torch.where(rounded < 2.0**-32, 0.0, torch.where(ratio == 0, 0.0, rounded))
    return straight_through(scale, (kept.copysign(ratio) * unit).float())
