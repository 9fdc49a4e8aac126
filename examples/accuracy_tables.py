"""The tables of ``docs/accuracy.md``, made of the committed results of the accuracy campaign.

``python -m examples.accuracy_tables`` writes them into the page, each where a comment has its name;
a test compares them. With ``--results`` it prints those of another campaign.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fewbit.accuracy.claims import CLAIMS, Found, compared
from fewbit.accuracy.experiments import EXPERIMENTS, RECIPES, Experiment, Recipe
from fewbit.accuracy.results import Row, committed_results, read_results
from fewbit.train.tasks import TASKS

__all__ = ["PAGE", "filled", "tables", "write_page"]

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
_PLACE = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)
_FIGURES = {"accuracy": "right, %", "bits": "bits", "perplexity": "perplexity"}


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """Return the tables by name: "claims", and one for each recipe's models."""
    found = {"claims": "\n".join(_claims(rows))}
    for recipe in RECIPES:
        lines = list(_models(recipe, rows))
        if len(lines) > 2:
            found[recipe.name] = "\n".join(lines)
    return found


def filled(page: str, rows: Sequence[Row]) -> str:
    """Return the page's text with the tables of results in their places."""
    found = tables(rows)

    def table(place: re.Match[str]) -> str:
        name = place[1]
        return f"<!-- table: {name} -->\n\n{found.get(name, 'No results yet.')}\n\n<!-- end -->"

    return _PLACE.sub(table, page)


def _claims(rows: Sequence[Row]) -> Iterator[str]:
    yield "| paper | claim | published | goal | here | of the seeds | seeds | holds |"
    yield "|---|---|---|---|---|---|---|---|"
    for claim in CLAIMS:
        found = compared(claim, rows)
        cells = (
            f"[{claim.paper}](https://arxiv.org/abs/{claim.paper})",
            claim.text,
            _published(found),
            f"{'≥' if found.at_least else '≤'} {_number(claim.goal, found)}",
            "–" if found.figure is None else _number(found.figure, found),
            _spread(found),
            str(len(found.seeds)),
            {True: "yes", False: "**no**", None: "–"}[found.holds],
        )
        yield f"| {' | '.join(cells)} |"


def _published(found: Found) -> str:
    claim = found.claim
    if claim.published is None:
        return "–"
    return f"{_number(claim.published, found)} ({claim.standing.split(',')[0]})"


def _spread(found: Found) -> str:
    if found.lowest is None or found.highest is None or len(found.seeds) < 2:
        return "–"
    return f"{_signed(found.lowest, found.digits)} to {_signed(found.highest, found.digits)}"


def _number(value: float, found: Found) -> str:
    is_difference = found.claim.comparison == "difference"
    shown = _signed(value, found.digits) if is_difference else f"{value:.{found.digits}f}"
    return f"{shown} {found.unit}"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _models(recipe: Recipe, rows: Sequence[Row]) -> Iterator[str]:
    metric = TASKS[recipe.task].metric
    head = f"test, golden, {_FIGURES[metric]}"
    yield f"| model | scheme | {head} | test, PyTorch | seeds | minutes | kB |"
    yield "|---|---|---|---|---|---|---|"
    for experiment in EXPERIMENTS:
        own = [row for row in rows if row["experiment"] == experiment.name]
        if experiment.recipe == recipe and own:
            yield f"| {' | '.join(_model(experiment, own, metric))} |"


def _model(experiment: Experiment, own: Sequence[Row], metric: str) -> tuple[str, ...]:
    golden = [row["golden"]["figure"] for row in own if row["golden"]]
    trained = [row["training"] for row in own if row["training"]]
    seconds = sum(each["seconds"] for each in trained) / max(len(trained), 1)
    sizes = [row["model_bytes"] for row in own if row["model_bytes"]]
    settings = (*experiment.scheme, *experiment.changes)
    return (
        f"`{experiment.label}`",
        f"`{' '.join(settings)}`" if settings else f"`{experiment.of}` converted",
        _figure(golden, metric),
        _figure([each["test"] for each in trained], metric),
        str(len(own)),
        f"{seconds / 60:.0f}" if trained else "–",
        f"{sizes[0] / 1000:,.0f}" if sizes else "–",
    )


def _figure(values: Sequence[float], metric: str) -> str:
    if not values:
        return "–"
    mean = sum(values) / len(values)
    return f"{100 * mean:.2f}" if metric == "accuracy" else f"{mean:.3f}"


def write_page() -> None:
    """Write the tables of the committed results into the page."""
    PAGE.write_text(filled(PAGE.read_text("utf-8"), committed_results()), "utf-8")


def main() -> int:
    """Write the tables into the page, or print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--results", type=Path, help="of a campaign, whose tables are printed")
    options = parser.parse_args()
    if options.results is not None:
        for name, table in tables(read_results(options.results)).items():
            print(f"{name}\n\n{table}\n")
        return 0
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
