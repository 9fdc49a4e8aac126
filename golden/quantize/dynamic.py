"""Calibration of dynamic precision: threshold, hold and offsets from calibration sequences.

The calibration searches the layers of an int8 network one by one, in the order of the network. For
each layer it tries a grid of thresholds (quantiles of the signal) and holds. The golden model runs
each setting on all calibration sequences. The loss of a setting compares its output with that of
the run in which every time step of the layer is HIGH.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import Raws, saturate
from fewbit.golden.lstm import dynamic
from fewbit.golden.lstm.contract import Lstm, expect
from fewbit.golden.lstm.dynamic import (
    ALWAYS_HIGH,
    FIRST_STEPS,
    HIGHEST_THRESHOLD,
    OFFSET_RESOLUTION,
    SignalStep,
    decision_of,
)
from fewbit.golden.lstm.int8 import Int8Lstm, PrecisionSignal
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.network import Network, Node, Values, golden_backend, join, trace
from fewbit.golden.network import run as run_network

__all__ = [
    "HOLDS",
    "QUANTILES",
    "Calibration",
    "Loss",
    "Point",
    "calibrate",
    "low_offsets",
    "rms_deviation",
    "settings_count",
    "settings_of",
]

Loss = Callable[[Values], float]
"""A function from an output of the network, raws (batch, time, width), to its loss."""

HOLDS = (1, 2, 4)
QUANTILES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.76, 0.77, 0.78, 0.8, 0.85, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Point:
    """One setting of a layer, and its results on the calibration sequences.

    Parameters
    ----------
    threshold, hold
        Settings of the layer, see `fewbit.golden.lstm.dynamic`.
    low_share
        Share of LOW time steps among all time steps of the layer's units.
    loss
        Loss of the network's output.
    """

    threshold: int
    hold: int
    low_share: float
    loss: float

    @property
    def speed_up(self) -> float:
        """Return the speed relative to all HIGH, see `fewbit.golden.lstm.dynamic.speed_up`."""
        return dynamic.speed_up(self.low_share)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A network with its thresholds and holds, and all settings that were tried for them.

    Parameters
    ----------
    network
        The network with the settings in `chosen`.
    curves
        For each layer all settings that were tried, by rising share of LOW time steps. The first
        one is all HIGH.
    chosen
        For each layer the setting that the network has.
    """

    network: Network
    curves: tuple[tuple[Point, ...], ...]
    chosen: tuple[Point, ...]


def low_offsets(
    model: Int8Lstm, x: npt.ArrayLike, lengths: npt.ArrayLike | None = None
) -> npt.NDArray[np.int8]:
    """Return offsets of LOW sums, shape (G, 2, hidden), for the mean vectors of an all-HIGH run.

    The offset of a row is ``sum (W_low - 8) mean / 64``, rounded to the nearest, ties to even, and
    saturated to 8 bits.

    Parameters
    ----------
    model
        The layer.
    x
        Input raws, shape (batch, time, inputs).
    lengths
        Number of valid vectors in each sequence, shape (batch,); None for all.
    """
    read = np.asarray(x, np.int64)
    hidden = model.run(read)
    old = np.full_like(hidden, model.hidden_zero_point)
    old[:, 1:] = hidden[:, :-1]
    valid = valid_steps(read, lengths)
    rows = [
        (weights.astype(np.int64) % 16 - 8) @ vectors[valid].mean(axis=0)
        for weights, vectors in ((model.input_weights, read), (model.recurrent_weights, old))
    ]
    steps = np.rint(np.stack(rows, axis=1) / OFFSET_RESOLUTION).astype(np.int64)
    return saturate(steps, 8).astype(np.int8)


