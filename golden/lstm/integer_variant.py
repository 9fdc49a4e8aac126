"""The gates of an LSTM, and the variants of the integer one."""

from dataclasses import dataclass

__all__ = [
    "COUPLED_GATES",
    "GATES",
    "HIGHEST_CELL_EXPONENT",
    "LOWEST_CELL_EXPONENT",
    "PARTS",
    "TIES_UP",
    "IntegerVariant",
]

GATES = ("i", "f", "g", "o")
"""Input, forget, cell and output gate."""
COUPLED_GATES = GATES[1:]
"""Of a layer whose input gate is what the forget gate leaves of 1."""
PARTS = ("input", "recurrent")
"""The parts of a gate's sum."""

LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT = -15, -9
"""The exponents of two that a unit of the cell's raws may have."""

TIES_UP = 16
"""The bit above a peephole weight, where it takes a row's place, that sends ties of its product up
and not away from zero."""


@dataclass(frozen=True)
class IntegerVariant:
    """What a layer of the integer LSTM has beside four gates of two parts each."""

    coupled: bool = False
    """Input gate and forget gate are coupled: gate i has no weights, it is 32767 - f."""
    peephole: bool = False
    """Gates i and f see the old cell, gate o the new one."""
    norm: bool = False
    """Gates are normalised over the layer between the sum of their parts and their activation."""
    projection: bool = False
    """Hidden values go through a matrix."""

    @property
    def gates(self) -> tuple[str, ...]:
        """Gates with weights."""
        return COUPLED_GATES if self.coupled else GATES

    def peeps(self, gate: str) -> bool:
        """Whether a gate sees the cell."""
        return self.peephole and gate != "g"

    @property
    def peeping(self) -> tuple[str, ...]:
        """Gates that see the cell, in the order of their peephole weights."""
        return tuple(gate for gate in self.gates if self.peeps(gate))
