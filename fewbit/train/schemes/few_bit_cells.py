"""Cells and signals of few-bit schemes: levels, their scales, norms, and the golden layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fewbit.golden.lstm.batch_norm import BatchNorm, BatchNormLstm
from fewbit.golden.lstm.ternary import TernaryLstm
from fewbit.golden.quantize.batch_norm import fold
from fewbit.golden.quantize.ternary import ScaledWeights, ardakani_scale, ott_scale
from fewbit.golden.quantize.ternary_lstm import integers_of_folded
from fewbit.train.quantisers import nearest_power_of_two, straight_through
from fewbit.train.recurrence import Rounding
from fewbit.train.schemes.contract import Signal, by_gate, reals_of
from fewbit.train.schemes.norms import BatchNormedCell, GainedCell

if TYPE_CHECKING:
    from fewbit.train.schemes.few_bit import FewBit

__all__ = ["FewBitBatchNormCell", "FewBitCell", "FixedPointSignal"]

_GATE_RESOLUTION = 2.0**-12


class FixedPointSignal(Signal):
    """Raws of some bits without a zero point; the input's resolution grows with what it sees."""

    resolution: Tensor

    def __init__(self, width: int, *, hidden: bool) -> None:
        super().__init__()
        self._hidden = hidden
        half = 1 << (width - 1)
        self._bounds = -half, half - 1
        self.register_buffer("resolution", torch.tensor(1.0 / half if hidden else 0.0))

    @property
    def is_known(self) -> bool:
        return bool(self.resolution > 0)

    @property
    def rounding(self) -> Rounding:
        resolution = float(self.resolution)

        def nearest(values: Tensor) -> Tensor:
            return torch.fake_quantize_per_tensor_affine(values, resolution, 0, *self._bounds)

        return nearest

    def forward(self, values: Tensor) -> Tensor:
        return values if not self.is_known else self.rounding(values)

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        if not self._hidden:
            needed = values.abs().max() / self._bounds[1]
            torch.maximum(self.resolution, needed, out=self.resolution)


class _Levels(NamedTuple):
    """Levels of shape (4, hidden, operands), and what the rule's scale is multiplied by."""

    levels: Tensor
    unit: Tensor | float


class FewBitCell(GainedCell):
    """A cell of quantised weights; its scales are the rule's own, or those of a weight norm."""

    def __init__(
        self, scheme: "FewBit", inputs: int, hidden: int, reads: Signal, writes: Signal
    ) -> None:
        super().__init__(inputs, hidden, reads, writes)
        self.scheme, self._rule = scheme, scheme.made_rule
        self._frozen: tuple[_Levels, _Levels] | None = None
        if scheme.norm == "weight":
            self.add_gains()

    def draw(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        for weights in (weight_ih, weight_hh):
            operands = weights.shape[1]
            if self.scheme.rule.startswith("ardakani"):
                bound = 2 * ardakani_scale(operands, self.hidden)
            elif self.scheme.rule.startswith("ott"):
                bound = ott_scale(operands, self.hidden)
            elif self.scheme.rule == "power_of_two" and self.scheme.norm is not None:
                # Half of the weights are then beyond the threshold, whatever the size.
                bound = float(self._rule.scale(by_gate(weights), by_gate(weights)))
            else:
                continue
            nn.init.uniform_(weights, -bound, bound)

    def start(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        if self.scheme.norm == "weight":
            self.start_gains(weight_ih, weight_hh)

    def _levels(self, weights: Tensor, part: int) -> _Levels:
        """Return the levels of a pass, or those of a frozen sample."""
        if self._frozen is not None and not self.training:
            return self._frozen[part]
        return self._drawn(weights, sampled=self.scheme.sampled and self.training)

    def _drawn(self, weights: Tensor, *, sampled: bool) -> _Levels:
        gates = by_gate(weights.detach())
        levels = self._rule.levels(gates, self._rule.uniforms(gates) if sampled else None)
        kept = self.scheme.kept_exponents
        if kept is None:
            return _Levels(levels, 1.0)
        # In units of the smallest magnitude that is kept; what is smaller is 0.
        unit = levels.abs().max() * 2.0 ** (1 - kept)
        levels = levels / unit
        return _Levels(torch.where(levels.abs() >= 1, levels, torch.zeros_like(levels)), unit)

    def _unit(self, part: int) -> float:
        """Return the number of which scales must be powers of two times it."""
        signal = self.writes if part else self.reads
        assert isinstance(signal, FixedPointSignal)
        resolution = float(signal.resolution)
        return _GATE_RESOLUTION / (resolution or self.scheme.hidden_resolution)

    def _scaled(self, weights: Tensor, part: int) -> tuple[Tensor, Tensor]:
        """Return levels, with a gradient to the weights, and the scale of each row, (4, hidden)."""
        gates = by_gate(weights)
        levels, unit = self._levels(weights, part)
        if self.scheme.norm == "weight":
            levels = straight_through(gates, levels)
            gain = self.gain_hh if part else self.gain_ih
            # A row without levels has no norm, and no effect either.
            scale = gain / levels.square().sum(-1).clamp_min(1.0).sqrt()
        else:
            scale = (self._rule.scale(gates, levels) * unit).expand(gates.shape[:2])
        if self.scheme.scales == "powers_of_two":
            scale = nearest_power_of_two(scale, self._unit(part))
        return levels, scale

    def _weights_of(self, weights: Tensor, part: int) -> Tensor:
        levels, scale = self._scaled(weights, part)
        used = levels * scale.unsqueeze(-1)
        if self.scheme.norm != "weight":
            used = straight_through(by_gate(weights), used)
        return used.flatten(0, 1)

    def weights(self, weight_ih: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        return self._weights_of(weight_ih, 0), self._weights_of(weight_hh, 1)

    @contextmanager
    def freeze(self, weight_ih: Tensor, weight_hh: Tensor) -> Iterator[None]:
        if self.scheme.frozen == "sample" and self._frozen is None:
            self._frozen = (
                self._drawn(weight_ih, sampled=True),
                self._drawn(weight_hh, sampled=True),
            )
        with super().freeze(weight_ih, weight_hh):
            yield

    def batch_norms(self) -> dict[str, BatchNorm]:
        """Return the norms of the golden layer before folding, by their names there."""
        return {}

    def golden(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> TernaryLstm:
        kind = self.scheme.weight_kind
        # A scheme with other weights lacks a circuit, which the layer has found.
        assert kind is not None
        assert kind != "int12"
        scaled: list[ScaledWeights] = []
        for part, weights in enumerate((weight_ih, weight_hh)):
            levels, scale = (reals_of(each) for each in self._scaled(weights, part))
            # A negative gain turns the signs of its levels.
            signs = np.where(scale < 0, -1, 1)
            turned = levels.astype(np.int64) * signs[..., np.newaxis]
            scaled.append(ScaledWeights(turned, np.abs(scale)))
        real = BatchNormLstm(
            scaled[0].reals, scaled[1].reals, reals_of(by_gate(bias)), **self.batch_norms()
        )
        signal = self.reads
        assert isinstance(signal, FixedPointSignal)
        if not signal.is_known:
            raise ValueError("The inputs that were seen are all 0 and have no scale; give others.")
        return integers_of_folded(
            fold(real, *scaled),
            float(signal.resolution),
            float(self.largest_cell),
            to=kind,
            exponents=self.scheme.exponents_of_levels,
            activation_width=self.scheme.activation_width,
            scales=self.scheme.scales,
            activation=self.scheme.activation,
        )


class FewBitBatchNormCell(BatchNormedCell, FewBitCell):
    """A cell of quantised weights whose two products are normalised over the batch."""
