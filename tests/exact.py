"""Exact arithmetic on Fractions: the outside oracle of the float circuits. Not collected."""

from fractions import Fraction
from functools import cache


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


@cache
def to_binary16(value: Fraction) -> int:
    """Code of the nearest binary16 value, ties to even, saturated; bisection over all codes."""
    magnitude = abs(value)
    low, high = 0, 0x7BFF
    if magnitude >= binary16(high):
        code = high
    else:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if binary16(middle) <= magnitude else (low, middle)
        below, above = magnitude - binary16(low), binary16(high) - magnitude
        code = low if below < above or (below == above and low % 2 == 0) else high
    return code | (0x8000 if value < 0 else 0)


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
