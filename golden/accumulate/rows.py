"""Rows of a stream of beats: from ``first`` to ``last``, one sum each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]

__all__ = ["row_flags", "row_sums"]


def row_flags(beats: Codes) -> tuple[Codes, Codes]:
    """``first`` and ``last`` of rows one after the other, each of so many beats."""
    ends = np.cumsum(beats) - 1
    first, last = np.zeros((2, int(beats.sum())), dtype=np.int64)
    first[ends - beats + 1] = 1
    last[ends] = 1
    return first, last


def row_sums(terms: Codes, first: Codes, last: Codes) -> Codes:
    """Sum of the terms of each row, modulo 2**64: one for each beat with ``last``.

    A row runs from the latest beat with ``first`` up to its ``last``.

    Parameters
    ----------
    terms
        What each beat adds, shape (beats,).
    first, last
        Flags, shape (beats,); the first beat of all has ``first``.
    """
    # Running totals modulo 2**64 differ by the sum of a row, whatever came before it.
    running = np.cumsum(terms)
    starts = np.flatnonzero(first)
    ends = np.flatnonzero(last)
    start_of_end = starts[np.searchsorted(starts, ends, side="right") - 1]
    return running[ends] - (running[start_of_end] - terms[start_of_end])
