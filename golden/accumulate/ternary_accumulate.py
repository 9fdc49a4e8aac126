"""Ternary accumulate: rows of additions, subtractions and nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from fewbit.golden.accumulate.packing import TERNARY_DENSE, PackingKind
from fewbit.golden.accumulate.rows import RowAccumulateContract
from fewbit.golden.formats import TERNARY, FixedPoint
from fewbit.golden.operands import Operand
from fewbit.golden.parameter import parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]

__all__ = ["TernaryAccumulateContract"]

_PACKED = FixedPoint(TERNARY_DENSE.width, signed=False)


@dataclass(frozen=True)
class TernaryAccumulateContract(RowAccumulateContract):
    """Sum of a row of weights -1, 0 and +1 times activations, modulo 2**accumulator_width.

    ``activation_width`` plus ceil(log2(fan-in)) bits, and one for the start value, never overflow.
    With the packing ``dense`` a code of ``weights`` holds those of five lanes, see
    :data:`fewbit.golden.accumulate.packing.TERNARY_DENSE`.

    Source: arXiv 1809.11086, section 4 (conditional additions instead of multiplications).
    """

    packing: PackingKind = parameter(
        "fields", "weights of 2 bits each, or five in 8 bits", choices=get_args(PackingKind)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_packed and self.lanes % TERNARY_DENSE.group:
            raise ValueError(
                f"lanes must be a multiple of {TERNARY_DENSE.group} with packing dense,"
                f" not {self.lanes}."
            )

    @property
    def is_packed(self) -> bool:
        """Return whether a code holds the weights of several lanes."""
        return self.packing == "dense"

    @property
    def weights(self) -> Operand:
        if self.is_packed:
            group = TERNARY_DENSE.group
            meaning = f"ternary weights of {group} lanes each"
            return Operand("weights", _PACKED, meaning, self.lanes // group)
        return Operand("weights", TERNARY, "ternary weight of each lane", self.lanes)

    @property
    def extreme_weights(self) -> tuple[int, int]:
        if self.is_packed:
            ones = np.ones(TERNARY_DENSE.group, dtype=np.int64)
            high, low = TERNARY_DENSE.pack([ones, -ones]).ravel().tolist()
            return high, low
        return 1, 3

    def levels(self, codes: Codes) -> Codes:
        if self.is_packed:
            return TERNARY_DENSE.unpack(codes, self.lanes)
        return TERNARY.decode(codes).astype(np.int64)
