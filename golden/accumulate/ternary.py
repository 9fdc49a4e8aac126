"""Ternary accumulate: rows of additions, subtractions and nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from golden.accumulate.rows import row_flags, row_sums
from golden.contract import Contract, check_whole, describe, random_codes
from golden.formats import TERNARY, FixedPoint
from golden.operands import FLAG, Operand, checked

if TYPE_CHECKING:
    import numpy.typing as npt

    from golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["TernaryAccumulate"]


@dataclass(frozen=True)
class TernaryAccumulate(Contract):
    """Sum of a row: start value plus the sum over beats and lanes of weight * activation.

    The sum is exact modulo 2**accumulator_width, two's complement: a row whose exact sum fits the
    accumulator is right whatever its partial sums do. ``activation_width`` plus ceil(log2(fan-in))
    bits, and one for the start value, never overflow.

    Source: arXiv 1809.11086, section 4 (conditional additions instead of multiplications).
    """

    lanes: int = 16
    activation_width: int = 12
    accumulator_width: int = 24

    def __post_init__(self) -> None:
        check_whole("lanes", self.lanes, 1, 4096)
        check_whole("activation_width", self.activation_width, 2, 48)
        check_whole("accumulator_width", self.accumulator_width, 2, 48)
        if self.accumulator_width < self.activation_width:
            raise ValueError(
                f"accumulator_width must be at least activation_width ({self.activation_width}),"
                f" not {self.accumulator_width}."
            )

    @property
    def activation_format(self) -> FixedPoint:
        """Signed activations."""
        return FixedPoint(self.activation_width)

    @property
    def accumulator_format(self) -> FixedPoint:
        """The sum and its start value."""
        return FixedPoint(self.accumulator_width)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("weights", TERNARY, "ternary weight of each lane", self.lanes),
            Operand(
                "activations", self.activation_format, "signed activation of each lane", self.lanes
            ),
            Operand(
                "accumulator",
                self.accumulator_format,
                "start value of the row, counts with first only",
            ),
            Operand("first", FLAG, "the beat starts a row"),
            Operand("last", FLAG, "the beat ends a row and makes a result"),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (Operand("result", self.accumulator_format, "sum of the row"),)

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Beats of ``count`` rows of 1 to 12 beats; every eighth row holds extremes only."""
        beats = rng.integers(1, 13, size=count)
        beats[rng.random(count) < 0.25] = 1
        total = int(beats.sum())
        row = np.repeat(np.arange(count), beats)
        arrays = {
            operand.name: random_codes(rng, operand, total)
            for operand in self.operands
            if operand.format is not FLAG
        }
        extreme = row % 8 == 7
        weight = rng.choice([1, 3], size=count)[row][:, None]
        limits = (self.activation_format.smallest_raw, self.activation_format.largest_raw)
        activation = rng.choice(self.activation_format.code(limits), size=count)[row][:, None]
        arrays["weights"] = np.where(extreme[:, None], weight, arrays["weights"])
        arrays["activations"] = np.where(extreme[:, None], activation, arrays["activations"])
        arrays["first"], arrays["last"] = row_flags(beats)
        return arrays

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        last = int(np.flatnonzero(arrays["last"])[index])
        first = int(np.flatnonzero(arrays["first"][: last + 1])[-1])
        lines = [describe(self.operands[2], arrays["accumulator"][first])]
        for beat in range(first, last + 1):
            lines += [describe(field, arrays[field.name][beat]) for field in self.operands[:2]]
        return lines

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Sums of rows, one for each beat with ``last``.

        Beats of ``arrays`` are those of a stream: ``weights`` and ``activations`` of shape
        (beats, lanes), the others (beats,).
        """
        arrays = checked(self.operands, arrays)
        first = arrays["first"].astype(bool)
        starts_needed = np.concatenate(([True], arrays["last"][:-1] == 1))[: len(first)]
        if (starts_needed & ~first).any():
            beat = int(np.flatnonzero(starts_needed & ~first)[0])
            raise ValueError(
                f"The beat after a row's last must be the first of another, but beat {beat}"
                " continues a row that ended; set its 'first'."
            )
        weights = TERNARY.decode(arrays["weights"]).astype(np.int64)
        activations = self.activation_format.raw(arrays["activations"])
        sums = (weights * activations).sum(axis=1)
        sums += np.where(first, self.accumulator_format.raw(arrays["accumulator"]), 0)
        totals = row_sums(sums, arrays["first"], arrays["last"])
        return {"result": totals & (2**self.accumulator_width - 1)}
