# amaranth: UnusedElaboratable=no
"""Sigmoid and tanh of the FloatSD8 LSTM as a circuit, on every code: against golden and mpmath."""

import mpmath
import numpy as np
import pytest

from fewbit.golden.activation.floatsd8 import (
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.formats import Minifloat
from fewbit.hdl.decision import staircase
from fewbit.hdl.designs import DESIGNS
from fewbit.sim.bulk import BulkSimulation

DESIGN = DESIGNS["floatsd8_activate"]
NUMBERS = np.arange(1 << 16)
REALS = Minifloat(5, 10, 15).decode(NUMBERS)


def results(circuit: BulkSimulation, is_tanh: int):
    arrays = {"number": NUMBERS, "is_tanh": np.full(1 << 16, is_tanh)}
    return circuit.run(arrays, 1 << 16)


@pytest.fixture(scope="module")
def circuit():
    return BulkSimulation(DESIGN.configure())


def test_every_code_equals_golden(circuit):
    got = results(circuit, 0)
    gate, complement = sigmoid_floatsd8(NUMBERS)
    np.testing.assert_array_equal(got["result"], gate)
    np.testing.assert_array_equal(got["complement"], complement)
    np.testing.assert_array_equal(results(circuit, 1)["result"], tanh_e5m2(NUMBERS))


@pytest.mark.parametrize("is_tanh", [0, 1])
def test_every_result_is_the_nearest_to_the_real_function(circuit, is_tanh):
    """Both functions are monotone in |x|: where the result changes is all there is to check."""
    codes = results(circuit, is_tanh)["result"]
    number_format = HIDDEN_FORMAT if is_tanh else GATE_FORMAT
    magnitudes = codes[: 1 << 15]
    sign = 0x80 if is_tanh else 0
    np.testing.assert_array_equal(codes[1 << 15 :], magnitudes | sign)
    values = [value for value in number_format.values.tolist() if value >= 0]
    positions = np.searchsorted(values, number_format.decode(magnitudes))
    changes = np.flatnonzero(np.diff(magnitudes)) + 1
    step = 1 if is_tanh else -1
    np.testing.assert_array_equal(positions[changes] - positions[changes - 1], step)
    with mpmath.workprec(120):
        for number in (0, *(changes - 1).tolist(), *changes.tolist(), (1 << 15) - 1):
            x = mpmath.mpf(REALS[number])
            real = mpmath.tanh(x) if is_tanh else 1 / (1 + mpmath.exp(x))
            position = int(positions[number])
            distance = abs(real - values[position])
            for neighbour in (position - 1, position + 1):
                if 0 <= neighbour < len(values):
                    assert distance < abs(real - values[neighbour]), f"{number:04x}"


def test_the_code_is_canonical(circuit):
    gate = results(circuit, 0)["result"]
    np.testing.assert_array_equal(gate, GATE_FORMAT.encode(GATE_FORMAT.decode(gate)))


def test_a_wrong_threshold_is_found(monkeypatch, tmp_path):
    def wrong(codes, starts):
        return staircase(codes, [*starts[:-9], starts[-9] + 1, *starts[-8:]])

    monkeypatch.setattr("fewbit.hdl.activation.floatsd8.staircase", wrong)
    circuit = BulkSimulation(DESIGN.configure(), cache_dir=tmp_path)
    for is_tanh, golden in ((0, sigmoid_floatsd8(NUMBERS)[0]), (1, tanh_e5m2(NUMBERS))):
        assert np.count_nonzero(results(circuit, is_tanh)["result"] != golden) == 2
