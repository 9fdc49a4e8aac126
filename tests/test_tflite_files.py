"""TensorFlow Lite files read back and run, against LiteRT on the same files."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as schema

from fewbit.golden.files.assembly import LARGEST_FILE
from fewbit.golden.files.tflite import read_tflite
from fewbit.golden.network import NETWORK_INPUT, run
from tests.support.int8_cases import VARIANTS, Variant, random_case
from tests.support.tflite_graphs import Graph, run_litert, small_layer
from tests.support.tflite_models import run_lstm, write_lstm

X = (0.02, 3)
H = (0.0078, -2)


def raws(*shape: int, seed: int = 0) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return path


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        read_tflite(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_gives_litert_s_bytes(tmp_path: Path, variant: Variant) -> None:
    seed = VARIANTS.index(variant)
    for sizes, clip in (("trained", 0.0), ("usual", 0.7)):
        case = random_case(seed, exponent=-15 + seed % 7, sizes=sizes, clip=clip, variant=variant)
        batch, moments, _ = case.x.shape
        file = write_lstm(case.model, batch, moments, **case.file_fields)
        imported = read_tflite(written(tmp_path, file.content))
        (node,) = imported.network.nodes
        assert (node.sources, node.reverse, node.name) == ((NETWORK_INPUT,), False, "y")
        # LiteRT runs sequences of a batch-major file one by one, as this does.
        np.testing.assert_array_equal(run(imported.network, case.x), run_lstm(file, case.x)[0])
        for field in dataclasses.fields(node.lstm):
            got, given = getattr(node.lstm, field.name), getattr(case.model, field.name)
            if field.name not in {"activation", "rounding", "projection_bias"}:
                np.testing.assert_array_equal(got, given, err_msg=field.name)
        assert len(imported.warnings) == 1  # its output tensor's parameters are not the hidden's


def test_a_wrong_byte_of_the_weights_is_seen(tmp_path: Path) -> None:
    file = write_lstm(small_layer(1), 2, 5)
    weights = small_layer(1).input_weights[2].tobytes()
    assert file.content.count(weights) == 1
    broken = file.content.replace(weights, bytes([weights[0] ^ 64]) + weights[1:])
    outputs = run(read_tflite(written(tmp_path, broken)).network, raws(2, 5, 4))
    assert (outputs != run_lstm(file, raws(2, 5, 4))[0]).any()


@pytest.mark.parametrize("time_major", [False, True])
def test_stacked(tmp_path: Path, time_major: bool) -> None:
    first = small_layer(1)
    second = small_layer(2, 5, 3, input_parameters=H, hidden_parameters=(0.007, 11))
    graph = Graph()
    x = graph.values("x", 4, X, time_major=time_major)
    middle = graph.lstm(first, x, "first", time_major=time_major)
    y = graph.lstm(second, middle, "second", time_major=time_major)
    content = graph.content([x], [y])
    imported = read_tflite(written(tmp_path, content))
    assert [node.sources for node in imported.network.nodes] == [(NETWORK_INPUT,), (0,)]
    assert imported.network.layers == 2
    assert imported.warnings == ()
    given = raws(2, 5, 4)
    swapped = given.swapaxes(0, 1) if time_major else given
    (expected,) = run_litert(content, np.ascontiguousarray(swapped))
    if time_major:
        expected = expected.swapaxes(0, 1)
    np.testing.assert_array_equal(run(imported.network, given), expected)
    alone = read_tflite(tmp_path / "model.tflite", lstm="second").network
    assert alone.inputs == 5
    assert read_tflite(tmp_path / "model.tflite", lstm="1").network.nodes[0].name == "second"


def bidirectional(graph: Graph, x: int, width: int, seed: int, parameters=X) -> int:
    """As converters write it: REVERSE_V2 before and after the second LSTM."""
    forward = graph.lstm(small_layer(seed, width, input_parameters=parameters), x, f"f{seed}")
    layer = small_layer(seed + 1, width, input_parameters=parameters)
    backward = graph.reverse(graph.lstm(layer, graph.reverse(x), f"b{seed}"))
    return graph.concatenate(forward, backward, axis=-1)


def test_stacked_bidirectional(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.values("x", 4, X)
    middle = bidirectional(graph, x, 4, 10)
    content = graph.content([x], [bidirectional(graph, middle, 10, 20, H)])
    network = read_tflite(written(tmp_path, content)).network
    assert [node.sources for node in network.nodes] == [(-1,), (-1,), (0, 1), (0, 1)]
    assert [node.reverse for node in network.nodes] == [False, True, False, True]
    assert (network.layers, network.outputs, network.width) == (2, (2, 3), 10)
    (expected,) = run_litert(content, raws(2, 5, 4))
    np.testing.assert_array_equal(run(network, raws(2, 5, 4)), expected)
    # The second layer alone, which takes both names.
    upper = read_tflite(tmp_path / "model.tflite", lstm="f20,b20").network
    assert (upper.inputs, upper.layers, upper.outputs) == (10, 1, (0, 1))
    backward = read_tflite(tmp_path / "model.tflite", lstm="3").network
    assert backward.nodes[0].reverse


def test_backward_first_and_joined_second(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.values("x", 4, X)
    backward = graph.reverse(graph.lstm(small_layer(1), graph.reverse(x), "b"), axis=-2)
    forward = graph.lstm(small_layer(2), x, "f")
    content = graph.content([x], [graph.concatenate(forward, backward)])
    network = read_tflite(written(tmp_path, content)).network
    assert network.outputs == (1, 0)
    (expected,) = run_litert(content, raws(2, 5, 4))
    np.testing.assert_array_equal(run(network, raws(2, 5, 4)), expected)


def test_transposed_around_time_major(tmp_path: Path) -> None:
    """What Keras writes for time-major kernels in a batch-major model, and a skip connection."""
    graph = Graph()
    x = graph.values("x", 4, H)
    swapped = graph.transpose(x)
    first = graph.lstm(small_layer(1, input_parameters=H), swapped, "a", time_major=True)
    reversed_twice = graph.reverse(graph.reverse(first, axis=0), axis=0)
    both = graph.concatenate(swapped, reversed_twice)
    second = graph.lstm(small_layer(2, 9, input_parameters=H), both, "b", time_major=True)
    third = graph.lstm(small_layer(3, 5, input_parameters=H), graph.transpose(second), "c")
    content = graph.content([x], [third])
    network = read_tflite(written(tmp_path, content)).network
    assert [node.sources for node in network.nodes] == [(-1,), (-1, 0), (1,)]
    (expected,) = run_litert(content, raws(2, 5, 4))
    np.testing.assert_array_equal(run(network, raws(2, 5, 4)), expected)


def test_unconnected_ask_for_a_choice(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.values("x", 4, X)
    outputs = [
        graph.lstm(small_layer(1), x, "encoder"),
        graph.lstm(small_layer(2), x, "other, too"),
    ]
    path = written(tmp_path, graph.content([x], outputs))
    assert refusal(path) == (
        "2 LSTMs or groups of them are not connected: 0 'encoder'; 1 'other, too'; choose with "
        "--lstm INDEX or --lstm INDEX,INDEX."
    )
    for choice, seed in (("0", 1), ("encoder", 1), ("1", 2), ("other, too", 2)):
        (node,) = read_tflite(path, lstm=choice).network.nodes
        np.testing.assert_array_equal(node.lstm.input_weights, small_layer(seed).input_weights)
    assert refusal(path, lstm="decoder") == (
        "no LSTM is called 'decoder'; there are 0 'encoder'; 1 'other, too'."
    )
    assert refusal(path, lstm="0,1") == (
        "the outputs of LSTMs 0 'encoder' and 1 'other, too' end side by side without being "
        "joined; choose with --lstm INDEX."
    )


def test_different_parameters_are_run_as_litert_does_and_told(tmp_path: Path) -> None:
    model = dataclasses.replace(
        small_layer(5), intermediate_scale=0.005, intermediate_zero_point=17
    )
    file = write_lstm(model, 2, 5, output_scale=0.0064, output_zero_point=-100)
    imported = read_tflite(written(tmp_path, file.content))
    np.testing.assert_array_equal(
        run(imported.network, raws(2, 5, 4)), run_lstm(file, raws(2, 5, 4))[0]
    )
    (warning,) = imported.warnings
    assert warning == (
        "LSTM 0 with output tensor 'y': its hidden values are written with scale 0.00499999989 and "
        "zero point 17, read back with scale 0.00779999979 and zero point -2, passed on with scale "
        "0.00639999984 and zero point -100; LiteRT runs it so, and so does this, but the results "
        "may be far from the real model's"
    )


@pytest.mark.parametrize(
    ("scale", "exponent"),
    [(2.0**-11 * 1.0006, -11), (2.0**-11 * 0.9994, -11), (2.0**-15, -15), (2.0**-9, -9)],
)
def test_cell_scale_near_a_power_of_two(tmp_path: Path, scale: float, exponent: int) -> None:
    model = small_layer(6)
    file = write_lstm(dataclasses.replace(model, cell_exponent=exponent), 2, 5, cell_clip=3.1)
    old = np.float32(2.0**exponent).tobytes()
    content = bytearray(file.content)
    # Of the places with this number, the cell's scale is the one whose change is seen.
    places = [at for at in range(0, len(content), 4) if content[at : at + 4] == old]
    for at in places:
        content[at : at + 4] = np.float32(scale).tobytes()
    imported = read_tflite(written(tmp_path, bytes(content)))
    lstm = imported.network.nodes[0].lstm
    assert lstm.cell_exponent == exponent
    assert lstm.cell_clip == min(int(np.float32(3.1) / np.float32(scale)), 32767)
    changed = dataclasses.replace(file, content=bytes(content))
    np.testing.assert_array_equal(
        run(imported.network, raws(2, 5, 4)), run_lstm(changed, raws(2, 5, 4))[0]
    )


def changed(change: Callable[[Graph], object]) -> Callable[[], bytes]:
    """Content of a file of one LSTM after a change to its tables."""

    def content() -> bytes:
        graph = Graph()
        x = graph.values("x", 4, X)
        y = graph.lstm(small_layer(1), x, "y")
        change(graph)
        return graph.content([x], [y])

    return content


def tensor_of(graph: Graph, name: str):
    return next(tensor for tensor in graph.tensors if tensor.name == name)


def set_type(name: str, kind: str) -> Callable[[Graph], object]:
    return lambda graph: setattr(tensor_of(graph, name), "type", getattr(schema.TensorType, kind))


def set_scale(name: str, *scales: float) -> Callable[[Graph], object]:
    def change(graph: Graph) -> None:
        quantization = tensor_of(graph, name).quantization
        quantization.scale, quantization.zeroPoint = list(scales), [0] * len(scales)

    return change


def set_float(graph: Graph, names: tuple[str, ...]) -> None:
    for tensor in graph.tensors:
        if tensor.name in names:
            tensor.type = schema.TensorType.FLOAT32


def set_sparse(graph: Graph) -> None:
    tensor_of(graph, "y_W1").sparsity = schema.SparsityParametersT()


def set_outside(graph: Graph) -> None:
    buffer = graph.buffers[tensor_of(graph, "y_W1").buffer]
    buffer.data, buffer.offset, buffer.size = None, 4096, 20


def set_inputs(graph: Graph, change: dict[int, int]) -> None:
    for place, tensor in change.items():
        graph.operators[0].inputs[place] = tensor


Y = "LSTM 0 with output tensor 'y'"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda graph: set_float(graph, tuple(tensor.name for tensor in graph.tensors)),
            f"{Y} must be fully integer, not float32; convert it with quantisation.",
        ),
        (
            lambda graph: set_float(graph, ("x",)),
            (
                f"{Y} must be fully integer, not hybrid with int8 weights and float32 inputs; "
                "convert it with a representative data set."
            ),
        ),
        (
            lambda graph: setattr(graph.operators[0], "intermediates", list(range(12))),
            (
                f"{Y} must have five intermediates, not the 12 of the older 8x8 to 8 bit kernel; "
                "convert it with int8 activations and an int16 cell."
            ),
        ),
        (
            set_sparse,
            f"the input weights of {Y} must not be sparse; convert the model without sparsity.",
        ),
        (
            set_scale("y_W1", 0.1, 0.2, 0.1, 0.2, 0.3),
            (
                f"the input weights of {Y} must have one scale and one zero point, not 5 scales; "
                "quantise the whole tensor by one."
            ),
        ),
        (
            set_outside,
            f"the input weights of {Y} must lie in the file's own buffers, not outside of them.",
        ),
        (
            set_scale("y_c", 2.0**-8),
            f"the cell state of {Y} must have a scale from 2^-15 to 2^-9, not 2^-8.",
        ),
        (
            set_scale("y_c", 2.0**-11 * 1.001),
            (
                f"the cell state of {Y} must have a power of two as scale, not "
                "0.0004887695540674031."
            ),
        ),
        (set_type("y_c", "FLOAT32"), f"the cell state of {Y} must be int16, not float32."),
        (set_type("y_b1", "INT64"), f"the biases of {Y} must be int32 with 1 axes, not int64 of"),
        (
            lambda graph: set_inputs(graph, {2: -1}),
            f"{Y} lacks input 2, which its other inputs call for.",
        ),
        (
            lambda graph: set_inputs(graph, {1: -1, 5: -1}),
            f"{Y} has input 12, but no weights of an input gate.",
        ),
        (
            lambda graph: set_inputs(graph, {17: 3}),
            f"{Y} lacks input 16, which its other inputs call for.",
        ),
        (
            lambda graph: set_inputs(graph, {2: 3}),
            f"the input weights of {Y} must",
        ),
        (
            lambda graph: setattr(graph.operators[0].builtinOptions, "cellClip", -1.0),
            f"{Y} cannot be read: A clip must be a finite number of at least 0, not -1.0.",
        ),
        (
            lambda graph: setattr(
                graph.operators[0].builtinOptions, "diagonalRecurrentTensors", True
            ),
            f"{Y} must have full recurrent weights, not diagonal ones.",
        ),
        (
            lambda graph: graph.codes.__setitem__(0, schema.BuiltinOperator.LSTM),
            (
                "it has no operator UNIDIRECTIONAL_SEQUENCE_LSTM in its main graph, only LSTM, "
                "which is not read."
            ),
        ),
    ],
)
def test_what_is_no_integer_lstm_is_refused(
    tmp_path: Path, change: Callable[[Graph], object], message: str
) -> None:
    text = refusal(written(tmp_path, changed(change)()))
    assert text == message if message.endswith(".") else text.startswith(message)


def test_requantising_concatenation_is_refused(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.values("x", 4, X)
    forward = graph.lstm(small_layer(1), x, "f")
    joined = graph.concatenate(forward, forward, scale=0.5)
    path = written(tmp_path, graph.content([x], [joined]))
    assert refusal(path).startswith("the CONCATENATION to tensor 'joined")
    with pytest.raises(RuntimeError, match="failed to prepare"):
        run_litert(path.read_bytes(), raws(2, 5, 4))


def test_partly_reversed_input_is_refused(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.values("x", 4, X)
    forward = graph.lstm(small_layer(1), x, "f")
    both = graph.concatenate(forward, graph.reverse(forward))
    y = graph.lstm(small_layer(2, 10, input_parameters=H), both, "y")
    assert refusal(written(tmp_path, graph.content([x], [y]))) == (
        "LSTM 1 with output tensor 'y' reads sequences of which only some are reversed in time."
    )


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    assert refusal(path) == "there is no such file; give the path of a model."
    path.write_bytes(b"")
    assert refusal(path) == "bytes 4 to 7 must be TFL3, not ''."
    path.write_bytes(b"\0\0\0\0PK12" * 4)
    assert refusal(path) == "bytes 4 to 7 must be TFL3, not 'PK12'."
    with path.open("wb") as stream:
        stream.truncate(LARGEST_FILE + 1)
    assert refusal(path).startswith(f"a model file must hold at most {LARGEST_FILE} bytes, not")
    assert refusal(tmp_path) == "a model must be a file, not a folder or a device."


def damaged_files() -> list[bytes]:
    """Valid files to damage: every table that the reader looks into is in one of them."""
    graph = Graph()
    x = graph.values("x", 4, X)
    middle = bidirectional(graph, graph.transpose(graph.transpose(x)), 4, 10)
    variant = Variant(norm=True, peephole=True, projection=True, projection_bias=True)
    case = random_case(4, exponent=-12, variant=variant)
    return [
        graph.content([x], [middle]),
        write_lstm(case.model, 1, 2, **case.file_fields).content,
    ]


def test_damage_never_gets_through_as_anything_but_a_sentence(tmp_path: Path) -> None:
    """Every 97th truncation, and bytes changed where the tables lie: a network or one sentence."""
    rng = np.random.default_rng(8)
    path = tmp_path / "model.tflite"
    refused = 0
    start = time.perf_counter()
    for content in damaged_files():
        cut = [content[:length] for length in range(0, len(content), 97)]
        flipped: list[bytes] = []
        for _ in range(600):
            words = bytearray(content)
            for at in rng.integers(0, len(words), int(rng.integers(1, 5))).tolist():
                words[at] = int(rng.choice([0, 1, 4, 127, 128, 255, int(rng.integers(256))]))
            flipped.append(bytes(words))
        for damaged in (*cut, *flipped):
            path.write_bytes(damaged)
            try:
                read_tflite(path)
            except ValueError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017 - not all are refused
                refused += 1
        assert refused >= len(cut)
    assert refused > 400
    assert time.perf_counter() - start < 60
