# amaranth: UnusedElaboratable=no
"""The parts of the layer engine, each by itself."""

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import signed
from amaranth.lib.data import StructLayout
from amaranth.sim import Simulator

from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.layer.int8_dynamic import DynamicInt8LstmLayerContract
from fewbit.golden.layer.packets import Kind, Packet, Reply, Status, beats
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.hdl.design import ConfiguredDesign
from fewbit.hdl.designs import DESIGNS
from fewbit.hdl.layer.answer import Answer
from fewbit.hdl.layer.collect import Collect
from fewbit.hdl.layer.feed_halves import VectorSum
from fewbit.hdl.layer.front import Front
from fewbit.hdl.layer.gates import StoredGates
from fewbit.hdl.layer.int8 import places_of
from fewbit.hdl.layer.issue import Issue
from fewbit.hdl.layer.places import Place, Places

LAYERS = {
    "int8": ("int8_lstm_layer", {}),
    "everything": (
        "int8_lstm_layer",
        {"layer_norm": 1, "peephole": 1, "projection": 6, "cifg": 1, "neurons": 2},
    ),
    "dynamic": ("int8_lstm_layer", {"dynamic": 1, "neurons": 2}),
    "output gate": ("int8_lstm_layer", {"dynamic": 1, "signal": "output_gate"}),
    "floatsd8": ("floatsd8_lstm_layer", {"neurons": 2}),
    "ternary": ("ternary_lstm_layer", {"neurons": 2}),
    "side by side": (
        "ternary_lstm_layer",
        {"gate_order": "side_by_side", "scales": "powers_of_two", "neurons": 1},
    ),
}
SMALL = {"inputs": 5, "hidden": 7}


def configured(name: str, **more: int) -> ConfiguredDesign:
    design, settings = LAYERS[name]
    return DESIGNS[design].configure({**settings, **SMALL, **more})


def attributes(part) -> dict[str, int]:
    """What a component has, but for Amaranth's note that it was used."""
    return {name: id(value) for name, value in vars(part).items() if "MustUse" not in name}


def simulate(component, bench) -> None:
    simulator = Simulator(component)
    simulator.add_clock(1e-6, if_exists=True)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.long
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_can_be_elaborated_twice(name):
    layer = configured(name).component()
    parts = (layer, layer.feed, layer.neurons, layer.cells)
    before = [attributes(part) for part in parts]
    first = rtlil.convert(layer, emit_src=False)
    assert [attributes(part) for part in parts] == before
    assert rtlil.convert(layer, emit_src=False) == first


# The front.


@pytest.mark.parametrize("held", [False, True])
def test_the_front_puts_the_bytes_of_an_image_on_the_bus(held):
    contract = Int8LstmLayerContract(inputs=3, hidden=2, lanes=2, neurons=1)
    image = contract.random_image(np.random.default_rng(1))
    if held:
        contract = Int8LstmLayerContract(inputs=3, hidden=2, lanes=2, neurons=1, image=image)
    places = places_of(contract)
    front = Front(places)
    sections = contract.plan.split(image)
    written = {
        name: np.full(words.shape, -1, np.int64).tolist() for name, words in sections.items()
    }
    sent = beats([Packet(Kind.IMAGE, image), Packet(Kind.INPUT, b"\x01\x02\x03", starts=True)])

    async def bench(ctx):
        ctx.set(front.idle, 1)
        ctx.set(front.answered, 1)
        inputs, statuses = [], []
        for data, last, kind, starts in zip(*sent.values(), strict=True):
            beat = front.i.payload
            for signal, value in zip(
                (beat.s_axis_tdata, beat.s_axis_tlast, beat.s_axis_tdest, beat.s_axis_tuser),
                (data, last, kind, starts),
                strict=True,
            ):
                ctx.set(signal, int(value))
            ctx.set(front.i.valid, 1)
            while True:
                ready = ctx.get(front.i.ready)
                if ctx.get(front.offers_status):
                    statuses.append(int(ctx.get(front.status)))
                bus = {
                    name: ctx.get(getattr(front.bus, name))
                    for name in ("writes", "place", "word", "byte", "data")
                }
                await ctx.tick()
                if bus["writes"] and bus["place"] == Place.INPUT:
                    inputs.append(bus["data"])
                elif bus["writes"] and bus["place"] - places.image < len(sections):
                    name = list(sections)[bus["place"] - places.image]
                    written[name][bus["word"]][bus["byte"]] = bus["data"]
                if ready:
                    break
        ctx.set(front.i.valid, 0)
        assert inputs == [1, 2, 3]
        assert ctx.get(front.full) == 1
        assert ctx.get(front.starts) == 1
        assert statuses == [Status.IMAGE_INSIDE if held else Status.LOADED]

    simulate(front, bench)
    for name, words in sections.items():
        wanted = np.full(words.shape, -1) if held else words
        np.testing.assert_array_equal(written[name], wanted, name)


