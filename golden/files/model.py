"""A trained model as a file: an LSTM layer, real or quantised, and perhaps its read-out.

A model is an ``.npz`` file without pickles: the fields of its layer by name, ``kind``, which is one
of `fewbit.golden.lstm.kinds.KINDS`, ``version``, and for a read-out
``read_out_weights``, ``read_out_bias`` and ``read_out_pooling``. Fields of a variant that the layer
lacks are left out. Real arrays are stored as float32 where that is exact, else as float64; codes of
8 bits as uint8, of 16 bits as uint16. The ``window`` of a FloatSD8 layer is 0 for exact sums.

Files of several layers use the same functions: `arrays_of_layer` and `write_archive` to store,
`read_archive` within `explained`, `layer_from` and `take_arrays` to load.

A file may come from any source, and `load_model` trusts nothing in it. It checks names, types,
shapes and sizes before it makes an array, and it never executes anything in the file.
"""

import os
import re
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.checks import check_choice
from fewbit.golden.files.archive import (
    Contents,
    ForeignFile,
    as_stored,
    check_names,
    check_version,
    explained,
    read_archive,
    take_arrays,
    write_archive,
)
from fewbit.golden.lstm.contract import REAL, Lstm, StoredArray
from fewbit.golden.lstm.float64 import Reals
from fewbit.golden.lstm.kinds import KINDS
from fewbit.golden.lstm.padding import valid_steps

__all__ = [
    "Model",
    "Pooling",
    "ReadOut",
    "arrays_of_layer",
    "check_kinds",
    "layer_arrays",
    "layer_from",
    "load_model",
    "save_model",
]

Pooling = Literal["last", "mean", "every"]
"""The hidden vectors that a read-out sees: the last one, their mean, or each."""


_VERSION = 1
_REMEDY = "write the file anew with fewbit.golden.files.model.save_model"


@dataclass(frozen=True, eq=False)
class ReadOut:
    """A linear layer over the hidden values of a sequence, which gives a number for each class.

    Arrays are copied as float64 and made read-only.

    Parameters
    ----------
    weights
        Shape (classes, hidden).
    bias
        Shape (classes,).
    pooling
        The vector that the read-out sees: the "last" hidden vector, the "mean" over time, or
        "every" one, which gives scores at every time step.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, or the pooling is unknown.
    """

    weights: Reals
    bias: Reals
    pooling: Pooling = "last"

    def __post_init__(self) -> None:
        """Check shapes and numbers."""
        weights, bias = np.array(self.weights, np.float64), np.array(self.bias, np.float64)
        if weights.ndim != 2 or 0 in weights.shape:
            raise ValueError(f"weights must have the shape (classes, hidden), not {weights.shape}.")
        if bias.shape != weights.shape[:1]:
            raise ValueError(f"bias must have the shape {weights.shape[:1]}, not {bias.shape}.")
        for name, values in (("weights", weights), ("bias", bias)):
            if not np.isfinite(values).all():
                raise ValueError(f"{name} must be finite, not {values[~np.isfinite(values)][0]}.")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        check_choice("pooling", self.pooling, get_args(Pooling))

    def scores(self, hidden: Reals, lengths: npt.NDArray[np.integer]) -> Reals:
        """Return one number for every sequence and class; the largest is the recognised class.

        Parameters
        ----------
        hidden
            Real hidden values, shape (batch, time, hidden), padded at their ends.
        lengths
            Number of vectors in each sequence, from 1 to time, shape (batch,).

        Returns
        -------
        Shape (batch, classes), or (batch, time, classes) where "every" vector is read.

        Raises
        ------
        ValueError
            If a length is out of range.
        """
        return self.apply(self.pooled(hidden, lengths))

    def pooled(self, hidden: Reals, lengths: npt.NDArray[np.integer]) -> Reals:
        """Return the vectors that are read, shape (batch, hidden) or (batch, time, hidden).

        The parameters and errors are those of `scores`.
        """
        batch, time, _ = hidden.shape
        if lengths.shape != (batch,) or (lengths < 1).any() or (lengths > time).any():
            raise ValueError(
                f"lengths must have the shape ({batch},) and be from 1 to {time}, not {lengths}."
            )
        if self.pooling == "every":
            return hidden
        if self.pooling == "last":
            return hidden[np.arange(batch), lengths - 1]
        valid = valid_steps(hidden, lengths)
        kept = np.where(valid[..., np.newaxis], hidden, 0.0)
        return kept.sum(axis=1) / lengths[:, np.newaxis]

    def apply(self, vectors: Reals) -> Reals:
        """Return the scores (..., classes) of vectors (..., hidden)."""
        return vectors @ self.weights.T + self.bias


@dataclass(frozen=True, eq=False)
class Model:
    """An LSTM layer and, optionally, its read-out.

    Raises
    ------
    ValueError
        If the read-out does not fit the layer's hidden values.
    """

    lstm: Lstm
    read_out: ReadOut | None = None

    def __post_init__(self) -> None:
        """Check that layer and read-out fit."""
        outputs = self.lstm.outputs
        if self.read_out is not None and self.read_out.weights.shape[1] != outputs:
            raise ValueError(
                f"The read-out must have {outputs} hidden values, as the layer has, not "
                f"{self.read_out.weights.shape[1]}."
            )


