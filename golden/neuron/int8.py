"""The integer LSTM's neuron: eight rows of int8 products become a hidden and a cell raw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from golden.accumulate.rows import row_flags, row_sums
from golden.activations import ActivationKind
from golden.arithmetic import SIGNIFICAND_POSITION
from golden.contract import Contract, check_whole, describe, random_codes
from golden.formats import INT8, INT16, INT32, FixedPoint
from golden.lstm.int8 import GATES, PARTS, update_unit
from golden.operands import FLAG, Operand, checked

if TYPE_CHECKING:
    import numpy.typing as npt

    from golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["ROWS", "Int8LstmNeuron"]

ROWS = len(GATES) * len(PARTS)
"""Rows of a unit: gate i, f, g, o, and for each the input part, then the recurrent part."""

CELL_ROW = 3
"""The row with whose last beat the old cell raw counts: the recurrent part of gate f."""

SIGNIFICAND = FixedPoint(24, signed=False)
SHIFT = FixedPoint(6)
LOWEST_SHIFT, HIGHEST_SHIFT = -31, 30
HIGHEST_INTEGER_BITS = 6


@dataclass(frozen=True)
class Int8LstmNeuron(Contract):
    """One hidden unit of the integer LSTM at a time, from its weights to its new state.

    A unit is eight rows of beats in the order i input, i recurrent, f input, f recurrent, g input,
    g recurrent, o input, o recurrent. A row is one beat or more; its accumulator is the bias plus
    the sum over beats and lanes of weight times activation, modulo 2^32. What follows is
    :func:`golden.lstm.int8.update_unit` with double rounding. Multipliers are given as their upper
    24 bits, since a binary32 has no more.

    Parameters
    ----------
    lanes
        Products of a beat, from 1 to 64.
    activation
        "table" or "gemmlowp", see :mod:`golden.activations`.

    Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453.
    """

    lanes: int = 16
    activation: ActivationKind = "table"

    def __post_init__(self) -> None:
        check_whole("lanes", self.lanes, 1, 64)
        if self.activation not in get_args(ActivationKind):
            raise ValueError(f'activation must be "table" or "gemmlowp", not {self.activation!r}.')

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("weights", INT8, "weight of each lane", self.lanes),
            Operand("activations", INT8, "input or old hidden raw of each lane", self.lanes),
            Operand("first", FLAG, "the beat starts a row"),
            Operand("last", FLAG, "the beat ends a row; eight rows make a unit"),
            Operand("bias", INT32, "folded bias of the row, counts with first only"),
            Operand(
                "multiplier",
                SIGNIFICAND,
                "upper 24 bits of the row's split multiplier, counts with last only",
            ),
            Operand("shift", SHIFT, "shift of the split multiplier, -31 to 30; with last only"),
            Operand("old_cell", INT16, "old cell raw, counts with last of a unit's fourth row"),
        )

    @property
    def configuration(self) -> tuple[Operand, ...]:
        return (
            Operand(
                "cell_integer_bits",
                FixedPoint(3, signed=False),
                "integer bits of the cell, 0 to 6: its step is 2^(cell_integer_bits - 15)",
            ),
            Operand(
                "cell_clip",
                FixedPoint(15, signed=False),
                "the cell saturates to -cell_clip to cell_clip; 0 for no clip",
            ),
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

    @property
    def results(self) -> tuple[Operand, ...]:
        return (
            Operand("result", INT8, "new hidden raw of the unit"),
            Operand("cell_result", INT16, "new cell raw of the unit"),
        )

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Beats of ``count`` units: rows of 1 to 5 beats, the configuration drawn for all.

        Of four rows, three have a multiplier that takes their accumulator to a gate raw of some
        size; the rest has any. Of eight units, one has extreme products or biases. Fields hold
        random codes where they do not count.
        """
        rows = count * ROWS
        beats = rng.integers(1, 6, size=rows)
        beats[rng.random(rows) < 0.3] = 1
        total = int(beats.sum())
        row = np.repeat(np.arange(rows), beats)
        ends = np.cumsum(beats) - 1
        starts = ends - beats + 1
        arrays = {operand.name: random_codes(rng, operand, total) for operand in self.operands}
        arrays["first"], arrays["last"] = row_flags(beats)

        extreme = (row // ROWS) % 8 == 7
        for name in ("weights", "activations"):
            sign = rng.integers(0, 2, size=rows)[row][:, None]
            arrays[name][extreme] = np.where(sign[extreme] == 1, 0x80, 0x7F)
        modest = rng.integers(-(2**15), 2**15, size=rows)
        wild = (rng.random(rows) < 0.25) | ((np.arange(rows) // ROWS) % 8 == 7)
        arrays["bias"][starts] = np.where(wild, arrays["bias"][starts], modest & 0xFFFFFFFF)

        # A shift that takes the accumulator to about 2^size; a gate saturates at 2^15.
        size = rng.uniform(6, 17, size=rows)
        distance = np.log2(np.maximum(np.abs(self._accumulators(arrays)), 1))
        fitting = np.clip(np.rint(size - distance), LOWEST_SHIFT, HIGHEST_SHIFT).astype(np.int64)
        any_shift = rng.integers(LOWEST_SHIFT, HIGHEST_SHIFT + 1, size=rows)
        any_shift = np.where(
            rng.random(rows) < 0.25, rng.choice([-31, -30, -1, 0, 1, 30], size=rows), any_shift
        )
        fits = rng.random(rows) < 0.75
        arrays["shift"] = np.where(arrays["last"] == 1, 0, arrays["shift"])
        arrays["shift"][ends] = np.where(fits, fitting, any_shift) & 0x3F
        normal = arrays["multiplier"][ends] | 1 << 23
        arrays["multiplier"][ends] = np.where(fits, normal, arrays["multiplier"][ends])
        return arrays | self._configuration(rng)

    def _configuration(self, rng: np.random.Generator) -> dict[str, Codes]:
        drawn = {operand.name: random_codes(rng, operand, 1) for operand in self.configuration}
        drawn["cell_integer_bits"] = rng.integers(0, HIGHEST_INTEGER_BITS + 1, size=1)
        if rng.random() < 0.75:
            clip = 0 if rng.random() < 0.5 else int(2 ** rng.uniform(8, 15))
            drawn["cell_clip"] = np.array([min(clip, 2**15 - 1)])
            # A hidden scale near 1/128: output gate times tanh is in steps of 2^-30.
            drawn["hidden_zero_point"] = rng.integers(-32, 32, size=1) & 0xFF
            drawn["hidden_multiplier"] |= 1 << 23
            drawn["hidden_shift"] = rng.integers(20, 25, size=1)
        return drawn

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        """Configuration and all beats of a unit, each row headed by its name."""
        last = np.flatnonzero(arrays["last"])[index * ROWS : (index + 1) * ROWS].tolist()
        beat = int(np.flatnonzero(arrays["last"])[index * ROWS - 1]) + 1 if index else 0
        lines = [describe(field, arrays[field.name][0]) for field in self.configuration]
        names = [f"{gate} {part}" for gate in GATES for part in PARTS]
        for name, end in zip(names, last, strict=True):
            lines.append(f"row {name}:")
            while beat <= end:
                counts = {"weights", "activations"}
                counts |= {"bias"} if arrays["first"][beat] else set()
                counts |= {"multiplier", "shift"} if beat == end else set()
                counts |= {"old_cell"} if beat == last[CELL_ROW] else set()
                lines += [
                    f"  {describe(field, arrays[field.name][beat])}"
                    for field in self.operands
                    if field.name in counts
                ]
                beat += 1
        return lines

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """New hidden and cell codes, one of each for eight beats with ``last``.

        Beats of ``arrays`` are those of a stream: ``weights`` and ``activations`` of shape
        (beats, lanes), the others (beats,); the configuration (1,).
        """
        arrays = checked(self.operands, arrays) | checked(self.configuration, arrays)
        starts = np.concatenate(([1], arrays["last"][:-1]))[: len(arrays["first"])]
        if (starts != arrays["first"]).any():
            raise ValueError(
                "A row's first beat, and no other, must have 'first' set, but beat"
                f" {int(np.flatnonzero(starts != arrays['first'])[0])} does not fit."
            )
        configuration = {field.name: int(arrays[field.name][0]) for field in self.configuration}
        if configuration["cell_integer_bits"] > HIGHEST_INTEGER_BITS:
            raise ValueError(
                f"cell_integer_bits must be from 0 to {HIGHEST_INTEGER_BITS},"
                f" not {configuration['cell_integer_bits']}."
            )
        ends = np.flatnonzero(arrays["last"])
        units = len(ends) // ROWS
        shifts = SHIFT.raw(arrays["shift"][ends])
        if len(shifts) and (shifts.min() < LOWEST_SHIFT or shifts.max() > HIGHEST_SHIFT):
            raise ValueError(
                f"shift must be from {LOWEST_SHIFT} to {HIGHEST_SHIFT} where it counts,"
                f" not {shifts.min()} to {shifts.max()}."
            )
        shape = (units, len(GATES), len(PARTS))
        accumulators = self._accumulators(arrays)
        hidden, cell = update_unit(
            accumulators[: units * ROWS].reshape(shape),
            arrays["multiplier"][ends][: units * ROWS].reshape(shape) << SIGNIFICAND_POSITION,
            shifts[: units * ROWS].reshape(shape),
            INT16.raw(arrays["old_cell"][ends])[CELL_ROW::ROWS][:units],
            cell_exponent=configuration["cell_integer_bits"] - 15,
            cell_clip=configuration["cell_clip"],
            hidden_multiplier=configuration["hidden_multiplier"] << SIGNIFICAND_POSITION,
            hidden_shift=-configuration["hidden_shift"],
            hidden_zero_point=int(INT8.raw(arrays["hidden_zero_point"])[0]),
            activation=self.activation,
        )
        return {"result": hidden & 0xFF, "cell_result": cell & 0xFFFF}

    def _accumulators(self, arrays: Arrays) -> Codes:
        """Raws of 32 bits, one for each beat with ``last``."""
        sums = (INT8.raw(arrays["weights"]) * INT8.raw(arrays["activations"])).sum(axis=1)
        first = arrays["first"].astype(bool)
        sums += np.where(first, INT32.raw(arrays["bias"]), 0)
        totals = row_sums(sums, arrays["first"], arrays["last"])
        return ((totals + 2**31) & (2**32 - 1)) - 2**31
