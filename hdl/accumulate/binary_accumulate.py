"""The accumulate unit of binary weights."""

from amaranth.hdl import Module, Mux, Value

from fewbit.golden.accumulate.binary_accumulate import BinaryAccumulateContract
from fewbit.hdl.accumulate.rows import Beat, Lane, RowAccumulate, SelectedProducts
from fewbit.hdl.arithmetic import wire

__all__ = ["BinaryAccumulate", "BinaryProducts"]


class BinaryProducts(SelectedProducts):
    """Products of binary weights and activations."""

    def _lanes(self, m: Module, beat: Beat) -> list[Lane]:
        lanes: list[Lane] = []
        for lane in range(self.lanes):
            activation = beat.activations[lane].as_unsigned()
            negate = wire(m, ~beat.weights[lane], f"negates_{lane}")
            term = activation ^ negate.replicate(self.activation_width)
            # A number and its negative have the same lowest bit.
            lanes.append(Lane(wire(m, term, f"term_{lane}"), negate, activation[0]))
        return lanes

    def _plain_products(self, m: Module, beat: Beat) -> list[Value]:
        return [
            Mux(beat.weights[lane], beat.activations[lane], -beat.activations[lane])
            for lane in range(self.lanes)
        ]


class BinaryAccumulate(RowAccumulate):
    """The sum of a row of binary weights times activations, for a beat each cycle.

    Bit for bit :meth:`fewbit.golden.accumulate.binary_accumulate.BinaryAccumulateContract.compute`.
    """

    contract_type = BinaryAccumulateContract
    products_type = BinaryProducts
