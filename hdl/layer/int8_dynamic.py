"""The layer of the integer LSTM that chooses a precision for every group of units and time step."""

from collections.abc import Mapping, Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.data import View
from amaranth.lib.memory import Memory

from fewbit.golden.layer.int8_dynamic import DynamicInt8LstmLayerContract
from fewbit.golden.layer.packets import PASSES_SIZE, Reply
from fewbit.hdl.accumulate.int8_halves import HALVES, Int8HalfProducts
from fewbit.hdl.activation.table import Interpolation
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.engine import Collected, Issue, LayerEngine
from fewbit.hdl.layer.front import Place
from fewbit.hdl.layer.image import BYTE, ImageStore
from fewbit.hdl.layer.int8 import Int8System
from fewbit.hdl.layer.integer_cycles import SHARERS, shares_activation
from fewbit.hdl.layer.selection import choose
from fewbit.hdl.neuron.int8 import IntegerLayerNeuron
from fewbit.hdl.structure import Structure

__all__ = ["DynamicInt8LstmLayer"]

REGISTERS = 3
"""Bytes of threshold and hold."""


def sum_width(contract: DynamicInt8LstmLayerContract) -> int:
    """Bits of the signed sum of a vector."""
    return BYTE + (max(contract.inputs, contract.hidden) - 1).bit_length()


