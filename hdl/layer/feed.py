"""The feed of the neurons: the weights, the activations and the start values of each beat.

A feed takes beats as `fewbit.hdl.layer.issue.Issue` offers them, reads the memories, and offers the
beats with their words a cycle later. There are three: this module's, which has a memory for each
vector; :mod:`fewbit.hdl.layer.feed_halves`, which can take weights by halves; and
:mod:`fewbit.hdl.layer.feed_one_memory`, which has all vectors in one memory.
"""

from collections.abc import Mapping, Sequence

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.schedule import Part, chunks
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import HasPorts
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.issue import issue_layout
from fewbit.hdl.layer.places import Place, Places
from fewbit.hdl.memory_writer import Writer

__all__ = [
    "Activations",
    "PlainFeed",
    "add_starts",
    "delay_with_read",
    "feed_ports",
    "hidden_writer",
    "masked",
    "memory",
    "offer",
    "page_words",
]

GATE_WIDTH = 16
"""Bits of a stored gate value."""


def masked(value: Value, counts: Value) -> Value:
    """Return the bits where they count, else zeros."""
    return value & counts.replicate(len(value))


def memory(words: int, width: int) -> Memory:
    """Return an empty memory; its address has at least one bit."""
    return Memory(shape=unsigned(width), depth=max(2, words), init=[])


def page_words(places: Places, part: Part) -> int:
    """Return how many words both pages of a vector have together."""
    return 2 * chunks(places.schedule.length(part), places.schedule.lanes)


def feed_ports(
    places: Places, segments: Sequence[str], beat: Mapping[str, ShapeLike]
) -> dict[str, wiring.Member]:
    """Return the ports that all feeds have.

    Ports
    -----
    i
        Beats, see `issue_layout`.
    o
        The same beats a cycle later, with the words that were read for them. Each feed adds its own
        fields to ``first``, ``last``, ``recurrent`` and ``segment``.
    bus
        The bytes of packets, see `Places.bus`.
    page, write_page
        The page that the time step in progress reads of the input vector and of the old hidden
        vector, and the page that the next input vector goes to.
    busy, begins
        Whether a time step is in progress, and whether one begins with the next cycle.
    fresh
        Whether the time step starts from reset: recurrent sums are then 0, whatever the memories
        hold.
    saves, saved
        Where ``saves`` is 1, ``saved`` is the word of the old hidden vector at the bus's place from
        the next cycle on.
    results
        New values: ``value`` goes to place ``lane`` of word ``word`` of the new hidden vector, or
        of the inner vector.
    gates
        The stored values of the gate that the beat before asked for, one for each neuron.
    held_off
        Whether the bus must not write in this cycle.
    low
        Whether the group is in mode LOW, see :mod:`fewbit.hdl.layer.feed_halves`.
    """
    schedule = places.schedule
    shared = {"first": 1, "last": 1, "recurrent": 1, "segment": range(max(2, len(segments)))}
    return {
        "i": In(stream.Signature(issue_layout(schedule, segments))),
        "o": Out(stream.Signature(data.StructLayout({**shared, **beat}))),
        "bus": In(places.bus),
        "page": In(1),
        "write_page": In(1),
        "busy": In(1),
        "begins": In(1),
        "fresh": In(1),
        "saves": In(1),
        "saved": Out(places.activation_width * schedule.lanes),
        "results": In(places.new_value),
        "gates": In(data.ArrayLayout(unsigned(GATE_WIDTH), schedule.neurons)),
        "held_off": Out(1),
        "low": In(1),
    }


def delay_with_read(
    m: Module, i: wiring.PureInterface, flags: Mapping[str, Value]
) -> dict[str, Signal]:
    """Delay flags of a beat by a cycle, so that they come together with the words read for it."""
    held = {name: Signal(len(value), name=name, reset_less=True) for name, value in flags.items()}
    with m.If(i.ready):
        m.d.sync += [held[name].eq(value) for name, value in flags.items()]
    return held


def offer(m: Module, i: wiring.PureInterface, o: wiring.PureInterface) -> Value:
    """Connect the handshakes of a feed, whose output is a cycle behind its input.

    Returns
    -------
    Whether a beat is taken in this cycle, and its words are read.
    """
    waits = Signal()
    m.d.comb += [i.ready.eq(~waits | o.ready), o.valid.eq(waits)]
    with m.If(i.ready):
        m.d.sync += waits.eq(i.valid)
    beat = i.payload
    held = delay_with_read(
        m, i, {name: beat[name] for name in ("first", "last", "recurrent", "segment")}
    )
    m.d.comb += [o.payload[name].eq(value) for name, value in held.items()]
    return wire(m, i.valid & i.ready, "issues")


