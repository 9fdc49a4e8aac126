"""The component that collects the neurons' results, one by one, and says where each goes."""

from collections.abc import Callable

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.schedule import Task
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.issue import bounds
from fewbit.hdl.layer.places import BYTE, Places
from fewbit.hdl.selection import case, choose, is_one_of

__all__ = ["Collect", "byte_of", "taken_layout"]


def byte_of(value: Value, is_high: Value) -> Value:
    """Return the low or the high byte of a signed value; with up to 8 bits there is only one."""
    extended = Cat(value, value[-1].replicate(2 * BYTE - len(value)))
    if len(value) <= BYTE:
        return extended[:BYTE]
    return Mux(is_high, extended[BYTE:], extended[:BYTE])


def taken_layout(places: Places, result: data.StructLayout) -> data.StructLayout:
    """Return the layout of a collected result: its fields as bits, and the neuron's number."""
    fields = {name: Shape.cast(shape).width for name, shape in result.members.items()}
    return data.StructLayout({**fields, "neuron": range(max(2, places.schedule.neurons))})


class Collect(wiring.Component):
    """Takes results in a fixed order: group by group, in each task by task, in each all neurons.

    A result that leaves the layer is taken with its last byte; any other one at once.

    Parameters
    ----------
    places
        The layer's places.
    result
        The layout of a neuron's result: ``result``; where it has them ``cell_result``, and
        ``value``, that of a gate; and any fields that are only passed on in ``taken``.

    Ports
    -----
    i
        The results, in a stream for each neuron.
    o
        Bytes of hidden values that leave the layer; ``last`` is 1 with a vector's last byte.
    begins
        Whether a time step begins with the next cycle.
    phase, phase_is_collected
        The number of the phase in progress, and whether its last result is taken in this cycle.
    vectors
        The value that is written to the hidden or the inner vector, and its place there, see
        :func:`fewbit.hdl.layer.feed.feed_ports`.
    new_cells
        New cells, see :class:`fewbit.hdl.layer.cells.Cells`.
    gate, group, gate_writes, gate_value
        A value of a gate to be stored: the gate, the group, a bit for each neuron that is 1 for the
        one whose value it is, and the value.
    takes_unit, ends_task
        Whether the result of a unit is taken, and not that of a neuron which has none in the last
        group; and whether the last result of a group's task is taken.
    taken
        The result that is taken, and ``neuron``, the number of its neuron.
    """

    def __init__(self, places: Places, result: data.StructLayout) -> None:
        self.places = places
        self.result = result
        schedule = places.schedule
        neurons = schedule.neurons
        byte = data.StructLayout({"data": BYTE, "last": 1})
        fields = {name: Shape.cast(shape).width for name, shape in result.members.items()}
        self.fields = fields
        super().__init__(
            {
                "i": In(stream.Signature(result)).array(neurons),
                "o": Out(stream.Signature(byte)),
                "begins": In(1),
                "phase": In(range(max(2, len(schedule.phases)))),
                "phase_is_collected": Out(1),
                "vectors": Out(places.new_value),
                "new_cells": Out(places.new_cells),
                "gate": Out(range(max(2, 1 + max(task.gate for task in schedule.tasks)))),
                "group": Out(places.group),
                "gate_writes": Out(neurons),
                "gate_value": Out(fields.get("value", 1)),
                "takes_unit": Out(1),
                "ends_task": Out(1),
                "taken": Out(taken_layout(places, result)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, schedule = self.places, self.places.schedule
        tasks, count, width = schedule.tasks, schedule.neurons, places.activation_width
        # A time step sets these when it begins. They are reset all the same, since valid depends on
        # them before the first one.
        task = Signal(range(max(2, len(tasks))))
        neuron = Signal(range(max(2, count)))
        group = self.group
        word = Signal.like(self.vectors.word, name="word")
        lane = Signal(range(max(2, schedule.lanes)), reset_less=True)

        firsts, ends = bounds(len(phase.tasks) for phase in schedule.phases)
        is_last_group = Signal()
        is_last_unit = Signal()
        is_padding = Signal()
        first_task = Signal.like(task)
        with m.Switch(self.phase):
            for index, phase in enumerate(schedule.phases):
                last = (schedule.hidden if phase.over == "units" else schedule.outputs) - 1
                with case(m, index, schedule.phases):
                    m.d.comb += [
                        is_last_group.eq(group == schedule.groups(phase) - 1),
                        is_last_unit.eq(neuron == last % count),
                        is_padding.eq(is_last_group & (neuron > last % count)),
                        first_task.eq(firsts[index]),
                    ]

        def task_is(condition: Callable[[Task], bool]) -> Value:
            return is_one_of(task, tasks, condition)

        emits = wire(m, task_is(lambda each: each.to == "hidden") & ~is_padding, "emits")
        valids = Cat(each.valid for each in self.i)
        has_result = wire(m, valids.bit_select(neuron, 1), "has_result")
        # From here on values are plain bits, as in the packets.
        values = {
            name: choose(neuron, [_bits(each.payload[name]) for each in self.i])
            for name in self.fields
        }
        result = wire(m, values["result"][:width], "result")
        byte, is_last = result[:], is_last_group & is_last_unit
        leaves: Value = self.o.ready
        if places.value_bytes > 1:
            # The low byte leaves first, and the result is collected with the high one.
            is_high = Signal()
            with m.If(has_result & emits & self.o.ready):
                m.d.sync += is_high.eq(~is_high)
            leaves = wire(m, self.o.ready & is_high, "leaves")
            is_last &= is_high
            byte = byte_of(result, is_high)
        elif width != BYTE:
            byte = byte_of(result, Const(0, 1))
        collects = wire(m, has_result & (~emits | leaves), "collects")
        m.d.comb += [
            self.o.valid.eq(has_result & emits),
            self.o.payload.data.eq(byte),
            self.o.payload.last.eq(is_last),
        ]

        # The place that the result goes to.
        writes_cell = task_is(lambda each: each.writes_cell)
        writes_gate = task_is(lambda each: each.to == "gate")
        for index, each in enumerate(self.i):
            selected = (neuron == index) if count > 1 else Const(1, 1)
            m.d.comb += [
                each.ready.eq(selected & (~emits | leaves)),
                self.new_cells.enable[index].eq(collects & selected & writes_cell),
                self.gate_writes[index].eq(collects & selected & writes_gate),
            ]
            if "cell_result" in self.fields:
                m.d.comb += self.new_cells.cell[index].eq(_bits(each.payload.cell_result))
        for number in range(1 + max(each.gate for each in tasks)):
            with m.If(task_is(lambda each, n=number: each.gate == n)):
                m.d.comb += self.gate.eq(number)
        goes_out = wire(m, collects & ~writes_gate & ~is_padding, "goes_out")
        m.d.comb += [
            self.new_cells.group.eq(group),
            self.gate_value.eq(values.get("value", Const(0))),
            self.vectors.to_hidden.eq(goes_out & task_is(lambda each: each.to == "hidden")),
            self.vectors.to_inner.eq(goes_out & task_is(lambda each: each.to == "inner")),
            self.vectors.word.eq(word),
            self.vectors.lane.eq(lane),
            self.vectors.value.eq(result),
            self.takes_unit.eq(collects & ~is_padding),
            self.ends_task.eq(collects & (neuron == count - 1)),
            self.taken.neuron.eq(neuron),
            *(self.taken[name].eq(value) for name, value in values.items()),
        ]

        # The result to be taken next.
        with m.If(goes_out):
            m.d.sync += lane.eq(lane + 1)
            with m.If(lane == schedule.lanes - 1):
                m.d.sync += [lane.eq(0), word.eq(word + 1)]
        is_last_task = wire(m, task.matches(*ends), "is_last_task")
        with m.If(collects):
            m.d.sync += neuron.eq(neuron + 1)
            with m.If(neuron == count - 1):
                m.d.sync += [neuron.eq(0), task.eq(task + 1)]
                with m.If(is_last_task):
                    m.d.sync += group.eq(group + 1)
                    with m.If(is_last_group):
                        m.d.comb += self.phase_is_collected.eq(1)
                        m.d.sync += [group.eq(0), word.eq(0), lane.eq(0)]
                    with m.Else():
                        m.d.sync += task.eq(first_task)
        with m.If(self.begins):
            m.d.sync += [each.eq(0) for each in (task, neuron, group, word, lane)]
        return m


def _bits(value: object) -> Value:
    """Return the bits of a value of any layout."""
    return Value.cast(value)[:]  # pyright: ignore[reportArgumentType]
