"""Accuracy against the share of steps at 4 bits, and a third mode that skips a unit.

``python -m examples.precision_curve speaker`` and ``... order --no-offsets`` print, on the whole
test set, what the change of the cell (after Silfa et al.) loses at one threshold after the other,
what as many steps chosen at random lose, and what is lost where calm units keep their cell and
hidden value for a step instead. Thresholds are those given, not calibrated.
"""

import argparse
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from examples.dynamic_precision import TASKS, Task
from fewbit.golden.lstm.dynamic import FIRST_STEPS, CellChange, Signal, run_signal
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.lstm.signals import random_choice
from fewbit.golden.quantize.dynamic import low_offsets

THRESHOLDS = (20, 60, 120, 200, 300, 450, 700, 1500)
SKIPS = (0, 5, 20, 40, 100, 200, 400)
HOLD = 2


def skip(lstm: Int8Lstm, x: npt.NDArray[np.int64], threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Return hidden raws of an int8 layer that skips units, and where it skipped them.

    A unit is skipped, and keeps cell and hidden value, where the step before was not and changed
    its cell by `threshold` at most; never in the first two steps of a sequence.
    """
    batch, time, _ = x.shape
    hidden, cell = lstm.reset_state(batch)
    hiddens = np.zeros((batch, time, lstm.outputs), np.int64)
    skipped = np.zeros((batch, time, lstm.hidden), np.bool_)
    calm = np.zeros((batch, lstm.hidden), np.bool_)
    for t in range(time):
        new_hidden, new_cell = lstm.step(x[:, t], hidden, cell)
        skipped[:, t] = calm & (t >= FIRST_STEPS)
        kept = skipped[:, t]
        hidden, new_cell = np.where(kept, hidden, new_hidden), np.where(kept, cell, new_cell)
        calm = ~kept & (np.abs(new_cell - cell) <= threshold)
        cell = new_cell
        hiddens[:, t] = hidden
    return hiddens, skipped


def share_of(marks: npt.NDArray[np.bool_], lengths: npt.NDArray[np.int64]) -> float:
    """Return the share of marked time steps of units within the sequences."""
    return float(marks[valid_steps(marks, lengths)].mean())


def curve(task: Task, lstm: Int8Lstm) -> list[tuple[str, float, int, int | None]]:
    """Return threshold, share and correct sequences, by the change of the cell and at random."""

    def tried(signal: Signal) -> tuple[float, int]:
        outcome = run_signal(lstm, task.test_x, signal)
        return outcome.low_share(task.test_lengths), task.correct(outcome.hidden)

    most, correct = tried(CellChange(0, 0))
    rows: list[tuple[str, float, int, int | None]] = []
    for threshold in THRESHOLDS:
        share, told = tried(CellChange(threshold, HOLD))
        _, chance = tried(random_choice(task.test_x, share, task.test_lengths))
        rows.append((str(threshold), share, told, chance))
    return [*rows, ("all LOW but two steps", most, correct, None)]


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--no-offsets", action="store_true")
    arguments = parser.parse_args()
    task = TASKS[arguments.task]()
    count = len(task.test_x)
    lstm = task.lstm
    if not arguments.no_offsets:
        lstm = replace(lstm, low_offsets=low_offsets(lstm, task.x, task.lengths))
    console = Console(width=100)
    table = Table(title=f"{arguments.task}: correct of {count}, hold {HOLD}")
    for column in ("threshold", "4 bits", "change of the cell", "at random"):
        table.add_column(column, justify="right")
    whole = task.correct(task.lstm.run(task.test_x))
    table.add_row("8 bits", "0.0%", str(whole), "")
    for name, share, told, chance in curve(task, lstm):
        table.add_row(name, f"{share:.1%}", str(told), "" if chance is None else str(chance))
    console.print(table)
    table = Table(title=f"{arguments.task}: units skipped, else 8 bits, correct of {count}")
    for column in ("threshold", "skipped", "correct"):
        table.add_column(column, justify="right")
    for threshold in SKIPS:
        hidden, skipped = skip(task.lstm, task.test_x, threshold)
        share = share_of(skipped, task.test_lengths)
        table.add_row(str(threshold), f"{share:.1%}", str(task.correct(hidden)))
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
