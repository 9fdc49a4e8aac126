"""Tasks: their data, the batches that they are trained on, their set-ups and their figures."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

__all__ = [
    "DEFAULT_SETUP",
    "NO_LABEL",
    "UNITS",
    "Batch",
    "Data",
    "DataError",
    "Metric",
    "Names",
    "Setup",
    "Split",
    "Task",
    "cross_entropies",
    "figure",
]

Labels = npt.NDArray[np.int64]
Metric = Literal["accuracy", "bits", "perplexity"]
UNITS: Mapping[Metric, str] = {
    "accuracy": "share of labels",
    "bits": "bits a label",
    "perplexity": "choices",
}
"""The unit of each metric."""
DEFAULT_SETUP = "small"
"""The set-up that is meant where none is named."""
NO_LABEL = -1
"""The label of a step that has none."""


class DataError(ValueError):
    """A fault of a user's data, in one sentence that names the file and the remedy."""


@dataclass(frozen=True)
class Names:
    """The symbols and classes of a model that was trained, which data are read by.

    Parameters
    ----------
    symbols
        The name of each input symbol; empty for real vectors.
    classes
        The name of each class; empty where classes are numbers.
    """

    symbols: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Split:
    """A part of the data: sequences with their labels.

    Parameters
    ----------
    x
        Reals, float32 of shape (count, time, inputs), or symbols, int32 of shape (count, time).
        What lies beyond a sequence's length is padding.
    lengths
        The number of steps of each sequence, from 1 to time; shape (count,).
    labels
        Classes: one a sequence, shape (count,), or one a step, shape (count, time), with
        `NO_LABEL` where there is none.
    """

    x: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    labels: Labels

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.lengths)


@dataclass(frozen=True, eq=False)
class Data:
    """The data of a task in three parts.

    Parameters
    ----------
    train, validation, test
        The parts.
    inputs
        The length of the real vectors, or the number of symbols.
    classes
        The number of classes.
    symbols
        The name of each symbol; empty for real vectors.
    class_names
        The name of each class; empty where classes are numbers.
    unknown
        The symbol that stands for all that is not among the symbols; None without such a symbol.
    """

    train: Split
    validation: Split
    test: Split
    inputs: int
    classes: int
    symbols: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    unknown: int | None = None


Optimiser = Literal["adam", "adamw", "sgd"]
_RANGES = (
    ("hidden", 1, 1 << 14),
    ("layers", 1, 64),
    ("embedding", 0, 1 << 14),
    ("dropout", 0.0, 0.95),
    ("batch", 1, 1 << 20),
    ("window", 0, 1 << 20),
    ("epochs", 1, 1_000_000),
    ("learning_rate", 1e-12, 1e6),
    ("last_rate", 1e-12, 1e6),
    ("weight_decay", 0.0, 1e3),
    ("largest_gradient", 0.0, 1e9),
    ("forget_bias", -100.0, 100.0),
    ("label_smoothing", 0.0, 0.95),
    ("noise", 0.0, 1e3),
    ("sequences", 0, 1 << 30),
    ("vocabulary", 0, 1 << 24),
    ("least_count", 0, 1 << 30),
)
"""The range of each number of a set-up."""


