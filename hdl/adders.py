"""Sums of many rows: by carry-save reduction and one adder for gates, by adders for FPGAs."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Signal, Value, ValueLike

from hdl.arithmetic import Structure

__all__ = ["add_rows", "add_with_carry", "carry_save"]


def carry_save(
    m: Module, rows: Sequence[ValueLike], carry_in: ValueLike, name: str
) -> tuple[Signal, Signal]:
    """Two rows, sum and carry, that add up to three rows plus a carry bit.

    All rows have one width; the result is modulo 2**width. One full adder a bit.
    """
    a, b, c = (Value.cast(row) for row in rows)
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
    """A + b + carry modulo 2**width with one adder; both rows have one width."""
    width = len(Value.cast(a))
    # A bit below the lowest turns the carry into a plain operand of the same adder.
    total = Signal(width + 1, name=f"{name}_with_carry")
    result = Signal(width, name=name)
    m.d.comb += [
        total.eq(Cat(Const(1, 1), a) + Cat(carry, b)),
        result.eq(total[1:]),
    ]
    return result


def add_rows(
    m: Module,
    rows: Sequence[ValueLike],
    carries: Sequence[ValueLike],
    name: str,
    structure: Structure = "gates",
) -> Signal:
    """Sum of rows plus carry bits, modulo 2**width.

    ``len(rows) - 1`` carry bits ride along for nothing: one in the free lowest place of each
    carry-save step, one in each adder.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or more carries than free places.
    """
    if len(rows) < 2 or len(carries) > len(rows) - 1:
        raise ValueError(
            f"{len(rows)} rows have room for {len(rows) - 1} carries, not {len(carries)}."
        )
    waiting = list(rows)
    free = [*carries, *[Const(0, 1)] * (len(rows) - 1 - len(carries))]
    step = 0
    while structure == "fpga" and len(waiting) > 2:
        first, second, *waiting = waiting
        waiting.append(add_with_carry(m, first, second, free.pop(0), f"{name}_{step}"))
        step += 1
    while len(waiting) > 2:
        # Oldest first: a tree, so that depth grows with the logarithm of the rows.
        first, waiting = waiting[:3], waiting[3:]
        waiting += carry_save(m, first, free.pop(0), f"{name}_{step}")
        step += 1
    return add_with_carry(m, waiting[0], waiting[1], free.pop(0), name)
