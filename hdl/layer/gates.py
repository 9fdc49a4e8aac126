"""The stored values of gates, and their passes through a normaliser."""

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.schedule import Schedule, chunks
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.feed import GATE_WIDTH, memory
from fewbit.hdl.selection import bits_of, choose, is_one_of

__all__ = ["StoredGates", "normalizer_ports"]


def normalizer_ports(schedule: Schedule) -> dict[str, wiring.Member]:
    """Return the ports of a normaliser of a layer's gates.

    A normaliser takes all values of a gate twice, first for their statistics. At the second time
    it sends each back normalised.

    Ports
    -----
    i, o
        Values in and out; ``normalizes`` is 1 where a value comes for the second time.
    gate
        The gate in progress. It holds still until its last value is back.
    index, advances
        The place of the next value among those of all gates, gate by gate, unit by unit; and
        whether it is taken. The constants of that place must be there in the next cycle.
    """
    gates = 1 + max(task.gate for task in schedule.tasks)
    value = data.StructLayout({"value": signed(GATE_WIDTH), "normalizes": 1})
    return {
        "i": In(stream.Signature(value)),
        "o": Out(stream.Signature(data.StructLayout({"value": signed(GATE_WIDTH)}))),
        "gate": In(range(max(2, gates))),
        "index": In(range(max(2, gates * schedule.hidden))),
        "advances": In(1),
    }


class StoredGates(wiring.Component):
    """The values of gates between two phases: a memory for each neuron.

    A phase may ask that gates are normalised once all its values are stored. The values of a gate
    then pass twice through the normaliser, unit by unit, and the normalised ones replace them.

    Parameters
    ----------
    schedule
        The layer's schedule, in which results of tasks go to "gate".

    Ports
    -----
    read_gate, read_group, reads, values
        A gate and a group; whether they are read; and in the next cycle their values, one for each
        neuron.
    write_gate, write_group, writes, value
        A gate and a group, and a value, which is written for each neuron whose bit of ``writes`` is
        1.
    begins
        Whether a time step begins with the next cycle.
    phase, phase_is_collected, phase_is_done
        The phase in progress; whether its last result is taken in this cycle; and whether the phase
        ends with this cycle, with all its gates normalised.
    normalizer
        The other side of `normalizer_ports`.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.groups = chunks(schedule.hidden, schedule.neurons)
        self.gates = 1 + max(task.gate for task in schedule.tasks)
        group = range(max(2, *map(schedule.groups, schedule.phases)))
        neurons = schedule.neurons
        other_side = wiring.Signature(normalizer_ports(schedule)).flip()
        super().__init__(
            {
                "read_gate": In(range(max(2, self.gates))),
                "read_group": In(group),
                "reads": In(1),
                "values": Out(data.ArrayLayout(unsigned(GATE_WIDTH), neurons)),
                "write_gate": In(range(max(2, self.gates))),
                "write_group": In(group),
                "writes": In(neurons),
                "value": In(GATE_WIDTH),
                "begins": In(1),
                "phase": In(range(max(2, len(schedule.phases)))),
                "phase_is_collected": In(1),
                "phase_is_done": Out(1),
                "normalizer": Out(other_side),
            }
        )

    @property
    def normalizes(self) -> bool:
        """Whether any phase asks that gates are normalised."""
        return any(phase.normalizes for phase in self.schedule.phases)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A gate's values lie together; the group is the low part of the address.
        bits = bits_of(self.groups)
        reads, writes = [], []
        for index in range(self.schedule.neurons):
            m.submodules[f"gates_{index}"] = words = memory(self.gates << bits, GATE_WIDTH)
            read, write = words.read_port(), words.write_port()
            reads.append(read)
            writes.append(write)
            m.d.comb += [
                read.addr.eq(Cat(self.read_group[:bits], self.read_gate)),
                read.en.eq(self.reads),
                self.values[index].eq(read.data),
                write.addr.eq(Cat(self.write_group[:bits], self.write_gate)),
                write.data.eq(self.value),
                write.en.eq(self.writes[index]),
            ]
        if not self.normalizes:
            m.d.comb += self.phase_is_done.eq(self.phase_is_collected)
            return m
        schedule, unit = self.schedule, self.normalizer
        neurons, groups = schedule.neurons, self.groups
        last_neuron = (schedule.hidden - 1) % neurons
        active = Signal(name="normalizing")
        gate = Signal.like(unit.gate, name="norm_gate", reset_less=True)
        index = Signal.like(unit.index, name="norm_index", reset_less=True)
        reading = Signal(name="norm_reads")
        fed = Signal(name="norm_fed")
        second = Signal(name="norm_second_pass", reset_less=True)
        advances = wire(m, ~fed | unit.i.ready, "norm_advances")
        m.d.comb += [unit.gate.eq(gate), unit.index.eq(index), unit.advances.eq(advances)]

        # Values on their way to the normaliser.
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

        # Normalised values on their way back to their places.
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
                    read.addr.eq(Cat(group[:bits], gate)),
                    read.en.eq(advances),
                    write.addr.eq(Cat(back_group[:bits], gate)),
                    write.data.eq(unit.o.payload.value),
                    write.en.eq(unit.o.valid & (back_neuron == number)),
                ]

        ends = [phase.normalizes[-1] for phase in schedule.phases if phase.normalizes]
        is_finished = gate_is_done & gate.matches(*ends)
        normalizes: Value = is_one_of(
            self.phase, schedule.phases, lambda phase: bool(phase.normalizes)
        )
        with m.If(gate_is_done & ~is_finished):
            m.d.sync += reading.eq(1)
        with m.If(is_finished):
            m.d.sync += active.eq(0)
        with m.If(self.phase_is_collected & normalizes):
            m.d.sync += [active.eq(1), reading.eq(1)]
        counters = (gate, index, second, neuron, group, back_neuron, back_group)
        with m.If(self.begins):
            m.d.sync += [each.eq(0) for each in counters]
        m.d.comb += self.phase_is_done.eq(is_finished | (self.phase_is_collected & ~normalizes))
        return m
