"""The training loop: learning, stopping and going on to the same bits, files, and the command."""

import json
import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewbit.commands.cli import main
from fewbit.evaluation import evaluate, find_task, plan
from fewbit.golden.files.network import load_network
from fewbit.golden.files.trained import load_trained
from fewbit.train import (
    Binary,
    Exponential,
    FixedPoint,
    Float,
    FloatSD8,
    Int8,
    Plan,
    PowerOfTwo,
    Ternary,
    Training,
)
from fewbit.train.checkpoint import read_checkpoint, write_checkpoint
from fewbit.train.loop import CHECKPOINT, LOG, MODEL
from fewbit.train.model import SequenceModel
from fewbit.train.tasks import TASKS

SHORT = TASKS["temporal_order"].setups["short"]
TINY = replace(SHORT, hidden=6, epochs=2, sequences=48, batch=16, dropout=0.25)
LEARNERS = [
    Float(),
    FloatSD8(),
    Binary(),
    Ternary(),
    PowerOfTwo(),
    Exponential(),
    FixedPoint(),
    Int8(),
    FloatSD8(update="signed_digits"),
]


def shown(scheme) -> str:
    return repr(scheme).replace(" ", "")


@pytest.mark.parametrize("scheme", LEARNERS, ids=shown)
def test_every_scheme_learns_the_order_of_short_sequences(scheme, tmp_path):
    # Binary weights have no 0, and learn at a higher rate and with more units.
    binary = {"hidden": 32, "learning_rate": 0.02} if scheme.name == "binary" else {"hidden": 24}
    setup = replace(SHORT, **binary)
    if getattr(scheme, "update", "") == "signed_digits":
        # Plain gradient descent, whose rate is not Adam's.
        setup = replace(setup, learning_rate=0.125, last_rate=0.03)
    training = Training(Plan("temporal_order", scheme, setup), tmp_path)
    assert training.run()
    # One in eight is chance.
    assert training.tested()["test"] > 0.9
    trained = load_trained(tmp_path / MODEL)
    result = evaluate(
        plan(trained, find_task("temporal_order"), None, name="it", setup="short", split="test",
             sequences=500)
    )  # fmt: skip
    assert result.figure > 0.9


def small_text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    return path


def plans(folder: Path) -> list[Plan]:
    words = TASKS["words"].setups["small"]
    streams = replace(
        words, hidden=5, layers=2, embedding=4, batch=2, window=20, epochs=2, dropout=0.3
    )
    characters = replace(
        TASKS["characters"].setups["small"], hidden=5, epochs=2, window=12, batch=32
    )
    text = small_text(folder)
    return [
        Plan("temporal_order", Float(), TINY, seed=3),
        Plan("temporal_order", FloatSD8(rounding="stochastic", moments="binary16"), TINY),
        Plan(
            "temporal_order",
            Ternary(rule="ardakani_ternary", sampled=True, norm="batch", frozen="sample"),
            TINY,
        ),
        Plan("temporal_order", Binary(rule="ardakani_binary", norm="batch"), TINY),
        Plan("words", Int8(), streams, text),
        Plan("characters", PowerOfTwo(), characters, text),
    ]


