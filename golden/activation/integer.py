"""The activations of the integer LSTM: the list of approximations, and fast look-ups of each.

- *table*: linear interpolation in a table of 256 entries, :mod:`fewbit.golden.activation.table`.
- *gemmlowp*: polynomials and Newton steps, :mod:`fewbit.golden.activation.gemmlowp`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.gemmlowp import sigmoid_gemmlowp, tanh_gemmlowp
from fewbit.golden.activation.table import sigmoid_table, tanh_table
from fewbit.golden.activation.words import GATE_INTEGER_BITS, HIGHEST_INTEGER_BITS, WORD, words
from fewbit.golden.arithmetic import Raws
from fewbit.golden.checks import as_raws
from fewbit.golden.parameter import parameter

__all__ = ["ACTIVATIONS", "Activation", "ActivationKind", "activation_parameter"]

ActivationKind = Literal["table", "gemmlowp"]


def activation_parameter() -> Any:
    """Return the field ``activation`` of a contract."""
    return parameter(
        "table",
        "sigmoid and tanh: interpolated table, or LiteRT's gemmlowp polynomials",
        choices=get_args(ActivationKind),
    )


@dataclass(frozen=True)
class Activation:
    """One approximation of sigmoid and tanh, looked up in tables of all 65,536 results.

    On first use the two functions compute all results. After that both kinds take the same time,
    and `integer_bits` may be an array.

    Parameters
    ----------
    kind
        The key of the activation in `ACTIVATIONS`.
    sigmoid_of
        The sigmoid of Q3.12 raws.
    tanh_of
        Tanh of raws; its second operand is the number of integer bits.
    """

    kind: ActivationKind
    sigmoid_of: Callable[[Raws], Raws]
    tanh_of: Callable[[Raws, int], Raws]

    @cached_property
    def _sigmoids(self) -> Raws:
        return self.sigmoid_of(np.arange(WORD[0], WORD[1] + 1))

    @cached_property
    def _tanhs(self) -> Raws:
        every = np.arange(WORD[0], WORD[1] + 1)
        return np.stack([self.tanh_of(every, bits) for bits in range(HIGHEST_INTEGER_BITS + 1)])

    def sigmoid(self, raw: npt.ArrayLike) -> Raws:
        """Return the sigmoid of Q3.12 raws of any shape, in units of 2^-15."""
        return self._sigmoids[words(raw) - WORD[0]]

    def tanh(self, raw: npt.ArrayLike, integer_bits: npt.ArrayLike = GATE_INTEGER_BITS) -> Raws:
        """Return tanh of 16-bit raws, in units of 2^-15.

        Parameters
        ----------
        raw
            Raws with ``15 - integer_bits`` fraction bits, any shape.
        integer_bits
            From 0 to 6; broadcasts with `raw`.

        Returns
        -------
        The broadcast shape.
        """
        bits = as_raws(integer_bits, "integer_bits", 0, HIGHEST_INTEGER_BITS)
        return self._tanhs[bits, words(raw) - WORD[0]]


ACTIVATIONS: dict[ActivationKind, Activation] = {
    "table": Activation("table", sigmoid_table, lambda raw, bits: tanh_table(raw, bits - 15)),
    "gemmlowp": Activation("gemmlowp", sigmoid_gemmlowp, tanh_gemmlowp),
}
