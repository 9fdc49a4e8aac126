"""The quantiser of the FloatSD8 LSTM: a bias, that is a power-of-two scale, for each tensor.

=================  ========  ========================================================
tensor             format    bias
=================  ========  ========================================================
input weights      FloatSD8  least squared error of the tensor, all gates together
recurrent weights  FloatSD8  the same
input              e5m2      least squared error of the calibration data
hidden             e5m2      15
bias of a gate     binary16  15
=================  ========  ========================================================

The quantiser tries every bias from -64 to 64. A circuit requires that the bias of weights and that
of their activations sum to 19 to 50. Among the pairs of biases that fit, the quantiser takes the
pair with the least sum of squared errors, where the error of each tensor is relative to its sum of
squares. Among equal ones it takes the bias nearest to the format's usual bias, which is 10 for
weights and 15 for inputs.

In a network, hidden values have bias 15. If a node reads hidden values and the network's input side
by side, the input therefore has bias 15, too, in all nodes that read it.

Source: arXiv 2001.08450 for the formats; the choice of the biases is this project's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.formats import BINARY16, E5M2, FLOATSD8, FloatSD8, Minifloat
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.floatsd8 import (
    GATES,
    HIDDEN_FORMAT,
    HIGHEST_BIAS,
    HIGHEST_CONSTANT_BIAS,
    LOWEST_BIAS,
    LOWEST_CONSTANT_BIAS,
    FloatSD8Lstm,
)
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.network import NETWORK_INPUT, Network
from fewbit.golden.quantize.calibration import calibration_batch, real_layer

__all__ = ["input_bias", "quantize_lstm", "quantize_network", "relative_errors", "weight_bias"]

_BIASES = range(LOWEST_BIAS, HIGHEST_BIAS + 1)
Errors = dict[int, float]


def relative_errors(number_format: FloatSD8 | Minifloat, values: npt.ArrayLike) -> Errors:
    """Return the relative squared error of reals in a format, for each bias from -64 to 64.

    Parameters
    ----------
    number_format
        FloatSD8 or e5m2 with any bias.
    values
        Finite reals, any shape.

    Returns
    -------
    Sum of squared errors over sum of squares; 0 where all reals are 0.
    """
    # In sorted order, the reals that round to one value are neighbours. So each bias takes 64
    # operations instead of one for each real. Scaling to at most 1 avoids overflow of squares.
    reals = np.sort(np.abs(np.asarray(values, np.float64)), axis=None)
    scale = int(np.frexp(reals[-1])[1])
    reals = np.ldexp(reals, -scale)
    total = float((reals**2).sum())
    grid = number_format.values
    grid = np.ldexp(grid[grid >= 0], number_format.bias - scale)
    errors: Errors = {}
    for bias in _BIASES:
        table = np.ldexp(grid, -bias)
        edges = np.searchsorted(reals, (table[:-1] + table[1:]) / 2)
        counts = np.diff(np.concatenate(([0], edges, [reals.size])))
        difference = reals - np.repeat(table, counts)
        errors[bias] = float((difference**2).sum()) / total if total else 0.0
    return errors


def quantize_lstm(
    model: Float64Lstm,
    x: npt.NDArray[np.floating] | Sequence[npt.ArrayLike],
    lengths: npt.ArrayLike | None = None,
    *,
    products: int = 4,
    window: int | None = DEFAULT_WINDOW,
) -> FloatSD8Lstm:
    """Quantise a layer; `x` decides the bias of its input.

    Parameters
    ----------
    model
        The real layer: four gates, without peepholes and projection.
    x
        Calibration sequences: a padded array, shape (batch, time, inputs), or a sequence of arrays
        of shape (time, inputs). Take them from the training data.
    lengths
        Number of vectors in each sequence of a padded array, shape (batch,); None for all.
    products, window
        The fields of the resulting layer.

    Raises
    ------
    ValueError
        If the layer is of another variant, the calibration data are empty, of a wrong shape or not
        finite, or no two biases fit together.
    """
    padded, counts = calibration_batch(model.inputs, x, lengths)
    valid = valid_steps(padded, counts)
    tensors = _Tensors.of(model)
    input_bias = _input_bias(relative_errors(E5M2, padded[valid]), [tensors])
    return tensors.quantised(input_bias, products, window)


def quantize_network(
    network: Network,
    x: npt.NDArray[np.floating],
    *,
    products: int = 4,
    window: int | None = DEFAULT_WINDOW,
    done: Callable[[], None] = lambda: None,
) -> Network:
    """Quantise a network layer by layer.

    Parameters
    ----------
    network
        A network of real layers: four gates each, without peepholes and projection.
    x
        Calibration sequences, shape (batch, time, inputs). Take them from the training data.
    products, window
        The fields of the resulting layers.
    done
        A function that is called after every layer.

    Raises
    ------
    ValueError
        If `quantize_lstm` would raise it for a layer.
    """
    given, _ = calibration_batch(network.inputs, x, None)
    layers: list[_Tensors] = []
    for node in network.nodes:
        layers.append(_Tensors.of(real_layer(node), node.name))
        done()
    readers = [
        (set(node.sources), tensors)
        for node, tensors in zip(network.nodes, layers, strict=True)
        if NETWORK_INPUT in node.sources
    ]
    if all(sources == {NETWORK_INPUT} for sources, _ in readers):
        errors = relative_errors(E5M2, given)
        input_bias = _input_bias(errors, [tensors for _, tensors in readers])
    else:
        input_bias = HIDDEN_FORMAT.bias
    nodes = tuple(
        replace(
            node,
            lstm=tensors.quantised(
                input_bias if NETWORK_INPUT in node.sources else HIDDEN_FORMAT.bias,
                products,
                window,
            ),
        )
        for node, tensors in zip(network.nodes, layers, strict=True)
    )
    return Network(nodes, network.outputs)


@dataclass(frozen=True, eq=False)
class _Tensors:
    """A real layer, and the errors of its two weight tensors by bias."""

    model: Float64Lstm
    input_errors: Errors
    recurrent_errors: Errors

    @classmethod
    def of(cls, model: Float64Lstm, name: str = "") -> "_Tensors":
        lacking = {
            "peepholes": model.peephole_weights is not None,
            "projection": model.projection_weights is not None,
            "coupled input gate": len(model.gates) != len(GATES),
        }
        found = [variant for variant, present in lacking.items() if present]
        if found:
            layer = f"layer {name!r}" if name else "this layer"
            raise ValueError(
                f"A FloatSD8 layer must be a plain LSTM, but {layer} has {' and '.join(found)}; "
                "quantise it to int8."
            )
        return cls(
            model,
            relative_errors(FLOATSD8, model.input_weights),
            relative_errors(FLOATSD8, model.recurrent_weights),
        )

    def quantised(self, input_bias: int, products: int, window: int | None) -> FloatSD8Lstm:
        """Return the quantised layer for inputs of this bias."""
        input_weight_bias = _weight_bias(self.input_errors, input_bias)
        recurrent_weight_bias = _weight_bias(self.recurrent_errors, HIDDEN_FORMAT.bias)
        return FloatSD8Lstm(
            FloatSD8(input_weight_bias).encode(self.model.input_weights),
            FloatSD8(recurrent_weight_bias).encode(self.model.recurrent_weights),
            BINARY16.encode(self.model.bias),
            input_weight_bias,
            recurrent_weight_bias,
            input_bias,
            products,
            window,
        )


def weight_bias(weights: npt.ArrayLike, activation_bias: int = HIDDEN_FORMAT.bias) -> int:
    """Return the bias at which a tensor of weights has the least squared error.

    Parameters
    ----------
    weights
        Finite reals, any shape.
    activation_bias
        Bias of the e5m2 numbers that the weights are multiplied by; a circuit limits the sum of
        both.
    """
    return _weight_bias(relative_errors(FLOATSD8, weights), activation_bias)


def input_bias(x: npt.ArrayLike) -> int:
    """Return the bias of e5m2 inputs at which they have the least squared error.

    Parameters
    ----------
    x
        Finite reals, any shape.
    """
    return _input_bias(relative_errors(E5M2, x), [])


def _weight_bias(errors: Errors, activation_bias: int) -> int:
    """Return the least erring bias among those that a circuit allows with `activation_bias`."""
    fitting = [
        bias
        for bias in errors
        if LOWEST_CONSTANT_BIAS <= bias + activation_bias <= HIGHEST_CONSTANT_BIAS
    ]
    return min(fitting, key=lambda bias: (errors[bias], abs(bias - FLOATSD8.bias)))


def _input_bias(errors: Errors, readers: Sequence[_Tensors]) -> int:
    """Return the input's bias with the least error, to which the weights' errors are added."""

    def cost(bias: int) -> tuple[float, int]:
        weights = sum(
            layer.input_errors[_weight_bias(layer.input_errors, bias)] for layer in readers
        )
        return errors[bias] + weights, abs(bias - E5M2.bias)

    possible = [
        bias
        for bias in errors
        if LOWEST_CONSTANT_BIAS - HIGHEST_BIAS <= bias <= HIGHEST_CONSTANT_BIAS - LOWEST_BIAS
    ]
    return min(possible, key=cost)
