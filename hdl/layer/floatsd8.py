"""The layer of the FloatSD8 LSTM."""

from collections.abc import Sequence

from amaranth.hdl import Const, Module, Value
from amaranth.lib import wiring

from golden.floatsd8_activations import HIDDEN_FORMAT
from golden.formats import BINARY16
from golden.layer.floatsd8 import OFFSETS
from golden.layer.floatsd8 import FloatSD8LstmLayer as Contract
from hdl.layer.engine import LayerEngine
from hdl.layer.image import ImageStore
from hdl.layer.normalize import GateReading
from hdl.neuron.floatsd8 import FloatSD8LayerNeuron

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

    def __init__(self, contract: Contract) -> None:
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

    Bit for bit :class:`golden.layer.floatsd8.FloatSD8LstmLayer`, which says what the packets mean.

    Parameters
    ----------
    image
        A parameter image to be held for good; None where packets bring it.
    parameters
        Those of the contract.
    """

    def __init__(self, image: bytes | None = None, **parameters: int | None) -> None:
        self.contract = Contract(**parameters)  # pyright: ignore[reportArgumentType]
        system = _FloatSD8System(self.contract)
        super().__init__(self.contract.schedule, self.contract.layout, system, image)
