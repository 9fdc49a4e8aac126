"""The temporal order problem with three relevant symbols, twice as long and with noise.

A sequence of 200 to 220 steps is one of eight symbols a step, one-hot: E at the first step, B at
the last, and one of a, b, c, d at random between, but for three steps, at which there is X or Y.
Their order is the class, from XXX, 0, to YYY, 7. It must be told after the last step, from 50 to 90
steps after the third of them. To every input Gaussian noise is added.

Everything follows from a seed.

Source: Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997,
experiment 6b, whose sequences have 100 to 110 steps, without noise, and the three symbols at steps
10 to 20, 33 to 43 and 66 to 76.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.golden.words import option_name
from fewbit.train.tasks.task import Batch, Data, DataError, Names, Setup, Split, Task

__all__ = [
    "CLASSES",
    "LONGEST",
    "NOISE",
    "RELEVANT",
    "SHORTEST",
    "SYMBOLS",
    "TASK",
    "Sequences",
    "generate",
]

SYMBOLS = "EBabcdXY"
CLASSES = 8
NOISE = 0.18
"""Standard deviation of what is added to every input."""
SHORTEST, LONGEST = 200, 220
RELEVANT = ((20, 40), (66, 86), (132, 152))
"""First and last step, from 0, at which each of the three relevant symbols may be."""
VALIDATION_SEED, TEST_SEED, TRAIN_SEED = 1, 2, 3
VALIDATION_COUNT, TEST_COUNT, TRAIN_COUNT = 500, 2000, 500


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences with their lengths and classes.

    Parameters
    ----------
    padded
        float64, shape (count, longest, 8), padded at the end with 0.
    lengths, classes
        Shape (count,).
    """

    padded: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self.classes)


def generate(
    count: int, seed: int | Sequence[int], *, shrink: float = 1.0, noise: float = NOISE
) -> Sequences:
    """Return the sequences that a seed generates.

    Parameters
    ----------
    count
        Number of sequences, at least 1.
    seed
        Seed of numpy's default generator.
    shrink
        Factor of all lengths and positions, from 0.05 to 1: training starts with short sequences.
    noise
        Standard deviation of the noise.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}.")
    if not 0.05 <= shrink <= 1:
        raise ValueError(f"shrink must be from 0.05 to 1, not {shrink}.")
    rng = np.random.default_rng(seed)

    def positions(low: int, high: int) -> npt.NDArray[np.int64]:
        # One decision for every sequence, at the nearest step of its shrunk range.
        return np.rint(rng.integers(low, high, count, endpoint=True) * shrink).astype(np.int64)

    lengths = positions(SHORTEST, LONGEST)
    longest = int(lengths.max()) if shrink < 1 else LONGEST
    symbols = rng.integers(SYMBOLS.index("a"), SYMBOLS.index("d"), (count, longest), endpoint=True)
    bits = rng.integers(0, 1, (count, len(RELEVANT)), endpoint=True)
    rows = np.arange(count)
    symbols[:, 0] = SYMBOLS.index("E")
    symbols[rows, lengths - 1] = SYMBOLS.index("B")
    for number, (low, high) in enumerate(RELEVANT):
        symbols[rows, positions(low, high)] = SYMBOLS.index("X") + bits[:, number]
    x = np.eye(len(SYMBOLS))[symbols] + noise * rng.normal(size=(count, longest, len(SYMBOLS)))
    x[np.arange(longest) >= lengths[:, np.newaxis]] = 0.0
    return Sequences(x, lengths, bits @ (1 << np.arange(len(RELEVANT))[::-1]))


def _load(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    """Generate the three parts, with the lengths of the set-up's last epoch."""
    del names
    if path is not None:
        flag = option_name("data")
        raise DataError(f"The task temporal_order generates its data; leave {flag} out.")

    def split(count: int, seed: int) -> Split:
        made = generate(count, seed, shrink=setup.shrink[-1], noise=setup.noise)
        return Split(made.padded.astype(np.float32), made.lengths, made.classes)

    return Data(
        split(TRAIN_COUNT, TRAIN_SEED),
        split(VALIDATION_COUNT, VALIDATION_SEED),
        split(TEST_COUNT, TEST_SEED),
        len(SYMBOLS),
        CLASSES,
        class_names=tuple(f"{number:03b}".translate(_LETTERS) for number in range(CLASSES)),
    )


_LETTERS = str.maketrans("01", "XY")


def _batches(data: Data, setup: Setup, epoch: int, seed: int) -> Iterator[Batch]:
    """Yield sequences that were never seen; how long they are, the set-up says by the epoch."""
    del data
    shrink = setup.shrink[min(epoch, len(setup.shrink) - 1)]
    for number in range(max(1, setup.sequences // setup.batch)):
        made = generate(setup.batch, [seed, epoch, number], shrink=shrink, noise=setup.noise)
        yield Batch(made.padded.astype(np.float32), made.lengths, made.classes)


SMALL_SHRINK = (*(0.08 * 1.25**epoch for epoch in range(12)), 1.0)
"""Lengths of the epochs: each longer by a quarter, from 16 steps to all."""

TASK = Task(
    name="temporal_order",
    summary="the order of three symbols among 200 steps of noise",
    needs="",
    metric="accuracy",
    per_step=False,
    setups={
        # Ours, for tests: seconds.
        "short": Setup(
            hidden=16,
            batch=64,
            epochs=12,
            sequences=1600,
            learning_rate=0.01,
            last_rate=0.002,
            largest_gradient=1.0,
            forget_bias=2.0,
            shrink=(0.08,),
        ),
        # Ours, after the example temporal_order.
        "small": Setup(
            hidden=32,
            batch=64,
            epochs=30,
            sequences=6400,
            learning_rate=0.003,
            last_rate=0.0005,
            largest_gradient=1.0,
            forget_bias=2.0,
            noise=NOISE,
            shrink=SMALL_SHRINK,
        ),
        # Harder than the source's sequences, and its network of 1997 is not ours: an LSTM with
        # forget gates, which the small set-up trains half as long.
        "paper": Setup(
            hidden=32,
            batch=64,
            epochs=60,
            sequences=6400,
            learning_rate=0.003,
            last_rate=0.0001,
            largest_gradient=1.0,
            forget_bias=2.0,
            noise=NOISE,
            shrink=tuple(np.repeat(SMALL_SHRINK, 2).tolist()),
        ),
    },
    load=_load,
    batches=_batches,
)
