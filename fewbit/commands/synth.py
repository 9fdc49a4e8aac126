"""``fewbit synth``: measures the area of designs."""

import argparse
from pathlib import Path
from typing import Any

from fewbit.commands.arguments import Command, add_designs, add_json, add_settings
from fewbit.commands.display import console, figure, progress, table_of, write_json
from fewbit.sim import yosys

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_designs(command)
    add_settings(command)
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
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    from fewbit.synthesis import check_choices, synthesize

    check_choices(options.target, options.liberty, options.mapping, dsp=options.dsp)
    yosys.warm_up()
    rows: list[dict[str, Any]] = []
    with progress("Synthesising", len(options.designs)) as advance:
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
    table = table_of("design", "parameters", *figures, right=2)
    for row in rows:
        shown = " ".join(
            f"{name}={'none' if value is None else value}"
            for name, value in row["parameters"].items()
        )
        table.add_row(row["design"], shown, *(figure(row[name]) for name in figures))
    mapping = f" mapped for {options.mapping}" if options.target == "gates" else ""
    table.caption = f"target {options.target}{mapping}, {yosys.version()}"
    console().print(table)
    write_json(options.json, yosys.version(), rows)
    return 0


COMMAND = Command("synth", "measure the area with Yosys", _add_arguments, _run)
