"""The programs of an integer LSTM unit's update: its rows, and the operations on them.

A layer takes a unit in one task or several. The update runs a segment of its program in each task:
a list of operations, most of which are multiplications on one shared multiplier. Some operations
use up a row's sum from the lanes. The update's datapath is in
:mod:`fewbit.hdl.neuron.integer_update`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from amaranth.hdl import Value

from fewbit.golden.lstm.integer_variant import IntegerVariant

__all__ = ["Kind", "Operation", "Program"]


class Kind(Enum):
    """The kinds of operations, by their factors."""

    REQUANTISE = auto()
    """Multiplies the accumulator by the scale."""
    REQUANTISE_PRODUCT = auto()
    """Multiplies the product of the previous operation by the scale."""
    ACTIVATE = auto()
    """Multiplies the two factors that the activation's present step needs."""
    MULTIPLY = auto()
    """Multiplies a gate value by another word of 16 bits."""
    LOAD = auto()
    """Takes a gate's raw from the row; nothing is multiplied."""
    RECALL = auto()
    """Makes the cell the next raw to activate; nothing is multiplied."""


@dataclass(frozen=True)
class Operation:
    """A multiplication, and the way in which its product is finished a cycle later."""

    name: str
    kind: Kind
    finish: str = ""
    """The name of the place that the finished product goes to. It also says how the product is
    shifted and what is added. Empty if there is no product."""
    activates: str = ""
    """The gate, or "cell", whose raw the operation completes, and which the separate interpolation
    activates in the next cycle; empty if there is none."""
    row: bool = False
    """Whether the operation's last step uses up the row."""
    needs_row: bool = False
    """Whether the operation waits for the row, but does not use it up."""
    independent: bool = False
    """Whether the operation may start while the product before it is still being finished."""


def _requantise(name: str, finish: str = "part", *, independent: bool = True) -> Operation:
    return Operation(name, Kind.REQUANTISE, finish, row=True, independent=independent)


