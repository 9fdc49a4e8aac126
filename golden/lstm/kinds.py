"""The classes of LSTMs by the names that stand for them in model files."""

import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from fewbit.golden.lstm.contract import LONGEST_TEXT, Lstm, StoredArray
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.ternary import TernaryLstm

__all__ = ["KINDS", "check_kind", "check_kind_is_free", "register_kind"]

Kind = TypeVar("Kind", bound=type[Lstm])

KINDS: dict[str, type[Lstm]] = {}
"""Classes of LSTMs by their kind, the name in a model file."""

_HEADER = frozenset({"kind", "version", "network_version", "outputs", "sources", "reverse", "name"})
"""Arrays that a file has beside those of its layers."""


def register_kind(lstm: Kind) -> Kind:
    """Register a class so that its models can be saved and loaded; also a decorator.

    The same class may be registered again.

    Raises
    ------
    TypeError
        If `check_kind` refuses the class, or its kind is taken.
    """
    check_kind(lstm)
    check_kind_is_free(lstm)
    KINDS[lstm.kind] = lstm
    return lstm


def check_kind_is_free(lstm: type[Lstm]) -> None:
    """Refuse a class whose kind stands for another class.

    Raises
    ------
    TypeError
        If another class has this kind.
    """
    known = KINDS.get(lstm.kind, lstm)
    if known is not lstm:
        raise TypeError(
            f"The kind '{lstm.kind}' is {known.__name__}'s already, not {lstm.__name__}'s."
        )


def check_kind(lstm: type[Lstm]) -> None:
    """Refuse a class whose models a file could not hold.

    Raises
    ------
    TypeError
        If the class is abstract or no dataclass, lacks a kind, a title or the description of its
        fields, or has a field with a name that files use otherwise.
    """
    given: Any = lstm
    if not (inspect.isclass(given) and issubclass(given, Lstm)):
        raise TypeError(
            f"An LSTM's class must inherit from fewbit.golden.lstm.contract.Lstm, not be {lstm!r}."
        )
    name = lstm.__name__
    if inspect.isabstract(lstm):
        lacking = ", ".join(sorted(lstm.__abstractmethods__))
        raise TypeError(f"{name} must define {lacking} before it is registered.")
    for needed in ("kind", "title", "stored"):
        if not hasattr(lstm, needed):
            raise TypeError(
                f"{name} must have a class variable '{needed}'; see"
                " fewbit.golden.lstm.contract.Lstm."
            )
    kind: Any = lstm.kind
    title: Any = lstm.title
    arrays: dict[str, Any] = dict(lstm.stored)
    if not isinstance(kind, str) or not re.fullmatch(
        rf"[a-z][a-z0-9_]{{0,{LONGEST_TEXT - 1}}}", kind
    ):
        raise TypeError(
            f"{name}.kind must be at most {LONGEST_TEXT} small letters, digits and _, not {kind!r}."
        )
    if not isinstance(title, str) or not title:
        raise TypeError(f"{name}.title must be a word that sentences use, not {title!r}.")
    if not all(isinstance(each, StoredArray) for each in arrays.values()):
        raise TypeError(f"{name}.stored must have a StoredArray for each field.")
    if not is_dataclass(lstm):
        raise TypeError(f"{name} must be a dataclass, whose fields are what a file holds.")
    own = {field.name: field for field in fields(lstm) if field.init}
    if set(own) != set(lstm.stored):
        wrong = min(set(own) ^ set(lstm.stored))
        raise TypeError(f"{name}.stored must name the fields of the class, but '{wrong}' is not.")
    for field, array in lstm.stored.items():
        if field in _HEADER or field.startswith("read_out_"):
            raise TypeError(f"{name} must not call a field '{field}': model files use the name.")
        has_default = (own[field].default, own[field].default_factory) != (MISSING, MISSING)
        if array.optional and not has_default:
            raise TypeError(f"{name}.{field} may be missing in a file, so it must have a default.")


for _lstm in (Float64Lstm, Int8Lstm, FloatSD8Lstm, TernaryLstm):
    register_kind(_lstm)
