r"""The quantiser of the integer LSTM, which is calibrated on real sequences.

The quantiser represents each tensor so:

=====================  =====  ===============================================  ===================
tensor                 bits   scale                                            zero point
=====================  =====  ===============================================  ===================
input, hidden          8      (max - min)/255 of the calibration, 0 included   from -128 to 127
o*tanh(c), projected   8      the same                                         the same, negated
weights of a gate      8      max \\|w\\|/127                                    0
projection             8      max \\|w\\|/127                                    0
peephole of a gate     16     max \\|w\\|/32767                                  0
bias of a gate         32     weight scale times input scale                   0
bias of a projection   32     weight scale times that of o*tanh(c)             0
cell                   16     2^ceil(log2 max \\|c\\|)/32768                     0
=====================  =====  ===============================================  ===================

Scales are computed in double precision and rounded once to binary32. Integers, zero points
included, are rounded to the nearest, ties to even, and then saturated. The scale of weights puts
the largest at 127 or -127, so that none becomes -128. In a network, the output of a layer and the
input of the next have the same scale and zero point. So have all outputs that are read side by
side, such as those of a bidirectional layer.

Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453,
section 3.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import Raws, Rounding, saturate
from fewbit.golden.codecs import quantize
from fewbit.golden.lstm.float64 import Float64Lstm, Reals, Trace
from fewbit.golden.lstm.int8 import HIGHEST_CELL_EXPONENT, LOWEST_CELL_EXPONENT, Int8Lstm
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.network import NETWORK_INPUT, Network, join
from fewbit.golden.quantize.calibration import calibration_batch, real_layer

__all__ = [
    "asymmetric_parameters",
    "cell_exponent",
    "quantize_layer",
    "quantize_lstm",
    "quantize_network",
]

_CODES = 1 << 8
_GATE_RESOLUTION = 2.0**-12
_INPUTS = "calibration inputs"
_HIDDEN = "hidden values of the model on the calibration data"
# The bias takes at most half of the accumulator's range and leaves the rest to the products.
_HIGHEST_BIAS = 1 << 30
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


def _scale(exact: float, name: str) -> float:
    """Round a scale to binary32, or refuse one that is no normal number there."""
    if not _SMALLEST_NORMAL <= exact <= _LARGEST:
        raise ValueError(
            f"The {name} must span a range that binary32 can hold, but its scale would be "
            f"{exact:.3g}; rescale the data or the model."
        )
    return float(np.float32(exact))


def asymmetric_parameters(low: float, high: float, name: str = "values") -> tuple[float, int]:
    """Return scale and zero point of 8-bit raws for the reals from `low` to `high`.

    The range is widened to hold 0, and the zero point rounded, so that 0 is exact.

    Parameters
    ----------
    low, high
        Extremes of the reals.
    name
        Name of the reals in the error.

    Returns
    -------
    scale
        ``(high - low)/255``, rounded to binary32.
    zero_point
        ``-128 - low/scale`` to the nearest, ties to even; from -128 to 127.

    Raises
    ------
    ValueError
        If both are 0, or binary32 cannot hold the scale.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        raise ValueError(f"The {name} must not all be 0, for they would have no scale.")
    scale = _scale((high - low) / (_CODES - 1), name)
    return scale, int(saturate(round(-_CODES / 2 - low / scale), 8))


def cell_exponent(largest: float) -> int:
    """Return the exponent of the cell's resolution: ``ceil(log2 largest) - 15``, from -15 to -9.

    A cell beyond 64 therefore saturates. So does a cell of exactly `largest` where that is a power
    of two: it becomes one raw less.

    Parameters
    ----------
    largest
        Largest absolute value of the cell, at least 0.
    """
    if not 0 <= largest < math.inf:
        raise ValueError(f"The largest cell must be finite and at least 0, not {largest}.")
    fraction, exponent = math.frexp(largest)
    # log2 of a power of two is an integer, and frexp gives its fraction as 0.5.
    ceiling = exponent - 1 if fraction == 0.5 else exponent
    if largest == 0:
        return LOWEST_CELL_EXPONENT
    return min(max(ceiling - 15, LOWEST_CELL_EXPONENT), HIGHEST_CELL_EXPONENT)


