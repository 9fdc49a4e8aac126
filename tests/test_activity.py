"""Switching activity: Liberty files, gate-level simulation, and what toggles are weighed by."""

import copy
import dataclasses
import itertools
import shutil
import subprocess

import numpy as np
import pytest

from fewbit.activity import ActivityError, encode_operands, measure_activity
from fewbit.errors import UsageError
from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.golden.contract import Contract
from fewbit.golden.formats import BINARY16, E5M2, FLOATSD8, INT8, INT32
from fewbit.golden.operands import Operand
from fewbit.hdl.designs import find
from fewbit.sim.gate_level import GateLevelSimulation, NetlistError, pack_runs, unpack_runs
from fewbit.sim.liberty import LibertyError, Library, evaluate, parse_function, pins_of
from fewbit.synthesis import map_to_cells

FUNCTIONS = [
    ("A", lambda a, b, c: a),
    ("!A", lambda a, b, c: not a),
    ("A'", lambda a, b, c: not a),
    ("A''", lambda a, b, c: a),
    ("!A'", lambda a, b, c: a),
    ("(A+B)'", lambda a, b, c: not (a or b)),
    ("A B", lambda a, b, c: a and b),
    ("A B' + C", lambda a, b, c: (a and not b) or c),
    ("A&B|C", lambda a, b, c: (a and b) or c),
    ("A|B&C", lambda a, b, c: a or (b and c)),
    ("A^B&C", lambda a, b, c: (a != b) and c),
    ("A*!B^C", lambda a, b, c: a and (b == c)),
    ("!(A*(B + !C))", lambda a, b, c: not (a and (b or not c))),
    (" ( A ) ", lambda a, b, c: a),
    ("(A&1)|(B&0)", lambda a, b, c: a),
    ("(A B)(C)", lambda a, b, c: a and b and c),
]


@pytest.mark.parametrize(("text", "meaning"), FUNCTIONS, ids=[text for text, _ in FUNCTIONS])
def test_functions_have_the_meaning_of_the_liberty_manual(text, meaning):
    expression = parse_function(text)
    cases = list(itertools.product((False, True), repeat=3))
    # A case a bit, so that the words hold the truth table.
    words = {
        name: np.array([sum(case[place] << bit for bit, case in enumerate(cases))], np.uint64)
        for place, name in enumerate("ABC")
    }
    got = int(evaluate(expression, words)[0]) & 255
    assert got == sum(bool(meaning(*case)) << bit for bit, case in enumerate(cases))
    assert pins_of(expression) == {letter for letter in text if letter.isalpha()}


@pytest.mark.parametrize(
    "text",
    ["", "A+", "(A", "A)", "+A", "A ! B'+", "()", "2", "A == B", "A.__class__()", "'A", "(" * 400],
)
def test_what_is_no_function_is_refused(text):
    with pytest.raises(LibertyError, match="no Liberty function|nests too deep"):
        parse_function(text)


LIBRARY = """
/* A comment { with braces */
library ("toy") {
  capacitive_load_unit (10, ff);   // another {
  default_input_pin_cap : 0.5;
  nom_voltage : 3.0;
  operating_conditions (fast) { voltage : 2.0; process : 1; }
  default_operating_conditions : "fast";
  cell ("INV") {
    area : 2.5;
    leakage_power () { value : "1"; when : "}"; }
    pin (A) { direction : input; capacitance : 0.3; }
    pin (Y) { direction : "output"; function : "!A";
      internal_power () { related_pin : "A";
        fall_power (t) { index_1 ("1, 2, 3"); index_2 ("1, 2"); values ("9, 9", "-1, -2", "9, 9"); }
        rise_power (t) { index_1 ("1, 2, 3"); index_2 ("1, 2"); values ("9, 9", \\
          "3, 5e0", "9, 9"); } }
      internal_power () { power (scalar) { values ("0.5"); } }
      timing () { values ("1, 2", \\
        "3, 4"); related_pin : "A"; } }
  }
  cell (PAIR) {
    area : 4
    pin (A, B) { direction : input }
    pin (Y) { direction : output; function : "A B"; }
    pin (Z) { direction : output; function : "A+B"; }
  }
  cell (FF) {
    area : 6;
    ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; }
    pin (CK) { direction : input; capacitance : 0.2; }
    pin (D) { direction : input; capacitance : 0.1; }
    pin (Q) { direction : output; function : "IQ"; }
    pin (QN) { direction : output; function : "IQN"; }
  }
  cell (LATCH) { area : 1; latch (IQ, IQN) { enable : "G"; } pin (G) { direction : input; } }
  cell (RESET) { ff (IQ, IQN) { clocked_on : "C"; next_state : "C"; clear : "C"; }
    pin (C) { direction : input; } }
  cell (FALLING) { ff (IQ, IQN) { clocked_on : "!C"; next_state : "C"; }
    pin (C) { direction : input; } }
  cell (ODD) { pin (Y) { direction : output; function : "A"; } }
}
"""


