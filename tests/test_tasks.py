"""Tasks: what their readers take and refuse, their parts, and batches that follow from a seed."""

import gzip
import math
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examples.japanese_vowels.recordings import RECORDINGS_FILE, load_recordings
from fewbit.train.tasks import TASKS, Data, DataError, Names, Setup, Split, sources
from fewbit.train.tasks.batches import (
    batches_of_sequences,
    batches_of_streams,
    batches_of_windows,
    next_symbols,
)
from fewbit.train.tasks.characters import OTHER
from fewbit.train.tasks.tagging import PADDING
from fewbit.train.tasks.task import NO_LABEL, figure
from fewbit.train.tasks.vocabulary import UNKNOWN, symbols_of, vocabulary
from fewbit.train.tasks.words import END
from tests.support.damage import damage

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(path: str) -> Path:
    """A path of data that are no part of the project."""
    if not (SHARED / path).exists():
        pytest.skip(f"shared data {path} are not here")
    return SHARED / path


def load(task: str, path: Path | None, names: Names | None = None, **changes: object) -> Data:
    setup = replace(TASKS[task].setups["small"], **changes)
    return TASKS[task].load(path, setup, names)


# Small made-up data of every task.


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_bytes(("ab cd ef\n" * 250 + "æ" * 3 + "ab cd ef\n" * 30).encode())
    return path


def words_folder(folder: Path) -> Path:
    (folder / "wiki.train.tokens").write_text("the cat sat\non the mat\n" * 30)
    with gzip.open(folder / "wiki.valid.tokens.gz", "wt") as file:
        file.write("the dog sat\n" * 12)
    (folder / "wiki.test.tokens").write_text("the mat\r\n\r\n" * 20)
    return folder


