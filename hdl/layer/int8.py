# amaranth: UnusedElaboratable=no
# A layer that is never elaborated says so; that its parts are not either is no news.
"""The layer of the integer LSTM."""

from collections.abc import Sequence
from typing import TypeVar

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring

from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.hdl.layer.cells import CellsWithResults
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.feed import PlainFeed
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.integer_cycles import step_cycles, update_of, waiting_rows
from fewbit.hdl.layer.neurons import Neurons
from fewbit.hdl.layer.places import Places
from fewbit.hdl.neuron.integer import IntegerLayerNeuron
from fewbit.hdl.neuron.layer_norm import LayerNorm
from fewbit.hdl.structure import Structure

__all__ = ["Int8LstmLayer", "Int8Neurons", "places_of", "step_cycles", "update_of"]

_Layer = TypeVar("_Layer", bound=Int8LstmLayerContract)


def places_of(contract: _Layer, registers: int = 0) -> Places[_Layer]:
    """Return the places of the integer LSTM's layer: values of 8 bits, cells of 16 bits."""
    return Places(contract, activation_width=8, cell_width=16, registers=registers)


class Int8Neurons(Neurons):
    """The neurons of the integer LSTM, with their scales and their configuration.

    Parameters
    ----------
    places
        The layer's places.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    products
        The lanes of each neuron; by default lanes of int8 products.
    shares_activation
        Whether neurons share interpolations, which the layer adds.
    tells_output_gate
        Whether a unit's output gate comes with its result.
    """

    def __init__(
        self,
        places: Places[Int8LstmLayerContract],
        structure: Structure,
        products: Sequence[wiring.Component] = (),
        *,
        shares_activation: bool = False,
        tells_output_gate: bool = False,
    ) -> None:
        contract = places.contract
        self.structure: Structure = structure
        update = update_of(contract)
        integer_neurons = [
            IntegerLayerNeuron(
                lanes=contract.lanes,
                activation=contract.activation,
                chunk=update.chunk,
                interpolates=update.interpolates,
                variant=contract.variant,
                structure=structure,
                waiting_rows=waiting_rows(contract, update, structure),
                products=products[index] if products else None,
                shares_activation=shares_activation,
                tells_output_gate=tells_output_gate,
            )
            for index in range(contract.neurons)
        ]
        self.segments = integer_neurons[0].segments
        scales = integer_neurons[0].scales
        if scales != contract.scales:
            raise ValueError(f"The neuron's scales are {scales}, the image's {contract.scales}.")
        self.integer_neurons = integer_neurons
        super().__init__(places, integer_neurons)

    def configure(self, m: Module, store: ImageStore) -> None:
        configuration = store.registers(m, "configuration")
        fields: dict[str, Value] = {
            "cell_integer_bits": configuration[0][:3],
            "cell_clip": Cat(configuration[1], configuration[2][:7]),
            "hidden_offset": Cat(configuration[3], configuration[4][0]),
        }
        m.d.comb += self.reset_hidden.eq(configuration[5])
        if self.integer_neurons[0].variant.projection:
            fields |= {
                "projection_offset": configuration[6],
                "projection_clip": configuration[7][:7],
            }
        scales = store.memory(m, "scales")
        for neuron in self.integer_neurons:
            port = scales.read_port(domain="comb")
            m.d.comb += [
                port.addr.eq(neuron.scale),
                neuron.multiplier.eq(port.data[:24]),
                neuron.shift.eq(port.data[24:30]),
                *(getattr(neuron, name).eq(value) for name, value in fields.items()),
            ]
        if "normalizer" in self.signature.members:
            self._add_normalizer(m, store)

    def _add_normalizer(self, m: Module, store: ImageStore) -> None:
        """Add the layer norm, and the memories of its constants."""
        m.submodules.layer_norm = unit = LayerNorm(units=self.places.schedule.hidden)
        constants = store.memory(m, "norm").read_port()
        scale = store.memory(m, "norm_scales").read_port(domain="comb")
        outside = self.normalizer
        m.d.comb += [
            constants.addr.eq(outside.index),
            constants.en.eq(outside.advances),
            scale.addr.eq(outside.gate),
            unit.i.valid.eq(outside.i.valid),
            unit.i.payload.value.eq(outside.i.payload.value),
            unit.i.payload.normalizes.eq(outside.i.payload.normalizes),
            unit.i.payload.gain.eq(constants.data[:16]),
            unit.i.payload.bias.eq(constants.data[16:]),
            outside.i.ready.eq(unit.i.ready),
            unit.multiplier.eq(scale.data[:24]),
            unit.shift.eq(scale.data[24:32].as_signed()),
            unit.guard.eq(scale.data[32:]),
            outside.o.valid.eq(unit.o.valid),
            outside.o.payload.eq(unit.o.payload),
            unit.o.ready.eq(outside.o.ready),
        ]


class Int8LstmLayer(LayerEngine):
    """A layer of the integer LSTM with its weights and its state.

    Bit for bit :class:`fewbit.golden.layer.int8.Int8LstmLayerContract`, which says what the packets
    mean.

    Parameters
    ----------
    contract
        The layer's parameters, and the image that it holds for good, if it does; None for the
        usual ones.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    """

    def __init__(
        self, contract: Int8LstmLayerContract | None = None, structure: Structure = "gates"
    ) -> None:
        self.structure: Structure = structure
        places = places_of(contract or Int8LstmLayerContract())
        neurons = Int8Neurons(places, structure)
        super().__init__(neurons, PlainFeed(places, neurons.segments), CellsWithResults(places))
