"""The long comparison with LiteRT, in short: it passes, and a wrong golden model fails it."""

import json
from itertools import islice
from pathlib import Path

import pytest

from fewbit.golden.lstm import integer_step

pytest.importorskip("ai_edge_litert")

from examples import litert_campaign


@pytest.fixture(autouse=True)
def few_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_campaign, "COMBINATIONS", litert_campaign.COMBINATIONS[::37])


def test_all_outputs_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "campaign.json"
    assert litert_campaign.main(["--outputs", "1", "--json", str(report)]) == 0
    total = json.loads(report.read_text())["rows"][-1]
    assert total["layers of"] == "all"
    assert total["layers"] == len(litert_campaign.COMBINATIONS)
    assert total["outputs"] > 1000
    assert total["mismatches"] == 0
    assert not capsys.readouterr().err


def test_a_wrong_rounding_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(integer_step, "rounding_shift_right", lambda raw, shift: raw >> shift)
    assert litert_campaign.main(["--outputs", "1"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("plain path, ")
    assert ": golden 0x" in message
    assert "Trial(seed=" in message


def test_trials_cover_every_combination() -> None:
    every = islice(litert_campaign.trials(1), len(litert_campaign.COMBINATIONS))
    seen = {(trial.variant, bool(trial.clip), trial.exponent) for trial in every}
    assert seen == set(litert_campaign.COMBINATIONS)
