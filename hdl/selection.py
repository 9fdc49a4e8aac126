"""Choices by an index, for circuits that walk through a list which is known at generation."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from amaranth.hdl import Array, Const, Module, Value

__all__ = ["bits_of", "case", "choose", "is_one_of"]

_Item = TypeVar("_Item")


def case(m: Module, index: int, items: Sequence[object]) -> AbstractContextManager[None]:
    """Return the case of a switch for an item's index; the last item's is the default case."""
    return m.Default() if index == len(items) - 1 else m.Case(index)


def bits_of(count: int) -> int:
    """Return the bits of a number below a count; at least one."""
    return max(1, (count - 1).bit_length())


def is_one_of(index: Value, items: Sequence[_Item], condition: Callable[[_Item], bool]) -> Value:
    """Return whether the item at an index fulfils a condition."""
    chosen = [place for place, item in enumerate(items) if condition(item)]
    if len(chosen) == len(items):
        return Const(1, 1)
    return index.matches(*chosen) if chosen else Const(0, 1)


def choose(index: Value, values: Iterable[Value]) -> Value:
    """Return the value at an index."""
    listed = list(values)
    return listed[0] if len(listed) == 1 else Array(listed)[index]
