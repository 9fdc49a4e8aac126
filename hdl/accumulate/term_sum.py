"""A sum of floating-point terms: the core of a multiply-accumulate unit, without its products."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.term_sum import TermSumContract
from fewbit.hdl.accumulate.float_sum import FloatSum, Term
from fewbit.hdl.formats import stream_of
from fewbit.hdl.pipeline import Pipeline

__all__ = ["TermSum"]


class TermSum(wiring.Component):
    """The sum of an accumulator and terms, rounded once, a beat a cycle: a bare `FloatSum`.

    Latency: ``stages`` cycles. Bit for bit
    :meth:`fewbit.golden.accumulate.term_sum.TermSumContract.compute`.

    Parameters
    ----------
    contract
        The sum's formats and sizes.
    stages
        Number of register stages, see :class:`fewbit.hdl.accumulate.float_sum.FloatSum`.
    """

    def __init__(self, contract: TermSumContract, *, stages: int) -> None:
        self.contract = contract
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
        beat, contract = self.i.payload, self.contract
        core = FloatSum(
            accumulator=contract.accumulator_format,
            products=contract.terms,
            product_width=contract.magnitude_bits,
            exponents=range(2**contract.exponent_bits),
            offset=contract.place + 1 - contract.magnitude_bits - contract.accumulator_format.bias,
            window=contract.window,
            stages=self.stages,
        )
        terms = [
            Term(beat.magnitudes[index], beat.exponents[index], beat.signs[index])
            for index in range(contract.terms)
        ]
        m.d.comb += self.o.payload.eq(core.add(m, pipeline, terms, beat.accumulator))
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m
