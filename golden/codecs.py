"""Codecs: how reals become the numbers of an array, and how numbers become reals again.

A `Codec` has the type and the bounds of an array of numbers, and converts between numbers and
reals. A layer has one for the vectors that it reads, for those that it keeps and for those that it
writes. Error messages and the JSON file beside a circuit use its words.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import Raws, saturate
from fewbit.golden.formats import Minifloat

__all__ = ["Codec", "FloatCodec", "RawCodec", "RealCodec", "dequantize", "quantize"]

Reals = npt.NDArray[np.float64]

_BYTE = 8


class Codec(ABC):
    """A way in which the numbers of an array stand for reals."""

    noun: ClassVar[str]
    """The plural name of the numbers: raws, codes or reals."""
    agreement: Mapping[str, float]
    """Values, by name, that must be equal in a layer that writes and in the layer that reads."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Return the type of an array of these numbers."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Return the lowest and highest number."""

    @property
    @abstractmethod
    def meaning(self) -> dict[str, float | str]:
        """Return the meaning of the numbers, in words and figures ready for JSON."""

    @abstractmethod
    def encode(self, reals: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the numbers nearest to reals, saturated, in an array of type `dtype`.

        Raises
        ------
        ValueError
            If a real is not finite.
        """

    @abstractmethod
    def decode(self, numbers: npt.ArrayLike) -> Reals:
        """Return the reals that numbers stand for."""


@dataclass(frozen=True)
class RawCodec(Codec):
    """Signed integers with a scale: a real is ``(raw - zero_point) scale``.

    Parameters
    ----------
    width
        Bits of a raw, at most 16; the array's type is int8 up to 8 bits, int16 above.
    scale
        Resolution of the raws, above 0.
    zero_point
        Raw of the real 0.
    agreement
        See `Codec`.
    """

    width: int
    scale: float
    zero_point: int = 0
    agreement: Mapping[str, float] = field(default_factory=dict[str, float])
    noun: ClassVar[str] = "raws"

    def __post_init__(self) -> None:
        """Refuse a width or a scale that no array of raws can have.

        Raises
        ------
        ValueError
            If the width or the scale is out of its range.
        """
        if not 1 <= self.width <= 2 * _BYTE:
            raise ValueError(f"width must be from 1 to {2 * _BYTE} bits, not {self.width}.")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a finite number above 0, not {self.scale}.")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8 if self.width <= _BYTE else np.int16)

    @property
    def bounds(self) -> tuple[int, int]:
        half = 1 << (self.width - 1)
        return -half, half - 1

    @property
    def meaning(self) -> dict[str, float | str]:
        return {"scale": self.scale, "zero_point": self.zero_point}

    def encode(self, reals: npt.ArrayLike) -> npt.NDArray[Any]:
        return quantize(reals, self.scale, self.zero_point, self.width).astype(self.dtype)

    def decode(self, numbers: npt.ArrayLike) -> Reals:
        return dequantize(numbers, self.scale, self.zero_point)


@dataclass(frozen=True)
class FloatCodec(Codec):
    """Codes of a small floating-point format of 8 bits.

    Parameters
    ----------
    format
        The format, of 8 bits.
    agreement
        See `Codec`.
    """

    format: Minifloat
    agreement: Mapping[str, float] = field(default_factory=dict[str, float])
    noun: ClassVar[str] = "codes"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @property
    def bounds(self) -> tuple[int, int]:
        return 0, (1 << self.format.width) - 1

    @property
    def meaning(self) -> dict[str, float | str]:
        exponent_bits, mantissa_bits = self.format.exponent_bits, self.format.mantissa_bits
        return {"format": f"e{exponent_bits}m{mantissa_bits}", "exponent_bias": self.format.bias}

    def encode(self, reals: npt.ArrayLike) -> npt.NDArray[Any]:
        values = _finite(reals)
        return self.format.encode(values).astype(self.dtype)

    def decode(self, numbers: npt.ArrayLike) -> Reals:
        return self.format.decode(np.asarray(numbers))


@dataclass(frozen=True)
class RealCodec(Codec):
    """Reals in float64 that stand for themselves."""

    agreement: Mapping[str, float] = field(default_factory=dict[str, float])
    noun: ClassVar[str] = "reals"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    @property
    def bounds(self) -> tuple[float, float]:
        return -math.inf, math.inf

    @property
    def meaning(self) -> dict[str, float | str]:
        return {"format": "real"}

    def encode(self, reals: npt.ArrayLike) -> npt.NDArray[Any]:
        return _finite(reals)

    def decode(self, numbers: npt.ArrayLike) -> Reals:
        return np.asarray(numbers, np.float64)


def quantize(real: npt.ArrayLike, scale: float, zero_point: int, width: int = 8) -> Raws:
    """Return the raws nearest to reals, ties of ``real/scale`` to even, saturated to `width` bits.

    Parameters
    ----------
    real
        Finite reals of any shape.
    scale
        Resolution of the raws, above 0.
    zero_point
        Raw of the real 0.
    width
        Bits of a raw, from 1 to 32.

    Raises
    ------
    ValueError
        If a real is not finite.
    """
    values = _finite(real)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be a finite number above 0, not {scale}.")
    if not 1 <= width <= 32:
        raise ValueError(f"width must be from 1 to 32 bits, not {width}.")
    # A huge quotient would not fit int64, so it saturates as a float first.
    bound = 2.0 ** (width + 1)
    with np.errstate(over="ignore"):
        rounded = np.rint(np.clip(values / scale, -bound, bound))
    return saturate(rounded.astype(np.int64) + zero_point, width)


def dequantize(raw: npt.ArrayLike, scale: float, zero_point: int) -> Reals:
    """Return the reals of raws, ``(raw - zero_point) scale``."""
    return (np.asarray(raw, np.int64) - zero_point) * np.float64(scale)


def _finite(reals: npt.ArrayLike) -> Reals:
    values = np.asarray(reals, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"Values must be finite, not {values[~np.isfinite(values)][0]}.")
    return values
