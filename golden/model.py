"""A trained model as a file: an LSTM layer, real or quantised, and what reads its hidden values.

A model is an ``.npz`` file without pickles: the fields of its layer by name, ``kind``, which is one
of `golden.lstm.kinds.KINDS`, ``version``, and for a read-out
``read_out_weights``, ``read_out_bias`` and ``read_out_pooling``. Fields of a variant that the layer
lacks are left out. Real arrays are stored as float32 where that is exact, else as float64; codes of
8 bits as uint8, of 16 bits as uint16. The ``window`` of a FloatSD8 layer is 0 for exact sums.

Files of several layers are made of the same parts: `arrays_of_layer` and `write_archive` store,
`read_archive` within `explained`, `layer_from` and `take_arrays` load.

A file may come from anywhere: `load_model` takes nothing in it for granted. Names, types, shapes
and sizes are checked before an array is made, and nothing in the file is ever executed.
"""

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from golden.lstm.contract import LONGEST_TEXT, REAL, Lstm, StoredArray
from golden.lstm.float64 import Reals
from golden.lstm.kinds import KINDS
from golden.shapes import valid_steps

__all__ = [
    "LARGEST_FILE",
    "Contents",
    "ForeignFile",
    "Model",
    "Pooling",
    "ReadOut",
    "arrays_of_layer",
    "check_kinds",
    "check_names",
    "check_version",
    "explained",
    "layer_arrays",
    "layer_from",
    "load_model",
    "read_archive",
    "save_model",
    "take_arrays",
    "write_archive",
]

Contents = dict[str, bytes]
"""Array files of an archive by array name, headers included, nothing in them checked yet."""
Pooling = Literal["last", "mean"]

LARGEST_FILE = 64 << 20
"""Most bytes of a model file, both as it lies on disk and unpacked."""

_VERSION = 1
_LONGEST_REASON = 100
_REMEDY = "write the file anew with golden.model.save_model"


@dataclass(frozen=True, eq=False)
class ReadOut:
    """A linear layer over the hidden values of a sequence: one number a class.

    Arrays are copied as float64 and made read-only.

    Parameters
    ----------
    weights
        Shape (classes, hidden).
    bias
        Shape (classes,).
    pooling
        What stands for a sequence: the "last" hidden vector, or the "mean" over time.

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
        if self.pooling not in get_args(Pooling):
            raise ValueError(f'pooling must be "last" or "mean", not {self.pooling!r}.')

    def scores(self, hidden: Reals, lengths: npt.NDArray[np.integer]) -> Reals:
        """One number for every sequence and class; the largest is the class recognised.

        Parameters
        ----------
        hidden
            Real hidden values, shape (batch, time, hidden), padded at their ends.
        lengths
            Number of vectors in each sequence, from 1 to time, shape (batch,).

        Returns
        -------
        Shape (batch, classes).
        """
        batch, time, _ = hidden.shape
        if lengths.shape != (batch,) or (lengths < 1).any() or (lengths > time).any():
            raise ValueError(
                f"lengths must have the shape ({batch},) and be from 1 to {time}, not {lengths}."
            )
        if self.pooling == "last":
            pooled = hidden[np.arange(batch), lengths - 1]
        else:
            valid = valid_steps(hidden, lengths)
            kept = np.where(valid[..., np.newaxis], hidden, 0.0)
            pooled = kept.sum(axis=1) / lengths[:, np.newaxis]
        return pooled @ self.weights.T + self.bias


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
    """Names of all arrays that a layer of any kind may have."""
    return frozenset(_KIND).union(*(kind.stored for kind in KINDS.values()))


def arrays_of_layer(lstm: Lstm) -> dict[str, npt.NDArray[Any]]:
    """Arrays from which `layer_from` makes the layer again, ``kind`` among them.

    Fields that the layer lacks, or that have an optional number's usual value, are left out.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"kind": np.array(lstm.kind)}
    for name, expected in lstm.stored.items():
        value = getattr(lstm, name)
        if value is None and expected.none_as is not None:
            value = expected.none_as
        # What may be missing has its default then: None for an array, often 0 for a number.
        if not expected.optional or (
            value is not None if expected.shape else value != _defaults(type(lstm))[name]
        ):
            arrays[name] = _as_stored(value, expected)
    return arrays


@cache
def _defaults(lstm: type[Lstm]) -> dict[str, object]:
    """Defaults of a layer's fields by name."""
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
            arrays[name] = _as_stored(getattr(model.read_out, field.name), _READ_OUT[name])
    write_archive(path, arrays)


