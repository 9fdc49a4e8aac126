# amaranth: UnusedElaboratable=no
"""The int8 LSTM layer: its image, its packets, the circuit against the golden model."""

import dataclasses
import itertools
import re
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbit.golden.layer import packets
from fewbit.golden.layer.contract import state_bytes
from fewbit.golden.layer.image import ImageError, checksum
from fewbit.golden.layer.image import program as program_of
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.layer.int8_random import random_constants
from fewbit.golden.layer.packets import Kind, Packet, Reply, Status
from fewbit.golden.lstm.int8 import Int8Constants, step_constants
from fewbit.hdl.designs import find
from fewbit.layer_files import c_header
from fewbit.sim.bulk import BulkSimulation, check_bulk
from fewbit.sim.layer import LayerBackend
from fewbit.sim.runner import simulate
from fewbit.sim.verilog import verilog_of
from tests.support.int8_cases import random_case
from tests.support.layer_bench import check_packer, packer_of

DESIGN = find("int8_lstm_layer")
VARIANTS = [
    dict(zip(("cifg", "peephole", "layer_norm", "projection"), flags, strict=True))
    for flags in itertools.product((0, 1), (0, 1), (0, 1), (0, 4))
]


def name_of(variant):
    return "-".join(name for name, value in variant.items() if value) or "plain"


@st.composite
def layers(draw, largest=9):
    hidden = draw(st.integers(1, largest))
    peephole = draw(st.integers(0, 1))
    return Int8LstmLayerContract(
        inputs=draw(st.integers(1, largest)),
        hidden=hidden,
        lanes=draw(st.integers(1, 5)),
        neurons=draw(st.integers(1, 4)),
        cifg=draw(st.integers(0, 1)),
        peephole=peephole,
        layer_norm=draw(st.integers(0, 1)),
        projection=draw(st.integers(0, hidden if peephole else largest)),
    )


def same(left: Int8Constants, right: Int8Constants) -> bool:
    pairs = [
        (getattr(left, field.name), getattr(right, field.name))
        for field in dataclasses.fields(left)
    ]
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)


# The image.


@settings(max_examples=60, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1))
def test_an_image_holds_every_constant(layer, seed):
    constants = random_constants(layer, np.random.default_rng(seed))
    assert same(layer.unpack(layer.pack(constants)), constants)


@settings(max_examples=40, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1))
def test_the_emitted_packer_makes_the_same_image(layer, seed):
    constants = random_constants(layer, np.random.default_rng(seed))
    check_packer(layer, constants)


WRONG = {
    "hidden_shift": 1,
    "shifts": 31,
    "multipliers": -128,
    "hidden_multiplier": 1 << 30 | 1,
    "cell_exponent": -8,
    "cell_clip": 32768,
    "hidden_offset": 129,
    "reset_hidden": 128,
    "folded_bias": 2**31,
    "peephole_weights": 0,
    "activation": "gemmlowp",
    "rounding": "single",
    "input_weights": 128,
}


@pytest.mark.parametrize("name", WRONG)
def test_packer_and_pack_refuse_the_same(name):
    layer = Int8LstmLayerContract(inputs=2, hidden=3)
    constants = random_constants(layer, np.random.default_rng(4))
    emitted = packer_of(layer)
    arrays = layer.arrays_of(constants)
    assert emitted.pack(emitted.plan, arrays) == layer.pack(constants)
    value = WRONG[name]
    if isinstance(value, int) and name in arrays:
        arrays[name] = np.full_like(arrays[name], value, np.int64)
    else:
        arrays[name] = np.asarray(value)
    with pytest.raises(ValueError, match=name):
        emitted.pack(emitted.plan, arrays)
    if name in {"peephole_weights", "input_weights", "folded_bias"}:
        return
    changed = arrays[name] if arrays[name].ndim else arrays[name].item()
    with pytest.raises(ValueError, match=r"must|only shifts right|rounds twice"):
        layer.pack(dataclasses.replace(constants, **{name: changed}))


def test_the_packer_refuses_what_is_missing():
    layer = Int8LstmLayerContract(inputs=2, hidden=3, projection=2)
    other = Int8LstmLayerContract(inputs=2, hidden=3)
    plain = other.arrays_of(random_constants(other, np.random.default_rng(4)))
    emitted = packer_of(layer)
    with pytest.raises(ValueError, match=r"Array projection_.* is missing"):
        emitted.pack(emitted.plan, plain)


