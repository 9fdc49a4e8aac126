"""A check of the golden integer LSTM against LiteRT on random layers of every variant.

Every combination of gates, peephole, layer norm and projection, each without and with a cell clip
and at each cell exponent, runs in LiteRT and in the golden model, whose plain and fast paths are
both compared: hidden raws of every step, and the last cell. Layers are of six kinds, from like a
trained one to saturating everywhere. Run it from the repository's root.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fewbit.errors import UsageError, check_target, write_text
from tests.support.int8_cases import (
    EXPONENTS,
    SIZES,
    VARIANTS,
    Case,
    Variant,
    random_case,
    within_litert,
)
from tests.support.tflite_models import run_lstm, write_lstm

Raws = npt.NDArray[np.int64]

COMBINATIONS = tuple(product(VARIANTS, (False, True), EXPONENTS))


@dataclass(frozen=True)
class Trial:
    """A random layer that can be drawn again."""

    seed: int
    variant: Variant
    sizes: str
    exponent: int
    clip: float
    extreme: bool

    def case(self) -> Case:
        case = random_case(
            self.seed,
            exponent=self.exponent,
            sizes=self.sizes,
            clip=self.clip,
            extreme=self.extreme,
            variant=self.variant,
        )
        return within_litert(case)


def trials(seed: int) -> Iterator[Trial]:
    """Yield endless trials; every combination comes once before any comes again."""
    kinds = tuple(SIZES)
    for index in count():
        variant, clips, exponent = COMBINATIONS[index % len(COMBINATIONS)]
        share = (0.02, 0.2, 0.6, 1.5)[index % 4]
        yield Trial(
            seed=seed + index,
            variant=variant,
            # Trained-like layers are half of all: the others saturate much or not at all.
            sizes="trained" if index % 2 else kinds[index // 2 % len(kinds)],
            exponent=exponent,
            clip=share * 2.0 ** (exponent + 15) if clips else 0.0,
            extreme=index % 11 == 0,
        )


def plain_run(case: Case) -> tuple[Raws, Raws]:
    """Return the hidden raws of every time step, and the last cell, by the plain step."""
    model = case.model
    hidden, cell = model.reset_state(len(case.x))
    history = np.zeros((*case.x.shape[:2], model.outputs), np.int64)
    for t in range(case.x.shape[1]):
        hidden, cell = model.step(case.x[:, t], hidden, cell)
        history[:, t] = hidden
    return history, cell


def difference(trial: Trial, case: Case, path: str, got: Raws, wanted: Raws, what: str) -> str:
    """Return a text for the first difference, in codes and reals."""
    at = np.argwhere(got != wanted)
    first = tuple(at[0].tolist())
    model = case.model
    if what == "hidden":
        width, scale, zero_point = 8, model.hidden_scale, model.hidden_zero_point
    else:
        width, scale, zero_point = 16, 2.0**model.cell_exponent, 0

    def told(raw: int) -> str:
        code = raw & ((1 << width) - 1)
        return f"0x{code:0{width // 4}x} (raw {raw}, {scale * (raw - zero_point):.6g})"

    return (
        f"{path} path, {what} at {first} of {got.shape}: golden {told(int(got[first]))}, LiteRT "
        f"{told(int(wanted[first]))}; {len(at)} of {got.size} differ.\n{trial}\n"
        f"{model.hidden} units, {model.inputs} inputs, {model.outputs} outputs."
    )


def compare(trial: Trial, counts: dict[str, Counter[str]]) -> str:
    """Run one trial and count it; return its first difference, or nothing."""
    case = trial.case()
    batch, time, _ = case.x.shape
    output, last = run_lstm(write_lstm(case.model, batch, time, **case.file_fields), case.x)
    wanted = {"hidden": output.astype(np.int64), "cell": last.astype(np.int64)}
    plain_hidden, plain_cell = plain_run(case)
    fast_hidden, fast_cells = case.model.run_with_cell(case.x)
    got = {
        "plain": {"hidden": plain_hidden, "cell": plain_cell},
        "fast": {"hidden": fast_hidden, "cell": fast_cells[:, -1]},
    }
    first = ""
    mismatches = 0
    for path, results in got.items():
        for what, result in results.items():
            wrong = int(np.count_nonzero(result != wanted[what]))
            mismatches += wrong
            if wrong and not first:
                first = difference(trial, case, path, result, wanted[what], what)
    for key in (str(trial.variant), f"sizes {trial.sizes}"):
        counts["layers"][key] += 1
        counts["outputs"][key] += output.size
        counts["cells"][key] += last.size
        counts["mismatches"][key] += mismatches
        counts["saturated"][key] += int(np.count_nonzero((output == -128) | (output == 127)))
        counts["fast"][key] += case.model.fast_steps is not None
    return first


def rows_of(counts: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    """Return a row for each variant, each kind of layer, and all."""
    names = [str(variant) for variant in VARIANTS] + [f"sizes {kind}" for kind in SIZES]
    rows = [{"layers of": name} | {what: counts[what][name] for what in counts} for name in names]
    of_variants = names[: len(VARIANTS)]
    total = {what: sum(counts[what][name] for name in of_variants) for what in counts}
    return [*rows, {"layers of": "all"} | total]


def main(arguments: list[str] | None = None) -> int:
    """Run as a program; return the exit status: 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--outputs", type=int, default=1_000_000, help="hidden raws to compare, default 10^6"
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
    """Compare all trials, print the results, and return the exit status."""
    counts: dict[str, Counter[str]] = {
        what: Counter()
        for what in ("layers", "outputs", "cells", "saturated", "fast", "mismatches")
    }
    first, compared = "", 0
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("Comparing with LiteRT", total=options.outputs)
        for index, trial in enumerate(trials(options.seed)):
            if compared >= options.outputs and index >= len(COMBINATIONS):
                break
            found = compare(trial, counts)
            first = first or found
            compared = counts["outputs"].total() // 2
            progress.update(task, completed=min(compared, options.outputs))

    rows = rows_of(counts)
    table = Table(title=f"seed {options.seed}, {len(COMBINATIONS)} combinations")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "layers of" else "right")
    for row in rows:
        if row["layers of"] in {"sizes trained", "all"}:
            table.add_section()
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else cell for cell in row.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if options.json is not None:
        text = json.dumps({"engine": "LiteRT", "seed": options.seed, "rows": rows}, indent=2)
        write_text(options.json, text + "\n")
    if first:
        print(first, file=sys.stderr)
    return 1 if first else 0


if __name__ == "__main__":
    raise SystemExit(main())
