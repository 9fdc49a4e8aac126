"""Recognise speakers through the RTL of the layer, and compare every code with golden.

``python -m examples.japanese_vowels.rtl`` runs the whole test set; ``--utterances N`` some of it;
``--to floatsd8`` the FloatSD8 layer.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.japanese_vowels.recognise import (
    QuantizedLstm,
    QuantizedRecogniser,
    Recognition,
    classify_quantized,
    decide,
    floatsd8_model,
    int8_model,
    load_recordings,
    quantized_input,
)
from examples.japanese_vowels.recordings import Recordings
from golden.arithmetic import Raws
from golden.lstm import floatsd8, int8, ternary
from golden.lstm.floatsd8 import FloatSD8Lstm
from golden.lstm.ternary import TernaryLstm
from sim.bulk import BulkError
from sim.layer import LayerBackend
from sim.yosys import YosysError

__all__ = ["RtlRun", "recognise_in_rtl"]


@dataclass(frozen=True, eq=False)
class RtlRun:
    """A recognition in RTL, and how it compares."""

    recognition: Recognition
    codes: int
    """Hidden codes of all frames, and the cell codes after each utterance's last."""
    differing_codes: int
    """Of them, those that differ from golden's."""
    frames: int
    """Frames that the layer heard: those of the utterances, and none of their padding."""
    cycles: int
    """Clock cycles of the layer, the loading of its parameters included."""


def recognise_in_rtl(
    model: QuantizedRecogniser, recordings: Recordings, cache_dir: Path, lanes: int = 4
) -> RtlRun:
    """Recognise with the compiled RTL of the layer."""
    x = quantized_input(model, recordings)
    lengths = recordings.lengths
    backend = LayerBackend(lanes, cache_dir=cache_dir, asks_state=True)
    hidden = backend(model.lstm, x, lengths)
    expected_hidden, expected_cell = _golden_with_cell(model.lstm, x)
    within = np.arange(x.shape[1]) < lengths[:, None]
    last_cells = expected_cell[np.arange(len(recordings)), lengths - 1]
    differing = (hidden != expected_hidden)[within].sum() + (backend.last_cells != last_cells).sum()
    return RtlRun(
        recognition=decide(model, hidden, recordings),
        codes=(int(within.sum()) + len(recordings)) * model.lstm.hidden,
        differing_codes=int(differing),
        frames=backend.steps,
        cycles=backend.cycles,
    )


def _golden_with_cell(lstm: QuantizedLstm, x: Raws) -> tuple[Raws, Raws]:
    if isinstance(lstm, FloatSD8Lstm):
        return floatsd8.run_with_cell(lstm, x)
    if isinstance(lstm, TernaryLstm):
        return ternary.run_with_cell(lstm, x)
    return int8.run_with_cell(lstm, x)


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--utterances", type=int, default=370, help="1 to 370, default all")
    parser.add_argument("--to", choices=("int8", "floatsd8"), default="int8")
    parser.add_argument(
        "--activation", choices=("table", "gemmlowp"), help="of int8, default table"
    )
    parser.add_argument(
        "--lanes", type=int, default=4, help="1 to 64, or 4 to 16 of floatsd8, default 4"
    )
    options = parser.parse_args()
    if options.to == "floatsd8" and options.activation:
        parser.error("--activation goes with --to int8; leave it out.")
    try:
        _, test = load_recordings()
        some = test.spread(options.utterances)
        if options.to == "int8":
            model = int8_model(options.activation or "table")
        else:
            model = floatsd8_model(options.lanes)
        started = time.perf_counter()
        run = recognise_in_rtl(model, some, Path("build/bulk"), options.lanes)
        seconds = time.perf_counter() - started
        expected = classify_quantized(model, some)
    except (ValueError, BulkError, YosysError) as error:
        print(error, file=sys.stderr)
        return 2
    same_classes = int((run.recognition.classes == expected.classes).sum())
    print(
        f"{run.recognition.correct} of {len(some)} utterances recognised in RTL"
        f" ({run.recognition.accuracy:.1%}); {same_classes} classes as golden;"
        f" {run.differing_codes} of {run.codes:,} hidden and cell codes differ from golden;"
        f" {run.frames:,} frames in {run.cycles:,} cycles"
        f" ({run.cycles / run.frames:.0f} a frame); {seconds:.1f} s."
    )
    return 0 if run.differing_codes == 0 and same_classes == len(some) else 1


if __name__ == "__main__":
    raise SystemExit(main())
