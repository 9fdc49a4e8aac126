"""The update of units whose four gates' rows end together: a row a cycle, eight cycles a unit.

Every step has hardware of its own, so that nothing waits: the next unit's input rows are taken
while the one before is finished. Scales are powers of two, so that rows are shifted only.
"""

from itertools import pairwise
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.neuron.ternary import SIDE_BY_SIDE
from fewbit.hdl.accumulate.int12_mac import add_product
from fewbit.hdl.activation.table import Interpolation
from fewbit.hdl.arithmetic import saturate, saturate_to_clip, wire
from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.columns import Columns

__all__ = ["SideBySideUpdate"]

_SUM = 32
_RAW = 16
_HALVED = _SUM - 1
"""Bits of a sum that is halved: a multiplier of 2^30 stands for one half."""
_ROUNDED = 17
"""Bits of what is added to a raw of 16 bits before it saturates."""
_PRODUCT_POINT = 15
"""Bits of a product that every use of it drops."""


class SideBySideUpdate(wiring.Component):
    """Sums of four gates' rows in; a unit's new hidden and cell raws out.

    A unit's four input rows take four cycles from the one after they are handed over, and so do its
    four recurrent rows; the cell follows the last of these by 2 cycles and the hidden value by 4.
    Recurrent rows wait while the hidden value of the unit before does.

    Bit for bit :func:`fewbit.golden.lstm.integer_step.update_unit` with double rounding by table,
    of scales that are powers of two or 0.

    Parameters
    ----------
    sum_width
        Bits of a row's sum without its start value, up to 32.
    hidden_width
        Bits of the hidden raw, to which it saturates, 4 to 16.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`.

    Ports
    -----
    i
        The sums of four rows, gates in the order of
        `SIDE_BY_SIDE`, and whether the rows are the recurrent ones.
    fresh
        The sums of recurrent rows count as 0.
    reads_row
        ``start``, ``shift`` and ``nonzero`` must be those of the next row from the next cycle on.
    start, shift, nonzero
        What a row's sum starts from; the shift of its scale, -31 to 30; whether its scale isn't 0.
    reads_cell, old_cell
        ``old_cell`` must be the unit's in the cycle after ``reads_cell``.
    cells
        The new cell, valid for a cycle; it waits for nothing.
    o
        The new hidden raw.
    cell_integer_bits, cell_clip
        As in the neuron's contract.
    """

    def __init__(
        self, sum_width: int, hidden_width: int = 12, structure: Structure = "gates"
    ) -> None:
        if sum_width not in range(2, _SUM + 1):
            raise ValueError(f"sum_width must be from 2 to {_SUM}, not {sum_width}.")
        if hidden_width not in range(4, _RAW + 1):
            raise ValueError(f"hidden_width must be from 4 to {_RAW}, not {hidden_width}.")
        check_structure(structure)
        self.sum_width = sum_width
        self.hidden_width = hidden_width
        self.structure: Structure = structure
        sums = data.ArrayLayout(signed(sum_width), len(SIDE_BY_SIDE))
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"sums": sums, "recurrent": 1}))),
                "fresh": In(1),
                "reads_row": Out(1),
                "start": In(signed(_SUM)),
                "shift": In(signed(6)),
                "nonzero": In(1),
                "reads_cell": Out(1),
                "old_cell": In(signed(_RAW)),
                "cells": Out(stream.Signature(signed(_RAW))),
                "o": Out(stream.Signature(data.StructLayout({"result": signed(hidden_width)}))),
                "cell_integer_bits": In(3),
                "cell_clip": In(15),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = len(SIDE_BY_SIDE)

        # Four sums wait; one is taken a cycle. Nothing interrupts the recurrent rows of a unit.
        sums = [
            Signal(signed(self.sum_width), name=f"sum_{k}", reset_less=True) for k in range(count)
        ]
        recurrent = Signal(reset_less=True)
        full = Signal()
        place = Signal(range(count))
        result_waits = Signal()
        is_held_up = wire(m, recurrent & (place == 0) & result_waits & ~self.o.ready, "is_held_up")
        takes = wire(m, full & ~is_held_up, "takes")
        is_last = wire(m, place == count - 1, "is_last")
        hands_over = wire(m, self.i.valid & self.i.ready, "hands_over")
        m.d.comb += [
            self.i.ready.eq(~full | (takes & is_last)),
            self.reads_row.eq(hands_over | (takes & ~is_last)),
        ]
        with m.If(hands_over):
            m.d.sync += [full.eq(1), recurrent.eq(self.i.payload.recurrent)]
            m.d.sync += [kept.eq(self.i.payload.sums[k]) for k, kept in enumerate(sums)]
        with m.Elif(takes):
            m.d.sync += full.eq(~is_last)
            m.d.sync += [kept.eq(after) for kept, after in pairwise(sums)]
        with m.If(takes):
            m.d.sync += place.eq(place + 1)

        # What happens in this cycle, by the recurrent row that is taken or was taken before.
        takes_recurrent = wire(m, takes & recurrent, "takes_recurrent")
        activates_g = wire(m, takes_recurrent & is_last, "activates_g")
        keeps = wire(m, takes_recurrent & (place == SIDE_BY_SIDE.index("g")), "keeps")
        adds = Signal()
        activates_cell = Signal()
        exposes = Signal()
        m.d.sync += [adds.eq(activates_g), activates_cell.eq(adds), exposes.eq(activates_cell)]
        with m.If(exposes):
            m.d.sync += result_waits.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += result_waits.eq(0)
        m.d.comb += self.reads_cell.eq(takes_recurrent & (place == SIDE_BY_SIDE.index("i")))

        # A row's sum becomes steps of the gate, on top of what the unit's input row has given.
        parts = [Signal(signed(_RAW), name=f"part_{k}", reset_less=True) for k in range(count)]
        total = wire(m, sums[0][:] & (~(recurrent & self.fresh)).replicate(self.sum_width), "total")
        gate = self._requantise(m, total, parts[0][:] & recurrent.replicate(_RAW))
        with m.If(takes):
            m.d.sync += [
                kept.eq(after) for kept, after in zip(parts, [*parts[1:], gate], strict=True)
            ]

        # What is activated, and afterwards the result.
        raw = Signal(signed(_RAW), reset_less=True)
        values = [Signal(signed(_RAW), name=f"value_{k}", reset_less=True) for k in range(2)]
        m.submodules.interpolation = interpolation = Interpolation(self.structure, clocked=False)
        m.d.comb += [
            interpolation.raw.eq(raw),
            interpolation.is_sigmoid.eq(~(activates_g | activates_cell)),
            interpolation.integer_bits.eq(Mux(activates_cell, self.cell_integer_bits, 3)),
        ]
        m.d.sync += [values[0].eq(interpolation.result), values[1].eq(values[0])]

        # f times the cell, i times g, o times tanh of the cell.
        factor = wire(m, Mux(keeps, self.old_cell, values[1]).as_signed(), "factor")
        finished = self._multiply(m, factor, values[0], keeps, adds, exposes)
        with m.If(takes_recurrent | adds | exposes):
            m.d.sync += raw.eq(Mux(takes_recurrent, gate, finished))
        m.d.comb += [
            self.cells.valid.eq(activates_cell),
            self.cells.payload.eq(raw),
            self.o.valid.eq(result_waits),
            self.o.payload.result.eq(raw),
        ]
        return m

    def _requantise(self, m: Module, total: Value, before: Value) -> Signal:
        """Steps of the gate from a row's sum, added to others; saturated to 16 bits."""
        row = wire(
            m, _sum(m, [self.start, total.as_signed()], _SUM, "row", self.structure), "row_sum"
        )
        # The doubling high product with 2^30 is half the sum, ties up; then comes the right shift,
        # ties away from zero. A left shift by n comes first, wraps and leaves nothing to round, so
        # that it is a right shift by 32 - n of the sum 31 places further left.
        goes_right = wire(m, self.shift[-1] | ~self.shift.any(), "goes_right")
        distance = wire(m, (-self.shift)[:5], "row_distance")
        zeros = goes_right.replicate(_HALVED)
        sign = row[-1]
        halved = Cat(row[1:], sign.replicate(_SUM))
        doubled = Cat(Const(0, _HALVED), row)
        word = Cat(
            row[0] & goes_right,
            halved[:_HALVED] & zeros,
            Mux(goes_right, halved[_HALVED:], doubled[_HALVED:]),
        )
        shifted = _shift(m, wire(m, word, "row_word"), distance, _HALVED, "row_shifted")
        # Of two roundings in turn, the first one's ties up make what is one below a tie a tie of
        # the second: of a sum of at least 0, whose ties go up, too. The first alone: ties up.
        only_halves = wire(m, ~distance.any(), "only_halves")
        round_up = wire(
            m,
            shifted.guard & (only_halves | ~sign | shifted.any)
            | (shifted.all & ~sign & ~only_halves),
            "row_round_up",
        )
        counts = self.nonzero
        quotient = wire(
            m, (shifted.quotient[:] & counts.replicate(_HALVED)).as_signed(), "row_quotient"
        )
        beyond = wire(
            m,
            quotient[_ROUNDED - 1 :] != quotient[-1].replicate(_HALVED - _ROUNDED + 1),
            "row_beyond",
        )
        terms = [quotient[:_ROUNDED].as_signed(), before.as_signed(), round_up & counts]
        exact = wire(
            m,
            _sum(m, terms, _ROUNDED + 1, "gate", self.structure),
            "gate_exact",
        )
        # Far beyond, the sign is that of the quotient, whatever is added.
        word = Cat(exact[:-1], Mux(beyond, quotient[-1], exact[-1])).as_signed()
        return saturate(m, wire(m, word, "gate_sum"), _RAW, "gate_raw", beyond)

    def _multiply(
        self, m: Module, first: Value, second: Value, keeps: Value, adds: Value, exposes: Value
    ) -> Signal:
        """What becomes of a product: the new cell, or the hidden raw where it is exposed."""
        width = 2 * _RAW - 1
        if self.structure == "gates":
            columns = Columns(m, width, "product")
            add_product(m, columns, first, second, "digit")
            product = columns.sum().as_signed()
        else:
            product = wire(m, (first * second)[:width].as_signed(), "product")
        # A hidden raw is the half of the product, ties up, shifted by what is left.
        last = _RAW - self.hidden_width
        distance = Signal(range(max(6, last) + 1), name="product_distance")
        with m.If(adds):
            m.d.comb += distance.eq(self.cell_integer_bits)
        with m.Elif(exposes):
            m.d.comb += distance.eq(last)
        point = _PRODUCT_POINT
        word = wire(m, product[point - 1 :], "product_word")
        shifted = _shift(m, word, distance, _RAW, "product_shifted")
        below = product[: point - 1]
        sign = product[-1]
        drops_any = wire(m, shifted.any | below.any(), "drops_any")
        drops_all = wire(m, shifted.all & below.all(), "drops_all")
        round_up = wire(
            m,
            (shifted.guard & (~sign | drops_any)) | (drops_all & ~sign & exposes),
            "product_round_up",
        )
        kept = Signal(signed(_RAW), reset_less=True)
        terms = [shifted.quotient, (kept[:] & adds.replicate(_RAW)).as_signed(), round_up]
        total = wire(m, _sum(m, terms, _RAW + 1, "update", self.structure), "update_sum")
        with m.If(keeps):
            m.d.sync += kept.eq(total)
        cell = saturate(m, total, _RAW, "cell_unclipped")
        cell = saturate_to_clip(m, cell, self.cell_clip, "cell")
        hidden = saturate(m, total, self.hidden_width, "hidden")
        return wire(m, Mux(adds, cell, hidden), "finished")


