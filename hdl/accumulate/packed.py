"""Five ternary weights out of 8 bits."""

from functools import reduce
from operator import or_
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from golden.packing import TERNARY_BASE_3
from hdl.arithmetic import wire

__all__ = ["Digit", "unpack_base_3", "unpack_dense"]


class Digit(NamedTuple):
    """A ternary weight as two bits, of which at most one is 1."""

    positive: Signal
    negative: Signal


def unpack_base_3(m: Module, code: Value, name: str) -> list[Digit]:
    """The ternary weights of a code, all 256 of them as :data:`golden.packing.TERNARY_BASE_3`.

    Divides by 3 once a weight, bit by bit from the top; what remains is the digit.
    """
    largest = 2**TERNARY_BASE_3.width - 1
    quotient = list(code)
    digits: list[Digit] = []
    for index in range(TERNARY_BASE_3.group):
        step = f"{name}_{index}"
        bits: list[Value] = []
        is_one: Value = Const(0, 1)
        is_two: Value = Const(0, 1)
        for place, bit in reversed(list(enumerate(quotient))):
            # Twice the remainder and the bit: from 3 on, the quotient takes a one.
            becomes_three = wire(m, is_one & bit, f"{step}_becomes_three_{place}")
            bits.append(wire(m, is_two | becomes_three, f"{step}_quotient_{place}"))
            is_one, is_two = (
                wire(m, (is_two ^ bit) & ~becomes_three, f"{step}_is_one_{place}"),
                wire(m, (is_one & ~bit) | (is_two & bit), f"{step}_is_two_{place}"),
            )
        # The digit is the weight and one.
        digits.append(
            Digit(
                wire(m, is_two, f"{step}_positive"),
                wire(m, ~(is_one | is_two), f"{step}_negative"),
            )
        )
        largest //= 3
        quotient = bits[::-1][: largest.bit_length()]
    return digits


def unpack_dense(m: Module, code: Value, name: str) -> list[Digit]:
    """The ternary weights of a code, all 256 of them as :data:`golden.packing.TERNARY_DENSE`."""
    escapes = wire(m, ~code[4] & code[3] & ~code[2], f"{name}_escapes")
    low = wire(m, Mux(escapes, Cat(code[5:], code[:2]), code[:5]), f"{name}_low")
    high = code[5:]

    def fields(bits: Value, counts: Value) -> tuple[Value, Value]:
        return bits[0] & ~bits[1] & counts, bits[0] & bits[1] & counts

    def sign(bit: Value, counts: Value) -> tuple[Value, Value]:
        return ~bit & counts, bit & counts

    def either(*choices: tuple[Value, Value]) -> tuple[Value, Value]:
        positive, negative = (reduce(or_, column) for column in zip(*choices, strict=True))
        return positive, negative

    full = low[4]
    # Where a field would be 10: two signs and no more, or one.
    two = wire(m, full & low[2] & ~low[1], f"{name}_two")
    one = wire(m, ~full & low[1] & ~low[0], f"{name}_one")
    minus = wire(m, high[1] & ~high[0], f"{name}_minus")
    weights = [
        either(fields(low[:2], ~full), sign(low[0], full & ~two)),
        either(fields(low[2:4], ~full & ~one), fields(low[1:3], full), sign(low[0], two)),
        either(sign(low[2], one), sign(low[3], full)),
        either(fields(high[:2], ~escapes), (minus & high[2] & ~escapes, escapes)),
        (high[2] & ~minus & ~escapes, minus | escapes),
    ]
    return [
        Digit(wire(m, plus, f"{name}_{index}_positive"), wire(m, less, f"{name}_{index}_negative"))
        for index, (plus, less) in enumerate(weights)
    ]
