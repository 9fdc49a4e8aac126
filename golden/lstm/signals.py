"""Other signals for the precision chosen per step, to compare the change of the cell with.

None of them is in a circuit; the change of the cell and the output gate, which are, stand in
`fewbit.golden.lstm.dynamic`. `RandomChoice` says what a share of LOW steps costs when they are
chosen without looking; a signal is worth its gates where it does better. All but it use the last
step's values for the next one, as those two do, and take the first two
steps of a sequence whole.
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
    "LayerChange",
    "OpenInput",
    "RandomChoice",
    "Saturation",
    "random_choice",
]

Modes = npt.NDArray[np.bool_]
INPUT_GATE, CELL_GATE = (GATES.index(gate) for gate in "ig")
_ONE = 1 << 15


@dataclass
class RandomChoice:
    """Each unit is HIGH with a probability, whatever it does.

    Parameters
    ----------
    high_share
        Probability of HIGH.
    seed
        Of numpy's default generator, started anew with every batch.
    """

    high_share: float
    seed: int = 1

    def start(self, batch: int, hidden: int) -> None:
        """Start the generator anew."""
        self._shape = (batch, hidden)
        self._random = np.random.default_rng(self.seed)

    def high(self, moment: int) -> Modes:
        """Which units are HIGH."""
        return (self._random.random(self._shape) < self.high_share) | (moment < FIRST_STEPS)

    def observe(self, step: SignalStep) -> None:
        """Nothing to see."""


def random_choice(
    x: Raws, low_share: float, lengths: npt.ArrayLike | None = None, seed: int = 1
) -> RandomChoice:
    """A random choice with about a share of LOW steps in all, though the first ones are HIGH.

    Parameters
    ----------
    x
        Sequences, shape (batch, time, inputs).
    low_share
        From 0 to 1; more than the steps after the first can have is taken for all of those.
    lengths
        Number of steps that count in each sequence, shape (batch,); all if not given.
    seed
        Of the choice.
    """
    valid = valid_steps(x, lengths)
    free = int(valid[:, FIRST_STEPS:].sum())
    return RandomChoice(max(0.0, 1 - low_share * int(valid.sum()) / max(1, free)), seed)


@dataclass
class _Memoryless(ABC):
    """HIGH where the last step's measure was above the threshold."""

    threshold: float

    def start(self, batch: int, hidden: int) -> None:
        """Forget all sequences before."""
        self._above = np.zeros((batch, hidden), np.bool_)

    def high(self, moment: int) -> Modes:
        """Which units are HIGH."""
        return self._above | (moment < FIRST_STEPS)

    def observe(self, step: SignalStep) -> None:
        """Compare the step's measure with the threshold."""
        measure = self.measure(step)
        self._above = np.broadcast_to(measure > self.threshold, step.new_cell.shape)

    @abstractmethod
    def measure(self, step: SignalStep) -> npt.NDArray[np.integer | np.floating]:
        """Shape (batch, hidden), or (batch, 1) for all units together."""


class LayerChange(_Memoryless):
    """Change of the cell, in raws, its mean over the layer: all units share a mode."""

    def measure(self, step: SignalStep) -> npt.NDArray[np.floating]:
        """Mean of the changes."""
        return np.abs(step.new_cell - step.old_cell).mean(axis=1, keepdims=True)


class Saturation(_Memoryless):
    """Minus the least of the four gates' absolute pre-activations, in units of 2^-12.

    A threshold of -4096 t makes a unit LOW once all gates are beyond t.
    """

    def measure(self, step: SignalStep) -> Raws:
        """Minus the least saturated gate."""
        return -np.abs(step.pre()).min(axis=-1)


class CellInput(_Memoryless):
    """What the step wrote: the size of i*g, in units of 2^-15."""

    def measure(self, step: SignalStep) -> Raws:
        """Size of the product."""
        i, g = _input_and_cell_gate(step)
        return i * np.abs(g) // _ONE


class OpenInput(_Memoryless):
    """``i - |i g|``, in units of 2^-15: how far an error in the cell gate can reach the cell.

    The slope of tanh is ``1 - g^2``, from one to two times ``1 - |g|``; the input gate passes i of
    it on. A neuron has the product i g already: the signal costs it a subtractor, as the change of
    the cell does.
    """

    def measure(self, step: SignalStep) -> Raws:
        """What is open."""
        i, g = _input_and_cell_gate(step)
        return i - i * np.abs(g) // _ONE


def _input_and_cell_gate(step: SignalStep) -> tuple[Raws, Raws]:
    pre, activation = step.pre(), ACTIVATIONS["table"]
    return activation.sigmoid(pre[..., INPUT_GATE]), activation.tanh(pre[..., CELL_GATE])
