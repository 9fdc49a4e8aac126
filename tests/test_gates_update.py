# amaranth: UnusedElaboratable=no
"""The update of units whose four rows end together, against golden."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden.arithmetic import wrap
from golden.layer.ternary import SIDE_BY_SIDE
from golden.lstm.int8_step import update_unit
from golden.lstm.variant import GATES
from hdl.neuron.gates_update import GatesUpdate

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


def differing(count, *, width=32, hidden_width=12, structure="gates", bits=3, clip=0, golden=None):
    """Units whose results differ from golden: of each, what went in, what came out, and golden."""
    rng = np.random.default_rng(SEED)
    sums, starts, shifts, multipliers, cells = stimulus(rng, count, width)
    expected = (golden or update_unit)(
        wrap(sums + starts, 32),
        multipliers,
        shifts,
        cells,
        cell_exponent=bits - 15,
        cell_clip=clip,
        hidden_multiplier=HALF,
        hidden_shift=hidden_width - 30,
        hidden_zero_point=0,
        activation="table",
        hidden_width=hidden_width,
    )
    dut = GatesUpdate(width, hidden_width, structure)
    hidden, new_cells = [], []
    order = [GATES.index(gate) for gate in SIDE_BY_SIDE]
    words = [
        (
            int(starts[unit, gate, part]),
            int(shifts[unit, gate, part]),
            multipliers[unit, gate, part],
        )
        for unit in range(count)
        for part in range(2)
        for gate in order
    ]

    async def feed(ctx):
        ctx.set(dut.cell_integer_bits, bits)
        ctx.set(dut.cell_clip, clip)
        ctx.set(dut.i.valid, 1)
        for unit in range(count):
            for part in range(2):
                for place, gate in enumerate(order):
                    ctx.set(dut.i.payload.sums[place], int(sums[unit, gate, part]))
                ctx.set(dut.i.payload.recurrent, part)
                await ctx.tick().until(dut.i.ready)
                if rng.random() < 1 / 4:
                    ctx.set(dut.i.valid, 0)
                    await ctx.tick().repeat(int(rng.integers(1, 9)))
                    ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.valid, 0)

    async def memories(ctx):
        row = unit = 0
        async for _, _, reads, reads_cell in ctx.tick().sample(dut.reads_row, dut.reads_cell):
            if reads:
                start, shift, multiplier = words[row]
                row += 1
                ctx.set(dut.start, start)
                ctx.set(dut.shift, shift)
                ctx.set(dut.nonzero, int(multiplier != 0))
            if reads_cell:
                ctx.set(dut.old_cell, int(cells[unit]))
                unit += 1

    async def watch(ctx):
        async for _, _, valid, cell in ctx.tick().sample(dut.cells.valid, dut.cells.payload):
            if valid:
                new_cells.append(cell)

    async def take(ctx):
        pauses = np.random.default_rng(SEED + 1)
        while len(hidden) < count:
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
    got = np.stack([hidden, new_cells])
    return [
        f"seed {SEED}, unit {unit}: sums {sums[unit].tolist()}, starts {starts[unit].tolist()},"
        f" shifts {shifts[unit].tolist()}, multipliers {multipliers[unit].tolist()},"
        f" cell {cells[unit]}: hidden and cell {got[:, unit].tolist()}, golden"
        f" {[int(each[unit]) for each in expected]}"
        for unit in range(count)
        if got[0, unit] != expected[0][unit] or got[1, unit] != expected[1][unit]
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"bits": 0, "clip": 20480, "hidden_width": 16, "width": 20},
        {"bits": 6, "clip": 32767, "hidden_width": 4, "structure": "fpga"},
    ],
    ids=["default", "wide", "narrow"],
)
def test_units_agree_with_golden(parameters):
    wrong = differing(40, **parameters)
    assert not wrong, wrong[0]
