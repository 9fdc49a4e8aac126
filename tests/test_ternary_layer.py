# amaranth: UnusedElaboratable=no
"""The layer and the neuron of few-bit weights: image, circuits against golden, cycles, files."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Const, Module, Signal
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbit.golden.accumulate.packing import TERNARY_DENSE
from fewbit.golden.files.model import Model, save_model
from fewbit.golden.layer.packets import Kind, Packet, Reply, Status
from fewbit.golden.layer.ternary import TernaryLstmLayerContract, random_model
from fewbit.golden.lstm.ternary import levels_of
from fewbit.golden.neuron.ternary import LaneWeights, TernaryLstmNeuronContract
from fewbit.golden.systems import layer_of
from fewbit.hdl.accumulate.packing import unpack_dense
from fewbit.hdl.designs import find
from fewbit.hdl.layer.ternary_cycles import step_cycles
from fewbit.hdl.memory_writer import Writer
from fewbit.hdl.neuron.side_by_side_sum import SideBySideSum
from fewbit.hdl.neuron.ternary import LaneSum
from fewbit.layer_files import cycles_section
from fewbit.sim.bulk import BulkSimulation, compare
from fewbit.sim.layer import LayerBackend
from fewbit.sim.runner import simulate
from tests.support.commands import run as fewbit
from tests.support.layer_bench import check_packer, count_cycles, packer_of

DESIGN = find("ternary_lstm_layer")
TWO_NEURONS = {"inputs": 3, "hidden": 5, "neurons": 2, "lanes": 4}
# With structure gates vectors are prepared for the lanes.
SIDE_BY_SIDE = {"gate_order": "side_by_side", "scales": "powers_of_two", "structure": "gates"}
# Each is compiled once. Those for FPGAs compile several times faster, and differ in adders alone.
CIRCUITS = {
    "two-neurons": TWO_NEURONS,
    "odd": {
        "inputs": 1,
        "hidden": 17,
        "lanes": 8,
        "weights": "binary",
        "scales": "powers_of_two",
        "activation_width": 16,
    },
    "pow2": {
        "inputs": 9,
        "hidden": 2,
        "lanes": 8,
        "weights": "pow2",
        "exponents": 3,
        "activation_width": 5,
    },
    # A short row and a long one, so that sums wait; an odd length, whose last value has no
    # neighbour.
    "side-by-side": SIDE_BY_SIDE | {"inputs": 7, "hidden": 23, "lanes": 4},
    "side-by-side-binary": SIDE_BY_SIDE
    | {
        "inputs": 5,
        "hidden": 6,
        "lanes": 8,
        "weights": "binary",
        "activation_width": 8,
        "structure": "fpga",
    },
}
KINDS = [
    LaneWeights(4),
    LaneWeights(8, "binary"),
    LaneWeights(8, "pow2", 2),
    LaneWeights(2, "pow2", 4),
    LaneWeights(2, "int12"),
    LaneWeights(5, packing="dense"),
]
NAMES = [f"{each.weights}-{each.exponents}-{each.packing}" for each in KINDS]


@st.composite
def layers(draw):
    weights = draw(st.sampled_from(KINDS))
    gates = draw(st.sampled_from(["in_turn", "side_by_side"]))
    alone = gates == "side_by_side"
    return TernaryLstmLayerContract(
        inputs=draw(st.integers(1, 18)),
        hidden=draw(st.integers(1, 18)),
        lanes=weights.lanes * draw(st.integers(1, 3)),
        neurons=1 if alone else draw(st.integers(1, 4)),
        gate_order=gates,
        weights=weights.weights,
        exponents=weights.exponents,
        packing=weights.packing,
        scales="powers_of_two" if alone else draw(st.sampled_from(["any", "powers_of_two"])),
        activation_width=draw(st.integers(4, 16)),
    )


# The image.


@settings(max_examples=40, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1))
def test_an_image_holds_the_model(layer, seed):
    model = random_model(layer, np.random.default_rng(seed))
    image = layer.pack(model)
    found = layer.unpack(image)
    for field in dataclasses.fields(model):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(model, field.name))
    assert layer.pack(found) == image


@settings(max_examples=40, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1))
def test_the_emitted_packer_makes_the_same_image(layer, seed):
    model = random_model(layer, np.random.default_rng(seed))
    check_packer(layer, model)


@pytest.mark.parametrize(
    ("parameters", "name", "value", "sentence"),
    [
        ({}, "bias", 2**31, "Array bias must be from -2147483648 to 2147483647."),
        ({}, "input_weights", 2, "Array input_weights must be from -1 to 1."),
        (
            {"weights": "binary"},
            "input_weights",
            0,
            "A weight is none of the circuit's levels; generate it for the model.",
        ),
        (
            {"scales": "powers_of_two"},
            "input_multipliers",
            3 << 29,
            "Array input_multipliers must be from 0 to 1073741824.",
        ),
    ],
)
def test_the_packer_refuses(parameters, name, value, sentence):
    layer = TernaryLstmLayerContract(inputs=2, hidden=3, **parameters)
    arrays = layer.arrays_of(random_model(layer, np.random.default_rng(1)))
    emitted = packer_of(layer)
    arrays[name] = np.full(arrays[name].shape, value)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        emitted.pack(emitted.plan, arrays)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"lanes": 6}, "lanes must be a multiple of 4, as 4 ternary weights make whole bytes, not"),
        ({"lanes": 4, "weights": "binary"}, "lanes must be a multiple of 8, as 8 binary weights"),
        ({"packing": "dense"}, "lanes must be a multiple of 5 with packing dense"),
        (
            {"packing": "dense", "weights": "binary"},
            "Only ternary weights have packing dense, not binary ones; take packing fields.",
        ),
        ({"exponents": 2}, "exponents must be a whole number from 1 to 1, not 2."),
        ({"activation_width": 3}, "activation_width must be a whole number from 4 to 16, not 3."),
        ({"gate_order": "both"}, 'gate_order must be "in_turn" or "side_by_side", not \'both\'.'),
        (
            {"gate_order": "side_by_side"},
            "With gate_order side_by_side, scales must be powers_of_two, not any.",
        ),
        (
            {"gate_order": "side_by_side", "neurons": 2},
            "With gate_order side_by_side, neurons must be 1, not 2.",
        ),
        ({"weights": "int8"}, 'weights must be "ternary" or "binary" or "pow2" or "int12", not'),
    ],
)
def test_a_layer_refuses_its_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        TernaryLstmLayerContract(**parameters)


def test_a_model_of_another_layer_is_refused():
    model = random_model(TernaryLstmLayerContract(inputs=3, hidden=5), np.random.default_rng(1))
    for parameters, sentence in (
        ({"inputs": 4}, "The model's inputs must be 4, as the layer's, not 3; make a layer for"),
        ({"weights": "binary"}, "The model's weights must be binary, as the layer's, not ternary;"),
        ({"activation_width": 8}, "The model's activation width must be 8, as the layer's, not"),
        ({"scales": "powers_of_two"}, "The model's scales must be powers of two, as the layer's;"),
    ):
        layer = TernaryLstmLayerContract(**{"inputs": 3, "hidden": 5} | parameters)
        with pytest.raises(ValueError, match=re.escape(sentence)):
            layer.pack(model)


def test_packets_compute_a_sequence():
    layer = TernaryLstmLayerContract(inputs=3, hidden=5)
    model = random_model(layer, np.random.default_rng(3))
    x = np.random.default_rng(4).integers(-(2**11), 2**11, (1, 6, 3))
    sent = [Packet(Kind.IMAGE, layer.pack(model))]
    # Bits above those of a raw don't count.
    sent += [Packet(Kind.INPUT, (each ^ 0x5000).astype("<u2").tobytes()) for each in x[0]]
    got = list(layer.answers([*sent, Packet(Kind.SAVE_STATE, b"\0")]))
    hidden, cell = model.run_with_cell(x)
    assert got[0] == Packet(Reply.STATUS, bytes([Status.LOADED]))
    assert [each.data for each in got[1:-1]] == [each.astype("<i2").tobytes() for each in hidden[0]]
    state = hidden[0, -1].astype("<i2").tobytes() + cell[0, -1].astype("<i2").tobytes()
    assert got[-1].data == state


# The lanes.


def test_five_weights_are_read_from_every_code():
    m = Module()
    code = Signal(8)
    digits = unpack_dense(m, code, "weights")
    found = []

    async def read(ctx):
        for value in range(256):
            ctx.set(code, value)
            found.append([ctx.get(each.positive) - ctx.get(each.negative) for each in digits])

    simulator = Simulator(m)
    simulator.add_testbench(read)
    simulator.run()
    np.testing.assert_array_equal(found, TERNARY_DENSE.unpack(np.arange(256)[:, np.newaxis], 5))


def packed_words(weights, levels):
    """Bytes of rows of weights, lane 0 lowest."""
    codes = weights.codes(levels)
    bits = codes[..., np.newaxis] >> np.arange(weights.operand.format.width) & 1
    return np.packbits(bits.reshape(len(codes), -1).astype(np.uint8), axis=-1, bitorder="little")


@pytest.mark.parametrize("structure", ["gates", "fpga"])
@pytest.mark.parametrize("weights", KINDS, ids=NAMES)
def test_lanes_are_summed(weights, structure):
    width, count = 7, 24
    rng = np.random.default_rng(5)
    levels = rng.choice(levels_of(weights.weights, weights.exponents), (count, weights.lanes))
    activations = rng.integers(-64, 64, (count, weights.lanes))
    starts = rng.integers(-(2**31), 2**31, count)
    activations[:8], levels[:4] = -64, levels_of(weights.weights, weights.exponents)[0]
    dut = LaneSum(weights, width, structure)
    words = packed_words(weights, levels)

    async def add(ctx):
        for index in range(count):
            packed = sum(
                int(each) % 2**width << width * at for at, each in enumerate(activations[index])
            )
            ctx.set(dut.weights.as_value(), int.from_bytes(words[index].tobytes(), "little"))
            ctx.set(dut.activations.as_value(), packed)
            ctx.set(dut.start, int(starts[index]))
            exact = int(starts[index]) + int((levels[index] * activations[index]).sum())
            assert (ctx.get(dut.total) - exact) % 2**32 == 0

    simulator = Simulator(dut)
    simulator.add_testbench(add)
    simulator.run()


@pytest.mark.parametrize("index", [0, 1, 4, 5], ids=[NAMES[index] for index in (0, 1, 4, 5)])
def test_prepared_lanes_are_summed(index):
    """The lanes' sum from words as they are written, of values that come one by one."""
    width, count, sum_width = 7, 24, 23
    weights = dataclasses.replace(KINDS[index], lanes=2 * KINDS[index].lanes)
    rng = np.random.default_rng(5)
    levels = rng.choice(levels_of(weights.weights, weights.exponents), (count, weights.lanes))
    activations = rng.integers(-64, 64, (count, weights.lanes))
    activations[:8], levels[:4] = -64, levels_of(weights.weights, weights.exponents)[0]
    words = packed_words(weights, levels)
    m = Module()
    m.submodules.dut = dut = SideBySideSum(weights, width, sum_width)
    vectors = dut.vectors
    value, enable = Signal(width), Signal(weights.lanes)
    written = vectors.gather(m, Writer(enable, Const(0), value), weights.lanes, "vector")
    element = vectors.prepare(m, written.data)
    size = vectors.element.width
    word = Signal(size * len(written.enable))
    for place, writes in enumerate(written.enable):
        with m.If(writes):
            m.d.sync += word.word_select(place, size).eq(element)
    m.d.comb += dut.activations.eq(word)

    async def add(ctx):
        for row, beat in enumerate(activations):
            for lane, each in enumerate(beat.tolist()):
                ctx.set(value, each % 2**width)
                ctx.set(enable, 1 << lane)
                await ctx.tick()
            ctx.set(dut.weights.as_value(), int.from_bytes(words[row].tobytes(), "little"))
            start = int(rng.integers(2**sum_width))
            ctx.set(dut.start, start)
            exact = start + int((levels[row] * beat).sum())
            assert (ctx.get(dut.total) - exact) % 2**sum_width == 0, row
            raws = ctx.get(vectors.raws(word))
            assert raws == sum(
                each % 2**width << width * at for at, each in enumerate(beat.tolist())
            )

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(add)
    simulator.run()


