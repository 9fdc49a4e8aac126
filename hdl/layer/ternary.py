# amaranth: UnusedElaboratable=no
# A layer that is never elaborated says so; that its parts are not either is no news.
"""The layer of ternary, binary or power-of-two weights."""

from amaranth.hdl import Cat, Module

from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.neuron.ternary import TernaryLstmNeuronContract
from fewbit.hdl.layer.cells import CellsOnDemand, CellsWithResults
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.feed import PlainFeed
from fewbit.hdl.layer.feed_one_memory import OneMemoryFeed
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.integer_cycles import update_of, waiting_rows
from fewbit.hdl.layer.neurons import Neurons
from fewbit.hdl.layer.places import Places
from fewbit.hdl.layer.side_by_side import SideBySideNeurons
from fewbit.hdl.neuron.integer import IntegerLayerNeuron
from fewbit.hdl.neuron.ternary import LaneSum, hidden_scale
from fewbit.hdl.structure import LaneStructure, Structure

__all__ = ["TernaryLstmLayer"]


class _TernaryNeurons(Neurons):
    """The neurons that add the rows of a unit's gates one after the other."""

    def __init__(self, places: Places[TernaryLstmLayerContract], structure: LaneStructure) -> None:
        contract = places.contract
        self.contract = contract
        update = update_of(contract)
        own: Structure = "fpga" if structure == "fpga" else "gates"
        self.integer_neurons = [
            IntegerLayerNeuron(
                contract.lanes,
                contract.activation,
                update.chunk,
                interpolates=update.interpolates,
                structure=own,
                waiting_rows=waiting_rows(contract, update, own),
                products=LaneSum(contract.lane_weights, contract.activation_width, structure),
                row_scales=contract.scales,
                hidden_width=contract.activation_width,
            )
            for _ in range(contract.neurons)
        ]
        super().__init__(places, self.integer_neurons)

    def configure(self, m: Module, store: ImageStore) -> None:
        configuration = store.registers(m, "configuration")
        width = self.contract.activation_width
        multiplier, shift = hidden_scale(TernaryLstmNeuronContract(activation_width=width))
        for neuron in self.integer_neurons:
            m.d.comb += [
                neuron.multiplier.eq(multiplier),
                neuron.shift.eq(shift),
                neuron.cell_integer_bits.eq(configuration[0][:3]),
                neuron.cell_clip.eq(Cat(configuration[1], configuration[2][:7])),
            ]


class TernaryLstmLayer(LayerEngine):
    """A layer of ternary, binary or power-of-two weights with its weights and its state.

    Bit for bit :class:`fewbit.golden.layer.ternary.TernaryLstmLayerContract`, which says what the
    packets mean.

    Parameters
    ----------
    contract
        The layer's parameters, and the image that it holds for good, if it does; None for the
        usual ones.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`. "plain" is "gates" with lanes that are
        written with operators alone and left to synthesis, for comparisons.
    """

    def __init__(
        self, contract: TernaryLstmLayerContract | None = None, structure: LaneStructure = "gates"
    ) -> None:
        self.structure: LaneStructure = structure
        contract = contract or TernaryLstmLayerContract()
        places = Places(contract, contract.activation_width, cell_width=16)
        # Padding needs activations of 0 where no weight is 0.
        masks_padding = contract.weights == "binary"
        if contract.gate_order == "side_by_side":
            beside = SideBySideNeurons(places, structure)
            one = OneMemoryFeed(places, beside.vectors, masks_padding=masks_padding)
            super().__init__(beside, one, CellsOnDemand(places))
        else:
            neurons = _TernaryNeurons(places, structure)
            feed = PlainFeed(places, masks_padding=masks_padding)
            super().__init__(neurons, feed, CellsWithResults(places))
