"""Training with binary, ternary and power-of-two weights, and a norm that makes it work.

In every forward pass a rule of `fewbit.train.quantisers` turns the real weights into levels; the
gradient passes straight to the real weights. What a row of levels is multiplied by, its scale, is
decided by the norm:

"weight"
    A trained gain over the norm of the row's levels. A circuit multiplies by it; with `scales`
    "powers_of_two" it is trained as a power of two, so the circuit shifts.
"batch"
    Batch normalisation with one set of statistics for all steps, that of the inputs over all steps
    of a batch, that of the hidden values over each step's batch. It folds into scales and biases.
"batch_per_step"
    The same with statistics for every step, as the released code of 1809.11086 has them. No circuit
    can hold them; it is here to be compared with.
None
    The rule's own scale.

Source: Ardakani et al., arXiv 1809.11086; Ott et al., arXiv 1608.06902; Hou et al., "Normalization
helps training of quantized LSTM", NeurIPS 2019, for the weight norm; that scales are trained as
powers of two is this project's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.checks import check_choice, freeze_integer
from fewbit.golden.lstm.ternary import (
    HIGHEST_ACTIVATION_WIDTH,
    LOWEST_ACTIVATION_WIDTH,
    MOST_EXPONENTS,
    LevelKind,
    ScaleKind,
    WeightKind,
)
from fewbit.golden.quantize.ternary import ardakani_scale
from fewbit.train.optimise import MasterCopy
from fewbit.train.quantisers import Rule, rule
from fewbit.train.schemes.contract import Cell, Scheme, Signal
from fewbit.train.schemes.few_bit_cells import FewBitBatchNormCell, FewBitCell, FixedPointSignal
from fewbit.train.schemes.norms import MOST_STEPS, NormKind

__all__ = ["Binary", "Exponential", "FewBit", "FixedPoint", "PowerOfTwo", "Ternary"]


@dataclass(frozen=True)
class FewBit(Scheme):
    """The part that all schemes of few-bit weights have in common.

    Parameters
    ----------
    rule
        The rule that quantises weights, a key of `fewbit.train.quantisers.RULES`.
    sampled
        Whether weights are sampled in training, one sample a batch, if the rule has such a form.
    frozen
        The weights of a circuit: by the "deterministic" rule, or a "sample".
    norm
        "weight", "batch", "batch_per_step" or None.
    scales
        "any", or "powers_of_two", which need no multipliers.
    activation_width
        Bits of inputs and hidden values, 4 to 16.
    activation
        The approximation of sigmoid and tanh in the golden layer.
    steps
        The number of steps that have statistics of their own with the norm "batch_per_step"; later
        steps have those of the last.
    """

    rules: ClassVar[tuple[str, ...]] = ()

    rule: str = ""
    sampled: bool = False
    frozen: Literal["deterministic", "sample"] = "deterministic"
    norm: NormKind | None = "weight"
    scales: ScaleKind = "any"
    activation_width: int = 12
    activation: ActivationKind = "table"
    steps: int = 128

    def __post_init__(self) -> None:
        """Check that every field has a value that exists."""
        if not self.rule:
            object.__setattr__(self, "rule", self.rules[0])
        check_choice("rule", self.rule, self.rules)
        if self.norm is not None:
            check_choice("norm", self.norm, get_args(NormKind))
        check_choice("scales", self.scales, get_args(ScaleKind))
        check_choice("activation", self.activation, get_args(ActivationKind))
        check_choice("frozen", self.frozen, ("deterministic", "sample"))
        low, high = LOWEST_ACTIVATION_WIDTH, HIGHEST_ACTIVATION_WIDTH
        freeze_integer(self, "activation_width", low, high)
        freeze_integer(self, "steps", 1, MOST_STEPS)
        if self.scales == "powers_of_two" and self.norm in {"batch", "batch_per_step"}:
            raise ValueError(
                "scales=powers_of_two must be trained with norm=weight or norm=none, as those of"
                f" norm={self.norm} follow only when they are folded."
            )
        if (self.sampled or self.frozen == "sample") and not self.made_rule.sampled:
            raise ValueError(f"The rule {self.rule} has no random form; set sampled=false.")

    @property
    def made_rule(self) -> Rule:
        """Return the rule with its settings."""
        return rule(self.rule)

    @property
    def weight_kind(self) -> LevelKind | None:
        """Return the kind of weights of the golden layer; None if it has no such weights."""
        return self.made_rule.kind

    @property
    def exponents_of_levels(self) -> int | None:
        """Return the number of magnitudes of the golden layer's weights; None where it is 1."""
        return None

    @property
    def kept_exponents(self) -> int | None:
        """Return how many exponents are kept of those that the rule gives; None for all."""
        return None

    @property
    def lacks_circuit(self) -> str:
        if self.norm == "batch_per_step":
            return (
                "No circuit holds statistics for every step; train with norm=batch or norm=weight."
            )
        if self.weight_kind not in get_args(WeightKind):
            return f"No circuit has the weights of this scheme; {self._remedy}."
        return ""

    @property
    def _remedy(self) -> str:
        return "train with another rule"

    @property
    def hidden_resolution(self) -> float:
        """Return the resolution of hidden raws, 2^-(A - 1)."""
        return 2.0 ** (1 - self.activation_width)

    def signal(self, *, hidden: bool) -> Signal:
        return FixedPointSignal(self.activation_width, hidden=hidden)

    def cell(self, inputs: int, hidden: int, reads: Signal, writes: Signal) -> Cell:
        if self.norm is None or self.norm == "weight":
            return FewBitCell(self, inputs, hidden, reads, writes)
        cell = FewBitBatchNormCell(self, inputs, hidden, reads, writes)
        cell.begin_norms(self.norm, self.steps)
        return cell


