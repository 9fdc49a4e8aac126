"""FloatSD8 multiply-accumulate unit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.accumulate.floatsd8_mac import FloatSD8Mac as Contract
from hdl.adders import add_rows, add_with_carry
from hdl.alignment import largest, normalize, shift_down, shift_up
from hdl.formats import stream_of
from hdl.pipeline import Pipeline

__all__ = ["FloatSD8Mac"]

_PRODUCT_WIDTH = 7
_SIGNIFICAND_WIDTH = 11
_LARGEST_PRODUCT_EXPONENT = 7 + 31
_LARGEST_EXPONENT = 31


class FloatSD8Mac(wiring.Component):
    """binary16(accumulator + sum of weight * activation), rounded once, a beat a cycle.

    Latency: ``stages`` cycles. Bit for bit
    :meth:`golden.accumulate.floatsd8_mac.FloatSD8Mac.compute`.

    Parameters
    ----------
    products
        Products a beat.
    window
        Bits that are kept below the largest operand's top; None keeps all, an exact sum.
    activation_bias, weight_bias
        Exponent biases of the two formats.
    stages
        Register stages: 1 the result; 2 also the sum before normalisation, the narrowest cut;
        3 also the products before alignment.
    """

    def __init__(
        self,
        *,
        products: int = 4,
        window: int | None = 14,
        activation_bias: int = 15,
        weight_bias: int = 10,
        stages: int = 2,
    ) -> None:
        if stages not in (1, 2, 3):
            raise ValueError(f"stages must be 1, 2 or 3, not {stages}.")
        self.contract = Contract(products, window, activation_bias, weight_bias)
        self.products = products
        self.window = window
        self.activation_bias = activation_bias
        self.weight_bias = weight_bias
        self.stages = stages
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )

    @property
    def _bias(self) -> int:
        """What an exponent sum of a product holds too much: its ulp is 2**(sum - _bias)."""
        return self.weight_bias + self.activation_bias + 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.i.valid)
        beat = self.i.payload
        accumulator = beat.accumulator

        operands: list[Value] = []
        exponents: list[Value] = []
        signs: list[Value] = []
        for lane in range(self.products):
            product, exponent = self._multiply(m, beat.weights[lane], beat.activations[lane], lane)
            sign = Signal(name=f"sign_{lane}")
            # All signs are relative to the accumulator's, so that one operand is never negative
            # and the carries of the others' two's complements have free places in the sum.
            m.d.comb += sign.eq(
                beat.weights[lane].sign ^ beat.activations[lane].sign ^ accumulator.sign
            )
            operands.append(product)
            exponents.append(exponent)
            signs.append(sign)
        start_subnormal = Signal()
        start = Signal(_SIGNIFICAND_WIDTH)
        m.d.comb += [
            start_subnormal.eq(~accumulator.exponent.any()),
            start.eq(Cat(accumulator.mantissa, ~start_subnormal)),
        ]
        start_exponent = Signal(5)
        m.d.comb += start_exponent.eq(accumulator.exponent | start_subnormal)
        operands.append(start)
        exponents.append(start_exponent)

        inputs = operands, exponents, signs, accumulator.sign
        if self.window is None:
            total, room, result_sign = self._align_exactly(m, pipeline, *inputs)
        else:
            total, room, result_sign = self._align_to_window(m, pipeline, *inputs, self.window)
        if self.stages >= 2:
            total, room, result_sign = pipeline.register(
                staged_total=total, staged_room=room, staged_sign=result_sign
            )
        (result,) = pipeline.register(result_code=self._round(m, total, room, result_sign))
        m.d.comb += self.o.payload.eq(result)
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m

    def _multiply(
        self, m: Module, weight: data.View, activation: data.View, lane: int
    ) -> tuple[Signal, Signal]:
        """Magnitude of a product, and its exponent sum, biases left in."""
        mantissa = Signal(5, name=f"mantissa_{lane}")
        subnormal = Signal(name=f"subnormal_{lane}")
        significand = Signal(3, name=f"significand_{lane}")
        product = Signal(_PRODUCT_WIDTH, name=f"product_{lane}")
        m.d.comb += [
            mantissa.eq(Mux(weight.index >= 11, weight.index + 3, weight.index)),
            subnormal.eq(~activation.exponent.any()),
            significand.eq(Cat(activation.mantissa, ~subnormal)),
            product.eq(mantissa * significand),
        ]
        # Exponent 0 counts as 1: the subnormal flag is the adder's carry.
        exponent = add_with_carry(
            m,
            Cat(weight.exponent, Const(0, 3)),
            Cat(activation.exponent, Const(0, 1)),
            subnormal,
            f"exponent_{lane}",
        )
        return product, exponent

    def _align_to_window(
        self,
        m: Module,
        pipeline: Pipeline,
        operands: list[Value],
        exponents: list[Value],
        signs: list[Value],
        sign: Value,
        window: int,
    ) -> tuple[Value, Value, Value]:
        """Sum of all operands, cut to the window below the largest; room; the reference sign."""
        # Exponents of field tops, in common units; the constant goes where it keeps them positive.
        offset = self._bias - _PRODUCT_WIDTH - 25 + _SIGNIFICAND_WIDTH
        product_offset, start_offset = max(-offset, 0), max(offset, 0)
        limit = max(_LARGEST_PRODUCT_EXPONENT + product_offset, _LARGEST_EXPONENT + start_offset)
        width = limit.bit_length()
        offsets = [product_offset] * self.products + [start_offset]
        tops: list[Value] = []
        for index, (exponent, constant) in enumerate(zip(exponents, offsets, strict=True)):
            top = Signal(width, name=f"top_{index}")
            m.d.comb += top.eq(exponent + constant)
            tops.append(top)
        highest: Value = largest(m, tops, "highest")
        if self.stages >= 3:
            operands, (*tops, highest), signs, sign = self._stage(
                pipeline, operands, [*tops, highest], signs, sign
            )
        fields: list[Value] = []
        for index, (operand, top) in enumerate(zip(operands, tops, strict=True)):
            distance = Signal(width, name=f"distance_{index}")
            m.d.comb += distance.eq(highest - top)
            fields.append(shift_down(m, operand, distance, window, f"aligned_{index}"))
        growth = self.products.bit_length()
        # The exponent of a result whose leading one is the sum's highest bit, less one.
        excess = start_offset - growth + 1
        room = Signal(range(limit - excess + 1))
        m.d.comb += room.eq(highest - excess)
        return self._sum(m, fields, signs, growth), room, sign

    def _align_exactly(
        self,
        m: Module,
        pipeline: Pipeline,
        operands: list[Value],
        exponents: list[Value],
        signs: list[Value],
        sign: Value,
    ) -> tuple[Value, Value, Value]:
        """Exact sum of all operands in one fixed-point field; room; the reference sign."""
        if self.stages >= 3:
            operands, exponents, signs, sign = self._stage(
                pipeline, operands, exponents, signs, sign
            )
        # Exponents are at least 1, so the lowest bit of a shifted field is left out.
        lowest = min(1 - self._bias, -24)
        places = [1 - self._bias - lowest] * self.products + [-24 - lowest]
        highest = max(
            _LARGEST_PRODUCT_EXPONENT - self._bias + _PRODUCT_WIDTH,
            _LARGEST_EXPONENT - 25 + _SIGNIFICAND_WIDTH,
        )
        width = highest - lowest
        fields: list[Value] = []
        for index, (operand, exponent, place) in enumerate(
            zip(operands, exponents, places, strict=True)
        ):
            field = shift_up(m, operand, exponent, width - place + 1, f"aligned_{index}")
            fields.append(Cat(Const(0, place), field[1:]))
        growth = self.products.bit_length()
        # The smallest normal number, 2**-14, is the lowest place of a leading one.
        room = width + growth - 1 - (-14 - lowest)
        return self._sum(m, fields, signs, growth), Const(room), sign

    @staticmethod
    def _stage(
        pipeline: Pipeline,
        operands: list[Value],
        exponents: list[Value],
        signs: list[Value],
        sign: Value,
    ) -> tuple[list[Value], list[Value], list[Value], Value]:
        """Registers for all that the alignment takes, in the same order."""
        *staged, staged_signs, staged_sign = pipeline.register(
            **{f"staged_operand_{k}": operand for k, operand in enumerate(operands)},
            **{f"staged_exponent_{k}": exponent for k, exponent in enumerate(exponents)},
            staged_signs=Cat(signs),
            start_sign=sign,
        )
        count = len(operands)
        return list(staged[:count]), list(staged[count:]), list(staged_signs), staged_sign

    def _sum(self, m: Module, fields: list[Value], signs: list[Value], growth: int) -> Signal:
        """Two's-complement sum of fields, all but the last one with a sign."""
        width = len(fields[0])
        total_width = width + growth + 1
        rows: list[ValueLike] = []
        for index, (field, sign) in enumerate(zip(fields, signs, strict=False)):
            row = Signal(total_width, name=f"row_{index}")
            # -sign * 2**width, the sign extension, is (1 - sign) * 2**width less a constant, which
            # all rows share.
            m.d.comb += row.eq(Cat(field ^ sign.replicate(width), ~sign))
            rows.append(row)
        constant = -self.products % 2 ** (growth + 1)
        rows.append(Cat(fields[-1], Const(constant, growth + 1)))
        return add_rows(m, rows, signs, "total")

    def _round(self, m: Module, total: Value, room: Value, sign: Value) -> Value:
        """binary16 code of a two's-complement sum; ``room`` is the exponent at its highest bit."""
        negative = Signal()
        ones = Signal(len(total) - 1)
        m.d.comb += [
            negative.eq(total[-1]),
            # One less than the magnitude of a negative sum; the missing one is filled in from
            # below while normalising, and counted in rounding: no second carry chain.
            ones.eq(total[:-1] ^ negative.replicate(len(total) - 1)),
        ]
        shifted, exponent = normalize(m, ones, room, negative, "normal")
        padded = Cat(negative.replicate(max(_SIGNIFICAND_WIDTH + 1 - len(shifted), 0)), shifted)
        significand = padded[-_SIGNIFICAND_WIDTH:]
        guard = padded[-_SIGNIFICAND_WIDTH - 1]
        below = padded[: -_SIGNIFICAND_WIDTH - 1]
        odd = significand[0]
        first_step = 1 << ((len(ones) - 1).bit_length() - 1)
        increment = Signal()
        nonzero = Signal()
        m.d.comb += [
            increment.eq(Mux(negative, guard | (below.all() & odd), guard & (below.any() | odd))),
            # The same OR over the highest bits serves the first step of normalising.
            nonzero.eq(negative | ones[-first_step:].any() | ones[:-first_step].any()),
        ]
        # The significand's hidden bit adds 1 to the exponent of a normal number, and a carry out
        # of the significand another.
        code = Signal(len(exponent) + 11)
        m.d.comb += code.eq(
            Cat(Const(0, 10), exponent & nonzero.replicate(len(exponent))) + significand + increment
        )
        overflow = Signal()
        m.d.comb += overflow.eq(code[15:].any() | code[10:15].all())
        return Cat(
            code[:10] | overflow.replicate(10),
            code[10] & ~overflow,
            code[11:15] | overflow.replicate(4),
            (negative ^ sign) & nonzero,
        )
