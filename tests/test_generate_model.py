"""`fewbit generate --model`: the layers of a model, with image, header and packer."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from fewbit.golden.files.model import Model, save_model
from fewbit.golden.files.network import save_network
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.network import Network, Node
from tests.support.commands import run
from tests.support.int8_cases import SIZES, Variant, random_case

EVERYTHING = Variant(coupled=True, peephole=True, norm=True, projection=True)


def model_of(seed=3, variant=EVERYTHING):
    assert "trained" in SIZES
    return random_case(seed, exponent=-12, sizes="trained", variant=variant).model


def files_of(folder):
    if not folder.exists():
        return []
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.*"))


NAMES = [
    "int8_lstm_layer.bin",
    "int8_lstm_layer.h",
    "int8_lstm_layer.json",
    "int8_lstm_layer.v",
    "int8_lstm_layer_constants.npz",
    "int8_lstm_layer_network.json",
    "int8_lstm_layer_pack.py",
]


@pytest.mark.long
def test_the_layer_of_a_model(capsys, tmp_path):
    lstm = model_of()
    save_model(tmp_path / "model.npz", Model(lstm))
    words = ("int8_lstm_layer", "--model", tmp_path / "model.npz", "--set", "lanes=2", "neurons=2")
    status, out, err = run(capsys, "generate", *words, "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    assert files_of(tmp_path / "out") == NAMES
    assert len(out.splitlines()) == len(NAMES)

    layer = Int8LstmLayerContract.of(lstm, lanes=2, neurons=2)
    image = (tmp_path / "out/int8_lstm_layer.bin").read_bytes()
    assert image == layer.pack(lstm.constants)
    sheet = json.loads((tmp_path / "out/int8_lstm_layer.json").read_text())
    assert sheet["parameters"] == layer.settings | {
        "dynamic": 0,
        "signal": "cell_change",
        "structure": "gates",
    }
    assert sheet["image"]["size"] == len(image)
    sections = sheet["image"]["sections"]
    assert (
        sections[-1]["offset"] + sections[-1]["words"] * sections[-1]["word_bytes"]
        == len(image) - 2
    )
    # The packer, which knows nothing of this package, makes the image of the constants.
    packed = tmp_path / "packed.bin"
    command = [sys.executable, "-I", "int8_lstm_layer_pack.py", "int8_lstm_layer_constants.npz"]
    subprocess.run([*command, packed], cwd=tmp_path / "out", check=True)
    assert packed.read_bytes() == image


@pytest.mark.long
def test_the_layers_of_a_network_have_names_of_their_own(capsys, tmp_path):
    lstm = model_of(variant=Variant())
    nodes = (Node(lstm), Node(lstm, reverse=True, name="back"))
    save_network(tmp_path / "network.npz", Network(nodes, (0, 1)))
    words = ("int8_lstm_layer", "--model", tmp_path / "network.npz", "--out", tmp_path / "out")
    assert run(capsys, "generate", *words)[0] == 0
    expected = [
        name.replace("layer", f"layer{k}", 1)
        for k in range(2)
        for name in NAMES
        if "net" not in name
    ]
    assert files_of(tmp_path / "out") == sorted([*expected, "int8_lstm_layer_network.json"])
    network = json.loads((tmp_path / "out/int8_lstm_layer_network.json").read_text())
    first, second = network["layers"]
    assert network["outputs"] == ["int8_lstm_layer0", "int8_lstm_layer1"]
    assert (first["sources"], first["reverse"]) == (["input"], False)
    assert (second["name"], second["reverse"]) == ("back", True)
    assert first["input"] == {"scale": lstm.input_scale, "zero_point": lstm.input_zero_point}
    modules = [
        set(
            re.findall(r"^module (\w+)", (tmp_path / f"out/int8_lstm_layer{k}.v").read_text(), re.M)
        )
        for k in range(2)
    ]
    assert not modules[0] & modules[1]


def test_a_layer_with_its_image_inside(capsys, tmp_path):
    save_model(tmp_path / "model.npz", Model(model_of(variant=Variant())))
    words = ("int8_lstm_layer", "--model", tmp_path / "model.npz", "--image-inside")
    assert run(capsys, "generate", *words, "--out", tmp_path / "out")[0] == 0
    text = (tmp_path / "out/int8_lstm_layer.v").read_text()
    image = (tmp_path / "out/int8_lstm_layer.bin").read_bytes()
    contract = Int8LstmLayerContract.of(model_of(variant=Variant()))
    offset = contract.plan.offset("weights")
    word = image[offset : offset + 4]
    assert f"weights[0] = 32'h{int.from_bytes(word, 'little'):08x};" in text
    assert "is_right" not in text
    assert "the image is inside" in text
    sheet = json.loads((tmp_path / "out/int8_lstm_layer.json").read_text())
    assert sheet["image_inside"] is True


def test_mistakes_are_told_in_a_sentence(capsys, tmp_path):
    save_model(tmp_path / "model.npz", Model(model_of(variant=Variant())))
    single = dataclasses.replace(model_of(variant=Variant()), rounding="single")
    save_model(tmp_path / "single.npz", Model(single))
    model = ("--model", tmp_path / "model.npz")
    for words, sentence in (
        (("int8_lstm_layer", *model, "--set", "hidden=3"), "Parameter 'hidden' follows from"),
        (("floatsd8_mac", *model), "floatsd8_mac takes no model"),
        (("ternary_accumulate", *model), "ternary_accumulate takes no model"),
        (("int8_lstm_layer", "floatsd8_mac", *model), "Name one design with --model"),
        (("int8_lstm_layer", "--image-inside"), "--image-inside goes with --model"),
        (("int8_lstm_layer", "--model", tmp_path / "single.npz"), "rounding 'double'"),
        (("int8_lstm_layer", "--model", tmp_path / "none.npz"), "none.npz"),
        (("int8_lstm_layer", *model, "--set", "lanes=65"), "lanes"),
    ):
        status, out, err = run(capsys, "generate", *words, "--out", tmp_path / "out")
        assert (status, out) == (2, "")
        assert sentence in err
        assert len(err.strip().splitlines()) == 1
        assert files_of(tmp_path / "out") == []


def test_the_constants_are_those_of_the_model(capsys, tmp_path):
    lstm = model_of()
    save_model(tmp_path / "model.npz", Model(lstm))
    words = ("int8_lstm_layer", "--model", tmp_path / "model.npz", "--out", tmp_path / "out")
    assert run(capsys, "generate", *words)[0] == 0
    with np.load(tmp_path / "out/int8_lstm_layer_constants.npz") as file:
        np.testing.assert_array_equal(file["input_weights"], lstm.input_weights)
        np.testing.assert_array_equal(file["peephole_weights"], lstm.constants.peephole_weights)
