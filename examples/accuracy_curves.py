"""Draw the learning curves of the accuracy campaign's models: ``docs/images/*.svg``.

``python -m examples.accuracy_curves`` draws the committed results; it needs matplotlib, which the
extra ``train`` brings.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.ticker import ScalarFormatter

from fewbit.accuracy.experiments import EXPERIMENTS, RECIPES, Recipe
from fewbit.accuracy.results import Row, committed_results, read_results
from fewbit.train.tasks import TASKS

_WORDS = {
    "bits": "validation, bits a character",
    "accuracy": "validation, errors in %",
    "perplexity": "validation, perplexity",
}
_MOST_LINES = 8
_SIZE = (7.0, 4.2)


def draw(recipe: Recipe, rows: Sequence[Row], labels: Sequence[str], path: Path) -> None:
    """Draw the validation figure of each epoch, a line for each experiment, the mean of its seeds.

    Parameters
    ----------
    recipe
        The recipe.
    rows
        Results.
    labels
        The experiments' labels, from the top of the legend down.
    path
        The file.
    """
    metric = TASKS[recipe.task].metric
    figure, axes = pyplot.subplots(figsize=_SIZE, layout="constrained")
    for label in labels:
        curves = [
            row["training"]["validation"]
            for row in rows
            if row["experiment"] == f"{recipe.name}/{label}" and row["training"]
        ]
        if not curves:
            continue
        means = [sum(values) / len(values) for values in zip(*curves, strict=True)]
        if metric == "accuracy":
            means = [100 * (1 - value) for value in means]
        text = f"{label.replace('_', ' ')} ({len(curves)})" if len(curves) > 1 else label
        axes.plot(range(1, len(means) + 1), means, marker=".", label=text.replace("_", " "))
    axes.set_xlabel("epoch")
    axes.set_ylabel(_WORDS[metric])
    axes.set_yscale("log")
    axes.minorticks_on()
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.grid(which="both", linewidth=0.3)
    axes.set_title(recipe.title)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date, and with fixed names of its parts, the same results give the same file.
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> int:
    """Draw all recipes that there are results of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--results", type=Path, help="of a campaign; the committed ones if left out"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    rows = committed_results() if options.results is None else read_results(options.results)
    mpl.rcParams["svg.hashsalt"] = "fewbit"
    mpl.rcParams["svg.fonttype"] = "none"
    for recipe in RECIPES:
        own = [each for each in EXPERIMENTS if each.recipe == recipe and not each.of]
        labels = [each.label for each in own]
        for number, first in enumerate(range(0, len(labels), _MOST_LINES)):
            some = labels[first : first + _MOST_LINES]
            if any(
                row["experiment"] in {f"{recipe.name}/{label}" for label in some} for row in rows
            ):
                suffix = f"_{number + 1}" if len(labels) > _MOST_LINES else ""
                path = options.out / f"accuracy_{recipe.name}{suffix}.svg"
                draw(recipe, rows, some, path)
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