def tags_folder(folder: Path) -> Path:
    (folder / "en.train.tsv").write_text(
        "The\tDET\tDT\ncat\tNOUN\n\nThe\tDET\ndog\tNOUN\nran\tVERB\n"
    )
    with gzip.open(folder / "en.dev.tsv.gz", "wt") as file:
        file.write("\n\nThe\tDET\n\n\nwolf\tNOUN\nThe\tDET\n\n")
    (folder / "en.test.conllu").write_text(
        "# text = Is n't\n1-2\tIsn't\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "1\tIs\tbe\tVERB\t_\t_\t0\troot\t_\t_\n2\tn't\tnot\tPART\t_\t_\t1\tadvmod\t_\t_\n"
        "2.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_\n\n"
    )
    return folder


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def images_folder(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count, name in (("train", 12, "idx3-ubyte"), ("t10k", 4, "idx3.ubyte")):
        (folder / f"{part}-images-{name}").write_bytes(idx(rng.integers(0, 256, (count, 3, 2))))
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(idx(np.arange(count) % 3))
    return folder


DIGITS = {
    "frames": np.arange(80, dtype=np.float16).reshape(40, 2),
    "lengths": np.tile([1, 3], 10).astype(np.int32),
    "digit": np.repeat([0, 1], 10).astype(np.int8),
    "index": np.tile([0, 4, 5, 9, 10, 11, 12, 13, 14, 15], 2).astype(np.int16),
    "speakers": np.array(["x"]),
}
SPEAKERS = {
    "frames": np.arange(80, dtype=np.int32).reshape(40, 2),
    "lengths": np.full(20, 2, np.uint8),
    "speakers": np.repeat([1, 2], 10).astype(np.uint8),
    "test": np.tile([False] * 6 + [True] * 4, 2),
}


def digits_file(folder: Path) -> Path:
    np.savez_compressed(folder / "digits.npz", allow_pickle=False, **DIGITS)
    return folder / "digits.npz"


def speakers_file(folder: Path) -> Path:
    np.savez(folder / "speakers.npz", allow_pickle=False, **SPEAKERS)
    return folder / "speakers.npz"


MADE: dict[str, Callable[[Path], Path]] = {
    "characters": text_file,
    "words": words_folder,
    "tagging": tags_folder,
    "mnist_rows": images_folder,
    "mnist_pixels": images_folder,
    "spoken_digits": digits_file,
    "speakers": speakers_file,
}


def test_every_task_that_needs_data_has_some_here():
    assert set(MADE) == {name for name, task in TASKS.items() if task.needs}
    assert all(task.name == name for name, task in TASKS.items())
    assert all("small" in task.setups for task in TASKS.values())


@pytest.mark.parametrize("name", TASKS)
def test_parts_are_what_their_description_says(tmp_path, name):
    task = TASKS[name]
    path = MADE[name](tmp_path) if task.needs else None
    data = load(name, path, batch=3)
    for part in (data.train, data.validation, data.test):
        count, time = part.x.shape[:2]
        assert part.lengths.shape == (count,)
        assert 1 <= part.lengths.min() <= part.lengths.max() <= time
        assert part.labels.shape == ((count, time) if task.per_step else (count,))
        assert part.labels.max() < data.classes
        assert part.labels.min() >= (NO_LABEL if task.per_step else 0)
        if data.symbols:
            assert part.x.dtype == np.int32
            assert part.x.ndim == 2
            assert 0 <= part.x.min() <= part.x.max() < data.inputs == len(data.symbols)
        else:
            assert part.x.dtype == np.float32
            assert part.x.shape[2] == data.inputs
            assert not part.x[np.arange(time) >= part.lengths[:, np.newaxis]].any()
    assert not data.class_names or len(data.class_names) == data.classes
    assert (data.unknown is not None) == bool(data.symbols)


def equal(one, other) -> bool:
    fields = ("x", "lengths", "labels", "carries")
    return all(
        np.array_equal(getattr(first, field), getattr(second, field))
        for first, second in zip(one, other, strict=True)
        for field in fields
    )


@pytest.mark.parametrize("name", TASKS)
def test_batches_follow_from_the_seed_and_the_epoch(tmp_path, name):
    task = TASKS[name]
    path = MADE[name](tmp_path) if task.needs else None
    setup = replace(task.setups["small"], batch=3, window=10, sequences=12, noise=0.1)
    data = task.load(path, setup)
    first = list(task.batches(data, setup, 2, 7))
    assert first
    assert equal(first, list(task.batches(task.load(path, setup), setup, 2, 7)))
    for batch in first:
        assert batch.x.shape[:2] == (len(batch.lengths), batch.lengths.max())
        assert batch.x.dtype == data.train.x.dtype
        assert batch.labels.dtype == np.int64
    if name == "tagging":
        # Two sentences of different lengths have one order.
        return
    others = [list(task.batches(data, setup, *at)) for at in ((3, 7), (2, 8))]
    for other in others:
        assert task.streams == (len(other) == len(first) and equal(first, other))


def test_tasks_need_no_pytorch():
    program = "import sys, fewbit.train.tasks, fewbit.evaluation; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"


# Batches.


def sequences(count: int = 500) -> Split:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 20, count)
    x = rng.normal(size=(count, 20, 2)).astype(np.float32)
    x[np.arange(20) >= lengths[:, np.newaxis]] = 0
    return Split(x, lengths, np.arange(count))


def test_an_epoch_has_every_sequence_once_with_little_padding():
    split = sequences()
    found = list(batches_of_sequences(split, 8, 0, 1))
    assert sorted(np.concatenate([batch.labels for batch in found]).tolist()) == list(range(500))
    for batch in found:
        np.testing.assert_array_equal(batch.lengths, split.lengths[batch.labels])
        np.testing.assert_array_equal(batch.x, split.x[batch.labels, : batch.lengths.max()])
    padded = sum(batch.x.shape[0] * batch.x.shape[1] for batch in found)
    assert padded < 1.05 * split.lengths.sum()
    # Short ones don't always come first.
    assert len({tuple(batch.labels.tolist()) for batch in found}) == len(found) == 63
    longest = [int(batch.lengths.max()) for batch in found]
    assert longest != sorted(longest)


def test_noise_is_in_deviations_and_leaves_padding_alone():
    split = sequences(4000)
    split = replace(split, x=split.x * np.array([1, 100], np.float32))
    errors = []
    for batch in batches_of_sequences(split, 100, 0, 1, noise=0.5):
        error = batch.x - split.x[batch.labels, : batch.lengths.max()]
        within = np.arange(error.shape[1]) < batch.lengths[:, np.newaxis]
        assert not error[~within].any()
        errors.append(error[within])
    found = np.concatenate(errors).std(axis=0)
    np.testing.assert_allclose(found, [0.5, 50], rtol=0.05)


