"""Norms of a cell's two products, with any weights: statistics, gains, and the loop over time.

Source: Ardakani et al., arXiv 1809.11086; that one set of statistics serves all steps is Hou et
al.'s, NeurIPS 2019.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewbit.golden.lstm.batch_norm import BatchNorm
from fewbit.train.schemes.contract import Cell, by_gate, reals_of

__all__ = ["MOST_STEPS", "BatchNormedCell", "GainedCell", "NormKind"]

NormKind = Literal["weight", "batch", "batch_per_step"]
"""A trained gain over the norm of a row's weights, or batch normalisation."""
MOST_STEPS = 1 << 16
"""The most sets of statistics."""
_FIRST_GAIN = 0.1
_EPSILON = 1e-5
_MOMENTUM = 0.1
# The recurrent norm's statistics decide what it normalises: they settle in a few rounds.
_ROUNDS = 10


class _Statistics(nn.Module):
    """Mean and variance of a norm, one set or one a step, and its gains."""

    mean: Tensor
    variance: Tensor

    def __init__(self, rows: int, sets: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((rows,), _FIRST_GAIN))
        self.register_buffer("mean", torch.zeros(sets, rows))
        self.register_buffer("variance", torch.full((sets, rows), _FIRST_GAIN))

    def normalise(self, values: Tensor, step: int, *, training: bool) -> Tensor:
        """Return normalised rows, shape (count, rows), with the statistics of a step."""
        index = min(step, len(self.mean) - 1)
        # One sequence alone has no statistics of a batch.
        training = training and len(values) > 1
        return functional.batch_norm(
            values,
            self.mean[index],
            self.variance[index],
            self.gain,
            None,
            training,
            _MOMENTUM,
            _EPSILON,
        )

    def begin(self) -> None:
        """Begin to gather statistics for all steps."""
        self._count = 0
        self._first = torch.zeros_like(self.mean[0], dtype=torch.float64)
        self._second = torch.zeros_like(self._first)

    def gather(self, values: Tensor) -> None:
        """Add values, shape (count, rows)."""
        wide = values.double()
        self._count += len(wide)
        self._first += wide.sum(0)
        self._second += wide.square().sum(0)

    def end(self) -> None:
        """Take the statistics of all values that were added."""
        if self._count and len(self.mean) == 1:
            mean = self._first / self._count
            self.mean[0] = mean
            self.variance[0] = (self._second / self._count - mean.square()).clamp_min(0)


class GainedCell(Cell):
    """A cell whose rows of weights may each have a trained gain over their norm."""

    gain_ih: nn.Parameter
    gain_hh: nn.Parameter

    def add_gains(self) -> None:
        """Add gains of 1, one a row."""
        self.gain_ih = nn.Parameter(torch.ones(4, self.hidden))
        self.gain_hh = nn.Parameter(torch.ones(4, self.hidden))

    def start_gains(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        """Take the norms of first weights as the gains.

        Parameters
        ----------
        weight_ih, weight_hh
            Shapes (4 hidden, inputs) and (4 hidden, hidden).
        """
        for gain, weights in ((self.gain_ih, weight_ih), (self.gain_hh, weight_hh)):
            gain.copy_(by_gate(weights).norm(dim=-1))


class BatchNormedCell(Cell):
    """A cell whose two products are normalised over the batch."""

    def begin_norms(self, norm: NormKind, steps: int) -> None:
        """Make norms for both products.

        Parameters
        ----------
        norm
            "batch" for one set of statistics, or "batch_per_step".
        steps
            The number of sets with "batch_per_step"; the last is for all later steps, too.
        """
        self._per_step = norm == "batch_per_step"
        sets = steps if self._per_step else 1
        self.norm_ih = _Statistics(4 * self.hidden, sets)
        self.norm_hh = _Statistics(4 * self.hidden, sets)

    def run(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        parameters: tuple[Tensor, Tensor, Tensor],
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        weight_ih, weight_hh = self.weights(*parameters[:2])
        products = functional.linear(x, weight_ih)
        if valid is not None and bool(valid.all()):
            valid = None
        rows: list[Tensor | None] = [None] * len(x)
        if valid is not None:
            rows = [step.nonzero().squeeze(1) for step in valid.unbind(0)]
        parts = self._normalised_inputs(products, valid, rows)
        columns, rounding = weight_hh.t(), self.writes.rounding
        hiddens: list[Tensor] = []
        cells: list[Tensor] = []
        for step, part in enumerate(parts.unbind(0)):
            product = self._normalised(self.norm_hh, hidden @ columns, step, rows[step])
            i, f, g, o = (part + product + parameters[2]).split(self.hidden, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            if rounding is not None:
                hidden = rounding(hidden)
            hiddens.append(hidden)
            cells.append(cell)
        return torch.stack(hiddens), torch.stack(cells)

    def _normalised_inputs(
        self, products: Tensor, valid: Tensor | None, rows: list[Tensor | None]
    ) -> Tensor:
        if self._per_step:
            steps = (
                self._normalised(self.norm_ih, product, step, rows[step])
                for step, product in enumerate(products.unbind(0))
            )
            return torch.stack(list(steps))
        flat = products.flatten(0, 1)
        chosen = None if valid is None else valid.flatten().nonzero().squeeze(1)
        return self._normalised(self.norm_ih, flat, 0, chosen).view(products.shape)

    def _normalised(
        self, norm: _Statistics, values: Tensor, step: int, rows: Tensor | None
    ) -> Tensor:
        """Return normalised values; only those in `rows` count, and the others become 0."""
        counted = values if rows is None else values[rows]
        if self.observing:
            norm.gather(counted)
        result = norm.normalise(counted, step, training=self.training)
        if rows is None:
            return result
        return torch.zeros_like(values).index_copy(0, rows, result)

    def freezing(self) -> int:
        return _ROUNDS

    @contextmanager
    def freeze(self, weight_ih: Tensor, weight_hh: Tensor) -> Iterator[None]:
        for norm in (self.norm_ih, self.norm_hh):
            norm.begin()
        with super().freeze(weight_ih, weight_hh):
            yield
        with torch.no_grad():
            for norm in (self.norm_ih, self.norm_hh):
                norm.end()

    def batch_norms(self) -> dict[str, BatchNorm]:
        """Return the norms of the golden layer before folding, by their names there."""
        found: dict[str, BatchNorm] = {}
        for name, norm in (("input_norm", self.norm_ih), ("recurrent_norm", self.norm_hh)):
            gain, mean, variance = (
                reals_of(by_gate(each)) for each in (norm.gain, norm.mean[0], norm.variance[0])
            )
            found[name] = BatchNorm(gain, np.zeros_like(gain), mean, variance, _EPSILON)
        return found