@dataclass(frozen=True)
class Binary(FewBit):
    """Weights -1 and 1 with a scale a row."""

    name: ClassVar[str] = "binary"
    system: ClassVar[str] = "binary"
    rules: ClassVar[tuple[str, ...]] = ("binary", "ardakani_binary", "ott_binary")

    def optimiser(self, optimiser: torch.optim.Optimizer, model: nn.Module, labels: int) -> Any:
        if self.rule != "ardakani_binary":
            return optimiser
        # The step of Adam is saturated to the scale of the matrix.
        limits: dict[Tensor, float] = {}
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2].startswith(("weight_ih_l", "weight_hh_l")):
                rows, operands = parameter.shape
                limits[parameter] = ardakani_scale(operands, rows // 4)
        return MasterCopy(
            optimiser, loss_scale=1.0, master="binary32", gradient="binary32", step_limit=limits
        )


@dataclass(frozen=True)
class Ternary(FewBit):
    """Weights -1, 0 and 1 with a scale a row."""

    name: ClassVar[str] = "ternary"
    system: ClassVar[str] = "ternary"
    rules: ClassVar[tuple[str, ...]] = (
        "normalized_ternary",
        "ardakani_ternary",
        "ott_ternary",
        "power_of_two",
    )


@dataclass(frozen=True)
class PowerOfTwo(FewBit):
    """Weights 0 and ±2^e with a scale a row.

    Parameters
    ----------
    exponents
        The number of magnitudes beside 0, 1 to 4.
    """

    name: ClassVar[str] = "pow2"
    system: ClassVar[str] = "pow2"
    rules: ClassVar[tuple[str, ...]] = ("normalized_pow2",)

    exponents: int = MOST_EXPONENTS

    def __post_init__(self) -> None:
        """Check the exponents, too."""
        freeze_integer(self, "exponents", 1, MOST_EXPONENTS)
        super().__post_init__()

    @property
    def made_rule(self) -> Rule:
        return rule(self.rule, magnitudes=self.exponents)

    @property
    def exponents_of_levels(self) -> int:
        return self.exponents


@dataclass(frozen=True)
class Exponential(FewBit):
    """Weights ±2^e, a shift each, by the rule of 1608.06902.

    Parameters
    ----------
    exponents
        The number of exponents that are kept below the largest of a matrix, 1 to 4; smaller weights
        are 0. None keeps all 33, as the paper does, but for that there is no circuit.
    """

    name: ClassVar[str] = "exponential"
    system: ClassVar[str] = "pow2"
    rules: ClassVar[tuple[str, ...]] = ("exponential",)

    exponents: int | None = MOST_EXPONENTS

    def __post_init__(self) -> None:
        """Check the exponents, too."""
        super().__post_init__()
        if self.exponents is not None and not 1 <= self.exponents <= MOST_EXPONENTS:
            raise ValueError(
                f"exponents must be from 1 to {MOST_EXPONENTS}, or none, not {self.exponents}."
            )

    @property
    def weight_kind(self) -> LevelKind | None:
        return None if self.exponents is None else "pow2"

    @property
    def exponents_of_levels(self) -> int | None:
        return self.exponents

    @property
    def kept_exponents(self) -> int | None:
        return self.exponents

    @property
    def _remedy(self) -> str:
        return f"train with exponents from 1 to {MOST_EXPONENTS}"


@dataclass(frozen=True)
class FixedPoint(FewBit):
    """Weights of a fixed point, Qm.f with a symmetric range, by the rule of 1608.06902.

    Parameters
    ----------
    integer_bits, fraction
        m and f. With 0 and 1 the weights are ternary, the only ones that have a circuit.
    """

    name: ClassVar[str] = "fixed_point"
    system: ClassVar[str] = "ternary"
    rules: ClassVar[tuple[str, ...]] = ("power_of_two",)

    integer_bits: int = 0
    fraction: int = 1

    def __post_init__(self) -> None:
        """Check the bits, too, which the rule does."""
        super().__post_init__()
        rule(self.rule, integer_bits=self.integer_bits, fraction=self.fraction)

    @property
    def made_rule(self) -> Rule:
        return rule(self.rule, integer_bits=self.integer_bits, fraction=self.fraction)

    @property
    def _remedy(self) -> str:
        return "train with integer_bits=0 and fraction=1"
