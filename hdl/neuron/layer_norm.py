"""Layer normalisation of a gate in integers: its raws come twice, and leave normalised once.

One multiplier, one rounding shifter and one incrementer do everything, one product after the other.
Only the mean has a divider of its own, which takes a bit a cycle.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.checks import check_whole
from fewbit.hdl.arithmetic import rounding_shift_right, saturate, wire
from fewbit.hdl.sums.addends import Addend, booth_addends, carry_save_sum

__all__ = ["MOST_UNITS", "LayerNorm"]

MOST_UNITS = 4096

ONE = 1 << 28
"""The number 1 in the words of the Newton iterations."""
NEWTON_STEPS = 5
HALF = 1 << 30
"""Half of a unit, to be added to a product of which only the upper word is used."""
HALF_OF_SQUARE_ROOT_OF_TWO = 1518500250
"""The number in units of 2^-31."""
MEAN_BITS = 26
"""Bits of the mean's magnitude in units of 2^-10, which is at most 2^25."""


class LayerNorm(wiring.Component):
    """The normalisation of one gate of `units` raws at a time, each of which comes twice.

    A gate is `units` beats with ``normalizes`` 0, of which only the value counts, for the
    statistics. Then the same values come in the same order with ``normalizes`` 1, and each gives a
    result. After them the next gate may follow. There must not be more than `units` beats of either
    kind.

    Cycles, with a chunk of 16 or 8: 1 or 2 for each beat of statistics; then, from the first beat
    to normalise on, 88 + 2 * K or 120 + 2 * K plus R until it is at work, with K = ceil((32 +
    ceil(log2(units))) / chunk), and R one for each power of four that takes the variance to 2^29
    or more, at most 14, plus 1 for a variance below 32 and 2 for one below 8; then 10 or 17 a
    result, and as many more as the shift is above 0. A gate that follows another takes one more.
    A variance of 1 needs no root: 44 + 2 * K cycles.
    For 20 units and a variance of 2^20 that is 20 + 99 + 200 or 40 + 135 + 340.

    Bit for bit :func:`fewbit.golden.lstm.layer_norm.layer_norm` with double rounding.

    Parameters
    ----------
    units
        Number of raws in a gate, from 1 to 4096.
    chunk
        Bits of the second factor that the multiplier takes a cycle: 8 or 16. The first has 32.

    Ports
    -----
    i
        A raw: ``value``; ``normalizes``; and its ``gain`` and ``bias``, which count with
        ``normalizes`` only.
    o
        The normalised raw, in Q3.12.
    guard
        The variance that replaces one below 1, from 1 to 2^31 - 1. This port and the next two must
        hold still from a gate's first beat until its last result is taken.
    multiplier
        The upper 24 bits of the split multiplier from the gain's resolution to 2^-12.
    shift
        The shift of that multiplier, from -31 to 30.
    """

    def __init__(self, units: int, chunk: int = 16) -> None:
        units = check_whole("units", units, 1, MOST_UNITS)
        if chunk not in (8, 16):
            raise ValueError(f"chunk must be 8 or 16, not {chunk}.")
        self.units = units
        self.chunk = chunk
        beat = {"value": signed(16), "gain": signed(16), "bias": signed(32), "normalizes": 1}
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(beat))),
                "o": Out(stream.Signature(data.StructLayout({"value": signed(16)}))),
                "guard": In(31),
                "multiplier": In(24),
                "shift": In(signed(6)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chunk = self.chunk
        beat = self.i.payload
        # The sum of n raws has L bits more than a raw, and the sum of n squares L more than a
        # square, where L is log2(n), rounded up.
        sum_growth = (self.units - 1).bit_length()
        square_bits = 31 + sum_growth
        word_steps = 32 // chunk
        square_steps = -(-(square_bits + 1) // chunk)
        steps = max(word_steps, square_steps)

        # Control: the step of a product; whether its second pair of factors is being multiplied;
        # whether the product is complete; whether the next beat is the first of a gate; and the
        # rounds that a loop has left.
        step = Signal(range(steps))
        second = Signal()
        finishes = Signal()
        fresh = Signal(init=1)
        count = Signal(5, reset_less=True)

        # The sum of the raws, above 10 places of fraction. The division turns it into the mean.
        mean = Signal(MEAN_BITS + sum_growth, reset_less=True)
        mean_is_negative = Signal(reset_less=True)
        # The sum of the squares, later the variance.
        squares = Signal(square_bits, reset_less=True)
        variance = squares[:31]
        # The inverse square root, in the end as a split multiplier.
        root = Signal(31, reset_less=True)
        root_shift = Signal(signed(5), reset_less=True)
        value = Signal(signed(32), reset_less=True)

        # The step that the present state asks for: of multiplicand * word, or with a second pair of
        # factors, of the difference of two such products.
        multiplicand = Signal(signed(32))
        word = Signal(steps * chunk)
        below_word = Signal()
        runs = Signal()
        is_last_step = Signal()
        has_second = Signal()
        negates = Signal()
        start = Signal(signed(chunk + 32))
        holds = Signal()
        adds_bias = Signal()

        # Multiplication: 32 bits by a chunk, low chunks first, in Booth's digits. These overlap by
        # a bit, so that after each chunk the sum is the product with the signed low part so far.
        # The widest sum is either that of all squares, or that of a deviation: two products of less
        # than 2^31 * 2^(chunk - 1), where the raw's stays below by as much as the half adds.
        width = max(32 + chunk, square_bits + 1)
        product = Signal(signed(width), reset_less=True)
        digits = Signal(signed(chunk))
        below = Signal()
        with m.Switch(step):
            for index in range(steps):
                low = index * chunk
                with m.Case(index):
                    m.d.comb += digits.eq(word[low : low + chunk] ^ negates.replicate(chunk))
                    m.d.comb += below.eq((word[low - 1] if index else below_word) ^ negates)
        rows, constant = booth_addends(m, multiplicand, digits, below, "digit")
        completes = wire(m, is_last_step & (second | ~has_second), "completes")
        addend = Signal(signed(width))
        with m.If(holds | second):
            m.d.comb += addend.eq(product)
        with m.Elif(step == 0):
            m.d.comb += addend.eq(start)
        with m.Else():
            m.d.comb += addend.eq(product[chunk:].as_signed())
        total = carry_save_sum(m, [*rows, Addend(addend)], width, "total", constant)
        # The bits that the steps shift out, as far as the variance, or the rounding of a product by
        # a gain, needs them.
        lost = (square_steps - 1) * chunk
        low_width = max(lost - 20, 8 if chunk == 8 else 0)
        low_places = Signal(low_width, reset_less=True)
        with m.If(runs):
            m.d.sync += product.eq(total)
            with m.If(~holds & ~second):
                m.d.sync += low_places.eq(Cat(low_places, product[:chunk])[chunk:])
            with m.If(has_second & ~second):
                m.d.sync += second.eq(1)
            with m.Else():
                m.d.sync += [second.eq(0), step.eq(Mux(is_last_step, 0, step + 1))]

        # A product is finished by a rounded shift of its upper word, or by rounding ten places off.
        distance = Signal(5)
        shifted = rounding_shift_right(
            m, product[chunk - 1 : chunk + 31].as_signed(), distance, 32, "shifted"
        )
        scaled = product if chunk == 16 else Cat(low_places[-8:], product)
        tie_goes_down = wire(m, product[-1] & ~scaled[:9].any(), "tie_goes_down")
        quotient = wire(m, Mux(adds_bias, scaled[10:42].as_signed(), shifted.quotient), "quotient")
        round_up = wire(m, Mux(adds_bias, scaled[9] & ~tie_goes_down, shifted.round_up), "round_up")
        result = wire(m, quotient + Cat(round_up, Const(0, 1)).as_signed(), "result")
        m.d.comb += self.o.payload.value.eq(saturate(m, result, 16, "normalised"))

        # One adder sums up the raws, and later negates the sum to its magnitude.
        total_so_far = mean[MEAN_BITS - 16 :]
        takes_magnitude = Signal()
        is_negative = wire(m, total_so_far[-1], "is_negative")
        base = Signal.like(total_so_far)
        more = Signal(signed(16))
        with m.If(takes_magnitude):
            m.d.comb += [
                base.eq(total_so_far ^ is_negative.replicate(len(base))),
                more.eq(is_negative),
            ]
        with m.Else():
            m.d.comb += [base.eq(Mux(fresh, 0, total_so_far)), more.eq(beat.value)]
        next_sum = wire(m, (base + more)[: len(base)], "next_sum")

        # Division: a bit of the quotient a cycle, which moves into the register of the dividend.
        remainder = wire(m, mean[MEAN_BITS - 1 :], "remainder")
        reaches = wire(m, remainder >= self.units, "reaches")
        left_over = wire(m, Mux(reaches, remainder - self.units, remainder)[:sum_growth], "left")

        def multiply(
            first: Value,
            by: Value,
            when: Value | int = 1,
            *,
            count_of_steps: int = word_steps,
            first_sum: Value | int = HALF,
        ) -> None:
            """Set the inputs of the multiplier for a product, and count its steps."""
            m.d.comb += [
                multiplicand.eq(first),
                word.eq(by),
                runs.eq(Value.cast(when) & ~finishes),
                is_last_step.eq(step == count_of_steps - 1),
                start.eq(first_sum),
            ]

        m.d.sync += finishes.eq((runs & completes) | (self.o.valid & ~self.o.ready))
        with m.FSM(name="state"):
            with m.State("ACCUMULATE"):
                counts = wire(m, self.i.valid & ~beat.normalizes, "counts")
                multiply(
                    Mux(step == 0, beat.value, beat.value << 8) if chunk == 8 else beat.value,
                    beat.value,
                    counts,
                    count_of_steps=16 // chunk,
                    first_sum=0,
                )
                m.d.comb += [
                    holds.eq(~fresh | (step != 0)),
                    self.i.ready.eq(~beat.normalizes & is_last_step),
                ]
                # The products go on into one sum, and are not finished one by one.
                m.d.sync += finishes.eq(0)
                with m.If(counts & is_last_step):
                    m.d.sync += [mean.eq(Cat(Const(0, MEAN_BITS - 16), next_sum)), fresh.eq(0)]
                with m.If(self.i.valid & beat.normalizes):
                    m.next = "MAGNITUDE"
            with m.State("MAGNITUDE"):
                m.d.comb += takes_magnitude.eq(1)
                m.d.sync += [
                    mean.eq(Cat(Const(0, MEAN_BITS - 16), next_sum)),
                    mean_is_negative.eq(is_negative),
                    squares.eq(product),
                    count.eq(MEAN_BITS - 1),
                    fresh.eq(1),
                ]
                m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.sync += [
                    mean.eq(Cat(reaches, mean[: MEAN_BITS - 1], left_over)),
                    count.eq(count - 1),
                ]
                with m.If(count == 0):
                    m.next = "VARIANCE"
            with m.State("VARIANCE"):
                multiply(
                    Mux(second, mean[:MEAN_BITS], (1 << 20) // self.units),
                    Mux(second, mean[:MEAN_BITS], squares),
                    count_of_steps=square_steps,
                    first_sum=0,
                )
                m.d.comb += [has_second.eq(1), negates.eq(second)]
                floor = Cat(low_places, product)[20 - (lost - low_width) :][:30]
                with m.If(finishes):
                    m.d.sync += [
                        variance.eq(Mux(product[-1] | ~floor.any(), self.guard, floor)),
                        root_shift.eq(12),
                    ]
                    m.next = "NORMALISE"
            with m.State("NORMALISE"):
                # Multiplied by a power of four, the variance is from 2^29 to 2^31. A variance of 1,
                # which would take one power more, needs no root.
                m.d.sync += [root.eq(ONE), count.eq(NEWTON_STEPS - 1)]
                with m.If(variance[29:].any()):
                    m.next = "SQUARE"
                with m.Elif(root_shift == -2):
                    m.d.sync += [root.eq((1 << 31) - 1), root_shift.eq(0)]
                    m.next = "DEVIATION"
                with m.Else():
                    m.d.sync += [variance.eq(variance << 2), root_shift.eq(root_shift - 1)]
            # Newton's iteration for x = 1 / sqrt(w) is (3x - w * x^3) / 2. For no variance does x
            # reach 2^29, or its cube 2^31, so that nothing saturates.
            with m.State("SQUARE"):
                multiply(root, root)
                with m.If(finishes):
                    m.d.sync += value.eq(result)
                    m.next = "CUBE"
            with m.State("CUBE"):
                multiply(value, root)
                with m.If(finishes):
                    m.d.sync += value.eq(result[:25] << 6)
                    m.next = "WEIGH"
            with m.State("WEIGH"):
                # The factor is half of the variance, rounded up, since Booth's digits count the bit
                # below as one. The product is negated, so that ties go down.
                multiply(value, variance[4:], first_sum=HALF - 1)
                m.d.comb += [below_word.eq(variance[3]), negates.eq(1)]
                with m.If(finishes):
                    m.d.sync += value.eq(result)
                    m.next = "CORRECT"
            with m.State("CORRECT"):
                # (3x + 8) / 16 minus the result of WEIGH, all in units of 2^(1 - chunk).
                rounding = Const(1 << (chunk - 2), chunk - 1)
                multiply(
                    root,
                    Const(3 << (chunk - 5)),
                    count_of_steps=1,
                    first_sum=Cat(rounding, value[:28]).as_signed(),
                )
                with m.If(finishes):
                    m.d.sync += [root.eq(result[:26] << 3), count.eq(count - 1)]
                    m.next = "SQUARE"
                    with m.If(count == 0):
                        m.next = "SCALE"
            with m.State("SCALE"):
                multiply(root, Const(HALF_OF_SQUARE_ROOT_OF_TWO))
                with m.If(finishes):
                    m.d.sync += root.eq(result[:29])
                    m.next = "DEVIATION"
            with m.State("DEVIATION"):
                # The root times 1024 times the raw, minus the root times the mean.
                starts = wire(m, self.i.valid & beat.normalizes & ~root_shift[-1], "starts")
                multiply(root, Mux(second, mean[:MEAN_BITS], beat.value << 10), starts)
                m.d.comb += [
                    has_second.eq(1),
                    negates.eq(second & ~mean_is_negative),
                    distance.eq(root_shift[:4]),
                ]
                with m.If(root_shift[-1]):
                    m.d.sync += [root.eq(root << 1), root_shift.eq(root_shift + 1)]
                with m.If(finishes):
                    m.d.sync += value.eq(result)
                    m.next = "GAIN"
                with m.Elif(self.i.valid & ~beat.normalizes):
                    m.next = "ACCUMULATE"
            with m.State("GAIN"):
                multiply(value, beat.gain, count_of_steps=16 // chunk, first_sum=beat.bias)
                m.d.comb += [
                    adds_bias.eq(1),
                    self.i.ready.eq(runs & is_last_step),
                ]
                with m.If(finishes):
                    # A left shift comes before the multiplication, as it wraps, and takes a cycle a
                    # bit.
                    m.d.sync += [value.eq(result), count.eq(Mux(self.shift[-1], 0, self.shift))]
                    m.next = "REQUANTISE"
            with m.State("REQUANTISE"):
                is_shifted = wire(m, ~count.any(), "is_shifted")
                multiply(value, Cat(Const(0, 7), self.multiplier), is_shifted)
                m.d.comb += [
                    distance.eq(Mux(self.shift[-1], (-self.shift)[:5], 0)),
                    self.o.valid.eq(finishes),
                ]
                with m.If(~is_shifted):
                    m.d.sync += [value.eq(value << 1), count.eq(count - 1)]
                with m.If(finishes & self.o.ready):
                    m.next = "DEVIATION"
        return m