@dataclass(frozen=True)
class Program:
    """The operations of a unit's update: a list for each segment.

    Parameters
    ----------
    variant
        The variant of the LSTM.
    beside
        The cycles that an activation takes on an interpolation of its own, beside the operations,
        after its raw is written. 0 says that an activation is itself an operation; with 2, gate
        values have a register apart from that of raws.
    quick
        Whether a product of two words of 16 bits takes a single cycle. An operation may then read a
        register in the very cycle in which the previous one writes it.
    """

    variant: IntegerVariant
    beside: int
    quick: bool

    @cached_property
    def segments(self) -> dict[str, tuple[Operation, ...]]:
        """The operations of each segment, by its name."""
        variant = self.variant
        programs: dict[str, Callable[[], Iterable[Operation]]] = {}
        if variant.norm:
            for gate in variant.gates:
                programs[f"collect_{gate}"] = lambda gate=gate: self._rows(gate, collects=True)
            if variant.peephole:
                programs["cell"] = lambda: (*self._new_cell(), *self._peephole_of_o())
                programs["output"] = self._output
            else:
                programs["update"] = lambda: (*self._new_cell(), *self._output_of_new_cell())
        else:
            programs["update"] = self._update
        if variant.projection:
            programs["project"] = lambda: iter((_requantise("projection", "projected"),))
        return {name: tuple(operations()) for name, operations in programs.items()}

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """The operations of all segments, one segment after the other."""
        return tuple(op for segment in self.segments.values() for op in segment)

    # The circuit counts positions. With a single segment they are the indices of its operations,
    # and after the last one the next unit's first may start. With several segments, the first
    # positions are for waiting until a row says which segment is next. The last product is finished
    # meanwhile: each way to finish one has its own waiting position.

    @cached_property
    def waiting(self) -> tuple[str, ...]:
        """The `finish` of the last product at each waiting position; none with one segment."""
        if len(self.segments) == 1:
            return ()
        return tuple(dict.fromkeys(segment[-1].finish for segment in self.segments.values()))

    @cached_property
    def length(self) -> int:
        """The number of positions, for waiting and for operations."""
        return len(self.waiting) + len(self.operations)

    def starts(self) -> tuple[int, ...]:
        """Return the position of the first operation of each segment."""
        lengths = [len(segment) for segment in self.segments.values()]
        return tuple(len(self.waiting) + sum(lengths[:index]) for index in range(len(lengths)))

    def following(self, position: int) -> int:
        """Return the position that follows that of an operation."""
        for start, segment in zip(self.starts(), self.segments.values(), strict=True):
            if position == start + len(segment) - 1:
                return self.waiting.index(segment[-1].finish) if self.waiting else 0
        return position + 1

    def at(self, position: Value, chosen: Callable[[Operation], bool]) -> Value:
        """Return whether the position is that of an operation for which `chosen` is true."""
        return position.matches(*self._places(chosen))

    def after(self, position: Value, chosen: Callable[[Operation], bool]) -> Value:
        """Return whether the position follows that of an operation for which `chosen` is true."""
        return position.matches(*(self.following(place) for place in self._places(chosen)))

    def _places(self, chosen: Callable[[Operation], bool]) -> list[int]:
        first = len(self.waiting)
        return [first + index for index, op in enumerate(self.operations) if chosen(op)]

    @property
    def scales(self) -> tuple[str, ...]:
        """The names of the scales: first those of rows, then "hidden", and at last "projection".

        A row's scale is named by gate and part, such as "i_input".
        """
        parts = ("input", "recurrent", "peephole")[: 3 if self.variant.peephole else 2]
        rows = [
            f"{gate}_{part}"
            for gate in self.variant.gates
            for part in parts
            if (gate, part) != ("g", "peephole")
        ]
        return (*rows, "hidden", *(("projection",) if self.variant.projection else ()))

    def rows(self, segment: str) -> tuple[str, ...]:
        """Return the names of a segment's rows, in the order in which they are taken."""
        return tuple(op.name for op in self.segments[segment] if op.row)

    def cell_row(self, segment: str) -> str | None:
        """Return the row of a segment that brings the old cell, or None if it needs none."""
        names = [op.name for op in self.segments[segment]]
        rows = self.rows(segment)
        if segment == "output":
            return rows[0]
        for name in ("i_peephole", "f_peephole"):
            if name in names:
                return name
        return next(
            (row for row in ("f_recurrent", "f_value") if "keep" in names and row in rows), None
        )

    # The parts that programs are composed of.

    def _rows(self, gate: str, *, collects: bool = False) -> Iterator[Operation]:
        """Yield the requantisation of a gate's rows; the last may start an activation beside it."""
        sees_cell = self.variant.peephole and gate != "g"
        activates = gate if self.beside and not collects else ""
        yield _requantise(f"{gate}_input")
        yield Operation(
            f"{gate}_recurrent",
            Kind.REQUANTISE,
            "sum",
            "" if sees_cell else activates,
            row=True,
            independent=True,
        )
        # With layer norm, gate o's peephole comes later, in the segment of the new cell.
        if sees_cell and (collects is False or gate != "o"):
            yield from self._peephole(gate, activates)

    def _peephole(self, gate: str, activates: str) -> Iterator[Operation]:
        """Yield the product of peephole weight and cell, which is then requantised like a row."""
        yield Operation(f"{gate}_weigh", Kind.MULTIPLY, "row", needs_row=True, independent=True)
        yield Operation(f"{gate}_peephole", Kind.REQUANTISE, "sum", activates, row=True)

    def _peephole_of_o(self) -> Iterator[Operation]:
        yield self._load("o", activates=False)
        yield from self._peephole("o", "")

    def _load(self, gate: str, *, activates: bool = True, independent: bool = True) -> Operation:
        return Operation(
            f"{gate}_value",
            Kind.LOAD,
            activates=gate if activates and self.beside else "",
            row=True,
            independent=independent,
        )

    def _activate(self, gate: str) -> Iterator[Operation]:
        """Yield the activation as an operation of its own, unless it runs beside the operations."""
        if not self.beside:
            finish = "cell_tanh" if gate == "cell" else gate
            yield Operation(f"{gate}_activate", Kind.ACTIVATE, finish)

    def _keep(self, *, independent: bool = False) -> Operation:
        return Operation("keep", Kind.MULTIPLY, "kept", independent=independent)

    def _add(self, *, activates: bool = True, independent: bool = False) -> Operation:
        tanh = "cell" if self.beside and activates else ""
        return Operation("add", Kind.MULTIPLY, "cell", tanh, independent=independent)

    def _expose(self) -> Iterator[Operation]:
        yield Operation("expose", Kind.MULTIPLY, "exposed")
        yield Operation("hidden", Kind.REQUANTISE_PRODUCT, "result", independent=True)

    def _update(self) -> Iterator[Operation]:
        """Yield the operations from a unit's rows to its new state."""
        # Where activation and multiplication are quick, the next gate's input part is requantised
        # while a gate is activated. Its result overwrites the register of the gate's value in the
        # very cycle in which that value is multiplied.
        overlaps = bool(self.beside) and self.quick
        if not self.variant.coupled:
            yield from self._rows("i")
            yield from self._activate("i")
        yield from self._rows("f")
        yield from self._activate("f")
        g_input, *g_rest = self._rows("g")
        o_input, *o_rest = self._rows("o")
        if overlaps and self.beside == 1:
            yield from (g_input, self._keep(independent=True), *g_rest)
        elif overlaps:
            yield from (g_input, *g_rest, self._keep(independent=True))
        else:
            yield from (self._keep(), g_input, *g_rest)
        if overlaps:
            yield o_input
            yield self._add(independent=True)
        else:
            yield from self._activate("g")
            yield self._add()
            yield from self._activate("cell")
            yield o_input
        yield from o_rest
        yield from self._activate("o")
        yield from self._expose()

    def _new_cell(self) -> Iterator[Operation]:
        """Yield the operations from the normalised gates i, f and g to the new cell."""
        if not self.variant.coupled:
            yield self._load("i")
            yield from self._activate("i")
        yield self._load("f")
        yield from self._activate("f")
        yield self._keep()
        yield self._load("g")
        yield from self._activate("g")
        yield self._add(activates=not self.variant.peephole)

    def _output_of_new_cell(self) -> Iterator[Operation]:
        """Yield the operations from a cell just computed and normalised gate o to the result."""
        yield from self._activate("cell")
        # An interpolation of its own takes one raw a cycle, and the cell's comes first.
        yield self._load("o", independent=self.beside == 0)
        yield from self._activate("o")
        yield from self._expose()

    def _output(self) -> Iterator[Operation]:
        """Yield the operations from a stored cell and normalised gate o to the hidden value."""
        yield Operation("recall", Kind.RECALL, activates="cell" if self.beside else "")
        yield from self._activate("cell")
        yield self._load("o")
        yield from self._activate("o")
        yield from self._expose()
