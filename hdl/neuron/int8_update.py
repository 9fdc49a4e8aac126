"""The update of an int8 LSTM unit: from the accumulators of its rows to its new state.

One multiplier, one rounding shifter and one saturating adder do everything, an operation after
the other, by a program.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from golden.activations import ActivationKind
from golden.neuron.int8 import Int8LstmNeuron as Contract
from hdl.activation.gemmlowp import STEPS, GemmlowpArgument
from hdl.activation.table import FRACTION, TableLookup, shift_of, start_of
from hdl.arithmetic import (
    Row,
    booth_rows,
    carry_save_sum,
    rounding_shift_right,
    saturate,
    saturate_to_clip,
    wire,
)
from hdl.formats import shape_of

__all__ = ["Int8Update"]


class Kind(Enum):
    """What an operation multiplies."""

    REQUANTISE = auto()
    """The accumulator by its multiplier."""
    ACTIVATE = auto()
    """A slope of the table by a fraction, or the factors of a step of gemmlowp's."""
    MULTIPLY = auto()
    """A gate value by another word of 16 bits."""
    REQUANTISE_HIDDEN = auto()
    """The output gate's product by the hidden multiplier."""


@dataclass(frozen=True)
class Operation:
    """A multiplication, and the step that finishes its product a cycle later."""

    name: str
    kind: Kind
    finish: str
    independent: bool = False
    """The operation may start while the one before it is finished."""


def _gate(gate: str) -> list[Operation]:
    return [
        Operation(f"{gate}_input", Kind.REQUANTISE, "part", independent=True),
        Operation(f"{gate}_recurrent", Kind.REQUANTISE, "sum", independent=True),
        Operation(f"{gate}_activate", Kind.ACTIVATE, gate),
    ]


PROGRAM: tuple[Operation, ...] = (
    *_gate("i"),
    *_gate("f"),
    Operation("keep", Kind.MULTIPLY, "kept"),
    *_gate("g"),
    Operation("add", Kind.MULTIPLY, "cell"),
    Operation("cell_activate", Kind.ACTIVATE, "cell_tanh"),
    *_gate("o"),
    Operation("expose", Kind.MULTIPLY, "exposed"),
    Operation("hidden", Kind.REQUANTISE_HIDDEN, "result"),
)
"""The operations of a unit, one after the other."""


