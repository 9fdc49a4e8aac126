"""The layer engine: memories, sequencer and streams, the same for every number system.

It walks a schedule (:mod:`fewbit.golden.layer.schedule`): each cycle a word of weights for the
lanes of all neurons and a word of activations, the same for all. What a neuron does with its rows
is the number system's own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple, Protocol

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.data import View
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.image import Plan
from fewbit.golden.layer.packets import OPERANDS, RESULTS, Reply, value_bytes
from fewbit.golden.layer.schedule import Row, Schedule, Task, chunks
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import stream_of
from fewbit.hdl.layer.front import Front, Place
from fewbit.hdl.layer.image import BYTE, ImageStore, Writer
from fewbit.hdl.layer.normalize import GateReading, normalize_gates
from fewbit.hdl.layer.selection import bits_of, case, choose, is_one_of
from fewbit.hdl.layer.vectors import VectorMemory, Vectors

__all__ = ["Collected", "Issue", "LayerArithmetic", "LayerEngine"]


class LayerArithmetic(Protocol):
    """What a number system supplies to the engine.

    The weights of a neuron in a cycle are whole bytes of the image's section "weights".
    """

    activation_width: int
    """Bits of an input or a hidden value; more than 8 are two bytes of a packet."""
    start_width: int
    """Bits of the value that a row starts from, and of what else comes with it; whole bytes. They
    hold still up to the row's last beat. 0 where the neurons read the section "starts" themselves;
    beats have none."""
    cell_width: int
    """Bits of a cell raw; whole bytes."""
    masks_padding: bool
    """Whether the lanes beyond the end of a vector must read as code 0, whatever the memory holds:
    where a weight of zero isn't enough, since the activation has an exponent."""
    cells_apart: bool
    """Whether the cells go their own way. The old cell is then not part of a beat but a port
    ``old_cell`` of the neuron: it holds from the first beat of a row that needs it to the first
    beat of the next unit's such row. The new one leaves by a stream ``cells`` and not with the
    result, in the order of the units. A port ``drains`` tells that no beat follows."""
    tells_part: bool
    """Whether a beat has a flag ``recurrent``: its activations are old hidden values."""

    def segment(self, name: str) -> int:
        """Code of a task's program."""
        ...

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neurons, and what they need of the image beside starts and weights.

        A neuron has a stream ``i`` of beats {weights, activations, start, first, last, segment,
        old_cell} and a stream ``o`` of {result, cell_result}, and {value} where gate values are
        stored.

        Returns
        -------
        The neurons, and the hidden raw at reset, which holds still after the image is loaded.
        """
        ...

    def normalizer(self, m: Module, image: ImageStore, reading: GateReading) -> wiring.Component:
        """Adds what normalises a gate's values, for schedules with phases that do.

        It takes all values of a gate twice and gives each back after the second time: a stream
        ``i`` of {value, normalizes, ...}, where the engine supplies these two, and a stream ``o``
        of {value}.
        """
        ...


class Issue(NamedTuple):
    """What is read in a cycle."""

    row: Value
    beat: Value
    group: Value
    weight: Value
    issues: Value
    is_last_beat: Value


class Collected(NamedTuple):
    """The result that is collected."""

    of_unit: Value
    """It is, and of a unit that there is."""
    ends_group: Value
    """The last of the group's."""
    neuron: Value
    group: Value
    cells: Sequence[Value]
    """New cells of the neurons, unless they go their own way."""


