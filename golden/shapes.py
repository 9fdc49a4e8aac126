"""The shape that an array must have, checked once for reals and raws alike."""

from typing import Any

import numpy.typing as npt

__all__ = ["check_shape"]


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
