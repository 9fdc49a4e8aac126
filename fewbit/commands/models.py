"""Arguments and checks of the commands that open a model or write one."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fewbit.commands.arguments import number_or_none
from fewbit.errors import UsageError
from fewbit.golden.network import Network
from fewbit.golden.systems import SYSTEMS, listed
from fewbit.golden.words import on_one_line
from fewbit.hdl.design import Parameter
from fewbit.hdl.designs import DESIGNS
from fewbit.models import open_model

__all__ = [
    "add_layer_parameters",
    "add_model",
    "enough_memory",
    "layer_parameters",
    "layers_in_words",
    "open_network",
    "rate",
]


def add_model(command: argparse.ArgumentParser, endings: str) -> None:
    """Add the argument of a model's file, and the option that picks one of the file's LSTMs."""
    command.add_argument("model", type=Path, metavar="MODEL", help=f"a {endings} file")
    command.add_argument(
        "--lstm", metavar="NAME", help="which LSTM of the file, by name or index; commas between"
    )


def open_network(options: argparse.Namespace) -> Network:
    """Open the model that the user has named, and show the reader's warnings."""
    # The option of `quantize` of the same name is for the new model, not for the one that is read.
    activation = None if options.command == "quantize" else options.activation
    imported = open_model(options.model, options.lstm, activation)
    for warning in imported.warnings:
        print(on_one_line(f"Warning: {warning}."), file=sys.stderr)
    return imported.network


def layers_in_words(network: Network) -> str:
    """Return the number of a network's layers in words, such as "2 layers"."""
    return f"{network.layers} layer{'s' * (network.layers > 1)}"


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Turn a lack of memory in the body into a user's mistake, with advice."""
    try:
        yield
    except MemoryError as error:
        raise UsageError(f"There is not enough memory for so many sequences; {advice}.") from error


def add_layer_parameters(command: argparse.ArgumentParser) -> None:
    """Add an option for each parameter of layers that a model leaves open."""
    for name, parameters in layer_parameters().items():
        _add_parameter(command, name, parameters)


def layer_parameters() -> dict[str, dict[str, Parameter]]:
    """Return the parameters of layers that a model leaves open, by parameter and design."""
    found: dict[str, dict[str, Parameter]] = {}
    for system in SYSTEMS.values():
        design = DESIGNS.get(system.design)
        for parameter in design.parameters if design else ():
            if parameter.name in system.layer.chosen:
                found.setdefault(parameter.name, {})[system.design] = parameter
    return found


def _add_parameter(
    command: argparse.ArgumentParser, name: str, parameters: Mapping[str, Parameter]
) -> None:
    """Add a parameter of the generated layer, which some designs have."""
    meanings = {parameter.meaning for parameter in parameters.values()}
    meaning = meanings.pop() if len(meanings) == 1 else "see 'fewbit designs'"
    designs = {system.design for system in SYSTEMS.values()}
    which = "" if len(parameters) == len(designs) else f" {listed(list(parameters))}"
    choices = tuple(dict.fromkeys(word for each in parameters.values() for word in each.choices))
    command.add_argument(
        f"--{name.replace('_', '-')}",
        type=str if choices else number_or_none,
        choices=choices or None,
        help=f"of the generated layer{which}: {meaning}".replace("%", "%%"),
    )


def rate(value: float) -> str:
    """Return a rate as text, below 10 with two digits: a simulator may take minutes for a step."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
