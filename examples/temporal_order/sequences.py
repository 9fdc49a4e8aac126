"""The sequences of the task `temporal_order`, under the names that this example has for them."""

from fewbit.train.tasks.temporal_order import (
    CLASSES,
    LONGEST,
    NOISE,
    RELEVANT,
    SHORTEST,
    SYMBOLS,
    Sequences,
    generate,
)

__all__ = [
    "CLASSES",
    "LONGEST",
    "NOISE",
    "RELEVANT",
    "SHORTEST",
    "SYMBOLS",
    "Sequences",
    "generate",
]
