"""Core of the float accumulate units: products and a start value, aligned, added, rounded once.

A unit or a neuron computes the products and passes them to the core as `Term`::

    core = FloatSum(accumulator=BINARY16, products=4, product_width=7, exponents=range(1, 39),
                    offset=6, window=12, stages=2)
    pipeline = Pipeline(m, i.valid)
    result = core.add(m, pipeline, terms, start)       # `start` a View of the accumulator's format
    pipeline.connect(i.ready, o.valid, o.ready)

``offset`` is a constant, which needs no gates, or the range of a value in every beat:
``FloatSum(..., offset=range(32))`` and ``core.add(m, pipeline, terms, start, offset)``.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data

from fewbit.golden.checks import check_choice
from fewbit.golden.formats import Minifloat
from fewbit.hdl.alignment import largest, normalize, normalize_by_count, shift_down, shift_up
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.adders import add_words
from fewbit.hdl.sums.columns import Columns

__all__ = ["MOST_STAGES", "FloatSum", "Objective", "Term"]

Objective = Literal["area", "delay"]
"""The quantity that the circuit minimises: its area, or the product of area and delay."""
MOST_STAGES = 5


class Term(NamedTuple):
    """A term of the sum: (-1)**sign * magnitude * 2**exponent, in units that the offset defines."""

    magnitude: Value
    """An unsigned number of the core's ``product_width`` bits."""
    exponent: Value
    """An unsigned number, which can set the top of the window even if the magnitude is zero."""
    sign: Value


class _Normal(NamedTuple):
    """A sum with its leading one on top, before rounding."""

    normal_sum: Value
    """The sum, or its ones' complement if negative; unless subnormal, its leading one is on top."""
    normal_exponent: Value
    normal_nonzero: Value
    normal_negative: Value
    normal_sign: Value
    """The sign of the start value, to which all signs are relative."""


