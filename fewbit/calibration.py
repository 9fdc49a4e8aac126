"""The precision of an int8 model chosen per step: threshold and hold found on sequences."""

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
    """Return the largest number of settings that are tried in a network."""
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
        What errors call the model, such as its file's name in quotes.
    tolerance
        Largest loss, in raws of the output: root of its mean square deviation from that of the
        same model with all 8 bits at every step. 0 if neither it nor `share` is given.
    share
        Smallest share of steps with 4 bits, in place of a tolerance.
    group
        Neighbouring units that share a mode.
    signal
        What is compared with the threshold.
    offsets
        Whether the layers get offsets.
    real
        Whether `x` are reals, to be quantised.
    done
        Called after every setting.

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