def test_a_library_is_read():
    library = Library.parse(LIBRARY)
    assert library.voltage == 2.0
    inverter, pair, register = (library.cells[name] for name in ("INV", "PAIR", "FF"))
    assert (inverter.area, pair.area, register.area) == (2.5, 4.0, 6.0)
    assert inverter.pins["A"].capacitance == pytest.approx(3e-15)
    assert pair.pins["B"].capacitance == pytest.approx(5e-15)
    assert pair.outputs == ("Y", "Z")
    # The middle row: the mean of -1.5, 4 and 0.5, in units of 10 fF V².
    assert inverter.pins["Y"].energy == pytest.approx(1e-14)
    assert inverter.pins["A"].energy is None
    assert inverter.clock is None
    assert (register.clock, register.states) == ("CK", ("IQ", "IQN"))
    assert register.next_state == ("pin", "D")
    reasons = {cell.name: cell.unsupported for cell in library.cells.values() if cell.unsupported}
    assert reasons == {
        "LATCH": "it has a latch",
        "RESET": "its register has clear",
        "FALLING": "its register doesn't take the rising edge of a pin",
        "ODD": "a function of it names no pin",
    }
    assert Library.parse(LIBRARY.replace("nom_voltage : 3.0;", "")).voltage == 2.0
    assert Library.parse(LIBRARY.replace("default_operating", "other")).voltage == 3.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "A Liberty file holds one library, not 0."),
        ("library (a) {} library (b) {}", "A Liberty file holds one library, not 2."),
        ("library (a) {", "Group 'library' of the Liberty file doesn't end."),
        ("library (a) {}}", "A closing brace of the Liberty file has no opening one."),
        ("library (a) { timing () {", "A group of the Liberty file doesn't end."),
        ('library (a) { b : "c', "This is no Liberty statement"),
        ("library (a) { nom_voltage : high; }", "Attribute nom_voltage must be a number"),
        ("library (a) { capacitive_load_unit (1, F); }", "Capacitive_load_unit must be"),
        (
            "library (a) { cell (b) { pin (c) { internal_power () { power (d) { } } } } }",
            "A table power of the Liberty file has no values.",
        ),
        ("a () {" * 30, "Groups of the Liberty file nest deeper than 16."),
        ("\x1f\x8b\x08", "This is no Liberty statement"),
    ],
)
def test_what_is_no_library_is_refused(text, message):
    with pytest.raises(LibertyError) as error:
        Library.parse(text)
    assert str(error.value).startswith(message)


def test_runs_are_packed_a_run_a_bit():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (70, 3, 5)).astype(bool)
    words = pack_runs(bits)
    assert words.shape == (3, 5, 2)
    assert bool(int(words[2, 4, 1]) >> 5 & 1) == bits[69, 2, 4]
    assert (unpack_runs(words, 70) == bits).all()


def toy_netlist():
    """Two flip-flops: a inverted, and the pair's two outputs of a and b."""
    return {
        "ports": {
            "clk": {"direction": "input", "bits": [2]},
            "a": {"direction": "input", "bits": [3]},
            "b": {"direction": "input", "bits": [4]},
            "y": {"direction": "output", "bits": [8, 9, "1"]},
        },
        "cells": {
            "inv": {"type": "INV", "connections": {"A": [3], "Y": [5]}},
            "pair": {"type": "PAIR", "connections": {"A": [5], "B": [4], "Y": [6], "Z": [7]}},
            "ff0": {"type": "FF", "connections": {"CK": [2], "D": [6], "Q": [8]}},
            "ff1": {"type": "FF", "connections": {"CK": [2], "D": [7], "QN": [9]}},
            "scope": {"type": "$scopeinfo", "connections": {}},
        },
    }


