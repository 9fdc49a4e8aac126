"""Files of trained models: what is written comes back, any reader of networks takes them."""

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fewbit
from fewbit.commands import cli
from fewbit.golden.files.archive import LARGEST_FILE
from fewbit.golden.files.model import Model, ReadOut, save_model
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.files.trained import (
    TrainedModel,
    find_trained,
    load_trained,
    save_trained,
    with_network,
)
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.network import Network, Node
from fewbit.golden.systems import SYSTEMS
from tests.support.damage import damage

NAMES = ("a", "é", "\n", "\N{REPLACEMENT CHARACTER}", "long word")


def layer(inputs: int = 3, hidden: int = 4, seed: int = 0) -> Float64Lstm:
    rng = np.random.default_rng(seed)
    return Float64Lstm(
        rng.normal(size=(4, hidden, inputs)),
        rng.normal(size=(4, hidden, hidden)),
        rng.normal(size=(4, hidden)),
    )


def trained(seed: int = 0) -> TrainedModel:
    rng = np.random.default_rng(seed)
    nodes = (Node(layer()), Node(layer(seed=1), reverse=True))
    return TrainedModel(
        Network(nodes, outputs=(0, 1)),
        ReadOut(rng.normal(size=(2, 8)), rng.normal(size=2), "every"),
        embedding=rng.normal(size=(5, 3)),
        task="tagging",
        symbols=NAMES,
        classes=("noun", "verb"),
    )


def one_hot() -> TrainedModel:
    return TrainedModel(
        Network((Node(layer()),)),
        ReadOut(np.ones((3, 4)), np.ones(3)),
        symbols=("x", "y", "z"),
        classes=("x", "y", "z"),
    )


def bare() -> TrainedModel:
    return TrainedModel(Network((Node(layer()),)), ReadOut(np.ones((2, 4)), np.ones(2), "mean"))


MODELS = {"embedding": trained, "one-hot": one_hot, "reals": bare}


def assert_same(one: TrainedModel, other: TrainedModel) -> None:
    for name in ("task", "symbols", "classes"):
        assert getattr(one, name) == getattr(other, name)
    assert one.read_out.pooling == other.read_out.pooling
    np.testing.assert_array_equal(one.read_out.weights, other.read_out.weights)
    np.testing.assert_array_equal(one.read_out.bias, other.read_out.bias)
    assert (one.embedding is None) == (other.embedding is None)
    if one.embedding is not None:
        np.testing.assert_array_equal(one.embedding, other.embedding)
    assert one.network.outputs == other.network.outputs
    x = np.random.default_rng(3).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(run(one.network, x), run(other.network, x))


def run(network: Network, x: np.ndarray) -> np.ndarray:
    return fewbit.run(network, x, real=True)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_what_is_saved_comes_back_byte_for_byte(tmp_path, make):
    path = tmp_path / "model.npz"
    save_trained(path, make())
    first = path.read_bytes()
    loaded = load_trained(path)
    assert_same(loaded, make())
    save_trained(path, loaded)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]


def test_a_reader_of_networks_takes_it(tmp_path):
    path = tmp_path / "model.npz"
    save_trained(path, trained())
    x = np.random.default_rng(3).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(run(load_network(path), x), run(trained().network, x))
    np.testing.assert_array_equal(run(fewbit.load(path), x), run(trained().network, x))


def test_what_has_no_read_out_is_no_trained_model(tmp_path):
    path = tmp_path / "network.npz"
    save_network(path, trained().network)
    assert find_trained(path) is None
    with pytest.raises(ValueError, match="has no read-out, so that it gives no scores; take"):
        load_trained(path)
    save_model(path, Model(layer()))
    assert find_trained(path) is None
    save_model(path, Model(layer(), bare().read_out))
    assert_same(load_trained(path), bare())


