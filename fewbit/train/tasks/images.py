"""Digits as sequences, row by row or pixel by pixel: MNIST, or any IDX files of its layout.

The last sixth of the training images, 10,000 of MNIST's 60,000, is for validation. A pixel is a
real from 0 to 1. The class is told after the last step.

Source: the set-up "paper" is that of Ardakani et al., arXiv 1809.11086, for images read pixel by
pixel; for rows we take the same.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.train.tasks.batches import batches_of_sequences
from fewbit.train.tasks.sources import check_path, file_of_part, read_idx
from fewbit.train.tasks.task import Batch, Data, DataError, Load, Names, Setup, Split, Task

__all__ = ["PIXELS", "ROWS"]

_NEEDS = "a folder with the four IDX files of MNIST, packed by gzip or not"
_VALIDATION_SHARE = 6


def _load(task: str, path: Path | None, *, by_pixel: bool) -> Data:
    folder = check_path(path, task, _NEEDS)
    train_x, train_labels = _pair(folder, "train")
    test_x, test_labels = _pair(folder, "t10k", "test")
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(
            f"'{folder}' must have test images of {train_x.shape[1:]} pixels, as the training"
            f" images have, not {test_x.shape[1:]}; give files that belong together."
        )
    count = len(train_x) - len(train_x) // _VALIDATION_SHARE
    if count == len(train_x):
        raise DataError(f"'{folder}' must have at least {_VALIDATION_SHARE} training images.")
    classes = int(train_labels.max()) + 1
    if int(test_labels.max()) >= classes:
        raise DataError(
            f"'{folder}' has a test label {int(test_labels.max())} that no training image has; give"
            " files that belong together."
        )

    def split(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Split:
        x = images.astype(np.float32) / np.float32(255)
        x = x.reshape(len(x), -1, 1) if by_pixel else x
        return Split(x, np.full(len(x), x.shape[1], np.int64), labels.astype(np.int64))

    return Data(
        split(train_x[:count], train_labels[:count]),
        split(train_x[count:], train_labels[count:]),
        split(test_x, test_labels),
        1 if by_pixel else train_x.shape[2],
        classes,
    )


def _pair(folder: Path, *words: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the images and the labels of a part."""
    endings = ("idx{axes}-ubyte", "idx{axes}.ubyte")

    def found(axes: int) -> Path:
        return file_of_part(folder, words, tuple(each.format(axes=axes) for each in endings))

    images, labels = found(3), found(1)
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y):
        raise DataError(
            f"'{labels}' must hold {len(x)} labels, as '{images.name}' has images, not {len(y)};"
            " give files that belong together."
        )
    return x, y


def _load_rows(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    del setup, names
    return _load("mnist_rows", path, by_pixel=False)


def _load_pixels(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    del setup, names
    return _load("mnist_pixels", path, by_pixel=True)


def _batches(data: Data, setup: Setup, epoch: int, seed: int) -> Iterator[Batch]:
    return batches_of_sequences(data.train, setup.batch, epoch, seed, noise=setup.noise)


def _task(name: str, summary: str, small: Setup, load: Load) -> Task:
    # Ardakani et al., arXiv 1809.11086, and its published program.
    paper = Setup(hidden=100, batch=100, epochs=200, learning_rate=0.004, last_rate=0.001)
    return Task(
        name=name,
        summary=summary,
        needs=_NEEDS,
        metric="accuracy",
        per_step=False,
        setups={"small": small, "paper": paper},
        load=load,
        batches=_batches,
    )


# Ours: 1,500 batches of 28 steps.
_SMALL_ROWS = Setup(
    hidden=100,
    batch=100,
    epochs=3,
    learning_rate=0.004,
    last_rate=0.001,
    largest_gradient=1.0,
)
# Ours: 500 batches of 784 steps, too few to be done.
_SMALL_PIXELS = Setup(
    hidden=64,
    batch=100,
    epochs=1,
    learning_rate=0.004,
    last_rate=0.001,
    largest_gradient=1.0,
    forget_bias=1.0,
)
ROWS = _task("mnist_rows", "handwritten digits, a row of pixels a step", _SMALL_ROWS, _load_rows)
PIXELS = _task("mnist_pixels", "handwritten digits, a pixel a step", _SMALL_PIXELS, _load_pixels)
