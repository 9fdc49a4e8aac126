"""Operands: named fields of a circuit's inputs and outputs, and how they pack to bits.

Arrays of operands hold codes, one row for each beat. In packed words the first operand of a tuple
is in the lowest bits, and lane 0 of an operand is below lane 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.formats import FixedPoint, Format

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]

__all__ = ["FLAG", "Operand", "check_arrays", "checked", "pack", "total_width", "unpack"]

FLAG = FixedPoint(1, signed=False)
"""One bit, such as ``first`` or ``last``."""


@dataclass(frozen=True)
class Operand:
    """A named field of codes: a scalar, or ``lanes`` of them side by side."""

    name: str
    format: Format
    meaning: str
    lanes: int | None = None

    @property
    def width(self) -> int:
        """Return the number of bits of the whole field."""
        return self.format.width * (self.lanes or 1)

    def shape(self, count: int) -> tuple[int, ...]:
        """Return the shape of an array of ``count`` beats: (count,) or (count, lanes)."""
        return (count,) if self.lanes is None else (count, self.lanes)


def total_width(operands: Sequence[Operand]) -> int:
    """Return the number of bits of all operands together."""
    return sum(operand.width for operand in operands)


def checked(operands: Sequence[Operand], arrays: Mapping[str, npt.ArrayLike]) -> dict[str, Codes]:
    """Return the arrays of ``operands`` as int64, or refuse a wrong shape or code.

    Raises
    ------
    ValueError
        If an operand is missing, an array has a wrong shape or type, or a code is out of range.
    """
    count = -1
    codes: dict[str, Codes] = {}
    for operand in operands:
        if operand.name not in arrays:
            raise ValueError(f"Operand '{operand.name}' is missing; give an array of its codes.")
        array = np.asarray(arrays[operand.name])
        if count < 0:
            count = array.shape[0] if array.ndim else 0
        if array.shape != operand.shape(count):
            raise ValueError(
                f"Operand '{operand.name}' must have shape {operand.shape(count)},"
                f" not {array.shape}."
            )
        try:
            codes[operand.name] = operand.format.check(array)
        except ValueError as error:
            raise ValueError(f"Operand '{operand.name}': {error}") from error
    return codes


def check_arrays(operands: Sequence[Operand], arrays: Mapping[str, npt.ArrayLike]) -> int:
    """Return the number of beats of ``arrays``, or refuse them as :func:`checked` does."""
    codes = checked(operands, arrays)
    return len(next(iter(codes.values()))) if codes else 0


def pack(operands: Sequence[Operand], arrays: Mapping[str, Codes]) -> npt.NDArray[np.uint64]:
    """Return beats as little-endian words of 64 bits, shape (count, ceil(total width / 64))."""
    count = len(arrays[operands[0].name]) if operands else 0
    columns = np.zeros(((total_width(operands) + 63) // 64, count), dtype=np.uint64)
    offset = 0
    for operand in operands:
        codes = np.asarray(arrays[operand.name], dtype=np.int64).view(np.uint64)
        for lane in codes.reshape(count, operand.lanes or 1).T:
            word, shift = divmod(offset, 64)
            columns[word] |= lane << np.uint64(shift)
            if shift + operand.format.width > 64:
                columns[word + 1] |= lane >> np.uint64(64 - shift)
            offset += operand.format.width
    return np.ascontiguousarray(columns.T)


def unpack(operands: Sequence[Operand], words: npt.NDArray[np.uint64]) -> dict[str, Codes]:
    """Return the arrays that :func:`pack` packed into words."""
    arrays: dict[str, Codes] = {}
    offset = 0
    for operand in operands:
        lanes: list[Codes] = []
        for _ in range(operand.lanes or 1):
            word, shift = divmod(offset, 64)
            lane = words[:, word] >> np.uint64(shift)
            if shift + operand.format.width > 64:
                lane = lane | (words[:, word + 1] << np.uint64(64 - shift))
            lanes.append((lane & np.uint64(2**operand.format.width - 1)).astype(np.int64))
            offset += operand.format.width
        arrays[operand.name] = lanes[0] if operand.lanes is None else np.stack(lanes, axis=1)
    return arrays
