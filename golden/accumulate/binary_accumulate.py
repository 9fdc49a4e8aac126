"""Binary accumulate: rows of additions and subtractions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.accumulate.rows import RowAccumulateContract
from fewbit.golden.formats import Binary
from fewbit.golden.operands import Operand

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]

__all__ = ["BinaryAccumulateContract"]

_BINARY = Binary()


@dataclass(frozen=True)
class BinaryAccumulateContract(RowAccumulateContract):
    """Sum of a row of weights -1 and +1 times activations, modulo 2**accumulator_width.

    ``activation_width`` plus ceil(log2(fan-in)) bits, and one for the start value, never overflow.
    There is no weight 0: a lane that must not count needs an activation of 0.

    Source: arXiv 1809.11086, section 4.
    """

    @property
    def weights(self) -> Operand:
        return Operand("weights", _BINARY, "binary weight of each lane", self.lanes)

    @property
    def extreme_weights(self) -> tuple[int, int]:
        return 0, 1

    def levels(self, codes: Codes) -> Codes:
        return _BINARY.decode(codes).astype(np.int64)
