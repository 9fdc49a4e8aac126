"""Recordings of speech: spoken digits, and speakers told by two vowels.

A file is an `.npz` of arrays without pickles: ``frames``, the frames of all recordings one after
the other, shape (all frames, coefficients); ``lengths``, the frames of each recording; and numbers
that say who spoke what.

Digits: ``digit``, the class, and ``index``, the number of the recording among those of one digit
and one speaker: 0 to 4 are for the test, 5 to 9 for validation. Each coefficient is shifted and
scaled to mean 0 and standard deviation 1 over the training part.

Speakers: ``speakers``, from 1 on, and ``test``, whether a recording is for the test. Of each
speaker's training recordings the last fifth is for validation: neighbours were spoken one after the
other, so that a random choice would be too easy. Coefficients stay as they are.

Noise in a set-up is in standard deviations of a coefficient.

Source: the digits stand in for TIDIGITS, on which Ott et al., arXiv 1608.06902, trained; the
speakers are the "Japanese Vowels" of Kudo, Toyama and Shimbo, 1999. The set-ups are ours.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.train.tasks.batches import batches_of_sequences
from fewbit.train.tasks.sources import check_path, read_arrays
from fewbit.train.tasks.task import Batch, Data, DataError, Names, Setup, Split, Task

__all__ = ["DIGITS", "SPEAKERS"]

Reals = npt.NDArray[np.float32]

_DIGITS_FILE = "an .npz file with frames, lengths, digit and index"
_SPEAKERS_FILE = "an .npz file with frames, lengths, speakers and test"
_TEST_INDICES, _VALIDATION_INDICES = 5, 10
_FOLDS = 5
_MILLION = 1_000_000
_MOST_FRAMES = 1 << 16


def _load_digits(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    del setup, names
    source = check_path(path, "spoken_digits", _DIGITS_FILE)
    arrays = read_arrays(source, {"frames": "f", "lengths": "iu", "digit": "iu", "index": "iu"})
    recordings = _recordings(source, arrays["frames"].astype(np.float32), arrays["lengths"])
    labels, index = (_one_each(source, arrays, name) for name in ("digit", "index"))
    if labels.min() < 0 or index.min() < 0:
        raise DataError(f"'{source}' must have no negative digit or index; give another file.")
    test, rest = index < _TEST_INDICES, index >= _VALIDATION_INDICES
    validation = ~test & ~rest
    parts = _parts(source, recordings, labels, rest, validation, test)
    return _standardised(parts, len(recordings[0][0]), _classes(source, labels[rest], labels))


def _load_speakers(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    del setup, names
    source = check_path(path, "speakers", _SPEAKERS_FILE)
    kinds = {"frames": "iuf", "lengths": "iu", "speakers": "iu", "test": "b"}
    arrays = read_arrays(source, kinds)
    frames = arrays["frames"]
    # Whole numbers are millionths, the last decimal of the source.
    reals = frames / _MILLION if frames.dtype.kind in "iu" else frames
    recordings = _recordings(source, reals.astype(np.float32), arrays["lengths"])
    labels = _one_each(source, arrays, "speakers") - 1
    test = _one_each(source, arrays, "test").astype(np.bool_)
    if labels.min() < 0:
        raise DataError(f"'{source}' must number its speakers from 1 on; give another file.")
    validation = np.zeros(len(labels), np.bool_)
    for speaker in np.unique(labels):
        own = np.flatnonzero((labels == speaker) & ~test)
        validation[own[len(own) - len(own) // _FOLDS :]] = True
    train = ~test & ~validation
    parts = _parts(source, recordings, labels, train, validation, test)
    return Data(*parts, len(recordings[0][0]), _classes(source, labels[train], labels))


def _recordings(source: Path, frames: Reals, lengths: npt.NDArray[Any]) -> list[Reals]:
    """Return the frames of each recording."""
    if frames.ndim != 2 or lengths.ndim != 1:
        raise DataError(
            f"'{source}' must have frames of shape (all frames, coefficients), and lengths of shape"
            f" (recordings,), not {frames.shape} and {lengths.shape}; give another file."
        )
    if not np.isfinite(frames).all():
        raise DataError(f"'{source}' must have finite frames; give another file.")
    counts = lengths.astype(np.int64)
    if counts.min() < 1 or counts.max() > _MOST_FRAMES or counts.sum() != len(frames):
        raise DataError(
            f"'{source}' must have lengths from 1 to {_MOST_FRAMES}, together {len(frames)}, as it"
            f" has frames, not {counts.sum()}; give another file."
        )
    return np.split(frames, np.cumsum(counts)[:-1])


def _one_each(source: Path, arrays: dict[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """Return an array that has a number for each recording."""
    values = arrays[name]
    if values.shape != arrays["lengths"].shape:
        raise DataError(
            f"'{source}' must have a number in '{name}' for each of the"
            f" {len(arrays['lengths'])} recordings, not the shape {values.shape}; give another"
            " file."
        )
    return values.astype(np.int64)


def _classes(source: Path, train: npt.NDArray[Any], labels: npt.NDArray[Any]) -> int:
    classes = len(np.unique(train))
    if classes < 2 or int(labels.max()) != classes - 1 or int(train.max()) != classes - 1:
        raise DataError(
            f"'{source}' must have a training recording of each class from 0 to"
            f" {int(labels.max())}, at least two; give another file."
        )
    return classes


def _parts(
    source: Path,
    recordings: list[Reals],
    labels: npt.NDArray[Any],
    *chosen: npt.NDArray[np.bool_],
) -> tuple[Split, Split, Split]:
    """Return the parts to train, validate and test on, each padded to its longest recording."""
    parts: list[Split] = []
    for part, what in zip(chosen, ("train", "validate", "test"), strict=True):
        places = np.flatnonzero(part).tolist()
        if not places:
            raise DataError(f"'{source}' has no recordings to {what} on; give another file.")
        lengths = np.array([len(recordings[place]) for place in places], np.int64)
        x = np.zeros((len(places), int(lengths.max()), recordings[0].shape[1]), np.float32)
        for row, place in zip(x, places, strict=True):
            row[: len(recordings[place])] = recordings[place]
        parts.append(Split(x, lengths, labels[part].astype(np.int64)))
    train, validation, test = parts
    return train, validation, test


def _standardised(parts: tuple[Split, Split, Split], inputs: int, classes: int) -> Data:
    """Return the data with each coefficient of mean 0 and deviation 1 in the training part."""
    train = parts[0]
    values = train.x[_valid(train)].astype(np.float64)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    deviation[deviation == 0] = 1

    def scaled(part: Split) -> Split:
        x = ((part.x - mean) / deviation).astype(np.float32)
        x[~_valid(part)] = 0
        return Split(x, part.lengths, part.labels)

    return Data(scaled(train), scaled(parts[1]), scaled(parts[2]), inputs, classes)


def _valid(part: Split) -> npt.NDArray[np.bool_]:
    return np.arange(part.x.shape[1]) < part.lengths[:, np.newaxis]


def _batches(data: Data, setup: Setup, epoch: int, seed: int) -> Iterator[Batch]:
    return batches_of_sequences(data.train, setup.batch, epoch, seed, noise=setup.noise)


DIGITS = Task(
    name="spoken_digits",
    summary="spoken digits, 13 coefficients a frame",
    needs=_DIGITS_FILE,
    metric="accuracy",
    per_step=False,
    setups={
        "small": Setup(
            hidden=64,
            batch=50,
            epochs=15,
            learning_rate=0.004,
            last_rate=0.0005,
            largest_gradient=1.0,
            forget_bias=1.0,
        ),
        "large": Setup(
            hidden=200,
            batch=50,
            epochs=60,
            learning_rate=0.002,
            last_rate=0.0002,
            largest_gradient=1.0,
            forget_bias=1.0,
            noise=0.1,
        ),
    },
    load=_load_digits,
    batches=_batches,
)

SPEAKERS = Task(
    name="speakers",
    summary="speakers of two vowels, 12 coefficients a frame",
    needs=_SPEAKERS_FILE,
    metric="accuracy",
    per_step=False,
    setups={
        # After the example japanese_vowels, without its offsets and its average of weights; the
        # noise is larger, by the validation part.
        "small": Setup(
            hidden=32,
            dropout=0.5,
            batch=54,
            epochs=120,
            optimiser="adamw",
            learning_rate=0.01,
            last_rate=0.0005,
            weight_decay=0.01,
            largest_gradient=1.0,
            label_smoothing=0.1,
            noise=0.8,
        ),
    },
    load=_load_speakers,
    batches=_batches,
)
