"""``fewbit evaluate``: figures by hand, every number system, golden and RTL, and refusals."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fewbit as door
from fewbit import evaluation
from fewbit.commands import cli
from fewbit.evaluation import evaluate, plan
from fewbit.golden.files.model import Model, ReadOut, save_model
from fewbit.golden.files.network import save_network
from fewbit.golden.files.trained import TrainedModel, save_trained, with_network
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.network import Network, Node, run_on
from fewbit.golden.systems import SYSTEMS
from fewbit.train.tasks import TASKS, Data, Split, Task
from fewbit.train.tasks.characters import OTHER
from fewbit.train.tasks.vocabulary import UNKNOWN
from fewbit.train.tasks.words import END, STREAMS
from tests.support.commands import run as fewbit

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TEXT = "the cat sat on the mat and the dog sat on the log. " * 60
ALPHABET = (OTHER, *sorted(set(TEXT)))


def layer(inputs: int, hidden: int = 6, seed: int = 0) -> Float64Lstm:
    rng = np.random.default_rng(seed)
    return Float64Lstm(
        rng.normal(size=(4, hidden, inputs)),
        rng.normal(size=(4, hidden, hidden)),
        rng.normal(size=(4, hidden)),
    )


def of_characters(seed: int = 0) -> TrainedModel:
    rng = np.random.default_rng(seed)
    count = len(ALPHABET)
    return TrainedModel(
        Network((Node(layer(4)), Node(layer(6, seed=1), (0,)))),
        ReadOut(rng.normal(size=(count, 6)), rng.normal(size=count), "every"),
        embedding=rng.normal(size=(count, 4)),
        task="characters",
        symbols=ALPHABET,
        classes=ALPHABET,
    )


def of_order(hidden: int = 6) -> TrainedModel:
    rng = np.random.default_rng(1)
    return TrainedModel(
        Network((Node(layer(8, hidden)),)),
        ReadOut(rng.normal(size=(8, hidden)), rng.normal(size=8)),
        task="temporal_order",
    )


def quantised(model: TrainedModel, system: str) -> TrainedModel:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(8, 12, model.network.inputs))
    return with_network(model, SYSTEMS[system].quantize(model.network, x))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def by_hand(model: TrainedModel, x: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The mean loss and the accuracy of all steps, one label after the other, with math alone."""
    network = model.network
    hidden = door.run(network, model.inputs_of(x), real=True)
    losses, hits = [], 0
    for vector, label in zip(hidden.reshape(-1, network.width), labels.ravel(), strict=True):
        scores = [
            math.fsum(w * v for w, v in zip(row, vector, strict=True)) + bias
            for row, bias in zip(model.read_out.weights, model.read_out.bias, strict=True)
        ]
        losses.append(math.log(math.fsum(map(math.exp, scores))) - scores[label])
        hits += scores.index(max(scores)) == label
    return math.fsum(losses) / len(losses), hits / len(losses)


@pytest.mark.parametrize("system", [None, *SYSTEMS])
def test_the_figure_is_that_by_hand(text, system):
    model = of_characters() if system is None else quantised(of_characters(), system)
    planned = plan(model, TASKS["characters"], text, sequences=2)
    found = evaluate(planned)
    part = planned.chosen
    loss, accuracy = by_hand(model, part.x, part.labels)
    assert found.loss == pytest.approx(loss, rel=1e-12)
    assert found.accuracy == pytest.approx(accuracy, rel=1e-12)
    assert found.figure == pytest.approx(loss / math.log(2), rel=1e-12)
    assert (found.sequences, found.labels, found.steps) == (2, 198, 198)
    assert (found.metric, found.unit, found.backend) == ("bits", "bits a label", "golden")
    assert found.system == model.network.nodes[0].lstm.title
    # The check can fail: another embedding gives another figure.
    assert model.embedding is not None
    other = replace(model, embedding=model.embedding[::-1])
    assert evaluate(replace(planned, model=other)).loss != pytest.approx(loss, rel=1e-3)


