# amaranth: UnusedElaboratable=no
# A neuron that is never elaborated says so; that its parts are not either is no news.
"""The neuron of ternary, binary or power-of-two weights: lanes of additions, and the update."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.activations import ActivationKind
from golden.arithmetic import SIGNIFICAND_POSITION
from golden.lstm.ternary import LevelKind
from golden.neuron.ternary import ACCUMULATOR_WIDTH, LaneWeights
from golden.neuron.ternary import TernaryLstmNeuron as Contract
from hdl.accumulate.binary_accumulate import BinaryAccumulate
from hdl.accumulate.int12_mac import Int12Mac
from hdl.accumulate.packed import unpack_dense
from hdl.accumulate.pow2_accumulate import Pow2Accumulate
from hdl.accumulate.rows import RowAccumulate
from hdl.accumulate.rows import Structure as LaneStructure
from hdl.accumulate.ternary_accumulate import TernaryAccumulate
from hdl.arithmetic import Structure
from hdl.formats import payload_layout, shape_of, stream_of
from hdl.neuron.int8 import Int8LayerNeuron, default_chunk

__all__ = ["LaneSum", "TernaryLstmNeuron", "hidden_scale"]


class LaneSum(wiring.Component):
    """``total = start + sum of weights * activations``, modulo 2^32; combinational.

    Parameters
    ----------
    weights
        The lanes' weights.
    activation_width
        Bits of an activation.
    structure
        "gates", "fpga" or "plain", see :mod:`hdl.accumulate.rows`.
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

    def _unit(self) -> RowAccumulate:
        """The accumulate unit whose products these are."""
        weights = self.lane_weights
        sizes: dict[str, Any] = {
            "lanes": weights.lanes,
            "activation_width": self.activation_width,
            "accumulator_width": ACCUMULATOR_WIDTH,
            "structure": self.structure,
        }
        if weights.weights == "binary":
            return BinaryAccumulate(**sizes)
        if weights.weights == "pow2":
            bits = weights.exponent_bits
            return Pow2Accumulate(**sizes, exponent_bits=bits)
        if weights.weights == "int12":
            return Int12Mac(**sizes)
        return TernaryAccumulate(**sizes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unit = self._unit()
        # Only its products are used: the running sum is the neuron's.
        unit._MustUse__used = True  # pyright: ignore[reportAttributeAccessIssue]
        beat = unit.i.payload
        weights = self.weights
        if self.lane_weights.packing != "fields":
            weights = Cat(
                Cat(digit.positive | digit.negative, digit.negative)
                for index in range(len(weights))
                for digit in unpack_dense(m, weights[index], f"weights_{index}")
            )
        m.d.comb += [beat.weights.eq(weights), beat.activations.eq(self.activations)]
        m.d.comb += self.total.eq(unit.add_products(m, self.start))
        return m


def hidden_scale(contract: Contract) -> tuple[Const, Const]:
    """Upper 24 bits of the last requantisation's multiplier, and its shift."""
    multiplier, shift, _ = contract.last_scale_of({})
    return Const(multiplier >> SIGNIFICAND_POSITION, 24), Const(shift, signed(6))


class TernaryLstmNeuron(wiring.Component):
    """One hidden unit at a time, from its weights to its new state.

    Takes a beat a cycle, as :class:`hdl.neuron.int8.Int8LayerNeuron`, of which it is one with lanes
    of additions.

    Bit for bit :class:`golden.neuron.ternary.TernaryLstmNeuron`, which says what each port means.

    Parameters
    ----------
    lanes
        Weights of a beat, from 1 to 256.
    weights, exponents
        "ternary", "binary", "pow2" or "int12", see :mod:`golden.lstm.ternary`.
    activation_width
        Bits of inputs and hidden values, from 4 to 16.
    activation
        "table" or "gemmlowp".
    structure
        "gates" or "fpga", see :mod:`hdl.arithmetic`.
    """

    def __init__(
        self,
        lanes: int = 16,
        weights: LevelKind = "ternary",
        exponents: int = 1,
        activation_width: int = 12,
        activation: ActivationKind = "table",
        structure: Structure = "gates",
    ) -> None:
        self.contract = contract = Contract(lanes, weights, exponents, activation_width, activation)
        self.chunk = default_chunk(lanes, activation)
        self.neuron = Int8LayerNeuron(
            lanes,
            activation,
            self.chunk,
            interpolates=False,
            structure=structure,
            products=LaneSum(contract.lane_weights, activation_width, structure),
            row_scales="fixed",
            hidden_width=activation_width,
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
