"""Dynamic precision of the integer LSTM: 8 or 4 bits of weights, chosen per unit and time step.

The idea is that of Silfa et al.: while a unit's cell hardly changes, the high halves of its weights
are precise enough; while it changes much, the unit needs whole weights. The scheme in integers is
this project's. So is the second signal, the output gate: an error in a unit whose output gate is
shut hardly reaches the hidden values. A unit is in the *mode* HIGH (whole weights) or LOW (high
halves).

**Decision.** The mode of a unit at time step t follows from its *signal* d. Here c[t] is the cell
after step t, c[-1] the cell at the start of the sequence, and o[t] the output gate of step t::

    d = |c[t-1] - c[t-2]|            "cell_change", in raws; 0 at t = 0
        o[t-1]                       "output_gate", in units of 2^-15; 0 at t = 0
    counter = hold       if d > threshold
              counter-1  else, if the counter is positive
              0          else
    HIGH    if counter > 0, or t < 2, or hold = 255;  else LOW

The counters are 0 at the start of a sequence. `threshold` (16 bits) and `hold` (8 bits) are
registers that can be set at run time. With a hold of 255 every time step is HIGH, and the layer is
the int8 layer. With a hold of 0 all time steps but the first two are LOW.

All gates of a unit have the same mode. So have all units of a *group*, which is `group` neighbours,
counted from unit 0: a group has one counter, which any of its units sets if its d is above the
threshold.

The circuit needs no memory for d, because d is the difference between the cell that a unit reads
and the cell that it writes: when step t writes the cell, the counter for step t + 1 is known.
Loading a state counts as the start of a sequence: the counters become 0, and the next two steps are
HIGH. Reading the state changes nothing.

**Arithmetic.** A weight is ``16 W_high + W_low``, where W_high is signed, W_low is unsigned, and
each has 4 bits. The sum of a row, of the input part or the recurrent part, is wrapped to 32 bits::

    HIGH    start + sum W x
    LOW     start + 16 (4 offset + sum W_high x) + 8 sum x

In both modes ``start`` is the folded bias of the int8 layer, and x is a raw whose zero point is not
subtracted. ``sum x`` is one number for a vector; all rows of the part share it.

So in LOW a weight stands for the middle of its sixteen possible values, ``16 W_high + 8``. The
folded bias, however, subtracts the zero point times whole weights. Against HIGH, the sum of a row
is therefore wrong by ``sum (8 - W_low) x``, which is large where the mean of x is far from 0. The
``offset`` of each row and part, an int8, corrects the mean of that error: calibration sets it to
``sum (W_low - 8) mean(x) / 64``, rounded to the nearest. A model without offsets has offsets 0, and
the circuit then needs no memory for them. All computation after the sums is that of the int8 layer.

Offsets take one byte for each row. On the speaker model they halve the error of the hidden values
when all time steps are LOW (an rms of 7.5 raws instead of 15.2), and only with offsets is no
accuracy lost at 75% LOW.

Source: Silfa, Arnau and Gonzalez, "Boosting LSTM Performance Through Dynamic Precision Selection",
arXiv 1911.04244, for choosing by the change of the cell state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ACTIVATIONS, ActivationKind
from fewbit.golden.arithmetic import INT8_RANGE, INT16_RANGE, Raws, saturate, wrap
from fewbit.golden.checks import as_shaped_raws, freeze_integer
from fewbit.golden.lstm.int8_constants import Int8Constants
from fewbit.golden.lstm.int8_fast import FastSteps, order
from fewbit.golden.lstm.integer_step import accumulators, gates_and_state, pre_activations
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.lstm.precision import (
    ALWAYS_HIGH,
    HIGHEST_THRESHOLD,
    LARGEST_GROUP,
    PrecisionSignal,
)

if TYPE_CHECKING:
    from fewbit.golden.lstm.int8 import Int8Lstm

__all__ = [
    "ALWAYS_HIGH",
    "FIRST_STEPS",
    "HIGHEST_THRESHOLD",
    "OFFSET_RESOLUTION",
    "CellChange",
    "Decision",
    "DynamicRun",
    "OutputGate",
    "Signal",
    "SignalStep",
    "decision_of",
    "low_constants",
    "mixed_step",
    "run",
    "run_signal",
    "speed_up",
]

Modes = npt.NDArray[np.bool_]
Reals = npt.NDArray[np.float64]

FIRST_STEPS = 2
"""Number of time steps at the start of a sequence that are always HIGH."""
OFFSET_RESOLUTION = 64
"""The number that an offset of 1 adds to a sum."""


@dataclass(frozen=True, eq=False)
class SignalStep:
    """The values of a time step that decide the precision of the next one.

    Parameters
    ----------
    old_cell, new_cell
        Raws, shape (batch, hidden).
    pre
        A function that returns the gates before their activation, raws in Q3.12, shape (batch,
        hidden, G).
    """

    old_cell: Raws
    new_cell: Raws
    pre: Callable[[], Raws]


class Signal(Protocol):
    """A rule that decides the mode of every unit, time step by time step."""

    def start(self, batch: int, hidden: int) -> None:
        """Forget all earlier sequences, and begin a batch of new ones."""

    def high(self, t: int) -> Modes:
        """Return which units are HIGH at time step `t`, shape (batch, hidden)."""
        ...

    def observe(self, step: SignalStep) -> None:
        """Record the values of a time step after it is computed."""


@dataclass
class Decision(ABC):
    """The decision that the head of this module describes, by one signal or the other.

    Parameters
    ----------
    threshold
        The threshold of the signal, from 0 to 65535.
    hold
        Number of HIGH time steps after the signal passes the threshold, from 0 to 255.
    group
        Number of neighbouring units that share a mode, at least 1.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    threshold: int
    hold: int
    group: int = 1

    def __post_init__(self) -> None:
        """Check that the registers are in their ranges."""
        freeze_integer(self, "threshold", 0, HIGHEST_THRESHOLD)
        freeze_integer(self, "hold", 0, ALWAYS_HIGH)
        freeze_integer(self, "group", 1, LARGEST_GROUP)

    def start(self, batch: int, hidden: int) -> None:
        """Set the counters to 0 for a batch of new sequences."""
        self._hidden = hidden
        self._counters = np.zeros((batch, -(-hidden // self.group)), np.int64)

    def high(self, t: int) -> Modes:
        """Return which units are HIGH at time step `t`, shape (batch, hidden)."""
        return np.repeat(self.high_groups(t), self.group, axis=1)[:, : self._hidden]

    def high_groups(self, t: int) -> Modes:
        """Return which groups are HIGH at time step `t`, shape (batch, groups)."""
        return (self._counters > 0) | (t < FIRST_STEPS) | (self.hold == ALWAYS_HIGH)

    def observe(self, step: SignalStep) -> None:
        """Update the counters for the next time step."""
        set_now = self.largest(step) > self.threshold
        self._counters = np.where(set_now, self.hold, np.maximum(self._counters - 1, 0))

    def largest(self, step: SignalStep) -> Raws:
        """Return the largest signal of each group, which the threshold is compared with.

        The shape is (batch, groups).
        """
        signal = self.measure(step)
        padded = np.pad(signal, ((0, 0), (0, -signal.shape[1] % self.group)))
        return padded.reshape(len(signal), -1, self.group).max(axis=2)

    @abstractmethod
    def measure(self, step: SignalStep) -> Raws:
        """Return the signal of every unit, at least 0, shape (batch, hidden)."""


class CellChange(Decision):
    """The decision by the change of the cell, after Silfa et al."""

    def measure(self, step: SignalStep) -> Raws:
        """Return the distance between the cell before and after the time step, in raws."""
        return np.abs(step.new_cell - step.old_cell)


@dataclass
class OutputGate(Decision):
    """The decision by the output gate, in units of 2^-15, which is this project's.

    Parameters
    ----------
    activation
        The approximation of the sigmoid, equal to the layer's.
    """

    activation: ActivationKind = "table"

    def measure(self, step: SignalStep) -> Raws:
        """Return the output gate, which is the last gate in every order."""
        return ACTIVATIONS[self.activation].sigmoid(step.pre()[..., -1])


def decision_of(
    signal: PrecisionSignal, threshold: int, hold: int, group: int, activation: ActivationKind
) -> Decision:
    """Return the decision by a signal; `activation` is that of the layer."""
    if signal == "cell_change":
        return CellChange(threshold, hold, group)
    return OutputGate(threshold, hold, group, activation)


@dataclass(frozen=True, eq=False)
class DynamicRun:
    """The result of a batch of sequences, and the precision of each of its time steps.

    Parameters
    ----------
    hidden, cell
        Raws at every time step, shapes (batch, time, outputs) and (batch, time, hidden).
    high
        True where a unit was HIGH, shape (batch, time, hidden).
    """

    hidden: Raws
    cell: Raws
    high: Modes

    def passes(self, lengths: npt.ArrayLike | None = None) -> tuple[int, int]:
        """Return the number of HIGH and the number of LOW time steps, summed over all units.

        Parameters
        ----------
        lengths
            Number of valid time steps in each sequence, shape (batch,); None for all.
        """
        counted = self.high[valid_steps(self.high, lengths)]
        high = int(counted.sum())
        return high, counted.size - high

    def low_share(self, lengths: npt.ArrayLike | None = None) -> float:
        """Return the share of LOW time steps of units, from 0 to 1."""
        high, low = self.passes(lengths)
        return low / (high + low)


def speed_up(low_share: float) -> float:
    """Return the speed relative to all steps HIGH, if a LOW step takes half the time."""
    return 1 / (1 - low_share / 2)


def low_constants(
    constants: Int8Constants, offsets: npt.NDArray[np.int8] | None = None
) -> Int8Constants:
    """Return the constants of an int8 layer that computes what a layer computes with all steps LOW.

    Its weights are ``16 W_high + 8``, which fit int8, and its folded bias includes the offsets.

    Parameters
    ----------
    constants
        The layer in which every time step is HIGH.
    offsets
        The offsets `Int8Lstm.low_offsets`: int8, shape (G, 2, hidden); None for zeros.
    """
    folded = constants.folded_bias.astype(np.int64)
    if offsets is not None:
        folded = wrap(folded + OFFSET_RESOLUTION * offsets.astype(np.int64), 32)
    return replace(
        constants,
        input_weights=_middles(constants.input_weights),
        recurrent_weights=_middles(constants.recurrent_weights),
        folded_bias=folded.astype(np.int32),
    )


def _middles(weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    return (16 * (weights.astype(np.int64) // 16) + 8).astype(np.int8)


def mixed_step(
    whole: Int8Constants,
    halves: Int8Constants,
    x: Raws,
    hidden: Raws,
    cell: Raws,
    high: Modes,
) -> tuple[Raws, SignalStep]:
    """Compute a time step: return the new hidden raws, and the values for the next decision.

    Parameters
    ----------
    whole, halves
        The layer in which every time step is HIGH, and the layer in which every one is LOW.
    x, hidden, cell
        Raws, shapes (batch, inputs), (batch, outputs) and (batch, hidden).
    high
        True where a unit is HIGH, shape (batch, hidden).
    """
    sums = np.where(
        high[..., np.newaxis, np.newaxis],
        accumulators(whole, x, hidden),
        accumulators(halves, x, hidden),
    )
    pre = pre_activations(whole, sums)
    new_hidden, new_cell = gates_and_state(whole, pre, cell)
    return new_hidden, SignalStep(cell, new_cell, lambda: pre)


def run(
    model: Int8Lstm,
    x: npt.ArrayLike,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
) -> DynamicRun:
    """Run a batch of sequences with the model's own signal, threshold, hold, group and offsets.

    Parameters
    ----------
    model
        The layer. A circuit exists for plain layers only; a projection always has whole weights.
    x
        Input raws of 8 bits, shape (batch, time, inputs).
    hidden, cell
        Raws before the first time step, shapes (batch, outputs) and (batch, hidden). The default is
        the state at reset.
    """
    signal = decision_of(
        model.precision_signal,
        model.precision_threshold,
        model.precision_hold,
        model.precision_group,
        model.activation,
    )
    return run_signal(model, x, signal, hidden=hidden, cell=cell)


def run_signal(
    model: Int8Lstm,
    x: npt.ArrayLike,
    signal: Signal,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
    done: Callable[[], None] = lambda: None,
) -> DynamicRun:
    """Run a batch of sequences with the modes that `signal` decides and the model's offsets.

    The other parameters are those of `run`; `done` is called after every time step.
    """
    inputs = as_shaped_raws(x, "x", INT8_RANGE, (-1, -1, model.inputs))
    batch, time, _ = inputs.shape
    state = model.reset_state(batch)
    first_hidden = as_shaped_raws(
        state[0] if hidden is None else hidden, "hidden", INT8_RANGE, (batch, model.outputs)
    )
    first_cell = as_shaped_raws(
        state[1] if cell is None else cell, "cell", INT16_RANGE, (batch, model.hidden)
    )
    steps = _FastSteps.of(model) or _PlainSteps(model)
    hiddens = np.zeros((batch, time, model.outputs), np.int64)
    cells = np.zeros((batch, time, model.hidden), np.int64)
    modes = np.zeros((batch, time, model.hidden), np.bool_)
    signal.start(batch, model.hidden)
    steps.start(inputs, first_hidden, first_cell)
    for t in range(time):
        modes[:, t] = signal.high(t)
        hiddens[:, t], observed = steps.step(modes[:, t])
        cells[:, t] = observed.new_cell
        signal.observe(observed)
        done()
    return DynamicRun(hiddens, cells, modes)


class _PlainSteps:
    """The time steps as the head of this module describes them."""

    def __init__(self, model: Int8Lstm) -> None:
        self._whole = model.constants
        self._halves = low_constants(model.constants, model.low_offsets)

    def start(self, x: Raws, hidden: Raws, cell: Raws) -> None:
        self._inputs, self._hidden, self._cell = iter(x.transpose(1, 0, 2)), hidden, cell

    def step(self, high: Modes) -> tuple[Raws, SignalStep]:
        self._hidden, observed = mixed_step(
            self._whole, self._halves, next(self._inputs), self._hidden, self._cell, high
        )
        self._cell = observed.new_cell
        return self._hidden, observed


class _FastSteps:
    """The same time steps by `fewbit.golden.lstm.int8_fast`, whose columns are sequences."""

    def __init__(self, model: Int8Lstm, whole: FastSteps, halves: FastSteps) -> None:
        self._constants, self._whole, self._halves = model.constants, whole, halves

    @staticmethod
    def of(model: Int8Lstm) -> _FastSteps | None:
        """Return the fast steps, or None where the layer's constants do not allow them."""
        whole = model.fast_steps
        halves = FastSteps.of(low_constants(model.constants, model.low_offsets))
        return None if whole is None or halves is None else _FastSteps(model, whole, halves)

    def start(self, x: Raws, hidden: Raws, cell: Raws) -> None:
        self._state = self._whole.state(hidden, cell, len(x))
        self._low_gates = np.empty_like(self._state.gates)
        self._cell = cell
        self._input_parts = self._input_parts_of(x)

    def _input_parts_of(self, x: Raws) -> Generator[tuple[Reals, Reals]]:
        """Yield the input parts of both modes, time step by time step."""
        length = self._state.steps_at_once
        for start in range(0, x.shape[1], length):
            block = x[:, start : start + length]
            yield from zip(
                self._whole.input_part(block), self._halves.input_part(block), strict=True
            )

    def step(self, high: Modes) -> tuple[Raws, SignalStep]:
        state = self._state
        whole, halves = next(self._input_parts)
        self._whole.sum_gates(state, whole, state.gates)
        self._halves.sum_gates(state, halves, self._low_gates)
        np.copyto(state.gates, self._low_gates, where=~high.T.reshape(-1))
        gates = state.gates.copy()
        self._whole.finish(state)
        old_cell, self._cell = self._cell, state.cell.T.astype(np.int64)
        hidden = state.hidden[:-1].T.astype(np.int64)
        return hidden, SignalStep(old_cell, self._cell, lambda: self._pre(gates, high.shape))

    def _pre(self, gates: Reals, shape: tuple[int, ...]) -> Raws:
        """Return the gates as raws, shape (batch, hidden, G), in the layer's order.

        The argument holds gates to which 2^15 was added.
        """
        ordered = [order(self._constants).index(gate) for gate in self._constants.gates]
        raws = saturate((gates[ordered] + INT16_RANGE[0]).astype(np.int64), 16)
        return raws.reshape(len(ordered), *shape[::-1]).transpose(2, 1, 0)
