"""Rows in a stream of beats: each runs from ``first`` to ``last`` and gives one sum."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fewbit.golden.contract import Contract, describe, random_codes
from fewbit.golden.formats import FixedPoint
from fewbit.golden.operands import FLAG, Operand, checked
from fewbit.golden.parameter import Value, check_parameters, parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["RowAccumulateContract", "accumulator_width_parameter", "row_flags", "row_sums"]


def accumulator_width_parameter(default: Value) -> Any:
    """Return the field ``accumulator_width`` of a contract with this default."""
    return parameter(default, "bits of the sum, wide enough for a row", 2, 48)


def row_flags(beats: Codes) -> tuple[Codes, Codes]:
    """Return the flags ``first`` and ``last`` of consecutive rows of these numbers of beats."""
    ends = np.cumsum(beats) - 1
    first, last = np.zeros((2, int(beats.sum())), dtype=np.int64)
    first[ends - beats + 1] = 1
    last[ends] = 1
    return first, last


def row_sums(terms: Codes, first: Codes, last: Codes) -> Codes:
    """Return the sum of each row modulo 2**64, one for each beat with ``last``.

    A row runs from the latest beat with ``first`` up to its ``last``.

    Parameters
    ----------
    terms
        The number that each beat adds, shape (beats,).
    first, last
        Flags, shape (beats,); the first beat of all has ``first``.
    """
    # The sum of a row is the difference of two running totals, modulo 2**64.
    running = np.cumsum(terms)
    starts = np.flatnonzero(first)
    ends = np.flatnonzero(last)
    start_of_end = starts[np.searchsorted(starts, ends, side="right") - 1]
    return running[ends] - (running[start_of_end] - terms[start_of_end])


@dataclass(frozen=True)
class RowAccumulateContract(Contract):
    """The sum of a row: start value plus, over beats and lanes, weight times activation.

    Weights are integers, the smallest magnitude being 1. The sum is exact modulo
    2**accumulator_width, in two's complement. So a row whose exact sum fits the accumulator has the
    right result, even where a partial sum does not fit.
    """

    lanes: int = parameter(16, "weights and activations a beat", 1, 256)
    activation_width: int = parameter(12, "bits of a signed activation", 2, 16)
    accumulator_width: int = accumulator_width_parameter(24)

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.accumulator_width < self.product_width:
            least = f"{self.product_width}, a product's width"
            if self.product_width == self.activation_width:
                least = f"activation_width ({self.activation_width})"
            raise ValueError(
                f"accumulator_width must be at least {least}, not {self.accumulator_width}."
            )

    @property
    @abstractmethod
    def weights(self) -> Operand:
        """Return the operand that holds the weights of a beat."""

    @property
    @abstractmethod
    def extreme_weights(self) -> Sequence[int]:
        """Return codes of ``weights`` that give the largest magnitudes in all their lanes."""

    @abstractmethod
    def levels(self, codes: Codes) -> Codes:
        """Return the integer weights that codes stand for, shape (beats, lanes)."""

    @property
    def product_width(self) -> int:
        """Return the bits of a lane's signed product.

        Minus the lowest activation does not fit them.
        """
        return self.activation_width

    @property
    def activation_format(self) -> FixedPoint:
        """Return the format of the signed activations."""
        return FixedPoint(self.activation_width)

    @property
    def accumulator_format(self) -> FixedPoint:
        """Return the format of the sum and of its start value."""
        return FixedPoint(self.accumulator_width)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            self.weights,
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
        """Return ``count`` rows of 1 to 12 random beats; every eighth row holds extremes only."""
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
        weight = rng.choice(np.array(self.extreme_weights), size=count)[row][:, None]
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
        """Return the sums of rows, one for each beat with ``last``.

        Beats of ``arrays`` are those of a stream: ``weights`` and ``activations`` of shape
        (beats, lanes), packed weights of fewer columns, the others (beats,).
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
        weights = self.levels(arrays["weights"])
        activations = self.activation_format.raw(arrays["activations"])
        sums = (weights * activations).sum(axis=1)
        sums += np.where(first, self.accumulator_format.raw(arrays["accumulator"]), 0)
        totals = row_sums(sums, arrays["first"], arrays["last"])
        return {"result": totals & (2**self.accumulator_width - 1)}
