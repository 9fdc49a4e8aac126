"""The error of a user's mistake, and functions that write a file whole or not at all."""

import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from fewbit.golden.words import shown

__all__ = ["UsageError", "check_target", "refusal", "write_bytes", "write_files", "write_text"]

_LONGEST_PATH = 300


class UsageError(Exception):
    """A mistake of the user, in one sentence that names the offender and the remedy."""


def check_target(path: Path) -> Path:
    """Return the path, or refuse it if no file can be written there; nothing is created.

    Raises
    ------
    UsageError
        If it is a folder, or the folder that it is in is none or can't be written.
    """
    if path.name in ("", "..") or path.is_dir():
        raise UsageError(f"'{path}' is a folder; name a file in it.")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is not a folder; choose another place for '{path.name}'.")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"Folder '{folder}' can't be written; choose another one.")
    return path


def refusal(error: OSError) -> str:
    """Return the sentence about what the system refused, which names the file if there is one."""
    place = "" if error.filename is None else f" {shown(error.filename, _LONGEST_PATH)}"
    return f"The system refused{place}: {error.strerror or error}."


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and its folder if it is missing.

    Raises
    ------
    UsageError
        If the file can't be written.
    """
    write_files({path: text.encode()})


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder if it is missing.

    Raises
    ------
    UsageError
        If the file can't be written.
    """
    write_files({path: content})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write all files or none, each whole, and their folders if they are missing.

    All are written under other names first, so that only renaming may fail in between; files that
    were replaced by then are put back.

    Raises
    ------
    UsageError
        If a file can't be written.
    """
    for path in files:
        check_target(path)
    mark = f".fewbit-{os.getpid()}-{secrets.token_hex(8)}"
    drafts = {path: path.with_name(f"{mark}-{number}") for number, path in enumerate(files)}
    kept = {path: path.with_name(f"{mark}-{number}-old") for number, path in enumerate(files)}
    replaced: list[Path] = []
    path = next(iter(files), Path())
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Mode x: another's file, or a link, is never written through.
            with drafts[path].open("xb") as file:
                file.write(content)
        for path in files:
            if len(files) > 1:
                with suppress(FileNotFoundError):
                    path.rename(kept[path])
            replaced.append(path)
            drafts[path].replace(path)
    except BaseException as error:
        for each in replaced if len(files) > 1 else ():
            with suppress(OSError):
                _put_back(each, kept[each], drafts[each])
        if isinstance(error, OSError):
            raise UsageError(
                f"File '{path}' can't be written ({error.strerror}); choose another place."
            ) from error
        raise
    else:
        _remove(kept.values())
    finally:
        _remove(drafts.values())


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()


def _put_back(path: Path, old: Path, draft: Path) -> None:
    """Undo the replacement of a file, which may have been on the way."""
    try:
        old.replace(path)
    except FileNotFoundError:
        # There was none before; a draft that is still there has not come to its place.
        if not draft.exists():
            path.unlink(missing_ok=True)
