"""Products as addends, and sums of addends, for gates and for FPGAs.

A product is a list of addends, one for each digit of its multiplier, and a constant. For gates, a
carry-save tree of full adders and one adder sum them; for FPGAs, a tree of adders does. Synthesis
alone would build a separate multiplier for each ``*``, with its signs extended to the width of the
sum.
"""

from collections.abc import Sequence
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, signed

from fewbit.hdl.arithmetic import wire
from fewbit.hdl.structure import Structure

__all__ = ["Addend", "booth_addends", "carry_save_sum", "product_addends", "sum_of_addends"]


class Addend(NamedTuple):
    """The bits of an addend, such as a partial product; the lowest has the weight 2**offset."""

    bits: Value
    offset: int = 0


def booth_addends(
    m: Module, multiplicand: Value, multiplier: Value, below: ValueLike, name: str
) -> tuple[list[Addend], int]:
    """Return the partial products of a signed multiplier in digits from -2 to 2.

    The digits are those of Booth's recoding, radix 4.

    Parameters
    ----------
    multiplicand
        Signed or unsigned.
    multiplier
        Signed, of an even width.
    below
        The bit below the multiplier's lowest bit: 0, or the highest bit of the chunk before if the
        multiplier is one chunk of a longer word.

    Returns
    -------
    Addends and a constant, whose sum is the product. The sign bit of an addend is inverted, and the
    constant corrects the weight that this adds.
    """
    is_signed = multiplicand.shape().signed
    width = len(multiplicand) + (1 if is_signed else 2)
    sign = multiplicand[-1] if is_signed else Const(0, 1)
    once = wire(m, Cat(multiplicand, sign.replicate(width - len(multiplicand))), f"{name}_once")
    twice = Cat(Const(0, 1), once[:-1])
    bits = Cat(below, multiplier)
    addends: list[Addend] = []
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
        addends += [Addend(inverted, 2 * digit), Addend(is_negative, 2 * digit)]
        constant -= 1 << (width - 1 + 2 * digit)
    return addends, constant


def carry_save_sum(
    m: Module, addends: Sequence[Addend], width: int, name: str, constant: int = 0
) -> Signal:
    """Return the sum of addends and a constant modulo 2**width, as an unsigned word.

    A tree of full adders, level by level as Wallace's but without half adders, reduces the addends
    to two, which one addition with carries sums. Each level is a few vectors of adders, whose
    inputs are picked column by column.
    """
    columns: list[list[_Bit]] = [[] for _ in range(width)]
    for addend in addends:
        for index in range(min(len(addend.bits), width - addend.offset)):
            columns[addend.offset + index].append(_Bit(addend.bits, index))
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


def product_addends(
    m: Module,
    multiplicand: Value,
    multiplier: Value,
    below: ValueLike,
    name: str,
    structure: Structure,
) -> tuple[list[Addend], int]:
    """Return the partial products for `sum_of_addends`, and the constant that the sum needs.

    The parameters are those of `booth_addends`.
    """
    if structure == "gates":
        return booth_addends(m, multiplicand, multiplier, below, name)
    return _select_addends(m, multiplicand, multiplier, below, name), 0


def sum_of_addends(
    m: Module,
    addends: Sequence[Addend],
    width: int,
    name: str,
    constant: int,
    structure: Structure,
) -> Signal:
    """Return the sum of addends and a constant modulo 2**width, as an unsigned word."""
    if structure == "gates":
        return carry_save_sum(m, addends, width, name, constant)
    addends = [*addends, Addend(Const(constant % 2**width, width))] if constant else addends
    return _chained_sum(m, addends, width, name)


