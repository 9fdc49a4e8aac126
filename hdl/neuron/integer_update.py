"""The update of an integer LSTM's unit: from the sums of its rows to its new state.

One multiplier, one rounding shifter and one saturating adder do everything, one operation after
the other, by a program (:mod:`fewbit.hdl.neuron.integer_program`). The activation by table may have
a small multiplier of its own. It is one module, though long, because all operations share the
registers of one datapath, and each register is best read beside the conditions that select its
input.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from amaranth.hdl import Cat, Const, Module, Mux, Shape, ShapeLike, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.checks import check_choice
from fewbit.golden.lstm.integer_variant import TIES_UP, IntegerVariant
from fewbit.hdl.activation.gemmlowp import STEPS, GemmlowpArgument
from fewbit.hdl.activation.table import FRACTION, Interpolation, TableLookup, shift_of, start_of
from fewbit.hdl.arithmetic import rounding_shift_right, saturate, saturate_to_clip, wire
from fewbit.hdl.neuron.integer_program import Kind, Operation, Program
from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.addends import Addend, product_addends, sum_of_addends

__all__ = ["IntegerUpdate", "configuration_of"]

_ACTIVATED = ("i", "f", "g", "o", "cell_tanh")
"""The values of `Operation.finish` with which an activation's product is finished."""


_SHARED = {
    "asks": Out(1),
    "raw": Out(signed(16)),
    "is_sigmoid": Out(1),
    "integer_bits": Out(3),
    "activated": In(signed(16)),
    "granted": In(1),
}
"""The ports to an interpolation outside, which neurons share."""


def configuration_of(variant: IntegerVariant) -> dict[str, ShapeLike]:
    """Return the shapes, by name, of the ports that hold still while a unit is in the circuit."""
    ports: dict[str, ShapeLike] = {
        "cell_integer_bits": 3,
        "cell_clip": 15,
        "hidden_offset": signed(9),
    }
    if variant.projection:
        ports |= {"projection_offset": signed(8), "projection_clip": 7}
    return ports


