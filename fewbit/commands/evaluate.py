"""``fewbit evaluate``: tells a task's figure of a trained model."""

import argparse
from pathlib import Path

from fewbit.commands.arguments import Command, add_json, count, given
from fewbit.commands.display import console, figure, progress, table_of, write_json
from fewbit.commands.models import (
    add_layer_parameters,
    enough_memory,
    layer_parameters,
    rate,
)
from fewbit.evaluation import (
    RTL_SEQUENCES,
    RTL_STEPS,
    SPLITS,
    Evaluation,
    evaluate,
    find_task,
    open_trained,
    plan,
)
from fewbit.sequences import BACKENDS
from fewbit.sim.verilog import generator_version
from fewbit.train.tasks import TASKS
from fewbit.train.tasks.task import DEFAULT_SETUP

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model", type=Path, metavar="MODEL", help="an .npz file that 'fewbit train' wrote"
    )
    command.add_argument("task", metavar="TASK", help=", ".join(TASKS))
    command.add_argument("--data", type=Path, metavar="PATH", help="the task's data")
    command.add_argument(
        "--split", choices=SPLITS, default="test", help="the part of the data; default test"
    )
    command.add_argument(
        "--sequences",
        type=count,
        metavar="N",
        help=f"so many sequences, evenly spaced; default all, in rtl {RTL_SEQUENCES}, for a"
        " simulator is slow",
    )
    command.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help=f"of streams, the first steps of each; default all, in rtl {RTL_STEPS}",
    )
    command.add_argument(
        "--setup",
        metavar="NAME",
        help=f"of generated sequences, the set-up that says their lengths; default {DEFAULT_SETUP}",
    )
    command.add_argument(
        "--backend",
        choices=BACKENDS,
        default="golden",
        help="golden (default), or rtl: the generated layer in the simulator",
    )
    add_layer_parameters(command)
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    task = find_task(options.task)
    model = open_trained(options.model)
    with enough_memory("take fewer with --sequences"):
        planned = plan(
            model,
            task,
            options.data,
            name=f"'{options.model}'",
            setup=options.setup,
            split=options.split,
            sequences=options.sequences,
            steps=options.steps,
            kind=options.backend,
            settings=given(options, layer_parameters()),
        )
        with progress("Evaluating", planned.parts) as advance:
            found = evaluate(planned, advance)
    _show(found)
    row = {"model": str(options.model), **found.row}
    write_json(options.json, generator_version(), [row])
    return 0


def _show(found: Evaluation) -> None:
    table = table_of("task", "numbers", "figure", "loss", "sequences", "labels", right=2)
    share = found.metric == "accuracy"
    table.add_row(
        found.task,
        found.system,
        f"{found.figure:.2%}" if share else f"{found.figure:,.4f} {_WORDS[found.metric]}",
        f"{found.loss:.4f}",
        figure(found.sequences),
        figure(found.labels),
    )
    console().print(table)
    speed = found.steps / max(found.seconds, 1e-9)
    unknown = f", {found.unknown:.2%} of its symbols unknown" if found.unknown else ""
    print(
        f"{found.split} part in {found.backend}{unknown}, {rate(speed)} steps a second; the loss is"
        " the mean cross-entropy of a label, natural logarithm"
    )


_WORDS = {"bits": "bits a label", "perplexity": "perplexity"}

COMMAND = Command("evaluate", "tell a task's figure of a trained model", _add_arguments, _run)