class Int8Update(wiring.Component):
    """Rows' accumulators in, eight a unit; a unit's new hidden and cell raws out.

    The next row is taken while the one before is used. With shifts of at most 0 a unit takes 35,
    61 or 108 cycles by table, with a chunk of 16, 8 or 4, and some 215, 322 or 527 by gemmlowp's
    steps, of which a raw skips some; each left shift by one adds a cycle at most. The result
    follows the last row by 10, 16 or 27 cycles by table.

    Bit for bit :func:`golden.lstm.int8.update_unit` with double rounding.

    Parameters
    ----------
    activation
        "table" or "gemmlowp".
    chunk
        Bits of the second factor that the multiplier takes a cycle: 4, 8 or 16. The first has 24.

    Ports
    -----
    i
        A row: accumulator, multiplier, shift and old cell as in the neuron's contract.
    o
        A unit: result, cell_result, and exposed, the hidden value before its requantisation in
        steps of 2^-30.
    """

    def __init__(self, activation: ActivationKind = "table", chunk: int = 16) -> None:
        if activation not in ("table", "gemmlowp"):
            raise ValueError(f'activation must be "table" or "gemmlowp", not {activation!r}.')
        if chunk not in (4, 8, 16):
            raise ValueError(f"chunk must be 4, 8 or 16, not {chunk}.")
        self.activation = activation
        self.chunk = chunk
        row = {"accumulator": signed(32), "multiplier": 24, "shift": signed(6)}
        unit = {"result": signed(8), "cell_result": signed(16), "exposed": signed(32)}
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({**row, "old_cell": signed(16)}))),
                "o": Out(stream.Signature(data.StructLayout(unit))),
                **{f.name: In(shape_of(f.format)) for f in Contract().configuration},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row = self.i.payload
        by_table = self.activation == "table"
        row_waits = Signal()
        row_is_used = Signal()
        hands_over = Signal()
        m.d.comb += [
            self.i.ready.eq(~row_waits | row_is_used),
            hands_over.eq(self.i.valid & self.i.ready),
        ]
        with m.If(hands_over):
            m.d.sync += row_waits.eq(1)
        with m.Elif(row_is_used):
            m.d.sync += row_waits.eq(0)

        # The row that waits to be used. Its left shift comes first, a bit a cycle: a multiplier
        # of 1 or more is rare, and the shift wraps.
        accumulator = Signal(signed(32), reset_less=True)
        multiplier = Signal(24, reset_less=True)
        shift = Signal(signed(6), reset_less=True)
        shifts_left = wire(m, ~shift[-1] & shift[:-1].any(), "shifts_left")
        with m.If(hands_over):
            m.d.sync += [
                accumulator.eq(row.accumulator),
                multiplier.eq(row.multiplier),
                shift.eq(row.shift),
            ]
        with m.Elif(shifts_left):
            m.d.sync += [accumulator.eq(accumulator << 1), shift.eq(shift - 1)]

        # Control: the operation, the step within it, and whether the product before is finished.
        position = Signal(range(len(PROGRAM)))
        step = Signal(range(32 // self.chunk))
        unfinished = Signal()
        kind = {each: Signal(name=f"is_{each.name.lower()}") for each in Kind}
        for each, signal in kind.items():
            m.d.comb += signal.eq(_any_of(position, lambda op, each=each: op.kind is each))
        independent = wire(m, _any_of(position, lambda op: op.independent), "independent")

        # Gemmlowp's steps: the one to do, the one whose product waits, and whether one's does;
        # the last step's product is finished as the operation's.
        place = Signal(range(len(STEPS)))
        place_before = Signal(range(len(STEPS)))
        in_steps = Signal()
        skips = Signal()

        def finishes(*names: str) -> Value:
            """Whether the product to finish is that of one of these operations."""
            at = _any_of(position, lambda op: op.finish in names, after=1)
            return at if by_table else at & ~in_steps

        m.d.comb += self.o.valid.eq(unfinished & (position == 0))
        blocked = Mux(independent, self.o.valid & ~self.o.ready, unfinished)
        lacks_row = kind[Kind.REQUANTISE] & (~row_waits | shifts_left)
        runs = wire(m, ~blocked & ~lacks_row & ~skips, "runs")
        steps = {
            Kind.REQUANTISE: 32 // self.chunk,
            Kind.REQUANTISE_HIDDEN: 32 // self.chunk,
            Kind.MULTIPLY: 16 // self.chunk,
            Kind.ACTIVATE: -(-(FRACTION if by_table else 16) // self.chunk),
        }
        is_last_step = Signal()
        for each, signal in kind.items():
            with m.If(signal):
                m.d.comb += is_last_step.eq(step == steps[each] - 1)
        # Once begun, a requantisation runs through, so this needs no look at what blocks it.
        m.d.comb += row_is_used.eq(kind[Kind.REQUANTISE] & is_last_step)
        with m.If(runs):
            m.d.sync += step.eq(step + 1)
            with m.If(is_last_step):
                m.d.sync += step.eq(0)
                if not by_table:
                    m.d.sync += [
                        place_before.eq(place),
                        in_steps.eq(kind[Kind.ACTIVATE] & (place != len(STEPS) - 1)),
                    ]
                with m.If(kind[Kind.ACTIVATE] & (place != (0 if by_table else len(STEPS) - 1))):
                    m.d.sync += place.eq(place + 1)
                with m.Else():
                    m.d.sync += [
                        place.eq(0),
                        position.eq(Mux(position == len(PROGRAM) - 1, 0, position + 1)),
                    ]
        with m.Elif(skips):
            m.d.sync += place.eq(place + 1)
        m.d.sync += unfinished.eq((runs & is_last_step) | (self.o.valid & ~self.o.ready))

        # Registers: the gate raw or value, a gate value that waits, the cell, the product.
        value = Signal(signed(16), reset_less=True)
        other = Signal(signed(16), reset_less=True)
        cell = Signal(signed(16), reset_less=True)
        # A partial sum that begins at the lowest table entry, and at a negative signed low part of
        # the fraction, needs a bit more. A chunk of 16 takes the fraction whole.
        spare = 0 if self.chunk == 16 else 1
        product = Signal(signed(32 + spare), reset_less=True)
        right_shift = Signal(5, reset_less=True)

        # Tanh is that of the cell's own step; a gate's is Q3.12.
        is_sigmoid = wire(
            m, _any_of(position, lambda op: op.finish in ("i", "f", "o")), "is_sigmoid"
        )
        is_cell_tanh = _any_of(position, lambda op: op.finish == "cell_tanh")
        integer_bits = wire(m, Mux(is_cell_tanh, self.cell_integer_bits, 3)[:3], "integer_bits")

        # Multiplication: 24 bits by a chunk, low chunks first, in Booth's digits, whose overlap
        # makes each partial sum that of the signed low part.
        factor = Signal(24 if by_table else signed(25))
        word = Signal(32)
        align = {each: self.chunk * count - 8 for each, count in steps.items()}
        active = (
            self._look_up(m, value, is_sigmoid, integer_bits)
            if by_table
            else self._take_step(
                m, place, runs, skips, kind[Kind.ACTIVATE], value, is_sigmoid, integer_bits
            )
        )
        with m.If(kind[Kind.REQUANTISE]):
            m.d.comb += [factor.eq(multiplier), word.eq(accumulator)]
        with m.Elif(kind[Kind.REQUANTISE_HIDDEN]):
            m.d.comb += [factor.eq(self.hidden_multiplier), word.eq(Cat(other, value))]
        with m.Elif(kind[Kind.ACTIVATE]):
            m.d.comb += [
                factor.eq(active.factor << align[Kind.ACTIVATE]),
                word.eq(Cat(active.word, value)),
            ]
        with m.Else():
            m.d.comb += [
                factor.eq(value << align[Kind.MULTIPLY]),
                word.eq(
                    Cat(Mux(_any_of(position, lambda op: op.name == "keep"), cell, other), value)
                ),
            ]
        digits = Signal(signed(self.chunk))
        below = Signal()
        with m.Switch(step):
            for index in range(32 // self.chunk):
                low = index * self.chunk
                with m.Case(index):
                    m.d.comb += digits.eq(word[low : low + self.chunk])
                    if index:
                        m.d.comb += below.eq(word[low - 1])
        rows, constant = booth_rows(m, factor, digits, below, "digit")
        first_step = wire(m, step == 0, "first_step")
        width = 24 + self.chunk + spare
        entry = wire(m, active.first << align[Kind.ACTIVATE], "entry")
        entry_bits = Cat(entry, entry[-1].replicate(max(0, width - len(entry))))[:width]
        carried = Cat(product[8:], product[-1].replicate(width - 24 - spare))
        addend = wire(
            m,
            Mux(
                first_step,
                entry_bits & kind[Kind.ACTIVATE].replicate(width),
                carried,
            ),
            "addend",
        )
        # Half of the unit, 2^24, to which the requantisation rounds. It lies below the others'
        # lowest bits, and does them no harm.
        rounding_step = 32 // self.chunk - 1 - max(0, 8 // self.chunk)
        if self.chunk == 16:
            rounding_step, half = 1, 7
        else:
            half = self.chunk - 1
        half_row = Row(
            (step == rounding_step) & (kind[Kind.REQUANTISE] | kind[Kind.REQUANTISE_HIDDEN]), half
        )
        total = carry_save_sum(m, [*rows, half_row, Row(addend)], width, "total", constant)
        with m.If(runs):
            if self.chunk >= 8:
                m.d.sync += product.eq(total[self.chunk - 8 :])
            else:
                m.d.sync += product.eq(Cat(product[self.chunk : 8], total))
            m.d.sync += right_shift.eq((-shift)[:5])

        # Finishing: a rounded shift, an addition, a saturation.
        activates = wire(m, finishes("i", "f", "g", "o", "cell_tanh"), "activates")
        was_sigmoid = wire(m, finishes("i", "f", "o"), "was_sigmoid")
        distance = Signal(5)
        start = Signal(signed(16))
        with m.If(finishes("part", "sum")):
            m.d.comb += distance.eq(right_shift)
        with m.Elif(finishes("result")):
            m.d.comb += [distance.eq(self.hidden_shift)]
        with m.Elif(finishes("cell")):
            m.d.comb += distance.eq(15 + self.cell_integer_bits)
        with m.Elif(finishes("kept")):
            m.d.comb += distance.eq(15)
        with m.Elif(activates):
            m.d.comb += distance.eq(active.shift(was_sigmoid))
        with m.If(finishes("sum")):
            m.d.comb += start.eq(value)
        with m.Elif(finishes("cell")):
            m.d.comb += start.eq(cell)
        with m.Elif(finishes("result")):
            m.d.comb += start.eq(self.hidden_zero_point)
        with m.Elif(activates):
            m.d.comb += start.eq(active.start(was_sigmoid))
        inverts = Signal()
        m.d.comb += inverts.eq(activates & active.negative)
        rounds = Signal(init=1)
        clears = Signal()
        if not by_table:
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
            m,
            product[:32].as_signed(),
            distance,
            17,
            "shifted",
            ties_up=activates if by_table else activates | in_steps,
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
        # The carry goes in below the point, so that one addition does all.
        sum_with_carry = wire(
            m,
            Cat(Const(1, 1), quotient).as_signed() + Cat(carry, start).as_signed(),
            "sum_with_carry",
        )
        finished_sum = wire(m, sum_with_carry[1:].as_signed(), "finished_sum")
        is_beyond = shifted.beyond
        exact_sign = wire(m, Mux(is_beyond, product[31], finished_sum[-1]), "exact_sign")
        saturated = saturate(
            m, Cat(finished_sum[:-1], exact_sign).as_signed(), 16, "saturated", is_beyond
        )
        is_cell = wire(m, finishes("cell"), "is_cell")
        finished = saturate_to_clip(
            m, saturated, self.cell_clip & is_cell.replicate(15), "finished"
        )
        hidden = saturate(m, Cat(finished_sum[:-1], exact_sign).as_signed(), 8, "hidden", is_beyond)
        m.d.comb += [
            self.o.payload.result.eq(hidden),
            self.o.payload.cell_result.eq(cell),
            self.o.payload.exposed.eq(Cat(other, value)),
        ]

        with m.If(unfinished):
            with m.If(finishes("part", "sum", "f", "cell", "o")):
                m.d.sync += value.eq(finished)
            with m.If(finishes("g")):
                m.d.sync += value.eq(other)
            with m.If(finishes("i", "g", "cell_tanh")):
                m.d.sync += other.eq(finished)
            with m.If(finishes("kept", "cell")):
                m.d.sync += cell.eq(finished)
            with m.If(finishes("exposed")):
                m.d.sync += Cat(other, value).eq(product)
            if not by_table:
                with m.If(in_steps), m.Switch(place_before):
                    for index, each in enumerate(STEPS[:-1]):
                        with m.Case(index):
                            target = (
                                value if each.target == "value" else active.registers[each.target]
                            )
                            m.d.sync += target.eq(finished)
        # The old cell comes with the fourth row; this is where that row is handed over.
        at_third_row = _any_of(position, lambda op: op.name == "f_input")
        at_fourth_row = _any_of(position, lambda op: op.name == "f_recurrent")
        with m.If(hands_over & (at_third_row | (at_fourth_row & ~row_waits))):
            m.d.sync += cell.eq(row.old_cell)
        return m

    def _look_up(
        self, m: Module, value: Signal, is_sigmoid: Signal, integer_bits: Signal
    ) -> "_Active":
        """Activation by table: the slope by the fraction, from the entry on."""
        m.submodules.lookup = lookup = TableLookup()
        m.d.comb += [
            lookup.raw.eq(value),
            lookup.is_sigmoid.eq(is_sigmoid),
            lookup.integer_bits.eq(integer_bits),
        ]
        negative = wire(m, value[-1], "negative")
        return _Active(
            factor=lookup.slope,
            word=Cat(lookup.fraction, Const(0, 16 - FRACTION)),
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
        activates: Signal,
        value: Signal,
        is_sigmoid: Signal,
        integer_bits: Signal,
    ) -> "_Active":
        """Activation by gemmlowp's steps: the two words that the present one multiplies."""
        m.submodules.argument = argument = GemmlowpArgument()
        m.d.comb += [
            argument.raw.eq(value),
            argument.integer_bits.eq(Mux(is_sigmoid, 3, integer_bits + 1)),
        ]
        left = Signal(signed(16), reset_less=True)
        right = Signal(signed(16), reset_less=True)
        # The raw makes room for a word of the last steps; its sign and whether it is 0 stay.
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
    """What an activation has the shared multiplier, shifter and adder do."""

    factor: Value
    word: Value
    first: Value
    """What the product is added to, signed."""
    negative: Value
    """Whether the finished product is subtracted."""
    shift: Callable[[Value], Value]
    start: Callable[[Value], Value]
    word_of: Callable[[str | int], Value] = lambda name: Const(0, 1)
    registers: dict[str, Signal] = field(default_factory=dict)


def _any_of(position: Value, chosen: Callable[[Operation], bool], after: int = 0) -> Value:
    """Whether the program is at a chosen operation, or ``after`` ones behind it."""
    places = [(index + after) % len(PROGRAM) for index, op in enumerate(PROGRAM) if chosen(op)]
    return position.matches(*places)
