"""Arguments that several commands have, and their checks before any work."""

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
    """A parser whose errors are one sentence, without the usage text."""

    def error(self, message: str) -> NoReturn:
        sentence = message[0].upper() + message[1:]
        self.exit(2, f"{sentence}; '{self.prog} --help' tells more.\n")


@dataclass(frozen=True)
class Command:
    """A command of the command line, with its arguments and its work.

    Parameters
    ----------
    name
        The word after ``fewbit``.
    summary
        The purpose of the command, in a few words.
    add_arguments
        A function that adds the command's arguments to its parser.
    run
        A function that takes the parsed arguments, does the work and returns the exit status.
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
        The numbers of designs that must and may be named. If none must be, naming none means all.
    """
    # Their number is checked in settle, since some may have been read as settings.
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
    """Return the whole number from 1 to 10^8 that is an argument's text."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 10^8, not {text}")
    return value


def real(text: str) -> float:
    """Return the finite number of at least 0 that is an argument's text."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text}")
    return value


def number_or_none(text: str) -> int | str:
    """Return an argument's text as a whole number of at most 18 digits, or the word "none"."""
    if text != "none" and not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at most 18 digits, or none, not '{text}'"
        )
    return text if text == "none" else int(text)


def seed(text: str) -> int:
    """Return the whole number from 0 to 2^32 - 1 that is an argument's text."""
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
        # The model determines most of the parameters.
        return
    options.designs = [design.configure(options.settings) for design in options.designs]


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return those of some options that the user has set, with their values."""
    found = {name: getattr(options, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}
