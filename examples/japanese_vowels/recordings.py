"""The recordings: 640 utterances of nine speakers, 270 to train on and 370 to test on.

Source: "Japanese Vowels", M. Kudo, J. Toyama and M. Shimbo, 1999, UCI Machine Learning Repository,
CC BY 4.0; see the README beside this file.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = [
    "FLOAT_MODEL_FILE",
    "LOW_BIT_MODEL_FILES",
    "RECORDINGS_FILE",
    "SPEAKERS",
    "Recordings",
    "load_recordings",
]

RECORDINGS_FILE = Path(__file__).with_name("recordings.npz")
FLOAT_MODEL_FILE = Path(__file__).with_name("float_model.npz")
LOW_BIT_MODEL_FILES = {
    ("ternary", "any"): FLOAT_MODEL_FILE.with_name("ternary_model.npz"),
    ("ternary", "powers_of_two"): FLOAT_MODEL_FILE.with_name("ternary_powers_of_two_model.npz"),
    ("binary", "any"): FLOAT_MODEL_FILE.with_name("binary_model.npz"),
    ("binary", "powers_of_two"): FLOAT_MODEL_FILE.with_name("binary_powers_of_two_model.npz"),
}
"""By weights and scales."""
SPEAKERS = 9
_STEP = 1e-6


@dataclass(frozen=True, eq=False)
class Recordings:
    """Utterances with their speakers and lengths.

    Parameters
    ----------
    utterances
        One float64 array for each, shape (frames, 12): 12 linear-prediction cepstrum coefficients
        a frame.
    speakers
        Who spoke each, from 0 to 8; shape (utterances,).
    """

    utterances: tuple[npt.NDArray[np.float64], ...]
    speakers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.utterances)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the number of frames of each utterance, shape (utterances,)."""
        return np.array([len(utterance) for utterance in self.utterances], np.int64)

    @cached_property
    def padded(self) -> npt.NDArray[np.float64]:
        """Return all frames, padded at the end with 0: shape (utterances, longest, 12)."""
        coefficients = self.utterances[0].shape[1]
        result = np.zeros((len(self), int(self.lengths.max()), coefficients))
        for row, utterance in zip(result, self.utterances, strict=True):
            row[: len(utterance)] = utterance
        result.setflags(write=False)
        return result

    def spread(self, count: int) -> "Recordings":
        """Return `count` evenly spaced utterances; the file is sorted by speaker."""
        if not 1 <= count <= len(self):
            raise ValueError(f"count must be from 1 to {len(self)} utterances, not {count}.")
        chosen = np.arange(count) * len(self) // count
        return self.select(chosen)

    def select(self, indices: npt.NDArray[np.integer]) -> "Recordings":
        """Return the utterances at `indices`."""
        return Recordings(
            tuple(self.utterances[index] for index in indices.tolist()), self.speakers[indices]
        )


def load_recordings(path: Path = RECORDINGS_FILE) -> tuple[Recordings, Recordings]:
    """Read the committed recordings: the training set and the test set.

    Raises
    ------
    ValueError
        If the file is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            frames, lengths = stored["frames"], stored["lengths"]
            speakers, test = stored["speakers"].astype(np.int64), stored["test"]
    except FileNotFoundError as error:
        raise ValueError(
            f"{path}: there are no recordings; make them with "
            "python -m examples.japanese_vowels.prepare FOLDER."
        ) from error
    # Division of a whole number of millionths gives the double nearest to the published decimal.
    reals = frames / round(1 / _STEP)
    utterances = tuple(np.split(reals, np.cumsum(lengths)[:-1]))
    everything = Recordings(utterances, speakers - 1)
    return everything.select(np.flatnonzero(~test)), everything.select(np.flatnonzero(test))