def test_windows_do_not_overlap_and_begin_anywhere():
    text = np.arange(1003, dtype=np.int32)[np.newaxis]
    split = Split(text, np.array([1003]), next_symbols(text))
    offsets = set()
    for epoch in range(60):
        found = list(batches_of_windows(split, 10, 16, epoch, 3))
        assert {len(batch.x) for batch in found} == {16}
        rows = np.concatenate([batch.x for batch in found])
        np.testing.assert_array_equal(np.concatenate([batch.labels for batch in found]), rows + 1)
        assert rows.shape == (96, 9)
        (offset,) = set((rows[:, 0] % 10).tolist())
        offsets.add(offset)
        assert len(np.unique(rows)) == rows.size
        assert not np.array_equal(rows[:, 0], np.sort(rows[:, 0]))
    assert offsets == set(range(10))
    (few,) = batches_of_windows(split, 500, 16, 0, 3)
    assert few.x.shape[0] in {1, 2}


def test_streams_go_on_from_batch_to_batch():
    text = np.arange(60, dtype=np.int32).reshape(3, 20)
    labels = next_symbols(text)
    assert labels[:, -1].tolist() == [NO_LABEL] * 3
    split = Split(text[:, :-1], np.full(3, 19), labels[:, :-1])
    found = list(batches_of_streams(split, 8))
    assert [batch.x.shape[1] for batch in found] == [8, 8, 3]
    assert [batch.carries for batch in found] == [False, True, True]
    np.testing.assert_array_equal(np.hstack([batch.x for batch in found]), text[:, :-1])
    np.testing.assert_array_equal(np.hstack([batch.labels for batch in found]), text[:, 1:])


# Figures.


def test_figures_by_hand():
    assert figure("accuracy", 3.0, 3, 4) == 0.75
    assert figure("bits", 8 * math.log(2), 0, 4) == pytest.approx(2.0)
    assert figure("perplexity", 4 * math.log(7), 0, 4) == pytest.approx(7.0)
    assert figure("perplexity", 1e6, 0, 1) == math.inf
    assert TASKS["words"].figure(math.log(3), 0, 1) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="labels must be at least 1, not 0"):
        figure("bits", 0.0, 0, 0)


# What each reader makes of its data.


def test_characters(tmp_path):
    data = load("characters", text_file(tmp_path))
    text = text_file(tmp_path).read_text()
    assert data.symbols == data.class_names == (OTHER, "\n", " ", *"abcdef")
    first, second = len(text) * 8 // 10, len(text) * 9 // 10
    assert "".join(data.symbols[at] for at in data.train.x[0]) == text[:first]
    test = "".join(data.symbols[at] for at in data.test.x[0])
    assert test == text[second : second + 99].replace("æ", OTHER)
    assert "".join(data.symbols[at] for at in data.test.labels[0]) == text[
        second + 1 : second + 100
    ].replace("æ", OTHER)
    own = load("characters", text_file(tmp_path), Names((OTHER, *"æfa"), ("x",)))
    assert own.symbols == (OTHER, *"æfa")
    assert own.symbols[own.train.x[0, 0]] == "a"
    assert own.symbols[own.train.x[0, 1]] == OTHER


def test_words(tmp_path):
    data = load("words", words_folder(tmp_path), batch=4, vocabulary=0)
    assert data.symbols == (UNKNOWN, END, "the", "cat", "sat", "on", "mat")
    words = [data.symbols[at] for at in data.train.x[0, :8]]
    assert words == ["the", "cat", "sat", END, "on", "the", "mat", END]
    assert data.train.x.shape == (4, 59)
    assert [data.symbols[at] for at in data.validation.x[0]] == ["the", UNKNOWN, "sat"]
    assert [data.symbols[at] for at in data.test.x[0]] == [
        "the",
        "mat",
        END,
        END,
        "the",
        "mat",
        END,
    ]
    few = load("words", tmp_path, batch=4, vocabulary=1)
    assert few.symbols == (UNKNOWN, END, "the")
    one = tmp_path / "one.txt"
    one.write_text("".join(f"word{line // 90} is here\n" for line in range(100)))
    assert load("words", one, batch=4).symbols == (UNKNOWN, END, "word0", "is", "here")