def test_chunks_change_nothing(text, monkeypatch):
    model = of_characters()
    planned = plan(model, TASKS["characters"], text, split="validation")
    whole = evaluate(planned)
    monkeypatch.setattr(evaluation, "_SEQUENCES", 2)
    monkeypatch.setattr(evaluation, "_SCORES", 7 * len(ALPHABET))
    split = plan(model, TASKS["characters"], text, split="validation")
    assert (len(planned.chunks), len(split.chunks)) == (1, 2)
    calls = []
    again = evaluate(split, lambda: calls.append(1))
    assert len(calls) == 2
    assert again.loss == pytest.approx(whole.loss, rel=1e-12)
    assert (again.accuracy, again.labels) == (whole.accuracy, whole.labels)
    monkeypatch.setattr(evaluation, "_NUMBERS", 1)
    assert [len(chunk.sequences) for chunk in replace(split).chunks] == [1, 1, 1]


def of_lengths(per_step: bool) -> tuple[Task, Data]:
    """A task of real vectors with sequences of many lengths."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(1, 9, 40)
    x = rng.normal(size=(40, 9, 3)).astype(np.float32)
    labels = rng.integers(0, 2, (40, 9) if per_step else 40)
    split = Split(x, lengths, labels)
    data = Data(split, split, split, 3, 2)
    order = TASKS["temporal_order"]
    task = replace(order, per_step=per_step, load=lambda path, setup, names=None: data)
    return task, data


@pytest.mark.parametrize("pooling", ["last", "mean", "every"])
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_is_never_seen(pooling, reverse):
    """Sequences of many lengths together, in both directions, and each alone, without padding."""
    rng = np.random.default_rng(3)
    nodes = (Node(layer(3)), Node(layer(3, seed=1), reverse=reverse))
    network = Network(nodes, outputs=(0, 1))
    model = TrainedModel(network, ReadOut(rng.normal(size=(2, 12)), rng.normal(size=2), pooling))
    per_step = pooling == "every"
    task, data = of_lengths(per_step)
    planned = plan(model, task, None)
    chunks = [chunk.sequences for chunk in planned.chunks]
    for chunk in chunks:
        assert not reverse or len(set(data.test.lengths[chunk].tolist())) == 1
    assert sorted(np.concatenate(chunks).tolist()) == list(range(40))
    hits = labels = 0
    for x, length, wanted in zip(data.test.x, data.test.lengths, data.test.labels, strict=True):
        hidden = door.run(network, x[np.newaxis, :length])
        scores = model.read_out.scores(hidden, np.array([length]))[0]
        hits += int((scores.argmax(axis=-1) == (wanted[:length] if per_step else wanted)).sum())
        labels += int(length) if per_step else 1
    found = evaluate(planned)
    assert (found.labels, found.accuracy) == (labels, hits / labels)


@pytest.mark.parametrize("system", [None, *SYSTEMS])
def test_a_stream_goes_on_from_window_to_window(tmp_path, monkeypatch, system):
    rng = np.random.default_rng(5)
    words = (UNKNOWN, END, *"abcdefg")
    text = tmp_path / "text.txt"
    text.write_text(" ".join(rng.choice(list(words[2:]), 2000)).replace("g", "g\n"))
    model = TrainedModel(
        Network((Node(layer(4)), Node(layer(6, seed=1), (0,)))),
        ReadOut(rng.normal(size=(9, 6)), rng.normal(size=9), "every"),
        embedding=rng.normal(size=(9, 4)),
        symbols=words,
        classes=words,
    )
    model = model if system is None else quantised(model, system)
    monkeypatch.setattr(evaluation, "_WINDOW", 5)
    planned = plan(model, TASKS["words"], text)
    steps = planned.chosen.x.shape[1]
    assert planned.chosen.x.shape[0] == STREAMS
    assert planned.parts == -(-steps // 5) > 3
    calls = []
    found = evaluate(planned, lambda: calls.append(1))
    assert len(calls) == planned.parts
    loss, accuracy = by_hand(model, planned.chosen.x, planned.chosen.labels)
    assert found.loss == pytest.approx(loss, rel=1e-12)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.figure == pytest.approx(math.exp(loss), rel=1e-12)
    # Each window from reset would give another figure.
    monkeypatch.setattr(evaluation, "run_on", lambda network, x, states: run_on(network, x))
    assert evaluate(planned).loss != pytest.approx(loss, rel=1e-6)
    # The circuit runs whole streams, the first steps of each.
    monkeypatch.setattr(evaluation, "check_sequences", lambda *_, **__: None)
    short = plan(model, TASKS["words"], text, kind="rtl", steps=7, sequences=3)
    assert [chunk.windows for chunk in short.chunks] == [(slice(0, 7),)]
    assert short.chosen.labels.shape == (3, 7)


def test_what_decides_at_run_time_runs_whole_sequences():
    model = quantised(of_order(), "int8").network
    (node,) = model.nodes
    assert isinstance(node.lstm, Int8Lstm)
    dynamic = replace(node.lstm, precision_threshold=300, precision_hold=3)
    x = np.zeros((1, 4, 8), np.int8)
    output, states = run_on(model, x[:, :2])
    assert (np.hstack([output, run_on(model, x[:, 2:], states)[0]]) == door.run(model, x)).all()
    for network in (Network((Node(dynamic),)), Network((replace(node, reverse=True),))):
        assert not network.goes_on
        with pytest.raises(ValueError, match="must run whole sequences"):
            run_on(network, x)


def test_what_the_model_does_not_know_is_told(tmp_path):
    known = of_characters()
    path = tmp_path / "text.txt"
    path.write_text(TEXT[:-60] + "THE CAT SAT ON THE MAT" + TEXT[-38:])
    found = door.evaluate(known, "characters", path)
    assert found.unknown == pytest.approx(17 / found.steps, abs=1 / found.steps)
    path.write_text("Все счастливые семьи похожи друг на друга. " * 60)
    with pytest.raises(door.UsageError, match=r"^The model does not know 82% of the data's symb"):
        door.evaluate(known, "characters", path)


def test_the_command_prints_and_writes(tmp_path, text, capsys):
    model, rows = tmp_path / "model.npz", tmp_path / "rows.json"
    save_trained(model, of_characters())
    arguments = ["evaluate", str(model), "characters", "--data", str(text)]
    assert cli.main([*arguments, "--split", "validation", "--json", str(rows)]) == 0
    printed = capsys.readouterr().out
    stored = json.loads(rows.read_text())
    (row,) = stored["rows"]
    assert stored["engine"].startswith("fewbit ")
    assert set(row) == {
        *("model", "task", "split", "metric", "figure", "unit", "loss", "accuracy", "sequences"),
        *("steps", "labels", "unknown", "system", "backend", "seconds"),
    }
    assert f"{row['figure']:.4f} bits a label" in printed
    assert "steps a second" in printed
    found = door.evaluate(model, "characters", text, split="validation")
    assert {**row, "seconds": 0} == {"model": str(model), **found.row, "seconds": 0}


def test_infinite_figures_are_no_json():
    planned = plan(of_order(), TASKS["temporal_order"], None, setup="short", sequences=2)
    found = replace(evaluate(planned), figure=math.inf)
    assert json.loads(json.dumps(found.row, allow_nan=False))["figure"] is None


def test_a_model_file_of_one_layer_is_evaluated(tmp_path):
    path = tmp_path / "model.npz"
    order = of_order()
    (node,) = order.network.nodes
    save_model(path, Model(node.lstm, order.read_out))
    found = door.evaluate(path, "temporal_order", setup="short", sequences=100)
    assert replace(found, seconds=0.0) == replace(
        door.evaluate(order, "temporal_order", setup="short", sequences=100), seconds=0.0
    )


@pytest.mark.parametrize(
    ("model", "task", "data", "right"),
    [
        ("japanese_vowels/float_model.npz", "speakers", "japanese_vowels/recordings.npz", 364),
        ("japanese_vowels/ternary_model.npz", "speakers", "japanese_vowels/recordings.npz", 361),
        ("temporal_order/float_model.npz", "temporal_order", None, 1998),
    ],
)
def test_models_of_the_examples_have_the_figures_of_their_pages(model, task, data, right):
    found = door.evaluate(EXAMPLES / model, task, data and EXAMPLES / data)
    assert round(found.figure * found.labels) == right
    assert found.figure == found.accuracy


def mistakes() -> dict[str, tuple[list[str], str]]:
    return {
        "no task": (
            ["{order}", "translation"],
            f"There is no task translation; there are {', '.join(TASKS)}.",
        ),
        "no read-out": (
            ["{network}", "temporal_order"],
            (
                "{network}: has no read-out, so that it gives no scores; take a model that fewbit"
                " train wrote."
            ),
        ),
        "no file": (
            ["{folder}/none.npz", "temporal_order"],
            "{folder}/none.npz: there is no such file; give the path of a model.",
        ),
        "other file": (
            ["{text}", "temporal_order"],
            "'{text}' must be the .npz file of a trained model, as 'fewbit train' writes it.",
        ),
        "other task": (
            ["{order}", "characters", "--data", "{text}"],
            (
                "'{order}' was trained for the task temporal_order, not characters; evaluate it on"
                " temporal_order."
            ),
        ),
        "other labels": (
            ["{anonymous}", "characters", "--data", "{text}"],
            (
                "'{anonymous}' gives scores for every sequence, and the task characters has labels"
                " for every step; take another model."
            ),
        ),
        "real model in rtl": (
            ["{order}", "temporal_order", "--backend", "rtl"],
            "'{order}' is a real model; quantise it first with 'fewbit quantize'.",
        ),
        "parameter for golden": (
            ["{order}", "temporal_order", "--lanes", "4"],
            "The golden model has no lanes; choose --backend rtl.",
        ),
        "no data": (
            ["{characters}", "characters"],
            "The task characters needs data; give --data, the path of a text file in UTF-8.",
        ),
        "absent data": (
            ["{characters}", "characters", "--data", "{folder}/none.txt"],
            "'{folder}/none.txt' is not there; give the path of a text file in UTF-8.",
        ),
        "needless data": (
            ["{order}", "temporal_order", "--data", "{text}"],
            "The task temporal_order generates its data; leave --data out.",
        ),
        "steps": (
            ["{order}", "temporal_order", "--steps", "4"],
            "The task temporal_order has whole sequences; leave --steps out.",
        ),
        "set-up": (
            ["{order}", "temporal_order", "--setup", "huge"],
            "The task temporal_order has no set-up huge; it has short, small, paper.",
        ),
        "inputs": (
            ["{narrow}", "temporal_order"],
            "'{narrow}' has 3 inputs, and the data have 8; take the data that it was trained on.",
        ),
        "classes": (
            ["{few}", "temporal_order"],
            (
                "'{few}' tells 2 classes, and the data have 8, or others; take the data that it"
                " was trained on."
            ),
        ),
        "names": (
            ["{named}", "temporal_order"],
            (
                "'{named}' tells 8 classes, and the data have 8, or others; take the data that it"
                " was trained on."
            ),
        ),
        "symbols": (
            ["{one_hot}", "temporal_order"],
            (
                "'{one_hot}' takes symbols, and the task temporal_order gives real vectors; take"
                " another model."
            ),
        ),
        "overflow": (
            ["{infinite}", "temporal_order", "--setup", "short"],
            "The scores of '{infinite}' are not finite; train it anew.",
        ),
    }


@pytest.mark.parametrize("mistake", mistakes())
def test_a_mistake_is_one_sentence(tmp_path, capsys, text, mistake):
    order = of_order()
    anonymous = replace(order, task="")
    huge = np.array([[1.7e308], [-1.7e308]] * 4) * np.ones(6)
    models = {
        "order": order,
        "anonymous": anonymous,
        "characters": of_characters(),
        "narrow": replace(anonymous, network=Network((Node(layer(3)),))),
        "few": replace(anonymous, read_out=ReadOut(np.ones((2, 6)), np.ones(2))),
        "named": replace(anonymous, classes=tuple("abcdefgh")),
        "one_hot": replace(anonymous, symbols=tuple("abcdefgh")),
        "infinite": replace(anonymous, read_out=ReadOut(huge, np.full(8, 1.7e308))),
    }
    places = {"folder": str(tmp_path), "text": str(text), "network": str(tmp_path / "network.npz")}
    save_network(places["network"], order.network)
    for name, model in models.items():
        places[name] = str(tmp_path / f"{name}.npz")
        save_trained(places[name], model)
    arguments, sentence = mistakes()[mistake]
    words = (argument.format(**places) for argument in arguments)
    status, _, error = fewbit(capsys, "evaluate", *words)
    assert (status, error) == (2, sentence.format(**places) + "\n")


@pytest.mark.long
def test_the_circuit_gives_the_same_figure(tmp_path):
    model = tmp_path / "model.npz"
    save_trained(model, quantised(of_order(4), "int8"))
    golden = door.evaluate(model, "temporal_order", setup="short", sequences=20)
    circuit = door.evaluate(model, "temporal_order", setup="short", backend="rtl", lanes=4)
    assert circuit.backend == "rtl"
    assert circuit.sequences == evaluation.RTL_SEQUENCES
    for name in ("loss", "figure", "labels", "steps"):
        assert getattr(circuit, name) == getattr(golden, name)
