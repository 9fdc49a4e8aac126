"""Trained models through their generated layers: every hidden code against golden's.

The network runs test sequences of its task in the compiled Verilog of each of its layers, fed by
the layer before, and in golden.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fewbit.evaluation import open_trained, plan
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.network import golden_backend, trace
from fewbit.sequences import as_input
from fewbit.sim.layer import LayerBackend
from fewbit.train.tasks import TASKS

__all__ = ["circuit_row"]

Row = dict[str, Any]


def circuit_row(
    model: Path,
    task: str,
    data: Path | None,
    sequences: int,
    done: Callable[[], None] = lambda: None,
) -> Row:
    """Return how many codes of a trained model's layers agree with golden's.

    Parameters
    ----------
    model
        The file of a quantised trained model.
    task, data
        The task and the path of its data.
    sequences
        The number of test sequences, evenly spaced.
    done
        A function that is called after every layer.

    Returns
    -------
    The number system; "codes", the number of hidden codes of all layers, steps and sequences;
    "differing", how many differ; "first", the first that differs as layer, sequence, step, unit,
    the circuit's code and golden's, or None; "steps" and "cycles" of the circuits.
    """
    trained = open_trained(model)
    chosen = plan(
        trained, TASKS[task], data, name=f"'{model}'", sequences=sequences, kind="rtl"
    ).chosen
    network = trained.network
    x = as_input(network, trained.inputs_of(chosen.x), real=True)
    backend = LayerBackend()
    golden = trace(network, x, golden_backend)
    circuit = trace(network, x, backend, done)
    within = valid_steps(x, chosen.lengths)
    codes = differing = 0
    first: list[int] | None = None
    for layer, (found, expected) in enumerate(zip(circuit, golden, strict=True)):
        wrong = (found != expected) & within[..., np.newaxis]
        codes += int(within.sum()) * expected.shape[2]
        differing += int(wrong.sum())
        if first is None and wrong.any():
            place = tuple(np.argwhere(wrong)[0].tolist())
            first = [layer, *place, int(found[place]), int(expected[place])]
    return {
        "system": network.nodes[0].lstm.title,
        "sequences": len(chosen),
        "codes": codes,
        "differing": differing,
        "first": first,
        "steps": backend.steps,
        "cycles": backend.cycles,
    }