class IntegerUpdate(wiring.Component):
    """The update of a unit: the sums of its rows in, its new hidden raw and cell raw out.

    A unit takes the rows of one segment of the program, see `rows`. A row can be taken as soon as
    the one before it is used up; with a single segment that holds for the next unit's first row,
    too. With activation by table, a chunk of 16 and no left shifts, a unit of the plain LSTM takes
    23 cycles, and its result follows its last row by 8. A left shift adds a cycle for each bit.

    Bit for bit :func:`fewbit.golden.lstm.int8.step_constants` with double rounding, without the
    sums of products and the normalisation.

    Parameters
    ----------
    activation
        "table" or "gemmlowp", the way in which gates are activated.
    chunk
        Bits of the second factor that the multiplier takes a cycle: 4, 8 or 16. The first has 24.
    variant
        The parts that the LSTM has beside four gates; by default none.
    interpolates
        Whether the table's interpolation has a multiplier of its own. By default it has one with a
        chunk of 16.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`; with "fpga" and an interpolation of its
        own the table lies in a memory.
    hidden_width
        Bits of the hidden raw, to which it saturates.
    shares_activation
        Whether the interpolation is outside, and shared with other neurons. The update then
        ``asks`` with ``raw``, ``is_sigmoid`` and ``integer_bits`` for ``activated``. While it asks
        and is not ``granted``, it must be held still by its clock enable.
    tells_output_gate
        Whether a unit's output gate is a field of its result.

    Ports
    -----
    i
        A row: ``accumulator``, its sum; ``old_cell``, which counts with the row that `cell_row`
        names; and ``segment``, if there are several, which counts with the first row of a unit. A
        row without products has another word in place of a sum: for a peephole its weight in 16
        bits, and above them a bit that is 1 where ties of its product go up and not away from zero;
        for a value row a gate's raw.
    scale
        The index in `scales` of the scale that ``multiplier`` and ``shift`` must have in this
        cycle.
    multiplier, shift
        The upper 24 bits of the scale's split multiplier, and its shift, from -31 to 30; at most 0
        for "hidden".
    o
        A unit's result. Which fields count depends on the segment. ``result`` is the hidden raw, of
        "update", "output" and "project". ``cell_result`` is the new cell, of "update" and "cell".
        ``value`` is a gate's raw, of "cell" and those that begin with "collect". ``exposed`` is the
        hidden value before its requantisation, in units of 2^-30. ``output_gate``, if there is one,
        is that of "update", in units of 2^-15.
    cell_integer_bits, cell_clip
        The integer bits of cells, and the magnitude to which they saturate, as in the neuron's
        contract.
    hidden_offset
        The addend of the last requantisation: the zero point, or with a projection its negative.
    projection_offset, projection_clip
        The zero point of projected hidden values, and their limit: they saturate to plus or minus
        the clip, unless it is 0. These ports are there with a projection only.
    """

    def __init__(
        self,
        activation: ActivationKind = "table",
        chunk: int = 16,
        variant: IntegerVariant | None = None,
        *,
        interpolates: bool | None = None,
        structure: Structure = "gates",
        hidden_width: int = 8,
        shares_activation: bool = False,
        tells_output_gate: bool = False,
    ) -> None:
        check_choice("activation", activation, get_args(ActivationKind))
        if chunk not in (4, 8, 16):
            raise ValueError(f"chunk must be 4, 8 or 16, not {chunk}.")
        if interpolates is None:
            interpolates = activation == "table" and chunk == 16
        if interpolates and activation != "table":
            raise ValueError("Only the table has an interpolation of its own, not gemmlowp.")
        self.activation = activation
        self.chunk = chunk
        self.variant = variant or IntegerVariant()
        self.interpolates = interpolates
        check_structure(structure)
        if hidden_width not in range(2, 17):
            raise ValueError(f"hidden_width must be from 2 to 16, not {hidden_width}.")
        if hidden_width != 8 and self.variant.projection:
            raise ValueError("With a projection hidden_width must be 8.")
        self.structure: Structure = structure
        self.hidden_width = hidden_width
        if shares_activation and (not interpolates or structure != "gates"):
            raise ValueError(
                'Only with an interpolation of its own and structure "gates" can another be shared.'
            )
        self.shares_activation = shares_activation
        self.tells_output_gate = tells_output_gate
        beside = 0 if not interpolates else 1 if structure == "gates" else 2
        self._program = Program(self.variant, beside, quick=chunk == 16)
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(self._row_layout()))),
                "scale": Out(range(len(self.scales))),
                "multiplier": In(24),
                "shift": In(signed(6)),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "result": signed(hidden_width),
                                "cell_result": signed(16),
                                "value": signed(16),
                                "exposed": signed(32),
                                **({"output_gate": 15} if tells_output_gate else {}),
                            }
                        )
                    )
                ),
                **{name: In(shape) for name, shape in configuration_of(self.variant).items()},
                **(_SHARED if shares_activation else {}),
            }
        )

    def _row_layout(self) -> dict[str, ShapeLike]:
        row: dict[str, ShapeLike] = {"accumulator": signed(32), "old_cell": signed(16)}
        if len(self.segments) > 1:
            row["segment"] = Shape.cast(range(len(self.segments)))
        return row

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of the segments, in the order of their numbers."""
        return tuple(self._program.segments)

    @property
    def scales(self) -> tuple[str, ...]:
        """The names of the scales, in the order of their numbers."""
        return self._program.scales

    def rows(self, segment: str) -> tuple[str, ...]:
        """Return the names of a segment's rows, in the order in which they are taken."""
        return self._program.rows(segment)

    def cell_row(self, segment: str) -> str | None:
        """Return the row of a segment that brings the old cell, or None if it needs none."""
        return self._program.cell_row(segment)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        program = self._program
        by_steps = self.activation == "gemmlowp"
        beside = self.interpolates
        peephole = self.variant.peephole

        # Control: the position of the operation, the step within it, and whether the product before
        # it is still to be finished.
        position = Signal(range(program.length))
        step = Signal(range(32 // self.chunk))
        unfinished = Signal()

        def at(chosen: Callable[[Operation], bool]) -> Value:
            return program.at(position, chosen)

        kind = {
            each: Signal(name=f"is_{each.name.lower()}")
            for each in Kind
            if any(op.kind is each for op in program.operations)
        }
        for each, signal in kind.items():
            m.d.comb += signal.eq(at(lambda op, each=each: op.kind is each))
        for index, name in enumerate(self.scales):
            with m.If(at(lambda op, name=name: op.name == name)):
                m.d.comb += self.scale.eq(index)
        requantises = kind[Kind.REQUANTISE]
        requantises_product = kind.get(Kind.REQUANTISE_PRODUCT, Const(0, 1))

        # A row waits in the accumulator until it is used up.
        row = self.i.payload
        row_waits = Signal()
        row_is_used = Signal()
        hands_over = wire(m, self.i.valid & self.i.ready, "hands_over")
        with m.If(hands_over):
            m.d.sync += row_waits.eq(1)
        with m.Elif(row_is_used):
            m.d.sync += row_waits.eq(0)
        m.d.comb += self.o.valid.eq(unfinished & (position < max(1, len(program.waiting))))
        output_waits = wire(m, self.o.valid & ~self.o.ready, "output_waits")
        if program.waiting:
            # A unit's first row says its segment, and is taken only when the result of the unit
            # before has left. After it, only the rows that the segment needs are taken.
            waits = wire(m, position < len(program.waiting), "waits")
            m.d.comb += self.i.ready.eq(
                Mux(
                    waits,
                    ~output_waits,
                    Mux(
                        row_waits,
                        row_is_used & self._needs_rows(position, beyond=1),
                        self._needs_rows(position, beyond=0),
                    ),
                )
            )
        else:
            waits = Const(0, 1)
            m.d.comb += self.i.ready.eq(~row_waits | row_is_used)

        # A left shift comes before the multiplication, as its result wraps. It takes a cycle a bit,
        # which is slow but small: scales of 1 or more are rare.
        is_first = wire(m, step == 0, "is_first")
        independent = wire(m, at(lambda op: op.independent), "independent")
        activating = Signal()
        blocked = wire(m, Mux(independent, output_waits, unfinished | activating), "blocked")
        # The register that holds a product's right shift until it is finished also counts the bits
        # of a left shift. So no left shift begins while the product before is still to be finished.
        right_shift = Signal(5)
        goes_left = wire(m, requantises & is_first & ~self.shift[-1], "goes_left")
        lacks_shift = wire(
            m,
            goes_left & Mux(unfinished, self.shift[:5].any(), right_shift != self.shift[:5]),
            "lacks_shift",
        )
        shifts_left = wire(m, lacks_shift & row_waits & ~blocked & ~unfinished, "shifts_left")

        # Gemmlowp's steps: the present one, the one before, and whether the product of that one is
        # still to be finished. The last step's product is finished as that of the operation.
        place = Signal(range(len(STEPS)))
        place_before = Signal(range(len(STEPS)))
        in_steps = Signal()
        skips = Signal()

        def finishes(*names: str) -> Value:
            """Return whether the product to be finished is of an operation with such a finish."""
            after = program.after(position, lambda op: op.finish in names)
            return after & ~in_steps if by_steps else after

        # The steps of operations.
        lacks_row = at(lambda op: op.row or op.needs_row) & ~row_waits
        runs = wire(m, ~waits & ~blocked & ~lacks_row & ~lacks_shift & ~skips, "runs")
        steps = {
            Kind.REQUANTISE: 32 // self.chunk,
            Kind.REQUANTISE_PRODUCT: 32 // self.chunk,
            Kind.MULTIPLY: 16 // self.chunk,
            Kind.ACTIVATE: -(-(16 if by_steps else FRACTION) // self.chunk),
            Kind.LOAD: 1,
            Kind.RECALL: 1,
        }
        is_last_step = Signal()
        for each, signal in kind.items():
            with m.If(signal):
                m.d.comb += is_last_step.eq(step == steps[each] - 1)
        # A row is used up only in the last step: a requantisation that has begun runs through.
        m.d.comb += row_is_used.eq(runs & is_last_step & at(lambda op: op.row))
        following = Signal.like(position)
        m.d.comb += following.eq(position + 1)
        for start, segment in zip(program.starts(), program.segments.values(), strict=True):
            last = start + len(segment) - 1
            with m.If(position == last):
                m.d.comb += following.eq(program.following(last))
        activates = kind.get(Kind.ACTIVATE, Const(0, 1))
        last_place = len(STEPS) - 1 if by_steps else 0
        with m.If(runs):
            m.d.sync += step.eq(step + 1)
            with m.If(is_last_step):
                m.d.sync += step.eq(0)
                if by_steps:
                    m.d.sync += [
                        place_before.eq(place),
                        in_steps.eq(activates & (place != last_place)),
                    ]
                with m.If(activates & (place != last_place)):
                    m.d.sync += place.eq(place + 1)
                with m.Else():
                    m.d.sync += [place.eq(0), position.eq(following)]
        with m.Elif(skips):
            m.d.sync += place.eq(place + 1)
        if program.waiting:
            with m.If(waits & hands_over), m.Switch(row.segment):
                for index, start in enumerate(program.starts()):
                    with m.Case(index):
                        m.d.sync += position.eq(start)
        multiplies = at(lambda op: op.kind not in (Kind.LOAD, Kind.RECALL))
        m.d.sync += unfinished.eq((runs & is_last_step & multiplies) | output_waits)

        # Registers: the row's sum, a gate's raw or value, another gate's value that waits to be
        # multiplied, the cell, and the product.
        accumulator = Signal(signed(32), reset_less=True)
        # Whether ties of a peephole's product go up, which lies in the row's register.
        peeps_ties_up = Signal(reset_less=True)
        value = Signal(signed(16), reset_less=True)
        gate_value = Signal(signed(16), reset_less=True) if program.beside == 2 else value
        other = Signal(signed(16), reset_less=True)
        cell = Signal(signed(16), reset_less=True)
        # The shared multiplier may take the fraction of a table's interpolation in chunks, the
        # lower ones as signed numbers. A partial sum that starts at the lowest entry then needs a
        # bit more. A chunk of 16 holds the whole fraction.
        spare = 0 if self.chunk == 16 or beside else 1
        product = Signal(signed(32 + spare), reset_less=True)
        exposed = Signal(signed(32), reset_less=True)

        # Activation. A gate's raw is Q3.12; that of the cell has the cell's resolution.
        if beside:
            self._activate_beside(
                m,
                activating,
                runs,
                wire(m, unfinished & ~self.o.valid, "finishing"),
                at,
                lambda chosen: program.after(position, chosen),
                (value, gate_value, other, cell),
            )
            active = None
        else:
            is_sigmoid = wire(m, at(lambda op: op.finish in ("i", "f", "o")), "is_sigmoid")
            integer_bits = wire(
                m,
                Mux(at(lambda op: op.finish == "cell_tanh"), self.cell_integer_bits, 3)[:3],
                "integer_bits",
            )
            active = (
                self._take_step(m, place, runs, skips, activates, value, is_sigmoid, integer_bits)
                if by_steps
                else self._look_up(m, value, is_sigmoid, integer_bits)
            )

        # Multiplication: 24 bits by a chunk, low chunks first, in Booth's digits. These overlap by
        # a bit, so that after each chunk the sum is the product with the signed low part so far.
        factor = Signal(signed(25))
        word = Signal(32)
        align = {each: self.chunk * count - 8 for each, count in steps.items()}
        # The hidden value is requantised straight from the product register: its first chunk is
        # taken there, before the register takes the new product.
        first_chunk = product[: self.chunk]
        if self.chunk < 16:
            first_chunk = Mux(is_first, first_chunk, value[: self.chunk])
        with m.If(requantises):
            m.d.comb += [factor.eq(self.multiplier), word.eq(accumulator)]
        with m.Elif(requantises_product):
            m.d.comb += [
                factor.eq(self.multiplier),
                word.eq(Cat(first_chunk, value[self.chunk :], other)),
            ]
        if active is not None:
            with m.Elif(activates):
                m.d.comb += [
                    factor.eq(active.factor << align[Kind.ACTIVATE]),
                    word.eq(active.word),
                ]
        with m.Else():
            takes_cell = wire(m, at(lambda op: op.finish in ("kept", "row")), "takes_cell")
            m.d.comb += [
                factor.eq(Mux(takes_cell, cell, other) << align[Kind.MULTIPLY]),
                word.eq(gate_value),
            ]
            if peephole:
                with m.If(at(lambda op: op.finish == "row")):
                    m.d.comb += word.eq(accumulator)
        digits = wire(m, word.word_select(step, self.chunk).as_signed(), "digits")
        highest_before = Signal(reset_less=True)
        below = wire(m, highest_before & ~is_first, "below")
        rows, constant = product_addends(m, factor, digits, below, "digit", self.structure)
        width = 24 + self.chunk + spare
        addend = Signal(width)
        with m.If(~is_first):
            m.d.comb += addend.eq(Cat(product[8:], product[-1].replicate(width - 24 - spare)))
        if active is not None:
            with m.Elif(activates):
                m.d.comb += addend.eq(active.first << align[Kind.ACTIVATE])
        # A requantisation rounds to units of 2^24. Half of one enters as one more addend, in the
        # step in which it has its place.
        if self.chunk == 16:
            rounding_step, half = 1, 7
        else:
            rounding_step, half = 32 // self.chunk - 1 - 8 // self.chunk, self.chunk - 1
        half_row = Addend((step == rounding_step) & (requantises | requantises_product), half)
        rows += [half_row, Addend(addend)]
        total = sum_of_addends(m, rows, width, "total", constant, self.structure)
        with m.If(runs):
            if self.chunk >= 8:
                m.d.sync += product.eq(total[self.chunk - 8 :])
            else:
                m.d.sync += product.eq(Cat(product[self.chunk : 8], total))
            m.d.sync += [
                highest_before.eq(digits[-1]),
                right_shift.eq(Mux(self.shift[-1], (-self.shift)[:5], 0)),
            ]
            with m.If(requantises_product & is_first):
                m.d.sync += [exposed.eq(product), other.eq(product[16:])]
                if self.chunk < 16:
                    m.d.sync += value.eq(product[:16])

        with m.Elif(shifts_left):
            m.d.sync += right_shift.eq(right_shift + 1)
        with m.Elif(~output_waits):
            m.d.sync += right_shift.eq(0)

        # A product is finished by a rounded right shift, an addition and a saturation.
        distance = Signal(5)
        start = Signal(signed(16))
        with m.If(finishes("cell")):
            m.d.comb += distance.eq(15 + self.cell_integer_bits)
        with m.Elif(finishes("kept")):
            m.d.comb += distance.eq(15)
        with m.Else():
            m.d.comb += distance.eq(right_shift)
        with m.If(finishes("sum")):
            m.d.comb += start.eq(value)
        with m.Elif(finishes("cell")):
            m.d.comb += start.eq(cell)
        with m.Elif(finishes("result")):
            m.d.comb += start.eq(self.hidden_offset)
        if self.variant.projection:
            with m.Elif(finishes("projected")):
                m.d.comb += start.eq(self.projection_offset)
        ties_up: Value = Const(0, 1)
        rounds = Signal(init=1)
        inverts = Signal()
        clears = Signal()
        if active is not None:
            is_activated = wire(m, finishes(*_ACTIVATED), "is_activated")
            was_sigmoid = wire(m, finishes("i", "f", "o"), "was_sigmoid")
            with m.If(is_activated):
                m.d.comb += [
                    distance.eq(active.shift(was_sigmoid)),
                    start.eq(active.start(was_sigmoid)),
                    inverts.eq(active.negative),
                ]
            ties_up = is_activated | in_steps if by_steps else is_activated
        if peephole:
            ties_up = ties_up | (peeps_ties_up & finishes("sum"))
        if active is not None and by_steps:
            with m.If(in_steps), m.Switch(place_before):
                for index, each in enumerate(STEPS[:-1]):
                    with m.Case(index):
                        m.d.comb += [
                            distance.eq(each.shift),
                            start.eq(active.word_of(each.start)),
                            inverts.eq(each.subtracts),
                            rounds.eq(each.rounds),
                            clears.eq(each.quadruples),
                        ]
        shifted = rounding_shift_right(
            m, product[:32].as_signed(), distance, 17, "shifted", ties_up=ties_up
        )
        quotient = wire(
            m,
            (
                (shifted.quotient[:] & Cat(~clears, ~clears, Const(-1, signed(15))))
                ^ inverts.replicate(17)
            ).as_signed(),
            "quotient",
        )
        carry = wire(m, (shifted.round_up & rounds) ^ inverts, "carry")
        # The carry is added as a bit below the lowest one, so that there is only one addition.
        sum_with_carry = wire(
            m,
            Cat(Const(1, 1), quotient).as_signed() + Cat(carry, start).as_signed(),
            "sum_with_carry",
        )
        finished_sum = wire(m, sum_with_carry[1:].as_signed(), "finished_sum")
        is_beyond = shifted.beyond
        exact_sign = wire(m, Mux(is_beyond, product[31], finished_sum[-1]), "exact_sign")
        exact = wire(m, Cat(finished_sum[:-1], exact_sign).as_signed(), "exact")
        saturated = saturate(m, exact, 16, "saturated", is_beyond)
        is_cell = wire(m, finishes("cell"), "is_cell")
        finished = saturate_to_clip(
            m, saturated, self.cell_clip & is_cell.replicate(15), "finished"
        )
        hidden = saturate(m, exact, self.hidden_width, "hidden", is_beyond)
        if self.variant.projection:
            is_projected = wire(m, finishes("projected"), "is_projected")
            hidden = saturate_to_clip(
                m, hidden, self.projection_clip & is_projected.replicate(7), "projected"
            )
        m.d.comb += [
            self.o.payload.result.eq(hidden),
            self.o.payload.cell_result.eq(cell),
            self.o.payload.value.eq(finished),
            self.o.payload.exposed.eq(exposed),
        ]
        if self.tells_output_gate:
            self._tell_output_gate(
                m, gate_value, wire(m, runs & requantises_product & is_first, "exposes")
            )

        # Writing the registers. The last operation's product is not stored: it stays in the product
        # register until the unit's result is taken.
        stores = wire(m, unfinished & ~self.o.valid, "stores")
        with m.If(stores):
            to_value = ("part", "sum") if beside else ("part", "sum", "f", "g", "o", "cell")
            with m.If(finishes(*to_value)):
                m.d.sync += value.eq(finished)
            with m.If(finishes("kept", "cell")):
                m.d.sync += cell.eq(finished)
        if active is not None:
            with m.If(stores & finishes("i", "cell_tanh")):
                m.d.sync += other.eq(finished)
            if self.variant.coupled:
                with m.If(stores & finishes("f")):
                    m.d.sync += other.eq(finished ^ 0x7FFF)
            if by_steps:
                with m.If(stores & in_steps), m.Switch(place_before):
                    for index, each in enumerate(STEPS[:-1]):
                        with m.Case(index):
                            target = (
                                value if each.target == "value" else active.registers[each.target]
                            )
                            m.d.sync += target.eq(finished)
        loads = runs & kind.get(Kind.LOAD, Const(0, 1))
        if Kind.LOAD in kind:
            with m.If(loads):
                m.d.sync += value.eq(accumulator)
        if Kind.RECALL in kind and not beside:
            with m.If(runs & kind[Kind.RECALL]):
                m.d.sync += value.eq(cell)
        with m.If(hands_over):
            m.d.sync += accumulator.eq(row.accumulator)
        with m.Elif(shifts_left):
            m.d.sync += accumulator.eq(accumulator << 1)
        if peephole:
            with m.Elif(stores & finishes("row")):
                m.d.sync += accumulator.eq(product)
            with m.If(stores & finishes("part", "row")):
                m.d.sync += peeps_ties_up.eq(accumulator[TIES_UP] & finishes("row"))
        with m.If(hands_over & self._brings_cell(position, row_waits, row_is_used)):
            m.d.sync += cell.eq(row.old_cell)
        return m

    def _needs_rows(self, position: Signal, beyond: int) -> Value:
        """Return whether the segment at `position` has a row still to use.

        The operations that count are those from `beyond` after `position` on.
        """
        program = self._program
        places: list[int] = []
        for start, segment in zip(program.starts(), program.segments.values(), strict=True):
            used = [index for index, op in enumerate(segment) if op.row]
            places += [start + index for index in range(used[-1] + 1 - beyond)]
        return position.matches(*places) if places else Const(0, 1)

    def _brings_cell(self, position: Signal, row_waits: Value, row_is_used: Value) -> Value:
        """Return whether a row that is handed over in this cycle brings the old cell."""
        program = self._program
        brings: Value = Const(0, 1)
        for name, start in zip(program.segments, program.starts(), strict=True):
            cell_row = program.cell_row(name)
            places = {op.name: start + at for at, op in enumerate(program.segments[name])}
            rows = program.rows(name)
            if cell_row is None:
                continue
            if cell_row == rows[0]:
                # The segment is not known yet, so that the cell is taken in any case. A segment
                # that brings it with a later row overwrites it then.
                brings |= position < len(program.waiting)
            else:
                before = places[rows[rows.index(cell_row) - 1]]
                between = position.matches(*range(before + 1, places[cell_row] + 1))
                brings |= Mux(row_waits, position == before, between)
        return brings

    def _tell_output_gate(self, m: Module, gate_value: Signal, exposes: Value) -> None:
        """Drive the result's field of the output gate, which is the last gate to be activated."""
        kept = gate_value
        if self.chunk < 16:
            # The low part of the product overwrites the gate's register.
            kept = Signal(15, name="output_gate_kept", reset_less=True)
            with m.If(exposes):
                m.d.sync += kept.eq(gate_value)
        m.d.comb += self.o.payload.output_gate.eq(kept)

    def _activate_beside(
        self,
        m: Module,
        activating: Signal,
        runs: Value,
        finishing: Value,
        at: Callable[[Callable[[Operation], bool]], Value],
        after: Callable[[Callable[[Operation], bool]], Value],
        registers: tuple[Signal, Signal, Signal, Signal],
    ) -> None:
        """Add the activation by interpolation, which begins in the cycle after a raw is written."""
        value, gate_value, other, cell = registers
        # A load or a recall writes its raw in its own cycle, any other operation when its product
        # is finished.
        quick = (Kind.LOAD, Kind.RECALL)
        moments = (
            (finishing, after, lambda op: op.kind not in quick),
            (runs, at, lambda op: op.kind in quick),
        )

        def activates(*gates: str) -> Value:
            """Return whether a raw of one of these gates is written in this cycle."""
            chosen: Value = Const(0, 1)
            for moment, where, fits in moments:
                chosen |= moment & where(lambda op, fits=fits: op.activates in gates and fits(op))
            return chosen

        # The raw that is activated in this cycle, and the register that its result goes to.
        of_cell = Signal(reset_less=True)
        is_sigmoid = Signal(reset_less=True)
        begins = Signal()
        to_other = Signal(reset_less=True)
        to_gate = Signal(reset_less=True)
        coupled = self.variant.coupled
        m.d.sync += [
            begins.eq(activates("i", "f", "g", "o", "cell")),
            of_cell.eq(activates("cell")),
            is_sigmoid.eq(activates("i", "f", "o")),
            to_other.eq(activates("cell", "f" if coupled else "i")),
            to_gate.eq(activates("f", "g", "o")),
        ]
        if self.shares_activation:
            interpolation = self
            result = self.activated
            m.d.comb += self.asks.eq(begins)
        else:
            m.submodules.interpolation = interpolation = Interpolation(self.structure)
            result = interpolation.result
        m.d.comb += [
            interpolation.raw.eq(Mux(of_cell, cell, value)),
            interpolation.is_sigmoid.eq(is_sigmoid),
            interpolation.integer_bits.eq(Mux(of_cell, self.cell_integer_bits, 3)),
        ]
        ends: Value = begins
        inverts: Value = ~of_cell
        if self._program.beside == 2:
            ends = Signal(name="ends")
            later_to_other, later_to_gate, inverts = (
                Signal(reset_less=True, name=f"later_{name}")
                for name in ("to_other", "to_gate", "inverts")
            )
            m.d.sync += [
                ends.eq(begins),
                later_to_other.eq(to_other),
                later_to_gate.eq(to_gate),
                inverts.eq(~of_cell),
            ]
            to_other, to_gate = later_to_other, later_to_gate
        m.d.comb += activating.eq(begins | ends)
        with m.If(ends & to_gate):
            m.d.sync += gate_value.eq(result)
        with m.If(ends & to_other):
            # With coupled gates, i is one minus f.
            flips = Cat(inverts.replicate(15), Const(0, 1)) if coupled else Const(0, 16)
            m.d.sync += other.eq(result ^ flips)

    def _look_up(
        self, m: Module, value: Signal, is_sigmoid: Signal, integer_bits: Signal
    ) -> "_Active":
        """Return the factors of an activation by table: slope times fraction, plus the entry."""
        m.submodules.lookup = lookup = TableLookup(self.structure)
        m.d.comb += [
            lookup.raw.eq(value),
            lookup.is_sigmoid.eq(is_sigmoid),
            lookup.integer_bits.eq(integer_bits),
        ]
        negative = wire(m, value[-1], "negative")
        return _Active(
            factor=lookup.slope,
            word=lookup.fraction,
            first=wire(m, lookup.entry << FRACTION, "entry_start"),
            negative=negative,
            shift=shift_of,
            start=lambda was_sigmoid: start_of(was_sigmoid, negative),
        )

    def _take_step(
        self,
        m: Module,
        place: Signal,
        runs: Signal,
        skips: Signal,
        activates: Value,
        value: Signal,
        is_sigmoid: Signal,
        integer_bits: Signal,
    ) -> "_Active":
        """Return the factors of the present one of gemmlowp's steps."""
        m.submodules.argument = argument = GemmlowpArgument()
        m.d.comb += [
            argument.raw.eq(value),
            argument.integer_bits.eq(Mux(is_sigmoid, 3, integer_bits + 1)),
        ]
        left = Signal(signed(16), reset_less=True)
        right = Signal(signed(16), reset_less=True)
        # The last steps overwrite the raw's register. Its sign, and whether it is 0, are kept.
        negative = Signal(reset_less=True)
        is_zero = Signal(reset_less=True)
        with m.If(runs & activates & (place == 0)):
            m.d.sync += [negative.eq(value[-1]), is_zero.eq(value == 0)]
        words: dict[str, Value] = {
            "x": argument.x,
            "left": left,
            "right": right,
            "value": value,
            # Half of one plus the exponential.
            "denominator": Cat(left[1:15], Const(1, 2)).as_signed(),
            "two_or_four": Mux(is_sigmoid, Const(2, 4), Const(4, 4)).as_signed(),
            "one_unless_zero": Cat(~is_zero, Const(0, 1)).as_signed(),
            "zero_or_lowest": Cat(Const(0, 15), ~is_sigmoid).as_signed(),
        }

        def word_of(name: str | int) -> Value:
            return Const(name, signed(16)) if isinstance(name, int) else words[name]

        factor = Signal(signed(16))
        word = Signal(signed(16), name="step_word")
        rounds_up = Signal()
        with m.Switch(place):
            for index, each in enumerate(STEPS):
                with m.Case(index):
                    m.d.comb += [
                        factor.eq(word_of(each.factor)),
                        word.eq(word_of(each.word)),
                        rounds_up.eq(each.rounds_up),
                    ]
                    if each.skip is not None:
                        m.d.comb += skips.eq(activates & ~argument.factors[each.skip])

        def start(was_sigmoid: Value) -> Value:
            sigmoid_offset = Cat(negative.replicate(14), negative | is_zero, Const(0, 1))
            return (sigmoid_offset & was_sigmoid.replicate(16)).as_signed()

        return _Active(
            factor=factor,
            word=word,
            first=wire(m, Cat(Const(0, 14), rounds_up, Const(0, 1)).as_signed(), "half"),
            negative=negative,
            shift=lambda was_sigmoid: Const(0, 1),
            start=start,
            word_of=word_of,
            registers={"left": left, "right": right},
        )


@dataclass(frozen=True)
class _Active:
    """The inputs of the shared multiplier, shifter and adder for an activation."""

    factor: Value
    """The first factor, which is taken whole."""
    word: Value
    """The second factor, which is taken in chunks."""
    first: Value
    """The signed number that is added to the product before its shift."""
    negative: Value
    """Whether the finished product is subtracted."""
    shift: Callable[[Value], Value]
    """The right shift of the product, from whether the function is a sigmoid."""
    start: Callable[[Value], Value]
    """The number that is added after the shift, from whether the function is a sigmoid."""
    word_of: Callable[[str | int], Value] = lambda name: Const(0, 1)
    """The word of a name, or of a number, in gemmlowp's steps."""
    registers: dict[str, Signal] = field(default_factory=dict)
    """The registers that gemmlowp's steps write, by name."""
