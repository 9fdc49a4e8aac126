"""The LSTM in double precision, which every quantised LSTM approximates.

Gates are in the order i, f, g, o (input, forget, cell, output)::

    i, f, o = sigmoid(W x + R h + P c + b)      g = tanh(W x + R h + b)
    c = f c + i g                               h = o tanh(c)

A layer may have these variants: peepholes P, where i and f see the old cell and o the new one; a
coupled input gate, i = 1 - f; and a projection, h = W_p (o tanh(c)) + b_p.

Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997, with the forget gate and the
peepholes of Gers, Schmidhuber and Cummins, 2000 and 2002, and the projection of Sak, Senior and
Beaufays, 2014; the parameters are those of PyTorch's ``nn.LSTM``, its two biases summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fewbit.golden.checks import check_shape
from fewbit.golden.codecs import Codec, RealCodec
from fewbit.golden.lstm.contract import REAL, Lstm, StoredArray
from fewbit.golden.lstm.integer_variant import COUPLED_GATES, GATES

__all__ = ["Float64Lstm", "Reals", "Trace"]

Reals = npt.NDArray[np.float64]

WEIGHT_AXES = ("gate", "unit", "operand")


@dataclass(frozen=True)
class Trace:
    """The values that a layer computes on a batch of sequences.

    Parameters
    ----------
    hidden
        Shape (batch, time, outputs).
    cell
        Shape (batch, time, hidden).
    product
        Output gate times tanh of the cell, the input of a projection; shape (batch, time, hidden).
    """

    hidden: Reals
    cell: Reals
    product: Reals


@dataclass(frozen=True, eq=False)
class Float64Lstm(Lstm):
    """A real LSTM layer of G gates in the order i, f, g, o, or f, g, o.

    Arrays are copied as float64 and made read-only.

    Parameters
    ----------
    input_weights
        Shape (G, hidden, inputs), where G is 4, or 3 for a coupled input gate.
    recurrent_weights
        Shape (G, hidden, outputs), where outputs equals hidden unless there is a projection.
    bias
        Shape (G, hidden).
    peephole_weights
        Shape (G - 1, hidden), for the gates i, f, o, or f, o; None for no peepholes.
    projection_weights
        Shape (outputs, hidden); None for no projection.
    projection_bias
        Shape (outputs,); None for no bias.

    Raises
    ------
    ValueError
        If a shape is wrong, or a number is no finite real.
    """

    kind: ClassVar[str] = "float64_lstm"
    title: ClassVar[str] = "real"
    is_quantised: ClassVar[bool] = False
    stored: ClassVar[Mapping[str, StoredArray]] = {
        "input_weights": StoredArray(REAL, ("gates", "hidden", "inputs")),
        "recurrent_weights": StoredArray(REAL, ("gates", "hidden", "outputs")),
        "bias": StoredArray(REAL, ("gates", "hidden")),
        "peephole_weights": StoredArray(REAL, ("peepholes", "hidden"), optional=True),
        "projection_weights": StoredArray(REAL, ("outputs", "hidden"), optional=True),
        "projection_bias": StoredArray(REAL, ("outputs",), optional=True),
    }

    input_weights: Reals
    recurrent_weights: Reals
    bias: Reals
    peephole_weights: Reals | None = None
    projection_weights: Reals | None = None
    projection_bias: Reals | None = None

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        shape = np.shape(self.input_weights)
        allowed = {len(GATES), len(COUPLED_GATES)}
        if len(shape) != len(WEIGHT_AXES) or shape[0] not in allowed or 0 in shape:
            raise ValueError(
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                f"or (3, hidden, inputs) for f, g, o, not {shape}."
            )
        gates, hidden, inputs = shape
        outputs = hidden
        if self.projection_weights is not None:
            self._freeze("projection_weights", (-1, hidden))
            outputs = len(self.projection_weights)
        if self.projection_bias is not None:
            if self.projection_weights is None:
                raise ValueError(
                    "projection_bias must be left out where there are no projection_weights."
                )
            self._freeze("projection_bias", (outputs,))
        if self.peephole_weights is not None:
            self._freeze("peephole_weights", (gates - 1, hidden))
        self._freeze("input_weights", (gates, hidden, inputs))
        self._freeze("recurrent_weights", (gates, hidden, outputs))
        self._freeze("bias", (gates, hidden))

    def _freeze(self, name: str, shape: tuple[int, ...]) -> None:
        kept = _as_reals(getattr(self, name), name, shape).copy()
        if not np.isfinite(kept).all():
            raise ValueError(f"{name} must be finite, not {kept[~np.isfinite(kept)][0]}.")
        kept.setflags(write=False)
        object.__setattr__(self, name, kept)

    @property
    def gates(self) -> tuple[str, ...]:
        """Return the names of the gates in their order."""
        return GATES if len(self.input_weights) == len(GATES) else COUPLED_GATES

    @property
    def coupled(self) -> bool:
        """Return whether the input gate is one minus the forget gate."""
        return self.gates == COUPLED_GATES

    @property
    def inputs(self) -> int:
        """Return the length of an input vector."""
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        """Return the number of units, each with a cell."""
        return self.input_weights.shape[1]

    @property
    def outputs(self) -> int:
        """Return the length of a hidden vector: the projection's rows, or one for each unit."""
        return self.recurrent_weights.shape[2]

    @property
    def reads(self) -> Codec:
        return RealCodec()

    @property
    def keeps(self) -> Codec:
        return RealCodec()

    @property
    def description(self) -> str:
        return "real"

    def reset_state(self, batch: int) -> tuple[Reals, Reals]:
        return np.zeros((batch, self.outputs)), np.zeros((batch, self.hidden))

    def step(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
    ) -> tuple[Reals, Reals]:
        inputs = _as_reals(x, "x", (-1, self.inputs))
        old_hidden = _as_reals(hidden, "hidden", (len(inputs), self.outputs))
        old_cell = _as_reals(cell, "cell", (len(inputs), self.hidden))
        new_hidden, new_cell, _ = self._step(inputs, old_hidden, old_cell)
        return new_hidden, new_cell

    def trace(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> Trace:
        """Return hidden values, cells and products of a batch of sequences.

        The parameters are those of `run`.
        """
        inputs = _as_reals(x, "x", (-1, -1, self.inputs))
        batch, time, _ = inputs.shape
        outputs, units = (batch, self.outputs), (batch, self.hidden)
        new_hidden = np.zeros(outputs) if hidden is None else _as_reals(hidden, "hidden", outputs)
        new_cell = np.zeros(units) if cell is None else _as_reals(cell, "cell", units)
        hiddens = np.zeros((batch, time, self.outputs))
        cells, products = np.zeros((2, batch, time, self.hidden))
        for t in range(time):
            new_hidden, new_cell, product = self._step(inputs[:, t], new_hidden, new_cell)
            hiddens[:, t], cells[:, t] = new_hidden, new_cell
            products[:, t] = product
        return Trace(hiddens, cells, products)

    def _step(self, x: Reals, hidden: Reals, cell: Reals) -> tuple[Reals, Reals, Reals]:
        """Return hidden, cell and product of a time step, without checking shapes."""
        # (batch, inputs) by (G, inputs, hidden) gives (G, batch, hidden).
        gates = (
            x @ self.input_weights.transpose(0, 2, 1)
            + hidden @ self.recurrent_weights.transpose(0, 2, 1)
            + self.bias[:, np.newaxis]
        )
        pre = dict(zip(self.gates, gates, strict=True))
        peepholes: dict[str, Reals] = {}
        if self.peephole_weights is not None:
            seen = [gate for gate in self.gates if gate != "g"]
            peepholes = dict(zip(seen, self.peephole_weights, strict=True))
        f = _sigmoid(pre["f"] + peepholes.get("f", 0.0) * cell)
        i = 1 - f if self.coupled else _sigmoid(pre["i"] + peepholes.get("i", 0.0) * cell)
        new_cell = f * cell + i * np.tanh(pre["g"])
        o = _sigmoid(pre["o"] + peepholes.get("o", 0.0) * new_cell)
        product = o * np.tanh(new_cell)
        if self.projection_weights is None:
            return product, new_cell, product
        projected = product @ self.projection_weights.T
        if self.projection_bias is not None:
            projected += self.projection_bias
        return projected, new_cell, product


def _as_reals(value: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> Reals:
    """Return reals of `shape`, where -1 stands for any length, or refuse them."""
    given = np.asarray(value)
    if given.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers, not {given.dtype}.")
    check_shape(given, name, shape)
    return given.astype(np.float64, copy=False)


def _sigmoid(x: Reals) -> Reals:
    """Return ``1/(1 + exp(-x))``, without overflow for a large negative `x`."""
    return np.exp(-np.logaddexp(0.0, -x))
