"""Cycles of a time step of a FloatSD8 LSTM's layer."""

from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract
from fewbit.hdl.layer.cycles import PhaseCycles, StepCycles

__all__ = ["step_cycles"]

UPDATE_BEATS = 3
"""Beats in which the lanes work for the update of a unit, and not for its rows."""
FIRST_BEAT = 2
"""The cycle of a time step in which the lanes take its first beat."""
SUM = 3
"""Cycles from an update beat to what needs its rounded sum: the next one, or the result."""


def step_cycles(contract: FloatSD8LstmLayerContract) -> StepCycles:
    """Count the cycles of a time step.

    The three update beats of a unit come between the beats of the next unit. After the last unit
    there are none to come between, and each update beat waits for the sum of the one before.
    """
    schedule = contract.schedule
    neurons, hidden = schedule.neurons, schedule.hidden
    (phase,) = schedule.phases
    groups = schedule.groups(phase)
    beats = sum(schedule.beats(row) for row in schedule.rows)
    # A group has a result for each neuron, and these leave one a cycle. With few beats a group the
    # lanes may have to wait for them.
    period = max(beats + UPDATE_BEATS, neurons)
    last_beat = FIRST_BEAT + beats - 1
    alone = last_beat + 1 + UPDATE_BEATS * SUM + neurons - 1
    cycles = alone + (groups - 1) * period
    # Unless its group is the last, the hidden value of a unit is computed only after all beats of
    # the next unit.
    first_result = alone - (neurons - 1)
    if groups > 1:
        first_result = last_beat + beats + UPDATE_BEATS + SUM
    # In the last group, neurons without a unit give results as well, which are dropped.
    spare = groups * neurons - hidden
    loading = schedule.inputs + 1
    return StepCycles(
        beats=schedule.step_beats,
        cycles=cycles,
        interval=max(cycles, loading + (cycles == loading)),
        first_byte=1 + first_result,
        last_byte=1 + cycles - spare,
        products=sum(schedule.length(row.part) for row in schedule.rows) * hidden * schedule.sums,
        multipliers=neurons * schedule.lanes,
        phases=(PhaseCycles(groups, alone, period, 0),),
        is_exact=beats + UPDATE_BEATS >= neurons or groups == 1,
    )
