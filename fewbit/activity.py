"""Switching activity of a design's netlist on real operands: an estimate of its dynamic power.

The netlist of library cells is simulated at the rate of a beat a cycle, and its results are
compared with the golden model's. Every change of a cell's output is weighted by the cell's area in
gate equivalents, or by the energy in a Liberty file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.errors import UsageError
from fewbit.golden.contract import Contract
from fewbit.golden.formats import FixedPoint
from fewbit.golden.operands import Operand
from fewbit.sim.gate_level import Delay, GateLevelSimulation, NetlistError, pack_runs, unpack_runs
from fewbit.sim.liberty import LibertyError, Library, Pin
from fewbit.synthesis import Mapped, check_liberty

__all__ = ["Activity", "ActivityError", "check_process", "encode_operands", "measure_activity"]

Codes = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

_RESET_CYCLES = 1
_LONGEST_LATENCY = 16
_FEMTO = 1e-15
_CLOCK_PIN = 2.0
"""Weight of a clock pin in gate equivalents, because areas do not show the clock's share. In
SkyWater's 130 nm cells the clock takes 45 to 51 fJ a flip-flop and cycle, and a toggle takes 13 fJ
a gate equivalent."""


class ActivityError(AssertionError):
    """A netlist whose results differ from the golden model's."""


@dataclass(frozen=True)
class Activity:
    """The weighted toggles a beat of one netlist."""

    unit: str
    """``GE`` for toggles × the area of the cell that toggles; ``fJ`` for toggles × their energy in
    the library, which is C·V²/2 of the input pins that the cell drives, and the internal energies
    of these pins and of the cell. Wires have no capacitance, and leakage is left out."""
    delay: Delay
    beats: int
    """The beats over which the mean is taken."""
    combinational: float
    """The share of the outputs of combinational cells."""
    flip_flops: float
    """The share of the outputs of flip-flops."""
    clock: float
    """The share of the clock pins, two toggles a cycle: × 2 GE each, or × the energy of the pin."""
    toggles: float
    """The toggles of all cell outputs in a beat, without weights."""

    @property
    def without_clock(self) -> float:
        """Return the activity of all cell outputs."""
        return self.combinational + self.flip_flops

    @property
    def with_clock(self) -> float:
        """Return the activity of all cell outputs and the clock pins."""
        return self.without_clock + self.clock


def encode_operands(
    contract: Contract, weights: Reals, activations: Reals, accumulator: Reals
) -> dict[str, Codes]:
    """Return real operands of a multiply-accumulate unit as codes of its own formats.

    Floating-point operands are rounded to the nearest values. Integer weights and activations are
    scaled so that the largest magnitude of each tensor is the largest raw; the accumulator has the
    product's resolution.

    Parameters
    ----------
    contract
        A contract with the operands ``weights``, ``activations`` and ``accumulator``.
    weights, activations, accumulator
        Reals of shapes (count, products), (count, products) and (count,).
    """
    reals = {"weights": weights, "activations": activations, "accumulator": accumulator}
    formats = {operand.name: operand.format for operand in contract.operands}
    steps = {
        name: float(np.abs(reals[name]).max(initial=0.0)) / number_format.largest_raw or 1.0
        for name, number_format in formats.items()
        if isinstance(number_format, FixedPoint) and name != "accumulator"
    }
    steps["accumulator"] = float(np.prod([*steps.values()]))
    codes: dict[str, Codes] = {}
    for name, number_format in formats.items():
        values = reals[name]
        if isinstance(number_format, FixedPoint):
            values = values / steps[name] * number_format.resolution
        codes[name] = number_format.encode(values)
    return codes


