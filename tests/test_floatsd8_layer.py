# amaranth: UnusedElaboratable=no
"""The FloatSD8 LSTM layer: its image, the circuit against the golden model, cycles, files."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbit.golden.files.model import Model, save_model
from fewbit.golden.layer import packets
from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract, random_model
from fewbit.golden.layer.image import ImageError, program
from fewbit.golden.layer.packets import Kind, Packet, Reply, Status
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm
from fewbit.golden.systems import layer_of
from fewbit.hdl.designs import find
from fewbit.hdl.layer.feed import PlainFeed
from fewbit.hdl.layer.floatsd8_cycles import step_cycles
from fewbit.layer_files import cycles_section
from fewbit.sim.bulk import BulkSimulation, check_bulk, compare
from fewbit.sim.layer import LayerBackend
from fewbit.sim.runner import simulate
from fewbit.sim.verilog import verilog_of
from tests.support.commands import run as fewbit
from tests.support.floatsd8_cases import random_inputs, random_lstm
from tests.support.layer_bench import check_packer, count_cycles, packer_of

DESIGN = find("floatsd8_lstm_layer")
SMALL = {"inputs": 3, "hidden": 5, "neurons": 2}
TINY = {"inputs": 2, "hidden": 3}
# Each is compiled once.
CIRCUITS = {
    "two-neurons": SMALL,
    "one-unit": {"inputs": 90, "hidden": 1, "lanes": 7},
    "odd": {"inputs": 1, "hidden": 17, "lanes": 5, "window": 9},
}


@st.composite
def layers(draw):
    return FloatSD8LstmLayerContract(
        inputs=draw(st.integers(1, 18)),
        hidden=draw(st.integers(1, 18)),
        lanes=draw(st.integers(4, 7)),
        neurons=draw(st.integers(1, 4)),
        window=draw(st.sampled_from([14, None])),
    )


# The image.


@settings(max_examples=40, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1))
def test_an_image_holds_every_code(layer, seed):
    model = random_model(layer, np.random.default_rng(seed))
    image = layer.pack(model)
    found = layer.unpack(image)
    for name in ("input_weights", "recurrent_weights", "bias"):
        np.testing.assert_array_equal(getattr(found, name), getattr(model, name))
    assert layer.pack(found) == image


@settings(max_examples=40, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1))
def test_the_emitted_packer_makes_the_same_image(layer, seed):
    model = random_model(layer, np.random.default_rng(seed))
    check_packer(layer, model)


def _damaged(content):
    """Files that are no constants, by what they are."""
    broken = bytearray(content)
    broken[300] ^= 255
    return {
        "cut": content[:700],
        "empty": b"",
        "text": b"hello",
        "array": b"\x93NUMPY\x01\x00",
        "wrong byte": bytes(broken),
    }


def test_the_packer_refuses_damaged_files_in_a_sentence(tmp_path):
    layer = FloatSD8LstmLayerContract(**TINY)
    program_file = tmp_path / "pack.py"
    program_file.write_text(program(layer.plan), encoding="utf-8")
    parameters = random_model(layer, np.random.default_rng(2))
    whole = tmp_path / "whole.npz"
    np.savez(whole, allow_pickle=False, **layer.arrays_of(parameters))
    image = tmp_path / "image.bin"

    def pack(path):
        # Isolated and outside the project: what is emitted stands alone.
        return subprocess.run(
            [sys.executable, "-I", program_file, path, image],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    for what, content in _damaged(whole.read_bytes()).items():
        path = tmp_path / "damaged.npz"
        path.write_bytes(content)
        outcome = pack(path)
        assert outcome.returncode == 1, what
        assert outcome.stderr.startswith("The file can't be used: "), what
        assert outcome.stderr.count("\n") == 1, what
        assert not image.exists(), what
    assert pack(whole).returncode == 0
    assert image.read_bytes() == layer.pack(parameters)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("input_weights", 256, "Array input_weights must be from 0 to 255."),
        ("bias", 65536, "Array bias must be from 0 to 65535."),
        ("recurrent_offset", 32, "Array recurrent_offset must be from 0 to 31."),
        ("input_weights", None, "Array input_weights is missing; the circuit needs it."),
        ("scale", 1, "Array scale is none of this circuit's; generate it for the model."),
    ],
)
def test_the_packer_refuses(name, value, sentence):
    layer = FloatSD8LstmLayerContract(inputs=2, hidden=3)
    arrays = layer.arrays_of(random_model(layer, np.random.default_rng(1)))
    emitted = packer_of(layer)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = np.full_like(arrays.get(name, np.asarray(0)), value)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        emitted.pack(emitted.plan, arrays)


def test_an_unpacked_model_computes_the_same():
    model = random_lstm(1, inputs=5, hidden=6, input_bias=20)
    layer = FloatSD8LstmLayerContract.of(model)
    again = layer.unpack(layer.pack(model))
    assert again.input_bias == 15
    x = random_inputs(model, 2, 3, 5)
    np.testing.assert_array_equal(again.run(x), model.run(x))


def test_packets_compute_a_sequence():
    model = random_lstm(3)
    layer = FloatSD8LstmLayerContract.of(model, neurons=2)
    x = random_inputs(model, 4, 1, 6)
    sent = [Packet(Kind.IMAGE, layer.pack(model))]
    sent += [Packet(Kind.INPUT, bytes(vector.tolist())) for vector in x[0]]
    got = list(layer.answers([*sent, Packet(Kind.SAVE_STATE, b"\0")]))
    hidden, cell = model.run_with_cell(x)
    assert got[0] == Packet(Reply.STATUS, bytes([Status.LOADED]))
    assert [each.data for each in got[1:-1]] == [bytes(each.tolist()) for each in hidden[0]]
    assert got[-1].data == bytes(hidden[0, -1].tolist()) + cell[0, -1].astype("<u2").tobytes()


def test_a_model_of_another_layer_is_refused():
    model = random_lstm(1)
    for parameters, sentence in (
        ({"inputs": 4}, "The model's inputs must be 4, as the layer's, not 3; make a layer for"),
        ({"hidden": 4}, "The model's hidden units must be 4, as the layer's, not 5;"),
        ({"window": None}, "The model's window must be None, as the layer's, not 12;"),
        (
            {"lanes": 8},
            "A layer of 8 lanes rounds after every 8 products, the model after every 4; take 4 ",
        ),
    ):
        layer = FloatSD8LstmLayerContract(**{"inputs": 3, "hidden": 5} | parameters)
        with pytest.raises(ValueError, match=re.escape(sentence)):
            layer.pack(model)
    with pytest.raises(ValueError, match="A layer of 5 lanes rounds after every 5 products"):
        FloatSD8LstmLayerContract.of(model, lanes=5)
    assert layer_of(model).design == DESIGN.name
    with pytest.raises(ValueError, match=r"quantise it first with 'fewbit quantize'\."):
        layer_of(Float64Lstm(*(np.zeros(shape) for shape in ((4, 2, 1), (4, 2, 2), (4, 2)))))


def test_a_broken_image_is_refused():
    layer = FloatSD8LstmLayerContract(inputs=2, hidden=3)
    image = layer.random_image(np.random.default_rng(1))
    with pytest.raises(ImageError, match="the image is broken"):
        layer.unpack(bytes([image[0] ^ 1]) + image[1:])
    with pytest.raises(ImageError, match=f"must hold {len(image)} bytes, not {len(image) - 1}"):
        FloatSD8LstmLayerContract(inputs=2, hidden=3, image=image[:-1])


# The circuit.


@cache
def circuit_of(**parameters):
    return BulkSimulation(DESIGN.configure(parameters))


@pytest.mark.long
@pytest.mark.parametrize(
    "parameters",
    CIRCUITS.values(),
    ids=CIRCUITS,
)
def test_circuit_agrees_with_golden(parameters):
    """Sequences, states, broken packets, pauses on both streams: the contract's own stimulus."""
    count = 600 * parameters["hidden"]
    outcome = compare(circuit_of(**parameters), count=count, chunk=count // 6, seed=12)
    assert outcome.passed, outcome.counterexample
    assert outcome.vectors == count


@pytest.mark.long
def test_pauses_between_neurons_change_nothing():
    """The sink takes a byte now and then, so that the neurons wait for one another."""
    circuit = circuit_of(**SMALL)
    layer = circuit.contract
    rng = np.random.default_rng(9)
    sent = [Packet(Kind.IMAGE, layer.random_image(rng))]
    sent += [Packet(Kind.INPUT, rng.bytes(layer.inputs)) for _ in range(20)]
    expected = list(layer.answers(sent))
    count = sum(len(answer.data) for answer in expected)
    for seed in range(20):
        arrays = circuit.run(packets.beats(sent), count, stall_seed=seed, reset=True)
        assert list(packets.replies_in(arrays)) == expected


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_nothing_unknown_leaves_the_circuit(tmp_path):
    """Icarus knows X, which memories start with: lanes beyond a vector's end must not show it."""
    outcome = simulate(DESIGN.configure(TINY), tmp_path, simulator="icarus", count=120)
    assert outcome.passed, outcome.failures


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_lanes_beyond_a_vectors_end_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fewbit.hdl.layer.floatsd8.PlainFeed", lambda places, masks_padding: PlainFeed(places)
    )
    text = verilog_of(DESIGN.configure(TINY))
    outcome = simulate(
        DESIGN.configure(TINY), tmp_path, simulator="icarus", count=120, verilog=text
    )
    assert not outcome.passed