def test_a_toy_netlist_by_hand():
    simulation = GateLevelSimulation(toy_netlist(), Library.parse(LIBRARY))
    a, b = (np.array(bits, bool).reshape(1, -1, 1) for bits in ([0, 1, 1, 0], [0, 0, 1, 1]))
    inputs = {"a": pack_runs(a), "b": pack_runs(b)}
    recording = simulation.run(inputs, 1, slice(1, None))
    #  cycle   0 1 2 3      inverter 1 0 0 1, and 0 0 0 1, or 1 0 1 1
    #  ff0     0 0 0 0      ff1's complement 1 0 1 0
    assert [f"{cell.name}.{pin}" for cell, pin in simulation.drivers] == [
        "INV.Y",
        "PAIR.Y",
        "PAIR.Z",
        "FF.Q",
        "FF.QN",
    ]
    assert recording.toggles.tolist() == [2, 1, 2, 0, 3]
    assert recording.transitions == 3
    outputs = unpack_runs(recording.outputs["y"], 1)[0]
    assert outputs.astype(int).tolist() == [[0, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]]
    loads = simulation.sum_over_sinks(lambda pin: pin.capacitance or 0.0)
    assert loads == pytest.approx([5e-15, 1e-15, 1e-15, 0, 0])
    # Both inputs of the pair change, b sooner than the inverted a: in cycle 3 nothing, as b stays.
    late = simulation.run(inputs, 1, slice(1, None), "unit")
    assert late.toggles.tolist() == [2, 1, 2, 0, 3]
    b = np.array([0, 1, 0, 1], bool).reshape(1, -1, 1)
    a = np.array([0, 1, 0, 1], bool).reshape(1, -1, 1)
    # 1 & 1 for the time of an inverter whenever both rise; 0 | 0 whenever both fall.
    inputs = {"a": pack_runs(a), "b": pack_runs(b)}
    assert simulation.run(inputs, 1, slice(1, None)).toggles.tolist()[:3] == [3, 0, 0]
    glitches = simulation.run(inputs, 1, slice(1, None), "unit").toggles.tolist()
    assert glitches[:3] == [3, 4, 2]


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("inv", {"type": "INV", "connections": {"A": [6], "Y": [5]}}, "form a loop"),
        ("inv", {"type": "NAND9", "connections": {}}, "this is 'NAND9', no cell of the library"),
        ("m", {"type": "$mem_v2", "connections": {}}, "this is a memory"),
        ("inv", {"type": "LATCH", "connections": {}}, "Cell 'LATCH' can't be simulated: it has a"),
        ("x", {"type": "INV", "connections": {"A": [3], "Y": [5]}}, "Net 5 is driven twice"),
        ("x", {"type": "INV", "connections": {"A": [3], "Y": [4]}}, "Net 4 is driven twice"),
        ("x", {"type": "INV", "connections": {"A": [3], "Y": ["0"]}}, "Net 0 is driven twice"),
        ("ff0", {"type": "FF", "connections": {"CK": [3], "D": [6]}}, "'ff0' isn't clocked by"),
    ],
)
def test_netlists_that_cannot_be_simulated_are_refused(name, cell, message):
    netlist = toy_netlist()
    netlist["cells"][name] = cell
    with pytest.raises(NetlistError) as error:
        GateLevelSimulation(netlist, Library.parse(LIBRARY))
    assert message in str(error.value)


# By hand, from the names: not by way of the Liberty file.
CELLS = {
    "BUF": "A",
    "INV": "~A",
    "NAND2": "~(A & B)",
    "NOR2": "~(A | B)",
    "AND2": "A & B",
    "OR2": "A | B",
    "XOR2": "A ^ B",
    "XNOR2": "~(A ^ B)",
    "MUX2": "S ? B : A",
    "AOI21": "~((A & B) | C)",
    "OAI21": "~((A | B) & C)",
    "AOI22": "~((A & B) | (C & D))",
    "OAI22": "~((A | B) & (C | D))",
}
REGISTERS = {"DFF": "D", "DFFE": "E ? D : Q", "DFFR": "D & ~R"}
TIME = 80


