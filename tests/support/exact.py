"""Exact arithmetic on Fractions: the outside oracle of the float circuits. Not collected."""

from fractions import Fraction
from functools import cache
from typing import NamedTuple


class Layout(NamedTuple):
    """A float format by its numbers alone."""

    exponent_bits: int
    mantissa_bits: int
    bias: int


E5M2 = Layout(5, 2, 15)
BINARY16 = Layout(5, 10, 15)
BFLOAT16 = Layout(8, 7, 127)
BINARY32 = Layout(8, 23, 127)


@cache
def floatsd8(code: int, bias: int = 10) -> Fraction:
    """Value of a FloatSD8 code, from the layout 0bEEESKKKK."""
    index = code & 0b1111
    magnitude = index if index <= 10 else index + 3
    sign = -1 if code & 0b10000 else 1
    return Fraction(sign * magnitude) * Fraction(2) ** ((code >> 5) - bias)


def minifloat(code: int, exponent_bits: int, mantissa_bits: int, bias: int) -> Fraction:
    """Value of a float code whose every exponent is finite."""
    mantissa = Fraction(code % 2**mantissa_bits, 2**mantissa_bits)
    exponent = (code >> mantissa_bits) % 2**exponent_bits
    sign = -1 if code >> (exponent_bits + mantissa_bits) else 1
    if exponent == 0:
        return sign * mantissa * Fraction(2) ** (1 - bias)
    return sign * (1 + mantissa) * Fraction(2) ** (exponent - bias)


@cache
def e5m2(code: int, bias: int = 15) -> Fraction:
    """Value of a finite e5m2 code."""
    return minifloat(code, 5, 2, bias)


@cache
def binary16(code: int) -> Fraction:
    """Value of a binary16 code; exponent 31 is one more octave."""
    return minifloat(code, 5, 10, 15)


def nearest(value: Fraction, layout: Layout) -> int:
    """Code of the nearest value of a format whose top exponent isn't finite; ties to even.

    Saturated. By bisection over all codes.
    """
    magnitude = abs(value)
    low, high = 0, ((2**layout.exponent_bits - 1) << layout.mantissa_bits) - 1
    if magnitude >= minifloat(high, *layout):
        code = high
    else:
        while high - low > 1:
            middle = (low + high) // 2
            is_above = minifloat(middle, *layout) > magnitude
            low, high = (low, middle) if is_above else (middle, high)
        below, above = magnitude - minifloat(low, *layout), minifloat(high, *layout) - magnitude
        code = low if below < above or (below == above and low % 2 == 0) else high
    return code | (value < 0) << (layout.exponent_bits + layout.mantissa_bits)


@cache
def to_binary16(value: Fraction) -> int:
    """Code of the nearest binary16 value, ties to even, saturated."""
    return nearest(value, BINARY16)


def floatsd8_mac(
    weights: list[int],
    activations: list[int],
    accumulator: int,
    window: int | None = None,
    weight_bias: int = 10,
    activation_bias: int = 15,
) -> int:
    """The multiply-accumulate contract, operand by operand."""
    terms: list[Fraction] = []
    tops: list[int] = []
    for weight, activation in zip(weights, activations, strict=True):
        terms.append(floatsd8(weight, weight_bias) * e5m2(activation, activation_bias))
        exponent = max((activation >> 2) % 32, 1)
        tops.append((weight >> 5) - weight_bias + exponent - activation_bias - 2 + 7)
    terms.append(binary16(accumulator))
    tops.append(max((accumulator >> 10) % 32, 1) - 15 - 10 + 11)
    if window is not None:
        step = Fraction(2) ** (max(tops) - window)
        terms = [(1 if term >= 0 else -1) * (abs(term) // step) * step for term in terms]
    return to_binary16(sum(terms, Fraction(0)))


def float_mac(
    weights: list[int],
    activations: list[int],
    accumulator: int,
    operand: Layout,
    target: Layout,
    window: int | None = None,
) -> int:
    """The multiply-accumulate contract of plain formats, operand by operand."""

    def top(code: int, layout: Layout) -> int:
        """Exponent of the first place above a significand's."""
        exponent = (code >> layout.mantissa_bits) % 2**layout.exponent_bits
        return max(exponent, 1) - layout.bias + 1

    terms = [minifloat(accumulator, *target)]
    tops = [top(accumulator, target)]
    for weight, activation in zip(weights, activations, strict=True):
        terms.append(minifloat(weight, *operand) * minifloat(activation, *operand))
        tops.append(top(weight, operand) + top(activation, operand))
    if window is not None:
        step = Fraction(2) ** (max(tops) - window)
        terms = [(1 if term >= 0 else -1) * (abs(term) // step) * step for term in terms]
    return nearest(sum(terms, Fraction(0)), target)
