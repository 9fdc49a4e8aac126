"""One build and run by cocotb's runner, which changes the environment and prints.

:mod:`fewbit.sim.runner` starts it as a process of its own: ``python -m fewbit.sim.cocotb_job
JOB.json``.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

from cocotb_tools.runner import get_runner

__all__: list[str] = []


def _keep_library(build: Path, library: Path) -> None:
    """Store Verilator's own objects for the next design, because compiling them takes long."""
    library.mkdir(exist_ok=True)
    for made in build.glob("verilated*.o"):
        kept = library / made.name
        if not kept.exists():
            # Another process may do the same just now: a file appears whole or not at all.
            partial = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
            shutil.copyfile(made, partial)
            partial.replace(kept)


def _run_job(path: Path) -> int:
    """Build the simulation, unless it is built already, and run it."""
    job = json.loads(path.read_text())
    folder = Path(job["folder"])
    runner = get_runner(job["simulator"])
    started = time.perf_counter()
    if job["build_arguments"] is not None:
        library = folder.parent / f".verilated-{job['library']}"
        (folder / "build").mkdir(exist_ok=True)
        for ready in library.glob("*.o"):
            copy = folder / "build" / ready.name
            shutil.copyfile(ready, copy)
            # make remakes them unless they are newer than the makefile, which is still to come.
            later = time.time() + 600
            os.utime(copy, (later, later))
        runner.build(
            sources=[job["source"]],
            hdl_toplevel=job["name"],
            build_dir=folder / "build",
            build_args=job["build_arguments"],
            timescale=("1ns", "1ps"),
            always=True,
        )
        if job["simulator"] == "verilator":
            _keep_library(folder / "build", library)
        (folder / "build_seconds.txt").write_text(f"{time.perf_counter() - started:.3f}")
    else:
        (folder / "build_seconds.txt").unlink(missing_ok=True)
    plusargs = ("+verilator+rand+reset+2", f"+verilator+seed+{job['seed'] % 2**31 or 1}")
    runner.test(
        hdl_toplevel=job["name"],
        hdl_toplevel_lang="verilog",
        test_module=job["bench"],
        build_dir=folder / "build",
        test_dir=folder,
        results_xml=str(folder / "results.xml"),
        seed=job["seed"],
        test_filter=job["test_filter"],
        plusargs=plusargs if job["simulator"] == "verilator" else (),
    )
    return 0


if __name__ == "__main__":
    sys.exit(_run_job(Path(sys.argv[1])))
