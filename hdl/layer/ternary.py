"""The layer of ternary, binary or power-of-two weights."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Value
from amaranth.lib import wiring

from fewbit.golden.layer.ternary import START_BYTES, TernaryLstmLayerContract
from fewbit.golden.neuron.ternary import TernaryLstmNeuronContract
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.image import BYTE, ImageStore
from fewbit.hdl.layer.integer_cycles import update_of, waiting_rows
from fewbit.hdl.layer.normalize import GateReading
from fewbit.hdl.layer.side_by_side import SideBySideSystem
from fewbit.hdl.neuron.int8 import IntegerLayerNeuron
from fewbit.hdl.neuron.ternary import LaneSum, hidden_scale
from fewbit.hdl.structure import LaneStructure, Structure

__all__ = ["TernaryLstmLayer"]


class _TernarySystem:
    """What the number system supplies to the layer engine."""

    cell_width = 16
    cells_apart = False
    tells_part = False

    def __init__(self, contract: TernaryLstmLayerContract, structure: LaneStructure) -> None:
        self.contract = contract
        self.lane_structure: LaneStructure = structure
        self.structure: Structure = "fpga" if structure == "fpga" else "gates"
        self.activation_width = contract.activation_width
        self.start_width = BYTE * (START_BYTES + contract.scale_bytes)
        # Of binary weights none is 0.
        self.masks_padding = contract.weights == "binary"
        self.update = update_of(contract)

    def segment(self, name: str) -> int:
        """Code of a task's program: there is one only."""
        return 0

    def _neuron(self) -> IntegerLayerNeuron:
        contract, update = self.contract, self.update
        return IntegerLayerNeuron(
            contract.lanes,
            contract.activation,
            update.chunk,
            interpolates=update.interpolates,
            structure=self.structure,
            waiting_rows=waiting_rows(contract, update, self.structure),
            products=LaneSum(contract.lane_weights, contract.activation_width, self.lane_structure),
            row_scales=contract.scales,
            hidden_width=contract.activation_width,
        )

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neurons and the configuration."""
        contract = self.contract
        configuration = image.registers(m, "configuration")
        multiplier, shift = hidden_scale(
            TernaryLstmNeuronContract(activation_width=contract.activation_width)
        )
        neurons = [self._neuron() for _ in range(contract.neurons)]
        for index, neuron in enumerate(neurons):
            m.submodules[f"neuron_{index}"] = neuron
            m.d.comb += [
                neuron.multiplier.eq(multiplier),
                neuron.shift.eq(shift),
                neuron.cell_integer_bits.eq(configuration[0][:3]),
                neuron.cell_clip.eq(Cat(configuration[1], configuration[2][:7])),
            ]
        return neurons, Const(0, contract.activation_width)

    def normalizer(self, m: Module, image: ImageStore, reading: GateReading) -> wiring.Component:
        """Nothing is normalised."""
        raise NotImplementedError("The layer has no layer norm.")


class TernaryLstmLayer(LayerEngine):
    """A layer of ternary, binary or power-of-two weights with its parameters and its state.

    Bit for bit :class:`fewbit.golden.layer.ternary.TernaryLstmLayerContract`, which says what the
    packets mean.

    Parameters
    ----------
    contract
        The layer's parameters, and the image that it holds for good, if it does; None for the
        usual ones.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`; "plain" is "gates" with lanes of
        operators alone, left to synthesis, to compare with.
    """

    def __init__(
        self, contract: TernaryLstmLayerContract | None = None, structure: LaneStructure = "gates"
    ) -> None:
        self.structure: LaneStructure = structure
        contract = contract or TernaryLstmLayerContract()
        if contract.gate_order == "side_by_side":
            system = SideBySideSystem(contract, structure)
            vectors = system.neuron.vectors
        else:
            system, vectors = _TernarySystem(contract, structure), None
        super().__init__(contract, system, vectors=vectors)