@pytest.mark.long
def test_a_broken_circuit_is_found():
    text = verilog_of(DESIGN.configure(TINY))
    # New cells are all written for the first unit.
    target = "cell_group"
    found = re.search(rf"assign (\w+) = {target} \+ \d+'h0*1;", text)
    assert found is not None
    start = found.start()
    broken = text[:start] + f"assign {found[1]} = {target};" + text[found.end() :]
    outcome = check_bulk(DESIGN.configure(TINY), count=2000, chunk=500, seed=1, verilog=broken)
    assert not outcome.passed


# Cycles.


def measured(parameters) -> tuple[float, int, int]:
    """Cycles of a step, and to the first and the last byte of a single answer."""
    circuit = circuit_of(**parameters)
    rng = np.random.default_rng(2)
    return count_cycles(circuit, circuit.contract.random_image(rng), rng)


@pytest.mark.parametrize("parameters", CIRCUITS.values(), ids=CIRCUITS)
def test_cycles_are_those_of_the_circuit(parameters):
    step = step_cycles(FloatSD8LstmLayerContract(**parameters))
    assert step.is_exact
    assert (step.interval, step.first_byte, step.last_byte) == measured(parameters)


def test_large_layers_keep_their_lanes_busy():
    for inputs, hidden, neurons in ((48, 128, 1), (48, 128, 4), (48, 128, 16), (512, 512, 8)):
        step = step_cycles(FloatSD8LstmLayerContract(inputs=inputs, hidden=hidden, neurons=neurons))
        ideal = 4 * hidden * (inputs + hidden) / (4 * neurons)
        assert step.cycles < 1.05 * ideal


