"""Millions of vectors through compiled RTL, each result compared with the golden model."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rich.console import Console
from rich.table import Table

from hdl.design import Design, ParameterError
from hdl.designs import DESIGNS, find
from sim.bulk import BulkError, BulkOutcome, check_bulk


def _share(design: Design, share: tuple[int, int]) -> BulkOutcome:
    return check_bulk(design, count=share[0], seed=share[1])


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("designs", nargs="*", metavar="DESIGN", help="default all")
    parser.add_argument(
        "--count", type=int, default=10_000_000, help="beats a design, default 10^7"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    table = Table()
    for column in ("design", "beats", "results", "mismatches", "RTL s", "golden s", "seconds"):
        table.add_column(column, justify="left" if column == "design" else "right", overflow="fold")
    passed = True
    try:
        designs = [find(name) for name in options.designs] or list(DESIGNS.values())
        for design in designs:
            # The first check also compiles, and tells how many beats a result takes.
            first = check_bulk(design, count=2000, seed=options.seed)
            count = max(2, options.count * first.vectors // first.beats)
            shares = [(count // 2, 2 * options.seed), (count - count // 2, 2 * options.seed + 1)]
            started = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                outcomes = list(pool.map(partial(_share, design), shares))
            vectors = sum(outcome.vectors for outcome in outcomes)
            rtl = sum(outcome.seconds_rtl for outcome in outcomes)
            golden = sum(outcome.seconds_golden for outcome in outcomes)
            table.add_row(
                design.name,
                f"{sum(outcome.beats for outcome in outcomes):,}",
                f"{vectors:,}",
                f"{sum(outcome.mismatches for outcome in outcomes):,}",
                f"{rtl:.1f}",
                f"{golden:.1f}",
                f"{time.perf_counter() - started:.1f}",
            )
            for outcome in outcomes:
                passed = passed and outcome.passed
                if not outcome.passed:
                    print(f"{design.name}: {outcome.counterexample}", file=sys.stderr)
    except (ParameterError, BulkError) as error:
        print(error, file=sys.stderr)
        return 2
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
