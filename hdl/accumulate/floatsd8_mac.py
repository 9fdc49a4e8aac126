"""The multiply-accumulate unit of FloatSD8 weights."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.golden.formats import BINARY16
from fewbit.hdl.accumulate.float_sum import FloatSum, Objective, Term
from fewbit.hdl.formats import stream_of
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.structure import Structure
from fewbit.hdl.sums.adders import add_with_carry

__all__ = ["PRODUCT_WIDTH", "FloatSD8Mac", "floatsd8_magnitude", "floatsd8_product"]

PRODUCT_WIDTH = 7
"""Bits of a product's magnitude, at most 18 * 7 = 126."""


def floatsd8_magnitude(m: Module, index: Value, significand: Value, name: str) -> Signal:
    """Return the magnitude of a FloatSD8 mantissa times a significand, `PRODUCT_WIDTH` bits.

    Parameters
    ----------
    index
        K of a FloatSD8 code, which stands for a mantissa from 0 to 18.
    significand
        Unsigned, 3 bits.
    """
    mantissa = Signal(5, name=f"mantissa_{name}")
    product = Signal(PRODUCT_WIDTH, name=f"product_{name}")
    m.d.comb += [
        mantissa.eq(Mux(index >= 11, index + 3, index)),
        product.eq(mantissa * significand),
    ]
    return product


def floatsd8_product(
    m: Module,
    weight: data.View,
    significand: Value,
    exponent: Value,
    carry: ValueLike,
    name: str,
) -> tuple[Signal, Signal]:
    """Return the magnitude of a FloatSD8 weight times a significand, and the exponents' sum.

    Parameters
    ----------
    weight
        FloatSD8 code, whose sign the caller handles.
    significand
        Unsigned, 3 bits.
    exponent
        Exponent of the significand, unsigned, at least 4 bits.
    carry
        Bit to add to the exponents, because an e5m2 exponent code of 0 means 1.

    Returns
    -------
    Magnitude of `PRODUCT_WIDTH` bits, and an exponent of one bit more than ``exponent``.
    """
    product = floatsd8_magnitude(m, weight.index, significand, name)
    total = add_with_carry(
        m,
        Cat(weight.exponent, Const(0, len(exponent) - 2)),
        Cat(exponent, Const(0, 1)),
        carry,
        f"exponent_{name}",
    )
    return product, total


class FloatSD8Mac(wiring.Component):
    """The sum of an accumulator and FloatSD8 products in binary16, rounded once, a beat a cycle.

    Latency: ``stages`` cycles. Bit for bit
    :meth:`fewbit.golden.accumulate.floatsd8_mac.FloatSD8MacContract.compute`.

    Parameters
    ----------
    contract
        The unit's contract; by default one with default parameters.
    stages
        Number of register stages. 1: the result; 2: also the sum before normalisation, which needs
        the fewest registers; 3: also the products before alignment; 4: also the normalised sum; 5:
        also the aligned products.
    structure
        Structure of the addition: "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    objective
        See :class:`fewbit.hdl.accumulate.float_sum.FloatSum`.
    """

    def __init__(
        self,
        contract: FloatSD8MacContract | None = None,
        *,
        stages: int = 2,
        structure: Structure = "gates",
        objective: Objective = "area",
    ) -> None:
        self.contract = contract = contract or FloatSD8MacContract()
        self.products = contract.products
        self.window = contract.window
        self.activation_bias = contract.activation_bias
        self.weight_bias = contract.weight_bias
        self.stages = stages
        self.structure: Structure = structure
        self.objective: Objective = objective
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )
        self._core = FloatSum(
            accumulator=BINARY16,
            products=self.products,
            product_width=PRODUCT_WIDTH,
            exponents=range(1, 7 + 31 + 1),
            # Exponent 0 of a product stands for 2**-(weight_bias + activation_bias + 2).
            offset=self.weight_bias + self.activation_bias + 3 - PRODUCT_WIDTH - BINARY16.bias,
            window=self.window,
            stages=stages,
            structure=structure,
            objective=objective,
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.i.valid)
        beat = self.i.payload
        terms: list[Term] = []
        for lane in range(self.products):
            weight, activation = beat.weights[lane], beat.activations[lane]
            subnormal = Signal(name=f"subnormal_{lane}")
            significand = Signal(3, name=f"significand_{lane}")
            m.d.comb += [
                subnormal.eq(~activation.exponent.any()),
                significand.eq(Cat(activation.mantissa, ~subnormal)),
            ]
            magnitude, exponent = floatsd8_product(
                m, weight, significand, activation.exponent, subnormal, str(lane)
            )
            terms.append(Term(magnitude, exponent, weight.sign ^ activation.sign))
        m.d.comb += self.o.payload.eq(self._core.add(m, pipeline, terms, beat.accumulator))
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m
