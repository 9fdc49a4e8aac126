"""Training without quantisation, in binary32: what every other scheme is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.train.schemes.contract import Cell, Scheme, Signal, by_gate, reals_of

__all__ = ["Float"]


@dataclass(frozen=True)
class Float(Scheme):
    """Weights and activations in binary32, as ``nn.LSTM`` has them."""

    name: ClassVar[str] = "float"
    system: ClassVar[str] = ""

    def signal(self, *, hidden: bool) -> Signal:
        return Signal()

    def cell(self, inputs: int, hidden: int, reads: Signal, writes: Signal) -> Cell:
        return _FloatCell(inputs, hidden, reads, writes)


class _FloatCell(Cell):
    def weights(self, weight_ih: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        return weight_ih, weight_hh

    def golden(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> Float64Lstm:
        return Float64Lstm(
            *(reals_of(by_gate(each)) for each in (weight_ih, weight_hh, bias)),
        )
