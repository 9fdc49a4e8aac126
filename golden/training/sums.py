"""Sums of the training step, each of them one that a `floatsd8_mac` computes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.golden.lstm.floatsd8 import add_products

__all__ = ["LARGEST_SUM", "Record", "SumUnit", "Sums", "contract_of"]

Codes = npt.NDArray[np.int64]

LARGEST_SUM = 0x7BFF
"""Code of 65504, where binary16 sums saturate."""
_HIGHEST_ACTIVATION_BIAS = 31


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums of one kind, with their operands and results as codes.

    Parameters
    ----------
    kind
        The place of the sums in the training step, such as "carry".
    weights, activations
        FloatSD8 and e5m2 codes, shape (count, products); products that a sum lacks are codes 0.
    start
        binary16 codes, shape (count,).
    bias
        Exponent bias of the weights plus that of the activations.
    result
        binary16 codes, shape (count,).
    """

    kind: str
    weights: Codes
    activations: Codes
    start: Codes
    bias: int
    result: Codes


Record = Callable[[Sums], None]
"""A function that takes the sums of a training step as they are computed."""


def contract_of(bias: int, products: int, window: int | None) -> FloatSD8MacContract:
    """Return the contract of the unit that computes sums with this sum of biases.

    Only the sum of its two biases enters a unit's result, so the split between them is free.

    Parameters
    ----------
    bias
        Exponent bias of the weights plus that of the activations, -16 to 71.
    products
        Number of products in a sum.
    window
        Bits below a sum's top that count, or None for exact sums.
    """
    activation_bias = min(max(bias, 0), _HIGHEST_ACTIVATION_BIAS)
    return FloatSD8MacContract(products, window, activation_bias, bias - activation_bias)


class SumUnit:
    """A unit that adds products to start values, and notices sums that saturate.

    Parameters
    ----------
    products
        Number of products that it adds at a time.
    window
        Bits below a sum's top that count, or None for exact sums.
    record
        A function that takes all sums; None for none.
    """

    def __init__(self, products: int, window: int | None, record: Record | None = None) -> None:
        self.products = products
        self.window = window
        self.record = record
        self.has_saturated = False
        """Whether a sum since the start was ±65504."""

    def add(self, kind: str, start: Codes, factors: Codes, gradients: Codes, bias: int) -> Codes:
        """Return S(start; factors times gradients), binary16 codes.

        The last axis of `factors` and `gradients` holds all products, or one code for all of them.
        They are added in groups of `products`, the first group first. The other axes broadcast to
        those of `start`.

        Parameters
        ----------
        kind
            The place of the sums in the training step.
        start
            binary16 codes, any shape.
        factors
            FloatSD8 codes.
        gradients
            e5m2 codes.
        bias
            Exponent bias of the factors plus that of the gradients.
        """
        count = max(factors.shape[-1], gradients.shape[-1])
        all_factors, all_gradients = (
            np.broadcast_to(codes, (*codes.shape[:-1], count)) for codes in (factors, gradients)
        )
        for first in range(0, count, self.products):
            group = slice(first, first + self.products)
            start = self._add(kind, start, all_factors[..., group], all_gradients[..., group], bias)
        return start

    def _add(self, kind: str, start: Codes, factors: Codes, gradients: Codes, bias: int) -> Codes:
        result = add_products(start, factors, gradients, bias, self.window)
        self.has_saturated |= bool((result & 0x7FFF == LARGEST_SUM).any())
        if self.record is not None:
            self.record(
                Sums(
                    kind,
                    self._rows(factors, start.shape),
                    self._rows(gradients, start.shape),
                    start.ravel(),
                    bias,
                    result.ravel(),
                )
            )
        return result

    def _rows(self, codes: Codes, shape: tuple[int, ...]) -> Codes:
        """Return the products' codes, one row for each sum, with codes 0 for missing products.

        That changes no sum, because products of codes 0 have the lowest exponent there is.
        """
        count = codes.shape[-1]
        rows = np.zeros((int(np.prod(shape)), self.products), np.int64)
        rows[:, :count] = np.broadcast_to(codes, (*shape, count)).reshape(-1, count)
        return rows