class FloatSum:
    """A sum of a start value and products, rounded once to the nearest, ties to even.

    Bit for bit :func:`fewbit.golden.accumulate.float_sum.round_sum` over the products, each a field
    of ``product_width`` bits, and the start value, a field of its significand's width. The latency
    is ``stages`` cycles.

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
        Range of the exponents of terms that are not zero; a term of value zero may have any
        exponent from 0 to the end of this range.
    offset
        Number that makes exponents comparable: a start value with exponent code E has the same top
        as a term with the exponent max(E, 1) + offset. If exponent 0 of a term stands for 2**-b,
        the offset is b + 1 - product_width - accumulator.bias. It is a whole number of either sign,
        or the range, from 0, of a value that `add` receives.
    window
        Bits below the top of the highest field that count; None for all, so for an exact sum.
    stages
        Number of register stages. 1: the result; 2: also the sum before normalisation, which needs
        the fewest registers; 3: also the terms before alignment; 4: also the normalised sum before
        rounding; 5: also the aligned fields.
    structure
        Structure of the addition: "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    objective
        "area" normalises power of two by power of two, "delay" counts zeros first.
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
        check_choice("objective", objective, get_args(Objective))
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
        # The largest exponent code of a start value, whose top exponent is one more octave.
        self._largest_code = 2**accumulator.exponent_bits - 1
        # A sum of n + 1 fields has so many bits more than one field.
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
        """Return the code of the result, which follows after ``stages`` registers.

        Parameters
        ----------
        terms
            The products, as many as ``products``.
        start
            A code of the accumulator's format, with fields mantissa, exponent and sign.
        offset
            The offset of this beat, if the core's ``offset`` is a range.
        """
        if len(terms) != self.products:
            raise ValueError(f"The core adds {self.products} products, not {len(terms)}.")
        if isinstance(self.offset, range) != (offset is not None):
            raise ValueError("A core takes an offset a beat if and only if its offset is a range.")
        signs: list[Value] = []
        for index, term in enumerate(terms):
            sign = Signal(name=f"sign_{index}")
            # All signs are relative to the start value's. So one field is never negative, and the
            # sum has a free place for the carry of each other field's two's complement.
            m.d.comb += sign.eq(term.sign ^ start.sign)
            signs.append(sign)
        subnormal = Signal(name="start_subnormal")
        significand = Signal(self._significand_width, name="start")
        exponent = Signal(self.accumulator.exponent_bits, name="start_exponent")
        m.d.comb += [
            subnormal.eq(~start.exponent.any()),
            significand.eq(Cat(start.mantissa, ~subnormal)),
            # Exponent code 0 means 1.
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
        """Return the sum of all operands, cut to the window below the largest, with room and sign.

        With one product the exact sum is computed here, too, with a window of a product's width, a
        significand's width and two bits. Below that window only one thing matters of the lower
        field: whether it is zero. For the higher field, unless it is zero, puts the result's last
        place above the window's last two bits. A start value of zero has the smallest exponent of
        all results; a product of zero is made the lowest field.

        The room is the exponent of the sum's highest bit, less one; the sign is the start value's.
        """
        exact = self.window is None
        window = self.window or self.product_width + self._significand_width + 2
        # Exponents of field tops in common units; the constant goes where it keeps all positive.
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
        """Return the exact sum of all operands in one fixed-point field, with room and sign."""
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
            # No bit is lower than the place that the smallest exponent gives it.
            field = shift_up(m, operand, exponent, width - place + smallest, f"aligned_{index}")
            fields.append(Cat(Const(0, place), field[smallest:]))
        if self.stages >= 5:
            fields, offsets, signs, sign = self._stage(
                pipeline, fields, offsets, signs, sign, "aligned"
            )
        # The leading one of the smallest normal number is the lowest leading one.
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
        """Return operands, exponents, signs and start sign after a stage of registers."""
        *staged, staged_signs, staged_sign = pipeline.register(
            **{f"{name}_operand_{k}": operand for k, operand in enumerate(operands)},
            **{f"{name}_exponent_{k}": exponent for k, exponent in enumerate(exponents)},
            **{f"{name}_signs": Cat(signs), f"{name}_start_sign": sign},
        )
        count = len(operands)
        return list(staged[:count]), list(staged[count:]), list(staged_signs), staged_sign

    def _sum(self, m: Module, fields: Sequence[Value], signs: Sequence[Value]) -> Signal:
        """Return the two's-complement sum of fields; all but the last one have a sign."""
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
        """Return the same sum by full adders alone: smaller, but deeper.

        Synthesis would make a prefix adder of each addition, which is too large for this objective.
        """
        columns = Columns(m, width, "total")
        columns.add_word(fields[-1])
        for index, (field, sign) in enumerate(zip(fields, signs, strict=False)):
            row = wire(m, field ^ sign.replicate(len(field)), f"row_{index}")
            columns.add_word(row[1:], 1)
            # The lowest bit of the complement, and the 1 that turns the complement into -field.
            columns.add_pair(sign, field[0])
            columns.add_word(wire(m, ~sign, f"positive_{index}"), len(field))
            columns.add_constant(-1 << len(field))
        return columns.sum()

    def _normalize(self, m: Module, total: Value, room: Value, sign: Value) -> _Normal:
        """Return a two's-complement sum with its leading one on top.

        ``room`` is the exponent of the sum's highest bit, less one; ``sign`` is the start value's.
        """
        negative = Signal()
        ones = Signal(len(total) - 1)
        m.d.comb += [
            negative.eq(total[-1]),
            # For a negative sum this is its magnitude less one. Normalisation fills in ones from
            # below and rounding adds the missing one, so no second carry chain is needed.
            ones.eq(total[:-1] ^ negative.replicate(len(total) - 1)),
        ]
        by = normalize if self.objective == "area" else normalize_by_count
        shifted, exponent = by(m, ones, room, negative, "normal")
        nonzero = Signal()
        # The first shift of normalisation uses the same OR over the highest bits.
        first_step = 1 << ((len(ones) - 1).bit_length() - 1)
        m.d.comb += nonzero.eq(negative | ones[-first_step:].any() | ones[:-first_step].any())
        return _Normal(shifted, exponent, nonzero, negative, sign)

    def _round(self, m: Module, normal: _Normal) -> Value:
        """Return the code of a normalised sum."""
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