def hidden_writer(places: Places, feed: HasPorts) -> Writer:
    """Return the writer of the hidden vector: of results, or between time steps of a state."""
    results = feed.results
    loads = places.values(feed.bus, Place.HIDDEN)
    lanes = range(places.schedule.lanes)
    enable = Cat(results.to_hidden & (results.lane == lane) for lane in lanes) | loads.enable
    address = Mux(feed.busy, Cat(~feed.page, results.word), Cat(feed.page, loads.address))
    value = Mux(feed.busy, results.value, loads.data)[: places.activation_width]
    return Writer(enable, address, value)


def add_starts(
    m: Module, places: Places, store: ImageStore, feed: HasPorts, issues: Value
) -> list[Value]:
    """Add the memory of start values, and return each neuron's for the beat that is offered.

    At reset, rows over old hidden values start from 0. A row may also start from a stored value of
    a gate.
    """
    beat, schedule = feed.i.payload, places.schedule
    port = store.memory(m, "starts").read_port()
    m.d.comb += [port.addr.eq(beat.start), port.en.eq(issues & beat.first_word)]
    starts = beat.starts & ~(beat.recurrent & feed.fresh)
    held = delay_with_read(m, feed.i, {"takes_start": starts, "takes_gate": beat.starts_from_gate})
    width = len(port.data) // schedule.neurons
    values: list[Value] = []
    for index in range(schedule.neurons):
        value = masked(port.data.word_select(index, width), held["takes_start"])
        if any(row.start == "gate" for row in schedule.rows):
            gate = feed.gates[index]
            extended = Cat(gate, gate[-1].replicate(width - GATE_WIDTH))
            value = wire(m, value | masked(extended, held["takes_gate"]), f"start_{index}")
        values.append(value)
    return values


