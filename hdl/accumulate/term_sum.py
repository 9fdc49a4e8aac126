"""Sum of given floating-point terms: the core of a multiply-accumulate unit alone."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.accumulate.term_sum import TermSum as Contract
from golden.formats import Minifloat
from hdl.accumulate.float_sum import FloatSum, Term
from hdl.formats import stream_of
from hdl.pipeline import Pipeline

__all__ = ["TermSum"]


class TermSum(wiring.Component):
    """accumulator + sum of terms, rounded once, a beat a cycle: :class:`FloatSum` and no more.

    Latency: ``stages`` cycles. Bit for bit :meth:`golden.accumulate.term_sum.TermSum.compute`.

    Parameters
    ----------
    accumulator_format, terms, magnitude_bits, exponent_bits, place, window
        As those of the contract.
    stages
        As those of `FloatSum`.
    """

    def __init__(
        self,
        *,
        accumulator_format: Minifloat,
        terms: int,
        magnitude_bits: int,
        exponent_bits: int,
        place: int,
        window: int | None,
        stages: int,
    ) -> None:
        self.contract = Contract(
            accumulator_format, terms, magnitude_bits, exponent_bits, place, window
        )
        self.accumulator_format = accumulator_format
        self.terms = terms
        self.magnitude_bits = magnitude_bits
        self.exponent_bits = exponent_bits
        self.place = place
        self.window = window
        self.stages = stages
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.i.valid)
        beat = self.i.payload
        core = FloatSum(
            accumulator=self.accumulator_format,
            products=self.terms,
            product_width=self.magnitude_bits,
            exponents=range(2**self.exponent_bits),
            offset=self.place + 1 - self.magnitude_bits - self.accumulator_format.bias,
            window=self.window,
            stages=self.stages,
        )
        terms = [
            Term(beat.magnitudes[index], beat.exponents[index], beat.signs[index])
            for index in range(self.terms)
        ]
        m.d.comb += self.o.payload.eq(core.add(m, pipeline, terms, beat.accumulator))
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m
