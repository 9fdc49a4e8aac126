"""Compiled bulk simulation: the generated Verilog as a shared library, driven by numpy arrays.

Yosys turns the Verilog into C++ (CXXRTL), the C++ compiler into a library, and
``bulk_harness.cc`` drives its streams: millions of beats a second, bit for bit.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.golden.contract import Contract, describe
from fewbit.golden.operands import Operand, check_arrays, pack, total_width, unpack
from fewbit.hdl.design import ConfiguredDesign
from fewbit.sim import cxxrtl, yosys
from fewbit.sim.verilog import verilog_of

try:
    import fcntl
except ImportError:  # Windows: two processes may compile the same circuit; the result is right.
    fcntl = None

__all__ = [
    "BulkError",
    "BulkFailure",
    "BulkOutcome",
    "BulkSimulation",
    "check_bulk",
    "check_compiler",
    "compare",
]

Codes = npt.NDArray[np.int64]

_HARNESS = Path(__file__).with_name("bulk_harness.cc")
# A word that a memory doesn't have may be addressed as long as it doesn't count.
_FLAGS = ("-std=c++17", "-fPIC", "-shared", "-w", "-DCXXRTL_NDEBUG")
_OPTIMIZED = ("-O2",)
# CXXRTL's runtime forces its functions inline even here, which makes a wide circuit five times as
# long to compile; an attribute without effect in place of that one leaves them to the compiler.
_UNOPTIMIZED = ("-O0", "-D__always_inline__=__unused__")
_SCRIPT = """\
read_verilog design.v
hierarchy -check -top {top}
write_cxxrtl -g0 design.cc
opt_clean
write_cxxrtl -g0 clean.cc
"""
_SETTLES = "bool converged = true;"
"""The text that CXXRTL writes for a circuit in which one evaluation gives every wire its value.

