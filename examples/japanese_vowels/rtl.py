"""Recognise speakers through the RTL of the neuron, and compare every code with golden.

``python -m examples.japanese_vowels.rtl`` runs the whole test set; ``--utterances N`` some of it.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.japanese_vowels.recognise import (
    Int8Recogniser,
    Recognition,
    classify_int8,
    decide,
    input_raws,
    load_recordings,
    quantized_model,
)
from examples.japanese_vowels.recordings import Recordings
from golden.lstm.int8 import run_with_cell
from sim.bulk import BulkError
from sim.neuron import NeuronBackend
from sim.yosys import YosysError

__all__ = ["RtlRun", "recognise_in_rtl"]


@dataclass(frozen=True, eq=False)
class RtlRun:
    """A recognition in RTL, and how it compares."""

    recognition: Recognition
    codes: int
    """Hidden and cell codes of all frames within their utterances."""
    differing_codes: int
    """Of them, those that differ from golden's."""
    units: int
    """Hidden units that passed through the neuron, padding included."""
    cycles: int
    """Clock cycles of the neuron."""


def recognise_in_rtl(
    model: Int8Recogniser, recordings: Recordings, cache_dir: Path, lanes: int = 16
) -> RtlRun:
    """Recognise with the compiled RTL of ``int8_lstm_neuron``."""
    x = input_raws(model, recordings)
    backend = NeuronBackend(lanes, cache_dir=cache_dir)
    hidden = backend(model.lstm, x)
    expected_hidden, expected_cell = run_with_cell(model.lstm, x)
    within = np.arange(x.shape[1]) < recordings.lengths[:, None]
    differing = (hidden != expected_hidden)[within].sum() + (backend.cells != expected_cell)[
        within
    ].sum()
    return RtlRun(
        recognition=decide(model, hidden, recordings),
        codes=2 * int(within.sum()) * model.lstm.hidden,
        differing_codes=int(differing),
        units=backend.units,
        cycles=backend.cycles,
    )


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--utterances", type=int, default=370, help="1 to 370, default all")
    parser.add_argument("--activation", choices=("table", "gemmlowp"), default="table")
    parser.add_argument("--lanes", type=int, default=16, help="1 to 64, default 16")
    options = parser.parse_args()
    try:
        _, test = load_recordings()
        some = test.spread(options.utterances)
        model = quantized_model(options.activation)
        started = time.perf_counter()
        run = recognise_in_rtl(model, some, Path("build/bulk"), options.lanes)
        seconds = time.perf_counter() - started
        expected = classify_int8(model, some)
    except (ValueError, BulkError, YosysError) as error:
        print(error, file=sys.stderr)
        return 2
    same_classes = int((run.recognition.classes == expected.classes).sum())
    print(
        f"{run.recognition.correct} of {len(some)} utterances recognised in RTL"
        f" ({run.recognition.accuracy:.1%}); {same_classes} classes as golden;"
        f" {run.differing_codes} of {run.codes:,} hidden and cell codes differ from golden;"
        f" {run.units:,} units in {run.cycles:,} cycles"
        f" ({run.cycles / run.units:.1f} a unit); {seconds:.1f} s."
    )
    return 0 if run.differing_codes == 0 and same_classes == len(some) else 1


if __name__ == "__main__":
    raise SystemExit(main())
