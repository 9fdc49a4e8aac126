"""Core of the float accumulate units: products and a start value, aligned, added, rounded once.

A unit, or a neuron that feeds the core otherwise, makes the products and gives them as `Term`::

    core = FloatSum(accumulator=BINARY16, products=4, product_width=7, exponents=range(1, 39),
                    offset=6, window=12, stages=2)
    pipeline = Pipeline(m, i.valid)
    result = core.add(m, pipeline, terms, start)       # `start` a View of the accumulator's format
    pipeline.connect(i.ready, o.valid, o.ready)

``offset`` is a constant, which costs nothing, or the range of a value that comes with every beat:
``FloatSum(..., offset=range(32))`` and ``core.add(m, pipeline, terms, start, offset)``.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data

from fewbit.golden.formats import Minifloat
from fewbit.hdl.alignment import largest, normalize, normalize_by_count, shift_down, shift_up
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.adders import add_words
from fewbit.hdl.sums.columns import Columns

__all__ = ["MOST_STAGES", "FloatSum", "Objective", "Term"]

Objective = Literal["area", "delay"]
"""What the circuit is small in: its area, or the product of area and delay."""
MOST_STAGES = 5


class Term(NamedTuple):
    """A product: (-1)**sign * magnitude * 2**exponent, in units that the core's offset tells."""

    magnitude: Value
    """Unsigned, of the core's ``product_width``."""
    exponent: Value
    """Unsigned. It decides where the window lies even if the magnitude is zero."""
    sign: Value


class _Normal(NamedTuple):
    """A sum before rounding."""

    normal_sum: Value
    """Its ones' complement where it is negative, leading one on top unless it is subnormal."""
    normal_exponent: Value
    normal_nonzero: Value
    normal_negative: Value
    normal_sign: Value
    """Of the start value, to which all signs are relative."""


