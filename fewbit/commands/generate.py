"""``fewbit generate``: writes Verilog and data sheets, of designs or of a model's layers."""

import argparse
from pathlib import Path
from typing import get_args

from fewbit.commands.arguments import Command, add_designs, add_settings
from fewbit.commands.models import open_network
from fewbit.errors import UsageError
from fewbit.golden.activation.integer import ActivationKind
from fewbit.sim import yosys

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_designs(command, fewest=1)
    add_settings(command)
    command.add_argument(
        "--out", type=Path, default=Path("build/verilog"), metavar="DIR", help="folder to write to"
    )
    command.add_argument(
        "--model",
        type=Path,
        metavar="MODEL",
        help="a quantised .npz or .tflite: the layer that runs it, and its image",
    )
    command.add_argument(
        "--lstm", metavar="NAME", help="which LSTM of the model, by name or index; commas between"
    )
    command.add_argument(
        "--activation", choices=get_args(ActivationKind), help="in place of the model's own"
    )
    command.add_argument(
        "--image-inside",
        action="store_true",
        help="the circuit holds the model's parameters for good",
    )


def _run(options: argparse.Namespace) -> int:
    from fewbit.generation import generate, generate_model

    for name in ("lstm", "activation", "image_inside"):
        if options.model is None and getattr(options, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} goes with --model; give the model, too.")
    if options.model is None:
        yosys.warm_up()
        paths = generate(options.designs, options.out)
    else:
        if len(options.designs) != 1:
            raise UsageError("Name one design with --model: the layer of the model's kind.")
        network = open_network(options)
        yosys.warm_up()
        paths = generate_model(
            options.designs[0],
            options.settings,
            options.out,
            network,
            image_inside=options.image_inside,
        )
    for path in paths:
        print(path)
    return 0


COMMAND = Command("generate", "write Verilog and a data sheet", _add_arguments, _run)
