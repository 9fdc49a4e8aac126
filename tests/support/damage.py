"""Damage to the bytes of files, for tests of their readers."""

import numpy as np


def damage(rng: np.random.Generator, content: bytes) -> bytearray:
    """The bytes with one to three changes: another byte, some left out, or some put in."""
    result = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(result)))
        match rng.integers(3):
            case 0:
                result[at] = int(rng.integers(256))
            case 1:
                del result[at : at + int(rng.integers(1, 9))]
            case _:
                result[at:at] = rng.bytes(3)
        # There is always a byte left to change.
        result = result or bytearray(b"\0")
    return result
