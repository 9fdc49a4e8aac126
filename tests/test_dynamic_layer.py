# amaranth: UnusedElaboratable=no
"""The int8 layer whose precision is chosen per step: image, decisions, circuit and cycles."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from amaranth.hdl import Cat, Module
from amaranth.sim import Simulator

from examples.layer_cycles import without_left_shifts
from fewbit.golden.layer import int8_dynamic, packets
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.layer.int8_dynamic import (
    DynamicConstants,
    DynamicInt8LstmLayerContract,
    PrecisionHistory,
    random_dynamic_constants,
)
from fewbit.golden.layer.packets import Kind, Packet, Reply
from fewbit.golden.lstm import dynamic
from fewbit.golden.lstm.dynamic import low_constants
from fewbit.golden.lstm.int8 import step_constants
from fewbit.golden.systems import layer_of
from fewbit.hdl.accumulate.int8_halves import HALVES, Int8HalfProducts
from fewbit.hdl.design import ParameterError
from fewbit.hdl.designs import find
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.int8_dynamic import DynamicInt8LstmLayer as Circuit
from fewbit.hdl.layer.integer_cycles import cycles_of_groups, step_cycles
from fewbit.layer_files import c_header, cycles_section
from fewbit.sim.bulk import BulkSimulation, compare
from tests.support.int8_cases import random_case
from tests.support.layer_bench import check_packer

DESIGN = find("int8_lstm_layer")
SIZES = {"inputs": 5, "hidden": 7, "lanes": 3, "neurons": 2}
LAYER = DynamicInt8LstmLayerContract(**SIZES)


def constants(layer=LAYER, seed=1, **changes):
    found = random_dynamic_constants(layer, np.random.default_rng(seed))
    return dataclasses.replace(found, **changes)


@pytest.fixture(scope="module")
def circuit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bulk")
    return BulkSimulation(DESIGN.configure({**SIZES, "dynamic": 1}), folder)


def vectors(rng, count, layer=LAYER):
    return [Packet(Kind.INPUT, rng.bytes(layer.inputs), index == 0) for index in range(count)]


def replies(circuit, sent, layer=LAYER):
    """What the circuit answers, and what it must."""
    wanted = list(layer.answers(sent))
    size = sum(len(each.data) for each in wanted)
    found = circuit.run(packets.beats(sent), size, reset=True, patience=100_000)
    return list(packets.replies_in(found)), wanted


# The golden layer.


@pytest.mark.parametrize("seed", range(24))
def test_an_image_holds_every_constant(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(each) for each in rng.integers(1, (9, 9, 6, 5))]
    layer = DynamicInt8LstmLayerContract(*sizes[:2], lanes=sizes[2], neurons=sizes[3])
    given = random_dynamic_constants(layer, rng)
    image = layer.pack(given)
    found = layer.unpack(image)
    assert (found.threshold, found.hold) == (given.threshold, given.hold)
    assert np.array_equal(found.offsets, given.offsets)
    for name in ("input_weights", "recurrent_weights", "folded_bias", "multipliers", "shifts"):
        assert np.array_equal(getattr(found.whole, name), getattr(given.whole, name)), name
    check_packer(layer, given)


def test_an_image_of_one_lane_by_hand():
    layer = DynamicInt8LstmLayerContract(inputs=1, hidden=1, lanes=1)
    rows = np.array([0x12, 0x34, 0x56, 0x78], np.int8).reshape(4, 1, 1)
    whole = dataclasses.replace(
        random_dynamic_constants(layer, np.random.default_rng(0)).whole,
        input_weights=rows,
        recurrent_weights=-rows,
        folded_bias=np.zeros((4, 2, 1), np.int32),
        reset_hidden=0,
    )
    image = layer.pack(DynamicConstants(whole, 0x1234, 5, np.full((4, 2, 1), -3, np.int8), 1))
    found = layer.plan.split(image)
    # 12, -12 = EE, 34, -34 = CC, 56, -56 = AA, 78, -78 = 88; high, low, high ... and low, high ...
    assert found["weights_first"].reshape(-1).tolist() == [1, 6, 3, 4, 5, 2, 7, 0]
    assert found["weights_second"].reshape(-1).tolist() == [14, 10, 12, 12, 10, 14, 8, 0]
    assert found["configuration"][0, -3:].tolist() == [0x34, 0x12, 5]
    assert found["starts"].tolist() == [[0, 0, 0, 253]] * 8


def plain_steps(whole, sent):
    """Hidden raws by the int8 layer, step by step from reset."""
    hidden = np.full((1, len(whole.recurrent_weights[0])), whole.reset_hidden)
    cell = np.zeros_like(hidden)
    for packet in sent:
        x = np.frombuffer(packet.data, np.int8).astype(np.int64)[np.newaxis]
        hidden, cell = step_constants(whole, x, hidden, cell)
        yield hidden[0].tolist()


def hidden_of(answers):
    kinds = [each for each in answers if each.kind == Reply.HIDDEN]
    return [np.frombuffer(each.data, np.int8).tolist() for each in kinds]


def test_with_hold_255_it_is_the_int8_layer():
    given = constants(hold=255)
    sent = vectors(np.random.default_rng(2), 20)
    image = Packet(Kind.IMAGE, LAYER.pack(given))
    assert hidden_of(LAYER.answers([image, *sent])) == list(plain_steps(given.whole, sent))


def test_with_hold_0_all_but_two_steps_are_those_of_rounded_weights():
    given = constants(hold=0)
    sent = vectors(np.random.default_rng(2), 20)
    found = hidden_of(LAYER.answers([Packet(Kind.IMAGE, LAYER.pack(given)), *sent]))
    halves = low_constants(given.whole, given.offsets)
    hidden = np.full((1, LAYER.hidden), given.whole.reset_hidden)
    cell = np.zeros_like(hidden)
    for moment, packet in enumerate(sent):
        x = np.frombuffer(packet.data, np.int8).astype(np.int64)[np.newaxis]
        hidden, cell = step_constants(given.whole if moment < 2 else halves, x, hidden, cell)
        assert found[moment] == hidden[0].tolist()


def modes_by_hand(cells, threshold, hold, neurons):
    """Which groups are HIGH at each step, from all cells, in plain Python."""
    groups = -(-len(cells[0]) // neurons)
    counters = [0] * groups
    yield [True] * groups
    for moment, (before, after) in enumerate(pairwise(cells), 1):
        for group in range(groups):
            units = range(group * neurons, min((group + 1) * neurons, len(after)))
            moved = any(abs(after[unit] - before[unit]) > threshold for unit in units)
            counters[group] = hold if moved else max(0, counters[group] - 1)
        yield [counter > 0 or moment < 2 for counter in counters]


@pytest.mark.parametrize("neurons", [1, 2, 4])
@pytest.mark.parametrize(("threshold", "hold"), [(0, 1), (2000, 1), (2000, 3), (65535, 7)])
def test_a_group_is_high_while_one_of_its_units_moves(neurons, threshold, hold):
    layer = dataclasses.replace(LAYER, neurons=neurons)
    history = layer.history(constants(layer, threshold=threshold, hold=hold))
    rng = np.random.default_rng(5)
    hidden, cell = layer.reset_state(history.constants)
    cells, modes = [cell.tolist()], []
    for _ in range(30):
        modes.append(history.high.tolist())
        hidden, cell = history.step(rng.integers(-128, 128, layer.inputs), hidden, cell)
        cells.append(cell.tolist())
    assert modes == list(modes_by_hand(cells, threshold, hold, neurons))[:-1]
    high = sum(sum(each) for each in modes)
    low = 30 * -(-layer.hidden // neurons) - high
    assert (history.high_passes, history.low_passes) == (high, low)


def dynamic_case(seed=3, group=2):
    """A random model whose precision is chosen per step, and sequences of raws."""
    rng = np.random.default_rng(seed)
    case = random_case(seed, exponent=-12)
    offsets = rng.integers(-128, 128, case.model.constants.folded_bias.shape).astype(np.int8)
    model = dataclasses.replace(
        case.model,
        rounding="double",
        precision_threshold=700,
        precision_hold=2,
        precision_group=group,
        low_offsets=offsets,
    )
    return model, rng.integers(-128, 128, (3, 25, model.inputs))


@pytest.mark.parametrize("group", [1, 3])
def test_the_layer_is_the_model(group):
    model, x = dynamic_case(group=group)
    found = layer_of(model)
    assert (found.design, found.contract.neurons) == (DESIGN.name, group)
    image = Packet(Kind.IMAGE, found.image)
    run = dynamic.run(model, x)
    assert 0.1 < run.low_share() < 0.9
    for sequence, hidden in zip(x, run.hidden, strict=True):
        sent = [
            Packet(Kind.INPUT, step.astype(np.int8).tobytes(), index == 0)
            for index, step in enumerate(sequence)
        ]
        assert hidden_of(found.contract.answers([image, *sent])) == hidden.tolist()
    with pytest.raises(ValueError, match=f"groups of {group} units, so the layer must have"):
        _ = layer_of(model, neurons=5).image


@pytest.mark.parametrize("name", ["cifg", "peephole", "layer_norm", "projection"])
def test_variants_are_refused(name):
    with pytest.raises(ValueError, match=f"dynamic precision takes no {name}; leave dynamic or"):
        DynamicInt8LstmLayerContract(**{name: 1})


def test_what_does_not_fit_is_refused():
    given = constants()
    folded = given.whole.folded_bias.copy()
    folded[0, 0, 0] = 1 << 23
    wide = dataclasses.replace(given.whole, folded_bias=folded)
    with pytest.raises(ValueError, match="from -8388608 to 8388607, not 8388608; give the model"):
        LAYER.pack(dataclasses.replace(given, whole=wide))
    with pytest.raises(ValueError, match=r"offsets must have the shape \(4, 2, 7\), not \(4, 2\)"):
        LAYER.pack(dataclasses.replace(given, offsets=np.zeros((4, 2), np.int8)))
    with pytest.raises(ValueError, match="of 3 units, so the layer must have 3 neurons, not 2"):
        LAYER.pack(dataclasses.replace(given, group=3))
    assert DynamicInt8LstmLayerContract(hidden=257).start_bytes == 4
    sentence = "chosen by the output_gate, so the layer's signal must be output_gate, not cell_"
    with pytest.raises(ValueError, match=sentence):
        LAYER.pack(dataclasses.replace(given, signal="output_gate"))
    with pytest.raises(ParameterError, match="set dynamic=1 or leave signal=output_gate out"):
        DESIGN.configure({"signal": "output_gate"})


def test_the_header_names_the_passes():
    assert "_REPLY_PASSES 3" in c_header("layer", LAYER)
    assert "PASSES" not in c_header("layer", Int8LstmLayerContract(**SIZES))


# The lanes.


@pytest.mark.parametrize("structure", ["gates", "fpga"])
@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_sum_halves(structure, lanes):
    unit = Int8HalfProducts(lanes, 12, structure)
    m = Module()
    m.submodules.unit = unit
    simulator = Simulator(m)
    rng = np.random.default_rng(lanes)

    async def bench(ctx):
        for trial in range(120):
            draw = (lambda low, high: rng.choice([low, high - 1])) if trial < 40 else rng.integers
            weights = draw_halves(draw, lanes, 8)
            values = draw_halves(draw, lanes, 128)
            raises = int(rng.integers(0, 4))
            start, correction = int(draw(-(2**31), 2**31)), int(draw(-2048, 2048))
            offset = int(draw(-128, 128))
            ctx.set(unit.weights, weights)
            ctx.set(unit.activations, values)
            ctx.set(unit.raises, raises)
            ctx.set(unit.start, start)
            ctx.set(unit.correction, correction)
            ctx.set(unit.offset, offset)
            expected = start + 8 * correction + 64 * offset
            for place, half in enumerate(HALVES):
                total = sum(w * x for w, x in zip(weights[half], values[half], strict=True))
                expected += total << (4 * (raises >> place & 1))
            assert (ctx.get(unit.total) - expected) % 2**32 == 0, f"trial {trial}, seed {lanes}"

    simulator.add_testbench(bench)
    simulator.run()


def draw_halves(draw, lanes, end):
    return {half: [int(draw(-end, end)) for _ in range(lanes)] for half in HALVES}


# The circuit.


@pytest.mark.long
def test_the_circuit_agrees_with_golden(circuit):
    outcome = compare(circuit, count=3000, chunk=1000)
    assert not outcome.mismatches, outcome.counterexample


@pytest.mark.long
@pytest.mark.parametrize(
    ("sizes", "more"),
    [
        ((1, 1, 1, 1), {}),
        # Neurons that share an interpolation; and updates that need the gate's place themselves.
        ((5, 7, 3, 2), {"signal": "output_gate"}),
        ((1, 1, 1, 1), {"signal": "output_gate", "activation": "gemmlowp"}),
        ((40, 4, 1, 1), {"signal": "output_gate"}),
    ],
    ids=["one", "gate", "gemmlowp", "slow"],
)
def test_other_sizes_agree_with_golden(sizes, more, tmp_path):
    settings = dict(zip(SIZES, sizes, strict=True))
    made = BulkSimulation(DESIGN.configure({**settings, **more, "dynamic": 1}), tmp_path)
    outcome = compare(made, count=1500, chunk=750)
    assert not outcome.mismatches, outcome.counterexample


def wrong_offsets(whole, offsets):
    """Off by one: 64 in a sum."""
    return low_constants(whole, (offsets ^ 1).astype(np.int8))


class Late(PrecisionHistory):
    """Takes whole weights in one step of a sequence, not in two."""

    def restart(self):
        super().restart()
        self._moment = 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "wrong"), [("low_constants", wrong_offsets), ("PrecisionHistory", Late)]
)
def test_what_is_wrong_is_found(circuit, monkeypatch, name, wrong):
    # The circuit stands; of golden and circuit, it makes no difference which is the broken copy.
    monkeypatch.setattr(int8_dynamic, name, wrong)
    outcome = compare(circuit, count=1500, chunk=1500, seed=3)
    assert outcome.mismatches
    assert "(seed 3) differs from the golden model" in outcome.counterexample


@pytest.mark.long
@pytest.mark.parametrize("hold", [0, 1, 3, 255])
@pytest.mark.parametrize("threshold", [0, 1500, 65535])
def test_registers_and_passes(circuit, threshold, hold):
    rng = np.random.default_rng(hold)
    image = Packet(Kind.IMAGE, LAYER.pack(constants(threshold=7, hold=2)))
    request = Packet(Kind.SAVE_STATE, bytes([9, *threshold.to_bytes(2, "little"), hold]))
    sent = [image, request, *vectors(rng, 12), Packet(Kind.SAVE_STATE, b"?")]
    found, wanted = replies(circuit, sent)
    assert found == wanted
    assert [each.kind for each in found[-2:]] == [Reply.STATE, Reply.PASSES]
    passes = np.frombuffer(found[-1].data, "<u4")
    assert passes.sum() == 12 * 4
    if hold in {0, 255}:
        assert passes[0] == (8 if hold == 0 else 48)


@pytest.mark.long
def test_a_loaded_state_begins_with_two_whole_steps(circuit):
    rng = np.random.default_rng(6)
    image = Packet(Kind.IMAGE, LAYER.pack(constants(threshold=60000, hold=1)))
    state = Packet(Kind.LOAD_STATE, rng.bytes(LAYER.state_size))
    sent = [image, *vectors(rng, 5), state, *vectors(rng, 5)]
    sent[-5] = dataclasses.replace(sent[-5], starts=False)
    found, wanted = replies(circuit, [*sent, Packet(Kind.SAVE_STATE, b"?")])
    assert found == wanted
    # Of ten steps with four groups the first two and those after the load.
    assert np.frombuffer(found[-1].data, "<u4").tolist() == [16, 24]


@pytest.mark.long
def test_an_image_clears_the_passes(circuit):
    rng = np.random.default_rng(7)
    image = Packet(Kind.IMAGE, LAYER.pack(constants(hold=0)))
    sent = [image, *vectors(rng, 4), image, *vectors(rng, 3), Packet(Kind.SAVE_STATE, b"?")]
    found, wanted = replies(circuit, sent)
    assert found == wanted
    assert found[-1].data == bytes([8, 0, 0, 0, 4, 0, 0, 0])


SMALL = {"inputs": 2, "hidden": 3, "lanes": 1, "neurons": 1}


def reads_of(hold, steps, monkeypatch):
    """Words of high halves and of low ones that are read, of each memory."""
    memories = {}

    def noted(store, m, name):
        memories[name] = memory(store, m, name)
        return memories[name]

    memory = ImageStore.memory
    monkeypatch.setattr(ImageStore, "memory", noted)
    layer = DynamicInt8LstmLayerContract(**SMALL)
    image = layer.pack(constants(layer, hold=hold))
    unit = Circuit(DynamicInt8LstmLayerContract(image=image, **SMALL))
    m = Module()
    m.submodules.unit = unit
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    counts = np.zeros((2, 2), int)
    sent = [Packet(Kind.INPUT, each.data, each.starts) for each in steps]
    _, *answers = layer.answers([Packet(Kind.IMAGE, image), *sent])
    wanted = b"".join(each.data for each in answers)
    got = bytearray()

    async def feed(ctx):
        for packet in sent:
            for index, byte in enumerate(packet.data):
                ctx.set(unit.i.payload.s_axis_tdata, byte)
                ctx.set(unit.i.payload.s_axis_tlast, index == len(packet.data) - 1)
                ctx.set(unit.i.payload.s_axis_tdest, packet.kind)
                ctx.set(unit.i.payload.s_axis_tuser, packet.starts)
                ctx.set(unit.i.valid, 1)
                await ctx.tick().until(unit.i.ready)
        ctx.set(unit.i.valid, 0)

    async def watch(ctx):
        ctx.set(unit.o.ready, 1)
        halves = [memories[f"weights_{name}"] for name in HALVES]
        ports = [(port.en, port.addr[0]) for half in halves for port in half.read_ports]
        while len(got) < len(wanted):
            _, _, valid, byte, *reads = await ctx.tick().sample(
                unit.o.valid,
                unit.o.payload.m_axis_tdata,
                *(Cat(*port) for port in ports),
            )
            if valid:
                got.append(byte)
            for number, read in enumerate(reads):
                counts[number, read >> 1] += read & 1

    simulator.add_testbench(feed, background=True)
    simulator.add_testbench(watch)
    simulator.run()
    assert bytes(got) == wanted, "seed 1"
    return counts


@pytest.mark.long
def test_low_halves_are_not_read_in_low_steps(monkeypatch):
    steps = vectors(np.random.default_rng(8), 4, DynamicInt8LstmLayerContract(**SMALL))
    # Words of weights in a step: of each unit rows of four gates, 2 and 3 words.
    words = 3 * 4 * (2 + 3)
    high, low = (reads_of(hold, steps, monkeypatch).sum(axis=0).tolist() for hold in (255, 0))
    assert high == [4 * words, 4 * words]
    assert low == [4 * words, 2 * words]


# Cycles.


def without_shifts(given):
    return dataclasses.replace(given, whole=without_left_shifts(given.whole))


@pytest.mark.long
@pytest.mark.parametrize("hold", [255, 0, 1])
def test_cycles_are_those_of_the_circuit(circuit, hold):
    given = without_shifts(constants(hold=hold, threshold=1500))
    image = Packet(Kind.IMAGE, LAYER.pack(given))
    sent = vectors(np.random.default_rng(9), 40)
    history = LAYER.history(given)
    hidden, cell = LAYER.reset_state(given)
    modes = []
    for packet in sent:
        modes.append((~history.high).tolist())
        x = np.frombuffer(packet.data, np.int8).astype(np.int64)
        hidden, cell = history.step(x, hidden, cell)
    cycles = []
    for count in (4, 40):
        found, wanted = replies(circuit, [image, *sent[:count]])
        assert found == wanted
        cycles.append(circuit.cycles)
    expected = sum(cycles_of_groups(LAYER, "gates", low) for low in modes[4:])
    assert cycles[1] - cycles[0] == expected
    step = step_cycles(LAYER, "gates")
    assert step.is_exact
    if hold != 1:
        assert expected == 36 * (step.cycles if hold else step.least_cycles)
    else:
        assert 0 < sum(map(sum, modes[4:])) < 36 * 4


def test_the_data_sheet_gives_both_cycles():
    layer = DynamicInt8LstmLayerContract(inputs=48, hidden=128, lanes=16, neurons=4)
    section = cycles_section(step_cycles(layer, "gates"))
    plain = cycles_section(step_cycles(layer.plain, "gates"))
    # A sum waits at one more place than there.
    assert (section["cycles"], plain["cycles"]) == (1423, 1422)
    assert section["cycles_low"] == 814
    assert "cycles_low" not in plain
