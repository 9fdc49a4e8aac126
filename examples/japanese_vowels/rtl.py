"""Recognition of speakers in the RTL of the layer; every code is compared with golden.

``python -m examples.japanese_vowels.rtl`` runs the whole test set through the int8 layer, ``--to``
through another; ``--utterances N`` runs some of it. Ternary and binary models are the retrained
ones.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np

from examples.japanese_vowels.recognise import (
    QuantizedRecogniser,
    Recognition,
    classify_quantized,
    decide,
    floatsd8_model,
    int8_model,
    load_recordings,
    low_bit_model,
    quantized_input,
    retrained_model,
)
from examples.japanese_vowels.recordings import Recordings
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.padding import valid_steps
from fewbit.golden.lstm.ternary import ScaleKind, WeightKind
from fewbit.golden.systems import layer_of
from fewbit.sim.bulk import BulkError
from fewbit.sim.layer import LayerBackend
from fewbit.sim.yosys import YosysError

__all__ = ["RtlRun", "model_of", "recognise_in_rtl"]


@dataclass(frozen=True, eq=False)
class RtlRun:
    """A recognition in RTL, and its comparison with the golden model."""

    recognition: Recognition
    codes: int
    """Hidden codes of all frames, and the cell codes after each utterance's last."""
    differing_codes: int
    """Number of codes that differ from those of the golden model."""
    frames: int
    """Frames that the layer heard: those of the utterances, and none of their padding."""
    cycles: int
    """Clock cycles of the layer, the loading of its parameters included."""
    weight_bytes: int
    """Bytes of the weights in the layer's memory, including filling."""


def recognise_in_rtl(
    model: QuantizedRecogniser, recordings: Recordings, cache_dir: Path, lanes: int | None = None
) -> RtlRun:
    """Recognise the speakers in the compiled RTL of the layer that `layer_of` returns."""
    x = quantized_input(model, recordings)
    lengths = recordings.lengths
    settings = {} if lanes is None else {"lanes": lanes}
    backend = LayerBackend(settings, cache_dir=cache_dir, asks_state=True)
    hidden = backend(model.lstm, x, lengths)
    expected_hidden, expected_cell = model.lstm.run_with_cell(x)
    within = valid_steps(x, lengths)
    last_cells = expected_cell[np.arange(len(recordings)), lengths - 1]
    differing = (hidden != expected_hidden)[within].sum() + (backend.last_cells != last_cells).sum()
    return RtlRun(
        recognition=decide(model, hidden, recordings),
        codes=(int(within.sum()) + len(recordings)) * model.lstm.hidden,
        differing_codes=int(differing),
        frames=backend.steps,
        cycles=backend.cycles,
        weight_bytes=_weight_bytes(model.lstm, lanes),
    )


def _weight_bytes(lstm: Lstm, lanes: int | None) -> int:
    sections = layer_of(lstm, lanes=lanes).contract.plan.sections
    return sum(each.words * each.word_bytes for each in sections if each.name == "weights")


def model_of(
    to: str,
    activation: ActivationKind | None = None,
    scales: ScaleKind | None = None,
    lanes: int | None = None,
) -> QuantizedRecogniser:
    """Return the model of a number system: retrained if it needs training, else quantised.

    Parameters
    ----------
    to
        "int8", "floatsd8", "ternary", "binary" or "pow2".
    activation
        Approximation of sigmoid and tanh for int8, by default "table".
    scales
        Kind of scales for ternary, binary and pow2, by default "any".
    lanes
        Products that a FloatSD8 LSTM adds at a time, 4 if not given.
    """
    if to == "int8":
        return int8_model(activation or "table")
    if to == "floatsd8":
        return floatsd8_model(lanes or 4)
    kind = cast("WeightKind", to)
    # Nine levels need no training of their own.
    made = low_bit_model if kind == "pow2" else retrained_model
    return made(kind, scales or "any")


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--utterances", type=int, default=370, help="1 to 370, default all")
    parser.add_argument("--to", choices=("int8", "floatsd8", *get_args(WeightKind)), default="int8")
    parser.add_argument(
        "--activation", choices=get_args(ActivationKind), help="of int8, default table"
    )
    parser.add_argument(
        "--scales", choices=get_args(ScaleKind), help="of ternary, binary and pow2, default any"
    )
    parser.add_argument(
        "--lanes",
        type=int,
        help="of int8 1 to 64, of floatsd8 4 to 16, default 4; of the others 1 to 256, default 16",
    )
    options = parser.parse_args()
    if options.activation and options.to != "int8":
        parser.error("--activation goes with --to int8; leave it out.")
    if options.scales and options.to not in get_args(WeightKind):
        parser.error("--scales goes with --to ternary, binary or pow2; leave it out.")
    try:
        _, test = load_recordings()
        some = test.spread(options.utterances)
        model = model_of(options.to, options.activation, options.scales, options.lanes)
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
        f" weights take {run.weight_bytes:,} bytes; {run.frames:,} frames in {run.cycles:,} cycles"
        f" ({run.cycles / run.frames:.0f} a frame); {seconds:.1f} s."
    )
    return 0 if run.differing_codes == 0 and same_classes == len(some) else 1


if __name__ == "__main__":
    raise SystemExit(main())
