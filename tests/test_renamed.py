"""Names given up in 0.2: each old one is refused, and the new one named."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fewbit.commands.cli import main
from fewbit.golden import renamed
from fewbit.golden.checks import check_choice
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.network import Network
from fewbit.golden.parameter import Parameter, ParameterError
from fewbit.golden.systems import SYSTEMS, Option
from fewbit.hdl.designs import DESIGNS, find


def refusal(capsys, *words):
    assert main([*words]) == 2
    out, err = capsys.readouterr()
    assert not out
    return err


@pytest.mark.parametrize(("old", "new"), renamed.FLAGS.items())
@pytest.mark.parametrize("value", [[], ["x"]])
def test_old_options(capsys, old, new, value):
    sentence = f"{old} is called {new} since 0.2; use that name.\n"
    assert refusal(capsys, "generate", "int8_lstm_layer", old, *value) == sentence
    assert refusal(capsys, "run", "model.npz", f"{old}=x") == sentence


def test_old_parameters(capsys):
    for old, new in renamed.PARAMETERS.items():
        owners = [d.name for d in DESIGNS.values() if new in [p.name for p in d.all_parameters]]
        assert owners
        for name in owners:
            assert refusal(capsys, "synth", name, "--set", f"{old}=1") == (
                f"Parameter '{old}' is called '{new}' since 0.2; use that name.\n"
            )
    # A design that has neither says what it has.
    assert "has no parameter 'gates'; it has" in refusal(
        capsys, "synth", "int8_mac", "--set", "gates=1"
    )


def test_old_choices(capsys):
    sentence = "scales 'fixed' is called 'any' since 0.2; use that name."
    words = ("--set", "scales=fixed")
    assert refusal(capsys, "synth", "ternary_lstm_layer", *words) == f"{sentence}\n"
    with pytest.raises(ValueError, match=sentence):
        TernaryLstmLayerContract(scales="fixed")
    quantize = ("quantize", "m.onnx", "--to", "ternary", "--calibrate", "x.npy", "--out", "o.npz")
    told = "--scales fixed is called --scales any since 0.2; use that name.\n"
    assert refusal(capsys, *quantize, "--scales", "fixed") == told
    assert refusal(capsys, *quantize, "--scales=fixed") == told
    for words in (["--scale", "fixed"], ["--sc=fixed"]):
        assert refusal(capsys, *quantize, *words) == told


@pytest.mark.parametrize("flag", ["--fix", "--fix=1"])
def test_abbreviations_of_old_options(capsys, flag):
    sentence = "--fixed is called --image-inside since 0.2; use that name.\n"
    assert refusal(capsys, "generate", "int8_lstm_layer", flag) == sentence


def test_nothing_is_an_option_after_two_hyphens(capsys):
    told = refusal(capsys, "generate", "int8_mac", "--", "--fixed")
    assert told.startswith("There is no design '--fixed'; there are ")


def test_what_a_plug_in_calls_so_is_no_old_name(capsys, monkeypatch):
    parameter = Parameter("gates", 1, "the number of gates", 1, 4)
    own = replace(DESIGNS["int8_mac"], name="own", build=(parameter,))
    assert "must be 1 to 4, not 5" in _mistake(lambda: own.configure({"gates": 5}))
    check_choice("scales", "fixed", ("fixed", "any"))
    word = replace(parameter, name="scales", default="any", choices=("fixed", "any"))
    assert word.take("fixed") == "fixed"
    options = (Option("fixed", "a number", 1), Option("gates", "a number", 1))
    system = replace(SYSTEMS["floatsd8"], name="own", options=options, quantize=_quantise)
    monkeypatch.setitem(SYSTEMS, "own", system)
    words = ("quantize", "m.npz", "--to", "own", "--calibrate", "x.npy", "--out", "o.npz")
    told = refusal(capsys, *words, "--fixed", "2", "--gates=3")
    assert told == "m.npz: there is no such file; give the path of a model.\n"


def _mistake(call: Callable[[], object]) -> str:
    with pytest.raises(ParameterError) as caught:
        call()
    return str(caught.value)


def _quantise(*_: object, **__: object) -> Network:
    raise AssertionError


def test_what_is_new_is_there():
    parameters = {p.name: p for p in find("ternary_lstm_layer").all_parameters}
    for new in renamed.PARAMETERS.values():
        assert new in parameters
    for (name, _), new in renamed.VALUES.items():
        assert new in parameters[name].choices
