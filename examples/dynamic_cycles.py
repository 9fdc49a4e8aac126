"""Cycles and weight reads of a layer with dynamic precision: all HIGH, all LOW and mixed.

``python -m examples.dynamic_cycles`` simulates ``int8_lstm_layer`` with ``dynamic=1``, 48 inputs,
128 units, 16 lanes and 4 neurons (some minutes of compiling), and compares with the data sheet.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from examples.layer_cycles import without_left_shifts
from fewbit.golden.layer import packets
from fewbit.golden.layer.int8_dynamic import DynamicInt8LstmLayerContract, random_dynamic_constants
from fewbit.golden.layer.packets import Kind, Packet, Reply
from fewbit.hdl.designs import find
from fewbit.hdl.layer.integer_cycles import cycles_of_groups
from fewbit.sim.bulk import BulkError, BulkFailure, BulkSimulation

CASES = ((0, 255), (0, 0), (12000, 1), (18000, 1))
"""Threshold and hold: all HIGH, all LOW but two steps, and between."""


def measured(
    layer: DynamicInt8LstmLayerContract,
    circuit: BulkSimulation,
    threshold: int,
    hold: int,
    steps: int,
) -> dict[str, Any]:
    """Return the cycles of a time step, simulated and by the data sheet.

    The first two time steps of a sequence are left out.

    Raises
    ------
    AssertionError
        If the circuit's answers are not the golden model's.
    """
    rng = np.random.default_rng(1)
    drawn = random_dynamic_constants(layer, rng)
    constants = dataclasses.replace(
        drawn, whole=without_left_shifts(drawn.whole), threshold=threshold, hold=hold
    )
    sent = [Packet(Kind.INPUT, rng.bytes(layer.inputs), step == 0) for step in range(2 + steps)]
    history = layer.history(constants)
    hidden, cell = layer.reset_state(constants)
    modes: list[list[bool]] = []
    for packet in sent:
        modes.append((~history.high).tolist())
        x = np.frombuffer(packet.data, np.int8).astype(np.int64)
        hidden, cell = history.step(x, hidden, cell)
    image = Packet(Kind.IMAGE, layer.pack(constants))
    cycles: list[int] = []
    for count in (2, 2 + steps):
        taken = [image, *sent[:count]]
        wanted = list(layer.answers(taken))
        size = sum(len(each.data) for each in wanted)
        found = circuit.run(packets.beats(taken), size, reset=True, patience=1_000_000)
        if list(packets.replies_in(found)) != wanted:
            raise AssertionError(f"The circuit differs from golden, {Reply.HIDDEN.name}, seed 1.")
        cycles.append(circuit.cycles)
    low = modes[2:]
    groups = sum(map(len, low))
    word = 8 * layer.lanes * layer.neurons
    words = layer.schedule.step_beats / len(low[0])
    passes = sum(map(sum, low))
    return {
        "threshold": threshold,
        "hold": hold,
        "low_share": passes / groups,
        "cycles": (cycles[1] - cycles[0]) / steps,
        "data_sheet": sum(cycles_of_groups(layer, "gates", each) for each in low) / steps,
        "bits_read": round(word * words * (groups - passes / 2) / steps),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; return the exit status: 1 if the data sheet is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--sizes", type=int, nargs=4, default=(48, 128, 16, 4))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    options = parser.parse_args(arguments)
    names = ("inputs", "hidden", "lanes", "neurons")
    sizes = dict(zip(names, options.sizes, strict=True))
    try:
        layer = DynamicInt8LstmLayerContract(**sizes)
        circuit = BulkSimulation(
            find("int8_lstm_layer").configure({**sizes, "dynamic": 1}), optimized=False
        )
        rows = [measured(layer, circuit, *case, options.steps) for case in CASES]
        if options.json is not None:
            options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    except (ValueError, OSError, BulkError, BulkFailure) as error:
        print(error, file=sys.stderr)
        return 2
    table = Table(title=f"int8_lstm_layer, dynamic=1, {sizes}")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:,.5g}" if value < 1 else f"{value:,g}" for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return int(any(row["cycles"] != row["data_sheet"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
