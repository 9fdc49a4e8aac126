"""Compiled bulk simulation finds what it must, and nothing else."""

import json

import numpy as np
import pytest

from examples import bulk_check
from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.hdl.design import ParameterError
from fewbit.sim import bulk
from fewbit.sim.bulk import BulkError, BulkFailure, BulkSimulation, check_bulk, check_compiler
from fewbit.sim.verilog import verilog_of
from tests.support import row_sums


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bulk")


@pytest.fixture(scope="module")
def verilog():
    """One text for all faults, which are an input of the circuit, so that one build serves all."""
    return verilog_of(row_sums.design().configure())


def check(folder, verilog, fault="NONE", golden_error=0, count=4000):
    return check_bulk(
        row_sums.design(golden_error=golden_error).configure({"fault": fault}),
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
    simulation = BulkSimulation(row_sums.design().configure(), folder, verilog=verilog)
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
    simulation = BulkSimulation(row_sums.design().configure(), folder, verilog=verilog)
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
    simulation = BulkSimulation(row_sums.design().configure(), folder, verilog=verilog)
    arrays = row_sums.RowSums().stimulus(np.random.default_rng(1), 10)
    with pytest.raises(BulkFailure, match="20 of 20 beats had gone in, 10 of 11 results"):
        simulation.run(arrays, 11, patience=100)
    with pytest.raises(BulkFailure, match="a result came after the last expected one"):
        simulation.run(arrays, 9)
    with pytest.raises(ValueError, match="Operand 'left' is missing"):
        simulation.run({}, 1)


def test_wrong_use_is_refused(folder, verilog):
    with pytest.raises(ParameterError, match="row_sums has no parameter 'lanes'"):
        BulkSimulation(row_sums.design().configure({"lanes": 3}), folder)
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        check(folder, verilog, count=0)


def test_a_missing_compiler_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BulkError, match=r"^Bulk simulation needs .*'apt-get install g\+\+'\.$"):
        check_compiler()


@pytest.mark.long
@pytest.mark.parametrize("settles", [True, False])
def test_a_circuit_that_settles_at_once_and_one_that_does_not(monkeypatch, tmp_path, settles):
    """The same design twice: CXXRTL's plain text of it needs several evaluations a cycle."""
    if not settles:
        monkeypatch.setattr(bulk, "_SETTLES", "")
    design = bulk_check.find("floatsd8_mac")
    outcome = check_bulk(design.configure(), count=20_000, seed=2, chunk=5000, cache_dir=tmp_path)
    assert outcome.passed, outcome.counterexample


# The long campaign.


@pytest.fixture
def in_process(monkeypatch):
    """A campaign of short shares, in this process."""
    monkeypatch.setattr(bulk_check, "_SHARE", 1000)
    monkeypatch.setattr(
        bulk_check,
        "_outcomes",
        lambda name, shares, jobs: (bulk_check._share(name, share) for share in shares),
    )


def campaign(tmp_path, *arguments):
    path = tmp_path / "rows.json"
    status = bulk_check.main(["floatsd8_mac", "--count", "4500", "--json", str(path), *arguments])
    (row,) = json.loads(path.read_text())["rows"]
    return status, row


def test_a_campaign_counts_everything(in_process, tmp_path, capsys):
    status, row = campaign(tmp_path)
    assert status == 0
    assert (row["beats"], row["results"], row["mismatches"]) == (4500, 4500, 0)
    assert "4,500" in capsys.readouterr().out


def test_a_campaign_ends_at_a_wrong_golden_model(in_process, tmp_path, capsys, monkeypatch):
    honest = FloatSD8MacContract.compute
    contract = FloatSD8MacContract()

    def broken(self, arrays):
        results = honest(self, arrays)["result"]
        # One code in tens of thousands, which the third share is the first to meet.
        return {"result": results ^ ((results == rare) & (self.window == contract.window))}

    shares = [
        honest(contract, contract.stimulus(np.random.default_rng((1 << 20) + number), 1000))
        for number in range(3)
    ]
    first, second, third = (share["result"] for share in shares)
    rare = np.setdiff1d(third, np.concatenate([first, second]))[0]
    monkeypatch.setattr(FloatSD8MacContract, "compute", broken)
    monkeypatch.setattr(bulk_check, "check_bulk", lambda *_, **__: PASSED)
    status, row = campaign(tmp_path)
    assert status == 1
    assert row["results"] == 3000
    assert row["mismatches"] == (third == rare).sum()
    assert "differs from the golden model" in capsys.readouterr().err


PASSED = bulk.BulkOutcome("", 1, 1, 0, 1, 1, 0.0, 0.0, "")


def test_shares_have_seeds_of_their_own():
    shares = list(bulk_check._shares(2500, 1000, 1)) + list(bulk_check._shares(1, 1000, 2))
    assert [count for count, _ in shares] == [1000, 1000, 500, 1]
    assert len({seed for _, seed in shares}) == 4


@pytest.mark.parametrize("arguments", [["--count", "0"], ["--jobs", "0"], ["--seed", "-1"]])
def test_wrong_use_of_the_campaign_is_refused(arguments):
    with pytest.raises(SystemExit, match="2"):
        bulk_check.main(arguments)
