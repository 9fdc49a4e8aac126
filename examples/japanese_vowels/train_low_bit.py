"""The training of the speaker recogniser with ternary and with binary weights.

``python -m examples.japanese_vowels.train_low_bit``; needs PyTorch (``pip install
'fewbit[train]'``), runs on one core of a CPU in about three minutes and gives the same files every
time on one machine.

The cell is that of arXiv 1809.11086: the products of inputs and of hidden values are normalised
each, weights are quantised by the paper's rules in every forward pass, one sample a batch, and the
gradient passes straight through to real weights behind them. Unlike in the paper's code, a norm has
one set of statistics for all time steps, as a circuit has. In training those of the input part are
the batch's, those of the recurrent part a running average of the batches before; at the end both
are taken from the whole training set, with the weights as they are frozen.

The test set is never looked at. Whether weights are sampled or quantised deterministically in
training is chosen by cross-validation on the training set, on the folds of `train`: the lowest mean
loss on the held-out fifths, where weights are deterministic in any case. The winner is trained
again on all 270 utterances.

Noise, offsets, dropout, smoothed labels, averaged weights and learning rate are those of `train`;
so is the last hidden vector that is read out. Coefficients go in as they were recorded, as into the
float model.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples.japanese_vowels.recordings import (
    LOW_BIT_MODEL_FILES,
    SPEAKERS,
    Recordings,
    load_recordings,
)
from examples.japanese_vowels.train import (
    AVERAGING,
    BATCH,
    DROPOUT,
    FOLDS,
    HIDDEN,
    LABEL_SMOOTHING,
    LARGEST_GRADIENT,
    LEARNING_RATE,
    NOISE,
    OFFSET,
    WEIGHT_DECAY,
    Batch,
    folds,
    standardise,
)
from fewbit.golden.files.model import Model, ReadOut, save_model
from fewbit.golden.lstm.batch_norm import BatchNorm, BatchNormLstm
from fewbit.golden.lstm.ternary import ScaleKind, WeightKind
from fewbit.golden.quantize.ternary import ardakani_scale
from fewbit.golden.quantize.ternary_lstm import quantize_lstm

__all__ = ["main"]

WEIGHTS: tuple[WeightKind, ...] = ("ternary", "binary")
SEED = 0
EPOCHS = 120
FIRST_GAIN = 0.1
EPSILON = 1e-5
MOMENTUM = 0.1
# The recurrent norm's statistics decide what it normalises: they settle in a few rounds.
ROUNDS = 10


def moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance over the first axis."""
    return values.mean(0), values.var(0, unbiased=False)


class Norm(nn.Module):
    """A batch normalisation with one gain and one set of statistics for each row."""

    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((rows,), FIRST_GAIN))
        self.register_buffer("mean", torch.zeros(rows))
        self.register_buffer("variance", torch.full((rows,), FIRST_GAIN))

    @torch.no_grad()
    def keep(self, mean: torch.Tensor, variance: torch.Tensor, share: float = 1.0) -> None:
        """Move the statistics by a share of the distance to new ones."""
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)

    def scale(self, variance: torch.Tensor) -> torch.Tensor:
        """Return the factor of a product."""
        return self.gain * torch.rsqrt(variance + EPSILON)