def test_inputs_are_rows_of_the_embedding_one_hot_or_themselves():
    symbols = np.array([[0, 2], [1, 1]], np.int32)
    embedding = trained().embedding
    assert embedding is not None
    np.testing.assert_array_equal(trained().inputs_of(symbols), embedding[symbols])
    np.testing.assert_array_equal(one_hot().inputs_of(symbols), np.eye(3)[symbols])
    reals = np.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(bare().inputs_of(reals), reals)


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (one_hot, [[0, 3]], "Symbols must be from 0 to 2, not 3."),
        (trained, [[-1]], "Symbols must be from 0 to 4, not -1."),
        (trained, [[0.5]], "Symbols must be whole numbers, not float64."),
        (trained, [0], "x must have the shape (any, any), not (1,)."),
        (bare, [[0]], "x must have the shape (any, any, 3), not (1, 1)."),
    ],
)
def test_wrong_inputs_are_refused(make, x, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        make().inputs_of(x)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"read_out": ReadOut(np.ones((2, 3)), np.ones(2))},
            "The read-out must have 8 hidden values, as the network has, not 3.",
        ),
        ({"embedding": np.ones((5, 2))}, "embedding must have the shape (5, 3), not (5, 2)."),
        ({"embedding": np.ones((4, 3))}, "embedding must have the shape (5, 3), not (4, 3)."),
        ({"embedding": np.full((5, 3), np.nan)}, "embedding must be finite, not nan."),
        ({"embedding": None}, "There must be 3 symbols, as the network has inputs, not 5."),
        ({"classes": ("noun",)}, "There must be 2 classes, as the read-out has, not 1."),
        (
            {"classes": ("noun", "noun")},
            "The names of classes must differ, but 'noun' is there twice.",
        ),
        ({"symbols": ("",) * 5}, "The names of symbols must not be empty."),
        (
            {"symbols": (*NAMES[:4], "\ud800")},
            "The names of symbols must be text that UTF-8 holds, not '\\ud800'.",
        ),
        (
            {"task": "No Task"},
            "task must be at most 32 small letters, digits and _, not 'No Task'.",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        replace(trained(), **changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("read_out_bias", None, "read_out_bias is missing;"),
        ("read_out_pooling", np.array("max"), 'read_out_pooling must be "last" or "mean" or "eve'),
        ("surprise", np.ones(2), "the file 'surprise' in the archive is unknown"),
        ("embedding", np.ones((4, 3)), "symbol_lengths must be int32 of shape (symbols,), wher"),
        ("embedding", np.ones((5, 3), np.int8), "embedding must be float32 or float64 of shape"),
        ("symbol_lengths", None, "symbol_letters and symbol_lengths go together;"),
        ("symbol_lengths", np.ones(5, np.int32), "symbol_lengths must be at least 1 and together"),
        ("class_lengths", np.array([9, -1], np.int32), "class_lengths must be at least 1 and tog"),
        ("class_lengths", np.array([2**31 - 1] * 2, np.int32), "class_lengths must be at least 1"),
        ("class_letters", np.full(8, 255, np.uint8), "class_letters must be names in UTF-8;"),
        ("class_lengths", np.ones(3, np.int32), "class_lengths must be int32 of shape (classes,)"),
        ("task", np.array("x" * 33), "task must be text of shape (), not <U33 of shape ();"),
        ("task", np.array("Ä"), "task must be at most 32 small letters, digits and _, not 'Ä';"),
        ("read_out_weights", np.ones((2, 7)), "The read-out must have 8 hidden values, as the n"),
    ],
)
def test_a_wrong_array_is_refused(tmp_path, name, value, message):
    good, path = tmp_path / "good.npz", tmp_path / "model.npz"
    save_trained(good, trained())
    with np.load(good, allow_pickle=False) as stored:
        arrays = dict(stored)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text's beginning is compared
        load_trained(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "arrays"])
