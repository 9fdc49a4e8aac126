"""Precision chosen per unit and time step in the integer LSTM: 8 or 4 bits of every weight.

After Silfa et al.: where a unit's cell is calm, the high halves of its weights do; where it moves,
whole weights. The scheme in integers is ours, and so is the other signal: a unit whose output gate
was shut is seen by nobody.

**Decision.** Before step t of a sequence, of each unit, with c[-1] the cell it starts from and o
the output gate::

    d = |c[t-1] - c[t-2]|            "cell_change", in raws; 0 at t = 0
        o[t-1]                       "output_gate", in units of 2^-15; 0 at t = 0
    counter = hold       if d > threshold
              counter-1  else, if the counter is positive
              0          else
    HIGH    if counter > 0, or t < 2, or hold = 255;  else LOW

Counters start at 0. `threshold` has 16 bits, `hold` 8, both run-time registers. A hold of 255 is
for good: every step is HIGH, and the layer is the int8 layer. A hold of 0 makes all but the first
two steps LOW. All gates of a unit share the mode. So do the units of a group, from the first each
`group` neighbours: they share a counter, and any of them that moves sets it. d needs no history: it
is the difference between the cell that a unit reads and the one that it writes, so the counter for
step t + 1 is settled when step t writes the cell. Loading a state is the start of a sequence:
counters at 0, the next two steps HIGH. Reading it out changes nothing.

**Arithmetic.** A weight is ``16 W_high + W_low``, W_high signed, W_low unsigned, 4 bits each. The
sum of a row, part by part as everywhere, wrapped to 32 bits::

    HIGH    start + sum W x
    LOW     start + 16 (4 offset + sum W_high x) + 8 sum x

``start`` is the folded bias of the int8 layer, in both modes, and x a raw with its zero point still
in it. ``sum x`` is one number a vector, shared by all rows of the part. What that means: in LOW a
weight is the middle of its sixteen, ``16 W_high + 8``, but the folded bias still takes the zero
point off with whole weights, so that a row is off by ``sum (8 - W_low) x``, where
``sum (8 - W_low) (x - z)`` would be less for z the mean of x. ``offset``, an int8 for each row and
part, makes up for that: ``sum (W_low - 8) mean(x) / 64`` to the nearest, from calibration. Without
offsets they are 0, and the circuit needs no memory for them. All after the sums is the int8
layer's.

Offsets are worth their byte a row: on the speaker model they halve the error of the hidden values
when all is LOW (rms 7.5 for 15.2 steps), and only with them no accuracy is lost at 75 % LOW.

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
"""Steps at the start of a sequence that are HIGH whatever the cell does."""
OFFSET_RESOLUTION = 64
"""What an offset of 1 adds to a sum."""


@dataclass(frozen=True, eq=False)
class SignalStep:
    """What a step did, for the decision on the next one.

    Parameters
    ----------
    old_cell, new_cell
        Raws, shape (batch, hidden).
    pre
        Gives the gates before their activation, raws in Q3.12, shape (batch, hidden, G).
    """

    old_cell: Raws
    new_cell: Raws
    pre: Callable[[], Raws]


class Signal(Protocol):
    """What decides the mode of every unit, step by step; `run_signal` starts it anew by itself."""

    def start(self, batch: int, hidden: int) -> None:
        """Forget all sequences before."""

    def high(self, moment: int) -> Modes:
        """Which units are HIGH at step `moment`, shape (batch, hidden)."""
        ...

    def observe(self, step: SignalStep) -> None:
        """Take note of a step that was done."""


@dataclass
class Decision(ABC):
    """The decision at the head of this module, by one signal or the other.

    Parameters
    ----------
    threshold
        From 0 to 65535.
    hold
        From 0 to 255.
    group
        Neighbouring units that share a mode, at least 1.

    Raises
    ------
    ValueError
        If one is out of its range.
    """

    threshold: int
    hold: int
    group: int = 1

    def __post_init__(self) -> None:
        """Check the registers."""
        freeze_integer(self, "threshold", 0, HIGHEST_THRESHOLD)
        freeze_integer(self, "hold", 0, ALWAYS_HIGH)
        freeze_integer(self, "group", 1, LARGEST_GROUP)

    def start(self, batch: int, hidden: int) -> None:
        """Counters to 0."""
        self._hidden = hidden
        self._counters = np.zeros((batch, -(-hidden // self.group)), np.int64)

    def high(self, moment: int) -> Modes:
        """Which units are HIGH."""
        return np.repeat(self.high_groups(moment), self.group, axis=1)[:, : self._hidden]

    def high_groups(self, moment: int) -> Modes:
        """Which groups are HIGH, shape (batch, groups)."""
        return (self._counters > 0) | (moment < FIRST_STEPS) | (self.hold == ALWAYS_HIGH)

    def observe(self, step: SignalStep) -> None:
        """Settle the counters for the next step."""
        set_now = self.largest(step) > self.threshold
        self._counters = np.where(set_now, self.hold, np.maximum(self._counters - 1, 0))

    def largest(self, step: SignalStep) -> Raws:
        """What is compared with the threshold, shape (batch, groups)."""
        signal = self.measure(step)
        padded = np.pad(signal, ((0, 0), (0, -signal.shape[1] % self.group)))
        return padded.reshape(len(signal), -1, self.group).max(axis=2)

    @abstractmethod
    def measure(self, step: SignalStep) -> Raws:
        """The signal of every unit, at least 0, shape (batch, hidden)."""


class CellChange(Decision):
    """By the change of the cell, after Silfa et al."""

    def measure(self, step: SignalStep) -> Raws:
        """Distance between the cell before and after."""
        return np.abs(step.new_cell - step.old_cell)


@dataclass
class OutputGate(Decision):
    """By the output gate, in units of 2^-15; ours.

    Parameters
    ----------
    activation
        The layer's.
    """

    activation: ActivationKind = "table"

    def measure(self, step: SignalStep) -> Raws:
        """The gate, the last in every order."""
        return ACTIVATIONS[self.activation].sigmoid(step.pre()[..., -1])


def decision_of(
    signal: PrecisionSignal, threshold: int, hold: int, group: int, activation: ActivationKind
) -> Decision:
    """The decision by a signal; `activation` is the layer's."""
    if signal == "cell_change":
        return CellChange(threshold, hold, group)
    return OutputGate(threshold, hold, group, activation)


