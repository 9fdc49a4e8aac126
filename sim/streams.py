"""Driver and checker of a circuit's streams: stalls, back-pressure, protocol, values.

One coroutine does everything at the rising edge. There it reads the values from before the edge.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cocotb.triggers import RisingEdge

from fewbit.golden.contract import Contract, describe
from fewbit.golden.operands import Operand, pack

__all__ = [
    "BenchFailure",
    "Exchange",
    "Sink",
    "StreamBench",
    "Vectors",
    "always",
    "pauses",
    "port_values",
    "until_full",
]

Codes = npt.NDArray[np.int64]

Sink = Callable[[bool, int], bool]
"""A function that says whether the sink is ready in the next cycle.

Its arguments are o_valid and the number of cycles since a beat last entered the circuit.
"""

QUIET_CYCLES = 64
"""Number of cycles without an accepted beat after which a blocked circuit is considered full."""


class BenchFailure(AssertionError):
    """A circuit that broke its contract or the stream protocol."""


@dataclass(frozen=True)
class Vectors:
    """Beats to send, the configuration to hold, and the results to expect."""

    seed: int
    arrays: Mapping[str, Codes]
    expected: Mapping[str, Codes]


@dataclass(frozen=True)
class Exchange:
    """The cycles at which beats moved, from the start: first and last in, last out."""

    first_in: int
    last_in: int
    last_out: int


def always() -> Iterator[bool]:
    """Yield True for ever: no pause."""
    while True:
        yield True


def pauses(rng: random.Random, share: float, burst: int = 1) -> Iterator[bool]:
    """Yield runs of True and of False of 1 to ``burst`` cycles; ``share`` of the time is False."""
    while True:
        go = rng.random() >= share
        for _ in range(rng.randint(1, burst)):
            yield go


def until_full(rng: random.Random) -> Sink:
    """Return a sink that stalls until the circuit is full, takes a few beats, and stalls again.

    The circuit is full when it offers a result and has taken no beat for `QUIET_CYCLES`.
    """
    open_cycles = 0

    def ready(valid: bool, quiet: int) -> bool:
        nonlocal open_cycles
        if open_cycles:
            open_cycles -= 1
        elif valid and quiet >= QUIET_CYCLES:
            open_cycles = rng.randint(0, 40)
            return True
        return open_cycles > 0

    return ready


def port_values(operand: Operand, codes: Codes) -> list[int]:
    """Return one whole number for each beat: the port's bits, lane 0 lowest."""
    words = pack((operand,), {operand.name: codes})
    if words.shape[1] == 1:
        return words[:, 0].tolist()
    data, size = words.astype("<u8").tobytes(), words.shape[1] * 8
    return [int.from_bytes(data[k : k + size], "little") for k in range(0, len(data), size)]


class _Port:
    """A port to drive, which writes only values that change."""

    def __init__(self, dut: Any, operand: Operand) -> None:
        self.handle = getattr(dut, operand.name)
        self.width = operand.width
        self.current: int | None = None

    def drive(self, value: int) -> None:
        if value != self.current:
            self.current = value
            # The simulator accepts numbers of more than 32 bits only as text.
            self.handle.value = value if self.width <= 32 else f"{value:0{self.width}b}"


