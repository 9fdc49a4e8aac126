"""A check of fp32_mac with one product and an exact sum, in compiled RTL, against libm's fmaf.

All operands are finite, of every exponent. Where fmaf overflows to infinity, the unit must
saturate; where two zeros are added, whose sum IEEE 754 gives a sign, it must give +0.
"""

import argparse
import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from fewbit.errors import UsageError, check_target, write_text
from fewbit.golden.accumulate.float_mac import FloatMacContract
from fewbit.golden.formats import BINARY32
from fewbit.hdl.accumulate.float_mac import Multiplier
from fewbit.hdl.designs import find
from fewbit.sim.bulk import BulkError, BulkSimulation, check_compiler
from fewbit.sim.yosys import YosysError

Codes = npt.NDArray[np.int64]
Operands = tuple[Codes, Codes, Codes]
"""Codes of weights, activations and accumulators."""

_CHUNK = 200_000
_SOURCE = """\
#include <cmath>
#include <cstdint>
#include <cstring>

static float real(uint32_t code) { float value; std::memcpy(&value, &code, 4); return value; }

extern "C" void fma_codes(const uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t *codes,
                          uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        float value = fmaf(real(a[i]), real(b[i]), real(c[i]));
        std::memcpy(&codes[i], &value, 4);
    }
}
"""
_SIGN = 0x8000_0000
_MAGNITUDE = 0x7FFF_FFFF
_INFINITY = 0x7F80_0000


def corners() -> Codes:
    """Return zeros, subnormals, powers of two with neighbours, and the largest, in both signs."""
    fractions = (0, 1, 2, 0x3FFFFF, 0x400000, 0x7FFFFE, 0x7FFFFF)
    # 2**-149 to 2**-24 below one, the halves of the range, one, two, 2**23 and 2**24, the top.
    exponents = (0, 1, 2, 63, 64, 103, 104, 126, 127, 128, 150, 151, 190, 191, 253, 254)
    magnitudes = [(exponent << 23) | part for exponent in exponents for part in fractions]
    return np.array([*magnitudes, *(_SIGN | code for code in magnitudes)], dtype=np.int64)


def corner_operands(fma: "FusedMultiplyAdd") -> Iterator[Operands]:
    """Return all triples of corners, and sums of a product and nearly its opposite."""
    codes = corners()
    weights, activations = (grid.ravel() for grid in np.meshgrid(codes, codes))
    for accumulator in codes:
        yield weights, activations, np.full_like(weights, accumulator)
    product = fma.compute((weights, activations, np.zeros_like(weights)))
    for nudge in range(-2, 3):
        magnitude = np.clip((product & _MAGNITUDE) + nudge, 0, _INFINITY - 1)
        yield weights, activations, magnitude | (~product & _SIGN)


def random_operands(seed: int, count: int) -> Iterator[Operands]:
    """Return random finite operands: a third uniform, a third similar, a third that cancels."""
    rng = np.random.default_rng(seed)
    contract = FloatMacContract(BINARY32, BINARY32, products=1)
    for start in range(0, count, _CHUNK):
        arrays = contract.stimulus(rng, min(_CHUNK, count - start))
        weights, activations, accumulators = (
            np.where(codes & _INFINITY == _INFINITY, codes ^ 0x4000_0000, codes)
            for codes in (
                arrays["weights"][:, 0],
                arrays["activations"][:, 0],
                arrays["accumulator"],
            )
        )
        yield weights, activations, accumulators


class FusedMultiplyAdd:
    """libm's fmaf on arrays of codes, with overflow and sums of zeros as the unit has them."""

    def __init__(self) -> None:
        check_compiler()
        with TemporaryDirectory() as folder:
            source, library = Path(folder, "fma.cc"), Path(folder, "fma.so")
            source.write_text(_SOURCE)
            command = ["g++", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-o", library, source]
            subprocess.run(command, check=True)
            self._fma = ctypes.CDLL(str(library)).fma_codes
        words = np.ctypeslib.ndpointer(np.uint32, flags="C_CONTIGUOUS")
        self._fma.argtypes = [words, words, words, words, ctypes.c_uint64]
        self._fma.restype = None

    def compute(self, operands: Operands) -> Codes:
        """Return the codes of the results."""
        weights, activations, accumulators = operands
        words = np.empty(len(weights), dtype=np.uint32)
        self._fma(*(codes.astype(np.uint32) for codes in operands), words, len(words))
        codes = words.astype(np.int64)
        codes[codes & _MAGNITUDE == _INFINITY] -= 1
        factor_zero = (weights & _MAGNITUDE == 0) | (activations & _MAGNITUDE == 0)
        codes[factor_zero & (accumulators & _MAGNITUDE == 0)] = 0
        return codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000_000, help="random beats, default 10^7")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--multiplier", choices=get_args(Multiplier), default="plain")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.seed < 0:
        parser.error("--count must be at least 1, --seed at least 0.")
    figures = {"corners": 0, "random": 0, "wrong": 0}
    console = Console(stderr=True)
    try:
        if options.json is not None:
            check_target(options.json)
        fma = FusedMultiplyAdd()
        settings = {"products": 1, "window": None, "multiplier": options.multiplier}
        circuit = BulkSimulation(find("fp32_mac").configure(settings))
        kinds = {
            "corners": corner_operands(fma),
            "random": random_operands(options.seed, options.count),
        }
        totals = {"corners": len(corners()) ** 2 * (len(corners()) + 5), "random": options.count}
        started = time.perf_counter()
        with Progress(console=console, disable=not sys.stderr.isatty()) as progress:
            for kind, coming in kinds.items():
                task = progress.add_task(kind, total=totals[kind])
                for number, operands in enumerate(coming):
                    wrong = _check(circuit, fma, operands, number)
                    figures[kind] += len(operands[0])
                    figures["wrong"] += wrong
                    progress.advance(task, len(operands[0]))
        seconds = round(time.perf_counter() - started, 1)
        print(
            f"fp32_mac, one product, {options.multiplier}, exact, against fmaf:"
            f" {figures['corners']:,} corner and {figures['random']:,} random beats"
            f" (seed {options.seed}), {figures['wrong']:,} wrong, {seconds} s"
        )
        if options.json is not None:
            row = {"design": "fp32_mac", "parameters": settings, "seed": options.seed}
            row |= {**figures, "seconds": seconds}
            write_text(options.json, json.dumps({"rows": [row]}, indent=2) + "\n")
    except (BulkError, YosysError, UsageError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if figures["wrong"] else 0


def _check(circuit: BulkSimulation, fma: FusedMultiplyAdd, operands: Operands, number: int) -> int:
    """Print the first wrong result of the circuit, and return how many are wrong."""
    weights, activations, accumulators = operands
    expected = fma.compute(operands)
    arrays = {
        "weights": weights[:, np.newaxis],
        "activations": activations[:, np.newaxis],
        "accumulator": accumulators,
    }
    # Every second chunk with pauses on both streams.
    stall_seed = number if number % 2 else None
    got = circuit.run(arrays, len(expected), stall_seed=stall_seed)["result"]
    wrong = np.flatnonzero(got != expected)
    if len(wrong):
        index = int(wrong[0])
        codes = " ".join(f"{int(each[index]):08x}" for each in operands)
        print(
            f"weight, activation, accumulator {codes}: {int(got[index]):08x},"
            f" not {int(expected[index]):08x}",
            file=sys.stderr,
        )
    return len(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
