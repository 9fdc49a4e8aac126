"""Conversions between binary16 and the 8-bit formats of the FloatSD8 LSTM, a number at a time."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.activation.floatsd8 import (
    ACCUMULATOR_FORMAT,
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.contract import Contract, random_codes
from fewbit.golden.formats import BINARY16, FixedPoint, FloatSD8
from fewbit.golden.operands import FLAG, Operand, checked
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["FloatSD8ActivateContract", "FloatSD8DecodeContract", "FloatSD8EncodeContract"]

_UINT8 = FixedPoint(8, signed=False)


class _Conversion(Contract):
    """A conversion that computes each result from the operands of one beat."""

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return uniform codes with corners among them."""
        return {operand.name: random_codes(rng, operand, count) for operand in self.operands}

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return the results, arrays of shape (beats,)."""
        return self._convert(checked(self.operands, arrays))

    @abstractmethod
    def _convert(self, arrays: dict[str, Codes]) -> dict[str, Codes]:
        """Return the results of operands that were checked already."""


@dataclass(frozen=True)
class FloatSD8EncodeContract(_Conversion):
    """The FloatSD8 code nearest to a binary16 number: ties to the even index, saturated.

    The code is canonical, see :class:`fewbit.golden.formats.FloatSD8`; whatever rounds to zero is
    code 0. Exponent 31, which IEEE 754 keeps for infinities and NaN, is one more octave of numbers.

    Parameters
    ----------
    bias
        Exponent bias of the result, -16 to 40.
    """

    bias: int = parameter(10, "exponent bias of the FloatSD8 number", -16, 40)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def format(self) -> FloatSD8:
        """Return the format of the result."""
        return FloatSD8(self.bias)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (Operand("number", BINARY16, "number to encode"),)

    @property
    def results(self) -> tuple[Operand, ...]:
        return (Operand("result", self.format, "nearest FloatSD8 number, its canonical code"),)

    def _convert(self, arrays: dict[str, Codes]) -> dict[str, Codes]:
        return {"result": self.format.encode(ACCUMULATOR_FORMAT.decode(arrays["number"]))}


@dataclass(frozen=True)
class FloatSD8DecodeContract(_Conversion):
    """The binary16 code nearest to a FloatSD8 number: ties to even, saturated to ±65504.

    Exact for biases from -4 to 24, where no number is too large or too small. Any code of zero
    gives +0; a negative number that rounds to zero gives -0.

    Parameters
    ----------
    bias
        Exponent bias of the operand, -16 to 40.
    """

    bias: int = parameter(10, "exponent bias of the FloatSD8 number", -16, 40)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def format(self) -> FloatSD8:
        """Return the format of the operand."""
        return FloatSD8(self.bias)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (Operand("number", self.format, "number to decode"),)

    @property
    def results(self) -> tuple[Operand, ...]:
        return (Operand("result", BINARY16, "the same number, or the nearest"),)

    def _convert(self, arrays: dict[str, Codes]) -> dict[str, Codes]:
        return {"result": BINARY16.encode(self.format.decode(arrays["number"]))}


@dataclass(frozen=True)
class FloatSD8ActivateContract(_Conversion):
    """The sigmoid or tanh of a binary16 number, see :mod:`fewbit.golden.activation.floatsd8`.

    ``result`` is the e5m2 code nearest to tanh(x), or q, the FloatSD8 code nearest to
    sigmoid(-|x|); then ``complement``, which is 1 where x > 0, says that the sigmoid is 1 - q.
    """

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("number", BINARY16, "argument of the function"),
            Operand("is_tanh", FLAG, "1 for tanh, 0 for the sigmoid"),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (
            Operand("result", _UINT8, f"tanh as {HIDDEN_FORMAT.name}, or q as {GATE_FORMAT.name}"),
            Operand("complement", FLAG, "x > 0: the sigmoid is 1 - q, not q"),
        )

    def _convert(self, arrays: dict[str, Codes]) -> dict[str, Codes]:
        number = arrays["number"]
        gate, complement = sigmoid_floatsd8(number)
        result = np.where(arrays["is_tanh"] == 1, tanh_e5m2(number), gate)
        return {"result": result, "complement": complement}
