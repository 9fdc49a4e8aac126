"""A user's arrays, as Python objects or as ``.npy`` files, and the arrays that are written."""

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.errors import UsageError, write_bytes

__all__ = ["as_sequences", "read_array", "write_array"]

# The header as numpy writes it: after the magic come the version and the header's length.
_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4}
_LONGEST_HEADER = 1 << 16
_HEADER = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z]\d{1,3})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18},? ?)*)\), \} *\n"
)


def as_sequences(x: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return real numbers or integers of shape (batch, time, values) as an array.

    Raises
    ------
    UsageError
        If it is anything else, or there are no numbers in it.
    """
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise UsageError("x must be numbers of shape (batch, time, inputs).") from error
    if not _are_sequences(array.dtype, array.shape):
        raise UsageError(
            f"x must be numbers of shape (batch, time, inputs), not {array.dtype} of shape"
            f" {array.shape}."
        )
    return array


def _are_sequences(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return dtype.kind in "iuf" and len(shape) == 3 and 0 not in shape


def read_array(path: Path) -> npt.NDArray[Any]:
    """Read real numbers or integers of shape (batch, time, values) from an ``.npy`` file.

    Nothing in the file is evaluated, and no memory is allocated before its size is known to be
    right.

    Raises
    ------
    UsageError
        If the file can't be read, is damaged, or holds anything else.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"'{path}' is no file; name an .npy file.")
        with path.open("rb") as stream:
            dtype, order, shape = _header(path, stream)
            size = path.stat().st_size - stream.tell()
            if size != dtype.itemsize * math.prod(shape):
                raise UsageError(
                    f"'{path}' must hold {dtype.itemsize * math.prod(shape)} bytes of data, not "
                    f"{size}; save the array anew."
                )
            flat = np.fromfile(stream, dtype, math.prod(shape))
            return flat.reshape(shape, order=order).astype(dtype.newbyteorder("="))
    except OSError as error:
        raise UsageError(
            f"'{path}' can't be read ({error.strerror}); name an .npy file."
        ) from error


def _header(path: Path, stream: io.BufferedReader) -> tuple[np.dtype[Any], Any, tuple[int, ...]]:
    start = stream.read(len(_MAGIC) + 2)
    width = _LENGTH_BYTES.get(start[len(_MAGIC) :], 0)
    length = int.from_bytes(stream.read(width), "little")
    match = None
    if start.startswith(_MAGIC) and width and length <= _LONGEST_HEADER:
        match = _HEADER.fullmatch(stream.read(length))
    if match is None:
        raise UsageError(
            f"'{path}' must be an array of numbers as numpy.save writes it; save it anew."
        )
    try:
        dtype = np.dtype(match[1].decode())
    except TypeError as error:
        raise UsageError(
            f"'{path}' must hold numbers, not {match[1].decode()!r}; save it anew."
        ) from error
    shape = tuple(int(length) for length in match[3].replace(b",", b" ").split())
    if not _are_sequences(dtype, shape):
        raise UsageError(
            f"'{path}' must hold numbers of shape (batch, time, inputs), not {dtype} of shape "
            f"{shape}; save it so."
        )
    return dtype, "F" if match[2] == b"True" else "C", shape


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an ``.npy`` file whole or not at all.

    Raises
    ------
    UsageError
        If the file can't be written.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_bytes(path, content.getvalue())
