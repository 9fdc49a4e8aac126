"""Reference vectors from the golden model, as a numpy archive."""

import io
from pathlib import Path

import numpy as np

from fewbit.errors import check_target, write_bytes
from fewbit.golden.checks import check_whole
from fewbit.hdl.design import ConfiguredDesign
from fewbit.models import told

__all__ = ["LARGEST_COUNT", "LARGEST_SEED", "check_count", "reference_vectors", "write_vectors"]

LARGEST_COUNT = 10**8
"""The largest number of results that vectors or a regression take."""

LARGEST_SEED = 2**32 - 1
"""The largest seed of operands and pauses."""


def check_count(count: object, seed: object) -> tuple[int, int]:
    """Return a number of results and a seed, or refuse one that is out of range.

    Raises
    ------
    UsageError
        If the count is not a whole number from 1 to 10^8, or the seed not one from 0 to 2^32 - 1.
    """
    with told():
        return (
            check_whole("count", count, 1, LARGEST_COUNT),
            check_whole("seed", seed, 0, LARGEST_SEED),
        )


def reference_vectors(configured: ConfiguredDesign, count: int, seed: int) -> dict[str, np.ndarray]:
    """Return the codes of operands, configuration and results by port name, for ``count`` results.

    An array has the shape (beats,) or (beats, lanes), and the smallest unsigned type that holds its
    codes.
    """
    contract = configured.contract
    arrays = contract.stimulus(np.random.default_rng(seed), count)
    arrays |= contract.compute(arrays)
    widths = {
        operand.name: operand.format.width
        for operand in (*contract.configuration, *contract.operands, *contract.results)
    }
    return {name: array.astype(_smallest(widths[name])) for name, array in arrays.items()}


def _smallest(width: int) -> type[np.unsignedinteger]:
    for kind in (np.uint8, np.uint16, np.uint32):
        if width <= np.iinfo(kind).bits:
            return kind
    return np.uint64


def write_vectors(configured: ConfiguredDesign, count: int, seed: int, path: Path) -> int:
    """Write :func:`reference_vectors` to an ``.npz`` file, and return the number of results."""
    check_target(path)
    arrays = reference_vectors(configured, count, seed)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, content.getvalue())
    return count
