"""The ``fewbit`` command.

Exit status: 0 all well, 1 a check failed, 2 wrong use or a missing tool. A user's mistake is one
sentence on standard error, never a traceback.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fewbit.arrays import read_array, write_array
from fewbit.calibration import calibrate_to_file, row_of, tries
from fewbit.errors import UsageError, check_target, write_text
from fewbit.golden import renamed
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.lstm.int8 import ALWAYS_HIGH, PrecisionSignal
from fewbit.golden.network import Network
from fewbit.golden.systems import SYSTEMS, Option, listed, options_by_name
from fewbit.hdl.design import Parameter, ParameterError
from fewbit.hdl.designs import DESIGNS, find
from fewbit.hdl.systems import PluginError, load_plugins
from fewbit.models import open_model
from fewbit.quantization import quantize_to_file
from fewbit.sequences import BACKENDS, chunks_of, run_sequences
from fewbit.sim import yosys
from fewbit.sim.bulk import BulkError
from fewbit.sim.runner import SIMULATORS, SimulatorError
from fewbit.sim.verilog import generator_version

__all__ = ["main"]

_LARGEST_COUNT = 10**8


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage text."""

    def error(self, message: str) -> NoReturn:
        sentence = message[0].upper() + message[1:]
        self.exit(2, f"{sentence}; '{self.prog} --help' tells more.\n")


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
        _settle(options)
        return options.run(options)
    except (UsageError, ParameterError, SimulatorError, BulkError, yosys.YosysError) as error:
        print(error, file=sys.stderr)
        return 2
    except MemoryError:
        print("There is not enough memory for that many; lower --count.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away, as `| head` does; nothing is left to say.
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


def _build_parser() -> _Parser:
    parser = _Parser(prog="fewbit", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.description = "RTL generator and verification flow for LSTM arithmetic at few bits."
    parser.add_argument("--version", action="version", version=generator_version())
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=_Parser
    )

    command = _command(commands, "designs", _designs, "list the designs and their parameters")
    _add_json(command)

    command = _command(commands, "generate", _generate, "write Verilog and a data sheet")
    _add_designs(command, fewest=1)
    _add_settings(command)
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

    command = _command(commands, "vectors", _vectors, "write reference vectors")
    _add_designs(command, fewest=1, most=1)
    _add_settings(command)
    command.add_argument("--count", type=_count, default=1000, help="results, default 1000")
    command.add_argument("--seed", type=_seed, default=1, help="default 1")
    command.add_argument("--out", type=Path, required=True, metavar="FILE.npz")

    command = _command(commands, "regress", _regress, "run the cocotb benches")
    _add_designs(command)
    _add_settings(command)
    command.add_argument("--simulator", choices=SIMULATORS, default="verilator")
    command.add_argument("--count", type=_count, default=2000, help="results, default 2000")
    command.add_argument("--seed", type=_seed, default=1, help="default 1")
    command.add_argument(
        "--jobs",
        type=_count,
        default=os.cpu_count() or 1,
        help="designs at a time, default one a core",
    )
    command.add_argument(
        "--build", type=Path, default=Path("build/sim"), metavar="DIR", help="folder of the builds"
    )
    _add_json(command)

    command = _command(commands, "synth", _synth, "measure the area with Yosys")
    _add_designs(command)
    _add_settings(command)
    command.add_argument(
        "--target",
        default="gates",
        help="gates (default), ice40, ecp5, xilinx, gowin or liberty",
    )
    command.add_argument("--liberty", type=Path, metavar="FILE", help="process for target liberty")
    command.add_argument("--dsp", action="store_true", help="let FPGA targets use DSP blocks")
    command.add_argument(
        "--mapping",
        default="area",
        help="what gates are chosen for: area (default), or delay, fewest in a row first",
    )
    _add_json(command)

    command = _command(commands, "quantize", _quantize, "turn a real model into a quantised one")
    _add_model(command, ".safetensors, .onnx or real .npz")
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

    _add_calibrate(commands)
    command = _command(commands, "run", _run, "run sequences through a model")
    _add_model(command, ".tflite, .npz, .safetensors or .onnx")
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
    _add_prove(commands)
    _add_reproduce(commands)
    return parser


def _add_calibrate(commands: Any) -> None:
    command = _command(
        commands, "calibrate", _calibrate, "find where 4 bits of an int8 model's weights do"
    )
    _add_model(command, "quantised int8 .npz or .tflite")
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="X.npy",
        help="raws of shape (batch, time, inputs), of the training data",
    )
    command.add_argument("--real", action="store_true", help="X.npy holds real numbers")
    command.add_argument(
        "--tolerance",
        type=_real,
        metavar="STEPS",
        help="largest rms deviation of the output from that with all 8 bits, default 0",
    )
    command.add_argument(
        "--share",
        type=_real,
        help="instead: smallest share of steps with 4 bits, from 0 to 1, at the least deviation",
    )
    command.add_argument(
        "--group",
        type=_count,
        default=1,
        help="neighbouring units that share a mode, as many as the circuit has neurons; default 1",
    )
    command.add_argument(
        "--signal",
        choices=get_args(PrecisionSignal),
        default="cell_change",
        help="what is compared with the threshold: the change of the cell (default), after Silfa"
        " et al., or the output gate",
    )
    command.add_argument(
        "--no-offsets", action="store_true", help="for a circuit without the offsets' memory"
    )
    command.add_argument(
        "--activation", choices=get_args(ActivationKind), help="in place of the model's own"
    )
    command.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    _add_json(command)


