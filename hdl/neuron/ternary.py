# amaranth: UnusedElaboratable=no
# A neuron that is never elaborated says so; that its parts are not either is no news.
"""The neuron of ternary, binary or power-of-two weights: lanes of additions, then the update."""

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.binary_accumulate import BinaryAccumulateContract
from fewbit.golden.accumulate.int12_mac import Int12MacContract
from fewbit.golden.accumulate.pow2_accumulate import Pow2AccumulateContract
from fewbit.golden.accumulate.ternary_accumulate import TernaryAccumulateContract
from fewbit.golden.arithmetic import SIGNIFICAND_POSITION
from fewbit.golden.neuron.ternary import ACCUMULATOR_WIDTH, LaneWeights, TernaryLstmNeuronContract
from fewbit.hdl.accumulate.binary_accumulate import BinaryProducts
from fewbit.hdl.accumulate.int12_mac import Int12Products
from fewbit.hdl.accumulate.packing import unpack_dense
from fewbit.hdl.accumulate.pow2_accumulate import Pow2Products
from fewbit.hdl.accumulate.rows import Beat, RowProducts
from fewbit.hdl.accumulate.ternary_accumulate import TernaryProducts
from fewbit.hdl.formats import payload_layout, shape_of, stream_of
from fewbit.hdl.neuron.int8 import default_chunk
from fewbit.hdl.neuron.integer import IntegerLayerNeuron
from fewbit.hdl.structure import LaneStructure, Structure

__all__ = ["LaneSum", "TernaryLstmNeuron", "hidden_scale"]

_PRODUCTS: dict[type, Callable[..., RowProducts]] = {
    BinaryAccumulateContract: BinaryProducts,
    Pow2AccumulateContract: Pow2Products,
    Int12MacContract: Int12Products,
    TernaryAccumulateContract: TernaryProducts,
}
"""The circuits of products, by the contracts of the accumulate units that use them."""


class LaneSum(wiring.Component):
    """The combinational sum ``total = start + sum of weights * activations``, modulo 2^32.

    Parameters
    ----------
    weights
        The format of the lanes' weights.
    activation_width
        Bits of an activation.
    structure
        "gates", "fpga" or "plain", see :mod:`fewbit.hdl.accumulate.rows`.
    """

    def __init__(
        self, weights: LaneWeights, activation_width: int, structure: LaneStructure = "gates"
    ) -> None:
        self.lane_weights = weights
        self.activation_width = activation_width
        self.structure: LaneStructure = structure
        operands = (weights.operand, weights.accumulate(activation_width).operands[1])
        shapes = payload_layout(operands).members
        super().__init__(
            {
                **{name: In(shape) for name, shape in shapes.items()},
                "start": In(signed(ACCUMULATOR_WIDTH)),
                "total": Out(signed(ACCUMULATOR_WIDTH)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        contract = self.lane_weights.accumulate(self.activation_width)
        weights = self.weights
        if self.lane_weights.packing != "fields":
            weights = Signal(payload_layout((contract.weights,)).members["weights"])
            m.d.comb += weights.eq(
                Cat(
                    Cat(digit.positive | digit.negative, digit.negative)
                    for index in range(len(self.weights))
                    for digit in unpack_dense(m, self.weights[index], f"weights_{index}")
                )
            )
        products = _PRODUCTS[type(contract)](contract, self.structure)
        m.d.comb += self.total.eq(products.add(m, Beat(weights, self.activations), self.start))
        return m


def hidden_scale(contract: TernaryLstmNeuronContract) -> tuple[Const, Const]:
    """Return the upper 24 bits of the last requantisation's multiplier, and its shift."""
    multiplier, shift, _ = contract.last_scale_of({})
    return Const(multiplier >> SIGNIFICAND_POSITION, 24), Const(shift, signed(6))


class TernaryLstmNeuron(wiring.Component):
    """The neuron of few-bit weights by itself: a hidden unit at a time, from weights to new state.

    It is a :class:`fewbit.hdl.neuron.integer.IntegerLayerNeuron` with lanes of additions, which
    takes a beat a cycle.

    Bit for bit :class:`fewbit.golden.neuron.ternary.TernaryLstmNeuronContract`, which says what
    each port means.

    Parameters
    ----------
    contract
        The neuron's parameters; None for the usual ones.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`.
    """

    def __init__(
        self, contract: TernaryLstmNeuronContract | None = None, structure: Structure = "gates"
    ) -> None:
        self.contract = contract = contract or TernaryLstmNeuronContract()
        width = contract.activation_width
        self.chunk = default_chunk(contract.lanes, contract.activation)
        self.neuron = IntegerLayerNeuron(
            contract.lanes,
            contract.activation,
            self.chunk,
            interpolates=False,
            structure=structure,
            products=LaneSum(contract.lane_weights, width, structure),
            row_scales="any",
            hidden_width=width,
        )
        super().__init__(
            {
                "i": In(stream_of(contract.operands)),
                "o": Out(stream_of(contract.results)),
                **{field.name: In(shape_of(field.format)) for field in contract.configuration},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        m.submodules.neuron = neuron = self.neuron
        row = neuron.i.payload
        multiplier, shift = hidden_scale(self.contract)
        m.d.comb += [
            *(
                row[name].eq(beat[name])
                for name in ("weights", "activations", "first", "last", "old_cell")
            ),
            row.start.value.eq(beat.bias),
            row.start.multiplier.eq(beat.multiplier),
            row.start.shift.eq(beat.shift),
            neuron.i.valid.eq(self.i.valid),
            self.i.ready.eq(neuron.i.ready),
            neuron.multiplier.eq(multiplier),
            neuron.shift.eq(shift),
            neuron.cell_integer_bits.eq(self.cell_integer_bits),
            neuron.cell_clip.eq(self.cell_clip),
            self.o.payload.result.eq(neuron.o.payload.result),
            self.o.payload.cell_result.eq(neuron.o.payload.cell_result),
            self.o.valid.eq(neuron.o.valid),
            neuron.o.ready.eq(self.o.ready),
        ]
        return m
