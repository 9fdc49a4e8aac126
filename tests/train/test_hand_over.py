"""A small model of each scheme, trained: PyTorch's exact pass, golden and a circuit agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fewbit
from fewbit.golden.files.trained import load_trained
from fewbit.golden.network import run
from fewbit.train import Binary, Exponential, FloatSD8, Int8, Plan, PowerOfTwo, Ternary, Training
from fewbit.train.exact import exact_network
from fewbit.train.tasks import TASKS

SHORT = replace(
    TASKS["temporal_order"].setups["short"], hidden=8, epochs=1, sequences=320, noise=0.1
)
INTEGERS = [Binary(), Ternary(scales="powers_of_two"), PowerOfTwo(), Exponential(), Int8()]


def trained(scheme, folder):
    """The network and codes of its test sequences."""
    training = Training(Plan("temporal_order", scheme, SHORT), folder)
    training.run()
    model = load_trained(training.model_file)
    reals = model.inputs_of(training.data.test.x[:60])
    return model.network, model.network.nodes[0].lstm.reads.encode(reals)


@pytest.mark.parametrize("scheme", INTEGERS, ids=lambda scheme: scheme.name)
def test_the_exact_pass_is_golden_of_what_was_trained(scheme, tmp_path):
    network, x = trained(scheme, tmp_path)
    golden = run(network, x)
    exact = exact_network(network)(torch.from_numpy(x.astype(np.int64))).numpy()
    wrong = np.argwhere(exact != golden)
    assert not len(wrong), (wrong[0], exact[tuple(wrong[0])], golden[tuple(wrong[0])])
    assert len(np.unique(golden)) > 20


@pytest.mark.long
def test_the_circuit_is_golden_of_what_was_trained(tmp_path):
    # The circuits of the other schemes run what was trained in tests/test_trained_rtl.py.
    network, x = trained(FloatSD8(), tmp_path)
    assert np.array_equal(fewbit.run(network, x[:6], backend="rtl"), run(network, x[:6]))
