"""``fewbit run`` and ``fewbit quantize``: files in, files out, mistakes and their answers."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from fewbit.golden.codecs import dequantize, quantize
from fewbit.golden.files.model import Model, save_model
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.files.torch import read_safetensors
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.network import Network, Node, golden_backend, run
from fewbit.golden.quantize import ternary_lstm
from fewbit.golden.quantize.int8 import quantize_network
from fewbit.sim.bulk import BulkSimulation
from tests.support.commands import run as fewbit
from tests.support.int8_cases import VARIANTS, random_case
from tests.support.tflite_graphs import Graph, run_litert, small_layer
from tests.support.tflite_models import run_lstm, write_lstm

RAWS = np.random.default_rng(0).integers(-128, 128, (3, 5, 4)).astype(np.int8)
REALS = np.random.default_rng(1).normal(size=(3, 5, 4))


class Files:
    """Paths of a test, and arrays saved there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "new" / "y.npy"

    def array(self, values: npt.ArrayLike, name: str = "x.npy") -> Path:
        np.save(self.folder / name, values)
        return self.folder / name

    def network(self, network: Network, name: str = "model.npz") -> Path:
        save_network(self.folder / name, network)
        return self.folder / name

    def file(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def safetensors(self, name: str = "model.safetensors") -> Path:
        """Two bidirectional layers of binary32."""
        rng = np.random.default_rng(2)
        tensors = {
            f"rnn.{kind}_l{layer}{end}": (rng.normal(size=shape) * 0.6).astype(np.float32)
            for layer, inputs in ((0, 4), (1, 6))
            for end in ("", "_reverse")
            for kind, shape in (
                ("weight_ih", (12, inputs)),
                ("weight_hh", (12, 3)),
                ("bias_ih", (12,)),
                ("bias_hh", (12,)),
            )
        }
        save_file(tensors, self.folder / name)
        return self.folder / name


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def layer_file(files: Files) -> Path:
    save_model(files.folder / "model.npz", Model(small_layer(1)))
    return files.folder / "model.npz"


def test_tflite_gives_litert_s_bytes(capsys, files):
    for number in (5, 39):
        case = random_case(number, exponent=-12, sizes="trained", variant=VARIANTS[number])
        batch, time, _ = case.x.shape
        file = write_lstm(case.model, batch, time, **case.file_fields)
        model = files.file("model.tflite", file.content)
        words = ["run", model, "--input", files.array(case.x), "--output", files.output]
        status, out, err = fewbit(capsys, *words)
        assert status == 0
        assert err.startswith("Warning: LSTM 0 with output tensor 'y': its hidden values are")
        output = np.load(files.output, allow_pickle=False)
        assert output.dtype == np.int8
        np.testing.assert_array_equal(output, run_lstm(file, case.x)[0])
        assert out.startswith(f"{model}: 1 layer, {case.x.shape} to {output.shape} in golden, ")
        assert out.endswith(" steps a second\n")
        fewbit(capsys, *words, "--activation", "table")
        table = replace(case.model, activation="table")
        np.testing.assert_array_equal(
            np.load(files.output), golden_backend(table, case.x).astype(np.int8)
        )


def test_stacked_tflite_in_whole_and_in_part(capsys, files):
    graph = Graph(batch=3)
    x = graph.values("x", 4, (0.02, 3))
    middle = graph.lstm(small_layer(1), x, "lower")
    y = graph.lstm(small_layer(2, 5, input_parameters=(0.0078, -2)), middle, "upper")
    model = files.file("model.tflite", graph.content([x], [middle, y]))
    expected = run_litert(model.read_bytes(), RAWS)
    words = ["run", model, "--input", files.array(RAWS), "--output", files.output]
    status, out, err = fewbit(capsys, *words)
    assert (status, err) == (0, "")
    assert ": 2 layers, (3, 5, 4) to (3, 5, 5) in golden, " in out
    np.testing.assert_array_equal(np.load(files.output), expected[1])
    assert fewbit(capsys, *words, "--lstm", "lower")[0] == 0
    np.testing.assert_array_equal(np.load(files.output), expected[0])


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, ">i2"])
def test_integers_of_any_width(capsys, files, dtype):
    raws = np.asarray(np.abs(RAWS.astype(np.int64)) // 2).astype(dtype)
    x = files.array(np.asfortranarray(raws))
    words = ["--input", x, "--output", files.output]
    assert fewbit(capsys, "run", layer_file(files), *words)[0] == 0
    expected = run(Network((Node(small_layer(1)),)), raws.astype(np.int64))
    np.testing.assert_array_equal(np.load(files.output), expected)


def test_more_sequences_than_are_run_at_a_time(capsys, files):
    raws = np.random.default_rng(3).integers(-128, 128, (600, 2, 4)).astype(np.int8)
    words = ["--input", files.array(raws), "--output", files.output]
    assert fewbit(capsys, "run", layer_file(files), *words)[0] == 0
    expected = run(Network((Node(small_layer(1)),)), raws)
    np.testing.assert_array_equal(np.load(files.output), expected)


def test_reals_in_and_out_of_an_integer_model(capsys, files):
    real = read_safetensors(files.safetensors()).network
    network = quantize_network(real, REALS)
    words = ["--input", files.array(REALS), "--output", files.output, "--real"]
    assert fewbit(capsys, "run", files.network(network), *words)[0] == 0
    output = np.load(files.output)
    assert output.dtype == np.float64
    first, last = network.nodes[0].lstm, network.nodes[-1].lstm
    raws = run(network, quantize(REALS, first.input_scale, first.input_zero_point))
    np.testing.assert_array_equal(
        output, dequantize(raws, last.hidden_scale, last.hidden_zero_point)
    )
    assert np.abs(output - run(real, REALS)).max() < 0.05


def test_real_models_run_in_float64(capsys, files):
    model = files.safetensors()
    words = ["--input", files.array(REALS), "--output", files.output]
    assert fewbit(capsys, "run", model, *words)[0] == 0
    expected = run(read_safetensors(model).network, REALS)
    assert expected.shape == (3, 5, 6)
    np.testing.assert_array_equal(np.load(files.output), expected)


def test_quantize_then_run(capsys, files):
    model, target = files.safetensors(), files.folder / "new" / "int8"
    words = ["quantize", model, "--to", "int8", "--calibrate", files.array(REALS)]
    status, out, err = fewbit(capsys, *words, "--out", target, "--rounding", "single")
    assert (status, err) == (0, "")
    made = target.with_name("int8.npz")
    assert out == (
        f"{made}: 2 layers, int8, activation table, calibrated on 3 sequences of 5 steps\n"
    )
    network = load_network(made)
    expected = quantize_network(read_safetensors(model).network, REALS, rounding="single")
    np.testing.assert_array_equal(run(network, RAWS), run(expected, RAWS))
    words = ["run", made, "--input", files.array(RAWS), "--output", files.output]
    assert fewbit(capsys, *words)[0] == 0
    np.testing.assert_array_equal(np.load(files.output), run(expected, RAWS))


def test_quantize_an_onnx_file_with_peepholes(capsys, files):
    rng = np.random.default_rng(4)
    shapes = {"W": (1, 12, 4), "R": (1, 12, 3), "B": (1, 24), "P": (1, 9)}
    node = helper.make_node("LSTM", ["x", "W", "R", "B", "", "", "", "P"], ["y"], hidden_size=3)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rng.normal(size=shape), name) for name, shape in shapes.items()],
    )
    model = files.folder / "model.onnx"
    onnx.save(helper.make_model(graph), model)
    target = files.folder / "out.npz"
    words = ["--to", "int8", "--calibrate", files.array(REALS), "--activation", "gemmlowp"]
    assert fewbit(capsys, "quantize", model, *words, "--out", target)[0] == 0
    layer = load_network(target).nodes[0].lstm
    assert isinstance(layer, Int8Lstm)
    assert layer.activation == "gemmlowp"
    assert layer.peephole_weights is not None