def _select_addends(
    m: Module, multiplicand: Value, multiplier: Value, below: ValueLike, name: str
) -> list[Addend]:
    """Return signed partial products of a signed multiplier; each bit depends on four bits.

    Digits are from -1 to 2, with a carry from digit to digit, so that two bits select the partial
    product. Only the highest digit may be -2.
    """
    width = len(multiplicand) + (1 if multiplicand.shape().signed else 2)
    once = Signal(signed(width), name=f"{name}_once")
    m.d.comb += once.eq(multiplicand)
    carry = Value.cast(below)
    addends: list[Addend] = []
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
        addend = Signal(signed(width), name=f"{name}_{digit}_row")
        m.d.comb += addend.eq(bits)
        # Two's complement of a negative digit: inverted, plus one.
        addends += [Addend(addend, 2 * digit), Addend(negates, 2 * digit)]
    return addends


def _chained_sum(m: Module, addends: Sequence[Addend], width: int, name: str) -> Signal:
    """Return the sum by a tree of additions of neighbours, each on a carry chain."""
    words = [addend for addend in addends if len(addend.bits) > 1]
    # A single bit is put into an empty place below a word, if there is such a place.
    lone: list[Addend] = []
    for bit in sorted(
        (addend for addend in addends if len(addend.bits) == 1), key=lambda addend: -addend.offset
    ):
        above = [
            (word.offset, index) for index, word in enumerate(words) if word.offset > bit.offset
        ]
        if not above:
            lone.append(bit)
            continue
        # If several words begin at the lowest place, each gets a bit, beginning with the last word.
        offset = min(above)[0]
        index = max(index for place, index in above if place == offset)
        joined = Cat(bit.bits, Const(0, offset - bit.offset - 1), words[index].bits)
        words[index] = Addend(
            joined.as_signed() if words[index].bits.shape().signed else joined, bit.offset
        )
    # The other bits are counted, place by place, and their sums join the word of the highest place.
    for offset in sorted({bit.offset for bit in lone}):
        ones = [bit.bits for bit in lone if bit.offset == offset]
        count = wire(m, sum(ones[1:], ones[0]), f"{name}_ones_{offset}")
        index = max(range(len(words)), key=lambda index: words[index].offset)
        words[index] = _added(
            m, [words[index], Addend(count, offset)], width, f"{name}_with_ones_{offset}"
        )
    level = 0
    while len(words) > 1:
        level += 1
        words = [
            _added(m, words[place : place + 2], width, f"{name}_level_{level}_{place // 2}")
            for place in range(0, len(words), 2)
        ]
    return wire(m, (words[0].bits << words[0].offset)[:width], name)


def _added(m: Module, pair: list[Addend], width: int, name: str) -> Addend:
    """Return the sum of one addend or two; low bits of only one of them bypass the addition."""
    if len(pair) == 1:
        return pair[0]
    lower, upper = sorted(pair, key=lambda addend: addend.offset)
    past = min(upper.offset - lower.offset, len(lower.bits) - 1)
    first = _signed(lower.bits)[past:].as_signed()
    second = _signed(upper.bits << (upper.offset - lower.offset - past))
    size = max(len(first), len(second))
    total = Signal(signed(min(size, width - lower.offset - past)), name=f"{name}_upper")
    m.d.comb += total.eq(first + second)
    bits = Cat(lower.bits[:past], total)
    if len(total) == size:
        # The sign is computed apart instead of by a wider addition. Otherwise synthesis would merge
        # the sums into one adder of full adders, which cost twice as much as a carry chain.
        sign = wire(m, Mux(first[-1] ^ second[-1], total[-1], first[-1]), f"{name}_sign")
        bits = Cat(bits, sign)
    return Addend(bits.as_signed(), lower.offset)


def _signed(bits: Value) -> Value:
    return bits if bits.shape().signed else Cat(bits, Const(0, 1)).as_signed()


class _Bit(NamedTuple):
    """One bit of a vector."""

    vector: Value
    place: int


def _gather(bits: Sequence[_Bit]) -> Value:
    """Return the bits side by side, with neighbours in one vector as one slice of it."""
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
    """Reduce the columns by one level of full adders, which leaves two thirds of the bits."""
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
