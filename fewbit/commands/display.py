"""What commands show and write: tables, progress, and rows as JSON."""

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

__all__ = ["console", "figure", "progress", "table_of", "write_json"]


def figure(value: float) -> str:
    """Return a number with commas between thousands, and one place if it is no integer."""
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def console() -> Console:
    """Return standard output, as wide as the terminal."""
    # A pipe has no width of its own: let no figure be cut there.
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
        What is done, in a word.
    total
        Calls of the function given that make a whole.
    """
    columns: Iterable[Any] = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    terminal = Console(stderr=True)
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def write_json(path: Path | None, engine: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON, with the name and version of what made them; nothing without a path."""
    if path is not None:
        write_text(path, json.dumps({"engine": engine, "rows": rows}, indent=2) + "\n")