def _add_option(command: argparse.ArgumentParser, name: str, options: Mapping[str, Option]) -> None:
    """Add an option of the quantisers of some number systems, each with its own entry."""
    choices = tuple(dict.fromkeys(word for each in options.values() for word in each.choices))
    # Systems that say the same are named together.
    by_help: dict[str, list[str]] = {}
    for system, option in options.items():
        by_help.setdefault(option.help, []).append(system)
    command.add_argument(
        f"--{name.replace('_', '-')}",
        type=str if choices else _number_or_none,
        choices=choices or None,
        help="; ".join(f"of {listed(names)}: {text}" for text, names in by_help.items()).replace(
            "%", "%%"
        ),
    )


def _layer_parameters() -> dict[str, dict[str, Parameter]]:
    """Parameters that models don't say of the layers that run them, by name and design."""
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
        type=str if choices else _number_or_none,
        choices=choices or None,
        help=f"of the generated layer{which}: {meaning}".replace("%", "%%"),
    )


def _add_prove(commands: Any) -> None:
    command = _command(
        commands, "prove", _prove, "prove circuits equal to their definitions, for every input"
    )
    _add_designs(command)
    _add_settings(command)
    command.add_argument(
        "--jobs",
        type=_count,
        default=os.cpu_count() or 1,
        help="proofs at a time, default one a core",
    )
    _add_json(command)


def _add_reproduce(commands: Any) -> None:
    command = _command(
        commands, "reproduce", _reproduce, "show papers' claims beside what is measured here"
    )
    command.add_argument("papers", nargs="*", metavar="PAPER", help="all if none is given")
    command.add_argument("--liberty", type=Path, metavar="FILE", help="measure in a process, too")
    command.add_argument(
        "--operands",
        type=Path,
        metavar="X.npy",
        help="reals of shape (runs, beats, 2 n + 1) to measure switching activity on: n weights,"
        " n activations, the accumulator; default: random LSTM rows",
    )
    _add_json(command)


def _add_model(command: argparse.ArgumentParser, endings: str) -> None:
    command.add_argument("model", type=Path, metavar="MODEL", help=f"a {endings} file")
    command.add_argument(
        "--lstm", metavar="NAME", help="which LSTM of the file, by name or index; commas between"
    )


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    command.set_defaults(run=run)
    return command


def _add_designs(
    command: argparse.ArgumentParser, fewest: int = 0, most: int | None = None
) -> None:
    # How many there are is checked in _settle: some may have been read as settings.
    command.set_defaults(fewest=fewest, most=most)
    command.add_argument(
        "designs",
        nargs="*",
        metavar="DESIGN",
        help="name of a design" + ("" if fewest else "; all if none is given"),
    )


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        dest="settings",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="parameters that differ from their defaults",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON, too")


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= _LARGEST_COUNT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 10^8, not {text}")
    return value


