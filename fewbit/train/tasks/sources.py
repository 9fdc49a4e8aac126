"""Readers of a user's files: sizes are checked before memory is taken, nothing is executed."""

import gzip
import os
import zlib
from pathlib import Path

from fewbit.golden.words import on_one_line, option_name
from fewbit.train.tasks.task import DataError

__all__ = ["LARGEST_DATA", "check_path", "file_of_part", "read_bytes", "read_text"]

LARGEST_DATA = 512 << 20
"""Largest number of bytes of a data file, unpacked."""
_CHUNK = 1 << 20


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
