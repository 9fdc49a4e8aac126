"""The operands of the multiply-accumulate unit in the speaker model's layer, beat by beat.

Frame by frame, of a frame unit by unit, of a unit the gates i, f, g, o one after the other, and of
a gate the beats over the inputs, then those over the old hidden values.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.japanese_vowels.recognise import floatsd8_model, load_float_model, quantized_input
from examples.japanese_vowels.recordings import Recordings
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.formats import FLOATSD8
from fewbit.golden.lstm import floatsd8
from fewbit.golden.lstm.floatsd8 import HIDDEN_FORMAT, FloatSD8Lstm
from fewbit.golden.lstm.padding import valid_steps

__all__ = ["CodeBeats", "RealBeats", "code_beats", "real_beats"]

Reals = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RealBeats:
    """Operands in double precision, which every number system approximates.

    Where the FloatSD8 layer scales a tensor of weights by a power of two, so are the weights here,
    and the activations back: FloatSD8 of the usual bias holds them, and no product changes.

    Parameters
    ----------
    weights, activations
        Shape (beats, products); products that a row's last beat lacks are 0.
    accumulators
        Sum of the row before the beat, shape (beats,).
    """

    weights: Reals
    activations: Reals
    accumulators: Reals


@dataclass(frozen=True, eq=False)
class CodeBeats:
    """Operands of the FloatSD8 layer, with the accumulators that it rounds to.

    Parameters
    ----------
    weights, activations
        FloatSD8 and e5m2 codes, shape (rows, beats, products).
    biases
        Exponent bias of the weights plus that of the activations, shape (beats,).
    accumulators
        binary16 codes before each beat, shape (rows, beats).
    """

    weights: Codes
    activations: Codes
    biases: Codes
    accumulators: Codes


def real_beats(recordings: Recordings, products: int = 4) -> RealBeats:
    """Return operands of the float model on some recordings, all their frames."""
    model = load_float_model().lstm
    quantised = floatsd8_model(products).lstm
    assert isinstance(quantised, FloatSD8Lstm)
    read = _within(recordings, recordings.padded)
    old = _within(recordings, _delayed(model.run(recordings.padded)))
    weights, activations = [], []
    for tensor, values, bias in (
        (model.input_weights, read, quantised.input_weight_bias),
        (model.recurrent_weights, old, quantised.recurrent_weight_bias),
    ):
        scale = 2.0 ** (bias - FLOATSD8.bias)
        weights.append(_beats(tensor.transpose(1, 0, 2) * scale, products))
        activations.append(_beats(values / scale, products))
    of_frame = np.concatenate(weights, axis=2)
    of_row = np.concatenate(activations, axis=1)[:, np.newaxis, np.newaxis]
    shape = (len(read), *of_frame.shape)
    sums = np.cumsum((of_frame * of_row).sum(axis=-1), axis=-1)
    before = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    return RealBeats(
        np.broadcast_to(of_frame, shape).reshape(-1, products),
        np.broadcast_to(of_row, shape).reshape(-1, products),
        (model.bias.T[..., np.newaxis] + before).ravel(),
    )


def code_beats(
    recordings: Recordings, products: int = 4, window: int | None = DEFAULT_WINDOW
) -> CodeBeats:
    """Return operands of the FloatSD8 layer on some recordings, all their frames."""
    recogniser = floatsd8_model(products, window)
    model = recogniser.lstm
    assert isinstance(model, FloatSD8Lstm)
    x = quantized_input(recogniser, recordings)
    read = _within(recordings, x)
    old = _within(recordings, _delayed(model.run(x)))
    parts = (
        (model.input_weights, read, model.input_weight_bias + model.input_bias),
        (model.recurrent_weights, old, model.recurrent_weight_bias + HIDDEN_FORMAT.bias),
    )
    rows = len(read) * model.hidden * len(model.bias)
    weights, activations, biases, accumulators = [], [], [], []
    total = np.broadcast_to(model.bias.T, (len(read), *model.bias.T.shape)).reshape(rows)
    for tensor, values, bias in parts:
        of_frame = _beats(tensor.transpose(1, 0, 2), products)
        of_row = _beats(values, products)[:, np.newaxis, np.newaxis]
        shape = (len(read), *of_frame.shape)
        for beat in range(of_frame.shape[2]):
            taken, against = (
                np.broadcast_to(array, shape)[..., beat, :].reshape(rows, products)
                for array in (of_frame, of_row)
            )
            accumulators.append(total)
            weights.append(taken)
            activations.append(against)
            biases.append(bias)
            total = floatsd8.add_products(total, taken, against, bias, window)
    return CodeBeats(
        np.stack(weights, axis=1),
        np.stack(activations, axis=1),
        np.array(biases, np.int64),
        np.stack(accumulators, axis=1),
    )


def _within(recordings: Recordings, padded: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the vectors of all frames in order, without the padding: shape (frames, length)."""
    return padded[valid_steps(padded, recordings.lengths)]


def _delayed(hidden: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the hidden vectors before each frame, which are 0 at an utterance's first."""
    return np.concatenate([np.zeros_like(hidden[:, :1]), hidden[:, :-1]], axis=1)


def _beats(array: npt.NDArray[Any], products: int) -> npt.NDArray[Any]:
    """Return the last axis cut into beats, the last of which is padded with 0."""
    padded = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, -array.shape[-1] % products)])
    return padded.reshape(*array.shape[:-1], -1, products)
