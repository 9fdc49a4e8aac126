"""The passes of a layer's gate values through what normalises them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import ReadPort, WritePort

from fewbit.golden.layer.schedule import Schedule, chunks
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.selection import bits_of, choose, is_one_of

__all__ = ["GateReading", "normalize_gates"]


@dataclass(frozen=True)
class GateReading:
    """Where the engine is among the values that it has normalised."""

    gate: Value
    """The gate in progress; holds still until its last value is back."""
    index: Value
    """Place of the next value among those of all gates, gate by gate, unit by unit."""
    advances: Value
    """What is read with that index counts from the next cycle on."""


def normalize_gates(
    m: Module,
    schedule: Schedule,
    make_unit: Callable[[GateReading], wiring.Component],
    reads: Sequence[ReadPort],
    writes: Sequence[WritePort],
    phase: Value,
    phase_is_collected: Value,
    begins: Value,
) -> Value:
    """Pass gates through the normaliser and back, between phases that ask for it.

    All values of a gate pass twice, unit by unit; what comes of the second time takes their place.

    Parameters
    ----------
    m
        The module.
    schedule
        Of the layer.
    make_unit
        Makes the normaliser, with a stream ``i`` of {value, normalizes, ...} and a stream ``o`` of
        {value}.
    reads, writes
        Ports of each neuron's memory of gate values, whose drivers are overridden meanwhile.
    phase
        The phase in progress.
    phase_is_collected
        All its results are there.
    begins
        A step begins with the next cycle.

    Returns
    -------
    Whether the phase is over now.
    """
    active = Signal(name="normalizing")
    neurons = schedule.neurons
    groups = chunks(schedule.hidden, neurons)
    gates = 1 + max(task.gate for task in schedule.tasks)
    last_neuron = (schedule.hidden - 1) % neurons
    gate = Signal(range(max(2, gates)), name="norm_gate", reset_less=True)
    index = Signal(range(max(2, gates * schedule.hidden)), reset_less=True)
    reading = Signal(name="norm_reads")
    fed = Signal(name="norm_fed")
    second = Signal(name="norm_second_pass", reset_less=True)
    advances = Signal(name="norm_advances")
    unit = make_unit(GateReading(gate, index, advances))
    m.submodules.normalizer = unit  # pyright: ignore[reportArgumentType]
    m.d.comb += advances.eq(~fed | unit.i.ready)

    # Values to the unit.
    neuron = Signal(range(max(2, neurons)), name="norm_neuron", reset_less=True)
    group = Signal(range(max(2, groups)), name="norm_group", reset_less=True)
    held_neuron = Signal.like(neuron, name="norm_held_neuron")
    held_second = Signal(name="norm_held_second_pass", reset_less=True)
    with m.If(advances):
        m.d.sync += [fed.eq(reading), held_neuron.eq(neuron), held_second.eq(second)]
    with m.If(reading & advances):
        m.d.sync += index.eq(index + second)
        m.d.sync += neuron.eq(neuron + 1)
        with m.If(neuron == neurons - 1):
            m.d.sync += [neuron.eq(0), group.eq(group + 1)]
        with m.If((group == groups - 1) & (neuron == last_neuron)):
            m.d.sync += [neuron.eq(0), group.eq(0), second.eq(~second)]
            with m.If(second):
                m.d.sync += reading.eq(0)
    m.d.comb += [
        unit.i.valid.eq(fed),
        unit.i.payload.value.eq(choose(held_neuron, [port.data for port in reads])),
        unit.i.payload.normalizes.eq(held_second),
        unit.o.ready.eq(1),
    ]

    # Normalised values back to where they came from.
    back_neuron = Signal.like(neuron, name="norm_back_neuron")
    back_group = Signal.like(group, name="norm_back_group")
    gate_is_done = Signal()
    with m.If(unit.o.valid):
        m.d.sync += back_neuron.eq(back_neuron + 1)
        with m.If(back_neuron == neurons - 1):
            m.d.sync += [back_neuron.eq(0), back_group.eq(back_group + 1)]
        with m.If((back_group == groups - 1) & (back_neuron == last_neuron)):
            m.d.sync += [back_neuron.eq(0), back_group.eq(0), gate.eq(gate + 1)]
            m.d.comb += gate_is_done.eq(1)
    for number, (read, write) in enumerate(zip(reads, writes, strict=True)):
        with m.If(active):
            m.d.comb += [
                read.addr.eq(Cat(group[: bits_of(groups)], gate)),
                read.en.eq(advances),
                write.addr.eq(Cat(back_group[: bits_of(groups)], gate)),
                write.data.eq(unit.o.payload.value),
                write.en.eq(unit.o.valid & (back_neuron == number)),
            ]

    ends = [phase.normalizes[-1] for phase in schedule.phases if phase.normalizes]
    is_finished = gate_is_done & gate.matches(*ends)
    normalizes = is_one_of(phase, schedule.phases, lambda phase: bool(phase.normalizes))
    with m.If(gate_is_done & ~is_finished):
        m.d.sync += reading.eq(1)
    with m.If(is_finished):
        m.d.sync += active.eq(0)
    with m.If(phase_is_collected & normalizes):
        m.d.sync += [active.eq(1), reading.eq(1)]
    with m.If(begins):
        m.d.sync += [
            each.eq(0) for each in (gate, index, second, neuron, group, back_neuron, back_group)
        ]
    return wire(m, is_finished | (phase_is_collected & ~normalizes), "phase_is_done")
