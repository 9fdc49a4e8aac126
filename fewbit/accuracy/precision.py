"""Precision chosen per step on a trained model: what each signal costs at equal shares of LOW.

Thresholds are calibrated on sequences of the task's training part, and figures come from its test
part. Every node of the network gets the same share. The controls say what a signal is worth:
"random" makes as many steps LOW without regard to time or unit; "shuffled" of a signal keeps how
often each unit is LOW under it but not when; "units" makes a fixed set of units LOW, those whose
LOW steps change the scores least, and "random_units" any other set of as many.

Sequences are padded at their end. A layer in reverse gets each sequence reversed within its
length, so that it, too, begins at the sequence's last step and padding comes after it.

It is one module, as all of it measures the same choices on the same sequences.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fewbit.accuracy.measure import calibration, training_batches
from fewbit.errors import UsageError
from fewbit.evaluation import find_task, open_trained, plan
from fewbit.golden.arithmetic import Raws
from fewbit.golden.files.trained import TrainedModel, with_network
from fewbit.golden.lstm import signals as others
from fewbit.golden.lstm.contract import expect
from fewbit.golden.lstm.dynamic import (
    FIRST_STEPS,
    HIGHEST_THRESHOLD,
    CellChange,
    DynamicRun,
    OutputGate,
    Signal,
    SignalStep,
    run_signal,
)
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.network import NETWORK_INPUT, Network, join
from fewbit.golden.quantize.dynamic import low_offsets
from fewbit.quantization import quantize_network
from fewbit.sequences import as_input
from fewbit.train.tasks import Task
from fewbit.train.tasks.batches import joined
from fewbit.train.tasks.task import NO_LABEL, cross_entropies

__all__ = ["CONTROLS", "SHARES", "SIGNALS", "Kind", "precision_rows"]

Reals = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Make = Callable[[int, int], Signal | None]
"""A function that returns the signal of a batch and a node, by their numbers; None for HIGH."""

SHARES = (0.25, 0.5, 0.66, 0.75, 0.9)
_SHARE_OF_LAYERS = 0.66
_BATCH = 256
_CALIBRATION_BATCHES = 32
_CALIBRATION_SEQUENCES = 128
_IMPORTANCE_SEQUENCES = 8
_IMPORTANCE_BATCH = 1024
_ROUNDS = 4
_BISECTIONS = 16


@dataclass(frozen=True)
class Kind:
    """A signal that is compared with a threshold.

    Parameters
    ----------
    make
        A function that makes the signal for a layer from a threshold.
    hold
        How many steps a unit is HIGH after its signal was above the threshold.
    """

    make: Callable[[Int8Lstm, float], Any]
    hold: int = 1


def _cell_change(hold: int) -> Kind:
    return Kind(lambda lstm, threshold: CellChange(_register(threshold), hold), hold)


def _register(threshold: float) -> int:
    return int(np.clip(np.floor(threshold), 0, HIGHEST_THRESHOLD))


SIGNALS: dict[str, Kind] = {
    "cell_change": _cell_change(1),
    "cell_change_hold_4": _cell_change(4),
    "output_gate": Kind(
        lambda lstm, threshold: OutputGate(_register(threshold), 1, activation=lstm.activation)
    ),
    "layer_change": Kind(lambda lstm, threshold: others.LayerChange(threshold)),
    "relative_change": Kind(lambda lstm, threshold: others.RelativeChange(threshold)),
    "small_cell": Kind(lambda lstm, threshold: others.SmallCell(threshold)),
    "saturation": Kind(lambda lstm, threshold: others.Saturation(threshold)),
    "open_input": Kind(lambda lstm, threshold: others.OpenInput(threshold)),
}
"""The signals by name: those of circuits, with hold 1 where none is said, and others of golden."""
CONTROLS = ("random", "shuffled", "units", "random_units")
"""The controls that signals are compared with; "shuffled" is made of both signals of circuits."""
_OF_CIRCUITS = ("cell_change", "output_gate")
"""Signals that circuits have, which are measured without offsets and layer by layer, too."""


@dataclass(frozen=True, eq=False)
class _Batch:
    """Sequences that are run together: raws (batch, time, inputs), lengths and labels."""

    x: Raws
    lengths: Labels
    labels: Labels


class _NodeRun(NamedTuple):
    """A node's input in the order of its own steps, its output in that of time, and its choice."""

    given: Raws
    output: Raws
    choice: DynamicRun | None


