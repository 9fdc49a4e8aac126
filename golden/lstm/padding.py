"""Sequences of several lengths in one array: which of its time steps count."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["valid_steps"]


def valid_steps(padded: npt.NDArray[Any], lengths: npt.ArrayLike | None) -> npt.NDArray[np.bool_]:
    """Which steps of padded sequences are no padding, shape (batch, time).

    Parameters
    ----------
    padded
        Shape (batch, time, ...).
    lengths
        Number of steps that count in each sequence, shape (batch,); all if None.
    """
    batch, time = padded.shape[:2]
    counts = np.full(batch, time, np.int64) if lengths is None else np.asarray(lengths, np.int64)
    return np.less(np.arange(time, dtype=np.int64), counts[:, np.newaxis])
