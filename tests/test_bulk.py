"""Compiled bulk simulation finds what it must, and nothing else."""

import numpy as np
import pytest
import row_sums

from hdl.design import ParameterError
from sim.bulk import BulkError, BulkFailure, BulkSimulation, check_bulk, check_compiler
from sim.verilog import verilog_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bulk")


@pytest.fixture(scope="module")
def verilog():
    """One text for all faults, which are an input of the circuit, so that one build serves all."""
    return verilog_of(row_sums.design())


def check(folder, verilog, fault="NONE", golden_error=0, count=4000):
    return check_bulk(
        row_sums.design(golden_error=golden_error),
        {"fault": fault},
        count=count,
        seed=3,
        chunk=1000,
        cache_dir=folder,
        verilog=verilog,
    )


def test_a_right_circuit_passes(folder, verilog):
    outcome = check(folder, verilog, count=200_000)
    assert outcome.passed
    assert (outcome.vectors, outcome.beats, outcome.mismatches) == (200_000, 400_000, 0)
    # Half the chunks stall, the others take a beat a cycle.
    assert 450_000 < outcome.cycles < 1_200_000
    assert len(list(folder.glob("*.so"))) == 1


def test_a_wrong_circuit_is_caught_with_its_counterexample(folder, verilog):
    outcome = check(folder, verilog, "WRONG")
    assert not outcome.passed
    assert 0 < outcome.mismatches < outcome.vectors == 4000
    assert "differs from the golden model" in outcome.counterexample
    expected, got = (
        int(line.split("int24: ")[1].rstrip(")"))
        for line in outcome.counterexample.splitlines()
        if "result = " in line
    )
    assert got > expected
    assert "offset = " in outcome.counterexample


def test_a_wrong_golden_model_is_caught(folder, verilog):
    outcome = check(folder, verilog, golden_error=1)
    assert not outcome.passed
    assert 0 < outcome.mismatches < 400


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("CHANGES", "the payload changed while o_valid waited for o_ready"),
        ("WITHDRAWS", "o_valid fell while it waited for o_ready"),
        ("DROPS", "differs from the golden model"),
        ("DUPLICATES", "differs from the golden model"),
        ("CHATTERS", "a result came after the last expected one"),
        ("HANGS", "nothing moved for 20000 cycles"),
    ],
)
def test_a_broken_handshake_is_caught(folder, verilog, fault, text):
    outcome = check(folder, verilog, fault)
    assert not outcome.passed
    assert outcome.mismatches
    assert text in outcome.counterexample


@pytest.mark.parametrize("stall_seed", [None, 0, 7])
def test_arrays_in_arrays_out(folder, verilog, stall_seed):
    simulation = BulkSimulation(row_sums.design(), {}, folder, verilog=verilog)
    arrays = {
        "left": np.array([[1, 2], [3, 0x80], [0xFF, 0]]),
        "right": np.array([[10, 20], [30, 0x80], [1, 0]]),
        "last": np.array([0, 1, 1]),
        "offset": np.array([5]),
        "fault": np.array([0]),
    }
    results = simulation.run(arrays, 2, stall_seed=stall_seed)
    np.testing.assert_array_equal(results["result"], [10 + 40 + 90 + 16384 + 5, 4])
    np.testing.assert_array_equal(results["sign"], [0, 0])
    assert simulation.cycles == 4 or stall_seed is not None


def test_the_state_stays_unless_reset(folder, verilog):
    simulation = BulkSimulation(row_sums.design(), {}, folder, verilog=verilog)
    half = {
        "left": np.array([[1, 2]]),
        "right": np.array([[1, 1]]),
        "last": np.array([0]),
        "offset": np.array([0]),
        "fault": np.array([0]),
    }
    other = {**half, "last": np.array([1])}
    simulation.run(half, 0)
    assert simulation.run(other, 1, reset=False)["result"] == 6
    simulation.run(half, 0)
    assert simulation.run(other, 1)["result"] == 3


def test_missing_results_are_refused(folder, verilog):
    simulation = BulkSimulation(row_sums.design(), {}, folder, verilog=verilog)
    arrays = row_sums.RowSums().stimulus(np.random.default_rng(1), 10)
    with pytest.raises(BulkFailure, match="20 of 20 beats had gone in, 10 of 11 results"):
        simulation.run(arrays, 11, patience=100)
    with pytest.raises(BulkFailure, match="a result came after the last expected one"):
        simulation.run(arrays, 9)
    with pytest.raises(ValueError, match="Operand 'left' is missing"):
        simulation.run({}, 1)


def test_wrong_use_is_refused(folder, verilog):
    with pytest.raises(ParameterError, match="row_sums has no parameter 'lanes'"):
        BulkSimulation(row_sums.design(), {"lanes": 3}, folder)
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        check(folder, verilog, count=0)


def test_a_missing_compiler_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BulkError, match=r"^Bulk simulation needs .*'apt-get install g\+\+'\.$"):
        check_compiler()
