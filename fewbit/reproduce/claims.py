"""Papers' headline claims beside what is measured here.

A figure of a paper is quoted with its standing, and a claim that doesn't hold is shown as not
holding. Both sides of a ratio are measured the same way, by the same tool.
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
"""Of a design, by the names of its parameters."""


@dataclass(frozen=True)
class Options:
    """What a reproduction may be given."""

    liberty: Path | None = None
    """Liberty file of a process to measure in, too."""
    operands: Path | None = None
    """Operands for the switching activity of `floatsd8`, as its `read_operands` takes them."""


@dataclass(frozen=True)
class Finding:
    """A claim beside what is measured."""

    claim: str
    paper: float | None
    """The paper's figure; None if it gives none."""
    measured: float | None
    """The figure here; None if another command gives it."""
    unit: str
    standing: str
    """Of the paper's figure, or of what the measured one is compared with."""
    how: str
    """Command that gives the measured figure."""
    figures: dict[str, float] = field(default_factory=dict)
    """What the measured figure is made of."""
    note: str = ""
    less_is_better: bool = False
    """Whether the claim holds where at most the paper's figure is measured."""

    @property
    def holds(self) -> bool | None:
        """Whether at least the paper's figure is measured; None where there is none of the two."""
        if self.paper is None or self.measured is None:
            return None
        if self.less_is_better:
            return self.measured <= self.paper
        return self.measured >= self.paper

    def as_json(self) -> dict[str, Any]:
        """The row as an object of JSON."""
        return {
            "claim": self.claim,
            "paper": None if self.paper is None else round(self.paper, 3),
            "measured": None if self.measured is None else round(self.measured, 3),
            "unit": self.unit,
            "holds": self.holds,
            "standing": self.standing,
            "how": self.how,
            "figures": {name: round(value, 3) for name, value in self.figures.items()},
            "note": self.note,
        }


Measurement = Callable[[], list[Finding]]


@dataclass(frozen=True)
class Paper:
    """A paper whose claims are reproduced."""

    name: str
    title: str
    measurements: Callable[[Options], Sequence[Measurement]]
    """Measurements, each of which gives rows; none is begun before it is called."""


def ratio(
    claim: str,
    paper: float | None,
    figures: dict[str, float],
    unit: str,
    standing: str,
    how: str,
    note: str = "",
) -> Finding:
    """How many times the first figure is the second."""
    first, second = list(figures.values())[:2]
    named = {f"{name}, {unit}": value for name, value in figures.items()}
    return Finding(claim, paper, first / second, "×", standing, how, named, note)


def with_goal(row: Finding, goal: float) -> Finding:
    """The row with a note that says whether the project's own goal is reached."""
    assert row.measured is not None
    is_reached = row.measured <= goal if row.less_is_better else row.measured >= goal
    percent = " %" if row.unit == "%" else ""
    note = f"this project's own goal of {goal:g}{percent} is{'' if is_reached else ' not'} reached"
    return replace(row, note="; ".join(filter(None, (row.note, note))))


def command(verb: str, designs: str, settings: Settings, more: str = "") -> str:
    """Command line of a design or of several, and their settings."""
    return " ".join(
        ["fewbit", verb, designs, *(f"--set {name}={value}" for name, value in settings.items())]
        + [more] * bool(more)
    )
