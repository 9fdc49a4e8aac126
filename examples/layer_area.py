"""Area and cycles of the smallest layer, beside the LSTM cells of another open project.

``python -m examples.layer_area`` synthesises ``int8_lstm_layer`` with 1 input and 20 hidden units:
its parameters loaded by packets, and inside the circuit.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fewbit.errors import UsageError, check_target, write_text
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.hdl.design import ConfiguredDesign
from fewbit.hdl.designs import find
from fewbit.hdl.layer.int8 import step_cycles
from fewbit.sim.yosys import YosysError, version, warm_up
from fewbit.synthesis import synthesize

LAYER = Int8LstmLayerContract(inputs=1, hidden=20, lanes=4, neurons=1)

# elastic-ai.creator's integer int8 cell of 1 input and 20 hidden units, with its weights in ROM
# logic: measured with Yosys 0.70, see the manual. It does one product a gate and cycle, four gates
# at once: 20 * (1 + 20) cycles at best. A flip-flop counts as one of ours without enable.
THEIRS = {"combinational_ge": 30_546.0, "flip_flops": 3_302, "luts": 6_754, "carries": 581}
THEIR_CYCLES = 420
FLIP_FLOP = 5.67


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON, too")
    options = parser.parse_args()
    try:
        if options.json is not None:
            check_target(options.json)
        warm_up()
        rows = [
            _row(target, structure, image_inside=image_inside)
            for target, structure in (("gates", "gates"), ("ecp5", "fpga"))
            for image_inside in (False, True)
        ]
        if options.json is not None:
            write_text(options.json, json.dumps({"engine": version(), "rows": rows}, indent=2))
    except (UsageError, YosysError) as error:
        print(error, file=sys.stderr)
        return 2
    table = Table(title="int8_lstm_layer, 1 input, 20 hidden units, 4 lanes", caption=version())
    for column in ("target", "parameters", "figure", "area", "cycles", "area x cycles, theirs = 1"):
        table.add_column(column, justify="left" if column in {"target", "figure"} else "right")
    for row in rows:
        for figure, area, share in row["figures"]:
            cells = (row["target"], row["parameters"], figure, f"{area:,.0f}", str(row["cycles"]))
            table.add_row(*cells, f"{share:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def _design(structure: str, *, image_inside: bool) -> ConfiguredDesign:
    configured = find("int8_lstm_layer").configure({**LAYER.settings, "structure": structure})
    if not image_inside:
        return configured
    return configured.holding(LAYER.random_image(np.random.default_rng(1)))


def _row(target: str, structure: str, *, image_inside: bool) -> dict[str, Any]:
    found = synthesize(_design(structure, image_inside=image_inside), target)
    cycles = step_cycles(LAYER, structure).cycles
    if target == "gates":
        areas = {
            "GE of logic": (found["combinational_ge"], THEIRS["combinational_ge"]),
            "GE with flip-flops": (
                found["area_ge"],
                THEIRS["combinational_ge"] + FLIP_FLOP * THEIRS["flip_flops"],
            ),
        }
    else:
        areas = {
            "LUT4": (found["luts"], THEIRS["luts"]),
            "LUT4 + 2 CCU2C": (
                found["luts"] + 2 * found["carries"],
                THEIRS["luts"] + 2 * THEIRS["carries"],
            ),
        }
    return {
        "target": target,
        "structure": structure,
        "parameters": "inside, ROMs as logic"
        if image_inside and target == "gates"
        else "inside"
        if image_inside
        else "loaded",
        "cycles": cycles,
        "memory_bits": found.get("memory_bits", 0),
        "block_rams": found.get("block_rams", 0),
        "figures": [
            (name, ours, ours * cycles / (theirs * THEIR_CYCLES))
            for name, (ours, theirs) in areas.items()
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())
