"""Other signals for dynamic precision, to compare with the change of the cell.

No circuit implements them. The two signals that circuits have, the change of the cell and the
output gate, are in `fewbit.golden.lstm.dynamic`. `RandomChoice` shows the cost of a share of LOW
time steps that are chosen at random; a signal is worth its gates if it costs less. All others
decide the next time step from the values of the last one. With each of them the first two time
steps of a sequence are HIGH.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ACTIVATIONS
from fewbit.golden.arithmetic import Raws
from fewbit.golden.lstm.dynamic import FIRST_STEPS, SignalStep
from fewbit.golden.lstm.integer_variant import GATES
from fewbit.golden.lstm.padding import valid_steps

__all__ = [
    "CellInput",
    "ChosenUnits",
    "LayerChange",
    "OpenInput",
    "RandomChoice",
    "RelativeChange",
    "Saturation",
    "SmallCell",
    "random_choice",
]

Modes = npt.NDArray[np.bool_]
INPUT_GATE, CELL_GATE = (GATES.index(gate) for gate in "ig")
_ONE = 1 << 15
_LEAST_CELL = 64


@dataclass
class RandomChoice:
    """A rule that makes each unit HIGH with a fixed probability, whatever the unit does.

    Parameters
    ----------
    high_share
        Probability of HIGH, one for all units or one for each, shape (hidden,).
    seed
        Seed of numpy's default generator, which starts anew with every batch.
    """

    high_share: float | npt.NDArray[np.float64]
    seed: int = 1

    def start(self, batch: int, hidden: int) -> None:
        """Start the generator anew."""
        self._shape = (batch, hidden)
        self._random = np.random.default_rng(self.seed)

    def high(self, t: int) -> Modes:
        """Return which units are HIGH at time step `t`, shape (batch, hidden)."""
        return (self._random.random(self._shape) < self.high_share) | (t < FIRST_STEPS)

    def observe(self, step: SignalStep) -> None:
        """Do nothing, because a random choice ignores the values of a time step."""


def random_choice(
    x: Raws, low_share: float, lengths: npt.ArrayLike | None = None, seed: int = 1
) -> RandomChoice:
    """Return a random choice with about this share of LOW time steps among all.

    Parameters
    ----------
    x
        Sequences, shape (batch, time, inputs).
    low_share
        Share of LOW time steps, from 0 to 1. The first two steps of a sequence are HIGH, so the
        largest possible share is smaller than 1.
    lengths
        Number of valid time steps in each sequence, shape (batch,); None for all.
    seed
        Seed of the random choice.
    """
    valid = valid_steps(x, lengths)
    free = int(valid[:, FIRST_STEPS:].sum())
    return RandomChoice(max(0.0, 1 - low_share * int(valid.sum()) / max(1, free)), seed)


@dataclass(eq=False)
class ChosenUnits:
    """A choice of units that does not change: some are always HIGH, all others LOW.

    Parameters
    ----------
    units
        Which units are HIGH, shape (hidden,), or (batch, hidden) for another choice in each
        sequence.
    """

    units: Modes

    def start(self, batch: int, hidden: int) -> None:
        """Take the size of a batch of new sequences."""
        self._chosen = np.broadcast_to(self.units, (batch, hidden))

    def high(self, t: int) -> Modes:
        """Return which units are HIGH at time step `t`, shape (batch, hidden)."""
        return self._chosen | (t < FIRST_STEPS)

    def observe(self, step: SignalStep) -> None:
        """Do nothing, because the choice ignores the values of a time step."""


@dataclass
class _Memoryless(ABC):
    """A rule that makes a unit HIGH if the last time step's measure was above the threshold."""

    threshold: float

    def start(self, batch: int, hidden: int) -> None:
        """Forget all earlier sequences, and begin a batch of new ones."""
        self._above = np.zeros((batch, hidden), np.bool_)

    def high(self, t: int) -> Modes:
        """Return which units are HIGH at time step `t`, shape (batch, hidden)."""
        return self._above | (t < FIRST_STEPS)

    def observe(self, step: SignalStep) -> None:
        """Compare the measure of a time step with the threshold."""
        measure = self.measure(step)
        self._above = np.broadcast_to(measure > self.threshold, step.new_cell.shape)

    @abstractmethod
    def measure(self, step: SignalStep) -> npt.NDArray[np.integer | np.floating]:
        """Return the measure, shape (batch, hidden), or (batch, 1) for all units together."""


class LayerChange(_Memoryless):
    """The mean change of the cell over the layer, in raws: all units share a mode."""

    def measure(self, step: SignalStep) -> npt.NDArray[np.floating]:
        """Return the mean of the changes, shape (batch, 1)."""
        return np.abs(step.new_cell - step.old_cell).mean(axis=1, keepdims=True)


class RelativeChange(_Memoryless):
    """The change of the cell in parts of the cell, ``|c[t-1] - c[t-2]| / (|c[t-1]| + 64)``."""

    def measure(self, step: SignalStep) -> npt.NDArray[np.floating]:
        """Return the change of the cell over its size, to which 64 raws are added."""
        return np.abs(step.new_cell - step.old_cell) / (np.abs(step.new_cell) + _LEAST_CELL)


class SmallCell(_Memoryless):
    """Minus the size of the cell, in raws: a unit is LOW while its cell is large.

    The tanh of a large cell is saturated, so that errors of the cell hardly reach the hidden value.
    """

    def measure(self, step: SignalStep) -> Raws:
        """Return minus the absolute value of the cell."""
        return -np.abs(step.new_cell)


class Saturation(_Memoryless):
    """Minus the least of the four gates' absolute pre-activations, in units of 2^-12.

    With a threshold of -4096 v a unit is LOW if all its gates are beyond ±v.
    """

    def measure(self, step: SignalStep) -> Raws:
        """Return minus the absolute pre-activation of the least saturated gate."""
        return -np.abs(step.pre()).min(axis=-1)


class CellInput(_Memoryless):
    """The size of i*g, which the time step adds to the cell, in units of 2^-15."""

    def measure(self, step: SignalStep) -> Raws:
        """Return the size of the product i*g."""
        i, g = _input_and_cell_gate(step)
        return i * np.abs(g) // _ONE


class OpenInput(_Memoryless):
    """``i - |i g|``, in units of 2^-15: the reach of an error in the cell gate into the cell.

    The slope of tanh is ``1 - g^2``, which is one to two times ``1 - |g|``. The input gate
    multiplies it by i. A neuron computes the product i g anyway, so the signal needs one more
    subtractor, as the change of the cell does.
    """

    def measure(self, step: SignalStep) -> Raws:
        """Return ``i - |i g|``, the part of the input gate that passes errors on."""
        i, g = _input_and_cell_gate(step)
        return i - i * np.abs(g) // _ONE


def _input_and_cell_gate(step: SignalStep) -> tuple[Raws, Raws]:
    pre, activation = step.pre(), ACTIVATIONS["table"]
    return activation.sigmoid(pre[..., INPUT_GATE]), activation.tanh(pre[..., CELL_GATE])
