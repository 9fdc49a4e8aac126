"""Sums of words and carry bits: carry-save adders and one adder for gates, adders for FPGAs."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Signal, Value, ValueLike, signed

from fewbit.hdl.arithmetic import wire
from fewbit.hdl.structure import Structure

__all__ = ["add_with_carry", "add_words", "carry_save", "signed_sum"]


def carry_save(
    m: Module, words: Sequence[ValueLike], carry_in: ValueLike, name: str
) -> tuple[Signal, Signal]:
    """Return two words, sum and carry, that add up to three words plus a carry bit.

    All words have one width, and the result is modulo 2**width. There is one full adder a bit.
    """
    a, b, c = (Value.cast(word) for word in words)
    width = len(a)
    half = Signal(width, name=f"{name}_half")
    total = Signal(width, name=f"{name}_sum")
    carry = Signal(width, name=f"{name}_carry")
    majority = Signal(width, name=f"{name}_majority")
    m.d.comb += [
        half.eq(a ^ b),
        total.eq(half ^ c),
        majority.eq((a & b) | (half & c)),
        carry.eq(Cat(carry_in, majority[: width - 1])),
    ]
    return total, carry


def add_with_carry(m: Module, a: ValueLike, b: ValueLike, carry: ValueLike, name: str) -> Signal:
    """Return a + b + carry modulo 2**width, with one adder; both words have one width."""
    width = len(Value.cast(a))
    # A bit below the lowest turns the carry into a plain operand of the same adder.
    total = Signal(width + 1, name=f"{name}_with_carry")
    result = Signal(width, name=name)
    m.d.comb += [
        total.eq(Cat(Const(1, 1), a) + Cat(carry, b)),
        result.eq(total[1:]),
    ]
    return result


def add_words(
    m: Module,
    words: Sequence[ValueLike],
    carries: Sequence[ValueLike],
    name: str,
    structure: Structure = "gates",
) -> Signal:
    """Return the sum of words plus carry bits, modulo 2**width.

    Up to ``len(words) - 1`` carry bits cost no gates: one fits the free lowest place of each
    carry-save step, and one fits each adder.

    Raises
    ------
    ValueError
        If there are fewer than two words, or more carries than free places.
    """
    if len(words) < 2 or len(carries) > len(words) - 1:
        raise ValueError(
            f"{len(words)} words have room for {len(words) - 1} carries, not {len(carries)}."
        )
    waiting = list(words)
    free = [*carries, *[Const(0, 1)] * (len(words) - 1 - len(carries))]
    step = 0
    while structure == "fpga" and len(waiting) > 2:
        first, second, *waiting = waiting
        waiting.append(add_with_carry(m, first, second, free.pop(0), f"{name}_{step}"))
        step += 1
    while len(waiting) > 2:
        # The oldest words come first: that makes a tree, whose depth is logarithmic.
        first, waiting = waiting[:3], waiting[3:]
        waiting += carry_save(m, first, free.pop(0), f"{name}_{step}")
        step += 1
    return add_with_carry(m, waiting[0], waiting[1], free.pop(0), name)


def signed_sum(m: Module, words: Sequence[Value], carries: Sequence[Value], width: int) -> Value:
    """Return the sum modulo 2**width of signed words and carries, with an adder for each carry.

    There is one carry fewer than words.

    The sums form a balanced tree, each as wide as it needs to be. The words must come in ascending
    width.
    """
    waiting = list(words)
    for index, carry in enumerate(carries):
        first, second = waiting[:2]
        size = min(max(len(first), len(second)) + 1, width)
        # A bit below the lowest turns the carry into a plain operand of the same adder.
        total = Signal(signed(size + 1), name=f"sum_{index}_with_carry")
        m.d.comb += total.eq(Cat(Const(1, 1), first).as_signed() + Cat(carry, second).as_signed())
        waiting = [*waiting[2:], wire(m, total[1:].as_signed(), f"sum_{index}")]
    return waiting[0]
