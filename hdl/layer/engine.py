"""The layer engine: memories, sequencer and streams, the same for every number system.

It walks a schedule (:mod:`golden.layer.schedule`): each cycle a word of weights for the lanes of
all neurons and a word of activations, the same for all. What a neuron does with its rows is the
number system's own.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import reduce
from operator import xor
from typing import Protocol, TypeVar

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from golden.layer.image import CHECKSUM_BYTES, Layout
from golden.layer.packets import OPERANDS, RESULTS, Kind, Reply, Status
from golden.layer.schedule import Row, Schedule, Task, chunks
from hdl.arithmetic import wire
from hdl.formats import stream_of
from hdl.layer.image import BYTE, ImageStore, Writer

__all__ = ["GateReading", "LayerEngine", "NumberSystem"]


class NumberSystem(Protocol):
    """What a number system supplies to the engine; weights and activations are bytes."""

    start_width: int
    """Bits of the value that a row starts from; whole bytes."""
    cell_width: int
    """Bits of a cell raw; whole bytes."""

    def segment(self, name: str) -> int:
        """Code of a task's program."""
        ...

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neurons, and what they need of the image beside starts and weights.

        A neuron has a stream ``i`` of beats {weights, activations, start, first, last, segment,
        old_cell} and a stream ``o`` of {result, cell_result, value}.

        Returns
        -------
        The neurons, and the hidden raw at reset, which holds still after the image is loaded.
        """
        ...

    def normalizer(self, m: Module, image: ImageStore, reading: "GateReading") -> wiring.Component:
        """Adds what normalises a gate's values, for schedules with phases that do.

        It takes all values of a gate twice and gives each back after the second time: a stream
        ``i`` of {value, normalizes, ...}, where the engine supplies these two, and a stream ``o``
        of {value}.
        """
        ...


@dataclass(frozen=True)
class GateReading:
    """Where the engine is among the values that it has normalised."""

    gate: Value
    """The gate in progress; holds still until its last value is back."""
    index: Value
    """Place of the next value among those of all gates, gate by gate, unit by unit."""
    advances: Value
    """What is read with that index counts from the next cycle on."""


class _State(IntEnum):
    """What the front does."""

    DISPATCH = 0
    TAKE = auto()
    STATUS = auto()
    SAVE_READ = auto()
    SAVE_SEND = auto()


class _Place(IntEnum):
    """Where bytes of a packet go, besides the sections of the image, which follow."""

    INPUT = 0
    HIDDEN = 1
    CELL = 2
    IMAGE = 3


class LayerEngine(wiring.Component):
    """A layer of a number system: packets in, packets out.

    The lanes take a word of weights a cycle, while the next input vector comes in and the last
    results leave. Between steps they wait until the last unit's new hidden value is there.

    Parameters
    ----------
    schedule
        What a step does.
    layout
        The parameter image, with sections "starts" and "weights" for the schedule's rows.
    system
        The number system.
    image
        A parameter image that the memories hold for good; None where packets bring it.

    Raises
    ------
    golden.layer.image.ImageError
        If the image is broken or another layer's.

    Ports
    -----
    i, o
        Packets, see :mod:`golden.layer.packets`.
    """

    def __init__(
        self,
        schedule: Schedule,
        layout: Layout,
        system: NumberSystem,
        image: bytes | None = None,
    ) -> None:
        self.schedule = schedule
        self.layout = layout
        self.system = system
        self.image = image
        super().__init__({"i": In(stream_of(OPERANDS)), "o": Out(stream_of(RESULTS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._declare()
        self._receive(m)
        store = ImageStore(
            self.layout,
            None if self.image is None else self.layout.split(self.image),
            self._writer,
        )
        self._add_memories(m, store)
        neurons, reset_hidden = self.system.attach(m, store)
        self._issue(m, neurons)
        self._collect(m, neurons)
        self._advance_phase(m, store)
        self._answer(m, neurons, reset_hidden)
        return m

    def _declare(self) -> None:
        """State that more than one part of the circuit shares."""
        is_fixed = self.image is not None
        self.loaded = Const(1, 1) if is_fixed else Signal()
        self.fresh = Signal(init=is_fixed)
        """The state is that at reset, whatever the memories hold."""
        self.full = Signal(2)
        """Which page of the input memory holds a vector to be used."""
        self.starts = Signal(2)
        self.page = Signal()
        """Page of the input memory that the step in progress, or the next one, uses."""
        self.write_page = Signal()
        self.hidden_page = Signal()
        self.busy = Signal()
        self.begins = Signal()
        """A step begins with the next cycle."""
        self.ends = Signal()
        """A step ends with this cycle."""
        self.phase = Signal(range(max(2, len(self.schedule.phases))))
        self.phase_is_collected = Signal()
        self.next_phase = Signal()
        self.normalizing = Signal()

    # The front: bytes in.

    def _receive(self, m: Module) -> None:
        schedule = self.schedule
        lanes, neurons = schedule.lanes, schedule.neurons
        cell_bytes = self.system.cell_width // BYTE
        # For each place: bytes of a word, and the last byte of the last word.
        places: list[tuple[int, int, int]] = [
            (lanes, (schedule.inputs - 1) // lanes, (schedule.inputs - 1) % lanes),
            (lanes, (schedule.outputs - 1) // lanes, (schedule.outputs - 1) % lanes),
            (
                neurons * cell_bytes,
                (schedule.hidden - 1) // neurons,
                (schedule.hidden - 1) % neurons * cell_bytes + cell_bytes - 1,
            ),
        ]
        is_fixed = self.image is not None
        if not is_fixed:
            places += [(s.word_bytes, s.words - 1, s.word_bytes - 1) for s in self.layout.sections]
            places.append((CHECKSUM_BYTES, 0, CHECKSUM_BYTES - 1))
        checksum = len(places) - 1
        self._sections = {
            section.name: _Place.IMAGE + index for index, section in enumerate(self.layout.sections)
        }
        self.place = place = Signal(range(len(places)), reset_less=True)
        self.word = word = Signal(range(max(2, *(end + 1 for _, end, _ in places))))
        self.byte = byte = Signal(range(max(2, *(size for size, _, _ in places))))
        is_last_byte_of_word = Signal()
        is_at_end = Signal()
        with m.Switch(place):
            for index, (size, last_word, last_byte) in enumerate(places):
                with _case(m, index, places):
                    m.d.comb += [
                        is_last_byte_of_word.eq(byte == size - 1),
                        is_at_end.eq((word == last_word) & (byte == last_byte)),
                    ]
        is_last_place = wire(m, place.matches(_Place.INPUT, _Place.CELL, checksum), "is_last_place")
        self.is_whole = is_whole = wire(m, is_at_end & is_last_place, "is_whole")
        complete = Signal()
        self.state = state = Signal(_State)
        kind = Signal(Kind)
        self.status = status = Signal(Status)
        beat = self.i.payload
        self.data = beat.s_axis_tdata
        checks = Signal(16)
        next_checks = wire(m, _crc(checks, self.data), "next_checks")
        self.idle = idle = wire(m, ~self.busy & ~self.full.any(), "idle")
        takes = wire(m, (state == _State.TAKE) & self.i.valid, "takes")
        self.writes = wire(m, takes & ~complete, "writes")
        self.saves = wire(m, state == _State.SAVE_READ, "saves")
        self.moves_on = Signal()
        """The next byte of the places: taken now, or sent."""
        m.d.comb += self.i.ready.eq(state == _State.TAKE)

        with m.If(self.moves_on):
            m.d.sync += byte.eq(byte + 1)
            with m.If(is_last_byte_of_word):
                m.d.sync += [byte.eq(0), word.eq(word + 1)]
            with m.If(is_at_end):
                m.d.sync += [byte.eq(0), word.eq(0), place.eq(place + 1)]

        m.d.comb += self.moves_on.eq(takes)
        with m.If(state == _State.DISPATCH):
            new_kind = beat.s_axis_tdest
            is_input = new_kind == Kind.INPUT
            m.d.sync += [
                kind.eq(new_kind),
                word.eq(0),
                byte.eq(0),
                # The byte that asks for the state is none of the state's.
                complete.eq(
                    (new_kind == Kind.SAVE_STATE)
                    | ((new_kind == Kind.PARAMETERS) & Const(is_fixed))
                ),
                checks.eq(0xFFFF),
            ]
            with m.If(is_input):
                m.d.sync += place.eq(_Place.INPUT)
            with m.Elif(new_kind == Kind.PARAMETERS):
                m.d.sync += place.eq(0 if is_fixed else _Place.IMAGE)
            with m.Else():
                m.d.sync += place.eq(_Place.HIDDEN)
            can_take = Mux(is_input, ~self.full.bit_select(self.write_page, 1), idle)
            with m.If(self.i.valid & can_take):
                m.d.sync += state.eq(_State.TAKE)
                if not is_fixed:
                    with m.If(new_kind == Kind.PARAMETERS):
                        m.d.sync += self.loaded.eq(0)
        with m.Elif(state == _State.TAKE):
            with m.If(takes):
                m.d.sync += [checks.eq(next_checks), complete.eq(complete | is_whole)]
            with m.If(takes & beat.s_axis_tlast):
                has_length = wire(m, is_whole & ~complete, "has_length")
                m.d.sync += [
                    state.eq(_State.DISPATCH),
                    status.eq(Status.WRONG_LENGTH),
                ]
                with m.If(kind == Kind.PARAMETERS):
                    m.d.sync += state.eq(_State.STATUS)
                    if is_fixed:
                        m.d.sync += status.eq(Status.FIXED)
                    else:
                        is_right = wire(m, ~next_checks.any(), "is_right")
                        m.d.sync += [
                            self.loaded.eq(has_length & is_right),
                            self.fresh.eq(1),
                        ]
                        with m.If(has_length):
                            m.d.sync += status.eq(Mux(is_right, Status.LOADED, Status.BROKEN_IMAGE))
                with m.Elif(~self.loaded):
                    m.d.sync += [
                        state.eq(_State.STATUS),
                        status.eq(Status.NO_PARAMETERS),
                    ]
                with m.Elif(kind == Kind.SAVE_STATE):
                    m.d.sync += [
                        state.eq(_State.SAVE_READ),
                        place.eq(_Place.HIDDEN),
                        word.eq(0),
                        byte.eq(0),
                    ]
                with m.Elif(kind == Kind.LOAD_STATE):
                    m.d.sync += self.fresh.eq(~has_length)
                    with m.If(~has_length):
                        m.d.sync += state.eq(_State.STATUS)
                with m.Elif(has_length):
                    m.d.sync += [
                        self.full.bit_select(self.write_page, 1).eq(1),
                        self.starts.bit_select(self.write_page, 1).eq(beat.s_axis_tuser),
                        self.write_page.eq(~self.write_page),
                    ]
                with m.Else():
                    m.d.sync += state.eq(_State.STATUS)
        # Answers come in the order of the packets.
        with m.Elif((state == _State.STATUS) & idle & self.o.ready):
            m.d.sync += state.eq(_State.DISPATCH)
        with m.Elif(self.saves):
            m.d.sync += state.eq(_State.SAVE_SEND)
        with m.Elif((state == _State.SAVE_SEND) & self.o.ready):
            m.d.comb += self.moves_on.eq(1)
            m.d.sync += state.eq(Mux(is_whole, _State.DISPATCH, _State.SAVE_READ))

    def _writer(self, section: str) -> Writer:
        """Bytes of a section of the image."""
        size = next(each.word_bytes for each in self.layout.sections if each.name == section)
        return self._bytes_of(self._sections[section], size)

    def _bytes_of(self, place: int, size: int) -> Writer:
        here = self.writes & (self.place == place)
        enable = Cat(here & (self.byte == index) for index in range(size))
        return Writer(enable, self.word, self.data)

    # The memories.

    def _add_memories(self, m: Module, store: ImageStore) -> None:
        schedule, system = self.schedule, self.system
        lanes, neurons = schedule.lanes, schedule.neurons
        word = BYTE * lanes
        self.weights = store.memory(m, "weights").read_port()
        self.row_starts = store.memory(m, "starts").read_port()
        # Two pages of each vector: one is used while the other is written.
        m.submodules.input_vector = vector = _memory(2 * chunks(schedule.inputs, lanes), word)
        vector_bytes = self._bytes_of(_Place.INPUT, lanes)
        vector_bytes.address = Cat(self.write_page, self.word)
        vector_bytes.connect(m, vector.write_port(granularity=BYTE))
        self.input_vector = vector.read_port()
        m.submodules.hidden_vector = hidden = _memory(2 * chunks(schedule.outputs, lanes), word)
        self.hidden_vector = hidden.read_port()
        self.hidden_write = hidden.write_port(granularity=BYTE)
        self.inner_vector = self.inner_write = None
        if any(row.part == "inner" for row in schedule.rows):
            m.submodules.inner_vector = inner = _memory(chunks(schedule.hidden, lanes), word)
            self.inner_vector = inner.read_port()
            self.inner_write = inner.write_port(granularity=BYTE)
        groups = chunks(schedule.hidden, neurons)
        self.cells = []
        self.cell_writes = []
        self.gate_reads = []
        self.gate_writes = []
        for index in range(neurons):
            cells = _memory(groups, system.cell_width)
            m.submodules[f"cells_{index}"] = cells
            self.cells.append(cells.read_port())
            self.cell_writes.append(cells.write_port(granularity=BYTE))
            if self._stores_gates:
                # A gate's values lie together; the group is the low part of the address.
                values = _memory(self._gates << _bits(groups), 16)
                m.submodules[f"gates_{index}"] = values
                self.gate_reads.append(values.read_port())
                self.gate_writes.append(values.write_port())

    @property
    def _stores_gates(self) -> bool:
        return any(task.to == "gate" for task in self.schedule.tasks)

    @property
    def _gates(self) -> int:
        return 1 + max(task.gate for task in self.schedule.tasks)

    # The issue of rows to the neurons.

    def _issue(self, m: Module, neurons: Sequence[wiring.Component]) -> None:
        schedule = self.schedule
        rows = schedule.rows
        issuing = Signal()
        row = Signal(range(max(2, len(rows))), reset_less=True)
        beat = Signal(range(max(2, *(schedule.beats(each) for each in rows))), reset_less=True)
        groups = [schedule.groups(phase) for phase in schedule.phases]
        group = Signal(range(max(2, *groups)), reset_less=True)
        weight = Signal(range(max(2, schedule.weight_words)), reset_less=True)
        start = Signal(range(max(2, schedule.start_words)), reset_less=True)
        fed = Signal()
        """A beat waits at the neurons."""
        ready = wire(m, Cat(neuron.i.ready for neuron in neurons).all(), "neurons_are_ready")
        advances = wire(m, ~fed | ready, "advances")
        issues = wire(m, issuing & advances, "issues")
        is_last_beat = Signal()
        for length in {schedule.beats(each) for each in rows}:
            with m.If(_is_one_of(row, rows, lambda each, n=length: schedule.beats(each) == n)):
                m.d.comb += is_last_beat.eq(beat == length - 1)
        # The last row of each phase, and the first.
        ends: list[int] = []
        for phase in schedule.phases:
            ends.append((ends[-1] if ends else -1) + sum(len(task.rows) for task in phase.tasks))
        firsts = [0, *(end + 1 for end in ends[:-1])]
        ends_group = wire(m, row.matches(*ends), "ends_group")
        is_last_group = Signal()
        first_row = Signal.like(row)
        with m.Switch(self.phase):
            for index, (count, first) in enumerate(zip(groups, firsts, strict=True)):
                with _case(m, index, groups):
                    m.d.comb += [is_last_group.eq(group == count - 1), first_row.eq(first)]
        is_part = {
            part: wire(
                m,
                _is_one_of(row, rows, lambda each, p=part: each.part == p),
                f"is_row_of_{part}",
            )
            for part in ("input", "recurrent", "inner", "none")
        }
        has_products = ~is_part["none"]
        has_start = wire(m, _is_one_of(row, rows, lambda each: each.start == "image"), "has_start")
        with m.If(advances):
            m.d.sync += fed.eq(issuing)
        with m.If(issues):
            m.d.sync += beat.eq(beat + 1)
            with m.If(has_products):
                m.d.sync += weight.eq(weight + 1)
            with m.If(is_last_beat):
                m.d.sync += [beat.eq(0), row.eq(row + 1)]
                with m.If(has_start):
                    m.d.sync += start.eq(start + 1)
                with m.If(ends_group):
                    m.d.sync += group.eq(group + 1)
                    with m.If(is_last_group):
                        m.d.sync += [issuing.eq(0), group.eq(0)]
                    with m.Else():
                        m.d.sync += row.eq(first_row)
        with m.If(self.next_phase):
            m.d.sync += issuing.eq(1)
        with m.If(self.begins):
            m.d.sync += [
                issuing.eq(1),
                row.eq(0),
                beat.eq(0),
                group.eq(0),
                weight.eq(0),
                start.eq(0),
            ]
        self.group = group

        fresh = wire(m, self.fresh | self.starts.bit_select(self.page, 1), "starts_at_reset")
        # What the memories give counts with these, a cycle later. At reset the recurrent sums are
        # 0, whatever zero point the hidden values have, and so are the cells.
        flags: dict[str, Value] = {
            "first": beat == 0,
            "last": is_last_beat,
            "takes_input": is_part["input"],
            "takes_hidden": is_part["recurrent"] & ~fresh,
            "takes_start": has_start & ~(is_part["recurrent"] & fresh),
            "takes_cell": _is_one_of(row, rows, self._reads_new_cell) | ~fresh,
        }
        if self.inner_vector is not None:
            flags["takes_inner"] = is_part["inner"]
        if self._stores_gates:
            flags["takes_gate"] = _is_one_of(row, rows, lambda each: each.start == "gate")
        held = {name: Signal(name=name, reset_less=True) for name in flags}
        segments = {
            each: self.system.segment(task.segment) for task in schedule.tasks for each in task.rows
        }
        segment = Signal(range(max(2, *(code + 1 for code in segments.values()))), reset_less=True)
        with m.If(advances):
            m.d.sync += [held[name].eq(value) for name, value in flags.items()]
            for code in set(segments.values()):
                with m.If(_is_one_of(row, rows, lambda each, c=code: segments[each] == c)):
                    m.d.sync += segment.eq(code)

        m.d.comb += [
            self.weights.addr.eq(weight),
            self.weights.en.eq(issues & has_products),
            self.row_starts.addr.eq(start),
            self.row_starts.en.eq(issues & (beat == 0)),
            self.input_vector.addr.eq(Cat(self.page, beat)),
            self.input_vector.en.eq(issues & is_part["input"]),
            self.hidden_vector.addr.eq(Cat(self.hidden_page, Mux(self.busy, beat, self.word))),
            self.hidden_vector.en.eq((issues & is_part["recurrent"]) | self.saves),
        ]
        activations = (
            self.input_vector.data & held["takes_input"].replicate(len(self.input_vector.data))
        ) | (self.hidden_vector.data & held["takes_hidden"].replicate(len(self.hidden_vector.data)))
        if self.inner_vector is not None:
            m.d.comb += [
                self.inner_vector.addr.eq(beat),
                self.inner_vector.en.eq(issues & is_part["inner"]),
            ]
            activations |= self.inner_vector.data & held["takes_inner"].replicate(
                len(self.inner_vector.data)
            )
        activations = wire(m, activations, "activations")
        width = self.system.start_width
        for index, neuron in enumerate(neurons):
            cell = self.cells[index]
            m.d.comb += [
                cell.addr.eq(Mux(self.busy, group, self.word)),
                cell.en.eq(issues | self.saves),
                neuron.i.valid.eq(fed & ready),
                neuron.i.payload.weights.eq(
                    self.weights.data.word_select(index, BYTE * schedule.lanes)
                ),
                neuron.i.payload.activations.eq(activations),
                neuron.i.payload.first.eq(held["first"]),
                neuron.i.payload.last.eq(held["last"]),
                neuron.i.payload.old_cell.eq(
                    cell.data & held["takes_cell"].replicate(len(cell.data))
                ),
            ]
            if len(set(segments.values())) > 1:
                m.d.comb += neuron.i.payload.segment.eq(segment)
            value = self.row_starts.data.word_select(index, width) & held["takes_start"].replicate(
                width
            )
            if self._stores_gates:
                gate = Signal(range(max(2, self._gates)), name=f"gate_{index}")
                for number in range(self._gates):
                    with m.If(_is_one_of(row, rows, lambda each, n=number: each.gate == n)):
                        m.d.comb += gate.eq(number)
                read = self.gate_reads[index]
                m.d.comb += [
                    read.addr.eq(Cat(group[: _bits(self._groups)], gate)),
                    read.en.eq(issues),
                ]
                extended = Cat(read.data, read.data[-1].replicate(width - 16))
                value = wire(
                    m,
                    value | (extended & held["takes_gate"].replicate(width)),
                    f"start_{index}",
                )
            m.d.comb += neuron.i.payload.start.eq(value)

    @property
    def _groups(self) -> int:
        return chunks(self.schedule.hidden, self.schedule.neurons)

    def _reads_new_cell(self, row: Row) -> bool:
        """Whether a row takes a cell that this step has written."""
        written = False
        for phase in self.schedule.phases:
            if any(row in task.rows for task in phase.tasks):
                return written
            written = written or any(task.writes_cell for task in phase.tasks)
        raise ValueError(f"Row {row.name} is not in the schedule.")

    # The results of the neurons.

    def _collect(self, m: Module, neurons: Sequence[wiring.Component]) -> None:
        schedule = self.schedule
        tasks = schedule.tasks
        count = len(neurons)
        task = Signal(range(max(2, len(tasks))), reset_less=True)
        neuron = Signal(range(max(2, count)), reset_less=True)
        group = Signal(range(max(2, *map(schedule.groups, schedule.phases))), reset_less=True)
        word = Signal(range(max(2, chunks(max(schedule.hidden, schedule.outputs), schedule.lanes))))
        byte = Signal(range(max(2, schedule.lanes)), reset_less=True)
        self.collected_group = group
        self.collected_task = task
        self.collecting = neuron

        ends: list[int] = []
        for phase in schedule.phases:
            ends.append((ends[-1] if ends else -1) + len(phase.tasks))
        firsts = [0, *(end + 1 for end in ends[:-1])]
        is_last_group = Signal()
        is_last_unit = Signal()
        is_padding = Signal()
        first_task = Signal.like(task)
        with m.Switch(self.phase):
            for index, phase in enumerate(schedule.phases):
                total = schedule.hidden if phase.over == "units" else schedule.outputs
                with _case(m, index, schedule.phases):
                    m.d.comb += [
                        is_last_group.eq(group == schedule.groups(phase) - 1),
                        is_last_unit.eq(neuron == (total - 1) % count),
                        is_padding.eq(is_last_group & (neuron > (total - 1) % count)),
                        first_task.eq(firsts[index]),
                    ]

        def task_is(condition: Callable[[Task], bool]) -> Value:
            return _is_one_of(task, tasks, condition)

        emits = wire(m, task_is(lambda each: each.to == "hidden") & ~is_padding, "emits")
        valids = Cat(each.o.valid for each in neurons)
        has_result = wire(m, valids.bit_select(neuron, 1), "has_result")
        collects = wire(m, has_result & (~emits | self.o.ready), "collects")
        self.emission_valid = has_result & emits
        self.emission_last = is_last_group & is_last_unit
        choice = [each.o.payload for each in neurons]
        # A vector of bits from here on, as what the packets hold.
        result = wire(m, _choose(neuron, [each.result for each in choice])[:BYTE], "result")
        self.result = result
        value = wire(m, _choose(neuron, [each.value for each in choice]), "gate_value")
        for index, each in enumerate(neurons):
            selected = (neuron == index) if count > 1 else Const(1, 1)
            m.d.comb += [
                each.o.ready.eq(selected & (~emits | self.o.ready)),
                self.cell_writes[index].addr.eq(group),
                self.cell_writes[index].data.eq(each.o.payload.cell_result),
                self.cell_writes[index].en.eq(
                    (collects & selected & task_is(lambda t: t.writes_cell)).replicate(
                        len(self.cell_writes[index].en)
                    )
                ),
            ]
            if self._stores_gates:
                write = self.gate_writes[index]
                gate = Signal(range(max(2, self._gates)), name=f"collected_gate_{index}")
                for number in range(self._gates):
                    with m.If(task_is(lambda t, n=number: t.gate == n)):
                        m.d.comb += gate.eq(number)
                m.d.comb += [
                    write.addr.eq(Cat(group[: _bits(self._groups)], gate)),
                    write.data.eq(value),
                    write.en.eq(collects & selected & task_is(lambda t: t.to == "gate")),
                ]
        goes_out = wire(m, collects & task_is(lambda t: t.to != "gate") & ~is_padding, "goes_out")
        self._write_vector(m, goes_out, task_is, word, byte)
        with m.If(goes_out):
            m.d.sync += byte.eq(byte + 1)
            with m.If(byte == schedule.lanes - 1):
                m.d.sync += [byte.eq(0), word.eq(word + 1)]
        is_last_task = wire(m, task.matches(*ends), "is_last_task")
        with m.If(collects):
            m.d.sync += neuron.eq(neuron + 1)
            with m.If(neuron == count - 1):
                m.d.sync += [neuron.eq(0), task.eq(task + 1)]
                with m.If(is_last_task):
                    m.d.sync += group.eq(group + 1)
                    with m.If(is_last_group):
                        m.d.comb += self.phase_is_collected.eq(1)
                        m.d.sync += [group.eq(0), word.eq(0), byte.eq(0)]
                    with m.Else():
                        m.d.sync += task.eq(first_task)
        with m.If(self.begins):
            m.d.sync += [
                task.eq(0),
                neuron.eq(0),
                group.eq(0),
                word.eq(0),
                byte.eq(0),
            ]

    def _write_vector(
        self,
        m: Module,
        goes_out: Value,
        task_is: Callable[[Callable[[Task], bool]], Value],
        word: Value,
        byte: Value,
    ) -> None:
        """Write a result into the hidden or the inner vector, or a loaded state's byte."""
        lanes = self.schedule.lanes
        write = self.hidden_write
        loads = self._bytes_of(_Place.HIDDEN, lanes)
        own = goes_out & task_is(lambda t: t.to == "hidden")
        enable = Cat(own & (byte == lane) for lane in range(lanes))
        m.d.comb += [
            write.addr.eq(
                Mux(
                    self.busy,
                    Cat(~self.hidden_page, word),
                    Cat(self.hidden_page, loads.address),
                )
            ),
            write.data.eq(Mux(self.busy, self.result, loads.data)[:BYTE].replicate(lanes)),
            write.en.eq(enable | loads.enable),
        ]
        if self.inner_write is not None:
            inner = goes_out & task_is(lambda t: t.to == "inner")
            m.d.comb += [
                self.inner_write.addr.eq(word),
                self.inner_write.data.eq(self.result.replicate(lanes)),
                self.inner_write.en.eq(Cat(inner & (byte == lane) for lane in range(lanes))),
            ]
        # A loaded state's cells: with one step in progress none is loaded.
        cell_bytes = self.system.cell_width // BYTE
        loads = self._bytes_of(_Place.CELL, cell_bytes * self.schedule.neurons)
        for index, port in enumerate(self.cell_writes):
            enable = loads.enable[index * cell_bytes : (index + 1) * cell_bytes]
            with m.If(~self.busy):
                m.d.comb += [
                    port.addr.eq(loads.address),
                    port.data.eq(loads.data.replicate(cell_bytes)),
                    port.en.eq(enable),
                ]

    # Phases and steps.

    def _advance_phase(self, m: Module, store: ImageStore) -> None:
        phases = self.schedule.phases
        is_done = self.phase_is_collected
        if any(phase.normalizes for phase in phases):
            is_done = self._normalize(m, store)
        is_last = wire(m, self.phase == len(phases) - 1, "is_last_phase")
        other_is_full = self.full.bit_select(~self.page, 1)
        m.d.comb += [
            self.ends.eq(is_done & is_last),
            self.next_phase.eq(is_done & ~is_last),
            self.begins.eq(
                Mux(self.busy, self.ends & other_is_full, self.full.bit_select(self.page, 1))
            ),
        ]
        with m.If(self.next_phase):
            m.d.sync += self.phase.eq(self.phase + 1)
        with m.If(self.ends):
            m.d.sync += [
                self.phase.eq(0),
                self.full.bit_select(self.page, 1).eq(0),
                self.page.eq(~self.page),
                self.hidden_page.eq(~self.hidden_page),
                self.fresh.eq(0),
                self.busy.eq(0),
            ]
        with m.If(self.begins):
            m.d.sync += self.busy.eq(1)

    def _normalize(self, m: Module, store: ImageStore) -> Value:
        """Pass the gates' values through the normaliser and back; whether a phase is over now."""
        schedule = self.schedule
        active = self.normalizing
        neurons, groups = schedule.neurons, self._groups
        last_neuron = (schedule.hidden - 1) % neurons
        gate = Signal(range(max(2, self._gates)), name="norm_gate", reset_less=True)
        index = Signal(range(max(2, self._gates * schedule.hidden)), reset_less=True)
        reading = Signal(name="norm_reads")
        fed = Signal(name="norm_fed")
        second = Signal(name="norm_second_pass", reset_less=True)
        unit = self.system.normalizer(
            m,
            store,
            GateReading(gate, index, advances := Signal(name="norm_advances")),
        )
        m.submodules.normalizer = unit  # pyright: ignore[reportArgumentType]
        m.d.comb += advances.eq(~fed | unit.i.ready)

        # Values to the unit.
        neuron = Signal(range(max(2, neurons)), name="norm_neuron", reset_less=True)
        group = Signal(range(max(2, groups)), name="norm_group", reset_less=True)
        held_neuron = Signal.like(neuron, name="norm_held_neuron")
        held_second = Signal(name="norm_held_second_pass", reset_less=True)
        with m.If(advances):
            m.d.sync += [fed.eq(reading), held_neuron.eq(neuron), held_second.eq(second)]
        with m.If(reading & advances):
            m.d.sync += index.eq(index + second)
            m.d.sync += neuron.eq(neuron + 1)
            with m.If(neuron == neurons - 1):
                m.d.sync += [neuron.eq(0), group.eq(group + 1)]
            with m.If((group == groups - 1) & (neuron == last_neuron)):
                m.d.sync += [neuron.eq(0), group.eq(0), second.eq(~second)]
                with m.If(second):
                    m.d.sync += reading.eq(0)
        m.d.comb += [
            unit.i.valid.eq(fed),
            unit.i.payload.value.eq(_choose(held_neuron, [port.data for port in self.gate_reads])),
            unit.i.payload.normalizes.eq(held_second),
            unit.o.ready.eq(1),
        ]

        # Normalised values back to where they came from.
        back_neuron = Signal.like(neuron, name="norm_back_neuron")
        back_group = Signal.like(group, name="norm_back_group")
        gate_is_done = Signal()
        with m.If(unit.o.valid):
            m.d.sync += back_neuron.eq(back_neuron + 1)
            with m.If(back_neuron == neurons - 1):
                m.d.sync += [back_neuron.eq(0), back_group.eq(back_group + 1)]
            with m.If((back_group == groups - 1) & (back_neuron == last_neuron)):
                m.d.sync += [back_neuron.eq(0), back_group.eq(0), gate.eq(gate + 1)]
                m.d.comb += gate_is_done.eq(1)
        for number, (read, write) in enumerate(zip(self.gate_reads, self.gate_writes, strict=True)):
            with m.If(active):
                m.d.comb += [
                    read.addr.eq(Cat(group[: _bits(groups)], gate)),
                    read.en.eq(advances),
                    write.addr.eq(Cat(back_group[: _bits(groups)], gate)),
                    write.data.eq(unit.o.payload.value),
                    write.en.eq(unit.o.valid & (back_neuron == number)),
                ]

        ends = [phase.normalizes[-1] for phase in schedule.phases if phase.normalizes]
        is_finished = gate_is_done & gate.matches(*ends)
        normalizes = _is_one_of(self.phase, schedule.phases, lambda phase: bool(phase.normalizes))
        with m.If(gate_is_done & ~is_finished):
            m.d.sync += reading.eq(1)
        with m.If(is_finished):
            m.d.sync += active.eq(0)
        with m.If(self.phase_is_collected & normalizes):
            m.d.sync += [active.eq(1), reading.eq(1)]
        with m.If(self.begins):
            m.d.sync += [
                each.eq(0) for each in (gate, index, second, neuron, group, back_neuron, back_group)
            ]
        return wire(m, is_finished | (self.phase_is_collected & ~normalizes), "phase_is_done")

    # Packets out.

    def _answer(self, m: Module, neurons: Sequence[wiring.Component], reset_hidden: Value) -> None:
        out = self.o.payload
        cells = Cat(port.data for port in self.cells)
        cell_byte = cells.word_select(self.byte[: _bits(len(cells) // BYTE)], BYTE)
        hidden_byte = self.hidden_vector.data.word_select(
            self.byte[: _bits(self.schedule.lanes)], BYTE
        )
        is_cell = self.place == _Place.CELL
        # What is still to come of the steps before goes first.
        with m.If((self.state == _State.STATUS) & self.idle):
            m.d.comb += [
                self.o.valid.eq(1),
                out.m_axis_tdata.eq(self.status),
                out.m_axis_tlast.eq(1),
                out.m_axis_tdest.eq(Reply.STATUS),
            ]
        with m.Elif(self.state == _State.SAVE_SEND):
            m.d.comb += [
                self.o.valid.eq(1),
                out.m_axis_tdata.eq(
                    Mux(
                        is_cell,
                        cell_byte & (~self.fresh).replicate(BYTE),
                        Mux(self.fresh, reset_hidden, hidden_byte),
                    )
                ),
                out.m_axis_tlast.eq(self.is_whole),
                out.m_axis_tdest.eq(Reply.STATE),
            ]
        with m.Else():
            m.d.comb += [
                self.o.valid.eq(self.emission_valid),
                out.m_axis_tdata.eq(self.result),
                out.m_axis_tlast.eq(self.emission_last),
                out.m_axis_tdest.eq(Reply.HIDDEN),
            ]


def _memory(words: int, width: int) -> Memory:
    # An address has at least one bit.
    return Memory(shape=unsigned(width), depth=max(2, words), init=[])


def _case(m: Module, index: int, items: Sequence[object]) -> AbstractContextManager[None]:
    """The case of an item's index; the last item's is all that is left."""
    return m.Default() if index == len(items) - 1 else m.Case(index)


def _bits(count: int) -> int:
    """Bits of a number below a count; at least one."""
    return max(1, (count - 1).bit_length())


_Item = TypeVar("_Item")


def _is_one_of(index: Value, items: Sequence[_Item], condition: Callable[[_Item], bool]) -> Value:
    """Whether the item of an index fulfils a condition."""
    chosen = [place for place, item in enumerate(items) if condition(item)]
    if len(chosen) == len(items):
        return Const(1, 1)
    return index.matches(*chosen) if chosen else Const(0, 1)


def _choose(index: Value, values: Iterable[Value]) -> Value:
    listed = list(values)
    return listed[0] if len(listed) == 1 else Array(listed)[index]


def _crc(checks: Value, data: Value) -> Value:
    """CRC-16 (0x1021, highest bit first) after one more byte."""
    # Each bit of the new word is a sum modulo 2 of bits of the old one and of the byte.
    bits = [*checks, *data]
    terms = [_crc_of(1 << index if index < 16 else 0, index - 16) for index in range(len(bits))]
    return Cat(
        reduce(xor, (bit for bit, term in zip(bits, terms, strict=True) if term >> place & 1))
        for place in range(16)
    )


def _crc_of(checks: int, data_bit: int) -> int:
    """The new word where one bit of the old one, or of the byte, is set."""
    for index in reversed(range(BYTE)):
        feedback = checks >> 15 ^ (index == data_bit)
        checks = (checks << 1 & 0xFFFF) ^ (0x1021 if feedback else 0)
    return checks
