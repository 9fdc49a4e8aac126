"""The neuron of ternary, binary or power-of-two weights: eight rows become a new state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from fewbit.golden.accumulate.binary_accumulate import BinaryAccumulateContract
from fewbit.golden.accumulate.int12_mac import Int12MacContract
from fewbit.golden.accumulate.packing import TERNARY_DENSE, PackingKind
from fewbit.golden.accumulate.pow2_accumulate import Pow2, Pow2AccumulateContract
from fewbit.golden.accumulate.ternary_accumulate import TernaryAccumulateContract
from fewbit.golden.activation.integer import ActivationKind, activation_parameter
from fewbit.golden.arithmetic import split_multiplier
from fewbit.golden.checks import check_choice, freeze_whole
from fewbit.golden.formats import TERNARY, Binary, FixedPoint
from fewbit.golden.lstm.ternary import (
    HIGHEST_ACTIVATION_WIDTH,
    LOWEST_ACTIVATION_WIDTH,
    MOST_EXPONENTS,
    LevelKind,
)
from fewbit.golden.neuron.rows import RowNeuronContract
from fewbit.golden.operands import Operand
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.accumulate.rows import RowAccumulateContract

    Codes = npt.NDArray[np.int64]

__all__ = [
    "ACCUMULATOR_WIDTH",
    "SIDE_BY_SIDE",
    "WEIGHTS",
    "LaneWeights",
    "TernaryLstmNeuronContract",
    "exponents_parameter",
    "value_width_parameter",
    "weights_parameter",
]

WEIGHTS: tuple[LevelKind, ...] = ("ternary", "binary", "pow2", "int12")

SIDE_BY_SIDE = ("f", "i", "g", "o")
"""The order of gates in the image where rows of all four gates are side by side."""
ACCUMULATOR_WIDTH = 32
MOST_LANES = 256
_BYTE = 8
_DENSE = FixedPoint(TERNARY_DENSE.width, signed=False)


@dataclass(frozen=True)
class LaneWeights:
    """The weights of a neuron's lanes in a cycle, as codes and as bytes of a memory.

    Parameters
    ----------
    lanes
        Number of weights in a cycle, from 1 to 256; they must fill whole bytes.
    weights
        "ternary", "binary", "pow2" or "int12".
    exponents
        Number of magnitudes of "pow2" weights beside 0, from 1 to 4; else 1.
    packing
        "fields": each weight in bits of its own; "dense": five ternary weights in 8 bits.
    """

    lanes: int
    weights: LevelKind = "ternary"
    exponents: int = 1
    packing: PackingKind = "fields"

    def __post_init__(self) -> None:
        freeze_whole(self, "lanes", 1, MOST_LANES)
        check_choice("weights", self.weights, WEIGHTS)
        check_choice("packing", self.packing, get_args(PackingKind))
        freeze_whole(self, "exponents", 1, MOST_EXPONENTS if self.weights == "pow2" else 1)
        if self.packing != "fields" and self.weights != "ternary":
            raise ValueError(
                f"Only ternary weights have packing dense, not {self.weights} ones; take packing"
                " fields."
            )

    @property
    def exponent_bits(self) -> int:
        """Return the number of bits of a power-of-two weight's exponent."""
        return (self.exponents - 1).bit_length()

    def accumulate(self, activation_width: int = 12) -> RowAccumulateContract:
        """Return the contract of the unit that sums the lanes."""
        sizes = self.lanes, activation_width, ACCUMULATOR_WIDTH
        if self.weights == "binary":
            return BinaryAccumulateContract(*sizes)
        if self.weights == "pow2":
            return Pow2AccumulateContract(*sizes, self.exponent_bits)
        if self.weights == "int12":
            return Int12MacContract(*sizes)
        return TernaryAccumulateContract(*sizes)

    @property
    def operand(self) -> Operand:
        """Return the operand that holds the weights of a beat."""
        if self.packing == "fields":
            return self.accumulate().weights
        group = TERNARY_DENSE.group
        if self.lanes % group:
            raise ValueError(
                f"lanes must be a multiple of {group} with packing dense, not {self.lanes}."
            )
        meaning = f"ternary weights of {group} lanes each"
        return Operand("weights", _DENSE, meaning, self.lanes // group)

    @property
    def bytes(self) -> int:
        """Return the number of bytes of a neuron's weights in a cycle.

        Raises
        ------
        ValueError
            If the lanes' weights do not fill whole bytes.
        """
        operand = self.operand
        step = _BYTE // math.gcd(operand.format.width, _BYTE) if self.packing == "fields" else 1
        if self.lanes % step:
            raise ValueError(
                f"lanes must be a multiple of {step}, as {step} {self.weights} weights make whole"
                f" bytes, not {self.lanes}."
            )
        return operand.width // _BYTE

    def levels(self, codes: Codes) -> Codes:
        """Return the integer weights that codes stand for, shape (..., lanes)."""
        if self.packing != "fields":
            return TERNARY_DENSE.unpack(codes, self.lanes)
        shape = codes.shape
        levels = self.accumulate().levels(codes.reshape(-1, shape[-1]))
        return levels.reshape(*shape[:-1], self.lanes)

    def codes(self, levels: Codes) -> Codes:
        """Return the codes of weights, shape (..., lanes), the inverse of `levels`."""
        if self.packing != "fields":
            return TERNARY_DENSE.pack(levels)
        if self.weights == "binary":
            return Binary().encode(levels)
        if self.weights == "pow2":
            number_format = Pow2(self.exponent_bits)
            return number_format.encode(np.ldexp(levels.astype(np.float64), -number_format.finest))
        if self.weights == "int12":
            return FixedPoint(12).code(levels)
        return TERNARY.encode(levels)


def weights_parameter(name: str = "") -> Any:
    """Return the field for the kind of weights, which the user calls ``weights``."""
    return parameter(
        "ternary", "levels of weights; int12 to compare with", choices=WEIGHTS, name=name
    )


def exponents_parameter() -> Any:
    """Return the field ``exponents`` of a neuron or a layer."""
    return parameter(1, "magnitudes of pow2 weights: 1, 2, 4, 8", 1, MOST_EXPONENTS)


def value_width_parameter() -> Any:
    """Return the field ``activation_width`` of a neuron or a layer."""
    return parameter(
        12,
        "bits of inputs and hidden values",
        LOWEST_ACTIVATION_WIDTH,
        HIGHEST_ACTIVATION_WIDTH,
    )


@dataclass(frozen=True)
class TernaryLstmNeuronContract(RowNeuronContract):
    """A neuron of ternary, binary or power-of-two weights for one hidden unit at a time.

    The rows are those of :class:`fewbit.golden.neuron.rows.RowNeuronContract`. A lane without a
    weight needs an activation of 0, because binary weights have no 0.

    Parameters
    ----------
    lanes
        Number of weights of a beat.
    weights, exponents
        "ternary", "binary", "pow2" or "int12", see :mod:`fewbit.golden.lstm.ternary`.
    activation_width
        Bits of inputs and hidden values.
    activation
        "table" or "gemmlowp", see :mod:`fewbit.golden.activation.integer`.

    Source: see :mod:`fewbit.golden.lstm.ternary`.
    """

    lanes: int = parameter(16, "weights a beat", 1, MOST_LANES)
    weights_kind: LevelKind = weights_parameter("weights")
    exponents: int = exponents_parameter()
    activation_width: int = value_width_parameter()
    activation: ActivationKind = activation_parameter()

    def __post_init__(self) -> None:
        check_parameters(self)
        _ = self.lane_weights

    @property
    def lane_weights(self) -> LaneWeights:
        """Return the weights of a beat's lanes."""
        return LaneWeights(self.lanes, self.weights_kind, self.exponents)

    @property
    def weights(self) -> Operand:
        return self.lane_weights.operand

    @property
    def activations(self) -> Operand:
        number_format = FixedPoint(self.activation_width)
        meaning = "input or old hidden raw of each lane"
        return Operand("activations", number_format, meaning, self.lanes)

    @property
    def extreme_weights(self) -> tuple[int, int]:
        first, second = self.lane_weights.accumulate().extreme_weights
        return first, second

    def levels(self, codes: Codes) -> Codes:
        return self.lane_weights.levels(codes)

    @property
    def last_scale(self) -> tuple[Operand, ...]:
        return ()

    def last_scale_of(self, configuration: dict[str, int]) -> tuple[int, int, int]:
        # The scale from units of 2^-30 to those of a hidden value.
        return (*split_multiplier(2.0 ** (self.activation_width - 1 - 30)), 0)

    def lively_scale(self, rng: np.random.Generator, drawn: dict[str, Codes]) -> dict[str, Codes]:
        return {}
