"""Settings of schemes and set-ups as a user types them: ``NAME=VALUE``."""

import types
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["parse_settings"]

_TRUTHS = {"true": True, "false": False}


def parse_settings(owner: type[Any], words: Iterable[str], what: str) -> dict[str, Any]:
    """Return the values of a dataclass's fields from words ``NAME=VALUE``.

    Parameters
    ----------
    owner
        The dataclass. Its fields are numbers, truth values, words or, between commas, numbers.
    words
        The words; each name once.
    what
        What has the settings, in an error, such as "The scheme ternary".

    Raises
    ------
    ValueError
        If a word is no setting, there is no such setting, one is set twice, or its value is of
        another type.
    """
    hints = get_type_hints(owner)
    names = [field.name for field in fields(owner)]
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"A setting must be NAME=VALUE, not '{word}'.")
        if name not in names:
            having = f"it has {', '.join(names)}" if names else "it has none"
            raise ValueError(f"{what} has no setting '{name}'; {having}.")
        if name in found:
            raise ValueError(f"Setting '{name}' is given twice; give it once.")
        found[name] = _value(name, text, hints[name])
    return found


def _value(name: str, text: str, hint: Any) -> Any:
    """Return the value that a text stands for under a type."""
    options = _options(hint)
    words = [
        word for option in options if get_origin(option) is Literal for word in get_args(option)
    ]
    if type(None) in options and text == "none":
        return None
    if bool in options:
        if text in _TRUTHS:
            return _TRUTHS[text]
        raise ValueError(f"{name} must be true or false, not '{text}'.")
    try:
        if int in options and float not in options:
            return int(text)
        if float in options:
            return float(text)
        if any(get_origin(option) is tuple for option in options):
            return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        kind = "a whole number" if int in options else "a number"
        none = " or none" if type(None) in options else ""
        raise ValueError(f"{name} must be {kind}{none}, not '{text}'.") from error
    if words and text not in words:
        none = ["none"] if type(None) in options else []
        raise ValueError(f"{name} must be {' or '.join([*words, *none])}, not '{text}'.")
    return text


def _options(hint: Any) -> list[Any]:
    """Return the types of a union, flat; aliases of unions within are opened."""
    if get_origin(hint) in {Union, types.UnionType}:
        return [option for each in get_args(hint) for option in _options(each)]
    return [hint]
