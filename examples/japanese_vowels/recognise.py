"""Recognise the speakers of the test set, in float and with the integer LSTM.

``python -m examples.japanese_vowels.recognise`` prints the accuracies.

The float model is quantised anew each time, calibrated on the training set: it takes a fraction of
a second and always gives the same layer. The integer layer is run by a `Backend`, the golden model
unless another is given, such as the circuit in a simulator.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from examples.japanese_vowels.recordings import FLOAT_MODEL_FILE, Recordings, load_recordings
from golden.activations import ActivationKind
from golden.arithmetic import Raws
from golden.lstm import float64, int8
from golden.lstm.float64 import Float64Lstm
from golden.lstm.int8 import Int8Lstm
from golden.model import ReadOut, load_model
from golden.quantize.int8 import dequantize, quantize, quantize_lstm

__all__ = [
    "Backend",
    "FloatRecogniser",
    "Int8Recogniser",
    "Recognition",
    "classify_float",
    "classify_int8",
    "decide",
    "input_raws",
    "load_float_model",
    "load_recordings",
    "quantized_model",
    "run_golden",
]

Backend = Callable[[Int8Lstm, Raws], Raws]
"""Runs a layer: input raws, shape (batch, time, inputs), to hidden raws (batch, time, hidden)."""


@dataclass(frozen=True, eq=False)
class FloatRecogniser:
    """The trained LSTM and its read-out."""

    lstm: Float64Lstm
    read_out: ReadOut


@dataclass(frozen=True, eq=False)
class Int8Recogniser:
    """The quantised LSTM; the read-out of its hidden values stays real."""

    lstm: Int8Lstm
    read_out: ReadOut


@dataclass(frozen=True, eq=False)
class Recognition:
    """Who was heard in each utterance, and who spoke.

    Parameters
    ----------
    classes, speakers
        From 0 to 8, shape (utterances,).
    """

    classes: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.int64]

    @property
    def correct(self) -> int:
        """Number of utterances whose speaker was recognised."""
        return int((self.classes == self.speakers).sum())

    @property
    def accuracy(self) -> float:
        """Share of utterances whose speaker was recognised."""
        return self.correct / len(self.speakers)


@cache
def load_float_model() -> FloatRecogniser:
    """Read the committed float model.

    Raises
    ------
    ValueError
        If its file is missing or damaged.
    """
    model = load_model(FLOAT_MODEL_FILE)
    if not isinstance(model.lstm, Float64Lstm) or model.read_out is None:
        raise ValueError(
            f"{FLOAT_MODEL_FILE}: must hold a float LSTM with a read-out; write it anew with "
            "python -m examples.japanese_vowels.train."
        )
    return FloatRecogniser(model.lstm, model.read_out)


@cache
def quantized_model(activation: ActivationKind = "table") -> Int8Recogniser:
    """Quantise the float model, calibrated on the training set."""
    model = load_float_model()
    train, _ = load_recordings()
    lstm = quantize_lstm(model.lstm, train.padded, train.lengths, activation=activation)
    return Int8Recogniser(lstm, model.read_out)


def classify_float(model: FloatRecogniser, recordings: Recordings) -> Recognition:
    """Recognise in double precision."""
    hidden = float64.run(model.lstm, recordings.padded)
    scores = model.read_out.scores(hidden, recordings.lengths)
    return Recognition(scores.argmax(axis=1), recordings.speakers)


def input_raws(model: Int8Recogniser, recordings: Recordings) -> Raws:
    """Input raws, shape (utterances, longest, inputs); after an utterance's end they mean 0."""
    lstm = model.lstm
    return quantize(recordings.padded, lstm.input_scale, lstm.input_zero_point)


def run_golden(lstm: Int8Lstm, x: Raws) -> Raws:
    """Run the layer in the golden model: the backend that every other must equal."""
    return int8.run(lstm, x)


def decide(model: Int8Recogniser, hidden: Raws, recordings: Recordings) -> Recognition:
    """Recognise from hidden raws, shape (utterances, longest, hidden); padding is ignored.

    Of equal scores the lowest class is taken.
    """
    # What the layer wrote last has the parameters of the last requantisation.
    reals = dequantize(hidden, model.lstm.intermediate_scale, model.lstm.intermediate_zero_point)
    scores = model.read_out.scores(reals, recordings.lengths)
    return Recognition(scores.argmax(axis=1), recordings.speakers)


def classify_int8(
    model: Int8Recogniser, recordings: Recordings, backend: Backend = run_golden
) -> Recognition:
    """Recognise with the integer LSTM, run by `backend`."""
    hidden = backend(model.lstm, input_raws(model, recordings))
    return decide(model, hidden, recordings)


def main() -> int:
    """Run as a program; return the exit status."""
    try:
        _, test = load_recordings()
        rows = [
            ("float", "exact", classify_float(load_float_model(), test)),
            ("int8", "table", classify_int8(quantized_model("table"), test)),
            ("int8", "gemmlowp", classify_int8(quantized_model("gemmlowp"), test)),
        ]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    table = Table(title=f"Speakers recognised in {len(test)} utterances not trained on")
    for column in ("arithmetic", "activation"):
        table.add_column(column)
    for column in ("recognised", "accuracy", "as in float"):
        table.add_column(column, justify="right")
    reference = rows[0][2].classes
    for arithmetic, activation, recognition in rows:
        table.add_row(
            arithmetic,
            activation,
            str(recognition.correct),
            f"{recognition.accuracy:.1%}",
            str(int((recognition.classes == reference).sum())),
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
