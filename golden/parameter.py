"""The parameters of a circuit: name, meaning, default and range, each said in one place.

A contract (:mod:`fewbit.golden.contract`) says them with its fields, by `parameter`; what only
decides how a circuit is built, such as the number of its stages, is a `Parameter` beside them in
the registry of designs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from fewbit.golden.checks import check_choice, check_whole
from fewbit.golden.renamed import new_choice

__all__ = [
    "Parameter",
    "ParameterError",
    "Value",
    "check_parameters",
    "parameter",
    "parameters_of",
]

Value = int | str | None
"""A parameter's value: a whole number, a choice, or None where the parameter allows it."""

_KEY = "parameter"


class ParameterError(ValueError):
    """A parameter that a design doesn't have, or a value that it doesn't take."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a design: a whole number in a range, or one of a few words.

    Parameters
    ----------
    name
        What the user calls it.
    default
        Its value where nothing else is said.
    meaning
        What it decides, in a few words.
    minimum, maximum
        The range of a whole number, ends included.
    choices
        The words, where it is one of some.
    none_means
        What None (``none`` on the command line) stands for; None itself where it isn't allowed.
    """

    name: str
    default: Value
    meaning: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    none_means: str | None = None

    def __post_init__(self) -> None:
        """Refuse a parameter that doesn't take its own default.

        Raises
        ------
        TypeError
            If it doesn't, or has neither a range nor choices.
        """
        if not self.choices and (self.minimum is None or self.maximum is None):
            raise TypeError(f"Parameter '{self.name}' must have a range or choices.")
        if self.default is not None:
            try:
                self.check(self.default)
            except ParameterError as error:
                raise TypeError(f"The default: {error}") from error

    @property
    def allowed(self) -> str:
        """The values that the parameter takes, in words."""
        if self.choices:
            return " or ".join(self.choices)
        numbers = f"{self.minimum} to {self.maximum}"
        return numbers + (", or none" if self.none_means else "")

    def take(self, value: Value) -> Value:
        """The value of what a user gave: a command line's text, or the value itself."""
        return self.parse(value) if isinstance(value, str) else self.check(value)

    def parse(self, text: str) -> Value:
        """Value of a command line's text."""
        if self.choices:
            return self.check(text)
        if self.none_means and text.lower() == "none":
            return None
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise self._refuse(text)
        return self.check(int(text))

    def check(self, value: Value) -> Value:
        """The value, refused unless the parameter takes it."""
        if value is None and self.none_means:
            return value
        if self.choices:
            valid = value in self.choices
        else:
            valid = isinstance(value, int) and not isinstance(value, bool)
            if isinstance(value, int) and self.minimum is not None and self.maximum is not None:
                valid = valid and self.minimum <= value <= self.maximum
        if not valid:
            raise self._refuse(value)
        return value

    def _refuse(self, value: object) -> ParameterError:
        shown = "none" if value is None else value or repr(value)
        return ParameterError(
            new_choice(self.name, value, self.choices)
            or f"Parameter '{self.name}' must be {self.allowed}, not {shown}."
        )

    def check_field(self, name: str, value: object) -> None:
        """Refuse a value that a contract's field of this name was given.

        Raises
        ------
        ValueError
            If the parameter doesn't take it.
        """
        if value is None and self.none_means:
            return
        if not self.choices:
            assert self.minimum is not None
            assert self.maximum is not None
            check_whole(name, value, self.minimum, self.maximum)
        else:
            check_choice(name, value, self.choices)


def parameter(
    default: Value,
    meaning: str,
    minimum: int | None = None,
    maximum: int | None = None,
    *,
    choices: Iterable[str] = (),
    none_means: str | None = None,
    name: str = "",
) -> Any:
    """A dataclass field that is a parameter of the contract.

    Parameters
    ----------
    default, meaning, minimum, maximum, choices, none_means
        See `Parameter`.
    name
        What the user calls it, where that isn't the field's name.
    """
    said = Parameter(name, default, meaning, minimum, maximum, tuple(choices), none_means)
    return field(default=default, metadata={_KEY: said})


def parameters_of(contract: type, **defaults: Value) -> tuple[Parameter, ...]:
    """Parameters of a contract's class by its fields, in their order.

    Parameters
    ----------
    contract
        A dataclass; fields that are no parameters are passed over.
    defaults
        Defaults in place of the fields' own.
    """
    return tuple(
        replace(said, name=said.name or name, default=defaults.get(name, said.default))
        for name, said in _said(contract)
    )


def check_parameters(contract: object) -> None:
    """Refuse a contract with a parameter out of its range; called by its ``__post_init__``.

    Raises
    ------
    ValueError
        If a parameter doesn't take the value that its field has.
    """
    for name, said in _said(type(contract)):
        said.check_field(name, getattr(contract, name))


def field_names(contract: type) -> dict[str, str]:
    """Names of the contract's fields by those that the user calls the parameters."""
    return {said.name or name: name for name, said in _said(contract)}


def _said(contract: type) -> list[tuple[str, Parameter]]:
    return [
        (each.name, each.metadata[_KEY])
        for each in fields(contract)
        if _KEY in each.metadata and each.default is not MISSING
    ]
