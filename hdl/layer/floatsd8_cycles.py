"""Cycles of a layer of the FloatSD8 LSTM."""

from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract
from fewbit.hdl.layer.cycles import PhaseCycles, StepCycles

__all__ = ["step_cycles"]

UPDATE_BEATS = 3
"""Of a unit, beside those of its rows."""
FIRST_BEAT = 2
"""The cycle of a step in which its first beat is taken."""
SUM = 3
"""From an update's beat to the cycle in which what follows from its sum is there."""


def step_cycles(contract: FloatSD8LstmLayerContract) -> StepCycles:
    """What a time step takes.

    A unit's update is done beside the next unit's beats; that of the last unit waits for each of
    its sums.
    """
    schedule = contract.schedule
    neurons, hidden = schedule.neurons, schedule.hidden
    (phase,) = schedule.phases
    groups = schedule.groups(phase)
    beats = sum(schedule.beats(row) for row in schedule.rows)
    # Results leave one by one; while one waits for those before, so may the lanes.
    period = max(beats + UPDATE_BEATS, neurons)
    last_beat = FIRST_BEAT + beats - 1
    alone = last_beat + 1 + UPDATE_BEATS * SUM + neurons - 1
    cycles = alone + (groups - 1) * period
    # The hidden value of a unit that another follows is fed when that one's beats are over.
    first_result = alone - (neurons - 1)
    if groups > 1:
        first_result = last_beat + beats + UPDATE_BEATS + SUM
    # In the last group, neurons without a unit give results, too, which are left out.
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
