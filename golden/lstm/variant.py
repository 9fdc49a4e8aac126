"""The variants of the integer LSTM."""

from dataclasses import dataclass

__all__ = ["TIES_UP", "Int8Variant"]

TIES_UP = 16
"""The bit above a peephole weight, where it takes a row's place, that sends ties of its product up
and not away from zero."""


@dataclass(frozen=True)
class Int8Variant:
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
        return ("f", "g", "o") if self.coupled else ("i", "f", "g", "o")

    def peeps(self, gate: str) -> bool:
        """Whether a gate sees the cell."""
        return self.peephole and gate != "g"