def write_archive(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as an ``.npz`` file, whole or not at all.

    Raises
    ------
    ValueError
        If the file cannot be written, or would be larger than `LARGEST_FILE`.
    """
    target = Path(path)
    size = sum(array.nbytes for array in arrays.values())
    if size > LARGEST_FILE:
        raise ValueError(
            f"{target}: a model file must hold at most {LARGEST_FILE} bytes, not {size}; make the "
            "layer smaller."
        )
    _replace(target, arrays)


def _as_stored(value: object, expected: StoredArray) -> npt.NDArray[Any]:
    if expected.kinds == ("text",):
        return np.array(str(value))
    exact = np.asarray(value)
    if expected.kinds == REAL:
        with np.errstate(over="ignore", under="ignore"):
            rounded = exact.astype(np.float32)
        return rounded if np.array_equal(rounded, exact) else exact.astype(np.float64)
    return exact.astype(expected.kinds[0])


def _replace(target: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a file beside `target`, then give it that name."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        draft.replace(target)
    except OSError as error:
        raise ValueError(
            f"{target}: cannot be written ({error.strerror or error}); name a file in a folder "
            "that can be written."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model file.

    Raises
    ------
    ValueError
        If the file cannot be read, is no model file, is larger than `LARGEST_FILE` packed or
        unpacked, or an array in it is missing, unknown, or of a wrong type, shape, size or value.
    """
    with explained(path):
        contents = read_archive(path)
        if "network_version" in contents:
            raise ForeignFile(
                "holds a network, of one layer or several; load it with golden.network.load_network"
            )
        check_version(contents, "version", _VERSION)
        check_kinds(contents)
        check_names(contents, layer_arrays().union(_HEADER, _READ_OUT).__contains__)
        return _build(contents)


@contextmanager
def explained(path: str | os.PathLike[str], remedy: str = _REMEDY) -> Generator[None]:
    """Whatever goes wrong within while a file is read, said in one sentence that names the file.

    Raises
    ------
    ValueError
        For any error of the file, of the archive, or of a check.
    """
    source = Path(path)
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{source}: there is no such file; give the path of a model.") from error
    except OSError as error:
        raise ValueError(
            f"{source}: cannot be read ({error.strerror or error}); give the path of a model."
        ) from error
    except (
        # What zipfile and zlib raise for a damaged archive, encryption and unknown features.
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        # zipfile quotes names from the file, which may be 64 KiB long.
        reason = str(error)[:_LONGEST_REASON] or type(error).__name__
        raise ValueError(f"{source}: is no readable .npz archive ({reason}); {remedy}.") from error
    except ForeignFile as error:
        raise ValueError(f"{source}: {error}.") from error
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).rstrip('.')}; {remedy}.") from error


def read_archive(path: str | os.PathLike[str]) -> Contents:
    """Contents of every array file of an ``.npz`` archive; to be called within `explained`.

    Raises
    ------
    ValueError
        If the archive is too large, or holds something else than arrays.
    """
    source = Path(path)
    if not source.is_file() and source.exists():
        raise ValueError("a model must be a file, not a folder or a device")
    size = source.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"a model file must hold at most {LARGEST_FILE} bytes, not {size}")
    contents: Contents = {}
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        # The sizes that the archive declares bound what zipfile unpacks.
        unpacked = sum(member.file_size for member in members)
        if unpacked > LARGEST_FILE:
            raise ValueError(
                f"the arrays must unpack to at most {LARGEST_FILE} bytes, but {unpacked} are "
                "declared"
            )
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                raise ValueError(f"the file {member.filename[:80]!r} in the archive is unknown")
            if name in contents:
                raise ValueError(f"{name} must be in the archive once, not twice")
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError(
                    f"{name} must be stored or deflated, not packed by method "
                    f"{member.compress_type}"
                )
            contents[name] = archive.read(member)
    return contents


class ForeignFile(ValueError):
    """A file that may be right, and isn't for this function or this installation.

    The sentence names the remedy.
    """


def check_names(contents: Contents, known: Callable[[str], bool]) -> None:
    """Refuse arrays that no file of this kind has.

    Raises
    ------
    ValueError
        If there is one.
    """
    for name in contents:
        if not known(name):
            raise ValueError(f"the file {name[:80] + '.npy'!r} in the archive is unknown")