def quantize_lstm(
    model: Float64Lstm,
    x: npt.NDArray[np.floating] | Sequence[npt.ArrayLike],
    lengths: npt.ArrayLike | None = None,
    *,
    activation: ActivationKind = "table",
    rounding: Rounding = "double",
) -> Int8Lstm:
    """Quantise a layer; its values on `x` decide the ranges of input, hidden value and cell.

    The head of this module has the rules. Two cases are special: a tensor of weights that is 0
    throughout gets the scale that makes its effective multiplier 1; and a gate whose bias would
    exceed a raw of 2^30 gets the weight scale at which it is 2^30.

    Parameters
    ----------
    model
        The real layer. With peepholes and a projection, it must have as many outputs as units.
    x
        Calibration sequences: a padded array, shape (batch, time, inputs), or a sequence of arrays
        of shape (time, inputs). Take them from the training data.
    lengths
        Number of vectors in each sequence of a padded array, shape (batch,); None for all.
    activation, rounding
        The fields of the resulting layer.

    Raises
    ------
    ValueError
        If the calibration data are empty, of a wrong shape or not finite, or have no range.
    """
    padded, counts = calibration_batch(model.inputs, x, lengths)
    valid = valid_steps(padded, counts)
    traced = model.trace(padded)
    return _quantize_layer(
        model,
        _range(padded[valid], _INPUTS),
        _range(traced.hidden[valid], _HIDDEN),
        traced.product[valid],
        float(np.abs(traced.cell[valid]).max()),
        activation,
        rounding,
    )


def quantize_network(
    network: Network,
    x: npt.NDArray[np.floating],
    *,
    activation: ActivationKind = "table",
    rounding: Rounding = "double",
    done: Callable[[], None] = lambda: None,
) -> Network:
    """Quantise a network layer by layer, each on the real outputs of the layers before it.

    Parameters
    ----------
    network
        A network of real layers.
    x
        Calibration sequences, shape (batch, time, inputs). Take them from the training data.
    activation, rounding
        The fields of the resulting layers.
    done
        A function that is called after every layer.

    Raises
    ------
    ValueError
        If `quantize_lstm` would raise it for a layer.
    """
    given, _ = calibration_batch(network.inputs, x, None)
    # The extremes of the network's input and of every node's output; those that are read side by
    # side share one entry.
    shared = _Ranges(network)
    shared.include(NETWORK_INPUT, given)
    outputs: list[Reals] = []
    traces: list[Trace] = []
    for node in network.nodes:
        read = join(node.sources, given, outputs)
        traced = real_layer(node).trace(read[:, ::-1] if node.reverse else read)
        traces.append(traced)
        outputs.append(traced.hidden[:, ::-1] if node.reverse else traced.hidden)
        shared.include(len(outputs) - 1, traced.hidden)
        done()
    nodes = tuple(
        replace(
            node,
            lstm=_quantize_layer(
                real_layer(node),
                shared.quantisation(node.sources[0], _HIDDEN if node.sources[0] >= 0 else _INPUTS),
                shared.quantisation(index, _HIDDEN),
                traced.product,
                float(np.abs(traced.cell).max()),
                activation,
                rounding,
            ),
        )
        for index, (node, traced) in enumerate(zip(network.nodes, traces, strict=True))
    )
    return Network(nodes, network.outputs)


def quantize_layer(
    model: Float64Lstm,
    input_parameters: tuple[float, int],
    hidden_parameters: tuple[float, int],
    largest_cell: float,
    *,
    activation: ActivationKind = "table",
    rounding: Rounding = "double",
) -> Int8Lstm:
    """Quantise a layer whose ranges are known, as a trainer knows them.

    Parameters
    ----------
    model
        The real layer, without a projection.
    input_parameters, hidden_parameters
        Scale and zero point of the inputs and of the hidden values, from `asymmetric_parameters`.
    largest_cell
        Largest absolute value of the cell, at least 0.
    activation, rounding
        The fields of the resulting layer.

    Raises
    ------
    ValueError
        If the layer has a projection, whose input would need a range, too.
    """
    if model.projection_weights is not None:
        raise ValueError("A layer with a projection needs calibration data; use quantize_lstm.")
    return _quantize_layer(
        model,
        input_parameters,
        hidden_parameters,
        np.zeros(0),
        largest_cell,
        activation,
        rounding,
    )


class _Ranges:
    """The extremes of the network's input and of all outputs, shared by those read together."""

    def __init__(self, network: Network) -> None:
        self._leaders = {index: index for index in range(NETWORK_INPUT, len(network.nodes))}
        self._extremes: dict[int, tuple[float, float]] = {}
        for sources in (*(node.sources for node in network.nodes), network.outputs):
            for source in sources[1:]:
                first, second = self._leaders[sources[0]], self._leaders[source]
                for index, leader in self._leaders.items():
                    if leader == second:
                        self._leaders[index] = first

    def include(self, index: int, values: Reals) -> None:
        leader = self._leaders[index]
        low, high = self._extremes.get(leader, (0.0, 0.0))
        self._extremes[leader] = min(low, float(values.min())), max(high, float(values.max()))

    def quantisation(self, index: int, name: str) -> tuple[float, int]:
        return asymmetric_parameters(*self._extremes[self._leaders[index]], name)


