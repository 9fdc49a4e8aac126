"""A sum of floating-point terms, rounded once: a multiply-accumulate unit without its products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.accumulate.float_sum import round_sum, split
from fewbit.golden.checks import freeze_whole
from fewbit.golden.contract import Contract, random_codes
from fewbit.golden.formats import FixedPoint, Minifloat
from fewbit.golden.operands import FLAG, Operand, checked

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["TermSumContract"]


@dataclass(frozen=True)
class TermSumContract(Contract):
    """A sum of floating-point terms and an accumulator, rounded once as ``round_sum`` does.

    result = accumulator format(accumulator + sum of terms).

    Term k is (-1)**signs[k] * magnitudes[k] * 2**(exponents[k] - place), in a field of
    ``magnitude_bits``. The products in a multiply-accumulate unit are such terms. Here the terms
    are operands, so that a test with small widths can cover all cases of the sum.

    Parameters
    ----------
    accumulator_format
        Format of the accumulator and the result, of IEEE 754's kind. Its top exponent is read as
        one more octave and never written.
    terms
        Number of terms, 1 to 64.
    magnitude_bits, exponent_bits
        Widths of a term's magnitude, 1 to 24, and of its exponent, 1 to 8.
    place
        Offset of the exponents, see above, -256 to 256.
    window
        Bits below the top of the highest field that count, 1 to 48; None for all.
    """

    accumulator_format: Minifloat
    terms: int
    magnitude_bits: int
    exponent_bits: int
    place: int
    window: int | None

    def __post_init__(self) -> None:
        freeze_whole(self, "terms", 1, 64)
        freeze_whole(self, "magnitude_bits", 1, 24)
        freeze_whole(self, "exponent_bits", 1, 8)
        freeze_whole(self, "place", -256, 256)
        if self.window is not None:
            freeze_whole(self, "window", 1, 48)
        if not self.accumulator_format.ieee:
            raise ValueError(
                "The accumulator must be a format of IEEE 754's kind, which saturates below its"
                f" top exponent, not {self.accumulator_format.name}."
            )

    @property
    def operands(self) -> tuple[Operand, ...]:
        magnitude = FixedPoint(self.magnitude_bits, signed=False)
        exponent = FixedPoint(self.exponent_bits, signed=False)
        return (
            Operand("magnitudes", magnitude, "magnitude of each term", self.terms),
            Operand("exponents", exponent, "exponent of each term", self.terms),
            Operand("signs", FLAG, "1 for a negative term", self.terms),
            Operand("accumulator", self.accumulator_format, "value to add the terms to"),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (Operand("result", self.accumulator_format, "sum of all, rounded once"),)

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return uniform codes with corners among them."""
        return {operand.name: random_codes(rng, operand, count) for operand in self.operands}

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return results; the accumulator has shape (beats,), all else (beats, terms)."""
        arrays = checked(self.operands, arrays)
        terms = np.where(arrays["signs"] == 1, -arrays["magnitudes"], arrays["magnitudes"])
        start, start_ulp = split(self.accumulator_format, arrays["accumulator"])
        values = np.concatenate([terms, start[:, np.newaxis]], axis=1)
        ulps = np.concatenate([arrays["exponents"] - self.place, start_ulp[:, np.newaxis]], axis=1)
        widths = [self.magnitude_bits] * self.terms + [self.accumulator_format.mantissa_bits + 1]
        return {"result": round_sum(values, ulps, widths, self.window, self.accumulator_format)}