class Activations(wiring.Component):
    """The vectors of a layer, each in a memory of its own, whose words have a value for each lane.

    Parameters
    ----------
    places
        The layer's places.
    masks_padding
        Whether the lanes beyond the end of a vector read as code 0, whatever the memory holds.

    Ports
    -----
    word
        The address of the word to be read.
    reads_input, reads_recurrent, reads_inner
        Whether it is read from this vector, for ``read`` in the next cycle.
    takes_input, takes_recurrent, takes_inner, last_word, advances
        Whether the words of this vector count from the next cycle on, and whether the word is a
        vector's last; these flags are taken where ``advances`` is 1.
    read
        The word that was read, or zeros where no vector counts.
    bus, page, write_page, busy, saves, saved, results
        See `feed_ports`.
    """

    def __init__(
        self, places: Places, segments: Sequence[str], *, masks_padding: bool = False
    ) -> None:
        self.places = places
        self.masks_padding = masks_padding
        schedule = places.schedule
        ports = feed_ports(places, segments, {})
        shared = ("bus", "page", "write_page", "busy", "saves", "saved", "results")
        self.parts: tuple[Part, ...] = ("input", "recurrent")
        if any(row.part == "inner" for row in schedule.rows):
            self.parts = (*self.parts, "inner")
        most = max(2, *(schedule.beats(row) for row in schedule.rows))
        super().__init__(
            {
                "word": In(range(most)),
                **{f"reads_{part}": In(1) for part in self.parts},
                **{f"takes_{part}": In(1) for part in self.parts},
                "last_word": In(1),
                "advances": In(1),
                "read": Out(places.activation_width * schedule.lanes),
                **{name: ports[name] for name in shared},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, results = self.places, self.results
        lanes, width = places.schedule.lanes, places.activation_width
        # Two pages of each vector: one is used while the other is written.
        m.submodules.input_vector = inputs = memory(page_words(places, "input"), width * lanes)
        values = places.values(self.bus, Place.INPUT)
        writer = Writer(values.enable, Cat(self.write_page, values.address), values.data)
        writer.connect(m, inputs.write_port(granularity=width))
        hidden = memory(page_words(places, "recurrent"), width * lanes)
        m.submodules.hidden_vector = hidden
        hidden_writer(places, self).connect(m, hidden.write_port(granularity=width))
        ports = {"input": inputs.read_port(), "recurrent": hidden.read_port()}
        old = Cat(self.page, Mux(self.busy, self.word, self.bus.word))
        m.d.comb += [
            ports["input"].addr.eq(Cat(self.page, self.word)),
            ports["input"].en.eq(self.reads_input),
            ports["recurrent"].addr.eq(old),
            ports["recurrent"].en.eq(self.reads_recurrent | self.saves),
            self.saved.eq(ports["recurrent"].data),
        ]
        if "inner" in self.parts:
            words = chunks(places.schedule.hidden, lanes)
            m.submodules.inner_vector = inner = memory(words, width * lanes)
            enable = Cat(results.to_inner & (results.lane == lane) for lane in range(lanes))
            Writer(enable, results.word, results.value).connect(
                m, inner.write_port(granularity=width)
            )
            ports["inner"] = inner.read_port()
            m.d.comb += [
                ports["inner"].addr.eq(self.word),
                ports["inner"].en.eq(self.reads_inner),
            ]
        total: Value | None = None
        for part in self.parts:
            word = self._counting(m, part, ports[part].data)
            total = word if total is None else total | word
        assert total is not None
        m.d.comb += self.read.eq(total)
        return m

    def _counting(self, m: Module, part: Part, word: Value) -> Value:
        """Mask a word: wholly if its vector does not count, else beyond the vector's end."""
        schedule = self.places.schedule
        takes: Value = getattr(self, f"takes_{part}")
        rest = schedule.length(part) % schedule.lanes if self.masks_padding else 0
        flags = {f"takes_{part}": takes}
        if rest:
            flags[f"fills_{part}"] = takes & ~self.last_word
        held = {name: Signal(name=f"held_{name}", reset_less=True) for name in flags}
        with m.If(self.advances):
            m.d.sync += [held[name].eq(value) for name, value in flags.items()]
        if not rest:
            return masked(word, held[f"takes_{part}"])
        end = self.places.activation_width * rest
        return Cat(
            masked(word[:end], held[f"takes_{part}"]), masked(word[end:], held[f"fills_{part}"])
        )


class PlainFeed(wiring.Component):
    """A feed of whole weights, from a memory of weights and one for each vector.

    Parameters
    ----------
    places
        The layer's places.
    segments
        Names of the segments of the neuron's program.
    masks_padding
        See `Activations`. It is needed where padding with weights of zero is not enough: no code of
        a weight is zero, or the exponent of the activation counts all the same.

    Ports
    -----
    o
        The beat: ``weights`` and ``start`` of each neuron, and ``activations``, the same for all.
        The rest is described at `feed_ports`.
    """

    def __init__(
        self, places: Places, segments: Sequence[str] = ("",), *, masks_padding: bool = False
    ) -> None:
        self.places = places
        self.segments = tuple(segments)
        self.masks_padding = masks_padding
        schedule = places.schedule
        sizes = {each.name: 8 * each.word_bytes for each in places.plan.sections}
        neurons = schedule.neurons
        super().__init__(
            feed_ports(
                places,
                segments,
                {
                    "weights": data.ArrayLayout(unsigned(sizes["weights"] // neurons), neurons),
                    "start": data.ArrayLayout(unsigned(sizes["starts"] // neurons), neurons),
                    "activations": places.activation_width * schedule.lanes,
                },
            )
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i.payload, self.o.payload
        store = ImageStore(self.places, self.bus)
        issues = offer(m, self.i, self.o)
        weights = store.memory(m, "weights").read_port()
        m.submodules.activations = activations = Activations(
            self.places, self.segments, masks_padding=self.masks_padding
        )
        reads = wire(m, issues & i.reads_word, "reads_word")
        takes = {"input": i.input, "recurrent": i.recurrent & ~self.fresh, "inner": i.inner}
        m.d.comb += [
            weights.addr.eq(i.weight),
            weights.en.eq(issues & i.products),
            o.weights.eq(weights.data),
            activations.word.eq(i.word),
            activations.last_word.eq(i.last_word),
            activations.advances.eq(self.i.ready),
            o.activations.eq(activations.read),
            self.saved.eq(activations.saved),
        ]
        connect_vectors(m, self, activations)
        for part in activations.parts:
            m.d.comb += [
                getattr(activations, f"reads_{part}").eq(reads & i[part]),
                getattr(activations, f"takes_{part}").eq(takes[part]),
            ]
        for index, value in enumerate(add_starts(m, self.places, store, self, issues)):
            m.d.comb += o.start[index].eq(value)
        return m


def connect_vectors(m: Module, feed: HasPorts, activations: Activations) -> None:
    """Connect the ports by which vectors are written, and by which a state is read."""
    for name in activations.bus.signature.members:
        m.d.comb += getattr(activations.bus, name).eq(getattr(feed.bus, name))
    for name in ("page", "write_page", "busy", "saves", "results"):
        m.d.comb += getattr(activations, name).eq(getattr(feed, name))
