"""A program that packs the published recordings into ``recordings.npz``, exactly.

``python -m examples.japanese_vowels.prepare FOLDER``, where FOLDER holds
``JapaneseVowels_TRAIN.ts`` and ``JapaneseVowels_TEST.ts`` in the ``.ts`` text format of the
archive at timeseriesclassification.com.

The file holds whole millionths, the last decimal of the source:

=============  =======  ==================  ========================================
array          type     shape               meaning
=============  =======  ==================  ========================================
``frames``     int32    (all frames, 12)    coefficients in 10^-6, utterances in line
``lengths``    uint8    (640,)              frames of each utterance
``speakers``   uint8    (640,)              1 to 9
``test``       bool     (640,)              belongs to the test set
=============  =======  ==================  ========================================
"""

import argparse
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.japanese_vowels.recordings import RECORDINGS_FILE, SPEAKERS

__all__ = ["main", "pack", "read_ts"]

COEFFICIENTS = 12
MILLION = 1_000_000


def read_ts(path: Path) -> tuple[list[npt.NDArray[np.int32]], list[int]]:
    """Return the utterances in millionths, shape (frames, 12), and their speakers, 1 to 9.

    Raises
    ------
    ValueError
        If a line is not 12 equally long series and a speaker, or a number has more decimals.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    if "@data" not in lines:
        raise ValueError(f"{path}: has no line @data; give a file in the .ts format.")
    first = lines.index("@data") + 1
    utterances: list[npt.NDArray[np.int32]] = []
    speakers: list[int] = []
    for number, line in enumerate(lines[first:], first + 1):
        *series, speaker = line.split(":")
        try:
            millionths = [[Decimal(text) * MILLION for text in one.split(",")] for one in series]
        except InvalidOperation as error:
            raise ValueError(f"{path}, line {number}: holds something not a number.") from error
        if not all(value.is_finite() for one in millionths for value in one):
            raise ValueError(f"{path}, line {number}: holds something not a number.")
        lengths = {len(one) for one in millionths}
        if len(series) != COEFFICIENTS or len(lengths) != 1:
            raise ValueError(f"{path}, line {number}: must hold 12 series of equal length.")
        if speaker not in {str(one) for one in range(1, SPEAKERS + 1)}:
            raise ValueError(f"{path}, line {number}: speaker must be 1 to 9, not {speaker!r}.")
        if any(value != int(value) for one in millionths for value in one):
            raise ValueError(f"{path}, line {number}: a number has more than six decimals.")
        utterances.append(np.array([[int(value) for value in one] for one in millionths]).T)
        speakers.append(int(speaker))
    return utterances, speakers


def pack(folder: Path, out: Path) -> None:
    """Write the recordings in `folder` to `out`."""
    train, train_speakers = read_ts(folder / "JapaneseVowels_TRAIN.ts")
    test, test_speakers = read_ts(folder / "JapaneseVowels_TEST.ts")
    utterances = train + test
    np.savez_compressed(
        out,
        allow_pickle=False,
        frames=np.concatenate(utterances).astype(np.int32),
        lengths=np.array([len(utterance) for utterance in utterances], np.uint8),
        speakers=np.array(train_speakers + test_speakers, np.uint8),
        test=np.repeat([False, True], [len(train), len(test)]),
    )


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.japanese_vowels.prepare",
        description="Pack the published recordings into recordings.npz.",
    )
    parser.add_argument("folder", type=Path, help="where the two .ts files lie")
    parser.add_argument("--out", type=Path, default=RECORDINGS_FILE, help="the file to write")
    arguments = parser.parse_args()
    try:
        pack(arguments.folder, arguments.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