def test_the_front_keeps_a_second_vector_and_refuses_a_third():
    places = places_of(Int8LstmLayerContract(inputs=1, hidden=1, lanes=1, neurons=1))
    front = Front(places)

    async def bench(ctx):
        beat = front.i.payload
        ctx.set(front.i.valid, 1)
        ctx.set(beat.s_axis_tlast, 1)
        # No image is there: each vector is answered by a status.
        taken = 0
        for _ in range(20):
            ctx.set(front.idle, 1)
            taken += ctx.get(front.i.ready)
            assert not ctx.get(front.full)
            await ctx.tick()
            if ctx.get(front.offers_status):
                assert ctx.get(front.status) == Status.NO_IMAGE
        # The status was never taken, so nothing more is.
        assert taken == 1

    simulate(front, bench)


# The walk.


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("stalls", [False, True])
def test_issue_walks_the_schedule(name, stalls):
    """Rows, words, weights and starts in the order of `Schedule.walk`, with whole weights."""
    contract = configured(name).contract
    schedule = contract.schedule
    segments = tuple(dict.fromkeys(task.segment for task in schedule.tasks))
    issue = Issue(schedule, segments)
    rng = np.random.default_rng(7)
    wanted = []
    weight = start = 0
    for phase, group, row in schedule.walk():
        task = next(task for task in phase.tasks if row in task.rows)
        for beat in range(schedule.beats(row)):
            wanted.append(
                {
                    "weight": weight,
                    "word": beat // schedule.sums,
                    "group": group,
                    "segment": segments.index(task.segment),
                    "input": int(row.part == "input"),
                    "recurrent": int(row.part == "recurrent"),
                    "inner": int(row.part == "inner"),
                    "products": int(row.part != "none"),
                    "starts": int(row.start == "image"),
                    "starts_from_gate": int(row.start == "gate"),
                    "needs_cell": int(row.needs_cell),
                    "reads_word": int(beat % schedule.sums == 0),
                    "first_word": int(beat < schedule.sums),
                    "last_word": int(beat >= schedule.beats(row) - schedule.sums),
                }
            )
            if row.start == "image":
                wanted[-1]["start"] = start + (beat if schedule.sums > 1 else 0)
                if beat >= schedule.sums:
                    del wanted[-1]["start"]
            weight += row.part != "none"
        start += schedule.sums * (row.start == "image")

    async def bench(ctx):
        for _ in range(2):
            phase, found = 0, []
            ctx.set(issue.begins, 1)
            await ctx.tick()
            ctx.set(issue.begins, 0)
            while True:
                ready = not stalls or rng.random() < 0.6
                ctx.set(issue.o.ready, int(ready))
                if ctx.get(issue.o.valid):
                    if ready:
                        values = wanted[len(found)]
                        found.append({field: ctx.get(issue.o.payload[field]) for field in values})
                    await ctx.tick()
                    continue
                if phase == len(schedule.phases) - 1:
                    break
                phase += 1
                ctx.set(issue.next_phase, 1)
                await ctx.tick()
                ctx.set(issue.next_phase, 0)
                ctx.set(issue.phase, phase)
            assert found == wanted
            ctx.set(issue.phase, 0)

    simulate(issue, bench)