_KIND: dict[str, StoredArray] = {"kind": StoredArray(("text",))}
_HEADER: dict[str, StoredArray] = {"version": StoredArray(("int32",))}
_READ_OUT: dict[str, StoredArray] = {
    "read_out_weights": StoredArray(REAL, ("classes", "outputs")),
    "read_out_bias": StoredArray(REAL, ("classes",)),
    "read_out_pooling": StoredArray(("text",), choices=get_args(Pooling)),
}


def layer_arrays() -> frozenset[str]:
    """Return the names of all arrays that a layer of any kind may have."""
    return frozenset(_KIND).union(*(kind.stored for kind in KINDS.values()))


def arrays_of_layer(lstm: Lstm) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays from which `layer_from` makes the layer again, ``kind`` among them.

    Fields that the layer lacks, and optional fields with their default, are left out.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"kind": np.array(lstm.kind)}
    for name, expected in lstm.stored.items():
        value = getattr(lstm, name)
        if value is None and expected.none_as is not None:
            value = expected.none_as
        # A missing optional field has its default: None for an array, often 0 for a number.
        if not expected.optional or (
            value is not None if expected.shape else value != _defaults(type(lstm))[name]
        ):
            arrays[name] = as_stored(value, expected)
    return arrays


@cache
def _defaults(lstm: type[Lstm]) -> dict[str, object]:
    """Return the defaults of a layer's fields by name."""
    assert is_dataclass(lstm)
    return {field.name: field.default for field in fields(lstm)}


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Write a model file, whole or not at all: an old file stays until the new one is complete.

    The same model gives the same bytes.

    Raises
    ------
    ValueError
        If the file cannot be written, or would be larger than `LARGEST_FILE`.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"version": np.array(_VERSION, np.int32)}
    arrays |= arrays_of_layer(model.lstm)
    if model.read_out is not None:
        for field in fields(model.read_out):
            name = f"read_out_{field.name}"
            arrays[name] = as_stored(getattr(model.read_out, field.name), _READ_OUT[name])
    write_archive(path, arrays)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model file.

    Raises
    ------
    ValueError
        If the file cannot be read, is no model file, is larger than `LARGEST_FILE` packed or
        unpacked, or an array in it is missing, unknown, or of a wrong type, shape, size or value.
    """
    with explained(path, _REMEDY):
        contents = read_archive(path)
        if "network_version" in contents:
            raise ForeignFile(
                "holds a network, of one layer or several; load it with"
                " fewbit.golden.files.network.load_network"
            )
        check_version(contents, "version", _VERSION)
        check_kinds(contents)
        check_names(contents, layer_arrays().union(_HEADER, _READ_OUT).__contains__)
        return _build(contents)


def check_kinds(contents: Contents) -> None:
    """Refuse layers of a kind that is not registered, before their arrays are decoded.

    Raises
    ------
    ForeignFile
        If a layer's kind is not registered.
    """
    for name, content in contents.items():
        if re.fullmatch(r"(node\d+_)?kind", name):
            kind = take_arrays({"kind": content}, _KIND)["kind"]
            if kind not in KINDS:
                raise ForeignFile(
                    f"its kind must be {' or '.join(KINDS)}, not {kind!r}; install or register the"
                    " package of its number system, or install a newer fewbit"
                )


def _build(contents: Contents) -> Model:
    kind = take_arrays(contents, _KIND, keep=True)["kind"]
    lengths: dict[str, int] = {}
    lstm = layer_from(contents, lengths)
    read_out = None
    if any(name in contents for name in _READ_OUT):
        taken = take_arrays(contents, _READ_OUT, lengths)
        read_out = ReadOut(
            weights=taken["read_out_weights"],
            bias=taken["read_out_bias"],
            pooling=taken["read_out_pooling"],
        )
    if contents:
        raise ValueError(f"{min(contents)} does not belong to a model of kind {kind}")
    return Model(lstm, read_out)


def layer_from(contents: Contents, lengths: dict[str, int] | None = None) -> Lstm:
    """Return the layer whose arrays are in `contents`, and remove them there.

    Parameters
    ----------
    contents
        The contents from `read_archive`, after `check_kinds`. The names of the arrays are those of
        `arrays_of_layer`.
    lengths
        A dictionary that the lengths of the layer's axes are added to, by name.

    Raises
    ------
    ValueError
        If an array is missing, or of a wrong type, shape, size or value.
    """
    kind = take_arrays(contents, _KIND)["kind"]
    made = KINDS[kind]
    taken = take_arrays(contents, made.stored, lengths)
    for name, expected in made.stored.items():
        if expected.none_as is not None and taken.get(name) == expected.none_as:
            taken[name] = None
    return made(**taken)
