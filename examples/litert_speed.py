"""Speed of the golden integer LSTM and of LiteRT on the same layer, on one core each.

A step is one time step of the whole batch. Both get the same file and input, and must give the same
bytes. The best of several runs counts. Run it from the repository's root.
"""

import os

# Before numpy is imported: its matrix products take all cores else.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fewbit.errors import UsageError, check_target, write_text
from fewbit.golden.lstm.int8 import Int8Lstm
from tests.support.tflite_models import interpreter, write_lstm

HIDDEN_SIZES = (32, 128, 512)
BATCHES = (1, 16, 64, 256)
RUNS = 4


def layer(hidden: int) -> Int8Lstm:
    """Return a plain layer with as many inputs as units, whose gates mostly do not saturate."""
    rng = np.random.default_rng(0)

    def weights() -> Any:
        drawn = np.rint(rng.normal(0, 40, (4, hidden, hidden)))
        return np.clip(drawn, -127, 127).astype(np.int8)

    scales = np.full(4, 0.025 / np.sqrt(hidden), np.float32)
    return Int8Lstm(
        input_weights=weights(),
        recurrent_weights=weights(),
        bias=rng.integers(-2000, 2000, (4, hidden)).astype(np.int32),
        input_weight_scales=scales,
        recurrent_weight_scales=3 * scales,
        input_scale=1 / 64,
        input_zero_point=3,
        hidden_scale=1 / 128,
        hidden_zero_point=2,
        intermediate_scale=1 / 128,
        intermediate_zero_point=2,
        cell_exponent=-12,
        activation="gemmlowp",
    )


def seconds(work: Callable[[], object]) -> float:
    """Return the shortest time of several runs, in seconds."""
    best = float("inf")
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def measured(model: Int8Lstm, batch: int, multiplications: float) -> dict[str, Any]:
    """Return the figures of one layer and batch, at about so many multiplications a run."""
    hidden = model.hidden
    # A unit's activations cost about as much as a thousand multiplications.
    per_step = batch * hidden * (8 * hidden + 1000)
    steps = int(np.clip(multiplications / per_step, 2, 200))
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (batch, steps, hidden)).astype(np.int8)
    made = interpreter(write_lstm(model, batch, steps).content)
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    if not np.array_equal(made.get_tensor(made.get_output_details()[0]["index"]), model.run(x)):
        raise AssertionError(f"hidden {hidden}, batch {batch}: the bytes differ from LiteRT's.")
    litert = steps / seconds(made.invoke)
    golden = steps / seconds(lambda: model.run(x))
    return {
        "hidden": hidden,
        "batch": batch,
        "litert_steps_per_second": litert,
        "golden_steps_per_second": golden,
        "ratio": golden / litert,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; return the exit status: 1 if the golden model is slower at batch 64 on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=HIDDEN_SIZES, metavar="N")
    parser.add_argument("--batch", type=int, nargs="+", default=BATCHES, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    options = parser.parse_args(arguments)
    try:
        if options.json is not None:
            check_target(options.json)
        return compare(options)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2


def compare(options: argparse.Namespace) -> int:
    """Measure all layers, print the results, and return the exit status."""
    cases = [(hidden, batch) for hidden in options.hidden for batch in options.batch]
    rows: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        for hidden, batch in progress.track(cases, description="Measuring"):
            rows.append(measured(layer(hidden), batch, 2e8))
    table = Table(title="steps a second, one core")
    for column in ("hidden", "batch", "LiteRT", "golden", "golden / LiteRT"):
        table.add_column(column, justify="right")
    for row in rows:
        hidden, batch, litert, golden, ratio = row.values()
        table.add_row(str(hidden), str(batch), f"{litert:,.0f}", f"{golden:,.0f}", f"{ratio:.2f}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    if options.json is not None:
        write_text(options.json, json.dumps({"engine": "LiteRT", "rows": rows}, indent=2) + "\n")
    return 1 if any(row["ratio"] < 1 for row in rows if row["batch"] >= 64) else 0


if __name__ == "__main__":
    raise SystemExit(main())
