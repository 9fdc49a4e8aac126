"""Sigmoid and tanh of a binary16 number, rounded to the formats of the FloatSD8 LSTM.

Both functions are monotone, so the result follows from comparisons of the argument with thresholds.
A threshold is the real argument whose function value is in the middle between two neighbouring
results. All thresholds are constants. They define a staircase for each function, and the circuit is
the decision diagram (:mod:`fewbit.hdl.decision`) of both staircases.
"""

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise

from amaranth.hdl import Cat, Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.activation.floatsd8 import GATE_FORMAT, HIDDEN_FORMAT
from fewbit.golden.formats import Format
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.decision import decision_diagram, first_binary16, staircase

__all__ = ["FloatSD8Activation"]


class FloatSD8Activation(wiring.Component):
    """The sigmoid or tanh of a binary16 number, to the nearest 8-bit result; combinational.

    Bit for bit :mod:`fewbit.golden.activation.floatsd8`, for all 65,536 codes. The result is the
    format's value nearest to the real function's, so the error is at most half the distance of two
    neighbouring values. Exponent 31 is one more octave of numbers.

    Ports
    -----
    x
        Code of binary16.
    is_tanh
        1 for tanh, 0 for the sigmoid.
    result
        tanh: code of HIDDEN_FORMAT, e5m2, nearest to tanh(x), with the sign bit of ``x`` even where
        the result is zero. Sigmoid: q, the canonical code of GATE_FORMAT, FloatSD8, nearest to
        sigmoid(-|x|), from 0 to 0.5; its sign bit is 0. The sigmoid is q or 1 - q.
    complement
        Sigmoid: 1 where the sigmoid is 1 - q, which is where x > 0 (not for either zero). It does
        not depend on ``is_tanh``.
    """

    def __init__(self) -> None:
        super().__init__({"x": In(16), "is_tanh": In(1), "result": Out(8), "complement": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        magnitude, sign = self.x[:15], self.x[15]
        nearest = wire(
            m,
            decision_diagram(
                m, Cat(magnitude, self.is_tanh), [*_sigmoid(), *_tanh()], 8, "nearest"
            ),
            "nearest_code",
        )
        m.d.comb += [
            self.result.eq(nearest | Cat(Const(0, 7), sign & self.is_tanh)),
            self.complement.eq(~sign & magnitude.any()),
        ]
        return m


def _sigmoid() -> list[int]:
    """Return the codes of sigmoid(-x) for the codes x without a sign."""
    values = [value for value in GATE_FORMAT.values.tolist() if 0 <= value <= 0.5]
    return _table(GATE_FORMAT, reversed(values), lambda middle: math.log((1 - middle) / middle))


def _tanh() -> list[int]:
    """Return the codes of tanh(x) for the codes x without a sign."""
    values = [value for value in HIDDEN_FORMAT.values.tolist() if 0 <= value <= 1]
    return _table(HIDDEN_FORMAT, values, math.atanh)


def _table(
    number_format: Format, values: Iterable[float], inverse: Callable[[float], float]
) -> list[int]:
    """Return a table of the values' codes, in which each begins at the middle before its value."""
    values = list(values)
    # No code's function value is exactly in the middle, so ties cannot occur.
    starts = [
        first_binary16(Fraction(inverse((value + after) / 2)), above=True)
        for value, after in pairwise(values)
    ]
    return staircase([int(code) for code in number_format.encode(values)], starts)