def test_issue_takes_two_words_at_once_where_the_weights_are_halved():
    contract = DynamicInt8LstmLayerContract(inputs=9, hidden=2, lanes=2, neurons=1)
    schedule = contract.schedule
    issue = Issue(schedule)

    async def bench(ctx):
        ctx.set(issue.low, 1)
        ctx.set(issue.o.ready, 1)
        ctx.set(issue.begins, 1)
        await ctx.tick()
        ctx.set(issue.begins, 0)
        beats, words = 0, []
        while ctx.get(issue.o.valid):
            o = issue.o.payload
            beats += 1
            lacks = ctx.get(o.lacks)
            pair = (ctx.get(o.word), ctx.get(o.second_word))
            words += [word for place, word in enumerate(pair) if not lacks >> place & 1]
            await ctx.tick()
        assert beats == sum(schedule.least_beats(row) for _, _, row in schedule.walk())
        # Every word of every row, each once.
        wanted = [
            word for _, _, row in schedule.walk() for word in sorted(range(schedule.beats(row)))
        ]
        assert sorted(words) == sorted(wanted)

    simulate(issue, bench)


# Sums of vectors, results and answers.


def test_a_vector_sum_is_kept_while_the_next_one_comes():
    rng = np.random.default_rng(3)
    vectors = rng.integers(-128, 128, (20, 9))
    unit = VectorSum(12)

    async def bench(ctx):
        for vector in vectors.tolist():
            for index, value in enumerate(vector):
                ctx.set(unit.value, value)
                ctx.set(unit.adds, 1)
                ctx.set(unit.restarts, int(index == 0))
                ctx.set(unit.keeps, int(index == len(vector) - 1))
                await ctx.tick()
            assert ctx.get(unit.kept) == sum(vector)

    simulate(unit, bench)


def result_of(width):
    return StructLayout({"result": signed(width), "cell_result": signed(16)})


def test_results_are_collected_unit_by_unit():
    """Three units of two neurons: the fourth is padding, and leaves no trace."""
    contract = Int8LstmLayerContract(inputs=2, hidden=3, lanes=2, neurons=2)
    collect = Collect(places_of(contract), result_of(8))

    async def bench(ctx):
        ctx.set(collect.begins, 1)
        await ctx.tick()
        ctx.set(collect.begins, 0)
        ctx.set(collect.o.ready, 1)
        left, taken, done = [], [], 0
        for index, stream in enumerate(collect.i):
            ctx.set(stream.payload.result, 10 + index)
            ctx.set(stream.valid, 1)
        for _ in range(4):
            if ctx.get(collect.o.valid):
                left.append((ctx.get(collect.o.payload.data), ctx.get(collect.o.payload.last)))
            if ctx.get(collect.vectors.to_hidden):
                word, lane = ctx.get(collect.vectors.word), ctx.get(collect.vectors.lane)
                taken.append((word, lane, ctx.get(collect.new_cells.enable)))
            done += ctx.get(collect.phase_is_collected)
            await ctx.tick()
        assert left == [(10, 0), (11, 0), (10, 1)]
        assert taken == [(0, 0, 1), (0, 1, 2), (1, 0, 1)]
        assert done == 1

    simulate(collect, bench)


def test_a_result_waits_until_its_last_byte_is_taken():
    contract = TernaryLstmLayerContract(inputs=2, hidden=1, lanes=4, neurons=1)
    places = Places(contract, 12, 16)
    collect = Collect(places, result_of(12))
    assert places.value_bytes == 2

    async def bench(ctx):
        ctx.set(collect.i[0].payload.result, -3)
        ctx.set(collect.i[0].valid, 1)
        for data, last in ((0xFD, 0), (0xFF, 1)):
            ctx.set(collect.o.ready, 0)
            assert not ctx.get(collect.i[0].ready)
            await ctx.tick()
            assert ctx.get(collect.o.valid)
            assert (ctx.get(collect.o.payload.data), ctx.get(collect.o.payload.last)) == (
                data,
                last,
            )
            ctx.set(collect.o.ready, 1)
            assert ctx.get(collect.i[0].ready) == last
            await ctx.tick()

    simulate(collect, bench)


