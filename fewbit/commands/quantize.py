"""``fewbit quantize``: makes a quantised model of a real one."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from fewbit.arrays import read_array
from fewbit.commands.arguments import Command, given, number_or_none
from fewbit.commands.display import progress
from fewbit.commands.models import (
    add_model,
    enough_memory,
    layers_in_words,
    open_network,
)
from fewbit.golden.systems import SYSTEMS, Option, listed, options_by_name
from fewbit.models import archive_target, save_model
from fewbit.quantization import quantize_network

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_model(command, ".safetensors, .onnx or real .npz")
    command.add_argument("--to", choices=tuple(SYSTEMS), required=True, help="number format")
    command.add_argument(
        "--calibrate",
        type=Path,
        required=True,
        metavar="X.npy",
        help="reals of shape (batch, time, inputs), of the training data",
    )
    for name, options in options_by_name().items():
        _add_option(command, name, options)
    command.add_argument("--out", type=Path, required=True, metavar="FILE.npz")


def _add_option(command: argparse.ArgumentParser, name: str, options: Mapping[str, Option]) -> None:
    """Add an option that the quantisers of some number systems have, with a help text for each."""
    choices = tuple(dict.fromkeys(word for each in options.values() for word in each.choices))
    # Systems whose help texts are the same are named together.
    by_help: dict[str, list[str]] = {}
    for system, option in options.items():
        by_help.setdefault(option.help, []).append(system)
    command.add_argument(
        f"--{name.replace('_', '-')}",
        type=str if choices else number_or_none,
        choices=choices or None,
        help="; ".join(f"of {listed(names)}: {text}" for text, names in by_help.items()).replace(
            "%", "%%"
        ),
    )


def _run(options: argparse.Namespace) -> int:
    target = archive_target(options.out)
    network = open_network(options)
    x = read_array(options.calibrate)
    memory = enough_memory("calibrate with fewer")
    with progress("Quantising", len(network.nodes)) as advance, memory:
        quantised = quantize_network(
            network,
            x,
            name=f"'{options.model}'",
            to=options.to,
            options=given(options, options_by_name()),
            done=advance,
        )
        save_model(target, quantised, options.model)
    print(
        f"{target}: {layers_in_words(quantised)}, {quantised.nodes[0].lstm.description}, "
        f"calibrated on {len(x)} sequences of {x.shape[1]} steps"
    )
    return 0


COMMAND = Command("quantize", "turn a real model into a quantised one", _add_arguments, _run)
