"""Arguments and checks of the commands that open a model or write one."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewbit.errors import UsageError
from fewbit.golden.network import Network
from fewbit.golden.words import on_one_line
from fewbit.models import open_model

__all__ = ["add_model", "enough_memory", "layers_in_words", "open_network"]


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