def _real(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text}")
    return value


def _number_or_none(text: str) -> int | str:
    if text != "none" and not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at most 18 digits, or none, not '{text}'"
        )
    return text if text == "none" else int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2^32 - 1, not {text}")
    return int(text)


def _settle(options: argparse.Namespace) -> None:
    """Turn names and NAME=VALUE texts into designs and settings, checked before any work."""
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


def _designs(options: argparse.Namespace) -> int:
    table = _table("design", "parameter", "default", "allowed", "meaning")
    for design in DESIGNS.values():
        table.add_section()
        table.add_row(f"[bold]{design.name}[/]", "", "", "", design.summary)
        for parameter in design.all_parameters:
            default = "none" if parameter.default is None else str(parameter.default)
            meaning = parameter.meaning
            if parameter.none_means:
                meaning += f" (none: {parameter.none_means})"
            table.add_row("", parameter.name, default, parameter.allowed, meaning)
    _console().print(table)
    rows = [
        {
            "design": design.name,
            "summary": design.summary,
            "parameters": [
                {
                    "name": parameter.name,
                    "default": parameter.default,
                    "allowed": parameter.allowed,
                    "meaning": parameter.meaning,
                }
                for parameter in design.all_parameters
            ],
        }
        for design in DESIGNS.values()
    ]
    _write_json(options.json, generator_version(), rows)
    return 0


def _generate(options: argparse.Namespace) -> int:
    from fewbit.generation import generate, generate_model

    for name in ("lstm", "activation", "image_inside"):
        if options.model is None and getattr(options, name):
            raise UsageError(f"--{name} goes with --model; give the model, too.")
    if options.model is None:
        yosys.warm_up()
        paths = generate(options.designs, options.out)
    else:
        if len(options.designs) != 1:
            raise UsageError("Name one design with --model: the layer of the model's kind.")
        network = _open(options)
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


def _vectors(options: argparse.Namespace) -> int:
    from fewbit.reference_vectors import write_vectors

    path = check_target(options.out)
    if path.suffix != ".npz":
        path = path.with_name(f"{path.name}.npz")
    count = write_vectors(options.designs[0], options.count, options.seed, path)
    print(f"{path}: {count} results, seed {options.seed}")
    return 0


def _regress(options: argparse.Namespace) -> int:
    from fewbit.regression import regress, row_of

    yosys.warm_up()
    with _progress("Simulating", len(options.designs)) as advance:
        outcomes = regress(
            options.designs,
            simulator=options.simulator,
            seed=options.seed,
            count=options.count,
            jobs=options.jobs,
            folder=options.build,
            done=lambda outcome: advance(),
        )
    rows = [
        row_of(design, outcome) for design, outcome in zip(options.designs, outcomes, strict=True)
    ]
    table = _table(
        "design", "simulator", "seed", "tests", "failed", "transactions", "seconds", right=2
    )
    for row in rows:
        style = "bold red" if row["failed"] else None
        fields = ("design", "simulator", "seed", "tests", "failed")
        table.add_row(
            *(str(row[field]) for field in fields),
            f"{row['transactions']:,}",
            f"{row['seconds']:.1f}",
            style=style,
        )
    _console().print(table)
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"{outcome.design}: {failure}", file=sys.stderr)
    _write_json(options.json, outcomes[0].simulator if outcomes else "", rows)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _synth(options: argparse.Namespace) -> int:
    from fewbit.synthesis import synthesize

    if options.dsp and options.target in ("gates", "liberty"):
        raise UsageError(f"Target {options.target} has no DSP blocks; leave --dsp out.")
    yosys.warm_up()
    rows: list[dict[str, Any]] = []
    with _progress("Synthesising", len(options.designs)) as advance:
        for design in options.designs:
            rows.append(
                synthesize(
                    design,
                    options.target,
                    liberty=options.liberty,
                    dsp=options.dsp,
                    mapping=options.mapping,
                )
            )
            advance()
    apart = ("design", "parameters", "target", "mapping", "cells")
    figures = [name for name in rows[0] if name not in apart]
    table = _table("design", "parameters", *figures, right=2)
    for row in rows:
        shown = " ".join(
            f"{name}={'none' if value is None else value}"
            for name, value in row["parameters"].items()
        )
        table.add_row(row["design"], shown, *(_figure(row[name]) for name in figures))
    mapping = f" mapped for {options.mapping}" if options.target == "gates" else ""
    table.caption = f"target {options.target}{mapping}, {yosys.version()}"
    _console().print(table)
    _write_json(options.json, yosys.version(), rows)
    return 0


