"""Signals of dynamic precision on trained models: rows by hand, shares, controls and refusals."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewbit.accuracy import precision
from fewbit.accuracy.precision import CONTROLS, SIGNALS, precision_rows
from fewbit.errors import UsageError
from fewbit.evaluation import evaluate, plan
from fewbit.golden.files.model import ReadOut
from fewbit.golden.files.trained import TrainedModel, load_trained, save_trained, with_network
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.network import Network, Node
from fewbit.golden.systems import SYSTEMS
from fewbit.train.tasks import TASKS

WORDS = ("<pad>", "<unk>", "a", "b", "c", "d", "e")
TAGS = ("ONE", "TWO", "TRE")
HIDDEN = 12


def layer(inputs: int, seed: int) -> Float64Lstm:
    rng = np.random.default_rng(seed)
    return Float64Lstm(
        rng.normal(size=(4, HIDDEN, inputs)),
        rng.normal(size=(4, HIDDEN, HIDDEN)),
        rng.normal(size=(4, HIDDEN)),
    )


def tagger() -> TrainedModel:
    """Two layers in both directions."""
    rng = np.random.default_rng(5)
    first = (Node(layer(4, 0)), Node(layer(4, 1), reverse=True))
    second = tuple(Node(layer(2 * HIDDEN, 2 + back), (0, 1), reverse=bool(back)) for back in (0, 1))
    return TrainedModel(
        Network((*first, *second), (2, 3)),
        ReadOut(rng.normal(size=(3, 2 * HIDDEN)), rng.normal(size=3), "every"),
        embedding=rng.normal(size=(len(WORDS), 4)),
        task="tagging",
        symbols=WORDS,
        classes=TAGS,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sentences of 1 to 20 words."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        sentences = [
            "".join(f"{WORDS[2 + w]}\t{TAGS[(w + n) % 3]}\n" for n, w in enumerate(words))
            for words in (rng.integers(0, 5, rng.integers(1, 21)) for _ in range(40))
        ]
        (folder / f"{name}.tsv").write_text("\n".join(sentences))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    real = tagger()
    int8 = SYSTEMS["int8"].quantize(real.network, rng.normal(size=(8, 12, 4)))
    path = tmp_path / "model.npz"
    save_trained(path, with_network(real, int8))
    return path


def only(rows: list[dict], **fields) -> list[dict]:
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def figure_of(model: Path, data: Path, **registers) -> tuple[float, float]:
    """Figure and loss by ``fewbit evaluate``, in which sentences of a length run unpadded."""
    trained = load_trained(model)
    nodes = []
    for number, node in enumerate(trained.network.nodes):
        assert isinstance(node.lstm, Int8Lstm)
        own = {name: value(number) for name, value in registers.items()}
        nodes.append(replace(node, lstm=replace(node.lstm, **own)))
    trained = with_network(trained, Network(tuple(nodes), trained.network.outputs))
    found = evaluate(plan(trained, TASKS["tagging"], data))
    return found.figure, found.loss


@pytest.mark.parametrize("signal", ["cell_change", "output_gate", "all_low"])
def test_rows_are_what_the_layers_compute_with_these_registers(model, data, signal):
    named = [signal] if signal in SIGNALS else []
    rows = precision_rows(model, "tagging", data, shares=[0.5], signals=named)
    whole = only(rows, signal="all_high")[0]
    assert (whole["figure"], whole["share"]) == (figure_of(model, data)[0], 0)
    without = [each for each in rows if not each["offsets"] and each["layer"] is None]
    row = only(without, signal=signal)[0]
    thresholds = row["thresholds"] or [0] * 4
    figure, loss = figure_of(
        model,
        data,
        precision_signal=lambda number: signal if named else "cell_change",
        precision_threshold=lambda number: math.floor(thresholds[number]),
        precision_hold=lambda number: len(named),
    )
    assert row["figure"] == figure
    assert row["loss"] == pytest.approx(loss, abs=1e-12)
    assert row["difference"] == figure - whole["figure"]
    assert row["loss_difference"] == pytest.approx(loss - whole["loss"], abs=1e-12)
    assert row["loss"] != whole["loss"]


def test_every_signal_reaches_its_share_in_all_and_in_single_layers(model, data):
    rows = precision_rows(model, "tagging", data, shares=[0.6, 0.99], seeds=2)
    assert {row["signal"].partition(":")[0] for row in rows} == {
        "all_high",
        "all_low",
        *SIGNALS,
        *CONTROLS,
    }
    wanted = [row for row in rows if row["share_wanted"] == 0.6]
    for row in wanted:
        # There are few sentences, and a unit is a twelfth.
        assert row["share"] == pytest.approx(row["share_wanted"], abs=0.08), row
    most = only(rows, signal="all_low", layer=None, offsets=True)[0]["share"]
    assert not only(rows, share_wanted=0.99)
    assert max(row["share"] for row in rows) == most < 0.99
    for depth in (0, 1):
        few = only(rows, layer=depth, share_wanted=0.6)
        assert {row["signal"] for row in few} == {"cell_change", "output_gate", "random", "units"}
        assert {len(row["thresholds"]) for row in few if row["thresholds"]} == {2}
    random = only(rows, signal="random", share_wanted=0.6, layer=None, offsets=True)
    assert [row["seed"] for row in random] == [0, 1]
    assert random[0]["loss"] != random[1]["loss"]
    again = precision_rows(model, "tagging", data, shares=[0.6], signals=["random"], seeds=2)
    assert only(again, signal="random", layer=None, offsets=True) == random


def test_units_that_no_score_depends_on_are_low_first(model, data):
    """A read-out that sees half of the last layer's units, and nothing else, shows which matter."""
    trained = load_trained(model)
    nodes = list(trained.network.nodes)
    for index in (2, 3):
        lstm = nodes[index].lstm
        assert isinstance(lstm, Int8Lstm)
        weights = lstm.recurrent_weights.copy()
        weights[:, :, HIDDEN // 2 :] = 0
        nodes[index] = replace(nodes[index], lstm=replace(lstm, recurrent_weights=weights))
    seen = trained.read_out.weights.copy()
    seen[:, HIDDEN // 2 : HIDDEN] = seen[:, HIDDEN + HIDDEN // 2 :] = 0
    network = Network(tuple(nodes), trained.network.outputs)
    half = replace(trained, network=network, read_out=replace(trained.read_out, weights=seen))
    save_trained(model, half)
    study = precision._Study.of(model, TASKS["tagging"], data, None, 1.0)
    study.network = study.plain
    for importance in study._importance()[2:]:
        assert (importance[: HIDDEN // 2] > 0).all()
        assert (importance[HIDDEN // 2 :] == 0).all()
        assert precision._most(importance, 0.5).tolist() == [True] * 6 + [False] * 6


def test_a_real_model_is_quantised_and_its_weights_may_saturate(tmp_path, data):
    path = tmp_path / "real.npz"
    save_trained(path, tagger())
    tried: dict[str, Any] = {"shares": [0.5], "signals": ["units"], "sequences": 7}
    plain = precision_rows(path, "tagging", data, **tried)
    clipped = precision_rows(path, "tagging", data, clip=0.5, **tried)
    assert {row["sequences"] for row in plain} == {7}
    assert [row["clip"] for row in (plain[0], clipped[0])] == [1, 0.5]
    assert plain[0]["loss"] != clipped[0]["loss"]


def test_refusals(tmp_path, model, data):
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"signals": ["cell"]}, "There is no signal cell; there are cell_change, "),
        ({"shares": [0.5, 1.0]}, r"The shares must be above 0 and below 1, not \[0\.5, 1\.0\]\."),
        ({"clip": 0.0}, r"clip must be above 0 and at most 1, not 0\.0\."),
        ({"clip": 0.5}, "is quantised, so that clip must be 1; take a real model"),
    )
    for change, text in wrong:
        with pytest.raises(UsageError, match=text):
            precision_rows(model, "tagging", data, **change)
    other = tmp_path / "other.npz"
    network = SYSTEMS["floatsd8"].quantize(
        tagger().network, np.random.default_rng(0).normal(size=(2, 3, 4))
    )
    save_trained(other, with_network(tagger(), network))
    with pytest.raises(UsageError, match="must be an int8 model of four gates, or a real one"):
        precision_rows(other, "tagging", data)
