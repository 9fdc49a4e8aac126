"""The FloatSD8 LSTM's neuron: lanes of products, which also compute the update of a unit.

A gate value is a FloatSD8 number q, or where the sigmoid is above one half 1 - q. It is stored as
q's code, with the sign bit set for 1 - q. A product of a gate value and x is then q * x, or x plus
-q * x, whose second term has the sign that the code shows.
"""

from enum import IntEnum
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.activation.floatsd8 import GATE_FORMAT, HIDDEN_FORMAT
from fewbit.golden.formats import BINARY16, FLOATSD8, Format
from fewbit.golden.lstm.floatsd8 import CELL_PIECES, LOWEST_CONSTANT_BIAS
from fewbit.golden.neuron.floatsd8 import FloatSD8LstmNeuronContract
from fewbit.hdl.accumulate.float_sum import FloatSum, Term
from fewbit.hdl.accumulate.floatsd8_mac import PRODUCT_WIDTH, floatsd8_magnitude
from fewbit.hdl.activation.floatsd8 import FloatSD8Activation
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import shape_of, stream_of
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.sums.adders import add_with_carry

__all__ = ["SUM_CYCLES", "FloatSD8LayerNeuron", "FloatSD8LstmNeuron"]

SUM_CYCLES = 2
"""Cycles from a beat of a gate's sum until the rounded sum is there for the gate's next beat."""
_OFFSET_BITS = 5
# The exponent offset of a gate value times an e5m2 code of bias 15, in the configuration's form.
_GATED_OFFSET = GATE_FORMAT.bias + HIDDEN_FORMAT.bias - LOWEST_CONSTANT_BIAS
# A cell's significand is multiplied in pieces. The offset is that of the lowest one, so that the
# others' exponents are above it and never negative.
_PIECE_BITS = 3
_HIGHEST_PIECE = _PIECE_BITS * (CELL_PIECES - 1)
_SCALED_OFFSET = _GATED_OFFSET + _HIGHEST_PIECE
_HALF = int(GATE_FORMAT.encode(0.5))


class _Stage(IntEnum):
    """The purpose of a sum in the pipeline."""

    NONE = 0
    """A part of a gate's sum, to which the gate's next beat adds."""
    KEPT = 1
    """The old cell times the forget gate."""
    CELL = 2
    """The new cell."""
    HIDDEN = 3
    """The new hidden value."""
    GATE_I = 4
    GATE_F = 5
    GATE_G = 6
    GATE_O = 7


class _Registers(Pipeline):
    """Registers that all load at once, in place of a pipeline whose stages wait one by one."""

    def __init__(self, m: Module, load: Value) -> None:
        super().__init__(m, Const(1))
        self._load = load

    def register(self, **values: ValueLike) -> tuple[Signal, ...]:
        """Add one stage and return its registers, one for each value, named by keyword."""
        registers: list[Signal] = []
        with self._m.If(self._load):
            for name, value in values.items():
                kept = Signal(Value.cast(value).shape(), name=name, reset_less=True)
                self._m.d.sync += kept.eq(value)
                registers.append(kept)
        return tuple(registers)


class _Factors(NamedTuple):
    """The factors of a lane's product: the fields of a FloatSD8 weight and an e5m2 activation."""

    weight_index: Value
    weight_exponent: Value
    mantissa: Value
    exponent: Value
    sign: Value
    """The sign of the product."""