@pytest.mark.parametrize("number", range(6))
def test_going_on_gives_the_bits_of_an_uninterrupted_training(number, tmp_path):
    chosen = plans(tmp_path)[number]
    whole = Training(chosen, tmp_path / "whole")
    assert whole.run()
    folder = tmp_path / "parts"
    part = Training(chosen, folder)
    stops = 0
    # One step at a time, each in a training that knows its checkpoint alone.
    while not part.run(seconds=0):
        stops += 1
        torch.manual_seed(stops)
        part = Training.resume(folder)
    assert stops > chosen.setup.epochs
    one, other = whole.state_dict(), part.state_dict()
    for name in ("model", "optimiser", "random", "epoch", "index", "step", "best"):
        assert same(one[name], other[name]), name
    assert (tmp_path / "whole" / MODEL).read_bytes() == (folder / MODEL).read_bytes()
    assert timeless(tmp_path / "whole") == timeless(folder)


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def timeless(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    assert all(line.pop("seconds") >= 0 for line in lines)
    return lines


def test_the_comparison_of_states_can_fail():
    assert not same({"a": [torch.zeros(2)]}, {"a": [torch.ones(2)]})
    assert not same({"a": 1}, {"b": 1})


def test_another_seed_gives_another_model(tmp_path):
    models = []
    for seed in (0, 0, 1):
        training = Training(Plan("temporal_order", Float(), TINY, seed=seed), tmp_path)
        training.run(seconds=0)
        models.append(training.model.state_dict())
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_the_log_tells_plan_versions_and_figures(tmp_path):
    Training(Plan("temporal_order", Ternary(), TINY, seed=5), tmp_path).run()
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    first, *epochs, last = lines
    assert first["event"] == "plan"
    assert first["scheme"] == {"name": "ternary", **Ternary().__dict__}
    assert first["seed"] == 5
    assert first["torch"] == torch.__version__
    assert len(first["data_sha256"]) == 64
    assert [line["event"] for line in epochs] == ["epoch", "epoch"]
    assert {"loss", "validation", "validation_loss", "metric", "rate"} <= set(epochs[0])
    assert epochs[0]["rate"] == SHORT.learning_rate
    assert epochs[1]["rate"] == pytest.approx(SHORT.last_rate)
    assert last["event"] == "end"
    assert 0 <= last["test"] <= 1


def test_a_checkpoint_keeps_every_kind_of_value(tmp_path):
    state = {
        "tensors": [torch.arange(3), {0: torch.tensor(2.5), "b": None}],
        "half": torch.ones(2, dtype=torch.float16),
        "flag": True,
        "words": "ä\n",
        "number": 0.1,
    }
    write_checkpoint(tmp_path / "a", state)
    assert same(read_checkpoint(tmp_path / "a"), state)
    with pytest.raises(TypeError, match="Path"):
        write_checkpoint(tmp_path / "a", {"x": Path()})
    assert same(read_checkpoint(tmp_path / "a"), state)


def test_damaged_checkpoints_are_refused(tmp_path):
    training = Training(Plan("temporal_order", Float(), TINY), tmp_path)
    training.run(seconds=0)
    path = tmp_path / CHECKPOINT
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [good[: len(good) // 2], b"", good[8:], b"x" * 100]
    for _ in range(30):
        content = bytearray(good)
        content[int(rng.integers(0, 200))] ^= int(rng.integers(1, 256))
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^.* start anew in another folder\.$"):
            Training.resume(tmp_path)


def told(capsys, *arguments) -> tuple[int, str]:
    try:
        status = main([str(each) for each in arguments])
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def command(folder, *more):
    sizes = ["hidden=6", "epochs=2", "sequences=96", "batch=16"]
    return ["train", "temporal_order", "--setup", "short", "--set", *sizes, "--out", folder, *more]


def test_the_command_trains_stops_and_goes_on(tmp_path, capsys):
    folder = tmp_path / "run"
    status, words = told(
        capsys, *command(folder, "--scheme", "ternary", "norm=batch"), "--seconds", 0
    )
    assert status == 0
    assert "1 steps of 0 of 2 epochs" in words
    assert words.endswith("--resume goes on\n")
    assert load_network(folder / MODEL).nodes[0].lstm.weights == "ternary"
    status, words = told(capsys, "train", "temporal_order", "--out", folder, "--resume")
    assert status == 0
    assert "12 steps of 2 of 2 epochs" in words
    assert "best validation" in words
    status, words = told(
        capsys, "evaluate", folder / MODEL, "temporal_order", "--setup", "short",
        "--sequences", "50",
    )  # fmt: skip
    assert status == 0
    assert "temporal_order" in words


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "Name a scheme with --scheme: float, floatsd8"),
        (["--scheme", "int9"], "There is no scheme 'int9'; there are float"),
        (["--scheme", "ternary", "nrm=batch"], "The scheme ternary has no setting 'nrm'; it has"),
        (["--scheme", "ternary", "norm=layer"], "norm must be weight or batch or"),
        (["--scheme", "ternary", "activation_width=3"], "activation_width must be from 4 to 16"),
        (["--scheme", "ternary", "activation_width=x"], "must be a whole number, not 'x'"),
        (["--scheme", "ternary", "sampled=maybe"], "sampled must be true or false, not 'maybe'."),
        (["--scheme", "ternary", "sampled=true"], "has no random form"),
        (["--scheme", "float", "temporal"], "A setting must be NAME=VALUE, not 'temporal'."),
        (["--scheme", "float", "--set", "hidden=4"], "Setting 'hidden' is given twice"),
        (["--scheme", "float", "--set", "hiden=4"], "A set-up has no setting 'hiden'; it has"),
        (["--scheme", "float", "--setup", "big"], "has no set-up 'big'; it has short"),
        (["--scheme", "float", "--data", "x"], "leave --data out"),
        (["--scheme", "float", "--device", "tpu"], "--device must be cpu or cuda, not 'tpu'."),
        (["--scheme", "float", "--threads", "0"], "--threads must be from 1 to 1024, not 0."),
        (["--resume"], "leave --setup out"),
    ],
)
def test_wrong_use_is_one_sentence(more, words, tmp_path, capsys):
    status, output = told(capsys, *command(tmp_path / "run"), *more)
    assert status == 2
    assert words in output
    assert output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_other_wrong_uses(tmp_path, capsys):
    def refused(*arguments):
        status, output = told(capsys, *arguments)
        assert status == 2
        assert output.count("\n") == 1
        return output

    assert "There is no task 'nope'" in refused("train", "nope", "--out", tmp_path / "a")
    short = command(tmp_path / "run", "--scheme", "float", "--seconds", "0")
    assert told(capsys, *short)[0] == 0
    assert "holds a training already; give --resume" in refused(*short)
    file = tmp_path / "file"
    file.write_text("x")
    assert "is no folder" in refused(*command(file, "--scheme", "float"))
    empty = tmp_path / "empty"
    words = refused("train", "temporal_order", "--out", empty, "--resume")
    assert "holds no checkpoint" in words
    assert not empty.exists()
    words = refused("train", "characters", "--out", tmp_path / "run", "--resume")
    assert "--data" in words or "for temporal_order, not for characters" in words
    text = refused("train", "characters", "--scheme", "float", "--out", tmp_path / "b",
                   "--data", tmp_path / "missing.txt")  # fmt: skip
    assert "missing.txt" in text
    assert not (tmp_path / "b").exists()


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    assert told(capsys, *command(folder, "--scheme", "float", "--seconds", "0"))[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, words = told(capsys, "train", "temporal_order", "--out", folder, "--resume")
    assert status == 2
    assert "No space left on device" in words
    assert "--resume goes on" in words
    assert words.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    assert told(capsys, "train", "temporal_order", "--out", folder, "--resume")[0] == 0


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_sentence(tmp_path, capsys, monkeypatch):
    def warns(*_):
        warnings.warn("Steps were skipped.", stacklevel=1)
        return False

    monkeypatch.setattr(Training, "run", warns)
    status, words = told(capsys, *command(tmp_path / "run", "--scheme", "float"))
    assert status == 0
    assert "Warning: Steps were skipped.\n" in words
    assert __file__ not in words


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step_changes_no_bit(kind, tmp_path, capsys, monkeypatch):
    sizes = ["--scheme", "floatsd8", "rounding=stochastic", "--set", "dropout=0.2"]
    assert told(capsys, *command(tmp_path / "whole", *sizes))[0] == 0
    forward, calls = SequenceModel.forward, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), kind)
        return forward(*arguments)

    monkeypatch.setattr(SequenceModel, "forward", interrupted)
    # In a job in the background SIGINT is ignored, and the command leaves it so.
    before = signal.signal(kind, signal.default_int_handler)
    try:
        status, words = told(capsys, *command(tmp_path / "parts", *sizes))
    finally:
        signal.signal(kind, before)
    monkeypatch.undo()
    assert status == 128 + kind
    assert words.endswith("Interrupted; --resume goes on from step 2.\n")
    assert told(capsys, "train", "temporal_order", "--out", tmp_path / "parts", "--resume")[0] == 0
    first, second = ((tmp_path / name / MODEL).read_bytes() for name in ("whole", "parts"))
    assert first == second


