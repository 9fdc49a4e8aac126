"""The quantiser of the LSTM of binary, ternary or power-of-two weights.

The rule for weights depends on the layer:

========  ============================================  =======================================
weights   of a plain layer, after its training          of one with batch norm, trained for it
========  ============================================  =======================================
ternary   `normalized_ternary`, a scale a row           `ardakani_ternary`, a scale a matrix
binary    sign, times the mean magnitude of the row     `ardakani_binary`, a scale a matrix
pow2      least squared error of the row                the same as of a plain layer
========  ============================================  =======================================

The norms are folded into one scale a row and one bias, see `fewbit.golden.quantize.batch_norm`.
Weights quantised by another rule go through `fold` and `quantize_folded`.

The integers for activations of A bits follow:

- The resolution of inputs is ``max |x| / (2^(A - 1) - 1)`` over the calibration data, rounded to
  binary32. That of hidden values is 2^-(A - 1), and that of the cell is
  ``2^ceil(log2 max |c|) / 32768``, where c is the cell of the folded layer.
- A scale has 24 significant bits, or one where `scales` is "powers_of_two". Each row of a plain
  layer, ternary ones too, then has the power of two at which its nearest levels have the least
  squared error. A layer with batch norm keeps its levels, and its folded scales are rounded to the
  nearest.
- A bias is in units of its input row's sum, rounded to the nearest, ties to even, and saturated to
  32 bits. A row whose bias would exceed 2^30 gets the scale at which it is 2^30, and levels 0 if
  the weights have a level 0: its sum would hardly change the gate.

Error of a gate's pre-activation against that of the folded layer for the same raws, in units of
2^-12, where it does not saturate: for each part the error of its scale times its sum, plus 3/4; and
for the bias half of the input row's scale, which is large where activations have few bits.

In a network, every layer is calibrated on the outputs of the folded layers before it. A layer that
reads hidden values and the network's input side by side reads both with the resolution of hidden
values.

Sources: arXiv 1809.11086 for the rules of trained weights; arXiv 1603.05279 for the scale of binary
weights, arXiv 1605.04711 for ternary ones; least squares, and all that follows, are this project's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import Raws
from fewbit.golden.checks import check_choice
from fewbit.golden.lstm.batch_norm import BatchNormLstm, run_with_cell
from fewbit.golden.lstm.float64 import Float64Lstm, Reals
from fewbit.golden.lstm.integer_variant import GATES
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.lstm.ternary import (
    HIGHEST_ACTIVATION_WIDTH,
    LOWEST_ACTIVATION_WIDTH,
    MOST_EXPONENTS,
    ScaleKind,
    TernaryLstm,
    WeightKind,
    levels_of,
)
from fewbit.golden.network import NETWORK_INPUT, Network, Node, join
from fewbit.golden.quantize.batch_norm import FoldedLstm, fix_scales, fold
from fewbit.golden.quantize.calibration import calibration_batch, real_layer
from fewbit.golden.quantize.int8 import cell_exponent
from fewbit.golden.quantize.ternary import (
    ScaledWeights,
    ardakani_binary,
    ardakani_ternary,
    normalized_ternary,
)

__all__ = [
    "MOST_EXPONENTS",
    "integers_of_folded",
    "quantize_folded",
    "quantize_lstm",
    "quantize_network",
    "quantize_rows",
]

_GATE_RESOLUTION = 2.0**-12
_SIGNIFICANT_BITS = {"any": 24, "powers_of_two": 1}
_HIGHEST_BIAS = 1 << 30
_INT32 = -(1 << 31), (1 << 31) - 1
_LEAST_SCALE, _LARGEST_SCALE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Target:
    """The options of the quantiser, checked.

    Raises
    ------
    ValueError
        If an option has a value that does not exist.
    """

    to: WeightKind
    exponents: int
    activation_width: int
    scales: ScaleKind
    activation: ActivationKind

    def __post_init__(self) -> None:
        check_choice("to", self.to, get_args(WeightKind))
        check_choice("scales", self.scales, get_args(ScaleKind))
        low, high = LOWEST_ACTIVATION_WIDTH, HIGHEST_ACTIVATION_WIDTH
        if not low <= self.activation_width <= high:
            raise ValueError(
                f"activation_width must be from {low} to {high}, not {self.activation_width}."
            )

    @property
    def hidden_resolution(self) -> float:
        return 2.0 ** (1 - self.activation_width)

    def input_resolution(self, x: Reals) -> float:
        """Return the resolution with which the largest of the reals is the largest raw."""
        largest = float(np.abs(x).max())
        if largest == 0:
            raise ValueError(
                "The calibration inputs must not all be 0, for they would have no scale."
            )
        exact = largest / ((1 << (self.activation_width - 1)) - 1)
        if not _LEAST_SCALE <= exact <= _LARGEST_SCALE:
            raise ValueError(
                "The calibration inputs must span a range that binary32 can hold, but their scale "
                f"would be {exact:.3g}; rescale the data or the model."
            )
        return float(np.float32(exact))

    def rows(self, weights: Reals, step: float) -> ScaledWeights:
        """Return the weights of a plain layer, whose operands have the resolution `step`."""
        unit = _GATE_RESOLUTION / step if self.scales == "powers_of_two" else None
        return quantize_rows(weights, self.to, self.exponents, unit)

    def trained(self, weights: Reals) -> ScaledWeights:
        """Return the weights of a layer with batch norm, which was trained for its levels."""
        if self.to == "binary":
            return ardakani_binary(weights)
        if self.to == "ternary":
            return ardakani_ternary(weights)
        return quantize_rows(weights, self.to, self.exponents)


def quantize_rows(
    weights: npt.ArrayLike,
    to: WeightKind,
    exponents: int = 1,
    unit: float | None = None,
) -> ScaledWeights:
    """Return levels and a scale for each row, by the rules of plain layers.

    The scale of a row without levels is 0, unless there is a `unit`.

    Parameters
    ----------
    weights
        Finite reals, shape (gate, unit, operand).
    to, exponents
        Kind and number of the levels, see `fewbit.golden.lstm.ternary.levels_of`.
    unit
        Number of which the scales are powers of two times it, with the least squared error; None
        for any scales.
    """
    values = np.asarray(weights, np.float64)
    magnitudes = np.abs(values)
    if to == "binary":
        levels, scale = np.where(values >= 0, 1, -1), magnitudes.mean(axis=-1)
        if unit is not None:
            # The error is a parabola of the scale, so the nearest power of two is the best.
            scale = unit * fix_scales(scale / unit, 1).reals
        return ScaledWeights(levels, scale)
    if to == "ternary" and unit is None:
        return normalized_ternary(values)
    steps = np.array(levels_of(to, exponents)[-exponents:])
    scale = _least_squares_scale(magnitudes, steps)
    if unit is not None:
        scale = _best_power(magnitudes, steps, scale, unit)
    return ScaledWeights(np.where(values < 0, -1, 1) * _nearest(magnitudes, steps, scale), scale)


def _nearest(magnitudes: Reals, steps: Raws, scale: Reals) -> Raws:
    """Return the levels nearest to magnitudes in units of their row's scale; ties go down."""
    middles = np.concatenate([[0.5], (steps[:-1] + steps[1:]) / 2])
    above = magnitudes[..., np.newaxis] > scale[..., np.newaxis, np.newaxis] * middles
    # A row whose scale is 0 has levels 0 only.
    count = np.where(scale[..., np.newaxis] > 0, above.sum(axis=-1), 0)
    return np.concatenate([[0], steps])[count]


