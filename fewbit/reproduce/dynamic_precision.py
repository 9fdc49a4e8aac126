"""Reproduction of arXiv 1911.04244: precision that is chosen at every time step.

The tasks are this project's examples, which an installed package does not contain. So the command
looks for them when it runs; where they are missing, a note in their rows says so.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fewbit.golden.lstm.contract import expect
from fewbit.golden.lstm.dynamic import run, run_signal
from fewbit.golden.lstm.int8 import Int8Lstm, PrecisionSignal
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.lstm.signals import random_choice
from fewbit.golden.network import Network, Node
from fewbit.golden.quantize.dynamic import calibrate
from fewbit.hdl.design import Value
from fewbit.hdl.designs import find
from fewbit.reproduce.claims import (
    Finding,
    Measurement,
    Options,
    Paper,
    Settings,
    command,
    with_goal,
)
from fewbit.sim.layer import LayerBackend
from fewbit.synthesis import synthesize

__all__ = ["BIT_AREA", "PAPER", "measure_area", "measure_task"]

BIT_AREA = 0.3
"""Area of a bit of memory in gate equivalents, which is an assumption."""
_LAYER = "int8_lstm_layer"
_SIZE: Settings = {"inputs": 48, "hidden": 128, "lanes": 16, "neurons": 4}
_NAMES: dict[PrecisionSignal, str] = {
    "cell_change": "by the change of the cell",
    "output_gate": "by the output gate (ours)",
}
_SHARE = 0.76
# With offsets or without, as the signal loses less there.
_TASKS: tuple[tuple[str, str, PrecisionSignal, bool], ...] = (
    ("speaker", "speakers", "cell_change", True),
    ("speaker", "speakers", "output_gate", True),
    ("order", "temporal order, 200 steps", "cell_change", False),
    ("order", "temporal order, 200 steps", "output_gate", True),
)
_CHECKED = "checked, of its abstract; on its own networks and accelerator"
# Of a neuron whose lanes set the pace in LOW steps, too, and not its update.
_LANES = 2
_SIMULATED = 20
"""Number of test sequences whose cycles are counted."""


def _figures(**settings: Value | str) -> Mapping[str, Any]:
    """Return the figures of a layer from its synthesis."""
    return synthesize(find(_LAYER).configure(settings))


def measure_area(
    signal: PrecisionSignal, figures: Callable[..., Mapping[str, Any]] = _figures
) -> list[Finding]:
    """Return the area of the layer with dynamic precision, compared with the one without.

    Parameters
    ----------
    signal
        The signal that chooses the precision.
    figures
        A function from the settings of a layer to its figures.
    """
    settings = [_SIZE | {"dynamic": 0}, _SIZE | {"dynamic": 1, "signal": signal}]
    how = "; ".join(command("synth", _LAYER, each) for each in settings)
    plain, dynamic = (figures(**each) for each in settings)

    def overhead(claim: str, paper: float | None, goal: float, figures: Sequence[float]) -> Finding:
        without, with_it = figures
        measured = 100 * (with_it / without - 1)
        named = {"without": without, "with": with_it}
        row = Finding(claim, paper, measured, "%", _CHECKED, how, named, less_is_better=True)
        return with_goal(row, goal)

    def both(name: str) -> list[float]:
        return [float(each[name]) for each in (plain, dynamic)]

    whole = [
        area + BIT_AREA * bits
        for area, bits in zip(both("area_ge"), both("memory_bits"), strict=True)
    ]
    return [
        overhead(f"more logic, GE, {_NAMES[signal]}", 8.8, 8.8, both("combinational_ge")),
        overhead(f"more logic and flip-flops, GE, {_NAMES[signal]}", 8.8, 8.8, both("area_ge")),
        overhead(f"more area with memories, {BIT_AREA} GE a bit, {_NAMES[signal]}", None, 5, whole),
    ]


@cache
def _task(name: str) -> Any:
    """Return the task of an example, or None where the examples are missing."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "examples" / "dynamic_precision.py").is_file():
        return None
    # The installed command doesn't look for modules where it is called.
    if str(root) not in sys.path:
        sys.path.append(str(root))
    return import_module("examples.dynamic_precision").TASKS[name]()


