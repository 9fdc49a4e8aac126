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
from golden.lstm.int8 import Int8Lstm
from golden.network import NETWORK_INPUT, Backend, Network, golden_backend, run
from golden.quantize.int8 import dequantize, quantize

__all__ = ["BACKENDS", "BackendKind", "Run", "chunks_of", "make_backend", "run_sequences"]

BackendKind = Literal["golden", "rtl"]
BACKENDS = ("golden", "rtl")
# Sequences that the golden model takes at a time: enough for its speed, and little memory.
_CHUNK = 256


@dataclass(frozen=True)
class Run:
    """What came out, and how long it took.

    Parameters
    ----------
    output
        Shape (batch, time, outputs): int8 raws, or float64 where reals were asked for.
    steps_per_second
        Time steps of all sequences, through all layers.
    """

    output: npt.NDArray[Any]
    steps_per_second: float


def make_backend(kind: BackendKind, lanes: int | None, neurons: int | None) -> Backend:
    """What runs the layers.

    Raises
    ------
    UsageError
        If lanes or neurons are given to the golden model.
    """
    given: dict[str, Any] = {
        name: value for name, value in (("lanes", lanes), ("neurons", neurons)) if value is not None
    }
    if kind == "rtl":
        from sim.layer import LayerBackend

        return LayerBackend(**given)
    if given:
        raise UsageError(f"The golden model has no {' and '.join(given)}; choose --backend rtl.")
    return golden_backend


def chunks_of(x: npt.NDArray[Any], kind: BackendKind) -> int:
    """Number of parts in which sequences are run; the circuit takes all at once."""
    return math.ceil(len(x) / _CHUNK) if kind == "golden" else 1


def run_sequences(
    path: Path,
    network: Network,
    x: npt.NDArray[Any],
    *,
    kind: BackendKind = "golden",
    lanes: int | None = None,
    neurons: int | None = None,
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
        Shape (batch, time, inputs): raws from -128 to 127, or reals with `real` or for a real
        network.
    kind, lanes, neurons
        See `make_backend`.
    real
        Whether reals go in and come out of an integer network: quantised with the scale and zero
        point of its input, made real again with those that wrote the output.
    done
        Called after every layer of every part, see `chunks_of`.

    Raises
    ------
    UsageError
        If the input doesn't fit the model, or the backend doesn't go with it.
    """
    if x.shape[2] != network.inputs:
        raise UsageError(
            f"The sequences must have {network.inputs} inputs, as '{path}' has, not {x.shape[2]}."
        )
    if kind == "rtl" and not network.quantised:
        raise UsageError(f"'{path}' is a real model; quantise it first with 'fewbit quantize'.")
    backend = make_backend(kind, lanes, neurons)
    with told():
        given = _input(network, x, real=real)
        parts = np.array_split(given, chunks_of(given, kind))
        kept = np.int8 if network.quantised else np.float64
        output = np.zeros((*x.shape[:2], network.width), kept)
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


def _input(network: Network, x: npt.NDArray[Any], *, real: bool) -> npt.NDArray[Any]:
    if not network.quantised:
        given = x.astype(np.float64)
        if not np.isfinite(given).all():
            raise ValueError(f"The sequences must be finite, not {given[~np.isfinite(given)][0]}.")
        return given
    if real:
        reader = next(node for node in network.nodes if NETWORK_INPUT in node.sources).lstm
        assert isinstance(reader, Int8Lstm)
        return quantize(x, reader.input_scale, reader.input_zero_point).astype(np.int8)
    if x.dtype.kind == "f":
        raise ValueError(
            f"The sequences must be integer raws from -128 to 127, not {x.dtype}; for real numbers "
            "give --real."
        )
    if x.dtype == np.uint8:
        raise ValueError(
            "The sequences must be signed raws from -128 to 127, not uint8; save them as int8."
        )
    low, high = int(x.min()), int(x.max())
    if low < -128 or high > 127:
        raise ValueError(
            "The sequences must be raws from -128 to 127, not "
            f"{low if low < -128 else high}; for real numbers give --real."
        )
    return x.astype(np.int8)


def _made_real(network: Network, raws: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Reals of the output, each node's by what wrote it."""
    parts: list[npt.NDArray[np.float64]] = []
    first = 0
    for index in network.outputs:
        layer = network.nodes[index].lstm
        assert isinstance(layer, Int8Lstm)
        scale, zero_point = layer.intermediate_scale, layer.intermediate_zero_point
        if layer.projection_weights is not None:
            scale, zero_point = layer.hidden_scale, layer.hidden_zero_point
        columns = raws[..., first : first + layer.outputs]
        parts.append(dequantize(columns, scale, zero_point))
        first += layer.outputs
    return np.concatenate(parts, axis=2)