def test_tagging(tmp_path):
    data = load("tagging", tags_folder(tmp_path), least_count=1)
    assert data.symbols == (PADDING, UNKNOWN, "The", "cat", "dog", "ran")
    assert data.class_names == ("DET", "NOUN", "PART", "VERB")
    assert data.train.x.tolist() == [[2, 3, 0], [2, 4, 5]]
    assert data.train.labels.tolist() == [[0, 1, NO_LABEL], [0, 1, 3]]
    assert data.validation.x.tolist() == [[2, 0], [1, 2]]
    assert data.test.x.tolist() == [[1, 1]]
    assert data.test.labels.tolist() == [[3, 2]]
    assert load("tagging", tmp_path, least_count=2).symbols == (PADDING, UNKNOWN, "The")
    names = Names(data.symbols[::-1], data.class_names[::-1])
    own = load("tagging", tmp_path, names)
    assert (own.symbols, own.class_names) == (names.symbols, names.classes)
    assert own.train.x.tolist() == [[3, 2, 5], [3, 1, 0]]


def test_images(tmp_path):
    rows, pixels = (load(task, images_folder(tmp_path)) for task in ("mnist_rows", "mnist_pixels"))
    assert rows.train.x.shape == (10, 3, 2)
    assert rows.validation.x.shape == (2, 3, 2)
    assert rows.test.x.shape == (4, 3, 2)
    assert pixels.train.x.shape == (10, 6, 1)
    np.testing.assert_array_equal(rows.train.x.ravel(), pixels.train.x.ravel())
    stored = np.frombuffer((tmp_path / "t10k-images-idx3.ubyte").read_bytes()[16:], np.uint8)
    np.testing.assert_array_equal(rows.test.x.ravel(), stored.astype(np.float32) / 255)
    assert rows.classes == 3
    assert rows.test.labels.tolist() == [0, 1, 2, 0]


def test_spoken_digits(tmp_path):
    data = load("spoken_digits", digits_file(tmp_path))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 4, 4]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.test.lengths.tolist() == [1, 3, 1, 3]
    within = np.arange(3) < data.train.lengths[:, np.newaxis]
    np.testing.assert_allclose(data.train.x[within].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train.x[within].std(axis=0), 1, atol=1e-6)
    chosen = np.concatenate([np.arange(8, 20), np.arange(28, 40)]).astype(float) * 2
    first = (0 - chosen.mean()) / chosen.std()
    assert data.test.x[0, 0, 0] == pytest.approx(first)


def test_speakers(tmp_path):
    data = load("speakers", speakers_file(tmp_path))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 2, 8]
    assert data.validation.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(
        data.validation.x[0], np.array([[20, 21], [22, 23]], np.float32) / np.float32(1e6)
    )


def test_the_speakers_of_the_example():
    train, test = load_recordings()
    data = load("speakers", RECORDINGS_FILE)
    np.testing.assert_array_equal(data.test.x, test.padded.astype(np.float32))
    np.testing.assert_array_equal(data.test.labels, test.speakers)
    assert len(data.train) + len(data.validation) == len(train)
    assert np.bincount(data.validation.labels).tolist() == [6] * 9


def test_the_order_grows_by_epochs():
    task = TASKS["temporal_order"]
    setup = task.setups["small"]
    data = task.load(None, setup)
    assert data.test.x.shape == (2000, 220, 8)
    longest = [
        max(int(batch.lengths.max()) for batch in task.batches(data, short, epoch, 1))
        for epoch in (0, 5, 12, 20)
        for short in [replace(setup, sequences=256)]
    ]
    assert longest == [18, 54, 220, 220]
    assert task.load(None, task.setups["short"]).test.x.shape[1] == 18