def test_a_folder_that_takes_no_files_is_found_at_once(tmp_path, capsys, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Training, "run", lambda *_: pytest.fail("It was trained first."))
    status, words = told(capsys, *command(tmp_path / "run", "--scheme", "float"))
    assert status == 2
    assert words.endswith("No space left on device; choose another place with --out.\n")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ValueError("The weights are not finite; train anew."), "are not finite; train anew.\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
    ],
)
def test_faults_under_way_are_one_sentence(fault, words, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise fault

    monkeypatch.setattr(Training, "run", fails)
    status, output = told(capsys, *command(tmp_path / "run", "--scheme", "float"))
    assert status == 2
    assert words in output
    assert output.count("\n") == 1
    monkeypatch.undo()
    # What was written before the fault can be gone on from.
    assert told(capsys, "train", "temporal_order", "--out", tmp_path / "run", "--resume")[0] == 0


def test_other_data_are_refused_when_going_on(tmp_path, capsys):
    text = small_text(tmp_path)
    sizes = ["hidden=4", "epochs=1", "window=12"]
    start = ["train", "characters", "--scheme", "float", "--set", *sizes, "--out", tmp_path / "run"]
    assert told(capsys, *start, "--data", text, "--seconds", "0")[0] == 0
    text.write_text("another text entirely, of other letters\n" * 60)
    status, words = told(capsys, "train", "characters", "--out", tmp_path / "run", "--resume")
    assert status == 2
    assert "not those that" in words


@pytest.mark.parametrize(
    ("task", "change", "scale"),
    [
        ("temporal_order", {"batch": 64}, 16),
        ("temporal_order", {"batch": 2}, 1),
        ("characters", {"batch": 4, "window": 12}, 8),
    ],
)
def test_the_loss_scale_follows_the_labels_of_a_batch(task, change, scale, tmp_path):
    setup = replace(TASKS[task].setups["short" if task == "temporal_order" else "small"], **change)
    data = small_text(tmp_path) if task == "characters" else None
    training = Training(Plan(task, FloatSD8(), replace(setup, hidden=4), data), tmp_path)
    # At most a quarter of the labels: 64, 2, and 4 windows of 11.
    assert training.loss_scale == scale
    fixed = Plan(task, FloatSD8(loss_scale=1024.0), replace(setup, hidden=4), data)
    assert Training(fixed, tmp_path).loss_scale == 1024


def test_the_end_tells_how_near_golden_is(tmp_path):
    Training(Plan("temporal_order", FloatSD8(), TINY), tmp_path).run()
    last = json.loads((tmp_path / LOG).read_text().splitlines()[-1])
    near = last["golden"]
    assert (
        near["codes"] == 64 * 6 * TASKS["temporal_order"].load(None, TINY).test.lengths[:64].mean()
    )
    assert 0.5 < near["equal"] < 1
    assert near["loss"] != near["golden_loss"]
    assert abs(near["loss"] - near["golden_loss"]) < 0.1
