"""A trained model with all that turns data into scores: embedding, network and read-out.

Its file is that of its network, with more arrays: `fewbit.golden.files.network` reads it as any
network. Names of symbols and classes are stored as the bytes of all names in UTF-8, and the number
of bytes of each. As any file, it may come from any source, and nothing in it is trusted.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.checks import check_shape
from fewbit.golden.files.archive import as_stored, explained, read_archive, write_archive
from fewbit.golden.files.model import ReadOut, load_model
from fewbit.golden.files.network import TRAINED, arrays_of_network, network_from
from fewbit.golden.lstm.contract import LONGEST_TEXT
from fewbit.golden.lstm.float64 import Reals
from fewbit.golden.network import Network, Node
from fewbit.golden.words import shown

__all__ = ["TrainedModel", "find_trained", "load_trained", "save_trained", "with_network"]

_REMEDY = "write the file anew with fewbit.golden.files.trained.save_trained"
_TASK = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_TEXT - 1}}}")


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network, what comes before it and what comes after it.

    Arrays are copied as float64 and made read-only.

    Parameters
    ----------
    network
        The network, real or quantised.
    read_out
        The linear layer over the network's output.
    embedding
        The vector that stands for each symbol, shape (symbols, inputs); None for real vectors as
        inputs, or, where there are `symbols`, for one-hot vectors.
    task
        The name of the task that the model was trained for; empty if it is not known.
    symbols
        The name of each input symbol; empty for real vectors.
    classes
        The name of each class; empty where classes are numbers.

    Raises
    ------
    ValueError
        If the parts do not fit each other, or a name or a number is none.
    """

    network: Network
    read_out: ReadOut
    embedding: Reals | None = None
    task: str = ""
    symbols: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        width, inputs = self.network.width, self.network.inputs
        classes, read = self.read_out.weights.shape
        if read != width:
            raise ValueError(
                f"The read-out must have {width} hidden values, as the network has, not {read}."
            )
        if self.task and not _TASK.fullmatch(self.task):
            raise ValueError(
                f"task must be at most {LONGEST_TEXT} small letters, digits and _, not"
                f" {shown(self.task)}."
            )
        object.__setattr__(self, "symbols", _checked_names("symbols", self.symbols))
        object.__setattr__(self, "classes", _checked_names("classes", self.classes))
        if self.classes and len(self.classes) != classes:
            raise ValueError(
                f"There must be {classes} classes, as the read-out has, not {len(self.classes)}."
            )
        known = len(self.symbols) or -1
        if self.embedding is None:
            if known not in {-1, inputs}:
                raise ValueError(
                    f"There must be {inputs} symbols, as the network has inputs, not {known}."
                )
            return
        embedding = np.array(self.embedding, np.float64)
        check_shape(embedding, "embedding", (known, inputs))
        if not np.isfinite(embedding).all():
            raise ValueError(
                f"embedding must be finite, not {embedding[~np.isfinite(embedding)][0]}."
            )
        embedding.setflags(write=False)
        object.__setattr__(self, "embedding", embedding)

    @property
    def takes_symbols(self) -> bool:
        """Return whether an input is a symbol, and not a real vector."""
        return bool(self.symbols) or self.embedding is not None

    def inputs_of(self, x: npt.ArrayLike) -> Reals:
        """Return the real vectors that the network sees, shape (batch, time, inputs).

        Parameters
        ----------
        x
            Symbols, whole numbers of shape (batch, time), where the model takes symbols; else reals
            of shape (batch, time, inputs).

        Raises
        ------
        ValueError
            If the shape is wrong, or there is no such symbol.
        """
        given = np.asarray(x)
        if not self.takes_symbols:
            check_shape(given, "x", (-1, -1, self.network.inputs))
            return given.astype(np.float64)
        check_shape(given, "x", (-1, -1))
        count = self.network.inputs if self.embedding is None else len(self.embedding)
        if given.dtype.kind not in "iu":
            raise ValueError(f"Symbols must be whole numbers, not {given.dtype}.")
        if given.size and not 0 <= given.min() <= given.max() < count:
            wrong = given[(given < 0) | (given >= count)][0]
            raise ValueError(f"Symbols must be from 0 to {count - 1}, not {wrong}.")
        if self.embedding is not None:
            return self.embedding[given]
        one_hot = np.zeros((*given.shape, count))
        np.put_along_axis(one_hot, given[..., np.newaxis].astype(np.int64), 1.0, axis=2)
        return one_hot


