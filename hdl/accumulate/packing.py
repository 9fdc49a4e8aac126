"""The unpacking of five ternary weights from 8 bits."""

from functools import reduce
from operator import or_
from typing import NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, Value

from fewbit.hdl.arithmetic import wire

__all__ = ["Digit", "unpack_dense"]


class Digit(NamedTuple):
    """A ternary weight as two bits, of which at most one is 1."""

    positive: Signal
    negative: Signal


def unpack_dense(m: Module, code: Value, name: str) -> list[Digit]:
    """Unpack the five ternary weights of a code.

    All 256 codes have the weights of :data:`fewbit.golden.accumulate.packing.TERNARY_DENSE`.
    """
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
    # Codes in which a field would be 10 hold only two signs, or one.
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
