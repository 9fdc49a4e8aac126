"""Vocabularies: which words are symbols, and the symbol of each word of a text."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fewbit.train.tasks.task import DataError, Names

__all__ = ["UNKNOWN", "symbols_of", "vocabulary"]

UNKNOWN = "<unk>"
"""The symbol that stands for all words outside the vocabulary."""
MOST_WORDS = 1 << 20


def vocabulary(
    words: Iterable[str],
    names: Names | None,
    *,
    reserved: Sequence[str] = (UNKNOWN,),
    most: int = 0,
    least_count: int = 1,
) -> tuple[str, ...]:
    """Return the words that are symbols: those of a trained model, or the frequent ones of a text.

    Parameters
    ----------
    words
        The words of the training part, in order; they are not looked at if there are `names`.
    names
        The names of a trained model; None to take the words.
    reserved
        Symbols that come first, whether they are in the text or not.
    most
        The number of the most frequent words that are symbols; 0 for all. Of words that are
        equally frequent the earlier in the text go first.
    least_count
        How often a word must be in the text to be a symbol.

    Raises
    ------
    DataError
        If the model's symbols lack a reserved one, or there are too many words.
    """
    if names is not None:
        lacking = [symbol for symbol in reserved if symbol not in names.symbols]
        if lacking:
            raise DataError(
                f"The model's symbols lack {lacking[0]}, which the task's data need; evaluate a"
                " model of this task."
            )
        return names.symbols
    counts = Counter(words)
    for symbol in reserved:
        counts.pop(symbol, None)
    found = [word for word, count in counts.most_common(most or None) if count >= least_count]
    if len(found) > MOST_WORDS:
        raise DataError(
            f"There must be at most {MOST_WORDS} different words, not {len(found)}; set a larger"
            " least count, or a vocabulary."
        )
    return (*reserved, *found)


def symbols_of(words: Sequence[str], known: Sequence[str]) -> npt.NDArray[np.int32]:
    """Return the symbol of each word; that of `UNKNOWN` for words that are not known."""
    places = {word: place for place, word in enumerate(known)}
    unknown = places[UNKNOWN]
    return np.array([places.get(word, unknown) for word in words], np.int32)