def rms_deviation(reference: npt.ArrayLike, lengths: npt.ArrayLike | None = None) -> Loss:
    """Return a loss: an output's root mean square deviation from `reference`, in raws.

    Parameters
    ----------
    reference
        Raws of shape (batch, time, width).
    lengths
        Number of valid vectors in each sequence, shape (batch,); None for all.
    """
    wanted = np.asarray(reference, np.int64)
    valid = valid_steps(wanted, lengths)

    def loss(output: Values) -> float:
        deviation = (np.asarray(output, np.int64) - wanted)[valid]
        return math.sqrt(float(np.mean(deviation * deviation)))

    return loss


def settings_count() -> int:
    """Return the largest number of settings that `settings_of` returns."""
    return len(HOLDS) * len(QUANTILES) + 2


def settings_of(
    model: Int8Lstm, x: npt.ArrayLike, lengths: npt.ArrayLike | None = None
) -> list[tuple[int, int]]:
    """Return pairs of threshold and hold to try; the first is all HIGH, the last all LOW.

    The signal of a group is the largest of its units' signals. Thresholds are the `QUANTILES` of
    the groups' signals in a run with all time steps HIGH. The parameters are those of
    `low_offsets`.
    """
    read = np.asarray(x, np.int64)
    recorder = _Recorder(model)
    dynamic.run_signal(model, read, recorder)
    # The signal of a time step decides the next one, except for the first steps of a sequence.
    seen = slice(FIRST_STEPS - 1, None)
    thresholds = [0]
    valid = valid_steps(read, lengths)[:, seen].T
    parts = [
        shown[counts].ravel() for shown, counts in zip(recorder.seen[seen], valid, strict=True)
    ]
    decisive = np.concatenate([np.zeros(0, np.int64), *parts])
    if decisive.size:
        quantiles = np.quantile(decisive, QUANTILES, method="lower").astype(np.int64)
        thresholds = [min(value, HIGHEST_THRESHOLD) for value in sorted(set(quantiles.tolist()))]
    tried = [(threshold, hold) for hold in HOLDS for threshold in thresholds]
    return [(0, ALWAYS_HIGH), *tried, (0, 0)]


class _Recorder:
    """A signal that makes all time steps HIGH and records the model's own signal of every group."""

    def __init__(self, model: Int8Lstm) -> None:
        self._decision = decision_of(
            model.precision_signal, 0, ALWAYS_HIGH, model.precision_group, model.activation
        )
        self.seen: list[Raws] = []

    def start(self, batch: int, hidden: int) -> None:
        self._decision.start(batch, hidden)

    def high(self, t: int) -> npt.NDArray[np.bool_]:
        return self._decision.high(t)

    def observe(self, step: SignalStep) -> None:
        self.seen.append(self._decision.largest(step))


