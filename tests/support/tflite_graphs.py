"""TensorFlow Lite models of several operators, written by hand as converters write them."""

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from fewbit.golden.lstm.int8 import Int8Lstm
from tests.support.tflite_models import (
    BIASES,
    CELL_STATE,
    HIDDEN_STATE,
    INPUT_WEIGHTS,
    LSTM_OPERANDS,
    RECURRENT_WEIGHTS,
    _Graph,
    interpreter,
)


def small_layer(
    seed: int,
    inputs: int = 4,
    hidden: int = 5,
    *,
    input_parameters: tuple[float, int] = (0.02, 3),
    hidden_parameters: tuple[float, int] = (0.0078, -2),
) -> Int8Lstm:
    """A plain layer whose gates are neither all open nor all shut."""
    rng = np.random.default_rng(seed)
    return Int8Lstm(
        input_weights=rng.integers(-127, 128, (4, hidden, inputs)).astype(np.int8),
        recurrent_weights=rng.integers(-127, 128, (4, hidden, hidden)).astype(np.int8),
        bias=rng.integers(-2000, 2000, (4, hidden)).astype(np.int32),
        input_weight_scales=np.full(4, 0.006, np.float32),
        recurrent_weight_scales=np.full(4, 0.007, np.float32),
        input_scale=input_parameters[0],
        input_zero_point=input_parameters[1],
        hidden_scale=hidden_parameters[0],
        hidden_zero_point=hidden_parameters[1],
        intermediate_scale=hidden_parameters[0],
        intermediate_zero_point=hidden_parameters[1],
        cell_exponent=-11,
        activation="gemmlowp",
    )


@dataclass
class Graph(_Graph):
    """Operators one after the other; each method adds one and returns its output tensor."""

    batch: int = 2
    time: int = 5
    operators: list[Any] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def values(
        self, name: str, width: int, parameters: tuple[float, int], *, time_major: bool = False
    ) -> int:
        """A tensor of sequences."""
        axes = (self.time, self.batch) if time_major else (self.batch, self.time)
        return self.tensor(name, np.int8, (*axes, width), *parameters)

    def operator(
        self,
        code: str,
        inputs: list[int],
        output: int,
        options_type: int = 0,
        options: Any = None,
        intermediates: list[int] | None = None,
    ) -> int:
        made = schema.OperatorT()
        number = getattr(schema.BuiltinOperator, code)
        if number not in self.codes:
            self.codes.append(number)
        made.opcodeIndex = self.codes.index(number)
        made.inputs, made.outputs, made.intermediates = inputs, [output], intermediates
        made.builtinOptionsType, made.builtinOptions = options_type, options
        self.operators.append(made)
        return output

    def _like(self, tensor: int, name: str, shape: tuple[int, ...]) -> int:
        source = self.tensors[tensor].quantization
        return self.tensor(name, np.int8, shape, source.scale[0], source.zeroPoint[0])

    def reverse(self, x: int, axis: int = 1) -> int:
        axes = self.constant(f"axis{len(self.tensors)}", np.array([axis], np.int32), 1.0)
        shape = tuple(self.tensors[x].shape)
        return self.operator(
            "REVERSE_V2", [x, axes], self._like(x, f"reversed{len(self.tensors)}", shape)
        )

    def transpose(self, x: int) -> int:
        axes = self.constant(f"axes{len(self.tensors)}", np.array([1, 0, 2], np.int32), 1.0)
        first, second, width = self.tensors[x].shape
        result = self._like(x, f"transposed{len(self.tensors)}", (second, first, width))
        return self.operator(
            "TRANSPOSE",
            [x, axes],
            result,
            schema.BuiltinOptions.TransposeOptions,
            schema.TransposeOptionsT(),
        )

    def concatenate(self, *tensors: int, axis: int = 2, scale: float | None = None) -> int:
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        widths = [self.tensors[tensor].shape[2] for tensor in tensors]
        shape = (*self.tensors[tensors[0]].shape[:2], sum(widths))
        result = self._like(tensors[0], f"joined{len(self.tensors)}", shape)
        if scale is not None:
            self.tensors[result].quantization.scale = [scale]
        return self.operator(
            "CONCATENATION",
            list(tensors),
            result,
            schema.BuiltinOptions.ConcatenationOptions,
            options,
        )

    def lstm(
        self,
        model: Int8Lstm,
        x: int,
        name: str,
        *,
        time_major: bool = False,
        cell_clip: float = 0.0,
        output_parameters: tuple[float, int] | None = None,
    ) -> int:
        """A plain layer, with the 20 inputs of a file without layer norm."""
        operands = [-1] * (LSTM_OPERANDS - 4)
        operands[0] = x
        for gate in range(4):
            operands[INPUT_WEIGHTS + gate] = self.constant(
                f"{name}_W{gate}", model.input_weights[gate], model.input_weight_scales[gate]
            )
            operands[RECURRENT_WEIGHTS + gate] = self.constant(
                f"{name}_R{gate}",
                model.recurrent_weights[gate],
                model.recurrent_weight_scales[gate],
            )
            operands[BIASES + gate] = self.constant(f"{name}_b{gate}", model.bias[gate], 1e-4)
        hidden = (model.hidden_scale, model.hidden_zero_point)
        units = (self.batch, model.hidden)
        operands[HIDDEN_STATE] = self.tensor(f"{name}_h", np.int8, units, *hidden, variable=True)
        operands[CELL_STATE] = self.tensor(
            f"{name}_c", np.int16, units, 2.0**model.cell_exponent, variable=True
        )
        intermediates = [
            self.tensor(f"{name}_intermediate{k}", np.int16, (0,), 1.0) for k in range(4)
        ]
        intermediates.append(
            self.tensor(
                f"{name}_intermediate4",
                np.int8,
                (0,),
                model.intermediate_scale,
                model.intermediate_zero_point,
            )
        )
        options = schema.UnidirectionalSequenceLSTMOptionsT()
        options.timeMajor, options.cellClip = time_major, cell_clip
        options.fusedActivationFunction = schema.ActivationFunctionType.TANH
        return self.operator(
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            operands,
            self.values(name, model.hidden, output_parameters or hidden, time_major=time_major),
            schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions,
            options,
            intermediates,
        )

    def content(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The file."""
        subgraph = schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = inputs, outputs
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [subgraph], self.buffers
        model.operatorCodes = []
        for code in self.codes:
            operator_code = schema.OperatorCodeT()
            operator_code.builtinCode = code
            operator_code.deprecatedBuiltinCode = min(code, 127)
            operator_code.version = 3
            model.operatorCodes.append(operator_code)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def run_litert(content: bytes, x: npt.NDArray[np.int8]) -> list[npt.NDArray[np.int8]]:
    """All outputs of a file with one input."""
    made = interpreter(content)
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    return [made.get_tensor(output["index"]) for output in made.get_output_details()]