# What is refused.


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def change(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder

    return change


def arrays(base: dict[str, np.ndarray], **changes: object) -> Callable[[Path], Path]:
    def change(folder: Path) -> Path:
        kept = {**base, **changes}
        with (folder / "new.npz").open("wb") as file:
            np.savez(file, **{name: value for name, value in kept.items() if value is not None})
        return folder / "new.npz"

    return change


def without(name: str) -> Callable[[Path], Path]:
    def change(folder: Path) -> Path:
        (folder / name).unlink()
        return folder

    return change


IMAGES, LABELS = "t10k-images-idx3.ubyte", "t10k-labels-idx1-ubyte.gz"
NO_UTF8 = b"abc\xff" * 1000
TRUNCATED = gzip.compress(bytes(range(256)) * 50)[:-9]
ROW = "1\tIs\tbe\tVERB\t_\t_\t0\troot\t_"
WRONG: list[tuple[str, Callable[[Path], Path], str]] = [
    ("characters", lambda folder: folder, "'{folder}' is no file; name a file."),
    (
        "characters",
        lambda folder: folder / "none",
        "'{folder}/none' is not there; give the path of",
    ),
    (
        "characters",
        lambda folder: written("a.txt", b"")(folder) / "a.txt",
        "'{folder}/a.txt' is empty; fetch it anew.",
    ),
    (
        "characters",
        lambda folder: written("a.txt", NO_UTF8)(folder) / "a.txt",
        "'{folder}/a.txt' is not UTF-8 at byte 3; convert it to UTF-8.",
    ),
    (
        "characters",
        lambda folder: written("a.txt", b"short")(folder) / "a.txt",
        "'{folder}/a.txt' must have at least 1000 characters, not 5; give a longer text.",
    ),
    (
        "characters",
        lambda folder: written("a.gz", TRUNCATED)(folder) / "a.gz",
        "'{folder}/a.gz' is a damaged gzip file (Compressed file ended before the end-of-stream",
    ),
    (
        "characters",
        lambda folder: written("a.gz", b"no gzip")(folder) / "a.gz",
        "'{folder}/a.gz' is a damaged gzip file (Not a gzipped file (b'no')); fetch it anew.",
    ),
    ("words", without("wiki.test.tokens"), "'{folder}' has no file with 'test' in its name; add"),
    (
        "words",
        written("other.test.txt", b"x"),
        "'{folder}' has 2 files with 'test' in their names, 'other.test.txt' and 'wiki",
    ),
    (
        "words",
        written("wiki.test.tokens", b"a b c"),
        "'{folder}' must have at least 20 words to test on, not 4; give a longer text.",
    ),
    (
        "words",
        written("wiki.train.tokens", NO_UTF8),
        "'{folder}/wiki.train.tokens' is not UTF-8 at byte 3; convert it to UTF-8.",
    ),
    (
        "tagging",
        without("en.dev.tsv.gz"),
        "'{folder}' has no file with 'valid' or 'dev' in its name and the ending .tsv or .conllu",
    ),
    (
        "tagging",
        written("en.train.tsv", b"\n\n \n"),
        "'{folder}/en.train.tsv' has no sentence; give a file with a word a line.",
    ),
    (
        "tagging",
        written("en.train.tsv", b"The\tDET\ncat\n"),
        "'{folder}/en.train.tsv' must have a word, a tab and its tag in line 2; mend the line.",
    ),
    (
        "tagging",
        written("en.train.tsv", b"The\t\n"),
        "'{folder}/en.train.tsv' must have a word and its tag in line 1; mend the line.",
    ),
    (
        "tagging",
        written("en.test.conllu", ROW.encode()),
        "'{folder}/en.test.conllu' must have 10 columns in line 1, not 9; mend the line.",
    ),
    (
        "tagging",
        written("en.train.tsv", "".join(f"a\t{n}\n" for n in range(2000)).encode()),
        "'{folder}' must have at most 1000 different tags, not 200",
    ),
    ("mnist_rows", without(IMAGES), "'{folder}' has no file with 't10k' or 'test' in its name and"),
    (
        "mnist_rows",
        written(IMAGES, b"\0\0\x0d\x03" + bytes(30)),
        f"'{{folder}}/{IMAGES}' must be an IDX file of unsigned bytes with 3 axes; fetch it anew.",
    ),
    (
        "mnist_rows",
        written(IMAGES, b"\0\0\x08"),
        f"'{{folder}}/{IMAGES}' must be an IDX file of unsigned bytes with 3 axes; fetch it anew.",
    ),
    (
        "mnist_rows",
        written(IMAGES, b"\0\0\x08\x03" + b"\xff" * 12 + bytes(30)),
        f"'{{folder}}/{IMAGES}' must hold 79228162458924105385300197375 bytes after its header, as",
    ),
    (
        "mnist_pixels",
        written(IMAGES, idx(np.zeros((4, 3, 2)))[:-1]),
        f"'{{folder}}/{IMAGES}' must hold 24 bytes after its header, as its sizes (4, 3, 2) say,",
    ),
    (
        "mnist_pixels",
        written(IMAGES, idx(np.zeros((4, 2, 3)))),
        "'{folder}' must have test images of (3, 2) pixels, as the training images have, not",
    ),
    (
        "mnist_rows",
        written(IMAGES, idx(np.zeros((5, 3, 2)))),
        f"'{{folder}}/{LABELS}' must hold 5 labels, as '{IMAGES}' has images, not 4; give files",
    ),
    (
        "mnist_rows",
        written(LABELS, gzip.compress(idx(np.array([0, 1, 2, 9])))),
        "'{folder}' has a test label 9 that no training image has; give files that belong together",
    ),
    (
        "spoken_digits",
        lambda folder: written("a.npz", b"PK\x03\x04 no")(folder) / "a.npz",
        "'{folder}/a.npz' is no readable .npz file (File is not a zip file); fetch it anew.",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, index=None),
        "'{folder}/new.npz' has no array 'index'; give a file that has it.",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, digit=np.array([{}] * 20, object)),
        "'{folder}/new.npz' must hold 'digit' as numpy.savez writes it; fetch it anew.",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, digit=np.zeros(20)),
        "'{folder}/new.npz' must hold numbers of kind i or u in 'digit', and at least one, not <f8",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, frames=np.zeros(40)),
        "'{folder}/new.npz' must have frames of shape (all frames, coefficients), and lengths of",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, frames=np.full((40, 2), np.nan)),
        "'{folder}/new.npz' must have finite frames; give another file.",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, lengths=np.full(20, 3)),
        "'{folder}/new.npz' must have lengths from 1 to 65536, together 40, as it has frames",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, digit=np.zeros(19, np.int8)),
        "'{folder}/new.npz' must have a number in 'digit' for each of the 20 recordings, not the s",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, digit=np.repeat([0, 2], 10)),
        "'{folder}/new.npz' must have a training recording of each class from 0 to 2, at least two",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, index=np.full(20, 4)),
        "'{folder}/new.npz' has no recordings to train on; give another file.",
    ),
    (
        "spoken_digits",
        arrays(DIGITS, index=np.full(20, -1)),
        "'{folder}/new.npz' must have no negative digit or index; give another file.",
    ),
    (
        "speakers",
        arrays(SPEAKERS, speakers=np.repeat([0, 1], 10)),
        "'{folder}/new.npz' must number its speakers from 1 on; give another file.",
    ),
    (
        "speakers",
        arrays(SPEAKERS, test=np.ones(20, np.bool_)),
        "'{folder}/new.npz' has no recordings to train on; give another file.",
    ),
    (
        "speakers",
        arrays(SPEAKERS, test=np.ones(20, np.int8)),
        "'{folder}/new.npz' must hold numbers of kind b in 'test', and at least one, not |i1",
    ),
]