def verilog_of_netlist(netlist, stimulus):
    """A bench that prints all cell outputs at every unit of time; each cell takes one unit."""
    nets = {}
    text = [f"module bench; reg [0:{len(netlist['cells']) - 1}] n = 0; reg clk = 0;"]
    inputs = [name for name, port in netlist["ports"].items() if port["direction"] == "input"]
    for name in inputs:
        bits = netlist["ports"][name]["bits"]
        if name != "clk":
            text.append(f"reg [{len(bits) - 1}:0] {name} = 0;")
            nets |= {bit: f"{name}[{place}]" for place, bit in enumerate(bits)}
    for index, cell in enumerate(netlist["cells"].values()):
        nets[cell["connections"]["Q" if cell["type"] in REGISTERS else "Y"][0]] = f"n[{index}]"
    for cell in netlist["cells"].values():
        function = (CELLS | REGISTERS)[cell["type"]]
        for pin, bits in cell["connections"].items():
            source = nets.get(bits[0], f"1'b{bits[0]}") if pin != "CK" else "clk"
            function = function.replace(pin, f"<{source}>") if len(pin) == 1 else function
        function = function.replace("<", "").replace(">", "")
        target = nets[cell["connections"]["Q" if cell["type"] in REGISTERS else "Y"][0]]
        # Transport delay: no pulse is swallowed.
        trigger, delay = ("posedge clk", 0) if cell["type"] in REGISTERS else ("*", 1)
        text.append(f"always @({trigger}) {target} <= #{delay} {function};")
    text.append("initial begin")
    for cycle in range(len(next(iter(stimulus.values())))):
        # Inputs change with the registers, and the clock falls at once.
        changes = [f"{name} <= {values[cycle]};" for name, values in stimulus.items()]
        text.append(f"clk = {int(cycle > 0)}; {' '.join(changes)} #0.5 clk = 0;")
        text.append(f'repeat ({TIME}) begin $display("%b", n); #1; end #0.5;')
    return "\n".join(["`timescale 1ns/100ps", *text, "$finish; end endmodule"])


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_toggles_are_those_of_an_event_driven_simulator(tmp_path):
    """An accumulator, which has feedback; zero delay and unit delay, net by net."""
    settings = {"lanes": 2, "activation_width": 4, "accumulator_width": 8}
    mapped = map_to_cells(find("ternary_accumulate").configure(settings))
    assert {"DFFE", "DFFR", "AOI21", "OAI21", "XNOR2"} <= set(mapped.figures["cells"])
    rng = np.random.default_rng(5)
    cycles = 40
    ports = {
        name: len(port["bits"])
        for name, port in mapped.netlist["ports"].items()
        if port["direction"] == "input" and name != "clk"
    }
    stimulus = {name: rng.integers(0, 2**width, cycles) for name, width in ports.items()}
    stimulus["rst"] = (np.arange(cycles) < 2).astype(int)
    (tmp_path / "bench.v").write_text(verilog_of_netlist(mapped.netlist, stimulus))
    command = ["iverilog", "-g2012", "-o", tmp_path / "bench", tmp_path / "bench.v"]
    subprocess.run(command, check=True)
    lines = subprocess.run(
        ["vvp", "-n", tmp_path / "bench"], check=True, capture_output=True, text=True
    ).stdout.split()
    lines = [line for line in lines if set(line) <= set("01x") and len(line) > 100]
    seen = np.array([[letter == "1" for letter in line] for line in lines])
    seen = seen.reshape(cycles, TIME, -1)
    assert (seen[:, -1] == seen[:, -2]).all()

    simulation = GateLevelSimulation(mapped.netlist, Library.read(mapped.library))
    bits = {
        name: (values[:, None] >> np.arange(ports[name]) & 1).astype(bool)[None]
        for name, values in stimulus.items()
    }
    inputs = {name: pack_runs(plane) for name, plane in bits.items()}
    counted = slice(3, None)
    settled = simulation.run(inputs, 1, counted)
    expected = (seen[3:, -1] != seen[2:-1, -1]).sum(axis=0)
    assert settled.toggles.tolist() == expected.tolist()
    assert expected.sum() > 1000
    glitches = simulation.run(inputs, 1, counted, "unit")
    flat = seen[2:].reshape(-1, seen.shape[2])[TIME - 1 :]
    expected = (flat[1:] != flat[:-1]).sum(axis=0)
    assert glitches.toggles.tolist() == expected.tolist()
    assert expected.sum() > 1.3 * settled.toggles.sum()


@pytest.fixture(scope="module")
def mac():
    return map_to_cells(find("floatsd8_mac").configure({"products": 1, "stages": 2, "window": 8}))


def operands(runs, beats, settings):
    rng = np.random.default_rng(2)
    arrays = FloatSD8MacContract(**settings).stimulus(rng, runs * beats)
    return {name: codes.reshape(runs, beats, *codes.shape[1:]) for name, codes in arrays.items()}