def with_network(model: TrainedModel, network: Network) -> TrainedModel:
    """Return the model with another network, such as a quantised one, in place of its own.

    Raises
    ------
    ValueError
        If the network has other inputs or outputs.
    """
    if network.inputs != model.network.inputs:
        raise ValueError(
            f"The network must have {model.network.inputs} inputs, as the trained model has, not"
            f" {network.inputs}."
        )
    return replace(model, network=network)


def save_trained(path: str | os.PathLike[str], model: TrainedModel) -> None:
    """Write the file of a trained model, whole or not at all; the same model gives the same bytes.

    Raises
    ------
    ValueError
        If the file cannot be written, or would be larger than
        `fewbit.golden.files.archive.LARGEST_FILE`.
    """
    values: dict[str, Any] = {
        f"read_out_{field.name}": getattr(model.read_out, field.name)
        for field in fields(model.read_out)
    }
    if model.embedding is not None:
        values["embedding"] = model.embedding
    if model.task:
        values["task"] = model.task
    for noun, names in (("symbol", model.symbols), ("class", model.classes)):
        if names:
            encoded = [name.encode() for name in names]
            values[f"{noun}_letters"] = np.frombuffer(b"".join(encoded), np.uint8)
            values[f"{noun}_lengths"] = [len(each) for each in encoded]
    arrays = arrays_of_network(model.network)
    arrays |= {name: as_stored(value, TRAINED[name]) for name, value in values.items()}
    write_archive(path, arrays)


def load_trained(path: str | os.PathLike[str]) -> TrainedModel:
    """Read the file of a trained model, or a model file of one layer with a read-out.

    Raises
    ------
    ValueError
        If the file cannot be read, is too large, holds no read-out, or anything in it is wrong.
    """
    model = find_trained(path)
    if model is None:
        raise ValueError(
            f"{os.fspath(path)}: has no read-out, so that it gives no scores; take a model that"
            " fewbit train wrote."
        )
    return model


def find_trained(path: str | os.PathLike[str]) -> TrainedModel | None:
    """Read a file like `load_trained`; return None if it holds a network without a read-out.

    Raises
    ------
    ValueError
        If the file cannot be read, is too large, or anything in it is wrong.
    """
    with explained(path, _REMEDY):
        contents = read_archive(path)
        if "network_version" in contents:
            network, further = network_from(contents)
            return _trained_from(network, further) if further else None
    model = load_model(path)
    if model.read_out is None:
        return None
    return TrainedModel(Network((Node(model.lstm),)), model.read_out)


def _trained_from(network: Network, further: dict[str, Any]) -> TrainedModel:
    return TrainedModel(
        network,
        ReadOut(further["read_out_weights"], further["read_out_bias"], further["read_out_pooling"]),
        embedding=further.get("embedding"),
        task=further.get("task", ""),
        symbols=_names_from("symbol", further),
        classes=_names_from("class", further),
    )


def _names_from(noun: str, further: dict[str, Any]) -> tuple[str, ...]:
    letters, lengths = (further.get(f"{noun}_{what}") for what in ("letters", "lengths"))
    if letters is None and lengths is None:
        return ()
    if letters is None or lengths is None:
        raise ValueError(f"{noun}_letters and {noun}_lengths go together")
    ends = np.cumsum(lengths, dtype=np.int64)
    if lengths.min() < 1 or ends[-1] != len(letters):
        raise ValueError(
            f"{noun}_lengths must be at least 1 and together {len(letters)}, as {noun}_letters has"
        )
    content = letters.tobytes()
    starts = (ends - lengths).tolist()
    try:
        return tuple(
            content[start:end].decode() for start, end in zip(starts, ends.tolist(), strict=True)
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{noun}_letters must be names in UTF-8") from error


def _checked_names(what: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple; refuse empty ones, twins, and what UTF-8 cannot hold."""
    given = tuple(names)
    seen: set[str] = set()
    for name in given:
        if not name:
            raise ValueError(f"The names of {what} must not be empty.")
        if name in seen:
            raise ValueError(f"The names of {what} must differ, but {shown(name)} is there twice.")
        seen.add(name)
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"The names of {what} must be text that UTF-8 holds, not {shown(name)}."
            ) from error
    return given
