"""Multiply-accumulate units in plain floating point: the baselines beside FloatSD8."""

from typing import Literal, get_args

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.float_mac import FloatMacContract
from fewbit.golden.checks import check_choice
from fewbit.hdl.accumulate.float_sum import FloatSum, Objective, Term
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import stream_of
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.structure import Structure
from fewbit.hdl.sums.addends import product_addends, sum_of_addends
from fewbit.hdl.sums.adders import add_with_carry

__all__ = ["FloatMac", "Multiplier"]

Multiplier = Literal["plain", "booth"]
"""The form of the products of significands: operators or Booth's recoding."""

_SMALLEST_RECODED = 6
"""Bits of the narrowest significand whose digits are recoded; recoding narrower ones is no gain."""


class FloatMac(wiring.Component):
    """The sum of an accumulator and floating-point products, rounded once, a beat a cycle.

    Latency: ``stages`` cycles. Bit for bit
    :meth:`fewbit.golden.accumulate.float_mac.FloatMacContract.compute`.

    Parameters
    ----------
    contract
        The unit's formats and parameters.
    stages
        Number of register stages. 1: the result; 2: also the sum before normalisation, which needs
        the fewest registers; 3: also the products before alignment; 4: also the normalised sum; 5:
        also the aligned products.
    structure
        Structure of products and their sum: "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    objective
        See :class:`fewbit.hdl.accumulate.float_sum.FloatSum`.
    multiplier
        "plain": products are operators that synthesis builds, as in ``floatsd8_mac``; "booth":
        addends of recoded digits in a carry-save tree, which is smaller for wide significands.
    """

    def __init__(
        self,
        contract: FloatMacContract,
        *,
        stages: int = 2,
        structure: Structure = "gates",
        objective: Objective = "area",
        multiplier: Multiplier = "plain",
    ) -> None:
        check_choice("multiplier", multiplier, get_args(Multiplier))
        self.contract = contract
        self.operand_format = operand_format = contract.operand_format
        self.accumulator_format = accumulator_format = contract.accumulator_format
        self.products = contract.products
        self.window = contract.window
        self.stages = stages
        self.structure: Structure = structure
        self.objective: Objective = objective
        self.multiplier: Multiplier = multiplier
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )
        # The sum of two exponent codes, each at least 1.
        width = self.contract.product_width
        self._core = FloatSum(
            accumulator=accumulator_format,
            products=self.products,
            product_width=width,
            exponents=range(2, 2 ** (operand_format.exponent_bits + 1) - 1),
            # Exponent 0 of a product stands for 2**-(2 * (bias + mantissa_bits)).
            offset=2 * (operand_format.bias + operand_format.mantissa_bits)
            + 1
            - width
            - accumulator_format.bias,
            window=self.window,
            stages=stages,
            structure=structure,
            objective=objective,
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.i.valid)
        beat = self.i.payload
        terms = [
            self._multiply(m, beat.weights[lane], beat.activations[lane], lane)
            for lane in range(self.products)
        ]
        m.d.comb += self.o.payload.eq(self._core.add(m, pipeline, terms, beat.accumulator))
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m

    def _multiply(self, m: Module, weight: data.View, activation: data.View, lane: int) -> Term:
        """Return the product of two codes, whose exponent is the sum of theirs."""
        significands: list[Value] = []
        subnormals: list[Value] = []
        for name, factor in (("weight", weight), ("activation", activation)):
            subnormal = Signal(name=f"{name}_subnormal_{lane}")
            significand = Signal(len(factor.mantissa) + 1, name=f"{name}_significand_{lane}")
            m.d.comb += [
                subnormal.eq(~factor.exponent.any()),
                significand.eq(Cat(factor.mantissa, ~subnormal)),
            ]
            significands.append(significand)
            subnormals.append(subnormal)
        magnitude = self._product(m, significands[0], significands[1], f"product_{lane}")
        # Exponent code 0 means 1: one factor's flag sets the lowest bit, the other's is the carry.
        exponent = add_with_carry(
            m,
            Cat(weight.exponent | subnormals[0], Const(0, 1)),
            Cat(activation.exponent, Const(0, 1)),
            subnormals[1],
            f"exponent_{lane}",
        )
        return Term(magnitude, exponent, weight.sign ^ activation.sign)

    def _product(self, m: Module, first: Value, second: Value, name: str) -> Signal:
        """Return the product of two significands."""
        width = self.contract.product_width
        if self.multiplier == "plain" or len(second) < _SMALLEST_RECODED:
            return wire(m, first * second, name)
        # Booth's digits need a signed number of an even width.
        spare = 2 - len(second) % 2
        rows, constant = product_addends(
            m, first, Cat(second, Const(0, spare)), Const(0, 1), name, self.structure
        )
        return sum_of_addends(m, rows, width, f"{name}_sum", constant, self.structure)