@dataclass(frozen=True)
class Setup:
    """A model and the recipe by which it is trained.

    Parameters
    ----------
    hidden
        The number of hidden units of a layer and a direction.
    layers
        The number of layers, one after the other.
    bidirectional
        Whether each layer runs in both directions.
    embedding
        The length of the trained vector that stands for a symbol; 0 for one-hot or real vectors.
    dropout
        The share of values that are dropped between layers and before the read-out.
    batch
        The number of sequences in a batch.
    window
        The steps of a window of a text, the last of which is only predicted, or the steps of
        truncated backpropagation in a stream; 0 for whole sequences.
    epochs
        The number of epochs.
    optimiser
        "adam", "adamw" or "sgd".
    learning_rate
        The learning rate of the first epoch.
    last_rate
        The learning rate of the last epoch, to which it falls by the same factor each epoch; None
        for a constant rate.
    weight_decay
        The optimiser's weight decay.
    largest_gradient
        The norm to which the gradients of all parameters together are saturated; 0 for no bound.
    forget_bias
        A number added to the forget gates' bias at the start.
    label_smoothing
        The share of probability that is spread over all classes in the loss.
    noise
        The standard deviation of the Gaussian noise that a task's batches have on their real
        inputs; what its unit is, the task says.
    shrink
        Of generated sequences: the factor of their lengths in each epoch; the last goes on.
    sequences
        Of generated sequences: their number in an epoch.
    vocabulary
        Of words: the number of the most frequent ones that are symbols; 0 for all.
    least_count
        Of words: how often one must be in the training part to be a symbol.
    """

    hidden: int
    layers: int = 1
    bidirectional: bool = False
    embedding: int = 0
    dropout: float = 0.0
    batch: int = 64
    window: int = 0
    epochs: int = 20
    optimiser: Optimiser = "adam"
    learning_rate: float = 0.002
    last_rate: float | None = None
    weight_decay: float = 0.0
    largest_gradient: float = 0.0
    forget_bias: float = 0.0
    label_smoothing: float = 0.0
    noise: float = 0.0
    shrink: tuple[float, ...] = (1.0,)
    sequences: int = 0
    vocabulary: int = 0
    least_count: int = 1

    def __post_init__(self) -> None:
        """Refuse values that no training could have."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None:
                continue
            if not low <= value <= high:
                bounds = f"{low} to {high}" if isinstance(high, int) else f"{low:g} to {high:g}"
                raise ValueError(f"{name} must be from {bounds}, not {value}.")
        if self.optimiser not in get_args(Optimiser):
            raise ValueError(
                f"optimiser must be {' or '.join(get_args(Optimiser))}, not '{self.optimiser}'."
            )
        if not self.shrink or not all(0.05 <= factor <= 1 for factor in self.shrink):
            raise ValueError("shrink must be numbers from 0.05 to 1, with commas between them.")


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences that one training step sees; the fields are those of `Split`.

    Parameters
    ----------
    x, lengths, labels
        See `Split`.
    carries
        Whether the state goes on from the batch before, as in the windows of a stream.
    """

    x: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    labels: Labels
    carries: bool = False


class Load(Protocol):
    """A function that reads the data of a task."""

    def __call__(self, path: Path | None, setup: Setup, names: Names | None = None) -> Data:
        """Return the data of a path, with the names of a trained model or with those of the data.

        Raises
        ------
        DataError
            If the data are wrong.
        """
        ...


@dataclass(frozen=True)
class Task:
    """A task of sequences: data, batches, set-ups, and the figure by which models are compared.

    Parameters
    ----------
    name
        The word after ``fewbit train`` and ``fewbit evaluate``.
    summary
        The task in a few words.
    needs
        What the path of the data must be, in words; empty for a task that generates its data.
    metric
        The figure: the share of labels that are told right, the bits a label, or the perplexity.
    per_step
        Whether every step has a label, and not every sequence.
    setups
        Set-ups by name; "small" is trained in minutes on a CPU, "paper" is the literature's.
    load
        A function that reads the data: it takes the path, a set-up, and the names of a trained
        model's symbols and classes, or None, with which it takes the names from the training part.
    batches
        A function that gives the batches of an epoch: it takes data, set-up, epoch and seed. What
        it gives depends on nothing else.
    streams
        Whether the sequences of all parts are long streams.
    """

    name: str
    summary: str
    needs: str
    metric: Metric
    per_step: bool
    setups: Mapping[str, Setup]
    load: Load = field(repr=False)
    batches: Callable[[Data, Setup, int, int], Iterator[Batch]] = field(repr=False)
    streams: bool = False

    def figure(self, loss: float, hits: int, labels: int) -> float:
        """Return the task's figure; see the function `figure`."""
        return figure(self.metric, loss, hits, labels)

    @property
    def better_is_higher(self) -> bool:
        """Return whether the larger of two figures is the better one."""
        return self.metric == "accuracy"


def cross_entropies(scores: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """Return the cross-entropy of each label, natural logarithms.

    Parameters
    ----------
    scores
        Finite, shape (labels, classes).
    labels
        The classes, shape (labels,).
    """
    highest = scores.max(axis=1)
    right = np.take_along_axis(scores, labels[:, np.newaxis], axis=1)[:, 0]
    total = np.exp(scores - highest[:, np.newaxis]).sum(axis=1)
    return np.log(total) + highest - right


def figure(metric: Metric, loss: float, hits: int, labels: int) -> float:
    """Return a figure from sums over labels.

    Parameters
    ----------
    metric
        The share of hits, the mean loss in bits, or the exponential of the mean loss.
    loss
        The sum of the cross-entropies of all labels, natural logarithms.
    hits, labels
        The number of labels that had the highest score, and of all labels.

    Returns
    -------
    A perplexity beyond what a float holds is infinite.
    """
    if labels < 1:
        raise ValueError(f"labels must be at least 1, not {labels}.")
    if metric == "accuracy":
        return hits / labels
    if metric == "bits":
        return loss / labels / math.log(2)
    try:
        return math.exp(loss / labels)
    except OverflowError:
        return math.inf
