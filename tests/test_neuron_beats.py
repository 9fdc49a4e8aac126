# amaranth: UnusedElaboratable=no
"""The layer's time step as neuron beats: same bytes as the golden layer, on golden and on RTL."""

from dataclasses import replace

import numpy as np
import pytest

from fewbit.golden.formats import INT8, INT16
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.neuron.int8 import Int8LstmNeuronContract
from fewbit.hdl.designs import DESIGNS
from fewbit.hdl.neuron.int8 import Int8LstmNeuron as Circuit
from fewbit.sim.bulk import BulkSimulation, check_bulk
from tests.support.neuron_beats import (
    beats_of_unit,
    neuron_configuration,
    run_on_circuit,
    step_beats,
)


def random_model(rng, inputs, hidden, **changes) -> Int8Lstm:
    def weights(width):
        return rng.integers(-127, 128, (4, hidden, width)).astype(np.int8)

    fields = {
        "input_weights": weights(inputs),
        "recurrent_weights": weights(hidden),
        "bias": rng.integers(-20_000, 20_000, (4, hidden)).astype(np.int32),
        "input_weight_scales": rng.uniform(0.002, 0.02, 4).astype(np.float32),
        "recurrent_weight_scales": rng.uniform(0.002, 0.01, 4).astype(np.float32),
        "input_scale": 0.02,
        "input_zero_point": int(rng.integers(-40, 40)),
        "hidden_scale": 1 / 128,
        "hidden_zero_point": 3,
        "intermediate_scale": 1 / 128,
        "intermediate_zero_point": 3,
        "cell_exponent": int(rng.integers(-15, -8)),
        "cell_clip": int(rng.choice([0, 9_000])),
    }
    return Int8Lstm(**(fields | changes))


@pytest.mark.parametrize(("inputs", "hidden", "lanes"), [(1, 1, 1), (5, 7, 4), (12, 32, 16)])
@pytest.mark.parametrize("activation", ["table", "gemmlowp"])
def test_beats_through_the_golden_neuron_equal_the_golden_layer(inputs, hidden, lanes, activation):
    rng = np.random.default_rng(inputs)
    model = random_model(rng, inputs, hidden, activation=activation)
    state = model.reset_state(3)
    for _ in range(4):
        x = rng.integers(-128, 128, (3, inputs))
        beats = step_beats(model, x, *state, lanes)
        assert len(beats["first"]) == 3 * hidden * beats_of_unit(model, lanes)
        neuron = Int8LstmNeuronContract(lanes, activation)
        results = neuron.compute(beats | neuron_configuration(model))
        state = model.step(x, *state)
        np.testing.assert_array_equal(INT8.raw(results["result"]), state[0].ravel())
        np.testing.assert_array_equal(INT16.raw(results["cell_result"]), state[1].ravel())


@pytest.mark.long
@pytest.mark.parametrize("activation", ["table", "gemmlowp"])
def test_layer_on_the_neuron_circuit_equals_golden(activation):
    rng = np.random.default_rng(8)
    for _ in range(3):
        model = random_model(rng, 5, 7, activation=activation)
        x = rng.integers(-128, 128, (2, 6, 5))
        got = run_on_circuit(model, x, lanes=4, stall_seed=5)
        np.testing.assert_array_equal(got, model.run(x))


def test_models_that_the_neuron_cannot_run_are_refused():
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="quantise the model with rounding 'double'"):
        neuron_configuration(random_model(rng, 2, 3, rounding="single"))


def test_inputs_of_a_wrong_shape_or_kind_are_refused():
    model = random_model(np.random.default_rng(1), 4, 3)
    hidden, cell = model.reset_state(2)
    x = np.zeros((2, 4), dtype=np.int64)
    with pytest.raises(ValueError, match=r"x must have the shape \(any, 4\), not \(2, 3\)"):
        step_beats(model, x[:, :3], hidden, cell, 2)
    with pytest.raises(ValueError, match="x must be integers, not float64"):
        step_beats(model, x + 0.6, hidden, cell, 2)
    with pytest.raises(ValueError, match="cell must have the shape"):
        step_beats(model, x, hidden, cell[:1, :1], 2)
    assert len(step_beats(model, x[:0], hidden[:0], cell[:0], 2)["first"]) == 0


def test_streams_without_whole_rows_are_refused():
    contract = Int8LstmNeuronContract(2)
    arrays = contract.stimulus(np.random.default_rng(3), 3)
    broken = arrays["first"].copy()
    broken[0] = 0
    with pytest.raises(ValueError, match="but beat 0 does not fit"):
        contract.compute({**arrays, "first": broken})
    with pytest.raises(ValueError, match="lanes must be a whole number from 1 to 64, not 2.5."):
        Int8LstmNeuronContract(2.5)


def test_explanations_show_the_beats_of_the_unit():
    contract = Int8LstmNeuronContract(2)
    arrays = contract.stimulus(np.random.default_rng(3), 6)
    lines = contract.explain(arrays, 4)
    start = int(np.flatnonzero(arrays["last"])[31]) + 1
    weights = " ".join(f"{code:02x}" for code in arrays["weights"][start])
    assert f"  weights = {weights} " in lines[6]
    assert [line for line in lines if line.startswith("row")] == [
        f"row {gate} {part}:" for gate in "ifgo" for part in ("input", "recurrent")
    ]
    assert sum("old_cell" in line for line in lines) == 1


@pytest.mark.long
@pytest.mark.parametrize("chunk", [8, 16])
def test_faster_multipliers_give_the_same_results(chunk):
    def component(contract):
        return Circuit(contract, chunk)

    design = replace(DESIGNS["int8_lstm_neuron"], component=component)
    outcome = check_bulk(design.configure({"lanes": 1}), count=10_000, seed=chunk)
    assert outcome.passed, outcome.counterexample


def test_data_sheet_tells_the_cycles_of_the_circuit():
    design = DESIGNS["int8_lstm_neuron"]
    settings = {"lanes": 4, "activation": "table"}
    configured = design.configure(settings)
    timing = configured.timing
    circuit = BulkSimulation(configured)
    rng = np.random.default_rng(2)

    def cycles(units: int, beats_of_row: int) -> int:
        """Cycles of units whose shifts all go right, as a left shift takes longer."""
        arrays = circuit.contract.stimulus(rng, units)
        beats = units * 8 * beats_of_row
        place = np.arange(beats) % beats_of_row
        stream = {
            field.name: np.resize(arrays[field.name], field.shape(beats))
            for field in circuit.contract.operands
        }
        stream["first"] = (place == 0).astype(np.int64)
        stream["last"] = (place == beats_of_row - 1).astype(np.int64)
        stream["shift"] = np.full(beats, -10 & 0x3F)
        fixed = {field.name: arrays[field.name] for field in circuit.contract.configuration}
        circuit.run(stream | fixed, units, silence=0)
        return circuit.cycles

    # Rows long enough that the update waits for the lanes: the rest is the latency.
    assert str(cycles(1, 100) - 800) == timing.latency
    assert str(cycles(2, 100) - 1600) == timing.latency
    # Rows of one beat: the update sets the pace.
    interval = int(timing.interval.split()[-1])
    assert cycles(40, 1) - cycles(20, 1) == 20 * interval
