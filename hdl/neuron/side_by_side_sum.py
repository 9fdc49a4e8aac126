# amaranth: UnusedElaboratable=no
# A sum whose products alone are used is never elaborated; no warning is wanted for that.
"""Sums of a beat's products, from multiples of values that were prepared when they were written."""

from amaranth.hdl import Cat, Const, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.neuron.ternary import LaneWeights
from fewbit.hdl.accumulate.packing import unpack_dense
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import payload_layout
from fewbit.hdl.neuron.side_by_side_vectors import (
    PairedVectors,
    PlainVectors,
    TripledVectors,
    Vectors,
)
from fewbit.hdl.neuron.ternary import LaneSum
from fewbit.hdl.structure import LaneStructure
from fewbit.hdl.sums.columns import Columns

__all__ = ["SideBySideSum", "vectors_of"]


def vectors_of(
    weights: LaneWeights, activation_width: int, structure: LaneStructure = "gates"
) -> Vectors:
    """Return the layout in memory of the vectors that such weights are multiplied by."""
    size = activation_width, weights.lanes
    if structure == "gates":
        if weights.weights in ("ternary", "binary") and weights.lanes % 2 == 0:
            return PairedVectors(*size)
        if weights.weights == "int12":
            return TripledVectors(*size)
    return PlainVectors(*size)


class SideBySideSum(wiring.Component):
    """The combinational sum ``total = start + sum of weights * activations``, modulo 2**width.

    Parameters
    ----------
    weights
        The format of the lanes' weights.
    activation_width
        Bits of an activation.
    width
        Bits of the sum, up to 32.
    structure
        "gates", where multiples of values are prepared; "fpga" or "plain", see :class:`LaneSum`.
    """

    def __init__(
        self,
        weights: LaneWeights,
        activation_width: int,
        width: int,
        structure: LaneStructure = "gates",
    ) -> None:
        self.lane_weights = weights
        self.activation_width = activation_width
        self.width = width
        self.structure: LaneStructure = structure
        self.vectors = vectors = vectors_of(weights, activation_width, structure)
        super().__init__(
            {
                "weights": In(payload_layout((weights.operand,)).members["weights"]),
                "activations": In(vectors.element.width * weights.lanes // vectors.group),
                "start": In(width),
                "total": Out(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        vectors = self.vectors
        if isinstance(vectors, PlainVectors):
            m.submodules.lanes = lanes = LaneSum(
                self.lane_weights, self.activation_width, self.structure
            )
            m.d.comb += [
                lanes.weights.eq(self.weights),
                lanes.activations.eq(self.activations),
                lanes.start.eq(self.start),
                self.total.eq(lanes.total),
            ]
            return m
        columns = Columns(m, self.width, "sum")
        size = vectors.element.width
        elements = [
            self.activations[place : place + size]
            for place in range(0, len(self.activations), size)
        ]
        if isinstance(vectors, PairedVectors):
            self._add_pairs(m, columns, [vectors.layout(each) for each in elements])
        else:
            assert isinstance(vectors, TripledVectors)
            for lane, each in enumerate(elements):
                self._add_product(m, columns, vectors.layout(each), self.weights[lane], lane)
        columns.add_word(self.start)
        m.d.comb += self.total.eq(columns.sum())
        return m

    def _add_pairs(self, m: Module, columns: Columns, pairs: list[data.View]) -> None:
        """Add two products at a time: a prepared word of the pair, negated or not, or nothing."""
        width = self.activation_width + 1
        signs = self._signs(m)
        for index, pair in enumerate(pairs):
            (counts, negates), (next_counts, next_negates) = signs[2 * index : 2 * index + 2]
            differ = wire(m, negates ^ next_negates, f"signs_differ_{index}")
            both = wire(m, counts & next_counts, f"both_{index}")
            second_alone = wire(m, next_counts & ~counts, f"second_alone_{index}")
            choices = [(pair.sum, both & ~differ), (pair.difference, both & differ)]
            if self.lane_weights.weights == "ternary":
                choices += [(pair.first, counts & ~next_counts), (pair.second, second_alone)]
            chosen: Value = Const(0, width)
            for place, (value, condition) in enumerate(choices):
                word = Cat(value, value[-1].replicate(width - len(value)))
                selects = wire(m, condition, f"selects_{index}_{place}")
                chosen = chosen | (word & selects.replicate(width))
            chosen = wire(m, chosen, f"chosen_{index}")
            # If the second weight alone is not 0, its own sign counts, else that of the first.
            negated = wire(
                m, (counts & negates) | (second_alone & next_negates), f"negated_{index}"
            )
            row = wire(m, chosen ^ negated.replicate(width), f"row_{index}")
            columns.add_pair(negated, chosen[0])
            columns.add_signed(row[1:], 1)

    def _signs(self, m: Module) -> list[tuple[Value, Value]]:
        """Return for each weight whether it is not 0, and whether it is negative."""
        if self.lane_weights.weights == "binary":
            return [(Const(1, 1), ~weight) for weight in self.weights]
        if self.lane_weights.packing == "fields":
            return [(weight.nonzero, weight.negative) for weight in self.weights]
        return [
            (digit.positive | digit.negative, digit.negative)
            for index, code in enumerate(self.weights)
            for digit in unpack_dense(m, code, f"weights_{index}")
        ]

    @staticmethod
    def _add_product(
        m: Module, columns: Columns, value: data.View, weight: Value, lane: int
    ) -> None:
        """Add a product with a weight in Booth's digits of radix 8, from -4 to 4."""
        width = len(value.thrice)
        once = Cat(value.once, value.once[-1].replicate(width - len(value.once)))
        twice = Cat(Const(0, 1), once[:-1])
        multiples = [once, twice, value.thrice[:], Cat(Const(0, 2), once[:-2])]
        bits = Cat(Const(0, 1), weight)
        for digit in range(-(-len(weight) // 3)):
            name = f"lane_{lane}_{digit}"
            below, low, middle, high = bits[3 * digit : 3 * digit + 4]
            # A negative digit selects the same multiple as the digit of the complemented bits,
            # which is not negative; the multiple is then negated.
            x, y, z = (
                wire(m, bit ^ high, f"{name}_{place}")
                for place, bit in enumerate((below, low, middle))
            )
            one = wire(m, x ^ y, f"{name}_is_odd")
            conditions = [one & ~z, (x & y & ~z) | (z & ~(x | y)), one & z, x & y & z]
            chosen: Value = Const(0, width)
            for place, (multiple, condition) in enumerate(zip(multiples, conditions, strict=True)):
                selects = wire(m, condition, f"{name}_selects_{place}")
                chosen = chosen | (multiple & selects.replicate(width))
            chosen = wire(m, chosen, f"{name}_chosen")
            row = wire(m, chosen ^ high.replicate(width), f"{name}_row")
            columns.add_pair(high, chosen[0], 3 * digit)
            columns.add_signed(row[1:], 3 * digit + 1)
