"""What a time step of a layer takes, in any number system."""

from dataclasses import dataclass

__all__ = ["PhaseCycles", "StepCycles"]


@dataclass(frozen=True)
class PhaseCycles:
    """What a phase of a step takes."""

    groups: int
    """Times that the neurons together take a unit each, or an output."""
    first: int
    """Cycles of a group by itself, up to its last result."""
    period: int
    """Cycles of each further group."""
    normalising: int
    """Cycles at the end, in which gates are normalised."""

    @property
    def cycles(self) -> int:
        """Cycles of the phase."""
        return self.first + (self.groups - 1) * self.period + self.normalising


@dataclass(frozen=True)
class StepCycles:
    """What a time step takes while no stream waits."""

    beats: int
    """Cycles in which the lanes are fed."""
    cycles: int
    """Cycles from the beginning of a step to that of the next, if its vector is there by then."""
    interval: int
    """Cycles from vector to vector: of the step, or of the bytes that come in meanwhile; where
    these are as many, every second vector takes one less."""
    first_byte: int
    """Cycles from the last byte of a vector to the first of its answer, while no step is under
    way."""
    last_byte: int
    """The same to the last byte of the answer."""
    products: int
    """Products of a step, without padding."""
    multipliers: int
    """Products that all lanes together take a cycle."""
    phases: tuple[PhaseCycles, ...]
    """What the cycles are the sum of."""
    is_exact: bool
    """Whether the cycles are these, and not at most these."""
    note: str = ""
    """What makes a step longer, beside streams that wait."""
    unless: str = ""
    """When a step that is at most so long is longer all the same."""
    least_cycles: int | None = None
    """Cycles of a step that takes high halves of weights alone, where the layer halves them."""

    @property
    def utilisation(self) -> float:
        """Share of the products that the lanes could take which are the step's own."""
        return self.products / (self.multipliers * self.cycles)
