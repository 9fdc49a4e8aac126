"""The contract of a circuit: its inputs, its outputs, and bit for bit how they relate."""

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
    """The golden side of a design: a frozen dataclass of its parameters.

    A circuit reads a stream of beats (``operands``) and writes a stream of beats (``results``). It
    may have a ``configuration``, which is constant while a beat is inside. All arrays hold codes.
    """

    @property
    @abstractmethod
    def operands(self) -> tuple[Operand, ...]:
        """Return the fields of an input beat, lowest bits first."""

    @property
    @abstractmethod
    def results(self) -> tuple[Operand, ...]:
        """Return the fields of an output beat, lowest bits first."""

    @property
    def handshakes(self) -> dict[str, tuple[str, str]]:
        """Return the names of the ports valid and ready of the streams ``i`` and ``o``."""
        return {"i": ("i_valid", "i_ready"), "o": ("o_valid", "o_ready")}

    @property
    def configuration(self) -> tuple[Operand, ...]:
        """Return the inputs that hold still while the circuit works; their arrays have one row."""
        return ()

    @abstractmethod
    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return random operand and configuration arrays that give ``count`` results.

        Corners are among the codes.
        """

    @abstractmethod
    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return the result arrays that the circuit gives for operand and configuration arrays.

        Raises
        ------
        ValueError
            If an array is missing, has a wrong shape or type, or holds a code out of range.
        """

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        """Return lines that show the inputs of result ``index`` in codes and reals, one a field."""
        return [
            *(describe(field, arrays[field.name][index]) for field in self.operands),
            *(describe(field, arrays[field.name][0]) for field in self.configuration),
        ]


def describe(operand: Operand, row: npt.ArrayLike) -> str:
    """Return one field of one beat as text, in codes (hexadecimal) and in reals."""
    codes = np.atleast_1d(np.asarray(row, dtype=np.int64))
    digits = (operand.format.width + 3) // 4
    shown = " ".join(f"{int(code):0{digits}x}" for code in codes)
    reals = " ".join(f"{real:.10g}" for real in operand.format.decode(codes))
    return f"{operand.name} = {shown} ({operand.format.name}: {reals})"


def random_codes(rng: np.random.Generator, operand: Operand, count: int) -> Codes:
    """Return uniform codes, shape ``operand.shape(count)``, one in eight drawn from the corners."""
    # Lanes come first in memory, because the code below works lane by lane.
    shape = operand.shape(count)[::-1]
    width = operand.format.width
    kind = np.uint8 if width <= 8 else np.uint16 if width <= 16 else np.uint64
    codes = rng.integers(0, 2**width, size=shape, dtype=kind).astype(np.int64)
    corners = operand.format.corners
    # Places may repeat: drawing one in seven and a half of them changes one in eight.
    places = rng.integers(0, max(codes.size, 1), size=rng.binomial(codes.size, 2 / 15))
    codes.reshape(-1)[places] = corners[rng.integers(0, len(corners), size=len(places))]
    return codes.T
