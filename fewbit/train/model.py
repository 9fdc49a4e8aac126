"""The model of a task: symbols or real vectors, a `QuantLSTM`, and a linear read-out."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewbit.golden.files.model import ReadOut
from fewbit.golden.files.trained import TrainedModel
from fewbit.train.layers import QuantLSTM, State
from fewbit.train.schemes.contract import Scheme, reals_of
from fewbit.train.schemes.floatsd8 import FloatSD8Linear
from fewbit.train.tasks import Data, Setup, Task
from fewbit.train.tasks.task import NO_LABEL, Batch

__all__ = ["SequenceModel", "as_tensors"]


def as_tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, lengths and labels of a batch as tensors: symbols and labels as int64."""
    x = torch.from_numpy(np.ascontiguousarray(batch.x)).to(device)
    return (
        x if x.is_floating_point() else x.long(),
        torch.from_numpy(np.ascontiguousarray(batch.lengths)).to(device),
        torch.from_numpy(np.ascontiguousarray(batch.labels)).to(device),
    )


class SequenceModel(nn.Module):
    """A network that labels sequences, or their steps.

    Parameters
    ----------
    data
        The data, for the numbers of inputs and classes.
    setup
        Sizes of the network, and dropout.
    scheme
        The scheme of its layers.
    per_step
        Whether every step has a label, and not every sequence.
    """

    def __init__(self, data: Data, setup: Setup, scheme: Scheme, *, per_step: bool) -> None:
        super().__init__()
        self.per_step = per_step
        self.symbols = data.inputs if np.issubdtype(data.train.x.dtype, np.integer) else 0
        self.embedding = None
        inputs = data.inputs
        if self.symbols and setup.embedding:
            self.embedding = nn.Embedding(self.symbols, setup.embedding)
            inputs = setup.embedding
        self.lstm = QuantLSTM(
            inputs,
            setup.hidden,
            setup.layers,
            dropout=setup.dropout if setup.layers > 1 else 0.0,
            bidirectional=setup.bidirectional,
            scheme=scheme,
        )
        self.dropout = nn.Dropout(setup.dropout)
        width = setup.hidden * (2 if setup.bidirectional else 1)
        self.read_out = scheme.read_out(width, data.classes)
        if setup.forget_bias:
            self._open_forget_gates(setup.forget_bias)

    @torch.no_grad()
    def _open_forget_gates(self, bias: float) -> None:
        hidden = self.lstm.hidden_size
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                parameter[hidden : 2 * hidden] += bias

    def inputs_of(self, x: Tensor) -> Tensor:
        """Return the vectors that the first layer reads, shape (time, batch, inputs).

        Parameters
        ----------
        x
            Reals, shape (batch, time, inputs), or symbols, shape (batch, time).
        """
        if not self.symbols:
            return x.transpose(0, 1)
        if self.embedding is not None:
            return self.embedding(x.t())
        return functional.one_hot(x.t(), self.symbols).float()

    def forward(
        self, x: Tensor, lengths: Tensor | None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Return scores, and the state after the last step.

        Parameters
        ----------
        x
            See `inputs_of`.
        lengths
            The number of steps of each sequence; None for all.
        state
            The state to go on from; None for reset.

        Returns
        -------
        scores
            Shape (batch, classes), or (batch, time, classes) where every step has a label.
        state
            See `QuantLSTM.forward`.
        """
        vectors = self.inputs_of(x)
        if self.embedding is not None:
            vectors = self.dropout(vectors)
        output, new_state = self.lstm(vectors, state, lengths)
        if self.per_step:
            return self.read_out(self.dropout(output.transpose(0, 1))), new_state
        if lengths is None:
            last = output[-1]
        else:
            last = output[lengths - 1, torch.arange(len(lengths), device=output.device)]
        return self.read_out(self.dropout(last)), new_state

    def losses(self, scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy over all labels, in natural logarithms."""
        return functional.cross_entropy(
            scores.flatten(0, -2),
            labels.flatten(),
            ignore_index=NO_LABEL,
            label_smoothing=smoothing,
        )

    @torch.no_grad()
    def trained(self, task: Task, data: Data) -> TrainedModel:
        """Return the golden model; the network must be frozen."""
        read_out: Any = self.read_out
        weights, bias = read_out.weight, read_out.bias
        if isinstance(read_out, FloatSD8Linear):
            weights, bias = read_out.rounded, read_out.rounded_bias
        return TrainedModel(
            self.lstm.network(),
            ReadOut(reals_of(weights), reals_of(bias), "every" if self.per_step else "last"),
            None if self.embedding is None else reals_of(self.embedding.weight),
            task.name,
            data.symbols,
            data.class_names,
        )
