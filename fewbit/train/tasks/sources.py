"""Readers of a user's files: sizes are checked before memory is taken, nothing is executed."""

import gzip
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.files.archive import DAMAGED, npy_header
from fewbit.golden.words import on_one_line, option_name
from fewbit.train.tasks.task import DataError

__all__ = [
    "LARGEST_DATA",
    "check_path",
    "file_of_part",
    "lines_of",
    "part_files",
    "read_arrays",
    "read_bytes",
    "read_idx",
    "read_text",
]

LARGEST_DATA = 512 << 20
"""Largest number of bytes of a data file, unpacked."""
_CHUNK = 1 << 20
_TYPES = frozenset({"b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))}) | {
    *("f2", "f4", "f8")
}


def check_path(path: Path | None, task: str, needs: str) -> Path:
    """Return the path of a task's data, or refuse a missing one.

    Raises
    ------
    DataError
        If no path is given, or there is nothing.
    """
    if path is None:
        flag = option_name("data")
        raise DataError(f"The task {task} needs data; give {flag}, the path of {needs}.")
    if not path.exists():
        raise DataError(f"'{path}' is not there; give the path of {needs}.")
    return path


def read_bytes(path: Path, largest: int = LARGEST_DATA) -> bytes:
    """Return the bytes of a file, unpacked if its name ends in .gz.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, is damaged, or is larger than `largest`.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"'{path}' is no file; name a file.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            parts: list[bytes] = []
            size = 0
            while part := stream.read(_CHUNK):
                size += len(part)
                if size > largest:
                    raise DataError(
                        f"'{path}' must hold at most {largest} bytes unpacked; take a part of it."
                    )
                parts.append(part)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        reason = on_one_line(str(error))
        raise DataError(f"'{path}' is a damaged gzip file ({reason}); fetch it anew.") from error
    except OSError as error:
        raise DataError(
            f"'{path}' can't be read ({error.strerror or error}); name a file that can."
        ) from error
    if not parts:
        raise DataError(f"'{path}' is empty; fetch it anew.")
    return b"".join(parts)


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, unpacked if its name ends in .gz.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, is damaged, is too large, or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is not UTF-8 at byte {error.start}; convert it to UTF-8."
        ) from error


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends, which are line feeds and nothing else.

    A carriage return before a line feed belongs to the end.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def file_of_part(folder: Path, words: tuple[str, ...], endings: tuple[str, ...]) -> Path:
    """Return the one file of a folder whose name has one of some words and endings.

    Parameters
    ----------
    folder
        The folder.
    words
        The words, small letters; large ones in a file's name count as well.
    endings
        The endings that a file's name may have, apart from .gz; () for any.

    Raises
    ------
    DataError
        If there is no such file, or more than one.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise DataError(
            f"'{folder}' can't be read ({error.strerror or error}); name a folder that can."
        ) from error
    found = [
        name
        for name in names
        if any(word in name.lower() for word in words)
        and (not endings or name.lower().removesuffix(".gz").endswith(endings))
    ]
    listed = " or ".join(f"'{word}'" for word in words)
    if not found:
        ending = f" and the ending {' or '.join(endings)}" if endings else ""
        raise DataError(f"'{folder}' has no file with {listed} in its name{ending}; add it.")
    if len(found) > 1:
        raise DataError(
            f"'{folder}' has {len(found)} files with {listed} in their names, '{found[0]}' and"
            f" '{found[1]}' among them; leave one."
        )
    return folder / found[0]


def part_files(folder: Path, endings: tuple[str, ...] = ()) -> tuple[Path, Path, Path]:
    """Return the files of a folder to train, to validate and to test on, by their names.

    Raises
    ------
    DataError
        If one is missing, or there are several for a part.
    """
    return (
        file_of_part(folder, ("train",), endings),
        file_of_part(folder, ("valid", "dev"), endings),
        file_of_part(folder, ("test",), endings),
    )


def read_idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file, unpacked if its name ends in .gz.

    An IDX file begins with two zeros, the type (8 for unsigned bytes), the number of axes, and the
    length of each axis as a big-endian word of 32 bits; the numbers follow.

    Parameters
    ----------
    path
        The file.
    axes
        The number of axes that it must have.

    Raises
    ------
    DataError
        If the file is no such file, or its size is not what its header says.
    """
    content = read_bytes(path)
    start = 4 + 4 * axes
    if content[:4] != bytes([0, 0, 8, axes]) or len(content) < start:
        raise DataError(
            f"'{path}' must be an IDX file of unsigned bytes with {axes} axes; fetch it anew."
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    size = math.prod(shape)
    if 0 in shape or size != len(content) - start:
        raise DataError(
            f"'{path}' must hold {size} bytes after its header, as its sizes {shape} say, and at"
            f" least one, not {len(content) - start}; fetch it anew."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_arrays(path: Path, kinds: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    """Return some arrays of an .npz file; others are ignored, and nothing is unpickled.

    Parameters
    ----------
    path
        The file.
    kinds
        The kinds that each array's type may have, as `numpy.dtype.kind` tells them, such as "iu".

    Raises
    ------
    DataError
        If the file is damaged or too large, an array is missing, or of another kind.
    """
    content = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: _member(path, archive, name, kind) for name, kind in kinds.items()}
    except DataError:
        raise
    # Some damage is a ValueError, of zipfile or of numpy.
    except (*DAMAGED, ValueError) as error:
        reason = on_one_line(str(error)[:100]) or type(error).__name__
        raise DataError(f"'{path}' is no readable .npz file ({reason}); fetch it anew.") from error


def _member(path: Path, archive: zipfile.ZipFile, name: str, kinds: str) -> npt.NDArray[Any]:
    try:
        member = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        raise DataError(f"'{path}' has no array '{name}'; give a file that has it.") from error
    # The size that the archive declares bounds what zipfile unpacks.
    if member.file_size > LARGEST_DATA:
        raise DataError(
            f"'{path}' must hold at most {LARGEST_DATA} bytes in '{name}', not {member.file_size};"
            " take a part of it."
        )
    content = archive.read(member)
    header = npy_header(content)
    if header is None:
        raise DataError(f"'{path}' must hold '{name}' as numpy.savez writes it; fetch it anew.")
    descr, by_columns, shape, start = header
    # A type is |b1 or <f2: a letter and few digits, which numpy knows or not.
    known = descr[1] in kinds and descr[1:] in _TYPES
    size = int(descr[2:]) * math.prod(shape)
    if not known or not shape or 0 in shape or size != len(content) - start:
        raise DataError(
            f"'{path}' must hold numbers of kind {' or '.join(kinds)} in '{name}', and at least"
            f" one, not {descr} of shape {shape} in {len(content) - start} bytes; fetch it anew."
        )
    flat = np.frombuffer(content, np.dtype(descr), offset=start)
    return flat.reshape(shape, order="F" if by_columns else "C")