def _quantize(options: argparse.Namespace) -> int:
    target = check_target(options.out)
    if target.suffix != ".npz":
        target = target.with_name(f"{target.name}.npz")
    network = _open(options)
    x = read_array(options.calibrate)
    memory = _enough_memory("calibrate with fewer")
    with _progress("Quantising", len(network.nodes)) as advance, memory:
        quantised = quantize_to_file(
            options.model,
            network,
            x,
            target,
            to=options.to,
            options=_given(options, options_by_name()),
            done=advance,
        )
    print(
        f"{target}: {_layers(quantised)}, {quantised.nodes[0].lstm.description}, "
        f"calibrated on {len(x)} sequences of {x.shape[1]} steps"
    )
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    target = check_target(options.out)
    if target.suffix != ".npz":
        target = target.with_name(f"{target.name}.npz")
    network = _open(options)
    x = read_array(options.data)
    with (
        _progress("Calibrating", tries(network)) as advance,
        _enough_memory("calibrate with fewer"),
    ):
        found = calibrate_to_file(
            options.model,
            network,
            x,
            target,
            tolerance=options.tolerance,
            share=options.share,
            group=options.group,
            signal=options.signal,
            offsets=not options.no_offsets,
            real=options.real,
            done=advance,
        )
    rows: list[dict[str, Any]] = []
    table = _table(
        "layer", "threshold", "hold", "4 bits", "speed-up", "rms loss", "chosen", right=0
    )
    for layer, (curve, chosen) in enumerate(zip(found.curves, found.chosen, strict=True)):
        table.add_section()
        for point in curve:
            rows.append(row_of(layer, point, chosen=point == chosen))
            table.add_row(
                str(layer),
                str(point.threshold),
                "all 8 bits" if point.hold == ALWAYS_HIGH else str(point.hold),
                f"{point.low_share:.1%}",
                f"{point.speed_up:.2f}",
                f"{point.loss:.2f}",
                "yes" if point == chosen else "",
                style="bold" if point == chosen else None,
            )
    table.caption = "4 bits: share of units' steps; rms loss: of the output, in its raws"
    _console().print(table)
    print(f"{target}: {_layers(found.network)}, {len(x)} sequences of {x.shape[1]} steps")
    _write_json(options.json, generator_version(), rows)
    return 0


def _run(options: argparse.Namespace) -> int:
    check_target(options.output)
    network = _open(options)
    x = read_array(options.input)
    total = chunks_of(x, options.backend) * len(network.nodes)
    with _progress("Running", total) as advance, _enough_memory("take some at a time"):
        outcome = run_sequences(
            options.model,
            network,
            x,
            kind=options.backend,
            settings=_given(options, _layer_parameters()),
            real=options.real,
            done=advance,
        )
    write_array(options.output, outcome.output)
    print(
        f"{options.model}: {_layers(network)}, {x.shape} to {outcome.output.shape} in "
        f"{options.backend}, {_rate(outcome.steps_per_second)} steps a second"
    )
    return 0


