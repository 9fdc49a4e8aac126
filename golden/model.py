"""A trained model as a file: an LSTM layer, real or quantised, and what reads its hidden values.

A model is an ``.npz`` file without pickles: the fields of its layer by name, ``kind``
("float64_lstm" or "int8_lstm"), ``version``, and for a read-out ``read_out_weights``,
``read_out_bias`` and ``read_out_pooling``. Real arrays are stored as float32 where that is exact,
else as float64.

A file may come from anywhere: `load_model` takes nothing in it for granted. Names, types, shapes
and sizes are checked before an array is made, and nothing in the file is ever executed.
"""

import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from golden.activations import ActivationKind
from golden.arithmetic import Rounding
from golden.lstm.float64 import Float64Lstm, Reals
from golden.lstm.int8 import Int8Lstm

__all__ = ["LARGEST_FILE", "Model", "Pooling", "ReadOut", "load_model", "save_model"]

Pooling = Literal["last", "mean"]

LARGEST_FILE = 64 << 20
"""Most bytes of a model file, both as it lies on disk and unpacked."""

_VERSION = 1
_LONGEST_TEXT = 32
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
            valid = np.less(np.arange(time, dtype=np.int64), lengths[:, np.newaxis])
            kept = np.where(valid[..., np.newaxis], hidden, 0.0)
            pooled = kept.sum(axis=1) / lengths[:, np.newaxis]
        return pooled @ self.weights.T + self.bias


@dataclass(frozen=True, eq=False)
class Model:
    """An LSTM layer and, optionally, its read-out.

    Raises
    ------
    ValueError
        If the read-out does not fit the layer's hidden units.
    """

    lstm: Float64Lstm | Int8Lstm
    read_out: ReadOut | None = None

    def __post_init__(self) -> None:
        """Check that layer and read-out fit."""
        if self.read_out is not None and self.read_out.weights.shape[1] != self.lstm.hidden:
            raise ValueError(
                f"The read-out must have {self.lstm.hidden} hidden values, as the layer has, not "
                f"{self.read_out.weights.shape[1]}."
            )


@dataclass(frozen=True)
class _Array:
    """What an array of a file must be; a name in `shape` is the same length everywhere."""

    kinds: tuple[str, ...]
    shape: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        """Name the types, then the shape, as an error shows them."""
        kinds = " or ".join(self.kinds)
        shape = str(self.shape).replace("'", "")
        return f"{kinds} of shape {shape}"