def _least_squares_scale(magnitudes: Reals, steps: Raws) -> Reals:
    """Return the scale of each row at which the nearest levels have the least squared error.

    With levels l, the best scale is sum(l w)/sum(l^2), and it reduces the sum of squares by
    sum(l w)^2/sum(l^2). As the scale falls, levels rise one by one, each where its weight passes
    the middle between two levels. So a walk through these points tries all candidates.
    """
    lower = np.concatenate([[0], steps[:-1]])
    middles = (lower + steps) / 2
    passed = (magnitudes[..., np.newaxis] / middles).reshape(*magnitudes.shape[:-1], -1)
    order = np.argsort(-passed, axis=-1, kind="stable")

    def ordered(values: Reals) -> Reals:
        return np.take_along_axis(values.reshape(passed.shape), order, axis=-1)

    products = np.cumsum(ordered(magnitudes[..., np.newaxis] * (steps - lower)), axis=-1)
    rises = np.broadcast_to(steps**2 - lower**2, (*magnitudes.shape, len(steps)))
    squares = np.cumsum(ordered(rises.astype(np.float64)), axis=-1)
    best = np.argmax(products**2 / squares, axis=-1)[..., np.newaxis]
    return np.take_along_axis(products / squares, best, axis=-1)[..., 0]


def _best_power(magnitudes: Reals, steps: Raws, scale: Reals, unit: float) -> Reals:
    """Return the power of two near each row's scale, in units of `unit`, with the least error."""
    middle = np.frexp(np.where(scale > 0, scale / unit, 1.0))[1]
    tried = [np.ldexp(unit, middle + offset) for offset in range(-3, 3)]
    errors = [
        ((magnitudes - _nearest(magnitudes, steps, one) * one[..., np.newaxis]) ** 2).sum(axis=-1)
        for one in tried
    ]
    best = np.argmin(np.stack(errors), axis=0)[np.newaxis]
    return np.take_along_axis(np.stack(tried), best, axis=0)[0]


