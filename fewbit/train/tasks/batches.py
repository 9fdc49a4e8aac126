"""Batches of an epoch, which follow from the seed and the epoch alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.train.tasks.task import NO_LABEL, Batch, Split

__all__ = [
    "batches_by_length",
    "batches_of_sequences",
    "batches_of_streams",
    "batches_of_windows",
    "joined",
    "next_symbols",
]

# Batches of sequences of like lengths are made within so many batches.
_POOL = 100


def batches_of_sequences(
    split: Split, batch: int, epoch: int, seed: int, *, noise: float = 0.0
) -> Iterator[Batch]:
    """Yield all sequences in random order, those of like lengths together, without much padding.

    Parameters
    ----------
    split
        The sequences.
    batch
        The number of sequences in a batch; the last of a pool may have fewer.
    epoch, seed
        What the order and the noise follow from.
    noise
        The standard deviation of Gaussian noise on real inputs, in standard deviations of each
        input over all steps.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(split))
    groups = []
    for first in range(0, len(order), batch * _POOL):
        pool = order[first : first + batch * _POOL]
        pool = pool[np.argsort(split.lengths[pool], kind="stable")]
        groups += [pool[start : start + batch] for start in range(0, len(pool), batch)]
    deviation = _deviation(split) if noise else np.zeros(0)
    for number in rng.permutation(len(groups)):
        batch_of = _batch(split, groups[number])
        if noise:
            x = batch_of.x
            x = x + (noise * deviation * rng.normal(size=x.shape)).astype(x.dtype)
            x[np.arange(x.shape[1]) >= batch_of.lengths[:, np.newaxis]] = 0
            batch_of = replace(batch_of, x=x)
        yield batch_of


def batches_by_length(split: Split, batch: int) -> Iterator[Batch]:
    """Yield all sequences, the shortest first, without much padding.

    Parameters
    ----------
    split
        The sequences.
    batch
        The number of sequences in a batch; the last may have fewer.
    """
    order = np.argsort(split.lengths, kind="stable")
    for first in range(0, len(split), batch):
        yield _batch(split, order[first : first + batch])


def _batch(split: Split, chosen: npt.NDArray[np.intp]) -> Batch:
    """Return some sequences, padded to the longest of them."""
    lengths, labels = split.lengths[chosen], split.labels[chosen]
    longest = int(lengths.max())
    return Batch(
        split.x[chosen, :longest], lengths, labels[:, :longest] if labels.ndim > 1 else labels
    )


def joined(batches: Sequence[Batch], each: int | None = None) -> Split:
    """Return the sequences of several batches as one part, padded to the longest batch.

    Parameters
    ----------
    batches
        At least one.
    each
        How many sequences are taken of each, at most; None for all.
    """
    steps = max(batch.x.shape[1] for batch in batches)

    def padded(array: npt.NDArray[Any], value: int) -> npt.NDArray[Any]:
        missing = ((0, 0), (0, steps - array.shape[1]), *[(0, 0)] * (array.ndim - 2))
        return np.pad(array[:each], missing, constant_values=value)

    return Split(
        np.concatenate([padded(batch.x, 0) for batch in batches]),
        np.concatenate([batch.lengths[:each] for batch in batches]),
        np.concatenate(
            [
                padded(batch.labels, NO_LABEL) if batch.labels.ndim > 1 else batch.labels[:each]
                for batch in batches
            ]
        ),
    )


def batches_of_windows(
    split: Split, window: int, batch: int, epoch: int, seed: int
) -> Iterator[Batch]:
    """Yield windows of a text that do not overlap, from a random offset on, in random order.

    Windows that do not fill a batch are left out, unless there are no others.

    Parameters
    ----------
    split
        A text as one sequence of symbols.
    window
        The number of symbols in a window; the last one is only predicted.
    batch
        The number of windows in a batch.
    epoch, seed
        What the offset and the order follow from.
    """
    rng = np.random.default_rng([seed, epoch])
    text = split.x[0, : split.lengths[0]]
    offset = int(rng.integers(min(window, len(text) - window + 1)))
    count = (len(text) - offset) // window
    windows = text[offset : offset + count * window].reshape(count, window)
    order = rng.permutation(count)
    full = len(order) // batch * batch or len(order)
    for first in range(0, full, batch):
        chosen = windows[order[first : first + batch]]
        lengths = np.full(len(chosen), window - 1, np.int64)
        yield Batch(chosen[:, :-1], lengths, chosen[:, 1:].astype(np.int64))


def batches_of_streams(split: Split, window: int) -> Iterator[Batch]:
    """Yield the windows of all streams side by side, in order; every epoch is the same.

    Parameters
    ----------
    split
        Streams of equal lengths.
    window
        The steps of a window; the last may be shorter.
    """
    steps = int(split.lengths.min())
    for first in range(0, steps, window):
        part = slice(first, min(first + window, steps))
        x = split.x[:, part]
        lengths = np.full(len(x), x.shape[1], np.int64)
        yield Batch(x, lengths, split.labels[:, part], carries=first > 0)


def next_symbols(symbols: np.ndarray) -> np.ndarray:
    """Return the label of each step, the symbol after it; the last step has none."""
    labels = np.full(symbols.shape, NO_LABEL, np.int64)
    labels[..., :-1] = symbols[..., 1:]
    return labels


def _deviation(split: Split) -> np.ndarray:
    """Return the standard deviation of each input over all steps of all sequences."""
    valid = np.arange(split.x.shape[1]) < split.lengths[:, np.newaxis]
    return split.x[valid].std(axis=0, dtype=np.float64)
