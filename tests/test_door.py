"""The functions of ``import fewbit``: the manual's page, mistakes, and what the command gives."""

import contextlib
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.errors import write_files
from fewbit.golden.accumulate.ternary_accumulate import TernaryAccumulateContract
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.network import Imported, Network, Node
from fewbit.golden.systems import SYSTEMS
from fewbit.hdl.designs import DESIGNS
from fewbit.interface.calls import load_plugins_once
from tests.support import commands

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/python.md"
FUNCTIONS = [name for name in fewbit.__all__ if inspect.isfunction(getattr(fewbit, name))]
SMALL = {"lanes": 2, "activation_width": 4, "accumulator_width": 8}


def real_network() -> Network:
    rng = np.random.default_rng(1)
    weights, recurrent, bias = ((4, 3, 2), (4, 3, 3), (4, 3))
    lstm = Float64Lstm(*(rng.normal(size=size) for size in (weights, recurrent, bias)))
    return Network((Node(lstm),))


def sequences(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape)


@pytest.mark.long
def test_the_page_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(blocks) > 15
    names: dict[str, object] = {}
    printed = ""
    for kind, text in blocks:
        if kind == "text":
            assert printed == text
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(text, str(PAGE), "exec"), names)
        printed = output.getvalue()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "build",
        "layer",
        "tiny.npz",
        "verilog",
    ]


def test_the_page_uses_every_function():
    blocks = " ".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S))
    assert len(FUNCTIONS) == 12
    for name in FUNCTIONS:
        assert f"fewbit.{name}(" in blocks
        assert f"| `{name}(" in PAGE.read_text() or name == "save"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_say_what_they_take(name):
    function = getattr(fewbit, name)
    signature = inspect.signature(function)
    words = inspect.getdoc(function) or ""
    assert signature.return_annotation is not inspect.Signature.empty
    assert words.split("\n")[0].endswith((".", ","))
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert re.search(rf"^(\w+, )*{parameter.name}(, \w+)*$", words, re.M), parameter.name
    assert "Raises" in words


def test_no_module_bears_the_name_of_a_function():
    modules = {path.stem for path in (ROOT / "fewbit").iterdir()}
    assert not modules & set(FUNCTIONS)


def test_keywords_leave_parameters_their_names():
    parameters = {each.name for design in DESIGNS.values() for each in design.all_parameters}
    options = {each.name for system in SYSTEMS.values() for each in system.options}
    for name in FUNCTIONS:
        taken = {
            each.name
            for each in inspect.signature(getattr(fewbit, name)).parameters.values()
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        }
        if name not in ("load", "save"):
            assert not taken & (options if name == "quantize" else parameters), name


def test_what_is_no_function_is_there_when_asked_for():
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", fewbit.__version__)
    assert issubclass(fewbit.ParameterError, ValueError)
    assert not hasattr(fewbit, "frobnicate")
    assert set(fewbit.__all__) <= set(dir(fewbit))
    assert fewbit.designs() == tuple(DESIGNS.values())


def test_vectors_are_those_of_the_command(capsys, tmp_path):
    file = tmp_path / "vectors.npz"
    words = ["--set", *(f"{name}={value}" for name, value in SMALL.items())]
    words += ["--count", 50, "--seed", 3, "--out", file]
    assert commands.run(capsys, "vectors", "ternary_accumulate", *words)[0] == 0
    arrays = fewbit.vectors("ternary_accumulate", 50, seed=3, **SMALL)
    with np.load(file) as written:
        assert set(written) == set(arrays)
        for name in arrays:
            assert written[name].dtype == arrays[name].dtype
            np.testing.assert_array_equal(written[name], arrays[name])


def test_files_are_those_of_the_command(capsys, tmp_path):
    words = ["ternary_accumulate", "--set", *(f"{name}={value}" for name, value in SMALL.items())]
    assert commands.run(capsys, "generate", *words, "--out", tmp_path / "command")[0] == 0
    # By name, by the registry's entry, and as a configured design.
    unit = fewbit.find("ternary_accumulate", **SMALL)
    entry = next(each for each in fewbit.designs() if each.name == "ternary_accumulate")
    for number, (design, parameters) in enumerate(
        [("ternary_accumulate", SMALL), (entry, SMALL), (unit, {})]
    ):
        paths = fewbit.generate(design, str(tmp_path / str(number)), **parameters)
        assert [path.name for path in paths] == ["ternary_accumulate.v", "ternary_accumulate.json"]
        for path in paths:
            assert path.read_bytes() == (tmp_path / "command" / path.name).read_bytes()


