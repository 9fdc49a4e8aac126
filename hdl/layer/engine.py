"""The layer engine: the parts of a layer and their connection, in any number system.

The front takes packets. For each time step `Issue` walks through the rows of the schedule
(:mod:`fewbit.golden.layer.schedule`), a feed adds weights, activations and start values to each
beat, the neurons turn rows into results, `Collect` takes the results, and `Answer` sends them. The
engine connects these parts, and decides when time steps and phases begin and end. A number system
brings its own neurons, and picks the feed and the cells that fit them.
"""

from collections.abc import Iterable

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.packets import OPERANDS, RESULTS
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import HasPorts, stream_of
from fewbit.hdl.layer.answer import Answer
from fewbit.hdl.layer.cells import Cells
from fewbit.hdl.layer.collect import Collect
from fewbit.hdl.layer.feed import PlainFeed
from fewbit.hdl.layer.feed_halves import HalvesFeed
from fewbit.hdl.layer.feed_one_memory import OneMemoryFeed
from fewbit.hdl.layer.front import Front
from fewbit.hdl.layer.gates import StoredGates
from fewbit.hdl.layer.issue import Issue
from fewbit.hdl.layer.neurons import Neurons
from fewbit.hdl.layer.precision import Precision

__all__ = ["Feed", "LayerEngine"]

Feed = PlainFeed | HalvesFeed | OneMemoryFeed