def test_activity_of_a_design(mac):
    arrays = operands(70, 12, {"products": 1, "window": 8})
    activity = measure_activity(mac, arrays)
    # The first result comes two cycles after its beat; changes count from the cycle after that.
    assert (activity.unit, activity.delay, activity.beats) == ("GE", "zero", 70 * 9)
    registers = mac.figures["area_ge"] - mac.figures["combinational_ge"]
    assert activity.clock == 2 * 2.0 * mac.figures["flip_flops"]
    assert 0.05 < activity.combinational / mac.figures["combinational_ge"] < 1
    assert 0.05 < activity.flip_flops / registers < 0.7
    assert activity.with_clock == activity.without_clock + activity.clock
    glitches = measure_activity(mac, arrays, "unit")
    assert glitches.combinational > activity.combinational
    assert glitches.flip_flops == activity.flip_flops
    # Operands that stay the same move nothing.
    still = {name: np.broadcast_to(codes[:, :1], codes.shape) for name, codes in arrays.items()}
    assert measure_activity(mac, still).without_clock == 0


def test_a_wrong_netlist_is_caught(mac):
    arrays = operands(4, 12, {"products": 1, "window": 8})
    netlist = copy.deepcopy(mac.netlist)
    victims = [cell for cell in netlist["cells"].values() if cell["type"] == "NAND2"]
    victims[len(victims) // 2]["type"] = "NOR2"
    with pytest.raises(ActivityError, match="'result' differs from the golden model's"):
        measure_activity(dataclasses.replace(mac, netlist=netlist), arrays)


def test_runs_that_are_too_short_are_refused(mac):
    with pytest.raises(UsageError, match="Runs of 3 beats are too short; give longer ones"):
        measure_activity(mac, operands(4, 3, {"products": 1, "window": 8}))


def test_energy_of_a_process(mac, tmp_path):
    """The project's own cells with capacitances: energies follow from the loads."""
    text = mac.library.read_text()
    text = text.replace("direction : input;", "direction : input; capacitance : 0.001;")
    inside = 'internal_power () { power (scalar) { values ("0.003"); } }'
    text = text.replace("direction : output;", f"direction : output; {inside}")
    (tmp_path / "process.lib").write_text(text.replace("time_unit", "nom_voltage : 2.0; time_unit"))
    process = dataclasses.replace(mac, library=tmp_path / "process.lib", is_process=True)
    arrays = operands(70, 12, {"products": 1, "window": 8})
    activity = measure_activity(process, arrays)
    assert activity.unit == "fJ"
    # 1 fF at 2 V takes 2 fJ a toggle, and each flip-flop's clock pin toggles twice a cycle.
    assert activity.clock == pytest.approx(4 * mac.figures["flip_flops"])
    # What a cell takes inside, 3 fJ, is half again what one load takes.
    reference = measure_activity(mac, arrays)
    assert activity.toggles == reference.toggles
    fan_out = (activity.without_clock / activity.toggles - 3) / 2
    assert 1.2 < fan_out < 3
    (tmp_path / "bare.lib").write_text(text)
    with pytest.raises(UsageError, match="gives no supply voltage"):
        measure_activity(dataclasses.replace(process, library=tmp_path / "bare.lib"), arrays)


@dataclasses.dataclass(frozen=True)
class IntegerMac(Contract):
    operands = (
        Operand("weights", INT8, "", 2),
        Operand("activations", INT8, "", 2),
        Operand("accumulator", INT32, ""),
    )
    results = ()

    def stimulus(self, rng, count):
        raise NotImplementedError

    def compute(self, arrays):
        raise NotImplementedError


def test_operands_are_the_same_reals_in_every_format():
    rng = np.random.default_rng(4)
    weights, activations = rng.normal(0, 0.3, (2, 50, 2))
    accumulator = rng.normal(0, 1, 50)
    codes = encode_operands(FloatSD8MacContract(products=2), weights, activations, accumulator)
    assert (codes["weights"] == FLOATSD8.encode(weights)).all()
    assert (codes["activations"] == E5M2.encode(activations)).all()
    assert (codes["accumulator"] == BINARY16.encode(accumulator)).all()
    codes = encode_operands(IntegerMac(), weights, activations, accumulator)
    steps = np.abs(weights).max() / 127, np.abs(activations).max() / 127
    raws = INT8.raw(codes["weights"])
    assert np.abs(raws).max() == 127
    assert np.abs(raws * steps[0] - weights).max() <= steps[0] / 2 + 1e-12
    step = steps[0] * steps[1]
    assert np.abs(INT32.raw(codes["accumulator"]) * step - accumulator).max() <= step / 2 + 1e-12
