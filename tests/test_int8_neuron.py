# amaranth: UnusedElaboratable=no
"""The int8 LSTM neuron: contract against circuit, cycles, and what must be caught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewbit.golden.lstm.int8 import GATES, PARTS
from fewbit.golden.neuron.int8 import ROWS, Int8LstmNeuronContract
from fewbit.hdl.designs import find
from fewbit.hdl.neuron.int8 import Int8LstmNeuron as Circuit
from fewbit.sim.bulk import BulkSimulation, check_bulk
from fewbit.sim.verilog import verilog_of

CACHE = Path("build/bulk")
DESIGN = find("int8_lstm_neuron")


def test_contract_computes_a_unit_by_hand() -> None:
    # One row of two beats, the others of one; all multipliers are 1: 2^30 shifted left by one.
    contract = Int8LstmNeuronContract(lanes=2)
    beats = ROWS + 1
    arrays = {field.name: np.zeros(field.shape(beats), np.int64) for field in contract.operands}
    arrays["first"][:] = 1
    arrays["first"][1] = 0
    arrays["last"][:] = 1
    arrays["last"][0] = 0
    arrays["multiplier"][:] = 1 << 23
    arrays["shift"][:] = 1
    arrays["weights"][:2] = [[0x80, 1], [127, 0]]
    arrays["activations"][:2] = [[0x80, 5], [2, 3]]
    arrays["bias"][:2] = [-20000 & 0xFFFFFFFF, 77]
    # Gate i is 16384 + 5 + 254 - 20000 in Q3.12, f is 0 and half, g and o are saturated high.
    arrays["bias"][5:] = 1 << 20
    arrays["old_cell"][:] = 0x7FFF
    arrays["old_cell"][4] = 3000
    configuration = {
        "cell_integer_bits": np.array([0]),
        "cell_clip": np.array([0]),
        "hidden_multiplier": np.array([1 << 23]),
        "hidden_shift": np.array([22]),
        "hidden_zero_point": np.array([3]),
    }
    got = contract.compute(arrays | configuration)
    i = 1 / (1 + np.exp((20000 - 16384 - 5 - 254) / 4096))
    cell = 0.5 * 3000 + i * 32768
    assert abs(int(got["cell_result"][0]) - cell) < 12
    hidden = np.tanh(cell / 32768) * 2**30 / 2**23 + 3
    assert abs(int(got["result"][0]) - hidden) < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell_integer_bits": 7}, "cell_integer_bits must be from 0 to 6, not 7."),
        ({"shift": 0x20}, "shift must be from -31 to 30 where it counts, not -32 to -32."),
    ],
)
def test_contract_refuses_what_has_no_meaning(changes: dict[str, int], message: str) -> None:
    contract = Int8LstmNeuronContract(lanes=1)
    arrays = contract.stimulus(np.random.default_rng(1), 1)
    for name, code in changes.items():
        arrays[name][:] = code
    with pytest.raises(ValueError, match=message):
        contract.compute(arrays)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lanes": 0}, "lanes must be a whole number from 1 to 64, not 0."),
        ({"activation": "relu"}, 'activation must be "table" or "gemmlowp", not \'relu\'.'),
        ({"chunk": 5}, "chunk must be 4, 8 or 16, not 5."),
    ],
)
def test_circuit_refuses_parameters(parameters: dict[str, int | str], message: str) -> None:
    build = {name: value for name, value in parameters.items() if name == "chunk"}
    own = {name: value for name, value in parameters.items() if name not in build}
    with pytest.raises(ValueError, match=message):
        Circuit(Int8LstmNeuronContract(**own), **build)  # pyright: ignore[reportArgumentType]


def test_stimulus_spans_the_results() -> None:
    contract = Int8LstmNeuronContract(lanes=2)
    rng = np.random.default_rng(3)
    hidden, cell = [], []
    for _ in range(20):
        got = contract.compute(contract.stimulus(rng, 200))
        hidden.append(got["result"])
        cell.append(got["cell_result"])
    assert len(np.unique(np.concatenate(hidden))) > 240
    assert len(np.unique(np.concatenate(cell))) > 1000


@pytest.mark.long
@pytest.mark.parametrize(("lanes", "activation"), [(1, "table"), (2, "gemmlowp"), (3, "gemmlowp")])
def test_circuit_agrees_with_golden(lanes: int, activation: str) -> None:
    outcome = check_bulk(
        DESIGN.configure({"lanes": lanes, "activation": activation}),
        count=3000,
        seed=7,
        chunk=100,
        cache_dir=CACHE,
    )
    assert outcome.passed, outcome.counterexample
    assert outcome.vectors == 3000


def full_rate(lanes: int, beats: tuple[int, int], units: int) -> tuple[float, bool]:
    """Cycles a unit without stalls, and whether the results are right."""
    simulation = BulkSimulation(DESIGN.configure({"lanes": lanes}), CACHE)
    contract = simulation.contract
    rng = np.random.default_rng(5)
    ends = np.cumsum(np.tile(beats, len(GATES) * units)) - 1
    total = int(ends[-1]) + 1
    arrays = {
        field.name: rng.integers(0, 1 << field.format.width, field.shape(total))
        for field in contract.operands
    }
    arrays["last"] = np.isin(np.arange(total), ends).astype(np.int64)
    arrays["first"] = np.roll(arrays["last"], 1)
    arrays["shift"] = np.full(total, -3 & 0x3F)
    arrays["bias"] >>= 15
    arrays |= {
        "cell_integer_bits": np.array([3]),
        "cell_clip": np.array([20480]),
        "hidden_multiplier": np.array([12345678]),
        "hidden_shift": np.array([22]),
        "hidden_zero_point": np.array([5]),
    }
    silence = 64
    expected = contract.compute(arrays)
    got = simulation.run(arrays, units, silence=silence)
    agrees = all((got[name] == expected[name]).all() for name in expected)
    return (simulation.cycles - silence) / units, agrees


@pytest.mark.parametrize(
    ("beats", "cycles"),
    [
        # Beats a part: of 48 inputs and 128 cells in one lane; so few that the lanes wait.
        ((48, 128), 704),
        ((1, 1), 108),
    ],
)
def test_cycles_of_a_unit(beats: tuple[int, int], cycles: int) -> None:
    assert len(PARTS) == len(beats)
    taken, agrees = full_rate(1, beats, units=50)
    assert agrees
    assert abs(taken - cycles) < 3


@pytest.mark.long
def test_a_broken_circuit_is_found() -> None:
    text = verilog_of(DESIGN.configure({"lanes": 1}))
    # The rounding shift forgets ties: only one of the bits below the rounding bit is looked at.
    name = "shifted_is_tie"
    start = text.index(f"assign {name} =")
    end = text.index(";", start)
    broken = text[:start] + f"assign {name} = 1'h0" + text[end:]
    outcome = check_bulk(
        DESIGN.configure({"lanes": 1}),
        count=3000,
        seed=7,
        chunk=100,
        cache_dir=CACHE,
        verilog=broken,
    )
    assert not outcome.passed
    assert "differs from the golden model" in outcome.counterexample
