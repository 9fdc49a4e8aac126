"""Records of the cycles that a time step of a layer takes, in any number system."""

from dataclasses import dataclass

__all__ = ["PhaseCycles", "StepCycles"]


@dataclass(frozen=True)
class PhaseCycles:
    """The cycles of one phase of a time step.

    In a phase group after group of units, or of outputs, passes through the neurons.
    """

    groups: int
    """Number of groups; in each, every neuron takes a unit, or an output of a projection."""
    first: int
    """Cycles of the first group, from the end of the phase before up to its last result."""
    period: int
    """Cycles from the last result of a group to that of the next."""
    normalising: int
    """Cycles at the end of the phase in which gates are normalised; 0 without layer norm."""

    @property
    def cycles(self) -> int:
        """The cycles of the whole phase."""
        return self.first + (self.groups - 1) * self.period + self.normalising


@dataclass(frozen=True)
class StepCycles:
    """The cycles of a time step, and how they come about, while no stream waits."""

    beats: int
    """Cycles in which the lanes take a beat."""
    cycles: int
    """Cycles from the beginning of a time step to that of the next, if its vector has arrived by
    then."""
    interval: int
    """Cycles from one vector to the next at full rate: those of the time step, or if they are more,
    those in which the vector's bytes arrive. Where both are equal, every second vector takes one
    cycle less."""
    first_byte: int
    """Cycles from the last byte of a vector to the first byte of its answer, if no time step is in
    progress when the vector arrives."""
    last_byte: int
    """Cycles from the last byte of a vector to the last byte of its answer, likewise."""
    products: int
    """Products of a time step, without those that only pad a row's last beat."""
    multipliers: int
    """Lanes of all neurons together: the most products in a cycle."""
    phases: tuple[PhaseCycles, ...]
    """The phases, whose cycles add up to `cycles`."""
    is_exact: bool
    """Whether a time step takes exactly these cycles, and not at most these."""
    note: str = ""
    """A remark for the user on settings that make a time step longer; empty if there are none."""
    unless: str = ""
    """The condition under which a time step is longer than `cycles`, in words; empty if none is."""
    least_cycles: int | None = None
    """Cycles of a time step in mode LOW for all units, where weights can be taken by halves."""

    @property
    def utilisation(self) -> float:
        """The share of the products that the lanes could take in these cycles which are needed."""
        return self.products / (self.multipliers * self.cycles)