@settings(max_examples=60, deadline=None)
@given(layers(), st.integers(0, 2**32 - 1), st.data())
def test_a_broken_image_is_noticed(layer, seed, data):
    image = bytearray(layer.pack(random_constants(layer, np.random.default_rng(seed))))
    # One burst of up to 16 bits is what the checksum promises to see.
    first = data.draw(st.integers(0, 8 * len(image) - 17))
    burst = data.draw(st.integers(1, 2**16 - 1))
    for bit in range(16):
        # The checksum takes the highest bit of a byte first.
        if burst >> bit & 1:
            image[(first + bit) // 8] ^= 0x80 >> (first + bit) % 8
    with pytest.raises(ImageError, match="checksum must be .*; the image is broken"):
        layer.unpack(bytes(image))
    answers = list(layer.answers([Packet(Kind.IMAGE, bytes(image))]))
    assert answers == [Packet(Reply.STATUS, bytes([Status.BROKEN_IMAGE]))]


def test_an_image_of_another_size_is_refused():
    layer = Int8LstmLayerContract(inputs=3, hidden=5)
    image = layer.pack(random_constants(layer, np.random.default_rng(1)))
    with pytest.raises(ImageError, match=f"must hold {len(image)} bytes, not {len(image) - 1}"):
        layer.unpack(image[:-1])


def test_the_checksum_is_the_published_one():
    # CRC-16/IBM-3740 of the nine digits, from the catalogue of parametrised CRCs.
    assert checksum(b"123456789").hex() == "29b1"


def test_a_model_of_another_shape_is_refused():
    rng = np.random.default_rng(1)
    constants = random_constants(Int8LstmLayerContract(inputs=3, hidden=5), rng)
    with pytest.raises(ValueError, match="model's hidden units must be 6, as the layer's, not 5"):
        Int8LstmLayerContract(inputs=3, hidden=6).pack(constants)
    with pytest.raises(ValueError, match="model's peepholes must be True"):
        Int8LstmLayerContract(inputs=3, hidden=5, peephole=1).pack(constants)
    single = dataclasses.replace(constants, rounding="single")
    with pytest.raises(ValueError, match="rounding 'double', not 'single'"):
        Int8LstmLayerContract(inputs=3, hidden=5).pack(single)
    bias = constants.folded_bias.copy()
    bias[0, 1, 0] += 1
    with pytest.raises(ValueError, match="folded bias of the recurrent part"):
        Int8LstmLayerContract(inputs=3, hidden=5).pack(
            dataclasses.replace(constants, folded_bias=bias)
        )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_the_c_header_agrees_with_the_image(tmp_path):
    layer = Int8LstmLayerContract(
        inputs=3, hidden=7, neurons=2, peephole=1, layer_norm=1, projection=4
    )
    image = layer.pack(random_constants(layer, np.random.default_rng(2)))
    (tmp_path / "layer.h").write_text(c_header("layer", layer))
    (tmp_path / "image.bin").write_bytes(image)
    (tmp_path / "main.c").write_text(
        """#include <stdio.h>
        #include "layer.h"
        int main(void) {
            uint8_t image[LAYER_IMAGE_SIZE + 1];
            FILE *file = fopen("image.bin", "rb");
            if (!file || fread(image, 1, sizeof image, file) != LAYER_IMAGE_SIZE) return 1;
            printf("%d %d %d %d", layer_checksum(image, LAYER_IMAGE_SIZE), LAYER_WEIGHTS_OFFSET,
                   LAYER_WEIGHTS_WORDS * LAYER_WEIGHTS_WORD_SIZE, LAYER_CHECKSUM_OFFSET);
            return 0;
        }"""
    )
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["gcc", *flags, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    out = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True)
    weights = layer.schedule.weight_words * layer.neurons * layer.lanes
    assert out.stdout == f"0 {len(image) - 2 - weights} {weights} {len(image) - 2}"


def test_the_packer_runs_by_itself(tmp_path):
    layer = Int8LstmLayerContract(inputs=2, hidden=3)
    constants = random_constants(layer, np.random.default_rng(3))
    (tmp_path / "pack.py").write_text(program_of(layer.plan))
    np.savez(tmp_path / "constants.npz", **layer.arrays_of(constants))

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-I", "pack.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("constants.npz", "image.bin").returncode == 0
    assert (tmp_path / "image.bin").read_bytes() == layer.pack(constants)
    assert "whole" in run("--check", "image.bin").stdout
    wrong = run("missing.npz", "image.bin")
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr


# The circuit.


@cache
def circuit_of(**parameters):
    return BulkSimulation(DESIGN.configure(parameters))


def answers_of(circuit, sent, *, reset=True, stall_seed=None):
    """Packets that the circuit gives, as many bytes as the golden model."""
    expected = list(circuit.contract.answers(sent))
    count = sum(len(answer.data) for answer in expected)
    arrays = circuit.run(packets.beats(sent), count, stall_seed=stall_seed, reset=reset)
    got = list(packets.replies_in(arrays))
    assert got == expected
    return got


SMALL = {"inputs": 3, "hidden": 5, "lanes": 2, "neurons": 2}


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_every_variant_agrees_with_golden(variant):
    parameters = {"inputs": 3, "hidden": 5, "lanes": 1, "neurons": 1} | variant
    outcome = check_bulk(DESIGN.configure(parameters), count=2500, chunk=500, seed=11)
    assert outcome.passed, outcome.counterexample
    assert outcome.vectors >= 2500


@pytest.mark.long
@pytest.mark.parametrize(
    "parameters",
    [
        SMALL,
        {"inputs": 1, "hidden": 1, "lanes": 3, "neurons": 1},
        {"inputs": 7, "hidden": 8, "lanes": 4, "neurons": 3, "activation": "gemmlowp"},
        {
            "inputs": 2,
            "hidden": 7,
            "lanes": 3,
            "neurons": 2,
            "peephole": 1,
            "layer_norm": 1,
            "projection": 5,
            "activation": "gemmlowp",
        },
    ],
    ids=["two-neurons", "one-unit", "gemmlowp", "everything"],
)
def test_odd_shapes_agree_with_golden(parameters):
    outcome = check_bulk(DESIGN.configure(parameters), count=2500, chunk=500, seed=12)
    assert outcome.passed, outcome.counterexample


def image_packet(layer, seed=5):
    image = layer.pack(random_constants(layer, np.random.default_rng(seed)))
    return Packet(Kind.IMAGE, image)


def vectors(rng, layer, count, starts=True):
    return [
        Packet(Kind.INPUT, rng.bytes(layer.inputs), starts=starts and step == 0)
        for step in range(count)
    ]


@pytest.mark.long
def test_sequences_back_to_back_and_reset_in_the_middle():
    circuit = circuit_of(**SMALL)
    rng = np.random.default_rng(6)
    first, second = (vectors(rng, circuit.contract, 6) for _ in range(2))
    image = image_packet(circuit.contract)
    got = answers_of(circuit, [image, *first, *second, *first[:3], *second])
    assert got[1:7] == got[13:16] + answers_of(circuit, [image, *first])[4:]
    assert got[7:13] == got[16:22]


@pytest.mark.long
def test_a_state_saved_and_loaded_continues_the_sequence():
    circuit = circuit_of(**SMALL)
    layer = circuit.contract
    rng = np.random.default_rng(7)
    image = image_packet(layer)
    ours, theirs = (vectors(rng, layer, 8) for _ in range(2))
    whole = [answers_of(circuit, [image, *each])[1:] for each in (ours, theirs)]
    ask = Packet(Kind.SAVE_STATE, b"\0")
    # Two sequences take turns on the one circuit.
    state = [answers_of(circuit, [image, *each[:3], ask])[-1].data for each in (ours, theirs)]
    got = [[], []]
    for index in (0, 1, 1, 0):
        step = 3 + len(got[index])
        turn = [Packet(Kind.LOAD_STATE, state[index])]
        turn += (ours, theirs)[index][step : step + 2]
        answers = answers_of(circuit, [image, *turn, ask])
        got[index] += answers[1:3]
        state[index] = answers[-1].data
    assert got == [each[3:7] for each in whole]


@pytest.mark.long
def test_the_state_is_that_of_the_step_function():
    circuit = circuit_of(**SMALL)
    layer = circuit.contract
    constants = random_constants(layer, np.random.default_rng(5))
    hidden, cell = layer.reset_state(constants)
    x = np.array([[1, -128, 127]])
    ask = Packet(Kind.SAVE_STATE, b"?")
    vector = Packet(Kind.INPUT, x.astype(np.int8).tobytes())
    image = Packet(Kind.IMAGE, layer.pack(constants))
    answers = answers_of(circuit, [image, ask, vector, ask])
    assert answers[1].data == state_bytes(hidden, cell)
    new = step_constants(constants, x, hidden[np.newaxis], cell[np.newaxis])
    assert answers[3].data == state_bytes(new[0][0], new[1][0])


@pytest.mark.long
def test_a_hardware_reset_forgets_parameters_and_state():
    circuit = circuit_of(**SMALL)
    rng = np.random.default_rng(8)
    image = image_packet(circuit.contract)
    sent = vectors(rng, circuit.contract, 3)
    before = answers_of(circuit, [image, *sent])
    # In the middle of an image, and of a vector.
    for cut in (image.data[:100], image.data + sent[0].data[:2]):
        arrays = packets.beats([Packet(Kind.IMAGE, cut)])
        arrays["s_axis_tlast"][:] = 0
        circuit.run(arrays, 0)
        assert answers_of(circuit, sent)[0].data == bytes([Status.NO_IMAGE])
        assert answers_of(circuit, [image, *sent]) == before


@pytest.mark.long
@pytest.mark.parametrize("stall_seed", range(6))
def test_stalls_change_nothing(stall_seed):
    circuit = circuit_of(**SMALL)
    rng = np.random.default_rng(9)
    layer = circuit.contract
    sent = [
        image_packet(layer),
        *vectors(rng, layer, 5),
        Packet(Kind.SAVE_STATE, b"\0"),
        Packet(Kind.INPUT, b"too long"),
        *vectors(rng, layer, 5),
        Packet(Kind.LOAD_STATE, rng.bytes(layer.state_size)),
        *vectors(rng, layer, 5, starts=False),
    ]
    answers_of(circuit, sent, stall_seed=stall_seed)


@pytest.mark.long
def test_a_layer_with_its_parameters_fixed():
    layer = Int8LstmLayerContract(**SMALL)
    rng = np.random.default_rng(10)
    image = layer.pack(random_constants(layer, rng))
    circuit = BulkSimulation(DESIGN.configure(SMALL, image=image))
    sent = vectors(rng, layer, 4, starts=False)
    ask = Packet(Kind.SAVE_STATE, b"\0")
    other = image_packet(layer, seed=99)
    got = answers_of(circuit, [ask, *sent, other, ask, *sent, *vectors(rng, layer, 3)])
    assert got[5].data == bytes([Status.IMAGE_INSIDE])
    # The same bytes as from a layer that was given the image.
    given = answers_of(circuit_of(**SMALL), [Packet(Kind.IMAGE, image), *sent])
    assert got[1:5] == given[1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.where(x == x[0, 0, 0], 128, x), "x must be from -128 to 127, not 128."),
        (lambda x: x - 256, "x must be from -128 to 127, not -"),
        (lambda x: x / 2, "x must be integers, not float64; round them to raws first."),
        (lambda x: x[0], "x must have the shape (any, any, "),
        (lambda x: x[..., :-1], "x must have the shape (any, any, "),
    ],
)
def test_the_backend_refuses_what_is_no_raw(change, message):
    case = random_case(1, exponent=-12)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        LayerBackend()(case.model, change(case.x.astype(np.int64)))


