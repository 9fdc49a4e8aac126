"""Training without quantisation, in binary32: what every other scheme is compared with.

A norm makes the comparison with few-bit weights fair, which have the same norm; it folds into the
weights and the bias of the golden layer.
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import torch
from torch import Tensor

from fewbit.golden.checks import check_choice, freeze_integer
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.train.schemes.contract import Cell, Scheme, Signal, by_gate, reals_of
from fewbit.train.schemes.norms import MOST_STEPS, BatchNormedCell, GainedCell, NormKind

__all__ = ["Float"]


@dataclass(frozen=True)
class Float(Scheme):
    """Weights and activations in binary32, as ``nn.LSTM`` has them.

    Parameters
    ----------
    norm
        None, "weight", "batch" or "batch_per_step", as few-bit schemes have them.
    steps
        The number of steps that have statistics of their own with the norm "batch_per_step".
    """

    name: ClassVar[str] = "float"
    system: ClassVar[str] = ""

    norm: NormKind | None = None
    steps: int = 128

    def __post_init__(self) -> None:
        """Check that the fields have values that exist."""
        if self.norm is not None:
            check_choice("norm", self.norm, get_args(NormKind))
        freeze_integer(self, "steps", 1, MOST_STEPS)

    @property
    def lacks_circuit(self) -> str:
        if self.norm == "batch_per_step":
            return "A golden layer has one set of statistics; train with norm=batch."
        return ""

    def signal(self, *, hidden: bool) -> Signal:
        return Signal()

    def cell(self, inputs: int, hidden: int, reads: Signal, writes: Signal) -> Cell:
        if self.norm == "weight":
            cell = _WeightNormCell(inputs, hidden, reads, writes)
            cell.add_gains()
            return cell
        if self.norm is not None:
            cell = _BatchNormCell(inputs, hidden, reads, writes)
            cell.begin_norms(self.norm, self.steps)
            return cell
        return _FloatCell(inputs, hidden, reads, writes)


class _FloatCell(Cell):
    def weights(self, weight_ih: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        return weight_ih, weight_hh

    def golden(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> Float64Lstm:
        used_ih, used_hh = self.weights(weight_ih, weight_hh)
        return Float64Lstm(*(reals_of(by_gate(each)) for each in (used_ih, used_hh, bias)))


class _WeightNormCell(GainedCell, _FloatCell):
    """A cell whose rows have a trained norm and a direction, the weight's."""

    def start(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        self.start_gains(weight_ih, weight_hh)

    def weights(self, weight_ih: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        return _normed(weight_ih, self.gain_ih), _normed(weight_hh, self.gain_hh)


def _normed(weights: Tensor, gain: Tensor) -> Tensor:
    """Return rows of the norm that the gains say; rows of zeros stay."""
    tiny = torch.finfo(weights.dtype).tiny
    norms = weights.norm(dim=-1, keepdim=True).clamp_min(tiny)
    return weights * (gain.flatten().unsqueeze(-1) / norms)


class _BatchNormCell(BatchNormedCell, _FloatCell):
    def golden(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> Float64Lstm:
        norms = self.batch_norms().values()
        scales = [norm.gain / (norm.variance + norm.epsilon) ** 0.5 for norm in norms]
        shift = sum(scale * norm.mean for scale, norm in zip(scales, norms, strict=True))
        input_weights, recurrent_weights = (
            reals_of(by_gate(weights)) * scale[..., np.newaxis]
            for weights, scale in zip((weight_ih, weight_hh), scales, strict=True)
        )
        return Float64Lstm(input_weights, recurrent_weights, reals_of(by_gate(bias)) - shift)
