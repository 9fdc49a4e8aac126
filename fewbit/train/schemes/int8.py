"""Training for the integer LSTM: int8 weights, inputs and hidden values by its own rules.

In every forward pass the weights of a gate are rounded to raws of its largest weight over 127, the
network's input and the hidden values to raws of 8 bits over their range. That of the input is the
range of all that was seen; that of hidden values widens with a batch's and narrows slowly. The 16
bits of gates and cells and the 32 of biases are finer than binary32's noise in training and left
out. A frozen layer hands its ranges over, so golden rounds as training did.

Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453,
section 3, for the rules; straight-through gradients and learnt ranges are the usual ones.
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.checks import check_choice
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.quantize.int8 import asymmetric_parameters, quantize_layer
from fewbit.train.recurrence import Rounding
from fewbit.train.schemes.contract import Cell, Scheme, Signal, by_gate, reals_of

__all__ = ["Int8"]

_MEMORY = 0.99
"""Weight of the range before, where a batch's is narrower."""
_LARGEST_WEIGHT = 127


@dataclass(frozen=True)
class Int8(Scheme):
    """Training with the integer LSTM's quantisation.

    Parameters
    ----------
    activation
        The approximation of sigmoid and tanh in the golden layer.
    """

    name: ClassVar[str] = "int8"
    system: ClassVar[str] = "int8"

    activation: ActivationKind = "table"

    def __post_init__(self) -> None:
        """Check that the activation exists."""
        check_choice("activation", self.activation, get_args(ActivationKind))

    def signal(self, *, hidden: bool) -> Signal:
        return _Int8Signal("hidden values" if hidden else "inputs", bounded=hidden)

    def cell(self, inputs: int, hidden: int, reads: Signal, writes: Signal) -> Cell:
        return _Int8Cell(self, inputs, hidden, reads, writes)


class _Int8Signal(Signal):
    """Raws of 8 bits over a range that is learnt; at first it is that of hidden values.

    Parameters
    ----------
    noun
        The numbers' name in an error.
    bounded
        Whether the numbers are hidden values. Their range is learnt from what `rounding` sees
        before it rounds, as nothing exceeds the range behind it, and follows the batches'.
    """

    low: Tensor
    high: Tensor
    known: Tensor

    def __init__(self, noun: str, *, bounded: bool) -> None:
        super().__init__()
        self._noun, self._bounded = noun, bounded
        self._seen: list[Tensor] = []
        self.register_buffer("low", torch.tensor(-1.0))
        self.register_buffer("high", torch.tensor(1.0))
        self.register_buffer("known", torch.tensor(data=False))

    @property
    def is_known(self) -> bool:
        return self._bounded or bool(self.known)

    @property
    def parameters_of_raws(self) -> tuple[float, int]:
        """Return scale and zero point."""
        return asymmetric_parameters(float(self.low), float(self.high), self._noun)

    @property
    def rounding(self) -> Rounding:
        scale, zero_point = self.parameters_of_raws

        def nearest(values: Tensor) -> Tensor:
            if self.training:
                self._seen.append(torch.stack(torch.aminmax(values)))
            return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, -128, 127)

        return nearest

    def forward(self, values: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(values, *self.parameters_of_raws, -128, 127)

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        if self._bounded:
            seen = torch.stack(self._seen)
            self._seen.clear()
            low, high = seen[:, 0].min(), seen[:, 1].max()
            share = 1 - _MEMORY if self.known else 1.0
            # It widens at once and narrows slowly, so that hidden values seldom saturate.
            self.low.copy_(torch.minimum(low, torch.lerp(self.low, low, share)))
            self.high.copy_(torch.maximum(high, torch.lerp(self.high, high, share)))
        else:
            low, high = torch.aminmax(values)
            self.low.copy_(torch.minimum(self.low, low) if self.known else low)
            self.high.copy_(torch.maximum(self.high, high) if self.known else high)
        self.known.fill_(value=True)


class _Int8Cell(Cell):
    def __init__(
        self, scheme: Int8, inputs: int, hidden: int, reads: Signal, writes: Signal
    ) -> None:
        super().__init__(inputs, hidden, reads, writes)
        self.scheme = scheme

    def weights(self, weight_ih: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        return _nearest_weights(weight_ih), _nearest_weights(weight_hh)

    def golden(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> Int8Lstm:
        assert isinstance(self.reads, _Int8Signal)
        assert isinstance(self.writes, _Int8Signal)
        return quantize_layer(
            Float64Lstm(*(reals_of(by_gate(each)) for each in (weight_ih, weight_hh, bias))),
            self.reads.parameters_of_raws,
            self.writes.parameters_of_raws,
            float(self.largest_cell),
            activation=self.scheme.activation,
        )


def _nearest_weights(weights: Tensor) -> Tensor:
    """Return weights rounded to raws of their gate, with a gradient that passes straight."""
    gates = by_gate(weights)
    scales = gates.detach().abs().amax(dim=(1, 2)) / _LARGEST_WEIGHT
    # A gate of zeros has no scale; any will do.
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weights.device)
    rounded = torch.fake_quantize_per_channel_affine(
        gates, scales, zeros, 0, -_LARGEST_WEIGHT, _LARGEST_WEIGHT
    )
    return rounded.flatten(0, 1)
