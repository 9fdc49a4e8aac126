"""Regressions, which run the cocotb benches of several designs side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from fewbit.errors import check_target
from fewbit.hdl.design import ConfiguredDesign
from fewbit.sim.runner import Outcome, check_tools, simulate
from fewbit.sim.verilog import verilog_of

__all__ = ["regress", "row_of"]


def regress(
    designs: Sequence[ConfiguredDesign],
    *,
    simulator: str,
    seed: int,
    count: int,
    jobs: int,
    folder: Path,
    done: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run the benches of designs, and return the outcomes in the order of the designs.

    Parameters
    ----------
    designs
        The designs with their parameters, whose names must differ.
    simulator
        ``verilator`` or ``icarus``.
    seed, count
        The seed of all operands and pauses, and the number of results to compare at full rate.
    jobs
        The number of designs to build and run at a time, each in processes of its own.
    folder
        The folder of the builds, which stay there for the next time.
    done
        A function that is called with each outcome when it is there.
    """
    check_tools(simulator)
    check_target(folder / simulator / "build")
    texts = {design.name: verilog_of(design) for design in designs}
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = {
            pool.submit(
                simulate,
                design,
                folder / simulator / design.name,
                simulator=simulator,
                seed=seed,
                count=count,
                verilog=texts[design.name],
            ): design.name
            for design in designs
        }
        outcomes: dict[str, Outcome] = {}
        for future in as_completed(futures):
            outcomes[futures[future]] = future.result()
            done(outcomes[futures[future]])
    return [outcomes[design.name] for design in designs]


def row_of(design: ConfiguredDesign, outcome: Outcome) -> dict[str, Any]:
    """Return the row of an outcome for JSON."""
    return {
        "design": outcome.design,
        "parameters": dict(design.parameters),
        "simulator": outcome.simulator,
        "seed": outcome.seed,
        "tests": outcome.tests,
        "failed": outcome.failed,
        "transactions": outcome.transactions,
        "seconds": round(outcome.seconds, 2),
        "failures": list(outcome.failures),
    }
