# amaranth: UnusedElaboratable=no
"""A number system added from outside: what the manual's page promises, held by a toy of 2 bits."""

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from amaranth.hdl import Module

from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.image import (
    Bits,
    Codes,
    Field,
    Matrix,
    Plan,
    RecordsPass,
    Weights,
    WeightsPass,
    WeightsRow,
    program,
)
from fewbit.golden.layer.sections import records
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.kinds import KINDS, register_kind
from fewbit.golden.lstm.ternary import TernaryLstm
from fewbit.golden.network import Network, Node, run
from fewbit.golden.systems import SYSTEMS, Option, layer_of, register_system
from fewbit.hdl.designs import DESIGNS, find
from fewbit.hdl.systems import configure_for, register
from fewbit.sim.bulk import BulkSimulation, compare
from tests import int2
from tests.int2.circuit import DESIGN, Int2Sum
from tests.int2.layer import Int2LstmLayerContract
from tests.int2.lstm import Int2Lstm
from tests.support.commands import run as fewbit
from tests.support.layer_bench import check_packer, count_cycles

FROZEN = Path(__file__).with_name("frozen")
SIZES = {"inputs": 5, "hidden": 7, "lanes": 4, "neurons": 2}


@pytest.fixture(autouse=True)
def registered():
    """The toy's entries, for one test."""
    int2.register()
    yield
    for table, name in ((SYSTEMS, "int2"), (DESIGNS, DESIGN.name), (KINDS, "int2_lstm")):
        table.pop(name, None)


def random_model(seed=1):
    layer = Int2LstmLayerContract(**SIZES)
    return layer.unpack(layer.random_image(np.random.default_rng(seed)))


@pytest.fixture
def real(tmp_path):
    """A real network of two layers, and calibration data, as files."""
    rng = np.random.default_rng(2)

    def layer(inputs, hidden):
        shapes = (4, hidden, inputs), (4, hidden, hidden), (4, hidden)
        return Float64Lstm(*(rng.normal(0, 0.6, shape) for shape in shapes))

    network = Network((Node(layer(5, 7)), Node(layer(7, 3), (0,))))
    save_network(tmp_path / "real.npz", network)
    np.save(tmp_path / "x.npy", rng.normal(0, 1, (4, 9, 5)))
    return tmp_path


