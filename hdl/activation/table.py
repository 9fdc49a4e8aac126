"""Sigmoid and tanh by a table of 256 entries and interpolation, but for the multiplication.

The table is that of the sigmoid in units of 1/24; tanh(x) is 2*sigmoid(2x) - 1. A raw's distance
from zero in table steps gives the entry and the fraction; the height above the entry is fraction
times slope, which the circuit around it multiplies, with the multiplier that it has anyway.
"""

from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fewbit.golden.activation.table import interpolation_table
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.addends import Addend, product_addends, sum_of_addends

__all__ = ["FRACTION", "Interpolation", "TableLookup", "shift_of", "start_of"]

FRACTION = 9
"""Bits of a distance below a table step."""

SUM = 16 + FRACTION
"""Bits of a signed sum of entry and slope times fraction."""

BASE = 3 << 14
"""Taken off each entry, all of which are from 2^15 to 2^16, so that 15 signed bits hold it."""


class TableLookup(wiring.Component):
    """Where a raw lies in the table; combinational, unless it is clocked.

    Parameters
    ----------
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`.
    clocked
        The table lies in a memory that is read with the clock, and all outputs follow the raw by a
        cycle.

    Ports
    -----
    raw
        Signed raw of 16 bits: Q3.12 for the sigmoid.
    is_sigmoid
        1 for the sigmoid, 0 for tanh.
    integer_bits
        Integer bits of the raw for tanh, 0 to 6; 3 for a gate. Not read for the sigmoid.
    entry
        Signed, ``T[index] - 3 * 2^14`` in units of 2^-16.
    slope
        Unsigned, ``T[index + 1] - T[index]``.
    fraction
        Unsigned, the part of the table step in 2^-9.
    """

    def __init__(self, structure: Structure = "gates", *, clocked: bool = False) -> None:
        check_structure(structure)
        self.structure: Structure = structure
        self.clocked = clocked
        super().__init__(
            {
                "raw": In(signed(16)),
                "is_sigmoid": In(1),
                "integer_bits": In(3),
                "entry": Out(signed(15)),
                "slope": Out(10),
                "fraction": Out(FRACTION),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        negative = wire(m, self.raw[-1], "negative")
        # For a negative raw this is one less than its distance from zero.
        distance = wire(m, self.raw[:15] ^ negative.replicate(15), "distance")

        # Three table units of 2^-3 are one step of 2^-12 times 2: hence the factor 3. Tanh of a
        # finer raw drops up to three bits, rounding half up: half down for a negative distance.
        halves = Signal(3)
        with m.If(~self.is_sigmoid):
            m.d.comb += halves.eq(
                Mux(self.integer_bits[:2] == 0, 4, Mux(self.integer_bits[0], 2, 1))
            )
            with m.If(self.integer_bits >= 3):
                m.d.comb += halves.eq(0)
        rounds = wire(m, halves.any(), "rounds")
        # 3 * (distance + 1) + halves - 1 for a negative raw.
        correction = wire(
            m,
            (halves + Mux(negative, Mux(rounds, Const(2, 2), Const(3, 2)), Const(0, 2)))[:3],
            "correction",
        )
        tripled = sum_of_addends(
            m,
            [Addend(distance), Addend(distance, 1), Addend(correction)],
            17,
            "tripled",
            0,
            self.structure,
        )

        # Two bits that fall off below, and one to clear: tanh's own fraction has 8 bits.
        left = wire(m, Mux(self.is_sigmoid, Const(2, 3), self.integer_bits), "left")
        scaled = wire(m, (tripled << left)[2:23], "scaled")
        beyond = wire(m, scaled[FRACTION + 8 :].any(), "beyond")
        index = wire(m, scaled[FRACTION : FRACTION + 8] | beyond.replicate(8), "index")
        moment = m.d.sync if self.clocked else m.d.comb
        moment += self.fraction.eq(Cat(scaled[0] & self.is_sigmoid, scaled[1:FRACTION]))

        table = [int(entry) for entry in interpolation_table()]
        slopes = [after - entry for entry, after in pairwise([*table, table[-1]])]
        if self.clocked:
            words = [
                (entry - BASE) & 0x7FFF | slope << 15
                for entry, slope in zip(table, slopes, strict=True)
            ]
            m.submodules.table = memory = Memory(shape=25, depth=len(table), init=words)
            port = memory.read_port()
            m.d.comb += [port.addr.eq(index), Cat(self.entry, self.slope).eq(port.data)]
            return m
        with m.Switch(index):
            for position, (entry, slope) in enumerate(zip(table, slopes, strict=True)):
                with m.Case(position):
                    m.d.comb += [self.entry.eq(entry - BASE), self.slope.eq(slope)]
        return m


class Interpolation(wiring.Component):
    """Sigmoid or tanh of a raw, with a multiplier of its own.

    Parameters
    ----------
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`.
    clocked
        The result follows a cycle later, as the table lies in a memory that is read with the
        clock; else it is combinational. By default with "fpga".

    Ports
    -----
    raw, is_sigmoid, integer_bits
        As those of `TableLookup`.
    result
        In units of 2^-15.
    """

    def __init__(self, structure: Structure = "gates", *, clocked: bool | None = None) -> None:
        check_structure(structure)
        self.structure: Structure = structure
        self.clocked = structure == "fpga" if clocked is None else clocked
        super().__init__(
            {
                "raw": In(signed(16)),
                "is_sigmoid": In(1),
                "integer_bits": In(3),
                "result": Out(signed(16)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lookup = lookup = TableLookup(self.structure, clocked=self.clocked)
        m.d.comb += [
            lookup.raw.eq(self.raw),
            lookup.is_sigmoid.eq(self.is_sigmoid),
            lookup.integer_bits.eq(self.integer_bits),
        ]
        negative = Signal(reset_less=True)
        is_sigmoid = Signal(reset_less=True)
        moment = m.d.sync if lookup.clocked else m.d.comb
        moment += [negative.eq(self.raw[-1]), is_sigmoid.eq(self.is_sigmoid)]
        # The height above 2^15, which is the sigmoid's at 0. Half a step of the result goes on
        # top, or off for a negative raw, whose result is the ones' complement.
        height = Cat(lookup.entry[:-1], ~lookup.entry[-1])
        half = wire(
            m,
            Cat(~is_sigmoid, is_sigmoid | negative, negative.replicate(SUM - FRACTION - 1)),
            "half",
        )
        rows, constant = product_addends(
            m,
            lookup.slope,
            Cat(lookup.fraction, Const(0, 1)).as_signed(),
            Const(0, 1),
            "digit",
            self.structure,
        )
        rows += [Addend(height, FRACTION), Addend(half, FRACTION - 1)]
        total = sum_of_addends(m, rows, SUM, "total", constant, self.structure)
        sign = total[-1]
        rounded = Mux(is_sigmoid, Cat(total[FRACTION + 1 : -1], ~sign, negative), total[FRACTION:])
        m.d.comb += self.result.eq(rounded ^ negative.replicate(16))
        return m


def shift_of(is_sigmoid: Value) -> Value:
    """Right shift that takes ``entry * 2^FRACTION + slope * fraction`` to units of 2^-15."""
    return Mux(is_sigmoid, Const(FRACTION + 1, 4), Const(FRACTION, 4))


def start_of(is_sigmoid: Value, negative: Value) -> Value:
    """What the shifted height, inverted for a negative raw, is added to: signed, 16 bits.

    Half of ``BASE`` for the sigmoid, and ``BASE`` less 2^15 for tanh; for a negative raw, 2^15
    less that, and minus that.
    """
    return Cat(
        Const(0, 13),
        is_sigmoid,
        Mux(is_sigmoid, ~negative, Const(1, 1)),
        ~is_sigmoid & negative,
    ).as_signed()
