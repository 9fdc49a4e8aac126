"""Cycles of a layer with the integer LSTM's update: which one its neurons get, what a step takes.

The lanes hand over rows and the update uses them up, each waiting for the other where it must. So
the cycle of every event is the latest of a few others plus a constant, and what a step takes
follows from its rows and the update's program without any data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.layer.schedule import Phase, Row, Schedule, Task, chunks
from fewbit.golden.lstm.integer_variant import IntegerVariant
from fewbit.hdl.activation.gemmlowp import STEPS
from fewbit.hdl.activation.table import FRACTION
from fewbit.hdl.layer.cycles import PhaseCycles, StepCycles
from fewbit.hdl.neuron.integer_program import Kind, Operation, Program
from fewbit.hdl.structure import Structure

__all__ = ["Update", "cycles_of_groups", "step_cycles", "update_of", "waiting_rows"]


class Contract(Protocol):
    """A layer whose neurons have the integer LSTM's update."""

    @property
    def activation(self) -> ActivationKind:
        """How gates are activated."""
        ...

    @property
    def variant(self) -> IntegerVariant:
        """Which parts the layer has."""
        ...

    @property
    def schedule(self) -> Schedule:
        """What the layer does in a time step."""
        ...

    @property
    def value_bytes(self) -> int:
        """Bytes of an input or a hidden value."""
        ...


@dataclass(frozen=True)
class Update:
    """How the update of a unit is built."""

    chunk: int
    """Bits of a factor that its multiplier takes a cycle."""
    interpolates: bool
    """Whether the table's interpolation has a multiplier of its own."""


# From the smallest circuit to the fastest.
_UPDATES = {
    "table": (Update(4, False), Update(8, False), Update(16, False), Update(16, True)),
    "gemmlowp": (Update(4, False), Update(8, False), Update(16, False)),
}


@cache
def update_of(contract: Contract) -> Update:
    """The smallest update that keeps up with the lanes, or the fastest if none does."""
    choices = _UPDATES[contract.activation]
    runs = [_Run(contract, "gates", each, low=contract.schedule.halves) for each in choices]
    for each, run in zip(choices, runs, strict=True):
        if run.keeps_up:
            return each
    return min(zip(choices, runs, strict=True), key=lambda pair: pair[1].end)[0]


def waiting_rows(contract: Contract, update: Update, structure: Structure) -> int:
    """Rows that wait at a neuron, so that the lanes go on while the update is behind them."""
    if contract.variant.norm:
        return 0
    # An FPGA's memory gives the table a cycle later. Rows of half as many beats are more uneven.
    long = structure == "fpga" or contract.schedule.halves
    return (3 if long else 2) if update.interpolates else 1


SHARERS = 2
"""Neurons that take turns at an interpolation: of two none has to wait for long."""


def shares_activation(contract: Contract, update: Update, structure: Structure) -> bool:
    """Whether neurons take turns at an interpolation.

    Layers that halve weights do: their lanes are fast enough for the fastest update, which no
    neuron asks to activate in more than one cycle of four.
    """
    schedule = contract.schedule
    return schedule.halves and update.interpolates and structure == "gates" and schedule.neurons > 1


@cache
def step_cycles(contract: Contract, structure: Structure) -> StepCycles:
    """What a time step takes; exact by table without layer norm, else at most so much."""
    run = _Run(contract, structure, update_of(contract))
    schedule = contract.schedule
    products = sum(
        schedule.length(row.part) * (schedule.hidden if phase.over == "units" else schedule.outputs)
        for phase in schedule.phases
        for task in phase.tasks
        for row in task.rows
    )
    # A byte a cycle, and one to see of what kind the packet is. Of two vectors' memory one is
    # free for the next only in the cycle after the step's last.
    loading = contract.value_bytes * schedule.inputs + 1
    return StepCycles(
        beats=schedule.step_beats,
        cycles=run.end,
        interval=max(run.end, loading + (run.end == loading)),
        # A step begins in the cycle after the last byte.
        first_byte=1 + run.first_byte,
        last_byte=1 + run.last_byte,
        products=products,
        multipliers=schedule.neurons * schedule.lanes,
        phases=tuple(run.phases),
        is_exact=contract.activation == "table" and not contract.variant.norm,
        note="a scale that shifts left by n adds up to n to each of its rows",
        unless="a scale shifts left",
        least_cycles=_Run(contract, structure, update_of(contract), low=True).end
        if schedule.halves
        else None,
    )


def cycles_of_groups(contract: Contract, structure: Structure, low: Sequence[bool]) -> int:
    """What a time step of a layer takes that takes some groups with high halves of weights alone.

    Exact where `step_cycles` is.

    Parameters
    ----------
    contract, structure
        The layer, whose schedule halves weights.
    low
        Of each group, in order, whether it is one of these.
    """
    return _Run(contract, structure, update_of(contract), groups=low).end


