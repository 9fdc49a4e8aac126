"""Clock cycles of a layer's time step, measured in compiled RTL, beside the data sheet's.

Vectors come back to back, results are taken at once, and no scale shifts left. Utilisation is the
share of the lanes' products that the layer's equations ask for. A layer of 64 lanes takes minutes.
Run it from the repository's root.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fewbit.golden.layer import packets
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.layer.int8_random import random_constants
from fewbit.golden.layer.packets import Kind, Packet
from fewbit.golden.lstm.int8 import Int8Constants
from fewbit.hdl.design import ConfiguredDesign, Value
from fewbit.hdl.designs import find
from fewbit.sim.bulk import BulkError, BulkFailure, BulkSimulation

LAYERS: tuple[dict[str, Value | str], ...] = (
    {"inputs": 1, "hidden": 20, "lanes": 4},
    {"inputs": 1, "hidden": 20, "lanes": 4, "structure": "fpga"},
    {"inputs": 12, "hidden": 32, "lanes": 4},
    {"inputs": 12, "hidden": 32, "lanes": 4, "cifg": 1},
    {"inputs": 12, "hidden": 32, "lanes": 4, "peephole": 1, "projection": 16},
    {"inputs": 48, "hidden": 128, "lanes": 16},
    {"inputs": 48, "hidden": 128, "lanes": 16, "neurons": 4},
)
LARGE = 128
"""Cells from which on a layer must keep its lanes busy."""
BUSY = 0.95


def without_left_shifts(constants: Int8Constants) -> Int8Constants:
    """Return the constants with every scale below 1."""
    lowered: dict[str, Any] = {}
    for field in dataclasses.fields(constants):
        value = getattr(constants, field.name)
        if value is not None and field.name.endswith(("shift", "shifts")):
            lowered[field.name] = np.minimum(value, 0) if np.ndim(value) else min(value, 0)
    return dataclasses.replace(constants, **lowered)


def _configured(settings: dict[str, Value | str]) -> ConfiguredDesign:
    return find("int8_lstm_layer").configure(settings)


def measured(settings: dict[str, Value | str], vectors: int = 2) -> dict[str, Any]:
    """Return the cycles of a layer's time step, and to the last byte of a single answer.

    Raises
    ------
    fewbit.sim.bulk.BulkError
        If the circuit can't be compiled.
    """
    configured = _configured(settings)
    layer = configured.contract
    assert isinstance(layer, Int8LstmLayerContract)
    constants = without_left_shifts(random_constants(layer, np.random.default_rng(1)))
    # Its parameters holding, the layer needs no time to load them.
    holding = configured.holding(layer.pack(constants))
    # For so few steps the compiler's optimisation takes longer than it saves.
    circuit = BulkSimulation(holding, optimized=False)
    rng = np.random.default_rng(2)
    cycles: dict[int, int] = {}
    for count in (1, vectors, 3 * vectors):
        sent = [Packet(Kind.INPUT, rng.bytes(layer.inputs)) for _ in range(count)]
        circuit.run(packets.beats(sent), count * layer.outputs)
        cycles[count] = circuit.cycles
    return {
        "cycles": (cycles[3 * vectors] - cycles[vectors]) / (2 * vectors),
        # The last byte of the vector is taken in the cycle after its kind and the bytes before.
        "last_byte": cycles[1] - (layer.inputs + 1),
    }


def row_of(settings: dict[str, Value | str]) -> dict[str, Any]:
    """Return the figures of a layer, measured and from the data sheet."""
    configured = _configured(settings)
    step = configured.cycles
    assert step is not None
    found = measured(settings)
    ideal = step.products / step.multipliers
    return {
        "layer": dict(configured.parameters),
        "beats": step.beats,
        "ideal": ideal,
        "cycles": found["cycles"],
        "utilisation": ideal / found["cycles"],
        "data_sheet": step.interval,
        "exact": step.is_exact,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; return the exit status: 1 if a large layer's lanes are too often idle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--largest", type=int, default=64, metavar="N", help="leave out layers of more lanes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    options = parser.parse_args(arguments)
    chosen: list[dict[str, Value | str]] = []
    for settings in LAYERS:
        layer = _configured(settings).contract
        assert isinstance(layer, Int8LstmLayerContract)
        if layer.lanes * layer.neurons <= options.largest:
            chosen.append(settings)
    if not chosen:
        print("No layer has so few lanes; give --largest at least 4.", file=sys.stderr)
        return 2
    try:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            rows = [row_of(each) for each in progress.track(chosen, description="Measuring")]
        if options.json is not None:
            options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    except (BulkError, BulkFailure) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{options.json} can't be written: {error.strerror}.", file=sys.stderr)
        return 2
    table = Table(title="a time step of int8_lstm_layer")
    table.add_column("layer", overflow="fold")
    for column in ("beats", "ideal", "cycles", "data sheet", "utilisation"):
        table.add_column(column, justify="right")
    for settings, row in zip(chosen, rows, strict=True):
        table.add_row(
            ", ".join(f"{name} {value}" for name, value in settings.items()),
            f"{row['beats']:,}",
            f"{row['ideal']:,.0f}",
            f"{row['cycles']:,g}",
            f"{row['data_sheet']:,}" if row["exact"] else f"<= {row['data_sheet']:,}",
            f"{row['utilisation']:.1%}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    idle = [
        row
        for row in rows
        if row["layer"]["hidden"] >= LARGE
        and row["layer"]["activation"] == "table"
        and row["utilisation"] < BUSY
    ]
    for row in idle:
        print(
            f"A layer of {row['layer']['hidden']} cells uses {row['utilisation']:.1%} of its lanes'"
            f" cycles; it must be {BUSY:.0%} at least.",
            file=sys.stderr,
        )
    return 1 if idle else 0


if __name__ == "__main__":
    raise SystemExit(main())