@pytest.mark.parametrize("words", [[], ["--lanes", 8, "--neurons", 2]])
def test_rtl_runs_every_layer_in_the_simulator(capsys, files, monkeypatch, words):
    seen: list[Any] = []

    class LayerBackend:
        def __init__(self, settings: dict[str, int]) -> None:
            seen.append(settings)

        def __call__(self, lstm: Int8Lstm, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
            seen.append(x.shape)
            # One wrong bit, so that nothing but this can have made the output.
            return golden_backend(lstm, x) ^ 1

    module = ModuleType("fewbit.sim.layer")
    module.LayerBackend = LayerBackend  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "fewbit.sim.layer", module)
    parameters = (0.0078, -2)
    network = Network(
        (Node(small_layer(1)), Node(small_layer(2, 5, input_parameters=parameters), (0,), True))
    )
    given = ["--input", files.array(RAWS), "--output", files.output, "--backend", "rtl", *words]
    status, out, _ = fewbit(capsys, "run", files.network(network), *given)
    assert status == 0
    assert " in rtl, " in out
    assert seen == [{"lanes": 8, "neurons": 2} if words else {}, (3, 5, 4), (3, 5, 5)]
    expected = run(network, RAWS, lambda lstm, x: golden_backend(lstm, x) ^ 1)
    np.testing.assert_array_equal(np.load(files.output), expected)


