"""The results of a campaign: a JSON object for each job, and the committed ones of this project."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from fewbit.errors import UsageError

__all__ = ["RESULTS", "Row", "committed_results", "key_of", "read_results"]

Row = dict[str, Any]
"""One job's results: the fields that `fewbit.accuracy.measure.measured` returns."""
RESULTS = "results.jsonl"
"""The name of the file of results, in a campaign's folder and in this package."""


def key_of(row: Mapping[str, Any]) -> tuple[str, int]:
    """Return experiment and seed of a row."""
    return row["experiment"], row["seed"]


def committed_results() -> list[Row]:
    """Return the results that come with this package."""
    return _parsed((files("fewbit.accuracy") / RESULTS).read_text("utf-8"), RESULTS)


def read_results(path: Path) -> list[Row]:
    """Return the results of a file; none if there is no file.

    Raises
    ------
    UsageError
        If the file holds anything else.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' can't be read as the results of a campaign.") from error
    return _parsed(text, str(path))


def _parsed(text: str, name: str) -> list[Row]:
    rows: dict[tuple[str, int], Row] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
            rows[key_of(row)] = row
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"Line {number} of '{name}' is no result of a campaign; take the line out."
            ) from error
    return list(rows.values())
