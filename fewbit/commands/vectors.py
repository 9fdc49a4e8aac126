"""``fewbit vectors``: writes reference vectors of the golden model."""

import argparse
from pathlib import Path

from fewbit.commands.arguments import Command, add_designs, add_settings, count, seed
from fewbit.models import archive_target

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_designs(command, fewest=1, most=1)
    add_settings(command)
    command.add_argument("--count", type=count, default=1000, help="results, default 1000")
    command.add_argument("--seed", type=seed, default=1, help="default 1")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.npz")


def _run(options: argparse.Namespace) -> int:
    from fewbit.reference_vectors import write_vectors

    path = archive_target(options.out)
    count = write_vectors(options.designs[0], options.count, options.seed, path)
    print(f"{path}: {count} results, seed {options.seed}")
    return 0


COMMAND = Command("vectors", "write reference vectors", _add_arguments, _run)