_REAL = ("float32", "float64")
_HEADER: dict[str, _Array] = {"kind": _Array(("text",)), "version": _Array(("int32",))}
_READ_OUT: dict[str, _Array] = {
    "read_out_weights": _Array(_REAL, ("classes", "hidden")),
    "read_out_bias": _Array(_REAL, ("classes",)),
    "read_out_pooling": _Array(("text",)),
}
_LAYERS: dict[str, dict[str, _Array]] = {
    "float64_lstm": {
        "input_weights": _Array(_REAL, (4, "hidden", "inputs")),
        "recurrent_weights": _Array(_REAL, (4, "hidden", "hidden")),
        "bias": _Array(_REAL, (4, "hidden")),
    },
    "int8_lstm": {
        "input_weights": _Array(("int8",), (4, "hidden", "inputs")),
        "recurrent_weights": _Array(("int8",), (4, "hidden", "hidden")),
        "bias": _Array(("int32",), (4, "hidden")),
        "input_weight_scales": _Array(("float32",), (4,)),
        "recurrent_weight_scales": _Array(("float32",), (4,)),
        "input_scale": _Array(("float32",)),
        "input_zero_point": _Array(("int32",)),
        "hidden_scale": _Array(("float32",)),
        "hidden_zero_point": _Array(("int32",)),
        "intermediate_scale": _Array(("float32",)),
        "intermediate_zero_point": _Array(("int32",)),
        "cell_exponent": _Array(("int32",)),
        "cell_clip": _Array(("int32",)),
        "activation": _Array(("text",)),
        "rounding": _Array(("text",)),
    },
}
_TEXTS: dict[str, tuple[str, ...]] = {
    "kind": tuple(_LAYERS),
    "activation": get_args(ActivationKind),
    "rounding": get_args(Rounding),
    "read_out_pooling": get_args(Pooling),
}


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Write a model file, whole or not at all: an old file stays until the new one is complete.

    The same model gives the same bytes.

    Raises
    ------
    ValueError
        If the file cannot be written, or would be larger than `LARGEST_FILE`.
    """
    target = Path(path)
    kind = "int8_lstm" if isinstance(model.lstm, Int8Lstm) else "float64_lstm"
    arrays: dict[str, npt.NDArray[Any]] = {
        "kind": np.array(kind),
        "version": np.array(_VERSION, np.int32),
    }
    given: dict[str, Any] = {
        field.name: getattr(model.lstm, field.name) for field in fields(model.lstm)
    }
    expected = dict(_LAYERS[kind])
    if model.read_out is not None:
        expected |= _READ_OUT
        given |= {
            "read_out_weights": model.read_out.weights,
            "read_out_bias": model.read_out.bias,
            "read_out_pooling": model.read_out.pooling,
        }
    for name, array in expected.items():
        arrays[name] = _as_stored(given[name], array)
    size = sum(array.nbytes for array in arrays.values())
    if size > LARGEST_FILE:
        raise ValueError(
            f"{target}: a model file must hold at most {LARGEST_FILE} bytes, not {size}; make the "
            "layer smaller."
        )
    _replace(target, arrays)


def _as_stored(value: object, expected: _Array) -> npt.NDArray[Any]:
    if expected.kinds == ("text",):
        return np.array(str(value))
    exact = np.asarray(value)
    if expected.kinds == _REAL:
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
    source = Path(path)
    try:
        return _build(_read_arrays(source))
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
        raise ValueError(
            f"{source}: is no readable .npz archive ({str(error) or type(error).__name__}); "
            f"{_REMEDY}."
        ) from error
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).rstrip('.')}; {_REMEDY}.") from error


def _read_arrays(source: Path) -> dict[str, bytes]:
    """Contents of every array file of the archive by array name, headers included."""
    if not source.is_file() and source.exists():
        raise ValueError("a model must be a file, not a folder or a device")
    size = source.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"a model file must hold at most {LARGEST_FILE} bytes, not {size}")
    known = {f"{name}.npy" for part in (_HEADER, _READ_OUT, *_LAYERS.values()) for name in part}
    contents: dict[str, bytes] = {}
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
            if member.filename not in known:
                raise ValueError(f"the file {member.filename[:80]!r} in the archive is unknown")
            name = member.filename.removesuffix(".npy")
            if name in contents:
                raise ValueError(f"{name} must be in the archive once, not twice")
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError(
                    f"{name} must be stored or deflated, not packed by method "
                    f"{member.compress_type}"
                )
            contents[name] = archive.read(member)
    return contents


def _build(contents: dict[str, bytes]) -> Model:
    lengths: dict[str, int] = {}
    header = _take(contents, _HEADER, lengths)
    version = int(header["version"])
    if version != _VERSION:
        raise ValueError(f"version must be {_VERSION}, not {version}")
    layer = _take(contents, _LAYERS[header["kind"]], lengths)
    lstm = Int8Lstm(**layer) if header["kind"] == "int8_lstm" else Float64Lstm(**layer)
    read_out = None
    if contents:
        taken = _take(contents, _READ_OUT, lengths)
        read_out = ReadOut(
            weights=taken["read_out_weights"],
            bias=taken["read_out_bias"],
            pooling=taken["read_out_pooling"],
        )
    if contents:
        raise ValueError(f"{min(contents)} does not belong to a model of kind {header['kind']}")
    return Model(lstm, read_out)


def _take(
    contents: dict[str, bytes], expected: dict[str, _Array], lengths: dict[str, int]
) -> dict[str, Any]:
    """Remove the expected arrays from `contents` and decode them; scalars and texts as such."""
    taken: dict[str, Any] = {}
    for name, array in expected.items():
        if name not in contents:
            raise ValueError(f"{name} is missing")
        value = _decode(name, contents.pop(name), array, lengths)
        if array.kinds == ("text",):
            taken[name] = _as_text(name, value)
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
    "<i4": "int32",
    "<f4": "float32",
    "<f8": "float64",
    **{f"<U{length}": "text" for length in range(1, _LONGEST_TEXT + 1)},
}


def _decode(
    name: str, content: bytes, expected: _Array, lengths: dict[str, int]
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


def _as_text(name: str, value: npt.NDArray[Any]) -> str:
    text = value.tobytes().decode("utf-32-le", errors="replace").rstrip("\0")
    if text not in _TEXTS[name]:
        listed = " or ".join(f'"{choice}"' for choice in _TEXTS[name])
        raise ValueError(f"{name} must be {listed}, not {text!r}")
    return text
