"""The parameters of a circuit: name, meaning, default and range, each stated in one place.

A contract (:mod:`fewbit.golden.contract`) declares its parameters as fields, made by `parameter`.
A parameter that changes the circuit but not its results, such as the number of its stages, is a
`Parameter` in the registry of designs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from fewbit.golden.checks import check_choice, check_whole, is_whole
from fewbit.golden.renamed import new_choice
from fewbit.golden.words import plain

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
    """A parameter that a design does not have, or a value that a parameter does not take."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a design: a whole number in a range, or one of a few words.

    Parameters
    ----------
    name
        The name that the user types.
    default
        The value where the user sets none.
    meaning
        The effect of the parameter, in a few words.
    minimum, maximum
        The range of a whole number, ends included.
    choices
        The allowed words; empty for a whole number.
    none_means
        The meaning of the value None (``none`` on the command line); None where that value is not
        allowed.
    """

    name: str
    default: Value
    meaning: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    none_means: str | None = None

    def __post_init__(self) -> None:
        """Refuse a parameter that does not take its own default.

        Raises
        ------
        TypeError
            If the default is not allowed, or the parameter has neither a range nor choices.
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
        """Return the the values that the parameter takes, in words."""
        if self.choices:
            return " or ".join(self.choices)
        numbers = f"{self.minimum} to {self.maximum}"
        return numbers + (", or none" if self.none_means else "")

    def take(self, value: Value) -> Value:
        """Return the value of a user's input: the text of a command line, or the value itself."""
        return self.parse(value) if isinstance(value, str) else self.check(value)

    def parse(self, text: str) -> Value:
        """Return the value that the text of a command line stands for."""
        if self.choices:
            return self.check(text)
        if self.none_means and text.lower() == "none":
            return None
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise self._refuse(text)
        return self.check(int(text))

    def check(self, value: Value) -> Value:
        """Return the value, a whole number as Python's, or refuse one that is not allowed."""
        if value is None and self.none_means:
            return value
        if self.choices:
            if isinstance(value, str) and value in self.choices:
                return value
        elif is_whole(value):
            value = int(value)
            assert self.minimum is not None
            assert self.maximum is not None
            if self.minimum <= value <= self.maximum:
                return value
        raise self._refuse(value)

    def _refuse(self, value: object) -> ParameterError:
        given = "none" if value is None else plain(value)
        return ParameterError(
            new_choice(self.name, value, self.choices)
            or f"Parameter '{self.name}' must be {self.allowed}, not {given}."
        )

    def check_field(self, name: str, value: Any) -> Value:
        """Return the value of a contract's field, a whole number as Python's, or refuse it.

        Raises
        ------
        ValueError
            If the parameter does not take the value.
        """
        if value is None and self.none_means:
            return None
        if not self.choices:
            assert self.minimum is not None
            assert self.maximum is not None
            return check_whole(name, value, self.minimum, self.maximum)
        check_choice(name, value, self.choices)
        return value


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
    """Return a dataclass field that is a parameter of the contract.

    Parameters
    ----------
    default, meaning, minimum, maximum, choices, none_means
        See `Parameter`.
    name
        The name that the user types; by default the name of the field.
    """
    said = Parameter(name, default, meaning, minimum, maximum, tuple(choices), none_means)
    return field(default=default, metadata={_KEY: said})


def parameters_of(contract: type, **defaults: Value) -> tuple[Parameter, ...]:
    """Return the parameters of a contract's class by its fields, in their order.

    Parameters
    ----------
    contract
        A dataclass; its fields that are no parameters are skipped.
    defaults
        Defaults that replace those of the fields.
    """
    return tuple(
        replace(said, name=said.name or name, default=defaults.get(name, said.default))
        for name, said in _said(contract)
    )


def check_parameters(contract: object) -> None:
    """Refuse a contract with a parameter out of its range; its ``__post_init__`` calls this.

    Whole numbers of numpy become Python's.

    Raises
    ------
    ValueError
        If a parameter doesn't take the value that its field has.
    """
    for name, said in _said(type(contract)):
        object.__setattr__(contract, name, said.check_field(name, getattr(contract, name)))


def field_names(contract: type) -> dict[str, str]:
    """Return the names of the contract's fields by the names of their parameters."""
    return {said.name or name: name for name, said in _said(contract)}


def _said(contract: type) -> list[tuple[str, Parameter]]:
    return [
        (each.name, each.metadata[_KEY])
        for each in fields(contract)
        if _KEY in each.metadata and each.default is not MISSING
    ]