@pytest.mark.long
def test_a_broken_circuit_is_noticed():
    text = verilog_of(DESIGN.configure(SMALL))
    assert text.count("16'hffff") >= 1
    broken = text.replace("16'hffff", "16'hfffe")
    outcome = check_bulk(DESIGN.configure(SMALL), count=300, seed=1, verilog=broken)
    assert not outcome.passed
    assert "differs from the golden model" in outcome.counterexample
    assert "status" in outcome.counterexample


@pytest.mark.long
def test_a_stale_cell_is_noticed():
    text = verilog_of(DESIGN.configure(SMALL))
    # The old cell of a unit, masked at reset, but for its highest bit.
    broken = text.replace("{ takes, takes", "{ 1'h1, takes", 1)
    assert broken != text
    outcome = check_bulk(DESIGN.configure(SMALL), count=3000, seed=1, verilog=broken)
    assert not outcome.passed


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="projection must be at most hidden, 4"):
        Int8LstmLayerContract(hidden=4, peephole=1, projection=5)
    with pytest.raises(ValueError, match="lanes must be a whole number from 1 to 64, not 65"):
        Int8LstmLayerContract(lanes=65)


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_nothing_unknown_leaves_the_circuit(tmp_path):
    # Icarus knows X, and here the memories start with nothing.
    parameters = {"inputs": 2, "hidden": 2, "lanes": 1, "structure": "fpga"}
    outcome = simulate(DESIGN.configure(parameters), tmp_path, simulator="icarus", count=200)
    assert outcome.passed, outcome.failures
