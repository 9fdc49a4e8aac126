"""Converters between binary16 and the 8-bit formats of the FloatSD8 LSTM, as streams."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from amaranth.hdl import Cat, Module, Signal, Value, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.floatsd8_conversion import (
    FloatSD8ActivateContract,
    FloatSD8DecodeContract,
    FloatSD8EncodeContract,
)
from fewbit.hdl.activation.floatsd8 import FloatSD8Activation
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.decision import decision_diagram, first_binary16, staircase
from fewbit.hdl.formats import stream_of
from fewbit.hdl.pipeline import Pipeline

__all__ = ["FloatSD8Activate", "FloatSD8Decode", "FloatSD8Encode"]

_MANTISSAS = (*range(11), *range(14, 19))
"""Magnitude |m| of the mantissa for each index."""


class _Conversion(wiring.Component):
    """A converter of a stream of numbers, one a cycle, with a latency of 1 cycle."""

    contract: FloatSD8EncodeContract | FloatSD8DecodeContract | FloatSD8ActivateContract

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.i.valid)
        (result,) = pipeline.register(result_code=self._convert(m))
        m.d.comb += self.o.payload.eq(result)
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m

    def _convert(self, m: Module) -> ValueLike:
        """Return the payload of the result, combinational from that of the operands."""
        raise NotImplementedError


class FloatSD8Encode(_Conversion):
    """A converter of a binary16 number to the nearest FloatSD8 code, one a cycle.

    The latency is 1 cycle.

    Bit for bit :class:`fewbit.golden.floatsd8_conversion.FloatSD8EncodeContract`.

    Parameters
    ----------
    contract
        The converter's contract; by default one with default parameters.
    """

    def __init__(self, contract: FloatSD8EncodeContract | None = None) -> None:
        self.contract = contract or FloatSD8EncodeContract()
        self.bias = self.contract.bias
        super().__init__()

    def _convert(self, m: Module) -> Value:
        number = self.i.payload.number
        table = encode_table(self.bias)
        code = wire(
            m,
            decision_diagram(m, Cat(number.mantissa, number.exponent), table, 8, "nearest"),
            "nearest_code",
        )
        # Zero has no sign; every other code has an index.
        return Cat(code[:4], number.sign & code[:4].any(), code[5:])


class FloatSD8Decode(_Conversion):
    """A converter of a FloatSD8 number to its binary16 code, one a cycle.

    The latency is 1 cycle.

    Bit for bit :class:`fewbit.golden.floatsd8_conversion.FloatSD8DecodeContract`.

    Parameters
    ----------
    contract
        The converter's contract; by default one with default parameters.
    """

    def __init__(self, contract: FloatSD8DecodeContract | None = None) -> None:
        self.contract = contract or FloatSD8DecodeContract()
        self.bias = self.contract.bias
        super().__init__()

    def _convert(self, m: Module) -> Value:
        number = self.i.payload.number
        nonzero = wire(m, number.index.any(), "nonzero")
        if -4 <= self.bias <= 14:
            magnitude = self._normal(m, number.index, number.exponent, nonzero)
        else:
            # Some numbers are beyond binary16's largest, subnormal, or between two subnormals.
            table = [
                _nearest_binary16(mantissa * Fraction(2) ** (exponent - self.bias))
                for exponent in range(8)
                for mantissa in _MANTISSAS
            ]
            index = Cat(number.index, number.exponent)
            magnitude = decision_diagram(m, index, table, 15, "nearest")
        return Cat(magnitude, number.sign & nonzero)

    def _normal(self, m: Module, index: Value, exponent: Value, nonzero: Value) -> Value:
        """Return the code without a sign, for a format whose numbers are all normal in binary16."""
        octaves = [max(mantissa.bit_length() - 1, 0) for mantissa in _MANTISSAS]
        # An entry holds the octave, and the four bits below the leading one.
        table = [
            octave << 4 | (mantissa << 4 - octave) % 16
            for mantissa, octave in zip(_MANTISSAS, octaves, strict=True)
        ]
        normal = wire(m, decision_diagram(m, index, table, 7, "normal"), "normal_index")
        total = Signal(5, name="exponent_code")
        m.d.comb += total.eq(exponent + normal[4:] + (15 - self.bias))
        return Cat([0] * 6, normal[:4], total & nonzero.replicate(5))


class FloatSD8Activate(_Conversion):
    """The sigmoid or tanh of a binary16 number, one a cycle.

    The latency is 1 cycle.

    Bit for bit :class:`fewbit.golden.floatsd8_conversion.FloatSD8ActivateContract`. The circuit is
    :class:`fewbit.hdl.activation.floatsd8.FloatSD8Activation` between two streams.
    """

    def __init__(self, contract: FloatSD8ActivateContract | None = None) -> None:
        self.contract = contract or FloatSD8ActivateContract()
        super().__init__()

    def _convert(self, m: Module) -> Value:
        m.submodules.activation = activation = FloatSD8Activation()
        beat = self.i.payload
        m.d.comb += [activation.x.eq(beat.number), activation.is_tanh.eq(beat.is_tanh)]
        return Cat(activation.result, activation.complement)


def encode_table(bias: int) -> list[int]:
    """Return the nearest FloatSD8 code for each code of binary16 without a sign."""
    codes: dict[Fraction, int] = {}
    for exponent in range(8):
        for index, mantissa in enumerate(_MANTISSAS):
            # The first code of a value has its smallest exponent.
            value = mantissa * Fraction(2) ** (exponent - bias)
            codes.setdefault(value, exponent << 5 | index)
    values = sorted(codes)
    return staircase([codes[value] for value in values], list(_starts(values)))


def _starts(values: list[Fraction]) -> Iterator[int]:
    """Yield the first code of binary16 that is nearer to each value than to the one before."""
    for position, (value, after) in enumerate(pairwise(values)):
        # A tie goes to the even position.
        yield first_binary16((value + after) / 2, above=position % 2 == 0)


def _nearest_binary16(real: Fraction) -> int:
    """Return the code of the nearest number to a non-negative real, ties to even, saturated."""
    exponent = -14
    while Fraction(2) ** (exponent + 1) <= real:
        exponent += 1
    # Python rounds a Fraction's ties to even.
    return min(round(real / Fraction(2) ** (exponent - 10)) + (exponent + 14 << 10), 0x7BFF)
