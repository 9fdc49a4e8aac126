"""The circuit of the layer of 2-bit weights, and its entry for the registry of designs."""

from amaranth.hdl import Cat, Const, Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.arithmetic import SIGNIFICAND_POSITION, split_multiplier
from fewbit.golden.parameter import parameters_of
from fewbit.hdl.design import Design, Parameter
from fewbit.hdl.layer import integer_cycles
from fewbit.hdl.layer.cells import CellsWithResults
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.feed import PlainFeed
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.neurons import Neurons
from fewbit.hdl.layer.places import Places
from fewbit.hdl.neuron.integer import IntegerLayerNeuron
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


class Int2Neurons(Neurons):
    """The neurons of 2-bit weights: those of the integer LSTM, with lanes of their own."""

    def __init__(self, places: Places, structure: Structure) -> None:
        contract = places.contract
        update = integer_cycles.update_of(contract)
        neurons = [
            IntegerLayerNeuron(
                contract.lanes,
                contract.activation,
                update.chunk,
                interpolates=update.interpolates,
                structure=structure,
                waiting_rows=integer_cycles.waiting_rows(contract, update, structure),
                products=Int2Sum(contract.lanes),
                row_scales="any",
            )
            for _ in range(contract.neurons)
        ]
        super().__init__(places, neurons)

    def configure(self, m: Module, store: ImageStore) -> None:
        (integer_bits,) = store.registers(m, "configuration")
        multiplier, shift = split_multiplier(2.0**-23)
        for neuron in self.neurons:
            m.d.comb += [
                neuron.multiplier.eq(multiplier >> SIGNIFICAND_POSITION),
                neuron.shift.eq(shift),
                neuron.cell_integer_bits.eq(Cat(integer_bits)[:3]),
                neuron.cell_clip.eq(0),
            ]


class Int2LstmLayer(LayerEngine):
    """A layer of 2-bit weights with its weights and its state."""

    def __init__(
        self, contract: Int2LstmLayerContract | None = None, structure: Structure = "gates"
    ) -> None:
        places = Places(contract or Int2LstmLayerContract(), activation_width=8, cell_width=16)
        neurons = Int2Neurons(places, structure)
        super().__init__(neurons, PlainFeed(places), CellsWithResults(places))


DESIGN = Design(
    name="int2_lstm_layer",
    summary="a layer of an LSTM of 2-bit weights with its weights and state",
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