class LayerEngine(wiring.Component):
    """A layer of a number system: packets in, packets out.

    While the neurons are ready, the lanes take a word of weights a cycle; meanwhile the next input
    vector comes in. At the end of each phase, and so of each time step, the lanes wait until its
    last result is collected and, where gates are stored, normalised.

    Parameters
    ----------
    neurons
        The number system's neurons.
    feed
        The part that reads weights, activations and start values for the neurons.
    cells
        The part that stores the units' cells.
    precision
        The part that chooses, for each group and time step, whether weights count with 8 bits or
        with 4; None where they always count whole.

    Ports
    -----
    i, o
        Packets, see :mod:`fewbit.golden.layer.packets`.
    """

    def __init__(
        self, neurons: Neurons, feed: Feed, cells: Cells, *, precision: Precision | None = None
    ) -> None:
        self.places = neurons.places
        self.neurons = neurons
        self.feed = feed
        self.cells = cells
        self.precision = precision
        super().__init__({"i": In(stream_of(OPERANDS)), "o": Out(stream_of(RESULTS))})

    @property
    def contract(self) -> LayerContract:
        """The contract that the layer fulfils, with its parameters."""
        return self.places.contract

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, schedule = self.places, self.places.schedule
        neurons, feed, cells = self.neurons, self.feed, self.cells
        m.submodules.front = front = Front(places)
        m.submodules.issue = issue = Issue(schedule, neurons.segments)
        m.submodules.feed = feed
        m.submodules.neurons = neurons
        m.submodules.cells = cells
        m.submodules.collect = collect = Collect(places, neurons.result)
        m.submodules.answer = answer = Answer(places)
        for part in (feed, neurons, cells, answer):
            _copy(m, front.bus, part.bus, front.bus.signature.members)

        # The page that the time step in progress, or the next one, reads of both vectors. New
        # hidden values go to the other one.
        page = Signal()
        busy = Signal()
        phase = Signal.like(issue.phase, name="phase")
        phase_is_done: Value = collect.phase_is_collected
        beat = issue.o.payload
        issues = wire(m, issue.o.valid & issue.o.ready, "issues")
        begins = Signal()
        if any(task.to == "gate" for task in schedule.tasks):
            m.submodules.stored_gates = gates = StoredGates(schedule)
            phase_is_done = gates.phase_is_done
            self._connect_gates(m, gates, collect)
            m.d.comb += [
                gates.read_gate.eq(beat.gate),
                gates.read_group.eq(beat.group),
                gates.reads.eq(issues),
                gates.begins.eq(begins),
                gates.phase.eq(phase),
            ]
        is_last = wire(m, phase == len(schedule.phases) - 1, "is_last_phase")
        ends = wire(m, phase_is_done & is_last, "ends")
        next_phase = wire(m, phase_is_done & ~is_last, "next_phase")
        other_is_full, is_full = (front.full.bit_select(each, 1) for each in (~page, page))
        m.d.comb += begins.eq(Mux(busy, ends & other_is_full, is_full))
        with m.If(next_phase):
            m.d.sync += phase.eq(phase + 1)
        with m.If(ends):
            m.d.sync += [phase.eq(0), page.eq(~page), busy.eq(0)]
        with m.If(begins):
            m.d.sync += busy.eq(1)
        fresh = wire(m, front.fresh | front.starts.bit_select(page, 1), "starts_at_reset")

        wiring.connect(m, wiring.flipped(self.i), front.i)
        wiring.connect(m, issue.o, feed.i)
        neurons.take(m, feed.o)
        m.d.comb += [
            front.page.eq(page),
            front.ends.eq(ends),
            front.idle.eq(~busy & ~front.full.any()),
            front.answered.eq(self.o.ready),
            front.held_off.eq(feed.held_off),
            issue.begins.eq(begins),
            issue.next_phase.eq(next_phase),
            issue.phase.eq(phase),
            # Inputs of the feed.
            feed.page.eq(page),
            feed.write_page.eq(front.write_page),
            feed.busy.eq(busy),
            feed.begins.eq(begins),
            feed.fresh.eq(fresh),
            feed.saves.eq(front.saves),
            feed.results.eq(collect.vectors),
            neurons.old_cell.eq(cells.old),
            # Inputs of the cells.
            cells.group.eq(beat.group),
            cells.new_cell.eq(beat.new_cell),
            cells.needs_cell.eq(beat.needs_cell),
            cells.issues.eq(issues),
            cells.advances.eq(issue.o.ready),
            cells.fresh.eq(fresh),
            cells.busy.eq(busy),
            cells.begins.eq(begins),
            cells.written.eq(collect.new_cells),
            cells.saves.eq(front.saves),
            # Inputs of the parts that handle results.
            collect.begins.eq(begins),
            collect.phase.eq(phase),
            answer.fresh.eq(front.fresh),
            answer.reset_hidden.eq(neurons.reset_hidden),
            answer.saved_hidden.eq(feed.saved),
            answer.saved_cell.eq(cells.saved),
        ]
        for given, taken in zip(neurons.o, collect.i, strict=True):
            wiring.connect(m, given, taken)
        wiring.connect(m, collect.o, answer.hidden)
        wiring.connect(m, answer.o, wiring.flipped(self.o))
        _copy(m, front, answer, ("offers_status", "status", "offers_state", "is_whole"))
        # Ports that only some number systems' neurons have.
        has = neurons.signature.members
        if "fresh" in has:
            m.d.comb += neurons.fresh.eq(fresh)
        if "drains" in has:
            m.d.comb += neurons.drains.eq(~feed.o.valid)
        _copy(m, neurons, cells, [name for name in ("cell_address", "reads_cell") if name in has])
        if "cells" in has:
            for given, taken in zip(neurons.cells, cells.cells, strict=True):
                wiring.connect(m, given, taken)
        if self.precision is not None:
            m.submodules.precision = self.precision
            self._connect_precision(m, self.precision, front, issue, collect, answer)
            m.d.comb += [
                self.precision.fresh.eq(fresh),
                self.precision.begins.eq(begins),
                self.precision.ends.eq(ends),
                self.precision.issues_group.eq(issues & beat.ends_group),
            ]
        return m

    def _connect_gates(self, m: Module, gates: StoredGates, collect: Collect) -> None:
        """Connect the stored values of gates with the results, the feed and the normaliser."""
        m.d.comb += [
            self.feed.gates.eq(gates.values),
            gates.write_gate.eq(collect.gate),
            gates.write_group.eq(collect.group),
            gates.writes.eq(collect.gate_writes),
            gates.value.eq(collect.gate_value),
            gates.phase_is_collected.eq(collect.phase_is_collected),
        ]
        if gates.normalizes:
            wiring.connect(m, gates.normalizer, self.neurons.normalizer)

    def _connect_precision(
        self,
        m: Module,
        precision: Precision,
        front: Front,
        issue: Issue,
        collect: Collect,
        answer: Answer,
    ) -> None:
        """Connect the part that chooses the precision with those that it watches or steers."""
        _copy(m, front.bus, precision.bus, front.bus.signature.members)
        _copy(m, front, precision, ("register_writes", "loaded"))
        _copy(m, collect, precision, ("takes_unit", "taken"))
        m.d.comb += [
            precision.group.eq(issue.o.payload.group),
            precision.collected_group.eq(collect.group),
            precision.ends_group.eq(collect.ends_task),
            issue.low.eq(precision.low),
            self.feed.low.eq(precision.low),
            answer.passes.eq(precision.passes),
        ]
        if precision.observes_cells:
            m.d.comb += [
                self.cells.observed_group.eq(precision.observed_group),
                precision.observed.eq(self.cells.observed),
            ]


def _copy(m: Module, given: HasPorts, taken: HasPorts, names: Iterable[str]) -> None:
    """Drive ports of one component by those of another that have the same names."""
    m.d.comb += [getattr(taken, name).eq(getattr(given, name)) for name in names]