@pytest.mark.parametrize(
    ("name", "change", "message"), WRONG, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(WRONG)]
)
def test_wrong_data_are_refused_in_a_sentence(tmp_path, name, change, message):
    MADE[name](tmp_path)
    with pytest.raises(DataError) as caught:
        load(name, change(tmp_path))
    text = str(caught.value)
    assert text.startswith(message.format(folder=tmp_path))
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("name", MADE)
def test_data_must_be_named(name):
    with pytest.raises(DataError, match=f"^The task {name} needs data; give --data, the path of"):
        load(name, None)


def test_a_bomb_is_not_unpacked_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST_DATA", 1 << 20)
    monkeypatch.setattr(sources.read_bytes, "__defaults__", (1 << 20,))
    path = tmp_path / "bomb.txt.gz"
    path.write_bytes(gzip.compress(bytes(50 << 20)))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(DataError, match="must hold at most 1048576 bytes unpacked; take a part"):
        load("characters", path)
    with (tmp_path / "bomb.npz").open("wb") as file:
        np.savez_compressed(file, **{**DIGITS, "frames": np.zeros((1 << 19, 2), np.float32)})
    with pytest.raises(DataError, match="must hold at most 1048576 bytes in 'frames', not"):
        load("spoken_digits", tmp_path / "bomb.npz")


