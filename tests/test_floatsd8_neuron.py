# amaranth: UnusedElaboratable=no
"""The FloatSD8 LSTM neuron: contract against circuit, cycles, and what must be caught."""

from __future__ import annotations

import shutil
from functools import cache

import numpy as np
import pytest

from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.golden.activation.floatsd8 import HIDDEN_FORMAT
from fewbit.golden.lstm.floatsd8 import GATES, LOWEST_CONSTANT_BIAS, FloatSD8Lstm, update_unit
from fewbit.golden.neuron.floatsd8 import PAIRS, FloatSD8LstmNeuronContract
from fewbit.hdl.designs import find
from fewbit.hdl.neuron.floatsd8 import FloatSD8LstmNeuron as Circuit
from fewbit.sim.bulk import BulkSimulation, check_bulk, compare
from fewbit.sim.runner import simulate
from fewbit.sim.verilog import verilog_of
from tests.support.floatsd8_cases import random_inputs, random_lstm

DESIGN = find("floatsd8_lstm_neuron")
UPDATE_BEATS = 3


def beats_of_step(model: FloatSD8Lstm, x, hidden, cell) -> dict[str, np.ndarray]:
    """The beats of all units of a time step, written from the words of the contract."""
    beats: dict[str, list] = {
        name: []
        for name in ("weights", "activations", "first", "last", "recurrent", "start", "old_cell")
    }
    for unit in range(model.hidden):
        for pair in PAIRS:
            gates = [GATES.index(gate) for gate in pair]
            words = [
                (weights[:, unit, k : k + model.products], vector[k : k + model.products], part)
                for part, (weights, vector) in enumerate(
                    ((model.input_weights, x), (model.recurrent_weights, hidden))
                )
                for k in range(0, len(vector), model.products)
            ]
            for number, (weights, vector, part) in enumerate(words):
                padding = (0, model.products - len(vector))
                for gate in gates:
                    beats["weights"].append(np.pad(weights[gate], padding))
                    beats["activations"].append(np.pad(vector, padding))
                    beats["first"].append(number == 0)
                    beats["last"].append(number == len(words) - 1)
                    beats["recurrent"].append(part)
                    beats["start"].append(model.bias[gate, unit])
                    beats["old_cell"].append(cell[unit])
    return {name: np.array(values, np.int64) for name, values in beats.items()} | {
        "input_offset": np.array([model.input_weight_bias + model.input_bias - 19]),
        "recurrent_offset": np.array([model.recurrent_weight_bias + 15 - 19]),
    }


def test_contract_computes_a_step_of_the_lstm():
    model = random_lstm(1, inputs=6, hidden=5, products=4)
    rng = np.random.default_rng(2)
    hidden, cell = rng.integers(0, 0x3C, 5), rng.integers(0, 0x4400, 5)
    contract = FloatSD8LstmNeuronContract(lanes=4)
    for x in random_inputs(model, 3, 1, 4)[0]:
        got = contract.compute(beats_of_step(model, x, hidden, cell))
        new = model.step(x[np.newaxis], hidden[np.newaxis], cell[np.newaxis])
        hidden, cell = new[0][0], new[1][0]
        np.testing.assert_array_equal(got["result"], hidden)
        np.testing.assert_array_equal(got["cell_result"], cell)


@pytest.mark.parametrize("window", [14, None])
def test_the_sums_are_those_of_the_mac(window):
    """Beat by beat, through the contract of another circuit."""
    contract = FloatSD8LstmNeuronContract(lanes=5, window=window)
    arrays = contract.stimulus(np.random.default_rng(4), 12)
    biases = {
        part: int(arrays[f"{part}_offset"][0]) + LOWEST_CONSTANT_BIAS - HIDDEN_FORMAT.bias
        for part in ("input", "recurrent")
    }
    sums: list[int] = []
    found: list[list[int]] = []
    for beat in range(len(arrays["first"])):
        part = ("input", "recurrent")[arrays["recurrent"][beat]]
        mac = FloatSD8MacContract(5, window, HIDDEN_FORMAT.bias, biases[part])
        start = arrays["start"][beat] if arrays["first"][beat] else sums[-2]
        one = {name: arrays[name][beat : beat + 1] for name in ("weights", "activations")}
        sums.append(int(mac.compute(one | {"accumulator": np.array([start])})["result"][0]))
        if arrays["last"][beat]:
            found.append([sums[-1], int(arrays["old_cell"][beat])])
    ends = np.array(found).reshape(-1, len(GATES), 2)
    hidden, cell = update_unit(ends[..., 0], ends[:, -1, 1], window)
    got = contract.compute(arrays)
    np.testing.assert_array_equal(got["result"], hidden)
    np.testing.assert_array_equal(got["cell_result"], cell)


