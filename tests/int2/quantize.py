"""From a real LSTM to the one of 2-bit weights: the largest weight of a gate is 1.5 steps."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import split_multiplier
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.network import NETWORK_INPUT, Network
from fewbit.golden.quantize.calibration import calibration_batch, real_layer
from fewbit.golden.quantize.int8 import cell_exponent

from .lstm import HIDDEN_SCALE, LEVELS, Int2Lstm

GATE_RESOLUTION = 2.0**-12


def quantize_network(
    network: Network,
    x: npt.NDArray[np.floating],
    *,
    activation: ActivationKind = "table",
    done: Callable[[], None] = lambda: None,
) -> Network:
    """Quantise a network of plain layers that read the input or hidden values."""
    given, _ = calibration_batch(network.inputs, x, None)
    input_scale = float(np.float32(np.abs(given).max() / 127))
    nodes = []
    for node in network.nodes:
        scale = input_scale if NETWORK_INPUT in node.sources else HIDDEN_SCALE
        nodes.append(replace(node, lstm=_quantized(real_layer(node), scale, activation)))
        done()
    return Network(tuple(nodes), network.outputs)


def _quantized(model: Float64Lstm, input_scale: float, activation: ActivationKind) -> Int2Lstm:
    if model.peephole_weights is not None or model.projection_weights is not None or model.coupled:
        raise ValueError("An int2 layer must be a plain LSTM; quantise this one to int8.")
    steps = (input_scale, HIDDEN_SCALE)
    weights, splits, bias = [], [], []
    for matrices, step in zip((model.input_weights, model.recurrent_weights), steps, strict=True):
        scales = np.abs(matrices).max(axis=(1, 2)) / 1.5
        levels = np.clip(np.rint(matrices / scales[:, None, None]), *LEVELS)
        weights.append(levels.astype(np.int8))
        splits.append([split_multiplier(scale * step / GATE_RESOLUTION) for scale in scales])
        bias.append(model.bias / (scales * step)[:, None])
    multipliers, shifts = np.array(splits).transpose(2, 1, 0)
    return Int2Lstm(
        weights[0],
        weights[1],
        np.rint(bias[0]).astype(np.int32),
        multipliers.astype(np.int32),
        shifts.astype(np.int8),
        input_scale,
        cell_exponent(8.0),
        activation,
    )
