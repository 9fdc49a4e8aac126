"""Gate-level simulation of a netlist of library cells, with the toggles of each of its nets.

Many independent runs are simulated side by side, one in each bit of a word. All runs advance by a
cycle together, so circuits with feedback can be simulated as well as pipelines. Cells of one kind
and level are evaluated at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fewbit.sim.liberty import Cell, Library, Pin, evaluate, pins_of

__all__ = ["Delay", "GateLevelSimulation", "NetlistError", "Recording", "pack_runs", "unpack_runs"]

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Delay = Literal["zero", "unit"]
_ALL = np.uint64(2**64 - 1)


class NetlistError(ValueError):
    """A netlist that holds something that cannot be simulated."""


@dataclass(frozen=True, eq=False)
class Recording:
    """The toggles and outputs that a simulation recorded."""

    toggles: Counts
    """Number of changes of every cell output, over all runs and counted cycles."""
    transitions: int
    """Number of pairs of successive cycles that were counted, over all runs."""
    outputs: Mapping[str, Words]
    """Settled values of the output ports in every cycle, in the form of :func:`pack_runs`."""


@dataclass(frozen=True, eq=False)
class _Group:
    """Cells of one kind that are evaluated together: nets by pin, and the nets they drive."""

    cell: Cell
    inputs: Mapping[str, npt.NDArray[np.intp]]
    outputs: Mapping[str, npt.NDArray[np.intp]]


def pack_runs(bits: npt.NDArray[np.bool_]) -> Words:
    """Return bits (runs, cycles, width) as words (cycles, width, words), one bit for each run."""
    runs, cycles, width = bits.shape
    padded = np.zeros((-(-runs // 64) * 64, cycles, width), np.bool_)
    padded[:runs] = bits
    octets = np.packbits(padded, axis=0, bitorder="little").transpose(1, 2, 0)
    return np.ascontiguousarray(octets).view("<u8").astype(np.uint64)


def unpack_runs(words: Words, runs: int) -> npt.NDArray[np.bool_]:
    """Return the bits, shape (runs, cycles, width), that :func:`pack_runs` packed."""
    octets = np.ascontiguousarray(words).astype("<u8").view(np.uint8)
    bits = np.unpackbits(octets, axis=2, bitorder="little", count=runs)
    return bits.transpose(2, 0, 1).astype(np.bool_)


class GateLevelSimulation:
    """A netlist of library cells under one clock, simulated for many runs at once.

    All registers start at 0. Within a cycle the nets settle to their final values.

    Parameters
    ----------
    netlist
        A module in Yosys's JSON: ports, and cells with their connections. Bits that are undefined
        or not driven are 0.
    library
        The cells with their functions.
    clock
        Name of the clock's port.

    Raises
    ------
    NetlistError
        If a cell is unknown, has no function or is clocked by another net, if two cells drive one
        net, or if cells form a loop.
    """

    def __init__(self, netlist: Mapping[str, Any], library: Library, clock: str = "clk") -> None:
        clocks = netlist["ports"][clock]["bits"] if clock in netlist["ports"] else []
        cells = {
            name: (_known(cell["type"], library), cell["connections"])
            for name, cell in netlist["cells"].items()
            if cell["type"] != "$scopeinfo"
        }
        numbers = count(2)
        nets: dict[int | str, int] = {"0": 0, "1": 1, "x": 0, "z": 0}
        self._inputs: dict[str, list[int]] = {}
        for name, port in netlist["ports"].items():
            if port["direction"] == "input" and name != clock:
                self._inputs[name] = [nets.setdefault(bit, next(numbers)) for bit in port["bits"]]
        driven: set[int | str] = set(nets)
        sources: dict[str, tuple[str, ...]] = {}
        self.drivers: list[tuple[Cell, str]] = []
        """Cell and pin of each cell output, in the order of :class:`Recording`."""
        positions: list[int] = []
        for name, (cell, connections) in cells.items():
            if cell.clock is not None and connections[cell.clock] != clocks:
                raise NetlistError(f"Register '{name}' isn't clocked by port '{clock}'.")
            sources[name] = tuple(pin for pin in cell.outputs if connections.get(pin))
            for pin in sources[name]:
                (bit,) = connections[pin]
                if bit in driven or bit in clocks:
                    raise NetlistError(f"Net {bit} is driven twice, once by '{name}'.")
                driven.add(bit)
                nets[bit] = next(numbers)
                self.drivers.append((cell, pin))
                positions.append(nets[bit])
        self._nets = max(nets.values()) + 1
        self._driven = np.array(positions, dtype=np.intp)
        self._sinks = [
            (nets.get(bit, 0), cell.pins[pin])
            for cell, connections in cells.values()
            for pin in cell.pins
            if cell.pins[pin].direction == "input" and pin != cell.clock
            for bit in connections.get(pin, ())
        ]
        self._outputs = {
            name: [nets.get(bit, 0) for bit in port["bits"]]
            for name, port in netlist["ports"].items()
            if port["direction"] == "output"
        }
        registers = [name for name, (cell, _) in cells.items() if cell.clock is not None]
        self.registers: list[Cell] = [cells[name][0] for name in registers]
        """The cell of every register."""
        self._registers = _groups({name: cells[name] for name in registers}, nets, sources)
        levels = _levels(cells, sources)
        self._in_order = [
            group
            for level in levels
            for group in _groups({name: cells[name] for name in level}, nets, sources)
        ]
        self._together = _groups(
            {name: cells[name] for level in levels for name in level}, nets, sources
        )

    def sum_over_sinks(self, weight: Callable[[Pin], float]) -> npt.NDArray[np.float64]:
        """Return, for each cell output, the sum of a weight of the input pins that it drives.

        Clock pins are left out.
        """
        sums = np.zeros(self._nets)
        for net, pin in self._sinks:
            sums[net] += weight(pin)
        return sums[self._driven]

    def run(
        self, inputs: Mapping[str, Words], runs: int, counted: slice, delay: Delay = "zero"
    ) -> Recording:
        """Simulate all cycles of the inputs, and return the toggles and outputs.

        Parameters
        ----------
        inputs
            The bits of every input port except the clock in every cycle, in the form of
            :func:`pack_runs`.
        runs
            Number of runs in the words.
        counted
            Cycles whose changes from the cycle before count as toggles; cycle 0 never counts.
        delay
            ``zero``: a net toggles at most once a cycle, from its settled value to the next.
            ``unit``: every cell takes one unit of time, and every change counts. That includes
            glitches, even those too short to pass a real cell.
        """
        if set(inputs) != set(self._inputs):
            raise ValueError(f"Inputs must be {sorted(self._inputs)}, not {sorted(inputs)}.")
        cycles, _, words = next(iter(inputs.values())).shape
        mask = np.full(words, _ALL)
        if runs % 64:
            mask[-1] = np.uint64(2 ** (runs % 64) - 1)
        values = np.zeros((self._nets, words), np.uint64)
        values[1] = _ALL
        states = [np.zeros((_size(group), words), np.uint64) for group in self._registers]
        toggles = np.zeros(len(self._driven), np.int64)
        outputs = {
            name: np.zeros((cycles, len(nets), words), np.uint64)
            for name, nets in self._outputs.items()
        }
        is_counted = np.zeros(cycles, np.bool_)
        is_counted[counted] = True
        is_counted[:1] = False

        def toggled(changes: Words) -> Counts:
            return np.bitwise_count(changes & mask).sum(axis=1, dtype=np.int64)

        for cycle in range(cycles):
            before = values[self._driven]
            for name, nets in self._inputs.items():
                values[nets] = inputs[name][cycle]
            for group, state in zip(self._registers, states, strict=True):
                _drive(group, values, values, state)
            if delay == "unit" and is_counted[cycle]:
                toggles += toggled(values[self._driven] ^ before)
                is_settled = False
                while not is_settled:
                    following = values.copy()
                    for group in self._together:
                        _drive(group, values, following)
                    changes = (following ^ values)[self._driven]
                    toggles += toggled(changes)
                    is_settled = not changes.any()
                    values = following
            else:
                for group in self._in_order:
                    _drive(group, values, values)
                if is_counted[cycle]:
                    toggles += toggled(values[self._driven] ^ before)
            for name, nets in self._outputs.items():
                outputs[name][cycle] = values[nets]
            states = [
                evaluate(_next_state(group.cell), _pins(group, values, state))
                for group, state in zip(self._registers, states, strict=True)
            ]
        return Recording(toggles, int(is_counted.sum()) * runs, outputs)


def _known(name: str, library: Library) -> Cell:
    if name not in library.cells:
        what = "a memory" if name.startswith("$mem") else f"'{name}', no cell of the library"
        raise NetlistError(f"Gate-level simulation takes library cells only; this is {what}.")
    cell = library.cells[name]
    if cell.unsupported:
        raise NetlistError(f"Cell '{name}' can't be simulated: {cell.unsupported}.")
    return cell


def _next_state(cell: Cell) -> tuple[Any, ...]:
    assert cell.next_state is not None
    return cell.next_state


def _size(group: _Group) -> int:
    return len(next(iter(group.inputs.values())))


def _pins(group: _Group, values: Words, state: Words | None) -> dict[str, Words]:
    """Return the values of the pins and state variables of the cells of a group."""
    pins = {pin: values[nets] for pin, nets in group.inputs.items()}
    if state is not None:
        pins |= dict(zip(group.cell.states, (state, ~state), strict=False))
    return pins


def _drive(group: _Group, values: Words, target: Words, state: Words | None = None) -> None:
    """Write the outputs that follow from ``values`` into ``target``."""
    pins = _pins(group, values, state)
    for pin, nets in group.outputs.items():
        function = group.cell.pins[pin].function
        assert function is not None
        target[nets] = evaluate(function, pins)


_Cells = Mapping[str, tuple[Cell, Mapping[str, list[Any]]]]


def _groups(
    cells: _Cells, nets: Mapping[int | str, int], sources: Mapping[str, tuple[str, ...]]
) -> list[_Group]:
    """Return the cells by kind and connected outputs; unconnected inputs are 0."""
    kinds: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, (cell, _) in cells.items():
        kinds.setdefault((cell.name, sources[name]), []).append(name)
    groups: list[_Group] = []
    for (_, outputs), names in kinds.items():
        cell = cells[names[0]][0]

        def net(name: str, pin: str) -> int:
            bits = cells[name][1].get(pin) or ["0"]
            return nets.get(bits[0], 0)

        groups.append(
            _Group(
                cell,
                {
                    pin: np.array([net(name, pin) for name in names], dtype=np.intp)
                    for pin, description in cell.pins.items()
                    if description.direction == "input"
                },
                {
                    pin: np.array([net(name, pin) for name in names], dtype=np.intp)
                    for pin in outputs
                },
            )
        )
    return groups


def _levels(cells: _Cells, sources: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """Return the names of the combinational cells by level; a level reads earlier levels only."""
    logic = {name: pair for name, pair in cells.items() if pair[0].clock is None}
    driver = {
        connections[pin][0]: name
        for name, (_, connections) in logic.items()
        for pin in sources[name]
    }
    readers: dict[str, list[str]] = {name: [] for name in logic}
    missing: dict[str, int] = {}
    for name, (cell, connections) in logic.items():
        read = set().union(*(pins_of(cell.pins[pin].function or ()) for pin in sources[name]))
        drivers = [driver[bit] for pin in read for bit in connections.get(pin, ()) if bit in driver]
        missing[name] = len(drivers)
        for source in drivers:
            readers[source].append(name)
    levels: list[list[str]] = []
    ready = [name for name, number in missing.items() if number == 0]
    while ready:
        levels.append(ready)
        following: list[str] = []
        for name in ready:
            for reader in readers[name]:
                missing[reader] -= 1
                if missing[reader] == 0:
                    following.append(reader)
        ready = following
    if sum(len(level) for level in levels) != len(logic):
        raise NetlistError("Cells of the netlist form a loop without a register.")
    return levels
