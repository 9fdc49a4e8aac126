"""Cycles of a time step of a layer of few-bit weights, for both orders of the gates' rows."""

from functools import cache

from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.neuron.ternary import SIDE_BY_SIDE
from fewbit.hdl.layer import integer_cycles
from fewbit.hdl.layer.cycles import PhaseCycles, StepCycles
from fewbit.hdl.layer.side_by_side import sums_wait
from fewbit.hdl.structure import LaneStructure

__all__ = ["step_cycles"]

_RESULT = 6
"""Cycles from the use of a unit's first recurrent row until its hidden value is about to leave."""


@cache
def step_cycles(contract: TernaryLstmLayerContract, structure: LaneStructure) -> StepCycles:
    """Count the cycles of a time step."""
    if contract.gate_order == "in_turn":
        return integer_cycles.step_cycles(contract, "fpga" if structure == "fpga" else "gates")
    schedule = contract.schedule
    given = _results(contract)
    end, first = given[-1], given[0]
    period = end - given[-2] if len(given) > 1 else 0
    # At the first units the lanes may be ahead of the update, which saves cycles only once. These
    # are subtracted from the first unit's, so that all others have the same period.
    phase = PhaseCycles(len(given), end - (len(given) - 1) * period, period, 0)
    # A vector's bytes arrive one a cycle, after a cycle in which the kind of its packet is seen. A
    # byte waits in each cycle in which a hidden value is written, since all vectors lie in one
    # memory.
    loading = contract.input_size + 1
    held_off = min(schedule.hidden, loading)
    return StepCycles(
        beats=schedule.step_beats,
        cycles=end,
        # Memory holds two input vectors, and the place of the one that this time step uses is free
        # only in the cycle after the time step's last.
        interval=end if loading + held_off < end else max(end, loading + held_off) + 1,
        # A time step begins in the cycle after the vector's last byte.
        first_byte=2 + first - contract.value_bytes,
        last_byte=1 + end,
        products=len(SIDE_BY_SIDE) * schedule.hidden * (schedule.inputs + schedule.hidden),
        multipliers=len(SIDE_BY_SIDE) * schedule.lanes,
        phases=(phase,),
        is_exact=loading + held_off < end,
        unless="a scale shifts left",
    )


def _results(contract: TernaryLstmLayerContract) -> list[int]:
    """Return for each unit the cycle in which the last byte of its hidden value leaves the layer.

    Cycles are counted from the beginning of the time step.
    """
    waits = sums_wait(contract)
    beats = [contract.schedule.beats(row) for row in contract.schedule.rows]
    # The cycle of the last beat so far; that in which the latest four sums were handed over to the
    # update; and that in which the update had used them all.
    fed, handed, used = 1, 0, 0
    given: list[int] = []
    for _ in range(contract.hidden):
        for count in beats:
            # With a second place for sums, the lanes go on as soon as the update has taken those
            # before; without, only when it has used them.
            fed = max(fed + count, handed if waits else used)
            handed = max(fed + waits, used)
            used = handed + len(SIDE_BY_SIDE)
        given.append(used - len(SIDE_BY_SIDE) + 1 + _RESULT + contract.value_bytes)
    return given
