"""The error of a user's mistake, and functions that write a file whole or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

__all__ = ["UsageError", "check_target", "write_bytes", "write_text"]


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


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and its folder if it is missing.

    Raises
    ------
    UsageError
        If the file can't be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and its folder if it is missing.

    Raises
    ------
    UsageError
        If the file can't be written.
    """
    partial: Path | None = None
    try:
        check_target(path).parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".fewbit-", delete=False) as file:
            partial = Path(file.name)
            file.write(content)
        # Only its owner may read a temporary file. It gets the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise UsageError(
            f"File '{path}' can't be written ({error.strerror}); choose another place."
        ) from error
