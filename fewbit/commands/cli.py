"""The ``fewbit`` command, which hands its arguments to one of its subcommands.

The exit status is 0 if all is well, 1 if a check failed, and 2 after wrong use or if a tool is
missing. A user's mistake is one sentence on standard error, never a traceback.

A new command is one module beside this one and one entry of `COMMANDS`.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from fewbit.commands import (
    calibrate,
    designs,
    evaluate,
    generate,
    prove,
    quantize,
    regress,
    reproduce,
    run,
    synth,
    train,
    vectors,
)
from fewbit.commands.arguments import Parser, settle
from fewbit.errors import UsageError, refusal
from fewbit.golden import renamed
from fewbit.golden.words import on_one_line
from fewbit.hdl.design import ParameterError
from fewbit.hdl.systems import PluginError, load_plugins
from fewbit.sim.bulk import BulkError
from fewbit.sim.runner import SimulatorError
from fewbit.sim.verilog import generator_version
from fewbit.sim.yosys import YosysError

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    designs.COMMAND,
    generate.COMMAND,
    vectors.COMMAND,
    regress.COMMAND,
    synth.COMMAND,
    quantize.COMMAND,
    calibrate.COMMAND,
    run.COMMAND,
    train.COMMAND,
    evaluate.COMMAND,
    prove.COMMAND,
    reproduce.COMMAND,
)
"""All commands, in the order in which they are listed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        load_plugins()
    except PluginError as error:
        print(error, file=sys.stderr)
        return 2
    parser = _build_parser()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = parser.parse_args(given)
        settle(options)
        return options.run(options)
    except (UsageError, ParameterError, SimulatorError, BulkError, YosysError) as error:
        print(on_one_line(str(error)), file=sys.stderr)
        return 2
    except MemoryError:
        print("There is not enough memory for that many; lower --count.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has closed it, as `| head` does, so that no message can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(refusal(error), file=sys.stderr)
        return 2


class _CommandParser(Parser):
    """The parser of one command, which refuses old names and tells the new ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._own: dict[str, argparse.Action] = {}
        super().__init__(*args, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        action = super().add_argument(*args, **kwargs)
        self._own |= dict.fromkeys(action.option_strings, action)
        return action

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        given = list(args or ())
        self._refuse_old_names(given[: given.index("--")] if "--" in given else given)
        return super().parse_known_args(args, namespace)

    def _refuse_old_names(self, arguments: Sequence[str]) -> None:
        """Refuse options, and choices of options, that had another name before 0.2.

        Both may be abbreviated. What the command has itself is no old name.
        """
        for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
            flag, equals, value = argument.partition("=")
            if not flag.startswith("--"):
                continue
            meant = [flag] if flag in self._own else _abbreviated(flag, self._own)
            if not meant:
                for old in _abbreviated(flag, renamed.FLAGS):
                    raise UsageError(renamed.new_name(old, renamed.FLAGS[old]))
            if len(meant) != 1:
                continue
            (option,) = meant
            word = value if equals else following
            name = option.removeprefix("--").replace("-", "_")
            if renamed.new_choice(name, word, tuple(self._own[option].choices or ())):
                new = renamed.VALUES[name, word]
                raise UsageError(renamed.new_name(f"{option} {word}", f"{option} {new}"))


def _abbreviated(flag: str, options: Iterable[str]) -> list[str]:
    """Return the options that begin like a flag."""
    return [option for option in options if option.startswith(flag)]


def _build_parser() -> Parser:
    parser = Parser(
        prog="fewbit",
        description="RTL generator and verification flow for LSTM arithmetic at few bits.",
    )
    parser.add_argument("--version", action="version", version=generator_version())
    parsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_CommandParser
    )
    for command in COMMANDS:
        sentence = f"{command.summary[0].upper()}{command.summary[1:]}."
        own = parsers.add_parser(command.name, help=command.summary, description=sentence)
        own.set_defaults(run=command.run)
        command.add_arguments(own)
    return parser


if __name__ == "__main__":
    sys.exit(main())
