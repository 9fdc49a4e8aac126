"""Neurons that requantise the sums of eight rows, of int8 weights or of few bits."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.accumulate.rows import row_flags, row_sums
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import SIGNIFICAND_POSITION, wrap
from fewbit.golden.contract import Contract, describe, random_codes
from fewbit.golden.formats import INT16, INT32, FixedPoint
from fewbit.golden.lstm.integer_step import update_unit
from fewbit.golden.lstm.integer_variant import GATES, PARTS
from fewbit.golden.operands import FLAG, Operand, checked

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["ROWS", "SHIFT", "SIGNIFICAND", "RowNeuronContract"]

ROWS = len(GATES) * len(PARTS)
"""Number of rows of a unit: for each gate i, f, g, o the input part, then the recurrent part."""

CELL_ROW = 3
"""The row whose last beat brings the old cell raw: the recurrent part of gate f."""

SIGNIFICAND = FixedPoint(24, signed=False)
SHIFT = FixedPoint(6)
LOWEST_SHIFT, HIGHEST_SHIFT = -31, 30
HIGHEST_INTEGER_BITS = 6


class RowNeuronContract(Contract):
    """A neuron that computes one hidden unit at a time, from its weights to its new state.

    A unit has eight rows of beats in the order i input, i recurrent, f input, f recurrent, g input,
    g recurrent, o input, o recurrent. A row has one beat or more; its accumulator is the bias plus
    the sum over beats and lanes of weight times activation, modulo 2^32. The computation after the
    sums is :func:`fewbit.golden.lstm.integer_step.update_unit` with double rounding. The operands
    hold the upper 24 bits of multipliers, because a binary32 has no more.
    """

    activation: ActivationKind

    @property
    @abstractmethod
    def weights(self) -> Operand:
        """Return the operand that holds the weights of a beat."""

    @property
    @abstractmethod
    def activations(self) -> Operand:
        """Return the operand of a beat's inputs or old hidden raws.

        The new hidden raw has its format.
        """

    @property
    @abstractmethod
    def extreme_weights(self) -> tuple[int, int]:
        """Return two codes of ``weights`` that give large sums, one positive and one negative."""

    @abstractmethod
    def levels(self, codes: Codes) -> Codes:
        """Return the integer weights that codes stand for, shape (beats, lanes)."""

    @property
    @abstractmethod
    def last_scale(self) -> tuple[Operand, ...]:
        """Return the configuration operands of the last requantisation."""

    @abstractmethod
    def last_scale_of(self, configuration: dict[str, int]) -> tuple[int, int, int]:
        """Return multiplier, shift and zero point of the last requantisation."""

    @abstractmethod
    def lively_scale(self, rng: np.random.Generator, drawn: dict[str, Codes]) -> dict[str, Codes]:
        """Return a random configuration of the last requantisation that avoids saturation."""

    @property
    def hidden_format(self) -> FixedPoint:
        """Return the format of the new hidden raw."""
        number_format = self.activations.format
        assert isinstance(number_format, FixedPoint)
        return number_format

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            self.weights,
            self.activations,
            Operand("first", FLAG, "the beat starts a row"),
            Operand("last", FLAG, "the beat ends a row; eight rows make a unit"),
            Operand("bias", INT32, "start value of the row's sum, counts with first only"),
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
                "integer bits of the cell, 0 to 6: its resolution is 2^(cell_integer_bits - 15)",
            ),
            Operand(
                "cell_clip",
                FixedPoint(15, signed=False),
                "the cell saturates to -cell_clip to cell_clip; 0 for no clip",
            ),
            *self.last_scale,
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (
            Operand("result", self.hidden_format, "new hidden raw of the unit"),
            Operand("cell_result", INT16, "new cell raw of the unit"),
        )

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return beats of ``count`` units: rows of 1 to 5 beats, and one random configuration.

        Three of four rows have a multiplier that scales their accumulator to a gate raw that does
        not saturate; the others have any multiplier. One of eight units has extreme products or
        biases. Fields hold random codes where the circuit ignores them.
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
        activation = self.hidden_format
        pairs = {
            "weights": self.extreme_weights,
            "activations": activation.code((activation.largest_raw, activation.smallest_raw)),
        }
        for name, (first, second) in pairs.items():
            sign = rng.integers(0, 2, size=rows)[row][:, None]
            arrays[name][extreme] = np.where(sign[extreme] == 1, second, first)
        modest = rng.integers(-(2**15), 2**15, size=rows)
        wild = (rng.random(rows) < 0.25) | ((np.arange(rows) // ROWS) % 8 == 7)
        arrays["bias"][starts] = np.where(wild, arrays["bias"][starts], modest & 0xFFFFFFFF)

        # This shift scales the accumulator to about 2^size; a gate saturates at 2^15.
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
            drawn |= self.lively_scale(rng, drawn)
        return drawn

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        """Return lines with the configuration and all beats of a unit, and the name of each row."""
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
        """Return new hidden and cell codes, one of each for eight beats with ``last``.

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
        multiplier, shift, zero_point = self.last_scale_of(configuration)
        hidden, cell = update_unit(
            accumulators[: units * ROWS].reshape(shape),
            arrays["multiplier"][ends][: units * ROWS].reshape(shape) << SIGNIFICAND_POSITION,
            shifts[: units * ROWS].reshape(shape),
            INT16.raw(arrays["old_cell"][ends])[CELL_ROW::ROWS][:units],
            cell_exponent=configuration["cell_integer_bits"] - 15,
            cell_clip=configuration["cell_clip"],
            hidden_multiplier=multiplier,
            hidden_shift=shift,
            hidden_zero_point=zero_point,
            activation=self.activation,
            hidden_width=self.hidden_format.width,
        )
        return {"result": self.hidden_format.code(hidden), "cell_result": INT16.code(cell)}

    def _accumulators(self, arrays: Arrays) -> Codes:
        """Return raws of 32 bits, one for each beat with ``last``."""
        products = self.levels(arrays["weights"]) * self.hidden_format.raw(arrays["activations"])
        first = arrays["first"].astype(bool)
        sums = products.sum(axis=1) + np.where(first, INT32.raw(arrays["bias"]), 0)
        return wrap(row_sums(sums, arrays["first"], arrays["last"]), 32)
