"""Shapes of arrays of reals and raws alike: the one that is wanted, and which steps are valid."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_shape", "valid_steps"]


def check_shape(array: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> None:
    """Refuse an array that hasn't `shape`, where -1 stands for any length.

    Raises
    ------
    ValueError
        If the number of axes or a length differs.
    """
    fits = array.ndim == len(shape) and all(
        wanted in {-1, length} for wanted, length in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = str(tuple("any" if length == -1 else length for length in shape)).replace("'", "")
        raise ValueError(f"{name} must have the shape {wanted}, not {array.shape}.")


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
