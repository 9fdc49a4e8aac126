"""The cells of a layer: a memory for each neuron, from which old cells are read for each unit.

Three classes differ in how an old cell is asked for and how the new one arrives:
`CellsWithResults`, `CellsApart` and `CellsOnDemand`.
"""

from abc import abstractmethod

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import ReadPort
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.schedule import chunks
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.feed import masked, memory
from fewbit.hdl.layer.places import BYTE, Place, Places
from fewbit.hdl.selection import bits_of

__all__ = ["Cells", "CellsApart", "CellsOnDemand", "CellsWithResults"]


class Cells(wiring.Component):
    """The cells of all units: one memory for each neuron, a word for each group.

    Parameters
    ----------
    places
        The layer's places.
    observed
        Whether old cells can be read a second time, when the unit's result is there.

    Ports
    -----
    group, new_cell, needs_cell, issues, advances
        The beat that is issued in this cycle: its group of units; whether it takes a cell that this
        time step has written; whether its row needs a cell; whether there is a beat at all; and
        whether the words of this beat replace those of the beat before, which the neurons have
        taken.
    old
        The cells that were read, 0 where the time step starts from reset.
    fresh, busy, begins
        Whether the time step starts from reset; whether one is in progress; and whether one begins
        with the next cycle.
    written
        New cells that come with results: ``enable`` says for each neuron whether its ``cell`` is
        written to the place of group ``group``.
    bus, saves, saved
        The bus brings the cells of a state that is loaded. Where ``saves`` is 1, a state is saved:
        ``saved`` is the byte at the bus's place from the next cycle on.
    observed_group, observed
        A group, and its cells in the next cycle; only if they can be observed.
    """

    def __init__(self, places: Places, *, observed: bool = False) -> None:
        self.places = places
        self.can_be_observed = observed
        schedule = places.schedule
        self.groups = chunks(schedule.hidden, schedule.neurons)
        super().__init__(
            {
                "group": In(places.group),
                "new_cell": In(1),
                "needs_cell": In(1),
                "issues": In(1),
                "advances": In(1),
                "old": Out(places.cells),
                "fresh": In(1),
                "busy": In(1),
                "begins": In(1),
                "written": In(places.new_cells),
                "bus": In(places.bus),
                "saves": In(1),
                "saved": Out(BYTE),
                **(
                    {"observed_group": In(places.group), "observed": Out(places.cells)}
                    if observed
                    else {}
                ),
                **self.more_ports(places),
            }
        )

    @classmethod
    def more_ports(cls, places: Places) -> dict[str, wiring.Member]:
        """Return the ports by which neurons ask for old cells or send new ones; by default none."""
        del places
        return {}

    @abstractmethod
    def reading(self) -> tuple[Value, Value]:
        """Return the group whose cells are read, and whether they are read in this cycle."""

    def counts(self, m: Module) -> Value:
        """Return whether the cells that were read count; else they are 0, as at reset."""
        takes = Signal(reset_less=True)
        with m.If(self.advances):
            m.d.sync += takes.eq(self.new_cell | ~self.fresh)
        return takes

    def writing(self, m: Module) -> tuple[Value, list[Value], list[Value]]:
        """Return the group whose new cells come, the cells, and for each whether it is written."""
        del m
        neurons = range(self.places.schedule.neurons)
        written = self.written
        return (
            written.group,
            [written.cell[index] for index in neurons],
            [written.enable[index] for index in neurons],
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, bus = self.places, self.bus
        group, reads = self.reading()
        counts = self.counts(m)
        written, cells, enables = self.writing(m)
        size = places.cell_bytes
        loads = places.bytes(bus, Place.CELL, size * places.schedule.neurons)
        ports: list[ReadPort] = []
        for index, (cell, enable) in enumerate(zip(cells, enables, strict=True)):
            m.submodules[f"cells_{index}"] = words = memory(self.groups, places.cell_width)
            read, write = words.read_port(), words.write_port(granularity=BYTE)
            ports.append(read)
            m.d.comb += [
                read.addr.eq(Mux(self.busy, group, bus.word)),
                read.en.eq(reads | self.saves),
                self.old[index].eq(masked(read.data, counts)),
                write.addr.eq(written),
                write.data.eq(cell),
                write.en.eq(enable.replicate(size)),
            ]
            # A state is loaded only between time steps.
            with m.If(~self.busy):
                m.d.comb += [
                    write.addr.eq(loads.address),
                    write.data.eq(loads.data.replicate(size)),
                    write.en.eq(loads.enable[index * size : (index + 1) * size]),
                ]
            if self.can_be_observed:
                second = words.read_port()
                m.d.comb += [
                    second.addr.eq(self.observed_group),
                    self.observed[index].eq(second.data),
                ]
        words = Cat(port.data for port in ports)
        m.d.comb += self.saved.eq(words.word_select(bus.byte[: bits_of(len(words) // BYTE)], BYTE))
        return m


class CellsWithResults(Cells):
    """Cells that are read with each beat, and written with the unit's result."""

    def reading(self) -> tuple[Value, Value]:
        return self.group, self.issues


class CellsApart(Cells):
    """Cells that are read with rows that need them, and written apart from results.

    An old cell holds still from the first beat of a row that needs it until the first such beat of
    the next unit.

    Ports
    -----
    cells
        The new cells, in a stream for each neuron, in the order of the units.
    """

    @classmethod
    def more_ports(cls, places: Places) -> dict[str, wiring.Member]:
        cell = stream.Signature(unsigned(places.cell_width))
        return {"cells": In(cell).array(places.schedule.neurons)}

    def reading(self) -> tuple[Value, Value]:
        return self.group, self.issues & self.needs_cell

    def writing(self, m: Module) -> tuple[Value, list[Value], list[Value]]:
        # One group is written at a time, when all neurons offer their new cells.
        group = Signal(range(max(2, self.groups)), name="cell_group", reset_less=True)
        written = wire(m, Cat(each.valid for each in self.cells).all(), "cells_are_there")
        m.d.comb += [each.ready.eq(written) for each in self.cells]
        with m.If(written):
            m.d.sync += group.eq(group + 1)
        with m.If(self.begins):
            m.d.sync += group.eq(0)
        return group, [each.payload for each in self.cells], [written for _ in self.cells]


class CellsOnDemand(Cells):
    """Cells that the one neuron of a layer reads when it asks, and writes before its result.

    Ports
    -----
    cell_address, reads_cell
        The unit whose old cell the neuron asks for, and whether it asks; ``old`` follows in the
        next cycle.
    cells
        The new cell of the unit whose result comes next.
    """

    @classmethod
    def more_ports(cls, places: Places) -> dict[str, wiring.Member]:
        return {
            "cell_address": In(range(max(2, places.schedule.hidden))),
            "reads_cell": In(1),
            "cells": In(stream.Signature(unsigned(places.cell_width))).array(1),
        }

    def reading(self) -> tuple[Value, Value]:
        return self.cell_address, self.reads_cell

    def counts(self, m: Module) -> Value:
        return ~self.fresh

    def writing(self, m: Module) -> tuple[Value, list[Value], list[Value]]:
        (cell,) = self.cells
        m.d.comb += cell.ready.eq(1)
        return self.written.group, [cell.payload], [cell.valid]