GROUPS_RUN = 3
"""Groups of a phase that are run; from the first on each takes as long as the one before."""

_BEFORE = -100
"""A cycle before any that counts."""


@dataclass(eq=False)
class _Neuron:
    """Cycles of the last events of a neuron."""

    loads: list[int]
    """In which a row went into each waiting place, and into the update."""
    used: int = _BEFORE
    """In which the update had used up its row."""
    ended: int = _BEFORE
    """In which an operation took its last step."""
    activated: int = _BEFORE
    """In which an activation beside the operations had its result."""
    given: int = _BEFORE
    """In which a result was collected."""
    multiplied: bool = True
    """Whether the last operation left a product to be finished."""
    left: list[Operation] = field(default_factory=list[Operation])
    """Operations of the task that are still to come."""
    begins: bool = False
    """Whether the next operation is the first of its task."""
    asked: int = _BEFORE
    """In which it asked last for a shared activation."""
    frozen: int = 0
    """Cycles for which it then had to stand still."""
    taken: set[int] = field(default_factory=set[int])
    """Cycles in which the shared activation was its."""

    def after(self, cycle: int, count: int) -> int:
        """The cycle so many cycles later in which it moves, those not counted in between."""
        end = cycle + count
        return end + self.frozen if cycle < self.asked <= end else end

    def next_move(self, cycle: int) -> int:
        """The cycle, or the first one after it in which it moves."""
        stands = self.asked <= cycle < self.asked + self.frozen
        return self.asked + self.frozen if stands else cycle


