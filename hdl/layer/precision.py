"""The choice of a group's precision for a time step, from how its units moved before.

Bit for bit :class:`fewbit.golden.layer.int8_dynamic.PrecisionHistory`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.packets import PASSES_SIZE
from fewbit.golden.layer.schedule import chunks
from fewbit.golden.lstm.precision import PrecisionSignal
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.places import BYTE, Place, Places
from fewbit.hdl.selection import choose

__all__ = ["REGISTERS", "Precision"]

REGISTERS = 3
"""Bytes of the threshold and the hold, which are the last ones of the configuration."""
_CELL = 16


class Precision(wiring.Component):
    """Says whether the weights of the issued group count with 4 bits, and counts passes.

    A unit that moves by more than the threshold sets its group's counter to the hold; a group whose
    counter is not 0, and every group in the first two time steps of a sequence, is taken with whole
    weights.

    Parameters
    ----------
    places
        The layer's places, which have `REGISTERS` registers.
    signal
        The quantity that is compared with the threshold: the change of the cell, or the output
        gate.
    result
        The layout of a collected result, with ``neuron``, and ``cell_result`` or ``output_gate``.

    Ports
    -----
    bus, register_writes, loaded
        See :class:`fewbit.hdl.layer.front.Front`.
    fresh, begins, ends
        Whether the time step starts from reset; whether one begins with the next cycle; and whether
        one ends with this cycle.
    group, issues_group
        The group that is issued, and whether this cycle's beat is its last.
    low
        Whether the group is in mode LOW: the high halves of its weights alone are multiplied.
    collected_group, takes_unit, ends_group, taken
        See `group`, `takes_unit`, `ends_task` and `taken` of
        :class:`fewbit.hdl.layer.collect.Collect`; a group has one task.
    observed_group, observed
        A group, and its old cells in the next cycle, see :class:`fewbit.hdl.layer.cells.Cells`.
    passes
        The byte of the counted passes that the bus named in the cycle before.
    """

    def __init__(self, places: Places, signal: PrecisionSignal, result: data.StructLayout) -> None:
        self.places = places
        self.signal: PrecisionSignal = signal
        super().__init__(
            {
                "bus": In(places.bus),
                "register_writes": In(REGISTERS),
                "loaded": In(1),
                "fresh": In(1),
                "begins": In(1),
                "ends": In(1),
                "group": In(places.group),
                "issues_group": In(1),
                "low": Out(1),
                "collected_group": In(places.group),
                "takes_unit": In(1),
                "ends_group": In(1),
                "taken": In(result),
                "observed_group": Out(places.group),
                "observed": In(places.cells),
                "passes": Out(BYTE),
            }
        )

    @property
    def observes_cells(self) -> bool:
        """Whether the choice depends on old cells."""
        return self.signal == "cell_change"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, bus = self.places, self.bus
        size = next(
            each.word_bytes for each in places.plan.sections if each.name == "configuration"
        )
        registers = ImageStore(places, bus).registers(
            m, "configuration", size - REGISTERS, writable=True
        )
        for index, register in enumerate(registers):
            with m.If(self.register_writes[index]):
                m.d.sync += register.eq(bus.data)
        threshold, hold = wire(m, Cat(*registers[:2]), "threshold"), registers[2]

        # The first two time steps of a sequence, or after a state was loaded, take whole weights.
        state_is_loaded = Signal()
        is_second = Signal()
        is_first = wire(m, self.fresh | state_is_loaded, "is_first_step")
        with m.If(places.begins(bus, Place.HIDDEN)):
            m.d.sync += state_is_loaded.eq(1)
        with m.If(self.ends):
            m.d.sync += [state_is_loaded.eq(0), is_second.eq(is_first)]

        groups = chunks(places.schedule.hidden, places.schedule.neurons)
        m.submodules.counters = counters = Memory(shape=BYTE, depth=max(2, groups), init=[])
        write = counters.write_port()
        # A lone group reads the counter in the very cycle in which it is written.
        next_counter = counters.read_port(transparent_for=(write,) if groups == 1 else ())
        counter = counters.read_port()
        width = len(self.group)
        next_group = (self.group + self.issues_group)[:width] & (~self.begins).replicate(width)
        is_always = wire(m, is_first | is_second | hold.all(), "takes_whole")
        m.d.comb += [
            next_counter.addr.eq(next_group),
            self.low.eq(~(is_always | next_counter.data.any())),
        ]

        # Whether the unit whose result is taken has moved, and with it its group.
        moved = self._cell_moved(m, threshold)
        if not self.observes_cells:
            gate = self.taken.output_gate
            moved = wire(m, gate + ~threshold, "gate_excess")[-1]
        has_moved = Signal(reset_less=True)
        moves = wire(m, (moved & self.takes_unit) | has_moved, "group_moves")
        counts = wire(m, counter.data.any() & ~is_first, "counts_down")
        less = wire(m, (counter.data - 1)[:BYTE], "counter_less_one")
        with m.If(self.takes_unit):
            m.d.sync += has_moved.eq(moves)
        with m.If(self.ends_group):
            m.d.sync += has_moved.eq(0)
        # A group may follow at once where its results had to wait.
        following = wire(m, self.collected_group + self.ends_group, "next_group_collected")
        m.d.comb += [
            self.observed_group.eq(following),
            counter.addr.eq(following),
            write.addr.eq(self.collected_group),
            write.data.eq(Mux(moves, hold, Mux(counts, less, Const(0, BYTE)))),
            write.en.eq(self.ends_group),
        ]
        # A reset may have come in the middle of a group.
        with m.If(self.begins):
            m.d.sync += has_moved.eq(0)
        self._count_passes(m)
        return m

    def _cell_moved(self, m: Module, threshold: Value) -> Value:
        """Return whether the unit's cell has changed by more than the threshold."""
        if not self.observes_cells:
            return Const(0, 1)
        old = choose(self.taken.neuron, list(self.observed))
        old = wire(m, old & (~self.fresh).replicate(_CELL), "cell_before").as_signed()
        new = wire(m, self.taken.cell_result, "cell_after").as_signed()
        change = wire(m, new - old, "cell_change")
        # Where the change is negative, this is one less than its distance from zero.
        distance = wire(m, change[:-1] ^ change[-1].replicate(_CELL), "cell_distance")
        # The distance exceeds the threshold if this sum, their difference less one, carries.
        excess = wire(m, Cat(Const(1, 1), distance) + Cat(change[-1], ~threshold), "cell_excess")
        return excess[-1]

    def _count_passes(self, m: Module) -> None:
        """Add a pass of the mode in which a group is issued, byte by byte in a memory.

        A memory costs less than registers, and its byte-wise carry has the time: a group has eight
        rows, and an update takes at least two cycles for each.
        """
        m.submodules.passes_memory = passes = Memory(shape=BYTE, depth=PASSES_SIZE, init=[])
        write, read = passes.write_port(), passes.read_port()
        m.d.comb += self.passes.eq(read.data)
        adds = Signal()
        has_read = Signal(reset_less=True)
        place = Signal(range(PASSES_SIZE))
        byte = wire(m, (read.data + 1)[:BYTE], "passes_byte")
        goes_on = wire(m, ~byte.any() & ~place[:2].all(), "passes_carry")
        if self.places.holds_image:
            clears = Signal(init=1)
            with m.If(place.all()):
                m.d.sync += clears.eq(0)
        else:
            clears = wire(m, ~self.loaded, "clears_passes")
        m.d.comb += [
            read.addr.eq(Mux(adds, place, self.bus.byte[:3])),
            write.addr.eq(place),
            write.data.eq(byte & (~clears).replicate(BYTE)),
            write.en.eq(clears | (adds & has_read)),
        ]
        with m.If(clears):
            m.d.sync += [place.eq(place + 1), adds.eq(0)]
        with m.Elif(self.issues_group):
            m.d.sync += [adds.eq(1), has_read.eq(0), place.eq(Cat(Const(0, 2), self.low))]
        with m.Elif(adds):
            m.d.sync += has_read.eq(~has_read)
            with m.If(has_read):
                m.d.sync += [place.eq(place + 1), adds.eq(goes_on)]
