"""``fewbit reproduce ternary``: rows out of figures that are known, and small circuits' own."""

import shlex
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from fewbit import synthesis
from fewbit.activity import ActivityError
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.hdl.designs import find
from fewbit.hdl.layer.integer_cycles import step_cycles
from fewbit.reproduce import few_bit_layers, papers, ternary
from fewbit.reproduce.claims import Options
from fewbit.reproduce.few_bit_layers import compare_layers, compare_memory
from fewbit.reproduce.ternary import compare_units

AREAS = {
    "int12_mac": {"gates": 12_000.0, "plain": 26_000.0},
    "ternary_accumulate": {"gates": 2_000.0},
    "binary_accumulate": {"gates": 1_000.0},
}


class Synthesis:
    """Known areas in place of Yosys's, and what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, dict[str, object]]] = []

    def __call__(self, design, target="gates", *, liberty=None):
        resolved = design.parameters
        self.asked.append((design.name, target, str(liberty), resolved))
        if design.name == "ternary_lstm_layer":
            if resolved["structure"] == "plain":
                return {"area_ge": 78_000}
            return {"area_ge": {"int12": 50_000, "ternary": 10_000}.get(resolved["weights"], 8_000)}
        if target in ("ice40", "ecp5"):
            assert resolved["structure"] == "fpga"
            return {"luts": {"int12_mac": 900}.get(design.name, 300), "carries": 7}
        area = AREAS[design.name][str(resolved["structure"])] * int(resolved["lanes"]) / 16
        return {"area_ge": area, "area": 5 * area}

    def cells(self, design):
        return SimpleNamespace(figures=self(design))


@pytest.fixture
def known(monkeypatch) -> Synthesis:
    synthesis = Synthesis()
    monkeypatch.setattr(ternary, "synthesize", synthesis)
    monkeypatch.setattr(ternary, "map_to_cells", synthesis.cells)
    monkeypatch.setattr(few_bit_layers, "synthesize", synthesis)
    return synthesis


def settings_in(how: str) -> list[tuple[str, str, str, dict[str, object]]]:
    """What the commands of a row measure."""
    found = []
    for text in how.split(";"):
        words = shlex.split(text)
        assert words[:2] == ["fewbit", "synth"]
        options = dict(pairwise(words))
        chosen = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        settings = dict(each.split("=") for each in chosen)
        for name in words[2:]:
            if name.startswith("--"):
                break
            given = options.get("--target", "gates"), str(options.get("--liberty"))
            found.append((name, *given, find(name).configure(settings).parameters))
    return found


def test_units_against_booth_and_against_plain_operators(known):
    steps = compare_units((16, 1))
    # Two sizes, how many, two FPGAs, two delays.
    assert len(steps) == 7
    large = steps[0]()
    assert [(row.measured, row.holds) for row in large] == [
        (6, False),
        (12, True),
        (13, True),
        (26, True),
    ]
    assert [round(row.paper or 0, 1) for row in large] == [6.1, 10.7, 6.1, 10.7]
    assert large[0].figures == {"int12_mac, GE": 12_000, "ternary_accumulate, GE": 2_000}
    assert [row.note for row in large[1:3]] == [
        "this project's own goal of 12.5 is not reached",
        "this project's own goal of 10.5 is reached",
    ]
    small = steps[1]()
    assert [row.measured for row in small] == [6, 12, 13, 26]
    assert {row.note for row in small} == {""}
    assert small[0].claim.endswith("1 lane")
    counts = steps[2]()
    assert [(row.paper, row.measured, row.holds) for row in counts] == [
        (500, 600, True),
        (1000, 1200, True),
        (500, 1300, True),
        (1000, 2600, True),
    ]
    # The commands give what was measured.
    for row in (*large, *small, *counts):
        for each in settings_in(row.how):
            assert each in known.asked
    assert {row.standing for row in large} == {"recalled, not checked"}


def test_units_on_fpgas_and_in_a_process(known, tmp_path):
    steps = compare_units((4,), tmp_path / "process.lib")
    on_process = steps[2]()
    assert [row.measured for row in on_process] == [6, 12]
    assert on_process[0].claim.endswith("in process")
    assert on_process[0].figures["int12_mac, area"] == 15_000
    ice40, ecp5 = steps[3](), steps[4]()
    for row in (*ice40, *ecp5):
        assert (row.measured, row.paper, row.holds) == (3, None, None)
        assert row.figures["int12_mac carries"] == 7
    for row in (*on_process, *ice40, *ecp5):
        for each in settings_in(row.how):
            assert each in known.asked
    assert {each[1] for each in known.asked} == {"liberty", "ice40", "ecp5"}


@pytest.mark.long
def test_areas_and_toggles_of_real_circuits():
    steps = compare_units((1,), runs=4)
    rows = steps[0]()
    expected = {
        design: synthesis.synthesize(find(design).configure({"lanes": 1}))["area_ge"]
        for design in ("int12_mac", "ternary_accumulate")
    }
    assert rows[0].measured == expected["int12_mac"] / expected["ternary_accumulate"]
    # Booth's recoding makes the 12-bit unit smaller.
    assert 1 < (rows[0].measured or 0) < (rows[2].measured or 0)
    zero, unit = steps[-2](), steps[-1]()
    assert [round(row.paper or 0, 1) for row in zero] == [5.5, 9.1]
    for settled, with_glitches in zip(zero, unit, strict=True):
        name = "int12_mac, GE a beat"
        assert 0 < settled.figures[name] < with_glitches.figures[name]
        assert 1 < (settled.measured or 0) < 20


def test_a_wrong_netlist_is_seen(monkeypatch):
    honest = ternary.map_to_cells

    def broken(design):
        mapped = honest(design)
        for cell in mapped.netlist["cells"].values():
            if cell["type"] == "XOR2":
                cell["type"] = "XNOR2"
        return mapped

    monkeypatch.setattr(ternary, "map_to_cells", broken)
    with pytest.raises(ActivityError, match="differs from the golden model's"):
        compare_units((1,), runs=2)[-2]()


@pytest.mark.parametrize("weights", ["int12", "ternary", "binary"])
def test_rows_of_the_activity_are_what_they_say(weights):
    arrays = ternary._rows(4, 3, weights)
    design = {"int12": "int12_mac"}.get(weights, f"{weights}_accumulate")
    contract = find(design).configure({"lanes": 4}).contract
    for operand in contract.operands:
        array = arrays[operand.name]
        assert array.shape == (3, 44, *([4] if operand.lanes else []))
        assert array.min() >= 0
        assert array.max() < 2**operand.format.width
    assert arrays["first"].sum() == arrays["last"].sum() == 12
    levels = contract.levels(arrays["weights"].reshape(-1, 4))
    other = ternary._rows(4, 3, "int12")
    reals = (
        find("int12_mac").configure({"lanes": 4}).contract.levels(other["weights"].reshape(-1, 4))
    )
    # All are roundings of the same weights.
    kept = levels != 0
    assert (np.sign(levels) == np.sign(reals))[kept & (reals != 0)].all()
    assert kept.mean() == {"int12": pytest.approx(1, abs=0.01), "binary": 1}.get(
        weights, pytest.approx(0.57, abs=0.1)
    )


def test_memory_is_counted_in_the_layers_words():
    rows = compare_memory()
    assert [row.measured for row in rows[:3]] == [6, 7.5, 12]
    assert [row.holds for row in rows[:3]] == [True, True, True]
    assert [row.note for row in rows[1:3]] == [
        "this project's own goal of 7.4 is reached",
        "this project's own goal of 12 is reached",
    ]
    fields, dense, binary = rows[3:]
    # 83 inputs and 512 hidden values in words of 16 lanes: 96 and 512 weights a row.
    assert fields.figures == {
        "12-bit weights, kB": 4 * 512 * (96 + 512) * 1.5 / 1000,
        "weights, kB": 4 * 512 * (96 + 512) * 0.25 / 1000,
        "start words of both, kB": 8 * 512 * 8 / 1000,
    }
    assert dense.figures["weights, kB"] == 4 * 512 * (100 + 520) / 5 / 1000
    assert binary.figures["weights, kB"] == 4 * 512 * (96 + 512) / 8 / 1000
    for row, alone in zip((fields, dense, binary), (6, 7.5, 12), strict=True):
        twelve, few, starts = row.figures.values()
        assert twelve / few == pytest.approx(alone)
        assert row.measured == pytest.approx((twelve + starts) / (few + starts))
        assert (row.measured or 0) < alone
    assert binary.how == (
        "fewbit generate ternary_lstm_layer --set inputs=83 --set hidden=512 --set weights=binary"
        " --set lanes=16"
    )


def test_throughput_is_one_over_area_and_cycles(known):
    size = {"inputs": 8, "hidden": 16}
    layers = {
        "int12": {"lanes": 16, "neurons": 2},
        "ternary": {"lanes": 8},
        "binary": {"lanes": 16},
    }
    rows = compare_layers("as chosen", layers, size)
    cycles = {
        weights: step_cycles(
            TernaryLstmLayerContract(weights=weights, **size, **settings), "gates"
        ).cycles
        for weights, settings in layers.items()
    }
    booth_ternary, booth_binary, plain_ternary, _ = rows
    assert booth_ternary.measured == 50_000 * cycles["int12"] / (10_000 * cycles["ternary"])
    assert booth_binary.measured == 50_000 * cycles["int12"] / (8_000 * cycles["binary"])
    assert (booth_ternary.paper, booth_binary.paper) == (5, 10)
    assert plain_ternary.figures["int12, GE"] == 78_000
    assert booth_ternary.note.endswith(
        "this project's own goal of 7 is "
        + ("reached" if (booth_ternary.measured or 0) >= 7 else "not reached")
    )
    for row in rows:
        for each in settings_in(row.how):
            assert each in known.asked


def test_the_paper_measures_the_registrys_designs(known):
    steps = papers.PAPERS["ternary"].measurements(Options())
    # Three sizes, how many, two FPGAs, two delays, memory, the layers, accuracy.
    assert len(steps) == 10 + len(few_bit_layers.LAYERS)
    layer = [row for row in steps[-2]() if "throughput" in row.claim]
    assert len(layer) == 4
    assert [row.measured for row in steps[-1]()] == [None, None]
