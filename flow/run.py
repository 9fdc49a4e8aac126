"""Sequences through a trained model, in the golden model or in the generated layer."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flow.errors import UsageError
from flow.models import told
from golden.layer.ternary import Gates
from golden.lstm.float64 import Float64Lstm
from golden.lstm.floatsd8 import HIDDEN_FORMAT, FloatSD8Lstm
from golden.lstm.int8 import Int8Lstm
from golden.lstm.ternary import TernaryLstm
from golden.model import Lstm
from golden.network import NETWORK_INPUT, Backend, Network, golden_backend, run
from golden.quantize.int8 import dequantize, quantize

__all__ = [
    "BACKENDS",
    "BackendKind",
    "Run",
    "as_input",
    "check_sequences",
    "chunks_of",
    "make_backend",
    "run_sequences",
]

BackendKind = Literal["golden", "rtl"]
BACKENDS = ("golden", "rtl")
# Sequences that the golden model takes at a time: enough for its speed, and little memory.
_CHUNK = 256
_TYPES = {Float64Lstm: np.float64, Int8Lstm: np.int8, FloatSD8Lstm: np.uint8}
_BYTE = 8


def _type_of(lstm: Lstm) -> type[np.generic]:
    """Type of what a layer reads and writes."""
    if isinstance(lstm, TernaryLstm):
        return np.int8 if lstm.activation_width <= _BYTE else np.int16
    return _TYPES[type(lstm)]


@dataclass(frozen=True)
class Run:
    """What came out, and how long it took.

    Parameters
    ----------
    output
        Shape (batch, time, outputs): int8 raws of an int8 model, uint8 codes of a FloatSD8 model,
        int16 raws of a ternary, binary or pow2 one, int8 at 8 bits and fewer; or float64 where
        reals were asked for.
    steps_per_second
        Time steps of all sequences, through all layers.
    """

    output: npt.NDArray[Any]
    steps_per_second: float


def make_backend(
    kind: BackendKind, lanes: int | None, neurons: int | None, gates: Gates | None = None
) -> Backend:
    """What runs the layers.

    Raises
    ------
    UsageError
        If lanes, neurons or gates are given to the golden model.
    """
    settings = {"lanes": lanes, "neurons": neurons, "gates": gates}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if kind == "rtl":
        from sim.layer import LayerBackend

        return LayerBackend(**given)
    if given:
        raise UsageError(f"The golden model has no {' and '.join(given)}; choose --backend rtl.")
    return golden_backend


def chunks_of(x: npt.NDArray[Any], kind: BackendKind) -> int:
    """Number of parts in which sequences are run; the circuit takes all at once."""
    return math.ceil(len(x) / _CHUNK) if kind == "golden" else 1


def check_sequences(path: Path, network: Network, x: npt.NDArray[Any], *, quantised: bool) -> None:
    """Refuse sequences that a model doesn't take, and a real model where it must be quantised.

    Raises
    ------
    UsageError
        With the remedy.
    """
    if x.shape[2] != network.inputs:
        raise UsageError(
            f"The sequences must have {network.inputs} inputs, as '{path}' has, not {x.shape[2]}."
        )
    if quantised and not network.quantised:
        raise UsageError(f"'{path}' is a real model; quantise it first with 'fewbit quantize'.")


def run_sequences(
    path: Path,
    network: Network,
    x: npt.NDArray[Any],
    *,
    kind: BackendKind = "golden",
    lanes: int | None = None,
    neurons: int | None = None,
    gates: Gates | None = None,
    real: bool = False,
    done: Callable[[], None] = lambda: None,
) -> Run:
    """Output of a network, each sequence from reset.

    Parameters
    ----------
    path
        Of the model, for errors.
    network
        The model.
    x
        Shape (batch, time, inputs): raws from -128 to 127 for an int8 network, of their width for a
        ternary, binary or pow2 one, codes from 0 to 255 for a FloatSD8 network, or reals with
        `real` or for a real network.
    kind, lanes, neurons, gates
        See `make_backend`.
    real
        Whether reals go in and come out of a quantised network: quantised to the format of its
        input, made real again by what wrote the output.
    done
        Called after every layer of every part, see `chunks_of`.

    Raises
    ------
    UsageError
        If the input doesn't fit the model, or the backend doesn't go with it.
    """
    check_sequences(path, network, x, quantised=kind == "rtl")
    backend = make_backend(kind, lanes, neurons, gates)
    with told():
        given = as_input(network, x, real=real)
        parts = np.array_split(given, chunks_of(given, kind))
        output = np.zeros((*x.shape[:2], network.width), _type_of(network.nodes[0].lstm))
        start = time.perf_counter()
        first = 0
        # A real network may overflow: what comes of it is in the output.
        with np.errstate(over="ignore", invalid="ignore"):
            for part in parts:
                output[first : first + len(part)] = run(network, part, backend, done)
                first += len(part)
        seconds = time.perf_counter() - start
        steps = x.shape[0] * x.shape[1]
        if real and network.quantised:
            output = _made_real(network, output)
        return Run(output, steps / max(seconds, 1e-9))


def as_input(network: Network, x: npt.NDArray[Any], *, real: bool) -> npt.NDArray[Any]:
    """What a network reads of a user's array: checked, and with `real` quantised.

    Raises
    ------
    ValueError
        If a number is out of range or of another kind than the network's.
    """
    if not network.quantised:
        given = x.astype(np.float64)
        if not np.isfinite(given).all():
            raise ValueError(f"The sequences must be finite, not {given[~np.isfinite(given)][0]}.")
        return given
    reader = next(node for node in network.nodes if NETWORK_INPUT in node.sources).lstm
    if real:
        return _quantised(reader, x)
    dtype = np.dtype(_type_of(reader))
    if isinstance(reader, FloatSD8Lstm):
        noun, low, high, other, other_than = "codes", 0, 255, np.int8, "codes"
    else:
        noun, other, other_than = "raws", f"u{dtype}", "signed raws"
        low, high = reader.activation_bounds if isinstance(reader, TernaryLstm) else (-128, 127)
    if x.dtype.kind == "f":
        raise ValueError(
            f"The sequences must be integer {noun} from {low} to {high}, not {x.dtype}; for real "
            "numbers give --real."
        )
    # An array of the other type may hold nothing out of range, and yet mean something else.
    if x.dtype == other:
        raise ValueError(
            f"The sequences must be {other_than} from {low} to {high}, not {x.dtype}; save them as "
            f"{dtype}."
        )
    lowest, highest = int(x.min()), int(x.max())
    if lowest < low or highest > high:
        raise ValueError(
            f"The sequences must be {noun} from {low} to {high}, not "
            f"{lowest if lowest < low else highest}; for real numbers give --real."
        )
    return x.astype(dtype)


def _quantised(reader: Lstm, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Raws or codes of reals, as `reader` takes them."""
    if isinstance(reader, Int8Lstm):
        return quantize(x, reader.input_scale, reader.input_zero_point).astype(np.int8)
    if isinstance(reader, TernaryLstm):
        raws = quantize(x, reader.input_scale, 0, reader.activation_width)
        return raws.astype(_type_of(reader))
    assert isinstance(reader, FloatSD8Lstm)
    if not np.isfinite(x).all():
        raise ValueError(f"Values must be finite, not {x[~np.isfinite(x)][0]}.")
    return reader.input_format.encode(x).astype(np.uint8)


def _made_real(network: Network, output: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Reals of the output, each node's by what wrote it."""
    parts: list[npt.NDArray[np.float64]] = []
    first = 0
    for index in network.outputs:
        layer = network.nodes[index].lstm
        columns = output[..., first : first + layer.outputs]
        first += layer.outputs
        if isinstance(layer, FloatSD8Lstm):
            parts.append(HIDDEN_FORMAT.decode(columns))
            continue
        if isinstance(layer, TernaryLstm):
            parts.append(dequantize(columns, layer.hidden_scale, 0))
            continue
        assert isinstance(layer, Int8Lstm)
        scale, zero_point = layer.intermediate_scale, layer.intermediate_zero_point
        if layer.projection_weights is not None:
            scale, zero_point = layer.hidden_scale, layer.hidden_zero_point
        parts.append(dequantize(columns, scale, zero_point))
    return np.concatenate(parts, axis=2)
