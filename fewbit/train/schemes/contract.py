"""The parts of every scheme of training: signals between layers, and cells that compute a layer.

A *scheme* is a frozen description: which numbers weights, activations and gradients are in, and by
which rules they come there. It makes the parts of a `fewbit.train.QuantLSTM`: a `Signal` for every
vector that layers read or write, and a `Cell` for every layer and direction.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewbit.golden.lstm.contract import Lstm
from fewbit.train.recurrence import Rounding, float_recurrence

__all__ = ["Cell", "Scheme", "Signal", "by_gate", "reals_of"]


def by_gate(rows: Tensor) -> Tensor:
    """Return rows, shape (4 hidden, ...), by gate and unit: shape (4, hidden, ...)."""
    return rows.unflatten(0, (4, -1))


def reals_of(values: Tensor) -> npt.NDArray[np.float64]:
    """Return a tensor's numbers as a float64 array for the golden model."""
    return values.detach().cpu().double().numpy()


class Signal(nn.Module):
    """The numbers that a network reads, or that a layer writes and the next one reads.

    This one leaves them as they are. A signal of a scheme rounds them in `forward`, with a gradient
    that passes straight through, and learns their range from what passes in training.
    """

    @property
    def is_known(self) -> bool:
        """Return whether the range is known, by nature or from what has passed."""
        return True

    @property
    def rounding(self) -> Rounding | None:
        """Return the function that rounds hidden values in the recurrence; None for none."""
        return None

    def forward(self, values: Tensor) -> Tensor:
        """Return the values as a circuit would get them, in the same shape."""
        return values

    def observe(self, values: Tensor) -> None:
        """Learn the range of values; their shape is of no account."""


class Cell(nn.Module, ABC):
    """One direction of one layer: how it computes, and what golden layer it becomes.

    The standard parameters belong to the layer around it, which hands them over.

    Parameters
    ----------
    inputs, hidden
        Length of an input vector, and number of units.
    reads, writes
        The signals of the inputs and of the hidden values.
    """

    largest_cell: Tensor

    def __init__(self, inputs: int, hidden: int, reads: Signal, writes: Signal) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        # In a list, so that signals that cells share are not registered in each.
        self._signals = [reads, writes]
        self.register_buffer("largest_cell", torch.zeros(()), persistent=False)
        self.observing = False

    @property
    def reads(self) -> Signal:
        """Return the signal of the inputs."""
        return self._signals[0]

    @property
    def writes(self) -> Signal:
        """Return the signal of the hidden values."""
        return self._signals[1]

    def draw(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        """Draw first weights in place, where a scheme's rule has others than ``nn.LSTM``.

        Parameters
        ----------
        weight_ih, weight_hh
            Shapes (4 hidden, inputs) and (4 hidden, hidden).
        """

    def start(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        """Take what follows from the weights that training starts from, such as gains.

        Parameters
        ----------
        weight_ih, weight_hh
            Shapes (4 hidden, inputs) and (4 hidden, hidden).
        """

    def follow(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        """Take what follows from weights that were loaded or have moved, such as their scales.

        Parameters
        ----------
        weight_ih, weight_hh
            Shapes (4 hidden, inputs) and (4 hidden, hidden).
        """

    @abstractmethod
    def weights(self, weight_ih: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights that the layer computes with, in the same shapes.

        Gradients pass to the given weights.
        """

    def run(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        parameters: tuple[Tensor, Tensor, Tensor],
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return hidden values and cells of all steps, shape (time, batch, hidden) each.

        By default that is the recurrence in binary32, whose hidden values are rounded as the next
        layer reads them.

        Parameters
        ----------
        x
            Rounded inputs, shape (time, batch, inputs).
        hidden, cell
            States, shape (batch, hidden).
        parameters
            Weights of inputs and of hidden values, and the sum of the biases, shape (4 hidden,).
        valid
            Which steps belong to a sequence, shape (time, batch); None for all.
        """
        weight_ih, weight_hh = self.weights(*parameters[:2])
        parts = functional.linear(x, weight_ih, parameters[2])
        return float_recurrence(parts, weight_hh, hidden, cell, self.writes.rounding)

    @abstractmethod
    def golden(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> Lstm:
        """Return the golden layer; the arguments are the layer's parameters, biases summed."""

    def freezing(self) -> int:
        """Return how many passes over the data `freeze` takes; 1 where only ranges are learnt."""
        return 1

    @contextmanager
    def freeze(self, weight_ih: Tensor, weight_hh: Tensor) -> Iterator[None]:
        """Learn ranges, and what else a circuit needs, from the sequences that run meanwhile."""
        self.largest_cell.zero_()
        self.observing = True
        try:
            yield
        finally:
            self.observing = False

    @torch.no_grad()
    def observe_cells(self, cells: Tensor, valid: Tensor | None) -> None:
        """Keep the largest cell of the steps that count, while the layer is frozen."""
        if self.observing:
            sizes = cells.abs()
            sizes = sizes if valid is None else sizes[valid]
            torch.maximum(self.largest_cell, sizes.max(), out=self.largest_cell)


@dataclass(frozen=True)
class Scheme(ABC):
    """A number system, and how a network is trained for it."""

    name: ClassVar[str]
    """The word for it on the command line."""
    system: ClassVar[str]
    """The number system of the circuit, a key of `fewbit.golden.systems.SYSTEMS`; "" for none."""

    @property
    def lacks_circuit(self) -> str:
        """Return why no circuit runs what is trained, in a sentence; "" where one does."""
        return ""

    @abstractmethod
    def signal(self, *, hidden: bool) -> Signal:
        """Return a new signal: of hidden values, or of the network's input."""

    @abstractmethod
    def cell(self, inputs: int, hidden: int, reads: Signal, writes: Signal) -> Cell:
        """Return a new cell; the parameters are those of `Cell`."""

    def read_out(self, inputs: int, classes: int) -> nn.Linear:
        """Return the linear layer that reads the last hidden values: a real one by default."""
        return nn.Linear(inputs, classes)

    def optimiser(self, optimiser: torch.optim.Optimizer, model: nn.Module, labels: int) -> Any:
        """Return the optimiser by which a model is trained: the given one, or one around it.

        What is returned has `step`, `zero_grad`, `state_dict` and `load_state_dict`, and `scale`
        for the loss where the scheme scales it.

        Parameters
        ----------
        optimiser
            An optimiser of the model's parameters.
        model
            The model.
        labels
            The number of labels in a batch, over which the loss is a mean.
        """
        return optimiser
