"""The rows of a report: papers' headline claims beside this project's own measurements.

A figure of a paper is quoted with its standing, which says how well it is known. A claim that does
not hold is shown as not holding. Both sides of a ratio are measured the same way, by the same tool.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fewbit.hdl.design import Value

__all__ = [
    "Finding",
    "Measurement",
    "Options",
    "Paper",
    "Settings",
    "command",
    "ratio",
    "with_goal",
]

Settings = dict[str, Value | str]
"""Values of a design's parameters, by their names."""


@dataclass(frozen=True)
class Options:
    """The options of a reproduction."""

    liberty: Path | None = None
    """Liberty file of a process in which areas are measured as well."""
    operands: Path | None = None
    """File of operands for the switching activity of `floatsd8`, see its `read_operands`."""
    data: Path | None = None
    """Folder of the data on which `accuracy` evaluates models again."""
    campaign: Path | None = None
    """Folder of a campaign whose results and models `accuracy` takes; None for the committed."""


@dataclass(frozen=True)
class Finding:
    """A claim beside this project's measurement of it."""

    claim: str
    paper: float | None
    """The paper's figure; None if the paper has none."""
    measured: float | None
    """The figure measured here; None if another command measures it."""
    unit: str
    standing: str
    """The source and reliability of the paper's figure, or of the figure compared with."""
    how: str
    """Command that measures the figure."""
    figures: dict[str, float] = field(default_factory=dict)
    """The figures from which the measured one is computed, by name."""
    note: str = ""
    less_is_better: bool = False
    """Whether the claim holds if the measured figure is at most what it is compared with."""
    goal: float | None = None
    """This project's own goal, which the figure is compared with in place of the paper's."""
    digits: int = 2
    """Digits after the point that the figures are shown with."""

    @property
    def holds(self) -> bool | None:
        """Return whether the figure reaches the goal, or the paper's; None where one is missing."""
        bound = self.paper if self.goal is None else self.goal
        if bound is None or self.measured is None:
            return None
        if self.less_is_better:
            return self.measured <= bound
        return self.measured >= bound

    def as_json(self) -> dict[str, Any]:
        """Return the finding as an object of JSON."""
        return {
            "claim": self.claim,
            "paper": self._rounded(self.paper),
            "goal": self._rounded(self.goal),
            "measured": self._rounded(self.measured),
            "unit": self.unit,
            "holds": self.holds,
            "standing": self.standing,
            "how": self.how,
            "figures": {name: self._rounded(value) for name, value in self.figures.items()},
            "note": self.note,
        }

    def _rounded(self, value: float | None) -> float | None:
        return None if value is None else round(value, self.digits + 1)


Measurement = Callable[[], list[Finding]]


@dataclass(frozen=True)
class Paper:
    """A paper whose claims are reproduced."""

    name: str
    title: str
    measurements: Callable[[Options], Sequence[Measurement]]
    """Function of the options to measurements, which begin only when they are called."""
    synthesises: bool = True
    """Whether Yosys measures the figures."""


def ratio(
    claim: str,
    paper: float | None,
    figures: dict[str, float],
    unit: str,
    standing: str,
    how: str,
    note: str = "",
) -> Finding:
    """Return the finding that the first figure is so many times the second."""
    first, second = list(figures.values())[:2]
    named = {f"{name}, {unit}": value for name, value in figures.items()}
    return Finding(claim, paper, first / second, "×", standing, how, named, note)


def with_goal(row: Finding, goal: float) -> Finding:
    """Return the finding with a note that says whether the project's own goal is reached."""
    assert row.measured is not None
    is_reached = row.measured <= goal if row.less_is_better else row.measured >= goal
    percent = " %" if row.unit == "%" else ""
    note = f"this project's own goal of {goal:g}{percent} is{'' if is_reached else ' not'} reached"
    return replace(row, note="; ".join(filter(None, (row.note, note))))


def command(verb: str, designs: str, settings: Settings, more: str = "") -> str:
    """Return the command line of one or several designs and their settings."""
    return " ".join(
        ["fewbit", verb, designs, *(f"--set {name}={value}" for name, value in settings.items())]
        + [more] * bool(more)
    )
