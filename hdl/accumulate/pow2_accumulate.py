"""The accumulate unit of power-of-two weights."""

from amaranth.hdl import Cat, Module, Mux, Value

from fewbit.golden.accumulate.pow2_accumulate import Pow2AccumulateContract
from fewbit.hdl.accumulate.rows import Beat, Lane, RowAccumulate, SelectedProducts
from fewbit.hdl.arithmetic import wire

__all__ = ["Pow2Accumulate", "Pow2Products"]


class Pow2Products(SelectedProducts):
    """Products of power-of-two weights and activations."""

    def _lanes(self, m: Module, beat: Beat) -> list[Lane]:
        finest = self.contract.weight_format.finest
        lanes: list[Lane] = []
        for lane in range(self.lanes):
            weight = beat.weights[lane]
            activation = beat.activations[lane].as_unsigned()
            nonzero, exponent, negative = weight[0], weight[1:-1], weight[-1]
            flipped = wire(
                m, activation ^ negative.replicate(self.activation_width), f"flipped_{lane}"
            )
            term: list[Value] = []
            odd: Value = nonzero
            for shift in range(finest + 1):
                chosen = nonzero
                if finest:
                    chosen = wire(m, nonzero & (exponent == finest - shift), f"by_{shift}_{lane}")
                shifted = Cat(
                    negative.replicate(shift), flipped, flipped[-1].replicate(finest - shift)
                )
                term.append(shifted & chosen.replicate(self.contract.product_width))
                # Only a product that is not shifted can be odd.
                odd = odd if shift else activation[0] & chosen
            negate = wire(m, nonzero & negative, f"negates_{lane}")
            total = term[0]
            for other in term[1:]:
                total |= other
            lanes.append(Lane(wire(m, total, f"term_{lane}"), negate, wire(m, odd, f"odd_{lane}")))
        return lanes

    def _plain_products(self, m: Module, beat: Beat) -> list[Value]:
        finest = self.contract.weight_format.finest
        products: list[Value] = []
        for lane in range(self.lanes):
            weight = beat.weights[lane]
            activation = beat.activations[lane]
            product: Value = Mux(weight[-1], -activation, activation)
            if finest:
                # The complement of an exponent is its distance from the largest exponent.
                product <<= ~weight[1:-1]
            products.append(Mux(weight[0], product, 0))
        return products


class Pow2Accumulate(RowAccumulate):
    """The sum of a row of weights 0 and ±2**-e times activations, for a beat each cycle.

    Bit for bit :meth:`fewbit.golden.accumulate.pow2_accumulate.Pow2AccumulateContract.compute`.
    """

    contract_type = Pow2AccumulateContract
    products_type = Pow2Products