class FloatSD8LayerNeuron(wiring.Component):
    """The neuron of a layer: it takes the rows of one hidden unit after the other.

    It takes a beat a cycle. The rows of two gates are interleaved beat by beat, first of i and f,
    then of g and o: a sum takes two cycles to be rounded, and so is ready in the one result
    register for its gate's next beat. Before the first beat of a pair, the lanes may take products
    of the update of the unit before, three beats a unit: the old cell times gate f, gate i times
    gate g, and gate o times the tanh of the new cell. So the update of a unit ends during the next
    unit. If no unit follows, its beats come as soon as they can.

    Bit for bit :class:`fewbit.golden.neuron.floatsd8.FloatSD8LstmNeuronContract`, which says what
    the fields of a beat and the configuration mean.

    Parameters
    ----------
    lanes
        Products in a beat, from 4 to 16.
    window
        Bits below the top of the highest addend that take part in a sum, from 8 to 48; None for
        exact sums.

    Ports
    -----
    i
        Beats, with the contract's fields except for the old cell.
    drains
        Whether no beat waits, so that a unit's update goes on without one. Neurons side by side
        must get the same, so that none is ahead of the others by a beat of the update.
    old_cell
        The code of the unit's old cell. It must hold still from the last beat of the unit to the
        end of the next unit's first pair.
    cells
        The codes of new cells, in the order of the units, each before the unit's hidden code.
    o
        The codes of new hidden values, as ``result``.
    input_offset, recurrent_offset
        See the contract.
    """

    def __init__(self, lanes: int = 4, window: int | None = DEFAULT_WINDOW) -> None:
        contract = FloatSD8LstmNeuronContract(lanes, window)
        self.lanes = lanes
        self.window = window
        fields = [each for each in contract.operands if each.name != "old_cell"]
        super().__init__(
            {
                "i": In(stream_of(fields)),
                "drains": In(1),
                "old_cell": In(shape_of(BINARY16)),
                "cells": Out(stream.Signature(unsigned(BINARY16.width))),
                "o": Out(stream.Signature(data.StructLayout({"result": HIDDEN_FORMAT.width}))),
                **{field.name: In(shape_of(field.format)) for field in contract.configuration},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        takes = wire(m, self.i.valid & self.i.ready, "takes")

        # The pipeline holds two sums: one that is still being rounded, and one that is done.
        advances = Signal()
        step = Signal(_Stage)
        """The purpose of the sum whose products the lanes take in this cycle."""
        adding = Signal(_Stage)
        done = Signal(_Stage)
        result = Signal(BINARY16.width)
        hidden_waits = Signal()
        blocked = wire(
            m,
            ((done == _Stage.CELL) & ~self.cells.ready)
            | ((done == _Stage.HIDDEN) & hidden_waits & ~self.o.ready),
            "blocked",
        )
        with m.If(advances):
            m.d.sync += [adding.eq(step), done.eq(adding)]
        with m.Elif(~blocked):
            # A sum that is done is used at once, and only once.
            m.d.sync += done.eq(_Stage.NONE)

        # Registers for later products: the gates, the part of the cell that f keeps, and the tanh.
        m.submodules.activation = activation = FloatSD8Activation()
        m.d.comb += [
            activation.x.eq(result),
            activation.is_tanh.eq(done.matches(_Stage.GATE_G, _Stage.CELL)),
        ]
        sigmoid = Cat(activation.result[:4], activation.complement, activation.result[5:])
        gates = {name: _code(FLOATSD8, f"gate_{name}") for name in "ifo"}
        for name, gate in gates.items():
            with m.If(done == _Stage[f"GATE_{name.upper()}"]):
                m.d.sync += gate.eq(sigmoid)
        factor = _code(HIDDEN_FORMAT, "factor")
        with m.If(activation.is_tanh):
            m.d.sync += factor.eq(activation.result)
        kept = Signal(BINARY16.width, reset_less=True)
        with m.If(done == _Stage.KEPT):
            m.d.sync += kept.eq(result)
        hidden = Signal(HIDDEN_FORMAT.width, reset_less=True)
        m.d.comb += [
            self.cells.valid.eq(done == _Stage.CELL),
            self.cells.payload.eq(result),
            self.o.valid.eq(hidden_waits),
            self.o.payload.result.eq(hidden),
        ]
        with m.If(self.o.ready):
            m.d.sync += hidden_waits.eq(0)
        narrow = _narrow(m, result)
        with m.If((done == _Stage.HIDDEN) & ~blocked):
            m.d.sync += [hidden.eq(narrow), hidden_waits.eq(1)]

        # The order of beats. A beat of the update comes before a pair, when its factors are ready.
        within = Signal()
        """Whether a pair has begun that the next beat belongs to."""
        is_second_pair = Signal()
        is_second_gate = Signal()
        scale_waits = Signal()
        cell_waits = Signal()
        hidden_can_be_fed = Signal()
        is_last = wire(m, beat.last & is_second_gate, "is_last_of_pair")
        feeds = Signal(_Stage)
        with m.If(within):
            m.d.comb += [self.i.ready.eq(~blocked), advances.eq(takes)]
        with m.Else():
            m.d.comb += advances.eq(~blocked)
            with m.If(hidden_can_be_fed):
                m.d.comb += feeds.eq(_Stage.HIDDEN)
            with m.Elif(scale_waits):
                m.d.comb += feeds.eq(_Stage.KEPT)
            with m.Elif(cell_waits & (is_second_pair | self.drains)):
                m.d.comb += feeds.eq(_Stage.CELL)
            with m.Else():
                m.d.comb += self.i.ready.eq(~blocked)
        m.d.comb += step.eq(feeds)
        with m.If(takes):
            m.d.sync += [within.eq(~is_last), is_second_gate.eq(~is_second_gate)]
            with m.If(beat.last):
                m.d.comb += step.eq(Cat(is_second_gate, is_second_pair, Const(1, 1)))
            with m.If(is_last):
                m.d.sync += [is_second_pair.eq(~is_second_pair), scale_waits.eq(is_second_pair)]
        is_fed = {each: wire(m, feeds == each, f"feeds_{each.name.lower()}") for each in _Stage}
        with m.If(advances):
            with m.If(is_fed[_Stage.KEPT]):
                m.d.sync += scale_waits.eq(0)
            with m.If(is_fed[_Stage.CELL]):
                m.d.sync += cell_waits.eq(0)
            with m.If(is_fed[_Stage.HIDDEN]):
                m.d.sync += hidden_can_be_fed.eq(0)
        with m.If(done == _Stage.KEPT):
            m.d.sync += cell_waits.eq(1)
        with m.If((done == _Stage.CELL) & self.cells.ready):
            m.d.sync += hidden_can_be_fed.eq(1)

        # The factors, the start value and the exponent offset of the sum in this cycle.
        is_own = is_fed[_Stage.NONE]
        """Whether the products are those of the beat, and not of an update."""
        scales = is_fed[_Stage.KEPT]
        gate = _code(FLOATSD8, "gate")
        """The gate of the update: its value is q, or if the sign bit is set 1 - q."""
        m.d.comb += gate.eq(
            Mux(
                scales,
                gates["f"].as_value(),
                Mux(is_fed[_Stage.CELL], gates["i"].as_value(), gates["o"].as_value()),
            )
        )
        start = _code(BINARY16, "start_code")
        old_cell = self.old_cell
        m.d.comb += start.eq(
            _masked(beat.start.as_value(), is_own & beat.first)
            | _masked(result, is_own & ~beat.first)
            | _masked(old_cell.as_value(), scales & gates["f"].sign)
            | _masked(kept, is_fed[_Stage.CELL])
        )
        offset = Signal(_OFFSET_BITS)
        m.d.comb += offset.eq(
            Mux(
                is_own,
                Mux(beat.recurrent, self.recurrent_offset, self.input_offset),
                Mux(scales, _SCALED_OFFSET, _GATED_OFFSET),
            )
        )
        terms = [self._term(m, lane, is_own, scales, gate, factor) for lane in range(self.lanes)]
        core = FloatSum(
            accumulator=BINARY16,
            products=self.lanes,
            product_width=PRODUCT_WIDTH,
            exponents=range(1, 7 + 31 + _HIGHEST_PIECE + 1),
            offset=range(1 << _OFFSET_BITS),
            window=self.window,
            stages=2,
        )
        m.d.comb += result.eq(core.add(m, _Registers(m, advances), terms, start, offset))
        return m

    def _term(
        self,
        m: Module,
        lane: int,
        is_own: Value,
        scales: Value,
        gate: data.View,
        factor: data.View,
    ) -> Term:
        """Return a lane's product: of a weight and an activation of the beat, or of the update.

        In the update's first sum, the first four lanes multiply gate f by the old cell, each by a
        piece of 3 bits of its significand. In the other two sums, the first lane multiplies the
        gate by `factor`, which is a tanh. If the gate's value is 1 - q, that gives -q * factor, and
        the second lane adds the factor itself, as a half times twice the factor. A lane that has no
        product takes zeros: its exponent is the lowest one, which never decides the window's top.

        Parameters
        ----------
        m
            The module.
        lane
            The number of the lane.
        is_own
            Whether the products are those of the beat.
        scales
            Whether they are those of the update's first sum.
        gate, factor
            The gate of the update, and the tanh that it is multiplied by.
        """
        weight = self.i.payload.weights[lane]
        activation = self.i.payload.activations[lane]
        index = _masked(weight.index, is_own)
        weight_exponent = _masked(weight.exponent, is_own)
        mantissa = _masked(activation.mantissa, is_own)
        exponent = _masked(activation.exponent, is_own)
        sign: Value = weight.sign ^ activation.sign
        doubles: Value = Const(0, 1)
        normal: Value | None = None
        if lane < CELL_PIECES:
            cell = self.old_cell
            # The significand has 11 bits. With a zero below it is cut into four pieces of 3 bits.
            place = _PIECE_BITS * (CELL_PIECES - 1 - lane)
            whole = Cat(Const(0, 1), cell.mantissa, cell.exponent.any())
            piece = wire(m, whole[place : place + _PIECE_BITS], f"piece_{lane}")
            normal = piece[2]
            cell_sign = gate.sign ^ cell.sign
            raised = wire(m, gate.exponent + place, f"raised_{lane}")
            if lane == 0:
                update = _Factors(
                    gate.index,
                    Mux(scales, raised, gate.exponent),
                    Mux(scales, piece[:2], factor.mantissa),
                    Mux(scales, cell.exponent, factor.exponent),
                    Mux(scales, cell_sign, gate.sign ^ factor.sign),
                )
            elif lane == 1:
                # The gate's value is 1 - q: the factor is doubled, and a half is its weight.
                doubles = wire(m, ~is_own & ~scales & gate.sign, "doubles")
                update = _Factors(
                    Mux(scales, gate.index, _masked(Const(_HALF & 15, 4), doubles)),
                    Mux(scales, raised, _masked(Const(_HALF >> 5, 3), doubles)),
                    Mux(scales, piece[:2], factor.mantissa),
                    Mux(scales, cell.exponent, _masked(factor.exponent, doubles)),
                    Mux(scales, cell_sign, factor.sign),
                )
            else:
                update = _Factors(
                    _masked(gate.index, scales),
                    _masked(raised, scales),
                    piece[:2],
                    _masked(cell.exponent, scales),
                    cell_sign,
                )
            index = Mux(is_own, weight.index, update.weight_index)
            weight_exponent = Mux(is_own, weight.exponent, update.weight_exponent)
            mantissa = Mux(is_own, activation.mantissa, update.mantissa)
            exponent = Mux(is_own, activation.exponent, update.exponent)
            sign = Mux(is_own, sign, update.sign)
        index = wire(m, index, f"index_{lane}")
        exponent = wire(m, exponent, f"exponent_code_{lane}")
        subnormal = wire(m, ~exponent.any(), f"subnormal_{lane}")
        top = ~subnormal if normal is None else Mux(scales, normal, ~subnormal)
        significand = wire(m, Cat(mantissa, top), f"significand_{lane}")
        magnitude = floatsd8_magnitude(m, index, significand, str(lane))
        highest = Signal(range(7 + _HIGHEST_PIECE + 1), name=f"weight_exponent_{lane}")
        m.d.comb += highest.eq(weight_exponent)
        # Exponent code 0 of a subnormal counts as 1, and doubling adds 1. The carry adds either of
        # these, and where both apply, the lowest bit of the code, which is then 0, adds the other.
        lowest = exponent[0] | (subnormal & doubles)
        total = add_with_carry(
            m,
            Cat(highest, Const(0, 1)),
            Cat(lowest, exponent[1:], Const(0, 1)),
            subnormal | doubles,
            f"exponent_{lane}",
        )
        return Term(magnitude, total, wire(m, sign, f"product_sign_{lane}"))


def _code(number_format: Format, name: str) -> data.View:
    """Return a new signal for a code, with the format's fields."""
    layout = data.Layout.cast(shape_of(number_format))  # pyright: ignore[reportArgumentType]
    return data.View(layout, Signal(number_format.width, name=name, reset_less=True))


def _masked(value: Value, counts: Value) -> Value:
    """Return the bits where they count, else zeros."""
    return value & counts.replicate(len(value))


def _narrow(m: Module, code: Value) -> Signal:
    """Return the e5m2 code of bias 15 that is nearest to a binary16 code, ties to even.

    A carry out of the significand goes on into the exponent, and never further, since hidden values
    are at most 1.
    """
    magnitude = code[8:15]
    rounds_up = code[7] & (code[:7].any() | code[8])
    rounded = wire(m, (magnitude + rounds_up)[:7], "narrow_magnitude")
    return wire(m, Cat(rounded, code[15]), "narrow")


class FloatSD8LstmNeuron(wiring.Component):
    """The FloatSD8 LSTM's neuron by itself: one hidden unit at a time, from weights to new state.

    It is a :class:`FloatSD8LayerNeuron`, which takes a beat a cycle, with registers for the unit's
    old and new cell.

    Bit for bit :class:`fewbit.golden.neuron.floatsd8.FloatSD8LstmNeuronContract`, which says what
    each port means.

    Parameters
    ----------
    contract
        The neuron's parameters; None for the usual ones.
    """

    def __init__(self, contract: FloatSD8LstmNeuronContract | None = None) -> None:
        self.contract = contract = contract or FloatSD8LstmNeuronContract()
        self.lanes = contract.lanes
        self.window = contract.window
        self.neuron = FloatSD8LayerNeuron(contract.lanes, contract.window)
        super().__init__(
            {
                "i": In(stream_of(contract.operands)),
                "o": Out(stream_of(contract.results)),
                **{field.name: In(shape_of(field.format)) for field in contract.configuration},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.neuron = neuron = self.neuron
        beat = self.i.payload
        old_cell = Signal(BINARY16.width, reset_less=True)
        cell = Signal(BINARY16.width, reset_less=True)
        cell_waits = Signal()
        m.d.comb += [
            *(
                neuron.i.payload[name].eq(beat[name])
                for name in ("weights", "activations", "first", "last", "recurrent", "start")
            ),
            neuron.i.valid.eq(self.i.valid),
            self.i.ready.eq(neuron.i.ready),
            neuron.drains.eq(~self.i.valid),
            neuron.old_cell.eq(old_cell),
            neuron.input_offset.eq(self.input_offset),
            neuron.recurrent_offset.eq(self.recurrent_offset),
            neuron.cells.ready.eq(~cell_waits),
            self.o.payload.result.eq(neuron.o.payload.result),
            self.o.payload.cell_result.eq(cell),
            self.o.valid.eq(neuron.o.valid),
            neuron.o.ready.eq(self.o.ready),
        ]
        # Each row's last beat overwrites the old cell; that of the unit's last row stays.
        with m.If(self.i.valid & self.i.ready & beat.last):
            m.d.sync += old_cell.eq(beat.old_cell)
        with m.If(neuron.o.valid & self.o.ready):
            m.d.sync += cell_waits.eq(0)
        with m.If(neuron.cells.valid & ~cell_waits):
            m.d.sync += [cell.eq(neuron.cells.payload), cell_waits.eq(1)]
        return m
