"""Ternary accumulate unit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.accumulate.ternary import TernaryAccumulate as Contract
from hdl.adders import add_rows
from hdl.formats import stream_of

__all__ = ["TernaryAccumulate"]


class TernaryAccumulate(wiring.Component):
    """Sum of a row of ternary weights times activations, a beat a cycle.

    The sum follows the last beat of a row by one cycle. While it waits, no beat is taken. Bit for
    bit :meth:`golden.accumulate.ternary.TernaryAccumulate.compute`.

    Parameters
    ----------
    lanes
        Weights and activations a beat.
    activation_width
        Bits of a signed activation.
    accumulator_width
        Bits of the sum, which is exact modulo 2**accumulator_width.
    """

    def __init__(
        self, *, lanes: int = 16, activation_width: int = 12, accumulator_width: int = 24
    ) -> None:
        self.contract = Contract(lanes, activation_width, accumulator_width)
        self.lanes = lanes
        self.activation_width = activation_width
        self.accumulator_width = accumulator_width
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        width = self.accumulator_width
        total = Signal(width, reset_less=True)
        done = Signal()

        rows: list[ValueLike] = []
        negations: list[ValueLike] = []
        for lane in range(self.lanes):
            weight = beat.weights[lane]
            negate = Signal(name=f"negate_{lane}")
            term = Signal(self.activation_width, name=f"term_{lane}")
            m.d.comb += [
                negate.eq(weight.nonzero & weight.negative),
                term.eq(
                    (beat.activations[lane] ^ weight.negative.replicate(self.activation_width))
                    & weight.nonzero.replicate(self.activation_width)
                ),
            ]
            # The sign bit weighs -2**(n-1): its complement weighs +2**(n-1) less a constant, and
            # no row needs its sign extended. All lanes' constants are one row.
            row = Cat(term[:-1], ~term[-1])
            rows.append(Cat(row, Const(0, width - self.activation_width)))
            negations.append(negate)

        constant = (-self.lanes << (self.activation_width - 1)) % 2**width
        before = Signal(width)
        m.d.comb += before.eq(Mux(beat.first, beat.accumulator, total))
        if constant:
            rows.append(Const(constant, width))
        rows.append(before)
        following = add_rows(m, rows, negations, "sum")

        m.d.comb += [
            self.o.payload.result.eq(total),
            self.o.valid.eq(done),
            self.i.ready.eq(~done | self.o.ready),
        ]
        with m.If(self.i.ready):
            m.d.sync += done.eq(self.i.valid & beat.last)
            with m.If(self.i.valid):
                m.d.sync += total.eq(following)
        return m
