"""The layer of the FloatSD8 LSTM."""

from collections.abc import Sequence

from amaranth.hdl import Const, Module, Value
from amaranth.lib import wiring

from fewbit.golden.activation.floatsd8 import HIDDEN_FORMAT
from fewbit.golden.formats import BINARY16
from fewbit.golden.layer.floatsd8 import OFFSETS, FloatSD8LstmLayerContract
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.normalize import GateReading
from fewbit.hdl.neuron.floatsd8 import SUM_CYCLES, FloatSD8LayerNeuron

__all__ = ["FloatSD8LstmLayer"]


class _FloatSD8System:
    """What the FloatSD8 LSTM supplies to the layer engine."""

    activation_width = HIDDEN_FORMAT.width
    start_width = BINARY16.width
    cell_width = BINARY16.width
    # The exponent of what a weight of zero is multiplied by may decide a window's top.
    masks_padding = True
    cells_apart = True
    tells_part = True

    def __init__(self, contract: FloatSD8LstmLayerContract) -> None:
        self.contract = contract

    def segment(self, name: str) -> int:
        """Code of a task's program: there is one only."""
        return 0

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neurons and the configuration."""
        offsets = image.registers(m, "configuration")
        neurons = [
            FloatSD8LayerNeuron(self.contract.lanes, self.contract.window)
            for _ in range(self.contract.neurons)
        ]
        for index, neuron in enumerate(neurons):
            m.submodules[f"neuron_{index}"] = neuron
            for part, offset in zip(OFFSETS, offsets, strict=True):
                port = getattr(neuron, f"{part}_offset")
                m.d.comb += port.eq(offset[: len(port)])
        return neurons, Const(0, HIDDEN_FORMAT.width)

    def normalizer(self, m: Module, image: ImageStore, reading: GateReading) -> wiring.Component:
        """Nothing is normalised."""
        raise NotImplementedError("The FloatSD8 LSTM has no layer norm.")


class FloatSD8LstmLayer(LayerEngine):
    """A layer of the FloatSD8 LSTM with its parameters and its state.

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
        If the contract interleaves other than so many sums as the neuron is deep.
    """

    def __init__(self, contract: FloatSD8LstmLayerContract | None = None) -> None:
        contract = contract or FloatSD8LstmLayerContract()
        if contract.interleave != SUM_CYCLES:
            raise ValueError(
                f"The neuron takes {SUM_CYCLES} cycles for a sum, so the layer's interleave must be"
                f" {SUM_CYCLES}, not {contract.interleave}."
            )
        super().__init__(contract, _FloatSD8System(contract))
