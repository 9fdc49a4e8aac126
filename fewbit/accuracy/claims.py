"""Claims of five papers on accuracy, and what this project's own models say to them.

A `Claim` compares an experiment with its reference, the real model with the same norm, data, size
and training, seed by seed. Its goal is this project's; the published figures are quoted with their
standing, and are of larger models that were trained for longer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fewbit.accuracy.experiments import find_experiment
from fewbit.accuracy.results import Row
from fewbit.train.tasks import TASKS

__all__ = ["CLAIMS", "Claim", "Found", "compared"]

Comparison = Literal["difference", "ratio", "value"]


@dataclass(frozen=True)
class Claim:
    """A claim on the accuracy of a number system.

    Parameters
    ----------
    paper
        The paper's number at arXiv.
    text
        The claim in a few words, with the number system.
    experiment
        The experiment that shows it.
    reference
        The experiment that it is compared with; empty for none.
    comparison
        Whether the figure is the difference to the reference, the ratio, or a value of its own.
    goal
        What the figure should come to: at least where accuracies are compared, or `at_least`.
    published
        The published figure, in the same unit; None where none is known.
    source
        What it is from, or what is claimed in its place, in words.
    standing
        How well it is known.
    at_least
        Whether the goal is a lower bound; None for: where a higher figure is the better one.
    """

    paper: str
    text: str
    experiment: str
    reference: str
    comparison: Comparison
    goal: float
    published: float | None = None
    source: str = ""
    standing: str = "checked, of its abstract"
    at_least: bool | None = None


@dataclass(frozen=True)
class Found:
    """A claim with the figures that results give it.

    Parameters
    ----------
    claim
        The claim.
    unit
        The unit of the figure: "bits", "points", "%" or "×".
    figure
        The mean over the seeds, in that unit; None without results.
    lowest, highest
        The lowest and the highest figure of a seed; None without results.
    seeds
        The seeds that both experiments have results of.
    own, reference
        Both experiments' mean figures.
    """

    claim: Claim
    unit: str
    figure: float | None
    lowest: float | None
    highest: float | None
    seeds: tuple[int, ...]
    own: float | None
    reference: float | None

    @property
    def digits(self) -> int:
        """Return how many digits after the point the figures are shown with."""
        return 3 if self.unit in {"bits", "×"} else 2

    @property
    def at_least(self) -> bool:
        """Return whether the goal is a lower bound."""
        if self.claim.at_least is not None:
            return self.claim.at_least
        return self.unit in {"points", "%"}

    @property
    def holds(self) -> bool | None:
        """Return whether the mean reaches the goal; None without results."""
        if self.figure is None:
            return None
        reached = self.figure >= self.claim.goal, self.figure <= self.claim.goal
        return reached[0 if self.at_least else 1]


def compared(claim: Claim, rows: Iterable[Row]) -> Found:
    """Return what results say to a claim.

    Accuracies are in percent and their differences in points.
    """
    figures: dict[str, dict[int, float]] = {claim.experiment: {}, claim.reference: {}}
    recipe = find_experiment(claim.experiment).recipe
    metric = TASKS[recipe.task].metric
    scale = 100 if metric == "accuracy" else 1
    for row in rows:
        found = row["golden"]
        if row["experiment"] in figures and found is not None and found["figure"] is not None:
            figures[row["experiment"]][row["seed"]] = found["figure"] * scale
    own, reference = figures[claim.experiment], figures[claim.reference]
    seeds = tuple(sorted(own.keys() & reference.keys() if claim.reference else own.keys()))
    each = [_figure(claim.comparison, own[seed], reference.get(seed, 0.0)) for seed in seeds]
    points = "%" if claim.comparison == "value" else "points"
    unit = {"accuracy": points, "bits": "bits", "perplexity": "perplexity"}[metric]
    return Found(
        claim,
        "×" if claim.comparison == "ratio" else unit,
        _mean(each),
        min(each, default=None),
        max(each, default=None),
        seeds,
        _mean([own[seed] for seed in seeds]),
        _mean([reference[seed] for seed in seeds]) if claim.reference else None,
    )


def _figure(comparison: Comparison, own: float, reference: float) -> float:
    if comparison == "ratio":
        return own / reference
    return own - reference if comparison == "difference" else own


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


_ABSTRACT = "checked, of its abstract"
_HOU = "checked, through Hou et al., NeurIPS 2019, of H 512 and 200 epochs"
_OWN = "this project's goal"
_RECALLED = "recalled"
_PRESERVED = "accuracy is fully preserved, it says"

_WP, _UDPOS, _MNIST, _WORDS = "war_and_peace", "udpos", "mnist_rows", "wikitext2"


def _floatsd8(title: str, recipe: str, goal: float, comparison: Comparison = "difference") -> Claim:
    own, reference = f"{recipe}/floatsd8", f"{recipe}/float"
    return Claim(
        "2001.08450", f"FloatSD8, {title}", own, reference, comparison, goal, None, _PRESERVED
    )


def _few_bit(
    text: str, experiment: str, norm: str, goal: float, published: float, source: str
) -> Claim:
    """Return a claim of 1809.11086 on War and Peace."""
    own, reference = f"{_WP}/{experiment}", f"{_WP}/float_{norm}_norm"
    title = f"{text}, {norm} norm, War and Peace"
    return Claim("1809.11086", title, own, reference, "difference", goal, published, source, _HOU)


def _by_rows(weights: str, norm: str, share: float, difference: float) -> tuple[Claim, Claim]:
    """Return two claims of 1809.11086 on MNIST, whose figures are of images by pixels."""
    own = f"{_MNIST}/{weights}{'_batch_norm' if norm == 'batch' else ''}"
    reference = f"{_MNIST}/float_{norm}_norm"
    title, source = f"{weights}, {norm} norm, MNIST by rows", "by pixels"
    return (
        Claim("1809.11086", title, own, "", "value", 98.0, share, source, _RECALLED),
        Claim(
            "1809.11086", title, own, reference, "difference", -0.3, difference, source, _RECALLED
        ),
    )


def _ott(text: str, experiment: str, goal: float, *, fails: bool = False) -> Claim:
    norm = "" if experiment.endswith("no_norm") else "_weight_norm"
    own, reference = f"{_WP}/{experiment}", f"{_WP}/float{norm}"
    source = "such weights fail, it says" if fails else "small loss, it says"
    return Claim(
        "1608.06902",
        f"{text}, War and Peace",
        own,
        reference,
        "difference",
        goal,
        None,
        source,
        at_least=True if fails else None,
    )


def _int8(title: str, recipe: str, goal: float, *, trained: bool) -> Claim:
    text = "trained with quantisation" if trained else "converted after training"
    own, reference = f"{recipe}/int8{'' if trained else '_converted'}", f"{recipe}/float"
    return Claim(
        "2101.05453",
        f"int8 {text}, {title}",
        own,
        reference,
        "difference",
        goal,
        None,
        "accuracy near that of floats, it says",
    )


CLAIMS = (
    _floatsd8("UDPOS", _UDPOS, -0.3),
    _floatsd8("WikiText-2", _WORDS, 1.02, "ratio"),
    _floatsd8("War and Peace", _WP, 0.02),
    _floatsd8("MNIST by rows", _MNIST, -0.1),
    _few_bit("ternary", "ternary", "weight", 0.03, -0.01, "1.72 against 1.73"),
    _few_bit("binary", "binary", "weight", 0.06, 0.01, "1.74 against 1.73"),
    _few_bit("ternary sampled", "ternary_batch_norm", "batch", 0.03, 0.0, "1.72 against 1.72"),
    _few_bit("binary sampled", "binary_batch_norm", "batch", 0.06, 0.06, "1.78 against 1.72"),
    *_by_rows("ternary", "weight", 98.8, -0.1),
    *_by_rows("binary", "weight", 98.6, -0.3),
    *_by_rows("ternary", "batch", 98.8, -0.1),
    *_by_rows("binary", "batch", 98.6, -0.3),
    _ott("binary, no norm", "binary_no_norm", 0.5, fails=True),
    _ott("ternary, no norm", "ternary_no_norm", 0.05),
    _ott("power-of-two ternary, no norm", "pow2_ternary_no_norm", 0.05),
    _ott("exponential, no norm", "exponential_no_norm", 0.05),
    _ott("power-of-two ternary, weight norm", "pow2_ternary", 0.05),
    _ott("exponential, weight norm", "exponential", 0.05),
    _int8("War and Peace", _WP, 0.01, trained=False),
    _int8("War and Peace", _WP, 0.0, trained=True),
    _int8("UDPOS", _UDPOS, -0.2, trained=False),
    _int8("UDPOS", _UDPOS, 0.0, trained=True),
    _int8("MNIST by rows", _MNIST, -0.2, trained=False),
    _int8("MNIST by rows", _MNIST, 0.0, trained=True),
)
"""All claims, by paper."""