class Recogniser(nn.Module):
    """An LSTM of binary or ternary weights with batch norm, and a real linear read-out."""

    def __init__(self, inputs: int, weights: WeightKind, *, sampled: bool) -> None:
        super().__init__()
        self.weights: WeightKind = weights
        self.sampled = sampled
        rows = 4 * HIDDEN
        self.input_weights = self.uniform(rows, inputs)
        self.recurrent_weights = self.uniform(rows, HIDDEN)
        self.input_norm, self.recurrent_norm = Norm(rows), Norm(rows)
        # A forget gate that starts open lets the gradient through the first epochs.
        bias = torch.zeros(rows)
        bias[HIDDEN : 2 * HIDDEN] = 1
        self.bias = nn.Parameter(bias)
        self.read_out = nn.Linear(HIDDEN, SPEAKERS)
        self.dropout = nn.Dropout(DROPOUT)

    @staticmethod
    def uniform(rows: int, operands: int) -> nn.Parameter:
        """Return the first weights, whose magnitude is at most twice the scale."""
        bound = 2 * ardakani_scale(operands, HIDDEN)
        return nn.Parameter((2 * torch.rand(rows, operands) - 1) * bound)

    def quantised(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the quantised weights; the gradient passes to the real ones."""
        scale = ardakani_scale(weights.shape[1], HIDDEN)
        sampled = self.sampled and self.training
        with torch.no_grad():
            if self.weights == "binary":
                threshold = 2 * torch.rand_like(weights) - 1 if sampled else 0.0
                levels = torch.where(weights / scale >= threshold, 1.0, -1.0)
            elif sampled:
                levels = torch.sign(weights) * (torch.rand_like(weights) < weights.abs() / scale)
            else:
                third = scale / 3
                levels = (weights > -third).to(weights.dtype) + (weights > third) - 1
            error = scale * levels - weights
        return weights + error

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, *, keep: float = 0.0) -> torch.Tensor:
        """Return the scores, shape (batch, speakers); `keep` is the share of new statistics."""
        valid = torch.arange(x.shape[1]) < lengths[:, None]
        w, r = self.quantised(self.input_weights), self.quantised(self.recurrent_weights)
        products = x @ w.T
        mean, variance = self.input_norm.mean, self.input_norm.variance
        if keep:
            statistics = moments(products[valid])
            self.input_norm.keep(*statistics, share=keep)
            if self.training:
                mean, variance = statistics
            else:
                mean, variance = self.input_norm.mean, self.input_norm.variance
        # Kept from later changes in place, which the gradient must not see.
        recurrent_mean = self.recurrent_norm.mean.clone()
        recurrent_scale = self.recurrent_norm.scale(self.recurrent_norm.variance.clone())
        offset = self.bias - recurrent_mean * recurrent_scale
        parts = (products - mean) * self.input_norm.scale(variance) + offset
        scaled = (r * recurrent_scale[:, None]).T
        hidden = cell = x.new_zeros(len(x), HIDDEN)
        hiddens = [hidden]
        for t in range(x.shape[1]):
            pre = torch.addmm(parts[:, t], hidden, scaled)
            i, f, g, o = pre.split(HIDDEN, dim=1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            hiddens.append(hidden)
        every = torch.stack(hiddens, dim=1)
        if keep:
            old = every[:, :-1][valid].detach()
            self.recurrent_norm.keep(*moments(old @ r.detach().T), share=keep)
        return self.read_out(self.dropout(every[torch.arange(len(x)), lengths]))

    @torch.no_grad()
    def freeze(self, data: Batch) -> None:
        """Take the statistics of all the data, with deterministic weights, in binary64.

        There, the quantisers' thresholds are those of `fewbit.golden.quantize.ternary`.
        """
        self.double().eval()
        for _ in range(ROUNDS):
            self(data.x.double(), data.lengths, keep=1.0)


def fit(data: Batch, deviation: torch.Tensor, weights: WeightKind, *, sampled: bool) -> Recogniser:
    """Train on `data` and return the averaged recogniser, frozen.

    `deviation` is that of each coefficient, by which noise and offset are scaled.
    """
    torch.manual_seed(SEED)
    count, _, inputs = data.x.shape
    network = Recogniser(inputs, weights, sampled=sampled)
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    decayed = [network.input_weights, network.recurrent_weights, network.read_out.weight]
    others = [one for one in network.parameters() if all(one is not each for each in decayed)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=EPOCHS * -(-count // BATCH)
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for _ in range(EPOCHS):
        for indices in torch.randperm(count).split(BATCH):
            batch = data[indices]
            x = batch.x + NOISE * deviation * torch.randn(batch.x.shape)
            x = x + OFFSET * deviation * torch.randn(len(indices), 1, inputs)
            loss = loss_of(network(x, batch.lengths, keep=MOMENTUM), batch.speakers)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
    result = averaged.module
    assert isinstance(result, Recogniser)
    result.freeze(data)
    return result


def held_out(
    data: Batch, deviation: torch.Tensor, weights: WeightKind, *, sampled: bool
) -> tuple[float, float]:
    """Return mean loss and accuracy on the fifth of the data that each recogniser never saw."""
    fold_of = folds(data.speakers.numpy())
    losses: list[float] = []
    hits: list[float] = []
    for fold in range(FOLDS):
        outside = data[torch.from_numpy(np.flatnonzero(fold_of != fold))]
        inside = data[torch.from_numpy(np.flatnonzero(fold_of == fold))]
        network = fit(outside, deviation, weights, sampled=sampled)
        with torch.no_grad():
            scores = network(inside.x.double(), inside.lengths)
        losses.append(float(nn.functional.cross_entropy(scores, inside.speakers)))
        hits.append(float((scores.argmax(1) == inside.speakers).double().mean()))
    return float(np.mean(losses)), float(np.mean(hits))


def as_recorded(recordings: Recordings) -> tuple[Batch, torch.Tensor]:
    """Return utterances with their coefficients as they are, and each coefficient's deviation."""
    data, _, deviation = standardise(recordings)
    x = torch.from_numpy(recordings.padded.astype(np.float32))
    return Batch(x, data.lengths, data.speakers), torch.from_numpy(deviation.astype(np.float32))


def as_layer(network: Recogniser) -> tuple[BatchNormLstm, ReadOut]:
    """Return the real weights that the frozen ones follow from, with norms, bias and read-out."""

    def gates(values: torch.Tensor) -> np.ndarray:
        kept = values.detach().numpy()
        return kept.reshape(4, HIDDEN, *kept.shape[1:])

    def norm(part: Norm) -> BatchNorm:
        gain = gates(part.gain)
        return BatchNorm(gain, np.zeros_like(gain), gates(part.mean), gates(part.variance), EPSILON)

    layer = BatchNormLstm(
        gates(network.input_weights),
        gates(network.recurrent_weights),
        gates(network.bias),
        norm(network.input_norm),
        norm(network.recurrent_norm),
    )
    weights, bias = (
        # As float32 they are stored in half the room.
        np.asarray(values.detach().numpy().astype(np.float32), np.float64)
        for values in (network.read_out.weight, network.read_out.bias)
    )
    return layer, ReadOut(weights, bias, "last")


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.japanese_vowels.train_low_bit",
        description="Train the speaker recogniser with ternary and with binary weights.",
    )
    folder = next(iter(LOW_BIT_MODEL_FILES.values())).parent
    parser.add_argument("--out", type=Path, default=folder, help="the folder to write to")
    arguments = parser.parse_args()
    # Sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    console = Console()
    try:
        train, _ = load_recordings()
        data, deviation = as_recorded(train)
        for weights in WEIGHTS:
            results = {
                sampled: held_out(data, deviation, weights, sampled=sampled)
                for sampled in track((False, True), f"{weights}, cross-validation", console=console)
            }
            words = {False: "deterministic", True: "sampled"}
            for sampled, (loss, accuracy) in results.items():
                console.print(
                    f"{weights}, {words[sampled]} in training: "
                    f"held-out loss {loss:.3f}, accuracy {accuracy:.1%}"
                )
            best = min(results, key=lambda sampled: results[sampled])
            console.print(f"{weights}: training on all {len(train)}, {words[best]}")
            layer, read_out = as_layer(fit(data, deviation, weights, sampled=best))
            for scales in get_args(ScaleKind):
                lstm = quantize_lstm(layer, train.padded, train.lengths, to=weights, scales=scales)
                path = arguments.out / LOW_BIT_MODEL_FILES[weights, scales].name
                save_model(path, Model(lstm, read_out))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