def _quantize_layer(
    model: Float64Lstm,
    input_parameters: tuple[float, int],
    hidden_parameters: tuple[float, int],
    product: Reals,
    largest_cell: float,
    activation: ActivationKind,
    rounding: Rounding,
) -> Int8Lstm:
    """Return the layer for this scale and zero point of its input and of its hidden values."""
    input_scale, input_zero_point = input_parameters
    hidden_scale, hidden_zero_point = hidden_parameters
    gates = len(model.gates)
    input_weights, input_weight_scales = _quantize_weights(
        model.input_weights,
        8,
        _GATE_RESOLUTION / input_scale,
        np.abs(model.bias).max(axis=1) / input_scale,
    )
    recurrent_weights, recurrent_weight_scales = _quantize_weights(
        model.recurrent_weights, 8, _GATE_RESOLUTION / hidden_scale, np.zeros(gates)
    )
    bias_steps = input_weight_scales * np.float32(input_scale)
    exponent = cell_exponent(largest_cell)
    variants: dict[str, Any] = {}
    intermediate = hidden_parameters
    if model.projection_weights is not None:
        scale, zero_point = _range(
            product, "output gate times tanh of the cell on the calibration data"
        )
        # LiteRT's kernel subtracts this zero point, while it adds all others.
        intermediate = scale, int(saturate(-zero_point, 8))
        bias = np.zeros(model.outputs) if model.projection_bias is None else model.projection_bias
        weights, scales = _quantize_weights(
            model.projection_weights[np.newaxis],
            8,
            hidden_scale / intermediate[0],
            np.abs(bias).max(keepdims=True) / intermediate[0],
        )
        variants["projection_weights"] = weights[0].astype(np.int8)
        variants["projection_weight_scale"] = float(scales[0])
        if model.projection_bias is not None:
            step = float(scales[0] * np.float32(intermediate[0]))
            variants["projection_bias"] = quantize(bias, step, 0, 32).astype(np.int32)
    if model.peephole_weights is not None:
        if model.outputs != model.hidden:
            raise ValueError(
                "A layer with peepholes and a projection must have as many outputs as units, not "
                f"{model.outputs} and {model.hidden}; LiteRT applies peepholes to as many units "
                "as there are outputs."
            )
        weights, scales = _quantize_weights(
            model.peephole_weights, 16, _GATE_RESOLUTION / 2.0**exponent, np.zeros(gates - 1)
        )
        variants["peephole_weights"] = weights.astype(np.int16)
        variants["peephole_weight_scales"] = scales
    return Int8Lstm(
        input_weights=input_weights.astype(np.int8),
        recurrent_weights=recurrent_weights.astype(np.int8),
        bias=np.stack(
            [
                quantize(bias, float(step), 0, 32)
                for bias, step in zip(model.bias, bias_steps, strict=True)
            ]
        ).astype(np.int32),
        input_weight_scales=input_weight_scales,
        recurrent_weight_scales=recurrent_weight_scales,
        input_scale=input_scale,
        input_zero_point=input_zero_point,
        hidden_scale=hidden_scale,
        hidden_zero_point=hidden_zero_point,
        intermediate_scale=intermediate[0],
        intermediate_zero_point=intermediate[1],
        cell_exponent=exponent,
        activation=activation,
        rounding=rounding,
        **variants,
    )


def _range(values: Reals, name: str) -> tuple[float, int]:
    return asymmetric_parameters(float(values.min()), float(values.max()), name)


def _quantize_weights(
    weights: Reals, width: int, unit_scale: float, largest_bias: Reals
) -> tuple[Raws, npt.NDArray[np.float32]]:
    """Return raws of `width` bits, of the shape of `weights`, and a scale for each first index.

    Weights that are all 0 get the scale `unit_scale`. A scale is large enough that the largest
    bias, which `largest_bias` gives in units of the activation's scale, is at most a raw of 2^30.
    """
    raws = np.zeros(weights.shape, np.int64)
    scales = np.zeros(len(weights), np.float32)
    for gate, (tensor, bias) in enumerate(zip(weights, largest_bias, strict=True)):
        exact = float(np.abs(tensor).max()) / ((1 << (width - 1)) - 1)
        if exact < _SMALLEST_NORMAL:
            exact = unit_scale
        exact = max(exact, float(bias) / _HIGHEST_BIAS)
        scales[gate] = _scale(exact, "weights of a gate")
        raws[gate] = quantize(tensor, float(scales[gate]), 0, width)
    return raws, scales
