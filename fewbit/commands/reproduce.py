"""``fewbit reproduce``: shows papers' claims beside what is measured here."""

import argparse
import sys
from pathlib import Path

from rich.table import Table

from fewbit.commands.arguments import Command, add_json
from fewbit.commands.display import console, figure, progress, write_json
from fewbit.sim import yosys

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("papers", nargs="*", metavar="PAPER", help="all if none is given")
    command.add_argument("--liberty", type=Path, metavar="FILE", help="measure in a process, too")
    command.add_argument(
        "--operands",
        type=Path,
        metavar="X.npy",
        help="reals of shape (runs, beats, 2 n + 1) to measure switching activity on: n weights,"
        " n activations, the accumulator; default: random LSTM rows",
    )
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    from fewbit.activity import ActivityError
    from fewbit.reproduce.claims import Finding, Options
    from fewbit.reproduce.papers import find_papers

    papers = find_papers(options.papers)
    chosen = Options(options.liberty, options.operands)
    measurements = [(paper, measure) for paper in papers for measure in paper.measurements(chosen)]
    yosys.warm_up()
    rows: list[tuple[str, Finding]] = []
    try:
        with progress("Measuring", len(measurements)) as advance:
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
            parts = "; ".join(f"{name}: {figure(value)}" for name, value in row.figures.items())
            table.add_row(row.claim, *figures, holds, parts or row.how)
        console().print(table)
        notes = dict.fromkeys(f"{row.how}: {row.note}" for row in own if row.note)
        for note in notes:
            print(note)
    objects = [{"reproduces": name} | row.as_json() for name, row in rows]
    write_json(options.json, yosys.version(), objects)
    return 0


COMMAND = Command(
    "reproduce", "show papers' claims beside what is measured here", _add_arguments, _run
)