class StreamBench:
    """The bench of a circuit with streams ``i`` and ``o`` and the ports of its contract.

    Parameters
    ----------
    dut
        cocotb's handle of the generated module.
    contract
        The contract, for the names and formats of the ports and to explain a counterexample.
    patience
        Cycles without a beat on either stream that count as a hang.
    """

    def __init__(self, dut: Any, contract: Contract, patience: int) -> None:
        self.dut = dut
        self.contract = contract
        self.patience = patience
        self.edge = RisingEdge(dut.clk)
        self.inputs = [_Port(dut, operand) for operand in contract.operands]
        self.settings = [_Port(dut, operand) for operand in contract.configuration]
        self.outputs = [getattr(dut, operand.name) for operand in contract.results]
        (self.i_valid, self.i_ready), (self.o_valid, self.o_ready) = (
            tuple(getattr(dut, name) for name in contract.handshakes[stream]) for stream in "io"
        )
        self.compared = 0
        """Results compared so far, in all exchanges."""
        self.cycles = 0
        """Clock cycles of all exchanges so far."""

    async def reset(self, arrays: Mapping[str, Codes]) -> None:
        """Reset for three cycles, with the configuration of ``arrays`` set meanwhile."""
        self.dut.rst.value = 1
        self.i_valid.value = 0
        self.o_ready.value = 0
        for port, operand in zip(self.settings, self.contract.configuration, strict=True):
            port.drive(port_values(operand, arrays[operand.name])[0])
        for port in self.inputs:
            port.drive(0)
        for _ in range(3):
            await self.edge
        self.dut.rst.value = 0
        for _ in range(2):
            await self.edge
            if self._o_valid():
                raise BenchFailure("o_valid is high after a reset, before any beat went in.")

    async def exchange(
        self, vectors: Vectors, source: Iterator[bool], sink: Sink, beats: int | None = None
    ) -> Exchange:
        """Send the beats, and compare every result.

        The exchange ends when all results have arrived, or, if ``beats`` is not None, when the
        circuit has accepted so many beats.

        Raises
        ------
        BenchFailure
            At the first wrong result, breach of the protocol, or hang.
        """
        edge = self.edge
        sends = [
            port_values(operand, vectors.arrays[operand.name]) for operand in self.contract.operands
        ]
        expected = list(
            zip(
                *(
                    port_values(operand, vectors.expected[operand.name])
                    for operand in self.contract.results
                ),
                strict=True,
            )
        )
        total = len(sends[0])
        single = self.outputs[0] if len(self.outputs) == 1 else None
        i_ready, o_valid = self.i_ready, self.o_valid
        sent = got = cycle = quiet = idle = 0
        first_in = last_in = last_out = 0
        offering = ready = shown_valid = False
        held: tuple[int, ...] | None = None
        while got < len(expected) and (beats is None or sent < beats):
            # A beat once offered stays until it is taken.
            if not offering and sent < total and next(source):
                offering = True
                for port, values in zip(self.inputs, sends, strict=True):
                    port.drive(values[sent])
            if offering != shown_valid:
                shown_valid = offering
                self.i_valid.value = int(offering)
                if not offering and sent < total:
                    self._drive_nonsense(sends, sent)
            accept = sink(held is not None, quiet)
            if accept != ready:
                ready = accept
                self.o_ready.value = int(ready)

            await edge
            cycle += 1
            self.cycles += 1
            idle += 1
            quiet += 1
            try:
                taken = offering and i_ready.value == 1
                if offering and not taken and i_ready.value != 0:
                    raise BenchFailure("i_ready is neither 0 nor 1 (X).")
                if int(o_valid.value):
                    if single is not None:
                        payload = (int(single.value),)
                    else:
                        payload = tuple(int(output.value) for output in self.outputs)
                    if held is not None and payload != held:
                        raise BenchFailure(
                            f"The payload changed while o_valid waited for o_ready, at result"
                            f" {got}:\n{self._shown('before', held)}\n"
                            f"{self._shown('after', payload)}"
                        )
                    if ready:
                        if payload != expected[got]:
                            raise BenchFailure(
                                self._difference(vectors, got, expected[got], payload)
                            )
                        got += 1
                        self.compared += 1
                        last_out = cycle
                        idle = 0
                        held = None
                    else:
                        held = payload
                elif held is not None:
                    raise BenchFailure(
                        f"o_valid fell while it waited for o_ready, at result {got}."
                    )
            except ValueError as error:
                raise BenchFailure(
                    f"An output holds X while it counts, at result {got}: {error}"
                ) from error
            if taken:
                sent += 1
                first_in = first_in or cycle
                last_in = cycle
                offering = False
                idle = quiet = 0
            if idle > self.patience:
                raise BenchFailure(
                    f"Nothing moved for {self.patience} cycles:"
                    f" {sent} of {total} beats went in, {got} of {len(expected)} results came out,"
                    f" i_valid = {int(offering)}, o_ready = {int(ready)}."
                    + ("" if ready or held else " Does o_valid wait for o_ready?")
                )
        if beats is None and sent < total:
            raise BenchFailure(
                f"All {got} results came although only {sent} of {total} beats had gone in."
            )
        return Exchange(first_in, last_in, last_out)

    async def expect_silence(self, cycles: int = 200) -> None:
        """Check that no result is left over although the sink is ready."""
        self.i_valid.value = 0
        self.o_ready.value = 1
        for _ in range(cycles):
            await self.edge
            if self._o_valid():
                raise BenchFailure("A result came after the last expected one.")
        self.o_ready.value = 0

    def _o_valid(self) -> int:
        try:
            return int(self.o_valid.value)
        except ValueError as error:
            raise BenchFailure("o_valid is neither 0 nor 1 (X).") from error

    def _drive_nonsense(self, sends: list[list[int]], index: int) -> None:
        """Drive the complement of the next beat, as the circuit must ignore an idle payload."""
        for port, values in zip(self.inputs, sends, strict=True):
            port.drive(values[index] ^ ((1 << port.width) - 1))

    def _shown(self, title: str, payload: tuple[int, ...]) -> str:
        lines: list[str] = []
        for operand, bits in zip(self.contract.results, payload, strict=True):
            width = operand.format.width
            lanes = [bits >> (width * k) & ((1 << width) - 1) for k in range(operand.lanes or 1)]
            lines.append(f"  {title} {describe(operand, lanes)}")
        return "\n".join(lines)

    def _difference(
        self, vectors: Vectors, index: int, expected: tuple[int, ...], got: tuple[int, ...]
    ) -> str:
        explained = "\n".join(f"  {line}" for line in self.contract.explain(vectors.arrays, index))
        return (
            f"Result {index} (seed {vectors.seed}) differs from the golden model:\n{explained}\n"
            f"{self._shown('expected', expected)}\n{self._shown('got', got)}"
        )
