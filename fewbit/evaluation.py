"""The evaluation of a trained model on a task, by the golden model or the generated layer.

The task's figure comes from the same numbers as a circuit's: real inputs are rounded to the format
of the network's input, and the network's output is decoded before the read-out, whose sums are in
float64.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fewbit.errors import UsageError
from fewbit.golden.checks import check_whole
from fewbit.golden.files.trained import TrainedModel, load_trained
from fewbit.golden.network import State, run_on
from fewbit.golden.words import option_name, plain, shown
from fewbit.models import told
from fewbit.sequences import (
    BackendKind,
    as_input,
    check_sequences,
    make_backend,
    run_sequences,
)
from fewbit.train.tasks import TASKS, Data, Names, Split, Task
from fewbit.train.tasks.task import DEFAULT_SETUP, NO_LABEL, UNITS, cross_entropies

__all__ = [
    "RTL_SEQUENCES",
    "RTL_STEPS",
    "SPLITS",
    "Chunk",
    "Evaluation",
    "Part",
    "Plan",
    "evaluate",
    "find_task",
    "open_trained",
    "plan",
]

Labels = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Part = Literal["test", "validation"]
SPLITS = get_args(Part)
RTL_SEQUENCES = 20
"""Sequences that the simulator runs unless more are asked for: it may take minutes for a step."""
RTL_STEPS = 100
"""Steps of each stream that the simulator runs unless more are asked for."""
# What is held at once: so many sequences, numbers of a layer's input or output, scores, and steps
# of streams.
_SEQUENCES = 256
_NUMBERS = 1 << 24
_SCORES = 1 << 22
_WINDOW = 256
_MOST = 10**8
# Data of which more than this share is unknown to the model are of another alphabet.
_MOST_UNKNOWN = 0.75


@dataclass(frozen=True)
class Evaluation:
    """A task's figure of a model.

    Parameters
    ----------
    task, split
        The task's name, and the part of its data.
    metric, figure, unit
        The name of the figure, its value and its unit.
    loss
        The mean cross-entropy of a label, natural logarithm.
    accuracy
        The share of labels that have the highest score.
    sequences, steps, labels
        The numbers of sequences, of their time steps, and of labels.
    unknown
        The share of input symbols that the model does not know; None for real vectors.
    system
        The number system of the model, such as "int8".
    backend
        The kind of backend.
    seconds
        The time that it took.
    """

    task: str
    split: Part
    metric: str
    figure: float
    unit: str
    loss: float
    accuracy: float
    sequences: int
    steps: int
    labels: int
    unknown: float | None
    system: str
    backend: BackendKind
    seconds: float

    @property
    def row(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON, which has no infinite numbers."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, eq=False)
class Chunk:
    """Sequences that are run together.

    Parameters
    ----------
    sequences
        Their indices.
    windows
        The steps that are run at a time, in order.
    """

    sequences: npt.NDArray[np.intp]
    windows: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """An evaluation whose data are read and checked, and which can begin.

    Parameters
    ----------
    model, task
        The model and the task.
    name
        The name of the model in errors.
    split
        The part of the data.
    chosen
        The sequences of that part that are run.
    unknown
        The share of their symbols that the model does not know; None for real vectors.
    kind, settings
        The backend; see `fewbit.sequences.make_backend`.
    """

    model: TrainedModel
    task: Task
    name: str
    split: Part
    chosen: Split
    unknown: float | None
    kind: BackendKind
    settings: Mapping[str, Any]

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """Return the sequences that are run together.

        Sequences of like lengths are. A layer that runs in reverse begins at a sequence's last
        step, so that with one all sequences of a chunk are of one length. Streams that can go on
        from a state are run window by window.
        """
        network, lengths = self.model.network, self.chosen.lengths
        widest = max(network.inputs, *(node.lstm.outputs for node in network.nodes))
        alike = any(node.reverse for node in network.nodes)
        in_windows = self.task.streams and self.kind == "golden" and network.goes_on
        found: list[list[int]] = []
        for index in np.argsort(lengths, kind="stable").tolist():
            length = int(lengths[index])
            steps = min(length, _WINDOW) if in_windows else length
            most = min(_SEQUENCES, max(1, _NUMBERS // (steps * widest)))
            last = found[-1] if found else []
            if last and len(last) < most and (not alike or lengths[last[0]] == length):
                last.append(index)
            else:
                found.append([index])
        return tuple(
            Chunk(
                np.array(chunk, np.intp),
                _windows(int(lengths[chunk].max()), _WINDOW if in_windows else None),
            )
            for chunk in found
        )

    @property
    def parts(self) -> int:
        """Return the number of windows of all chunks."""
        return sum(len(chunk.windows) for chunk in self.chunks)


def _windows(steps: int, window: int | None) -> tuple[slice, ...]:
    size = window or steps
    return tuple(slice(first, min(first + size, steps)) for first in range(0, steps, size))


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise UsageError(f"There is no task {plain(name)}; there are {', '.join(TASKS)}.")
    return TASKS[name]


def open_trained(path: Path) -> TrainedModel:
    """Read the file of a trained model.

    Raises
    ------
    UsageError
        If it can't be read, or holds no read-out.
    """
    if path.suffix.lower() != ".npz":
        raise UsageError(
            f"'{path}' must be the .npz file of a trained model, as 'fewbit train' writes it."
        )
    with told():
        return load_trained(path)


def plan(
    model: TrainedModel,
    task: Task,
    data: Path | None,
    *,
    name: str = "the model",
    setup: str | None = None,
    split: Part = "test",
    sequences: int | None = None,
    steps: int | None = None,
    kind: BackendKind = "golden",
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """Read the data of a task by a model's own symbols, and check that they go with the model.

    Parameters
    ----------
    model, task
        The model and the task.
    data
        The path of the task's data; None for a task that generates them.
    name
        The name of the model in errors, such as its file's name in quotes.
    setup
        The set-up by which generated sequences are made; `DEFAULT_SETUP` by default.
    split
        The part of the data.
    sequences
        The number of sequences, evenly spaced in that part; all by default, or `RTL_SEQUENCES`.
    steps
        The number of steps of each stream, for tasks of streams; all by default, or `RTL_STEPS`.
    kind, settings
        The backend; see `fewbit.sequences.make_backend`.

    Raises
    ------
    UsageError
        If anything does not go with the task or the model.
    """
    make_backend(kind, settings or {})
    network = model.network
    check_sequences(name, network, np.zeros((1, 1, network.inputs)), quantised=kind == "rtl")
    _check_model(model, task, name)
    if split not in SPLITS:
        raise UsageError(f"The split must be {' or '.join(SPLITS)}, not {shown(split)}.")
    with told():
        if sequences is not None:
            sequences = check_whole("sequences", sequences, 1, _MOST)
        if steps is not None:
            steps = check_whole("steps", steps, 1, _MOST)
    setups = task.setups
    if setup is not None and setup not in setups:
        raise UsageError(
            f"The task {task.name} has no set-up {plain(setup)}; it has {', '.join(setups)}."
        )
    if steps is not None and not task.streams:
        raise UsageError(
            f"The task {task.name} has whole sequences; leave {option_name('steps')} out."
        )
    with told():
        own = Names(model.symbols, model.classes)
        found = task.load(data, setups[setup or DEFAULT_SETUP], own)
    _check_data(model, task, found, name)
    part = found.test if split == "test" else found.validation
    if kind == "rtl":
        sequences = sequences or RTL_SEQUENCES
        steps = steps or (RTL_STEPS if task.streams else None)
    chosen = _take(part, sequences, steps)
    return Plan(
        model,
        task,
        name,
        split,
        chosen,
        _unknown_share(found, chosen, name),
        kind,
        settings or {},
    )


def evaluate(of: Plan, done: Callable[[], None] = lambda: None) -> Evaluation:
    """Run a plan, and return the figure with its sums.

    Parameters
    ----------
    of
        The plan.
    done
        A function that is called after every part of the plan.

    Raises
    ------
    UsageError
        If the model's scores are not finite.
    """
    start = time.perf_counter()
    loss, hits, labels = 0.0, 0, 0
    for vectors, targets in _vectors(of, done):
        for scores, wanted in _scores(of, vectors, targets):
            if not np.isfinite(scores.max(axis=1)).all():
                raise UsageError(f"The scores of {of.name} are not finite; train it anew.")
            hits += int((scores.argmax(axis=1) == wanted).sum())
            loss += float(cross_entropies(scores, wanted).sum())
            labels += len(wanted)
    task = of.task
    return Evaluation(
        task=task.name,
        split=of.split,
        metric=task.metric,
        figure=task.figure(loss, hits, labels),
        unit=UNITS[task.metric],
        loss=loss / labels,
        accuracy=hits / labels,
        sequences=len(of.chosen),
        steps=int(of.chosen.lengths.sum()),
        labels=labels,
        unknown=of.unknown,
        system=of.model.network.nodes[0].lstm.title,
        backend=of.kind,
        seconds=time.perf_counter() - start,
    )


def _vectors(of: Plan, done: Callable[[], None]) -> Iterator[tuple[Reals, Labels]]:
    """Yield the vectors (labels, hidden) that are read out, with their labels, part by part."""
    for chunk in of.chunks:
        lengths = of.chosen.lengths[chunk.sequences]
        states: list[State] | None = None
        for window in chunk.windows:
            with told():
                x = of.model.inputs_of(of.chosen.x[chunk.sequences, window])
            if len(chunk.windows) > 1:
                output, states = _run_on(of, x, states)
            else:
                output = run_sequences(
                    of.model.network, x, name=of.name, kind=of.kind, settings=of.settings, real=True
                ).output
            labels = of.chosen.labels[chunk.sequences]
            if of.task.per_step:
                steps = np.arange(window.start, window.stop)
                labels = labels[:, window]
                labelled = (steps < lengths[:, np.newaxis]) & (labels != NO_LABEL)
                yield output[labelled], labels[labelled]
            else:
                yield of.model.read_out.pooled(output, lengths), labels
            done()


def _run_on(of: Plan, x: Reals, states: list[State] | None) -> tuple[Reals, list[State]]:
    network = of.model.network
    # A real network may overflow, which its scores then show.
    with told(), np.errstate(over="ignore", invalid="ignore"):
        output, after = run_on(network, as_input(network, x, real=True), states)
        return network.decode(output) if network.quantised else output, after


def _scores(of: Plan, vectors: Reals, labels: Labels) -> Iterator[tuple[Reals, Labels]]:
    """Yield scores (labels, classes) with their labels, a bounded number at a time."""
    rows = max(1, _SCORES // len(of.model.read_out.bias))
    for first in range(0, len(labels), rows):
        with np.errstate(over="ignore", invalid="ignore"):
            yield of.model.read_out.apply(vectors[first : first + rows]), labels[first:][:rows]


def _check_model(model: TrainedModel, task: Task, name: str) -> None:
    if model.task and model.task != task.name:
        raise UsageError(
            f"{_title(name)} was trained for the task {model.task}, not {task.name}; evaluate it"
            f" on {model.task}."
        )
    reads_every = model.read_out.pooling == "every"
    if reads_every != task.per_step:
        kinds = ("sequence", "step")
        raise UsageError(
            f"{_title(name)} gives scores for every {kinds[reads_every]}, and the task"
            f" {task.name} has labels for every {kinds[task.per_step]}; take another model."
        )


def _check_data(model: TrainedModel, task: Task, data: Data, name: str) -> None:
    classes = len(model.read_out.bias)
    if bool(data.symbols) != model.takes_symbols:
        kinds = ("real vectors", "symbols")
        raise UsageError(
            f"{_title(name)} takes {kinds[model.takes_symbols]}, and the task {task.name} gives"
            f" {kinds[bool(data.symbols)]}; take another model."
        )
    if not data.symbols and data.inputs != model.network.inputs:
        raise UsageError(
            f"{_title(name)} has {model.network.inputs} inputs, and the data have {data.inputs};"
            " take the data that it was trained on."
        )
    if data.classes != classes or (model.classes and model.classes != data.class_names):
        raise UsageError(
            f"{_title(name)} tells {classes} classes, and the data have {data.classes}, or others;"
            " take the data that it was trained on."
        )


def _take(part: Split, sequences: int | None, steps: int | None) -> Split:
    """Return some sequences, evenly spaced, and their first steps."""
    count = len(part) if sequences is None else min(sequences, len(part))
    if count < 1 or (steps is not None and steps < 1):
        raise UsageError(
            f"There must be at least one sequence of one step, not {shown(sequences)}."
        )
    chosen = np.arange(count) * len(part) // count
    x, lengths, labels = part.x[chosen], part.lengths[chosen], part.labels[chosen]
    if steps is not None:
        x, lengths, labels = x[:, :steps], np.minimum(lengths, steps), labels[:, :steps]
    if not (labels != NO_LABEL).any():
        raise UsageError("The chosen sequences have no labels; take more of them.")
    return Split(x, lengths, labels)


def _unknown_share(data: Data, chosen: Split, name: str) -> float | None:
    """Return the share of unknown symbols; refuse data that are unknown to the model for most."""
    if not data.symbols:
        return None
    if data.unknown is None:
        return 0.0
    valid = np.arange(chosen.x.shape[1]) < chosen.lengths[:, np.newaxis]
    share = float((chosen.x[valid] == data.unknown).mean())
    if share > _MOST_UNKNOWN:
        raise UsageError(
            f"{_title(name)} does not know {share:.0%} of the data's symbols; take the data that it"
            " was trained on."
        )
    return share


def _title(name: str) -> str:
    return name[0].upper() + name[1:]
