"""A whole training step of a FloatSD8 layer in RTL: every number is compared with golden.

The forward pass runs through the `floatsd8_lstm_layer`, every sum of the backward pass and of the
weight update through a `floatsd8_mac`; both are compiled from their Verilog. A unit holds the sum
of its two exponent biases as a constant, so there is one for each such constant.

The layer's weights are uniform, as before training; the loss is half the squared distance of the
hidden values from random signs.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from fewbit.golden.formats import BINARY16, Minifloat
from fewbit.golden.lstm.floatsd8 import HIDDEN_FORMAT, FloatSD8Lstm
from fewbit.golden.training.floatsd8_step import KINDS, TrainingStep, training_step
from fewbit.golden.training.masters import LayerArrays, layer_of
from fewbit.golden.training.options import TrainingOptions
from fewbit.golden.training.sums import Sums, contract_of
from fewbit.hdl.design import ConfiguredDesign
from fewbit.hdl.designs import find
from fewbit.sim.bulk import BulkError, BulkSimulation
from fewbit.sim.layer import LayerBackend
from fewbit.sim.yosys import YosysError

__all__ = ["Problem", "problem_of", "replay", "unit_of"]

Codes = npt.NDArray[np.int64]

_LEVEL = 0.5
"""Magnitude of the targets of hidden values."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer with its masters, a batch of inputs, and targets of its hidden values."""

    layer: FloatSD8Lstm
    masters: LayerArrays
    x: Codes
    targets: npt.NDArray[np.float64]
    options: TrainingOptions

    def gradient_of_hidden(self, hidden: Codes) -> Codes:
        """Return dL/dh times the loss scale; the loss is a mean over batch and time."""
        error = HIDDEN_FORMAT.decode(hidden) - self.targets
        batch, steps, _ = hidden.shape
        return BINARY16.encode(error * self.options.loss_scale / (batch * steps))

    def loss(self, hidden: Codes) -> float:
        """Return half the squared distance from the targets, a mean over batch and time."""
        error = HIDDEN_FORMAT.decode(hidden) - self.targets
        return float((error**2).sum(axis=-1).mean() / 2)


def problem_of(*, inputs: int, hidden: int, batch: int, steps: int, seed: int) -> Problem:
    """Return a layer of random weights, and random sequences for it."""
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(hidden)
    masters = LayerArrays.of_reals(
        rng.uniform(-scale, scale, (4, hidden, inputs)),
        rng.uniform(-scale, scale, (4, hidden, hidden)),
        rng.uniform(-scale, scale, (4, hidden)),
    )
    empty = FloatSD8Lstm(
        np.zeros((4, hidden, inputs), np.int64),
        np.zeros((4, hidden, hidden), np.int64),
        np.zeros((4, hidden), np.int64),
    )
    layer = layer_of(masters, empty)
    x = layer.input_format.encode(rng.normal(0, 1, (batch, steps, inputs)))
    targets = _LEVEL * rng.choice([-1.0, 1.0], (batch, steps, hidden))
    return Problem(layer, masters, x, targets, TrainingOptions(rate=0.5))


@dataclass
class _Count:
    sums: int = 0
    differences: int = 0
    constants: set[int] = field(default_factory=set[int])


def unit_of(bias: int, products: int, window: int | None) -> ConfiguredDesign:
    """Return the design of the unit whose biases sum to `bias`."""
    contract = contract_of(bias, products, window)
    return find("floatsd8_mac").configure(
        {
            "products": products,
            "window": window,
            "weight_bias": contract.weight_bias,
            "activation_bias": contract.activation_bias,
        }
    )


