"""Dynamic precision on two tasks: the cost in accuracy, and a comparison with random choice.

``python -m examples.dynamic_precision speaker`` and ``... order --no-offsets`` print, on the whole
test set, the accuracy with threshold and hold from `fewbit.golden.quantize.dynamic.calibrate`
(after Silfa et al.), of all 8 bits, all 4 bits, and of other signals at the same share of LOW
steps. Everything is chosen on the training or calibration sequences; the tests are only reported.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from examples.japanese_vowels import recognise as speakers
from examples.temporal_order import recognise as orders
from examples.temporal_order.sequences import Sequences
from fewbit.golden.codecs import dequantize
from fewbit.golden.lstm import signals
from fewbit.golden.lstm.dynamic import (
    ALWAYS_HIGH,
    CellChange,
    OutputGate,
    Signal,
    run_signal,
    speed_up,
)
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.network import Network, Node
from fewbit.golden.quantize.dynamic import calibrate

__all__ = ["TASKS", "Measured", "Task", "compare", "measure"]

Raws = npt.NDArray[np.int64]
SHARE = 0.76
"""Share of LOW steps asked for on the calibration sequences: somewhat above 0.75 on the test."""
_CALIBRATION_COUNT = 100
_BISECTIONS = 13


@dataclass(frozen=True, eq=False)
class Task:
    """An int8 layer with sequences to calibrate and to test on, as raws.

    Parameters
    ----------
    lstm
        The layer.
    x, lengths
        Calibration sequences.
    test_x, test_lengths
        Test sequences.
    correct
        Number of test sequences decided rightly, from their hidden raws.
    """

    lstm: Int8Lstm
    x: Raws
    lengths: npt.NDArray[np.int64]
    test_x: Raws
    test_lengths: npt.NDArray[np.int64]
    correct: Callable[[Raws], int]


def speaker() -> Task:
    """Speakers of Japanese vowels: 270 training and 370 test utterances."""
    train, test = speakers.load_recordings()
    model = speakers.int8_model()
    assert isinstance(model.lstm, Int8Lstm)
    return Task(
        model.lstm,
        speakers.quantized_input(model, train),
        train.lengths,
        speakers.quantized_input(model, test),
        test.lengths,
        lambda hidden: speakers.decide(model, hidden, test).correct,
    )


def order() -> Task:
    """Temporal order over 200 steps: 100 calibration and 2000 test sequences."""
    lstm, test = orders.int8_model(), orders.test_sequences()
    every = orders.calibration_sequences()
    some = Sequences(*(array[:_CALIBRATION_COUNT] for array in vars(every).values()))
    return Task(
        lstm,
        orders.raws(lstm, some),
        some.lengths,
        orders.raws(lstm, test),
        test.lengths,
        lambda hidden: orders.correct(
            dequantize(hidden, lstm.hidden_scale, lstm.hidden_zero_point), test
        ),
    )


TASKS: dict[str, Callable[[], Task]] = {"speaker": speaker, "order": order}


@dataclass(frozen=True)
class Measured:
    """The result of one way to choose the precision, on the whole test set.

    Parameters
    ----------
    name
        Name of the way to choose, with its setting.
    low_share
        Share of LOW steps of units.
    correct, count
        Sequences decided rightly, and all.
    rms
        Root of the mean square deviation of the hidden values from those with 8 bits, in raws.
    """

    name: str
    low_share: float
    correct: int
    count: int
    rms: float


def measure(task: Task, lstm: Int8Lstm, name: str, signal: Signal) -> Measured:
    """Run the test set with modes that a signal decides."""
    outcome = run_signal(lstm, task.test_x, signal)
    within = valid_steps(task.test_x, task.test_lengths)
    deviation = (outcome.hidden - task.lstm.run(task.test_x))[within]
    return Measured(
        name,
        outcome.low_share(task.test_lengths),
        task.correct(outcome.hidden),
        len(task.test_x),
        float(np.sqrt(np.mean(deviation * deviation))),
    )


def compare(task: Task, *, offsets: bool, share: float = SHARE) -> list[Measured]:
    """Return the results of all ways to choose, at about one share of LOW steps."""
    network = Network((Node(task.lstm),))
    found = calibrate(network, task.x, task.lengths, share=share, offsets=offsets)
    lstm = found.network.nodes[0].lstm
    assert isinstance(lstm, Int8Lstm)
    point = found.chosen[0]
    gate = calibrate(
        network, task.x, task.lengths, share=share, offsets=offsets, signal="output_gate"
    ).chosen[0]
    rows = [
        measure(task, lstm, "all 8 bits", CellChange(0, ALWAYS_HIGH)),
        measure(task, lstm, "all 4 bits, but for two steps", CellChange(0, 0)),
        measure(
            task,
            lstm,
            f"change of the cell (after Silfa et al.), {point.threshold}, hold {point.hold}",
            CellChange(point.threshold, point.hold),
        ),
        measure(
            task,
            lstm,
            f"output gate (ours), {gate.threshold}, hold {gate.hold}",
            OutputGate(gate.threshold, gate.hold, activation=lstm.activation),
        ),
    ]
    chance = signals.random_choice(task.x, point.low_share, task.lengths)
    rows.append(measure(task, lstm, f"at random, seed {chance.seed}", chance))
    kinds: list[tuple[str, Callable[[float], Signal]]] = [
        ("change of the layer's cells", signals.LayerChange),
        ("least saturated gate", signals.Saturation),
        ("open input, i - |i g|", signals.OpenInput),
    ]
    for name, kind in kinds:
        threshold = _threshold_for(task, lstm, kind, point.low_share)
        rows.append(measure(task, lstm, f"{name}, {threshold:.0f}", kind(threshold)))
    return rows


def _threshold_for(
    task: Task, lstm: Int8Lstm, kind: Callable[[float], Signal], share: float
) -> float:
    """Return the least threshold that about reaches a share on the calibration sequences."""
    low, high = -65536.0, 65536.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if run_signal(lstm, task.x, kind(middle)).low_share(task.lengths) < share:
            low = middle
        else:
            high = middle
    return round(high)


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.dynamic_precision")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--no-offsets", action="store_true")
    parser.add_argument("--share", type=float, default=SHARE, help=f"default {SHARE}")
    arguments = parser.parse_args()
    rows = compare(TASKS[arguments.task](), offsets=not arguments.no_offsets, share=arguments.share)
    title = f"{arguments.task}, {'without' if arguments.no_offsets else 'with'} offsets"
    table = Table(title=title)
    for column in ("what chooses", "4 bits", "speed-up", "correct", "of", "rms"):
        table.add_column(column, justify="left" if column == "what chooses" else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.low_share:.1%}",
            # By the formula: no simulated cycles.
            f"{speed_up(row.low_share):.2f}",
            str(row.correct),
            str(row.count),
            f"{row.rms:.2f}",
        )
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
