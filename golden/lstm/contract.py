"""The LSTM of any number system: what a layer's parameters are in a file, and what they compute.

A number system's LSTM is one class, a frozen dataclass that inherits from `Lstm`. Whoever has a
layer asks it what it reads and writes, how it steps and what it is called; nobody asks of which
class it is. `fewbit.golden.lstm.kinds` knows all classes by the name that stands in model files.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.checks import check_shape
from fewbit.golden.codecs import Codec

__all__ = ["LONGEST_TEXT", "REAL", "Lstm", "Numbers", "StoredArray", "expect"]

Numbers = npt.NDArray[Any]
"""Raws or codes as int64, or reals as float64."""


LONGEST_TEXT = 32
"""Most letters of a text in a file."""
STORED_KINDS = frozenset(
    {"int8", "int16", "int32", "uint8", "uint16", "float32", "float64", "text"}
)
"""Types that an array of a file may have."""


@dataclass(frozen=True)
class StoredArray:
    """What an array of a file must be.

    Parameters
    ----------
    kinds
        Types that it may have: "int8", "int16", "int32", "uint8", "uint16", "float32", "float64",
        "text".
    shape
        Its axes: lengths, or names that stand for the same length in all arrays taken together.
    optional
        Whether it may be missing; the layer's field has its default then.
    choices
        The texts that a text may be; any where none are given.
    none_as
        The number that stands for None, where the field may be None.
    """

    kinds: tuple[str, ...]
    shape: tuple[int | str, ...] = ()
    optional: bool = False
    choices: tuple[str, ...] = ()
    none_as: int | None = None

    def __post_init__(self) -> None:
        """Refuse a type that files don't hold.

        Raises
        ------
        TypeError
            If there is one, or none at all.
        """
        unknown = sorted(set(self.kinds) - STORED_KINDS)
        if unknown or not self.kinds or isinstance(self.kinds, str):
            raise TypeError(
                f"Types of a stored array must be among {', '.join(sorted(STORED_KINDS))}, not"
                f" {self.kinds!r}."
            )

    def __str__(self) -> str:
        """Name the types, then the shape, as an error shows them."""
        kinds = " or ".join(self.kinds)
        shape = str(self.shape).replace("'", "")
        return f"{kinds} of shape {shape}"


Kind = TypeVar("Kind", bound="Lstm")

REAL = ("float32", "float64")
"""Types of an array of reals in a file: float32 where that is exact."""


class Lstm(ABC):
    """A layer of an LSTM in some number system: its parameters, and what they compute.

    A subclass is a frozen dataclass whose fields are the arrays of `stored`. Numbers that a layer
    takes and gives are raws or codes in int64, or reals in float64.
    """

    kind: ClassVar[str]
    """What stands for the class in a model file, such as "int8_lstm"; never changed."""
    title: ClassVar[str]
    """What sentences call such a model: "int8" as in "an int8 model"."""
    stored: ClassVar[Mapping[str, StoredArray]]
    """What a model file holds of each field."""
    is_quantised: ClassVar[bool] = True
    """Whether the layer computes with raws or codes, and not with reals."""

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Length of an input vector."""

    @property
    @abstractmethod
    def hidden(self) -> int:
        """Number of units, each with a cell."""

    @property
    def outputs(self) -> int:
        """Length of a hidden vector: one for each unit."""
        return self.hidden

    @property
    @abstractmethod
    def reads(self) -> Codec:
        """What the numbers of an input vector stand for."""

    @property
    @abstractmethod
    def keeps(self) -> Codec:
        """What the numbers of the hidden vector stand for, as the recurrent part reads them."""

    @property
    def writes(self) -> Codec:
        """What the numbers of the hidden vector stand for, as the layer gives them."""
        return self.keeps

    @property
    @abstractmethod
    def description(self) -> str:
        """The number system and what was chosen for this layer, in words."""

    @abstractmethod
    def reset_state(self, batch: int) -> tuple[Numbers, Numbers]:
        """Hidden and cell numbers before the first step, which mean zero.

        Shapes (batch, outputs) and (batch, hidden).
        """

    @abstractmethod
    def step(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
    ) -> tuple[Numbers, Numbers]:
        """One time step of a batch.

        Parameters
        ----------
        x
            Input numbers, shape (batch, inputs).
        hidden
            Old hidden numbers, shape (batch, outputs).
        cell
            Old cell numbers, shape (batch, hidden).

        Returns
        -------
        hidden, cell
            New numbers, shapes (batch, outputs) and (batch, hidden).

        Raises
        ------
        ValueError
            If a shape is wrong or a number is none of the layer's.
        """

    def run_with_cell(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> tuple[Numbers, Numbers]:
        """Hidden and cell numbers of a batch of sequences at every step.

        The parameters are those of `run`.

        Returns
        -------
        hidden, cell
            Shapes (batch, time, outputs) and (batch, time, hidden).
        """
        inputs = np.asarray(x)
        check_shape(inputs, "x", (-1, -1, self.inputs))
        batch, time, _ = inputs.shape
        state = self.reset_state(batch)
        new_hidden = state[0] if hidden is None else hidden
        new_cell = state[1] if cell is None else cell
        hiddens = np.zeros((batch, time, self.outputs), state[0].dtype)
        cells = np.zeros((batch, time, self.hidden), state[1].dtype)
        for moment in range(time):
            new_hidden, new_cell = self.step(inputs[:, moment], new_hidden, new_cell)
            hiddens[:, moment], cells[:, moment] = new_hidden, new_cell
        return hiddens, cells

    def run(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> Numbers:
        """Hidden numbers of a batch of sequences.

        A step depends on no later one, so sequences of different lengths can be padded at their
        ends and the surplus of the result ignored.

        Parameters
        ----------
        x
            Input numbers, shape (batch, time, inputs).
        hidden, cell
            Numbers before the first step, shapes (batch, outputs) and (batch, hidden); those at
            reset if not given.

        Returns
        -------
        Shape (batch, time, outputs).
        """
        return self.run_with_cell(x, hidden=hidden, cell=cell)[0]

    def forward(self, x: npt.ArrayLike) -> Numbers:
        """Hidden numbers of sequences from reset, as the layer's circuit gives them.

        That is `run`, unless the circuit decides something at run time that `run` doesn't.

        Parameters
        ----------
        x
            Input numbers, shape (batch, time, inputs).

        Returns
        -------
        Shape (batch, time, outputs).
        """
        return self.run(x)

    def with_activation(self, activation: ActivationKind) -> Self:
        """The layer with another approximation of sigmoid and tanh.

        Raises
        ------
        ValueError
            If layers of this number system have no such choice, or not this one.
        """
        raise ValueError(f"A {self.title} layer has no choice of activation, such as {activation}.")


def expect(lstm: Lstm, kind: type[Kind], otherwise: str) -> Kind:
    """The layer, where it is of the class that a step of some conversion takes.

    Raises
    ------
    ValueError
        With the sentence `otherwise`, if it is of another class.
    """
    if not isinstance(lstm, kind):
        raise ValueError(otherwise)
    return lstm