def quantize_lstm(
    model: Float64Lstm | BatchNormLstm,
    x: npt.NDArray[np.floating] | Sequence[npt.ArrayLike],
    lengths: npt.ArrayLike | None = None,
    *,
    to: WeightKind = "ternary",
    exponents: int | None = None,
    activation_width: int = 12,
    scales: ScaleKind = "any",
    activation: ActivationKind = "table",
) -> TernaryLstm:
    """Quantise a layer; its values on `x` decide the ranges of input and cell.

    Parameters
    ----------
    model
        The real layer: four gates, without peepholes and projection; or one with batch norm, its
        cell without.
    x
        Calibration sequences: a padded array, shape (batch, time, inputs), or a sequence of arrays
        of shape (time, inputs). Take them from the training data.
    lengths
        Number of vectors in each sequence of a padded array, shape (batch,); None for all.
    to
        "ternary", "binary" or "pow2".
    exponents
        Number of magnitudes of "pow2" weights, 1 to 4, by default 4.
    activation_width
        Bits of inputs and hidden values, 4 to 16.
    scales
        "any", or "powers_of_two", so that no multiplier is left.
    activation
        The approximation of sigmoid and tanh in the resulting layer.

    Raises
    ------
    ValueError
        If the layer is of another variant, the calibration data are empty, of a wrong shape, not
        finite or 0 throughout, or a scale is 2^30 or more.
    """
    target = _Target(to, _exponents(to, exponents), activation_width, scales, activation)
    padded, counts = calibration_batch(model.inputs, x, lengths)
    valid = valid_steps(padded, counts)
    step = target.input_resolution(padded[valid])
    return _quantised(_folded(model, target, step), padded, valid, target, step)[0]


def quantize_folded(
    folded: FoldedLstm,
    x: npt.NDArray[np.floating] | Sequence[npt.ArrayLike],
    lengths: npt.ArrayLike | None = None,
    *,
    to: WeightKind = "ternary",
    exponents: int | None = None,
    activation_width: int = 12,
    scales: ScaleKind = "any",
    activation: ActivationKind = "table",
) -> TernaryLstm:
    """Return the integers of a layer with quantised weights (by any rule) and folded norms.

    The other parameters and the errors are those of `quantize_lstm`. A level that `to` does not
    have is also an error.

    Parameters
    ----------
    folded
        The result of `fewbit.golden.quantize.batch_norm.fold`, without a norm of the cell.
    """
    target = _Target(to, _exponents(to, exponents), activation_width, scales, activation)
    padded, counts = calibration_batch(folded.inputs, x, lengths)
    valid = valid_steps(padded, counts)
    return _quantised(folded, padded, valid, target, target.input_resolution(padded[valid]))[0]


def quantize_network(
    network: Network,
    x: npt.NDArray[np.floating],
    *,
    to: WeightKind = "ternary",
    exponents: int | None = None,
    activation_width: int = 12,
    scales: ScaleKind = "any",
    activation: ActivationKind = "table",
    done: Callable[[], None] = lambda: None,
) -> Network:
    """Quantise a network layer by layer, each on the outputs of the folded layers before it.

    Parameters
    ----------
    network
        A network of real layers: four gates each, without peepholes and projection.
    x
        Calibration sequences, shape (batch, time, inputs). Take them from the training data.
    to, exponents, activation_width, scales, activation
        See `quantize_lstm`.
    done
        A function that is called after every layer.

    Raises
    ------
    ValueError
        If `quantize_lstm` would raise it for a layer, or if a layer reads hidden values and the
        network's input side by side, and the input leaves the range of hidden values.
    """
    target = _Target(to, _exponents(to, exponents), activation_width, scales, activation)
    given, counts = calibration_batch(network.inputs, x, None)
    valid = valid_steps(given, counts)
    input_resolution = _network_input_step(network, given, target)
    nodes: list[Node] = []
    outputs: list[Reals] = []
    for node in network.nodes:
        read = join(node.sources, given, outputs)
        step = input_resolution if NETWORK_INPUT in node.sources else target.hidden_resolution
        folded = _folded(real_layer(node), target, step, node.name)
        lstm, hidden = _quantised(
            folded, read[:, ::-1] if node.reverse else read, valid, target, step
        )
        nodes.append(replace(node, lstm=lstm))
        outputs.append(hidden[:, ::-1] if node.reverse else hidden)
        done()
    return Network(tuple(nodes), network.outputs)


def _exponents(to: WeightKind, exponents: int | None) -> int:
    if exponents is None:
        return MOST_EXPONENTS if to == "pow2" else 1
    if not 1 <= exponents <= (MOST_EXPONENTS if to == "pow2" else 1):
        raise ValueError(
            f"exponents must be from 1 to {MOST_EXPONENTS} for pow2, and left out for ternary and "
            f"binary, not {exponents}."
        )
    return exponents