def test_a_status_goes_before_the_state_and_hidden_values():
    contract = FloatSD8LstmLayerContract(inputs=2, hidden=2)
    answer = Answer(Places(contract, 8, 16))

    async def bench(ctx):
        out = answer.o.payload
        ctx.set(answer.hidden.valid, 1)
        ctx.set(answer.hidden.payload.data, 77)
        ctx.set(answer.saved_cell, 5)
        ctx.set(answer.status, Status.NO_IMAGE)
        assert (ctx.get(out.m_axis_tdata), ctx.get(out.m_axis_tdest)) == (77, Reply.HIDDEN)
        ctx.set(answer.offers_state, 1)
        ctx.set(answer.bus.place, Place.CELL)
        assert (ctx.get(out.m_axis_tdata), ctx.get(out.m_axis_tdest)) == (5, Reply.STATE)
        ctx.set(answer.fresh, 1)
        assert ctx.get(out.m_axis_tdata) == 0
        ctx.set(answer.offers_status, 1)
        assert (ctx.get(out.m_axis_tdata), ctx.get(out.m_axis_tdest)) == (
            Status.NO_IMAGE,
            Reply.STATUS,
        )

    simulate(answer, bench)


# Stored gates.


def test_gates_pass_the_normaliser_twice_and_come_back():
    """In place of a layer norm: each value of the second pass comes back doubled."""
    contract = Int8LstmLayerContract(inputs=2, hidden=5, lanes=2, neurons=2, layer_norm=1)
    schedule = contract.schedule
    gates = StoredGates(schedule)
    hidden, neurons = schedule.hidden, schedule.neurons
    phase = next(index for index, each in enumerate(schedule.phases) if each.normalizes)
    wanted = schedule.phases[phase].normalizes
    values = {gate: [100 * gate + unit for unit in range(hidden)] for gate in range(gates.gates)}

    async def bench(ctx):
        ctx.set(gates.phase, phase)
        ctx.set(gates.begins, 1)
        await ctx.tick()
        ctx.set(gates.begins, 0)
        for gate, units in values.items():
            for unit, value in enumerate(units):
                ctx.set(gates.write_gate, gate)
                ctx.set(gates.write_group, unit // neurons)
                ctx.set(gates.writes, 1 << unit % neurons)
                ctx.set(gates.value, value)
                await ctx.tick()
        ctx.set(gates.writes, 0)
        ctx.set(gates.phase_is_collected, 1)
        assert not ctx.get(gates.phase_is_done)
        await ctx.tick()
        ctx.set(gates.phase_is_collected, 0)
        seen, back = [], []
        unit = gates.normalizer
        ctx.set(unit.i.ready, 1)
        for _ in range(1000):
            if back:
                ctx.set(unit.o.payload.value, back.pop(0))
                ctx.set(unit.o.valid, 1)
            else:
                ctx.set(unit.o.valid, 0)
            if ctx.get(gates.phase_is_done):
                break
            if ctx.get(unit.i.valid):
                value = ctx.get(unit.i.payload.value)
                second = ctx.get(unit.i.payload.normalizes)
                seen.append((value, second))
                if second:
                    back.append(2 * value)
            await ctx.tick()
        else:
            raise AssertionError("The gates were never done.")
        await ctx.tick()
        ctx.set(unit.o.valid, 0)
        assert seen == [(v, second) for gate in wanted for second in (0, 1) for v in values[gate]]
        ctx.set(gates.reads, 1)
        for gate in wanted:
            for group in range(-(-hidden // neurons)):
                ctx.set(gates.read_gate, gate)
                ctx.set(gates.read_group, group)
                await ctx.tick()
                for neuron in range(min(neurons, hidden - group * neurons)):
                    number = group * neurons + neuron
                    assert ctx.get(gates.values[neuron]) == 2 * values[gate][number]

    simulate(gates, bench)
