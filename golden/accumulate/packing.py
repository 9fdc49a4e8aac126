"""Packed weights: levels of few bits side by side in the bytes of a memory.

=================  ============  ===============  ==================================================
packing            weights       bits a weight    a code
=================  ============  ===============  ==================================================
`BINARY_BYTES`     8 of -1, 1    1                bit k: 1 is +1, 0 is -1
`TERNARY_BYTES`    4 of -1...1   2                bits 2k and 2k + 1: 01 is +1, 11 is -1, 00 is 0
`TERNARY_DENSE`    5 of -1...1   1.6              fields and one escape, see `DensePacking`
=================  ============  ===============  ==================================================

Weight 0 of a code is the lowest. Five weights as one number in base 3 would take the same memory as
the dense packing. That is read without divisions, by a circuit of less than half the gates.
Ternary weights whose scale is a power of two are packed as ternary ones: the scale is one shift of
the sum and needs no memory.

Source: this project's; information theory asks for log2(3), 1.585 bits a ternary weight.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import Raws
from fewbit.golden.formats import TERNARY, Binary, Format

__all__ = [
    "BINARY_BYTES",
    "TERNARY_BYTES",
    "TERNARY_DENSE",
    "DensePacking",
    "FieldPacking",
    "Packing",
    "PackingKind",
]

PackingKind = Literal["fields", "dense"]
"""The coding of weights: each in bits of its own, or five ternary ones in 8 bits."""

_DIGITS = 5
_BYTE = 8


class Packing(ABC):
    """Codes of ``width`` bits, each of which holds ``group`` weights."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Return the number of bits of a code."""

    @property
    @abstractmethod
    def group(self) -> int:
        """Return the number of weights in a code."""

    @property
    @abstractmethod
    def levels(self) -> tuple[int, ...]:
        """Return the levels that a weight can have, in ascending order."""

    @abstractmethod
    def _pack(self, groups: Raws) -> Raws:
        """Return the codes of whole groups, shape (..., group) to (...)."""

    @abstractmethod
    def _unpack(self, codes: Raws) -> Raws:
        """Return the levels of codes, shape (...) to (..., group)."""

    @property
    @abstractmethod
    def _filling(self) -> int:
        """Return the level of the weights that fill up the last code."""

    @property
    def bits_per_weight(self) -> float:
        """Return the number of bits that a weight takes in whole codes."""
        return self.width / self.group

    def codes(self, weights: int) -> int:
        """Return the number of codes that a row of `weights` takes."""
        return -(-weights // self.group)

    def pack(self, levels: npt.ArrayLike) -> Raws:
        """Return the codes of rows of weights; every row starts a code.

        Ternary rows are filled up with weights 0. Binary rows have no weight 0 and are filled up
        with bits 0, which are weights -1: the activations of these weights must be 0.

        Parameters
        ----------
        levels
            Shape (..., weights).

        Returns
        -------
        Shape (..., ceil(weights/group)), from 0 to 2^width - 1.

        Raises
        ------
        ValueError
            If `levels` has no axis, or holds a number that is no level.
        """
        given = np.asarray(levels)
        if given.ndim == 0 or (given.dtype.kind not in "iu" and given.size):
            raise ValueError(
                f"levels must be integers of shape (..., weights), not {given.dtype} of shape "
                f"{given.shape}."
            )
        wrong = ~np.isin(given, self.levels)
        if wrong.any():
            raise ValueError(f"levels must be {_listed(self.levels)}, not {int(given[wrong][0])}.")
        count = given.shape[-1]
        whole = np.full((*given.shape[:-1], self.codes(count) * self.group), self._filling)
        whole[..., :count] = given
        return self._pack(whole.reshape(*given.shape[:-1], self.codes(count), self.group))

    def unpack(self, codes: npt.ArrayLike, weights: int) -> Raws:
        """Return the levels of rows of `weights`, the inverse of `pack`.

        Parameters
        ----------
        codes
            Shape (..., ceil(weights/group)).
        weights
            Number of weights of a row. The other weights of its last code are dropped.

        Returns
        -------
        Shape (..., weights).

        Raises
        ------
        ValueError
            If a row has another number of codes, or a code is no integer of `width` bits.
        """
        given = np.asarray(codes)
        if given.dtype.kind not in "iu" and given.size:
            raise ValueError(f"codes must be integers, not {given.dtype}.")
        if given.ndim == 0 or given.shape[-1] != self.codes(weights):
            raise ValueError(
                f"{weights} weights must have the shape (..., {self.codes(weights)}) in codes, not "
                f"{given.shape}."
            )
        if given.size and (given.min() < 0 or given.max() >> self.width):
            raise ValueError(
                f"codes must be from 0 to {2**self.width - 1}, not {given.min()} to {given.max()}."
            )
        levels = self._unpack(given.astype(np.int64))
        return levels.reshape(*given.shape[:-1], self.codes(weights) * self.group)[..., :weights]


def _listed(levels: tuple[int, ...]) -> str:
    return ", ".join(str(level) for level in levels[:-1]) + f" or {levels[-1]}"


@dataclass(frozen=True)
class FieldPacking(Packing):
    """Codes of a format side by side, the first in the lowest bits.

    Parameters
    ----------
    format
        Format of a weight, whose values are integers.
    count
        Weights in a code.
    """

    format: Format
    count: int

    @property
    def width(self) -> int:
        return self.format.width * self.count

    @property
    def group(self) -> int:
        return self.count

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(int(value) for value in self.format.values)

    @property
    def _filling(self) -> int:
        return int(self.format.decode(0))

    @property
    def _places(self) -> Raws:
        return self.format.width * np.arange(self.count)

    def _pack(self, groups: Raws) -> Raws:
        return (self.format.encode(groups) << self._places).sum(axis=-1)

    def _unpack(self, codes: Raws) -> Raws:
        fields = codes[..., np.newaxis] >> self._places & (1 << self.format.width) - 1
        return self.format.decode(fields).astype(np.int64)


@dataclass(frozen=True)
class DensePacking(Packing):
    """Five ternary weights in 8 bits: three low weights in five bits, two high ones in three.

    Fields AA, BB and so on are ternary codes: 01 is +1, 11 is -1, 00 is 0; s is the sign of a
    weight that is not 0, 1 for -1. Where a field would be 10, the bits mean something else::

        bits 4...0   weights 2, 1, 0     bits 7...5   weights 4, 3
        0BBAA        0, B, A             bFF          +b, F
        00s10        s, 0, 0             b10          -1, +b
        1sBBr        s, B, r
        1s10r        s, r, 0

    Three bits can hold eight of the nine pairs of weights 4 and 3. The ninth is -1, -1: there bits
    4...2 are 010, which is not a field BB, and bits 1, 0, 7, 6, 5 take the place of bits 4...0.

    Five weights 0 are code 0. The 13 codes that are never written are read by the same rules, with
    BB = 10 in 0BBAA read as 0, and 01s10 as 00s10.

    Source: this project's, after the fields and escapes of Cowlishaw, "Densely packed decimal
    encoding", IEE Proceedings - Computers and Digital Techniques 149 (3), 2002.
    """

    @property
    def width(self) -> int:
        return _BYTE

    @property
    def group(self) -> int:
        return _DIGITS

    @property
    def levels(self) -> tuple[int, ...]:
        return -1, 0, 1

    @property
    def _filling(self) -> int:
        return 0

    def _pack(self, groups: Raws) -> Raws:
        return _dense_codes()[(groups + 1) @ 3 ** np.arange(_DIGITS)]

    def _unpack(self, codes: Raws) -> Raws:
        return _dense_levels()[codes]


@cache
def _dense_levels() -> Raws:
    """Return the levels of every dense code, shape (256, 5)."""
    return np.array([_dense_group(code) for code in range(1 << _BYTE)])


@cache
def _dense_codes() -> Raws:
    """Return the dense code of every group by its number in base 3, shape (243,)."""
    numbers = (_dense_levels() + 1) @ 3 ** np.arange(_DIGITS)
    written = [code for code in range(1 << _BYTE) if not _dense_alias(code)]
    codes = np.zeros(3**_DIGITS, np.int64)
    codes[numbers[written]] = written
    return codes


def _low_bits(code: int) -> tuple[int, bool]:
    """Return the five bits of weights 2, 1 and 0, and whether they come from an escape."""
    if code >> 2 & 7 == 0b010:
        return (code & 3) << 3 | code >> 5, True
    return code & 31, False


def _dense_alias(code: int) -> bool:
    """Return whether a code is never written."""
    low, _ = _low_bits(code)
    return low >> 2 == 0b010 or low == 0b01110


def _dense_group(code: int) -> tuple[int, ...]:
    """Return the five levels of a dense code, weight 0 first."""
    sign = 1, -1
    field = 0, 1, 0, -1
    low, escape = _low_bits(code)
    if low >> 4:
        third, middle, first = sign[low >> 3 & 1], low >> 1 & 3, sign[low & 1]
        three = (0, first, third) if middle == 0b10 else (first, field[middle], third)
    elif low & 3 == 0b10:
        three = 0, 0, sign[low >> 2 & 1]
    else:
        three = field[low & 3], field[low >> 2], 0
    high = code >> 5
    if escape:
        return *three, -1, -1
    if high & 3 == 0b10:
        return *three, high >> 2, -1
    return *three, field[high & 3], high >> 2


BINARY_BYTES = FieldPacking(Binary(), _BYTE)
TERNARY_BYTES = FieldPacking(TERNARY, _BYTE // TERNARY.width)
TERNARY_DENSE = DensePacking()