def replay(
    layer: FloatSD8Lstm, sums: Sequence[Sums], cache_dir: Path
) -> tuple[dict[str, _Count], str]:
    """Return counts by kind of sums that went through RTL, and the first difference in words."""
    counts = {kind: _Count() for kind in KINDS}
    first = ""
    for bias in sorted({each.bias for each in sums}):
        unit = unit_of(bias, layer.products, layer.window)
        simulation = BulkSimulation(unit, cache_dir)
        for each in sums:
            if each.bias != bias:
                continue
            arrays = {
                "weights": each.weights,
                "activations": each.activations,
                "accumulator": each.start,
            }
            got = simulation.run(arrays, len(each.result))["result"]
            wrong = got != each.result
            count = counts[each.kind]
            count.sums += len(got)
            count.differences += int(wrong.sum())
            count.constants.add(bias)
            if wrong.any() and not first:
                index = int(np.argmax(wrong))
                lines = unit.contract.explain(arrays, index)
                first = "\n  ".join(
                    [
                        f"A sum of kind '{each.kind}' differs from golden:",
                        *lines,
                        f"expected {each.result[index]:04x}, got {got[index]:04x}",
                    ]
                )
    return counts, first


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--inputs", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--time", type=int, default=16, help="time steps of a sequence, default 16")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("build/bulk"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    if min(options.inputs, options.hidden, options.batch, options.time) < 1 or options.seed < 0:
        parser.error("Sizes must be at least 1, --seed at least 0.")
    problem = problem_of(
        inputs=options.inputs,
        hidden=options.hidden,
        batch=options.batch,
        steps=options.time,
        seed=options.seed,
    )
    try:
        return _run(problem, options.cache)
    except (BulkError, YosysError) as error:
        print(error, file=sys.stderr)
        return 2


def _run(problem: Problem, cache_dir: Path) -> int:
    layer = problem.layer
    sums: list[Sums] = []
    started = time.perf_counter()
    step = training_step(
        layer,
        problem.masters,
        problem.x,
        problem.gradient_of_hidden,
        problem.options,
        record=sums.append,
    )
    golden_seconds = time.perf_counter() - started

    backend = LayerBackend(cache_dir=cache_dir, asks_state=True)
    hidden = backend(layer, problem.x)
    wrong_hidden = int((hidden != step.hidden).sum())
    wrong_cells = int((backend.last_cells != step.cell[:, -1]).sum())

    started = time.perf_counter()
    counts, first = replay(layer, sums, cache_dir)
    rtl_seconds = time.perf_counter() - started

    table = Table(title=f"{layer.inputs} inputs, {layer.hidden} units, {layer.description}")
    for column in ("kind", "constants", "sums", "differences"):
        table.add_column(column, justify="left" if column in {"kind", "constants"} else "right")
    for kind, count in counts.items():
        constants = ", ".join(str(bias) for bias in sorted(count.constants))
        table.add_row(kind, constants, f"{count.sums:,}", f"{count.differences:,}")
    total = sum(count.sums for count in counts.values())
    wrong = sum(count.differences for count in counts.values())
    constants = {bias for count in counts.values() for bias in count.constants}
    table.add_section()
    table.add_row("all", f"{len(constants)} units", f"{total:,}", f"{wrong:,}")
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    console.print(
        f"Forward pass in {backend.cycles:,} cycles of the layer's RTL:"
        f" {wrong_hidden} of {hidden.size:,} hidden and {wrong_cells} of"
        f" {backend.last_cells.size:,} last cell codes differ from golden.",
        highlight=False,
    )
    console.print(_effect(problem, step), highlight=False)
    console.print(
        f"Golden {golden_seconds:.1f} s; sums in RTL {rtl_seconds:.1f} s, compiling included.",
        style="dim",
        highlight=False,
    )
    if first:
        print(first, file=sys.stderr)
    return 0 if wrong + wrong_hidden + wrong_cells == 0 else 1


def _effect(problem: Problem, step: TrainingStep) -> str:
    """Return in words what the step did to the loss and to the weights."""
    changed = [
        int((new != old).sum())
        for new, old in (
            (step.layer.input_weights, problem.layer.input_weights),
            (step.layer.recurrent_weights, problem.layer.recurrent_weights),
        )
    ]
    gradients = Minifloat(5, 2, problem.options.gradient_bias).decode(step.gradients.input_weights)
    before, after = problem.loss(step.hidden), problem.loss(step.layer.run(problem.x))
    size = problem.layer.input_weights.size + problem.layer.recurrent_weights.size
    return (
        f"Overflow: {step.overflow}. Loss {before:.4f} before, {after:.4f} after the step;"
        f" {sum(changed):,} of {size:,} weights have another code. Largest gradient of an input"
        f" weight {np.abs(gradients).max():g}, loss scale {problem.options.loss_scale:g}."
    )


if __name__ == "__main__":
    raise SystemExit(main())