In other circuits a word of wires seems to depend on itself, and a cycle takes several evaluations.
Removing the aliases of wires avoids that in some designs, and causes it in others.
"""
_STATUS = (
    "",
    "nothing moved for {patience} cycles",
    "the payload changed while o_valid waited for o_ready",
    "o_valid fell while it waited for o_ready",
    "a result came after the last expected one",
)


class BulkError(RuntimeError):
    """A missing C++ compiler, or one that refuses the design."""


class BulkFailure(AssertionError):
    """A circuit that hung, or that broke the stream protocol."""

    def __init__(self, message: str, received: Mapping[str, Codes]) -> None:
        super().__init__(message)
        self.received = received
        """The results before the failure, by name."""


@dataclass(frozen=True)
class BulkOutcome:
    """The result of a bulk check."""

    design: str
    seed: int
    vectors: int
    """Number of results that were compared."""
    mismatches: int
    """Number of results that differ or are missing."""
    beats: int
    cycles: int
    seconds_rtl: float
    seconds_golden: float
    counterexample: str
    """The first difference in codes and reals; empty if there is none."""

    @property
    def passed(self) -> bool:
        """Return whether results were compared and all of them agree."""
        return self.vectors > 0 and not self.mismatches


def check_compiler() -> str:
    """Return the version line of the C++ compiler.

    Raises
    ------
    BulkError
        If g++ is missing.
    """
    if shutil.which("g++") is None:
        raise BulkError(
            "Bulk simulation needs the C++ compiler g++, missing here;"
            " on Debian, run 'apt-get install g++'."
        )
    return _compiler_version()


@cache
def _compiler_version() -> str:
    process = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    return process.stdout.splitlines()[0]


class BulkSimulation:
    """A compiled circuit with its state.

    Parameters
    ----------
    configured
        The design with its parameters.
    cache_dir
        Folder of compiled libraries. A library is used again while Verilog, harness and tools stay
        the same.
    verilog
        Verilog text to simulate in place of the generator's.
    optimized
        Whether the compiler optimises. That makes a run some ten times faster, but takes minutes
        for a layer of dozens of lanes.

    Raises
    ------
    BulkError
        If g++ is missing or fails.
    """

    def __init__(
        self,
        configured: ConfiguredDesign,
        cache_dir: Path = Path("build/bulk"),
        *,
        verilog: str | None = None,
        optimized: bool = True,
    ) -> None:
        self.configured = configured
        self.contract: Contract = configured.contract
        self.cycles = 0
        """Clock cycles of the last run."""
        text = verilog_of(configured) if verilog is None else verilog
        flags = (*_FLAGS, *(_OPTIMIZED if optimized else _UNOPTIMIZED))
        path = _compiled(configured.name, self.contract, text, cache_dir, flags)
        self._library = ctypes.CDLL(str(path))
        self._library.fewbit_new.restype = ctypes.c_void_p
        self._library.fewbit_reset.argtypes = [ctypes.c_void_p]
        self._library.fewbit_delete.argtypes = [ctypes.c_void_p]
        words = np.ctypeslib.ndpointer(np.uint64, flags="C_CONTIGUOUS")
        self._library.fewbit_run.restype = ctypes.c_int64
        self._library.fewbit_run.argtypes = [
            ctypes.c_void_p,
            words,
            words,
            ctypes.c_uint64,
            words,
            *(ctypes.c_uint64,) * 4,
            words,
        ]
        self._circuit = ctypes.c_void_p(self._library.fewbit_new())
        self.reset()

    def __del__(self) -> None:
        if hasattr(self, "_circuit"):
            self._library.fewbit_delete(self._circuit)

    def reset(self) -> None:
        """Reset the circuit to its initial state."""
        self._library.fewbit_reset(self._circuit)

    def run(
        self,
        arrays: Mapping[str, Codes],
        results: int,
        *,
        stall_seed: int | None = None,
        reset: bool = True,
        patience: int = 20_000,
        silence: int = 64,
    ) -> dict[str, Codes]:
        """Send beats, and return the results in order.

        Parameters
        ----------
        arrays
            Codes by operand, a row a beat, and the configuration, one row.
        results
            Number of results to expect.
        stall_seed
            Seed of pauses on both streams; None for no pauses.
        reset
            Whether to reset first; otherwise the state of the last call stays.
        patience
            Cycles without any progress that count as a hang.
        silence
            Cycles after the last result in which no other result may come.

        Raises
        ------
        ValueError
            If an array is missing, has a wrong shape, or holds a code out of range.
        BulkFailure
            If results are missing or left over, or the protocol is broken.
        """
        contract = self.contract
        beats = check_arrays(contract.operands, arrays)
        check_arrays(contract.configuration, arrays)
        if reset:
            self.reset()
        received, status, progress = self._run(
            _words(contract.configuration, arrays),
            np.ascontiguousarray(pack(contract.operands, arrays)),
            results,
            0 if stall_seed is None else stall_seed * 2 + 1,
            (patience, silence),
        )
        if status:
            raise BulkFailure(
                f"{self.configured.name}: {_STATUS[status].format(patience=patience)};"
                f" {progress[0]} of {beats} beats had gone in,"
                f" {progress[1]} of {results} results had come out.",
                unpack(contract.results, received[: progress[1]]),
            )
        return unpack(contract.results, received)

    def _run(
        self,
        configuration: npt.NDArray[np.uint64],
        words: npt.NDArray[np.uint64],
        results: int,
        stall: int,
        limits: tuple[int, int],
    ) -> tuple[npt.NDArray[np.uint64], int, list[int]]:
        received = np.zeros((results, _word_count(self.contract.results)), dtype=np.uint64)
        progress = np.zeros(3, dtype=np.uint64)
        status = self._library.fewbit_run(
            self._circuit,
            configuration,
            words,
            len(words),
            received,
            results,
            stall,
            *limits,
            progress,
        )
        self.cycles = int(progress[2])
        return received, status, progress.tolist()


def check_bulk(
    configured: ConfiguredDesign,
    *,
    count: int,
    seed: int = 1,
    chunk: int = 50_000,
    cache_dir: Path = Path("build/bulk"),
    verilog: str | None = None,
) -> BulkOutcome:
    """Compile a circuit, and compare ``count`` of its results with the golden model.

    The function :func:`compare` does the same with a circuit that is already compiled.

    Raises
    ------
    BulkError
        If the circuit can't be compiled.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}.")
    simulation = BulkSimulation(configured, cache_dir, verilog=verilog)
    return compare(simulation, count=count, seed=seed, chunk=chunk)


