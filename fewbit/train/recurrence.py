"""An LSTM layer over time as one function with a backward pass of its own, in two arithmetics.

PyTorch's ``nn.LSTM`` cannot round between its steps, and a loop of tensor operations keeps some
thirty tensors a step for its gradient. The functions here keep four gates, the cells, their tanh
and the hidden values, and do the products for the weights' gradient once for all steps.

Gates are in the order i, f, g, o. `parts` are the pre-activations that the inputs and the biases
give, shape (time, batch, 4 hidden); `recurrent` are the recurrent weights, shape (4 hidden,
hidden); states have the shape (batch, hidden). Both functions return all hidden values and all
cells, shape (time, batch, hidden) each.

`float_recurrence` computes in binary32; a `rounding` of the hidden values, through which gradients
pass straight, makes it the forward pass of layers with integer activations.

`floatsd8_recurrence` rounds as `fewbit.golden.lstm.floatsd8` does, but for its sums: a row is
summed in binary32 and rounded to binary16 once, where the circuit rounds after every few products.
Gradients are those of the golden training step (`fewbit.golden.training.floatsd8_step`) with the
same difference, and with real factors where that has FloatSD8 ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fewbit.golden.training.factors import GRADIENT_BIAS
from fewbit.train.formats import GateTables, gate_tables, nearest_gradient, nearest_small_e5m2

__all__ = ["GradientFormat", "Rounding", "float_recurrence", "floatsd8_recurrence"]

Rounding = Callable[[Tensor], Tensor]
"""A function that rounds hidden values."""

_CAST_BIAS = 15
"""Exponent bias of PyTorch's e5m2."""
_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def float_recurrence(
    parts: Tensor,
    recurrent: Tensor,
    hidden: Tensor,
    cell: Tensor,
    rounding: Rounding | None = None,
) -> tuple[Tensor, Tensor]:
    """Return hidden values and cells of all steps, computed in the type of `parts`.

    Parameters
    ----------
    parts, recurrent, hidden, cell
        See the head of this module.
    rounding
        A function that the hidden values go through; None for none.
    """
    return _FloatRecurrence.apply(parts, recurrent, hidden, cell, rounding)


class _FloatRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        parts: Tensor,
        recurrent: Tensor,
        hidden: Tensor,
        cell: Tensor,
        rounding: Rounding | None,
    ) -> tuple[Tensor, Tensor]:
        time, batch, rows = parts.shape
        units = rows // 4
        gates = torch.empty_like(parts, memory_format=torch.contiguous_format)
        tanhs = parts.new_empty(time, batch, units)
        cells, hiddens = parts.new_empty(2, time + 1, batch, units).unbind(0)
        cells[0], hiddens[0] = cell, hidden
        columns = recurrent.t()
        # Tensors are cut into steps once: indexing one step at a time is slower.
        steps = zip(
            parts.unbind(0), gates.unbind(0), tanhs.unbind(0),
            cells[:-1].unbind(0), cells[1:].unbind(0),
            hiddens[:-1].unbind(0), hiddens[1:].unbind(0),
            strict=True,
        )  # fmt: skip
        for part, gate, tanh, old_cell, new_cell, old_hidden, new_hidden in steps:
            torch.addmm(part, old_hidden, columns, out=gate)
            gate[:, : 2 * units].sigmoid_()
            gate[:, 2 * units : 3 * units].tanh_()
            gate[:, 3 * units :].sigmoid_()
            i, f, g, o = gate.split(units, 1)
            torch.mul(f, old_cell, out=new_cell)
            new_cell.addcmul_(i, g)
            torch.tanh(new_cell, out=tanh)
            torch.mul(o, tanh, out=new_hidden)
            if rounding is not None:
                new_hidden.copy_(rounding(new_hidden))
        ctx.save_for_backward(gates, cells, hiddens, tanhs, recurrent)
        ctx.set_materialize_grads(False)
        return hiddens[1:], cells[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, cells, hiddens, tanhs, recurrent = ctx.saved_tensors
        time, _, units = tanhs.shape
        of_hiddens, of_cells = (_steps(gradient, time) for gradient in gradients)
        pre = torch.empty_like(gates)
        of_pre = pre.unbind(0)
        of_cell = torch.zeros_like(tanhs[0])
        steps = list(zip(gates.unbind(0), cells[:-1].unbind(0), tanhs.unbind(0), strict=True))
        for step in range(time - 1, -1, -1):
            gate, old_cell, tanh = steps[step]
            i, f, g, o = gate.split(units, 1)
            here = of_pre[step]
            of_i, of_f, of_g, of_o = here.split(units, 1)
            above, later = of_hiddens[step], of_pre[step + 1] if step + 1 < time else None
            of_hidden = _sum(above, later, recurrent, of_cell)
            gradient = of_cells[step]
            if gradient is not None:
                of_cell = of_cell + gradient
            of_cell = of_cell + _tanh_backward(of_hidden * o, tanh)
            torch.mul(of_hidden, tanh, out=of_o)
            torch.mul(of_cell, g, out=of_i)
            torch.mul(of_cell, old_cell, out=of_f)
            torch.mul(of_cell, i, out=of_g)
            two, of_two = gate[:, : 2 * units], here[:, : 2 * units]
            _sigmoid_backward.grad_input(of_two, two, grad_input=of_two)
            _sigmoid_backward.grad_input(of_o, o, grad_input=of_o)
            _tanh_backward.grad_input(of_g, g, grad_input=of_g)
            of_cell = of_cell * f
        return (
            pre,
            _weight_gradient(ctx, pre, hiddens),
            of_pre[0] @ recurrent if ctx.needs_input_grad[2] else None,
            of_cell,
            None,
        )


def _steps(gradient: Tensor | None, time: int) -> list[Tensor | None]:
    return [None] * time if gradient is None else list(gradient.unbind(0))


def _sum(above: Tensor | None, later: Tensor | None, recurrent: Tensor, like: Tensor) -> Tensor:
    """Return the gradient of a step's hidden values: from above, and from the step after."""
    if later is None:
        return torch.zeros_like(like) if above is None else above
    return later @ recurrent if above is None else torch.addmm(above, later, recurrent)


def _weight_gradient(ctx: Any, pre: Tensor, hiddens: Tensor) -> Tensor | None:
    if not ctx.needs_input_grad[1]:
        return None
    return pre.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)


