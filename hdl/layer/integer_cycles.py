"""Cycles of a layer with the integer LSTM's update, and the choice of that update.

In each neuron the lanes sum up a row, hand the sum over, and begin the next row; the update uses
the sums up, one operation after the other. Each waits for the other where it must. The cycle of
every such event is the latest of a few earlier events plus a constant, and depends on no data. So
the length of a time step follows from a small simulation of these events, `_Run`.
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
        """The way in which gates are activated: by table, or by gemmlowp's steps."""
        ...

    @property
    def variant(self) -> IntegerVariant:
        """The variant of the LSTM, such as with a peephole or a projection."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The order of the layer's rows in a time step."""
        ...

    @property
    def value_bytes(self) -> int:
        """The bytes of an input or a hidden value: 1 or 2."""
        ...


@dataclass(frozen=True)
class Update:
    """The parameters of the circuit that updates a unit; more hardware makes it faster."""

    chunk: int
    """Bits of a factor that the multiplier takes a cycle."""
    interpolates: bool
    """Whether the table's interpolation has a multiplier of its own."""


# From the smallest circuit to the fastest.
_UPDATES = {
    "table": (Update(4, False), Update(8, False), Update(16, False), Update(16, True)),
    "gemmlowp": (Update(4, False), Update(8, False), Update(16, False)),
}


@cache
def update_of(contract: Contract) -> Update:
    """Choose the smallest update that keeps up with the lanes, or the fastest if none does."""
    choices = _UPDATES[contract.activation]
    runs = [_Run(contract, "gates", each, low=contract.schedule.halves) for each in choices]
    for each, run in zip(choices, runs, strict=True):
        if run.keeps_up:
            return each
    return min(zip(choices, runs, strict=True), key=lambda pair: pair[1].end)[0]


def waiting_rows(contract: Contract, update: Update, structure: Structure) -> int:
    """Return how many rows' sums can wait between the lanes and the update of a neuron.

    While a sum waits for an update that is behind, the lanes go on with the next row.
    """
    if contract.variant.norm:
        return 0
    # More places even out an irregular order: that of the update where an FPGA's memory gives the
    # table a cycle later, and that of rows where some take half as many beats.
    long = structure == "fpga" or contract.schedule.halves
    return (3 if long else 2) if update.interpolates else 1


SHARERS = 2
"""Neurons that share an interpolation: with two, none has to wait for long."""


def shares_activation(contract: Contract, update: Update, structure: Structure) -> bool:
    """Return whether `SHARERS` neurons share one interpolation, and take turns at it.

    Layers whose weights can be taken by halves do. Their lanes are so fast that they need the
    fastest update, and even that activates in at most one cycle of four.
    """
    schedule = contract.schedule
    return schedule.halves and update.interpolates and structure == "gates" and schedule.neurons > 1


