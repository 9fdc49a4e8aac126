"""The circuit of the layer of 2-bit weights, and its entry for the registry of designs."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.arithmetic import SIGNIFICAND_POSITION, split_multiplier
from fewbit.golden.parameter import parameters_of
from fewbit.hdl.design import Design, Parameter
from fewbit.hdl.layer import integer_cycles
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.normalize import GateReading
from fewbit.hdl.neuron.int8 import IntegerLayerNeuron
from fewbit.hdl.structure import Structure

from .layer import Int2LstmLayerContract


class Int2Sum(wiring.Component):
    """``total = start + sum of weights * activations``, combinational, of one neuron's lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "weights": In(data.ArrayLayout(signed(2), lanes)),
                "activations": In(data.ArrayLayout(signed(8), lanes)),
                "start": In(signed(32)),
                "total": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        products = [self.weights[lane] * self.activations[lane] for lane in range(self.lanes)]
        m.d.comb += self.total.eq(self.start + sum(products, Const(0, 1)))
        return m


class Int2System:
    """What the number system supplies to the layer engine."""

    activation_width = 8
    start_width = 64
    cell_width = 16
    masks_padding = False
    cells_apart = False
    tells_part = False

    def __init__(self, contract: Int2LstmLayerContract, structure: Structure) -> None:
        self.contract = contract
        self.structure: Structure = structure
        self.update = integer_cycles.update_of(contract)

    def segment(self, name: str) -> int:
        """Code of a task's program: there is one only."""
        return 0

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neurons and the configuration."""
        contract = self.contract
        (integer_bits,) = image.registers(m, "configuration")
        multiplier, shift = split_multiplier(2.0**-23)
        neurons = [
            IntegerLayerNeuron(
                contract.lanes,
                contract.activation,
                self.update.chunk,
                interpolates=self.update.interpolates,
                structure=self.structure,
                waiting_rows=integer_cycles.waiting_rows(contract, self.update, self.structure),
                products=Int2Sum(contract.lanes),
                row_scales="any",
            )
            for _ in range(contract.neurons)
        ]
        for index, neuron in enumerate(neurons):
            m.submodules[f"neuron_{index}"] = neuron
            m.d.comb += [
                neuron.multiplier.eq(multiplier >> SIGNIFICAND_POSITION),
                neuron.shift.eq(shift),
                neuron.cell_integer_bits.eq(Cat(integer_bits)[:3]),
                neuron.cell_clip.eq(0),
            ]
        return neurons, Const(0, 8)

    def normalizer(self, m: Module, image: ImageStore, reading: GateReading) -> wiring.Component:
        """Nothing is normalised."""
        raise NotImplementedError


class Int2LstmLayer(LayerEngine):
    """A layer of 2-bit weights with its parameters and its state."""

    def __init__(
        self, contract: Int2LstmLayerContract | None = None, structure: Structure = "gates"
    ) -> None:
        contract = contract or Int2LstmLayerContract()
        super().__init__(contract, Int2System(contract, structure))


DESIGN = Design(
    name="int2_lstm_layer",
    summary="a layer of an LSTM of 2-bit weights with its parameters and state",
    contract=Int2LstmLayerContract,
    parameters=parameters_of(Int2LstmLayerContract),
    component=Int2LstmLayer,
    build=(
        Parameter(
            "structure",
            "gates",
            "sums as carry-save trees for gates, or as adders for an FPGA's carry chains",
            choices=("gates", "fpga"),
        ),
    ),
    cycles=integer_cycles.step_cycles,
    transaction="byte",
)
