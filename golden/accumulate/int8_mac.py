"""int8 multiply-accumulate: the integer baseline beside the float units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.contract import Contract, random_codes
from fewbit.golden.formats import INT8, INT32
from fewbit.golden.operands import Operand, checked
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["Int8MacContract"]


@dataclass(frozen=True)
class Int8MacContract(Contract):
    """The exact sum of int8 products and an accumulator, modulo 2**32.

    result = accumulator + sum over k of weight_k * activation_k.

    Source: two's complement; LiteRT's int8 kernels accumulate so.
    """

    products: int = parameter(4, "products a beat", 1, 16)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("weights", INT8, "weight of each product", self.products),
            Operand("activations", INT8, "activation of each product", self.products),
            Operand("accumulator", INT32, "value to add the products to"),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (Operand("result", INT32, "accumulator plus all products, modulo 2^32"),)

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return uniform codes and corners; every eighth beat holds extremes only."""
        arrays = {operand.name: random_codes(rng, operand, count) for operand in self.operands}
        extreme = np.arange(count) % 8 == 7
        limits = INT8.code((INT8.smallest_raw, INT8.largest_raw))
        for name in ("weights", "activations"):
            arrays[name][extreme] = rng.choice(limits, size=(int(extreme.sum()), self.products))
        return arrays

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return results; ``weights`` and ``activations`` have shape (beats, products).

        All other arrays have shape (beats,).
        """
        arrays = checked(self.operands, arrays)
        products = INT8.raw(arrays["weights"]) * INT8.raw(arrays["activations"])
        return {"result": (products.sum(axis=1) + arrays["accumulator"]) % 2**32}
