"""The table that joins both sides of a number system: the golden one and its layer's circuit."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.systems import SYSTEMS, NumberSystem, check_system, register_system, system_of
from fewbit.hdl.design import ConfiguredDesign, Design, ParameterError, Value
from fewbit.hdl.designs import DESIGNS, check_design, find, register_design

__all__ = ["PLUGINS", "PluginError", "configure_for", "load_plugins", "register"]

PLUGINS = "fewbit"
"""Group of the entry points by which an installed package adds number systems and designs."""


class PluginError(Exception):
    """A failure of an installed package to add its number systems or designs."""


def register(system: NumberSystem, design: Design | None = None) -> NumberSystem:
    """Register a number system with the design that runs its models.

    All commands and functions that use a model or a design's name then know both. A user's own
    package calls this function. Several systems may share a design.

    Parameters
    ----------
    system
        The golden side.
    design
        The layer's design; None if it is already in the registry.

    Raises
    ------
    TypeError
        If a name is taken, or system and design do not belong together.
    """
    known = DESIGNS.get(system.design) if design is None else design
    if known is None:
        raise TypeError(
            f"The number system '{system.name}' names the design '{system.design}', and there is"
            " none; register it with the system."
        )
    if known.name != system.design:
        raise TypeError(
            f"The number system '{system.name}' names the design '{system.design}', not"
            f" '{known.name}'."
        )
    if known.cycles is None:
        raise TypeError(f"{known.name} must say what a step takes, as every layer does.")
    names = {parameter.name for parameter in known.parameters}
    contract = known.configure().contract
    if not isinstance(contract, system.layer):
        raise TypeError(
            f"The layer of '{system.name}' is a {system.layer.__name__}, but {known.name} makes a"
            f" {type(contract).__name__}."
        )
    missing = [name for name in (*system.layer.chosen, *contract.settings) if name not in names]
    if missing:
        raise TypeError(
            f"The layer of '{system.name}' has a parameter {missing[0]}, but {known.name} has no"
            " such one."
        )
    check_design(known)
    check_system(system)
    register_design(known)
    return register_system(system)


def load_plugins() -> None:
    """Register the additions of installed packages: their entry points of the group ``fewbit``.

    Each entry point is a function without parameters that calls `register` or
    :func:`fewbit.hdl.designs.register_design`.

    Raises
    ------
    PluginError
        If an entry point cannot be loaded, or raises an exception.
    """
    for point in entry_points(group=PLUGINS):
        try:
            point.load()()
        except (Exception, SystemExit) as error:
            first = (str(error).splitlines() or [""])[0]
            reason = f"{type(error).__name__}: {first}".rstrip(". :")
            raise PluginError(
                f"The plug-in '{point.name}' ({point.value}) failed: {reason}; mend or uninstall"
                " its package."
            ) from error


def configure_for(
    model: Lstm,
    settings: Mapping[str, Value | str] | None = None,
    *,
    design: str | None = None,
    name: str | None = None,
) -> tuple[ConfiguredDesign, bytes]:
    """Return the design that runs a model, with all its parameters, and the model's image.

    Parameters
    ----------
    model
        A quantised LSTM.
    settings
        Parameters that the model leaves open: those in `LayerContract.chosen` and of the build.
        Texts are parsed.
    design
        Name of the design that the caller expects; None for any.
    name
        Name of the Verilog module; by default that of the design.

    Raises
    ------
    ValueError
        If the model is real, the design is another, a parameter follows from the model or isn't
        allowed, or the layer can't run the model.
    """
    system = system_of(model)
    if design is not None and design != system.design:
        raise ValueError(f"The model is one for {system.design}; generate that.")
    entry = find(system.design)
    known = {parameter.name: parameter for parameter in entry.all_parameters}
    build = {parameter.name for parameter in entry.build}
    chosen: dict[str, Any] = {}
    entry.check_names(settings or {})
    for each, value in (settings or {}).items():
        if each not in build and each not in system.layer.chosen:
            raise ParameterError(f"Parameter '{each}' follows from the model; leave it out.")
        if value is None and not known[each].none_means:
            # The user set the value that the model has anyway.
            continue
        if each not in build:
            chosen[each] = known[each].take(value)
    contract: LayerContract[Any] = system.contract_of(model, **chosen)
    own = {each: value for each, value in (settings or {}).items() if each in build}
    configured = entry.configure({**contract.settings, **own}, name=name)
    if configured.contract != contract:
        raise ValueError(
            f"{entry.name} makes another layer of the settings of '{system.name}': all fields of"
            f" {type(contract).__name__} but the image must be parameters."
        )
    return configured, contract.image_of(model)


for _system in SYSTEMS.values():
    register(_system)
