"""``fewbit regress``: runs the cocotb benches of designs."""

import argparse
import os
import sys
from pathlib import Path

from fewbit.commands.arguments import Command, add_designs, add_json, add_settings, count, seed
from fewbit.commands.display import console, progress, table_of, write_json
from fewbit.sim import yosys
from fewbit.sim.runner import SIMULATORS

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_designs(command)
    add_settings(command)
    command.add_argument("--simulator", choices=SIMULATORS, default="verilator")
    command.add_argument("--count", type=count, default=2000, help="results, default 2000")
    command.add_argument("--seed", type=seed, default=1, help="default 1")
    command.add_argument(
        "--jobs",
        type=count,
        default=os.cpu_count() or 1,
        help="designs at a time, default one a core",
    )
    command.add_argument(
        "--build", type=Path, default=Path("build/sim"), metavar="DIR", help="folder of the builds"
    )
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    from fewbit.regression import regress, row_of

    yosys.warm_up()
    with progress("Simulating", len(options.designs)) as advance:
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
    table = table_of(
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
    console().print(table)
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"{outcome.design}: {failure}", file=sys.stderr)
    write_json(options.json, outcomes[0].simulator if outcomes else "", rows)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


COMMAND = Command("regress", "run the cocotb benches", _add_arguments, _run)
