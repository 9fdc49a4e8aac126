"""``fewbit reproduce``: shows papers' claims beside what is measured here."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from fewbit.commands.arguments import Command, add_json
from fewbit.commands.display import console, figure, progress, write_json
from fewbit.sim import yosys
from fewbit.sim.verilog import generator_version

if TYPE_CHECKING:
    from fewbit.reproduce.claims import Finding

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
    command.add_argument(
        "--data", type=Path, metavar="DIR", help="of accuracy: evaluate its models again, on these"
    )
    command.add_argument(
        "--campaign", type=Path, metavar="DIR", help="of accuracy: results of your own campaign"
    )
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    from fewbit.activity import ActivityError
    from fewbit.reproduce.claims import Options
    from fewbit.reproduce.papers import find_papers

    papers = find_papers(options.papers)
    chosen = Options(options.liberty, options.operands, options.data, options.campaign)
    measurements = [(paper, measure) for paper in papers for measure in paper.measurements(chosen)]
    synthesises = any(paper.synthesises for paper in papers)
    engine = yosys.version() if synthesises else generator_version()
    if synthesises:
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
        own = [row for name, row in rows if name == paper.name]
        has_goals = any(row.goal is not None for row in own)
        table = Table(title=paper.title, caption=engine)
        for column in ("claim", "paper", "goal", "here", "holds", "measured"):
            if column != "goal" or has_goals:
                right = column in ("paper", "goal", "here")
                table.add_column(column, justify="right" if right else "left")
        for row in own:
            holds = {True: "[green]yes[/]", False: "[bold red]no[/]", None: "–"}[row.holds]
            shown = (row.paper, row.goal, row.measured) if has_goals else (row.paper, row.measured)
            figures = [
                "–" if value is None else f"{value:.{row.digits}f} {row.unit}" for value in shown
            ]
            parts = "; ".join(f"{name}: {_part(row, value)}" for name, value in row.figures.items())
            table.add_row(row.claim, *figures, holds, parts or row.how)
        console().print(table)
        notes = dict.fromkeys(f"{row.how}: {row.note}" for row in own if row.note)
        for note in notes:
            print(note)
    objects = [{"reproduces": name} | row.as_json() for name, row in rows]
    write_json(options.json, engine, objects)
    return 0


def _part(row: "Finding", value: float) -> str:
    """Return one of the figures from which a row's is computed; areas and cycles are large."""
    has_digits = row.goal is not None and isinstance(value, float)
    return f"{value:,.{row.digits}f}" if has_digits else figure(value)


COMMAND = Command(
    "reproduce", "show papers' claims beside what is measured here", _add_arguments, _run
)