def test_damage_never_gets_through_as_anything_but_a_sentence(tmp_path, packed):
    """Bytes changed, cut or added: a model or one sentence, and no warning."""
    rng = np.random.default_rng(5)
    good, path = tmp_path / "good.npz", tmp_path / "model.npz"
    save_trained(good, trained())
    content = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    own = [name for name in members if not name.startswith("node")]
    refusals = 0
    for _ in range(300):
        name = str(rng.choice(own))
        damaged = damage(rng, content if packed else members[name])
        if packed:
            path.write_bytes(damaged)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for member, bytes_ in members.items():
                    archive.writestr(member, bytes(damaged) if member == name else bytes_)
        for read in (load_trained, load_network):
            try:
                read(path)
            except ValueError as error:
                assert re.fullmatch(f"{path}: .+", str(error))  # noqa: PT017 - not all are refused
                refusals += 1
    assert refusals > 200


def test_the_words_of_wikitext_fit(tmp_path):
    """33,278 words, two layers of 200 units: the paper set-up of the task of words."""
    words, hidden = 33_278, 200
    rng = np.random.default_rng(0)

    def reals(*shape: int) -> np.ndarray:
        # Trained numbers are float32.
        return rng.normal(size=shape).astype(np.float32)

    def made() -> Float64Lstm:
        return Float64Lstm(reals(4, hidden, hidden), reals(4, hidden, hidden), reals(4, hidden))

    names = tuple(f"word {number}" for number in range(words))
    model = TrainedModel(
        Network((Node(made()), Node(made(), (0,)))),
        ReadOut(reals(words, hidden), reals(words), "every"),
        embedding=reals(words, hidden),
        task="words",
        symbols=names,
        classes=names,
    )
    path = tmp_path / "words.npz"
    save_trained(path, model)
    assert path.stat().st_size < LARGEST_FILE
    loaded = load_trained(path)
    assert loaded.symbols == names
    assert loaded.embedding is not None
    np.testing.assert_array_equal(loaded.embedding, model.embedding)


def int8_of(model: TrainedModel) -> TrainedModel:
    x = np.random.default_rng(1).normal(size=(8, 6, 3))
    return with_network(model, SYSTEMS["int8"].quantize(model.network, x))


def test_another_network_must_have_the_same_ends():
    assert int8_of(trained()).network.quantised
    with pytest.raises(ValueError, match="The network must have 3 inputs, as the trained model"):
        with_network(trained(), Network((Node(layer(inputs=2)),)))
    with pytest.raises(ValueError, match="The read-out must have 4 hidden values"):
        with_network(trained(), Network((Node(layer()),)))


def test_quantize_and_calibrate_keep_the_read_out(tmp_path, capsys):
    real, quantised, dynamic = (str(tmp_path / f"{name}.npz") for name in "abc")
    model = replace(trained(), network=Network((Node(layer(hidden=8)),)))
    save_trained(real, model)
    x = tmp_path / "x.npy"
    np.save(x, np.random.default_rng(1).normal(size=(4, 6, 3)))
    quantize = ["quantize", real, "--to", "int8", "--calibrate", str(x), "--out", quantised]
    assert cli.main(quantize) == 0
    calibrate = ["calibrate", quantised, "--data", str(x), "--real", "--share", "0.5"]
    assert cli.main([*calibrate, "--out", dynamic]) == 0
    for path in (quantised, dynamic):
        found = load_trained(path)
        assert_same(replace(found, network=model.network), model)
        assert found.network.quantised
    capsys.readouterr()


def test_save_keeps_the_read_out_of_the_model_that_it_is_told(tmp_path):
    path, bare_path = tmp_path / "trained.npz", tmp_path / "network.npz"
    save_trained(path, trained())
    network = fewbit.load(path)
    assert find_trained(fewbit.save(network, bare_path)) is None
    fewbit.save(network, bare_path, like=path)
    assert bare_path.read_bytes() == Path(path).read_bytes()
