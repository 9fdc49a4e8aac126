"""What the units that sum rows have in common: the stream, the registers, the sum of the lanes."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.accumulate.rows import RowAccumulate as Contract
from hdl.arithmetic import wire
from hdl.columns import Columns
from hdl.formats import stream_of

__all__ = ["Lane", "RowAccumulate", "SelectedLanes", "Structure", "signed_sum"]

Structure = Literal["gates", "fpga", "plain"]
"""How a beat is summed: full adders column by column for gates, adders on carry chains for FPGAs,
or operators alone, left to synthesis, to compare with."""


class RowAccumulate(wiring.Component):
    """Sum of a row of weights times activations, a beat a cycle.

    The sum follows the last beat of a row by one cycle. While it waits, no beat is taken. Bit for
    bit :meth:`golden.accumulate.rows.RowAccumulate.compute`.
    """

    def __init__(self, contract: Contract, structure: Structure) -> None:
        if structure not in get_args(Structure):
            raise ValueError(f'structure must be "gates", "fpga" or "plain", not {structure!r}.')
        self.lanes = contract.lanes
        self.activation_width = contract.activation_width
        self.accumulator_width = contract.accumulator_width
        self.structure: Structure = structure
        super().__init__(
            {
                "i": In(stream_of(contract.operands)),
                "o": Out(stream_of(contract.results)),
            }
        )

    @abstractmethod
    def _add_lanes(self, m: Module, columns: Columns) -> None:
        """Add the products of a beat to columns."""

    @abstractmethod
    def _chained_lanes(self, m: Module, before: Value) -> Value:
        """The products of a beat and ``before``, added by adders."""

    @abstractmethod
    def _plain_products(self, m: Module) -> list[Value]:
        """The products of a beat by operators."""

    def add_products(self, m: Module, before: Value) -> Value:
        """The products of a beat and ``before``; only the low bits of the result count."""
        match self.structure:
            case "gates":
                columns = Columns(m, self.accumulator_width, "sum")
                self._add_lanes(m, columns)
                columns.add_row(before)
                return columns.sum()
            case "fpga":
                return self._chained_lanes(m, before)
            case "plain":
                products = [
                    wire(m, product, f"product_{lane}")
                    for lane, product in enumerate(self._plain_products(m))
                ]
                return sum(products, before)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        width = self.accumulator_width
        # One register holds the running sum and the result; it needs no reset.
        total = Signal(signed(width), reset_less=True)
        done = Signal()
        before = wire(m, Mux(beat.first, beat.accumulator, total), "before")
        following = self.add_products(m, before)
        m.d.comb += [
            self.o.payload.result.eq(total),
            self.o.valid.eq(done),
            self.i.ready.eq(~done | self.o.ready),
        ]
        with m.If(self.i.ready):
            m.d.sync += done.eq(self.i.valid & beat.last)
            with m.If(self.i.valid):
                m.d.sync += total.eq(following)
        return m


class Lane(NamedTuple):
    """A product in two parts: ``term + negate``."""

    term: Value
    """Signed; of a negative weight the complement of what is to be negated."""
    negate: Value
    odd: Value
    """Lowest bit of the product: whether those of ``term`` and ``negate`` differ."""


class SelectedLanes(RowAccumulate):
    """Lanes that select their activation, its complement plus one, or nothing."""

    @abstractmethod
    def _lanes(self, m: Module) -> list[Lane]:
        """The products of a beat."""

    def _add_lanes(self, m: Module, columns: Columns) -> None:
        for lane in self._lanes(m):
            columns.add_pair(lane.negate, lane.odd)
            columns.add_signed(lane.term[1:], 1)

    def _chained_lanes(self, m: Module, before: Value) -> Value:
        lanes = self._lanes(m)
        # As many adders as lanes: each takes a negation as its carry.
        return signed_sum(
            m,
            [*(lane.term.as_signed() for lane in lanes), before],
            [lane.negate for lane in lanes],
            self.accumulator_width,
        )


def signed_sum(m: Module, rows: Sequence[Value], carries: Sequence[Value], width: int) -> Value:
    """Sum modulo 2**width of signed rows, and of a carry for each row but one, by as many adders.

    A balanced tree of sums as wide as they need to be; the rows come in ascending width.
    """
    waiting = list(rows)
    for index, carry in enumerate(carries):
        first, second = waiting[:2]
        size = min(max(len(first), len(second)) + 1, width)
        # A bit below the lowest turns the carry into a plain operand of the same adder.
        total = Signal(signed(size + 1), name=f"sum_{index}_with_carry")
        m.d.comb += total.eq(Cat(Const(1, 1), first).as_signed() + Cat(carry, second).as_signed())
        waiting = [*waiting[2:], wire(m, total[1:].as_signed(), f"sum_{index}")]
    return waiting[0]
