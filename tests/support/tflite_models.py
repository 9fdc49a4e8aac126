"""TensorFlow Lite models written by hand, and LiteRT to run them: the oracle of the int8 tests.

A model here is one operator between its inputs and its outputs, built with the flatbuffer schema
that the package `ai_edge_litert` carries.
"""

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from fewbit.golden.lstm.int8 import Int8Lstm

# Inputs of UNIDIRECTIONAL_SEQUENCE_LSTM by index. The kernel's gate order is i, f, c, o; a coupled
# input gate leaves the first of four absent, and only three have peepholes.
LSTM_OPERANDS = 24
INPUT_WEIGHTS, RECURRENT_WEIGHTS, PEEPHOLES, BIASES, NORM_WEIGHTS = 1, 5, 9, 12, 20
PROJECTION_WEIGHTS, PROJECTION_BIAS, HIDDEN_STATE, CELL_STATE = 16, 17, 18, 19
ABSENT = -1

_TYPES = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
}


@dataclass
class _Graph:
    """Tensors and buffers of a model with one operator."""

    tensors: list[Any] = field(default_factory=list)
    # Buffer 0 is empty by convention: tensors without constant data point at it.
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])

    def tensor(
        self,
        name: str,
        dtype: npt.DTypeLike,
        shape: tuple[int, ...],
        scale: float,
        zero_point: int = 0,
        *,
        variable: bool = False,
    ) -> int:
        quantization = schema.QuantizationParametersT()
        quantization.scale = [float(scale)]
        quantization.zeroPoint = [int(zero_point)]
        tensor = schema.TensorT()
        tensor.name = name
        tensor.type = _TYPES[np.dtype(dtype)]
        tensor.shape = list(shape)
        tensor.quantization = quantization
        tensor.isVariable = variable
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name: str, data: npt.NDArray[Any], scale: float) -> int:
        index = self.tensor(name, data.dtype, data.shape, scale)
        buffer = schema.BufferT()
        # The writer takes an array, and is far faster with it than with the list it declares.
        words = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        buffer.data = words  # pyright: ignore[reportAttributeAccessIssue]
        self.tensors[index].buffer = len(self.buffers)
        self.buffers.append(buffer)
        return index

    def finish(
        self,
        operator: schema.OperatorT,
        code: int,
        version: int,
        inputs: list[int],
        outputs: list[int],
    ) -> bytes:
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode = code
        # The old field holds one byte, and 127 refers the reader to the new one.
        operator_code.deprecatedBuiltinCode = min(code, 127)
        operator_code.version = version
        subgraph = schema.SubGraphT()
        subgraph.tensors = self.tensors
        subgraph.inputs = inputs
        subgraph.outputs = outputs
        subgraph.operators = [operator]
        model = schema.ModelT()
        model.version = 3
        model.operatorCodes = [operator_code]
        model.subgraphs = [subgraph]
        model.buffers = self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@dataclass(frozen=True)
class LstmFile:
    """A written LSTM and where its state tensors are."""

    content: bytes
    hidden_state: int
    cell_state: int


