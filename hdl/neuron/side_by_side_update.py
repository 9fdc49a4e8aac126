"""The update of units whose four gates' rows end together: a row a cycle, eight cycles a unit.

Every operation has hardware of its own, so that none waits for another: the next unit's input rows
are taken while a unit is finished. Scales are powers of two, so that a row is only shifted.
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
"""Bits of half a sum. A scale's multiplier is 2^30, which stands for one half."""
_ROUNDED = 17
"""Bits of a rounded row that is added to a raw of 16 bits, before the sum saturates."""
_PRODUCT_POINT = 15
"""Bits below the resolution of a product's result, which every use of it drops."""


class SideBySideUpdate(wiring.Component):
    """The update of a unit: sums of four gates' rows in, its new hidden raw and cell raw out.

    A unit's four input rows take four cycles, beginning with the one after they are handed over,
    and so do its four recurrent rows. The cell follows the last recurrent row by 2 cycles and the
    hidden value by 4. Recurrent rows wait as long as the hidden value of the unit before is not
    taken.

    Bit for bit :func:`fewbit.golden.lstm.integer_step.update_unit` with double rounding by table,
    for scales that are powers of two or 0.

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
        The sums of four rows, gates in the order of `SIDE_BY_SIDE`, and whether the rows are the
        recurrent ones.
    fresh
        Whether the sums of recurrent rows count as 0, as at reset.
    reads_row
        Whether ``start``, ``shift`` and ``nonzero`` must be those of the next row from the next
        cycle on.
    start, shift, nonzero
        A row's start value; the shift of its scale, from -31 to 30; and whether its scale is not
        0.
    reads_cell, old_cell
        The unit's old cell, which must be there in the cycle after ``reads_cell``.
    cells
        The new cell, which is valid for one cycle and must be taken in it.
    o
        The new hidden raw.
    cell_integer_bits, cell_clip
        The integer bits of cells, and the magnitude to which they saturate, as in the neuron's
        contract.
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

        # Four sums wait, of which one is taken a cycle. A unit's recurrent rows follow each other
        # without a pause, since the datapath below relies on their order in time.
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

        # The operations of this cycle follow from the recurrent row that is taken, or was taken one
        # to three cycles before.
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

        # A row's sum is requantised to the gate's resolution. A recurrent row's is added to that of
        # the unit's input row.
        parts = [Signal(signed(_RAW), name=f"part_{k}", reset_less=True) for k in range(count)]
        total = wire(m, sums[0][:] & (~(recurrent & self.fresh)).replicate(self.sum_width), "total")
        gate = self._requantise(m, total, parts[0][:] & recurrent.replicate(_RAW))
        with m.If(takes):
            m.d.sync += [
                kept.eq(after) for kept, after in zip(parts, [*parts[1:], gate], strict=True)
            ]

        # The register of the raw that is activated, and at last of the result.
        raw = Signal(signed(_RAW), reset_less=True)
        values = [Signal(signed(_RAW), name=f"value_{k}", reset_less=True) for k in range(2)]
        m.submodules.interpolation = interpolation = Interpolation(self.structure, clocked=False)
        m.d.comb += [
            interpolation.raw.eq(raw),
            interpolation.is_sigmoid.eq(~(activates_g | activates_cell)),
            interpolation.integer_bits.eq(Mux(activates_cell, self.cell_integer_bits, 3)),
        ]
        m.d.sync += [values[0].eq(interpolation.result), values[1].eq(values[0])]

        # The products: f times the cell, i times g, and o times tanh of the cell.
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
        """Requantise a row's sum to the gate's raw, add `before`, and saturate to 16 bits."""
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
        # The sum is rounded twice. The first rounding takes what lies half a unit below a tie up to
        # that tie. The second one rounds ties of sums of at least 0 up, and so rounds this up as
        # well. Without a right shift there is only the first one, whose ties go up.
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
        # Far outside the range, the sign is that of the quotient, whatever is added.
        word = Cat(exact[:-1], Mux(beyond, quotient[-1], exact[-1])).as_signed()
        return saturate(m, wire(m, word, "gate_sum"), _RAW, "gate_raw", beyond)

    def _multiply(
        self, m: Module, first: Value, second: Value, keeps: Value, adds: Value, exposes: Value
    ) -> Signal:
        """Return the result of a product: the new cell, or the hidden raw.

        The first product of a unit, where `keeps` is 1, is only stored, and the second one is added
        to it for the new cell, where `adds` is 1. The third one, where `exposes` is 1, is the
        hidden raw.
        """
        width = 2 * _RAW - 1
        if self.structure == "gates":
            columns = Columns(m, width, "product")
            add_product(m, columns, first, second, "digit")
            product = columns.sum().as_signed()
        else:
            product = wire(m, (first * second)[:width].as_signed(), "product")
        # A hidden raw is half of the product, ties up, which is then shifted to the raw's width.
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
    """A word after a right shift, with a summary of the bits that were shifted out."""

    quotient: Signal
    guard: Signal
    """The highest bit that was shifted out."""
    any: Signal
    """Whether any bit below the guard is 1."""
    all: Signal
    """Whether all bits below the guard are 1, which holds if there is none."""


def _shift(m: Module, word: Value, distance: Value, width: int, name: str) -> _Shifted:
    """Shift a signed word to the right, of which the lowest bit is the guard at distance 0."""
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
    """Return the signed sum of signed words and unsigned bits, modulo 2**width."""
    if structure == "fpga":
        return sum(terms[1:], terms[0])[:width].as_signed()
    columns = Columns(m, width, name)
    for term in terms:
        if term.shape().signed:
            columns.add_signed(term[:])
        else:
            columns.add_word(term)
    return columns.sum().as_signed()
