"""The schedule of a layer's time step: rows of products, in order, and their destinations.

A schedule is a description and computes nothing. The circuit follows it, and the words of the image
are in the order in which the circuit needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Phase", "Row", "Schedule", "Task", "chunks"]

Part = Literal["input", "recurrent", "inner", "none"]
Destination = Literal["hidden", "inner", "gate"]


def chunks(count: int, size: int) -> int:
    """Return the number of pieces of `size` that hold `count` items."""
    return -(-count // size)


@dataclass(frozen=True)
class Row:
    """A sum of products for each neuron, or several such sums that take turns."""

    name: str
    part: Part
    """The vector that the weights multiply: the input vector, the old hidden vector, the inner
    vector (the hidden values before a projection), or none."""
    start: Literal["image", "gate", "none"] = "image"
    """The start of the sum: the image's next start value, or a gate's stored value. With "none" the
    row continues the sums of the row before."""
    gates: tuple[int, ...] = ()
    """Numbers of the gates that the sums belong to, in the order in which these take turns or are
    side by side; empty if the row belongs to no gate."""
    needs_cell: bool = False
    """Whether the row's last beat must bring the unit's old cell value."""

    @property
    def gate(self) -> int:
        """Return the gate whose stored value the sum starts from, or 0 if there is none."""
        return self.gates[0] if self.start == "gate" else 0


@dataclass(frozen=True)
class Task:
    """Rows whose sums a neuron turns into one result."""

    segment: str
    """Name of the neuron's program for the task."""
    rows: tuple[Row, ...]
    to: Destination
    gate: int = 0
    """Number of the gate whose value the result is, if `to` is "gate"."""
    writes_cell: bool = False


@dataclass(frozen=True)
class Phase:
    """Tasks for every unit (or every output), which all end before the next phase begins."""

    tasks: tuple[Task, ...]
    over: Literal["units", "outputs"] = "units"
    normalizes: tuple[int, ...] = ()
    """Numbers of the gates whose stored values are normalised at the end of the phase."""


@dataclass(frozen=True)
class Schedule:
    """The phases of a time step, for a layer of certain sizes.

    Parameters
    ----------
    phases
        One phase or more; the results of the last one go to "hidden".
    inputs, hidden, outputs
        Lengths of the input vector, of the cell and of the hidden vector that leaves the layer.
    lanes, neurons
        Products of each neuron in a cycle, and number of neurons side by side.
    sums
        Number of sums that each row interleaves, a power of two. A word of activations serves one
        beat of each sum in turn, so a neuron has so many cycles until a sum's next beat.
    halves
        Whether a row may use only the high halves of its weights, with two words of activations in
        a beat.
    """

    phases: tuple[Phase, ...]
    inputs: int
    hidden: int
    outputs: int
    lanes: int
    neurons: int
    sums: int = 1
    halves: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """Return all rows of all phases."""
        return tuple(row for task in self.tasks for row in task.rows)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Return all tasks of all phases."""
        return tuple(task for phase in self.phases for task in phase.tasks)

    def length(self, part: Part) -> int:
        """Return the number of products of a row, without padding."""
        lengths = {"input": self.inputs, "recurrent": self.outputs, "inner": self.hidden, "none": 0}
        return lengths[part]

    def beats(self, row: Row) -> int:
        """Return the cycles of a row; a row without products takes one to pass its start value."""
        return self.sums * max(1, chunks(self.length(row.part), self.lanes))

    def least_beats(self, row: Row) -> int:
        """Return the cycles of a row in LOW, where the layer halves weights; else all cycles."""
        return chunks(self.beats(row), 2) if self.halves else self.beats(row)

    def ends_sums(self, row: Row) -> bool:
        """Return whether a row's sums end with it, so that the next row starts new ones."""
        following = self.rows[self.rows.index(row) + 1 :]
        return not following or following[0].start != "none"

    def groups(self, phase: Phase) -> int:
        """Return how often all neurons together do the phase's tasks, one unit each."""
        return chunks(self.hidden if phase.over == "units" else self.outputs, self.neurons)

    def walk(self) -> Iterator[tuple[Phase, int, Row]]:
        """Yield every row of a time step in order, with its phase and group."""
        for phase in self.phases:
            for group in range(self.groups(phase)):
                for task in phase.tasks:
                    for row in task.rows:
                        yield phase, group, row

    @property
    def weight_words(self) -> int:
        """Return the words of the weight memory, each a weight for every lane of every neuron."""
        return sum(self.beats(row) for _, _, row in self.walk() if row.part != "none")

    @property
    def start_words(self) -> int:
        """Return the words of the memory of start values, each one value for every neuron."""
        return self.sums * sum(row.start == "image" for _, _, row in self.walk())

    @property
    def step_beats(self) -> int:
        """Return the cycles of a time step in which the lanes have weights to multiply."""
        return sum(self.beats(row) for _, _, row in self.walk())
