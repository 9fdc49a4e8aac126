"""The integer LSTM's neuron: eight rows of int8 products become a hidden and a cell raw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.activation.integer import ActivationKind, activation_parameter
from fewbit.golden.arithmetic import SIGNIFICAND_POSITION
from fewbit.golden.formats import INT8, FixedPoint
from fewbit.golden.neuron.rows import ROWS, SHIFT, SIGNIFICAND, RowNeuronContract
from fewbit.golden.operands import Operand
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]

__all__ = ["ROWS", "SHIFT", "Int8LstmNeuronContract"]


@dataclass(frozen=True)
class Int8LstmNeuronContract(RowNeuronContract):
    """A neuron that computes one hidden unit of the integer LSTM at a time.

    Beats, rows and configuration are those of `RowNeuronContract`.

    Parameters
    ----------
    lanes
        Number of products of a beat.
    activation
        "table" or "gemmlowp", see :mod:`fewbit.golden.activation.integer`.

    Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453.
    """

    lanes: int = parameter(16, "int8 products a beat", 1, 64)
    activation: ActivationKind = activation_parameter()

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def weights(self) -> Operand:
        return Operand("weights", INT8, "weight of each lane", self.lanes)

    @property
    def activations(self) -> Operand:
        return Operand("activations", INT8, "input or old hidden raw of each lane", self.lanes)

    @property
    def extreme_weights(self) -> tuple[int, int]:
        return 0x7F, 0x80

    def levels(self, codes: Codes) -> Codes:
        return INT8.raw(codes)

    @property
    def last_scale(self) -> tuple[Operand, ...]:
        return (
            Operand(
                "hidden_multiplier",
                SIGNIFICAND,
                "upper 24 bits of the last requantisation's split multiplier",
            ),
            Operand(
                "hidden_shift",
                FixedPoint(5, signed=False),
                "right shift of the last requantisation: its split multiplier's shift, negated",
            ),
            Operand("hidden_zero_point", INT8, "raw that stands for a hidden value of zero"),
        )

    def last_scale_of(self, configuration: dict[str, int]) -> tuple[int, int, int]:
        return (
            configuration["hidden_multiplier"] << SIGNIFICAND_POSITION,
            -configuration["hidden_shift"],
            int(INT8.raw(configuration["hidden_zero_point"])),
        )

    def lively_scale(self, rng: np.random.Generator, drawn: dict[str, Codes]) -> dict[str, Codes]:
        # The hidden scale is near 1/128; output gate times tanh is in units of 2^-30.
        return {
            "hidden_zero_point": rng.integers(-32, 32, size=1) & 0xFF,
            "hidden_multiplier": drawn["hidden_multiplier"] | 1 << 23,
            "hidden_shift": rng.integers(20, 25, size=1),
        }