class _Run:
    """A step's events, counted from the cycle before it begins."""

    def __init__(
        self,
        contract: Contract,
        structure: Structure,
        update: Update,
        *,
        low: bool = False,
        groups: Sequence[bool] | None = None,
    ) -> None:
        self.contract = contract
        self.schedule = schedule = contract.schedule
        self.low = low
        """Whether rows are taken with high halves of weights alone."""
        self.low_groups = groups
        """Of each group, if they differ."""
        self.shares = shares_activation(contract, update, structure)
        self.value_bytes = contract.value_bytes
        self.places = waiting_rows(contract, update, structure)
        self.beside = 0 if not update.interpolates else 1 if structure == "gates" else 2
        quick = update.chunk == 16
        self.program = Program(contract.variant, self.beside, quick=quick)
        by_steps = contract.activation == "gemmlowp"
        multiply = 16 // update.chunk
        self.lengths = {
            Kind.REQUANTISE: 32 // update.chunk,
            Kind.REQUANTISE_PRODUCT: 32 // update.chunk,
            Kind.MULTIPLY: multiply,
            # Each of gemmlowp's steps waits until the one before is finished; none is skipped.
            Kind.ACTIVATE: len(STEPS) * (multiply + 1) - 1
            if by_steps
            else chunks(FRACTION, update.chunk),
            Kind.LOAD: 1,
            Kind.RECALL: 1,
        }
        self.neurons = [_Neuron([_BEFORE] * (self.places + 1)) for _ in range(schedule.neurons)]
        self.fed = 1
        """The cycle of the last beat; the first one comes two cycles after the step's beginning."""
        self.end = 0
        """The cycle of the last result."""
        self.first_byte = self.last_byte = 0
        self.phases: list[PhaseCycles] = []
        self.keeps_up = True
        """Whether the lanes are never held up from group to group."""
        beats_before = 0
        for phase in schedule.phases:
            beats = sum(self.beats(row) for task in phase.tasks for row in task.rows)
            before = self.end
            first, period = self._run_phase(phase)
            normalising = len(phase.normalizes) * self._normalising
            has_products = any(row.part != "none" for task in phase.tasks for row in task.rows)
            # What only turns normalised gates into values takes no longer than their sums did.
            self.keeps_up &= period <= (beats if has_products else beats_before)
            beats_before = beats
            self.phases.append(
                PhaseCycles(schedule.groups(phase), first - before, period, normalising)
            )
            self.end += normalising
            # The first beat of the next phase comes two cycles later.
            self.fed = self.end + 1

    @property
    def _normalising(self) -> int:
        """Most cycles that :class:`fewbit.hdl.neuron.layer_norm.LayerNorm` takes for a gate."""
        units = self.schedule.hidden
        steps = chunks(32 + (units - 1).bit_length(), 16)
        start = 88 + 2 * steps + 16
        # Reading begins two cycles before the first value is there.
        return 3 + units + start + 10 * units

    def beats(self, row: Row) -> int:
        """Cycles of a row."""
        return self.schedule.least_beats(row) if self.low else self.schedule.beats(row)

    def _run_phase(self, phase: Phase) -> tuple[int, int]:
        """Run a phase: the cycle of the first group's last result, and those from group to group.

        From the first group on, every group takes as long as the one before.
        """
        schedule = self.schedule
        groups = schedule.groups(phase)
        total = schedule.hidden if phase.over == "units" else schedule.outputs
        ends: list[int] = []
        # Neurons that take turns fall into step after some groups.
        count = GROUPS_RUN * (4 if self.shares else 1)
        for group in range(groups if self.low_groups else min(groups, count)):
            if self.low_groups:
                self.low = self.low_groups[group]
            for task in phase.tasks:
                self._run_task(task)
                if not group:
                    self.first_byte = self.neurons[0].given + 1 - self.value_bytes
            ends.append(self.end)
        period = ends[-1] - ends[-2] if len(ends) > 1 else 0
        self._skip((groups - len(ends)) * period)
        self.last_byte = self.neurons[(total - 1) % schedule.neurons].given
        # Neurons of the last group without a unit have a result, but no second byte of it.
        spare = groups * schedule.neurons - total
        saved = spare * (self.value_bytes - 1)
        self.end -= saved
        if self.shares:
            return self.end - (groups - 1) * period, period
        return ends[0] - saved, period

    def _skip(self, cycles: int) -> None:
        self.end += cycles
        self.fed += cycles
        for neuron in self.neurons:
            neuron.loads = [each + cycles for each in neuron.loads]
            neuron.used += cycles
            neuron.ended += cycles
            neuron.activated += cycles
            neuron.given += cycles
            neuron.asked += cycles
            neuron.taken = {each + cycles for each in neuron.taken}

    def _run_task(self, task: Task) -> None:
        for neuron in self.neurons:
            neuron.left = list(self.program.segments[task.segment])
            neuron.begins = True
        for index, row in enumerate(task.rows):
            self.fed = max(
                self.fed + self.beats(row),
                *(self._place_is_free(neuron, index == 0) for neuron in self.neurons),
            )
            for neuron in self.neurons:
                self._hand_over(neuron, index == 0)
                self._operate(neuron, to_the_end=index == len(task.rows) - 1)
        for neuron in self.neurons:
            # One byte a cycle leaves.
            valid = neuron.after(neuron.ended, 1)
            self.end = neuron.given = (
                neuron.next_move(max(valid, self.end + 1))
                + (self.value_bytes if task.to == "hidden" else 1)
                - 1
            )

    def _place_is_free(self, neuron: _Neuron, is_first: bool) -> int:
        """The first cycle in which the neuron takes a row."""
        return neuron.loads[1] if self.places else self._update_is_free(neuron, is_first)

    def _update_is_free(self, neuron: _Neuron, is_first: bool) -> int:
        free = neuron.next_move(max(neuron.used, neuron.loads[-1] + 1))
        # With several segments a unit's first row comes when the unit before is gone.
        return max(free, neuron.given) if self.program.waiting and is_first else free

    def _hand_over(self, neuron: _Neuron, is_first: bool) -> None:
        """A row goes from place to place, each as soon as the next one is free."""
        loads = [self.fed]
        for place in range(1, self.places + 1):
            if place < self.places:
                free = neuron.loads[place + 1]
            else:
                free = self._update_is_free(neuron, is_first)
            loads.append(max(loads[-1] + 1, free))
        if self.places:
            loads[-1] = neuron.next_move(loads[-1])
        neuron.loads = loads

    def _ask(self, neuron: _Neuron) -> None:
        """Wait for a shared activation until no neuron of the pair before this one asks for it."""
        neuron.asked = neuron.activated
        index = self.neurons.index(neuron)
        before = self.neurons[index // SHARERS * SHARERS : index]
        while any(neuron.activated in each.taken for each in before):
            neuron.activated += 1
        neuron.frozen = neuron.activated - neuron.asked
        neuron.taken.add(neuron.activated)

    def _operate(self, neuron: _Neuron, *, to_the_end: bool) -> None:
        """Operations up to the one that uses up the row, or all that are left."""
        while neuron.left:
            operation = neuron.left.pop(0)
            start = neuron.after(neuron.ended, 1)
            if operation.row or operation.needs_row:
                start = max(start, neuron.after(neuron.loads[-1], 1))
            if neuron.begins:
                start = max(start, neuron.given)
            if not operation.independent:
                # A product is finished in the cycle after its last step.
                finished = neuron.after(neuron.ended, 1 + neuron.multiplied)
                start = max(start, finished, neuron.after(neuron.activated, 1))
            neuron.begins = False
            neuron.ended = neuron.after(neuron.next_move(start), self.lengths[operation.kind] - 1)
            neuron.multiplied = operation.kind not in (Kind.LOAD, Kind.RECALL)
            if operation.activates:
                neuron.activated = neuron.after(neuron.ended, neuron.multiplied + self.beside)
                if self.shares:
                    self._ask(neuron)
            if operation.row:
                neuron.used = neuron.ended
                if not to_the_end:
                    return
