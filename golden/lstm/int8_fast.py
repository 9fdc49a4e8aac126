"""Fast time steps of the integer LSTM: the same bits in few passes over the arrays.

`fewbit.golden.lstm.integer_step` is the plain form of the same computation. The code here gets the
same integers in faster ways:

- A row's sum is a product of real matrices. With all partial sums below 2^24 it is exact in
  binary32, below 2^53 in binary64; the folded bias is the weight of an input that is 1.
- A multiplier has 24 significant bits and a sum fewer than 29, so that their product, too, is exact
  in binary64, and ``floor(product + 1/2)`` is the first rounding, ties up.
- The second rounding, a right shift with ties away from zero, is a product by
  ``2^-shift (1 + 2^-40)``, rounded to the nearest. The excess of 2^-40 decides every tie, and it
  changes nothing else, because any other number is at least 2^-31 of itself away from a tie.
- Sigmoid and tanh are looked up in tables, and the look-up saturates to 16 bits.

Units are rows and sequences are columns, so that each gate is contiguous in memory. Gates are in
the order i, f, o, g, which puts the sigmoids side by side.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ACTIVATIONS, ActivationKind
from fewbit.golden.arithmetic import INT8_RANGE, INT16_RANGE, SIGNIFICAND_POSITION, Raws, Rounding
from fewbit.golden.checks import as_shaped_raws
from fewbit.golden.lstm.int8_constants import Int8Constants
from fewbit.golden.lstm.layer_norm import layer_norm

__all__ = ["FastSteps", "State", "order"]

Reals = npt.NDArray[np.float64]

_FEWER = 1 << 28
"""Bound on the magnitude of sums, above which the fast steps are not exact."""
_MULTIPLIER_RESOLUTION = 1 << SIGNIFICAND_POSITION
_EXCESS = 1 + 2.0**-40
_LOWEST, _HIGHEST = float(INT16_RANGE[0]), float(INT16_RANGE[1])
_BLOCK = 1 << 18
"""Number of gate values whose input part is computed at once, so that it fits the cache."""


def _exactly_scaled(step: float) -> float:
    """Return a factor whose products round to the nearest with ties away from zero."""
    return step * _EXCESS


@dataclass(frozen=True)
class _Rows:
    """Rows of weights with their start values, and the scales that requantise their sums.

    Rows come in groups of equal size that share a multiplier and a shift.
    """

    weights: npt.NDArray[np.floating[Any]]
    first_factors: Reals
    second_factors: Reals
    rounds_twice: bool

    @staticmethod
    def made(
        weights: npt.NDArray[np.int8],
        bias: npt.NDArray[np.int32],
        multipliers: Raws,
        shifts: Raws,
        rounding: Rounding,
    ) -> "_Rows | None":
        """Return rows for weights (groups, rows, operands), or None where binary64 is too short."""
        largest = 128 * np.abs(weights.astype(np.int64)).sum(axis=2) + np.abs(bias.astype(np.int64))
        left = np.maximum(shifts, 0)
        if ((largest << left[:, np.newaxis]) >= _FEWER).any() or (
            multipliers % _MULTIPLIER_RESOLUTION
        ).any():
            return None
        kind = np.float32 if largest.max() < 1 << 24 else np.float64
        first, second = multipliers * 2.0**-31, np.minimum(shifts, 0)
        twice = rounding == "double"
        return _Rows(
            np.concatenate([weights, bias[..., np.newaxis]], axis=2, dtype=kind).reshape(
                -1, weights.shape[2] + 1
            ),
            (first * 2.0 ** (left if twice else shifts))[:, np.newaxis],
            _exactly_scaled(1.0) * 2.0 ** second[:, np.newaxis],
            twice,
        )

    def operands(self, columns: int) -> npt.NDArray[Any]:
        """Return an array for the operands of `columns` columns; its last row is 1 for the bias."""
        return np.ones((self.weights.shape[1], columns), self.weights.dtype)

    def sums(self, columns: int) -> npt.NDArray[Any]:
        """Return an array for the sums of `columns` columns."""
        return np.empty((len(self.weights), columns), self.weights.dtype)

    def words(self, operands: npt.NDArray[Any], sums: npt.NDArray[Any], out: Reals) -> None:
        """Write requantised sums to `out`, shape (groups, values), before they saturate."""
        np.matmul(self.weights, operands, out=sums)
        np.multiply(sums.reshape(out.shape), self.first_factors, out=out)
        np.add(out, 0.5, out=out)
        np.floor(out, out=out)
        if self.rounds_twice:
            np.multiply(out, self.second_factors, out=out)
            np.rint(out, out=out)


class _Words:
    """The requantisation of integers of up to 31 bits, whose products need int64."""

    def __init__(
        self, multiplier: int, shift: int, rounding: Rounding, *, ties_up: bool = False
    ) -> None:
        twice = rounding == "double"
        self._multiplier = multiplier
        self._right = 31 if twice else 31 - shift
        self._half = 1 << (self._right - 1)
        self._ties_up = twice and ties_up
        self._factor = 2.0**shift if twice else 1.0
        if not self._ties_up:
            self._factor = _exactly_scaled(self._factor)

    def __call__(self, word: Raws, out: Reals) -> None:
        """Write the requantised `word` to `out`, and overwrite `word` on the way."""
        np.multiply(word, self._multiplier, out=word)
        np.add(word, self._half, out=word)
        np.right_shift(word, self._right, out=word)
        np.multiply(word, self._factor, out=out)
        if self._ties_up:
            np.add(out, 0.5, out=out)
            np.floor(out, out=out)
        else:
            np.rint(out, out=out)


@cache
def _tables(kind: ActivationKind, cell_exponent: int) -> tuple[Reals, Reals, Reals]:
    """Return sigmoid, scaled tanh of a gate, and tanh of a cell, at all 65,536 raws."""
    activation = ACTIVATIONS[kind]
    every = np.arange(INT16_RANGE[0], INT16_RANGE[1] + 1)
    # The cell adds i*g, in units of 2^-30, after it is rounded to the cell's resolution.
    step = np.float64(_exactly_scaled(2.0 ** -(30 + cell_exponent)))
    sigmoids = activation.sigmoid(every).astype(np.float64)
    cell_tanhs = activation.tanh(every, 15 + cell_exponent).astype(np.float64)
    return sigmoids, activation.tanh(every) * step, cell_tanhs


class FastSteps:
    """A layer that is prepared to run many time steps.

    Parameters
    ----------
    constants
        The layer.
    parts
        The rows of the input part and those of the recurrent part.
    projection
        The projection's rows, or None for a layer without projection.
    """

    def __init__(
        self, constants: Int8Constants, parts: tuple[_Rows, _Rows], projection: _Rows | None
    ) -> None:
        self._constants = constants
        self._input, self._recurrent = parts
        self._projection = projection
        self._sigmoids, self._scaled_tanhs, self._cell_tanhs = _tables(
            constants.activation, constants.cell_exponent
        )
        self._hidden = _Words(
            constants.hidden_multiplier, constants.hidden_shift, constants.rounding
        )

    @staticmethod
    def of(constants: Int8Constants) -> "FastSteps | None":
        """Return the layer prepared, or None where a left shift or a sum is too long for that."""
        ordered = [constants.gates.index(gate) for gate in order(constants)]
        parts = [
            _Rows.made(
                weights[ordered],
                constants.folded_bias[ordered, part],
                constants.multipliers[ordered, part],
                constants.shifts[ordered, part],
                constants.rounding,
            )
            for part, weights in enumerate((constants.input_weights, constants.recurrent_weights))
        ]
        projection = None
        fits = constants.hidden_shift <= 0
        if constants.peephole_shifts is not None:
            fits &= bool((constants.peephole_shifts <= 0).all())
        if constants.projection_weights is not None and constants.projection_bias is not None:
            projection = _Rows.made(
                constants.projection_weights[np.newaxis],
                constants.projection_bias[np.newaxis],
                np.array([constants.projection_multiplier]),
                np.array([constants.projection_shift]),
                constants.rounding,
            )
            fits &= projection is not None
        if parts[0] is None or parts[1] is None or not fits:
            return None
        return FastSteps(constants, (parts[0], parts[1]), projection)

    def run(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike, *, cells: bool = True
    ) -> tuple[Raws, Raws]:
        """Return hidden and cell raws of a batch of sequences at every time step.

        Parameters
        ----------
        x
            Input raws of 8 bits, shape (batch, time, inputs).
        hidden, cell
            Raws before the first time step, shapes (batch, outputs) and (batch, hidden).
        cells
            Whether to return cell raws; else the array of cells has no time steps.

        Returns
        -------
        hidden, cell
            Shapes (batch, time, outputs) and (batch, time, hidden).

        Raises
        ------
        ValueError
            If a shape is wrong or a number is no raw.
        """
        constants = self._constants
        inputs = as_shaped_raws(x, "x", INT8_RANGE, (-1, -1, constants.inputs))
        batch, time, _ = inputs.shape
        state = self.state(hidden, cell, batch)
        hiddens = np.empty((time, constants.outputs, batch), np.int8)
        history = np.empty((time if cells else 0, constants.hidden, batch), np.int16)
        length = state.steps_at_once
        for start in range(0, time, length):
            block = self.input_part(inputs[:, start : start + length])
            for t, part in enumerate(block, start):
                self.sum_gates(state, part, state.gates)
                self.finish(state)
                hiddens[t] = state.hidden[:-1]
                if cells:
                    history[t] = state.cell
        by_sequence = (2, 0, 1)
        return (
            hiddens.transpose(by_sequence).astype(np.int64),
            history.transpose(by_sequence).astype(np.int64),
        )

    def state(self, hidden: npt.ArrayLike, cell: npt.ArrayLike, batch: int) -> "State":
        """Return the state of a batch of sequences, with the arrays for its time steps.

        The other parameters are those of `run`.
        """
        constants = self._constants
        state = State(self._recurrent, self._projection, constants, batch)
        state.hidden[:-1] = as_shaped_raws(
            hidden, "hidden", INT8_RANGE, (batch, constants.outputs)
        ).T
        state.cell[:] = as_shaped_raws(cell, "cell", INT16_RANGE, (batch, constants.hidden)).T
        return state

    def input_part(self, x: Raws) -> Reals:
        """Return the gates' input part, saturated and plus 2^15: (time, G, hidden * batch)."""
        constants = self._constants
        batch, time, _ = x.shape
        gates = len(constants.gates)
        operands = self._input.operands(time * batch)
        operands[:-1] = x.transpose(2, 1, 0).reshape(constants.inputs, -1)
        words = np.empty((gates, constants.hidden * time * batch))
        self._input.words(operands, self._input.sums(time * batch), words)
        np.clip(words, _LOWEST, _HIGHEST, out=words)
        np.add(words, -_LOWEST, out=words)
        by_time = words.reshape(gates, constants.hidden, time, batch).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(by_time).reshape(time, gates, -1)

    def sum_gates(self, state: "State", input_part: Reals, out: Reals) -> None:
        """Write the gates before their activation to `out`, with 2^15 added and not saturated.

        The shape is (G, hidden * batch).
        """
        self._recurrent.words(state.hidden, state.sums, out)
        np.add(out, input_part, out=out)

    def finish(self, state: "State") -> None:
        """Compute the rest of a time step after `sum_gates`, in place.

        `sum_gates` has added 2^15 to the raws in `state.gates`, which makes them indices into the
        tables.
        """
        constants = self._constants
        gates, cell = state.gates, state.flat_cell
        if constants.peephole_weights is None and constants.norm_weights is None:
            self._look_up(state, gates[:-1], self._sigmoids, state.sigmoids)
        else:
            for index, gate in enumerate(order(constants)):
                if gate != "o":
                    self._see_and_normalise(state, gate, gates[index])
            self._look_up(state, gates[:-2], self._sigmoids, state.sigmoids[:-1])
        self._look_up(state, gates[-1], self._scaled_tanhs, state.tanhs)
        i, f, o = state.i, state.sigmoids[-2], state.sigmoids[-1]
        if constants.coupled:
            np.subtract(_HIGHEST, f, out=i)
        np.multiply(i, state.tanhs, out=state.tanhs)
        np.rint(state.tanhs, out=state.tanhs)
        np.multiply(f, cell, out=cell)
        np.multiply(cell, _exactly_scaled(2.0**-15), out=cell)
        np.rint(cell, out=cell)
        np.add(cell, state.tanhs, out=cell)
        clip = constants.cell_clip
        np.clip(cell, -clip if clip else _LOWEST, clip or _HIGHEST, out=cell)
        if constants.peephole_weights is not None or constants.norm_weights is not None:
            self._see_and_normalise(state, "o", gates[-2])
            self._look_up(state, gates[-2], self._sigmoids, o)
        np.add(cell, -_LOWEST, out=state.tanhs)
        self._look_up(state, state.tanhs, self._cell_tanhs, state.tanhs)
        np.multiply(o, state.tanhs, out=state.tanhs)
        np.copyto(state.wide, state.tanhs, casting="unsafe")
        self._hidden(state.wide, state.tanhs)
        np.add(state.tanhs, constants.hidden_offset, out=state.tanhs)
        np.clip(state.tanhs, *INT8_RANGE, out=state.tanhs)
        if self._projection is None:
            np.copyto(state.hidden[:-1].reshape(-1), state.tanhs, casting="unsafe")
        else:
            self._project(state, self._projection)

    @staticmethod
    def _look_up(state: "State", raised: Reals, table: Reals, out: Reals) -> None:
        """Write the table's values at raws with 2^15 added, which saturate to the table's ends."""
        index = state.index[: raised.size].reshape(raised.shape)
        np.copyto(index, raised, casting="unsafe")
        np.take(table, index, out=out, mode="clip")

    def _see_and_normalise(self, state: "State", gate: str, raised: Reals) -> None:
        """Add the peephole to a gate with 2^15 added, and normalise the gate, in place."""
        constants = self._constants
        np.add(raised, _LOWEST, out=raised)
        np.clip(raised, _LOWEST, _HIGHEST, out=raised)
        by_unit = raised.reshape(constants.hidden, -1)
        peeping = constants.variant.peeping
        if gate in peeping:
            assert constants.peephole_weights is not None
            assert constants.peephole_multipliers is not None
            assert constants.peephole_shifts is not None
            row = peeping.index(gate)
            seen = constants.peephole_weights[row, :, np.newaxis] * state.cell.astype(np.int64)
            words = np.empty(seen.shape)
            multiplier = int(constants.peephole_multipliers[row])
            shift = int(constants.peephole_shifts[row])
            upward = constants.peephole_ties_up
            for units, ties_up in ((slice(0, upward), True), (slice(upward, None), False)):
                requantise = _Words(multiplier, shift, constants.rounding, ties_up=ties_up)
                requantise(seen[units], words[units])
            np.add(by_unit, words, out=by_unit)
            np.clip(by_unit, _LOWEST, _HIGHEST, out=by_unit)
        if constants.norm_weights is not None:
            assert constants.norm_bias is not None
            assert constants.norm_guards is not None
            assert constants.norm_multipliers is not None
            assert constants.norm_shifts is not None
            index = constants.gates.index(gate)
            by_unit[:] = layer_norm(
                by_unit.T.astype(np.int64),
                constants.norm_weights[index],
                constants.norm_bias[index],
                int(constants.norm_guards[index]),
                int(constants.norm_multipliers[index]),
                int(constants.norm_shifts[index]),
                constants.rounding,
            ).T
        np.add(raised, -_LOWEST, out=raised)

    def _project(self, state: "State", projection: _Rows) -> None:
        constants = self._constants
        state.units[:-1].reshape(-1)[:] = state.tanhs
        projection.words(state.units, state.projected_sums, state.projected)
        np.add(state.projected, constants.projection_offset, out=state.projected)
        np.clip(state.projected, *INT8_RANGE, out=state.projected)
        clip = constants.projection_clip
        if clip:
            np.clip(state.projected, -clip, clip, out=state.projected)
        np.copyto(state.hidden[:-1].reshape(-1), state.projected[0], casting="unsafe")


