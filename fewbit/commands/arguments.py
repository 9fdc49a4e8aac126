"""What the arguments of several commands are, and how they are checked before any work."""

import argparse
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fewbit.errors import UsageError, check_target
from fewbit.hdl.designs import DESIGNS, find
from fewbit.reference_vectors import LARGEST_COUNT, LARGEST_SEED

__all__ = [
    "Command",
    "Parser",
    "add_designs",
    "add_json",
    "add_settings",
    "count",
    "given",
    "number_or_none",
    "real",
    "seed",
    "settle",
]


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one sentence, without the usage text."""

    def error(self, message: str) -> NoReturn:
        sentence = message[0].upper() + message[1:]
        self.exit(2, f"{sentence}; '{self.prog} --help' tells more.\n")


@dataclass(frozen=True)
class Command:
    """A command: what it takes, and what it does.

    Parameters
    ----------
    name
        The word after ``fewbit``.
    summary
        What it does, in a few words.
    add_arguments
        Adds its arguments to its parser.
    run
        Does the work, given the arguments, and returns the exit status.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_designs(command: argparse.ArgumentParser, fewest: int = 0, most: int | None = None) -> None:
    """Add the names of designs.

    Parameters
    ----------
    command
        The command's parser.
    fewest, most
        How many must be named; all designs are taken where none must be and none is.
    """
    # How many there are is checked in settle: some may have been read as settings.
    command.set_defaults(fewest=fewest, most=most)
    command.add_argument(
        "designs",
        nargs="*",
        metavar="DESIGN",
        help="name of a design" + ("" if fewest else "; all if none is given"),
    )


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add ``--set``, the parameters of the designs."""
    command.add_argument(
        "--set",
        dest="settings",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="parameters that differ from their defaults",
    )


def add_json(command: argparse.ArgumentParser) -> None:
    """Add ``--json``, a file for the rows that are shown."""
    command.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON, too")


def count(text: str) -> int:
    """Return the whole number from 1 to 10^8 that an argument's text gives."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 10^8, not {text}")
    return value


def real(text: str) -> float:
    """Return the finite number of at least 0 that an argument's text gives."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text}")
    return value


def number_or_none(text: str) -> int | str:
    """Return a whole number of at most 18 digits, or the word none, of an argument's text."""
    if text != "none" and not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at most 18 digits, or none, not '{text}'"
        )
    return text if text == "none" else int(text)


def seed(text: str) -> int:
    """Return the whole number from 0 to 2^32 - 1 that an argument's text gives."""
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST_SEED):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^32 - 1, not {text}")
    return int(text)


def settle(options: argparse.Namespace) -> None:
    """Turn names and NAME=VALUE texts into designs and settings, checked before any work.

    Raises
    ------
    UsageError
        If a file can't be written, too few or too many designs are named, or a parameter is set
        twice.
    fewbit.golden.parameter.ParameterError
        If there is no such design or parameter, or it doesn't take the value.
    """
    if getattr(options, "json", None) is not None:
        check_target(options.json)
    if not hasattr(options, "designs"):
        return
    # `--set a=1 DESIGN` reads as a setting; a word without an equals sign can only be a design.
    words = getattr(options, "settings", [])
    names = [*options.designs, *(word for word in words if "=" not in word)]
    if len(names) < options.fewest:
        raise UsageError(f"Name a design: {', '.join(DESIGNS)}.")
    if options.most is not None and len(names) > options.most:
        raise UsageError(f"Name one design, not {len(names)}.")
    settings = [word.split("=", 1)[0] for word in words if "=" in word]
    for name in settings:
        if settings.count(name) > 1:
            raise UsageError(
                f"Parameter '{name}' is set {settings.count(name)} times; set it once."
            )
    options.settings = dict(word.split("=", 1) for word in words if "=" in word)
    options.designs = [find(name) for name in dict.fromkeys(names)] or list(DESIGNS.values())
    if getattr(options, "model", None) is not None:
        # The model says most of the parameters.
        return
    options.designs = [design.configure(options.settings) for design in options.designs]


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return what the user gave of some options, by name."""
    found = {name: getattr(options, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}
