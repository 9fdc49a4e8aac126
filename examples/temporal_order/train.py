"""The training of the temporal order LSTM in float, which writes ``float_model.npz``.

``python -m examples.temporal_order.train``; needs PyTorch (``pip install 'fewbit[train]'``), runs
on one core of a CPU in some two minutes and gives the same file every time on one machine.

Every batch is new. Sequences start short and grow each time that nine in ten are told apart, for
over 200 steps the gradient of an untrained LSTM says nothing. Seeds of the batches are from
`FIRST_SEED` on, apart from those of the calibration and the test sequences.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from examples.temporal_order.recognise import FLOAT_MODEL_FILE
from examples.temporal_order.sequences import CLASSES, SYMBOLS, generate
from fewbit.golden.files.model import Model, ReadOut, save_model
from fewbit.golden.lstm.float64 import Float64Lstm

__all__ = ["main"]

HIDDEN = 32
BATCHES = 4000
BATCH = 64
FIRST_SEED = 10_000
LEARNING_RATE = 3e-3
LARGEST_GRADIENT = 1.0
# A forget gate that starts open keeps what the first sequences show.
FORGET_BIAS = 2.0
SHORTEST_SHRINK = 0.08
GROWTH = 1.25
# Sequences grow when a running mean of the accuracy passes this, which then starts at a half.
GOOD = 0.9
MEMORY = 0.9


def fit() -> tuple[nn.LSTM, nn.Linear]:
    """Train and return the LSTM and its read-out."""
    torch.manual_seed(0)
    lstm = nn.LSTM(len(SYMBOLS), HIDDEN, batch_first=True)
    read_out = nn.Linear(HIDDEN, CLASSES)
    with torch.no_grad():
        lstm.get_parameter("bias_ih_l0")[HIDDEN : 2 * HIDDEN] += FORGET_BIAS
    parameters = [*lstm.parameters(), *read_out.parameters()]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
    # The rate falls to nothing over the second half.
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda batch: min(1.0, 2 - 2 * batch / BATCHES)
    )
    shrink, mean = SHORTEST_SHRINK, 0.0
    for batch in track(range(BATCHES), "training"):
        sequences = generate(BATCH, FIRST_SEED + batch, shrink=shrink)
        hidden, _ = lstm(torch.from_numpy(sequences.padded.astype(np.float32)))
        last = hidden[torch.arange(BATCH), torch.from_numpy(sequences.lengths) - 1]
        scores, classes = read_out(last), torch.from_numpy(sequences.classes)
        loss = nn.functional.cross_entropy(scores, classes)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        accuracy = float((scores.argmax(1) == classes).double().mean())
        mean = MEMORY * mean + (1 - MEMORY) * accuracy
        if mean > GOOD and shrink < 1:
            shrink, mean = min(1.0, shrink * GROWTH), 0.5
    return lstm, read_out


def as_model(lstm: nn.LSTM, read_out: nn.Linear) -> Model:
    """Return the model of a trained network."""

    def gates(name: str) -> np.ndarray:
        values = lstm.get_parameter(name).detach().numpy().astype(np.float64)
        return values.reshape(4, HIDDEN, *values.shape[1:])

    bias = gates("bias_ih_l0") + gates("bias_hh_l0")
    return Model(
        Float64Lstm(
            gates("weight_ih_l0"),
            gates("weight_hh_l0"),
            # As float32 it is stored without a loss, in half the room.
            bias.astype(np.float32).astype(np.float64),
        ),
        ReadOut(read_out.weight.detach().numpy(), read_out.bias.detach().numpy()),
    )


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.temporal_order.train",
        description="Train the LSTM of the temporal order problem in float.",
    )
    parser.add_argument("--out", type=Path, default=FLOAT_MODEL_FILE, help="the file to write")
    arguments = parser.parse_args()
    # Sums in another order would give other weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    save_model(arguments.out, as_model(*fit()))
    Console().print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