def _prove(options: argparse.Namespace) -> int:
    from fewbit.proofs import METHOD, claims_of, prove_all

    claims = {design.name: claims_of(design) for design in options.designs}
    without = [name for name, found in claims.items() if not found]
    if without and len(claims) < len(DESIGNS):
        raise UsageError(f"There is nothing to prove of {', '.join(without)}; leave it out.")
    wanted = [claim for found in claims.values() for claim in found]
    yosys.warm_up()
    with _progress("Proving", len(wanted)) as advance:
        proofs = prove_all(wanted, options.jobs, lambda proof: advance())
    table = _table("design", "property", "inputs", "proven", "broken copy", "seconds", right=5)
    for proof in proofs:
        table.add_row(
            proof.claim.design,
            proof.claim.statement,
            f"2^{proof.claim.inputs}",
            "yes" if proof.proven else "[bold red]no[/]",
            "refuted" if proof.broken_copy_refuted else "[bold red]not found[/]",
            f"{proof.seconds:.1f}",
        )
    table.caption = f"{METHOD}, {yosys.version()}"
    _console().print(table)
    for proof in proofs:
        name = f"{proof.claim.design}, {proof.claim.statement}"
        if proof.broken_copy_refuted:
            print("\n  ".join([f"{name}: broken copy refuted by", *proof.broken_counterexample]))
        else:
            print(f"{name}: the broken copy was not found out.", file=sys.stderr)
        if not proof.proven:
            text = "\n  ".join([f"{name}: refuted by", *proof.counterexample])
            print(text, file=sys.stderr)
    _write_json(options.json, yosys.version(), [proof.row for proof in proofs])
    return 0 if all(proof.proven and proof.broken_copy_refuted for proof in proofs) else 1


def _reproduce(options: argparse.Namespace) -> int:
    from fewbit.activity import ActivityError
    from fewbit.reproduce.claims import Finding, Options
    from fewbit.reproduce.papers import find_papers

    papers = find_papers(options.papers)
    chosen = Options(options.liberty, options.operands)
    measurements = [(paper, measure) for paper in papers for measure in paper.measurements(chosen)]
    yosys.warm_up()
    rows: list[tuple[str, Finding]] = []
    try:
        with _progress("Measuring", len(measurements)) as advance:
            for paper, measure in measurements:
                rows.extend((paper.name, row) for row in measure())
                advance()
    except ActivityError as error:
        print(error, file=sys.stderr)
        return 1
    for paper in papers:
        table = Table(title=paper.title, caption=yosys.version())
        for column in ("claim", "paper", "here", "holds", "measured"):
            table.add_column(column, justify="right" if column in ("paper", "here") else "left")
        own = [row for name, row in rows if name == paper.name]
        for row in own:
            holds = {True: "[green]yes[/]", False: "[bold red]no[/]", None: "–"}[row.holds]
            figures = [
                "–" if figure is None else f"{figure:.2f} {row.unit}"
                for figure in (row.paper, row.measured)
            ]
            parts = "; ".join(f"{name}: {_figure(value)}" for name, value in row.figures.items())
            table.add_row(row.claim, *figures, holds, parts or row.how)
        _console().print(table)
        notes = dict.fromkeys(f"{row.how}: {row.note}" for row in own if row.note)
        for note in notes:
            print(note)
    objects = [{"reproduces": name} | row.as_json() for name, row in rows]
    _write_json(options.json, yosys.version(), objects)
    return 0


def _given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """What the user gave of some options, by name."""
    found = {name: getattr(options, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _open(options: argparse.Namespace) -> Network:
    """Network of the model named, its warnings told."""
    # Quantising has an activation, too, but not in place of one that the model has.
    activation = None if options.command == "quantize" else options.activation
    imported = open_model(options.model, options.lstm, activation)
    for warning in imported.warnings:
        print(f"Warning: {warning}.", file=sys.stderr)
    return imported.network


def _rate(value: float) -> str:
    """Whole number, or two digits of a small one: a simulator may take minutes for a step."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _layers(network: Network) -> str:
    return f"{network.layers} layer{'s' * (network.layers > 1)}"


@contextmanager
def _enough_memory(advice: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise UsageError(f"There is not enough memory for so many sequences; {advice}.") from error


def _figure(value: float) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _console() -> Console:
    # A pipe has no width of its own: let no figure be cut there.
    return Console() if sys.stdout.isatty() else Console(width=160)


def _table(*columns: str, right: int = 99) -> Table:
    """A table whose columns from number ``right`` on hold numbers."""
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(
            column.replace("_", " "),
            justify="right" if index >= right else "left",
            overflow="fold",
        )
    return table


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, silence elsewhere."""
    columns: Iterable[Any] = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _write_json(path: Path | None, engine: str, rows: list[dict[str, Any]]) -> None:
    if path is not None:
        write_text(path, json.dumps({"engine": engine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
