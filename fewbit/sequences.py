"""Runs of sequences through a trained model, by the golden model or the generated layer."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fewbit.errors import UsageError
from fewbit.golden.network import NETWORK_INPUT, Backend, Network, golden_backend, run
from fewbit.golden.renamed import new_parameter
from fewbit.golden.words import command_name, option_name, shown
from fewbit.hdl.designs import DESIGNS
from fewbit.models import told

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
# The golden model takes so many sequences at a time: enough to be fast, with little memory.
_CHUNK = 256


@dataclass(frozen=True)
class Run:
    """The output of a network, and the speed at which it came.

    Parameters
    ----------
    output
        The output, shape (batch, time, outputs): raws or codes of the type that the model's layers
        have, or float64 where reals were asked for.
    steps_per_second
        The time steps of all sequences, each through all layers, that were run in a second.
    """

    output: npt.NDArray[Any]
    steps_per_second: float


def make_backend(kind: BackendKind, settings: Mapping[str, Any]) -> Backend:
    """Return the backend that runs the layers.

    Parameters
    ----------
    kind
        The kind of backend: the golden model, or the generated layer.
    settings
        The parameters of the generated layer that the model leaves open, by name.

    Raises
    ------
    UsageError
        If there is no such backend, or there are settings for the golden model.
    """
    if not isinstance(kind, str) or kind not in BACKENDS:
        raise UsageError(f"The backend must be {' or '.join(BACKENDS)}, not {shown(kind)}.")
    if kind == "rtl":
        from fewbit.sim.layer import LayerBackend

        return LayerBackend(settings)
    if settings:
        own = [each.name for design in DESIGNS.values() for each in design.all_parameters]
        renamed = (new_parameter(name, own) for name in settings)
        raise UsageError(
            next(filter(None, renamed), "")
            or f"The golden model has no {' and '.join(settings)};"
            f" choose {option_name('backend')} rtl."
        )
    return golden_backend


def chunks_of(x: npt.NDArray[Any], kind: BackendKind) -> int:
    """Return the number of parts in which sequences are run; the circuit takes all at once."""
    return math.ceil(len(x) / _CHUNK) if kind == "golden" else 1


def check_sequences(name: str, network: Network, x: npt.NDArray[Any], *, quantised: bool) -> None:
    """Refuse sequences that do not suit a model, and a real model where it must be quantised.

    Parameters
    ----------
    name
        The name of the model in errors, such as its file's name in quotes.
    network, x
        The model, and the sequences, of shape (batch, time, inputs).
    quantised
        Whether the model must be a quantised one.

    Raises
    ------
    UsageError
        If the sequences or the model are refused; the text says the remedy.
    """
    if x.shape[2] != network.inputs:
        raise UsageError(
            f"The sequences must have {network.inputs} inputs, as {name} has, not {x.shape[2]}."
        )
    if quantised and not network.quantised:
        title = name[0].upper() + name[1:]
        raise UsageError(
            f"{title} is a real model; quantise it first with {command_name('quantize')}."
        )


def run_sequences(
    network: Network,
    x: npt.NDArray[Any],
    *,
    name: str = "the network",
    kind: BackendKind = "golden",
    settings: Mapping[str, Any] | None = None,
    real: bool = False,
    done: Callable[[], None] = lambda: None,
) -> Run:
    """Run sequences through a network, each from reset.

    Parameters
    ----------
    network
        The model.
    x
        The sequences, shape (batch, time, inputs): raws or codes as the network's first layers read
        them, or reals with `real` or for a real network.
    name
        The name of the model in errors, such as its file's name in quotes.
    kind, settings
        See `make_backend`.
    real
        Whether a quantised network takes and returns reals: they are quantised to the format of its
        input, and the output is decoded from that of its last layer.
    done
        A function that is called after every layer of every part, see `chunks_of`.

    Raises
    ------
    UsageError
        If the input doesn't fit the model, or the backend doesn't go with it.
    """
    backend = make_backend(kind, settings or {})
    check_sequences(name, network, x, quantised=kind == "rtl")
    with told():
        given = as_input(network, x, real=real)
        parts = np.array_split(given, chunks_of(given, kind))
        output = np.zeros((*x.shape[:2], network.width), network.nodes[0].lstm.writes.dtype)
        start = time.perf_counter()
        first = 0
        # A real network may overflow; the output shows it, and no warning is needed.
        with np.errstate(over="ignore", invalid="ignore"):
            for part in parts:
                output[first : first + len(part)] = run(network, part, backend, done)
                first += len(part)
        seconds = time.perf_counter() - start
        steps = x.shape[0] * x.shape[1]
        if real and network.quantised:
            output = network.decode(output)
        return Run(output, steps / max(seconds, 1e-9))


def as_input(network: Network, x: npt.NDArray[Any], *, real: bool) -> npt.NDArray[Any]:
    """Return a user's array as a network's input: checked, and with `real` quantised.

    Raises
    ------
    ValueError
        If a number is out of range, or its type is not that of the network's input.
    """
    if not network.quantised:
        given = x.astype(np.float64)
        if not np.isfinite(given).all():
            raise ValueError(f"The sequences must be finite, not {given[~np.isfinite(given)][0]}.")
        return given
    reads = next(node for node in network.nodes if NETWORK_INPUT in node.sources).lstm.reads
    if real:
        return reads.encode(x)
    dtype, noun = reads.dtype, reads.noun
    low, high = (int(bound) for bound in reads.bounds)
    if x.dtype.kind == "f":
        raise ValueError(
            f"The sequences must be integer {noun} from {low} to {high}, not {x.dtype}; for real "
            f"numbers give {option_name('real')}."
        )
    # An array of another type may be in range and yet mean something else, so that it is refused.
    signed = dtype.kind == "i"
    other = np.dtype(f"{'u' if signed else 'i'}{dtype.itemsize}")
    if x.dtype == other:
        raise ValueError(
            f"The sequences must be {'signed ' if signed else ''}{noun} from {low} to {high}, not "
            f"{x.dtype}; save them as {dtype}."
        )
    lowest, highest = int(x.min()), int(x.max())
    if lowest < low or highest > high:
        raise ValueError(
            f"The sequences must be {noun} from {low} to {high}, not "
            f"{lowest if lowest < low else highest}; for real numbers give {option_name('real')}."
        )
    return x.astype(dtype)
