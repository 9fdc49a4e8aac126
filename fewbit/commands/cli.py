"""The ``fewbit`` command, which hands its arguments to one of its subcommands.

The exit status is 0 if all is well, 1 if a check failed, and 2 after wrong use or if a tool is
missing. A user's mistake is one sentence on standard error, never a traceback.

A new command is one module beside this one and one entry of `COMMANDS`.
"""

import os
import sys
from collections.abc import Sequence

from fewbit.commands import (
    calibrate,
    designs,
    generate,
    prove,
    quantize,
    regress,
    reproduce,
    run,
    synth,
    vectors,
)
from fewbit.commands.arguments import Parser, settle
from fewbit.errors import UsageError
from fewbit.golden import renamed
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
        _refuse_old_names(given)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    options = parser.parse_args(given)
    try:
        settle(options)
        return options.run(options)
    except (UsageError, ParameterError, SimulatorError, BulkError, YosysError) as error:
        print(error, file=sys.stderr)
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
        place = f" '{error.filename}'" if error.filename else ""
        print(f"The system refused{place}: {error.strerror}.", file=sys.stderr)
        return 2


def _refuse_old_names(arguments: Sequence[str]) -> None:
    """Refuse options, and choices of options, that had another name before 0.2."""
    for index, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in renamed.FLAGS:
            raise UsageError(renamed.new_name(flag, renamed.FLAGS[flag]))
        following = value or next(iter(arguments[index + 1 : index + 2]), "")
        name = flag.removeprefix("--").replace("-", "_")
        new = renamed.VALUES.get((name, following)) if flag.startswith("--") else None
        if new is not None:
            raise UsageError(renamed.new_name(f"{flag} {following}", f"{flag} {new}"))


def _build_parser() -> Parser:
    parser = Parser(
        prog="fewbit",
        description="RTL generator and verification flow for LSTM arithmetic at few bits.",
    )
    parser.add_argument("--version", action="version", version=generator_version())
    parsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for command in COMMANDS:
        own = parsers.add_parser(
            command.name, help=command.summary, description=f"{command.summary.capitalize()}."
        )
        own.set_defaults(run=command.run)
        command.add_arguments(own)
    return parser


if __name__ == "__main__":
    sys.exit(main())