class _DynamicSystem(Int8System):
    """What the integer LSTM with halved weights supplies to the layer engine."""

    registers = REGISTERS

    def __init__(self, contract: DynamicInt8LstmLayerContract, structure: Structure) -> None:
        super().__init__(contract, structure)
        self.start_width = BYTE * (contract.start_bytes + 1)
        self._sum_width = sum_width(contract)
        # A start of three bytes and the products of the longest row that goes with it, of 2^14
        # each and a little more in LOW, are less than 2^24; a start of four may wrap.
        self._accumulator_width = 25 if contract.start_bytes == 3 else 32
        self.shares_activation = shares_activation(contract, self.update, structure)
        self.tells_output_gate = contract.signal == "output_gate"

    @property
    def output_gates(self) -> list[Value]:
        """Those of the neurons' results."""
        return [neuron.o.payload.output_gate for neuron in self._neurons]

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neurons, their scales and the configuration."""
        neurons, reset_hidden = super().attach(m, image)
        if self.shares_activation:
            for first in range(0, len(neurons), SHARERS):
                self._share(m, self._neurons[first : first + SHARERS], f"interpolation_{first}")
        return neurons, reset_hidden

    def products(self) -> wiring.Component:
        """The lanes of a neuron."""
        return Int8HalfProducts(
            self.contract.lanes, self._sum_width, self.structure, self._accumulator_width
        )

    def _share(self, m: Module, neurons: Sequence[IntegerLayerNeuron], name: str) -> None:
        """Add an interpolation for some neurons; the first one that asks gets it."""
        m.submodules[name] = shared = Interpolation(self.structure)
        asked: Value = Const(0, 1)
        given = {port: Value.cast(Const(0)) for port in ("raw", "is_sigmoid", "integer_bits")}
        for index, neuron in enumerate(neurons):
            granted = wire(m, neuron.asks & ~asked, f"{name}_granted_{index}")
            m.d.comb += [neuron.granted.eq(granted), neuron.activated.eq(shared.result)]
            for port, value in given.items():
                asks = getattr(neuron, port)
                given[port] = value | (asks[:] & granted.replicate(len(asks)))
            asked = asked | neuron.asks
        m.d.comb += [getattr(shared, port).eq(value) for port, value in given.items()]


class _VectorSum:
    """Sum of a vector that comes value by value, kept while the next one comes.

    Parameters
    ----------
    m
        Module that the registers go to.
    value, adds
        A signed value, and whether it is added now.
    restarts
        Whether it is the first of a vector.
    keeps
        Whether the sum, with the value, is used from the next cycle on, and a vector is complete.
    """

    def __init__(
        self,
        m: Module,
        value: Value,
        adds: Value,
        restarts: Value,
        keeps: Value,
        width: int,
        name: str,
    ) -> None:
        coming = Signal(signed(width), name=f"{name}_sum_coming", reset_less=True)
        self.kept = Signal(signed(width), name=f"{name}_sum", reset_less=True)
        before = wire(m, coming & (~restarts).replicate(width), f"{name}_sum_before").as_signed()
        extended = Cat(value, value[-1].replicate(width - len(value)))
        addend = wire(m, extended & adds.replicate(width), f"{name}_sum_addend").as_signed()
        total = wire(m, (before + addend)[:width], f"{name}_sum_total")
        with m.If(adds | keeps):
            m.d.sync += coming.eq(total & (~keeps).replicate(width))
        with m.If(keeps):
            m.d.sync += self.kept.eq(total)


def _or_one(word: Value, bit: Value) -> Value:
    """The word with its lowest bit set where the bit is."""
    lowest = word[0] | bit
    return lowest if len(word) == 1 else Cat(lowest, word[1:])


class DynamicInt8LstmLayer(LayerEngine):
    """A layer of the integer LSTM whose weights count with 8 or with 4 bits.

    Bit for bit :class:`fewbit.golden.layer.int8_dynamic.DynamicInt8LstmLayerContract`, which says
    what the packets mean. With whole weights a beat is ``lanes`` products, each of them a high and
    a low half; with high halves alone it is twice as many. The low halves are then not read.

    Parameters
    ----------
    contract
        The layer's parameters, and the image that it holds for good, if it does; None for the
        usual ones.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`.
    """

    contract: DynamicInt8LstmLayerContract
    _registers = REGISTERS

    def __init__(
        self, contract: DynamicInt8LstmLayerContract | None = None, structure: Structure = "gates"
    ) -> None:
        self.structure: Structure = structure
        contract = contract or DynamicInt8LstmLayerContract()
        self.dynamic_system = _DynamicSystem(contract, structure)
        super().__init__(contract, self.dynamic_system)

    # Memories.

    def _declare(self) -> None:
        super()._declare()
        self.low = Signal()
        """The rows that are issued are those of a group with high halves alone."""
        self._stride = Signal(2)
        self.hidden_result = Signal(signed(BYTE))

    def _add_weights(self, m: Module, store: ImageStore) -> None:
        self.halves = [store.memory(m, f"weights_{name}").read_port() for name in HALVES]

    def _add_memories(self, m: Module, store: ImageStore) -> None:
        super()._add_memories(m, store)
        # Each half of the lanes has a copy of the vectors, so that it reads a word of its own.
        schedule = self.schedule
        width = self.system.activation_width
        vector = self.add_pages(m, "input_vector_second", schedule.inputs)
        self.in_page.connect(m, vector.write_port(granularity=width))
        self.input_second = vector.read_port()
        hidden = self.add_pages(m, "hidden_vector_second", schedule.outputs)
        write = hidden.write_port(granularity=width)
        m.d.comb += [
            write.addr.eq(self.hidden_write.addr),
            write.data.eq(self.hidden_write.data),
            write.en.eq(self.hidden_write.en),
        ]
        self.hidden_second = hidden.read_port()
        # What a group's units were, for the difference to what they become.
        self.cells_before = []
        if self.contract.signal == "cell_change":
            self.cells_before = [
                getattr(m.submodules, f"cells_{index}").read_port()
                for index in range(schedule.neurons)
            ]
        m.submodules.counters = counters = Memory(shape=BYTE, depth=max(2, self._groups), init=[])
        self.counter_write = counters.write_port()
        # A lone group reads the counter in the very cycle in which it is written.
        self.next_counter = counters.read_port(
            transparent_for=(self.counter_write,) if self._groups == 1 else ()
        )
        self.counter = counters.read_port()

    # The issue of rows.

    def _ends_row(self, beat: Value, length: int) -> Value:
        # With two words a beat, the last one may lack the second.
        ends = self.low | (beat[0] == (length - 1) % 2)
        return ends if len(beat) == 1 else ends & (beat[1:] == (length - 1) // 2)

    def _word_of(self, beat: Value, weight: Value) -> Value:
        return _or_one(beat, self.low & weight[0])

    def _more_flags(self, m: Module, issue: Issue, flags: Mapping[str, Value]) -> dict[str, Value]:
        schedule = self.schedule
        lengths = {row: schedule.beats(row) for row in schedule.rows}
        has_odd_length = issue.row.matches(
            *(place for place, row in enumerate(schedule.rows) if lengths[row] % 2)
        )
        is_odd = issue.weight[0]
        lacks = wire(m, self.low & issue.is_last_beat & has_odd_length, "lacks_a_word")
        self.lacks = (lacks & is_odd, lacks & ~is_odd)
        m.d.comb += self._stride.eq(Mux(self.low & ~lacks, 2, 1))
        self._choose_mode(m, issue)
        second = wire(m, _or_one(issue.beat, self.low & ~is_odd), "second_word")
        more: dict[str, Value] = {}
        for part, port, page in (
            ("input", self.input_second, self.page),
            ("hidden", self.hidden_second, self.hidden_page),
        ):
            takes = flags[f"takes_{part}"]
            more[f"takes_{part}"] = takes & ~self.lacks[0]
            more[f"second_{part}"] = takes & ~self.lacks[1]
            m.d.comb += [
                port.addr.eq(Cat(page, second)),
                port.en.eq(issue.issues & takes & ~self.lacks[1]),
            ]
            more[f"adds_{part}"] = takes & flags["first"]
        more["takes_offset"] = self.low & flags["first"]
        more["raises_first"] = self.low | ~is_odd
        more["raises_second"] = self.low | is_odd
        return more

    def _read_weights(self, m: Module, weight: Value, reads: Value) -> None:
        is_odd = weight[0]
        above = wire(m, weight[1:] + (self.low & is_odd), "word_above")
        places = (Cat(is_odd & ~self.low, above), Cat(~is_odd & ~self.low, weight[1:]))
        for port, place, lacks in zip(self.halves, places, self.lacks, strict=True):
            m.d.comb += [port.addr.eq(place), port.en.eq(reads & ~lacks)]

    def _weights_of(self, index: int) -> Value:
        width = 4 * self.schedule.lanes
        return Cat(port.data.word_select(index, width) for port in self.halves)

    def _all_activations(self, activations: Value, held: Mapping[str, Value]) -> Value:
        second = [
            port.data & held[f"second_{part}"].replicate(len(port.data))
            for part, port in (("input", self.input_second), ("hidden", self.hidden_second))
        ]
        return Cat(activations, second[0] | second[1])

    def _begin_row(self, m: Module, beat: View, value: Value, held: Mapping[str, Value]) -> None:
        sums = [
            each.kept & held[f"adds_{part}"].replicate(len(each.kept))
            for part, each in (("input", self.input_sum), ("hidden", self.hidden_sum))
        ]
        offset = value[-BYTE:] & held["takes_offset"].replicate(BYTE)
        m.d.comb += [
            beat.start.eq(value[:-BYTE].as_signed()),
            beat.offset.eq(offset.as_signed()),
            beat.correction.eq(sums[0] | sums[1]),
            beat.raises.eq(Cat(held["raises_first"], held["raises_second"])),
        ]

    def _choose_mode(self, m: Module, issue: Issue) -> None:
        """LOW or HIGH for the group that is issued, and the passes of each kind."""
        configuration = self.dynamic_system.configuration[-REGISTERS:]
        threshold, self.hold = Cat(*configuration[:2]), configuration[2]
        self.threshold = threshold
        for index, register in enumerate(configuration):
            with m.If(self.front.register_writes[index]):
                m.d.sync += register.eq(self.front.data)
        # The first two steps of a sequence, or after a state that was loaded.
        state_is_loaded = Signal()
        is_second = Signal()
        starts = self.front.starts.bit_select(self.page, 1)
        self.is_reset = wire(m, self.front.fresh | starts, "is_reset")
        self.is_first = wire(m, self.is_reset | state_is_loaded, "is_first_step")
        loads_state = wire(m, self.front.begins(Place.HIDDEN), "loads_state")
        with m.If(loads_state):
            m.d.sync += state_is_loaded.eq(1)
        with m.If(self.ends):
            m.d.sync += [state_is_loaded.eq(0), is_second.eq(self.is_first)]
        ends_group = wire(
            m,
            issue.issues & issue.is_last_beat & (issue.row == len(self.schedule.rows) - 1),
            "issues_group",
        )
        next_group = wire(
            m,
            (issue.group + ends_group)[: len(issue.group)]
            & (~self.begins).replicate(len(issue.group)),
            "next_group",
        )
        is_always = wire(m, self.is_first | is_second | self.hold.all(), "takes_whole")
        m.d.comb += [
            self.next_counter.addr.eq(next_group),
            self.low.eq(~(is_always | self.next_counter.data.any())),
        ]
        self._count_passes(m, ends_group)
        self.input_sum = _VectorSum(
            m,
            self.front.data,
            wire(m, self.front.writes & (self.front.place == Place.INPUT), "takes_input_value"),
            self.front.begins(Place.INPUT),
            self.begins,
            sum_width(self.contract),
            "input",
        )
        # Values of the hidden vector that leave, or that a state brings.
        self.adds_hidden = Signal()
        loads = wire(
            m, self.front.writes & (self.front.place == Place.HIDDEN), "takes_hidden_value"
        )
        self.hidden_sum = _VectorSum(
            m,
            wire(m, Mux(self.busy, self.hidden_result[:], self.front.data), "hidden_value"),
            wire(m, loads | self.adds_hidden, "adds_hidden_value"),
            loads_state,
            self.begins,
            sum_width(self.contract),
            "hidden",
        )

    def _count_passes(self, m: Module, counts: Value) -> None:
        """Add a pass of the mode in which a group is issued, byte by byte in a memory.

        Registers would cost more, and there is time: a group has eight rows, of which an update
        takes one in two cycles at best.
        """
        m.submodules.passes = passes = Memory(shape=BYTE, depth=PASSES_SIZE, init=[])
        write, self.passes_read = passes.write_port(), passes.read_port()
        adds = Signal()
        has_read = Signal(reset_less=True)
        place = Signal(range(PASSES_SIZE), name="passes_place")
        byte = wire(m, (self.passes_read.data + 1)[:BYTE], "passes_byte")
        goes_on = wire(m, ~byte.any() & ~place[:2].all(), "passes_carry")
        if self.image is None:
            clears = wire(m, ~self.front.loaded, "clears_passes")
        else:
            clears = Signal(init=1, name="clears_passes")
            with m.If(place.all()):
                m.d.sync += clears.eq(0)
        m.d.comb += [
            self.passes_read.addr.eq(Mux(adds, place, self.front.byte[:3])),
            write.addr.eq(place),
            write.data.eq(byte & (~clears).replicate(BYTE)),
            write.en.eq(clears | (adds & has_read)),
        ]
        with m.If(clears):
            m.d.sync += [place.eq(place + 1), adds.eq(0)]
        with m.Elif(counts):
            m.d.sync += [adds.eq(1), has_read.eq(0), place.eq(Cat(Const(0, 2), self.low))]
        with m.Elif(adds):
            m.d.sync += has_read.eq(~has_read)
            with m.If(has_read):
                m.d.sync += [place.eq(place + 1), adds.eq(goes_on)]

    # What becomes of the units.

    def _observe(self, m: Module, collected: Collected) -> None:
        m.d.comb += [
            self.adds_hidden.eq(collected.of_unit),
            self.hidden_result.eq(self.result.as_signed()),
        ]
        if self.contract.signal == "cell_change":
            moved = self._cell_moved(m, collected)
        else:
            gate = wire(
                m, choose(collected.neuron, self.dynamic_system.output_gates), "output_gate"
            )
            moved = wire(m, gate + ~self.threshold, "gate_excess")[-1]
        has_moved = Signal(name="group_has_moved", reset_less=True)
        moves = wire(m, (moved & collected.of_unit) | has_moved, "group_moves")
        counts = wire(m, self.counter.data.any() & ~self.is_first, "counts_down")
        less = wire(m, (self.counter.data - 1)[:BYTE], "counter_less_one")
        with m.If(collected.of_unit):
            m.d.sync += has_moved.eq(moves)
        with m.If(collected.ends_group):
            m.d.sync += has_moved.eq(0)
        # A group may follow at once where its results had to wait.
        next_group = wire(m, collected.group + collected.ends_group, "next_group_collected")
        m.d.comb += [
            *(port.addr.eq(next_group) for port in self.cells_before),
            self.counter.addr.eq(next_group),
            self.counter_write.addr.eq(collected.group),
            self.counter_write.data.eq(Mux(moves, self.hold, Mux(counts, less, Const(0, BYTE)))),
            self.counter_write.en.eq(collected.ends_group),
        ]
        # Whatever was collected before reset.
        with m.If(self.begins):
            m.d.sync += has_moved.eq(0)

    def _cell_moved(self, m: Module, collected: Collected) -> Value:
        """Whether the unit's cell has changed by more than the threshold."""
        old = choose(collected.neuron, [port.data for port in self.cells_before])
        old = wire(m, old & (~self.is_reset).replicate(16), "cell_before").as_signed()
        new = wire(m, choose(collected.neuron, collected.cells), "cell_after").as_signed()
        change = wire(m, new - old, "cell_change")
        # Of a negative change one less than its distance from zero.
        distance = wire(m, change[:-1] ^ change[-1].replicate(16), "cell_distance")
        # Beyond the threshold: the distance, less the threshold, less one, carries.
        excess = wire(
            m,
            Cat(Const(1, 1), distance) + Cat(change[-1], ~self.threshold),
            "cell_excess",
        )
        return excess[-1]

    def _requested(self, state: Value) -> tuple[Value, Value | int]:
        is_passes = self.front.place == Place.PASSES
        return Mux(is_passes, self.passes_read.data, state), Mux(
            is_passes, Reply.PASSES, Reply.STATE
        )