class State:
    """Hidden and cell raws of a batch, and the arrays in which a time step computes."""

    def __init__(
        self, recurrent: _Rows, projection: _Rows | None, constants: Int8Constants, batch: int
    ) -> None:
        gates, values = len(constants.gates), constants.hidden * batch
        self.steps_at_once = max(1, _BLOCK // max(1, gates * values))
        self.hidden = recurrent.operands(batch)
        self.cell = np.zeros((constants.hidden, batch))
        self.flat_cell = self.cell.reshape(-1)
        self.sums = recurrent.sums(batch)
        self.gates = np.empty((gates, values))
        self.sigmoids = np.empty((gates - 1, values))
        self.tanhs = np.empty(values)
        self.i = np.empty(values) if constants.coupled else self.sigmoids[0]
        self.index = np.empty((gates - 1) * values, np.intp)
        self.wide = np.empty(values, np.int64)
        if projection is not None:
            self.units = projection.operands(batch)
            self.projected_sums = projection.sums(batch)
            self.projected = np.empty((1, constants.outputs * batch))


def order(constants: Int8Constants) -> tuple[str, ...]:
    """Return the gates with the sigmoids side by side: o is last but one, g last."""
    return tuple(gate for gate in ("i", "f", "o", "g") if gate in constants.gates)