def test_golden_equals_another_number_system_on_what_both_have():
    rng = np.random.default_rng(3)
    model = random_model()
    # Of 2 bits without -2 are ternary weights.
    ternary = {name: np.maximum(getattr(model, name), -1) for name in ("input_weights",)}
    ternary["recurrent_weights"] = np.maximum(model.recurrent_weights, -1)
    some = replace(model, **ternary)
    rows = np.ones((4, 7), np.int64)
    same = TernaryLstm(
        weights="ternary",
        bias=model.bias,
        input_multipliers=model.multipliers[:, :1] * rows,
        input_shifts=model.shifts[:, :1] * rows,
        recurrent_multipliers=model.multipliers[:, 1:] * rows,
        recurrent_shifts=model.shifts[:, 1:] * rows,
        input_scale=1.0,
        activation_width=8,
        cell_exponent=model.cell_exponent,
        **ternary,
    )
    x = rng.integers(-128, 128, (20, 30, 5))
    for got, wanted in zip(some.run_with_cell(x), same.run_with_cell(x), strict=True):
        np.testing.assert_array_equal(got, wanted)
    # And a weight of -2 counts twice.
    doubled = replace(model, input_weights=np.full_like(model.input_weights, -2))
    single = replace(model, input_weights=np.full_like(model.input_weights, -1))
    even = 2 * rng.integers(-64, 64, (3, 4, 5))
    np.testing.assert_array_equal(doubled.run(even // 2), single.run(even))


@pytest.mark.long
@pytest.mark.parametrize("structure", ["gates", "fpga"])
def test_the_circuit_equals_golden(structure, tmp_path):
    circuit = BulkSimulation(DESIGN.configure({**SIZES, "structure": structure}), tmp_path)
    outcome = compare(circuit, count=3000, chunk=750)
    assert outcome.passed, outcome.counterexample


@pytest.mark.long
def test_a_broken_circuit_is_caught(tmp_path, monkeypatch):
    def elaborate(self, platform):
        # The weight -2 as if it were 2, and -1 as 3.
        m = Module()
        products = [
            self.weights[lane].as_unsigned() * self.activations[lane] for lane in range(self.lanes)
        ]
        m.d.comb += self.total.eq(self.start + sum(products[1:], products[0]))
        return m

    monkeypatch.setattr(Int2Sum, "elaborate", elaborate)
    circuit = BulkSimulation(DESIGN.configure(SIZES), tmp_path)
    outcome = compare(circuit, count=500)
    assert outcome.mismatches
    assert "expected packet = " in outcome.counterexample


@pytest.mark.long
def test_quantise_run_generate_pack_and_data_sheet(capsys, real, monkeypatch):
    monkeypatch.chdir(real)
    words = ["real.npz", "--to", "int2", "--calibrate", "x.npy", "--out", "model.npz"]
    status, out, err = fewbit(capsys, "quantize", *words, "--activation", "gemmlowp")
    assert (status, err) == (0, "")
    assert "2 layers, int2, activation gemmlowp, calibrated" in out

    np.save("raws.npy", np.random.default_rng(4).integers(-128, 128, (3, 6, 5)).astype(np.int8))
    for backend in ("golden", "rtl"):
        words = ["model.npz", "--input", "raws.npy", "--output", f"{backend}.npy"]
        more = [] if backend == "golden" else ["--backend", "rtl", "--lanes", "4"]
        status, _, err = fewbit(capsys, "run", *words, *more)
        assert (status, err) == (0, "")
    golden = np.load("golden.npy")
    assert golden.dtype == np.int8
    assert len(np.unique(golden)) > 20
    np.testing.assert_array_equal(np.load("rtl.npy"), golden)
    network = load_network("model.npz")
    np.testing.assert_array_equal(run(network, np.load("raws.npy")), golden)

    words = [DESIGN.name, "--model", "model.npz", "--out", "out", "--set", "neurons=2"]
    status, _, err = fewbit(capsys, "generate", *words)
    assert (status, err) == (0, "")
    for number, node in enumerate(network.nodes):
        name = f"out/{DESIGN.name}{number}"
        with open(f"{name}.json") as file:
            sheet = json.load(file)
        assert sheet["parameters"] == {
            "inputs": node.lstm.inputs,
            "hidden": node.lstm.hidden,
            "lanes": 8,
            "neurons": 2,
            "activation": "gemmlowp",
            "structure": "gates",
        }
        contract = layer_of(node.lstm, neurons=2).contract
        assert sheet["image"]["size"] == contract.plan.size
        assert sheet["step"]["beats"] == contract.schedule.step_beats
        command = [sys.executable, "-I", f"{name}_pack.py", f"{name}_constants.npz", "packed.bin"]
        subprocess.run(command, check=True)
        with open(f"{name}.bin", "rb") as image, open("packed.bin", "rb") as packed:
            assert packed.read() == image.read()
    with open(f"out/{DESIGN.name}_network.json") as file:
        layers = json.load(file)["layers"]
    assert layers[1]["input"] == layers[0]["output"] == {"scale": 2.0**-7, "zero_point": 0}


@pytest.mark.long
def test_cycles_of_the_data_sheet_are_the_circuits(tmp_path):
    configured = DESIGN.configure(SIZES)
    circuit = BulkSimulation(configured, tmp_path)
    model = random_model()
    # Left shifts take longer.
    right = replace(model, shifts=np.minimum(model.shifts, 0))
    image = configured.contract.pack(right)
    measured = count_cycles(circuit, image, np.random.default_rng(5))
    step = configured.cycles
    assert step.is_exact
    assert measured == (step.interval, step.first_byte, step.last_byte)


def test_the_emitted_packer_and_the_image():
    layer = Int2LstmLayerContract(**SIZES)
    model = random_model()
    check_packer(layer, model)
    found = layer.unpack(layer.pack(model))
    for name in Int2Lstm.stored:
        np.testing.assert_array_equal(getattr(found, name), getattr(model, name))
    # Two bits a weight.
    section = next(each for each in layer.plan.sections if each.name == "weights")
    assert section.word_bytes == 2 * 4 * 2 // 8


def test_what_is_known_of_it_is_known_everywhere(capsys):
    model = random_model()
    assert layer_of(model).design == DESIGN.name
    configured, image = configure_for(model, {"lanes": "4"})
    assert configured.parameters["lanes"] == 4
    assert image == configured.contract.pack(model)
    assert find(DESIGN.name) is DESIGN
    status, out, _ = fewbit(capsys, "designs")
    assert status == 0
    assert DESIGN.name in out
    status, out, _ = fewbit(capsys, "quantize", "--help")
    assert "int2" in out
    assert "of int8, ternary, binary, pow2 and int2: approximation" in " ".join(out.split())


def _install(folder, value):
    """A package's metadata with an entry point, as an installer leaves it."""
    metadata = folder / "int2-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: int2\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[fewbit]\nint2 = {value}\n")


def test_the_command_loads_what_installed_packages_add(capsys, tmp_path, monkeypatch):
    del SYSTEMS["int2"], DESIGNS[DESIGN.name], KINDS["int2_lstm"]
    assert DESIGN.name not in fewbit(capsys, "designs")[1]
    _install(tmp_path, "tests.int2:register")
    monkeypatch.syspath_prepend(tmp_path)
    assert DESIGN.name in fewbit(capsys, "designs")[1]


def test_a_broken_plug_in_is_told_in_a_sentence(capsys, tmp_path, monkeypatch):
    _install(tmp_path, "tests.int2:no_such_function")
    monkeypatch.syspath_prepend(tmp_path)
    status, out, err = fewbit(capsys, "designs")
    assert (status, out) == (2, "")
    assert err.startswith(
        "The plug-in 'int2' (tests.int2:no_such_function) failed: AttributeError: "
    )
    assert err.endswith("; mend or uninstall its package.\n")
    assert err.count("\n") == 1


def test_the_manuals_page_quotes_these_modules():
    root = Path(__file__).resolve().parent.parent
    page = (root / "docs" / "adding_a_number_system.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(snippets) >= 7
    modules = [path.read_text(encoding="utf-8") for path in (root / "tests/int2").glob("*.py")]
    words = [" ".join(module.split()) for module in modules]
    for snippet in snippets:
        assert any(" ".join(snippet.split()) in module for module in words), snippet
    for path in re.findall(r"\]\((\.\./[^)#]+)\)", page):
        assert (root / "docs" / path).exists(), path


@dataclass(frozen=True, eq=False)
class _Lacking(Lstm):
    kind: ClassVar[str] = "lacking"
    title: ClassVar[str] = "lacking"
    stored: ClassVar[dict] = {}


def test_entries_that_lack_a_part_are_refused():
    with pytest.raises(TypeError, match=r"_Lacking must define .*step before it is registered"):
        register_kind(_Lacking)
    with pytest.raises(TypeError, match="The layer of 'int2' must be the class of a LayerContract"):
        replace(int2.SYSTEM, layer=int)
    with pytest.raises(TypeError, match="The number system 'int2' must have a quantiser"):
        replace(int2.SYSTEM, quantize=None)
    with pytest.raises(TypeError, match="There is a number system 'int8' already"):
        register_system(replace(int2.SYSTEM, name="int8"))
    with pytest.raises(TypeError, match="names the design 'nowhere_layer', and there is none"):
        register(replace(int2.SYSTEM, name="other", design="nowhere_layer"))
    with pytest.raises(TypeError, match="int8_mac must say what a step takes"):
        register(replace(int2.SYSTEM, name="other", design="int8_mac"), DESIGNS["int8_mac"])
    with pytest.raises(TypeError, match="must have either a timing or the cycles of a step"):
        replace(DESIGN, cycles=None)
    assert set(SYSTEMS) >= {"int2", "int8"}
    assert "other" not in SYSTEMS


@dataclass(frozen=True)
class _Imageless(LayerContract):
    inputs: int = 1


def test_what_the_command_line_could_not_offer_is_refused(capsys):
    for words, sentence in (
        ({"name": "to"}, "An option's name must be a free word, not 'to'"),
        ({"default": 9, "maximum": 5}, "The default: Parameter '--gain' must be 1 to 5, not 9"),
        ({"choices": "abc"}, "The choices of option 'gain' must be words, in a tuple"),
    ):
        with pytest.raises(TypeError, match=re.escape(sentence)):
            Option(**({"name": "gain", "meaning": "what is gained", "default": 1} | words))
    gain = Option("gain", "50 % of what is gained", 1, 0, 5)
    with pytest.raises(TypeError, match="The quantiser of 'int2' must take the keyword gain"):
        replace(int2.SYSTEM, options=(gain,))
    with pytest.raises(TypeError, match="must have names of their own"):
        replace(int2.SYSTEM, options=int2.SYSTEM.options * 2)
    with pytest.raises(TypeError, match="_Imageless must define"):
        replace(int2.SYSTEM, layer=_Imageless)

    def quantize(network, x, *, activation="table", gain=1, done):
        raise ValueError(f"It was {gain}.")

    del SYSTEMS["int2"]
    number = replace(int2.SYSTEM, options=(Option("activation", "a number here", 1),))
    with pytest.raises(TypeError, match="Option 'activation' of 'int2' must take words"):
        register(number)
    register(replace(int2.SYSTEM, quantize=quantize, options=(gain,)))
    status, out, _ = fewbit(capsys, "quantize", "--help")
    assert status == 0
    assert "of int2: 50 % of what is gained, 0 to 5; default 1" in " ".join(out.split())


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [("0", "It was 0.\n"), ("6", "--gain must be from 0 to 5, not 6.\n"), ("none", None)],
)
def test_options_are_checked_by_their_own_entry(capsys, real, gain, sentence):
    def quantize(network, x, *, gain=1, done):
        raise ValueError(f"It was {gain}.")

    del SYSTEMS["int2"]
    option = Option("gain", "what is gained", 1, 0, 5)
    register(replace(int2.SYSTEM, quantize=quantize, options=(option,)))
    words = [real / "real.npz", "--to", "int2", "--calibrate", real / "x.npy", "--gain", gain]
    status, _, err = fewbit(capsys, "quantize", *words, "--out", real / "y.npz")
    assert (status, err) == (2, sentence or "--gain must be from 0 to 5, not none.\n")


def test_a_system_and_a_design_of_another_layer_are_refused():
    del SYSTEMS["int2"], DESIGNS[DESIGN.name]
    foreign = find("floatsd8_lstm_layer")
    other = replace(DESIGN, contract=foreign.contract, parameters=foreign.parameters)
    with pytest.raises(TypeError, match="but int2_lstm_layer makes a FloatSD8LstmLayer"):
        register(int2.SYSTEM, other)
    # What was refused has left nothing behind.
    assert DESIGN.name not in DESIGNS
    with pytest.raises(TypeError, match="There is a number system 'int8' already"):
        register(replace(int2.SYSTEM, name="int8"), DESIGN)
    assert DESIGN.name not in DESIGNS
    int2.register()


def test_the_same_entries_may_come_again_as_other_objects():
    register(replace(int2.SYSTEM), replace(DESIGN))
    assert find(DESIGN.name) is DESIGN


def test_a_model_with_more_than_the_system_has_is_refused(capsys, real):
    layer = load_network(real / "real.npz").nodes[0].lstm
    peeping = replace(layer, peephole_weights=np.ones((3, 7)))
    save_network(real / "peephole.npz", Network((Node(peeping),)))
    words = [real / "peephole.npz", "--to", "int2", "--calibrate", real / "x.npy"]
    status, _, err = fewbit(capsys, "quantize", *words, "--out", real / "y.npz")
    assert (status, err.count("\n")) == (2, 1)
    assert not (real / "y.npz").exists()


def test_a_subclass_that_steps_otherwise_runs_otherwise():
    class Silent(Int8Lstm):
        def step(self, x, hidden, cell):
            new_hidden, new_cell = super().step(x, hidden, cell)
            return np.zeros_like(new_hidden), new_cell

    model = load_network(FROZEN / "models" / "int8.npz").nodes[0].lstm
    silent = Silent(**{name: getattr(model, name) for name in model.stored})
    x = np.random.default_rng(1).integers(-128, 128, (2, 5, model.inputs))
    assert model.run(x).any()
    for found in (silent.run(x), silent.run_with_cell(x)[0], silent.forward(x)):
        assert not found.any()


def test_a_plan_by_which_an_image_would_not_hold_the_arrays_is_refused():
    bits = Bits(8, "a", (0,))
    for field, row, sentence in (
        (Field((2,), 0, 300), (Bits(8, "a"),), "8 bits of section s can't hold a, which is from 0"),
        (Field((2,), 0, 1), (bits,), "No section of the plan holds a[1]."),
        (Field((2,), 0, 1), (Bits(8, "b"),), "Section s holds b, which is no field of the plan."),
        (Field((2,), 0, 1), (Bits(8, "a", (2,)),), "Section s holds a[2], but the field's shape"),
        (Field((2,), 0, 1), (Bits(4, "a"),), "A word of section s must have 0 bits, not 4."),
        (Field((3,), 0, 1), (Bits(8, "a"),), "Section s has words for 2 units, but a has 3."),
    ):
        section = records("s", "", 1, RecordsPass(2, (row,)))
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
            Plan({"a": field}, (section,))
    rows = (WeightsPass(1, (WeightsRow(1, (Matrix("a"),)),)),)
    for field, codes, sentence in (
        (Field((1, 4), -2, 2), Codes(2), "2 bits of section w can't hold a, which is from -2 to 2"),
        (Field((1, 4), -2, 1), Codes(1, levels=((-1,), (1,))), "1 bits of section w can't hold a"),
        (Field((2, 4), -2, 1), Codes(2), "Section w has room for 1 units of 4 weights, but a has"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
            Plan({"a": field}, (Weights.of("w", "", 1, 4, rows, codes),))


@pytest.mark.parametrize("fault", ["encrypted", "huge", "text", "written"])
def test_the_emitted_packer_answers_hostile_archives_in_a_line(tmp_path, fault):
    layer = Int2LstmLayerContract(**SIZES)
    arrays = layer.arrays_of(random_model())
    if fault == "text":
        arrays["activation"] = np.array("\n\x1b[31m" + "x" * 100_000)
    np.savez(tmp_path / "c.npz", **arrays)
    content = bytearray((tmp_path / "c.npz").read_bytes())
    if fault == "encrypted":
        content[6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1
    if fault == "huge":
        with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
            head = b"{'descr': '<i8', 'fortran_order': False, 'shape': (9999999999999,), }\n"
            archive.writestr("bias.npy", b"\x93NUMPY\x01\x00" + bytes([len(head), 0]) + head)
    else:
        (tmp_path / "c.npz").write_bytes(content)
    (tmp_path / "pack.py").write_text(program(layer.plan), encoding="utf-8")
    (tmp_path / "image.bin").write_bytes(b"old")
    words = [sys.executable, "-I", "pack.py", "c.npz", "image.bin"]
    if fault == "written":
        (tmp_path / "image.bin").unlink()
        (tmp_path / "image.bin").mkdir()
    outcome = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr.count("\n")) == (1, 1), outcome.stderr
    assert len(outcome.stderr) < 500
    assert "\x1b" not in outcome.stderr
    if fault != "written":
        assert (tmp_path / "image.bin").read_bytes() == b"old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["c.npz", "image.bin", "pack.py"]


class _Misnamed(Int2Lstm):
    stored: ClassVar[dict] = {**Int2Lstm.stored, "gain": Int2Lstm.stored["bias"]}


class _Twin(Int2Lstm):
    """Another class of the same kind."""


@pytest.mark.parametrize(
    ("lstm", "sentence"),
    [
        (_Misnamed, "_Misnamed.stored must name the fields of the class, but 'gain' is not."),
        (_Twin, "The kind 'int2_lstm' is Int2Lstm's already, not _Twin's."),
    ],
)
def test_kinds_are_refused_that_files_could_not_hold(lstm, sentence):
    with pytest.raises(TypeError, match=sentence):
        register_kind(lstm)