@dataclass(frozen=True, eq=False)
class DynamicRun:
    """What came of a batch of sequences, and how it was computed.

    Parameters
    ----------
    hidden, cell
        Raws at every step, shapes (batch, time, outputs) and (batch, time, hidden).
    high
        Which units were HIGH, shape (batch, time, hidden).
    """

    hidden: Raws
    cell: Raws
    high: Modes

    def passes(self, lengths: npt.ArrayLike | None = None) -> tuple[int, int]:
        """Numbers of HIGH and of LOW steps of units.

        Parameters
        ----------
        lengths
            Number of steps that count in each sequence, shape (batch,); all if not given.
        """
        counted = self.high[valid_steps(self.high, lengths)]
        high = int(counted.sum())
        return high, counted.size - high

    def low_share(self, lengths: npt.ArrayLike | None = None) -> float:
        """Share of LOW steps of units, from 0 to 1."""
        high, low = self.passes(lengths)
        return low / (high + low)


def speed_up(low_share: float) -> float:
    """Steps of a layer in the time of one all HIGH, if LOW takes half of it."""
    return 1 / (1 - low_share / 2)


def low_constants(
    constants: Int8Constants, offsets: npt.NDArray[np.int8] | None = None
) -> Int8Constants:
    """The layer in which every step is LOW, as an int8 layer.

    Its weights are ``16 W_high + 8``, which int8 holds, and its folded bias takes in the offsets.

    Parameters
    ----------
    constants
        The layer in which every step is HIGH.
    offsets
        int8, shape (G, 2, hidden), as in `Int8Lstm.low_offsets`; None for zeros.
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
    """New hidden raws, and what the step did.

    Parameters
    ----------
    whole, halves
        The layer in which every step is HIGH, and the one in which every step is LOW.
    x, hidden, cell
        Raws, shapes (batch, inputs), (batch, outputs) and (batch, hidden).
    high
        Which units are HIGH, shape (batch, hidden).
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
        The layer. The circuit takes plain layers; a projection's weights are always whole.
    x
        Input raws of 8 bits, shape (batch, time, inputs).
    hidden, cell
        Raws before the first step, shapes (batch, outputs) and (batch, hidden); those at reset if
        not given.
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
    """Run a batch of sequences with modes that `signal` decides, and the model's offsets.

    The other parameters are those of `run`; `done` is called after every step.
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
    for moment in range(time):
        modes[:, moment] = signal.high(moment)
        hiddens[:, moment], observed = steps.step(modes[:, moment])
        cells[:, moment] = observed.new_cell
        signal.observe(observed)
        done()
    return DynamicRun(hiddens, cells, modes)


class _PlainSteps:
    """The steps as the head of this module says them."""

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
    """The same steps by `fewbit.golden.lstm.int8_fast`, whose arrays have sequences as columns."""

    def __init__(self, model: Int8Lstm, whole: FastSteps, halves: FastSteps) -> None:
        self._constants, self._whole, self._halves = model.constants, whole, halves

    @staticmethod
    def of(model: Int8Lstm) -> _FastSteps | None:
        """The steps, or None where the layer's constants don't allow them."""
        whole = model.fast_steps
        halves = FastSteps.of(low_constants(model.constants, model.low_offsets))
        return None if whole is None or halves is None else _FastSteps(model, whole, halves)

    def start(self, x: Raws, hidden: Raws, cell: Raws) -> None:
        self._state = self._whole.state(hidden, cell, len(x))
        self._low_gates = np.empty_like(self._state.gates)
        self._cell = cell
        self._input_parts = self._input_parts_of(x)

    def _input_parts_of(self, x: Raws) -> Generator[tuple[Reals, Reals]]:
        """Input parts of both modes, step by step."""
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
        """Raws of raised gates, shape (batch, hidden, G), in the layer's order."""
        ordered = [order(self._constants).index(gate) for gate in self._constants.gates]
        raws = saturate((gates[ordered] + INT16_RANGE[0]).astype(np.int64), 16)
        return raws.reshape(len(ordered), *shape[::-1]).transpose(2, 1, 0)
