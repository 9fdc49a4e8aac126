"""The accuracy campaign's table, its claims, and the report of its results."""

import dataclasses
import json

import pytest

from examples.accuracy_tables import PAGE, filled, tables
from fewbit.accuracy.claims import CLAIMS, Claim, compared
from fewbit.accuracy.experiments import EXPERIMENTS, RECIPES, Job, at_paper_size, jobs
from fewbit.accuracy.results import committed_results, key_of, read_results
from fewbit.errors import UsageError
from fewbit.golden.systems import SYSTEMS
from fewbit.reproduce.accuracy import finding
from fewbit.train.tasks import TASKS
from tests.support.commands import run

BY_NAME = {each.name: each for each in EXPERIMENTS}


def row(experiment, seed, figure):
    return {"experiment": experiment, "seed": seed, "golden": {"figure": figure}}


def test_names_are_unique_and_lead_somewhere():
    assert len(BY_NAME) == len(EXPERIMENTS)
    for recipe in RECIPES:
        assert recipe.setup in TASKS[recipe.task].setups
    for each in EXPERIMENTS:
        assert bool(each.of) == bool(each.to) != bool(each.scheme)
        if each.of:
            assert each.to in SYSTEMS
            # Each seed's model has one to be converted from.
            assert BY_NAME[each.source].seeds >= each.seeds
    for claim in CLAIMS:
        assert {claim.experiment, claim.reference} - {""} <= BY_NAME.keys()
        assert bool(claim.reference) == (claim.comparison != "value")
        if claim.reference:
            assert BY_NAME[claim.experiment].recipe == BY_NAME[claim.reference].recipe


def test_every_experiment_comes_once_before_a_second_seed():
    order = jobs()
    first = [job for job in order if job.seed == 0]
    assert [job.experiment for job in first] == list(EXPERIMENTS)
    assert order[: len(first)] == first
    assert len(order) == sum(each.seeds for each in EXPERIMENTS)
    assert len({job.folder for job in order}) == len(order)
    for job in order:
        assert Job.of(str(job)) == job


def test_the_papers_set_ups_have_nothing_of_the_campaigns():
    found = at_paper_size(jobs())
    assert {job.experiment.recipe.name for job in found} == {
        *("war_and_peace", "udpos", "mnist_rows", "wikitext2")
    }
    for job in found:
        assert (job.experiment.recipe.setup, job.experiment.changes) == ("paper", ())
        assert job.experiment.recipe.changes == ()


BITS = Claim("1", "a", "war_and_peace/ternary", "war_and_peace/float", "difference", 0.03)
SHARE = Claim("1", "a", "mnist_rows/ternary", "mnist_rows/float", "difference", -0.3)


def test_a_claim_is_compared_seed_by_seed():
    rows = [
        row(BITS.reference, 0, 2.0),
        row(BITS.reference, 1, 2.25),
        row(BITS.experiment, 1, 2.375),
        row(BITS.experiment, 0, 2.0625),
        # Without its other half.
        row(BITS.experiment, 2, 9.0),
        row("war_and_peace/binary", 0, 9.0),
    ]
    found = compared(BITS, rows)
    assert (found.figure, found.lowest, found.highest) == (0.09375, 0.0625, 0.125)
    assert (found.own, found.reference, found.seeds) == (2.21875, 2.125, (0, 1))
    assert (found.unit, found.holds) == ("bits", False)
    assert compared(dataclasses.replace(BITS, goal=0.09375), rows).holds is True
    assert compared(dataclasses.replace(BITS, at_least=True), rows).holds is True
    ratio = compared(dataclasses.replace(BITS, comparison="ratio"), rows[:1] + rows[3:4])
    assert (ratio.figure, ratio.unit) == (1.03125, "×")


def test_accuracies_are_compared_in_points_and_more_is_better():
    rows = [row(SHARE.reference, 0, 0.75), row(SHARE.experiment, 0, 0.625)]
    found = compared(SHARE, rows)
    assert (found.figure, found.unit, found.at_least, found.holds) == (-12.5, "points", True, False)
    assert compared(dataclasses.replace(SHARE, goal=-12.5), rows).holds is True
    value = compared(dataclasses.replace(SHARE, reference="", comparison="value", goal=62.5), rows)
    assert (value.figure, value.unit, value.holds) == (62.5, "%", True)


def test_a_claim_without_results_says_nothing():
    found = compared(BITS, [row(BITS.reference, 0, 2.0), row(BITS.experiment, 1, 2.0)])
    assert (found.figure, found.holds, found.seeds) == (None, None, ())
    shown = finding(found)
    assert (shown.measured, shown.holds, shown.figures) == (None, None, {"seeds": 0})


def test_the_report_of_a_campaign(capsys, tmp_path):
    claim = next(each for each in CLAIMS if each.experiment == "war_and_peace/ternary")
    rows = [row(claim.reference, 0, 2.0), row(claim.experiment, 0, 2.0126)]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    file = tmp_path / "rows.json"
    status, out, _ = run(capsys, "reproduce", "accuracy", "--campaign", tmp_path, "--json", file)
    assert status == 0
    report = json.loads(file.read_text())
    assert report["engine"].startswith("fewbit ")
    assert len(report["rows"]) == len(CLAIMS)
    mine = [each for each in report["rows"] if each["measured"] is not None]
    assert [(each["measured"], each["holds"], each["goal"]) for each in mine] == [
        (0.0126, True, claim.goal)
    ]
    line = next(line for line in out.splitlines() if "0.013 bits" in line)
    assert "its figure: 2.013" in line
    assert "seeds: 1" in line


def test_wrong_campaigns_and_data_are_one_sentence(capsys, tmp_path):
    status, _, err = run(capsys, "reproduce", "accuracy", "--campaign", tmp_path)
    assert status == 2
    assert err == f"'{tmp_path}' has no results.jsonl; give the folder of a campaign.\n"
    status, _, err = run(capsys, "reproduce", "accuracy", "--data", tmp_path / "none")
    assert status == 2
    assert err == f"'{tmp_path / 'none'}' is no folder; give the folder of all data.\n"
    file = tmp_path / "results.jsonl"
    for content in ("{}\n", "[1]\n", "nonsense\n"):
        file.write_text(content)
        with pytest.raises(UsageError, match="Line 1 of .* is no result of a campaign"):
            read_results(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="can't be read as the results"):
        read_results(file)


def test_committed_results_are_of_experiments_in_the_table():
    keys = [key_of(each) for each in committed_results()]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= {(job.experiment.name, job.seed) for job in jobs()}
    for each in committed_results():
        experiment = BY_NAME[each["experiment"]]
        assert each["scheme"] == list(experiment.scheme)
        assert each["changes"] == [*experiment.recipe.changes, *experiment.changes]


def test_the_manuals_tables_are_those_of_the_committed_results():
    page = PAGE.read_text("utf-8")
    assert filled(page, committed_results()) == page
    for name in tables(committed_results()):
        assert f"<!-- table: {name} -->" in page
