"""The accumulate unit of ternary weights."""

from amaranth.hdl import Module, Mux, Value

from fewbit.golden.accumulate.ternary_accumulate import TernaryAccumulateContract
from fewbit.hdl.accumulate.packing import Digit, unpack_dense
from fewbit.hdl.accumulate.rows import Beat, Lane, RowAccumulate, SelectedProducts
from fewbit.hdl.arithmetic import wire

__all__ = ["TernaryAccumulate", "TernaryProducts"]


class TernaryProducts(SelectedProducts):
    """Products of ternary weights and activations."""

    def _digits(self, m: Module, beat: Beat) -> list[Digit]:
        """Return the weights of a beat."""
        weights = beat.weights
        if self.contract.is_packed:
            return [
                digit
                for code in range(len(weights))
                for digit in unpack_dense(m, weights[code], f"weights_{code}")
            ]
        return [
            Digit(
                wire(m, weights[lane].nonzero & ~weights[lane].negative, f"adds_{lane}"),
                wire(m, weights[lane].nonzero & weights[lane].negative, f"negates_{lane}"),
            )
            for lane in range(self.lanes)
        ]

    def _lanes(self, m: Module, beat: Beat) -> list[Lane]:
        lanes: list[Lane] = []
        for index, digit in enumerate(self._digits(m, beat)):
            activation = beat.activations[index].as_unsigned()
            width = self.activation_width
            term = (activation & digit.positive.replicate(width)) | (
                ~activation & digit.negative.replicate(width)
            )
            odd = activation[0] & (digit.positive | digit.negative)
            lanes.append(
                Lane(wire(m, term, f"term_{index}"), digit.negative, wire(m, odd, f"odd_{index}"))
            )
        return lanes

    def _plain_products(self, m: Module, beat: Beat) -> list[Value]:
        activations = beat.activations
        return [
            Mux(digit.positive, activations[lane], Mux(digit.negative, -activations[lane], 0))
            for lane, digit in enumerate(self._digits(m, beat))
        ]


class TernaryAccumulate(RowAccumulate):
    """The sum of a row of ternary weights times activations, for a beat each cycle.

    Bit for bit its contract in :mod:`fewbit.golden.accumulate.ternary_accumulate`.
    """

    contract_type = TernaryAccumulateContract
    products_type = TernaryProducts
