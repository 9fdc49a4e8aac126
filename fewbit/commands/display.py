"""Output of the commands: tables, progress, and rows as JSON."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fewbit.errors import write_text

__all__ = ["console", "figure", "progress", "progress_in_words", "table_of", "write_json"]


def figure(value: float) -> str:
    """Return a number as text, with commas between thousands, and one decimal if it needs any."""
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def console() -> Console:
    """Return standard output, as wide as the terminal."""
    # A pipe has no width. It gets a large one, so that no figure is cut off.
    return Console() if sys.stdout.isatty() else Console(width=160)


def table_of(*columns: str, right: int = 99) -> Table:
    """Return a table whose columns from number ``right`` on hold numbers."""
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(
            column.replace("_", " "),
            justify="right" if index >= right else "left",
            overflow="fold",
        )
    return table


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, and nothing elsewhere.

    Parameters
    ----------
    what
        The work in progress, in a word.
    total
        The number of calls of the returned function that fill the bar.
    """
    with progress_in_words(what) as show:
        done = itertools.count(1)
        show(0, total, what)
        yield lambda: show(next(done), total, what)


@contextmanager
def progress_in_words(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar on a terminal, with words that change, and nothing elsewhere.

    The function that is given takes the amount that is done, the whole, and the words.

    Parameters
    ----------
    what
        The words until it is called.
    """
    columns: Iterable[Any] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    terminal = Console(stderr=True)
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task(what)
        yield lambda done, total, words: bar.update(
            task, completed=done, total=total, description=words
        )


def write_json(path: Path | None, engine: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON, with the name and version of their engine; without a path do nothing."""
    if path is not None:
        write_text(path, json.dumps({"engine": engine, "rows": rows}, indent=2) + "\n")
