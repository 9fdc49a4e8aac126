"""Norms of float layers, against PyTorch's own weight norm and golden's batch normalisation."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from fewbit.golden.lstm.batch_norm import BatchNormLstm, run_with_cell
from fewbit.golden.network import run
from fewbit.train import Float, QuantLSTM
from fewbit.train.schemes.contract import by_gate, reals_of
from fewbit.train.schemes.norms import BatchNormedCell

INPUTS, HIDDEN, TIME, BATCH = 5, 6, 11, 4


def sequences(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(TIME, BATCH, INPUTS)


def made(scheme: Float, **shape) -> QuantLSTM:
    torch.manual_seed(0)
    return QuantLSTM(INPUTS, HIDDEN, **shape, scheme=scheme)


def test_weight_norm_of_floats_is_that_of_pytorch():
    shape = {"num_layers": 2, "bidirectional": True}
    layer = made(Float(norm="weight"), **shape)
    reference = nn.LSTM(INPUTS, HIDDEN, **shape)
    names = list(reference.state_dict())
    reference.load_state_dict({name: layer.get_parameter(name) for name in names})
    weights = [name for name in names if name.startswith("weight")]
    for name in weights:
        parametrizations.weight_norm(reference, name)
    for each in (layer, reference):
        each(sequences())[0].square().sum().backward()
    for name in weights:
        norm = reference.get_submodule(f"parametrizations.{name}")
        part, _, place = name.removeprefix("weight_").partition("_")
        gain = layer.cells.get_submodule(place).get_parameter(f"gain_{part}")
        for own, expected in (
            (layer.get_parameter(name).grad, norm.get_parameter("original1").grad),
            (gain.grad, norm.get_parameter("original0").grad),
        ):
            assert own is not None
            assert expected is not None
            torch.testing.assert_close(own.flatten(), expected.flatten(), rtol=1e-4, atol=1e-6)


def test_batch_norm_of_floats_folds_into_the_golden_layer():
    layer = made(Float(norm="batch"))
    optimiser = torch.optim.Adam(layer.parameters(), 0.02)
    for step in range(3):
        optimiser.zero_grad()
        layer(sequences(step))[0].sin().sum().backward()
        optimiser.step()
    layer.freeze([(sequences(9), None)])
    cell = layer.cells.get_submodule("l0")
    assert isinstance(cell, BatchNormedCell)
    bias = layer.get_parameter("bias_ih_l0") + layer.get_parameter("bias_hh_l0")
    weights = layer.get_parameter("weight_ih_l0"), layer.get_parameter("weight_hh_l0")
    arrays = (reals_of(by_gate(each)) for each in (*weights, bias))
    unfolded = BatchNormLstm(*arrays, **cell.batch_norms())
    x = sequences().transpose(0, 1)
    expected = run_with_cell(unfolded, reals_of(x))[0]
    np.testing.assert_allclose(run(layer.network(), reals_of(x)), expected, rtol=0, atol=1e-12)
    layer.eval()
    with torch.no_grad():
        own = layer(sequences())[0].transpose(0, 1)
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)


def test_statistics_of_each_step_have_no_golden_layer():
    layer = made(Float(norm="batch_per_step"))
    layer.freeze([(sequences(), None)])
    with pytest.raises(ValueError, match="one set of statistics; train with norm=batch"):
        layer.network()
