"""Power-of-two accumulate: rows of shifted additions, subtractions and nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.accumulate.rows import RowAccumulateContract, accumulator_width_parameter
from fewbit.golden.checks import freeze_whole
from fewbit.golden.formats import Format
from fewbit.golden.operands import Operand
from fewbit.golden.parameter import parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]
    Reals = npt.NDArray[np.float64]

__all__ = ["Pow2", "Pow2AccumulateContract"]


@dataclass(frozen=True)
class Pow2(Format):
    """Zero and powers of two: ``0bNE…EZ``, Z non-zero, N negative, real = ±2**-E.

    With no exponent bits it is :data:`fewbit.golden.formats.TERNARY`, code for code. Z = 0 is zero
    whatever the rest; only code 0 is written. ``encode`` rounds to nearest, ties to the even
    index in the sorted list of values, and saturates to ±1. A trained quantiser applies its own
    rule before.

    Source: the levels are those of arXiv 1608.06902; the layout is this project's.
    """

    exponent_bits: int
    width: int = field(init=False)

    def __post_init__(self) -> None:
        freeze_whole(self, "exponent_bits", 0, 3)
        object.__setattr__(self, "width", self.exponent_bits + 2)

    @property
    def name(self) -> str:
        return f"pow2_{2**self.exponent_bits}"

    @property
    def encoding(self) -> str:
        return "0bN" + "E" * self.exponent_bits + "Z"

    @property
    def finest(self) -> int:
        """Return the largest exponent: the resolution is 2**-finest."""
        return 2**self.exponent_bits - 1

    def _decode(self, codes: Codes) -> Reals:
        exponent = codes >> 1 & self.finest
        sign = np.where(codes >> (self.width - 1), -1.0, 1.0)
        return np.where(codes & 1, np.ldexp(sign, -exponent), 0.0)


@dataclass(frozen=True)
class Pow2AccumulateContract(RowAccumulateContract):
    """Sum of a row of weights 0 and ±2**-e times activations, e from 0 to 2**exponent_bits - 1.

    Sum and start value count in units of the finest weight, 2**-(2**exponent_bits - 1), so that
    nothing is rounded. ``activation_width`` + ceil(log2(fan-in)) + 2**exponent_bits - 1 bits, and
    one for the start value, never overflow. Ternary weights with a scale that is a power of two,
    such as the levels 0 and ±1/2 of arXiv 1608.06902 (m = 0, f = 1), need no exponent bits: their
    scale is one shift of the sum.

    Source: arXiv 1608.06902, section 3.
    """

    accumulator_width: int = accumulator_width_parameter(27)
    exponent_bits: int = parameter(2, "bits of a weight's exponent", 0, 3)

    @property
    def weight_format(self) -> Pow2:
        """Return the format of a weight."""
        return Pow2(self.exponent_bits)

    @property
    def weights(self) -> Operand:
        return Operand(
            "weights", self.weight_format, "power-of-two weight of each lane", self.lanes
        )

    @property
    def product_width(self) -> int:
        return self.activation_width + self.weight_format.finest

    @property
    def extreme_weights(self) -> tuple[int, int]:
        return 1, 1 | 1 << (self.exponent_bits + 1)

    def levels(self, codes: Codes) -> Codes:
        return np.ldexp(self.weight_format.decode(codes), self.weight_format.finest).astype(
            np.int64
        )
