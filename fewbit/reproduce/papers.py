"""The list of all papers whose claims are reproduced."""

from collections.abc import Iterable

from fewbit.errors import UsageError
from fewbit.reproduce import accuracy, dynamic_precision, floatsd8, ternary
from fewbit.reproduce.claims import Paper

__all__ = ["PAPERS", "find_papers"]

PAPERS = {
    paper.name: paper
    for paper in (floatsd8.PAPER, ternary.PAPER, dynamic_precision.PAPER, accuracy.PAPER)
}
"""All papers by their short names, and all papers' accuracy."""


def find_papers(names: Iterable[str]) -> list[Paper]:
    """Return the papers of these names, or all papers if there is no name.

    Raises
    ------
    UsageError
        If there is no paper of a name.
    """
    for name in names:
        if name not in PAPERS:
            raise UsageError(f"There is no paper '{name}'; there are {', '.join(PAPERS)}.")
    return [PAPERS[name] for name in dict.fromkeys(names)] or list(PAPERS.values())
