"""The programs of an int8 LSTM unit's update: which rows it takes, and what is done with them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from amaranth.hdl import Value

from fewbit.golden.lstm.integer_variant import IntegerVariant

__all__ = ["Kind", "Operation", "Program"]


class Kind(Enum):
    """What an operation does."""

    REQUANTISE = auto()
    """Multiplies the accumulator by the scale."""
    REQUANTISE_PRODUCT = auto()
    """Multiplies the product of the operation before by the scale."""
    ACTIVATE = auto()
    """Multiplies what the activation asks for."""
    MULTIPLY = auto()
    """Multiplies a gate value by another word of 16 bits."""
    LOAD = auto()
    """Takes a gate raw from the row; nothing is multiplied."""
    RECALL = auto()
    """Makes the cell the next raw to activate; nothing is multiplied."""


@dataclass(frozen=True)
class Operation:
    """A multiplication, and the step that finishes its product a cycle later."""

    name: str
    kind: Kind
    finish: str = ""
    """What becomes of the product; the datapath says how."""
    activates: str = ""
    """Gate, or "cell", that the activation's own multiplier activates in the cycle after."""
    row: bool = False
    """Its last step uses up the row."""
    needs_row: bool = False
    """It waits for the row, which stays."""
    independent: bool = False
    """The operation may start while those before it are finished."""


def _requantise(name: str, finish: str = "part", *, independent: bool = True) -> Operation:
    return Operation(name, Kind.REQUANTISE, finish, row=True, independent=independent)


@dataclass(frozen=True)
class Program:
    """The operations of each segment of a unit, one after the other.

    Parameters
    ----------
    variant
        Of the LSTM.
    beside
        Cycles that an activation takes beside the operations, from the one after that in which its
        raw is written: 0, where it is an operation itself; 1; or 2, where gate values have a
        register apart from that of the raws.
    quick
        A product of two words of 16 bits takes a single cycle, so that an operation may read a
        register in the very cycle in which the one before it writes it.
    """

    variant: IntegerVariant
    beside: int
    quick: bool

    @cached_property
    def segments(self) -> dict[str, tuple[Operation, ...]]:
        """The operations of each segment."""
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
        """The operations of all segments, side by side."""
        return tuple(op for segment in self.segments.values() for op in segment)

    # Positions. With a single segment they are the indices of its operations, and after the last
    # one the next unit's first may start. With several, the program waits in between for the row
    # that says which segment is next: one waiting position for each way to finish a last product.

    @cached_property
    def waiting(self) -> tuple[str, ...]:
        """What finishes at each waiting position, the first positions; none with one segment."""
        if len(self.segments) == 1:
            return ()
        return tuple(dict.fromkeys(segment[-1].finish for segment in self.segments.values()))

    @cached_property
    def length(self) -> int:
        """Number of positions."""
        return len(self.waiting) + len(self.operations)

    def starts(self) -> tuple[int, ...]:
        """Position of the first operation of each segment."""
        lengths = [len(segment) for segment in self.segments.values()]
        return tuple(len(self.waiting) + sum(lengths[:index]) for index in range(len(lengths)))

    def following(self, position: int) -> int:
        """The position after that of an operation."""
        for start, segment in zip(self.starts(), self.segments.values(), strict=True):
            if position == start + len(segment) - 1:
                return self.waiting.index(segment[-1].finish) if self.waiting else 0
        return position + 1

    def at(self, position: Value, chosen: Callable[[Operation], bool]) -> Value:
        """Whether the position is that of a chosen operation."""
        return position.matches(*self._places(chosen))

    def after(self, position: Value, chosen: Callable[[Operation], bool]) -> Value:
        """Whether the position is one that follows a chosen operation."""
        return position.matches(*(self.following(place) for place in self._places(chosen)))

    def _places(self, chosen: Callable[[Operation], bool]) -> list[int]:
        first = len(self.waiting)
        return [first + index for index, op in enumerate(self.operations) if chosen(op)]

    @property
    def scales(self) -> tuple[str, ...]:
        """Names of the scales: those of the rows by gate and part, then "hidden", "projection"."""
        parts = ("input", "recurrent", "peephole")[: 3 if self.variant.peephole else 2]
        rows = [
            f"{gate}_{part}"
            for gate in self.variant.gates
            for part in parts
            if (gate, part) != ("g", "peephole")
        ]
        return (*rows, "hidden", *(("projection",) if self.variant.projection else ()))

    def rows(self, segment: str) -> tuple[str, ...]:
        """Names of a segment's rows, in the order in which they are taken."""
        return tuple(op.name for op in self.segments[segment] if op.row)

    def cell_row(self, segment: str) -> str | None:
        """The row of a segment that brings the old cell, or None if it needs none."""
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

    # The parts of the programs.

    def _rows(self, gate: str, *, collects: bool = False) -> Iterator[Operation]:
        """Requantisation of a gate's rows, and the raw's activation where that runs beside."""
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
        # Of gate o only the update's own order says when.
        if sees_cell and (collects is False or gate != "o"):
            yield from self._peephole(gate, activates)

    def _peephole(self, gate: str, activates: str) -> Iterator[Operation]:
        """The weight times the cell takes the place of the row, and is requantised like one."""
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
        """The activation as an operation of its own, unless it runs beside."""
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
        """From rows to the new state."""
        # Where the activation and the multiplications are quick, the next gate's input part is
        # requantised in the shadow of a gate's activation, and overwrites the gate's value in the
        # very cycle in which that is multiplied.
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
        """From normalised gates i, f and g to the cell."""
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
        """From the new cell, as it comes, and normalised gate o to the hidden value."""
        yield from self._activate("cell")
        # The cell is activated first, and the activation takes one raw a cycle.
        yield self._load("o", independent=self.beside == 0)
        yield from self._activate("o")
        yield from self._expose()

    def _output(self) -> Iterator[Operation]:
        """From a stored cell and normalised gate o to the hidden value."""
        yield Operation("recall", Kind.RECALL, activates="cell" if self.beside else "")
        yield from self._activate("cell")
        yield self._load("o")
        yield from self._activate("o")
        yield from self._expose()