def _network_input_step(network: Network, given: Reals, target: _Target) -> float:
    readers = [node for node in network.nodes if NETWORK_INPUT in node.sources]
    mixed = [node for node in readers if set(node.sources) != {NETWORK_INPUT}]
    if not mixed:
        return target.input_resolution(given)
    largest = float(np.abs(given).max())
    if largest > 1:
        raise ValueError(
            f"Layer {mixed[0].name!r} reads the network's input beside hidden values, which are "
            f"from -1 to 1: so must the calibration inputs be, not {largest:g} in size; rescale "
            "the model's input."
        )
    return target.hidden_resolution


def _folded(
    model: Float64Lstm | BatchNormLstm, target: _Target, step: float, name: str = ""
) -> FoldedLstm:
    """Return the layer with quantised weights, for inputs of the resolution `step`."""
    if isinstance(model, BatchNormLstm):
        weights = target.trained(model.input_weights), target.trained(model.recurrent_weights)
        return fold(model, *weights)
    lacking = {
        "peepholes": model.peephole_weights is not None,
        "projection": model.projection_weights is not None,
        "coupled input gate": len(model.gates) != len(GATES),
    }
    found = [variant for variant, present in lacking.items() if present]
    if found:
        layer = f"layer {name!r}" if name else "this layer"
        raise ValueError(
            f"A {target.to} layer must be a plain LSTM, but {layer} has {' and '.join(found)}; "
            "quantise it to int8."
        )
    plain = BatchNormLstm(model.input_weights, model.recurrent_weights, model.bias)
    return fold(
        plain,
        target.rows(model.input_weights, step),
        target.rows(model.recurrent_weights, target.hidden_resolution),
    )


def _quantised(
    folded: FoldedLstm,
    x: Reals,
    valid: npt.NDArray[np.bool_],
    target: _Target,
    step: float,
) -> tuple[TernaryLstm, Reals]:
    """Return the integers of a folded layer, and the layer's real hidden values on `x`."""
    hidden, cell = run_with_cell(folded, x)
    return _integers(folded, target, step, float(np.abs(cell[valid]).max())), hidden


def integers_of_folded(
    folded: FoldedLstm,
    input_scale: float,
    largest_cell: float,
    *,
    to: WeightKind = "ternary",
    exponents: int | None = None,
    activation_width: int = 12,
    scales: ScaleKind = "any",
    activation: ActivationKind = "table",
) -> TernaryLstm:
    """Return the integers of a layer whose ranges are known, as a trainer knows them.

    The other parameters and the errors are those of `quantize_lstm`. A level that `to` does not
    have is also an error.

    Parameters
    ----------
    folded
        The result of `fewbit.golden.quantize.batch_norm.fold`, without a norm of the cell.
    input_scale
        Resolution of the input raws, above 0.
    largest_cell
        Largest absolute value of the cell, at least 0.
    """
    target = _Target(to, _exponents(to, exponents), activation_width, scales, activation)
    return _integers(folded, target, float(np.float32(input_scale)), largest_cell)


def _integers(folded: FoldedLstm, target: _Target, step: float, largest_cell: float) -> TernaryLstm:
    """Return the integers of a folded layer for inputs of the resolution `step`."""
    if folded.cell_scales is not None:
        raise ValueError(
            f"A {target.to} layer has no norm of the cell, but the model has one; train it without."
        )
    bits = _SIGNIFICANT_BITS[target.scales]
    bias = folded.bias / _GATE_RESOLUTION
    exact = folded.input_scales * (step / _GATE_RESOLUTION)
    least = np.abs(bias) / _HIGHEST_BIAS
    input_scales = fix_scales(np.maximum(exact, least), bits)
    recurrent_scales = fix_scales(
        folded.recurrent_scales * (target.hidden_resolution / _GATE_RESOLUTION), bits
    )
    reals = input_scales.reals
    # A row with multiplier 0 has no bias; the lost bias is below a quarter of a gate raw.
    units = np.divide(bias, reals, out=np.zeros_like(bias), where=reals > 0)
    input_levels = folded.input_levels
    if target.to != "binary":
        input_levels = np.where((exact < least)[..., np.newaxis], 0, input_levels)
    return TernaryLstm(
        weights=target.to,
        input_weights=input_levels.astype(np.int8),
        recurrent_weights=folded.recurrent_levels.astype(np.int8),
        bias=np.clip(np.rint(units), *_INT32).astype(np.int32),
        input_multipliers=input_scales.multipliers,
        input_shifts=input_scales.shifts,
        recurrent_multipliers=recurrent_scales.multipliers,
        recurrent_shifts=recurrent_scales.shifts,
        input_scale=step,
        activation_width=target.activation_width,
        exponents=target.exponents,
        cell_exponent=cell_exponent(largest_cell),
        activation=target.activation,
    )
