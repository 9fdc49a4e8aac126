"""The cocotb bench of every design with streams ``i`` and ``o``.

The simulator's process imports this module. The environment variable ``FEWBIT_BENCH`` names the
folder to which :mod:`fewbit.sim.runner` wrote the contract, the vectors and the timing.
"""

import json
import os
import pickle
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock

from fewbit.golden.contract import Contract
from fewbit.sim.streams import (
    BenchFailure,
    Exchange,
    Sink,
    StreamBench,
    Vectors,
    always,
    pauses,
    until_full,
)

VECTOR_SETS = {
    "full_rate": 1.0,
    "idle": 0.125,
    "blocked": 0.125,
    "both": 0.125,
    "bursts": 0.125,
    "long_back_pressure": 0.125,
    "before_reset": 0.0625,
    "after_reset": 0.0625,
}
"""Vector sets of the tests, and the share of the wanted results that each one has."""

STALLS = {
    "idle": (0.8, 0.1, 1),
    "blocked": (0.1, 0.8, 1),
    "both": (0.4, 0.4, 1),
    "bursts": (0.5, 0.5, 12),
}
"""Mixes of stalls: share of idle source cycles, share of blocked sink cycles, longest run."""

_SLACK = 8
"""Number of cycles that a full-rate run may lose in total and still pass as a beat a cycle."""


@dataclass(frozen=True)
class _Setup:
    folder: Path
    contract: Contract
    latency: str
    interval: str
    patience: int
    seeds: dict[str, int]

    def vectors(self, name: str) -> Vectors:
        with np.load(self.folder / "vectors.npz") as file:
            fields = (*self.contract.operands, *self.contract.configuration)
            return Vectors(
                self.seeds[name],
                {operand.name: file[f"{name}/i/{operand.name}"] for operand in fields},
                {
                    operand.name: file[f"{name}/o/{operand.name}"]
                    for operand in self.contract.results
                },
            )


@cache
def _setup() -> _Setup:
    folder = Path(os.environ["FEWBIT_BENCH"])
    contract = pickle.loads((folder / "contract.pickle").read_bytes())
    return _Setup(folder, contract, **json.loads((folder / "bench.json").read_text()))


@contextmanager
def _bench(dut: Any, test: str) -> Iterator[tuple[_Setup, StreamBench]]:
    """Give a bench with a running clock; at the end, report what it compared, even on failure."""
    setup = _setup()
    Clock(dut.clk, 10, unit="ns").start()
    bench = StreamBench(dut, setup.contract, setup.patience)
    started = time.perf_counter()
    try:
        yield setup, bench
    finally:
        row = {
            "test": test,
            "transactions": bench.compared,
            "cycles": bench.cycles,
            "seconds": time.perf_counter() - started,
        }
        with (setup.folder / "report.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def _ready(pattern: Iterator[bool]) -> Sink:
    return lambda _valid, _quiet: next(pattern)


@cocotb.test()
async def full_rate(dut: Any) -> None:
    """Check corners and random vectors without stalls, and the timing of the data sheet."""
    with _bench(dut, "full_rate") as (setup, bench):
        vectors = setup.vectors("full_rate")
        await bench.reset(vectors.arrays)
        done = await bench.exchange(vectors, always(), lambda _valid, _quiet: True)
        await bench.expect_silence()
        if setup.interval == "1":
            _check_timing(setup, done, len(vectors.arrays[setup.contract.operands[0].name]))


def _check_timing(setup: _Setup, done: Exchange, beats: int) -> None:
    cycles = done.last_in - done.first_in + 1
    if cycles > beats + _SLACK:
        raise BenchFailure(f"{beats} beats took {cycles} cycles to go in, not one each.")
    latency = done.last_out - done.last_in
    if setup.latency.isdecimal() and latency != int(setup.latency):
        raise BenchFailure(
            f"The last result came {latency} cycles after the last beat;"
            f" the data sheet's latency is {setup.latency}."
        )


@cocotb.test()
@cocotb.parametrize(mix=list(STALLS))
async def random_stalls(dut: Any, mix: str) -> None:
    """Check random vectors while source and sink pause at random."""
    with _bench(dut, f"random_stalls/mix={mix}") as (setup, bench):
        vectors = setup.vectors(mix)
        idle, pressure, burst = STALLS[mix]
        rng = random.Random(vectors.seed)
        await bench.reset(vectors.arrays)
        sink = _ready(pauses(rng, pressure, burst))
        await bench.exchange(vectors, pauses(rng, idle, burst), sink)
        await bench.expect_silence()


@cocotb.test()
async def long_back_pressure(dut: Any) -> None:
    """Keep the sink from being ready until everything is full, again and again."""
    with _bench(dut, "long_back_pressure") as (setup, bench):
        vectors = setup.vectors("long_back_pressure")
        await bench.reset(vectors.arrays)
        await bench.exchange(vectors, always(), until_full(random.Random(vectors.seed)))
        await bench.expect_silence()


@cocotb.test()
async def reset_midway(dut: Any) -> None:
    """Reset the circuit with beats in flight; a fresh sequence must be right after it."""
    with _bench(dut, "reset_midway") as (setup, bench):
        before, after = setup.vectors("before_reset"), setup.vectors("after_reset")
        rng = random.Random(before.seed)
        beats = len(before.arrays[setup.contract.operands[0].name])
        for share in (0.3, 0.6, 0.9):
            await bench.reset(before.arrays)
            cut = max(1, int(beats * share))
            await bench.exchange(before, always(), _ready(pauses(rng, 0.5, 8)), cut)
        await bench.reset(after.arrays)
        await bench.exchange(after, pauses(rng, 0.2, 2), _ready(pauses(rng, 0.2, 2)))
        await bench.expect_silence()
