"""A training step of a FloatSD8 LSTM layer: forward, backward through time, and weight update.

Three rules define it. What leaves a unit is an e5m2 gradient: dh, the gradient of a hidden value,
and d, that of a pre-activation. Inside a unit, numbers are binary16, and are multiplied as the four
gradients, *pieces*, whose sum they are. What multiplies a gradient is FloatSD8
(`fewbit.golden.training.factors`), and every sum is S(start; products) of
`fewbit.golden.lstm.floatsd8`, so that one `floatsd8_mac` can compute a whole step.

Below, G is the rounding of a binary16 sum to the nearest gradient. F * n is S(0; the factor F times
the pieces of n). A gate is q or, where p is 1, 1 - q; then it is S(n; -q times the pieces of n).
Per time step t, last to first, with the pre-activations, gates and cells of the forward pass:

1. dh = G(S(dL/dh_t; the columns of the recurrent weights times d of step t + 1)), in groups of
   `products`, gates i, f, g, o in turn, the units of a gate in order.
2. dc = S(carry; tanh'(c) times the pieces of o * dh). The carry of the last step is 0.
3. d_i = G(sigmoid'(i) * (g * dc)), d_f = G(sigmoid'(f) * (old cell * dc)),
   d_g = G(tanh'(g) * (i * dc)) and d_o = G(sigmoid'(o) * (tanh(c) * dh)).
4. The carry of step t - 1 is f * dc.
5. The gradient of the input is S(0; the columns of the input weights times d), binary16: it is
   dL/dh of the layer below, if its inputs are that layer's hidden values.
6. To the gradient of a weight, products of its factor (input or old hidden value) and d are added,
   the batch in order, in groups of `products`; a bias has the factor 1. See `TrainingOptions` for
   the accumulator.

At the end each gradient of a weight or bias is rounded to e5m2, saturated. A binary16 master copy
becomes S(master; factor times gradient), where the factor is the FloatSD8 number nearest to minus
the learning rate over the loss scale. The new weights are the FloatSD8 numbers nearest to the
masters; a bias is its own master.

Source: arXiv 2001.08450 for the formats, the master copy and the scaled loss; e5m2 gradients with
bias 24, which do not saturate, and gradients of weights, which do, after its group's published
code. Factors, order of sums and all roundings are this project's, as the paper publishes none.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.floatsd8 import (
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.checks import check_shape
from fewbit.golden.formats import BINARY16
from fewbit.golden.lstm.floatsd8 import (
    GATES,
    FloatSD8Lstm,
    pre_activations,
    update_unit,
)
from fewbit.golden.training.factors import (
    HIDDEN_FACTOR_FORMAT,
    SIGMOID_SLOPE_FORMAT,
    TANH_SLOPE_FORMAT,
    cell_factor,
    exceed_pieces,
    has_overflowed,
    hidden_factor,
    input_factor,
    nearest_gradient,
    pieces_of,
    saturated_gradient,
    sigmoid_slope,
    tanh_slope,
    widened,
)
from fewbit.golden.training.masters import LayerArrays, check_masters, layer_of
from fewbit.golden.training.options import Accumulation, TrainingOptions
from fewbit.golden.training.sums import LARGEST_SUM, Record, SumUnit

__all__ = [
    "KINDS",
    "TrainingStep",
    "sums_of_a_step",
    "training_step",
]

Codes = npt.NDArray[np.int64]
GradientOfHidden = Callable[[Codes], npt.ArrayLike]

KINDS = ("hidden", "gates", "cell", "carry", "input", "weights", "update")
"""Places of the sums in a step: the items 1, 2 and 3, 2, 4, 5 and 6, then the update."""


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """The results of a training step, all numbers as codes.

    Parameters
    ----------
    overflow
        Whether dh or d had exponent 31, a number could not be split into pieces, or a sum before
        the update was ±65504: the loss scale is too large. There is no update then.
    hidden, cell
        e5m2 and binary16 codes of the forward pass, shape (batch, time, hidden).
    pre_activation_gradients
        Gradients d, shape (batch, time, 4, hidden), gates in the order i, f, g, o.
    input_gradients
        binary16 codes, shape (batch, time, inputs).
    first_hidden_gradients, first_cell_gradients
        Gradients of the state before the first step, binary16 codes, shape (batch, hidden).
    sums
        The accumulators of the gradients of weights and biases, binary16.
    gradients
        These sums rounded to e5m2.
    masters
        The new master copy, binary16; the old one after an overflow.
    layer
        The new layer; the old one after an overflow.
    """

    overflow: bool
    hidden: Codes
    cell: Codes
    pre_activation_gradients: Codes
    input_gradients: Codes
    first_hidden_gradients: Codes
    first_cell_gradients: Codes
    sums: LayerArrays
    gradients: LayerArrays
    masters: LayerArrays
    layer: FloatSD8Lstm


def training_step(
    layer: FloatSD8Lstm,
    masters: LayerArrays,
    x: npt.ArrayLike,
    gradient_of_hidden: npt.ArrayLike | GradientOfHidden,
    options: TrainingOptions | None = None,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
    record: Record | None = None,
) -> TrainingStep:
    """Compute one training step of a layer on a batch of sequences of one length.

    Parameters
    ----------
    layer
        The layer, whose weights are the nearest to `masters`.
    masters
        The master copy, binary16 codes.
    x
        Input codes, shape (batch, time, inputs).
    gradient_of_hidden
        dL/dh times the loss scale, binary16 codes of shape (batch, time, hidden), or a function
        that returns them for the hidden codes of the same shape. Infinities and NaN are taken as
        overflow.
    options
        The choices of the step; None for the defaults.
    hidden, cell
        Codes before the first time step, shape (batch, hidden) each; None for the state at reset.
    record
        A function that takes the sums of the backward pass and the update as they are computed,
        with a kind of `KINDS`; None for none.

    Raises
    ------
    ValueError
        If a shape or code is wrong, there is no time step, the weights are not the nearest to the
        masters, or a sum of two biases is outside 19 to 50, the range of a circuit.
    """
    chosen = options or TrainingOptions()
    chosen.check_layer(layer)
    check_masters(layer, masters)
    inputs = np.asarray(x)
    check_shape(inputs, "x", (-1, -1, layer.inputs))
    if not inputs.size:
        raise ValueError(f"x must have at least one sequence of one time step, not {inputs.shape}.")
    forward = _Forward.of(layer, inputs, hidden, cell)
    given = BINARY16.check(
        gradient_of_hidden(forward.hidden) if callable(gradient_of_hidden) else gradient_of_hidden
    )
    check_shape(given, "gradient_of_hidden", forward.hidden.shape)
    backward = _Backward(layer, chosen, forward, SumUnit(layer.products, layer.window, record))
    return backward.run(given, masters)


def sums_of_a_step(
    layer: FloatSD8Lstm, batch: int, time: int, accumulation: Accumulation = "by_step"
) -> Mapping[str, int]:
    """Return the number of sums in the backward pass and the update, by kind."""
    h, k, n = layer.hidden, layer.inputs, layer.products
    rows = math.ceil(4 * h / n)
    constants = 4 * h * (k + h + 1)
    groups = math.ceil(batch / n) + (accumulation == "by_step")
    return {
        "hidden": time * batch * h * rows,
        "gates": time * batch * h * 9,
        "cell": time * batch * h,
        "carry": time * batch * h,
        "input": time * batch * k * rows,
        "weights": time * constants * groups,
        "update": constants,
    }


@dataclass(frozen=True, eq=False)
class _Forward:
    """The codes of a forward pass; states before and after every step, (batch, time + 1, ...)."""

    x: Codes
    pre: Codes
    """Pre-activations, shape (batch, time, hidden, 4)."""
    hiddens: Codes
    cells: Codes

    @classmethod
    def of(
        cls,
        layer: FloatSD8Lstm,
        x: npt.NDArray[np.int64],
        hidden: npt.ArrayLike | None,
        cell: npt.ArrayLike | None,
    ) -> Self:
        batch, time, _ = x.shape
        codes = layer.input_format.check(x)
        state = layer.reset_state(batch)
        old_hidden = state[0] if hidden is None else HIDDEN_FORMAT.check(hidden)
        old_cell = state[1] if cell is None else BINARY16.check(cell)
        for name, array in (("hidden", old_hidden), ("cell", old_cell)):
            check_shape(array, name, (batch, layer.hidden))
        pre = np.zeros((batch, time, layer.hidden, len(GATES)), np.int64)
        hiddens, cells = np.zeros((2, batch, time + 1, layer.hidden), np.int64)
        hiddens[:, 0], cells[:, 0] = old_hidden, old_cell
        for t in range(time):
            pre[:, t] = pre_activations(layer, codes[:, t], hiddens[:, t])
            hiddens[:, t + 1], cells[:, t + 1] = update_unit(pre[:, t], cells[:, t], layer.window)
        return cls(codes, pre, hiddens, cells)

    @property
    def hidden(self) -> Codes:
        return self.hiddens[:, 1:]


class _Backward:
    """A backward pass; every array of gradients has the batch first."""

    def __init__(
        self, layer: FloatSD8Lstm, options: TrainingOptions, forward: _Forward, unit: SumUnit
    ) -> None:
        self.layer, self.options, self.forward, self.unit = layer, options, forward, unit
        self.has_overflowed = False
        # Rows of the transposed weights, gates in turn and the units of a gate in order.
        self.recurrent_columns = layer.recurrent_weights.reshape(-1, layer.hidden).T
        self.input_columns = layer.input_weights.reshape(-1, layer.inputs).T
        self.accumulators = [
            np.zeros(array.shape, np.int64)
            for array in (layer.input_weights, layer.recurrent_weights, layer.bias)
        ]

    def run(self, gradient_of_hidden: Codes, masters: LayerArrays) -> TrainingStep:
        layer, forward = self.layer, self.forward
        batch, time, hidden = gradient_of_hidden.shape
        from_above = self._finite(gradient_of_hidden)
        gradients = np.zeros((batch, time, len(GATES), hidden), np.int64)
        of_input = np.zeros((batch, time, layer.inputs), np.int64)
        of_hidden, carry = from_above[:, -1], np.zeros((batch, hidden), np.int64)
        for t in range(time - 1, -1, -1):
            gradients[:, t], carry = self._units(t, of_hidden, carry)
            later = gradients[:, t].reshape(batch, 1, -1)
            of_input[:, t] = self._add(
                "input",
                np.zeros((batch, layer.inputs), np.int64),
                self.input_columns,
                later,
                layer.input_weight_bias,
            )
            above = from_above[:, t - 1] if t else np.zeros((batch, hidden), np.int64)
            of_hidden = self._add(
                "hidden", above, self.recurrent_columns, later, layer.recurrent_weight_bias
            )
            self._accumulate(t, gradients[:, t])
        sums = LayerArrays(*self.accumulators)
        narrow = LayerArrays(
            *(saturated_gradient(array, self.options.gradient_bias) for array in sums.arrays)
        )
        overflow = self.has_overflowed or self.unit.has_saturated
        new_masters = masters if overflow else self._updated(masters, narrow)
        return TrainingStep(
            overflow=overflow,
            hidden=forward.hidden,
            cell=forward.cells[:, 1:],
            pre_activation_gradients=gradients,
            input_gradients=of_input,
            first_hidden_gradients=of_hidden,
            first_cell_gradients=carry,
            sums=sums,
            gradients=narrow,
            masters=new_masters,
            layer=layer if overflow else layer_of(new_masters, layer),
        )

    def _add(self, kind: str, start: Codes, factors: Codes, gradients: Codes, bias: int) -> Codes:
        """Return S(start; factors times gradients), where `bias` is that of the factors."""
        return self.unit.add(kind, start, factors, gradients, bias + self.options.gradient_bias)

    def _finite(self, gradients: Codes) -> Codes:
        """Return binary16 codes with the largest number in place of infinities and NaN."""
        beyond = gradients & 0x7FFF >= LARGEST_SUM
        self.has_overflowed |= bool(beyond.any())
        return np.where(beyond, gradients & 0x8000 | LARGEST_SUM, gradients)

    def _nearest(self, sums: Codes) -> Codes:
        """Return G of binary16 codes, noting an overflow."""
        gradients = nearest_gradient(sums, self.options.gradient_bias)
        self.has_overflowed |= bool(has_overflowed(gradients).any())
        return gradients

    def _pieces(self, numbers: Codes) -> Codes:
        """Return the pieces of binary16 codes, noting numbers that have none."""
        bias = self.options.gradient_bias
        self.has_overflowed |= bool(exceed_pieces(numbers, bias).any())
        return pieces_of(numbers, bias)

    def _times(self, factors: Codes, bias: int, numbers: Codes) -> Codes:
        """Return factors times binary16 numbers, of the same shape."""
        pieces = self._pieces(numbers)
        return self._add("gates", np.zeros_like(numbers), factors[..., np.newaxis], pieces, bias)

    def _gated(self, kind: str, gate: tuple[Codes, Codes], numbers: Codes) -> Codes:
        """Return gates times binary16 numbers, of the same shape."""
        q, positive = gate
        pieces = self._pieces(numbers)
        # The sign of -q is given to the pieces; a piece of zero stays code 0.
        signed = np.where(pieces == 0, 0, pieces ^ (positive << 7)[..., np.newaxis])
        start = np.where(positive, numbers, 0)
        return self._add(kind, start, q[..., np.newaxis], signed, GATE_FORMAT.bias)

    def _units(self, t: int, of_hidden: Codes, carry: Codes) -> tuple[Codes, Codes]:
        """Return d of a time step, shape (batch, 4, hidden), and the carry of the step before."""
        pre, old_cell = self.forward.pre[:, t], self.forward.cells[:, t]
        new_cell = self.forward.cells[:, t + 1]
        i, f, o = (sigmoid_floatsd8(pre[..., gate]) for gate in (0, 1, 3))
        slope_i, slope_f, slope_o = (sigmoid_slope(pre[..., gate]) for gate in (0, 1, 3))
        cell_bias = self.options.cell_factor_bias
        hidden_bias, slope_bias = HIDDEN_FACTOR_FORMAT.bias, SIGMOID_SLOPE_FORMAT.bias
        # A gradient is a binary16 number, too.
        dh = widened(self._nearest(of_hidden), self.options.gradient_bias)
        dc = self._add(
            "cell",
            carry,
            tanh_slope(new_cell)[..., np.newaxis],
            self._pieces(self._gated("gates", o, dh)),
            TANH_SLOPE_FORMAT.bias,
        )
        from_g = self._times(hidden_factor(tanh_e5m2(pre[..., 2])), hidden_bias, dc)
        from_cell = self._times(cell_factor(old_cell, cell_bias), cell_bias, dc)
        from_tanh = self._times(hidden_factor(tanh_e5m2(new_cell)), hidden_bias, dh)
        from_i = self._gated("gates", i, dc)
        wide = (
            self._times(slope_i, slope_bias, from_g),
            self._times(slope_f, slope_bias, from_cell),
            self._times(tanh_slope(pre[..., 2]), TANH_SLOPE_FORMAT.bias, from_i),
            self._times(slope_o, slope_bias, from_tanh),
        )
        return self._nearest(np.stack(wide, axis=1)), self._gated("carry", f, dc)

    def _accumulate(self, t: int, gradients: Codes) -> None:
        """Add the products of a time step to the gradients of weights and biases."""
        forward, layer = self.forward, self.layer
        input_bias = self.options.input_factor_bias
        batch = len(gradients)
        one = np.full((batch, 1), int(HIDDEN_FACTOR_FORMAT.encode(1.0)), np.int64)
        factors = (
            (input_factor(forward.x[:, t], layer.input_bias, input_bias), input_bias),
            (hidden_factor(forward.hiddens[:, t]), HIDDEN_FACTOR_FORMAT.bias),
            (one, HIDDEN_FACTOR_FORMAT.bias),
        )
        # The batch is the last axis, along which products are added.
        columns = np.moveaxis(gradients, 0, -1)[:, :, np.newaxis]
        for place, (factor, bias) in enumerate(factors):
            old = self.accumulators[place]
            shaped = old.reshape(*old.shape[:2], -1)
            if self.options.accumulation == "chained":
                new = self._add("weights", shaped, factor.T, columns, bias)
            else:
                part = self._add("weights", np.zeros_like(shaped), factor.T, columns, bias)
                new = self._merged(shaped, part)
            self.accumulators[place] = new.reshape(old.shape)

    def _merged(self, accumulator: Codes, part: Codes) -> Codes:
        """Return S(accumulator; 1 times the pieces of a part)."""
        one = np.array([int(HIDDEN_FACTOR_FORMAT.encode(1.0))], np.int64)
        return self._add("weights", accumulator, one, self._pieces(part), HIDDEN_FACTOR_FORMAT.bias)

    def _updated(self, masters: LayerArrays, gradients: LayerArrays) -> LayerArrays:
        factor, bias = self.options.update_factor
        return LayerArrays(
            *(
                self._add(
                    "update",
                    BINARY16.check(master),
                    np.array([factor]),
                    gradient[..., np.newaxis],
                    bias,
                )
                for master, gradient in zip(masters.arrays, gradients.arrays, strict=True)
            )
        )