def test_the_data_sheet_gives_the_cycles():
    section = cycles_section(step_cycles(FloatSD8LstmLayerContract(inputs=12, hidden=32)))
    assert (section["beats"], section["cycles"]) == (1408, 1512)
    assert section["formula"].startswith("exactly 55 for the first group of neurons + 31 times 47 ")
    assert section["formula"].endswith("vectors come in time")
    timing = DESIGN.configure({"inputs": 12, "hidden": 32}).timing
    assert timing.interval == "1512 a step, 1408 of them with products"


# Models.


def test_the_backend_runs_a_model():
    model = random_lstm(5, hidden=5)
    x = random_inputs(model, 6, 4, 7)
    backend = LayerBackend({"neurons": 2}, asks_state=True, stall_seed=3)
    lengths = np.array([7, 1, 4, 6])
    hidden, cell = model.run_with_cell(x)
    got = backend(model, x, lengths)
    for index, length in enumerate(lengths.tolist()):
        np.testing.assert_array_equal(got[index, :length], hidden[index, :length])
        np.testing.assert_array_equal(backend.last_cells[index], cell[index, length - 1])
    with pytest.raises(ValueError, match="x must be from 0 to 255, not -"):
        backend(model, x - 256)
    with pytest.raises(ValueError, match="A layer of 8 lanes rounds after every 8 products"):
        LayerBackend({"lanes": 8})(model, x)


