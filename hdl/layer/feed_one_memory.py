"""The feed that has all vectors in one memory, with multiples of the values for its lanes."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory

from fewbit.golden.layer.schedule import chunks
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.feed import (
    delay_with_read,
    feed_ports,
    hidden_writer,
    masked,
    offer,
    page_words,
)
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.places import Place, Places
from fewbit.hdl.memory_writer import Writer
from fewbit.hdl.neuron.side_by_side_vectors import Vectors
from fewbit.hdl.selection import bits_of

__all__ = ["OneMemoryFeed"]


class OneMemoryFeed(wiring.Component):
    """A feed of whole weights for one neuron, whose rows all use the same word of activations.

    Input and hidden vectors lie in one memory with one read and one write port, in the layout that
    the neuron asks for. The neuron reads its start values itself. This feed does not set recurrent
    sums to 0 at reset: the neuron must count them as 0.

    Parameters
    ----------
    places
        The layer's places.
    vectors
        The layout of the values in the memory.
    segments
        Names of the segments of the neuron's program.
    masks_padding
        Whether the lanes beyond the end of a vector read as code 0, whatever the memory holds.

    Ports
    -----
    o
        The beat: ``weights`` of the neuron, and ``activations``, a word of the memory. The rest is
        described at :func:`fewbit.hdl.layer.feed.feed_ports`.
    held_off
        Whether a result is written in this cycle; an incoming byte then waits.
    """

    def __init__(
        self,
        places: Places,
        vectors: Vectors,
        segments: Sequence[str] = ("",),
        *,
        masks_padding: bool = False,
    ) -> None:
        self.places = places
        self.vectors = vectors
        self.masks_padding = masks_padding
        schedule = places.schedule
        sizes = {each.name: 8 * each.word_bytes for each in places.plan.sections}
        self.width = vectors.element.width * (schedule.lanes // vectors.group)
        super().__init__(
            feed_ports(
                places,
                segments,
                {
                    "weights": data.ArrayLayout(unsigned(sizes["weights"]), 1),
                    "activations": self.width,
                },
            )
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i.payload, self.o.payload
        places, schedule, vectors = self.places, self.places.schedule, self.vectors
        store = ImageStore(places, self.bus)
        issues = offer(m, self.i, self.o)
        weights = store.memory(m, "weights").read_port()
        m.d.comb += [
            weights.addr.eq(i.weight),
            weights.en.eq(issues & i.products),
            o.weights[0].eq(weights.data),
        ]

        # The longer vector's pages come first. Those of the other one begin at a power of two, so
        # that a bit of the address chooses the vector.
        words = page_words(places, "input"), page_words(places, "recurrent")
        second = 1 << bits_of(max(words))
        inputs_are_second = words[0] <= words[1]
        m.submodules.vectors = memory = Memory(
            shape=unsigned(self.width), depth=second + min(words), init=[]
        )
        read, write = memory.read_port(), memory.write_port(granularity=vectors.element.width)

        def of_inputs(place: Value) -> Value:
            return place | (second if inputs_are_second else 0)

        def of_hidden(place: Value) -> Value:
            return place | (0 if inputs_are_second else second)

        old = Cat(self.page, Mux(self.busy, i.word, self.bus.word))
        reads_input = wire(m, i.input & self.busy, "reads_input")
        reads = issues & i.reads_word
        m.d.comb += [
            read.addr.eq(Mux(reads_input, of_inputs(Cat(self.page, i.word)), of_hidden(old))),
            read.en.eq(reads | self.saves),
            self.saved.eq(vectors.raws(read.data)),
            o.activations.eq(self._counting(m, read.data)),
        ]

        # There is one write port, at which results come before incoming inputs.
        values = places.values(self.bus, Place.INPUT)
        values = Writer(values.enable, Cat(self.write_page, values.address), values.data)
        inputs = vectors.gather(m, values, schedule.inputs, "input")
        hidden = vectors.gather(m, hidden_writer(places, self), schedule.outputs, "hidden")
        counts = self.results.to_hidden | (self.bus.place != Place.INPUT)
        chosen = wire(m, Mux(counts, hidden.data, inputs.data), "written_values")
        enable = wire(m, inputs.enable | hidden.enable, "write_enables")
        address = Mux(counts, of_hidden(hidden.address), of_inputs(inputs.address))
        Writer(enable, address, vectors.prepare(m, chosen)).connect(m, write)
        m.d.comb += self.held_off.eq(self.results.to_hidden)
        return m

    def _counting(self, m: Module, word: Value) -> Value:
        """Mask the word that was read: zeros beyond the end of its vector."""
        i, schedule, vectors = self.i.payload, self.places.schedule, self.vectors
        takes = {"input": i.input, "recurrent": i.recurrent & ~self.fresh}
        rests = {
            part: rest
            for part in ("input", "recurrent")
            if self.masks_padding and (rest := schedule.length(part) % schedule.lanes)
        }
        if not rests:
            return word
        held = delay_with_read(
            m, self.i, {f"fills_{part}": takes[part] & ~i.last_word for part in rests}
        )
        recurrent = self.o.payload.recurrent
        counts: list[Value] = [Const(1, 1)] * (schedule.lanes // vectors.group)
        for part, rest in rests.items():
            of_other = ~recurrent if part == "recurrent" else recurrent
            for index in range(chunks(rest, vectors.group), len(counts)):
                counts[index] &= held[f"fills_{part}"] | of_other
        size = vectors.element.width
        return Cat(
            masked(word[index * size : (index + 1) * size], each)
            for index, each in enumerate(counts)
        )