@pytest.mark.parametrize("name", MADE)
def test_damage_is_refused_in_a_sentence_or_read(tmp_path, name):
    """Bytes of one file changed, cut or added: data, or one sentence, and no warning."""
    path = MADE[name](tmp_path)
    files = sorted(entry for entry in tmp_path.iterdir() if entry.is_file())
    contents = {file: file.read_bytes() for file in files}
    rng = np.random.default_rng(8)
    refusals = 0
    for _ in range(120):
        file = files[int(rng.integers(len(files)))]
        damaged = damage(rng, contents[file])
        file.write_bytes(damaged)
        try:
            load(name, path, batch=2)
        except DataError as error:
            assert str(error).count("\n") == 0  # noqa: PT017 - not all are refused
            refusals += 1
        file.write_bytes(contents[file])
    assert refusals > 10


def test_a_model_of_other_symbols_is_refused(tmp_path):
    with pytest.raises(DataError, match="The model's symbols are not characters; evaluate a model"):
        load("characters", text_file(tmp_path), Names(("word", OTHER)))
    with pytest.raises(DataError, match=f"The model's symbols lack {END}, which the task's data"):
        load("words", words_folder(tmp_path), Names((UNKNOWN, "the")))
    with pytest.raises(DataError, match="has the tag 'DET', which the model does not know; give"):
        load("tagging", tags_folder(tmp_path), Names((PADDING, UNKNOWN), ("NOUN", "VERB", "PART")))


def test_a_vocabulary_takes_the_frequent_words():
    words = ["c", "b", "a", "b", "c", "c", "d", UNKNOWN]
    assert vocabulary(words, None) == (UNKNOWN, "c", "b", "a", "d")
    assert vocabulary(words, None, most=2) == (UNKNOWN, "c", "b")
    assert vocabulary(words, None, least_count=2) == (UNKNOWN, "c", "b")
    assert symbols_of(["b", "z", UNKNOWN], (UNKNOWN, "c", "b")).tolist() == [2, 0, 0]


# Data that are no part of the project.


def test_war_and_peace():
    data = load("characters", shared("war_and_peace/war_and_peace.txt"))
    # 82 characters, two of them only in the last fifth; and the one for those.
    assert data.inputs == 81
    assert data.train.x.shape == (1, 2_556_971)
    assert data.test.x.shape == data.validation.x.shape == (3196, 99)
    paper = TASKS["characters"].setups["paper"]
    assert sum(1 for _ in TASKS["characters"].batches(data, paper, 0, 1)) == 399


def test_mnist():
    data = load("mnist_rows", shared("mnist"))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [
        50_000,
        10_000,
        10_000,
    ]
    assert data.train.x.shape[1:] == (28, 28)
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)
    assert np.bincount(data.test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]


def test_udpos():
    data = load("tagging", shared("udpos"))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12544, 2001, 2077]
    assert [int(part.lengths.sum()) for part in (data.train, data.test)] == [204_577, 25_094]
    assert data.classes == 17


def test_wikitext():
    data = load("words", shared("wikitext-2"), vocabulary=0)
    assert data.inputs == 33_278
    assert data.train.x.shape == (20, 2_088_628 // 20 - 1)
    assert data.test.x.shape == (10, 245_569 // 10 - 1)


def test_free_spoken_digits():
    data = load("spoken_digits", shared("spoken_digits/fsdd_mfcc.npz"))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [2400, 300, 300]
    assert np.bincount(data.test.labels).tolist() == [30] * 10


def test_setups_are_what_a_trainer_takes():
    for task in TASKS.values():
        for setup in task.setups.values():
            assert isinstance(setup, Setup)
            assert setup.last_rate is None or setup.last_rate <= setup.learning_rate


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden": 0}, "hidden must be from 1 to 16384, not 0."),
        ({"dropout": 2.0}, "dropout must be from 0 to 0.95, not 2.0."),
        ({"learning_rate": float("nan")}, "learning_rate must be from 1e-12 to 1e+06, not nan."),
        ({"epochs": 0}, "epochs must be from 1 to 1000000, not 0."),
        ({"batch": -1}, "batch must be from 1 to 1048576, not -1."),
        ({"optimiser": "lion"}, "optimiser must be adam or adamw or sgd, not 'lion'."),
        ({"shrink": ()}, "shrink must be numbers from 0.05 to 1, with commas between them."),
        ({"shrink": (0.5, 2.0)}, "shrink must be numbers from 0.05 to 1"),
    ],
)
def test_a_set_up_refuses_values_that_no_training_could_have(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        replace(TASKS["characters"].setups["small"], **change)