def test_a_network_goes_through_a_file(tmp_path):
    network, x = real_network(), sequences(3, 4, 2)
    path = fewbit.save(network, tmp_path / "folder/model")
    assert path == tmp_path / "folder/model.npz"
    output = fewbit.run(network, x)
    assert output.shape == (3, 4, 3)
    np.testing.assert_array_equal(fewbit.run(fewbit.load(str(path)), x.tolist()), output)
    for to in SYSTEMS:
        quantised = fewbit.quantize(network, x, to)
        again = fewbit.load(fewbit.save(quantised, tmp_path / f"{to}.npz"))
        near = fewbit.run(again, x, real=True)
        np.testing.assert_array_equal(near, fewbit.run(quantised, x, real=True))
        # Ternary and binary weights, which nothing was trained for, are far off.
        assert np.abs(near - output).max() < 1


def test_a_reader_s_warnings_are_python_s(monkeypatch):
    imported = Imported(real_network(), ("The file has a bias twice",))
    monkeypatch.setattr("fewbit.models.open_model", lambda *_: imported)
    with pytest.warns(UserWarning, match=r"^The file has a bias twice\.$") as caught:
        assert fewbit.load("model.onnx") is imported.network
    assert caught[0].filename == __file__


def test_plug_ins_are_loaded_once(monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr("fewbit.hdl.systems.load_plugins", lambda: calls.append("loaded"))
    load_plugins_once.cache_clear()
    fewbit.designs()
    fewbit.find("int8_mac")
    assert calls == ["loaded"]


def mistakes() -> dict[str, tuple[type[Exception], str]]:
    usage, parameter = fewbit.UsageError, fewbit.ParameterError
    return {
        "find('nosuch')": (parameter, "There is no design 'nosuch'; there are floatsd8_mac, "),
        "find('int8_mac', foo=1)": (parameter, "int8_mac has no parameter 'foo'; it has products"),
        "find('int8_mac', products=99)": (parameter, "Parameter 'products' must be 1 to 16"),
        "find(['int8_mac'])": (usage, "The design must be a name, or what fewbit.find returns"),
        "vectors('int8_mac', 0)": (usage, "count must be a whole number from 1 to 100000000"),
        "vectors('int8_mac', seed=-1)": (usage, "seed must be a whole number from 0 to 429"),
        "vectors(unit, lanes=3)": (usage, "ternary_accumulate has its parameters already; give"),
        "regress(unit, simulator='x')": (usage, "simulator must be verilator or icarus, not x."),
        "regress(unit, count=0.5)": (usage, "count must be a whole number from 1 to 100000000"),
        "synthesize(unit, 'asic')": (usage, "Target must be one of gates, ice40"),
        "synthesize(unit, dsp=True)": (usage, "Target gates has no DSP blocks; leave 'dsp' out."),
        "synthesize(unit, 'liberty', liberty='no')": (usage, "Liberty file 'no' is not a file"),
        "synthesize(unit, mapping='x')": (usage, "Mapping must be one of area, delay, not 'x'."),
        "prove('int8_mac')": (usage, "There is nothing to prove of int8_mac; leave it out."),
        "prove('floatsd8_decode', jobs=0)": (usage, "jobs must be a whole number from 1 to 65536"),
        "generate(unit, 'x', image_inside=True)": (usage, "'image_inside' goes with 'model';"),
        "generate(unit, 'x', model=int8)": (usage, "The model gives the parameters of ternary_acc"),
        "generate('int8_mac', 'x', model=int8)": (usage, "int8_mac takes no model; generate int8_"),
        "generate('int8_lstm_layer', 'x', model='m.npz')": (usage, "The network must be a Network"),
        "generate('int8_lstm_layer', 'x', model=real)": (
            usage,
            "The model is a real one; quantise it first with 'fewbit.quantize'.",
        ),
        "load('no.npz')": (usage, "no.npz: there is no such file; give the path of a model."),
        "load('no.tflite')": (usage, "no.tflite: there is no such file; give the path of a model."),
        "load('no.onnx')": (usage, "no.onnx: there is no such file; give the path of a model."),
        "load('no.safetensors')": (usage, "no.safetensors: there is no such file; give the path"),
        "load('my--model.npz')": (usage, "my--model.npz: there is no such file; give the path"),
        "load('fewbit run --lstm.h5')": (usage, "'fewbit run --lstm.h5' is a Keras file; convert"),
        "load('two\\nlines.npz')": (usage, r"two\nlines.npz: there is no such file; give"),
        "load(b'no.npz')": (usage, "'path' must be a path, not b'no.npz'."),
        "load('no\\0.npz')": (usage, r"'path' must be a path, not 'no\x00.npz'."),
        "save(real, None)": (usage, "'path' must be a path, not None."),
        "save(real, 'x' * 300)": (usage, f"The system refused '{'x' * 290}"),
        "generate(unit, '\\ud800')": (usage, r"'out' must be a path, not '\ud800'."),
        "regress(unit, build=3)": (usage, "'build' must be a path, not 3."),
        "synthesize(unit, 'liberty', liberty=[])": (usage, "'liberty' must be a path, not []."),
        "synthesize(unit, 'liberty')": (usage, "Target liberty and 'liberty' go together; give"),
        "synthesize(unit, dsp='no')": (usage, "'dsp' must be True or False, not 'no'."),
        "generate(unit, 'x', image_inside=1)": (usage, "'image_inside' must be True or False,"),
        "run(real, x, real=0)": (usage, "'real' must be True or False, not 0."),
        "generate(unit, 'x', fixed=True)": (usage, "'fixed' is called 'image_inside' since 0.2;"),
        "generate('int8_lstm_layer', 'x', model=int8, parameters_inside=True)": (
            usage,
            "'parameters_inside' is called 'image_inside' since 0.2;",
        ),
        "quantize(real, x, 'ternary', scales='fixed')": (usage, "scales 'fixed' is called 'any' s"),
        "run(int8, x, gates='ifgo')": (usage, "Parameter 'gates' is called 'gate_order' since 0"),
        "quantize(real, x, [])": (usage, "There is no number system []; there are int8"),
        "quantize(real, x, pair)": (usage, "There is no number system array([1, 2]); there"),
        "quantize(real, x, 'ternary', activation_width=pair)": (
            usage,
            "'activation_width' must be from 4 to 16, not array([1, 2]).",
        ),
        "quantize(real, x, 'ternary', activation_width='99')": (
            usage,
            "'activation_width' must be from 4 to 16, not 99.",
        ),
        "find('int8_mac', products=pair)": (parameter, "Parameter 'products' must be 1 to "),
        "find('int8_mac', products=10**5000)": (parameter, "Parameter 'products' must be 1 to "),
        "find('int8_mac', structure=pair)": (parameter, "Parameter 'structure' must be gates or "),
        "find('two\\nlines')": (parameter, r"There is no design 'two\nlines'; there are "),
        "find(pair)": (usage, "The design must be a name, or what fewbit.find returns, not array("),
        "vectors(unit, pair)": (usage, "count must be a whole number from 1 to 100000000, not ar"),
        "vectors(unit, True)": (usage, "count must be a whole number from 1 to 100000000, not Tr"),
        "regress(unit, simulator=pair)": (usage, "simulator must be verilator or icarus, not arr"),
        "synthesize(unit, pair)": (usage, "Target must be one of gates, ice40"),
        "synthesize(unit, mapping=[])": (usage, "Mapping must be one of area, delay, not []."),
        "run(int8, x, backend=pair)": (usage, "The backend must be golden or rtl, not array([1,"),
        "load('no.tflite', activation=pair)": (usage, 'activation must be "table" or "gemmlowp"'),
        "load('no.pt')": (usage, "'no.pt' is a pickle, which may run anything; save its state"),
        "load('no.tflite', activation='x')": (usage, 'activation must be "table" or "gemmlowp"'),
        "load('no.npz', lstm=0)": (
            usage,
            "A .npz model has no LSTMs to choose from; leave 'lstm' out.",
        ),
        "save(3, 'x.npz')": (usage, "The network must be a Network, as fewbit.load returns it"),
        "save(real, '.')": (usage, "'.' is a folder; name a file in it."),
        "quantize(int8, x)": (usage, "The network is quantised already; give a real model."),
        "quantize(real, x, 'int9')": (usage, "There is no number system 'int9'; there are int8"),
        "quantize(real, x, foo=1)": (usage, "The quantiser to int8 has no option 'foo'; it has"),
        "quantize(real, x, scales='any')": (usage, "'scales' goes with 'to' ternary, binary or po"),
        "quantize(real, x, rounding='x')": (usage, "'rounding' must be "),
        "quantize(real, x[0])": (usage, "x must be numbers of shape (batch, time, inputs), not fl"),
        "quantize(real, [[[1], [1, 2]]])": (usage, "x must be numbers of shape (batch, time, in"),
        "quantize(real, x[:0])": (usage, "x must be numbers of shape (batch, time, inputs), not"),
        "quantize(real, x[..., :1])": (usage, "Calibration data must have 2 inputs, as the model"),
        "quantize(real, x * float('nan'))": (usage, "Calibration data must be finite, not nan at"),
        "run(real, 'x.npy')": (usage, "x must be numbers of shape (batch, time, inputs), not <U5"),
        "run(int8, x)": (usage, "The sequences must be integer raws from -128 to 127, not float64"),
        "run(int8, x[..., :1])": (usage, "The sequences must have 2 inputs, as the network has,"),
        "run(int8, x, real=True, lanes=2)": (
            usage,
            "The golden model has no lanes; choose 'backend' rtl.",
        ),
        "run(int8, x, backend='vhdl')": (usage, "The backend must be golden or rtl, not 'vhdl'."),
        "run(real, x, backend='rtl')": (usage, "The network is a real model; quantise it first w"),
        "run(int8, x, backend='rtl', real=True, foo=1)": (
            usage,
            "int8_lstm_layer has no parameter",
        ),
    }


@pytest.mark.parametrize("call", mistakes())
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, call):
    kind, sentence = mistakes()[call]
    monkeypatch.chdir(tmp_path)
    names = {name: getattr(fewbit, name) for name in FUNCTIONS}
    names |= {"unit": fewbit.find("ternary_accumulate", **SMALL), "real": real_network()}
    names |= {"x": sequences(2, 3, 2), "pair": np.array([1, 2])}
    names["int8"] = fewbit.quantize(names["real"], names["x"])
    with pytest.raises(kind) as caught:
        eval(call, names)
    text = str(caught.value)
    assert text.startswith(sentence)
    assert text.endswith(".")
    assert "\n" not in text
    assert "--" not in re.sub(r"my--model|fewbit run --lstm", "", text)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_and_texts_are_numbers():
    design = fewbit.find("ternary_accumulate", lanes=np.int64(2), activation_width="4")
    assert (design.parameters["lanes"], design.parameters["activation_width"]) == (2, 4)
    assert type(design.parameters["lanes"]) is int
    assert type(TernaryAccumulateContract(lanes=np.uint8(2)).lanes) is int  # pyright: ignore
    few = fewbit.vectors(design, np.int32(5), seed=np.int64(3))
    np.testing.assert_array_equal(few["result"], fewbit.vectors(design, 5, 3)["result"])
    network, x = real_network(), sequences(2, 3, 2)
    outputs = [
        fewbit.run(fewbit.quantize(network, x, "ternary", activation_width=width), x, real=True)
        for width in (8, "8", np.int64(8))
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "a--b"), "The system refused 'a--b': Permission"),
        (OSError(28, "No space left on device"), "The system refused: No space left on device."),
        (MemoryError(), "There is not enough memory for that many; take fewer."),
    ],
)
def test_what_the_system_refuses_is_a_mistake(monkeypatch, error, sentence):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("fewbit.reference_vectors.reference_vectors", refuse)
    with pytest.raises(fewbit.UsageError) as caught:
        fewbit.vectors("int8_mac")
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("failing", [1, 2])
def test_files_are_written_all_or_none(tmp_path, monkeypatch, there_before, failing):
    paths = [tmp_path / "folder" / name for name in ("a", "b")]
    if there_before:
        write_files(dict.fromkeys(paths, b"old"))
    replace, calls = Path.replace, []

    def fail(path: Path, target: Path) -> Path:
        if target in paths and not path.name.endswith("-old"):
            calls.append(target)
            if len(calls) == failing:
                raise OSError(5, "Input/output error", str(path))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(fewbit.UsageError, match=r"can't be written \(Input/output error\)"):
        write_files(dict.fromkeys(paths, b"new"))
    left = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    assert left == ({"a": b"old", "b": b"old"} if there_before else {})
    monkeypatch.undo()
    write_files(dict.fromkeys(paths, b"new"))
    left = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    assert left == {"a": b"new", "b": b"new"}


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_files({tmp_path / "written": b""})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
