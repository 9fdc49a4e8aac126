"""The contract of a circuit: what it takes, what it gives, and bit for bit how they relate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.operands import Operand

    Codes = npt.NDArray[np.int64]
    Arrays = Mapping[str, Codes]

__all__ = ["Contract", "describe", "random_codes"]


class Contract(ABC):
    """Golden side of a design: a frozen dataclass of its parameters.

    A circuit takes a stream of beats (``operands``), gives a stream of beats (``results``), and
    may have a ``configuration``, constant while anything is in flight. All arrays hold codes.
    """

    @property
    @abstractmethod
    def operands(self) -> tuple[Operand, ...]:
        """Fields of an input beat, lowest bits first."""

    @property
    @abstractmethod
    def results(self) -> tuple[Operand, ...]:
        """Fields of an output beat, lowest bits first."""

    @property
    def handshakes(self) -> dict[str, tuple[str, str]]:
        """Names of the ports valid and ready of the streams ``i`` and ``o``."""
        return {"i": ("i_valid", "i_ready"), "o": ("o_valid", "o_ready")}

    @property
    def configuration(self) -> tuple[Operand, ...]:
        """Inputs that hold still while the circuit works; arrays of one row."""
        return ()

    @abstractmethod
    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Operand and configuration arrays that make ``count`` results, corners included."""

    @abstractmethod
    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Result arrays of operand and configuration arrays.

        Raises
        ------
        ValueError
            If an array is missing, has a wrong shape or type, or holds a code out of range.
        """

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        """Reading aid for result ``index``: a line for each field, in codes and reals."""
        return [
            *(describe(field, arrays[field.name][index]) for field in self.operands),
            *(describe(field, arrays[field.name][0]) for field in self.configuration),
        ]


def describe(operand: Operand, row: npt.ArrayLike) -> str:
    """One field of one beat in codes (hexadecimal) and reals."""
    codes = np.atleast_1d(np.asarray(row, dtype=np.int64))
    digits = (operand.format.width + 3) // 4
    shown = " ".join(f"{int(code):0{digits}x}" for code in codes)
    reals = " ".join(f"{real:.10g}" for real in operand.format.decode(codes))
    return f"{operand.name} = {shown} ({operand.format.name}: {reals})"


def random_codes(rng: np.random.Generator, operand: Operand, count: int) -> Codes:
    """Uniform codes of shape ``operand.shape(count)``, one in eight drawn from the corners."""
    # Lanes first in memory: what follows works lane by lane.
    shape = operand.shape(count)[::-1]
    width = operand.format.width
    kind = np.uint8 if width <= 8 else np.uint16 if width <= 16 else np.uint64
    codes = rng.integers(0, 2**width, size=shape, dtype=kind).astype(np.int64)
    corners = operand.format.corners
    # Places may repeat: with one in seven and a half drawn, one in eight is met.
    places = rng.integers(0, max(codes.size, 1), size=rng.binomial(codes.size, 2 / 15))
    codes.reshape(-1)[places] = corners[rng.integers(0, len(corners), size=len(places))]
    return codes.T
