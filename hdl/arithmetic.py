"""The steps of golden.arithmetic, name for name, and the sums of products that circuits share.

Each function adds named signals to a module and returns the one with the result, so that a value
that is used twice is written once. Sums of products are written as rows of partial products, a
carry-save tree of full adders and one carrying addition: synthesis alone keeps a multiplier, with
its signs extended to the width of the sum, for each ``*``.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, signed

__all__ = [
    "Row",
    "Structure",
    "booth_rows",
    "carry_save_sum",
    "check_structure",
    "product_rows",
    "rounding_shift_right",
    "saturate",
    "saturate_to_clip",
    "sum_of_rows",
    "wire",
]

Structure = Literal["gates", "fpga"]
"""How sums are built: trees of full adders for gates, trees of carry chains for FPGAs."""


class Row(NamedTuple):
    """Bits of a partial product, the lowest with the weight 2**offset."""

    bits: Value
    offset: int = 0


def wire(m: Module, value: ValueLike, name: str) -> Signal:
    """A named signal with the value, for use in more than one place."""
    value = Value.cast(value)
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def saturate(m: Module, value: Value, width: int, name: str, beyond: ValueLike = 0) -> Signal:
    """Nearest raw of a signed word.

    Parameters
    ----------
    value
        Signed, wider than ``width``.
    width
        Bits of the result.
    beyond
        1 where ``value`` stands for something out of range whose sign is the value's.
    """
    negative = wire(m, value[-1], f"{name}_negative")
    fits = wire(
        m,
        (value[width - 1 :] == negative.replicate(len(value) - width + 1)) & ~Value.cast(beyond),
        f"{name}_fits",
    )
    extreme = Cat((~negative).replicate(width - 1), negative)
    return wire(m, Mux(fits, value[:width], extreme).as_signed(), name)


def saturate_to_clip(m: Module, value: Value, clip: Value, name: str) -> Signal:
    """The nearest of -clip to clip; a clip of 0 changes nothing.

    Parameters
    ----------
    value
        Signed, of a width of at least the clip's and one.
    clip
        Unsigned.
    """
    negative = wire(m, value[-1], f"{name}_negative")
    # The ones' complement of a negative value is one below its distance from zero.
    distance = wire(m, value[:-1] ^ negative.replicate(len(value) - 1), f"{name}_distance")
    exceeds = wire(m, (distance + negative > clip) & clip.any(), f"{name}_exceeds")
    signs = negative.replicate(len(value))
    limit = wire(m, ((clip ^ signs) + negative)[: len(value)], f"{name}_limit")
    return wire(m, Mux(exceeds, limit, value[:]).as_signed(), name)


class RoundedShift(NamedTuple):
    """A shifted word before its rounding is added: ``quotient + round_up`` is the result."""

    quotient: Signal
    round_up: Signal
    beyond: Signal


def rounding_shift_right(
    m: Module, value: Value, shift: Value, width: int, name: str, ties_up: ValueLike = 0
) -> RoundedShift:
    """``value / 2**shift`` rounded to nearest; ties go away from zero, or up where asked.

    Parameters
    ----------
    value
        Signed.
    shift
        Unsigned, less than the width of ``value``.
    width
        Bits of the quotient that are kept.
    ties_up
        1 sends ties toward plus infinity.

    Returns
    -------
    The floor of the quotient, the bit that rounding adds to it (left to the next addition, which
    has a carry to spare), and whether the floor does not fit ``width`` bits; then its sign is
    that of ``value``, and the kept bits mean nothing.
    """
    negative = wire(m, value[-1], f"{name}_negative")
    # One bit below the point decides the rounding; whether any bit below that one is set decides
    # whether it is a tie. The word loses high bits on the way that only tell that it does not fit.
    word: Value = Cat(Const(0, 1), value)
    sticky: list[Value] = []
    beyond: list[Value] = []
    for stage in reversed(range(len(shift))):
        step = 1 << stage
        chosen = shift[stage]
        keep = width + 1 + step - 1
        padded = Cat(word, negative.replicate(max(0, keep + step - len(word))))
        sticky.append(chosen & word[:step].any())
        shifted = padded[step : step + keep]
        stayed = padded[:keep]
        # What either choice drops at the top must equal the sign.
        dropped_if_shifted = padded[step + keep :]
        dropped_if_stayed = padded[keep:]
        signs = [dropped_if_stayed[:step] ^ negative.replicate(min(step, len(dropped_if_stayed)))]
        beyond.append(~chosen & signs[0].any())
        if len(dropped_if_shifted):
            beyond.append((dropped_if_shifted ^ negative.replicate(len(dropped_if_shifted))).any())
        word = wire(m, Mux(chosen, shifted, stayed), f"{name}_by_{step}")
    quotient = wire(m, word[1:].as_signed(), f"{name}_quotient")
    # The sign bit itself is kept, so a lost bit that differs from the sign, or a kept top bit
    # that does, means that the word does not fit.
    top = quotient[-1] ^ negative
    is_tie = wire(m, ~Cat(*sticky).any(), f"{name}_is_tie")
    round_up = wire(m, word[0] & ~(negative & is_tie & ~Value.cast(ties_up)), f"{name}_round_up")
    return RoundedShift(quotient, round_up, wire(m, Cat(*beyond, top).any(), f"{name}_beyond"))


def booth_rows(
    m: Module, multiplicand: Value, multiplier: Value, below: ValueLike, name: str
) -> tuple[list[Row], int]:
    """Partial products of a signed multiplier in digits from -2 to 2 (Booth's recoding, radix 4).

    Parameters
    ----------
    multiplicand
        Signed or unsigned.
    multiplier
        Signed, of an even width.
    below
        The bit below the multiplier's lowest: 0, or the highest bit of the chunk before, which
        then counts as it does in the whole word.

    Returns
    -------
    Rows whose sum, plus the constant that comes with them, is the product: a row's sign bit is
    stored inverted, and the constant takes off the weight that this adds.
    """
    is_signed = multiplicand.shape().signed
    width = len(multiplicand) + (1 if is_signed else 2)
    sign = multiplicand[-1] if is_signed else Const(0, 1)
    once = wire(m, Cat(multiplicand, sign.replicate(width - len(multiplicand))), f"{name}_once")
    twice = Cat(Const(0, 1), once[:-1])
    bits = Cat(below, multiplier)
    rows: list[Row] = []
    constant = 0
    for digit in range(len(multiplier) // 2):
        low, middle, high = bits[2 * digit], bits[2 * digit + 1], bits[2 * digit + 2]
        is_one = wire(m, low ^ middle, f"{name}_{digit}_is_one")
        is_two = wire(m, ~is_one & (middle ^ high), f"{name}_{digit}_is_two")
        is_negative = wire(m, high, f"{name}_{digit}_is_negative")
        chosen = (once & is_one.replicate(width)) | (twice & is_two.replicate(width))
        digit_row = wire(m, chosen ^ is_negative.replicate(width), f"{name}_{digit}_row")
        inverted = wire(m, Cat(digit_row[:-1], ~digit_row[-1]), f"{name}_{digit}_bits")
        # Two's complement of a negative digit: inverted, plus one.
        rows += [Row(inverted, 2 * digit), Row(is_negative, 2 * digit)]
        constant -= 1 << (width - 1 + 2 * digit)
    return rows, constant


def carry_save_sum(
    m: Module, rows: Sequence[Row], width: int, name: str, constant: int = 0
) -> Signal:
    """Sum of rows and a constant modulo 2**width, as an unsigned word.

    A tree of full adders, level by level as Wallace's but without half adders, reduces the rows
    to two, which one addition with carries sums. Each level is a few vectors of adders, whose
    inputs are picked column by column.
    """
    columns: list[list[_Bit]] = [[] for _ in range(width)]
    for row in rows:
        for index in range(min(len(row.bits), width - row.offset)):
            columns[row.offset + index].append(_Bit(row.bits, index))
    for index, digit in enumerate(f"{constant % 2**width:0{width}b}"[::-1]):
        if digit == "1":
            columns[index].append(_Bit(Const(1, 1), 0))
    level = 0
    while max(len(column) for column in columns) > 2:
        level += 1
        columns = _reduce(m, columns, f"{name}_level_{level}")
    zero = _Bit(Const(0, 1), 0)
    first, second = (
        wire(
            m,
            _gather([column[index] if index < len(column) else zero for column in columns]),
            f"{name}_{part}",
        )
        for index, part in enumerate(("sums", "carries"))
    )
    return wire(m, (first + second)[:width], name)


def check_structure(structure: str) -> None:
    """Refuse what is no structure.

    Raises
    ------
    ValueError
        If it is none.
    """
    if structure not in get_args(Structure):
        raise ValueError(f'structure must be "gates" or "fpga", not {structure!r}.')


def product_rows(
    m: Module,
    multiplicand: Value,
    multiplier: Value,
    below: ValueLike,
    name: str,
    structure: Structure,
) -> tuple[list[Row], int]:
    """Partial products for `sum_of_rows`, and a constant that belongs to the sum.

    The parameters are those of `booth_rows`.
    """
    if structure == "gates":
        return booth_rows(m, multiplicand, multiplier, below, name)
    return _select_rows(m, multiplicand, multiplier, below, name), 0


def sum_of_rows(
    m: Module,
    rows: Sequence[Row],
    width: int,
    name: str,
    constant: int,
    structure: Structure,
) -> Signal:
    """Sum of rows and a constant modulo 2**width, as an unsigned word."""
    if structure == "gates":
        return carry_save_sum(m, rows, width, name, constant)
    rows = [*rows, Row(Const(constant % 2**width, width))] if constant else rows
    return _chained_sum(m, rows, width, name)


def _select_rows(
    m: Module, multiplicand: Value, multiplier: Value, below: ValueLike, name: str
) -> list[Row]:
    """Signed partial products of a signed multiplier, each bit a function of four.

    Digits are from -1 to 2, with a carry from digit to digit, which leaves two bits to select by;
    only the highest may be -2.
    """
    width = len(multiplicand) + (1 if multiplicand.shape().signed else 2)
    once = Signal(signed(width), name=f"{name}_once")
    m.d.comb += once.eq(multiplicand)
    carry = Value.cast(below)
    rows: list[Row] = []
    for digit in range(len(multiplier) // 2):
        low, high = multiplier[2 * digit], multiplier[2 * digit + 1]
        is_last = 2 * digit + 2 == len(multiplier)
        is_one = wire(m, (low ^ carry) & (is_last | ~high), f"{name}_{digit}_is_one")
        negates = wire(
            m, high & (~(low & carry) if is_last else low ^ carry), f"{name}_{digit}_negates"
        )
        if is_last:
            is_two = wire(
                m, (low & carry & ~high) | (high & ~(low | carry)), f"{name}_{digit}_is_two"
            )
            chosen = (once[:] & is_one.replicate(width)) | (
                (once << 1)[:width] & is_two.replicate(width)
            )
            bits = chosen ^ negates.replicate(width)
        else:
            # 0: nothing; 1: once; 2: twice; 3: once, negated.
            is_two = wire(m, Mux(high, ~(low | carry), low & carry), f"{name}_{digit}_is_two")
            select = wire(m, Cat(is_one | negates, is_two | negates), f"{name}_{digit}_select")
            bits = Mux(
                select[1],
                Mux(select[0], ~once[:], (once << 1)[:width]),
                Mux(select[0], once[:], 0),
            )
            carry = wire(m, high & (low | carry), f"{name}_{digit}_carry")
        row = Signal(signed(width), name=f"{name}_{digit}_row")
        m.d.comb += row.eq(bits)
        # Two's complement of a negative digit: inverted, plus one.
        rows += [Row(row, 2 * digit), Row(negates, 2 * digit)]
    return rows


def _chained_sum(m: Module, rows: Sequence[Row], width: int, name: str) -> Signal:
    """Sum by a tree of additions, each on a carry chain, of neighbours among the rows."""
    words = [row for row in rows if len(row.bits) > 1]
    # A single bit goes into the empty places below a word, where there is one.
    lone: list[Row] = []
    for bit in sorted((row for row in rows if len(row.bits) == 1), key=lambda row: -row.offset):
        above = [
            (word.offset, index) for index, word in enumerate(words) if word.offset > bit.offset
        ]
        if not above:
            lone.append(bit)
            continue
        # Of several that begin at the lowest place, each takes a bit, the last one first.
        offset = min(above)[0]
        index = max(index for place, index in above if place == offset)
        joined = Cat(bit.bits, Const(0, offset - bit.offset - 1), words[index].bits)
        words[index] = Row(
            joined.as_signed() if words[index].bits.shape().signed else joined, bit.offset
        )
    # The others are counted, place by place, and go to the word of the highest place.
    for offset in sorted({bit.offset for bit in lone}):
        ones = [bit.bits for bit in lone if bit.offset == offset]
        count = wire(m, sum(ones[1:], ones[0]), f"{name}_ones_{offset}")
        index = max(range(len(words)), key=lambda index: words[index].offset)
        words[index] = _added(
            m, [words[index], Row(count, offset)], width, f"{name}_with_ones_{offset}"
        )
    level = 0
    while len(words) > 1:
        level += 1
        words = [
            _added(m, words[place : place + 2], width, f"{name}_level_{level}_{place // 2}")
            for place in range(0, len(words), 2)
        ]
    return wire(m, (words[0].bits << words[0].offset)[:width], name)


def _added(m: Module, pair: list[Row], width: int, name: str) -> Row:
    """The sum of one row or two; what lies below one of them goes past the addition."""
    if len(pair) == 1:
        return pair[0]
    lower, upper = sorted(pair, key=lambda row: row.offset)
    past = min(upper.offset - lower.offset, len(lower.bits) - 1)
    first = _signed(lower.bits)[past:].as_signed()
    second = _signed(upper.bits << (upper.offset - lower.offset - past))
    size = max(len(first), len(second))
    total = Signal(signed(min(size, width - lower.offset - past)), name=f"{name}_upper")
    m.d.comb += total.eq(first + second)
    bits = Cat(lower.bits[:past], total)
    if len(total) == size:
        # The sign is told apart, in place of a wider addition. Synthesis would else make one adder
        # of a sum of sums, and that of full adders, which cost twice as much as a carry chain.
        sign = wire(m, Mux(first[-1] ^ second[-1], total[-1], first[-1]), f"{name}_sign")
        bits = Cat(bits, sign)
    return Row(bits.as_signed(), lower.offset)


def _signed(bits: Value) -> Value:
    return bits if bits.shape().signed else Cat(bits, Const(0, 1)).as_signed()


class _Bit(NamedTuple):
    """One bit of a vector."""

    vector: Value
    place: int


def _gather(bits: Sequence[_Bit]) -> Value:
    """The bits side by side, those that lie side by side in one vector as one slice of it."""
    slices: list[Value] = []
    start = 0
    for end in range(1, len(bits) + 1):
        follows = (
            end < len(bits)
            and bits[end].vector is bits[start].vector
            and bits[end].place == bits[end - 1].place + 1
        )
        if not follows:
            slices.append(bits[start].vector[bits[start].place : bits[end - 1].place + 1])
            start = end
    return Cat(*slices)


def _reduce(m: Module, columns: list[list[_Bit]], name: str) -> list[list[_Bit]]:
    """One level of full adders: a third of the bits of each column leaves it."""
    reduced: list[list[_Bit]] = [column[len(column) // 3 * 3 :] for column in columns]
    for adder in range(max(len(column) for column in columns) // 3):
        chosen = [index for index, column in enumerate(columns) if len(column) // 3 > adder]
        a, b, c = (
            wire(
                m,
                _gather([columns[index][3 * adder + operand] for index in chosen]),
                f"{name}_{adder}_{operand_name}",
            )
            for operand, operand_name in enumerate("abc")
        )
        half = wire(m, a ^ b, f"{name}_{adder}_half")
        total = wire(m, half ^ c, f"{name}_{adder}_sum")
        carry = wire(m, (c & half) | (a & ~half), f"{name}_{adder}_carry")
        for position, index in enumerate(chosen):
            reduced[index].append(_Bit(total, position))
            if index + 1 < len(columns):
                reduced[index + 1].append(_Bit(carry, position))
    return reduced
