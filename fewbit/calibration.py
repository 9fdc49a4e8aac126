"""A search for the thresholds and holds by which an int8 model chooses its precision."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.errors import UsageError
from fewbit.golden.lstm.int8 import PrecisionSignal
from fewbit.golden.network import Network
from fewbit.golden.quantize.dynamic import Calibration, Point, calibrate, settings_count
from fewbit.models import told
from fewbit.sequences import as_input, check_sequences

__all__ = ["calibrate_network", "row_of", "tries"]


def tries(network: Network) -> int:
    """Return the largest number of settings that a search in a network tries."""
    return settings_count() * len(network.nodes)


def calibrate_network(
    network: Network,
    x: npt.NDArray[Any],
    *,
    name: str = "the network",
    tolerance: float | None = None,
    share: float | None = None,
    group: int = 1,
    signal: PrecisionSignal = "cell_change",
    offsets: bool = True,
    real: bool = False,
    done: Callable[[], None] = lambda: None,
) -> Calibration:
    """Find thresholds and holds of an int8 network, and return the search with that network.

    Parameters
    ----------
    network
        The model.
    x
        Calibration sequences, shape (batch, time, inputs): raws, or reals with `real`.
    name
        The name of the model in errors, such as its file's name in quotes.
    tolerance
        Largest loss, in raws of the output: the root mean square of its deviation from the output
        of the same model with all 8 bits in every time step. 0 by default, unless there is a
        `share`.
    share
        Smallest share of time steps with 4 bits, in place of a tolerance.
    group
        Number of neighbouring units that share a mode.
    signal
        The quantity that is compared with the threshold: the change of the cell, or the output
        gate.
    offsets
        Whether the layers get offsets.
    real
        Whether `x` are reals, to be quantised.
    done
        A function that is called after every setting.

    Raises
    ------
    UsageError
        If the model is not int8, the sequences don't suit it, or an option is out of its range.
    """
    check_sequences(name, network, x, quantised=True)
    if tolerance is not None and share is not None:
        raise UsageError("--tolerance and --share exclude each other; leave one out.")
    if 0 in x.shape:
        raise UsageError(f"There must be sequences to calibrate on, but their shape is {x.shape}.")
    with told():
        return calibrate(
            network,
            as_input(network, x, real=real).astype(np.int64),
            tolerance=tolerance or 0.0,
            share=share,
            group=group,
            signal=signal,
            offsets=offsets,
            done=done,
        )


def row_of(layer: int, point: Point, *, chosen: bool) -> dict[str, Any]:
    """Return the JSON row of a setting; layers are numbered from 0."""
    return {
        "layer": layer,
        "threshold": point.threshold,
        "hold": point.hold,
        "low_share": point.low_share,
        "speed_up": point.speed_up,
        "rms_loss": point.loss,
        "chosen": chosen,
    }
