"""The constants of an int8 layer, whose scales are multipliers and shifts: integers alone."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import (
    HIGHEST_SHIFT,
    INT8_RANGE,
    INT16_RANGE,
    INT32_RANGE,
    LOWEST_SHIFT,
    Raws,
    Rounding,
)
from fewbit.golden.checks import as_shaped_raws, check_choice, freeze_array, freeze_integer
from fewbit.golden.lstm.integer_variant import (
    COUPLED_GATES,
    GATES,
    HIGHEST_CELL_EXPONENT,
    LOWEST_CELL_EXPONENT,
    PARTS,
    IntegerVariant,
)
from fewbit.golden.lstm.layer_norm import HIGHEST_UNITS

__all__ = ["Int8Constants"]

_HIGHEST_MULTIPLIER = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class Int8Constants:
    """All integers that a layer's time steps need, and nothing else.

    Arrays are copied and made read-only. Multipliers are from 0 to 2^31 - 1, shifts from -31 to 30.
    A field that a variant lacks is None, or 0.

    Parameters
    ----------
    gates
        ("i", "f", "g", "o"), or ("f", "g", "o") where the input gate is ``32767 - f``; G of them.
    input_weights
        int8, shape (G, hidden, inputs).
    recurrent_weights
        int8, shape (G, hidden, outputs).
    folded_bias
        int32, shape (G, 2, hidden): start values of the accumulators, by gate and part.
    multipliers, shifts
        int64, shape (G, 2): scales of the gates' requantisation, by gate and part.
    cell_exponent
        The resolution of the cell is ``2^cell_exponent``; from -15 to -9.
    cell_clip
        The cell saturates to ``-cell_clip...cell_clip``; from 0, for no limit, to 32767.
    hidden_multiplier, hidden_shift
        Scale of the requantisation of the output gate times tanh of the cell.
    hidden_offset
        Number that this requantisation adds to its result, from -128 to 128. It is the zero point
        of the result, or with a projection minus that zero point, which the projection's bias adds
        again.
    reset_hidden
        Hidden raw at reset.
    peephole_weights
        int16, shape (G - 1, hidden), for all gates but g.
    peephole_multipliers, peephole_shifts
        int64, shape (G - 1,).
    peephole_ties_up
        Number of first units whose peephole's second rounding sends ties toward +infinity instead
        of away from zero; see `fewbit.golden.lstm.integer_step.multiply_with_ties_up`.
    norm_weights
        int16, shape (G, hidden): gains of the layer norm.
    norm_bias
        int32, shape (G, hidden).
    norm_guards, norm_multipliers, norm_shifts
        int64, shape (G,): see `fewbit.golden.lstm.layer_norm.layer_norm`.
    projection_weights
        int8, shape (outputs, hidden).
    projection_bias
        int32, shape (outputs,): start values of the projection's accumulators.
    projection_multiplier, projection_shift, projection_offset
        Scale and offset of the projection's requantisation; the offset is from -128 to 127.
    projection_clip
        The outputs saturate to ``-projection_clip...projection_clip``; from 0, for no limit, to
        127.
    activation
        "table" or "gemmlowp".
    rounding
        "double" or "single".

    Raises
    ------
    ValueError
        If a shape, a type or a range is wrong.
    """

    gates: tuple[str, ...]
    input_weights: npt.NDArray[np.int8]
    recurrent_weights: npt.NDArray[np.int8]
    folded_bias: npt.NDArray[np.int32]
    multipliers: Raws
    shifts: Raws
    cell_exponent: int
    hidden_multiplier: int
    hidden_shift: int
    hidden_offset: int
    reset_hidden: int
    cell_clip: int = 0
    peephole_weights: npt.NDArray[np.int16] | None = None
    peephole_multipliers: Raws | None = None
    peephole_shifts: Raws | None = None
    peephole_ties_up: int = 0
    norm_weights: npt.NDArray[np.int16] | None = None
    norm_bias: npt.NDArray[np.int32] | None = None
    norm_guards: Raws | None = None
    norm_multipliers: Raws | None = None
    norm_shifts: Raws | None = None
    projection_weights: npt.NDArray[np.int8] | None = None
    projection_bias: npt.NDArray[np.int32] | None = None
    projection_multiplier: int = 0
    projection_shift: int = 0
    projection_offset: int = 0
    projection_clip: int = 0
    activation: ActivationKind = "table"
    rounding: Rounding = "double"

    def __post_init__(self) -> None:
        """Check that shapes, types and ranges are legal."""
        if self.gates not in {GATES, COUPLED_GATES}:
            raise ValueError(f"gates must be {GATES} or {COUPLED_GATES}, not {self.gates!r}.")
        shape = np.shape(self.input_weights)
        if len(shape) != 3 or shape[0] != len(self.gates) or 0 in shape:
            raise ValueError(
                f"input_weights must have the shape ({len(self.gates)}, hidden, inputs), not "
                f"{shape}."
            )
        gates, hidden, _ = shape
        freeze_array(self, "input_weights", np.int8, shape)
        projection = self.projection_weights
        outputs = hidden if projection is None else len(projection)
        freeze_array(self, "recurrent_weights", np.int8, (gates, hidden, outputs))
        freeze_array(self, "folded_bias", np.int32, (gates, len(PARTS), hidden))
        self._freeze_split("multipliers", "shifts", (gates, len(PARTS)))
        freeze_integer(self, "cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
        freeze_integer(self, "cell_clip", 0, INT16_RANGE[1])
        self._check_split("hidden_multiplier", "hidden_shift")
        freeze_integer(
            self, "hidden_offset", INT8_RANGE[0], INT8_RANGE[1] + (projection is not None)
        )
        freeze_integer(self, "reset_hidden", *INT8_RANGE)
        if self._has(["peephole_weights", "peephole_multipliers", "peephole_shifts"]):
            freeze_array(self, "peephole_weights", np.int16, (gates - 1, hidden))
            self._freeze_split("peephole_multipliers", "peephole_shifts", (gates - 1,))
        freeze_integer(self, "peephole_ties_up", 0, hidden)
        norm = ["norm_weights", "norm_bias", "norm_guards", "norm_multipliers", "norm_shifts"]
        if self._has(norm):
            if hidden > HIGHEST_UNITS:
                raise ValueError(f"A layer norm has at most {HIGHEST_UNITS} units, not {hidden}.")
            freeze_array(self, "norm_weights", np.int16, (gates, hidden))
            freeze_array(self, "norm_bias", np.int32, (gates, hidden))
            self._freeze_raws("norm_guards", 1, INT32_RANGE[1], (gates,))
            self._freeze_split("norm_multipliers", "norm_shifts", (gates,))
        if self._has(["projection_weights", "projection_bias"]):
            freeze_array(self, "projection_weights", np.int8, (outputs, hidden))
            freeze_array(self, "projection_bias", np.int32, (outputs,))
        self._check_split("projection_multiplier", "projection_shift")
        freeze_integer(self, "projection_offset", *INT8_RANGE)
        freeze_integer(self, "projection_clip", 0, INT8_RANGE[1])
        check_choice("activation", self.activation, get_args(ActivationKind))
        check_choice("rounding", self.rounding, get_args(Rounding))

    def _has(self, names: list[str]) -> bool:
        """Return whether a set of fields is present, or refuse an incomplete set."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing and len(missing) < len(names):
            raise ValueError(f"{' and '.join(names)} go together, but {missing[0]} is None.")
        return not missing

    def _freeze_raws(self, name: str, low: int, high: int, shape: tuple[int, ...]) -> None:
        kept = as_shaped_raws(getattr(self, name), name, (low, high), shape).copy()
        kept.setflags(write=False)
        object.__setattr__(self, name, kept)

    def _freeze_split(self, multipliers: str, shifts: str, shape: tuple[int, ...]) -> None:
        self._freeze_raws(multipliers, 0, _HIGHEST_MULTIPLIER, shape)
        self._freeze_raws(shifts, LOWEST_SHIFT, HIGHEST_SHIFT, shape)

    def _check_split(self, multiplier: str, shift: str) -> None:
        freeze_integer(self, multiplier, 0, _HIGHEST_MULTIPLIER)
        freeze_integer(self, shift, LOWEST_SHIFT, HIGHEST_SHIFT)

    @property
    def coupled(self) -> bool:
        """Return whether the input gate is ``32767 - f``."""
        return self.gates == COUPLED_GATES

    @property
    def variant(self) -> IntegerVariant:
        """Return the variant of the layer: the parts that it has."""
        return IntegerVariant(
            coupled=self.coupled,
            peephole=self.peephole_weights is not None,
            norm=self.norm_weights is not None,
            projection=self.projection_weights is not None,
        )

    @property
    def inputs(self) -> int:
        """Return the length of an input vector."""
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        """Return the number of units, each with a cell."""
        return self.input_weights.shape[1]

    @property
    def outputs(self) -> int:
        """Return the length of a hidden vector: the projection's rows, or one for each unit."""
        return self.recurrent_weights.shape[2]
