"""Truth tables as decision diagrams: circuits of multiplexers for functions of up to 16 bits."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

__all__ = ["MAGNITUDES", "decision_diagram", "first_binary16", "staircase"]

MAGNITUDES = 2**15
"""Number of codes of binary16 without a sign."""


def decision_diagram(m: Module, index: Value, table: Sequence[int], width: int, name: str) -> Value:
    """Return ``table[index]`` as combinational multiplexers that the bits of ``index`` select.

    The highest bit decides first. Sub-tables that are equal, or complements of each other, share
    one circuit, even among different bits of the result. That suits functions that are defined by
    thresholds: a comparison with a constant is a chain of one gate a bit, and synthesis alone does
    not share the chains of several result bits.

    Parameters
    ----------
    index
        Unsigned, of at most 16 bits.
    table
        Numbers from 0 to 2**width - 1, one for each index.
    width
        Bits of the result.
    name
        Prefix of the signals.

    Raises
    ------
    ValueError
        If the length of the table does not fit the index.
    """
    if len(index) > 16 or len(table) != 2 ** len(index):
        raise ValueError(f"A table of {len(table)} entries has no index of {len(index)} bits.")
    nodes: dict[bytes, Value] = {}

    def node(column: npt.NDArray[np.uint8]) -> Value:
        """Return one bit of the table, over the lowest bits of the index."""
        inverted = bool(column[0])
        column = column ^ column[0]
        if not column.any():
            return Const(inverted, 1)
        half = len(column) // 2
        low, high = column[:half], column[half:]
        if (low == high).all():
            value = node(low)
        else:
            key = column.tobytes()
            if key not in nodes:
                bit = index[half.bit_length() - 1]
                chosen = bit ^ node(low) if (low != high).all() else Mux(bit, node(high), node(low))
                signal = Signal(name=f"{name}_{len(nodes)}")
                m.d.comb += signal.eq(chosen)
                nodes[key] = signal
            value = nodes[key]
        return ~value if inverted else value

    entries = np.asarray(table, dtype=np.int64)
    return Cat(node((entries >> bit & 1).astype(np.uint8)) for bit in range(width))


def staircase(codes: Sequence[int], starts: Sequence[int]) -> list[int]:
    """Return a table over the magnitudes of binary16: ``codes[k]`` from index ``starts[k]`` on.

    Parameters
    ----------
    codes
        The value of each stretch of the table.
    starts
        First index of each stretch but the first one, ascending.
    """
    table: list[int] = []
    for code, (start, end) in zip(codes, pairwise([0, *starts, MAGNITUDES]), strict=True):
        table += [code] * (end - start)
    return table


def first_binary16(real: Fraction, *, above: bool) -> int:
    """Return the smallest code without a sign whose number is at least, or above, ``real``.

    It is ``MAGNITUDES`` if there is no such code. Exponent 31 is one more octave of numbers.
    """
    exponent = real.numerator.bit_length() - real.denominator.bit_length()
    # Now 2**exponent is within a factor of two of the real.
    exponent = max(exponent - (Fraction(2) ** exponent > real), -14)
    steps = real / Fraction(2) ** (exponent - 10)
    count = steps.__floor__() + 1 if above else steps.__ceil__()
    # The significand's hidden bit adds 1 to the exponent, and so does a carry out of it.
    return min(count + (exponent + 14 << 10), MAGNITUDES)
