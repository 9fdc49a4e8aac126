"""Checks of arguments: whole numbers, choices, types and shapes of arrays."""

from numbers import Integral
from typing import Any, SupportsInt, TypeGuard

import numpy as np
import numpy.typing as npt

from fewbit.golden.renamed import new_choice
from fewbit.golden.words import shown

__all__ = [
    "as_raws",
    "as_shaped_raws",
    "check_choice",
    "check_shape",
    "check_whole",
    "freeze_array",
    "freeze_integer",
    "freeze_whole",
    "is_whole",
]


def check_shape(array: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> None:
    """Refuse an array that does not have `shape`, where -1 stands for any length.

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


def is_whole(value: object) -> TypeGuard[SupportsInt]:
    """Return whether a value is a whole number, Python's or numpy's, and no bool."""
    return not isinstance(value, bool) and isinstance(value, Integral)


def check_whole(name: str, value: object, minimum: int, maximum: int) -> int:
    """Return a whole number as Python's, or refuse what is none or out of range.

    Raises
    ------
    ValueError
        If it is no whole number, or lies outside ``minimum...maximum``.
    """
    if is_whole(value) and minimum <= int(value) <= maximum:
        return int(value)
    given = int(value) if is_whole(value) else value
    raise ValueError(
        f"{name} must be a whole number from {minimum} to {maximum}, not {shown(given)}."
    )


def freeze_whole(instance: object, name: str, minimum: int, maximum: int) -> None:
    """Replace a frozen instance's field by what `check_whole` returns.

    Raises
    ------
    ValueError
        If it is no whole number, or lies outside ``minimum...maximum``.
    """
    number = check_whole(name, getattr(instance, name), minimum, maximum)
    object.__setattr__(instance, name, number)


def freeze_array(
    instance: object, name: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    """Replace a frozen instance's field by a read-only copy, or refuse its type or shape.

    Raises
    ------
    ValueError
        If the array does not have exactly this type and this shape.
    """
    given = np.asarray(getattr(instance, name))
    if given.dtype != dtype:
        raise ValueError(f"{name} must be {np.dtype(dtype)}, not {given.dtype}.")
    if given.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {given.shape}.")
    kept = given.copy()
    kept.setflags(write=False)
    object.__setattr__(instance, name, kept)


def freeze_integer(instance: object, name: str, low: int, high: int) -> None:
    """Replace a frozen instance's field by a Python integer.

    Raises
    ------
    ValueError
        If the field is no integer, or lies outside ``low...high``.
    """
    value: object = getattr(instance, name)
    if not is_whole(value):
        raise ValueError(f"{name} must be an integer, not {shown(value)}.")
    number = int(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {shown(number)}.")
    object.__setattr__(instance, name, number)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of `choices`.

    Raises
    ------
    ValueError
        If the value is not among `choices`.
    """
    if isinstance(value, str) and value in choices:
        return
    listed = " or ".join(f'"{choice}"' for choice in choices)
    raise ValueError(
        new_choice(name, value, choices) or f"{name} must be {listed}, not {shown(value)}."
    )


def as_raws(raw: npt.ArrayLike, name: str, low: int, high: int) -> npt.NDArray[np.int64]:
    """Return integers as int64, or refuse what is no integer or lies outside `low` to `high`.

    Raises
    ------
    ValueError
        If `raw` holds no integers, or one outside ``low...high``.
    """
    given = np.asarray(raw)
    if given.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {given.dtype}; round them to raws first.")
    if given.size and not (low <= given.min() and given.max() <= high):
        offender = given.min() if given.min() < low else given.max()
        raise ValueError(f"{name} must be from {low} to {high}, not {offender}.")
    return given.astype(np.int64, copy=False)


def as_shaped_raws(
    raw: npt.ArrayLike, name: str, bounds: tuple[int, int], shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Return integers as int64, or refuse one outside `bounds` or a shape that is not `shape`.

    A length of -1 in `shape` stands for any length.

    Raises
    ------
    ValueError
        If `raw` holds no integers, one out of bounds, or has another shape.
    """
    given = as_raws(raw, name, *bounds)
    check_shape(given, name, shape)
    return given
