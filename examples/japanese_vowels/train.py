"""The training of the speaker recogniser in float, which writes ``float_model.npz``.

``python -m examples.japanese_vowels.train``; needs PyTorch (``pip install 'fewbit[train]'``), runs
on one core of a CPU in about a minute and gives the same file every time on one machine.

The test set is never looked at. What is open (whether the last hidden vector or the mean over time
is read out, and the seed of the start) is chosen by cross-validation on the training set: the
lowest mean loss on the held-out fifths. Folds are runs of consecutive utterances of each speaker,
as neighbours in the file were spoken one after the other. The winner is trained again on all 270
utterances.

Against overfitting to 30 utterances a speaker: noise on every coefficient, an offset for each
utterance (speakers are not to be known by their microphone), dropout before the read-out, weight
decay, smoothed labels, and an average of the weights over the last steps.
"""

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.japanese_vowels.recordings import (
    FLOAT_MODEL_FILE,
    SPEAKERS,
    Recordings,
    load_recordings,
)
from fewbit.golden.files.model import Model, Pooling, ReadOut, save_model
from fewbit.golden.lstm.float64 import Float64Lstm

__all__ = ["main"]

HIDDEN = 32
FOLDS = 5
POOLINGS: tuple[Pooling, ...] = ("last", "mean")
SEEDS = (0, 1, 2)

EPOCHS = 120
BATCH = 54
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2
LABEL_SMOOTHING = 0.1
DROPOUT = 0.5
AVERAGING = 0.98
LARGEST_GRADIENT = 1.0
# In standard deviations of a coefficient.
NOISE = 0.1
OFFSET = 0.5


@dataclass(frozen=True, eq=False)
class Batch:
    """Standardised utterances, shape (batch, time, 12), lengths and speakers, shape (batch,)."""

    x: torch.Tensor
    lengths: torch.Tensor
    speakers: torch.Tensor

    def __getitem__(self, indices: torch.Tensor) -> "Batch":
        """Return the utterances at `indices`."""
        return Batch(self.x[indices], self.lengths[indices], self.speakers[indices])


class Recogniser(nn.Module):
    """An LSTM and a linear read-out."""

    def __init__(self, inputs: int, pooling: Pooling) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, HIDDEN, batch_first=True)
        self.read_out = nn.Linear(HIDDEN, SPEAKERS)
        self.dropout = nn.Dropout(DROPOUT)
        self.pooling: Pooling = pooling
        # A forget gate that starts open lets the gradient through the first epochs.
        with torch.no_grad():
            self.lstm.get_parameter("bias_ih_l0")[HIDDEN : 2 * HIDDEN] += 1

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the scores, shape (batch, speakers)."""
        hidden, _ = self.lstm(x)
        if self.pooling == "last":
            pooled = hidden[torch.arange(len(x)), lengths - 1]
        else:
            valid = torch.arange(x.shape[1]) < lengths[:, None]
            pooled = (hidden * valid[..., None]).sum(1) / lengths[:, None]
        return self.read_out(self.dropout(pooled))


def fit(data: Batch, pooling: Pooling, seed: int) -> Recogniser:
    """Train on `data` and return the averaged recogniser."""
    torch.manual_seed(seed)
    count, _, inputs = data.x.shape
    network = Recogniser(inputs, pooling)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * -(-count // BATCH)
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for _ in range(EPOCHS):
        for indices in torch.randperm(count).split(BATCH):
            batch = data[indices]
            x = batch.x + NOISE * torch.randn(batch.x.shape)
            x = x + OFFSET * torch.randn(len(indices), 1, inputs)
            loss = loss_of(network(x, batch.lengths), batch.speakers)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
    result = averaged.module
    assert isinstance(result, Recogniser)
    return result.eval()


def held_out(data: Batch, pooling: Pooling, seed: int) -> tuple[float, float]:
    """Return mean loss and accuracy on the fifth of the data that each recogniser never saw."""
    fold_of = folds(data.speakers.numpy())
    losses: list[float] = []
    hits: list[float] = []
    for fold in range(FOLDS):
        outside = data[torch.from_numpy(np.flatnonzero(fold_of != fold))]
        inside = data[torch.from_numpy(np.flatnonzero(fold_of == fold))]
        network = fit(outside, pooling, seed)
        with torch.no_grad():
            scores = network(inside.x, inside.lengths)
        losses.append(float(nn.functional.cross_entropy(scores, inside.speakers)))
        hits.append(float((scores.argmax(1) == inside.speakers).double().mean()))
    return float(np.mean(losses)), float(np.mean(hits))


def folds(speakers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the fold of every utterance: each speaker's are cut into `FOLDS` runs."""
    result = np.zeros(len(speakers), np.int64)
    for speaker in range(SPEAKERS):
        own = np.flatnonzero(speakers == speaker)
        result[own] = np.arange(len(own)) * FOLDS // len(own)
    return result


def standardise(
    recordings: Recordings,
) -> tuple[Batch, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give every coefficient mean 0 and deviation 1; return also the means and deviations."""
    frames = np.concatenate(recordings.utterances)
    mean, deviation = frames.mean(axis=0), frames.std(axis=0)
    x = (recordings.padded - mean) / deviation
    batch = Batch(
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy(recordings.lengths),
        torch.from_numpy(recordings.speakers),
    )
    return batch, mean, deviation


def as_model(
    network: Recogniser, mean: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64]
) -> Model:
    """Return the model over unstandardised coefficients: W and b include the standardisation."""

    def gates(name: str) -> npt.NDArray[np.float64]:
        values = network.lstm.get_parameter(name).detach().numpy().astype(np.float64)
        return values.reshape(4, HIDDEN, *values.shape[1:])

    weights = gates("weight_ih_l0") / deviation
    bias = gates("bias_ih_l0") + gates("bias_hh_l0") - weights @ mean
    return Model(
        Float64Lstm(
            # As float32 they are stored without a loss, in half the room.
            weights.astype(np.float32).astype(np.float64),
            gates("weight_hh_l0"),
            bias.astype(np.float32).astype(np.float64),
        ),
        ReadOut(
            network.read_out.weight.detach().numpy(),
            network.read_out.bias.detach().numpy(),
            network.pooling,
        ),
    )


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.japanese_vowels.train",
        description="Train the speaker recogniser in float.",
    )
    parser.add_argument("--out", type=Path, default=FLOAT_MODEL_FILE, help="the file to write")
    arguments = parser.parse_args()
    # Sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    console = Console()
    try:
        train, _ = load_recordings()
        data, mean, deviation = standardise(train)
        results: dict[tuple[Pooling, int], tuple[float, float]] = {}
        candidates = list(itertools.product(POOLINGS, SEEDS))
        for pooling, seed in track(candidates, "cross-validation", console=console):
            results[pooling, seed] = held_out(data, pooling, seed)
        for (pooling, seed), (loss, accuracy) in results.items():
            console.print(
                f"read-out {pooling}, seed {seed}: "
                f"held-out loss {loss:.3f}, accuracy {accuracy:.1%}"
            )
        best = min(results, key=lambda candidate: results[candidate])
        console.print(f"training on all {len(train)}: read-out {best[0]}, seed {best[1]}")
        save_model(arguments.out, as_model(fit(data, *best), mean, deviation))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
