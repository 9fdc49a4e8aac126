"""The schedule of a time step of the integer LSTM."""

from functools import cache

from fewbit.golden.layer.schedule import Phase, Row, Schedule, Task
from fewbit.golden.lstm.integer_variant import IntegerVariant

__all__ = ["integer_schedule"]


@cache
def integer_schedule(
    variant: IntegerVariant, inputs: int, hidden: int, outputs: int, lanes: int, neurons: int
) -> Schedule:
    """Return the schedule of a time step of the integer LSTM."""
    gates = variant.gates
    exposed = "inner" if variant.projection else "hidden"
    phases: list[Phase] = []
    sums = {gate: _sums(variant, gate, index) for index, gate in enumerate(gates)}
    if not variant.norm:
        rows = tuple(row for gate in gates for row in sums[gate])
        phases.append(Phase((Task("update", rows, exposed, writes_cell=True),)))
    else:
        # The output gate's peephole waits for the new cell.
        collected = {gate: rows[:2] if gate == "o" else rows for gate, rows in sums.items()}
        early = tuple(range(len(gates) - 1)) if variant.peephole else tuple(range(len(gates)))
        phases.append(
            Phase(
                tuple(
                    Task(f"collect_{gate}", collected[gate], "gate", index)
                    for index, gate in enumerate(gates)
                ),
                normalizes=early,
            )
        )
        loads = tuple(
            Row(gate, "none", "gate", (index,), needs_cell=gate == "f")
            for index, gate in enumerate(gates)
        )
        if variant.peephole:
            output = len(gates) - 1
            phases += [
                Phase(
                    (Task("cell", (*loads, sums["o"][2]), "gate", output, writes_cell=True),),
                    normalizes=(output,),
                ),
                Phase(
                    (
                        Task(
                            "output",
                            (Row("o", "none", "gate", (output,), needs_cell=True),),
                            exposed,
                        ),
                    )
                ),
            ]
        else:
            phases.append(Phase((Task("update", loads, exposed, writes_cell=True),)))
    if variant.projection:
        project = Task("project", (Row("projection", "inner"),), "hidden")
        phases.append(Phase((project,), over="outputs"))
    return Schedule(tuple(phases), inputs, hidden, outputs, lanes, neurons)


def _sums(variant: IntegerVariant, gate: str, index: int) -> tuple[Row, ...]:
    """Return the rows whose requantised sums make a gate's value before its activation."""
    gates = (index,)
    rows = (
        Row(f"{gate}_input", "input", gates=gates),
        Row(f"{gate}_recurrent", "recurrent", gates=gates, needs_cell=gate == "f"),
    )
    if not variant.peeps(gate):
        return rows
    return (*rows, Row(f"{gate}_peephole", "none", gates=gates, needs_cell=gate != "o"))