class FloatSum:
    """accumulator format(start + sum of products), rounded once: nearest, ties to even.

    Bit for bit :func:`fewbit.golden.accumulate.float_sum.round_sum` over the products, fields of
    ``product_width`` bits, and the start value, a field of its significand's width. Latency:
    ``stages`` cycles.

    Parameters
    ----------
    accumulator
        Format of the start value and of the result. Its top exponent is one more octave in the
        start value; results saturate below it.
    products
        Number of terms, at least 1.
    product_width
        Bits of a term's magnitude.
    exponents
        Exponents of terms whose magnitude isn't zero; those of others start from 0.
    offset
        What is added to the exponent code E of the start value to compare it with those of terms:
        with fields of equal tops, max(E, 1) + offset is a term's exponent. The unit of a term,
        where exponent 0 stands for 2**-b, gives offset = b + 1 - product_width - accumulator.bias.
        A whole number of either sign, or the range, from 0, of a value that `add` is given.
    window
        Bits that are kept below the top of the highest field; None keeps all, an exact sum.
    stages
        Register stages: 1 the result; 2 also the sum before normalisation, the narrowest cut;
        3 also the terms before alignment; 4 also the normalised sum before rounding; 5 also the
        aligned fields.
    structure
        How the terms are added: "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`.
    objective
        "area" normalises step by step, "delay" by a count of zeros.
    """

    def __init__(
        self,
        *,
        accumulator: Minifloat,
        products: int,
        product_width: int,
        exponents: range,
        offset: int | range,
        window: int | None,
        stages: int,
        structure: Structure = "gates",
        objective: Objective = "area",
    ) -> None:
        if stages not in range(1, MOST_STAGES + 1):
            raise ValueError(f"stages must be from 1 to {MOST_STAGES}, not {stages}.")
        check_structure(structure)
        if objective not in get_args(Objective):
            raise ValueError(f'objective must be "area" or "delay", not {objective!r}.')
        self.accumulator = accumulator
        self.products = products
        self.product_width = product_width
        self.exponents = exponents
        self.offset = offset
        self.window = window
        self.stages = stages
        self.structure: Structure = structure
        self.objective: Objective = objective
        self._significand_width = accumulator.mantissa_bits + 1
        # The most that a start value's exponent code can be, as it is read.
        self._largest_code = 2**accumulator.exponent_bits - 1
        # Sums of n + 1 fields have so many bits more than one.
        self._growth = products.bit_length()
        offsets = offset if isinstance(offset, range) else (offset,)
        self._fewest, self._most = offsets[0], offsets[-1]

    def add(
        self,
        m: Module,
        pipeline: Pipeline,
        terms: Sequence[Term],
        start: data.View,
        offset: ValueLike | None = None,
    ) -> Value:
        """Code of the result, after ``stages`` registers.

        Parameters
        ----------
        terms
            As many as ``products``.
        start
            A code of the accumulator's format, with fields mantissa, exponent and sign.
        offset
            Value in the range of ``offset``, where that is a range.
        """
        if len(terms) != self.products:
            raise ValueError(f"The core adds {self.products} products, not {len(terms)}.")
        if isinstance(self.offset, range) != (offset is not None):
            raise ValueError("A core takes an offset a beat if and only if its offset is a range.")
        signs: list[Value] = []
        for index, term in enumerate(terms):
            sign = Signal(name=f"sign_{index}")
            # All signs are relative to the start's, so that one field is never negative and the
            # carries of the others' two's complements have free places in the sum.
            m.d.comb += sign.eq(term.sign ^ start.sign)
            signs.append(sign)
        subnormal = Signal(name="start_subnormal")
        significand = Signal(self._significand_width, name="start")
        exponent = Signal(self.accumulator.exponent_bits, name="start_exponent")
        m.d.comb += [
            subnormal.eq(~start.exponent.any()),
            significand.eq(Cat(start.mantissa, ~subnormal)),
            # Exponent code 0 counts as 1.
            exponent.eq(start.exponent | subnormal),
        ]
        operands = [*(term.magnitude for term in terms), significand]
        exponents = [*(term.exponent for term in terms), exponent]
        offsets = [] if offset is None else [Value.cast(offset)]
        inputs = operands, exponents, offsets, signs, start.sign
        if self.window is None and self.products > 1:
            total, room, sign = self._align_exactly(m, pipeline, *inputs)
        else:
            total, room, sign = self._align_to_window(m, pipeline, *inputs)
        if self.stages >= 2:
            total, room, sign = pipeline.register(
                staged_total=total, staged_room=room, staged_sign=sign
            )
        normal = self._normalize(m, total, room, sign)
        if self.stages >= 4:
            normal = _Normal(*pipeline.register(**normal._asdict()))
        (result,) = pipeline.register(result_code=self._round(m, normal))
        return result

    def _align_to_window(
        self,
        m: Module,
        pipeline: Pipeline,
        operands: Sequence[Value],
        exponents: Sequence[Value],
        offsets: Sequence[Value],
        signs: Sequence[Value],
        sign: Value,
    ) -> tuple[Value, Value, Value]:
        """Sum of all operands, cut to the window below the largest; room; the start's sign.

        With one product the exact sum goes this way, too. Below a window of a product's width, a
        significand's and two bits, the lower of the two fields only tells whether it is zero: the
        higher one, unless it is zero, leaves the result's last place above the window's last two
        bits. A zero start value has the smallest exponent of all results; a zero product is made
        the lowest field.
        """
        exact = self.window is None
        window = self.window or self.product_width + self._significand_width + 2
        # Exponents of field tops, in common units; a constant goes where it keeps them positive.
        product_offset = max(-self._fewest, 0)
        start_offset: ValueLike = offsets[0] if offsets else max(self._fewest, 0)
        limit = product_offset + max(self.exponents[-1], self._largest_code + self._most)
        width = limit.bit_length()
        tops: list[Value] = []
        for index, exponent in enumerate(exponents):
            top = Signal(width, name=f"top_{index}")
            m.d.comb += top.eq(
                exponent + (product_offset if index < self.products else start_offset)
            )
            tops.append(top)
        if exact:
            nonzero = Signal(width, name="top_of_nonzero")
            m.d.comb += nonzero.eq(tops[0] & operands[0].any().replicate(width))
            tops[0] = nonzero
        highest: Value = largest(m, tops, "highest")
        if self.stages >= 3:
            operands, staged, signs, sign = self._stage(
                pipeline, operands, [*tops, highest, *offsets], signs, sign
            )
            tops, highest, offsets = staged[: len(tops)], staged[len(tops)], staged[len(tops) + 1 :]
        fields: list[Value] = []
        for index, (operand, top) in enumerate(zip(operands, tops, strict=True)):
            distance = Signal(width, name=f"distance_{index}")
            m.d.comb += distance.eq(highest - top)
            fields.append(
                shift_down(m, operand, distance, window, f"aligned_{index}", sticky=exact)
            )
        if self.stages >= 5:
            fields, (highest, *offsets), signs, sign = self._stage(
                pipeline, fields, [highest, *offsets], signs, sign, "aligned"
            )
        # The exponent of a result whose leading one is the sum's highest bit, less one. It is at
        # least the start's own, so never negative.
        spare = self._growth - 1
        room = Signal(range(limit - max(self._fewest, 0) + spare + 1))
        if offsets:
            m.d.comb += room.eq(highest - offsets[0] + spare)
        else:
            m.d.comb += room.eq(highest - (max(self._fewest, 0) - spare))
        return self._sum(m, fields, signs), room, sign

    def _align_exactly(
        self,
        m: Module,
        pipeline: Pipeline,
        operands: Sequence[Value],
        exponents: Sequence[Value],
        offsets: Sequence[Value],
        signs: Sequence[Value],
        sign: Value,
    ) -> tuple[Value, Value, Value]:
        """Exact sum of all operands in one fixed-point field; room; the start's sign."""
        if offsets:
            raised = Signal(range(self._largest_code + self._most + 1), name="raised")
            m.d.comb += raised.eq(exponents[-1] + offsets[0])
            exponents = [*exponents[:-1], raised]
        if self.stages >= 3:
            operands, staged, signs, sign = self._stage(
                pipeline, operands, [*exponents, *offsets], signs, sign
            )
            exponents, offsets = staged[: len(operands)], staged[len(operands) :]
        # Places of lowest bits, in units of a term whose exponent is 0.
        constant = 0 if offsets else self._fewest
        start_place = self.product_width - self._significand_width + constant
        first, start_first = self.exponents[0], 1 + self._fewest - constant
        lowest = min(first, start_place + start_first)
        highest = max(self.exponents[-1], self._largest_code + self._most) + self.product_width
        width = highest - lowest
        places = [first - lowest] * self.products + [start_place + start_first - lowest]
        firsts = [first] * self.products + [start_first]
        fields: list[Value] = []
        for index, (operand, exponent, place, smallest) in enumerate(
            zip(operands, exponents, places, firsts, strict=True)
        ):
            # No bit falls lower than the smallest exponent puts it.
            field = shift_up(m, operand, exponent, width - place + smallest, f"aligned_{index}")
            fields.append(Cat(Const(0, place), field[smallest:]))
        if self.stages >= 5:
            fields, offsets, signs, sign = self._stage(
                pipeline, fields, offsets, signs, sign, "aligned"
            )
        # The smallest normal number is the lowest place of a leading one.
        most_room = width + self._growth - 1 - (constant + self.product_width - lowest)
        room = Const(most_room) if not offsets else Signal(range(most_room + 1))
        if offsets:
            m.d.comb += room.eq(most_room - offsets[0])
        return self._sum(m, fields, signs), room, sign

    @staticmethod
    def _stage(
        pipeline: Pipeline,
        operands: Sequence[Value],
        exponents: Sequence[Value],
        signs: Sequence[Value],
        sign: Value,
        name: str = "staged",
    ) -> tuple[list[Value], list[Value], list[Value], Value]:
        """Registers for all that is given, in the same order."""
        *staged, staged_signs, staged_sign = pipeline.register(
            **{f"{name}_operand_{k}": operand for k, operand in enumerate(operands)},
            **{f"{name}_exponent_{k}": exponent for k, exponent in enumerate(exponents)},
            **{f"{name}_signs": Cat(signs), f"{name}_start_sign": sign},
        )
        count = len(operands)
        return list(staged[:count]), list(staged[count:]), list(staged_signs), staged_sign

    def _sum(self, m: Module, fields: Sequence[Value], signs: Sequence[Value]) -> Signal:
        """Two's-complement sum of fields, all but the last one with a sign."""
        width = len(fields[0])
        total_width = width + self._growth + 1
        if self.structure == "gates" and self.objective == "area":
            return self._sum_by_columns(m, fields, signs, total_width)
        rows: list[ValueLike] = []
        for index, (field, sign) in enumerate(zip(fields, signs, strict=False)):
            row = Signal(total_width, name=f"row_{index}")
            # -sign * 2**width, the sign extension, is (1 - sign) * 2**width less a constant, which
            # all rows share.
            m.d.comb += row.eq(Cat(field ^ sign.replicate(width), ~sign))
            rows.append(row)
        constant = -self.products % 2 ** (self._growth + 1)
        rows.append(Cat(fields[-1], Const(constant, self._growth + 1)))
        return add_words(m, rows, signs, "total", self.structure)

    @staticmethod
    def _sum_by_columns(
        m: Module, fields: Sequence[Value], signs: Sequence[Value], width: int
    ) -> Signal:
        """The same sum by full adders alone: smaller, and deeper where gates are chosen for depth.

        Synthesis makes a prefix adder of each addition, which none of the areas here asks for.
        """
        columns = Columns(m, width, "total")
        columns.add_word(fields[-1])
        for index, (field, sign) in enumerate(zip(fields, signs, strict=False)):
            row = wire(m, field ^ sign.replicate(len(field)), f"row_{index}")
            columns.add_word(row[1:], 1)
            # The complement's lowest bit, and the one that makes it the negative.
            columns.add_pair(sign, field[0])
            columns.add_word(wire(m, ~sign, f"positive_{index}"), len(field))
            columns.add_constant(-1 << len(field))
        return columns.sum()

    def _normalize(self, m: Module, total: Value, room: Value, sign: Value) -> _Normal:
        """A two's-complement sum with its leading one on top.

        ``room`` is the exponent at the sum's highest bit, less one, and ``sign`` the start's.
        """
        negative = Signal()
        ones = Signal(len(total) - 1)
        m.d.comb += [
            negative.eq(total[-1]),
            # One less than the magnitude of a negative sum; the missing one is filled in from
            # below while normalising, and counted in rounding: no second carry chain.
            ones.eq(total[:-1] ^ negative.replicate(len(total) - 1)),
        ]
        by = normalize if self.objective == "area" else normalize_by_count
        shifted, exponent = by(m, ones, room, negative, "normal")
        nonzero = Signal()
        # The same OR over the highest bits serves the first step of normalising.
        first_step = 1 << ((len(ones) - 1).bit_length() - 1)
        m.d.comb += nonzero.eq(negative | ones[-first_step:].any() | ones[:-first_step].any())
        return _Normal(shifted, exponent, nonzero, negative, sign)

    def _round(self, m: Module, normal: _Normal) -> Value:
        """Code of a normalised sum."""
        shifted, exponent, nonzero, negative, sign = normal
        kept = self._significand_width
        padded = Cat(negative.replicate(max(kept + 1 - len(shifted), 0)), shifted)
        significand = padded[-kept:]
        guard = padded[-kept - 1]
        below = padded[: -kept - 1]
        odd = significand[0]
        increment = Signal()
        m.d.comb += increment.eq(
            Mux(negative, guard | (below.all() & odd), guard & (below.any() | odd))
        )
        # The significand's hidden bit adds 1 to the exponent of a normal number, and a carry out
        # of the significand another.
        low = self.accumulator.mantissa_bits
        high = low + self.accumulator.exponent_bits
        code = Signal(len(exponent) + low + 1)
        m.d.comb += code.eq(
            Cat(Const(0, low), exponent & nonzero.replicate(len(exponent)))
            + significand
            + increment
        )
        overflow = Signal()
        m.d.comb += overflow.eq(code[high:].any() | code[low:high].all())
        return Cat(
            code[:low] | overflow.replicate(low),
            code[low] & ~overflow,
            code[low + 1 : high] | overflow.replicate(high - low - 1),
            (negative ^ sign) & nonzero,
        )
