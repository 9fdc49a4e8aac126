"""How vectors of inputs and hidden values lie in memory where lanes are side by side.

Values arrive one by one and are read a word of all lanes at a time, by all rows that are added side
by side. What each of these would make of a value can be made once, when it is written.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data

from fewbit.hdl.arithmetic import wire
from fewbit.hdl.writer import Writer

__all__ = ["PairedVectors", "PlainVectors", "TripledVectors", "Vectors"]


@dataclass(frozen=True)
class Vectors(ABC):
    """What is held of vectors, by words of all lanes.

    Parameters
    ----------
    width
        Bits of a value.
    lanes
        Values of a word.
    """

    width: int
    lanes: int
    group: ClassVar[int] = 1
    """Values that are held together."""

    @property
    @abstractmethod
    def element(self) -> Shape:
        """What is held of a group."""

    def gather(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        """What is written of a group when its last value comes.

        Parameters
        ----------
        m
            The module.
        writer
            The vector's values, in order: an enable for each lane.
        length
            Values of the vector.
        name
            What the names of signals begin with.

        Returns
        -------
        An enable for each group, and the group's values.
        """
        del m, length, name
        return writer

    @abstractmethod
    def prepare(self, m: Module, values: Value) -> Value:
        """What is held of a group's values, the values themselves lowest."""

    def raws(self, word: Value) -> Value:
        """The values of a word."""
        size, values = self.element.width, self.group * self.width
        places = range(0, len(word), size)
        return Cat(word[place : place + values] for place in places)


@dataclass(frozen=True)
class PlainVectors(Vectors):
    """The values themselves."""

    @property
    def element(self) -> Shape:
        return Shape(self.width)

    def prepare(self, m: Module, values: Value) -> Value:
        return values


@dataclass(frozen=True)
class PairedVectors(Vectors):
    """Two neighbours with their sum and their difference.

    So two products with weights of -1, 0 and 1 are one of these four, negated or not, or 0.
    """

    group: ClassVar[int] = 2

    @property
    def layout(self) -> data.StructLayout:
        """The members of an element."""
        raw, wider = signed(self.width), signed(self.width + 1)
        return data.StructLayout({"first": raw, "second": raw, "sum": wider, "difference": wider})

    @property
    def element(self) -> Shape:
        return Shape(self.layout.size)

    def gather(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        value = writer.data
        first = Signal(self.width, name=f"{name}_first", reset_less=True)
        # Amaranth writes an expression out for every bit that is taken of it, but a signal once.
        enables = wire(m, writer.enable, f"{name}_enables")
        firsts, seconds = enables[::2], enables[1::2]
        is_first = wire(m, firsts.any(), f"{name}_is_first")
        with m.If(is_first):
            m.d.sync += first.eq(value)
        enable, left, right = seconds, first, value
        if length % 2:
            # The last one has no neighbour: each first one is written with a 0, and the second
            # one, if there is one, writes both.
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
    """A value and three times the value, of which digits from -4 to 4 are shifts."""

    @property
    def layout(self) -> data.StructLayout:
        """The members of an element."""
        return data.StructLayout({"once": signed(self.width), "thrice": signed(self.width + 2)})

    @property
    def element(self) -> Shape:
        return Shape(self.layout.size)

    def prepare(self, m: Module, values: Value) -> Value:
        doubled = Cat(Const(0, 1), values).as_signed()
        thrice = wire(m, (values.as_signed() + doubled)[: self.width + 2], "thrice")
        return Cat(values, thrice)