def check_version(contents: Contents, name: str, newest: int) -> None:
    """Refuse a format version that this package doesn't know, before anything else is looked at.

    Parameters
    ----------
    contents
        As `read_archive` gives them; the version is removed from them.
    name
        Of the array that holds it.
    newest
        The newest that is read; all from 1 on are.

    Raises
    ------
    ForeignFile
        If the file's is newer.
    ValueError
        If it is missing, or none.
    """
    version = take_arrays(contents, {name: StoredArray(("int32",))})[name]
    if version > newest:
        raise ForeignFile(
            f"its format is version {version}, and this fewbit reads versions up to {newest};"
            " install a newer fewbit"
        )
    if version < 1:
        raise ValueError(f"{name} must be at least 1, not {version}")


def check_kinds(contents: Contents) -> None:
    """Refuse layers of a kind that no number system here has, before their arrays are looked at.

    Raises
    ------
    ForeignFile
        If there is one.
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
    """Layer whose arrays are in `contents`, from which they are removed.

    Parameters
    ----------
    contents
        As `read_archive` gives them and `check_kinds` lets them through; `arrays_of_layer` gives
        the names.
    lengths
        Where to keep the lengths of the layer's axes by name.

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


def take_arrays(
    contents: Contents,
    expected: Mapping[str, StoredArray],
    lengths: dict[str, int] | None = None,
    *,
    keep: bool = False,
) -> dict[str, Any]:
    """Decode the expected arrays, scalars and texts as such, and remove them from `contents`.

    Parameters
    ----------
    contents
        As `read_archive` gives them.
    expected
        What each array must be; of those that are optional, the missing are left out.
    lengths
        What names of axes stand for; added to.
    keep
        Whether `contents` keep them.

    Raises
    ------
    ValueError
        If an array is missing, or of a wrong type, shape or size.
    """
    taken: dict[str, Any] = {}
    known = {} if lengths is None else lengths
    for name, array in expected.items():
        if name not in contents:
            if array.optional:
                continue
            raise ValueError(f"{name} is missing")
        value = _decode(name, contents[name] if keep else contents.pop(name), array, known)
        if array.kinds == ("text",):
            taken[name] = _as_text(name, value, array.choices)
        else:
            taken[name] = value if array.shape else value.item()
    return taken


# As numpy writes it, version 1.0: the two bytes before hold the header's length.
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_TEXT = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z]\d{1,6})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,9},? ?)*)\), \} *\n"
)
_KINDS = {
    "|i1": "int8",
    "<i2": "int16",
    "<i4": "int32",
    "|u1": "uint8",
    "<u2": "uint16",
    "<f4": "float32",
    "<f8": "float64",
    **{f"<U{length}": "text" for length in range(1, LONGEST_TEXT + 1)},
}


def _decode(
    name: str, content: bytes, expected: StoredArray, lengths: dict[str, int]
) -> npt.NDArray[Any]:
    """Array of an ``.npy`` file, its header read by pattern and checked against `expected`.

    numpy's own reader evaluates the header as a Python literal and takes types and sizes as they
    come; what is allowed here is so little that a pattern says it.
    """
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(content[len(_MAGIC) : start], "little")
    match = _HEADER_TEXT.fullmatch(content[start:end])
    if content[: len(_MAGIC)] != _MAGIC or match is None:
        raise ValueError(f"{name} must be an array as numpy writes it, in version 1.0 of .npy")
    descr = match[1].decode()
    shape = tuple(int(length) for length in match[3].replace(b",", b" ").split())
    kind = _KINDS.get(descr, descr)
    known = {axis: lengths[axis] for axis in expected.shape if axis in lengths}
    if kind not in expected.kinds or not _fits(shape, expected.shape, lengths):
        where = " and ".join(f"{axis} is {length}" for axis, length in known.items())
        condition = where and f", where {where}"
        raise ValueError(f"{name} must be {expected}{condition}, not {kind} of shape {shape}")
    dtype = np.dtype(descr)
    size = dtype.itemsize * math.prod(shape)
    if size != len(content) - end:
        raise ValueError(f"{name} must hold {size} bytes, not {len(content) - end}")
    flat = np.frombuffer(content, dtype, offset=end)
    return flat.reshape(shape, order="F" if match[2] == b"True" else "C")


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...], lengths: dict[str, int]) -> bool:
    """Whether `shape` is as wanted; keeps in `lengths` what a name stands for."""
    if len(shape) != len(wanted):
        return False
    return all(
        length > 0
        and length == (want if isinstance(want, int) else lengths.setdefault(want, length))
        for length, want in zip(shape, wanted, strict=True)
    )


def _as_text(name: str, value: npt.NDArray[Any], choices: tuple[str, ...]) -> str:
    text = value.tobytes().decode("utf-32-le", errors="replace").rstrip("\0")
    if choices and text not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {listed}, not {text!r}")
    return text
