"""``fewbit run``: runs sequences through a model."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from fewbit.arrays import read_array, write_array
from fewbit.commands.arguments import Command, given, number_or_none
from fewbit.commands.display import progress
from fewbit.commands.models import add_model, enough_memory, layers_in_words, open_network
from fewbit.errors import check_target
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.systems import SYSTEMS, listed
from fewbit.hdl.design import Parameter
from fewbit.hdl.designs import DESIGNS
from fewbit.sequences import BACKENDS, chunks_of, run_sequences

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_model(command, ".tflite, .npz, .safetensors or .onnx")
    command.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="X.npy",
        help="raws or codes, or reals, of shape (batch, time, inputs)",
    )
    command.add_argument("--output", type=Path, required=True, metavar="Y.npy")
    command.add_argument(
        "--backend",
        choices=BACKENDS,
        default="golden",
        help="golden (default), or rtl: the generated layer in the simulator",
    )
    for name, parameters in _layer_parameters().items():
        _add_parameter(command, name, parameters)
    command.add_argument(
        "--activation",
        choices=get_args(ActivationKind),
        help="default: the model's own; gemmlowp, which is LiteRT's, for a .tflite",
    )
    command.add_argument(
        "--real", action="store_true", help="real numbers in and out of a quantised model"
    )


def _layer_parameters() -> dict[str, dict[str, Parameter]]:
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


def _rate(value: float) -> str:
    """Return a rate as text, below 10 with two digits: a simulator may take minutes for a step."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _run(options: argparse.Namespace) -> int:
    check_target(options.output)
    network = open_network(options)
    x = read_array(options.input)
    total = chunks_of(x, options.backend) * len(network.nodes)
    with progress("Running", total) as advance, enough_memory("take some at a time"):
        outcome = run_sequences(
            network,
            x,
            name=f"'{options.model}'",
            kind=options.backend,
            settings=given(options, _layer_parameters()),
            real=options.real,
            done=advance,
        )
    write_array(options.output, outcome.output)
    print(
        f"{options.model}: {layers_in_words(network)}, {x.shape} to {outcome.output.shape} in "
        f"{options.backend}, {_rate(outcome.steps_per_second)} steps a second"
    )
    return 0


COMMAND = Command("run", "run sequences through a model", _add_arguments, _run)
