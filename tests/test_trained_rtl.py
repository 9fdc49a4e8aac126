"""A small model of each scheme, trained by fewbit train: golden and the circuit agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.golden.files.trained import load_trained
from fewbit.golden.network import run
from fewbit.train.tasks import TASKS

FOLDER = Path(__file__).parent / "trained"
SETUP = replace(TASKS["temporal_order"].setups["short"], noise=0.1)


@pytest.mark.long
@pytest.mark.parametrize("name", ["floatsd8", "binary", "ternary", "pow2", "exponential", "int8"])
def test_what_was_trained_runs_in_the_circuit(name):
    model = load_trained(FOLDER / f"{name}.npz")
    data = TASKS["temporal_order"].load(None, SETUP)
    x = model.network.nodes[0].lstm.reads.encode(model.inputs_of(data.test.x[:20]))
    golden = run(model.network, x)
    circuit = fewbit.run(model.network, x, backend="rtl")
    wrong = np.argwhere(circuit != golden)
    assert not len(wrong), (wrong[0], circuit[tuple(wrong[0])], golden[tuple(wrong[0])])
    assert len(np.unique(golden)) > 20


def test_they_have_learnt_something():
    for path in FOLDER.glob("*.npz"):
        result = fewbit.evaluate(path, "temporal_order", setup="short")
        # One in eight is chance.
        assert result.figure > 0.6, (path, result.figure)
