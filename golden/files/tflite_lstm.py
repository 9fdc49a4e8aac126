"""Reader of one operator ``UNIDIRECTIONAL_SEQUENCE_LSTM`` in a TensorFlow Lite file.

Source: LiteRT's kernel, for what its inputs mean and which of them go together.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import Rounding
from fewbit.golden.files.flatbuffer import Table
from fewbit.golden.files.tflite_file import Operator, Parameters, Tensor, TfliteFile
from fewbit.golden.lstm.int8 import (
    HIGHEST_CELL_EXPONENT,
    LOWEST_CELL_EXPONENT,
    Int8Lstm,
    clip_code,
    litert_peephole_ties_up,
)

__all__ = ["is_time_major", "read_lstm"]

_OPTIONS_TYPE = 71
_OPTIONS = {"cell_clip": 6, "projection_clip": 8, "time_major": 10, "diagonal": 14}

# Inputs of the operator by index; each list of gates is in the order i, f, g, o.
_GATES = "ifgo"
_INPUT, _INPUT_WEIGHTS, _RECURRENT_WEIGHTS, _BIASES, _NORM_WEIGHTS = 0, 1, 5, 12, 20
_PEEPHOLES = {"i": 9, "f": 10, "o": 11}
_PROJECTION_WEIGHTS, _PROJECTION_BIAS, _HIDDEN_STATE, _CELL_STATE = 16, 17, 18, 19
_INPUT_COUNTS = (20, 24)
_INTERMEDIATES = 5
_OLDER_INTERMEDIATES = 12
_ABSENT = -1
# LiteRT's limit for the distance of a cell scale's binary logarithm from a whole number.
_LOGARITHM_TOLERANCE = np.float32(1e-3)


def _options(operator: Operator, what: str) -> Table:
    options = operator.options(_OPTIONS_TYPE)
    if options is None or len(operator.inputs) not in _INPUT_COUNTS or len(operator.outputs) != 1:
        raise ValueError(f"{what} must have 20 or 24 inputs, one output, and an LSTM's options")
    return options


def is_time_major(operator: Operator, what: str) -> bool:
    """Return whether axis 0 of the operator's input is time and axis 1 the batch.

    Otherwise axis 0 is the batch and axis 1 is time.
    """
    return bool(_options(operator, what).number(_OPTIONS["time_major"], "bool", False))


@dataclass(frozen=True)
class _Inputs:
    """The inputs of one operator, by their index there."""

    file: TfliteFile
    what: str
    tensors: dict[int, Tensor]

    def quantisation(self, index: int, name: str, kind: str) -> Parameters:
        """Return the scale and zero point of an input that must be of `kind`."""
        tensor, shown = self.tensors[index], f"the {name} of {self.what}"
        if tensor.type != kind:
            raise ValueError(f"{shown} must be {kind}, not {tensor.type}")
        return self.file.quantisation(tensor, shown)

    def scale(self, index: int, name: str, kind: str) -> float:
        """Return the scale of an input whose zero point must be 0."""
        scale, zero_point = self.quantisation(index, name, kind)
        if zero_point:
            raise ValueError(f"the {name} of {self.what} must have zero point 0, not {zero_point}")
        return scale

    def data(self, index: int, name: str, kind: str, axes: int) -> npt.NDArray[Any]:
        """Return the constant data of an input that must be of `kind` and have `axes` axes."""
        tensor, shown = self.tensors[index], f"the {name} of {self.what}"
        if tensor.type != kind or len(tensor.shape) != axes:
            raise ValueError(
                f"{shown} must be {kind} with {axes} axes, not {tensor.type} of shape "
                f"{tensor.shape}"
            )
        return self.file.data(tensor, shown)

    def stack(
        self, indices: list[int], name: str, kind: str, axes: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """Return the stacked data of several inputs of equal shape, and their scales."""
        scales = np.array([self.scale(index, name, kind) for index in indices], np.float32)
        return self.stacked_data(indices, name, kind, axes), scales

    def stacked_data(self, indices: list[int], name: str, kind: str, axes: int) -> npt.NDArray[Any]:
        """Return the stacked data of several inputs of equal shape, whatever their scales."""
        arrays = [self.data(index, name, kind, axes) for index in indices]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            raise ValueError(
                f"the {name} of {self.what} must have one shape, not {shapes[0]} and {shapes[1]}"
            )
        return np.stack(arrays)


def read_lstm(
    file: TfliteFile,
    operator: Operator,
    what: str,
    activation: ActivationKind,
    rounding: Rounding,
) -> tuple[Int8Lstm, list[str]]:
    """Return the layer of an operator, and sentences that warn of its peculiarities.

    Parameters
    ----------
    file, operator
        The file, and the operator in it.
    what
        Name of the operator in errors and warnings.
    activation, rounding
        The fields of the resulting layer.

    Raises
    ------
    ValueError
        If the operator is damaged, or LiteRT would not run it on integers alone.
    """
    options = _options(operator, what)
    if options.number(_OPTIONS["diagonal"], "bool", False):
        raise ValueError(f"{what} must have full recurrent weights, not diagonal ones")
    tensors = {
        index: file.tensor(tensor)
        for index, tensor in enumerate(operator.inputs)
        if tensor != _ABSENT
    }
    gates = _check_presence(what, tensors)
    _check_integer(what, tensors)
    inputs = _Inputs(file, what, tensors)
    places = [_GATES.index(gate) for gate in gates]
    norm = _NORM_WEIGHTS + places[0] in tensors
    intermediates = _intermediates(file, operator, what, places if norm else [])
    output = file.tensor(operator.outputs[0])
    if output.type != "int8":
        raise ValueError(f"the output of {what} must be int8, not {output.type}")
    output_quantisation = file.quantisation(output, f"the output of {what}")
    hidden = inputs.quantisation(_HIDDEN_STATE, "hidden state", "int8")
    fields = _projection(inputs, options, output_quantisation[0])
    warnings = _differences(
        what, None if fields else intermediates[-1], hidden, output_quantisation
    )
    if _PEEPHOLES["f"] in tensors:
        fields["peephole_weights"], fields["peephole_weight_scales"] = inputs.stack(
            [_PEEPHOLES[gate] for gate in gates if gate != "g"], "peephole weights", "int16", 1
        )
    if norm:
        fields["norm_weights"], fields["norm_weight_scales"] = inputs.stack(
            [_NORM_WEIGHTS + place for place in places], "layer-norm weights", "int16", 1
        )
        fields["norm_scales"] = np.array([intermediates[place][0] for place in places], np.float32)
    for start, name in ((_INPUT_WEIGHTS, "input"), (_RECURRENT_WEIGHTS, "recurrent")):
        fields[f"{name}_weights"], fields[f"{name}_weight_scales"] = inputs.stack(
            [start + place for place in places], f"{name} weights", "int8", 2
        )
    fields["input_scale"], fields["input_zero_point"] = inputs.quantisation(_INPUT, "input", "int8")
    fields["hidden_scale"], fields["hidden_zero_point"] = hidden
    fields["intermediate_scale"], fields["intermediate_zero_point"] = intermediates[-1]
    if "peephole_weights" in fields:
        outputs = fields["recurrent_weights"].shape[2]
        fields["peephole_ties_up"] = litert_peephole_ties_up(outputs)
    # The kernel ignores the scale of the bias and multiplies the two scales itself.
    fields["bias"] = inputs.stacked_data(
        [_BIASES + place for place in places], "biases", "int32", 1
    )
    cell_scale = inputs.scale(_CELL_STATE, "cell state", "int16")
    fields["cell_exponent"] = _cell_exponent(what, cell_scale)
    try:
        fields["cell_clip"] = clip_code(
            options.number(_OPTIONS["cell_clip"], "float32"), cell_scale
        )
        return Int8Lstm(**fields, activation=activation, rounding=rounding), warnings
    except ValueError as error:
        raise ValueError(f"{what} cannot be read: {error}") from error


def _check_presence(what: str, tensors: dict[int, Tensor]) -> str:
    """Return the gates that the operator has, or refuse a set of inputs that is incomplete."""
    gates = _GATES if _INPUT_WEIGHTS in tensors else _GATES[1:]
    lists = [_INPUT_WEIGHTS, _RECURRENT_WEIGHTS, _BIASES]
    if any(_NORM_WEIGHTS + place in tensors for place in range(4)):
        lists.append(_NORM_WEIGHTS)
    needed = {_INPUT, _HIDDEN_STATE, _CELL_STATE}
    needed |= {start + _GATES.index(gate) for start in lists for gate in gates}
    # The input gate's peephole is not read where that gate is coupled.
    peepholes = {_PEEPHOLES[gate] for gate in gates if gate != "g"}
    if peepholes & set(tensors):
        needed |= peepholes
    if _PROJECTION_BIAS in tensors:
        needed.add(_PROJECTION_WEIGHTS)
    for index in sorted(needed - set(tensors)):
        raise ValueError(f"{what} lacks input {index}, which its other inputs call for")
    for start in lists if gates != _GATES else []:
        if start in tensors:
            raise ValueError(f"{what} has input {start}, but no weights of an input gate")
    return gates


def _check_integer(what: str, tensors: dict[int, Tensor]) -> None:
    """Refuse an operator that runs on floating-point numbers, with a sentence for each case."""
    weights, read = tensors[_INPUT_WEIGHTS + 1].type, tensors[_INPUT].type
    if weights == "float32":
        raise ValueError(f"{what} must be fully integer, not float32; convert it with quantisation")
    if read in {"float32", "float16"}:
        raise ValueError(
            f"{what} must be fully integer, not hybrid with {weights} weights and {read} inputs; "
            "convert it with a representative data set"
        )


def _intermediates(
    file: TfliteFile, operator: Operator, what: str, read: list[int]
) -> list[Parameters]:
    """Return scale and zero point of all five intermediates.

    Those before the last that are not in `read` give (1, 0).
    """
    indices = operator.intermediates
    if len(indices) != _INTERMEDIATES:
        older = " of the older 8x8 to 8 bit kernel" if len(indices) == _OLDER_INTERMEDIATES else ""
        raise ValueError(
            f"{what} must have five intermediates, not the {len(indices)}{older}; convert it with "
            "int8 activations and an int16 cell"
        )
    result: list[Parameters] = []
    for place, index in enumerate(indices):
        given = (1.0, 0)
        if place in read or place == _INTERMEDIATES - 1:
            given = file.quantisation(file.tensor(index), f"intermediate {place} of {what}")
        result.append(given)
    return result


def _projection(inputs: _Inputs, options: Table, output_scale: float) -> dict[str, Any]:
    """Return the fields of the projection, or no fields if there is no projection."""
    if _PROJECTION_WEIGHTS not in inputs.tensors:
        return {}
    name = "projection weights"
    fields: dict[str, Any] = {
        "projection_weights": inputs.data(_PROJECTION_WEIGHTS, name, "int8", 2),
        "projection_weight_scale": inputs.scale(_PROJECTION_WEIGHTS, name, "int8"),
    }
    if _PROJECTION_BIAS in inputs.tensors:
        fields["projection_bias"] = inputs.data(_PROJECTION_BIAS, "projection bias", "int32", 1)
    try:
        clip = options.number(_OPTIONS["projection_clip"], "float32")
        fields["projection_clip"] = clip_code(clip, output_scale, 8)
    except ValueError as error:
        raise ValueError(f"{inputs.what} cannot be read: {error}") from error
    return fields


def _cell_exponent(what: str, scale: float) -> int:
    """Return the exponent of the cell's resolution, computed in binary32 as LiteRT does."""
    logarithm = np.log(np.float32(scale)) * (np.float32(1) / np.log(np.float32(2)))
    exponent = math.floor(float(logarithm) + 0.5)
    if abs(logarithm - np.float32(exponent)) >= _LOGARITHM_TOLERANCE:
        raise ValueError(f"the cell state of {what} must have a power of two as scale, not {scale}")
    if not LOWEST_CELL_EXPONENT <= exponent <= HIGHEST_CELL_EXPONENT:
        raise ValueError(
            f"the cell state of {what} must have a scale from 2^{LOWEST_CELL_EXPONENT} to "
            f"2^{HIGHEST_CELL_EXPONENT}, not 2^{exponent}"
        )
    return exponent


def _differences(
    what: str, intermediate: Parameters | None, hidden: Parameters, output: Parameters
) -> list[str]:
    """Warn where a converter gave one tensor several scales; `intermediate` counts unless None."""
    named = {"read back": hidden, "passed on": output}
    if intermediate is not None:
        named = {"written": intermediate, **named}
    if len(set(named.values())) == 1:
        return []
    shown = ", ".join(
        f"{how} with scale {scale:.9g} and zero point {zero_point}"
        for how, (scale, zero_point) in named.items()
    )
    sentence = (
        f"{what}: its hidden values are {shown}; LiteRT runs it so, and so does this, but the "
        "results may be far from the real model's"
    )
    return [sentence]
