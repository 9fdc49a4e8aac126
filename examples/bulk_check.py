"""A check of millions of vectors through compiled RTL, each compared with the golden model.

A campaign is cut in shares, each with a seed and a reset of its own and run by one of several
processes, and ends with the first share that fails. A share goes through chunks that fit in a
core's cache, so memory doesn't grow with the count.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fewbit.errors import UsageError, check_target, write_text
from fewbit.hdl.design import ParameterError
from fewbit.hdl.designs import DESIGNS, find
from fewbit.sim import yosys
from fewbit.sim.bulk import BulkError, BulkOutcome, BulkSimulation, check_bulk, compare
from fewbit.sim.yosys import YosysError

_SHARE = 2**19
"""Beats of a share."""
_CHUNK = 2**13
"""Results of a chunk: arrays of int64 that stay in the cache, and that malloc keeps at hand."""


@dataclass(frozen=True)
class Row:
    """The result of a campaign for one design; ``seconds`` apart, times are sums over processes."""

    design: str
    seed: int
    beats: int
    results: int
    mismatches: int
    cycles: int
    rtl_seconds: float
    golden_seconds: float
    cpu_seconds: float
    """Processor time of stimulus, golden model, simulation and comparison."""
    seconds: float
    results_per_second: float


@cache
def _simulation(name: str) -> BulkSimulation:
    return BulkSimulation(find(name).configure())


def _share(name: str, share: tuple[int, int]) -> tuple[BulkOutcome, float]:
    """Return the result of a share of the beats, and the processor time of it."""
    count, seed = share
    simulation = _simulation(name)
    started = time.process_time()
    outcome = compare(simulation, count=count, seed=seed, chunk=_CHUNK)
    return outcome, time.process_time() - started


def _shares(count: int, size: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield results and seed of each share."""
    for number, start in enumerate(range(0, count, size)):
        yield min(size, count - start), (seed << 20) + number


def _outcomes(
    name: str, shares: Sequence[tuple[int, int]], jobs: int
) -> Generator[tuple[BulkOutcome, float], None, None]:
    """Yield the results of the shares, in order."""
    # No forks: this process may have threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(shares)), mp_context=context)
    try:
        yield from pool.map(partial(_share, name), shares)
    finally:
        pool.shutdown(cancel_futures=True)


def campaign(
    name: str, *, count: int, seed: int, jobs: int, progress: Progress
) -> tuple[Row, list[str]]:
    """Return the row of a design after some ``count`` beats, and a text of what went wrong."""
    # The first check also compiles, and tells how many beats a result takes.
    first = check_bulk(find(name).configure(), count=min(2000, count), seed=seed)
    scale = first.vectors / max(first.beats, 1)
    size = max(1, round(_SHARE * scale))
    shares = list(_shares(max(1, round(count * scale)), size, seed))
    task = progress.add_task(name, total=len(shares))
    started = time.perf_counter()
    outcomes: list[BulkOutcome] = []
    cpu = 0.0
    with closing(_outcomes(name, shares, jobs)) as coming:
        for outcome, spent in coming:
            outcomes.append(outcome)
            cpu += spent
            progress.advance(task)
            if not outcome.passed:
                break
    seconds = time.perf_counter() - started
    results = sum(outcome.vectors for outcome in outcomes)
    row = Row(
        design=name,
        seed=seed,
        beats=sum(outcome.beats for outcome in outcomes),
        results=results,
        mismatches=sum(outcome.mismatches for outcome in outcomes),
        cycles=sum(outcome.cycles for outcome in outcomes),
        rtl_seconds=round(sum(outcome.seconds_rtl for outcome in outcomes), 2),
        golden_seconds=round(sum(outcome.seconds_golden for outcome in outcomes), 2),
        cpu_seconds=round(cpu, 2),
        seconds=round(seconds, 2),
        results_per_second=round(results / seconds),
    )
    wrong = [
        f"{name}: {outcome.counterexample or 'nothing was compared.'}"
        for outcome in outcomes
        if not outcome.passed
    ]
    return row, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("designs", nargs="*", metavar="DESIGN", help="default all")
    parser.add_argument(
        "--count", type=int, default=10_000_000, help="beats a design, default 10^7"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes, default 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON too")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.jobs < 1 or options.seed < 0:
        parser.error("--count and --jobs must be at least 1, --seed at least 0.")
    table = Table()
    titles = ("beats", "results", "mismatches", "RTL s", "golden s", "CPU s", "s", "results/s")
    for column in ("design", *titles):
        table.add_column(column, justify="left" if column == "design" else "right", overflow="fold")
    rows: list[Row] = []
    passed = True
    try:
        if options.json is not None:
            check_target(options.json)
        names = [find(name).name for name in options.designs] or list(DESIGNS)
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            for name in names:
                row, wrong = campaign(
                    name,
                    count=options.count,
                    seed=options.seed,
                    jobs=options.jobs,
                    progress=progress,
                )
                rows.append(row)
                for line in wrong:
                    print(line, file=sys.stderr)
                passed = passed and not wrong
        for row in rows:
            seconds = (row.rtl_seconds, row.golden_seconds, row.cpu_seconds, row.seconds)
            table.add_row(
                row.design,
                *(f"{number:,}" for number in (row.beats, row.results, row.mismatches)),
                *(f"{each:.1f}" for each in seconds),
                f"{row.results_per_second:,}",
            )
        Console(width=None if sys.stdout.isatty() else 120).print(table)
        if options.json is not None:
            listed = [vars(row) for row in rows]
            text = json.dumps({"engine": yosys.version(), "rows": listed}, indent=2)
            write_text(options.json, text + "\n")
    except (ParameterError, BulkError, YosysError, UsageError, BrokenProcessPool) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
