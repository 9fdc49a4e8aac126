"""Verilog and data sheet of a design."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from flow.errors import check_target, write_text
from hdl.design import Design, Value
from hdl.top import ports_of
from sim import yosys
from sim.verilog import generator_version, verilog_of

__all__ = ["data_sheet", "generate"]


def data_sheet(design: Design, settings: Mapping[str, Value | str]) -> dict[str, Any]:
    """All that an integrator needs to know of a design, ready for JSON."""
    parameters = design.resolve(settings)
    contract = design.contract(**parameters)
    timing = design.timing(**parameters)
    formats = {
        operand.name: {
            "name": operand.format.name,
            "width": operand.format.width,
            "encoding": operand.format.encoding,
            "lanes": operand.lanes,
        }
        for operand in (*contract.configuration, *contract.operands, *contract.results)
    }
    return {
        "design": design.name,
        "summary": design.summary,
        "parameters": parameters,
        "ports": [dataclasses.asdict(port) for port in ports_of(contract)],
        "formats": formats,
        "transaction": design.transaction,
        "latency": _number(timing.latency),
        "interval": _number(timing.interval),
        "versions": {
            "fewbit": generator_version().removeprefix("fewbit "),
            "amaranth": package_version("amaranth"),
            "engine": yosys.version(),
        },
    }


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def generate(
    designs: Sequence[Design], settings: Mapping[str, Value | str], folder: Path
) -> list[Path]:
    """Writes ``DESIGN.v`` and ``DESIGN.json`` of each design to a folder; all, or none.

    Returns the paths.
    """
    texts: dict[Path, str] = {}
    for design in designs:
        texts[check_target(folder / f"{design.name}.v")] = ""
        texts[check_target(folder / f"{design.name}.json")] = ""
    for design in designs:
        texts[folder / f"{design.name}.v"] = verilog_of(design, settings)
        sheet = json.dumps(data_sheet(design, settings), indent=2)
        texts[folder / f"{design.name}.json"] = f"{sheet}\n"
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)