@dataclass(frozen=True)
class GradientFormat:
    """The format that the gradients of activations are rounded to.

    Parameters
    ----------
    kind
        "e5m2" with the bias `GRADIENT_BIAS`, "binary16", or "binary32" for no rounding. Beyond the
        largest number there is infinity, so that an overflow of the loss scale is seen.
    """

    kind: str = "e5m2"

    @property
    def scale(self) -> float:
        """Return the factor by which gradients are kept, so that rounding them is one cast."""
        return 2.0 ** (GRADIENT_BIAS - _CAST_BIAS) if self.kind == "e5m2" else 1.0

    def nearest(self, values: Tensor) -> Tensor:
        """Return gradients times `scale`, rounded to the nearest, ties to even."""
        if self.kind == "e5m2":
            return nearest_gradient(values, _CAST_BIAS)
        return self.sum(values)

    def sum(self, values: Tensor) -> Tensor:
        """Return sums times `scale`, which are binary16 unless nothing is rounded."""
        if self.kind == "binary32":
            return values
        if self.scale == 1:
            return _half(values)
        # Without the scale, for it would move binary16's subnormal numbers.
        return _half(values * (1 / self.scale)).mul_(self.scale)


def floatsd8_recurrence(
    parts: Tensor,
    recurrent: Tensor,
    hidden: Tensor,
    cell: Tensor,
    gradient: GradientFormat,
) -> tuple[Tensor, Tensor]:
    """Return e5m2 hidden values and binary16 cells of all steps, as binary32 numbers.

    Parameters
    ----------
    parts
        See the head of this module; not rounded yet.
    recurrent
        FloatSD8 weights.
    hidden, cell
        e5m2 and binary16 numbers.
    gradient
        The format of the gradients of activations.
    """
    return _FloatSD8Recurrence.apply(parts, recurrent, hidden, cell, gradient)


def _half(values: Tensor) -> Tensor:
    return values.half().float()


class _Gates:
    """Look-ups by binary16 codes for all gates of a step at once, and for tanh of the cell."""

    def __init__(self, units: int, device: torch.device) -> None:
        tables = gate_tables(device)
        codes = len(tables.tanh)
        self._values = torch.cat([tables.sigmoid, tables.tanh])
        self._slopes = torch.cat([tables.sigmoid_slope, tables.tanh_slope])
        self._tanh, self._tanh_slope = tables.tanh, tables.tanh_slope
        # Gate g looks into the second table.
        places = torch.zeros(4, units, dtype=torch.int32)
        places[2] = codes
        self._places = places.flatten().to(device)

    def values(self, pre: Tensor) -> Tensor:
        """Return the gates' values for binary16 pre-activations, shape (batch, 4 hidden)."""
        return GateTables.look_up(self._values, _codes(pre).add_(self._places))

    def slopes(self, pre: Tensor) -> Tensor:
        """Return the derivatives of the gates' functions, shape (batch, 4 hidden)."""
        return GateTables.look_up(self._slopes, _codes(pre).add_(self._places))

    def tanh(self, cell: Tensor) -> Tensor:
        """Return tanh of binary16 cells, shape (batch, hidden)."""
        return GateTables.look_up(self._tanh, _codes(cell))

    def tanh_slope(self, cell: Tensor) -> Tensor:
        """Return the derivative of tanh at binary16 cells, shape (batch, hidden)."""
        return GateTables.look_up(self._tanh_slope, _codes(cell))