@cache
def step_cycles(contract: Contract, structure: Structure) -> StepCycles:
    """Count the cycles of a time step.

    The count is exact where gates are activated by table and there is no layer norm. Elsewhere some
    operations depend on data, and it is an upper bound.
    """
    run = _Run(contract, structure, update_of(contract))
    schedule = contract.schedule
    products = sum(
        schedule.length(row.part) * (schedule.hidden if phase.over == "units" else schedule.outputs)
        for phase in schedule.phases
        for task in phase.tasks
        for row in task.rows
    )
    # A vector's bytes arrive one a cycle, after a cycle in which the kind of its packet is seen.
    # Memory holds two vectors, and the place of the one that this time step uses is free only in
    # the cycle after the time step's last.
    loading = contract.value_bytes * schedule.inputs + 1
    return StepCycles(
        beats=schedule.step_beats,
        cycles=run.end,
        interval=max(run.end, loading + (run.end == loading)),
        # A time step begins in the cycle after the vector's last byte.
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
    """Count the cycles of a time step in which some groups of units are in mode LOW.

    In LOW only the high halves of weights are multiplied, which takes fewer beats. The count is
    exact where that of `step_cycles` is.

    Parameters
    ----------
    contract, structure
        The layer; its weights can be taken by halves.
    low
        For each group of a phase, in order: whether it is in mode LOW.
    """
    return _Run(contract, structure, update_of(contract), groups=low).end


GROUPS_RUN = 3
"""Groups of a phase that are simulated; all later ones take as long as the last of them."""

_LONG_AGO = -100
"""The cycle of an event that has not happened yet; too early to make anything wait."""


@dataclass(eq=False)
class _Neuron:
    """The state of a simulated neuron: for each kind of event, the cycle of the latest one."""

    entered: list[int]
    """The cycles in which the latest row entered the first waiting place, then the second and so
    on, and at last the update; without waiting places that of the update alone."""
    row_used: int = _LONG_AGO
    """The cycle in which the update had used up its row."""
    operation_ended: int = _LONG_AGO
    """The cycle in which the latest operation took its last step."""
    activated: int = _LONG_AGO
    """The cycle in which the latest activation by the separate interpolation had its result."""
    collected: int = _LONG_AGO
    """The cycle in which the last byte of the latest result left the neuron."""
    has_product: bool = True
    """Whether the latest operation left a product, which is finished a cycle later."""
    remaining: list[Operation] = field(default_factory=list[Operation])
    """The operations of the present task that are still to come."""
    is_at_first: bool = False
    """Whether the next operation is the first of its task."""
    asked: int = _LONG_AGO
    """The cycle in which the neuron asked for the shared interpolation, if it shares one."""
    stood_still: int = 0
    """The cycles, from that one on, in which it stood still until the other neuron was served."""
    served: set[int] = field(default_factory=set[int])
    """The cycles in which the shared interpolation worked for this neuron."""

    def after(self, cycle: int, count: int) -> int:
        """Return the cycle that is `count` cycles later, not counting those of standing still."""
        end = cycle + count
        return end + self.stood_still if cycle < self.asked <= end else end

    def next_move(self, cycle: int) -> int:
        """Return the cycle, or if the neuron stands still in it, the next in which it moves."""
        stands = self.asked <= cycle < self.asked + self.stood_still
        return self.asked + self.stood_still if stands else cycle


class _Run:
    """A simulation of one time step, event by event; cycle 0 is the one before it begins.

    Neurons take each row's beats together and update their units each for itself. The phases of
    the schedule follow one after the other; in each, group after group of units passes through the
    neurons, and in each group task after task.

    Parameters
    ----------
    contract, structure
        The layer.
    update
        The update of its neurons.
    low
        Whether all groups are in mode LOW.
    groups
        For each group: whether it is in mode LOW. It replaces `low`.
    """

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
        """Whether the present group is in mode LOW: high halves of weights alone."""
        self.low_groups = groups
        """For each group whether it is in mode LOW; None if all are alike."""
        self.shares_activation = shares_activation(contract, update, structure)
        self.value_bytes = contract.value_bytes
        self.waiting_places = waiting_rows(contract, update, structure)
        """Places in which a row's sum can wait between a neuron's lanes and its update."""
        self.beside = 0 if not update.interpolates else 1 if structure == "gates" else 2
        """Cycles that an activation takes beside the operations; 0 if it is one of them."""
        quick = update.chunk == 16
        self.program = Program(contract.variant, self.beside, quick=quick)
        by_steps = contract.activation == "gemmlowp"
        multiply = 16 // update.chunk
        self.lengths = {
            Kind.REQUANTISE: 32 // update.chunk,
            Kind.REQUANTISE_PRODUCT: 32 // update.chunk,
            Kind.MULTIPLY: multiply,
            # Each of gemmlowp's steps waits until the one before is finished. Which ones can be
            # skipped depends on data, so that all are counted.
            Kind.ACTIVATE: len(STEPS) * (multiply + 1) - 1
            if by_steps
            else chunks(FRACTION, update.chunk),
            Kind.LOAD: 1,
            Kind.RECALL: 1,
        }
        self.neurons = [
            _Neuron([_LONG_AGO] * (self.waiting_places + 1)) for _ in range(schedule.neurons)
        ]
        self.last_beat = 1
        """The cycle of the latest row's last beat; a time step's first beat is in cycle 2."""
        self.end = 0
        """The cycle in which the latest result left the layer, or in which the phase ended."""
        self.first_byte = self.last_byte = 0
        self.phases: list[PhaseCycles] = []
        self.keeps_up = True
        """Whether the lanes of no phase ever wait for the update, once its first group is done."""
        beats_before = 0
        for phase in schedule.phases:
            beats = sum(self.beats(row) for task in phase.tasks for row in task.rows)
            before = self.end
            first, period = self._run_phase(phase)
            normalising = len(phase.normalizes) * self._normalising
            has_products = any(row.part != "none" for task in phase.tasks for row in task.rows)
            # A phase without products turns normalised gates into values. It may take as long as
            # the phase before, which summed them up.
            self.keeps_up &= period <= (beats if has_products else beats_before)
            beats_before = beats
            self.phases.append(
                PhaseCycles(schedule.groups(phase), first - before, period, normalising)
            )
            self.end += normalising
            # The first beat of the next phase comes two cycles later.
            self.last_beat = self.end + 1

    @property
    def _normalising(self) -> int:
        """The most cycles that :class:`fewbit.hdl.neuron.layer_norm.LayerNorm` takes for a gate."""
        units = self.schedule.hidden
        steps = chunks(32 + (units - 1).bit_length(), 16)
        start = 88 + 2 * steps + 16
        # Reading begins two cycles before the first value is there.
        return 3 + units + start + 10 * units

    def beats(self, row: Row) -> int:
        """Return the beats of a row in the present group's mode."""
        return self.schedule.least_beats(row) if self.low else self.schedule.beats(row)

    def _run_phase(self, phase: Phase) -> tuple[int, int]:
        """Simulate a phase.

        Returns
        -------
        The cycle of the first group's last result, and the cycles from each group to the next.
        """
        schedule = self.schedule
        groups = schedule.groups(phase)
        total = schedule.hidden if phase.over == "units" else schedule.outputs
        ends: list[int] = []
        # Neurons that share an interpolation take more groups to settle into a regular order.
        count = GROUPS_RUN * (4 if self.shares_activation else 1)
        for group in range(groups if self.low_groups else min(groups, count)):
            if self.low_groups:
                self.low = self.low_groups[group]
            for task in phase.tasks:
                self._run_task(task)
                if not group:
                    self.first_byte = self.neurons[0].collected + 1 - self.value_bytes
            ends.append(self.end)
        period = ends[-1] - ends[-2] if len(ends) > 1 else 0
        self._skip((groups - len(ends)) * period)
        self.last_byte = self.neurons[(total - 1) % schedule.neurons].collected
        # In the last group, neurons without a unit give a result as well, but never a second byte.
        spare = groups * schedule.neurons - total
        saved = spare * (self.value_bytes - 1)
        self.end -= saved
        if self.shares_activation:
            return self.end - (groups - 1) * period, period
        return ends[0] - saved, period

    def _skip(self, cycles: int) -> None:
        """Move all events to later cycles: groups have passed that need no simulation."""
        self.end += cycles
        self.last_beat += cycles
        for neuron in self.neurons:
            neuron.entered = [each + cycles for each in neuron.entered]
            neuron.row_used += cycles
            neuron.operation_ended += cycles
            neuron.activated += cycles
            neuron.collected += cycles
            neuron.asked += cycles
            neuron.served = {each + cycles for each in neuron.served}

    def _run_task(self, task: Task) -> None:
        """Simulate a task: its rows in all neurons, then the bytes of their results."""
        for neuron in self.neurons:
            neuron.remaining = list(self.program.segments[task.segment])
            neuron.is_at_first = True
        for index, row in enumerate(task.rows):
            self.last_beat = max(
                self.last_beat + self.beats(row),
                *(self._place_is_free(neuron, index == 0) for neuron in self.neurons),
            )
            for neuron in self.neurons:
                self._hand_over(neuron, index == 0)
                self._operate(neuron, to_the_end=index == len(task.rows) - 1)
        for neuron in self.neurons:
            # The layer's results leave a byte a cycle, one neuron after the other.
            valid = neuron.after(neuron.operation_ended, 1)
            self.end = neuron.collected = (
                neuron.next_move(max(valid, self.end + 1))
                + (self.value_bytes if task.to == "hidden" else 1)
                - 1
            )

    def _place_is_free(self, neuron: _Neuron, is_first: bool) -> int:
        """Return the first cycle in which the neuron can take a row's sum from its lanes."""
        return neuron.entered[1] if self.waiting_places else self._update_is_free(neuron, is_first)

    def _update_is_free(self, neuron: _Neuron, is_first: bool) -> int:
        """Return the first cycle in which the update can take a row's sum."""
        free = neuron.next_move(max(neuron.row_used, neuron.entered[-1] + 1))
        # With several segments a unit's first row, which says the segment, is taken only when the
        # result of the unit before has left.
        return max(free, neuron.collected) if self.program.waiting and is_first else free

    def _hand_over(self, neuron: _Neuron, is_first: bool) -> None:
        """Move a row from the lanes to the update, from place to place as the next one is free."""
        entered = [self.last_beat]
        for place in range(1, self.waiting_places + 1):
            if place < self.waiting_places:
                free = neuron.entered[place + 1]
            else:
                free = self._update_is_free(neuron, is_first)
            entered.append(max(entered[-1] + 1, free))
        if self.waiting_places:
            entered[-1] = neuron.next_move(entered[-1])
        neuron.entered = entered

    def _ask(self, neuron: _Neuron) -> None:
        """Delay an activation while the shared interpolation works for an earlier neuron.

        The whole update of the neuron stands still meanwhile.
        """
        neuron.asked = neuron.activated
        index = self.neurons.index(neuron)
        before = self.neurons[index // SHARERS * SHARERS : index]
        while any(neuron.activated in each.served for each in before):
            neuron.activated += 1
        neuron.stood_still = neuron.activated - neuron.asked
        neuron.served.add(neuron.activated)

    def _operate(self, neuron: _Neuron, *, to_the_end: bool) -> None:
        """Simulate operations up to the one that uses up the row, or up to the task's end."""
        while neuron.remaining:
            operation = neuron.remaining.pop(0)
            start = neuron.after(neuron.operation_ended, 1)
            if operation.row or operation.needs_row:
                start = max(start, neuron.after(neuron.entered[-1], 1))
            if neuron.is_at_first:
                start = max(start, neuron.collected)
            if not operation.independent:
                # It needs what came before: a product is finished in the cycle after its last step.
                finished = neuron.after(neuron.operation_ended, 1 + neuron.has_product)
                start = max(start, finished, neuron.after(neuron.activated, 1))
            neuron.is_at_first = False
            neuron.operation_ended = neuron.after(
                neuron.next_move(start), self.lengths[operation.kind] - 1
            )
            neuron.has_product = operation.kind not in (Kind.LOAD, Kind.RECALL)
            if operation.activates:
                neuron.activated = neuron.after(
                    neuron.operation_ended, neuron.has_product + self.beside
                )
                if self.shares_activation:
                    self._ask(neuron)
            if operation.row:
                neuron.row_used = neuron.operation_ended
                if not to_the_end:
                    return