def measure_activity(
    mapped: Mapped, arrays: Mapping[str, Codes], delay: Delay = "zero"
) -> Activity:
    """Return the activity of a design on operands that follow each other without a pause.

    Parameters
    ----------
    mapped
        The design's netlist.
    arrays
        Codes of the operands, shape (runs, beats) or (runs, beats, lanes), and of configuration
        operands, shape (1,) or (1, lanes). Each run starts from reset; its first cycles, before the
        first result, are not counted.
    delay
        ``zero`` counts settled values only; ``unit`` also counts glitches, as if all cells were
        equally slow.

    Raises
    ------
    UsageError
        If the library cannot be used, the design has memories or does not accept a beat every
        cycle, or the runs are too short.
    ActivityError
        If the netlist's results differ from the golden model's.
    """
    if mapped.is_process:
        check_process(mapped.library)
    try:
        library = _library(mapped.library)
        simulation = GateLevelSimulation(mapped.netlist, library)
    except (LibertyError, NetlistError) as error:
        raise UsageError(f"{mapped.configured.name}: {error}") from error
    contract = mapped.configured.contract
    runs, beats = arrays[contract.operands[0].name].shape[:2]
    cycles = _RESET_CYCLES + beats + _LONGEST_LATENCY
    streaming = slice(_RESET_CYCLES, _RESET_CYCLES + beats)
    (i_valid, i_ready), (o_valid, o_ready) = (contract.handshakes[name] for name in "io")

    def flag(cycles_high: slice) -> npt.NDArray[np.bool_]:
        bits = np.zeros((runs, cycles, 1), np.bool_)
        bits[:, cycles_high] = True
        return bits

    everything = slice(None)
    bits = {"rst": flag(slice(_RESET_CYCLES)), i_valid: flag(streaming), o_ready: flag(everything)}
    for operand in contract.operands:
        bits[operand.name] = np.zeros((runs, cycles, operand.width), np.bool_)
        bits[operand.name][:, streaming] = _bits(operand, arrays[operand.name], (runs, beats))
    for operand in contract.configuration:
        constant = _bits(operand, arrays[operand.name], (1, 1))
        bits[operand.name] = np.broadcast_to(constant, (runs, cycles, operand.width))
    inputs = {name: pack_runs(planes) for name, planes in bits.items()}

    # The first simulation has no delays: it shows when results come, and whether they are right.
    everything_counted = simulation.run(inputs, runs, streaming)
    outputs = {name: unpack_runs(words, runs) for name, words in everything_counted.outputs.items()}
    if not outputs[i_ready][:, streaming].all():
        raise UsageError("Activity is measured at a beat a cycle, which the design doesn't take.")
    valid = outputs[o_valid][..., 0]
    _check_results(contract, arrays, outputs, valid)
    first = int(valid.any(axis=0).argmax())
    counted = slice(first + 1, _RESET_CYCLES + beats)
    if counted.start >= counted.stop:
        raise UsageError(f"Runs of {beats} beats are too short; give longer ones.")
    recording = simulation.run(inputs, runs, counted, delay)

    if mapped.is_process:
        weights, clock = _energies(simulation, library)
    else:
        weights = np.array([cell.area / len(cell.outputs) for cell, _ in simulation.drivers])
        clock = 2 * _CLOCK_PIN * len(simulation.registers)
    rates = recording.toggles / recording.transitions
    is_register = np.array([cell.clock is not None for cell, _ in simulation.drivers], np.bool_)
    return Activity(
        unit="fJ" if mapped.is_process else "GE",
        delay=delay,
        beats=recording.transitions,
        combinational=float((weights * rates)[~is_register].sum()),
        flip_flops=float((weights * rates)[is_register].sum()),
        clock=float(clock),
        toggles=float(rates.sum()),
    )


def check_process(liberty: Path) -> None:
    """Refuse a Liberty file that holds no energies.

    Raises
    ------
    UsageError
        If the file cannot be read, or has no supply voltage.
    """
    try:
        library = _library(check_liberty(liberty))
    except LibertyError as error:
        raise UsageError(f"Liberty file '{liberty}': {error}") from error
    if library.voltage is None:
        raise UsageError(
            f"Liberty file '{liberty}' gives no supply voltage, so there are no energies."
        )


def _energies(simulation: GateLevelSimulation, library: Library) -> tuple[Reals, float]:
    """Return the femtojoules of a toggle of each cell output, and of a clock cycle of all pins."""
    half_square = (library.voltage or math.nan) ** 2 / 2

    def taken(pin: Pin) -> float:
        return (pin.capacitance or 0.0) * half_square + (pin.energy or 0.0)

    own = np.array([cell.pins[pin].energy or 0.0 for cell, pin in simulation.drivers])
    clock = 2 * sum(taken(cell.pins[cell.clock or ""]) for cell in simulation.registers)
    return (own + simulation.sum_over_sinks(taken)) / _FEMTO, clock / _FEMTO


@lru_cache(maxsize=2)
def _library(path: Path) -> Library:
    return Library.read(path)


def _bits(operand: Operand, codes: Codes, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the bits of an operand's port, lowest first, shape (*shape, width)."""
    lanes = codes.reshape(*shape, operand.lanes or 1, 1)
    return (lanes >> np.arange(operand.format.width) & 1).reshape(*shape, -1).astype(np.bool_)


def _check_results(
    contract: Contract,
    arrays: Mapping[str, Codes],
    outputs: Mapping[str, npt.NDArray[np.bool_]],
    valid: npt.NDArray[np.bool_],
) -> None:
    """Refuse a netlist whose results differ from the golden model's, run by run."""
    expected: dict[str, list[Codes]] = {operand.name: [] for operand in contract.results}
    streams = {operand.name for operand in contract.operands}
    runs = len(valid)
    for run in range(runs):
        own = {name: codes[run] if name in streams else codes for name, codes in arrays.items()}
        for name, codes in contract.compute(own).items():
            expected[name].append(codes)
    for operand in contract.results:
        got = outputs[operand.name][valid]
        wanted = np.concatenate(expected[operand.name])
        bits = _bits(operand, wanted, (1, len(wanted)))[0]
        if got.shape != bits.shape or (got != bits).any():
            raise ActivityError(
                f"The netlist's '{operand.name}' differs from the golden model's, so its activity"
                " means nothing."
            )
