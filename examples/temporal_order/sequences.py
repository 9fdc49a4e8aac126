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

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CLASSES", "LONGEST", "NOISE", "SYMBOLS", "Sequences", "generate"]

SYMBOLS = "EBabcdXY"
CLASSES = 8
NOISE = 0.18
"""Standard deviation of what is added to every input."""
SHORTEST, LONGEST = 200, 220
RELEVANT = ((20, 40), (66, 86), (132, 152))
"""First and last step, from 0, at which each of the three relevant symbols may be."""


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


def generate(count: int, seed: int, *, shrink: float = 1.0, noise: float = NOISE) -> Sequences:
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
