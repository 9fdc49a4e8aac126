"""Words of errors: options as the command or as Python calls them, and values on one line."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["command_name", "in_words_of_python", "on_one_line", "option_name", "plain", "shown"]

_PYTHON: ContextVar[bool] = ContextVar("python", default=False)
_LONGEST = 60


@contextmanager
def in_words_of_python() -> Generator[None]:
    """Let errors in the body name keywords and functions, not options and commands."""
    token = _PYTHON.set(True)
    try:
        yield
    finally:
        _PYTHON.reset(token)


def option_name(name: str) -> str:
    """Return an option as its user writes it: ``--image-inside``, or ``'image_inside'``."""
    return f"'{name}'" if _PYTHON.get() else f"--{name.replace('_', '-')}"


def command_name(command: str) -> str:
    """Return a command as its user writes it: ``'fewbit run'``, or ``'fewbit.run'``."""
    return f"'fewbit{'.' if _PYTHON.get() else ' '}{command}'"


def on_one_line(text: str) -> str:
    """Return a text with its line ends and other invisible characters as escapes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def shown(value: object, longest: int = _LONGEST) -> str:
    """Return a value of any type as a short text on one line, as Python writes it."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        # A whole number may have too many digits, and a foreign class may do anything.
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def plain(value: object) -> str:
    """Return a value like `shown`, but a text of one line without quotes."""
    text = shown(value)
    return text[1:-1] if isinstance(value, str) and value and text == f"'{value}'" else text
