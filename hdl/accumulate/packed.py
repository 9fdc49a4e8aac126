"""Five ternary weights out of 8 bits."""

from typing import NamedTuple

from amaranth.hdl import Const, Module, Signal, Value

from golden.packing import TERNARY_BASE_3
from hdl.arithmetic import wire

__all__ = ["Digit", "unpack_base_3"]


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