def measure_task(
    name: str, title: str, share: float, *, signal: PrecisionSignal, offsets: bool
) -> list[Finding]:
    """Return share of LOW, accuracy, cycles and reads of the circuit on a task's test sequences.

    Parameters
    ----------
    name
        Name of the task in `examples.dynamic_precision`.
    title
        The task in words.
    share
        Share of LOW time steps, to which threshold and hold are calibrated.
    signal
        The signal that is compared with the threshold.
    offsets
        Whether rows are corrected by offsets.

    Raises
    ------
    AssertionError
        If the circuit's codes or modes differ from those of the golden model.
    """
    how = f"python -m examples.dynamic_precision {name}{'' if offsets else ' --no-offsets'}"
    task = _task(name)
    if task is None:
        note = "in a checkout of the project only"
        return [Finding(f"share of LOW steps, {title}", 66, None, "%", _CHECKED, how, note=note)]
    network = Network((Node(task.lstm),))
    found = calibrate(network, task.x, task.lengths, share=share, signal=signal, offsets=offsets)
    lstm = expect(found.network.nodes[0].lstm, Int8Lstm, "The model must be int8.")
    low = run(lstm, task.test_x)
    whole = task.correct(run(task.lstm, task.test_x).hidden)
    correct = task.correct(low.hidden)
    share = low.low_share(task.test_lengths)
    at_random = random_choice(task.test_x, share, task.test_lengths)
    chance = task.correct(run_signal(lstm, task.test_x, at_random).hidden)
    note = f"threshold {lstm.precision_threshold}, hold {lstm.precision_hold}"
    chosen = Finding(f"share of LOW steps, {title}", 66, 100 * share, "%", _CHECKED, how, note=note)
    rows = [
        with_goal(chosen, 75),
        Finding(
            f"sequences lost of {len(task.test_x):,} at that share, {title}",
            0,
            whole - correct,
            "",
            _CHECKED,
            how,
            {"8 bits": whole, "chosen": correct, "at random, same share": chance},
            "a random choice of as many LOW steps is the control",
            less_is_better=True,
        ),
    ]
    return rows + _simulate(task, lstm, title)


def _simulate(task: Any, lstm: Int8Lstm, title: str) -> list[Finding]:
    """Return cycles and reads of the layer's circuit, and of the circuit without the choice."""
    x, lengths = task.test_x[:_SIMULATED], task.test_lengths[:_SIMULATED]
    golden = run(lstm, x)
    cycles: list[int] = []
    for model, wanted in ((task.lstm, task.lstm.run(x)), (lstm, golden.hidden)):
        backend = LayerBackend({"lanes": _LANES, "structure": "fpga"}, asks_state=True)
        backend(model, x[:0])
        loading = backend.cycles
        codes = backend(model, x, lengths)
        within = valid_steps(x, lengths)
        if (codes != wanted)[within].any():
            where = np.argwhere((codes != wanted) & within[..., np.newaxis])[0]
            raise AssertionError(
                f"{title}: the layer differs from golden first at sequence, step, unit {where}."
            )
        cycles.append(backend.cycles - 2 * loading)
        passes = backend.passes
    if passes != golden.passes(lengths):
        raise AssertionError(
            f"{title}: the layer counts {passes} HIGH and LOW passes, golden"
            f" {golden.passes(lengths)}."
        )
    high, low = passes
    sizes = f"{lstm.inputs} inputs, {lstm.hidden} units, {_LANES} lanes, 1 neuron"
    how = "fewbit reproduce dynamic_precision"
    note = f"simulated, the first {len(x)} test sequences, every code and pass as golden; {sizes}"
    speed = Finding(
        f"speed-up, {title}",
        1.56,
        cycles[0] / cycles[1],
        "×",
        _CHECKED,
        how,
        {"cycles without": cycles[0], "cycles with": cycles[1]},
        note,
    )
    reads = Finding(
        f"bits of weights not read, {title}",
        23,
        50 * low / (high + low),
        "%",
        f"{_CHECKED}; of energy, of which reads of weights are a part",
        how,
        {"HIGH passes": high, "LOW passes": low},
        "energy proxy: LOW reads half of each weight",
    )
    return [with_goal(speed, 1.6), with_goal(reads, 35)]


def _measurements(_: Options) -> Sequence[Measurement]:
    # The layer without is the same beside both.
    figures = cache(_figures)
    return [
        *(partial(measure_area, signal, figures) for signal in _NAMES),
        *(
            partial(
                measure_task,
                name,
                f"{title}, {_NAMES[signal]}",
                _SHARE,
                signal=signal,
                offsets=offsets,
            )
            for name, title, signal, offsets in _TASKS
        ),
    ]


PAPER = Paper(
    "dynamic_precision",
    "Boosting LSTM Performance Through Dynamic Precision Selection, arXiv 1911.04244",
    _measurements,
)
