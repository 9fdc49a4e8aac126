"""The frame of all calls from Python: plug-ins, words and kinds of errors, and arguments' types."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fewbit.errors import UsageError, refusal
from fewbit.golden.words import in_words_of_python, on_one_line, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["as_path", "check_flag", "in_python", "load_plugins_once", "refuse_old_keywords"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_python(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Wrap a function so that a mistake is one sentence on one line, in the words of Python.

    What the system refuses, and a lack of memory, become mistakes of the user.
    """

    @functools.wraps(function)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            with in_words_of_python():
                return function(*args, **kwargs)
        except OSError as error:
            raise UsageError(refusal(error)) from error
        except MemoryError as error:
            raise UsageError("There is not enough memory for that many; take fewer.") from error
        except (UsageError, ValueError) as error:
            if len(error.args) == 1 and isinstance(error.args[0], str):
                error.args = (on_one_line(error.args[0]),)
            raise

    return wrapper


def as_path(name: str, value: object) -> Path:
    """Return a path that a file of the system may have, or refuse a value that is none.

    Raises
    ------
    UsageError
        If it is no text and no path, or holds characters that no name of a file has.
    """
    try:
        if isinstance(value, (str, os.PathLike)) and b"\0" not in os.fsencode(Path(value)):
            return Path(value)
    except (TypeError, ValueError):
        # It is a path of bytes, or has a character that no name has.
        pass
    raise UsageError(f"'{name}' must be a path, not {shown(value)}.")


def check_flag(name: str, value: object) -> None:
    """Refuse a value that is neither True nor False.

    Raises
    ------
    UsageError
        If it is anything else, such as the text "no", which Python would take for true.
    """
    if not isinstance(value, bool):
        raise UsageError(f"'{name}' must be True or False, not {shown(value)}.")


def refuse_old_keywords(names: Collection[str], known: Collection[str]) -> None:
    """Refuse keywords that had another name before 0.2, unless a parameter is called so.

    Raises
    ------
    UsageError
        If there is one.
    """
    from fewbit.golden.renamed import KEYWORDS, new_name

    for name in names:
        if name in KEYWORDS and name not in known:
            raise UsageError(new_name(f"'{name}'", f"'{KEYWORDS[name]}'"))


@functools.cache
def load_plugins_once() -> None:
    """Register the additions of installed packages, as the command does; later calls do nothing."""
    from fewbit.hdl.systems import load_plugins

    load_plugins()
