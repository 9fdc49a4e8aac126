"""What a layer does in a time step: rows of products, in order, and where their results go.

A schedule is a description, shared by the circuit, which walks it, and by the image,
whose words lie in the order in which the circuit needs them. It computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Phase", "Row", "Schedule", "Task", "chunks"]

Part = Literal["input", "recurrent", "inner", "none"]
Destination = Literal["hidden", "inner", "gate"]


def chunks(count: int, size: int) -> int:
    """Number of pieces of a size that hold so many."""
    return -(-count // size)


@dataclass(frozen=True)
class Row:
    """A sum of products for each neuron, or several that take turns."""

    name: str
    part: Part
    """What is multiplied: the input vector, the old hidden vector, the inner vector (hidden values
    before a projection), or nothing."""
    start: Literal["image", "gate", "none"] = "image"
    """Where the sum starts: from the image's next start value, or from a gate's stored value; or
    nowhere, since the row goes on with the sums of the one before."""
    gates: tuple[int, ...] = ()
    """Numbers of the gates that the sums are of, in the order in which they take turns or stand
    side by side; none where the row isn't of a gate."""
    needs_cell: bool = False
    """The unit's old cell value must come with the row's last beat."""

    @property
    def gate(self) -> int:
        """The gate whose stored value the sum starts from; 0 where it starts from no such."""
        return self.gates[0] if self.start == "gate" else 0


@dataclass(frozen=True)
class Task:
    """Rows that a neuron turns into one result."""

    segment: str
    """The neuron's program for it."""
    rows: tuple[Row, ...]
    to: Destination
    gate: int = 0
    """The gate whose value the result is, where it goes to "gate"."""
    writes_cell: bool = False


@dataclass(frozen=True)
class Phase:
    """Tasks done for every unit (or every output), all before the next phase begins."""

    tasks: tuple[Task, ...]
    over: Literal["units", "outputs"] = "units"
    normalizes: tuple[int, ...] = ()
    """Gates whose stored values are normalised when the phase is over."""


@dataclass(frozen=True)
class Schedule:
    """The phases of a step, for a layer of given sizes.

    Parameters
    ----------
    phases
        One or more; the results of the last go to "hidden".
    inputs, hidden, outputs
        Lengths of the input vector, of the cell and of the hidden vector that leaves the layer.
    lanes, neurons
        Products a neuron and cycle, and neurons side by side.
    sums
        Sums that each row interleaves, a power of two: a word of activations is used for one beat
        of each, one after the other, so that a neuron has as many cycles for a sum's next beat.
    halves
        Whether a row may be taken with the high halves of its weights alone, two words of
        activations in a beat.
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
        """All rows of all phases."""
        return tuple(row for task in self.tasks for row in task.rows)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks of all phases."""
        return tuple(task for phase in self.phases for task in phase.tasks)

    def length(self, part: Part) -> int:
        """Products of a row, without padding."""
        lengths = {"input": self.inputs, "recurrent": self.outputs, "inner": self.hidden, "none": 0}
        return lengths[part]

    def beats(self, row: Row) -> int:
        """Cycles of a row; one without products takes one to pass its start value."""
        return self.sums * max(1, chunks(self.length(row.part), self.lanes))

    def least_beats(self, row: Row) -> int:
        """Cycles of a row with high halves of weights alone, where the layer halves them."""
        return chunks(self.beats(row), 2) if self.halves else self.beats(row)

    def ends_sums(self, row: Row) -> bool:
        """Whether a row's sums end with it, and the next row doesn't go on with them."""
        following = self.rows[self.rows.index(row) + 1 :]
        return not following or following[0].start != "none"

    def groups(self, phase: Phase) -> int:
        """Times that the neurons together take the phase's tasks, one unit each."""
        return chunks(self.hidden if phase.over == "units" else self.outputs, self.neurons)

    def walk(self) -> Iterator[tuple[Phase, int, Row]]:
        """Every row of a step in order, with its phase and group."""
        for phase in self.phases:
            for group in range(self.groups(phase)):
                for task in phase.tasks:
                    for row in task.rows:
                        yield phase, group, row

    @property
    def weight_words(self) -> int:
        """Words of the weight memory, each a weight for every lane of every neuron."""
        return sum(self.beats(row) for _, _, row in self.walk() if row.part != "none")

    @property
    def start_words(self) -> int:
        """Words of the memory of start values, each one value for every neuron."""
        return self.sums * sum(row.start == "image" for _, _, row in self.walk())

    @property
    def step_beats(self) -> int:
        """Cycles of a step in which the lanes are fed."""
        return sum(self.beats(row) for _, _, row in self.walk())
