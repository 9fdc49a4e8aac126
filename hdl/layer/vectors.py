"""How vectors of inputs and hidden values lie in memory, so that the lanes have less to do.

Values arrive one by one and are read a word of all lanes at a time, by all rows that are added side
by side. What each of these would make of a value can be made once, when it is written.
"""

from dataclasses import dataclass
from typing import Protocol

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data

from hdl.arithmetic import wire
from hdl.layer.image import Writer

__all__ = ["PairedVectors", "PlainVectors", "TripledVectors", "Vectors"]


class Vectors(Protocol):
    """What the engine has to know of a vector's words."""

    width: int
    """Bits of a value."""
    lanes: int
    """Values of a word."""
    group: int
    """Values that are held together."""

    @property
    def element(self) -> Shape:
        """What is held of a group."""
        ...

    def write(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        """What is written of a group when its last value comes, from what is written of values.

        Parameters
        ----------
        m
            The module.
        writer
            Values, in order: an enable for each lane.
        length
            Values of the vector.
        name
            What the names of signals begin with.
        """
        ...

    def raws(self, word: Value) -> Value:
        """The values of a word as they were written."""
        ...


@dataclass(frozen=True)
class PlainVectors:
    """The values themselves."""

    width: int
    lanes: int
    group: int = 1

    @property
    def element(self) -> Shape:
        return Shape(self.width)

    def write(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        return writer

    def raws(self, word: Value) -> Value:
        return word


@dataclass(frozen=True)
class PairedVectors:
    """Two neighbours with their sum and their difference.

    So two products with weights of -1, 0 and 1 are one of these four, negated or not, or 0.
    """

    width: int
    lanes: int
    group: int = 2

    @property
    def layout(self) -> data.StructLayout:
        """The members of an element."""
        raw, wider = signed(self.width), signed(self.width + 1)
        return data.StructLayout({"first": raw, "second": raw, "sum": wider, "difference": wider})

    @property
    def element(self) -> Shape:
        return Shape(self.layout.size)

    def write(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        value = writer.data.as_signed()
        first = Signal(signed(self.width), name=f"{name}_first", reset_less=True)
        firsts, seconds = writer.enable[::2], writer.enable[1::2]
        is_first = wire(m, firsts.any(), f"{name}_is_first")
        with m.If(is_first):
            m.d.sync += first.eq(value)
        enable, left, right = seconds, first, value
        if length % 2:
            # The last one has no neighbour: each first one is written with a 0, and the second
            # one, if there is one, writes both.
            enable = firsts | seconds
            left = wire(m, Mux(is_first, value, first).as_signed(), f"{name}_left")
            right = wire(
                m, (value[:] & ~is_first.replicate(self.width)).as_signed(), f"{name}_right"
            )
        total = wire(m, left + right, f"{name}_sum")
        difference = wire(m, left - right, f"{name}_difference")
        return Writer(enable, writer.address, Cat(left, right, total, difference))

    def raws(self, word: Value) -> Value:
        size = self.element.width
        return Cat(
            word[index * size : index * size + 2 * self.width] for index in range(self.lanes // 2)
        )


@dataclass(frozen=True)
class TripledVectors:
    """A value and three times the value, of which digits from -4 to 4 are shifts."""

    width: int
    lanes: int
    group: int = 1

    @property
    def layout(self) -> data.StructLayout:
        """The members of an element."""
        return data.StructLayout({"once": signed(self.width), "thrice": signed(self.width + 2)})

    @property
    def element(self) -> Shape:
        return Shape(self.layout.size)

    def write(self, m: Module, writer: Writer, length: int, name: str) -> Writer:
        value = writer.data.as_signed()
        doubled = Cat(Const(0, 1), value).as_signed()
        thrice = wire(m, (value + doubled)[: self.width + 2], f"{name}_thrice")
        return Writer(writer.enable, writer.address, Cat(value, thrice))

    def raws(self, word: Value) -> Value:
        size = self.element.width
        return Cat(word[index * size : index * size + self.width] for index in range(self.lanes))