def compare(
    simulation: BulkSimulation, *, count: int, seed: int = 1, chunk: int = 50_000
) -> BulkOutcome:
    """Compare ``count`` results of the circuit with the golden model, chunk by chunk.

    Every second chunk runs with random stalls on both streams. The circuit is reset only once, so
    that state which one chunk wrongly leaves would show in the next chunk.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}.")
    contract = simulation.contract
    rng = np.random.default_rng(seed)
    vectors = mismatches = beats = cycles = 0
    seconds_rtl = seconds_golden = 0.0
    first = ""
    for number, start in enumerate(range(0, count, chunk)):
        arrays = contract.stimulus(rng, min(chunk, count - start))
        started = time.perf_counter()
        expected = contract.compute(arrays)
        seconds_golden += time.perf_counter() - started
        results = len(expected[contract.results[0].name])
        stall_seed = int(rng.integers(2**62)) if number % 2 else None
        broken = ""
        started = time.perf_counter()
        try:
            got = simulation.run(arrays, results, stall_seed=stall_seed, reset=number == 0)
        except BulkFailure as error:
            got, broken = error.received, str(error)
        seconds_rtl += time.perf_counter() - started
        cycles += simulation.cycles
        beats += len(arrays[contract.operands[0].name])
        came = len(got[contract.results[0].name])
        wrong = np.zeros(came, dtype=bool)
        for operand in contract.results:
            differs = got[operand.name] != expected[operand.name][:came]
            wrong |= differs.reshape(came, -1).any(axis=1)
        vectors += came
        mismatches += int(wrong.sum()) + results - came
        if wrong.any() and not first:
            index = int(np.argmax(wrong))
            place = f"Result {index} of chunk {number} (seed {seed})"
            first = "\n".join(
                [
                    f"{place} differs from the golden model:",
                    *(f"  {line}" for line in contract.explain(arrays, index)),
                    *_shown(contract, "expected", expected, index),
                    *_shown(contract, "got", got, index),
                ]
            )
        if broken:
            # What the circuit would still give belongs nowhere now.
            mismatches += results == came
            first = "\n".join(filter(None, (first, f"Chunk {number} (seed {seed}): {broken}")))
            break
    return BulkOutcome(
        simulation.configured.name,
        seed,
        vectors,
        mismatches,
        beats,
        cycles,
        seconds_rtl,
        seconds_golden,
        first,
    )


def _shown(contract: Contract, title: str, codes: Mapping[str, Codes], index: int) -> Iterator[str]:
    for operand in contract.results:
        yield f"  {title} {describe(operand, codes[operand.name][index])}"


def _word_count(operands: Sequence[Operand]) -> int:
    return (total_width(operands) + 63) // 64


def _words(operands: Sequence[Operand], arrays: Mapping[str, Codes]) -> npt.NDArray[np.uint64]:
    if not operands:
        return np.zeros((1, 1), dtype=np.uint64)
    return np.ascontiguousarray(pack(operands, arrays))


def _mangled(name: str) -> str:
    """Return the C++ name that CXXRTL gives a public name."""
    return "p_" + name.replace("_", "__")


def _harness(name: str, contract: Contract) -> str:
    lines = ['#include "design.cc"', f"#define DESIGN cxxrtl_design::{_mangled(name)}"]
    for title, operands in (
        ("CONFIGURATION", contract.configuration),
        ("OPERANDS", contract.operands),
        ("RESULTS", contract.results),
    ):
        lowest, fields = 0, list[str]()
        for operand in operands:
            fields.append(f"FIELD({_mangled(operand.name)}, {lowest})")
            lowest += operand.width
        lines.append(f"#define {title} {' '.join(fields)}")
    for stream in "io":
        valid, ready = contract.handshakes[stream]
        lines.append(f"#define {stream.upper()}_VALID {_mangled(valid)}")
        lines.append(f"#define {stream.upper()}_READY {_mangled(ready)}")
    lines.append(f"#define OPERAND_WORDS {_word_count(contract.operands)}")
    lines.append(f"#define RESULT_WORDS {_word_count(contract.results)}")
    return "\n".join(lines) + "\n" + _HARNESS.read_text(encoding="utf-8")


def _compiled(
    name: str, contract: Contract, verilog: str, cache_dir: Path, flags: tuple[str, ...]
) -> Path:
    """Return the path of the shared library, after compiling it unless the cache holds it."""
    compiler = check_compiler()
    harness = _harness(name, contract)
    rewriting = Path(cxxrtl.__file__).read_text(encoding="utf-8")
    parts = (verilog, harness, _SCRIPT, rewriting, compiler, yosys.version(), *flags)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    library = cache_dir.resolve() / f"{name}-{key}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with _alone(library.with_suffix(".lock")):
        # Another process may have made it meanwhile.
        if not library.is_file():
            _compile(name, verilog, harness, library, flags)
    return library


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock within, after all other processes have released it."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(name: str, verilog: str, harness: str, library: Path, flags: tuple[str, ...]) -> None:
    """Compile the shared library, which appears whole or not at all."""
    texts = yosys.run(_SCRIPT.format(top=name), {"design.v": verilog}, ("design.cc", "clean.cc"))
    circuit = texts["design.cc" if _SETTLES in texts["design.cc"] else "clean.cc"]
    work = library.with_suffix(f".{os.getpid()}.tmp")
    work.mkdir(parents=True)
    try:
        (work / "design.cc").write_text(cxxrtl.in_parts(circuit))
        (work / "harness.cc").write_text(harness)
        runtime = yosys.share_folder() / "include" / "backends" / "cxxrtl" / "runtime"
        process = subprocess.run(
            ["g++", *flags, f"-I{runtime}", "harness.cc", "-o", "library.so"],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            errors = [line for line in process.stderr.splitlines() if "error" in line]
            raise BulkError(f"g++ refused {name}: {(errors or ['no message'])[0]}")
        (work / "library.so").replace(library)
    finally:
        shutil.rmtree(work)
