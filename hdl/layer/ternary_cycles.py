"""Cycles of a layer of few-bit weights: of the integer LSTM's update, or gates side by side."""

from functools import cache

from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.neuron.ternary import SIDE_BY_SIDE
from fewbit.hdl.layer import integer_cycles
from fewbit.hdl.layer.cycles import PhaseCycles, StepCycles
from fewbit.hdl.layer.side_by_side import sums_wait
from fewbit.hdl.structure import LaneStructure

__all__ = ["step_cycles"]

_RESULT = 6
"""Cycles from a unit's first recurrent row to the one before its hidden value."""


@cache
def step_cycles(contract: TernaryLstmLayerContract, structure: LaneStructure) -> StepCycles:
    """What a time step takes."""
    if contract.gate_order == "in_turn":
        return integer_cycles.step_cycles(contract, "fpga" if structure == "fpga" else "gates")
    schedule = contract.schedule
    given = _results(contract)
    end, first = given[-1], given[0]
    period = end - given[-2] if len(given) > 1 else 0
    # The lanes may be ahead at the first units; what they gain there is in the first one's cycles.
    phase = PhaseCycles(len(given), end - (len(given) - 1) * period, period, 0)
    # A byte a cycle, one to see of what kind the packet is, and those in which a hidden value is
    # written to the vectors' one memory instead.
    loading = contract.input_size + 1
    held_off = min(schedule.hidden, loading)
    return StepCycles(
        beats=schedule.step_beats,
        cycles=end,
        # Of two vectors' memory one is free for the next only in the cycle after the step's last.
        interval=end if loading + held_off < end else max(end, loading + held_off) + 1,
        # A step begins in the cycle after the last byte.
        first_byte=2 + first - contract.value_bytes,
        last_byte=1 + end,
        products=len(SIDE_BY_SIDE) * schedule.hidden * (schedule.inputs + schedule.hidden),
        multipliers=len(SIDE_BY_SIDE) * schedule.lanes,
        phases=(phase,),
        is_exact=loading + held_off < end,
        unless="a scale shifts left",
    )


def _results(contract: TernaryLstmLayerContract) -> list[int]:
    """The cycle in which the last byte of each unit's hidden value leaves, from a step's start."""
    waits = sums_wait(contract)
    beats = [contract.schedule.beats(row) for row in contract.schedule.rows]
    # Cycles of the last beat so far, of the last sums' handing over, and of their last use.
    fed, handed, used = 1, 0, 0
    given: list[int] = []
    for _ in range(contract.hidden):
        for count in beats:
            # Sums that wait make place when the update takes them.
            fed = max(fed + count, handed if waits else used)
            handed = max(fed + waits, used)
            used = handed + len(SIDE_BY_SIDE)
        given.append(used - len(SIDE_BY_SIDE) + 1 + _RESULT + contract.value_bytes)
    return given