def write_lstm(
    model: Int8Lstm,
    batch: int,
    time: int,
    *,
    cell_clip: float = 0.0,
    projection_clip: float = 0.0,
    output_scale: float | None = None,
    output_zero_point: int | None = None,
) -> LstmFile:
    """One fully integer UNIDIRECTIONAL_SEQUENCE_LSTM, batch-major, of any variant.

    The output tensor's parameters are the hidden's unless given. The clips are the reals that go
    into the file; the model's codes aren't used.
    """
    graph = _Graph()
    x = graph.tensor(
        "x", np.int8, (batch, time, model.inputs), model.input_scale, model.input_zero_point
    )
    operands = [ABSENT] * LSTM_OPERANDS
    operands[0] = x
    # Four that only a layer norm reads, then what the projection reads.
    gate_steps = [2.0**-12] * 4
    first = 4 - len(model.gates)
    for gate, name in enumerate(model.gates):
        place = first + gate
        input_scale = model.input_weight_scales[gate]
        recurrent_scale = model.recurrent_weight_scales[gate]
        bias_scale = input_scale * np.float32(model.input_scale)
        operands[INPUT_WEIGHTS + place] = graph.constant(
            f"W_{name}", model.input_weights[gate], input_scale
        )
        operands[RECURRENT_WEIGHTS + place] = graph.constant(
            f"R_{name}", model.recurrent_weights[gate], recurrent_scale
        )
        if model.norm_weights is not None:
            norm_scale = model.norm_weight_scales[gate]
            operands[NORM_WEIGHTS + place] = graph.constant(
                f"L_{name}", model.norm_weights[gate], norm_scale
            )
            gate_steps[place] = model.norm_scales[gate]
            bias_scale = norm_scale * np.float32(2.0**-10)
        operands[BIASES + place] = graph.constant(f"b_{name}", model.bias[gate], bias_scale)
    if model.peephole_weights is not None:
        for place, weights, scale in zip(
            range(first, 3), model.peephole_weights, model.peephole_weight_scales, strict=True
        ):
            operands[PEEPHOLES + place] = graph.constant(f"P_{'ifo'[place]}", weights, scale)
    if model.projection_weights is not None:
        operands[PROJECTION_WEIGHTS] = graph.constant(
            "W_p", model.projection_weights, model.projection_weight_scale
        )
        if model.projection_bias is not None:
            scale = np.float32(model.projection_weight_scale) * np.float32(model.intermediate_scale)
            operands[PROJECTION_BIAS] = graph.constant("b_p", model.projection_bias, scale)
    hidden_state = graph.tensor(
        "h",
        np.int8,
        (batch, model.outputs),
        model.hidden_scale,
        model.hidden_zero_point,
        variable=True,
    )
    cell_state = graph.tensor(
        "c", np.int16, (batch, model.hidden), 2.0**model.cell_exponent, variable=True
    )
    operands[HIDDEN_STATE] = hidden_state
    operands[CELL_STATE] = cell_state
    output = graph.tensor(
        "y",
        np.int8,
        (batch, time, model.outputs),
        model.hidden_scale if output_scale is None else output_scale,
        model.hidden_zero_point if output_zero_point is None else output_zero_point,
    )
    intermediates = [
        graph.tensor(f"intermediate_{k}", np.int16, (0,), step) for k, step in enumerate(gate_steps)
    ]
    intermediates.append(
        graph.tensor(
            "intermediate_4",
            np.int8,
            (0,),
            model.intermediate_scale,
            model.intermediate_zero_point,
        )
    )
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    options.cellClip = cell_clip
    options.projClip = projection_clip
    operator = schema.OperatorT()
    operator.inputs = operands
    operator.outputs = [output]
    operator.intermediates = intermediates
    operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    operator.builtinOptions = options
    content = graph.finish(
        operator, schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM, 3, [x], [output]
    )
    return LstmFile(content, hidden_state, cell_state)


def write_activation(function: str, scale: float, length: int) -> bytes:
    """One 16-bit LOGISTIC or TANH of `length` elements with the given input scale."""
    graph = _Graph()
    x = graph.tensor("x", np.int16, (length,), scale)
    y = graph.tensor("y", np.int16, (length,), 2.0**-15)
    operator = schema.OperatorT()
    operator.inputs = [x]
    operator.outputs = [y]
    return graph.finish(operator, getattr(schema.BuiltinOperator, function), 3, [x], [y])


def interpreter(content: bytes, *, reference: bool = False) -> Interpreter:
    """LiteRT without delegates, on one thread; `reference` chooses its reference kernels."""
    resolver = (
        OpResolverType.BUILTIN_REF
        if reference
        else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    made = Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
    made.allocate_tensors()
    return made


def run_lstm(
    file: LstmFile, x: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int16]]:
    """Output (batch, time, outputs) and last cell (batch, hidden) of LiteRT, from reset."""
    made = interpreter(file.content)
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    output = made.get_tensor(made.get_output_details()[0]["index"])
    return output, made.get_tensor(file.cell_state)


def run_activation(content: bytes, x: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Output of LiteRT's reference kernel."""
    made = interpreter(content, reference=True)
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    return made.get_tensor(made.get_output_details()[0]["index"])
