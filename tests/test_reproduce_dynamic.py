"""``fewbit reproduce dynamic_precision``: what rows are made of, and that a wrong layer shows."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fewbit.golden.lstm.dynamic import run
from fewbit.reproduce import dynamic_precision, papers
from fewbit.reproduce.claims import Finding, Options
from fewbit.reproduce.dynamic_precision import BIT_AREA, measure_area, measure_task
from tests.support.int8_cases import random_case

STEPS = 12


@pytest.fixture
def task(monkeypatch) -> SimpleNamespace:
    """Short random sequences, of which every fourth is decided wrongly by any other code."""
    lstm = random_case(4, exponent=-12, sizes="trained").model
    given = np.random.default_rng(5).integers(-128, 128, (8, STEPS, lstm.inputs))
    lengths = np.full(8, STEPS)
    right = lstm.run(given)
    task = SimpleNamespace(
        lstm=lstm,
        x=given,
        lengths=lengths,
        test_x=given,
        test_lengths=lengths,
        correct=lambda hidden: int((hidden[::4] == right[::4]).all(axis=(1, 2)).sum()) + 6,
    )
    monkeypatch.setattr(dynamic_precision, "_task", lambda _: task)
    return task


class Layers:
    """In place of the circuits: golden's codes, and four cycles a HIGH pass, two a LOW one."""

    wrong_code = wrong_passes = False

    def __init__(self, settings, *, asks_state):
        assert set(settings) == {"lanes", "structure"}
        assert asks_state
        self.cycles, self.passes = 0, (0, 0)

    def __call__(self, model, x, lengths=None):
        self.cycles += 100
        if not len(x):
            return np.zeros((0, 0, 0), np.int64)
        if not model.dynamic:
            self.cycles += 4 * x.shape[0] * x.shape[1] * model.hidden
            return model.run(x)
        outcome = run(model, x)
        high, low = outcome.passes(lengths)
        self.cycles += 4 * high + 2 * low
        self.passes = (high + self.wrong_passes, low)
        hidden = outcome.hidden.copy()
        hidden[1, 2, 3] += self.wrong_code
        return hidden


@pytest.fixture
def layers(monkeypatch) -> type[Layers]:
    class Fresh(Layers):
        pass

    monkeypatch.setattr(dynamic_precision, "LayerBackend", Fresh)
    return Fresh


def test_a_task_gives_share_loss_speed_up_and_reads(task, layers):
    share, lost, speed_up, reads = measure_task(
        "speaker", "toy", 0.5, signal="cell_change", offsets=False
    )
    low = (share.measured or 0) / 100
    assert 0.5 <= low < 1
    assert lost.measured == 8 - lost.figures["chosen"]
    assert lost.holds is (lost.measured == 0)
    assert speed_up.measured == pytest.approx(1 / (1 - low / 2))
    assert reads.measured == pytest.approx(50 * low)
    assert share.how.endswith("examples.dynamic_precision speaker --no-offsets")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("wrong_code", r"differs from golden first at sequence, step, unit \[1 2 3\]"),
        ("wrong_passes", "HIGH and LOW passes, golden"),
    ],
)
def test_a_wrong_layer_is_no_measurement(task, layers, fault, message):
    setattr(layers, fault, True)
    with pytest.raises(AssertionError, match=message):
        measure_task("speaker", "toy", 0.5, signal="cell_change", offsets=False)


def test_without_the_examples_their_command_is_named(monkeypatch):
    monkeypatch.setattr(dynamic_precision, "_task", lambda _: None)
    (row,) = measure_task("order", "toy", 0.76, signal="output_gate", offsets=True)
    assert row.measured is None
    assert row.holds is None
    assert row.how == "python -m examples.dynamic_precision order"


def test_overhead_is_of_each_area(monkeypatch):
    def synthesis(design):
        more = design.parameters["dynamic"]
        return {
            "combinational_ge": 1000 + 80 * more,
            "area_ge": 1500 + 150 * more,
            "memory_bits": 10_000 + 100 * more,
        }

    monkeypatch.setattr(dynamic_precision, "synthesize", synthesis)
    logic, whole, memories = measure_area("output_gate")
    assert (logic.measured, whole.measured) == (pytest.approx(8), pytest.approx(10))
    assert memories.measured == pytest.approx(100 * (150 + 100 * BIT_AREA) / (1500 + 3000))
    assert (logic.holds, whole.holds, memories.holds) == (True, False, None)
    assert "8.8 % is not reached" in whole.note
    assert logic.how.endswith("--set dynamic=1 --set signal=output_gate")


def test_less_may_be_better():
    def row(measured, **given):
        return Finding("", 2, measured, "", "", "", **given)

    assert [row(each).holds for each in (1, 2, 3)] == [False, True, True]
    assert [row(each, less_is_better=True).holds for each in (1, 2, 3)] == [True, True, False]


def test_the_paper_measures_the_area_and_both_tasks_by_both_signals():
    assert len(papers.PAPERS["dynamic_precision"].measurements(Options())) == 2 + 2 * 2


def test_the_command_finds_the_examples_from_anywhere(tmp_path):
    program = (
        "from fewbit.reproduce.dynamic_precision import _task; print(_task('speaker').lstm.hidden)"
    )
    # As an installed command, without the folder where it is called.
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, capture_output=True, check=False
    )
    assert run.stdout.strip() == b"32", run.stderr.decode()
