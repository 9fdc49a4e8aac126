"""The LSTM in double precision: what every quantised LSTM approximates.

Gates are in the order i, f, g, o (input, forget, cell, output)::

    i, f, o = sigmoid(W x + R h + b)        g = tanh(W x + R h + b)
    c = f c + i g                           h = o tanh(c)

Source: Hochreiter and Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers,
Schmidhuber and Cummins, 2000; the parameters are those of PyTorch's ``nn.LSTM``, its two biases
summed.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from golden.shapes import check_shape

__all__ = ["Float64Lstm", "Reals", "run", "run_with_cell", "step"]

Reals = npt.NDArray[np.float64]

GATES = ("i", "f", "g", "o")
WEIGHT_AXES = ("gate", "unit", "operand")


@dataclass(frozen=True, eq=False)
class Float64Lstm:
    """Parameters of an LSTM layer, gates in the order i, f, g, o.

    Arrays are copied as float64 and made read-only.

    Parameters
    ----------
    input_weights
        Shape (4, hidden, inputs).
    recurrent_weights
        Shape (4, hidden, hidden).
    bias
        Shape (4, hidden).

    Raises
    ------
    ValueError
        If a shape is wrong, or a number is no finite real.
    """

    input_weights: Reals
    recurrent_weights: Reals
    bias: Reals

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        shape = np.shape(self.input_weights)
        if len(shape) != len(WEIGHT_AXES) or shape[0] != len(GATES) or 0 in shape:
            raise ValueError(
                f"input_weights must have the shape (4, hidden, inputs), not {shape}; "
                "the gates are i, f, g, o."
            )
        _, hidden, inputs = shape
        self._freeze("input_weights", (len(GATES), hidden, inputs))
        self._freeze("recurrent_weights", (len(GATES), hidden, hidden))
        self._freeze("bias", (len(GATES), hidden))

    def _freeze(self, name: str, shape: tuple[int, ...]) -> None:
        kept = _as_reals(getattr(self, name), name, shape).copy()
        if not np.isfinite(kept).all():
            raise ValueError(f"{name} must be finite, not {kept[~np.isfinite(kept)][0]}.")
        kept.setflags(write=False)
        object.__setattr__(self, name, kept)

    @property
    def inputs(self) -> int:
        """Length of an input vector."""
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        """Number of hidden units."""
        return self.input_weights.shape[1]


def _as_reals(value: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> Reals:
    """Return reals of `shape`, where -1 stands for any length."""
    given = np.asarray(value)
    if given.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers, not {given.dtype}.")
    check_shape(given, name, shape)
    return given.astype(np.float64, copy=False)


def _sigmoid(x: Reals) -> Reals:
    """``1/(1 + exp(-x))``, without overflow for a large negative `x`."""
    return np.exp(-np.logaddexp(0.0, -x))


def step(
    model: Float64Lstm, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
) -> tuple[Reals, Reals]:
    """One time step of a batch.

    Parameters
    ----------
    model
        The layer.
    x
        Shape (batch, inputs).
    hidden, cell
        Old values, shape (batch, hidden).

    Returns
    -------
    hidden, cell
        New values, shape (batch, hidden) each.
    """
    inputs = _as_reals(x, "x", (-1, model.inputs))
    units = (len(inputs), model.hidden)
    old_hidden = _as_reals(hidden, "hidden", units)
    old_cell = _as_reals(cell, "cell", units)
    # (batch, inputs) by (4, inputs, hidden) gives (4, batch, hidden).
    pre = (
        inputs @ model.input_weights.transpose(0, 2, 1)
        + old_hidden @ model.recurrent_weights.transpose(0, 2, 1)
        + model.bias[:, np.newaxis]
    )
    new_cell = _sigmoid(pre[1]) * old_cell + _sigmoid(pre[0]) * np.tanh(pre[2])
    return _sigmoid(pre[3]) * np.tanh(new_cell), new_cell


def run_with_cell(
    model: Float64Lstm,
    x: npt.ArrayLike,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
) -> tuple[Reals, Reals]:
    """Hidden and cell values of a batch of sequences, shape (batch, time, hidden) each.

    The parameters are those of `run`.
    """
    inputs = _as_reals(x, "x", (-1, -1, model.inputs))
    batch, time, _ = inputs.shape
    new_hidden = np.zeros((batch, model.hidden)) if hidden is None else hidden
    new_cell = np.zeros((batch, model.hidden)) if cell is None else cell
    hiddens = np.zeros((batch, time, model.hidden))
    cells = np.zeros((batch, time, model.hidden))
    for moment in range(time):
        new_hidden, new_cell = step(model, inputs[:, moment], new_hidden, new_cell)
        hiddens[:, moment], cells[:, moment] = new_hidden, new_cell
    return hiddens, cells


def run(
    model: Float64Lstm,
    x: npt.ArrayLike,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
) -> Reals:
    """Hidden values of a batch of sequences.

    A step depends on no later one, so sequences of different lengths can be padded at their ends
    and the surplus of the result ignored.

    Parameters
    ----------
    model
        The layer.
    x
        Shape (batch, time, inputs).
    hidden, cell
        Values before the first step, shape (batch, hidden); 0 if not given.

    Returns
    -------
    Shape (batch, time, hidden).
    """
    return run_with_cell(model, x, hidden=hidden, cell=cell)[0]
