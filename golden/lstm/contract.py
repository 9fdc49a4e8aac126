"""The LSTM of any number system: its constants in a file, and the time step that they define.

A number system's LSTM is one class, a frozen dataclass that inherits from `Lstm`. A layer has
methods for its codecs, its time step and its description, so that no code needs to test the class
of a layer. `fewbit.golden.lstm.kinds` lists all classes by their names in model files.
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
"""Largest number of letters of a text in a file."""
STORED_KINDS = frozenset(
    {"int8", "int16", "int32", "uint8", "uint16", "float32", "float64", "text"}
)
"""Types that an array of a file may have."""


@dataclass(frozen=True)
class StoredArray:
    """The type and the shape that an array of a file must have.

    Parameters
    ----------
    kinds
        Types that it may have: "int8", "int16", "int32", "uint8", "uint16", "float32", "float64",
        "text".
    shape
        Its axes: lengths, or names that stand for the same length in all arrays of a file.
    optional
        Whether the array may be missing; the layer's field then has its default.
    choices
        The allowed texts; empty if any text is allowed.
    none_as
        The number that stands for None, where the field may be None.
    """

    kinds: tuple[str, ...]
    shape: tuple[int | str, ...] = ()
    optional: bool = False
    choices: tuple[str, ...] = ()
    none_as: int | None = None

    def __post_init__(self) -> None:
        """Refuse a type that files cannot hold.

        Raises
        ------
        TypeError
            If a type is unknown, or the list is empty.
        """
        unknown = sorted(set(self.kinds) - STORED_KINDS)
        if unknown or not self.kinds or isinstance(self.kinds, str):
            raise TypeError(
                f"Types of a stored array must be among {', '.join(sorted(STORED_KINDS))}, not"
                f" {self.kinds!r}."
            )

    def __str__(self) -> str:
        """Return the types, then the shape, as an error shows them."""
        kinds = " or ".join(self.kinds)
        shape = str(self.shape).replace("'", "")
        return f"{kinds} of shape {shape}"


Kind = TypeVar("Kind", bound="Lstm")

REAL = ("float32", "float64")
"""Types of an array of reals in a file: float32 where that is exact."""


class Lstm(ABC):
    """A layer of an LSTM in some number system: its constants and its time step.

    A subclass is a frozen dataclass whose fields are the arrays of `stored`. The numbers that a
    layer reads and writes are raws or codes in int64, or reals in float64.
    """

    kind: ClassVar[str]
    """The name of the class in a model file, such as "int8_lstm"; it never changes."""
    title: ClassVar[str]
    """The name of such a model in sentences: "int8" as in "an int8 model"."""
    stored: ClassVar[Mapping[str, StoredArray]]
    """The type and shape of each field in a model file."""
    is_quantised: ClassVar[bool] = True
    """Whether the layer computes with raws or codes, and not with reals."""

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Return the length of an input vector."""

    @property
    @abstractmethod
    def hidden(self) -> int:
        """Return the number of units, each with a cell."""

    @property
    def outputs(self) -> int:
        """Return the length of a hidden vector, by default one number for each unit."""
        return self.hidden

    @property
    @abstractmethod
    def reads(self) -> Codec:
        """Return the codec of an input vector."""

    @property
    @abstractmethod
    def keeps(self) -> Codec:
        """Return the codec of the hidden vector that the recurrent part reads."""

    @property
    def writes(self) -> Codec:
        """Return the codec of the hidden vector that the layer puts out."""
        return self.keeps

    @property
    @abstractmethod
    def description(self) -> str:
        """Return the number system and the options of this layer, in words."""

    @abstractmethod
    def reset_state(self, batch: int) -> tuple[Numbers, Numbers]:
        """Return hidden and cell numbers that mean zero, for the time before the first step.

        The shapes are (batch, outputs) and (batch, hidden).
        """

    @abstractmethod
    def step(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
    ) -> tuple[Numbers, Numbers]:
        """Compute one time step of a batch.

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
            If a shape is wrong, or a number is out of the layer's range.
        """

    def run_with_cell(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> tuple[Numbers, Numbers]:
        """Return hidden and cell numbers of a batch of sequences at every time step.

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
        for t in range(time):
            new_hidden, new_cell = self.step(inputs[:, t], new_hidden, new_cell)
            hiddens[:, t], cells[:, t] = new_hidden, new_cell
        return hiddens, cells

    def run(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> Numbers:
        """Return the hidden numbers of a batch of sequences.

        A time step depends on no later one. So sequences of different lengths can be padded at
        their ends, and the surplus of the result ignored.

        Parameters
        ----------
        x
            Input numbers, shape (batch, time, inputs).
        hidden, cell
            Numbers before the first time step, shapes (batch, outputs) and (batch, hidden). The
            default is the state at reset.

        Returns
        -------
        Shape (batch, time, outputs).
        """
        return self.run_with_cell(x, hidden=hidden, cell=cell)[0]

    def forward(self, x: npt.ArrayLike) -> Numbers:
        """Return the hidden numbers of sequences from reset, as the layer's circuit computes them.

        The result is that of `run`, unless the circuit makes decisions at run time, such as the
        precision of a time step.

        Parameters
        ----------
        x
            Input numbers, shape (batch, time, inputs).

        Returns
        -------
        Shape (batch, time, outputs).
        """
        return self.run(x)

    @property
    def decides(self) -> bool:
        """Return whether the circuit decides at run time, so that `forward` differs from `run`."""
        return False

    def with_activation(self, activation: ActivationKind) -> Self:
        """Return the layer with another approximation of sigmoid and tanh.

        Raises
        ------
        ValueError
            If layers of this number system do not offer this approximation.
        """
        raise ValueError(f"A {self.title} layer has no choice of activation, such as {activation}.")


def expect(lstm: Lstm, kind: type[Kind], otherwise: str) -> Kind:
    """Return the layer, or refuse one that is not of the class `kind`.

    Raises
    ------
    ValueError
        If the layer is of another class; the text is `otherwise`.
    """
    if not isinstance(lstm, kind):
        raise ValueError(otherwise)
    return lstm
