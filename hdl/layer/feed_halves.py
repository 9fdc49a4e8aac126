"""The feed that can take high halves of weights alone, for two words of activations at once."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.hdl.accumulate.int8_halves import HALVES
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.feed import (
    Activations,
    add_starts,
    connect_vectors,
    delay_with_read,
    feed_ports,
    offer,
)
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.places import BYTE, Place, Places

__all__ = ["HalvesFeed", "VectorSum", "sum_width"]


def sum_width(places: Places) -> int:
    """Return the bits of the signed sum of a vector."""
    schedule = places.schedule
    return BYTE + (max(schedule.inputs, schedule.outputs) - 1).bit_length()


class VectorSum(wiring.Component):
    """The sum of a vector that comes value by value; it is kept while the next vector comes.

    Parameters
    ----------
    width
        Bits of the sum.

    Ports
    -----
    value, adds
        A signed value, and whether it is added in this cycle.
    restarts
        Whether the value is the first of a vector.
    keeps, kept
        Whether the vector is complete with this cycle; from the next one on ``kept`` is its sum.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(
            {
                "value": In(signed(BYTE)),
                "adds": In(1),
                "restarts": In(1),
                "keeps": In(1),
                "kept": Out(signed(width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        coming = Signal(signed(self.width), reset_less=True)
        kept = Signal(signed(self.width), reset_less=True)
        m.d.comb += self.kept.eq(kept)
        before = wire(m, coming & (~self.restarts).replicate(self.width), "before").as_signed()
        extended = Cat(self.value, self.value[-1].replicate(self.width - BYTE))
        addend = wire(m, extended & self.adds.replicate(self.width), "addend").as_signed()
        total = wire(m, (before + addend)[: self.width], "total")
        with m.If(self.adds | self.keeps):
            m.d.sync += coming.eq(total & (~self.keeps).replicate(self.width))
        with m.If(self.keeps):
            m.d.sync += kept.eq(total)
        return m


class HalvesFeed(wiring.Component):
    """A feed of whole weights, or in mode LOW of high halves alone for twice as many activations.

    The halves of the weights lie in two memories. For even words of weights the first one holds the
    high halves and the second one the low halves, for odd words the other way round, so that the
    high halves of two neighbours can be read at once. Each half of the lanes has a copy of the
    vectors, and reads a word of its own. With a row's first beat come the sum of its vector and an
    offset, which together make up for the low halves that are not read.

    Parameters
    ----------
    places
        The layer's places.
    segments
        Names of the segments of the neuron's program.

    Ports
    -----
    low
        Whether the high halves alone are taken. It holds still in a group.
    o
        The beat: ``weights`` of each neuron, and ``activations``, for both halves of the lanes;
        ``start`` and ``offset`` of each neuron; ``correction``, the sum of the vector; and
        ``raises``, which is 1 for each half of the lanes that takes high halves of weights. The
        rest is described at :func:`fewbit.hdl.layer.feed.feed_ports`.
    """

    def __init__(self, places: Places, segments: Sequence[str] = ("",)) -> None:
        self.places = places
        self.segments = tuple(segments)
        schedule = places.schedule
        sizes = {each.name: BYTE * each.word_bytes for each in places.plan.sections}
        neurons, lanes = schedule.neurons, schedule.lanes
        super().__init__(
            feed_ports(
                places,
                segments,
                {
                    "weights": data.ArrayLayout(unsigned(BYTE * lanes), neurons),
                    "start": data.ArrayLayout(signed(sizes["starts"] // neurons - BYTE), neurons),
                    "offset": data.ArrayLayout(signed(BYTE), neurons),
                    "correction": signed(sum_width(places)),
                    "raises": 2,
                    "activations": 2 * places.activation_width * lanes,
                },
            )
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o, low = self.i.payload, self.o.payload, self.low
        store = ImageStore(self.places, self.bus)
        issues = offer(m, self.i, self.o)
        reads = wire(m, issues & i.reads_word, "reads_word")
        takes = {"input": i.input, "recurrent": i.recurrent & ~self.fresh}

        # A copy of the vectors for each half of the lanes.
        copies: list[Activations] = []
        for name, word, lacks in (
            ("first", i.word, i.lacks[0]),
            ("second", i.second_word, i.lacks[1]),
        ):
            m.submodules[f"activations_{name}"] = copy = Activations(self.places, self.segments)
            connect_vectors(m, self, copy)
            m.d.comb += [
                copy.word.eq(word),
                copy.last_word.eq(i.last_word),
                copy.advances.eq(self.i.ready),
            ]
            for part in copy.parts:
                counts = takes[part] & ~lacks
                own = reads & i[part] if name == "first" else issues & counts
                m.d.comb += [
                    getattr(copy, f"reads_{part}").eq(own),
                    getattr(copy, f"takes_{part}").eq(counts),
                ]
            copies.append(copy)
        m.d.comb += [
            o.activations.eq(Cat(copy.read for copy in copies)),
            self.saved.eq(copies[0].saved),
        ]
        halves = [store.memory(m, f"weights_{name}").read_port() for name in HALVES]
        above = wire(m, i.weight[1:] + (low & i.odd), "word_above")
        words = (Cat(i.odd & ~low, above), Cat(~i.odd & ~low, i.weight[1:]))
        for port, word, lacks in zip(halves, words, i.lacks, strict=True):
            m.d.comb += [port.addr.eq(word), port.en.eq(issues & i.products & ~lacks)]
        width = 4 * self.places.schedule.lanes
        for index, weights in enumerate(o.weights):
            m.d.comb += weights.eq(Cat(port.data.word_select(index, width) for port in halves))

        # The start values of a row, and the corrections of mode LOW.
        flags = {
            **{f"adds_{part}": counts & i.first for part, counts in takes.items()},
            "takes_offset": low & i.first,
            "raises_first": low | ~i.odd,
            "raises_second": low | i.odd,
        }
        held = delay_with_read(m, self.i, flags)
        sums = [
            each.kept & held[f"adds_{part}"].replicate(len(each.kept))
            for part, each in self._add_sums(m).items()
        ]
        m.d.comb += [
            o.correction.eq(sums[0] | sums[1]),
            o.raises.eq(Cat(held["raises_first"], held["raises_second"])),
        ]
        for index, value in enumerate(add_starts(m, self.places, store, self, issues)):
            offset = value[-BYTE:] & held["takes_offset"].replicate(BYTE)
            m.d.comb += [o.start[index].eq(value[:-BYTE]), o.offset[index].eq(offset)]
        return m

    def _add_sums(self, m: Module) -> dict[str, VectorSum]:
        """Add the circuits that sum up the input vector and the hidden vector."""
        places, bus = self.places, self.bus
        m.submodules.input_sum = inputs = VectorSum(sum_width(places))
        m.submodules.hidden_sum = hidden = VectorSum(sum_width(places))
        m.d.comb += [
            inputs.value.eq(bus.data),
            inputs.adds.eq(bus.writes & (bus.place == Place.INPUT)),
            inputs.restarts.eq(places.begins(bus, Place.INPUT)),
            inputs.keeps.eq(self.begins),
            # The hidden vector's values are new results, or those of a state that is loaded.
            hidden.value.eq(Mux(self.busy, self.results.value, bus.data)),
            hidden.adds.eq((bus.writes & (bus.place == Place.HIDDEN)) | self.results.to_hidden),
            hidden.restarts.eq(places.begins(bus, Place.HIDDEN)),
            hidden.keeps.eq(self.begins),
        ]
        return {"input": inputs, "recurrent": hidden}
