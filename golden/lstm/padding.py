"""Padding: the valid time steps of sequences of several lengths in one array."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["valid_steps"]


def valid_steps(padded: npt.NDArray[Any], lengths: npt.ArrayLike | None) -> npt.NDArray[np.bool_]:
    """Return which time steps of padded sequences are valid, shape (batch, time).

    Parameters
    ----------
    padded
        Shape (batch, time, ...).
    lengths
        Number of valid time steps in each sequence, shape (batch,); None for all.
    """
    batch, time = padded.shape[:2]
    counts = np.full(batch, time, np.int64) if lengths is None else np.asarray(lengths, np.int64)
    return np.less(np.arange(time, dtype=np.int64), counts[:, np.newaxis])
