"""Names given up in 0.2: each old one is refused, and the new one named."""

import pytest

from fewbit.commands.cli import main
from fewbit.golden import renamed
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
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


def test_what_is_new_is_there():
    parameters = {p.name: p for p in find("ternary_lstm_layer").all_parameters}
    for new in renamed.PARAMETERS.values():
        assert new in parameters
    for (name, _), new in renamed.VALUES.items():
        assert new in parameters[name].choices
