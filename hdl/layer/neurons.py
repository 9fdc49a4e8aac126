"""The neurons of a layer side by side, with the part of the image that configures them."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.gates import normalizer_ports
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.places import Places

__all__ = ["Neurons"]

_OWN = ("weights", "start", "offset")
"""Fields of a beat with a value for each neuron."""
_SHARED = ("fresh", "drains")
"""Ports that have the same value for all neurons."""


class Neurons(wiring.Component):
    """Neurons that take each beat together, and send their results each for itself.

    Each number system has a subclass, whose `configure` connects its neurons with the image. A
    neuron is a component with a stream ``i`` of beats and a stream ``o`` of results. The fields of
    a beat say what the layer must supply:

    - ``weights``, ``start``, ``offset``: a value for each neuron,
    - ``old_cell``: the old cell of the neuron's unit, which may also be a port,
    - all others, which are the same for all neurons: ``activations``, ``first``, ``last``,
      ``segment``, ``recurrent`` and any more that the layer's feed offers.

    The fields of a result are ``result``, the new hidden raw or code, and where they are needed
    ``cell_result``, the new cell, and ``value``, that of a gate. Any other field is only passed on
    with the result. A neuron may also have ports ``fresh`` (the time step starts from reset),
    ``drains`` (no beat follows) and ``cells``, ``cell_address``, ``reads_cell``, see
    :mod:`fewbit.hdl.layer.cells`.

    Parameters
    ----------
    places
        The layer's places.
    neurons
        The neurons, as many as the layer's schedule has.

    Ports
    -----
    i
        Beats, with the fields of the neurons' beats except for the old cell; see `take`.
    o
        Results, a stream for each neuron.
    bus
        The bytes of packets, see `Places.bus`.
    old_cell, fresh, drains, cells, cell_address, reads_cell
        The ports of the same names of the neurons, where they have them.
    reset_hidden
        The hidden raw or code at reset. It holds still once the image is loaded.
    normalizer
        The normaliser of gates, where the schedule asks for one, see
        :func:`fewbit.hdl.layer.gates.normalizer_ports`.
    """

    segments: tuple[str, ...] = ("",)
    """Names of the segments of the neurons' program, in the order of their numbers."""

    def __init__(self, places: Places, neurons: Sequence[wiring.Component]) -> None:
        self.places = places
        self.neurons = tuple(neurons)
        count = places.schedule.neurons
        if len(self.neurons) != count:
            raise ValueError(f"There must be {count} neurons, not {len(self.neurons)}.")
        first = self.neurons[0].signature.members
        beat = first["i"].signature.members["payload"].shape
        result = first["o"].signature.members["payload"].shape
        own = {
            name: data.ArrayLayout(shape, count)
            if name in ("weights", "start", "offset")
            else shape
            for name, shape in beat.members.items()
            if name != "old_cell"
        }
        self.beat: data.StructLayout = data.StructLayout(own)
        self.result: data.StructLayout = result
        ports: dict[str, wiring.Member] = {
            "i": In(stream.Signature(self.beat)),
            "o": Out(stream.Signature(result)).array(count),
            "bus": In(places.bus),
            "old_cell": In(data.ArrayLayout(places.cell_width, count)),
            "reset_hidden": Out(places.activation_width),
        }
        for name in (*_SHARED, "cell_address", "reads_cell"):
            if name in first:
                ports[name] = first[name]
        if "cells" in first:
            ports["cells"] = Out(first["cells"].signature).array(count)
        if any(phase.normalizes for phase in places.schedule.phases):
            ports["normalizer"] = Out(wiring.Signature(normalizer_ports(places.schedule)))
        super().__init__(ports)

    def take(self, m: Module, beats: wiring.PureInterface) -> None:
        """Connect the beats of a feed, in the layer's module.

        Fields with a value for each neuron may be narrower here than in the feed, where they are
        whole bytes of the image.
        """
        m.d.comb += [self.i.valid.eq(beats.valid), beats.ready.eq(self.i.ready)]
        for name in self.beat.members:
            taken, given = self.i.payload[name], beats.payload[name]
            if name in _OWN:
                pairs = zip(taken, given, strict=True)
                m.d.comb += [own.eq(Value.cast(value)) for own, value in pairs]
            else:
                m.d.comb += taken.eq(given)

    def configure(self, m: Module, store: ImageStore) -> None:
        """Connect the neurons with their part of the image, and drive ``reset_hidden``."""
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ready = wire(m, Cat(each.i.ready for each in self.neurons).all(), "neurons_are_ready")
        m.d.comb += self.i.ready.eq(ready)
        first = self.neurons[0].signature.members
        for index, neuron in enumerate(self.neurons):
            m.submodules[f"neuron_{index}"] = neuron  # pyright: ignore[reportArgumentType]
            beat, given = neuron.i.payload, self.i.payload
            m.d.comb += neuron.i.valid.eq(self.i.valid & ready)
            for name in self.beat.members:
                m.d.comb += beat[name].eq(given[name][index] if name in _OWN else given[name])
            cell = beat.old_cell if "old_cell" in beat.shape().members else neuron.old_cell
            m.d.comb += [
                cell.eq(self.old_cell[index]),
                self.o[index].valid.eq(neuron.o.valid),
                self.o[index].payload.eq(neuron.o.payload),
                neuron.o.ready.eq(self.o[index].ready),
            ]
            if "cells" in first:
                m.d.comb += [
                    self.cells[index].valid.eq(neuron.cells.valid),
                    self.cells[index].payload.eq(neuron.cells.payload),
                    neuron.cells.ready.eq(self.cells[index].ready),
                ]
            m.d.comb += [getattr(neuron, n).eq(getattr(self, n)) for n in _SHARED if n in first]
        for name in ("cell_address", "reads_cell"):
            if name in first:
                m.d.comb += getattr(self, name).eq(getattr(self.neurons[0], name))
        self.configure(m, ImageStore(self.places, self.bus))
        return m
