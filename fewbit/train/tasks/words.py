"""The next word of a text: WikiText-2, the Penn Treebank, or any text of a user's.

The data are a folder with a file to train, to validate and to test on, or one file, which is cut
into 80, 10 and 10 % of its lines. Words are what white space parts; a line's end is the word
`<eos>`. A word that is not among the symbols is `<unk>`.

The training part becomes as many streams as a batch has, validation and test ten streams each; all
words beyond the last full step are left out, nine or fewer of a test part. A stream is run from its
beginning to its end without a reset; in training, gradients go back to the window's beginning.

Source: the set-up "paper" is that of PyTorch's example `word_language_model`, which gives a
perplexity near 117 on WikiText-2 after six epochs. Its rate falls to a quarter whenever the
validation gets no better; ours falls by the same factor each epoch.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.train.tasks.batches import batches_of_streams, next_symbols
from fewbit.train.tasks.sources import check_path, lines_of, part_files, read_text
from fewbit.train.tasks.task import Batch, Data, DataError, Names, Setup, Split, Task
from fewbit.train.tasks.vocabulary import UNKNOWN, symbols_of, vocabulary

__all__ = ["END", "TASK"]

END = "<eos>"
"""The word that stands for the end of a line."""
STREAMS = 10
"""Streams of validation and test."""
_NEEDS = "a text file, or a folder with files to train, validate and test on, packed or not"


def _load(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    """Read a folder or a file."""
    source = check_path(path, "words", _NEEDS)
    if source.is_dir():
        parts = [_words(lines_of(read_text(file))) for file in part_files(source)]
    else:
        lines = lines_of(read_text(source))
        first, second = len(lines) * 8 // 10, len(lines) * 9 // 10
        parts = [_words(part) for part in (lines[:first], lines[first:second], lines[second:])]
    streams = (setup.batch, STREAMS, STREAMS)
    for part, count, what in zip(parts, streams, ("train", "validate", "test"), strict=True):
        if len(part) < 2 * count:
            raise DataError(
                f"'{source}' must have at least {2 * count} words to {what} on, not {len(part)};"
                " give a longer text."
            )
    known = vocabulary(
        parts[0],
        names,
        reserved=(UNKNOWN, END),
        most=setup.vocabulary,
        least_count=setup.least_count,
    )
    train, validation, test = (
        _split(symbols_of(part, known), count) for part, count in zip(parts, streams, strict=True)
    )
    return Data(
        train,
        validation,
        test,
        len(known),
        len(known),
        known,
        known,
        unknown=known.index(UNKNOWN),
    )


def _words(lines: list[str]) -> list[str]:
    return [word for line in lines for word in (*line.split(), END)]


def _split(symbols: npt.NDArray[np.int32], streams: int) -> Split:
    """Return a part as streams, each with the part's next words as labels."""
    steps = len(symbols) // streams
    x = symbols[: steps * streams].reshape(streams, steps)
    labels = next_symbols(x)
    return Split(x[:, :-1], np.full(streams, steps - 1, np.int64), labels[:, :-1])


def _batches(data: Data, setup: Setup, epoch: int, seed: int) -> Iterator[Batch]:
    del epoch, seed
    return batches_of_streams(data.train, setup.window or 35)


TASK = Task(
    name="words",
    summary="the next word of a text",
    needs=_NEEDS,
    metric="perplexity",
    per_step=True,
    streams=True,
    setups={
        # Ours: the scores of all words would take most of the time, so few words are symbols.
        # Perplexities of different vocabularies don't compare.
        "small": Setup(
            hidden=100,
            embedding=100,
            dropout=0.2,
            batch=20,
            window=35,
            epochs=1,
            learning_rate=0.002,
            largest_gradient=0.25,
            vocabulary=2000,
        ),
        "paper": Setup(
            hidden=200,
            layers=2,
            embedding=200,
            dropout=0.2,
            batch=20,
            window=35,
            epochs=40,
            optimiser="sgd",
            learning_rate=20.0,
            last_rate=0.3,
            largest_gradient=0.25,
        ),
    },
    load=_load,
    batches=_batches,
)
