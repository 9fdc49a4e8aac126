"""Archives of arrays: ``.npz`` files without pickles, from any source.

The reader trusts nothing in a file: it checks names, types, shapes and sizes before it makes an
array, and it never executes anything.
"""

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.lstm.contract import LONGEST_TEXT, REAL, StoredArray

__all__ = [
    "DAMAGED",
    "LARGEST_FILE",
    "Contents",
    "ForeignFile",
    "as_stored",
    "check_names",
    "check_version",
    "explained",
    "npy_header",
    "read_archive",
    "take_arrays",
    "write_archive",
]

Contents = dict[str, bytes]
"""Array files of an archive by array name, with their headers, not checked yet."""
LARGEST_FILE = 64 << 20
"""Largest number of bytes of a model file, on disk and also unpacked."""
_LONGEST_REASON = 100


def write_archive(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as an ``.npz`` file, whole or not at all.

    Raises
    ------
    ValueError
        If the file cannot be written, or would be larger than `LARGEST_FILE`.
    """
    target = Path(path)
    size = sum(array.nbytes for array in arrays.values())
    if size > LARGEST_FILE:
        raise ValueError(
            f"{target}: a model file must hold at most {LARGEST_FILE} bytes, not {size}; make the "
            "layer smaller."
        )
    _replace(target, arrays)


def as_stored(value: object, expected: StoredArray) -> npt.NDArray[Any]:
    """Return a value as the array that a file holds; reals are float32 where that is exact."""
    if expected.kinds == ("text",):
        return np.array(str(value))
    exact = np.asarray(value)
    if expected.kinds == REAL:
        with np.errstate(over="ignore", under="ignore"):
            rounded = exact.astype(np.float32)
        return rounded if np.array_equal(rounded, exact) else exact.astype(np.float64)
    return exact.astype(expected.kinds[0])


def _replace(target: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a file beside `target`, then rename it to `target`."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        draft.replace(target)
    except OSError as error:
        raise ValueError(
            f"{target}: cannot be written ({error.strerror or error}); name a file in a folder "
            "that can be written."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
"""The errors of zipfile and zlib for a damaged archive, encryption and unknown features."""


@contextmanager
def explained(path: str | os.PathLike[str], remedy: str) -> Generator[None]:
    """Turn any error while a file is read into one sentence that names the file.

    Raises
    ------
    ValueError
        For any error of the file, of the archive, or of a check.
    """
    source = Path(path)
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{source}: there is no such file; give the path of a model.") from error
    except OSError as error:
        raise ValueError(
            f"{source}: cannot be read ({error.strerror or error}); give the path of a model."
        ) from error
    except DAMAGED as error:
        # zipfile quotes names from the file, which may be 64 KiB long.
        reason = str(error)[:_LONGEST_REASON] or type(error).__name__
        raise ValueError(f"{source}: is no readable .npz archive ({reason}); {remedy}.") from error
    except ForeignFile as error:
        raise ValueError(f"{source}: {error}.") from error
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).rstrip('.')}; {remedy}.") from error


def read_archive(path: str | os.PathLike[str]) -> Contents:
    """Return the content of every array file of an ``.npz`` archive, read within `explained`.

    Raises
    ------
    ValueError
        If the archive is too large, or holds something else than arrays.
    """
    source = Path(path)
    if not source.is_file() and source.exists():
        raise ValueError("a model must be a file, not a folder or a device")
    size = source.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"a model file must hold at most {LARGEST_FILE} bytes, not {size}")
    contents: Contents = {}
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        # The sizes that the archive declares bound what zipfile unpacks.
        unpacked = sum(member.file_size for member in members)
        if unpacked > LARGEST_FILE:
            raise ValueError(
                f"the arrays must unpack to at most {LARGEST_FILE} bytes, but {unpacked} are "
                "declared"
            )
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise ValueError(f"the file {member.filename[:80]!r} in the archive is unknown")
            if name in contents:
                raise ValueError(f"{name} must be in the archive once, not twice")
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError(
                    f"{name} must be stored or deflated, not packed by method "
                    f"{member.compress_type}"
                )
            contents[name] = archive.read(member)
    return contents


class ForeignFile(ValueError):
    """A file that may be intact, but is not for this function or this installation.

    The sentence names the remedy.
    """


def check_names(contents: Contents, known: Callable[[str], bool]) -> None:
    """Refuse an array file whose name no file of this kind has.

    Raises
    ------
    ValueError
        If there is one.
    """
    for name in contents:
        if not known(name):
            raise ValueError(f"the file {name[:80] + '.npy'!r} in the archive is unknown")


def check_version(contents: Contents, name: str, newest: int) -> None:
    """Refuse a format version that this package cannot read, before any other check.

    Parameters
    ----------
    contents
        The contents from `read_archive`; the version is removed from them.
    name
        Name of the array that holds the version.
    newest
        The newest version that can be read; so can all others from 1 on.

    Raises
    ------
    ForeignFile
        If the file's version is newer.
    ValueError
        If the version is missing, or is no version.
    """
    version = take_arrays(contents, {name: StoredArray(("int32",))})[name]
    if version > newest:
        raise ForeignFile(
            f"its format is version {version}, and this fewbit reads versions up to {newest};"
            " install a newer fewbit"
        )
    if version < 1:
        raise ValueError(f"{name} must be at least 1, not {version}")


def take_arrays(
    contents: Contents,
    expected: Mapping[str, StoredArray],
    lengths: dict[str, int] | None = None,
    *,
    keep: bool = False,
) -> dict[str, Any]:
    """Decode the expected arrays, and remove them from `contents`; scalars become plain values.

    Parameters
    ----------
    contents
        The contents from `read_archive`.
    expected
        Type and shape of each array. An optional array that is missing is not in the result.
    lengths
        Lengths of named axes; those of new names are added to it.
    keep
        Whether the arrays stay in `contents`.

    Raises
    ------
    ValueError
        If an array is missing, or of a wrong type, shape or size.
    """
    taken: dict[str, Any] = {}
    known = {} if lengths is None else lengths
    for name, array in expected.items():
        if name not in contents:
            if array.optional:
                continue
            raise ValueError(f"{name} is missing")
        value = _decode(name, contents[name] if keep else contents.pop(name), array, known)
        if array.kinds == ("text",):
            taken[name] = _as_text(name, value, array.choices)
        else:
            taken[name] = value if array.shape else value.item()
    return taken


# The header as numpy writes it in version 1.0; the two bytes before it hold its length.
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_TEXT = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z]\d{1,6})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,9},? ?)*)\), \} *\n"
)
_KINDS = {
    "|i1": "int8",
    "<i2": "int16",
    "<i4": "int32",
    "|u1": "uint8",
    "<u2": "uint16",
    "<f4": "float32",
    "<f8": "float64",
    **{f"<U{length}": "text" for length in range(1, LONGEST_TEXT + 1)},
}


def _decode(
    name: str, content: bytes, expected: StoredArray, lengths: dict[str, int]
) -> npt.NDArray[Any]:
    """Return the array of an ``.npy`` file, after checking its header against `expected`.

    numpy's own reader evaluates the header as a Python literal and accepts all types and sizes. So
    little is allowed here that a pattern describes it.
    """
    header = npy_header(content)
    if header is None:
        raise ValueError(f"{name} must be an array as numpy writes it, in version 1.0 of .npy")
    descr, by_columns, shape, end = header
    kind = _KINDS.get(descr, descr)
    known = {axis: lengths[axis] for axis in expected.shape if axis in lengths}
    if kind not in expected.kinds or not _fits(shape, expected.shape, lengths):
        where = " and ".join(f"{axis} is {length}" for axis, length in known.items())
        condition = where and f", where {where}"
        raise ValueError(f"{name} must be {expected}{condition}, not {kind} of shape {shape}")
    dtype = np.dtype(descr)
    size = dtype.itemsize * math.prod(shape)
    if size != len(content) - end:
        raise ValueError(f"{name} must hold {size} bytes, not {len(content) - end}")
    flat = np.frombuffer(content, dtype, offset=end)
    return flat.reshape(shape, order="F" if by_columns else "C")


def npy_header(content: bytes) -> tuple[str, bool, tuple[int, ...], int] | None:
    """Return what the header of an ``.npy`` file says, without evaluating it.

    Returns
    -------
    descr, by_columns, shape, start
        The type as numpy writes it, such as "<i4"; whether the first axis runs fastest; the shape;
        and the place of the first number. None if the file is not as numpy writes it, version 1.0.
    """
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(content[len(_MAGIC) : start], "little")
    match = _HEADER_TEXT.fullmatch(content[start:end])
    if content[: len(_MAGIC)] != _MAGIC or match is None:
        return None
    shape = tuple(int(length) for length in match[3].replace(b",", b" ").split())
    return match[1].decode(), match[2] == b"True", shape, end


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...], lengths: dict[str, int]) -> bool:
    """Return whether `shape` fits `wanted`, and store the lengths of named axes in `lengths`."""
    if len(shape) != len(wanted):
        return False
    return all(
        length > 0
        and length == (want if isinstance(want, int) else lengths.setdefault(want, length))
        for length, want in zip(shape, wanted, strict=True)
    )


def _as_text(name: str, value: npt.NDArray[Any], choices: tuple[str, ...]) -> str:
    text = value.tobytes().decode("utf-32-le", errors="replace").rstrip("\0")
    if choices and text not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {listed}, not {text!r}")
    return text
