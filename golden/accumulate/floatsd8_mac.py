"""FloatSD8 multiply-accumulate: FloatSD8 weights times FP8 activations, summed into binary16."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.accumulate.float_sum import round_sum, split, window_parameter
from fewbit.golden.contract import Contract, random_codes
from fewbit.golden.formats import BINARY16, FloatSD8, Minifloat
from fewbit.golden.operands import Operand, checked
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["DEFAULT_WINDOW", "FloatSD8MacContract"]

DEFAULT_WINDOW = 12
"""One bit more than the accumulator's significand; docs/floatsd8_mac.md says what it loses."""

_PRODUCT_WIDTH = 7
"""Bits of |mantissa| * significand, at most 18 * 7 = 126."""
_SIGNIFICAND_WIDTH = BINARY16.mantissa_bits + 1
_EXPONENT = 31 << 2
"""Exponent bits of an e5m2 code."""
_LARGEST_FINITE = 0x7BFF


@dataclass(frozen=True)
class FloatSD8MacContract(Contract):
    """A sum of FloatSD8 weights times FP8 activations and an accumulator, rounded once.

    result = binary16(accumulator + sum over k of weight_k * activation_k).

    With ``window`` None the sum is exact and rounded to nearest, ties to even. With a number, each
    operand (every product and the accumulator) is an integer in a field of its own: 7 bits for a
    product |m| * s, 11 bits for the accumulator's significand. All fields are aligned to the one
    whose top has the largest exponent; an operand of value zero counts, too. Each magnitude loses
    the bits that lie more than ``window`` bits below that top, so it is truncated toward zero. The
    truncated operands are then summed exactly and rounded as before.

    Overflow saturates to ±65504. Subnormal results are kept. An exact sum of zero gives +0; a
    negative sum that rounds to zero gives -0. An accumulator with exponent 31 (infinity or NaN in
    IEEE 754) is outside the contract; it is read as one more octave of finite values.

    Source: arXiv 2001.08450 for the operation; the rounding contract is this project's.
    """

    products: int = parameter(4, "products a beat", 1, 16)
    window: int | None = window_parameter(DEFAULT_WINDOW)
    activation_bias: int = parameter(15, "exponent bias of the activations", 0, 31)
    weight_bias: int = parameter(10, "exponent bias of the weights", -16, 40)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def weight_format(self) -> FloatSD8:
        """Return FloatSD8 with this unit's bias."""
        return FloatSD8(self.weight_bias)

    @property
    def activation_format(self) -> Minifloat:
        """Return finite e5m2 with this unit's bias."""
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
        """Return random operands: a third uniform, a third of similar size, a third that cancels.

        Corners are among the uniform codes.
        """
        weights, activations, accumulator = (
            random_codes(rng, operand, count) for operand in self.operands
        )
        # Operands of an LSTM: activations within a few octaves of each other, sums near them.
        kind = rng.integers(0, 3, size=count, dtype=np.uint8)
        exponent = rng.integers(0, 32, size=count, dtype=np.int8)
        spread = rng.integers(0, 256, size=(self.products, count), dtype=np.uint8) & 3
        near = np.maximum(exponent - spread.view(np.int8), 0) << 2
        kept = np.array([0xFF, ~_EXPONENT, ~_EXPONENT], np.int64)[kind]
        activations = (activations.T & kept | near & ~kept).T
        is_special = accumulator & 0x7C00 == 0x7C00
        accumulator ^= is_special.astype(np.int64) << 14
        # The accumulator nearly cancels the products: results small, zero and subnormal.
        cancelled = np.flatnonzero(kind == 2)
        terms, ulps = self._products(
            weights.T.take(cancelled, axis=1), activations.T.take(cancelled, axis=1)
        )
        widths = [_PRODUCT_WIDTH] * self.products
        sums = round_sum(terms.T, ulps.T, widths, None, BINARY16)
        nudge = rng.integers(-2, 3, size=len(cancelled), dtype=np.int64)
        magnitude = np.clip((sums & 0x7FFF) + nudge, 0, _LARGEST_FINITE)
        accumulator[cancelled] = magnitude | (~sums & 0x8000)
        return {"weights": weights, "activations": activations, "accumulator": accumulator}

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return results; ``weights`` and ``activations`` have shape (beats, products).

        All other arrays have shape (beats,).
        """
        arrays = checked(self.operands, arrays)
        terms, ulps = self._products(arrays["weights"].T, arrays["activations"].T)
        start, start_ulp = split(BINARY16, arrays["accumulator"])
        widths = [_PRODUCT_WIDTH] * self.products + [_SIGNIFICAND_WIDTH]
        terms, ulps = np.vstack([terms, start]), np.vstack([ulps, start_ulp])
        return {"result": round_sum(terms.T, ulps.T, widths, self.window, BINARY16)}

    def _products(self, weights: Codes, activations: Codes) -> tuple[Codes, Codes]:
        """Return signed products and the exponents of their units, both (products, beats)."""
        terms, ulps = _product_table(self.weight_bias, self.activation_bias)
        pairs = weights << self.activation_format.width | activations
        return terms[pairs], ulps[pairs]


@lru_cache(maxsize=8)
def _product_table(weight_bias: int, activation_bias: int) -> tuple[Codes, Codes]:
    """Return the product of every pair of codes, weight first, and the exponent of its unit."""
    codes = np.arange(256)
    weight_format = FloatSD8(weight_bias)
    significands, ulps = split(Minifloat(5, 2, activation_bias), codes)
    exponents = weight_format.exponent(codes) - weight_bias
    terms = np.multiply.outer(weight_format.mantissa(codes), significands)
    return terms.ravel(), np.add.outer(exponents, ulps).ravel()
