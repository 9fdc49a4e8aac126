"""``fewbit designs``: lists the designs and their parameters."""

import argparse

from fewbit.commands.arguments import Command, add_json
from fewbit.commands.display import console, table_of, write_json
from fewbit.hdl.designs import DESIGNS
from fewbit.sim.verilog import generator_version

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    table = table_of("design", "parameter", "default", "allowed", "meaning")
    for design in DESIGNS.values():
        table.add_section()
        table.add_row(f"[bold]{design.name}[/]", "", "", "", design.summary)
        for parameter in design.all_parameters:
            default = "none" if parameter.default is None else str(parameter.default)
            meaning = parameter.meaning
            if parameter.none_means:
                meaning += f" (none: {parameter.none_means})"
            table.add_row("", parameter.name, default, parameter.allowed, meaning)
    console().print(table)
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
    write_json(options.json, generator_version(), rows)
    return 0


COMMAND = Command("designs", "list the designs and their parameters", _add_arguments, _run)
