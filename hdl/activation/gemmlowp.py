"""Sigmoid and tanh as gemmlowp computes them: the steps, for a circuit with one multiplier.

Let a be minus the raw's distance from zero, and K the number of its integer bits (one more for
tanh, which is 2 / (1 + exp(-2x)) - 1). The steps are: a polynomial of the part of a below a
quarter, a constant factor for each higher bit of a, three Newton steps for the reciprocal, and the
sign.
"""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.hdl.arithmetic import wire

__all__ = ["FACTORS", "STEPS", "GemmlowpArgument", "Step"]


def _upper(word: int) -> int:
    """Return the 16-bit form of a positive 32-bit constant."""
    return (word + (1 << 15)) >> 16


THIRD = _upper(715827883)
EXP_OF_MINUS_EIGHTH = _upper(1895147668)
FORTY_EIGHT_SEVENTEENTHS = _upper(1515870810)
THIRTY_TWO_SEVENTEENTHS = _upper(1010580540)
POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp of -1/4, -1/2, -1, -2, -4, -8 and -16 in units of 2^-31."""

FACTORS = len(POWERS) + 1
"""Number of steps that a raw may skip: a factor for each bit from 1/4 to 16, and 0 beyond 32."""


@dataclass(frozen=True)
class Step:
    """A step of the computation: a rounded product of two 16-bit words, added to a third word.

    The sum is saturated and stored.

    The product is ``factor * word``; words are named registers or numbers. It is shifted right by
    ``shift``, after adding 2^14 where ``rounds_up`` is set: with a shift of 15 that rounds to
    nearest, ties up. With ``rounds`` the shift itself rounds as well, ties up.
    """

    name: str
    factor: str | int
    word: str
    target: str
    start: str | int = 0
    shift: int = 15
    rounds_up: bool = True
    rounds: bool = False
    subtracts: bool = False
    """Whether the shifted product is subtracted instead of added."""
    quadruples: bool = False
    """Whether the rounded product is multiplied by four: its shift is 13, and two bits are 0."""
    skip: int | None = None
    """Index of the bit in `GemmlowpArgument.factors` that must be 1; otherwise the step is
    skipped."""


STEPS: tuple[Step, ...] = (
    Step("square", "x", "x", "left"),
    Step("cube", "left", "x", "right"),
    # A quarter of the fourth power. Its two roundings are one, with 2^14 + 2^16, as x^4 >= 0.
    Step("fourth", "left", "left", "right", start="right", shift=17, rounds=True),
    Step("third", THIRD, "right", "right", start="left"),
    Step("tail", 1, "right", "left", start="x", shift=1, rounds_up=False, rounds=True),
    Step("exp", EXP_OF_MINUS_EIGHTH, "left", "left", start=EXP_OF_MINUS_EIGHTH),
    *(
        Step(f"factor_{index}", _upper(power), "left", "left", skip=index)
        for index, power in enumerate(POWERS)
    ),
    Step("vanish", 0, "left", "left", skip=len(POWERS)),
    Step("estimate", -THIRTY_TWO_SEVENTEENTHS, "denominator", "right", FORTY_EIGHT_SEVENTEENTHS),
    *(
        Step("rest", "right", "denominator", "value", start=1 << 13, subtracts=True),
        Step("correct", "right", "value", "right", start="right", shift=13, quadruples=True),
    )
    * 3,
    # The sigmoid is twice the reciprocal's half; tanh is four times its excess over a half.
    Step("widen", "two_or_four", "right", "value", "zero_or_lowest", 0, rounds_up=False),
    # These steps handle the sign and the value at zero.
    Step("sign", "one_unless_zero", "value", "", "offset", 0, rounds_up=False),
)


class GemmlowpArgument(wiring.Component):
    """The operands of the steps that follow from a raw; combinational.

    Ports
    -----
    raw
        Signed raw of 16 bits.
    integer_bits
        K, 1 to 7: 3 for the sigmoid, one more than the raw's for tanh.
    x
        Signed, in units of 2^-15: the part below a quarter of the negated distance, plus 1/8.
    factors
        The factors that the steps multiply by, see `FACTORS`.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "raw": In(signed(16)),
                "integer_bits": In(3),
                "x": Out(signed(13)),
                "factors": Out(FACTORS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        negated = Signal(signed(16))
        m.d.comb += negated.eq(Mux(self.raw < 0, self.raw, -self.raw))
        # The shift converts a raw of any resolution to units of 2^-15.
        aligned = wire(m, (negated << self.integer_bits)[:23], "aligned")
        m.d.comb += [
            self.x.eq(Cat(aligned[:12], ~aligned[12]).as_signed()),
            self.factors.eq(Cat(~aligned[13:20], ~aligned[20:23].all())),
        ]
        return m
