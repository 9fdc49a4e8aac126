"""A small model of each scheme, trained: PyTorch's exact pass, golden and the circuit agree."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import fewbit
from fewbit.golden.files.trained import load_trained
from fewbit.golden.network import run
from fewbit.sim.bulk import BulkSimulation
from fewbit.train import Binary, Exponential, FloatSD8, Int8, Plan, PowerOfTwo, Ternary, Training
from fewbit.train.exact import exact_network
from fewbit.train.tasks import TASKS

SHORT = replace(
    TASKS["temporal_order"].setups["short"], hidden=8, epochs=1, sequences=320, noise=0.1
)
SCHEMES = [
    FloatSD8(),
    Binary(),
    Ternary(scales="powers_of_two"),
    PowerOfTwo(),
    Exponential(),
    Int8(),
]


@pytest.mark.long
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_what_was_trained_runs_in_the_circuit(scheme, tmp_path, monkeypatch):
    # Few steps are run: an optimising compiler would take longer than it saves.
    monkeypatch.setattr("fewbit.sim.layer.BulkSimulation", partial(BulkSimulation, optimized=False))
    training = Training(Plan("temporal_order", scheme, SHORT), tmp_path)
    training.run()
    model = load_trained(training.model_file)
    reals = model.inputs_of(training.data.test.x[:6])
    x = model.network.nodes[0].lstm.reads.encode(reals)
    golden = run(model.network, x)
    circuit = fewbit.run(model.network, x, backend="rtl")
    wrong = np.argwhere(circuit != golden)
    assert not len(wrong), (wrong[0], circuit[tuple(wrong[0])], golden[tuple(wrong[0])])
    assert len(np.unique(golden)) > 20
    if scheme.system != "floatsd8":
        exact = exact_network(model.network)(torch.from_numpy(x.astype(np.int64)))
        assert np.array_equal(exact.numpy(), golden)
