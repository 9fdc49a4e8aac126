"""Sums of bits, column by column, by full adders alone: the smallest logic, and the deepest.

A full adder turns three bits of a column into one of it and one of the next, so that a sum of n
bits takes n less its width. No half adder stands where a full adder could, and no adder with fast
carries follows: the carries of the last adders ripple. Bits that come first are added first.

A gate inverts. So each signal is taken for what it is cheapest as, itself or its complement, and
the form of an adder follows its inputs: as NAND, NOR, AND-OR-invert, OR-AND-invert and XOR gates it
can do without inverters. Synthesis has the last word.
"""

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Signal, Value, ValueLike

from fewbit.hdl.arithmetic import wire

__all__ = ["Columns"]


class _Bit(NamedTuple):
    """A bit of a column."""

    value: Value
    arrival: float
    """Gates before it, roughly."""
    inverted: bool
    """Whether its complement is what the gates before it give."""


class _Pair(NamedTuple):
    """Two bits of a column: one, and one that differs from it where ``differs`` is 1."""

    bit: Value
    differs: Value


class Columns:
    """Columns of bits to add, each twice the weight of the one before; modulo 2**width.

    Parameters
    ----------
    m
        Module that the adders go to.
    width
        Columns.
    name
        What the names of signals begin with.
    """

    def __init__(self, m: Module, width: int, name: str) -> None:
        self._m = m
        self._name = name
        self._adders = 0
        self._bits: list[list[_Bit]] = [[] for _ in range(width)]
        self._pairs: list[list[_Pair]] = [[] for _ in range(width)]
        self._constant = 0

    @property
    def width(self) -> int:
        """Columns."""
        return len(self._bits)

    def add_word(self, word: Value, place: int = 0) -> None:
        """Add an unsigned word whose lowest bit weighs 2**place."""
        for column, bit in zip(self._bits[place:], word, strict=False):
            column.append(_Bit(bit, 0, False))

    def add_signed(self, word: Value, place: int = 0) -> None:
        """Add a word whose highest bit counts negative."""
        # -2**k * s is 2**k * (1 - s) less a constant, and all constants are one: no sign extension.
        self.add_word(Cat(word[:-1], ~word[-1]), place)
        self.add_constant(-1 << (place + len(word) - 1))

    def add_pair(self, bit: Value, differs: Value, place: int = 0) -> None:
        """Add ``bit`` and ``bit ^ differs``.

        A negated word is its complement plus one, and the lowest bit of the complement is such
        another bit than the one: what it would be is never made, and its exclusive or with the
        one is known.
        """
        if place < self.width:
            self._pairs[place].append(_Pair(bit, differs))

    def add_constant(self, value: int) -> None:
        """Add a whole number, negative ones too."""
        self._constant = (self._constant + value) % 2**self.width

    def sum(self) -> Signal:
        """The sum, unsigned."""
        total: list[Value] = []
        for place in range(self.width):
            bit, carries = self._reduce(place)
            total.append(bit)
            if place + 1 < self.width:
                self._bits[place + 1] += carries
        return wire(self._m, Cat(*total), self._name)

    def _reduce(self, place: int) -> tuple[Value, list[_Bit]]:
        """The one bit that stays of a column, and what goes to the next."""
        bits, pairs = list(self._bits[place]), list(self._pairs[place])
        one = self._constant >> place & 1
        carries: list[_Bit] = []
        if not bits and pairs:
            # A pair alone has no third bit to add.
            pair = pairs.pop()
            bits.append(_Bit(pair.differs, 0, False))
            carries.append(_Bit(pair.bit & ~pair.differs, 0, False))
        while pairs or len(bits) > 2:
            bits.sort(key=lambda bit: bit.arrival)
            if pairs:
                total, carry = self._add_pair(pairs.pop(0), bits.pop(0))
            else:
                total, carry = self._add(*(bits.pop(0) for _ in range(3)))
            bits.append(total)
            carries.append(carry)
        if len(bits) + one > 1:
            total, carry = self._add_two(bits, one)
            return total, [*carries, carry]
        return (bits[0].value if bits else Const(one, 1)), carries

    def _add_two(self, bits: list[_Bit], one: int) -> tuple[Value, _Bit]:
        """Two bits, a bit and a one, or both."""
        if len(bits) == 1:
            return ~bits[0].value, bits[0]
        a, b = (bit.value for bit in bits)
        arrival = max(bit.arrival for bit in bits)
        total, carry = self._wires(sum=~(a ^ b) if one else a ^ b, carry=(a | b) if one else a & b)
        return total, _Bit(carry, arrival + 1, not bits[-1].inverted)

    def _add_pair(self, pair: _Pair, third: _Bit) -> tuple[_Bit, _Bit]:
        """A full adder whose first exclusive or is there."""
        differs, z = pair.differs, third.value
        total, carry = self._wires(
            sum=(differs | z) & ~(differs & z), carry=(differs & z) | (pair.bit & ~differs)
        )
        return (
            _Bit(total, third.arrival + 2, not third.inverted),
            _Bit(carry, third.arrival + 1.5, third.inverted),
        )

    def _add(self, first: _Bit, second: _Bit, third: _Bit) -> tuple[_Bit, _Bit]:
        """A full adder; the third bit may come late."""
        a, b, c = first.value, second.value, third.value
        inverted = third.inverted
        if first.inverted == second.inverted == inverted:
            # NOR, AND-OR-invert, NAND, and OR-AND-invert twice; or the dual of each.
            (half,) = self._wires(half=~((a & b) | ~(a | b)))
            decided = (a & b) if inverted else (a | b)
            total = (half | c) & ~(half & c)
        else:
            (half,) = self._wires(half=a ^ b)
            decided = a if first.inverted != inverted else b
            total = half ^ c
        total, carry = self._wires(sum=total, carry=(half & c) | (decided & ~half))
        return (
            _Bit(total, max(second.arrival + 4, third.arrival + 2), not inverted),
            _Bit(carry, max(second.arrival + 3, third.arrival + 1.5), inverted),
        )

    def _wires(self, **values: ValueLike) -> list[Signal]:
        """Named signals of one adder; the one with the carry is its last."""
        name = f"{self._name}_{self._adders}"
        self._adders += "carry" in values
        return [wire(self._m, value, f"{name}_{part}") for part, value in values.items()]
