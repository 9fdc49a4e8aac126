"""What the registry holds of a design: its parameters, its golden contract and its circuit."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from amaranth.lib import wiring

from golden.contract import Contract

__all__ = ["Design", "Parameter", "ParameterError", "Timing", "Value"]

Value = int | str | None
"""A parameter's value: a whole number, a choice, or None where the parameter allows it."""


class ParameterError(ValueError):
    """A parameter that a design doesn't have, or a value that it doesn't take."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a design: a whole number in a range, or one of a few words."""

    name: str
    default: Value
    meaning: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    none_means: str | None = None
    """What None (``none`` on the command line) stands for; None itself where it isn't allowed."""

    @property
    def allowed(self) -> str:
        """The values that the parameter takes, in words."""
        if self.choices:
            return " or ".join(self.choices)
        numbers = f"{self.minimum} to {self.maximum}"
        return numbers + (", or none" if self.none_means else "")

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
        return ParameterError(f"Parameter '{self.name}' must be {self.allowed}, not {shown}.")


@dataclass(frozen=True)
class Timing:
    """Cycles of a circuit when nothing stalls it."""

    latency: str
    """Cycles from the last beat of a transaction to its result, as a number or in words."""
    interval: str
    """Cycles between beats, or between transactions, as a number or in words."""


@dataclass(frozen=True)
class Design:
    """A circuit that can be generated, checked and measured by its name.

    ``component`` and ``contract`` are factories: building the registry builds no circuit.
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    component: Callable[..., wiring.Component]
    contract: Callable[..., Contract]
    timing: Callable[..., Timing]
    transaction: str
    """What one result stands for: a beat, a row, a unit."""
    bench: str = "sim.bench_stream"
    is_baseline: bool = False
    """Whether it is only there to be compared with; the main job leaves it out."""

    def holding(self, image: bytes) -> "Design":
        """The design of a layer with a parameter image inside, which no packet changes.

        Parameters
        ----------
        image
            The image, as the layer's contract packs it.
        """
        return replace(
            self,
            summary=f"{self.summary}; the parameters are inside",
            component=partial(self.component, image=image),
            contract=partial(self.contract, image=image),
        )

    def resolve(self, settings: Mapping[str, Value | str]) -> dict[str, Value]:
        """All parameters, the defaults where ``settings`` says nothing.

        Texts are parsed, so settings may come straight from a command line.

        Raises
        ------
        ParameterError
            If a name is unknown or a value isn't allowed.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in settings:
            if name not in known:
                raise ParameterError(
                    f"{self.name} has no parameter '{name}'; it has {', '.join(known)}."
                )
        values: dict[str, Value] = {}
        for name, parameter in known.items():
            value = settings.get(name, parameter.default)
            parse = parameter.parse if isinstance(value, str) else parameter.check
            values[name] = parse(value)  # pyright: ignore[reportArgumentType]
        try:
            # Parameters that are allowed one by one may not be allowed together.
            self.contract(**values)
        except ValueError as error:
            raise ParameterError(str(error)) from error
        return values
