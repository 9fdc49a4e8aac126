"""The time of a training step under every scheme, beside PyTorch's own LSTM.

``python -m examples.training_speed``; needs PyTorch (``make test-train`` sets up .venv-train). A
step is forward, backward and Adam on a batch of 64 windows of 99 one-hot characters of 83, on one
thread. Schemes take turns, so that a busy machine slows all alike; the best of some rounds counts.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from fewbit.train import (
    Binary,
    Exponential,
    Float,
    FloatSD8,
    Int8,
    PowerOfTwo,
    QuantLSTM,
    Ternary,
)
from fewbit.train.schemes import Scheme

__all__ = ["main"]

BATCH, TIME, SYMBOLS = 64, 99, 83
SCHEMES: dict[str, Scheme] = {
    "float": Float(),
    "FloatSD8": FloatSD8(),
    "FloatSD8, gradients binary16": FloatSD8(gradient="binary16"),
    "binary": Binary(),
    "ternary": Ternary(),
    "ternary, scales 2^k": Ternary(scales="powers_of_two"),
    "ternary, sampled, batch norm": Ternary(rule="ardakani_ternary", sampled=True, norm="batch"),
    "pow2": PowerOfTwo(),
    "exponential": Exponential(),
    "int8": Int8(),
}
LABELS = BATCH * TIME


def step_of(lstm: nn.Module, optimiser: Any, x: torch.Tensor, scale: float) -> Callable[[], None]:
    """Return a function that takes one training step on a loss of random weights."""
    weights = torch.randn(TIME, BATCH, int(lstm.hidden_size)) / LABELS  # pyright: ignore

    def step() -> None:
        hidden, _ = lstm(x)
        optimiser.zero_grad(set_to_none=True)
        ((hidden * weights).sum() * scale).backward()
        optimiser.step()

    return step


def measured(hidden: int, rounds: int) -> dict[str, float]:
    """Return the seconds of a step by scheme, the best of some rounds."""
    torch.manual_seed(0)
    symbols = torch.randint(0, SYMBOLS, (TIME, BATCH))
    x = nn.functional.one_hot(symbols, SYMBOLS).float()
    steps: dict[str, Callable[[], None]] = {}
    lstm: nn.Module = nn.LSTM(SYMBOLS, hidden)
    steps["torch.nn.LSTM"] = step_of(lstm, torch.optim.Adam(lstm.parameters()), x, 1.0)
    for name, scheme in SCHEMES.items():
        lstm = QuantLSTM(SYMBOLS, hidden, scheme=scheme)
        optimiser = scheme.optimiser(torch.optim.Adam(lstm.parameters()), lstm, LABELS)
        steps[name] = step_of(lstm, optimiser, x, getattr(optimiser, "loss_scale", 1.0))
    best = dict.fromkeys(steps, float("inf"))
    for _ in track(range(rounds), f"hidden {hidden}"):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.training_speed",
        description="Measure training steps under every scheme.",
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for hidden in arguments.hidden:
        best = measured(hidden, arguments.rounds)
        table = Table(title=f"Training step, {hidden} hidden units, one thread")
        for column in ("layer", "ms", "over nn.LSTM", "over our float loop"):
            table.add_column(column, justify="left" if column == "layer" else "right")
        for name, seconds in best.items():
            table.add_row(
                name,
                f"{1000 * seconds:.0f}",
                f"{seconds / best['torch.nn.LSTM']:.2f}",
                f"{seconds / best['float']:.2f}",
            )
        Console(width=90).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
