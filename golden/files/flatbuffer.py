"""A reader of flatbuffers that trusts nothing in the file: it checks every access first.

A flatbuffer is a file of tables that point at each other by offsets. A table starts with the
distance back to its *vtable*. The vtable holds the distance of each field from the start of the
table, or 0 for a field that is absent and has its default. A field is numbered by its *slot*, the
place of its distance in the vtable: 4 for the first field, 6 for the second. All numbers are little
endian.

Source: the FlatBuffers internals document, "Flatbuffer binary format".
"""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Table", "root_table"]

_OFFSET = 4
_NUMBERS = {
    "bool": struct.Struct("<?"),
    "int8": struct.Struct("<b"),
    "uint8": struct.Struct("<B"),
    "uint16": struct.Struct("<H"),
    "int32": struct.Struct("<i"),
    "uint32": struct.Struct("<I"),
    "uint64": struct.Struct("<Q"),
    "float32": struct.Struct("<f"),
}
_SMALLEST_VTABLE = 4
_LONGEST_TEXT = 1 << 16


def _number(content: bytes, kind: str, at: int) -> Any:
    packing = _NUMBERS[kind]
    # A negative place would read from the end.
    if not 0 <= at <= len(content) - packing.size:
        raise ValueError(f"the file ends or is damaged at byte {at} of {len(content)}")
    return packing.unpack_from(content, at)[0]


class Table:
    """A table in a flatbuffer, with checked access to its fields.

    Parameters
    ----------
    content
        The whole file.
    at
        Place of the table in it.

    Raises
    ------
    ValueError
        If the table or its vtable lies outside the file. All methods raise it for such places. The
        sentence does not name the file.
    """

    def __init__(self, content: bytes, at: int) -> None:
        self._content = content
        self._at = at
        self._vtable = at - _number(content, "int32", at)
        self._size = _number(content, "uint16", self._vtable)
        if self._size < _SMALLEST_VTABLE or self._vtable + self._size > len(content):
            raise ValueError(f"the file is damaged at byte {self._vtable}")

    def _place(self, slot: int) -> int:
        """Return the place of a field, 0 if it is absent."""
        if slot + 2 > self._size:
            return 0
        distance = _number(self._content, "uint16", self._vtable + slot)
        return self._at + distance if distance else 0

    def _target(self, slot: int) -> int:
        """Return the place that a field points at, 0 if it is absent."""
        place = self._place(slot)
        return place + _number(self._content, "uint32", place) if place else 0

    def number(self, slot: int, kind: str, default: float = 0) -> Any:
        """Return the value of a scalar field; `kind` is a numpy name such as "int32"."""
        place = self._place(slot)
        return _number(self._content, kind, place) if place else default

    def table(self, slot: int) -> "Table | None":
        """Return the table that a field points at, None if it is absent."""
        target = self._target(slot)
        return Table(self._content, target) if target else None

    def _vector(self, slot: int, size: int) -> tuple[int, int]:
        """Return place and length of a vector of elements of `size` bytes, (0, 0) if absent."""
        target = self._target(slot)
        if not target:
            return 0, 0
        length = _number(self._content, "uint32", target)
        start = target + _OFFSET
        if start + length * size > len(self._content):
            raise ValueError(
                f"a list at byte {target} reaches beyond the end of the file, at "
                f"{len(self._content)}"
            )
        return start, length

    def length(self, slot: int) -> int:
        """Return the length of a vector of tables, 0 if it is absent."""
        return self._vector(slot, _OFFSET)[1]

    def element(self, slot: int, index: int) -> "Table":
        """Return one table of a vector of tables.

        Raises
        ------
        ValueError
            If there is no such element.
        """
        start, length = self._vector(slot, _OFFSET)
        if not 0 <= index < length:
            raise ValueError(f"the file refers to number {index} of a list of {length}")
        place = start + index * _OFFSET
        return Table(self._content, place + _number(self._content, "uint32", place))

    def numbers(self, slot: int, kind: str, most: int) -> npt.NDArray[Any]:
        """Return a vector of at most `most` numbers without copying it, empty if it is absent."""
        dtype = np.dtype(kind).newbyteorder("<")
        start, length = self._vector(slot, dtype.itemsize)
        if length > most:
            raise ValueError(f"a list at byte {start} has {length} elements, more than {most}")
        return np.frombuffer(self._content, dtype, length, start)

    def text(self, slot: int) -> str:
        """Return the text of a field, "" if it is absent."""
        start, length = self._vector(slot, 1)
        shown = self._content[start : start + min(length, _LONGEST_TEXT)]
        return shown.decode("utf-8", errors="replace")


def root_table(content: bytes, identifier: bytes) -> Table:
    """Return the outermost table of a file.

    Parameters
    ----------
    content
        The whole file.
    identifier
        Four bytes that name the schema, at byte 4.

    Raises
    ------
    ValueError
        If the identifier is another, or the table lies outside the file.
    """
    if content[4:8] != identifier:
        raise ValueError(
            f"bytes 4 to 7 must be {identifier.decode()}, not {content[4:8].decode('latin-1')!r}"
        )
    return Table(content, _number(content, "uint32", 0))
