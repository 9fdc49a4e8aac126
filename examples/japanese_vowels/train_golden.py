"""A speaker recogniser trained with nothing but the golden training step, or in float64 beside it.

``python -m examples.japanese_vowels.train_golden`` trains a layer of 16 units by plain gradient
descent: every sum of its forward pass, backward pass and update is one that a `floatsd8_mac`
computes. The read-out, of the mean hidden value over the frames of an utterance, is real.
``--arithmetic float64`` takes the same start, batches, rate and read-out for a real LSTM.
"""

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from examples.japanese_vowels.recordings import SPEAKERS, Recordings, load_recordings
from fewbit.golden.formats import BINARY16
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.floatsd8 import HIDDEN_FORMAT, FloatSD8Lstm
from fewbit.golden.training.floatsd8_step import training_step
from fewbit.golden.training.masters import LayerArrays, layer_of
from fewbit.golden.training.options import TrainingOptions

Reals = npt.NDArray[np.float64]
Top = Callable[[Reals], Reals]
"""Takes the hidden values of a batch, and returns the gradient of the loss with respect to them."""

_HIDDEN = 16
_BATCH = 27


class Layer(ABC):
    """A layer in some arithmetic, which learns from a batch at a time."""

    @abstractmethod
    def run(self, x: Reals) -> Reals:
        """Return the hidden values of sequences, shape (batch, time, hidden)."""

    @abstractmethod
    def learn(self, x: Reals, top: Top) -> bool:
        """Do a training step; return whether the loss scale overflowed."""


class Golden(Layer):
    """A FloatSD8 layer that learns by the golden training step."""

    def __init__(self, start: Sequence[Reals], options: TrainingOptions) -> None:
        input_weights, recurrent_weights, bias = start
        self.options = options
        self.masters = LayerArrays.of_reals(*start)
        empty = FloatSD8Lstm(
            np.zeros(input_weights.shape, np.int64),
            np.zeros(recurrent_weights.shape, np.int64),
            np.zeros(bias.shape, np.int64),
        )
        self.layer = layer_of(self.masters, empty)

    def run(self, x: Reals) -> Reals:
        return HIDDEN_FORMAT.decode(self.layer.run(self.layer.input_format.encode(x)))

    def learn(self, x: Reals, top: Top) -> bool:
        step = training_step(
            self.layer,
            self.masters,
            self.layer.input_format.encode(x),
            lambda hidden: BINARY16.encode(
                top(HIDDEN_FORMAT.decode(hidden)) * self.options.loss_scale
            ),
            self.options,
        )
        self.layer, self.masters = step.layer, step.masters
        return step.overflow


class Real(Layer):
    """An LSTM in float64 that learns by plain gradient descent."""

    def __init__(self, start: Sequence[Reals], rate: float) -> None:
        self.constants, self.rate = list(start), rate

    def run(self, x: Reals) -> Reals:
        return Float64Lstm(*self.constants).run(x)

    def learn(self, x: Reals, top: Top) -> bool:
        input_weights, recurrent_weights, bias = self.constants
        batch, steps, _ = x.shape
        hidden, cell = np.zeros((2, batch, bias.shape[1]))
        kept: list[tuple[Reals, ...]] = []
        hiddens: list[Reals] = []
        for t in range(steps):
            pre = np.einsum("guk,bk->gbu", input_weights, x[:, t]) + bias[:, np.newaxis]
            pre += np.einsum("guk,bk->gbu", recurrent_weights, hidden)
            i, f, _, o = 1 / (1 + np.exp(-pre))
            g = np.tanh(pre[2])
            new = f * cell + i * g
            kept.append((i, f, g, o, cell, np.tanh(new), hidden))
            cell, hidden = new, o * np.tanh(new)
            hiddens.append(hidden)
        above = top(np.stack(hiddens, axis=1))
        sums = [np.zeros_like(array) for array in self.constants]
        later, carry = np.zeros((2, batch, bias.shape[1]))
        for t in range(steps - 1, -1, -1):
            i, f, g, o, old_cell, tanh, old_hidden = kept[t]
            dh = above[:, t] + later
            dc = carry + dh * o * (1 - tanh**2)
            d = np.stack(
                [
                    dc * g * i * (1 - i),
                    dc * old_cell * f * (1 - f),
                    dc * i * (1 - g**2),
                    dh * tanh * o * (1 - o),
                ]
            )
            carry, later = dc * f, np.einsum("guk,gbu->bk", recurrent_weights, d)
            sums[0] += np.einsum("gbu,bk->guk", d, x[:, t])
            sums[1] += np.einsum("gbu,bk->guk", d, old_hidden)
            sums[2] += d.sum(axis=1)
        self.constants = [
            array - self.rate * total for array, total in zip(self.constants, sums, strict=True)
        ]
        return False


