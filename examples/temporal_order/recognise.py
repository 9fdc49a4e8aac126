"""Recognition of the eight orders, in float and in int8.

``python -m examples.temporal_order.recognise`` prints the accuracies on the test sequences.
"""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from examples.float_models import read_float_model
from examples.temporal_order.sequences import Sequences, generate
from fewbit.golden.arithmetic import Raws
from fewbit.golden.files.model import ReadOut
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.quantize import int8

__all__ = [
    "FLOAT_MODEL_FILE",
    "calibration_sequences",
    "correct",
    "int8_model",
    "load_float_model",
    "raws",
    "test_sequences",
]

FLOAT_MODEL_FILE = Path(__file__).with_name("float_model.npz")
CALIBRATION_SEED, TEST_SEED = 1, 2
CALIBRATION_COUNT, TEST_COUNT = 500, 2000


@cache
def calibration_sequences() -> Sequences:
    """Return the sequences for the calibration of ranges, threshold and hold."""
    return generate(CALIBRATION_COUNT, CALIBRATION_SEED)


@cache
def test_sequences() -> Sequences:
    """Return the sequences on which accuracies are reported and nothing is calibrated."""
    return generate(TEST_COUNT, TEST_SEED)


@cache
def load_float_model() -> tuple[Float64Lstm, ReadOut]:
    """Read the committed float model.

    Raises
    ------
    ValueError
        If its file is missing or damaged.
    """
    return read_float_model(FLOAT_MODEL_FILE, "examples.temporal_order.train")


@cache
def int8_model() -> Int8Lstm:
    """Quantise the float model to int8."""
    sequences = calibration_sequences()
    return int8.quantize_lstm(load_float_model()[0], sequences.padded, sequences.lengths)


def raws(lstm: Int8Lstm, sequences: Sequences) -> Raws:
    """Return the input raws, shape (count, longest, 8)."""
    return lstm.reads.encode(sequences.padded).astype(np.int64)


def correct(hidden: npt.NDArray[np.float64], sequences: Sequences) -> int:
    """Return how many sequences' order is recognised from real hidden values."""
    scores = load_float_model()[1].scores(hidden, sequences.lengths)
    return int((scores.argmax(axis=1) == sequences.classes).sum())


def main() -> int:
    """Run as a program; return the exit status."""
    test, lstm = test_sequences(), int8_model()
    hidden = lstm.run(raws(lstm, test))
    rows = [
        ("float64", load_float_model()[0].run(test.padded)),
        ("int8", lstm.keeps.decode(hidden)),
    ]
    table = Table(title=f"Orders told apart in {len(test)} sequences not trained on")
    for column in ("arithmetic", "correct", "accuracy"):
        table.add_column(column, justify="left" if column == "arithmetic" else "right")
    for arithmetic, reals in rows:
        told = correct(reals, test)
        table.add_row(arithmetic, str(told), f"{told / len(test):.2%}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
