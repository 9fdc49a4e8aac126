"""The common part of units that sum rows: the stream, the registers, the sum of the lanes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.rows import RowAccumulateContract
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import stream_of
from fewbit.hdl.structure import LaneStructure, check_structure
from fewbit.hdl.sums.adders import signed_sum
from fewbit.hdl.sums.columns import Columns

__all__ = ["Beat", "Lane", "RowAccumulate", "RowProducts", "SelectedProducts"]


class Beat(NamedTuple):
    """The weights and the activations of a beat, one of each for every lane."""

    weights: Any
    activations: Any


class RowProducts(ABC):
    """The products of a beat: no circuit by itself, but what adds them to one.

    Parameters
    ----------
    contract
        The contract of the accumulate unit whose products they are.
    structure
        How they are added, see :mod:`fewbit.hdl.structure`.
    """

    def __init__(self, contract: RowAccumulateContract, structure: LaneStructure) -> None:
        check_structure(structure, LaneStructure)
        self.contract: Any = contract
        self.lanes = contract.lanes
        self.activation_width = contract.activation_width
        self.accumulator_width = contract.accumulator_width
        self.structure: LaneStructure = structure

    @abstractmethod
    def _add_lanes(self, m: Module, beat: Beat, columns: Columns) -> None:
        """Add the products of a beat to columns."""

    @abstractmethod
    def _chained_lanes(self, m: Module, beat: Beat, before: Value) -> Value:
        """Return the sum of ``before`` and a beat's products, by adders on carry chains."""

    @abstractmethod
    def _plain_products(self, m: Module, beat: Beat) -> list[Value]:
        """Return the products of a beat, written with operators."""

    def add(self, m: Module, beat: Beat, before: Value) -> Value:
        """Return the sum of ``before`` and a beat's products, of which only low bits are valid."""
        match self.structure:
            case "gates":
                columns = Columns(m, self.accumulator_width, "sum")
                self._add_lanes(m, beat, columns)
                columns.add_word(before)
                return columns.sum()
            case "fpga":
                return self._chained_lanes(m, beat, before)
            case "plain":
                products = [
                    wire(m, product, f"product_{lane}")
                    for lane, product in enumerate(self._plain_products(m, beat))
                ]
                return sum(products, before)


class RowAccumulate(wiring.Component):
    """The sum of a row of weights times activations, for a beat each cycle.

    The sum follows the last beat of a row by one cycle. While it waits, the unit stalls. Bit for
    bit :meth:`fewbit.golden.accumulate.rows.RowAccumulateContract.compute`.

    Parameters
    ----------
    contract
        The unit's contract; by default one with default parameters.
    structure
        "gates", "fpga" or "plain", see :mod:`fewbit.hdl.structure`.
    """

    contract_type: ClassVar[type[RowAccumulateContract]]
    products_type: ClassVar[type[RowProducts]]

    def __init__(
        self, contract: RowAccumulateContract | None = None, structure: LaneStructure = "gates"
    ) -> None:
        self.contract = contract or self.contract_type()
        self.structure: LaneStructure = structure
        self.products = self.products_type(self.contract, structure)
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        width = self.contract.accumulator_width
        # One register holds the running sum and the result; it needs no reset.
        total = Signal(signed(width), reset_less=True)
        done = Signal()
        before = wire(m, Mux(beat.first, beat.accumulator, total), "before")
        following = self.products.add(m, Beat(beat.weights, beat.activations), before)
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
    """A product in two parts: its value is ``term + negate``."""

    term: Value
    """A signed number. For a negative weight it is the complement of the number to be negated."""
    negate: Value
    """1 for a negative weight, which turns the complement into the negative."""
    odd: Value
    """The lowest bit of the product: whether the lowest bits of ``term`` and ``negate`` differ."""


class SelectedProducts(RowProducts):
    """Products of lanes that select their activation, its complement plus one, or nothing."""

    @abstractmethod
    def _lanes(self, m: Module, beat: Beat) -> list[Lane]:
        """Return the products of a beat."""

    def _add_lanes(self, m: Module, beat: Beat, columns: Columns) -> None:
        for lane in self._lanes(m, beat):
            columns.add_pair(lane.negate, lane.odd)
            columns.add_signed(lane.term[1:], 1)

    def _chained_lanes(self, m: Module, beat: Beat, before: Value) -> Value:
        lanes = self._lanes(m, beat)
        # There are as many adders as lanes, and each uses one lane's ``negate`` as its carry.
        return signed_sum(
            m,
            [*(lane.term.as_signed() for lane in lanes), before],
            [lane.negate for lane in lanes],
            self.accumulator_width,
        )
