"""A real model to a quantised one, calibrated on sequences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flow.errors import UsageError, check_target
from flow.models import told
from golden.activations import ActivationKind
from golden.arithmetic import Rounding
from golden.network import Network, save_network
from golden.quantize.int8 import quantize_network

__all__ = ["FORMATS", "quantize_to_file"]

FORMATS = ("int8",)


def quantize_to_file(
    path: Path,
    network: Network,
    x: npt.NDArray[Any],
    target: Path,
    *,
    activation: ActivationKind = "table",
    rounding: Rounding = "double",
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
    activation, rounding
        Of the integer network.
    done
        Called after every layer.

    Raises
    ------
    UsageError
        If the model is quantised already, the sequences don't suit it, or the file can't be
        written.
    """
    if network.quantised:
        raise UsageError(f"'{path}' is quantised already; give a real model.")
    check_target(target)
    with told(), np.errstate(over="ignore", invalid="ignore"):
        quantised = quantize_network(
            network, x, activation=activation, rounding=rounding, done=done
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        save_network(target, quantised)
    return quantised
