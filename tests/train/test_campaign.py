"""The accuracy campaign on the speakers' recordings, which are small and are here."""

import hashlib
import json
from pathlib import Path

import pytest

from fewbit.accuracy.campaign import Campaign, command_of
from fewbit.accuracy.experiments import Experiment, Job, Recipe
from fewbit.accuracy.results import read_results
from fewbit.evaluation import evaluate, open_trained, plan
from fewbit.train.tasks import TASKS

DATA = Path(__file__).parents[2] / "examples" / "japanese_vowels"
RECIPE = Recipe(
    "toy", "speakers", "speakers", "recordings.npz", "small", ("hidden=4", "epochs=1"), sequences=40
)
FLOAT = Job(Experiment(RECIPE, "float", ("float",)), 0)
INT8 = Job(Experiment(RECIPE, "int8", (), of="float", to="int8"), 0)
PER_STEP = Job(Experiment(RECIPE, "per_step", ("float", "norm=batch_per_step")), 0)


def carried_out(jobs, out, seconds=600.0):
    told = []
    left = Campaign(jobs, DATA, out, seconds, workers=2, tell=told.append).run()
    return left, told


def test_jobs_are_trained_converted_and_measured_once(tmp_path):
    # The conversion comes first in the order, and waits for what it converts.
    left, told = carried_out([INT8, FLOAT, PER_STEP], tmp_path)
    assert (left, len(told)) == ([], 3)
    rows = {row["experiment"]: row for row in read_results(tmp_path / "results.jsonl")}
    # Two workers: which of both trainings ends first is open.
    order = list(rows)
    assert sorted(order) == ["toy/float", "toy/int8", "toy/per_step"]
    assert order.index("toy/float") < order.index("toy/int8")
    for name in ("toy/float", "toy/int8"):
        file = tmp_path / name / "seed0" / "model.npz"
        row = rows[name]
        assert row["model_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        found = evaluate(
            plan(open_trained(file), TASKS["speakers"], DATA / "recordings.npz", sequences=40)
        )
        assert row["golden"]["figure"] == found.figure
        assert (row["golden"]["sequences"], row["golden"]["system"]) == (40, found.system)
    assert rows["toy/int8"]["training"] is None
    assert rows["toy/float"]["training"]["steps"] == 4
    # Golden has no layer with statistics for every step; PyTorch's own figure is kept.
    assert rows["toy/per_step"]["golden"] is None
    assert 0 <= rows["toy/per_step"]["training"]["test"] <= 1
    content = (tmp_path / "results.jsonl").read_bytes()
    assert carried_out([INT8, FLOAT, PER_STEP], tmp_path) == ([], [])
    assert (tmp_path / "results.jsonl").read_bytes() == content


def test_a_job_that_was_cut_off_goes_on(tmp_path):
    assert carried_out([FLOAT], tmp_path, seconds=0.0) == ([FLOAT], [])
    folder = tmp_path / FLOAT.folder
    assert "--scheme" in command_of(FLOAT, folder, DATA / "recordings.npz")
    folder.mkdir(parents=True)
    (folder / "checkpoint.safetensors").write_bytes(b"")
    # It is not known whose.
    left, told = carried_out([FLOAT], tmp_path)
    assert "is of other settings; take it away" in told[0]
    (folder / "job.json").write_text(FLOAT.settings)
    command = command_of(FLOAT, folder, DATA / "recordings.npz")
    assert "--resume" in command
    assert "--scheme" not in command
    left, told = carried_out([FLOAT], tmp_path)
    assert left == [FLOAT]
    assert told[0].startswith(f"{FLOAT.folder}: failed: ")
    assert not (tmp_path / "results.jsonl").exists()


def test_jobs_without_data_are_left(tmp_path):
    campaign = Campaign([FLOAT, INT8], tmp_path, tmp_path / "out", 60.0, tell=pytest.fail)
    assert campaign.run() == [FLOAT, INT8]


def test_a_job_is_told_to_another_process():
    for job in (FLOAT, INT8, PER_STEP):
        assert Job.of(str(job)) == job
        json.loads(str(job))
