"""The gates of an LSTM, and the variants of the integer LSTM."""

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
"""The input, forget, cell and output gate, in this order everywhere."""
COUPLED_GATES = GATES[1:]
"""The gates of a layer whose input gate is one minus the forget gate."""
PARTS = ("input", "recurrent")
"""The two parts of a gate's sum."""

LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT = -15, -9
"""The exponents of two that a unit of the cell's raws may have."""

TIES_UP = 16
"""The bit above a peephole weight, in the word that holds it in place of a row's start value. If it
is 1, ties of the peephole's product go up instead of away from zero."""


@dataclass(frozen=True)
class IntegerVariant:
    """The parts that a layer of the integer LSTM has beside four gates of two parts each."""

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
        """Return the gates that have weights."""
        return COUPLED_GATES if self.coupled else GATES

    def peeps(self, gate: str) -> bool:
        """Return whether a gate sees the cell."""
        return self.peephole and gate != "g"

    @property
    def peeping(self) -> tuple[str, ...]:
        """Return the gates that see the cell, in the order of their peephole weights."""
        return tuple(gate for gate in self.gates if self.peeps(gate))
