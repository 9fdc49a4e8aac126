"""The main job: the circuits generated, checked and measured, and the layer put to use.

Ends with one table of the designs, and the speakers that an LSTM recognises in RTL.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from examples.japanese_vowels.recognise import (
    classify_float,
    classify_quantized,
    int8_model,
    load_float_model,
    load_recordings,
)
from examples.japanese_vowels.rtl import recognise_in_rtl
from fewbit.errors import UsageError
from fewbit.generation import generate
from fewbit.hdl.design import ConfiguredDesign, ParameterError
from fewbit.hdl.designs import DESIGNS
from fewbit.regression import regress
from fewbit.sim import yosys
from fewbit.sim.bulk import BulkError, check_bulk, check_compiler
from fewbit.sim.runner import Outcome, SimulatorError, check_tools
from fewbit.synthesis import synthesize

_BUILD = Path("build")
_BULK_RESULTS = {"beat": 500_000, "row": 100_000, "hidden unit": 20_000, "byte": 30_000}
_UTTERANCES = 20


_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Row:
    """A row of the table: the results for one design."""

    vectors: int
    mismatches: int
    explanation: str


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=2, help="designs at a time, default 2")
    options = parser.parse_args()
    try:
        return _run(max(1, options.jobs))
    except (UsageError, ParameterError, SimulatorError, BulkError, yosys.YosysError) as error:
        print(error, file=sys.stderr)
        return 2


def _run(jobs: int) -> int:
    console = Console(width=None if sys.stdout.isatty() else 140)
    started = time.perf_counter()

    def say(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - started:5.0f} s[/]  {text}", highlight=False)

    check_tools("verilator")
    check_compiler()
    yosys.warm_up(say)
    designs = [design.configure() for design in DESIGNS.values() if not design.is_baseline]

    say("Generating Verilog and data sheets.")
    for path in generate(designs, _BUILD / "verilog"):
        say(f"  {path}")

    fresh = not (_BUILD / "sim").is_dir()
    say(
        "Simulating with cocotb under random stalls"
        + (" (building a simulator for each, the first time: minutes)." if fresh else ".")
    )
    outcomes = regress(
        designs,
        simulator="verilator",
        seed=1,
        count=2000,
        jobs=jobs,
        folder=_BUILD / "sim",
        done=lambda outcome: say(f"  {outcome.design}: {outcome.transactions:,} results"),
    )

    fresh = not (_BUILD / "bulk").is_dir()
    say(
        "Comparing compiled RTL with the golden models in bulk"
        + (" (compiling it, the first time: minutes)." if fresh else ".")
    )
    rows = _side_by_side(jobs, lambda design: _check(design, outcomes), designs)

    say("Measuring areas: gate equivalents, and LUTs of an iCE40.")
    gates = _side_by_side(jobs, synthesize, designs)
    luts = _side_by_side(jobs, lambda design: synthesize(design, "ice40"), designs)

    say(f"Recognising speakers: {_UTTERANCES} test utterances through the RTL layer.")
    table = Table()
    for column in ("design", "parameters"):
        table.add_column(column, overflow="fold")
    for column in ("vectors checked", "mismatches", "GE", "of them logic", "flip-flops", "LUT4"):
        table.add_column(column, justify="right")
    for design, row, gate, lut in zip(designs, rows, gates, luts, strict=True):
        table.add_row(
            design.name,
            " ".join(
                f"{name}={'none' if value is None else value}"
                for name, value in design.parameters.items()
            ),
            f"{row.vectors:,}",
            f"{row.mismatches:,}",
            f"{gate['area_ge']:,.0f}",
            f"{gate['combinational_ge']:,.0f}",
            f"{gate['flip_flops']:,}",
            f"{lut['luts']:,}",
            style="bold red" if row.mismatches else None,
        )
    speakers, agree = _speakers()
    console.print(table)
    console.print(
        "Verilator, cocotb and CXXRTL against golden; GE: NAND2 equivalents, flip-flops included;"
        f" LUT4: iCE40. {yosys.version()}",
        style="dim",
        highlight=False,
    )
    console.print(speakers, highlight=False)
    for row in rows:
        if row.explanation:
            print(row.explanation, file=sys.stderr)
    return 0 if agree and not any(row.mismatches for row in rows) else 1


def _side_by_side(
    jobs: int, task: Callable[[ConfiguredDesign], _Result], designs: list[ConfiguredDesign]
) -> list[_Result]:
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(task, designs))


def _check(design: ConfiguredDesign, outcomes: list[Outcome]) -> _Row:
    cocotb = next(outcome for outcome in outcomes if outcome.design == design.name)
    bulk = check_bulk(
        design, count=_BULK_RESULTS[design.design.transaction], cache_dir=_BUILD / "bulk"
    )
    texts = [*cocotb.failures, *([bulk.counterexample] if bulk.mismatches else [])]
    return _Row(
        cocotb.transactions + bulk.vectors,
        cocotb.failed + bulk.mismatches,
        "\n".join(f"{design.name}: {text}" for text in texts),
    )


def _speakers() -> tuple[str, bool]:
    """Return the result in words, and whether RTL and golden model agree on every code."""
    _, test = load_recordings()
    some = test.spread(_UTTERANCES)
    model = int8_model()
    in_float = classify_float(load_float_model(), test)
    in_int8 = classify_quantized(model, test)
    run = recognise_in_rtl(model, some, _BUILD / "bulk")
    expected = classify_quantized(model, some)
    agree = run.differing_codes == 0 and np.array_equal(run.recognition.classes, expected.classes)
    verdict = "equal to" if agree else f"{run.differing_codes} DIFFERENT from"
    text = (
        f"Speakers: float {in_float.accuracy:.1%} and int8 {in_int8.accuracy:.1%} of"
        f" {len(test)} test utterances; {run.recognition.correct} of {len(some)} through the RTL"
        f" layer, all {run.codes:,} int8 and int16 codes {verdict} golden's."
    )
    return text, agree


if __name__ == "__main__":
    raise SystemExit(main())
