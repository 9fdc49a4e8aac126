"""Areas of the multiply-accumulate family, as the Markdown tables of docs/mac_family.md.

All units have one core, the same streams and registers in the same places; see the page for what
differs.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from fewbit.errors import UsageError, check_target, write_text
from fewbit.hdl.design import Value
from fewbit.hdl.designs import find
from fewbit.sim import yosys
from fewbit.sim.yosys import YosysError
from fewbit.synthesis import synthesize

Settings = dict[str, Value]
Key = tuple[str, str, str]

_PLAIN: Settings = {"multiplier": "plain"}
_BOOTH: Settings = {"multiplier": "booth"}
_UNITS: tuple[tuple[str, Settings], ...] = (
    ("floatsd8_mac", {}),
    ("fp8_mac", _PLAIN),
    ("int8_mac", {}),
    ("bf16_mac", _PLAIN),
    ("bf16_mac", _BOOTH),
    ("fp16_mac", _PLAIN),
    ("fp16_mac", _BOOTH),
    ("fp32_mac", _PLAIN),
    ("fp32_mac", _BOOTH),
)
"""Designs, and the settings by which one appears more than once; the first is compared with."""
_VARIANTS: tuple[tuple[str, Settings], ...] = (
    ("1 product", {"products": 1}),
    ("4 products", {}),
    ("16 products", {"products": 16}),
    ("`stages=1`", {"stages": 1}),
    ("`stages=3`", {"stages": 3}),
)
_FPGA: Settings = {"structure": "fpga"}
_EXACT: Settings = {"products": 1, "window": None}


def _key(name: str, target: str, settings: Settings) -> Key:
    return name, target, json.dumps(settings, sort_keys=True)


def _jobs() -> list[tuple[str, str, Settings]]:
    """Return all jobs to measure: design, target and settings."""
    jobs = [(name, "gates", unit | more) for _, more in _VARIANTS for name, unit in _UNITS]
    jobs += [(name, target, unit | _FPGA) for target in ("ice40", "ecp5") for name, unit in _UNITS]
    jobs += [(name, "gates", unit | _EXACT) for name, unit in _UNITS if name != "int8_mac"]
    return jobs


def _label(name: str, unit: Settings) -> str:
    both = len({json.dumps(other) for each, other in _UNITS if each == name}) > 1
    return f"`{name}`" + (f", {unit['multiplier']}" if both else "")


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def tables(figures: Mapping[Key, Mapping[str, Any]]) -> str:
    """Return the tables of the page as Markdown."""

    def row_of(name: str, target: str, settings: Settings) -> Mapping[str, Any]:
        return figures[_key(name, target, settings)]

    def area(row: Mapping[str, Any]) -> str:
        return f"{row['area_ge']:,.0f} ({row['combinational_ge']:,.0f})"

    first = _UNITS[0][0]
    texts: list[str] = []
    rows: list[list[str]] = []
    for name, unit in _UNITS:
        row = row_of(name, "gates", unit)
        ratio = row["area_ge"] / row_of(first, "gates", {})["area_ge"]
        rows.append(
            [
                _label(name, unit),
                f"{row['area_ge']:,.0f}",
                f"{row['combinational_ge']:,.0f}",
                str(row["flip_flops"]),
                str(row["depth"]),
                f"{row['area_ge'] / 4:,.0f}",
                f"{ratio:.2f}",
            ]
        )
    titles = ["4 products, 2 stages", "GE", "of them logic", "flip-flops", "depth", "GE a product"]
    texts.append(_table([*titles, f"over `{first}`"], rows))
    names = [title for title, _ in _VARIANTS]
    texts.append(
        _table(
            ["GE (of them logic)", *names],
            [
                [
                    _label(name, unit),
                    *(area(row_of(name, "gates", unit | more)) for _, more in _VARIANTS),
                ]
                for name, unit in _UNITS
            ],
        )
    )
    for field, title in (("area_ge", "GE"), ("combinational_ge", "logic")):
        rows = []
        for name, unit in _UNITS[1:]:
            ratios = [
                row_of(name, "gates", unit | more)[field] / row_of(first, "gates", more)[field]
                for _, more in _VARIANTS
            ]
            rows.append([_label(name, unit), *(f"{ratio:.2f}" for ratio in ratios)])
        texts.append(_table([f"{title} over `{first}`", *names], rows))
    rows = []
    for name, unit in _UNITS:
        cells = [_label(name, unit)]
        for target in ("ice40", "ecp5"):
            row, base = row_of(name, target, unit | _FPGA), row_of(first, target, _FPGA)
            cells += [
                f"{row['luts']:,}",
                f"{row['carries']:,}",
                f"{row['luts'] / base['luts']:.2f}",
            ]
        rows.append(cells)
    ratio = f"LUTs over `{first}`"
    titles = ["`structure=fpga`", "iCE40 LUT4", "carries", ratio, "ECP5 LUT4", "CCU2C", ratio]
    texts.append(_table(titles, rows))
    texts.append(
        _table(
            ["1 product, `window=none`", "GE (of them logic)", "flip-flops", "depth"],
            [
                [_label(name, unit), area(row), str(row["flip_flops"]), str(row["depth"])]
                for name, unit in _UNITS
                if name != "int8_mac"
                for row in [row_of(name, "gates", unit | _EXACT)]
            ],
        )
    )
    return "\n".join(texts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    options = parser.parse_args(arguments)
    figures: dict[Key, dict[str, Any]] = {}
    try:
        if options.json is not None:
            check_target(options.json)
        console = Console(stderr=True)
        with Progress(console=console, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("synth", total=len(_jobs()))
            for name, target, settings in _jobs():
                figures[_key(name, target, settings)] = synthesize(
                    find(name).configure(settings), target
                )
                progress.advance(task)
        print(tables(figures))
        if options.json is not None:
            text = json.dumps({"engine": yosys.version(), "rows": [*figures.values()]}, indent=2)
            write_text(options.json, text + "\n")
    except (UsageError, YosysError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
