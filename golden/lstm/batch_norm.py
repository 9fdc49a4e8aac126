"""The LSTM with batch normalisation in double precision, as it is before folding.

Gates are in the order i, f, g, o::

    z = N_x(W x) + N_h(R h) + b         N(s) = gain (s - mean) / sqrt(variance + epsilon) + bias
    i, f, o = sigmoid(z)                g = tanh(z)
    c = f c + i g                       h = o tanh(N_c(c))

Each of the three norms may be missing. The statistics are frozen, one set for all time steps. The
paper has the gates in the order g, f, i, o, so the gates here are its parts 2, 1, 0 and 3. The bias
of its N_x is 0, that of its N_h is the gates' bias, and its N_c is optional.

Source: Ardakani, Ji, Smithson, Meyer and Gross, "Learning recurrent binary/ternary weights",
arXiv 1809.11086, whose released code keeps statistics for every time step.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fewbit.golden.checks import check_shape
from fewbit.golden.lstm.float64 import WEIGHT_AXES, Reals
from fewbit.golden.lstm.integer_variant import GATES

__all__ = ["BatchNorm", "BatchNormLstm", "NormalizedCell", "freeze_reals", "run_with_cell"]


def freeze_reals(instance: object, name: str, shape: tuple[int, ...]) -> None:
    """Replace a field by a read-only float64 copy, or refuse its shape or its numbers."""
    given = np.asarray(getattr(instance, name))
    if given.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers, not {given.dtype}.")
    check_shape(given, name, shape)
    if not np.isfinite(given).all():
        raise ValueError(f"{name} must be finite, not {given[~np.isfinite(given)][0]}.")
    kept = given.astype(np.float64)
    kept.setflags(write=False)
    object.__setattr__(instance, name, kept)


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """A batch normalisation with frozen statistics.

    Arrays are copied as float64 and made read-only.

    Parameters
    ----------
    gain, bias, mean, variance
        One number a normalised value, all of one shape; variances at least 0. PyTorch's names are
        ``weight``, ``bias``, ``running_mean`` and ``running_var``.
    epsilon
        A number that is added to the variances, so that they are greater than 0.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, or a variance is negative or 0 with epsilon.
    """

    gain: Reals
    bias: Reals
    mean: Reals
    variance: Reals
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Check that shapes and numbers are legal."""
        shape = np.shape(self.gain)
        for name in ("gain", "bias", "mean", "variance"):
            freeze_reals(self, name, shape)
        if not 0 <= self.epsilon < np.inf:
            raise ValueError(f"epsilon must be finite and at least 0, not {self.epsilon}.")
        wrong = (self.variance < 0) | (self.variance + self.epsilon <= 0)
        if wrong.any():
            raise ValueError(
                "variance must be at least 0, and greater than 0 where epsilon is 0, not "
                f"{self.variance[wrong][0]}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the normalised values."""
        return self.gain.shape

    @property
    def scale(self) -> Reals:
        """Return the factor of a value, ``gain / sqrt(variance + epsilon)``."""
        return self.gain / np.sqrt(self.variance + self.epsilon)

    @property
    def offset(self) -> Reals:
        """Return the term that is added to the product, ``bias - mean scale``."""
        return self.bias - self.mean * self.scale

    def normalize(self, values: Reals) -> Reals:
        """Return normalised values; their shape ends in that of the norm."""
        deviation = np.sqrt(self.variance + self.epsilon)
        return self.gain * ((values - self.mean) / deviation) + self.bias


class NormalizedCell(Protocol):
    """A layer that `run_with_cell` can run."""

    @property
    def inputs(self) -> int:
        """Return the length of an input vector."""
        ...

    @property
    def hidden(self) -> int:
        """Return the number of units."""
        ...

    def pre_activations(self, x: Reals, hidden: Reals) -> Reals:
        """Return the pre-activations of i, f, g, o, shape (batch, 4, hidden).

        Parameters
        ----------
        x, hidden
            Shape (batch, inputs) and (batch, hidden).
        """
        ...

    def normalize_cell(self, cell: Reals) -> Reals:
        """Return the values that tanh reads in place of the cells, shape (batch, hidden)."""
        ...


@dataclass(frozen=True, eq=False)
class BatchNormLstm:
    """An LSTM layer with batch normalisation, gates in the order i, f, g, o.

    Arrays are copied as float64 and made read-only.

    Parameters
    ----------
    input_weights
        Shape (4, hidden, inputs).
    recurrent_weights
        Shape (4, hidden, hidden).
    bias
        Shape (4, hidden).
    input_norm, recurrent_norm
        Norms of the two products, shape (4, hidden); None for no norm.
    cell_norm
        Norm of the cell, shape (hidden,); None for no norm.

    Raises
    ------
    ValueError
        If a shape is wrong, or a number is no finite real.
    """

    input_weights: Reals
    recurrent_weights: Reals
    bias: Reals
    input_norm: BatchNorm | None = None
    recurrent_norm: BatchNorm | None = None
    cell_norm: BatchNorm | None = None

    def __post_init__(self) -> None:
        """Check that shapes and numbers are legal."""
        shape = np.shape(self.input_weights)
        if len(shape) != len(WEIGHT_AXES) or shape[0] != len(GATES) or 0 in shape:
            raise ValueError(
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                f"not {shape}."
            )
        gates, hidden, _ = shape
        freeze_reals(self, "input_weights", shape)
        freeze_reals(self, "recurrent_weights", (gates, hidden, hidden))
        freeze_reals(self, "bias", (gates, hidden))
        for name, norm, wanted in (
            ("input_norm", self.input_norm, (gates, hidden)),
            ("recurrent_norm", self.recurrent_norm, (gates, hidden)),
            ("cell_norm", self.cell_norm, (hidden,)),
        ):
            if norm is not None and norm.shape != wanted:
                raise ValueError(f"{name} must have the shape {wanted}, not {norm.shape}.")

    @property
    def inputs(self) -> int:
        """Return the length of an input vector."""
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        """Return the number of units, each with a cell."""
        return self.input_weights.shape[1]

    def pre_activations(self, x: Reals, hidden: Reals) -> Reals:
        """Return the pre-activations of i, f, g, o, shape (batch, 4, hidden).

        Parameters
        ----------
        x, hidden
            Shape (batch, inputs) and (batch, hidden).
        """
        # (batch, inputs) by (4, inputs, hidden) gives (4, batch, hidden).
        parts = [
            (operand @ weights.transpose(0, 2, 1)).transpose(1, 0, 2)
            for operand, weights in ((x, self.input_weights), (hidden, self.recurrent_weights))
        ]
        total = np.zeros_like(parts[0]) + self.bias
        for part, norm in zip(parts, (self.input_norm, self.recurrent_norm), strict=True):
            total += part if norm is None else norm.normalize(part)
        return total

    def normalize_cell(self, cell: Reals) -> Reals:
        """Return the values that tanh reads in place of the cells, shape (batch, hidden)."""
        return cell if self.cell_norm is None else self.cell_norm.normalize(cell)


def _sigmoid(x: Reals) -> Reals:
    """Return ``1/(1 + exp(-x))``, without overflow for a large negative `x`."""
    return np.exp(-np.logaddexp(0.0, -x))


def run_with_cell(model: NormalizedCell, x: npt.ArrayLike) -> tuple[Reals, Reals]:
    """Return hidden values and cells of a batch of sequences, both 0 before the first time step.

    Parameters
    ----------
    model
        The layer.
    x
        Shape (batch, time, inputs).

    Returns
    -------
    hidden, cell
        Shape (batch, time, hidden) each.
    """
    inputs = np.asarray(x, np.float64)
    check_shape(inputs, "x", (-1, -1, model.inputs))
    batch, time, _ = inputs.shape
    hidden, cell = np.zeros((2, batch, model.hidden))
    hiddens, cells = np.zeros((2, batch, time, model.hidden))
    for t in range(time):
        pre = model.pre_activations(inputs[:, t], hidden)
        i, f, o = (_sigmoid(pre[:, gate]) for gate in (0, 1, 3))
        cell = f * cell + i * np.tanh(pre[:, 2])
        hidden = o * np.tanh(model.normalize_cell(cell))
        hiddens[:, t], cells[:, t] = hidden, cell
    return hiddens, cells
