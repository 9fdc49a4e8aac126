"""A real model to a quantised one, calibrated on sequences."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from flow.errors import UsageError, check_target
from flow.models import told
from golden.lstm.floatsd8 import FEWEST_PRODUCTS, MOST_PRODUCTS, FloatSD8Lstm
from golden.lstm.int8 import Int8Lstm
from golden.lstm.ternary import TernaryLstm, WeightKind
from golden.network import Network, save_network
from golden.quantize import floatsd8, int8, ternary_lstm

__all__ = ["FORMATS", "OPTIONS", "description", "quantize_to_file"]

FORMATS = ("int8", "floatsd8", "ternary", "binary", "pow2")
_QUANTIZERS: dict[str, Callable[..., Network]] = {
    "int8": int8.quantize_network,
    "floatsd8": floatsd8.quantize_network,
    **{
        weights: partial(ternary_lstm.quantize_network, to=weights)
        for weights in get_args(WeightKind)
    },
}
# Options of each format, by what its quantiser calls them.
_TERNARY_OPTIONS = {
    "activation": "activation",
    "activation-width": "activation_width",
    "scales": "scales",
}
_OPTIONS = {
    "int8": {"activation": "activation", "rounding": "rounding"},
    "floatsd8": {"lanes": "products", "window": "window"},
    "ternary": _TERNARY_OPTIONS,
    "binary": _TERNARY_OPTIONS,
    "pow2": _TERNARY_OPTIONS | {"exponents": "exponents"},
}
OPTIONS = tuple(dict.fromkeys(name for options in _OPTIONS.values() for name in options))
"""Names of all options on the command line."""


def quantize_to_file(
    path: Path,
    network: Network,
    x: npt.NDArray[Any],
    target: Path,
    *,
    to: str = "int8",
    options: Mapping[str, Any] | None = None,
    done: Callable[[], None] = lambda: None,
) -> Network:
    """Quantise a network, write it and return it.

    Parameters
    ----------
    path
        Of the real model, for errors.
    network
        The real model.
    x
        Calibration sequences, reals of shape (batch, time, inputs).
    target
        ``.npz`` file to write.
    to
        One of `FORMATS`.
    options
        Those given, by their names on the command line: ``activation`` and ``rounding`` for int8,
        ``lanes`` and ``window`` ("none" for exact sums) for floatsd8, ``activation``,
        ``activation-width`` and ``scales`` for ternary, binary and pow2, and ``exponents`` for
        pow2.
    done
        Called after every layer.

    Raises
    ------
    UsageError
        If the model is quantised already, an option doesn't go with the format, the sequences don't
        suit the model, or the file can't be written.
    """
    if network.quantised:
        raise UsageError(f"'{path}' is quantised already; give a real model.")
    given = {
        name: None if value == "none" else value
        for name, value in _renamed(to, options or {}).items()
    }
    check_target(target)
    with told(), np.errstate(over="ignore", invalid="ignore"):
        quantised = _QUANTIZERS[to](network, x, **given, done=done)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_network(target, quantised)
    return quantised


def _renamed(to: str, options: Mapping[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _OPTIONS[to]:
            *others, last = [other for other in FORMATS if name in _OPTIONS[other]]
            listed = f"{', '.join(others)} or {last}" if others else last
            raise UsageError(f"--{name} goes with --to {listed}; leave it out.")
    lanes = options.get("lanes", FEWEST_PRODUCTS)
    if not FEWEST_PRODUCTS <= lanes <= MOST_PRODUCTS:
        raise UsageError(f"--lanes must be from {FEWEST_PRODUCTS} to {MOST_PRODUCTS}, not {lanes}.")
    return {_OPTIONS[to][name]: value for name, value in options.items()}


def description(network: Network) -> str:
    """Format of a quantised network and what was chosen for it, in words."""
    lstm = network.nodes[0].lstm
    if isinstance(lstm, Int8Lstm):
        return f"int8, activation {lstm.activation}"
    if isinstance(lstm, TernaryLstm):
        exponents = f", exponents {lstm.exponents}" if lstm.weights == "pow2" else ""
        return (
            f"{lstm.weights}{exponents}, activation {lstm.activation}, "
            f"activation width {lstm.activation_width}"
        )
    assert isinstance(lstm, FloatSD8Lstm)
    window = "none" if lstm.window is None else lstm.window
    return f"floatsd8, lanes {lstm.products}, window {window}"
