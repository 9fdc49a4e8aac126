"""Designs, the entries of the registry: contract, circuit and the parameters of both."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from typing import Any

from amaranth.lib import wiring

from fewbit.golden.contract import Contract
from fewbit.golden.parameter import Parameter, ParameterError, Value, field_names
from fewbit.golden.renamed import new_parameter
from fewbit.golden.words import shown
from fewbit.hdl.layer.cycles import StepCycles

__all__ = ["ConfiguredDesign", "Design", "Parameter", "ParameterError", "Timing", "Value"]


@dataclass(frozen=True)
class Timing:
    """The cycles of a circuit when nothing stalls it."""

    latency: str
    """Cycles from the last beat of a transaction to its result, as a number or in words."""
    interval: str
    """Cycles between beats, or between transactions, as a number or in words."""

    @staticmethod
    def of_step(cycles: StepCycles) -> "Timing":
        """Return the timing of a layer's time step in the words of a data sheet."""
        most = unless = ""
        if not cycles.is_exact:
            most = "at most "
            unless = f", unless {cycles.unless}" if cycles.unless else ""
        return Timing(
            f"{most}{cycles.first_byte} to the first byte of an answer and {cycles.last_byte} to"
            f" the last{unless}",
            f"{most}{cycles.interval} a step, {cycles.beats} of them with products{unless}",
        )


@dataclass(frozen=True)
class Design:
    """A circuit that can be generated, checked and measured by its name.

    ``component`` and ``contract`` are factories: building the registry builds no circuit.

    Parameters
    ----------
    name
        Name of the design, and of its Verilog module.
    summary
        One line that says what the circuit does.
    contract
        A function that makes the golden contract from the contract's fields by keyword.
    parameters
        The parameters of the contract.
    component
        A function that makes the circuit from a contract and the build's parameters by keyword.
    transaction
        The unit that one result stands for: a beat, a row, a hidden unit.
    build
        Parameters that change the circuit but not its results.
    timing
        A function from a contract, and the build's parameters by keyword, to the timing; None for
        a layer.
    cycles
        A function of the same arguments to the cycles of a layer's time step; None for other
        circuits.
    is_baseline
        Whether the design serves comparison only; the main job then leaves it out.

    Raises
    ------
    TypeError
        If the design has neither a timing nor cycles, or two parameters of one name.
    """

    name: str
    summary: str
    contract: Callable[..., Contract]
    parameters: tuple[Parameter, ...]
    component: Callable[..., wiring.Component]
    transaction: str
    build: tuple[Parameter, ...] = ()
    timing: Callable[..., Timing] | None = None
    cycles: Callable[..., StepCycles] | None = None
    is_baseline: bool = False

    def __post_init__(self) -> None:
        """Refuse an entry that lacks a part."""
        names = [parameter.name for parameter in self.all_parameters]
        if len(set(names)) < len(names):
            raise TypeError(f"{self.name} must not have two parameters of one name: {names}.")
        if not callable(self.contract) or not callable(self.component):
            raise TypeError(f"{self.name} must have factories of its contract and its component.")
        if (self.timing is None) == (self.cycles is None):
            raise TypeError(f"{self.name} must have either a timing or the cycles of a step.")

    @cached_property
    def fields(self) -> Mapping[str, str]:
        """Return the names of the contract's fields by those of the parameters."""
        own: Any = getattr(self.contract, "func", self.contract)
        return field_names(own) if is_dataclass(own) and isinstance(own, type) else {}

    @property
    def all_parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters of the contract, then those of the build."""
        return self.parameters + self.build

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names of parameters that the design does not have.

        Raises
        ------
        ParameterError
            If the design lacks a parameter.
        """
        known = [parameter.name for parameter in self.all_parameters]
        for each in names:
            if each not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise ParameterError(
                    new_parameter(each, known)
                    or f"{self.name} has no parameter {shown(each)}; {has}."
                )

    def configure(
        self,
        settings: Mapping[str, Value | str] | None = None,
        *,
        image: bytes | None = None,
        name: str | None = None,
    ) -> "ConfiguredDesign":
        """Return the design with all parameters set and checked.

        Parameters
        ----------
        settings
            Parameters that differ from their defaults. Texts are parsed, so they may come straight
            from a command line.
        image
            The image that is generated into a layer; None if the layer receives it in a packet.
        name
            Name of the Verilog module; by default that of the design.

        Raises
        ------
        ParameterError
            If a name is unknown or a value isn't allowed.
        """
        known = {parameter.name: parameter for parameter in self.all_parameters}
        given = settings or {}
        self.check_names(given)
        values: dict[str, Value] = {}
        for each, parameter in known.items():
            values[each] = parameter.take(given.get(each, parameter.default))
        own = {parameter.name: values[parameter.name] for parameter in self.parameters}
        fields: dict[str, Any] = {self.fields.get(each, each): own[each] for each in own}
        if image is not None:
            fields["image"] = image
        try:
            # Values that are allowed one by one may not be allowed in combination.
            contract = self.contract(**fields)
        except ValueError as error:
            raise ParameterError(str(error)) from error
        return ConfiguredDesign(self, contract, values, name or self.name)


@dataclass(frozen=True, eq=False)
class ConfiguredDesign:
    """A design with values for all its parameters, ready to be generated, checked and measured.

    Only `Design.configure` makes it, so all other code can rely on its checks.

    Parameters
    ----------
    design
        The registry's entry.
    contract
        The golden contract of the circuit.
    parameters
        All parameters by name.
    name
        Name of the Verilog module.
    """

    design: Design
    contract: Contract
    parameters: Mapping[str, Value]
    name: str

    @property
    def options(self) -> Mapping[str, Value]:
        """Return the parameters of the build alone, by name."""
        return {each.name: self.parameters[each.name] for each in self.design.build}

    @property
    def summary(self) -> str:
        """Return one line that says what the circuit does."""
        inside = getattr(self.contract, "image", None) is not None
        return self.design.summary + ("; the image is inside" if inside else "")

    @cached_property
    def cycles(self) -> StepCycles | None:
        """Return the cycles of a layer's time step; None for other circuits."""
        if self.design.cycles is None:
            return None
        return self.design.cycles(self.contract, **self.options)

    @cached_property
    def timing(self) -> Timing:
        """Return the cycles of the circuit when nothing stalls it."""
        if self.cycles is not None:
            return Timing.of_step(self.cycles)
        assert self.design.timing is not None
        return self.design.timing(self.contract, **self.options)

    def component(self) -> wiring.Component:
        """Return a new circuit each time, because a circuit can be elaborated only once."""
        return self.design.component(self.contract, **self.options)

    def holding(self, image: bytes) -> "ConfiguredDesign":
        """Return the layer with an image inside, which no packet can change.

        Raises
        ------
        fewbit.golden.layer.image.ImageError
            If the image is broken, or belongs to another layer.
        """
        contract: Any = self.contract
        return replace(self, contract=replace(contract, image=image))
