"""Sums of bits, column by column, by full adders alone: the smallest logic, and the deepest.

A full adder turns three bits of a column into one bit of it and one of the next. So a sum of n bits
needs n full adders less the width of the sum. There is no half adder where a full adder could be,
and no adder with fast carries at the end: the carries of the last adders ripple. Bits that arrive
first are added first.

A logic gate inverts. So each signal is stored in its cheaper form, itself or its complement, and
the form of an adder depends on its inputs: with NAND, NOR, AND-OR-invert, OR-AND-invert and XOR
gates it needs no inverters. Synthesis may still change the gates.
"""

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Signal, Value, ValueLike

from fewbit.hdl.arithmetic import wire

__all__ = ["Columns"]


class _Bit(NamedTuple):
    """A bit of a column."""

    value: Value
    arrival: float
    """The approximate number of gates on the way to the bit."""
    inverted: bool
    """Whether the gates before the bit produce its complement."""


class _Pair(NamedTuple):
    """Two bits of a column: one bit, and one that differs from it where ``differs`` is 1."""

    bit: Value
    differs: Value


class Columns:
    """Columns of bits to add, modulo 2**width; each weighs twice the one before.

    Parameters
    ----------
    m
        Module to which the adders are added.
    width
        Number of columns.
    name
        Prefix of the names of signals.
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
        """Return the number of columns."""
        return len(self._bits)

    def add_word(self, word: Value, place: int = 0) -> None:
        """Add an unsigned word whose lowest bit weighs 2**place."""
        for column, bit in zip(self._bits[place:], word, strict=False):
            column.append(_Bit(bit, 0, False))

    def add_signed(self, word: Value, place: int = 0) -> None:
        """Add a word whose highest bit has a negative weight."""
        # -2**k * s is 2**k * (1 - s) less a constant. All constants are added up, so no sign
        # needs extension.
        self.add_word(Cat(word[:-1], ~word[-1]), place)
        self.add_constant(-1 << (place + len(word) - 1))

    def add_pair(self, bit: Value, differs: Value, place: int = 0) -> None:
        """Add ``bit`` and ``bit ^ differs`` to a column.

        This serves negated words: a word is negated by its complement and a one in the lowest
        place, and the exclusive or of that one and the complement's lowest bit is known. So the
        complement's lowest bit need not be computed.
        """
        if place < self.width:
            self._pairs[place].append(_Pair(bit, differs))

    def add_constant(self, value: int) -> None:
        """Add a whole number, which may be negative."""
        self._constant = (self._constant + value) % 2**self.width

    def sum(self) -> Signal:
        """Return the sum of all columns, unsigned."""
        total: list[Value] = []
        for place in range(self.width):
            bit, carries = self._reduce(place)
            total.append(bit)
            if place + 1 < self.width:
                self._bits[place + 1] += carries
        return wire(self._m, Cat(*total), self._name)

    def _reduce(self, place: int) -> tuple[Value, list[_Bit]]:
        """Return the one bit that a column leaves, and its carries to the next column."""
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
        """Return sum and carry of two bits, of a bit and a one, or of two bits and a one."""
        if len(bits) == 1:
            return ~bits[0].value, bits[0]
        a, b = (bit.value for bit in bits)
        arrival = max(bit.arrival for bit in bits)
        total, carry = self._wires(sum=~(a ^ b) if one else a ^ b, carry=(a | b) if one else a & b)
        return total, _Bit(carry, arrival + 1, not bits[-1].inverted)

    def _add_pair(self, pair: _Pair, third: _Bit) -> tuple[_Bit, _Bit]:
        """Return sum and carry of a full adder whose first exclusive or is known."""
        differs, z = pair.differs, third.value
        total, carry = self._wires(
            sum=(differs | z) & ~(differs & z), carry=(differs & z) | (pair.bit & ~differs)
        )
        return (
            _Bit(total, third.arrival + 2, not third.inverted),
            _Bit(carry, third.arrival + 1.5, third.inverted),
        )

    def _add(self, first: _Bit, second: _Bit, third: _Bit) -> tuple[_Bit, _Bit]:
        """Return sum and carry of a full adder; the third bit may arrive late."""
        a, b, c = first.value, second.value, third.value
        inverted = third.inverted
        if first.inverted == second.inverted == inverted:
            # The gates are NOR, AND-OR-invert, NAND, and OR-AND-invert twice; or their duals.
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
        """Return named signals of one adder; the call with the carry is its last."""
        name = f"{self._name}_{self._adders}"
        self._adders += "carry" in values
        return [wire(self._m, value, f"{name}_{part}") for part, value in values.items()]
