"""Throughput of few-bit layers at equal area, beside the same layer with 12-bit weights.

``python -m examples.few_bit_layers`` synthesises ``ternary_lstm_layer`` of 48 inputs and 128 hidden
units with the lanes that were found best for each kind of weights; about an hour on one core.
Throughput at equal area is the inverse of area times cycles, memories left out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flow.errors import UsageError, check_target, write_text
from flow.synth import synthesize
from golden.layer.ternary import TernaryLstmLayer
from hdl.designs import find
from hdl.layer.ternary_cycles import step_cycles
from sim.yosys import YosysError, version, warm_up

SIDE_BY_SIDE = {"gates": "side_by_side"}
LAYERS: tuple[dict[str, int | str], ...] = (
    {"weights": "int12", "lanes": 16, "structure": "plain"} | SIDE_BY_SIDE,
    {"weights": "int12", "lanes": 16} | SIDE_BY_SIDE,
    {"weights": "ternary", "lanes": 24} | SIDE_BY_SIDE,
    {"weights": "binary", "lanes": 24} | SIDE_BY_SIDE,
    {"weights": "int12", "lanes": 16},
    {"weights": "ternary", "lanes": 16},
    {"weights": "binary", "lanes": 16},
)
COMMON: dict[str, int | str] = {"inputs": 48, "hidden": 128, "scales": "powers_of_two"}


def measure(settings: dict[str, int | str]) -> dict[str, Any]:
    """Area and cycles of a step of a layer."""
    design = find("ternary_lstm_layer")
    row = synthesize(design, COMMON | settings)
    structure = row["parameters"]["structure"]
    contract = design.contract(**row["parameters"])
    assert isinstance(contract, TernaryLstmLayer)
    cycles = step_cycles(contract, structure).cycles
    return settings | {
        "area_ge": row["area_ge"],
        "flip_flops": row["flip_flops"],
        "memory_bits": row["memory_bits"],
        "cycles": cycles,
        "product": row["area_ge"] * cycles,
    }


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON, too")
    options = parser.parse_args()
    try:
        if options.json is not None:
            check_target(options.json)
        warm_up()
        rows = [measure(each) for each in LAYERS]
        if options.json is not None:
            write_text(options.json, json.dumps({"engine": version(), "rows": rows}, indent=2))
    except (UsageError, YosysError) as error:
        print(error, file=sys.stderr)
        return 2
    table = Table(title="ternary_lstm_layer, 48 inputs, 128 hidden units", caption=version())
    for column in ("layer", "GE", "cycles", "GE x cycles, 10^6", "throughput at equal area"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for row in rows:
        name = " ".join(str(row.get(key, "")) for key in ("weights", "lanes", "gates", "structure"))
        shares = [f"{base['product'] / row['product']:.2f}" for base in rows[:2]]
        cells = f"{row['area_ge']:,.0f}", str(row["cycles"]), f"{row['product'] / 1e6:.1f}"
        table.add_row(name, *cells, " / ".join(shares))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
