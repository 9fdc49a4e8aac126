"""A check of the layer's RTL against its golden model: every variant, with both activations.

Each circuit gets images of random parameters, random sequences, states and broken packets, every
second part of them with random stalls. Sizes are odd, and small so that the circuits compile fast.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fewbit.errors import UsageError, check_target, write_text
from fewbit.hdl.design import ParameterError, Value
from fewbit.hdl.designs import find
from fewbit.sim.bulk import BulkError, check_bulk

PARTS = ("cifg", "peephole", "layer_norm", "projection")
VARIANTS = tuple(product((0, 1), repeat=len(PARTS)))
# Rows of several beats and of one, groups of units that are full and not, both ways of adding.
SHAPES: tuple[dict[str, Value], ...] = (
    {"inputs": 3, "hidden": 5, "lanes": 2, "neurons": 2, "structure": "fpga"},
    {"inputs": 5, "hidden": 4, "lanes": 1, "neurons": 1, "structure": "gates"},
    {"inputs": 1, "hidden": 7, "lanes": 2, "neurons": 1, "structure": "fpga"},
    {"inputs": 4, "hidden": 3, "lanes": 1, "neurons": 2, "structure": "gates"},
)

# With a precision chosen per step: rows of odd and of even numbers of words, groups that are full
# and not, one neuron, pairs of them and an odd one that share an activation.
DYNAMIC: tuple[dict[str, Value], ...] = (
    {"inputs": 6, "hidden": 9, "lanes": 2, "neurons": 4, "structure": "gates"},
    {"inputs": 21, "hidden": 18, "lanes": 16, "neurons": 3, "structure": "gates"},
    {"inputs": 5, "hidden": 7, "lanes": 3, "neurons": 2, "structure": "fpga"},
    {"inputs": 2, "hidden": 3, "lanes": 5, "neurons": 1, "structure": "gates"},
)


@dataclass(frozen=True)
class Row:
    """A row of the table: the result for one circuit."""

    variant: str
    activation: str
    shape: str
    bytes: int
    mismatches: int
    cycles: int
    seconds: float


def circuits() -> Iterator[tuple[str, dict[str, Value]]]:
    """Return name and parameters of every variant, with both activations; the shapes alternate."""
    for number, flags in enumerate(VARIANTS):
        name = "+".join(part for part, flag in zip(PARTS, flags, strict=True) if flag) or "plain"
        for place, activation in enumerate(("table", "gemmlowp")):
            # Each shape meets each part, there and not.
            shape = SHAPES[(number + number // 4 + 2 * place) % len(SHAPES)]
            parameters: dict[str, Value] = {**shape, "activation": activation}
            parameters.update(zip(PARTS, flags, strict=True))
            if parameters["projection"]:
                parameters["projection"] = 2
            yield name, parameters
    for shape in DYNAMIC:
        yield "dynamic", {**shape, "activation": "table", "dynamic": 1}
    yield "dynamic", {**DYNAMIC[0], "activation": "gemmlowp", "dynamic": 1}
    gate: dict[str, Value] = {"dynamic": 1, "signal": "output_gate"}
    yield "dynamic, output gate", {**DYNAMIC[1], "activation": "table", **gate}
    yield "dynamic, output gate", {**DYNAMIC[0], "activation": "gemmlowp", **gate}


def check(name: str, parameters: dict[str, Value], count: int, seed: int) -> tuple[Row, str]:
    """Return the row of a circuit, and its first counterexample."""
    started = time.perf_counter()
    # Several parts, as every second one has stalls.
    chunk = max(1, -(-count // 8))
    outcome = check_bulk(
        find("int8_lstm_layer").configure(parameters), count=count, chunk=chunk, seed=seed
    )
    row = Row(
        variant=name,
        activation=str(parameters["activation"]),
        shape=" ".join(str(parameters[each]) for each in SHAPES[0]),
        bytes=outcome.vectors,
        mismatches=outcome.mismatches,
        cycles=outcome.cycles,
        seconds=round(time.perf_counter() - started, 1),
    )
    if outcome.passed:
        return row, ""
    return row, f"{name}, {row.activation}: {outcome.counterexample or 'nothing was compared.'}"


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; return the exit status: 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--count", type=int, default=20_000, help="bytes of each circuit, default 20000"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    options = parser.parse_args(arguments)
    try:
        if options.json is not None:
            check_target(options.json)
        return campaign(options)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2


def campaign(options: argparse.Namespace) -> int:
    """Compare all circuits, print the results, and return the exit status."""
    rows: list[Row] = []
    failures: list[str] = []
    todo = list(circuits())
    try:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            for name, parameters in progress.track(todo, description="Comparing with golden"):
                row, failure = check(name, parameters, options.count, options.seed)
                rows.append(row)
                failures += [failure] if failure else []
    except (ValueError, ParameterError, BulkError) as error:
        print(error, file=sys.stderr)
        return 2

    table = Table(title=f"seed {options.seed}, {len(rows)} circuits; shape: {' '.join(SHAPES[0])}")
    for column in asdict(rows[0]):
        words = column in {"variant", "activation", "shape"}
        table.add_column(column, justify="left" if words else "right")
    for row in rows:
        texts = [
            f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in asdict(row).values()
        ]
        table.add_row(*texts, style="bold red" if row.mismatches or not row.bytes else None)
    table.add_section()
    table.add_row(
        "all",
        "",
        "",
        f"{sum(row.bytes for row in rows):,}",
        f"{sum(row.mismatches for row in rows):,}",
        f"{sum(row.cycles for row in rows):,}",
        f"{sum(row.seconds for row in rows):.1f}",
    )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.json is not None:
        listed = [asdict(row) for row in rows]
        text = json.dumps({"engine": "CXXRTL", "seed": options.seed, "rows": listed}, indent=2)
        write_text(options.json, text + "\n")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
