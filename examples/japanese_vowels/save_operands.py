"""A program that writes operands for ``fewbit reproduce floatsd8 --operands``.

Twelve utterances of the test set, evenly spaced, beat by beat as ``operands.real_beats`` gives
them: weights, activations and the accumulator, four products a beat.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from examples.japanese_vowels.operands import real_beats
from examples.japanese_vowels.recordings import load_recordings
from fewbit.arrays import write_array
from fewbit.errors import UsageError


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--utterances", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("build/speakers.npy"), metavar="X.npy")
    options = parser.parse_args()
    try:
        _, test = load_recordings()
        beats = real_beats(test.spread(options.utterances))
        columns = (beats.weights, beats.activations, beats.accumulators[:, np.newaxis])
        write_array(options.out, np.concatenate(columns, axis=1)[np.newaxis])
    except (ValueError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: {len(beats.weights)} beats of {options.utterances} utterances")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
