"""Multiply-accumulate in plain floating point: the baselines beside FloatSD8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.accumulate.float_sum import round_sum, split, window_parameter
from fewbit.golden.contract import Contract, random_codes
from fewbit.golden.formats import Minifloat
from fewbit.golden.operands import Operand, checked
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["FloatMacContract"]


@dataclass(frozen=True)
class FloatMacContract(Contract):
    """An exact or windowed sum of floating-point products and an accumulator, rounded once.

    result = accumulator format(accumulator + sum over k of weight_k * activation_k).

    The sum is rounded once to the nearest, ties to even. With ``window`` None it is exact before.
    With a number, each operand lies in a field of its own: twice a significand's width for a
    product, one significand's width for the accumulator. The fields are aligned and cut off by the
    rule of :func:`fewbit.golden.accumulate.float_sum.round_sum`, as they are in
    :class:`fewbit.golden.accumulate.floatsd8_mac.FloatSD8MacContract`.

    Overflow saturates to the largest finite value. Subnormal operands and results are kept. A sum
    of zero gives +0; a negative sum that rounds to zero gives -0. Operands that IEEE 754 calls
    infinite or NaN are outside the contract; they are read as one more octave of finite values.

    Source: this project's contract. One product with ``window`` None is IEEE 754's fusedMultiplyAdd
    wherever that is finite and not the sum of zeros, whose sign is + here.
    """

    operand_format: Minifloat
    accumulator_format: Minifloat
    products: int = parameter(4, "products a beat", 1, 16)
    window: int | None = window_parameter(None)

    def __post_init__(self) -> None:
        check_parameters(self)
        if not self.accumulator_format.ieee:
            raise ValueError(
                "The accumulator must be a format of IEEE 754's kind, which saturates below its"
                f" top exponent, not {self.accumulator_format.name}."
            )

    @property
    def product_width(self) -> int:
        """Return the number of bits of a product of two significands."""
        return 2 * (self.operand_format.mantissa_bits + 1)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("weights", self.operand_format, "weight of each product", self.products),
            Operand(
                "activations", self.operand_format, "activation of each product", self.products
            ),
            Operand("accumulator", self.accumulator_format, "finite value to add the products to"),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (
            Operand(
                "result", self.accumulator_format, "accumulator plus all products, rounded once"
            ),
        )

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return random operands: a third uniform, a third of similar size, a third that cancels.

        Corners are among the uniform codes.
        """
        weights, activations, accumulator = (
            random_codes(rng, operand, count) for operand in self.operands
        )
        kind = rng.integers(0, 3, size=count, dtype=np.uint8)
        similar = np.flatnonzero(kind > 0)
        self._bring_together(
            rng, similar, weights=weights, activations=activations, accumulator=accumulator
        )
        # The last product is minus the first, so that only the smaller ones remain in the sum.
        opposed = similar[rng.random(len(similar)) < 0.25]
        weights[opposed, -1] = weights[opposed, 0]
        activations[opposed, -1] = activations[opposed, 0]
        if self.products > 1:
            activations[opposed, -1] ^= 1 << (self.operand_format.width - 1)
        # The accumulator nearly cancels the products: results small, zero and subnormal.
        cancelled = np.flatnonzero(kind == 2)
        reals = _finite(self.operand_format).decode
        sums = (reals(weights[cancelled]) * reals(activations[cancelled])).sum(axis=1)
        target = _finite(self.accumulator_format)
        sign = 1 << (target.width - 1)
        codes = target.encode(-sums)
        nudge = rng.integers(-2, 3, size=len(cancelled), dtype=np.int64)
        magnitude = np.clip((codes & (sign - 1)) + nudge, 0, sign - 1)
        accumulator[cancelled] = magnitude | (codes & sign)
        return {"weights": weights, "activations": activations, "accumulator": accumulator}

    def _bring_together(
        self,
        rng: np.random.Generator,
        rows: Codes,
        *,
        weights: Codes,
        activations: Codes,
        accumulator: Codes,
    ) -> None:
        """Set exponents so that products and accumulator overlap, most within a few bits."""
        operand, target = self.operand_format, self.accumulator_format
        shape = (len(rows), self.products)
        reach = self.product_width + target.mantissa_bits + 4
        spread = rng.integers(-4, 5, size=shape, dtype=np.int64)
        far = rng.random(shape) < 0.25
        spread[far] = rng.integers(-reach, reach + 1, size=shape, dtype=np.int64)[far]
        # The sum of two exponent codes whose product has the accumulator's exponent, and a spread.
        start = (accumulator[rows] >> target.mantissa_bits) & (2**target.exponent_bits - 1)
        total = start[:, np.newaxis] + spread - target.bias + 2 * operand.bias
        most = 2**operand.exponent_bits - 1
        first = rng.integers(0, most + 1, size=shape, dtype=np.int64)
        first = np.clip(first, np.clip(total - most, 0, most), np.clip(total, 0, most))
        second = np.clip(total - first, 0, most)
        low = operand.mantissa_bits
        for codes, exponents in ((weights, first), (activations, second)):
            codes[rows] = (codes[rows] & ~(most << low)) | (exponents << low)

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return results; ``weights`` and ``activations`` have shape (beats, products).

        All other arrays have shape (beats,).
        """
        arrays = checked(self.operands, arrays)
        weights, weight_ulps = split(self.operand_format, arrays["weights"])
        activations, activation_ulps = split(self.operand_format, arrays["activations"])
        start, start_ulp = split(self.accumulator_format, arrays["accumulator"])
        terms = np.concatenate([weights * activations, start[:, np.newaxis]], axis=1)
        ulps = np.concatenate([weight_ulps + activation_ulps, start_ulp[:, np.newaxis]], axis=1)
        widths = [self.product_width] * self.products + [self.accumulator_format.mantissa_bits + 1]
        return {"result": round_sum(terms, ulps, widths, self.window, self.accumulator_format)}


def _finite(number_format: Minifloat) -> Minifloat:
    """Return the same format with its top exponent read as one more octave."""
    return Minifloat(number_format.exponent_bits, number_format.mantissa_bits, number_format.bias)
