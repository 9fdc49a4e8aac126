"""Sigmoid and tanh by a table of 256 entries and interpolation, without the multiplication.

The table holds the sigmoid at multiples of 1/24; tanh(x) is 2*sigmoid(2x) - 1. A raw's distance
from zero, counted in table steps, gives the entry and the fraction. The height above the entry is
fraction times slope. The surrounding circuit computes this product with a multiplier that it has
anyway.
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
"""Number of fraction bits of a distance that counts table steps."""

SUM = 16 + FRACTION
"""Number of bits of the signed sum of entry and slope times fraction."""

BASE = 3 << 14
"""Number subtracted from each entry, from 2^15 to 2^16, so that 15 signed bits hold the rest."""


class TableLookup(wiring.Component):
    """The look-up of a raw in the table; combinational, unless it is clocked.

    Parameters
    ----------
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    clocked
        Whether the table is a memory that is read with the clock; all outputs then follow the raw
        by a cycle.

    Ports
    -----
    raw
        Signed raw of 16 bits: Q3.12 for the sigmoid.
    is_sigmoid
        1 for the sigmoid, 0 for tanh.
    integer_bits
        Integer bits of the raw for tanh, 0 to 6; 3 for a gate. Ignored for the sigmoid.
    entry
        Signed, ``T[index] - 3 * 2^14`` in units of 2^-16.
    slope
        Unsigned, ``T[index + 1] - T[index]``.
    fraction
        Unsigned, the fraction of a table step in units of 2^-9.
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

        # A raw of 2^-12 is 3 * 2^-9 table steps, hence the factor 3. Tanh of a finer raw drops up
        # to three bits and rounds ties up; for a negative raw its distance rounds ties down.
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

        # Two low bits are dropped, and tanh clears one more: its fraction has 8 bits.
        left = wire(m, Mux(self.is_sigmoid, Const(2, 3), self.integer_bits), "left")
        scaled = wire(m, (tripled << left)[2:23], "scaled")
        beyond = wire(m, scaled[FRACTION + 8 :].any(), "beyond")
        index = wire(m, scaled[FRACTION : FRACTION + 8] | beyond.replicate(8), "index")
        domain = m.d.sync if self.clocked else m.d.comb
        domain += self.fraction.eq(Cat(scaled[0] & self.is_sigmoid, scaled[1:FRACTION]))

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
    """The sigmoid or tanh of a raw, with a multiplier of its own.

    Parameters
    ----------
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    clocked
        Whether the table is a memory that is read with the clock, so that the result follows a
        cycle later; else the circuit is combinational. The default is True with "fpga" only.

    Ports
    -----
    raw, is_sigmoid, integer_bits
        The same ports as those of `TableLookup`.
    result
        The sigmoid or tanh in units of 2^-15.
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
        domain = m.d.sync if lookup.clocked else m.d.comb
        domain += [negative.eq(self.raw[-1]), is_sigmoid.eq(self.is_sigmoid)]
        # The height is relative to 2^15, the sigmoid at 0. Rounding adds half a unit of the result,
        # or subtracts it for a negative raw, whose result is the ones' complement.
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
    """Return the right shift of ``entry * 2^FRACTION + slope * fraction`` to units of 2^-15."""
    return Mux(is_sigmoid, Const(FRACTION + 1, 4), Const(FRACTION, 4))


def start_of(is_sigmoid: Value, negative: Value) -> Value:
    """Return the number to add to the shifted height: signed, 16 bits.

    The shifted height is inverted for a negative raw. The number is half of ``BASE`` for the
    sigmoid, and ``BASE`` less 2^15 for tanh. For a negative raw it is 2^15 minus that for the
    sigmoid, and the negative of that for tanh.
    """
    return Cat(
        Const(0, 13),
        is_sigmoid,
        Mux(is_sigmoid, ~negative, Const(1, 1)),
        ~is_sigmoid & negative,
    ).as_signed()
