"""Recognition of the test set's speakers, in float and with every quantised LSTM.

``python -m examples.japanese_vowels.recognise`` prints the accuracies.

The float model is quantised anew each time, calibrated on the training set: it takes a fraction of
a second and always gives the same layer. Retrained models of ternary and binary weights are read
from their files. The quantised layer is run by a `Backend`, the golden model unless another is
given, such as the circuit in a simulator.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import get_args

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from examples.float_models import read_float_model
from examples.japanese_vowels.recordings import (
    FLOAT_MODEL_FILE,
    LOW_BIT_MODEL_FILES,
    Recordings,
    load_recordings,
)
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import Raws
from fewbit.golden.files.model import ReadOut, load_model
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.ternary import ScaleKind, TernaryLstm, WeightKind
from fewbit.golden.network import golden_backend
from fewbit.golden.quantize import floatsd8, int8, ternary_lstm

__all__ = [
    "Backend",
    "FloatRecogniser",
    "QuantizedRecogniser",
    "Recognition",
    "classify_float",
    "classify_quantized",
    "decide",
    "floatsd8_model",
    "hidden_reals",
    "int8_model",
    "load_float_model",
    "load_recordings",
    "low_bit_model",
    "low_bit_models",
    "quantized_input",
    "retrained_model",
    "run_golden",
]

Backend = Callable[[Lstm, Raws], Raws]
"""Runs a layer: input raws or codes, shape (batch, time, inputs), to hidden ones (..., hidden)."""


@dataclass(frozen=True, eq=False)
class FloatRecogniser:
    """The trained LSTM and its read-out."""

    lstm: Float64Lstm
    read_out: ReadOut


@dataclass(frozen=True, eq=False)
class QuantizedRecogniser:
    """The quantised LSTM; the read-out of its hidden values stays real."""

    lstm: Lstm
    read_out: ReadOut


@dataclass(frozen=True, eq=False)
class Recognition:
    """The recognised speaker of each utterance, and the true speaker.

    Parameters
    ----------
    classes, speakers
        From 0 to 8, shape (utterances,).
    """

    classes: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.int64]

    @property
    def correct(self) -> int:
        """Return the number of utterances whose speaker was recognised."""
        return int((self.classes == self.speakers).sum())

    @property
    def accuracy(self) -> float:
        """Return the share of utterances whose speaker was recognised."""
        return self.correct / len(self.speakers)


@cache
def load_float_model() -> FloatRecogniser:
    """Read the committed float model.

    Raises
    ------
    ValueError
        If its file is missing or damaged.
    """
    return FloatRecogniser(*read_float_model(FLOAT_MODEL_FILE, "examples.japanese_vowels.train"))


@cache
def int8_model(activation: ActivationKind = "table") -> QuantizedRecogniser:
    """Quantise the float model to int8, calibrated on the training set."""
    model = load_float_model()
    train, _ = load_recordings()
    lstm = int8.quantize_lstm(model.lstm, train.padded, train.lengths, activation=activation)
    return QuantizedRecogniser(lstm, model.read_out)


@cache
def floatsd8_model(products: int = 4, window: int | None = DEFAULT_WINDOW) -> QuantizedRecogniser:
    """Quantise the float model to FloatSD8, calibrated on the training set."""
    model = load_float_model()
    train, _ = load_recordings()
    lstm = floatsd8.quantize_lstm(
        model.lstm, train.padded, train.lengths, products=products, window=window
    )
    return QuantizedRecogniser(lstm, model.read_out)


@cache
def low_bit_model(
    weights: WeightKind, scales: ScaleKind = "any", activation_width: int = 12
) -> QuantizedRecogniser:
    """Quantise the float model to few bits a weight as it is, calibrated on the training set."""
    model = load_float_model()
    train, _ = load_recordings()
    lstm = ternary_lstm.quantize_lstm(
        model.lstm,
        train.padded,
        train.lengths,
        to=weights,
        scales=scales,
        activation_width=activation_width,
    )
    return QuantizedRecogniser(lstm, model.read_out)


@cache
def retrained_model(weights: WeightKind, scales: ScaleKind = "any") -> QuantizedRecogniser:
    """Read the committed model that was trained with ternary or binary weights.

    Raises
    ------
    ValueError
        If its file is missing or damaged.
    """
    path = LOW_BIT_MODEL_FILES[weights, scales]
    model = load_model(path)
    if model.lstm.kind != TernaryLstm.kind or model.read_out is None:
        raise ValueError(
            f"{path}: must hold an LSTM of {weights} weights with a read-out; write it anew with "
            "python -m examples.japanese_vowels.train_low_bit."
        )
    return QuantizedRecogniser(model.lstm, model.read_out)


def classify_float(model: FloatRecogniser, recordings: Recordings) -> Recognition:
    """Recognise the speakers in double precision."""
    hidden = model.lstm.run(recordings.padded)
    scores = model.read_out.scores(hidden, recordings.lengths)
    return Recognition(scores.argmax(axis=1), recordings.speakers)


def quantized_input(model: QuantizedRecogniser, recordings: Recordings) -> Raws:
    """Return raws or codes for the layer, shape (utterances, longest, inputs).

    After an utterance's end they mean 0.
    """
    return model.lstm.reads.encode(recordings.padded).astype(np.int64)


def run_golden(lstm: Lstm, x: Raws) -> Raws:
    """Run the layer in the golden model, the reference for all backends."""
    return golden_backend(lstm, x)


def hidden_reals(
    model: QuantizedRecogniser, hidden: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Return the reals of the layer's hidden raws or codes, of any shape."""
    return model.lstm.writes.decode(hidden)


def decide(
    model: QuantizedRecogniser, hidden: npt.NDArray[np.integer], recordings: Recordings
) -> Recognition:
    """Recognise from hidden raws or codes, shape (utterances, longest, hidden).

    Padding is ignored. Of equal scores the lowest class is taken.
    """
    scores = model.read_out.scores(hidden_reals(model, hidden), recordings.lengths)
    return Recognition(scores.argmax(axis=1), recordings.speakers)


def classify_quantized(
    model: QuantizedRecogniser, recordings: Recordings, backend: Backend = run_golden
) -> Recognition:
    """Recognise with the quantised LSTM, run by `backend`."""
    hidden = backend(model.lstm, quantized_input(model, recordings))
    return decide(model, hidden, recordings)


def low_bit_models() -> list[tuple[str, QuantizedRecogniser]]:
    """Return the models of few bits a weight, by their names in the table."""
    chosen: dict[ScaleKind, str] = {"any": "", "powers_of_two": ", scales 2^k"}
    retrained: tuple[WeightKind, ...] = ("ternary", "binary")
    return [
        *(
            (f"{weights}, retrained{end}", retrained_model(weights, scales))
            for weights in retrained
            for scales, end in chosen.items()
        ),
        *(
            (f"{weights}, not retrained{end}", low_bit_model(weights, scales))
            for weights in get_args(WeightKind)
            for scales, end in chosen.items()
        ),
    ]


def main() -> int:
    """Run as a program; return the exit status."""
    try:
        _, test = load_recordings()
        rows = [
            ("float", "exact", classify_float(load_float_model(), test)),
            ("int8", "table", classify_quantized(int8_model("table"), test)),
            ("int8", "gemmlowp", classify_quantized(int8_model("gemmlowp"), test)),
            ("FloatSD8", "nearest", classify_quantized(floatsd8_model(), test)),
        ]
        rows += [
            (name, "table", classify_quantized(model, test)) for name, model in low_bit_models()
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
