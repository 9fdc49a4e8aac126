"""The next character of a text: language at its smallest, any text of a user's.

The text is cut by position: 80 % to train, 10 % to validate, 10 % to test. Its alphabet is that of
the training part and one more symbol, `OTHER`, which stands for characters that are not in it; a
model that was trained knows its own alphabet.

Validation and test are windows of 100 characters from the reset state; of each, 99 are predicted.

Source: the set-up "paper" is that of Hou et al., "Normalization helps training of quantized LSTM",
NeurIPS 2019, which is that of Ardakani et al., arXiv 1809.11086, and of Karpathy et al., arXiv
1506.02078.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.train.tasks.batches import batches_of_windows, next_symbols
from fewbit.train.tasks.sources import check_path, read_text
from fewbit.train.tasks.task import Batch, Data, DataError, Names, Setup, Split, Task

__all__ = ["OTHER", "TASK"]

OTHER = "\N{REPLACEMENT CHARACTER}"
"""The symbol that stands for all characters outside the alphabet."""
MOST_SYMBOLS = 65_536
EVALUATION_WINDOW = 100
"""Characters of a window in validation and test, the last of which is only predicted."""
_NEEDS = "a text file in UTF-8"


def _load(path: Path | None, setup: Setup, names: Names | None = None) -> Data:
    """Read a text, and cut it into three parts."""
    if setup.window == 1:
        raise DataError("window must be at least 2, as its last character is only predicted.")
    source = check_path(path, "characters", _NEEDS)
    text = read_text(source)
    # Points of code rather than characters: of equal size, so that the text is an array.
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    window = setup.window or EVALUATION_WINDOW
    first, second = len(points) * 8 // 10, len(points) * 9 // 10
    parts = points[:first], points[first:second], points[second:]
    if min(map(len, parts)) < max(window, EVALUATION_WINDOW):
        raise DataError(
            f"'{source}' must have at least {10 * max(window, EVALUATION_WINDOW)} characters, not"
            f" {len(points)}; give a longer text."
        )
    alphabet = _alphabet(source, parts[0], names)
    train, validation, test = (_symbols(part, alphabet) for part in parts)
    whole = train[np.newaxis]
    return Data(
        Split(whole, np.array([len(train)], np.int64), next_symbols(whole)),
        _windows(validation),
        _windows(test),
        len(alphabet),
        len(alphabet),
        alphabet,
        alphabet,
        unknown=alphabet.index(OTHER),
    )


def _alphabet(source: Path, train: npt.NDArray[np.uint32], names: Names | None) -> tuple[str, ...]:
    """Return the symbols: those of a trained model, or those of the training part."""
    if names is not None:
        if OTHER not in names.symbols or any(len(symbol) != 1 for symbol in names.symbols):
            raise DataError(
                "The model's symbols are not characters; evaluate a model of the task characters."
            )
        return names.symbols
    found = [chr(point) for point in np.unique(train).tolist() if chr(point) != OTHER]
    if len(found) >= MOST_SYMBOLS:
        raise DataError(
            f"'{source}' must have fewer than {MOST_SYMBOLS} different characters, not"
            f" {len(found)}; give another text."
        )
    return (OTHER, *found)


def _symbols(points: npt.NDArray[np.uint32], alphabet: tuple[str, ...]) -> npt.NDArray[np.int32]:
    """Return the symbol of each character of a text."""
    known = np.array([ord(symbol) for symbol in alphabet], np.uint32)
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], points), len(known) - 1)
    symbols = order[at]
    return np.where(known[symbols] == points, symbols, alphabet.index(OTHER)).astype(np.int32)


def _windows(symbols: npt.NDArray[np.int32]) -> Split:
    """Return the windows of a part that do not overlap, from its beginning on."""
    count = len(symbols) // EVALUATION_WINDOW
    windows = symbols[: count * EVALUATION_WINDOW].reshape(count, EVALUATION_WINDOW)
    lengths = np.full(count, EVALUATION_WINDOW - 1, np.int64)
    return Split(windows[:, :-1], lengths, windows[:, 1:].astype(np.int64))


def _batches(data: Data, setup: Setup, epoch: int, seed: int) -> Iterator[Batch]:
    window = setup.window or EVALUATION_WINDOW
    return batches_of_windows(data.train, window, setup.batch, epoch, seed)


TASK = Task(
    name="characters",
    summary="the next character of a text",
    needs=_NEEDS,
    metric="bits",
    per_step=True,
    setups={
        # Ours: four epochs of War and Peace are 1,600 batches.
        "small": Setup(
            hidden=128,
            batch=64,
            window=100,
            epochs=4,
            learning_rate=0.004,
            last_rate=0.001,
            largest_gradient=5.0,
        ),
        # Hou et al.: Adam at 0.002, gradients' norm at most 5; the fall of the rate to 0.001 is
        # that of 1809.11086's program.
        "paper": Setup(
            hidden=512,
            batch=64,
            window=100,
            epochs=200,
            learning_rate=0.002,
            last_rate=0.001,
            largest_gradient=5.0,
        ),
    },
    load=_load,
    batches=_batches,
)