class _Shifted(NamedTuple):
    """A word after a right shift, and what has been dropped."""

    quotient: Signal
    guard: Signal
    """The bit below the quotient."""
    any: Signal
    """Whether a bit below that one is 1."""
    all: Signal
    """Whether all bits below that one are 1, also where there is none."""


def _shift(m: Module, word: Value, distance: Value, width: int, name: str) -> _Shifted:
    """``word`` shifted right; its lowest bit is the guard before, its highest one the sign."""
    sign = word[-1]
    some: list[Value] = []
    every: list[Value] = []
    for stage in reversed(range(len(distance))):
        step = 1 << stage
        chosen = distance[stage]
        keep = width + step
        padded = Cat(word, sign.replicate(max(0, keep + step - len(word))))
        some.append(chosen & padded[:step].any())
        every.append(~chosen | padded[:step].all())
        word = wire(m, Mux(chosen, padded[step : step + keep], padded[:keep]), f"{name}_by_{step}")
    return _Shifted(
        wire(m, word[1:].as_signed(), f"{name}_quotient"),
        wire(m, word[0], f"{name}_guard"),
        wire(m, Cat(*some).any(), f"{name}_any"),
        wire(m, Cat(*every).all(), f"{name}_all"),
    )


def _sum(m: Module, terms: list[Value], width: int, name: str, structure: Structure) -> Value:
    """Sum of signed words and unsigned bits, signed, modulo 2**width."""
    if structure == "fpga":
        return sum(terms[1:], terms[0])[:width].as_signed()
    columns = Columns(m, width, name)
    for term in terms:
        if term.shape().signed:
            columns.add_signed(term[:])
        else:
            columns.add_word(term)
    return columns.sum().as_signed()
