"""What the papers claim of accuracy, and what this project's own models say to it.

A `Claim` compares an experiment with its reference, the real model with the same norm, data, size
and training, seed by seed. Its goal is this project's; the published figures are quoted with their
standing, and are of larger models that were trained for longer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fewbit.accuracy.results import Row

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
        The published figures, in words; empty where none are known.
    standing
        How well they are known.
    at_least
        Whether the goal is a lower bound; None for: where a higher figure is the better one.
    """

    paper: str
    text: str
    experiment: str
    reference: str
    comparison: Comparison
    goal: float
    published: str = ""
    standing: str = "checked, of its abstract"
    at_least: bool | None = None


@dataclass(frozen=True)
class Found:
    """What the results say to a claim.

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
    metric = "bits"
    for row in rows:
        found = row["golden"]
        if row["experiment"] in figures and found is not None and found["figure"] is not None:
            metric = found["metric"]
            share = metric == "accuracy"
            figures[row["experiment"]][row["seed"]] = found["figure"] * (100 if share else 1)
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


_HOU = "checked, through Hou et al., NeurIPS 2019; H 512, 200 epochs"
_ABSTRACT = "checked, of its abstract"
_OWN = "this project's goal"
_NONE = "no figure is known"

_FLOATSD8, _INT8 = "2001.08450", "2101.05453"
_ARDAKANI, _OTT, _DYNAMIC = "1809.11086", "1608.06902", "1911.04244"
_WP, _MNIST = "war_and_peace", "mnist_rows"


def _difference(
    paper: str,
    text: str,
    experiment: str,
    reference: str,
    goal: float,
    published: str = _NONE,
    standing: str = _ABSTRACT,
    *,
    at_least: bool | None = None,
) -> Claim:
    return Claim(
        paper, text, experiment, reference, "difference", goal, published, standing, at_least
    )


CLAIMS = (
    _difference(
        _FLOATSD8, "FloatSD8, UDPOS", "udpos/floatsd8", "udpos/float", -0.3, "preserved fully"
    ),
    Claim(
        _FLOATSD8,
        "FloatSD8, WikiText-2",
        "wikitext2/floatsd8",
        "wikitext2/float",
        "ratio",
        1.02,
        "preserved fully",
    ),
    _difference(
        _FLOATSD8, "FloatSD8, characters", f"{_WP}/floatsd8", f"{_WP}/float", 0.02, standing=_OWN
    ),
    _difference(
        _FLOATSD8,
        "FloatSD8, MNIST by rows",
        f"{_MNIST}/floatsd8",
        f"{_MNIST}/float",
        -0.1,
        standing=_OWN,
    ),
    _difference(
        _ARDAKANI,
        "ternary, weight norm",
        f"{_WP}/ternary",
        f"{_WP}/float_weight_norm",
        0.03,
        "1.72 against 1.73: -0.01",
        _HOU,
    ),
    _difference(
        _ARDAKANI,
        "binary, weight norm",
        f"{_WP}/binary",
        f"{_WP}/float_weight_norm",
        0.06,
        "1.74 against 1.73: 0.01",
        _HOU,
    ),
    _difference(
        _ARDAKANI,
        "ternary, sampled, batch norm",
        f"{_WP}/ternary_batch_norm",
        f"{_WP}/float_batch_norm",
        0.03,
        "1.72 against 1.72: 0.00, statistics of each step",
        _HOU,
    ),
    _difference(
        _ARDAKANI,
        "binary, sampled, batch norm",
        f"{_WP}/binary_batch_norm",
        f"{_WP}/float_batch_norm",
        0.06,
        "1.78 against 1.72: 0.06, statistics of each step",
        _HOU,
    ),
    *(
        claim
        for weights in ("ternary", "binary")
        for norm in ("weight", "batch")
        for claim in (
            Claim(
                _ARDAKANI,
                f"{weights}, {norm} norm",
                f"{_MNIST}/{weights}{'_batch_norm' if norm == 'batch' else ''}",
                "",
                "value",
                98.0,
                "98.8 ternary, 98.6 binary, 98.9 full, by pixels",
                "recalled",
            ),
            _difference(
                _ARDAKANI,
                f"{weights}, {norm} norm",
                f"{_MNIST}/{weights}{'_batch_norm' if norm == 'batch' else ''}",
                f"{_MNIST}/float_{norm}_norm",
                -0.3,
                "-0.1 ternary, -0.3 binary, by pixels",
                "recalled",
            ),
        )
    ),
    _difference(
        _OTT,
        "binary without norm fails",
        f"{_WP}/binary_no_norm",
        f"{_WP}/float",
        0.5,
        "fails",
        at_least=True,
    ),
    *(
        _difference(_OTT, f"{text} without norm", f"{_WP}/{name}_no_norm", f"{_WP}/float", 0.05)
        for text, name in (
            ("ternary", "ternary"),
            ("power-of-two ternary", "pow2_ternary"),
            ("exponential", "exponential"),
        )
    ),
    *(
        _difference(
            _OTT,
            f"{text} with weight norm (the second try)",
            f"{_WP}/{name}",
            f"{_WP}/float_weight_norm",
            0.05,
            standing=_OWN,
        )
        for text, name in (
            ("power-of-two ternary", "pow2_ternary"),
            ("exponential", "exponential"),
            ("four powers of two", "pow2"),
        )
    ),
    *(
        _difference(
            _INT8,
            f"int8 {text}",
            f"{recipe}/int8{'' if trained else '_converted'}",
            f"{recipe}/float",
            (0.0 if trained else 0.01) if recipe == _WP else (0.0 if trained else -0.2),
            "no loss",
            "recalled" if trained else _ABSTRACT,
        )
        for recipe, title in ((_WP, "War and Peace"), ("udpos", "UDPOS"), (_MNIST, "MNIST by rows"))
        for trained in (False, True)
        for text in (f"{'trained with quantisation' if trained else 'after training'}, {title}",)
    ),
)
"""All claims, by paper."""
