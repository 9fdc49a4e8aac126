"""Reproduction of what all five papers claim of accuracy, with this project's own trainings.

The figures are of committed results, which `make accuracy` brings about in hours; where the data
are given, the committed models are evaluated again in golden.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fewbit.accuracy.claims import CLAIMS, Claim, Found, compared
from fewbit.accuracy.experiments import find_experiment, folder_of
from fewbit.accuracy.measure import MODEL, evaluated
from fewbit.accuracy.results import RESULTS, Row, committed_results, key_of, read_results
from fewbit.errors import UsageError
from fewbit.reproduce.claims import Finding, Measurement, Options, Paper

__all__ = ["PAPER", "finding"]

# In a checkout; an installed package has no models.
_MODELS = Path(__file__).resolve().parents[2] / "examples" / "accuracy"


@dataclass
class _Evidence:
    """Results, and those that were evaluated again, each once."""

    rows: Sequence[Row]
    models: Path
    data: Path | None
    _again: dict[tuple[str, int], Row | None] = field(default_factory=dict)

    def rows_for(self, claim: Claim) -> tuple[list[Row], int]:
        """Return the rows of a claim, and how many of them were evaluated again."""
        names = {claim.experiment, claim.reference}
        rows = [row for row in self.rows if row["experiment"] in names]
        again = [self._evaluated(row) for row in rows]
        found = [new or old for new, old in zip(again, rows, strict=True)]
        return found, sum(row is not None for row in again)

    def _evaluated(self, row: Row) -> Row | None:
        """Return a row of the model evaluated again; None without its file or its data."""
        key = key_of(row)
        if key not in self._again:
            self._again[key] = self._evaluate(row)
        return self._again[key]

    def _evaluate(self, row: Row) -> Row | None:
        experiment = find_experiment(row["experiment"])
        model = self.models / folder_of(*key_of(row)) / MODEL
        data = None if self.data is None else self.data / experiment.recipe.data
        if data is None or not data.exists() or not model.exists() or row["golden"] is None:
            return None
        _check(model, row)
        return row | {"golden": evaluated(experiment, model, data).row}


def _check(model: Path, row: Row) -> None:
    """Refuse a model that is not the one of the results."""
    if hashlib.sha256(model.read_bytes()).hexdigest() != row["model_sha256"]:
        raise UsageError(
            f"'{model}' is not the model of the results, as its SHA-256 differs; restore it, or"
            " take it away."
        )


def finding(found: Found, note: str = "") -> Finding:
    """Return what results say to a claim as a row of the report.

    Parameters
    ----------
    found
        What they say.
    note
        What else is to be known of the results.
    """
    claim = found.claim
    several = len(found.seeds) > 1
    known = {
        "its figure": found.own,
        "float's": found.reference,
        "lowest": found.lowest if several else None,
        "highest": found.highest if several else None,
    }
    figures: dict[str, float] = {name: value for name, value in known.items() if value is not None}
    figures["seeds"] = len(found.seeds)
    names = " ".join(filter(None, (claim.experiment, claim.reference)))
    return Finding(
        f"{claim.paper}: {claim.text}",
        claim.published,
        found.figure,
        found.unit,
        claim.standing,
        f"python -m examples.accuracy_campaign --data DATA --only {names}",
        figures,
        "; ".join(filter(None, (claim.source, note))),
        less_is_better=not found.at_least,
        goal=claim.goal,
        digits=found.digits,
    )


def _measurements(options: Options) -> list[Measurement]:
    campaign = options.campaign
    if options.data is not None and not options.data.is_dir():
        raise UsageError(f"'{options.data}' is no folder; give the folder of all data.")
    if campaign is not None and not (campaign / RESULTS).exists():
        raise UsageError(f"'{campaign}' has no {RESULTS}; give the folder of a campaign.")
    rows = committed_results() if campaign is None else read_results(campaign / RESULTS)
    evidence = _Evidence(rows, campaign or _MODELS, options.data)
    origin = "committed results" if campaign is None else f"results of '{campaign}'"
    return [partial(_measure, claim, evidence, origin) for claim in CLAIMS]


def _measure(claim: Claim, evidence: _Evidence, origin: str) -> list[Finding]:
    rows, again = evidence.rows_for(claim)
    note = f"{origin}, {again} of {len(rows)} models evaluated again" if again else origin
    return [finding(compared(claim, rows), note)]


PAPER = Paper(
    "accuracy", "Accuracy of all five papers, by this project's training", _measurements, False
)
