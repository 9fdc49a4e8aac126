# amaranth: UnusedElaboratable=no
# A layer that is never elaborated says so; that its parts are not either is no news.
"""The layer of the FloatSD8 LSTM."""

from amaranth.hdl import Module

from fewbit.golden.activation.floatsd8 import HIDDEN_FORMAT
from fewbit.golden.formats import BINARY16
from fewbit.golden.layer.floatsd8 import OFFSETS, FloatSD8LstmLayerContract
from fewbit.hdl.layer.cells import CellsApart
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.feed import PlainFeed
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.neurons import Neurons
from fewbit.hdl.layer.places import Places
from fewbit.hdl.neuron.floatsd8 import SUM_CYCLES, FloatSD8LayerNeuron

__all__ = ["FloatSD8LstmLayer"]


class _FloatSD8Neurons(Neurons):
    """The neurons of the FloatSD8 LSTM with their configuration."""

    def __init__(self, places: Places[FloatSD8LstmLayerContract]) -> None:
        contract = places.contract
        neurons = [
            FloatSD8LayerNeuron(contract.lanes, contract.window) for _ in range(contract.neurons)
        ]
        super().__init__(places, neurons)

    def configure(self, m: Module, store: ImageStore) -> None:
        offsets = store.registers(m, "configuration")
        for neuron in self.neurons:
            for part, offset in zip(OFFSETS, offsets, strict=True):
                port = getattr(neuron, f"{part}_offset")
                m.d.comb += port.eq(offset[: len(port)])


class FloatSD8LstmLayer(LayerEngine):
    """A layer of the FloatSD8 LSTM with its weights and its state.

    Bit for bit :class:`fewbit.golden.layer.floatsd8.FloatSD8LstmLayerContract`, which says what the
    packets mean.

    Parameters
    ----------
    contract
        The layer's parameters, and the image that it holds for good, if it does; None for the
        usual ones.

    Raises
    ------
    ValueError
        If the contract does not interleave as many sums as the neuron takes cycles for one.
    """

    def __init__(self, contract: FloatSD8LstmLayerContract | None = None) -> None:
        contract = contract or FloatSD8LstmLayerContract()
        if contract.interleave != SUM_CYCLES:
            raise ValueError(
                f"The neuron takes {SUM_CYCLES} cycles for a sum, so the layer's interleave must be"
                f" {SUM_CYCLES}, not {contract.interleave}."
            )
        places = Places(contract, HIDDEN_FORMAT.width, BINARY16.width)
        # Even in a product with a weight of zero, the activation's exponent may decide the top of a
        # sum's window, so that padding must read as code 0.
        feed = PlainFeed(places, masks_padding=True)
        super().__init__(_FloatSD8Neurons(places), feed, CellsApart(places))