class LayerEngine(wiring.Component):
    """A layer of a number system: packets in, packets out.

    The lanes take a word of weights a cycle, while the next input vector comes in and the last
    results leave. Between steps they wait until the last unit's new hidden value is there.

    Parameters
    ----------
    contract
        The layer: its schedule says what a step does, and the plan of its image has sections
        "starts" and "weights" for the schedule's rows. The memories hold its image for good, where
        it has one.
    system
        The number system.
    vectors
        How all vectors lie in one memory for the single neuron, whose activations are a word of
        that. At reset the recurrent sums are then not 0: the port ``fresh`` says that they must
        count as 0. With ``cells_apart`` it has no ``drains``, but says by ``cell_address`` and
        ``reads_cell`` which cell ``old_cell`` is from the next cycle on, and its new cell is that
        of the unit whose result comes next. None: input and hidden vectors have memories apart.

    Ports
    -----
    i, o
        Packets, see :mod:`fewbit.golden.layer.packets`.
    """

    def __init__(
        self,
        contract: LayerContract,
        system: LayerArithmetic,
        *,
        vectors: Vectors | None = None,
    ) -> None:
        self.contract = contract
        self.schedule: Schedule = contract.schedule
        self.plan: Plan = contract.plan
        self.system = system
        self.image: bytes | None = contract.image
        self.vectors = vectors
        super().__init__({"i": In(stream_of(OPERANDS)), "o": Out(stream_of(RESULTS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._declare()
        self.front = front = Front(
            m,
            self.i,
            self.schedule,
            self.plan,
            self.system.cell_width // BYTE,
            value_bytes(self.system.activation_width),
            holds_image=self.image is not None,
            registers=self._registers,
            can_be_held_off=self.vectors is not None,
        )
        m.d.comb += [
            front.idle.eq(~self.busy & ~front.full.any()),
            front.answered.eq(self.o.ready),
        ]
        fixed = None if self.image is None else self.plan.split(self.image)
        store = ImageStore(self.plan, fixed, front.writer)
        self._add_memories(m, store)
        neurons, reset_hidden = self.system.attach(m, store)
        self._issue(m, neurons)
        self._collect(m, neurons)
        self._advance_phase(m, store)
        self._answer(m, reset_hidden)
        return m

    def _declare(self) -> None:
        """State that more than one part of the circuit shares."""
        self.page = Signal()
        """Page of the input memory that the step in progress, or the next one, uses."""
        self.hidden_page = Signal()
        self.busy = Signal()
        self.begins = Signal()
        """A step begins with the next cycle."""
        self.ends = Signal()
        """A step ends with this cycle."""
        self.phase = Signal(range(max(2, len(self.schedule.phases))))
        self.phase_is_collected = Signal()
        self.is_high_byte = Signal()
        """Of a result of two bytes the second one leaves."""
        self.next_phase = Signal()

    # The memories.

    def _add_memories(self, m: Module, store: ImageStore) -> None:
        schedule, system = self.schedule, self.system
        lanes, neurons = schedule.lanes, schedule.neurons
        width = system.activation_width
        word = width * lanes
        self._add_weights(m, store)
        self.row_starts = None
        if system.start_width:
            self.row_starts = store.memory(m, "starts").read_port()
        # Two pages of each vector: one is used while the other is written.
        values = self.front.values_of(Place.INPUT, width)
        self.in_page = replace(values, address=Cat(self.front.write_page, values.address))
        self.one_memory = None
        if self.vectors is not None:
            self.one_memory = VectorMemory(m, self.vectors, schedule.inputs, schedule.outputs)
            self.one_memory.take_inputs(self.in_page)
        else:
            vector = self.add_pages(m, "input_vector", schedule.inputs)
            self.in_page.connect(m, vector.write_port(granularity=width))
            self.input_vector = vector.read_port()
            hidden = self.add_pages(m, "hidden_vector", schedule.outputs)
            self.hidden_vector = hidden.read_port()
            self.hidden_write = hidden.write_port(granularity=width)
        self.inner_vector = self.inner_write = None
        if any(row.part == "inner" for row in schedule.rows):
            m.submodules.inner_vector = inner = _memory(chunks(schedule.hidden, lanes), word)
            self.inner_vector = inner.read_port()
            self.inner_write = inner.write_port(granularity=width)
        self.cells = []
        self.cell_writes = []
        self.gate_reads = []
        self.gate_writes = []
        for index in range(neurons):
            cells = _memory(self._groups, system.cell_width)
            m.submodules[f"cells_{index}"] = cells
            self.cells.append(cells.read_port())
            self.cell_writes.append(cells.write_port(granularity=BYTE))
            if self._stores_gates:
                # A gate's values lie together; the group is the low part of the address.
                values = _memory(self._gates << bits_of(self._groups), 16)
                m.submodules[f"gates_{index}"] = values
                self.gate_reads.append(values.read_port())
                self.gate_writes.append(values.write_port())

    def add_pages(self, m: Module, name: str, length: int) -> Memory:
        """A memory for both pages of a vector, by words of all lanes."""
        lanes = self.schedule.lanes
        m.submodules[name] = memory = _memory(
            2 * chunks(length, lanes), self.system.activation_width * lanes
        )
        return memory

    def _add_weights(self, m: Module, store: ImageStore) -> None:
        self.weights = store.memory(m, "weights").read_port()

    @property
    def _stores_gates(self) -> bool:
        return any(task.to == "gate" for task in self.schedule.tasks)

    @property
    def _gates(self) -> int:
        return 1 + max(task.gate for task in self.schedule.tasks)

    # The issue of rows to the neurons.

    def _issue(self, m: Module, neurons: Sequence[wiring.Component]) -> None:
        schedule, system = self.schedule, self.system
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
            with m.If(is_one_of(row, rows, lambda each, n=length: schedule.beats(each) == n)):
                m.d.comb += is_last_beat.eq(self._ends_row(beat, length))
        # The first row of each phase, and the last.
        firsts, ends = _bounds(
            sum(len(task.rows) for task in phase.tasks) for phase in schedule.phases
        )
        ends_group = wire(m, row.matches(*ends), "ends_group")
        is_last_group = Signal()
        first_row = Signal.like(row)
        with m.Switch(self.phase):
            for index, (count, first) in enumerate(zip(groups, firsts, strict=True)):
                with case(m, index, groups):
                    m.d.comb += [is_last_group.eq(group == count - 1), first_row.eq(first)]
        is_part = {
            part: wire(
                m,
                is_one_of(row, rows, lambda each, p=part: each.part == p),
                f"is_row_of_{part}",
            )
            for part in ("input", "recurrent", "inner", "none")
        }
        has_products = ~is_part["none"]
        has_start = wire(m, is_one_of(row, rows, lambda each: each.start == "image"), "has_start")
        # The sums of a row take turns at each word of its vector.
        turn_bits = bits_of(schedule.sums) if schedule.sums > 1 else 0
        word = self._word_of(beat, weight)
        is_first_word: Value = beat == 0
        is_last_word = is_last_beat
        reads = issues
        if turn_bits:
            word = beat[turn_bits:]
            is_first_word = wire(m, ~word.any(), "is_first_word")
            reads = wire(m, issues & ~beat[:turn_bits].any(), "reads_word")
            is_last_word = Signal()
            for length in {schedule.beats(each) for each in rows}:
                with m.If(is_one_of(row, rows, lambda each, n=length: schedule.beats(each) == n)):
                    m.d.comb += is_last_word.eq(word == (length >> turn_bits) - 1)
        with m.If(advances):
            m.d.sync += fed.eq(issuing)
        with m.If(issues):
            m.d.sync += beat.eq(beat + self._stride)
            with m.If(has_products):
                m.d.sync += weight.eq(weight + self._stride)
            if turn_bits:
                with m.If(has_start & is_first_word):
                    m.d.sync += start.eq(start + 1)
            with m.If(is_last_beat):
                m.d.sync += [beat.eq(0), row.eq(row + 1)]
                if not turn_bits:
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

        fresh = wire(
            m, self.front.fresh | self.front.starts.bit_select(self.page, 1), "starts_at_reset"
        )
        # What the memories give counts with these, a cycle later. At reset the recurrent sums are
        # 0, whatever zero point the hidden values have, and so are the cells.
        flags: dict[str, Value] = {
            "first": is_first_word,
            "last": is_last_word,
            "takes_input": is_part["input"],
            "takes_hidden": is_part["recurrent"] & ~fresh,
            "takes_start": has_start & ~(is_part["recurrent"] & fresh),
            "takes_cell": is_one_of(row, rows, self._reads_new_cell) | ~fresh,
        }
        if self.inner_vector is not None:
            flags["takes_inner"] = is_part["inner"]
        if self._stores_gates:
            flags["takes_gate"] = is_one_of(row, rows, lambda each: each.start == "gate")
        continues = is_one_of(row, rows, lambda each: each.start == "none")
        if any(each.start == "none" for each in rows):
            flags["first"] &= ~continues
            flags["last"] &= is_one_of(row, rows, schedule.ends_sums)
        if system.tells_part:
            flags["recurrent"] = is_part["recurrent"]
        # Values of the last word of a vector that are the vector's, if not all.
        ends = {"input": schedule.inputs, "hidden": schedule.outputs, "inner": schedule.hidden}
        rests = {
            part: count % schedule.lanes
            for part, count in ends.items()
            if system.masks_padding and f"takes_{part}" in flags and count % schedule.lanes
        }
        for part in rests:
            flags[f"fills_{part}"] = flags[f"takes_{part}"] & ~is_last_word
        flags |= self._more_flags(m, Issue(row, beat, group, weight, issues, is_last_beat), flags)
        held = {name: Signal(name=name, reset_less=True) for name in flags}
        segments = {
            each: self.system.segment(task.segment) for task in schedule.tasks for each in task.rows
        }
        segment = Signal(range(max(2, *(code + 1 for code in segments.values()))), reset_less=True)
        with m.If(advances):
            m.d.sync += [held[name].eq(value) for name, value in flags.items()]
            for code in set(segments.values()):
                with m.If(is_one_of(row, rows, lambda each, c=code: segments[each] == c)):
                    m.d.sync += segment.eq(code)

        self._read_weights(m, weight, issues & has_products)
        if self.row_starts is not None:
            m.d.comb += [
                self.row_starts.addr.eq(start),
                self.row_starts.en.eq(issues & is_first_word),
            ]
        if self.one_memory is None:
            m.d.comb += [
                self.input_vector.addr.eq(Cat(self.page, word)),
                self.input_vector.en.eq(reads & is_part["input"]),
                self.hidden_vector.addr.eq(
                    Cat(self.hidden_page, Mux(self.busy, word, self.front.word))
                ),
                self.hidden_vector.en.eq((reads & is_part["recurrent"]) | self.front.saves),
            ]
        else:
            read = self.one_memory.read
            in_page = Cat(self.page, word)
            of_hidden = Cat(self.hidden_page, Mux(self.busy, word, self.front.word))
            is_input = wire(m, is_part["input"] & self.busy, "reads_input")
            m.d.comb += [
                read.addr.eq(
                    Mux(
                        is_input,
                        self.one_memory.input_address(in_page),
                        self.one_memory.hidden_address(of_hidden),
                    )
                ),
                read.en.eq(reads | self.front.saves),
            ]

        def vector(part: str, read: Value) -> Value:
            """What a vector's memory gives, where it counts."""
            if part not in rests:
                return _masked(read, held[f"takes_{part}"])
            end = system.activation_width * rests[part]
            return Cat(
                _masked(read[:end], held[f"takes_{part}"]),
                _masked(read[end:], held[f"fills_{part}"]),
            )

        if self.vectors is not None and self.one_memory is not None:
            activations = self._whole_words(held, rests)
        else:
            activations = vector("input", self.input_vector.data) | vector(
                "hidden", self.hidden_vector.data
            )
        if self.inner_vector is not None:
            m.d.comb += [
                self.inner_vector.addr.eq(word),
                self.inner_vector.en.eq(reads & is_part["inner"]),
            ]
            activations |= vector("inner", self.inner_vector.data)
        activations = self._all_activations(wire(m, activations, "activations"), held)
        width = system.start_width
        reads_cell = issues
        if system.cells_apart:
            reads_cell = issues & is_one_of(row, rows, lambda each: each.needs_cell)
        gate_address = self._gate_address(m, group, row, rows, "gate")
        for index, neuron in enumerate(neurons):
            cell = self.cells[index]
            takes_cell = held["takes_cell"]
            cell_address: Value = group
            if self.one_memory is not None:
                reads_cell, cell_address = neuron.reads_cell, neuron.cell_address
                takes_cell = ~fresh
                m.d.comb += neuron.fresh.eq(fresh)
            m.d.comb += [
                cell.addr.eq(Mux(self.busy, cell_address, self.front.word)),
                cell.en.eq(reads_cell | self.front.saves),
                neuron.i.valid.eq(fed & ready),
                neuron.i.payload.weights.eq(self._weights_of(index)),
                neuron.i.payload.activations.eq(activations),
                neuron.i.payload.first.eq(held["first"]),
                neuron.i.payload.last.eq(held["last"]),
                (neuron if system.cells_apart else neuron.i.payload).old_cell.eq(
                    _masked(cell.data, takes_cell)
                ),
            ]
            if system.cells_apart and self.one_memory is None:
                m.d.comb += neuron.drains.eq(~fed)
            if system.tells_part:
                m.d.comb += neuron.i.payload.recurrent.eq(held["recurrent"])
            if len(set(segments.values())) > 1:
                m.d.comb += neuron.i.payload.segment.eq(segment)
            if self.row_starts is None:
                continue
            value = _masked(self.row_starts.data.word_select(index, width), held["takes_start"])
            if self._stores_gates:
                read = self.gate_reads[index]
                m.d.comb += [read.addr.eq(gate_address), read.en.eq(issues)]
                extended = Cat(read.data, read.data[-1].replicate(width - 16))
                value = wire(m, value | _masked(extended, held["takes_gate"]), f"start_{index}")
            self._begin_row(m, neuron.i.payload, value, held)

    # What a layer does otherwise that takes weights by halves.

    _registers = 0
    """Registers that packets write, see `Front`."""
    _stride: Value | int = 1
    """Words of weights, and of activations, that the next beat is ahead."""

    def _ends_row(self, beat: Value, length: int) -> Value:
        """Whether a beat is the last of a row of so many."""
        return beat == length - 1

    def _word_of(self, beat: Value, weight: Value) -> Value:
        """The word of activations that is read."""
        return beat

    def _more_flags(
        self, m: Module, issue: "Issue", flags: Mapping[str, Value]
    ) -> dict[str, Value]:
        """More of what counts with the words that are read, or other values of it."""
        return {}

    def _read_weights(self, m: Module, weight: Value, reads: Value) -> None:
        m.d.comb += [self.weights.addr.eq(weight), self.weights.en.eq(reads)]

    def _weights_of(self, index: int) -> Value:
        """A neuron's weights."""
        return self.weights.data.word_select(index, len(self.weights.data) // self.schedule.neurons)

    def _all_activations(self, activations: Value, held: Mapping[str, Value]) -> Value:
        return activations

    def _begin_row(self, m: Module, beat: View, value: Value, held: Mapping[str, Value]) -> None:
        """Give a neuron's beat what its row starts from."""
        m.d.comb += beat.start.eq(value)

    def _observe(self, m: Module, collected: "Collected") -> None:
        """Watches the results."""

    def _requested(self, state: Value) -> tuple[Value, Value | int]:
        """Byte and kind of the packets that answer a request for the state."""
        return state, Reply.STATE

    def _whole_words(self, held: Mapping[str, Value], rests: Mapping[str, int]) -> Value:
        """Words of the memory of all vectors, without what lies beyond the end of a vector."""
        assert self.vectors is not None
        assert self.one_memory is not None
        word = self.one_memory.read.data
        if not rests:
            return word
        size, group = self.vectors.element.width, self.vectors.group
        counts: list[Value] = [Const(1, 1)] * (self.schedule.lanes // group)
        for part, rest in rests.items():
            for index in range(chunks(rest, group), len(counts)):
                of_other = ~held["recurrent"] if part == "hidden" else held["recurrent"]
                counts[index] &= held[f"fills_{part}"] | of_other
        return Cat(
            _masked(word[index * size : (index + 1) * size], each)
            for index, each in enumerate(counts)
        )

    @property
    def _groups(self) -> int:
        return chunks(self.schedule.hidden, self.schedule.neurons)

    def _gate_address(
        self, m: Module, group: Value, index: Value, items: Sequence[Row | Task], name: str
    ) -> Value:
        """Where a group's values of the gate are that the item of an index names."""
        if not self._stores_gates:
            return Const(0)
        gate = Signal(range(max(2, self._gates)), name=name)
        for number in range(self._gates):
            with m.If(is_one_of(index, items, lambda each, n=number: each.gate == n)):
                m.d.comb += gate.eq(number)
        return Cat(group[: bits_of(self._groups)], gate)

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
        # These are reset, though a step sets them when it begins: valid depends on them before.
        task = Signal(range(max(2, len(tasks))))
        neuron = Signal(range(max(2, count)))
        group = Signal(range(max(2, *map(schedule.groups, schedule.phases))))
        word = Signal(range(max(2, chunks(max(schedule.hidden, schedule.outputs), schedule.lanes))))
        byte = Signal(range(max(2, schedule.lanes)), reset_less=True)

        firsts, ends = _bounds(len(phase.tasks) for phase in schedule.phases)
        is_last_group = Signal()
        is_last_unit = Signal()
        is_padding = Signal()
        first_task = Signal.like(task)
        with m.Switch(self.phase):
            for index, phase in enumerate(schedule.phases):
                total = schedule.hidden if phase.over == "units" else schedule.outputs
                with case(m, index, schedule.phases):
                    m.d.comb += [
                        is_last_group.eq(group == schedule.groups(phase) - 1),
                        is_last_unit.eq(neuron == (total - 1) % count),
                        is_padding.eq(is_last_group & (neuron > (total - 1) % count)),
                        first_task.eq(firsts[index]),
                    ]

        def task_is(condition: Callable[[Task], bool]) -> Value:
            return is_one_of(task, tasks, condition)

        emits = wire(m, task_is(lambda each: each.to == "hidden") & ~is_padding, "emits")
        width = self.system.activation_width
        valids = Cat(each.o.valid for each in neurons)
        has_result = wire(m, valids.bit_select(neuron, 1), "has_result")
        leaves = self.o.ready
        if value_bytes(width) > 1:
            # The low byte leaves first, and the result is collected with the high one.
            with m.If(has_result & emits & self.o.ready):
                m.d.sync += self.is_high_byte.eq(~self.is_high_byte)
            leaves = wire(m, self.o.ready & self.is_high_byte, "leaves")
        collects = wire(m, has_result & (~emits | leaves), "collects")
        self.emission_valid = has_result & emits
        self.emission_last = is_last_group & is_last_unit
        if value_bytes(width) > 1:
            self.emission_last &= self.is_high_byte
        choice = [each.o.payload for each in neurons]
        # A vector of bits from here on, as what the packets hold.
        result = wire(m, choose(neuron, [each.result for each in choice])[:width], "result")
        self.result = result
        value: Value = Const(0)
        if "value" in choice[0].shape().members:
            value = wire(m, choose(neuron, [each.value for each in choice]), "gate_value")
        gate_address = self._gate_address(m, group, task, tasks, "collected_gate")
        for index, each in enumerate(neurons):
            selected = (neuron == index) if count > 1 else Const(1, 1)
            m.d.comb += [
                each.o.ready.eq(selected & (~emits | leaves)),
            ]
            if not self.system.cells_apart:
                written = collects & selected & task_is(lambda t: t.writes_cell)
                self._write_cell(m, index, group, each.o.payload.cell_result, written)
            if self._stores_gates:
                write = self.gate_writes[index]
                m.d.comb += [
                    write.addr.eq(gate_address),
                    write.data.eq(value),
                    write.en.eq(collects & selected & task_is(lambda t: t.to == "gate")),
                ]
        if self.one_memory is not None:
            cell = neurons[0].cells
            self._write_cell(m, 0, group, cell.payload, cell.valid)
        elif self.system.cells_apart:
            self._collect_cells(m, neurons)
        cells = [] if self.system.cells_apart else [each.cell_result for each in choice]
        ends_group = collects & (neuron == count - 1)
        self._observe(m, Collected(collects & ~is_padding, ends_group, neuron, group, cells))
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

    def _write_cell(self, m: Module, index: int, group: Value, cell: Value, when: Value) -> None:
        port = self.cell_writes[index]
        m.d.comb += [
            port.addr.eq(group),
            port.data.eq(cell),
            port.en.eq(when.replicate(len(port.en))),
        ]

    def _collect_cells(self, m: Module, neurons: Sequence[wiring.Component]) -> None:
        """Write the cells of all neurons' units at once, when each neuron gives its own."""
        group = Signal(range(max(2, self._groups)), name="cell_group", reset_less=True)
        written = wire(m, Cat(each.cells.valid for each in neurons).all(), "cells_are_there")
        for index, each in enumerate(neurons):
            self._write_cell(m, index, group, each.cells.payload, written)
            m.d.comb += each.cells.ready.eq(written)
        with m.If(written):
            m.d.sync += group.eq(group + 1)
        with m.If(self.begins):
            m.d.sync += group.eq(0)

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
        width = self.system.activation_width
        loads = self.front.values_of(Place.HIDDEN, width)
        own = goes_out & task_is(lambda t: t.to == "hidden")
        enable = Cat(own & (byte == lane) for lane in range(lanes))
        address = Mux(self.busy, Cat(~self.hidden_page, word), Cat(self.hidden_page, loads.address))
        value = Mux(self.busy, self.result, loads.data)[:width]
        values = Writer(enable | loads.enable, address, value)
        if self.one_memory is None:
            values.connect(m, self.hidden_write)
        else:
            # A byte that comes in meanwhile waits a cycle.
            assert self.front.held_off is not None
            m.d.comb += self.front.held_off.eq(own)
            self.one_memory.take_hidden(values, own | (self.front.place != Place.INPUT))
        if self.inner_write is not None:
            inner = goes_out & task_is(lambda t: t.to == "inner")
            m.d.comb += [
                self.inner_write.addr.eq(word),
                self.inner_write.data.eq(self.result.replicate(lanes)),
                self.inner_write.en.eq(Cat(inner & (byte == lane) for lane in range(lanes))),
            ]
        # A loaded state's cells: with one step in progress none is loaded.
        cell_bytes = self.system.cell_width // BYTE
        loads = self.front.bytes_of(Place.CELL, cell_bytes * self.schedule.neurons)
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
            is_done = normalize_gates(
                m,
                self.schedule,
                lambda reading: self.system.normalizer(m, store, reading),
                self.gate_reads,
                self.gate_writes,
                self.phase,
                self.phase_is_collected,
                self.begins,
            )
        is_last = wire(m, self.phase == len(phases) - 1, "is_last_phase")
        other_is_full = self.front.full.bit_select(~self.page, 1)
        m.d.comb += [
            self.ends.eq(is_done & is_last),
            self.next_phase.eq(is_done & ~is_last),
            self.begins.eq(
                Mux(self.busy, self.ends & other_is_full, self.front.full.bit_select(self.page, 1))
            ),
        ]
        with m.If(self.next_phase):
            m.d.sync += self.phase.eq(self.phase + 1)
        with m.If(self.ends):
            m.d.sync += [
                self.phase.eq(0),
                self.front.full.bit_select(self.page, 1).eq(0),
                self.page.eq(~self.page),
                self.hidden_page.eq(~self.hidden_page),
                self.front.fresh.eq(0),
                self.busy.eq(0),
            ]
        with m.If(self.begins):
            m.d.sync += self.busy.eq(1)

    # Packets out.

    def _answer(self, m: Module, reset_hidden: Value) -> None:
        out = self.o.payload
        cells = Cat(port.data for port in self.cells)
        cell_byte = cells.word_select(self.front.byte[: bits_of(len(cells) // BYTE)], BYTE)
        width = self.system.activation_width
        count = value_bytes(width)
        place = self.front.byte[count - 1 :][: bits_of(self.schedule.lanes)]
        word = self.hidden_vector.data if self.one_memory is None else self.one_memory.raws
        saved = word.word_select(place, width)
        result: Value = self.result
        if width != BYTE:
            result = _byte_of(result, self.is_high_byte)
            saved = _byte_of(saved, self.front.byte[0])
            reset_hidden = _byte_of(reset_hidden, self.front.byte[0])
        is_cell = self.front.place == Place.CELL
        requested, kind = self._requested(
            Mux(
                is_cell,
                _masked(cell_byte, ~self.front.fresh),
                Mux(self.front.fresh, reset_hidden, saved),
            )
        )
        with m.If(self.front.offers_status):
            m.d.comb += [
                self.o.valid.eq(1),
                out.m_axis_tdata.eq(self.front.status),
                out.m_axis_tlast.eq(1),
                out.m_axis_tdest.eq(Reply.STATUS),
            ]
        with m.Elif(self.front.offers_state):
            m.d.comb += [
                self.o.valid.eq(1),
                out.m_axis_tdata.eq(requested),
                out.m_axis_tlast.eq(self.front.is_whole),
                out.m_axis_tdest.eq(kind),
            ]
        with m.Else():
            m.d.comb += [
                self.o.valid.eq(self.emission_valid),
                out.m_axis_tdata.eq(result),
                out.m_axis_tlast.eq(self.emission_last),
                out.m_axis_tdest.eq(Reply.HIDDEN),
            ]


def _bounds(counts: Iterable[int]) -> tuple[list[int], list[int]]:
    """Places of the first and of the last of so many items each, one after the other."""
    ends = [end - 1 for end in accumulate(counts)]
    return [0, *(end + 1 for end in ends[:-1])], ends


def _byte_of(value: Value, is_high: Value) -> Value:
    """The low or the high byte of a signed value; of one of up to 8 bits there is but one."""
    extended = Cat(value, value[-1].replicate(2 * BYTE - len(value)))
    if len(value) <= BYTE:
        return extended[:BYTE]
    return Mux(is_high, extended[BYTE:], extended[:BYTE])


def _masked(value: Value, counts: Value) -> Value:
    """The bits where they count, else zeros."""
    return value & counts.replicate(len(value))


def _memory(words: int, width: int) -> Memory:
    # An address has at least one bit.
    return Memory(shape=unsigned(width), depth=max(2, words), init=[])
