"""FloatSD8 multiply-accumulate: FloatSD8 weights times FP8 activations, summed into binary16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from golden.contract import Contract, check_whole, random_codes
from golden.formats import BINARY16, FloatSD8, Minifloat
from golden.operands import Operand, checked

if TYPE_CHECKING:
    import numpy.typing as npt

    from golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["FloatSD8Mac"]

_PRODUCT_WIDTH = 7
"""Bits of |mantissa| * significand, at most 18 * 7 = 126."""
_SIGNIFICAND_WIDTH = BINARY16.mantissa_bits + 1
_SMALLEST_ULP = 1 - BINARY16.bias - BINARY16.mantissa_bits
_LARGEST_FINITE = 0x7BFF


@dataclass(frozen=True)
class FloatSD8Mac(Contract):
    """result = binary16(accumulator + sum over k of weight_k * activation_k), rounded once.

    With ``window`` None the sum is exact and rounded to nearest, ties to even. With a number, each
    operand (every product and the accumulator) is an integer in a field of its own: 7 bits for a
    product |m| * s, 11 bits for the accumulator's significand. All fields are aligned to the one
    whose top has the largest exponent, operands of value zero included, and keep ``window`` bits
    below that top; what falls below is cut off each magnitude, toward zero. The sum of what is
    kept is exact and rounded as before.

    Overflow saturates to ±65504. Subnormal results are kept. An exact sum of zero gives +0; a
    negative sum that rounds to zero gives -0. An accumulator with exponent 31 (infinity or NaN in
    IEEE 754) is outside the contract; it is read as one more octave of finite values.

    Source: arXiv 2001.08450 for the operation; the rounding contract is this project's.
    """

    products: int = 4
    window: int | None = 14
    activation_bias: int = 15
    weight_bias: int = 10

    def __post_init__(self) -> None:
        check_whole("products", self.products, 1, 64)
        if self.window is not None:
            check_whole("window", self.window, 8, 48)
        check_whole("activation_bias", self.activation_bias, -64, 64)
        check_whole("weight_bias", self.weight_bias, -64, 64)

    @property
    def weight_format(self) -> FloatSD8:
        """FloatSD8 with this unit's bias."""
        return FloatSD8(self.weight_bias)

    @property
    def activation_format(self) -> Minifloat:
        """Finite e5m2 with this unit's bias."""
        return Minifloat(5, 2, self.activation_bias)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("weights", self.weight_format, "weight of each product", self.products),
            Operand(
                "activations", self.activation_format, "activation of each product", self.products
            ),
            Operand("accumulator", BINARY16, "finite value to add the products to"),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (Operand("result", BINARY16, "accumulator plus all products, rounded once"),)

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """A third uniform codes and corners, a third of similar size, a third that cancels."""
        weights, activations, accumulator = (
            random_codes(rng, operand, count) for operand in self.operands
        )
        # Operands of an LSTM: activations within a few octaves of each other, sums near them.
        kind = rng.integers(0, 3, size=count, dtype=np.uint8)
        similar = np.flatnonzero(kind > 0)
        exponent = rng.integers(0, 32, size=(len(similar), 1), dtype=np.int64)
        spread = rng.integers(0, 4, size=(len(similar), self.products), dtype=np.uint8)
        near = np.maximum(exponent - spread, 0)
        activations[similar] = (activations[similar] & 0b10000011) | (near << 2)
        accumulator ^= np.where(accumulator & 0x7C00 == 0x7C00, 0x4000, 0)
        # The accumulator nearly cancels the products: results small, zero and subnormal.
        cancelled = np.flatnonzero(kind == 2)
        products = {
            "weights": weights[cancelled],
            "activations": activations[cancelled],
            "accumulator": np.zeros(len(cancelled), dtype=np.int64),
        }
        sums = FloatSD8Mac(self.products, None, self.activation_bias, self.weight_bias).compute(
            products
        )["result"]
        nudge = rng.integers(-2, 3, size=len(cancelled), dtype=np.int64)
        magnitude = np.clip((sums & 0x7FFF) + nudge, 0, _LARGEST_FINITE)
        accumulator[cancelled] = magnitude | (~sums & 0x8000)
        return {"weights": weights, "activations": activations, "accumulator": accumulator}

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Results; ``weights`` and ``activations`` of shape (beats, products), others (beats,)."""
        arrays = checked(self.operands, arrays)
        weights, activations = arrays["weights"], arrays["activations"]
        mantissa = self.weight_format.mantissa(weights)
        exponent = (activations >> 2) & 31
        significand = (activations & 3) | np.where(exponent > 0, 4, 0)
        product = mantissa * np.where(activations & 0x80, -significand, significand)
        bias = self.weight_bias + self.activation_bias + 2
        ulp = self.weight_format.exponent(weights) + np.maximum(exponent, 1) - bias

        start = arrays["accumulator"]
        start_exponent = (start >> 10) & 31
        start_significand = (start & 1023) | np.where(start_exponent > 0, 1024, 0)
        start_raw = np.where(start & 0x8000, -start_significand, start_significand)
        start_ulp = np.maximum(start_exponent, 1) + _SMALLEST_ULP - 1

        # Everything below is in units of 2**lowest, the smallest ulp that any operand can have.
        lowest = min(1 - bias, _SMALLEST_ULP)
        highest = max(7 + 31 - bias + _PRODUCT_WIDTH, 31 + _SMALLEST_ULP + _SIGNIFICAND_WIDTH)
        terms = np.concatenate([product, start_raw[:, None]], axis=1)
        if highest - lowest + self.products.bit_length() > 62:
            terms = _unbounded(terms)
        ulps = np.concatenate([ulp, start_ulp[:, None]], axis=1)
        magnitude: Codes = np.abs(terms) << (ulps - lowest)
        if self.window is not None:
            widths = [_PRODUCT_WIDTH] * self.products + [_SIGNIFICAND_WIDTH]
            top = (ulps + np.array(widths)).max(axis=1)
            cut = np.maximum(top - self.window - lowest, 0)[:, None]
            magnitude = magnitude >> cut << cut
        sums: Codes = np.where(terms < 0, -magnitude, magnitude).sum(axis=1)
        return {"result": _round_to_binary16(sums, lowest)}


def _unbounded(values: Codes) -> Codes:
    """The same integers as Python's own, of any size: an array of objects, slow but exact."""
    return values.astype(object)  # pyright: ignore[reportReturnType]


