"""``fewbit run``: runs sequences through a model."""

import argparse
from pathlib import Path
from typing import get_args

from fewbit.arrays import read_array, write_array
from fewbit.commands.arguments import Command, given
from fewbit.commands.display import progress
from fewbit.commands.models import (
    add_layer_parameters,
    add_model,
    enough_memory,
    layer_parameters,
    layers_in_words,
    open_network,
    rate,
)
from fewbit.errors import check_target
from fewbit.golden.activation.integer import ActivationKind
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
    add_layer_parameters(command)
    command.add_argument(
        "--activation",
        choices=get_args(ActivationKind),
        help="default: the model's own; gemmlowp, which is LiteRT's, for a .tflite",
    )
    command.add_argument(
        "--real", action="store_true", help="real numbers in and out of a quantised model"
    )


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
            settings=given(options, layer_parameters()),
            real=options.real,
            done=advance,
        )
    write_array(options.output, outcome.output)
    print(
        f"{options.model}: {layers_in_words(network)}, {x.shape} to {outcome.output.shape} in "
        f"{options.backend}, {rate(outcome.steps_per_second)} steps a second"
    )
    return 0


COMMAND = Command("run", "run sequences through a model", _add_arguments, _run)
