"""Tags of words: the part of speech of every word of a sentence.

A folder has a file to train, to validate and to test on, each in one of two layouts, which have a
line a word and an empty line after a sentence: tab-separated word and tag, with more columns or
none; or CoNLL-U, as Universal Dependencies have it. Words of the training part that are there at
least twice are symbols.

Source: the set-up "paper" is that of a tutorial which independent work on FloatSD8 LSTMs took, and
very probably arXiv 2001.08450, too: bentrevett, "PyTorch PoS tagging", 1, an LSTM of two layers in
both directions. It begins from word vectors (GloVe), which we do not have.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from fewbit.golden.words import shown
from fewbit.train.tasks.batches import batches_of_sequences
from fewbit.train.tasks.sources import check_path, lines_of, part_files, read_text
from fewbit.train.tasks.task import NO_LABEL, Batch, Data, DataError, Names, Setup, Split, Task
from fewbit.train.tasks.vocabulary import UNKNOWN, symbols_of, vocabulary

__all__ = ["PADDING", "TASK"]

PADDING = "<pad>"
"""The symbol of steps beyond a sentence's end."""
_NEEDS = "a folder with files to train, validate and test on, .tsv or .conllu, packed or not"
_ENDINGS = (".tsv", ".conllu", ".txt")
_COLUMNS = 10
_MOST_TAGS = 1000

Sentences = list[tuple[list[str], list[str]]]
"""Words and tags of each sentence."""


def _load(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    """Read the three parts of a folder."""
    folder = check_path(path, "tagging", _NEEDS)
    files = part_files(folder, _ENDINGS)
    parts = [_read(file) for file in files]
    words = chain.from_iterable(words for words, _ in parts[0])
    known = vocabulary(words, names, reserved=(PADDING, UNKNOWN), least_count=setup.least_count)
    classes = _classes(folder, parts, names)
    train, validation, test = (_split(part, known, classes) for part in parts)
    return Data(
        train,
        validation,
        test,
        len(known),
        len(classes),
        known,
        classes,
        unknown=known.index(UNKNOWN),
    )


def _read(path: Path) -> Sentences:
    """Return the sentences of a file."""
    is_conllu = path.name.removesuffix(".gz").endswith(".conllu")
    sentences: Sentences = [([], [])]
    for number, line in enumerate(lines_of(read_text(path)), 1):
        if is_conllu and line.startswith("#"):
            continue
        if not line.strip():
            sentences.append(([], []))
            continue
        cells = line.split("\t")
        if is_conllu:
            if len(cells) != _COLUMNS:
                raise DataError(
                    f"'{path}' must have {_COLUMNS} columns in line {number}, not {len(cells)};"
                    " mend the line."
                )
            # Spans such as 1-2 stand for the words after them, and 8.1 for none in the text.
            if not cells[0].isdigit():
                continue
            word, tag = cells[1], cells[3]
        else:
            if len(cells) < 2:
                raise DataError(
                    f"'{path}' must have a word, a tab and its tag in line {number}; mend the line."
                )
            word, tag = cells[:2]
        if not word or not tag:
            raise DataError(
                f"'{path}' must have a word and its tag in line {number}; mend the line."
            )
        sentences[-1][0].append(word)
        sentences[-1][1].append(tag)
    found = [sentence for sentence in sentences if sentence[0]]
    if not found:
        raise DataError(f"'{path}' has no sentence; give a file with a word a line.")
    return found


def _classes(folder: Path, parts: list[Sentences], names: Names | None) -> tuple[str, ...]:
    """Return the tags of a trained model, or those of all parts, in order."""
    found = sorted({tag for part in parts for _, tags in part for tag in tags})
    if names is None or not names.classes:
        if len(found) > _MOST_TAGS:
            raise DataError(
                f"'{folder}' must have at most {_MOST_TAGS} different tags, not {len(found)}; the"
                " second column must hold the tags."
            )
        return tuple(found)
    unknown = sorted(set(found) - set(names.classes))
    if unknown:
        raise DataError(
            f"'{folder}' has the tag {shown(unknown[0])}, which the model does not know; give data"
            " with the model's tags."
        )
    return names.classes


def _split(part: Sentences, known: tuple[str, ...], classes: tuple[str, ...]) -> Split:
    lengths = np.array([len(words) for words, _ in part], np.int64)
    within = np.arange(int(lengths.max())) < lengths[:, np.newaxis]
    x = np.full(within.shape, known.index(PADDING), np.int32)
    labels = np.full(within.shape, NO_LABEL, np.int64)
    x[within] = symbols_of([word for words, _ in part for word in words], known)
    places = {tag: place for place, tag in enumerate(classes)}
    labels[within] = [places[tag] for _, tags in part for tag in tags]
    return Split(x, lengths, labels)


def _batches(data: Data, setup: Setup, epoch: int, seed: int) -> Iterator[Batch]:
    return batches_of_sequences(data.train, setup.batch, epoch, seed)


TASK = Task(
    name="tagging",
    summary="the part of speech of every word",
    needs=_NEEDS,
    metric="accuracy",
    per_step=True,
    setups={
        # Ours: half of the tutorial's units, and fewer epochs.
        "small": Setup(
            hidden=64,
            layers=2,
            bidirectional=True,
            embedding=64,
            dropout=0.25,
            batch=64,
            epochs=4,
            learning_rate=0.004,
            last_rate=0.001,
            least_count=2,
        ),
        "paper": Setup(
            hidden=128,
            layers=2,
            bidirectional=True,
            embedding=100,
            dropout=0.25,
            batch=128,
            epochs=10,
            learning_rate=0.001,
            least_count=2,
        ),
    },
    load=_load,
    batches=_batches,
)
