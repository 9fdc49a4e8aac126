"""What the registry holds of a design: its contract, its circuit and the parameters of both."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from typing import Any

from amaranth.lib import wiring

from fewbit.golden.contract import Contract
from fewbit.golden.parameter import Parameter, ParameterError, Value, field_names
from fewbit.golden.renamed import new_parameter
from fewbit.hdl.layer.cycles import StepCycles

__all__ = ["ConfiguredDesign", "Design", "Parameter", "ParameterError", "Timing", "Value"]


@dataclass(frozen=True)
class Timing:
    """Cycles of a circuit when nothing stalls it."""

    latency: str
    """Cycles from the last beat of a transaction to its result, as a number or in words."""
    interval: str
    """Cycles between beats, or between transactions, as a number or in words."""

    @staticmethod
    def of_step(cycles: StepCycles) -> "Timing":
        """What a data sheet says of a layer's time step."""
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
        Of the design, and of the module of its Verilog.
    summary
        What the circuit does, in a line.
    contract
        Makes the golden contract of its parameters by their fields' names.
    parameters
        Those of the contract.
    component
        Makes the circuit of a contract, and of the build's parameters by keyword.
    transaction
        What one result stands for: a beat, a row, a unit.
    build
        Parameters that decide how the circuit is built, and nothing of what it computes.
    timing
        Of a contract, and of the build's parameters by keyword; None for a layer.
    cycles
        What a layer takes for a time step, of the same; None for other circuits.
    is_baseline
        Whether it is only there to be compared with; the main job leaves it out.

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
        """Names of the contract's fields by those of the parameters."""
        own: Any = getattr(self.contract, "func", self.contract)
        return field_names(own) if is_dataclass(own) and isinstance(own, type) else {}

    @property
    def all_parameters(self) -> tuple[Parameter, ...]:
        """Parameters of the contract, then those of the build."""
        return self.parameters + self.build

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names of parameters that the design doesn't have.

        Raises
        ------
        ParameterError
            If it lacks one.
        """
        known = [parameter.name for parameter in self.all_parameters]
        for each in names:
            if each not in known:
                has = f"it has {', '.join(known)}" if known else "it has none"
                raise ParameterError(
                    new_parameter(each, known) or f"{self.name} has no parameter '{each}'; {has}."
                )

    def configure(
        self,
        settings: Mapping[str, Value | str] | None = None,
        *,
        image: bytes | None = None,
        name: str | None = None,
    ) -> "ConfiguredDesign":
        """The design with all parameters set and checked.

        Parameters
        ----------
        settings
            Parameters that differ from their defaults. Texts are parsed, so they may come straight
            from a command line.
        image
            The image that a layer holds for good; None where packets bring it.
        name
            Of the Verilog module, where it isn't the design's.

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
            # Parameters that are allowed one by one may not be allowed together.
            contract = self.contract(**fields)
        except ValueError as error:
            raise ParameterError(str(error)) from error
        return ConfiguredDesign(self, contract, values, name or self.name)


@dataclass(frozen=True, eq=False)
class ConfiguredDesign:
    """A design with all its parameters: what is generated, checked and measured.

    `Design.configure` makes it, once; everything else takes it as it is.

    Parameters
    ----------
    design
        The registry's entry.
    contract
        Its golden contract.
    parameters
        All parameters by name.
    name
        Of the Verilog module.
    """

    design: Design
    contract: Contract
    parameters: Mapping[str, Value]
    name: str

    @property
    def options(self) -> Mapping[str, Value]:
        """The parameters of the build alone."""
        return {each.name: self.parameters[each.name] for each in self.design.build}

    @property
    def summary(self) -> str:
        """What the circuit does, in a line."""
        inside = getattr(self.contract, "image", None) is not None
        return self.design.summary + ("; the image is inside" if inside else "")

    @cached_property
    def cycles(self) -> StepCycles | None:
        """What a layer takes for a time step; None for other circuits."""
        if self.design.cycles is None:
            return None
        return self.design.cycles(self.contract, **self.options)

    @cached_property
    def timing(self) -> Timing:
        """Cycles of the circuit when nothing stalls it."""
        if self.cycles is not None:
            return Timing.of_step(self.cycles)
        assert self.design.timing is not None
        return self.design.timing(self.contract, **self.options)

    def component(self) -> wiring.Component:
        """The circuit; a new one each time, as one can be elaborated once."""
        return self.design.component(self.contract, **self.options)

    def holding(self, image: bytes) -> "ConfiguredDesign":
        """The layer with an image inside, which no packet changes.

        Raises
        ------
        fewbit.golden.layer.image.ImageError
            If the image is broken or another layer's.
        """
        contract: Any = self.contract
        return replace(self, contract=replace(contract, image=image))