def test_the_run_command_runs_a_model_in_rtl(capsys, tmp_path, model):
    x = random_inputs(model, 8, 2, 4).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    words = ["run", tmp_path / "model.npz", "--input", tmp_path / "x.npy"]
    words += ["--output", tmp_path / "y.npy", "--backend", "rtl"]
    status, out, err = fewbit(capsys, *words, "--neurons", "2")
    assert (status, err) == (0, "")
    assert " in rtl, " in out
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.run(x))
    status, _, err = fewbit(capsys, *words, "--lanes", "8")
    assert status == 2
    assert "A layer of 8 lanes rounds after every 8 products, the model after every 4;" in err


NAMES = [
    "floatsd8_lstm_layer.bin",
    "floatsd8_lstm_layer.h",
    "floatsd8_lstm_layer.json",
    "floatsd8_lstm_layer.v",
    "floatsd8_lstm_layer_constants.npz",
    "floatsd8_lstm_layer_network.json",
    "floatsd8_lstm_layer_pack.py",
]


@pytest.fixture
def model(tmp_path) -> FloatSD8Lstm:
    lstm = random_lstm(7)
    save_model(tmp_path / "model.npz", Model(lstm))
    return lstm


@pytest.mark.long
@pytest.mark.parametrize("fixed", [False, True])
def test_the_layer_of_a_model_is_generated(capsys, tmp_path, model, fixed):
    words = [DESIGN.name, "--model", tmp_path / "model.npz", "--set", "neurons=2"]
    words += ["--image-inside"] if fixed else []
    status, _, err = fewbit(capsys, "generate", *words, "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == NAMES
    image = (tmp_path / "out/floatsd8_lstm_layer.bin").read_bytes()
    layer = FloatSD8LstmLayerContract.of(model, neurons=2)
    assert image == layer.pack(model)
    sheet = json.loads((tmp_path / "out/floatsd8_lstm_layer.json").read_text())
    assert sheet["parameters"] == layer.settings
    assert sheet["image_inside"] is fixed
    assert sheet["image"]["size"] == len(image)
    network = json.loads((tmp_path / "out/floatsd8_lstm_layer_network.json").read_text())
    assert network["layers"][0]["input"] == {"format": "e5m2", "exponent_bias": 17}
    # The packer, which knows nothing of this package, makes the image of the codes.
    packed = tmp_path / "packed.bin"
    command = [sys.executable, "-I", *(NAMES[6], NAMES[4])]
    subprocess.run([*command, packed], cwd=tmp_path / "out", check=True)
    assert packed.read_bytes() == image


def test_mistakes_are_told_in_a_sentence(capsys, tmp_path, model):
    path = ("--model", tmp_path / "model.npz")
    for words, sentence in (
        (("int8_lstm_layer", *path), "The model is one for floatsd8_lstm_layer; generate that."),
        ((DESIGN.name, *path, "--set", "window=12"), "Parameter 'window' follows from the model"),
        ((DESIGN.name, *path, "--set", "lanes=8"), "A layer of 8 lanes rounds after every 8"),
        ((DESIGN.name, *path, "--set", "structure=fpga"), "has no parameter 'structure'"),
    ):
        status, out, err = fewbit(capsys, "generate", *words, "--out", tmp_path / "out")
        assert (status, out) == (2, "")
        assert sentence in err
        assert len(err.strip().splitlines()) == 1


@pytest.mark.long
def test_a_layer_with_its_image_inside():
    model = random_lstm(9, inputs=2, hidden=3)
    layer = FloatSD8LstmLayerContract.of(model)
    circuit = BulkSimulation(DESIGN.configure(layer.settings, image=layer.pack(model)))
    x = random_inputs(model, 8, 1, 5)
    sent = [Packet(Kind.INPUT, bytes(vector.tolist())) for vector in x[0]]
    got = packets.replies_in(circuit.run(packets.beats(sent), 5 * layer.hidden))
    expected = model.run(x)[0]
    assert [each.data for each in got] == [bytes(each.tolist()) for each in expected]
    with pytest.raises(ValueError, match="the image is broken"):
        dataclasses.replace(layer, image=bytes(layer.plan.size - 2) + b"\1\1")