# The circuits.


@cache
def circuit_of(name):
    # Lanes of gates take long to compile.
    parameters = {"structure": "fpga"} | CIRCUITS[name]
    return BulkSimulation(DESIGN.configure(parameters), optimized=parameters["structure"] == "fpga")


@pytest.mark.long
@pytest.mark.parametrize("name", CIRCUITS)
def test_the_layer_agrees_with_golden(name):
    """Sequences, states, broken packets, pauses on both streams: the contract's own stimulus."""
    count = 3000
    outcome = compare(circuit_of(name), count=count, chunk=count // 6, seed=12)
    assert outcome.passed, outcome.counterexample
    assert outcome.vectors == count


@pytest.mark.long
def test_a_wrong_weight_is_found(monkeypatch):
    """A golden layer with one weight of another sign disagrees with the circuit."""
    circuit = circuit_of("two-neurons")

    def next_state(self, parameters, x, hidden, cell):
        levels = parameters.recurrent_weights.copy()
        levels[2, -1, -1] = 1 - abs(levels[2, -1, -1])
        broken = dataclasses.replace(parameters, recurrent_weights=levels)
        return original(self, broken, x, hidden, cell)

    original = TernaryLstmLayerContract.next_state
    monkeypatch.setattr(TernaryLstmLayerContract, "next_state", next_state)
    assert not compare(circuit, count=2000, chunk=500, seed=12).passed


@pytest.mark.long
def test_the_neuron_agrees_with_golden():
    design = find("ternary_lstm_neuron")
    parameters = {"lanes": 3, "weights": "pow2", "exponents": 2, "activation_width": 9}
    circuit = BulkSimulation(design.configure(parameters), optimized=False)
    outcome = compare(circuit, count=600, chunk=200, seed=3)
    assert outcome.passed, outcome.counterexample
    assert outcome.vectors == 600
    assert circuit.contract == TernaryLstmNeuronContract(3, "pow2", 2, 9)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_nothing_unknown_leaves_the_circuit(tmp_path):
    """Icarus knows X, which memories start with: lanes beyond a vector's end must not show it."""
    parameters = {"inputs": 2, "hidden": 3, "lanes": 8, "weights": "binary"}
    outcome = simulate(DESIGN.configure(parameters), tmp_path, simulator="icarus", count=120)
    assert outcome.passed, outcome.failures


# Cycles.


def measured(name) -> tuple[float, int, int]:
    """Cycles of a step, and to the first and the last byte of a single answer."""
    circuit = circuit_of(name)
    layer = circuit.contract
    rng = np.random.default_rng(2)
    model = random_model(layer, rng)
    # A left shift would take cycles of its own.
    shifts = {
        f"{part}_shifts": np.minimum(getattr(model, f"{part}_shifts"), 0)
        for part in ("input", "recurrent")
    }
    return count_cycles(circuit, layer.pack(dataclasses.replace(model, **shifts)), rng)


@pytest.mark.long
@pytest.mark.parametrize("name", CIRCUITS)
def test_cycles_are_those_of_the_circuit(name):
    step = step_cycles(circuit_of(name).contract, "fpga")
    assert step.is_exact
    assert (step.interval, step.first_byte, step.last_byte) == measured(name)


def test_large_layers_keep_their_lanes_busy():
    for inputs, hidden, neurons in ((48, 128, 1), (48, 128, 4), (512, 512, 8)):
        layer = TernaryLstmLayerContract(inputs=inputs, hidden=hidden, neurons=neurons)
        ideal = 4 * hidden * (inputs + hidden) / (16 * neurons)
        assert step_cycles(layer, "gates").cycles < 1.05 * ideal


# Models.


def test_the_backend_runs_a_model():
    layer = TernaryLstmLayerContract(**TWO_NEURONS)
    model = random_model(layer, np.random.default_rng(6))
    assert layer_of(model, lanes=4, neurons=2).contract == layer
    x = np.random.default_rng(7).integers(-(2**11), 2**11, (4, 7, 3))
    backend = LayerBackend(
        {"lanes": 4, "neurons": 2, "structure": "fpga"}, asks_state=True, stall_seed=3
    )
    lengths = np.array([7, 1, 4, 6])
    hidden, cell = model.run_with_cell(x)
    got = backend(model, x, lengths)
    for index, length in enumerate(lengths.tolist()):
        np.testing.assert_array_equal(got[index, :length], hidden[index, :length])
        np.testing.assert_array_equal(backend.last_cells[index], cell[index, length - 1])
    with pytest.raises(ValueError, match="x must be from -2048 to 2047, not"):
        backend(model, x + 4096)


def test_the_layer_of_a_model_is_generated(capsys, tmp_path):
    layer = TernaryLstmLayerContract(inputs=3, hidden=5, lanes=10, neurons=2, packing="dense")
    model = random_model(layer, np.random.default_rng(8))
    save_model(tmp_path / "model.npz", Model(model))
    words = [DESIGN.name, "--model", tmp_path / "model.npz", "--out", tmp_path / "out"]
    words += ["--set", "lanes=10", "--set", "neurons=2", "--set", "packing=dense"]
    status, _, err = fewbit(capsys, "generate", *words)
    assert (status, err) == (0, "")
    image = (tmp_path / f"out/{DESIGN.name}.bin").read_bytes()
    assert image == layer.pack(model)
    sheet = json.loads((tmp_path / f"out/{DESIGN.name}.json").read_text())
    assert {**sheet["parameters"], "structure": 0} == {**layer.settings, "structure": 0}
    assert sheet["step"] == cycles_section(step_cycles(layer, "gates"))
    network = json.loads((tmp_path / f"out/{DESIGN.name}_network.json").read_text())
    assert network["layers"][0]["state"] == {"scale": 2.0**-11, "zero_point": 0}
    packed = tmp_path / "packed.bin"
    names = [f"{DESIGN.name}{end}" for end in ("_pack.py", "_constants.npz")]
    subprocess.run([sys.executable, "-I", *names, packed], cwd=tmp_path / "out", check=True)
    assert packed.read_bytes() == image
    # A header's sizes are bytes.
    assert "_INPUTS 6 /*" in (tmp_path / f"out/{DESIGN.name}.h").read_text()


def test_a_layer_with_its_image_inside():
    layer = TernaryLstmLayerContract(**TWO_NEURONS)
    model = random_model(layer, np.random.default_rng(9))
    held = dataclasses.replace(layer, image=layer.pack(model))
    x = np.random.default_rng(1).integers(-(2**11), 2**11, (1, 3, 3))
    sent = [Packet(Kind.INPUT, each.astype("<i2").tobytes()) for each in x[0]]
    got = [answer.data for answer in held.answers(sent)]
    assert got == [each.astype("<i2").tobytes() for each in model.run(x)[0]]