def _bit_length(values: Codes) -> Codes:
    """Bits of non-negative integers."""
    if values.dtype == object:
        return np.array([int(value).bit_length() for value in values], dtype=np.int64)
    length = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    # Above 2**53 the conversion may have rounded up to the next power of two.
    return length - ((length > 0) & (values >> np.maximum(length - 1, 0) == 0))


def _round_to_binary16(sums: Codes, unit: int) -> Codes:
    """Codes of the integers ``sums`` times 2**unit: nearest, ties to even, saturated.

    ``unit`` is at most the exponent of the smallest subnormal.
    """
    negative = np.less(sums, 0).astype(np.int64)
    magnitude: Codes = np.abs(sums)
    ulp = np.maximum(_bit_length(magnitude) + unit - _SIGNIFICAND_WIDTH, _SMALLEST_ULP)
    dropped = ulp - unit
    quotient: Codes = magnitude >> dropped
    remainder: Codes = magnitude - (quotient << dropped)
    # Twice the remainder against 2**dropped: above, at or below half an ulp.
    half: Codes = (remainder << 1) - (np.ones_like(magnitude) << dropped)
    quotient = quotient + ((half > 0) | ((half == 0) & (quotient & 1 == 1)))
    # A significand of 2**11 carries into the exponent; the hidden bit adds 1 to it.
    code = quotient.astype(np.int64) + ((ulp - _SMALLEST_ULP) << 10)
    return np.minimum(code, _LARGEST_FINITE) | (negative << 15)
