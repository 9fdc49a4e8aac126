# amaranth: UnusedElaboratable=no
"""The update of units whose four rows end together, against golden."""

import re
from functools import cache, partial

import numpy as np
import pytest
from amaranth.sim import Simulator

from fewbit.golden.arithmetic import wrap
from fewbit.golden.lstm.integer_step import update_unit
from fewbit.golden.lstm.integer_variant import GATES
from fewbit.golden.neuron.ternary import SIDE_BY_SIDE
from fewbit.hdl.neuron.side_by_side_update import SideBySideUpdate

SEED = 11
HALF = 1 << 30


def stimulus(rng, count, width):
    """Sums of rows, what they start from, and scales: by unit, gate and part."""
    shape = count, len(GATES), 2
    shifts = rng.integers(-31, 31, shape)
    # Most sums are taken to a lively range; some scales and start values are wild.
    bits = rng.integers(1, width + 1, shape)
    sums = rng.integers(-(2**31), 2**31, shape) >> (32 - bits)
    lively = np.clip(13 - bits + rng.integers(-2, 3, shape), -31, 30)
    shifts = np.where(rng.random(shape) < 7 / 8, lively, shifts)
    # Ties, and what is one beside them, of both roundings.
    right = np.clip(1 - shifts, 0, width - 2)
    near = rng.integers(-4, 4, shape) * 2**right + (2**right >> 1) + rng.integers(-2, 3, shape)
    sums = np.where(rng.random(shape) < 1 / 4, wrap(near, width), sums)
    ends = rng.choice([-(2 ** (width - 1)), 2 ** (width - 1) - 1, -1, 0, 1], shape)
    sums = np.where(rng.random(shape) < 1 / 32, ends, sums)
    starts = np.where(rng.random(shape) < 1 / 4, rng.integers(-(2**31), 2**31, shape), 0)
    multipliers = np.where(rng.random(shape) < 1 / 32, 0, HALF)
    cells = rng.integers(-(2**15), 2**15, count)
    cells[::7] = rng.choice([-(2**15), 2**15 - 1, 0], len(cells[::7]))
    return sums, starts, shifts, multipliers, cells


COUNT = 24
CASES = {
    "default": {},
    "wide": {"bits": 0, "clip": 20480, "hidden_width": 16, "width": 20, "structure": "fpga"},
}


@cache
def simulated(name):
    """What goes into an update of a case, and its hidden and cell raws, shape (2, units)."""
    case = {"width": 32, "hidden_width": 12, "structure": "gates", "bits": 3, "clip": 0}
    case |= CASES[name]
    rng = np.random.default_rng(SEED)
    sums, starts, shifts, multipliers, cells = stimulus(rng, COUNT, case["width"])
    dut = SideBySideUpdate(case["width"], case["hidden_width"], case["structure"])
    hidden, new_cells = [], []
    order = [GATES.index(gate) for gate in SIDE_BY_SIDE]
    rows = [(unit, gate, part) for unit in range(COUNT) for part in range(2) for gate in order]

    async def feed(ctx):
        ctx.set(dut.cell_integer_bits, case["bits"])
        ctx.set(dut.cell_clip, case["clip"])
        for unit in range(COUNT):
            for part in range(2):
                ctx.set(dut.i.valid, 1)
                for place, gate in enumerate(order):
                    ctx.set(dut.i.payload.sums[place], int(sums[unit, gate, part]))
                ctx.set(dut.i.payload.recurrent, part)
                await ctx.tick().until(dut.i.ready)
                ctx.set(dut.i.valid, 0)
                if rng.random() < 1 / 4:
                    await ctx.tick().repeat(int(rng.integers(1, 9)))

    async def memories(ctx):
        row = unit = 0
        async for _, _, reads, reads_cell in ctx.tick().sample(dut.reads_row, dut.reads_cell):
            if reads:
                ctx.set(dut.start, int(starts[rows[row]]))
                ctx.set(dut.shift, int(shifts[rows[row]]))
                ctx.set(dut.nonzero, int(multipliers[rows[row]] != 0))
                row += 1
            if reads_cell:
                ctx.set(dut.old_cell, int(cells[unit]))
                unit += 1

    async def watch(ctx):
        async for _, _, valid, cell in ctx.tick().sample(dut.cells.valid, dut.cells.payload):
            if valid:
                new_cells.append(cell)

    async def take(ctx):
        pauses = np.random.default_rng(SEED + 1)
        while len(hidden) < COUNT:
            ctx.set(dut.o.ready, int(pauses.random() < 1 / 2))
            _, _, taken, result = await ctx.tick().sample(
                dut.o.valid & dut.o.ready, dut.o.payload.result
            )
            if taken:
                hidden.append(result)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed)
    simulator.add_process(memories)
    simulator.add_process(watch)
    simulator.add_testbench(take)
    simulator.run()
    return case, (sums, starts, shifts, multipliers, cells), np.stack([hidden, new_cells])


def differing(name, golden=update_unit):
    """Units whose results differ from golden: of each, what went in, what came out, and golden."""
    case, (sums, starts, shifts, multipliers, cells), got = simulated(name)
    expected = golden(
        wrap(sums + starts, 32),
        multipliers,
        shifts,
        cells,
        cell_exponent=case["bits"] - 15,
        cell_clip=case["clip"],
        hidden_multiplier=HALF,
        hidden_shift=case["hidden_width"] - 30,
        hidden_zero_point=0,
        activation="table",
        hidden_width=case["hidden_width"],
    )
    return [
        f"seed {SEED}, unit {unit}: sums {sums[unit].tolist()}, starts {starts[unit].tolist()},"
        f" shifts {shifts[unit].tolist()}, multipliers {multipliers[unit].tolist()},"
        f" cell {cells[unit]}: hidden and cell {got[:, unit].tolist()}, golden"
        f" {[int(each[unit]) for each in expected]}"
        for unit in np.flatnonzero((got != np.stack(expected)).any(axis=0))
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_units_agree_with_golden(name):
    wrong = differing(name)
    assert not wrong, wrong[0]


def test_a_lost_rounding_is_found():
    """A golden update that rounds each row once, not twice, disagrees with the circuit."""
    assert differing("default", partial(update_unit, rounding="single"))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"sum_width": 33}, "sum_width must be from 2 to 32, not 33."),
        ({"sum_width": 20, "hidden_width": 3}, "hidden_width must be from 4 to 16, not 3."),
        ({"sum_width": 20, "structure": "plain"}, 'structure must be "gates" or "fpga", not'),
    ],
)
def test_an_update_refuses_its_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SideBySideUpdate(**parameters)
