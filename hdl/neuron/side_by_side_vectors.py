"""Layouts in memory of the vectors of a neuron whose gates' rows are added side by side.

Values arrive one by one. They are read a word at a time, with a value for each lane, and all rows
that are added side by side use the same word. So multiples and sums of values that each row would
compute can be computed once, when a value is written, and stored with it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data

from fewbit.hdl.arithmetic import wire
from fewbit.hdl.memory_writer import Writer

__all__ = ["PairedVectors", "PlainVectors", "TripledVectors", "Vectors"]


@dataclass(frozen=True)
class Vectors(ABC):
    """A layout of vectors: the bits that are stored for each group of neighbouring values.

    Parameters
    ----------
    width
        Bits of a value.
    lanes
        Number of values in a word.
    """

    width: int
    lanes: int
    group: ClassVar[int] = 1
    """Number of values that are stored together."""

    @property
    @abstractmethod
    def element(self) -> Shape:
        """The shape of the bits that are stored for a group."""

    def gather(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        """Turn the writer of single values into that of groups, which writes with the last value.

        Parameters
        ----------
        m
            The module.
        writer
            The writer of the vector's values, in order, with an enable for each lane.
        length
            Number of values in the vector.
        name
            The beginning of the names of signals.

        Returns
        -------
        The writer of a group's values, with an enable for each group of a word.
        """
        del m, length, name
        return writer

    @abstractmethod
    def prepare(self, m: Module, values: Value) -> Value:
        """Return the bits that are stored for a group's values, the values themselves lowest."""

    def raws(self, word: Value) -> Value:
        """Return the values themselves of a word."""
        size, values = self.element.width, self.group * self.width
        places = range(0, len(word), size)
        return Cat(word[place : place + values] for place in places)


@dataclass(frozen=True)
class PlainVectors(Vectors):
    """A layout that stores the values themselves and nothing else."""

    @property
    def element(self) -> Shape:
        return Shape(self.width)

    def prepare(self, m: Module, values: Value) -> Value:
        return values


@dataclass(frozen=True)
class PairedVectors(Vectors):
    """A layout that stores two neighbours with their sum and their difference.

    The sum of two products with weights of -1, 0 and 1 is one of these four, negated or not, or 0.
    """

    group: ClassVar[int] = 2

    @property
    def layout(self) -> data.StructLayout:
        """The named parts of the bits that are stored for a group."""
        raw, wider = signed(self.width), signed(self.width + 1)
        return data.StructLayout({"first": raw, "second": raw, "sum": wider, "difference": wider})

    @property
    def element(self) -> Shape:
        return Shape(self.layout.size)

    def gather(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        value = writer.data
        first = Signal(self.width, name=f"{name}_first", reset_less=True)
        # A slice of an expression repeats the whole expression in the Verilog, a slice of a signal
        # does not.
        enables = wire(m, writer.enable, f"{name}_enables")
        firsts, seconds = enables[::2], enables[1::2]
        is_first = wire(m, firsts.any(), f"{name}_is_first")
        with m.If(is_first):
            m.d.sync += first.eq(value)
        enable, left, right = seconds, first, value
        if length % 2:
            # The last value has no neighbour, so that every first value is at once written with a
            # 0. If a second one follows, it writes both.
            enable = wire(m, firsts | seconds, f"{name}_pair_enables")
            left = Mux(is_first, value, first)
            right = value & (~is_first).replicate(self.width)
        return Writer(enable, writer.address, Cat(left, right))

    def prepare(self, m: Module, values: Value) -> Value:
        left, right = values[: self.width].as_signed(), values[self.width :].as_signed()
        total = wire(m, left + right, "pair_sum")
        difference = wire(m, left - right, "pair_difference")
        return Cat(values, total, difference)


@dataclass(frozen=True)
class TripledVectors(Vectors):
    """A layout that stores each value and three times the value.

    Products with digits from -4 to 4 are shifts of these two.
    """

    @property
    def layout(self) -> data.StructLayout:
        """The named parts of the bits that are stored for a group."""
        return data.StructLayout({"once": signed(self.width), "thrice": signed(self.width + 2)})

    @property
    def element(self) -> Shape:
        return Shape(self.layout.size)

    def prepare(self, m: Module, values: Value) -> Value:
        doubled = Cat(Const(0, 1), values).as_signed()
        thrice = wire(m, (values.as_signed() + doubled)[: self.width + 2], "thrice")
        return Cat(values, thrice)