def test_contract_refuses_what_is_no_pair():
    contract = FloatSD8LstmNeuronContract()
    arrays = contract.stimulus(np.random.default_rng(1), 2)
    for name in ("first", "last"):
        wrong = arrays | {name: np.roll(arrays[name], 1)}
        with pytest.raises(ValueError, match="the first two with 'first', the"):
            contract.compute(wrong)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lanes": 3}, "lanes must be a whole number from 4 to 16, not 3."),
        ({"lanes": 17}, "lanes must be a whole number from 4 to 16, not 17."),
        ({"window": 7}, "window must be a whole number from 8 to 48, not 7."),
    ],
)
def test_circuit_refuses_parameters(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Circuit(FloatSD8LstmNeuronContract(**parameters))


def test_stimulus_spans_the_results():
    contract = FloatSD8LstmNeuronContract()
    rng = np.random.default_rng(3)
    got = [contract.compute(contract.stimulus(rng, 300)) for _ in range(20)]
    hidden = np.concatenate([each["result"] for each in got])
    cell = np.concatenate([each["cell_result"] for each in got])
    # All hidden codes up to 1 but a few of the subnormal ones, and no code takes most.
    assert len(np.unique(hidden)) > 100
    assert np.bincount(hidden).max() < 0.25 * len(hidden)
    assert len(np.unique(cell)) > 3000


def test_explain_shows_a_unit():
    contract = FloatSD8LstmNeuronContract()
    arrays = contract.stimulus(np.random.default_rng(3), 3)
    lines = contract.explain(arrays, 1)
    assert [line for line in lines if line.startswith("gate")][:2] == ["gate i:", "gate f:"]
    assert sum(line.startswith("  start") for line in lines) == 4
    assert sum(line.startswith("  old_cell") for line in lines) == 1


@pytest.mark.long
@pytest.mark.parametrize("parameters", [{}, {"window": None}])
def test_circuit_agrees_with_golden(parameters):
    outcome = compare(circuit_of(**parameters), count=6000, chunk=200, seed=7)
    assert outcome.passed, outcome.counterexample
    assert outcome.vectors == 6000


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus is not installed")
def test_circuit_agrees_in_the_bench(tmp_path):
    # Icarus knows X, which registers without a reset start with.
    outcome = simulate(DESIGN.configure(), tmp_path, simulator="icarus", count=40)
    assert outcome.passed, outcome.failures


@cache
def circuit_of(**parameters):
    return BulkSimulation(DESIGN.configure(parameters))


def cycles_of(units: int, beats: int, stall_seed=None) -> int:
    """Cycles of units of so many beats a gate; the results are checked."""
    simulation = circuit_of()
    contract = simulation.contract
    total = units * len(GATES) * beats
    rng = np.random.default_rng(5)
    arrays = {
        field.name: rng.integers(0, 1 << field.format.width, field.shape(total))
        for field in contract.operands
    }
    within = np.arange(total) // 2 % beats
    arrays |= {"first": (within == 0).astype(int), "last": (within == beats - 1).astype(int)}
    arrays |= {"input_offset": np.array([9]), "recurrent_offset": np.array([20])}
    got = simulation.run(arrays, units, stall_seed=stall_seed)
    expected = contract.compute(arrays)
    for name, codes in expected.items():
        np.testing.assert_array_equal(got[name], codes)
    return simulation.cycles


@pytest.mark.parametrize("beats", [1, 2, 11])
def test_cycles_of_a_unit(beats):
    few, many = cycles_of(10, beats), cycles_of(30, beats)
    assert (many - few) / 20 == len(GATES) * beats + UPDATE_BEATS
    # After the last beat of all three more, each with the two cycles of its sum.
    assert cycles_of(1, beats) - len(GATES) * beats == 3 * UPDATE_BEATS + 1


@pytest.mark.parametrize("beats", [1, 2, 3])
def test_pauses_change_nothing(beats):
    for seed in range(20):
        cycles_of(40, beats, stall_seed=seed)


BROKEN = {
    # What lane 1 adds where a gate value is one less q.
    "doubles": ("assign doubles =", "1'h0"),
    # The pipeline goes on while the sink doesn't take a result.
    "blocked": ("assign blocked =", "1'h0"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_circuit_is_found(name):
    text = verilog_of(DESIGN.configure())
    target, value = BROKEN[name]
    start = text.index(target)
    broken = f"{text[:start]}{target} {value}{text[text.index(';', start) :]}"
    outcome = check_bulk(DESIGN.configure(), count=2000, chunk=200, seed=7, verilog=broken)
    assert not outcome.passed
