"""Number formats: the meaning of a code's bits.

A *code* is a bit pattern, held as a non-negative integer. It stands for a *real* value; where a
format is a scaled integer, that signed integer is the *raw*, and the real of raw 1 is the
*resolution*.

Every format writes ``decode`` by its definition. Up to 16 bits ``encode`` is derived from it: the
nearest entry in the table of all decoded values, so that the two can't disagree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]
    Reals = npt.NDArray[np.float64]

__all__ = [
    "BFLOAT16",
    "BINARY16",
    "BINARY32",
    "E5M2",
    "FLOATSD8",
    "INT8",
    "INT16",
    "INT32",
    "Q3_12",
    "TERNARY",
    "Binary",
    "FixedPoint",
    "FloatSD8",
    "Format",
    "Minifloat",
    "Ternary",
]

_TABLE_WIDTH = 16
"""Width of the widest format whose values are all tabulated."""


class Format(ABC):
    """A number format of ``width`` bits."""

    width: int
    """Bits of a code."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the format's usual name in the field."""

    @property
    @abstractmethod
    def encoding(self) -> str:
        """Return the meaning of each bit, most significant first, such as ``0bSEEEEEMM``."""

    @abstractmethod
    def _decode(self, codes: Codes) -> Reals:
        """Return the reals of codes that were checked already."""

    def decode(self, codes: npt.ArrayLike) -> Reals:
        """Return the reals that codes stand for.

        Parameters
        ----------
        codes
            Integers from 0 to 2**width - 1, of any shape.

        Raises
        ------
        ValueError
            If a code is not an integer or is out of range.
        """
        return self._decode(self.check(codes))

    def check(self, codes: npt.ArrayLike) -> Codes:
        """Return codes as int64, or refuse any that is no integer from 0 to 2**width - 1."""
        array = np.asarray(codes)
        if array.dtype.kind not in "iu" and array.size:
            raise ValueError(f"{self.name} codes must be integers, not {array.dtype}.")
        if array.size and (int(array.min()) < 0 or int(array.max()) >> self.width):
            low, high = int(array.min()), int(array.max())
            raise ValueError(
                f"{self.name} codes must be from 0 to {2**self.width - 1}, not {low} to {high}."
            )
        return array.astype(np.int64)

    def encode(self, reals: npt.ArrayLike) -> Codes:
        """Return the codes of the nearest values; ties go to the even index, counted from zero.

        Beyond the largest value the result saturates, infinities included.

        Parameters
        ----------
        reals
            Real numbers of any shape.

        Raises
        ------
        ValueError
            If a real is NaN.
        """
        values = np.asarray(reals, dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError(f"NaN has no {self.name} code; remove it before encoding.")
        return self._encode(values)

    def _encode(self, reals: Reals) -> Codes:
        values, codes = self._table
        middles = (values[:-1] + values[1:]) / 2
        low = np.searchsorted(middles, reals, side="left")
        high = np.searchsorted(middles, reals, side="right")
        zero = int(np.searchsorted(values, 0.0))
        return codes[np.where((low - zero) % 2 == 0, low, high)]

    @property
    def _table(self) -> tuple[Reals, Codes]:
        """Return all finite values, ascending and distinct, and the canonical code of each."""
        return _tabulate(self)

    @property
    def values(self) -> Reals:
        """Return all finite values of a format of at most 16 bits, ascending and distinct."""
        return self._table[0].copy()

    @property
    def largest(self) -> float:
        """Return the the largest finite real."""
        return float(self._table[0][-1])

    @cached_property
    def corners(self) -> Codes:
        """Return codes that a random test should contain: zeros, ones, extremes and neighbours."""
        top, sign = 2**self.width, 2 ** (self.width - 1)
        patterns = [0, 1, 2, 3, sign - 2, sign - 1, sign, sign + 1, top - 2, top - 1]
        reals = [-np.inf, -1.0, 0.0, 1.0, np.inf]
        codes = [code for code in patterns if 0 <= code < top] + self.encode(reals).tolist()
        return np.unique(np.array(codes, dtype=np.int64))

    def _canonical_order(self, codes: Codes) -> Codes:
        """Return a sort key: of all codes of one value, the canonical code has the smallest key."""
        return codes


@lru_cache(maxsize=256)
def _tabulate(number_format: Format) -> tuple[Reals, Codes]:
    if number_format.width > _TABLE_WIDTH:
        raise ValueError(
            f"{number_format.name} has {number_format.width} bits; only formats up to"
            f" {_TABLE_WIDTH} bits are tabulated."
        )
    codes = np.arange(2**number_format.width, dtype=np.int64)
    values = number_format.decode(codes)
    finite = np.isfinite(values)
    codes, values = codes[finite], values[finite]
    order = np.lexsort((number_format._canonical_order(codes), values))  # pyright: ignore[reportPrivateUsage]
    codes, values = codes[order], values[order] + 0.0
    first = np.concatenate(([True], values[1:] != values[:-1]))
    return values[first], codes[first]


@dataclass(frozen=True)
class FixedPoint(Format):
    """A scaled integer: real = raw * 2**-fraction; ``0bII…FF``, two's complement when signed.

    ``encode`` rounds to nearest, ties to even raws, and saturates.
    """

    width: int
    """Bits of a code, fraction and sign included."""
    fraction: int = 0
    """Bits right of the binary point; the resolution is 2**-fraction."""
    signed: bool = True

    def __post_init__(self) -> None:
        # Every raw of up to 53 bits is a float64, so that reals are exact.
        if not 1 <= self.width <= 53:
            raise ValueError(f"FixedPoint width must be from 1 to 53 bits, not {self.width}.")

    @property
    def name(self) -> str:
        if self.fraction == 0:
            return f"{'' if self.signed else 'u'}int{self.width}"
        whole = self.width - self.fraction - self.signed
        return f"{'' if self.signed else 'u'}q{whole}_{self.fraction}"

    @property
    def encoding(self) -> str:
        whole = max(self.width - self.fraction - self.signed, 0)
        return "0b" + "S" * self.signed + "I" * whole + "F" * (self.width - whole - self.signed)

    @property
    def resolution(self) -> float:
        """Return the the real of raw 1."""
        return float(2.0**-self.fraction)

    @property
    def smallest_raw(self) -> int:
        """Return the the most negative raw."""
        return -(2 ** (self.width - 1)) if self.signed else 0

    @property
    def largest_raw(self) -> int:
        """Return the the most positive raw."""
        return 2 ** (self.width - self.signed) - 1

    @property
    def largest(self) -> float:
        return self.largest_raw * self.resolution

    def raw(self, codes: npt.ArrayLike) -> Codes:
        """Return the raws of codes, of any shape."""
        array = self.check(codes)
        return np.where(array > self.largest_raw, array - 2**self.width, array)

    def code(self, raws: npt.ArrayLike) -> Codes:
        """Return the codes of raws, of any shape.

        Raises
        ------
        ValueError
            If a raw is not an integer or is out of range.
        """
        array = np.asarray(raws)
        if array.dtype.kind not in "iu" and array.size:
            raise ValueError(f"{self.name} raws must be integers, not {array.dtype}.")
        if array.size and (array.min() < self.smallest_raw or array.max() > self.largest_raw):
            raise ValueError(
                f"{self.name} raws must be from {self.smallest_raw} to {self.largest_raw},"
                f" not {array.min()} to {array.max()}."
            )
        return array.astype(np.int64) & (2**self.width - 1)

    def _decode(self, codes: Codes) -> Reals:
        return self.raw(codes).astype(np.float64) * self.resolution

    def _encode(self, reals: Reals) -> Codes:
        raws = np.clip(np.rint(reals / self.resolution), self.smallest_raw, self.largest_raw)
        return raws.astype(np.int64) & (2**self.width - 1)


@dataclass(frozen=True)
class Minifloat(Format):
    """Binary floating point with subnormals: ``0bSE…EM…M``.

    real = (-1)**S * (1 + M / 2**mantissa_bits) * 2**(E - bias) for E > 0; subnormal, with E = 0,
    (-1)**S * M / 2**mantissa_bits * 2**(1 - bias). Both zeros exist. With ``ieee`` the largest
    exponent means infinity (M = 0) and NaN; else it is one more octave of finite values.

    ``encode`` rounds to nearest, ties to even; finite reals saturate to the largest finite value
    (IEEE 754 would give infinity); with ``ieee`` an infinity keeps its own code. A negative real
    that rounds to zero becomes the negative zero.

    Sources: IEEE 754-2019, section 3.4; the finite e5m2 with a bias of its own is this project's
    reading of arXiv 2001.08450.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    ieee: bool = False
    width: int = field(init=False)

    def __post_init__(self) -> None:
        if not 2 <= self.exponent_bits <= 8 or not 0 <= self.mantissa_bits <= 23:
            raise ValueError(
                "Minifloat must have 2 to 8 exponent bits and 0 to 23 mantissa bits,"
                f" not {self.exponent_bits} and {self.mantissa_bits}."
            )
        object.__setattr__(self, "width", 1 + self.exponent_bits + self.mantissa_bits)

    @property
    def name(self) -> str:
        standard = self.bias == 2 ** (self.exponent_bits - 1) - 1
        if self.ieee and standard and self.width in (16, 32) and self.exponent_bits in (5, 8):
            return {(5, 10): "binary16", (8, 23): "binary32", (8, 7): "bfloat16"}[
                self.exponent_bits, self.mantissa_bits
            ]
        name = f"e{self.exponent_bits}m{self.mantissa_bits}"
        return name + ("_ieee" if self.ieee else "") + ("" if standard else f"_bias{self.bias}")

    @property
    def encoding(self) -> str:
        return "0bS" + "E" * self.exponent_bits + "M" * self.mantissa_bits

    @property
    def largest_exponent(self) -> int:
        """Return the the largest exponent code of a finite value."""
        return 2**self.exponent_bits - 1 - self.ieee

    @property
    def largest(self) -> float:
        significand = 2 - 2.0**-self.mantissa_bits
        return float(np.ldexp(significand, self.largest_exponent - self.bias))

    def _decode(self, codes: Codes) -> Reals:
        mantissa = codes & (2**self.mantissa_bits - 1)
        exponent = (codes >> self.mantissa_bits) & (2**self.exponent_bits - 1)
        sign = np.where(codes >> (self.width - 1), -1.0, 1.0)
        significand = mantissa + np.where(exponent > 0, 2**self.mantissa_bits, 0)
        scale = np.maximum(exponent, 1) - self.bias - self.mantissa_bits
        reals = sign * np.ldexp(significand.astype(np.float64), scale)
        if self.ieee:
            special = np.where(mantissa == 0, sign * np.inf, np.nan)
            reals = np.where(exponent > self.largest_exponent, special, reals)
        return reals

    def _encode(self, reals: Reals) -> Codes:
        if self.width <= _TABLE_WIDTH:
            codes = super()._encode(np.abs(reals))
        else:
            codes = self._round(np.abs(reals))
        if self.ieee:
            infinity = (2**self.exponent_bits - 1) << self.mantissa_bits
            codes = np.where(np.isinf(reals), infinity, codes)
        return codes | (np.signbit(reals).astype(np.int64) << (self.width - 1))

    def _round(self, magnitudes: Reals) -> Codes:
        """Return codes of non-negative reals by arithmetic, for formats too wide to tabulate."""
        finite = np.minimum(magnitudes, self.largest)
        # frexp calls the exponent of zero 0, but zero is the first of the subnormals.
        octave = np.where(finite > 0, np.frexp(finite)[1] - 1, 1 - self.bias)
        exponent = np.maximum(octave, 1 - self.bias)
        significand = np.rint(np.ldexp(finite, self.mantissa_bits - exponent)).astype(np.int64)
        # A significand that rounds up to the next power of two carries into the exponent by itself.
        return significand + ((exponent + self.bias - 1).astype(np.int64) << self.mantissa_bits)


@dataclass(frozen=True)
class FloatSD8(Format):
    """FloatSD8 weights: ``0bEEESKKKK``, real = m * 2**(E - bias).

    m is the sum of two signed digits, 4a + b with a in {0, ±1, ±2, ±4} and b in {0, ±1, ±2}, so a
    product with a weight is at most two shifted copies of the other factor. The index K stands for
    |m| = K up to 10 and K + 3 above: 11, 12 and 13 have no digits. S is the sign. Over all
    exponents the 240 non-zero codes have 128 distinct values.

    Zero is code 0 (canonical); S = 1, K = 0 and any E with K = 0 are read as zero and never
    written. Of several codes of a value ``encode`` writes the one with the smallest exponent.
    ``encode`` rounds to nearest, ties to the even index in the sorted list of values, and
    saturates to ±18 * 2**(7 - bias).

    Source: arXiv 2001.08450 for the digits and the exponent; the layout, the bias and the
    encoding rule are this project's, as the paper publishes none.
    """

    bias: int = 10

    width: int = field(default=8, init=False)

    @property
    def name(self) -> str:
        return "floatsd8" + ("" if self.bias == 10 else f"_bias{self.bias}")

    @property
    def encoding(self) -> str:
        return "0bEEESKKKK"

    def mantissa(self, codes: npt.ArrayLike) -> Codes:
        """Return the signed mantissas m of codes, from -18 to 18."""
        array = self.check(codes)
        index = array & 15
        magnitude = np.where(index <= 10, index, index + 3)
        return np.where(array & 16, -magnitude, magnitude)

    def exponent(self, codes: npt.ArrayLike) -> Codes:
        """Return the exponents E of codes, from 0 to 7, without the bias."""
        return self.check(codes) >> 5

    def digits(self, codes: npt.ArrayLike) -> tuple[Codes, Codes]:
        """Return the two signed digits (a, b) of codes, m = 4a + b, with b = 2 rather than -2."""
        mantissa = self.mantissa(codes)
        magnitude = np.abs(mantissa)
        b = (magnitude + 1) % 4 - 1
        a = (magnitude - b) // 4
        # 14 is 4*4 - 2, not 4*3 + 2: the digit 3 does not exist.
        b, a = np.where(a == 3, -2, b), np.where(a == 3, 4, a)
        sign = np.sign(mantissa)
        return a * sign, b * sign

    def _decode(self, codes: Codes) -> Reals:
        return np.ldexp(self.mantissa(codes).astype(np.float64), self.exponent(codes) - self.bias)


@dataclass(frozen=True)
class Ternary(Format):
    """Ternary weights: ``0bNZ``, Z non-zero and N negative: 01 is +1, 11 is -1, 00 is 0.

    10 is read as 0 and never written. ``encode`` rounds to nearest, ties to zero, and saturates. A
    trained quantiser applies its own thresholds before.
    """

    width: int = field(default=2, init=False)

    @property
    def name(self) -> str:
        return "ternary"

    @property
    def encoding(self) -> str:
        return "0bNZ"

    def _decode(self, codes: Codes) -> Reals:
        return np.where(codes & 1, np.where(codes & 2, -1.0, 1.0), 0.0)


@dataclass(frozen=True)
class Binary(Format):
    """Binary weights: ``0bP``, 1 is +1 and 0 is -1. ``encode`` takes the sign; 0 gives +1."""

    width: int = field(default=1, init=False)

    @property
    def name(self) -> str:
        return "binary"

    @property
    def encoding(self) -> str:
        return "0bP"

    def _decode(self, codes: Codes) -> Reals:
        return np.where(codes, 1.0, -1.0)

    def _encode(self, reals: Reals) -> Codes:
        return (reals >= 0).astype(np.int64)


INT8 = FixedPoint(8)
INT16 = FixedPoint(16)
INT32 = FixedPoint(32)
Q3_12 = FixedPoint(16, 12)
E5M2 = Minifloat(5, 2, bias=15)
BFLOAT16 = Minifloat(8, 7, bias=127, ieee=True)
BINARY16 = Minifloat(5, 10, bias=15, ieee=True)
BINARY32 = Minifloat(8, 23, bias=127, ieee=True)
FLOATSD8 = FloatSD8()
TERNARY = Ternary()
