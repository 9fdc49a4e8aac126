# amaranth: UnusedElaboratable=no
"""Decision diagrams against their tables, and thresholds against all codes of binary16."""

from fractions import Fraction

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from fewbit.hdl.decision import MAGNITUDES, decision_diagram, first_binary16, staircase
from tests.support import exact


@pytest.mark.parametrize("kind", ["random", "steps", "parity", "constant"])
def test_a_diagram_gives_its_table(kind):
    rng = np.random.default_rng(4)
    index_width, width = 7, 5
    indices = np.arange(2**index_width)
    table = {
        "random": rng.integers(0, 2**width, 2**index_width),
        "steps": np.searchsorted([3, 4, 50, 51, 90], indices),
        "parity": np.array([int(index).bit_count() % 2 * 21 for index in indices]),
        "constant": np.full(2**index_width, 19),
    }[kind].tolist()
    m = Module()
    index, result = Signal(index_width), Signal(width)
    m.d.comb += result.eq(decision_diagram(m, index, table, width, "node"))
    got: list[int] = []

    async def bench(ctx):
        for value in indices.tolist():
            ctx.set(index, value)
            got.append(ctx.get(result))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert got == table


def test_a_table_of_another_length_is_refused():
    with pytest.raises(ValueError, match="A table of 3 entries has no index of 2 bits"):
        decision_diagram(Module(), Signal(2), [0, 1, 2], 2, "node")


def test_first_codes_are_the_first():
    rng = np.random.default_rng(5)
    codes = [0, 1, 2, 0x3FF, 0x400, 0x401, 0x3BFF, 0x3C00, 0x7BFF, 0x7FFE, 0x7FFF]
    codes += rng.integers(0, MAGNITUDES, 300).tolist()
    tiny = Fraction(1, 2**40)
    for code in codes:
        real = exact.binary16(code)
        if code:
            assert first_binary16(real, above=False) == code
            assert first_binary16(real, above=True) == code + 1
            assert first_binary16(real - tiny, above=True) == code
        assert first_binary16(real + tiny, above=False) == code + 1
    assert first_binary16(Fraction(10**9), above=False) == MAGNITUDES


def test_a_staircase_steps_where_it_should():
    table = staircase([7, 5, 6], [2, 0x4000])
    assert len(table) == MAGNITUDES
    assert table[:3] == [7, 7, 5]
    assert table[0x3FFF:0x4001] == [5, 6]