class ReadOut:
    """A real read-out of the mean hidden value, which learns with the layer below."""

    def __init__(self, weights: Reals, rate: float) -> None:
        self.weights, self.bias, self.rate = weights, np.zeros(len(weights)), rate
        self.losses: list[float] = []

    def scores(self, hidden: Reals, within: Reals) -> Reals:
        """Return the scores of utterances; `within` is 1 over the length, or 0 after the end."""
        return (hidden * within).sum(axis=1) @ self.weights.T + self.bias

    def top(self, within: Reals, speakers: npt.NDArray[np.int64]) -> Top:
        """Return the function that takes hidden values, learns, and returns their gradient."""

        def learn(hidden: Reals) -> Reals:
            scores = self.scores(hidden, within)
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            self.losses.append(float(-np.log(shares[range(len(speakers)), speakers]).mean()))
            errors = (shares - np.eye(SPEAKERS)[speakers]) / len(speakers)
            gradient = (errors @ self.weights)[:, np.newaxis] * within
            self.weights = self.weights - self.rate * errors.T @ (hidden * within).sum(axis=1)
            self.bias = self.bias - self.rate * errors.sum(axis=0)
            return gradient

        return learn


def _standardised(recordings: Recordings, like: Recordings) -> tuple[Reals, Reals]:
    """Return inputs, and 1 over the length within an utterance, else 0, both padded."""
    frames = np.concatenate(like.utterances)
    within = np.arange(recordings.padded.shape[1]) < recordings.lengths[:, np.newaxis]
    x = (recordings.padded - frames.mean(axis=0)) / frames.std(axis=0)
    return x * within[..., np.newaxis], (within / recordings.lengths[:, np.newaxis])[
        ..., np.newaxis
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--arithmetic", choices=("golden", "float64"), default="golden")
    parser.add_argument("--epochs", type=int, default=20, help="default 20")
    parser.add_argument("--rate", type=float, default=1.0, help="learning rate, default 1")
    parser.add_argument("--loss-scale", type=float, default=1024.0, help="default 1024")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.epochs < 1 or options.seed < 0:
        parser.error("--epochs must be at least 1, --seed at least 0.")
    try:
        chosen = TrainingOptions(rate=options.rate, loss_scale=options.loss_scale)
    except ValueError as error:
        parser.error(str(error))
    train, test = load_recordings()
    x, within = _standardised(train, train)
    test_x, test_within = _standardised(test, train)
    rng = np.random.default_rng(options.seed)
    scale = 1 / np.sqrt(_HIDDEN)
    shapes = ((4, _HIDDEN, x.shape[2]), (4, _HIDDEN, _HIDDEN), (4, _HIDDEN))
    start = [rng.uniform(-scale, scale, shape) for shape in shapes]
    start[2][1] += 1
    read_out = ReadOut(rng.uniform(-scale, scale, (SPEAKERS, _HIDDEN)), options.rate)
    is_golden = options.arithmetic == "golden"
    layer = Golden(start, chosen) if is_golden else Real(start, options.rate)

    def right(x: Reals, within: Reals, speakers: npt.NDArray[np.int64]) -> int:
        return int((read_out.scores(layer.run(x), within).argmax(axis=1) == speakers).sum())

    overflows = 0
    for epoch in range(options.epochs):
        started, read_out.losses = time.perf_counter(), []
        order = rng.permutation(len(train))
        for first in range(0, len(order), _BATCH):
            rows = order[first : first + _BATCH]
            overflows += layer.learn(x[rows], read_out.top(within[rows], train.speakers[rows]))
        print(
            f"{options.arithmetic}, epoch {epoch + 1}: loss {np.mean(read_out.losses):.4f};"
            f" {right(x, within, train.speakers)} of {len(train)} training and"
            f" {right(test_x, test_within, test.speakers)} of {len(test)} test utterances;"
            f" {overflows} overflows; {time.perf_counter() - started:.1f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
