"""Calibration sequences, which every quantiser starts from: checks and padding."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fewbit.golden.lstm.contract import expect
from fewbit.golden.lstm.float64 import Float64Lstm, Reals
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.network import Node

__all__ = ["calibration_batch", "real_layer"]

Lengths = npt.NDArray[np.int64]
_SEQUENCE_AXES = ("time", "inputs")
_BATCH_AXES = ("batch", *_SEQUENCE_AXES)


def real_layer(node: Node) -> Float64Lstm:
    """Return the real layer of a node that is to be quantised.

    Raises
    ------
    ValueError
        If the layer is quantised already.
    """
    otherwise = f"Layer {node.name!r} must be real, but is quantised already."
    return expect(node.lstm, Float64Lstm, otherwise)


def calibration_batch(
    inputs: int,
    x: npt.NDArray[np.floating] | Sequence[npt.ArrayLike],
    lengths: npt.ArrayLike | None,
) -> tuple[Reals, Lengths]:
    """Return sequences padded with 0, shape (batch, time, inputs), and their lengths, (batch,).

    Parameters
    ----------
    inputs
        Length of the vectors that the model reads.
    x
        A padded array, shape (batch, time, inputs), or a sequence of arrays (time, inputs).
    lengths
        Number of vectors in each sequence of a padded array; None for all.

    Raises
    ------
    ValueError
        If the data are empty, of a wrong shape or not finite.
    """
    if isinstance(x, np.ndarray):
        padded, counts = _check_padded(x, lengths)
    elif lengths is None:
        padded, counts = _pad([_check_sequence(sequence, inputs) for sequence in x])
    else:
        raise ValueError("lengths must be None where x is a sequence of arrays, which have theirs.")
    if padded.shape[2] != inputs:
        raise ValueError(
            f"Calibration data must have {inputs} inputs, as the model has, not {padded.shape[2]}."
        )
    valid = valid_steps(padded, counts)
    kept = np.where(valid[..., np.newaxis], padded, 0.0)
    if not np.isfinite(kept).all():
        at = tuple(np.argwhere(~np.isfinite(kept))[0].tolist())
        raise ValueError(
            f"Calibration data must be finite, not {kept[at]} at (sequence, time, input) {at}; "
            "remove or repair that sequence."
        )
    return kept, counts


def _check_padded(
    x: npt.NDArray[np.floating], lengths: npt.ArrayLike | None
) -> tuple[Reals, Lengths]:
    if x.ndim != len(_BATCH_AXES) or x.dtype.kind not in "iuf":
        raise ValueError(
            "Calibration data must be real numbers of shape (batch, time, inputs), not "
            f"{x.dtype} of shape {x.shape}."
        )
    batch, time, _ = x.shape
    if x.size == 0:
        raise ValueError(f"Calibration data must not be empty, but their shape is {x.shape}.")
    counts = np.full(batch, time) if lengths is None else np.asarray(lengths)
    if counts.shape != (batch,) or counts.dtype.kind not in "iu":
        raise ValueError(
            f"lengths must be integers of shape ({batch},), not {counts.dtype} of shape "
            f"{counts.shape}."
        )
    wrong = (counts < 1) | (counts > time)
    if wrong.any():
        raise ValueError(f"lengths must be from 1 to {time}, not {counts[wrong][0]}.")
    return x.astype(np.float64, copy=False), counts.astype(np.int64)


def _check_sequence(sequence: npt.ArrayLike, inputs: int) -> Reals:
    values = np.asarray(sequence)
    if values.ndim != len(_SEQUENCE_AXES) or values.dtype.kind not in "iuf":
        raise ValueError(
            "A calibration sequence must be real numbers of shape (time, inputs), not "
            f"{values.dtype} of shape {values.shape}."
        )
    if values.size == 0:
        raise ValueError(
            f"A calibration sequence must not be empty, but the shape of one is {values.shape}."
        )
    if values.shape[1] != inputs:
        raise ValueError(
            f"Calibration data must have {inputs} inputs, as the model has, not {values.shape[1]}."
        )
    return values.astype(np.float64)


def _pad(sequences: list[Reals]) -> tuple[Reals, Lengths]:
    if not sequences:
        raise ValueError("Calibration data must hold at least one sequence, not none.")
    counts = np.array([len(sequence) for sequence in sequences], np.int64)
    padded = np.zeros((len(sequences), int(counts.max()), sequences[0].shape[1]))
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded, counts