@pytest.mark.long
@pytest.mark.parametrize(("to", "lanes"), [("ternary", 4), ("binary", 8)])
def test_few_bit_models_run_in_golden_and_in_the_circuit(capsys, files, monkeypatch, to, lanes):
    # For so few steps the compiler's optimisation takes longer than it saves.
    monkeypatch.setattr("fewbit.sim.layer.BulkSimulation", partial(BulkSimulation, optimized=False))
    monkeypatch.chdir(files.folder)
    layers = read_safetensors(files.safetensors()).network.nodes[:1]
    made = ternary_lstm.quantize_network(Network(layers), REALS, to=to, activation_width=8)
    words = ["run", files.network(made), "--input", files.array(RAWS), "--output", files.output]
    status, out, err = fewbit(capsys, *words)
    assert (status, err) == (0, "")
    assert ": 1 layer, (3, 5, 4) to (3, 5, 3) in golden, " in out
    expected = np.load(files.output)
    np.testing.assert_array_equal(expected, run(made, RAWS))
    status, out, err = fewbit(capsys, *words, "--backend", "rtl", "--lanes", lanes)
    assert (status, err) == (0, "")
    assert " in rtl, " in out
    np.testing.assert_array_equal(np.load(files.output), expected)
    # Half a byte of weights a cycle.
    status, _, err = fewbit(capsys, *words, "--backend", "rtl", "--lanes", lanes // 2)
    whole = f"lanes must be a multiple of {lanes}, as {lanes} {to} weights make whole bytes"
    assert (status, err) == (2, f"{whole}, not {lanes // 2}.\n")
    status, _, err = fewbit(capsys, *words, "--backend", "rtl", "--gate-order", "side_by_side")
    needed = "With gate_order side_by_side, scales must be powers_of_two, not any."
    assert (status, err) == (2, f"{needed}\n")


@pytest.mark.long
def test_gates_are_added_side_by_side_where_asked(capsys, files, monkeypatch):
    made_with: list[Any] = []

    class Circuit(BulkSimulation):
        def __init__(self, configured: Any, cache_dir: Any) -> None:
            made_with.append(configured.parameters["gate_order"])
            super().__init__(configured, cache_dir, optimized=False)

    monkeypatch.setattr("fewbit.sim.layer.BulkSimulation", Circuit)
    monkeypatch.chdir(files.folder)
    layers = read_safetensors(files.safetensors()).network.nodes[:1]
    made = ternary_lstm.quantize_network(
        Network(layers), REALS, to="ternary", activation_width=8, scales="powers_of_two"
    )
    words = ["run", files.network(made), "--input", files.array(RAWS), "--output", files.output]
    gates = ["--lanes", 4, "--gate-order", "side_by_side"]
    status, _, err = fewbit(capsys, *words, "--backend", "rtl", *gates)
    assert (status, err, made_with) == (0, "", ["side_by_side"])
    np.testing.assert_array_equal(np.load(files.output), run(made, RAWS))


def refusals(files: Files) -> dict[str, tuple[list[object], str]]:
    """Words of ``fewbit run`` and the sentence that answers them."""
    int8, real = layer_file(files), files.safetensors()
    x, y = files.array(RAWS), files.output
    text, short = files.file("x.txt", b"1 2 3"), files.file("short.npy", x.read_bytes()[:-1])
    huge = files.file("huge.npy", x.read_bytes().replace(b"(3, 5, 4)", b"(9**9**9)"))
    pickle = files.folder / "object.npy"
    np.save(pickle, np.array([None, 1], dtype=object), allow_pickle=True)
    flat = files.array(RAWS[0], "flat.npy")
    reals, unsigned = files.array(REALS, "r.npy"), files.array(RAWS.astype(np.uint8), "u.npy")
    wide, narrow = files.array(RAWS * np.int64(2), "w.npy"), files.array(RAWS[..., :3], "n.npy")
    infinite = files.array(np.full((1, 1, 4), np.inf), "inf.npy")
    missing = files.folder / "none.npy"
    to = ["--output", y]
    unreadable = "must be an array of numbers as numpy.save writes it; save it anew."
    return {
        "no model": (
            [files.folder / "none.npz", "--input", x, *to],
            f"{files.folder / 'none.npz'}: there is no such file; give the path of a model.",
        ),
        "pickle": (
            [files.folder / "m.pt", "--input", x, *to],
            (
                f"'{files.folder / 'm.pt'}' is a pickle, which may run anything; save its state "
                "dict with safetensors."
            ),
        ),
        "other": (
            ["model.bin", "--input", x, *to],
            "'model.bin' must be a model whose name ends in .tflite, .safetensors, .onnx or .npz.",
        ),
        "broken": (
            [files.file("m.tflite", b"\0" * 99), "--input", x, *to],
            f"{files.folder / 'm.tflite'}: bytes 4 to 7 must be TFL3, not '\\x00\\x00\\x00\\x00'.",
        ),
        "missing": (
            [int8, "--input", missing, *to],
            f"'{missing}' can't be read (No such file or directory); name an .npy file.",
        ),
        "folder": (
            [int8, "--input", files.folder, *to],
            f"'{files.folder}' is no file; name an .npy file.",
        ),
        "text": ([int8, "--input", text, *to], f"'{text}' {unreadable}"),
        "expression": ([int8, "--input", huge, *to], f"'{huge}' {unreadable}"),
        "object": ([int8, "--input", pickle, *to], f"'{pickle}' {unreadable}"),
        "short": (
            [int8, "--input", short, *to],
            f"'{short}' must hold 60 bytes of data, not 59; save the array anew.",
        ),
        "flat": (
            [int8, "--input", flat, *to],
            (
                f"'{flat}' must hold numbers of shape (batch, time, inputs), not int8 of shape "
                "(5, 4); save it so."
            ),
        ),
        "reals": (
            [int8, "--input", reals, *to],
            (
                "The sequences must be integer raws from -128 to 127, not float64; for real "
                "numbers give --real."
            ),
        ),
        "unsigned": (
            [int8, "--input", unsigned, *to],
            ("The sequences must be signed raws from -128 to 127, not uint8; save them as int8."),
        ),
        "wide": (
            [int8, "--input", wide, *to],
            (
                f"The sequences must be raws from -128 to 127, not {int(RAWS.min()) * 2}; for real "
                "numbers give --real."
            ),
        ),
        "narrow": (
            [int8, "--input", narrow, *to],
            f"The sequences must have 4 inputs, as '{int8}' has, not 3.",
        ),
        "infinite": (
            [real, "--input", infinite, *to],
            "The sequences must be finite, not inf.",
        ),
        "infinite raws": (
            [int8, "--input", infinite, *to, "--real"],
            "Values must be finite, not inf.",
        ),
        "rtl of reals": (
            [real, "--input", x, *to, "--backend", "rtl"],
            f"'{real}' is a real model; quantise it first with 'fewbit quantize'.",
        ),
        "lanes of golden": (
            [int8, "--input", x, *to, "--lanes", 4, "--neurons", 2],
            "The golden model has no lanes and neurons; choose --backend rtl.",
        ),
        "gate order of golden": (
            [int8, "--input", x, *to, "--gate-order", "side_by_side"],
            "The golden model has no gate_order; choose --backend rtl.",
        ),
        "gate order of int8": (
            [int8, "--input", x, *to, "--backend", "rtl", "--gate-order", "side_by_side"],
            (
                "int8_lstm_layer has no parameter 'gate_order'; it has inputs, hidden, lanes,"
                " neurons, activation, cifg, peephole, layer_norm, projection, dynamic, signal,"
                " structure."
            ),
        ),
        "activation of reals": (
            [real, "--input", x, *to, "--activation", "table"],
            f"'{real}' is a real model, which has no such choice; leave --activation.",
        ),
        "choice": (
            [int8, "--input", x, *to, "--lstm", "0"],
            "A .npz model has no LSTMs to choose from; leave --lstm out.",
        ),
        "output": (
            [int8, "--input", x, "--output", files.folder],
            f"'{files.folder}' is a folder; name a file in it.",
        ),
    }


def test_mistakes_of_run_are_answered_in_one_sentence(capsys, files):
    for name, (words, sentence) in refusals(files).items():
        status, out, err = fewbit(capsys, "run", *words)
        assert (name, status, out, err) == (name, 2, "", f"{sentence}\n")
        assert not files.output.exists()


def test_mistakes_of_quantize_are_answered_in_one_sentence(capsys, files):
    x, out = files.array(REALS), files.folder / "out.npz"
    int8, real = layer_file(files), files.safetensors()
    words = ["--to", "int8", "--out", out, "--calibrate"]
    assert fewbit(capsys, "quantize", int8, *words, x) == (
        2,
        "",
        f"'{int8}' is quantised already; give a real model.\n",
    )
    assert fewbit(capsys, "quantize", real, *words, files.array(REALS * np.nan, "nan.npy")) == (
        2,
        "",
        (
            "Calibration data must be finite, not nan at (sequence, time, input) (0, 0, 0); remove "
            "or repair that sequence.\n"
        ),
    )
    assert fewbit(capsys, "quantize", real, *words, files.array(REALS[..., :3], "n.npy"))[1:] == (
        "",
        "Calibration data must have 4 inputs, as the model has, not 3.\n",
    )
    status, _, err = fewbit(capsys, "quantize", real, "--to", "int4", *words[2:], x)
    assert status == 2
    assert "invalid choice: 'int4'" in err
    assert not out.exists()


def test_a_missing_compiler_is_told_in_a_sentence(capsys, files, monkeypatch):
    model = layer_file(files)
    monkeypatch.setenv("PATH", str(files.folder))
    words = ["--input", files.array(RAWS), "--output", files.output, "--backend", "rtl"]
    status, _, error = fewbit(capsys, "run", model, *words)
    assert status == 2
    assert error.startswith("Bulk simulation needs the C++ compiler g++, missing here")
    assert error.count("\n") == 1
    assert not files.output.exists()


def test_too_little_memory_is_a_sentence(capsys, files, monkeypatch):
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fewbit.sequences.run", refuse)
    words = ["--input", files.array(RAWS), "--output", files.output]
    assert fewbit(capsys, "run", layer_file(files), *words) == (
        2,
        "",
        "There is not enough memory for so many sequences; take some at a time.\n",
    )
    monkeypatch.setattr("fewbit.golden.quantize.ternary_lstm.calibration_batch", refuse)
    words = ["--to", "ternary", "--calibrate", files.array(REALS), "--out", files.folder / "o.npz"]
    assert fewbit(capsys, "quantize", files.safetensors(), *words) == (
        2,
        "",
        "There is not enough memory for so many sequences; calibrate with fewer.\n",
    )