def _codes(values: Tensor) -> Tensor:
    return values.view(torch.uint16).int()


@cache
def _gates(units: int, device: torch.device) -> _Gates:
    return _Gates(units, device)


class _FloatSD8Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        parts: Tensor,
        recurrent: Tensor,
        hidden: Tensor,
        cell: Tensor,
        gradient: GradientFormat,
    ) -> tuple[Tensor, Tensor]:
        time, batch, rows = parts.shape
        units = rows // 4
        tables = _gates(units, parts.device)
        pre = parts.new_empty(time, batch, rows, dtype=torch.float16)
        gates = torch.empty_like(parts, memory_format=torch.contiguous_format)
        cells, hiddens = parts.new_empty(2, time + 1, batch, units).unbind(0)
        cells[0], hiddens[0] = cell, hidden
        tanhs = parts.new_empty(time, batch, units)
        columns = recurrent.t()
        steps = zip(
            parts.unbind(0), pre.unbind(0), gates.unbind(0), tanhs.unbind(0),
            cells[:-1].unbind(0), cells[1:].unbind(0),
            hiddens[:-1].unbind(0), hiddens[1:].unbind(0),
            strict=True,
        )  # fmt: skip
        for part, code, gate, tanh, old_cell, new_cell, old_hidden, new_hidden in steps:
            code.copy_(torch.addmm(part, old_hidden, columns))
            gate.copy_(tables.values(code))
            i, f, g, o = gate.split(units, 1)
            narrow = (_half(f * old_cell) + i * g).half()
            new_cell.copy_(narrow)
            tanh.copy_(tables.tanh(narrow))
            new_hidden.copy_(nearest_small_e5m2(_half(o * tanh)))
        ctx.save_for_backward(pre, gates, cells, hiddens, tanhs, recurrent)
        ctx.gradient = gradient
        ctx.set_materialize_grads(False)
        return hiddens[1:], cells[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        codes, gates, cells, hiddens, tanhs, recurrent = ctx.saved_tensors
        time, _, units = tanhs.shape
        tables, numbers = _gates(units, gates.device), ctx.gradient
        scale = numbers.scale
        of_hiddens, of_cells = (
            _steps(None if gradient is None else gradient * scale, time) for gradient in gradients
        )
        pre = torch.empty_like(gates)
        of_pre = pre.unbind(0)
        of_cell = torch.zeros_like(tanhs[0])
        steps = list(
            zip(
                codes.unbind(0), gates.unbind(0), cells[:-1].unbind(0), cells[1:].unbind(0),
                tanhs.unbind(0),
                strict=True,
            )
        )  # fmt: skip
        for step in range(time - 1, -1, -1):
            code, gate, old_cell, new_cell, tanh = steps[step]
            i, f, g, o = gate.split(units, 1)
            here = of_pre[step]
            of_i, of_f, of_g, of_o = here.split(units, 1)
            above, later = of_hiddens[step], of_pre[step + 1] if step + 1 < time else None
            of_hidden = numbers.nearest(numbers.sum(_sum(above, later, recurrent, of_cell)))
            gradient = of_cells[step]
            if gradient is not None:
                of_cell = of_cell + gradient
            slope = tables.tanh_slope(new_cell.half())
            of_cell = numbers.sum(of_cell + of_hidden * o * slope)
            torch.mul(of_hidden, tanh, out=of_o)
            torch.mul(of_cell, g, out=of_i)
            torch.mul(of_cell, old_cell, out=of_f)
            torch.mul(of_cell, i, out=of_g)
            here.mul_(tables.slopes(code))
            here.copy_(numbers.nearest(here))
            of_cell = numbers.sum(of_cell * f)
        of_first = of_pre[0] @ recurrent / scale if ctx.needs_input_grad[2] else None
        pre = pre.div_(scale)
        return pre, _weight_gradient(ctx, pre, hiddens), of_first, of_cell / scale, None