def calibrate(
    network: Network,
    x: npt.ArrayLike,
    lengths: npt.ArrayLike | None = None,
    *,
    loss: Loss | None = None,
    tolerance: float = 0.0,
    share: float | None = None,
    group: int = 1,
    signal: PrecisionSignal = "cell_change",
    offsets: bool = True,
    done: Callable[[], None] = lambda: None,
) -> Calibration:
    """Find the threshold and the hold of every layer of an int8 network.

    Without `share`, the calibration takes the setting with the largest share of LOW time steps
    among those whose loss is at most `tolerance` above that of all HIGH; among equal shares it
    takes the smallest loss. With `share`, it takes the setting with the smallest loss among those
    with at least that share; among equal losses it takes the largest share.

    Parameters
    ----------
    network
        A network of int8 layers. Their present thresholds, holds and offsets are overwritten.
    x
        Calibration sequences, raws of shape (batch, time, inputs). Take them from the training
        data.
    lengths
        Number of valid vectors in each sequence, shape (batch,); None for all. Only for a network
        without layers in reverse.
    loss
        Loss of the network's output; the default is `rms_deviation` from the output with all HIGH.
    tolerance
        Largest increase of the loss, at least 0. In a network of n layers, the loss after layer k
        may increase by k/n of it.
    share
        Least share of LOW time steps, from 0 to 1, which replaces the tolerance.
    group
        Number of neighbouring units that share a mode.
    signal
        The signal that is compared with the threshold.
    offsets
        Whether the layers have offsets.
    done
        A function that is called after every setting, at most `settings_count` times a layer.

    Raises
    ------
    ValueError
        If a layer is not int8, a number is out of its range, or no setting has such a share.
    """
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share}.")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a finite number of at least 0, not {tolerance}.")
    if lengths is not None and any(node.reverse for node in network.nodes):
        raise ValueError("lengths must be None where a layer runs in reverse; leave padding out.")
    read = np.asarray(x, np.int64)
    current = _all_high(network, group, signal)
    outputs = trace(current, read)
    measure = loss or rms_deviation(join(network.outputs, read, outputs), lengths)
    curves: list[tuple[Point, ...]] = []
    chosen: list[Point] = []
    for index, node in enumerate(current.nodes):
        given = join(node.sources, read, outputs)
        given = given[:, ::-1] if node.reverse else given
        lstm = _int8(node)
        settings = settings_of(lstm, given, lengths)
        if offsets:
            lstm = replace(lstm, low_offsets=low_offsets(lstm, given, lengths))
        points: list[Point] = []
        for threshold, hold in settings:
            tried = replace(lstm, precision_threshold=threshold, precision_hold=hold)
            points.append(_measured(_with(current, index, tried), tried, read, lengths, measure))
            done()
        points.sort(key=lambda point: (point.low_share, -point.loss))
        high = next(point for point in points if point.hold == ALWAYS_HIGH)
        allowed = high.loss + tolerance * (index + 1) / len(network.nodes)
        point = _choose(points, allowed, share)
        lstm = replace(lstm, precision_threshold=point.threshold, precision_hold=point.hold)
        current = _with(current, index, lstm)
        outputs = trace(current, read)
        curves.append((high, *(point for point in points if point is not high)))
        chosen.append(point)
    return Calibration(current, tuple(curves), tuple(chosen))


def _all_high(network: Network, group: int, signal: PrecisionSignal) -> Network:
    nodes = [
        replace(
            node,
            lstm=replace(
                _int8(node),
                precision_threshold=0,
                precision_hold=ALWAYS_HIGH,
                precision_group=group,
                precision_signal=signal,
                low_offsets=None,
            ),
        )
        for node in network.nodes
    ]
    return Network(tuple(nodes), network.outputs)


def _int8(node: Node) -> Int8Lstm:
    otherwise = "Only int8 layers have a precision chosen per step; quantise to int8."
    return expect(node.lstm, Int8Lstm, otherwise)


def _with(network: Network, index: int, lstm: Int8Lstm) -> Network:
    nodes = list(network.nodes)
    nodes[index] = replace(nodes[index], lstm=lstm)
    return Network(tuple(nodes), network.outputs)


def _measured(
    network: Network, tried: Int8Lstm, x: Raws, lengths: npt.ArrayLike | None, loss: Loss
) -> Point:
    shares: list[float] = []

    def backend(lstm: Lstm, given: Values) -> Values:
        if lstm is not tried:
            return golden_backend(lstm, given)
        outcome = dynamic.run(tried, given)
        shares.append(outcome.low_share(lengths))
        return outcome.hidden

    measured = loss(run_network(network, x, backend))
    return Point(tried.precision_threshold, tried.precision_hold, shares[0], measured)


def _choose(points: Sequence[Point], allowed: float, share: float | None) -> Point:
    if share is None:
        within = [point for point in points if point.loss <= allowed]
        return max(within, key=lambda point: (point.low_share, -point.loss))
    enough = [point for point in points if point.low_share >= share]
    if not enough:
        most = max(point.low_share for point in points)
        raise ValueError(
            f"share must be at most {most:.3f}, which is all but the first {FIRST_STEPS} steps of "
            f"a sequence, not {share}."
        )
    return min(enough, key=lambda point: (point.loss, -point.low_share))