@dataclass(frozen=True, eq=False)
class _Score:
    """Sums over each sequence's labels, and the share of LOW among the steps of chosen nodes."""

    loss: Reals
    hits: Reals
    labels: Labels
    share: float


def precision_rows(
    model: Path,
    task: str,
    data: Path,
    *,
    shares: Sequence[float] = SHARES,
    signals: Sequence[str] = (*SIGNALS, *CONTROLS),
    sequences: int | None = None,
    seed: int = 0,
    seeds: int = 5,
    clip: float = 1.0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Measure what LOW steps cost on a task's test part, by each signal and share.

    Parameters
    ----------
    model
        The file of a trained model: int8, or real, which is quantised to int8 first.
    task
        The task's name.
    data
        The path of its data.
    shares
        Shares of LOW steps. One that sequences are too short for, as their first two steps are
        always HIGH, has no rows.
    signals
        Names among `SIGNALS` and `CONTROLS`.
    sequences
        How many test sequences are run, evenly spaced; None for all.
    seed
        Seed of the first random choice; the others follow.
    seeds
        How many random choices show the spread.
    clip
        The share of each gate's largest weight to which weights saturate before a real model is
        quantised; 1 for none. A smaller range makes the halves of LOW finer.
    progress
        A function that is called with each row in words.

    Returns
    -------
    Rows of plain values. "signal" is "all_high", "all_low" or a name; "shuffled" is followed by a
    colon and its signal. "layer" is the layer that alone has LOW steps, from 0, or None for all.
    "share" is that reached on the test part, by the units of the layers that have LOW steps.
    "difference" is the figure's to all HIGH, and "error" its standard error over sequences.
    "seed" is that of a random choice, else None; "thresholds" has one number a node that has LOW
    steps, else None.

    Raises
    ------
    UsageError
        If the model is no plain int8 or real one, or does not go with the data, or an option is
        wrong.
    """
    unknown = [name for name in signals if name not in (*SIGNALS, *CONTROLS)]
    if unknown:
        raise UsageError(
            f"There is no signal {unknown[0]}; there are {', '.join((*SIGNALS, *CONTROLS))}."
        )
    if not all(0 < share < 1 for share in shares):
        raise UsageError(f"The shares must be above 0 and below 1, not {list(shares)}.")
    if not 0 < clip <= 1:
        raise UsageError(f"clip must be above 0 and at most 1, not {clip}.")
    study = _Study.of(model, find_task(task), data, sequences, clip)
    return study.run(shares, signals, range(seed, seed + seeds), progress)


class _Study:
    """A model with its batches, and the rows that are measured so far."""

    def __init__(
        self, model: TrainedModel, task: Task, known: _Batch, test: Sequence[_Batch], clip: float
    ) -> None:
        self.model, self.task, self.known, self.test = model, task, known, test
        self.clip, self.plain = clip, model.network
        self.depths = _depths(self.plain)
        self.rows: list[dict[str, Any]] = []

    @staticmethod
    def of(path: Path, task: Task, data: Path, sequences: int | None, clip: float) -> "_Study":
        """Read a model and its data."""
        model = open_trained(path)
        if not model.network.quantised:
            network = _clipped(model.network, clip)
            known = calibration(model, task, data)
            quantised = quantize_network(network, known, name=f"'{path}'", to="int8")
            model = with_network(model, quantised)
        elif clip != 1:
            raise UsageError(f"'{path}' is quantised, so that clip must be 1; take a real model.")
        for node in model.network.nodes:
            if not isinstance(node.lstm, Int8Lstm) or node.lstm.constants.coupled:
                raise UsageError(
                    f"'{path}' must be an int8 model of four gates, or a real one, to choose its"
                    f" precision per step, not {node.lstm.title}."
                )
        chosen = plan(model, task, data, name=f"'{path}'", sequences=sequences).chosen
        order = np.argsort(chosen.lengths, kind="stable")
        test = [
            _batch(model, chosen.x[part], chosen.lengths[part], chosen.labels[part])
            for part in (order[first : first + _BATCH] for first in range(0, len(order), _BATCH))
        ]
        return _Study(model, task, _known(model, task, data), test, clip)

    def run(
        self,
        shares: Sequence[float],
        signals: Sequence[str],
        seeds: range,
        progress: Callable[[str], None],
    ) -> list[dict[str, Any]]:
        """Measure all rows."""
        self.seeds, self.progress = seeds, progress
        nodes = tuple(range(len(self.plain.nodes)))
        for offsets in (True, False):
            self.network = self._with_offsets() if offsets else self.plain
            self.offsets = offsets
            if offsets:
                self.whole = self._score(lambda batch, node: None, nodes)
                self._keep("all_high", self.whole, None, nodes, layer=None)
                self.importance = self._importance() if "units" in signals else []
            wanted = [name for name in signals if offsets or name in (*_OF_CIRCUITS, "random")]
            self._of_nodes(nodes, None, shares, wanted)
            layers = sorted(set(self.depths))
            if offsets and len(layers) > 1 and shares:
                share = min(shares, key=lambda each: abs(each - _SHARE_OF_LAYERS))
                few = [name for name in signals if name in (*_OF_CIRCUITS, "random", "units")]
                for layer in layers:
                    of_layer = tuple(node for node in nodes if self.depths[node] == layer)
                    self._of_nodes(of_layer, layer, [share], few)
        return self.rows

    def _of_nodes(
        self, nodes: tuple[int, ...], layer: int | None, shares: Sequence[float], names: list[str]
    ) -> None:
        """Measure the rows in which some nodes have LOW steps."""

        def keep(name: str, make: Callable[[int, int], Signal], share: float, **more: Any) -> None:
            score = self._score(
                lambda batch, node: make(batch, node) if node in nodes else None, nodes
            )
            self._keep(name, score, share, nodes, layer=layer, **more)

        none = np.zeros(1, np.bool_)
        keep("all_low", lambda batch, node: others.ChosenUnits(none), 1.0)
        for share in shares:
            free, free_in_test = _free_share([self.known]), _free_share(self.test)
            if share > min(free, free_in_test):
                continue
            for name in names:
                if name in SIGNALS:
                    kind = SIGNALS[name]
                    thresholds = self._thresholds(kind, share / free, nodes)
                    found = [thresholds[node] for node in nodes]
                    keep(name, self._maker(kind, thresholds), share, thresholds=found)
            if "random" in names:
                high = 1 - share / free_in_test
                for seed in self.seeds:
                    keep("random", _random(dict.fromkeys(nodes, high), seed), share, seed=seed)
            if "shuffled" in names:
                for name in _OF_CIRCUITS:
                    chances = self._chances(SIGNALS[name], share / free, nodes)
                    for seed in self.seeds[:2]:
                        keep(f"shuffled:{name}", _random(chances, seed), share, seed=seed)
            if "units" in names:
                units = {
                    node: _most(self.importance[node], 1 - share / free_in_test) for node in nodes
                }
                keep("units", _chosen(units), share)
                if "random_units" in names:
                    for seed in self.seeds:
                        rng = np.random.default_rng(seed)
                        mixed = {node: rng.permutation(each) for node, each in units.items()}
                        keep("random_units", _chosen(mixed), share, seed=seed)

    def _keep(
        self,
        name: str,
        score: _Score,
        wanted: float | None,
        nodes: tuple[int, ...],
        *,
        layer: int | None,
        seed: int | None = None,
        thresholds: list[float] | None = None,
    ) -> None:
        figure, whole = self._figure(score), self._figure(self.whole)
        row = {
            "task": self.task.name,
            "metric": self.task.metric,
            "clip": self.clip,
            "signal": name,
            "hold": SIGNALS[name].hold if name in SIGNALS else None,
            "offsets": self.offsets,
            "layer": layer,
            "seed": seed,
            "share_wanted": wanted,
            "share": score.share,
            "figure": figure,
            "loss": float(score.loss.sum() / score.labels.sum()),
            "difference": figure - whole,
            "error": self._error(score),
            "loss_difference": float((score.loss - self.whole.loss).sum() / score.labels.sum()),
            "thresholds": thresholds,
            "sequences": len(score.labels),
            "labels": int(score.labels.sum()),
        }
        self.rows.append(row)
        where = "" if layer is None else f", layer {layer}"
        self.progress(
            f"{name}{'' if seed is None else f' {seed}'}{'' if self.offsets else ', no offsets'}"
            f"{where}: {score.share:.1%} LOW, {figure:.4f} ({row['difference']:+.4f}"
            f" ± {row['error']:.4f}), loss {row['loss_difference']:+.5f}"
        )

    def _figure(self, score: _Score) -> float:
        return self.task.figure(
            float(score.loss.sum()), int(score.hits.sum()), int(score.labels.sum())
        )

    def _error(self, score: _Score) -> float:
        """Return the standard error of the difference to all HIGH, from sequence to sequence."""
        if self.task.metric == "accuracy":
            change, factor = score.hits - self.whole.hits, 1.0
        else:
            change = score.loss - self.whole.loss
            factor = 1 / np.log(2) if self.task.metric == "bits" else self._figure(score)
        count = score.labels.sum()
        rest = change - change.sum() / count * score.labels
        return float(np.sqrt((rest * rest).sum()) / count * factor)

    def _with_offsets(self) -> Network:
        """Return the network with offsets for the mean vectors of an all-HIGH run."""
        nodes = list(self.plain.nodes)
        for index, run in enumerate(_traced(self.plain, self.known, lambda node: None)):
            lstm = _int8(self.plain, index)
            offsets = low_offsets(lstm, run.given, self.known.lengths)
            nodes[index] = replace(nodes[index], lstm=replace(lstm, low_offsets=offsets))
        return Network(tuple(nodes), self.plain.outputs)

    def _score(self, make: Make, nodes: tuple[int, ...]) -> _Score:
        """Run the test part."""
        losses: list[npt.NDArray[Any]] = []
        hits: list[npt.NDArray[Any]] = []
        counts: list[npt.NDArray[Any]] = []
        low = passes = 0
        for number, batch in enumerate(self.test):
            runs = _traced(self.network, batch, lambda node, number=number: make(number, node))
            for node in nodes:
                if (choice := runs[node].choice) is not None:
                    high, of_low = choice.passes(batch.lengths)
                    low, passes = low + of_low, passes + high + of_low
            scores, labels, of = self._scores(batch, _output(self.network, batch, runs))
            each = cross_entropies(scores, labels)
            right = scores.argmax(axis=1) == labels
            size = len(batch.lengths)
            losses.append(np.bincount(of, each, size))
            hits.append(np.bincount(of, right, size))
            counts.append(np.bincount(of, minlength=size))
        return _Score(
            np.concatenate(losses),
            np.concatenate(hits),
            np.concatenate(counts),
            low / max(1, passes),
        )

    def _scores(self, batch: _Batch, output: Raws) -> tuple[Reals, Labels, Labels]:
        """Return the scores of all labels, the labels, and the sequence that each is of."""
        reals, read_out = self.network.decode(output), self.model.read_out
        if not self.task.per_step:
            scores = read_out.apply(read_out.pooled(reals, batch.lengths))
            return scores, batch.labels, np.arange(len(batch.labels))
        labelled = valid_steps(batch.x, batch.lengths) & (batch.labels != NO_LABEL)
        scores = read_out.apply(reals[labelled])
        return scores, batch.labels[labelled], np.nonzero(labelled)[0]

    def _maker(self, kind: Kind, thresholds: dict[int, float]) -> Callable[[int, int], Signal]:
        return lambda batch, node: kind.make(_int8(self.network, node), thresholds[node])

    def _thresholds(self, kind: Kind, part: float, nodes: tuple[int, ...]) -> dict[int, float]:
        """Return thresholds by which a part of the steps after the first two is LOW in each node.

        A threshold changes the signal that it is compared with, so that it is found anew on the
        signal that it leads to; the last ones are averaged.
        """
        thresholds: dict[int, float] = {}
        for number in range(_ROUNDS):
            for node, recorder in self._recorded(kind, thresholds, nodes).items():
                found = recorder.threshold(part, kind.hold, self.known.lengths)
                before = thresholds[node] if number > 1 else found
                thresholds[node] = (found + before) / 2
        return thresholds

    def _recorded(
        self, kind: Kind, thresholds: dict[int, float], nodes: tuple[int, ...]
    ) -> "dict[int, _Recorder]":
        """Run the calibration sequences; nodes without threshold are HIGH."""
        recorders: dict[int, _Recorder] = {}
        for node in nodes:
            signal = kind.make(_int8(self.network, node), thresholds.get(node, 0.0))
            recorders[node] = _Recorder(signal, always_high=not thresholds)
        _traced(self.network, self.known, recorders.get)
        return recorders

    def _chances(self, kind: Kind, part: float, nodes: tuple[int, ...]) -> dict[int, Reals]:
        """Return the share of HIGH of each unit under a signal, first steps left out."""
        thresholds = self._thresholds(kind, part, nodes)
        counted = valid_steps(self.known.x, self.known.lengths)[:, FIRST_STEPS:]
        maker = self._maker(kind, thresholds)
        runs = _traced(
            self.network, self.known, lambda node: maker(0, node) if node in nodes else None
        )
        chances: dict[int, Reals] = {}
        for node in nodes:
            choice = runs[node].choice
            assert choice is not None
            chances[node] = choice.high[:, FIRST_STEPS:][counted].mean(axis=0)
        return chances

    def _importance(self) -> list[Reals]:
        """Return, for each unit of each node, how much its LOW steps change the scores.

        It is the mean square change of a label's scores when that unit alone is LOW, on a few
        calibration sequences. Many units are run side by side, each with its own sequences.
        """
        count = min(_IMPORTANCE_SEQUENCES, len(self.known.x))
        some = np.arange(count) * len(self.known.x) // count
        few = _cut(_Batch(self.known.x[some], self.known.lengths[some], self.known.labels[some]))
        runs = _traced(self.network, few, lambda node: None)
        reference = self._scores(few, _output(self.network, few, runs))[0]
        found: list[Reals] = []
        for index in range(len(self.network.nodes)):
            hidden = _int8(self.network, index).hidden
            changes: list[float] = []
            at_once = max(1, _IMPORTANCE_BATCH // count)
            for first in range(0, hidden, at_once):
                units = np.arange(first, min(first + at_once, hidden))
                many = _Batch(*(np.concatenate([each] * len(units)) for each in vars(few).values()))
                high = np.repeat(np.arange(hidden) != units[:, np.newaxis], count, axis=0)
                runs = _traced(
                    self.network,
                    many,
                    lambda node, high=high, index=index: (
                        others.ChosenUnits(high) if node == index else None
                    ),
                )
                scores = self._scores(many, _output(self.network, many, runs))[0]
                change = scores.reshape(len(units), *reference.shape) - reference
                # A number that all scores have in common changes nothing.
                change -= change.mean(axis=2, keepdims=True)
                changes += (change * change).mean(axis=(1, 2)).tolist()
            found.append(np.array(changes))
        return found


class _Recorder:
    """A signal that records its measure and else does what another one does."""

    def __init__(self, signal: Any, *, always_high: bool) -> None:
        self._signal, self._always_high = signal, always_high
        self._seen: list[npt.NDArray[Any]] = []

    def start(self, batch: int, hidden: int) -> None:
        self._shape = (batch, hidden)
        self._signal.start(batch, hidden)

    def high(self, t: int) -> npt.NDArray[np.bool_]:
        return np.ones(self._shape, np.bool_) if self._always_high else self._signal.high(t)

    def observe(self, step: SignalStep) -> None:
        self._signal.observe(step)
        self._seen.append(np.broadcast_to(self._signal.measure(step), self._shape))

    def threshold(self, part: float, hold: int, lengths: Labels) -> float:
        """Return the threshold by which a part of the free steps is LOW, on what was seen."""
        seen = np.stack(self._seen, axis=1)
        # The measure of a step decides the next one, and the first decided step is the third.
        counted = valid_steps(seen, lengths)[:, FIRST_STEPS:]
        deciding = seen[:, FIRST_STEPS - 1 : -1][counted]
        if hold == 1:
            return float(np.quantile(deciding, min(1.0, part)))
        low, high = float(seen.min()) - 1, float(seen.max())
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            if _low_part(seen, middle, hold, counted) < part:
                low = middle
            else:
                high = middle
        return high


def _low_part(
    seen: npt.NDArray[Any], threshold: float, hold: int, counted: npt.NDArray[np.bool_]
) -> float:
    """Return the part of counted steps that are LOW by measures (batch, time, hidden)."""
    left = np.zeros(seen[:, 0].shape, np.int64)
    low = 0
    for t in range(seen.shape[1] - 1):
        left = np.where(seen[:, t] > threshold, hold, np.maximum(left - 1, 0))
        if t + 1 >= FIRST_STEPS:
            low += int((left[counted[:, t + 1 - FIRST_STEPS]] == 0).sum())
    return low / (int(counted.sum()) * seen.shape[2])


def _random(chances: dict[int, Any], seed: int) -> Callable[[int, int], Signal]:
    """Return the maker of random choices, of a seed that differs by batch and node."""
    return lambda batch, node: others.RandomChoice(
        chances[node], int(np.random.SeedSequence([seed, batch, node]).generate_state(1)[0])
    )


def _chosen(units: dict[int, npt.NDArray[np.bool_]]) -> Callable[[int, int], Signal]:
    return lambda batch, node: others.ChosenUnits(units[node])


def _most(importance: Reals, part: float) -> npt.NDArray[np.bool_]:
    """Return which units are the most important ones, as a part of all."""
    chosen = np.zeros(len(importance), np.bool_)
    chosen[np.argsort(-importance, kind="stable")[: round(part * len(importance))]] = True
    return chosen


def _traced(
    network: Network, batch: _Batch, make: Callable[[int], Signal | None]
) -> list[_NodeRun]:
    """Run all nodes."""
    found: list[_NodeRun] = []
    for index, node in enumerate(network.nodes):
        lstm = _int8(network, index)
        given = join(node.sources, batch.x, [run.output for run in found])
        given = _reversed(given, batch.lengths) if node.reverse else given
        signal = make(index)
        choice = None if signal is None else run_signal(lstm, given, signal)
        hidden = lstm.run(given) if choice is None else choice.hidden
        output = _reversed(hidden, batch.lengths) if node.reverse else hidden
        found.append(_NodeRun(given, output, choice))
    return found


def _output(network: Network, batch: _Batch, runs: Sequence[_NodeRun]) -> Raws:
    """Return the network's output of a trace."""
    return join(network.outputs, batch.x, [run.output for run in runs])


def _reversed(x: npt.NDArray[Any], lengths: Labels) -> npt.NDArray[Any]:
    """Return each sequence reversed within its length; padding stays at the end."""
    steps, ends = np.arange(x.shape[1]), lengths[:, np.newaxis]
    index = np.where(steps < ends, ends - 1 - steps, steps)
    return np.take_along_axis(x, index[:, :, np.newaxis], axis=1)


def _int8(network: Network, index: int) -> Int8Lstm:
    return expect(network.nodes[index].lstm, Int8Lstm, "Every layer must be int8.")


def _depths(network: Network) -> list[int]:
    """Return the layer of each node, from 0; the two directions are of one layer."""
    depths: dict[int, int] = {NETWORK_INPUT: -1}
    for index, node in enumerate(network.nodes):
        depths[index] = 1 + max(depths[source] for source in node.sources)
    return [depths[index] for index in range(len(network.nodes))]


def _free_share(batches: Sequence[_Batch]) -> float:
    """Return the share of steps that can be LOW: all but the first two of each sequence."""
    lengths = np.concatenate([batch.lengths for batch in batches])
    return float(np.maximum(lengths - FIRST_STEPS, 0).sum() / lengths.sum())


def _batch(model: TrainedModel, x: npt.NDArray[Any], lengths: Labels, labels: Labels) -> _Batch:
    """Return sequences as the network's raws, without more padding than the longest needs."""
    x = x[:, : int(lengths.max())]
    raws = as_input(model.network, model.inputs_of(x), real=True).astype(np.int64)
    return _cut(_Batch(raws, lengths, labels))


def _cut(batch: _Batch) -> _Batch:
    steps = int(batch.lengths.max())
    labels = batch.labels[:, :steps] if batch.labels.ndim > 1 else batch.labels
    return _Batch(batch.x[:, :steps], batch.lengths, labels)


def _known(model: TrainedModel, task: Task, data: Path) -> _Batch:
    """Return sequences of the training part: some of each of the first batches."""
    batches = list(islice(training_batches(model, task, data), _CALIBRATION_BATCHES))
    # A batch has sequences of like lengths, so that some are taken of each.
    some = joined(batches, -(-_CALIBRATION_SEQUENCES // len(batches)))
    return _batch(model, some.x, some.lengths, some.labels)


def _clipped(network: Network, clip: float) -> Network:
    """Return a real network whose weights saturate to a share of the largest one of their gate."""
    if clip == 1:
        return network
    nodes: list[Any] = []
    for node in network.nodes:
        lstm = node.lstm
        assert isinstance(lstm, Float64Lstm)
        ends = {
            name: clip * np.abs(weights).max(axis=(1, 2), keepdims=True)
            for name, weights in (
                ("input_weights", lstm.input_weights),
                ("recurrent_weights", lstm.recurrent_weights),
            )
        }
        changes = {
            name: np.minimum(np.maximum(getattr(lstm, name), -end), end)
            for name, end in ends.items()
        }
        nodes.append(replace(node, lstm=replace(lstm, **changes)))
    return Network(tuple(nodes), network.outputs)
