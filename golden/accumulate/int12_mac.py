"""12-bit multiply-accumulate: the full-precision baseline beside binary and ternary weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fewbit.golden.accumulate.rows import RowAccumulateContract, accumulator_width_parameter
from fewbit.golden.formats import FixedPoint
from fewbit.golden.operands import Operand

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]

__all__ = ["Int12MacContract"]

_INT12 = FixedPoint(12)


@dataclass(frozen=True)
class Int12MacContract(RowAccumulateContract):
    """Sum of a row of signed 12-bit weights times activations, modulo 2**accumulator_width.

    ``activation_width`` + 12 + ceil(log2(fan-in)) bits never overflow: the 36 bits of the default
    hold rows as long as the 24 bits of ternary weights do.

    Source: the "full-precision" unit in the hardware comparison of arXiv 1809.11086.
    """

    accumulator_width: int = accumulator_width_parameter(36)

    @property
    def weights(self) -> Operand:
        return Operand("weights", _INT12, "signed weight of each lane", self.lanes)

    @property
    def product_width(self) -> int:
        return self.activation_width + _INT12.width

    @property
    def extreme_weights(self) -> tuple[int, int]:
        low, high = _INT12.code((_INT12.smallest_raw, _INT12.largest_raw)).tolist()
        return low, high

    def levels(self, codes: Codes) -> Codes:
        return _INT12.raw(codes)
