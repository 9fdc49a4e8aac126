"""The LSTM of binary, ternary or power-of-two weights: rows of additions, with a scale each.

Weights are small integers, their *levels*:

=========  ==========================================================
`weights`  levels
=========  ==========================================================
"ternary"  -1, 0, 1
"binary"   -1, 1
"pow2"     0 and ±2^e, e from 0 to `exponents` - 1; the smallest is ±1
"int12"    -2048 to 2047: weights of full precision, to compare circuits with
=========  ==========================================================

Inputs and hidden values are signed raws of `activation_width` bits, A, without a zero point. A unit
has eight rows: each of the gates i, f, g, o has one over the inputs and one over the old hidden
values. Their sums are exact modulo 2^32. Each sum is then requantised to Q3.12 by its row's
multiplier and shift, which rounds twice, and `fewbit.golden.lstm.integer_step.update_unit` does the
rest::

    gate = saturate(saturate(R_x(bias + T_x x)) + R_h(T_h h))       16 bits, the resolution 2^-12
    i, f, o = sigmoid(gate)     g = tanh(gate)                      the resolution 2^-15
    cell = saturate(f cell + i g)                                   16 bits, 2^cell_exponent
    h = saturate(o tanh(cell))                                     A bits, the resolution 2^-(A - 1)

where the inner saturate is of 16 bits, too. At reset, hidden values and cells are 0.

A scale that is a power of two has the multiplier 2^30, so a layer of such scales needs no
multiplication between its sums and its gates.

Source: Ardakani, Ji, Smithson, Meyer and Gross, "Learning recurrent binary/ternary weights",
arXiv 1809.11086, for conditional additions and a scale for what follows them; the integers are this
project's, those after the sums the ones of the int8 LSTM.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import (
    HIGHEST_SHIFT,
    INT16_RANGE,
    INT32_RANGE,
    LOWEST_SHIFT,
    SIGNIFICAND_POSITION,
    Raws,
    split_multiplier,
    wrap,
)
from fewbit.golden.checks import as_shaped_raws, check_choice, freeze_integer
from fewbit.golden.codecs import Codec, RawCodec
from fewbit.golden.lstm.contract import Lstm, StoredArray
from fewbit.golden.lstm.integer_step import update_unit
from fewbit.golden.lstm.integer_variant import (
    GATES,
    HIGHEST_CELL_EXPONENT,
    LOWEST_CELL_EXPONENT,
    PARTS,
)

__all__ = [
    "HIGHEST_ACTIVATION_WIDTH",
    "LOWEST_ACTIVATION_WIDTH",
    "MOST_EXPONENTS",
    "LevelKind",
    "ScaleKind",
    "TernaryLstm",
    "WeightKind",
    "accumulators",
    "levels_of",
]

WeightKind = Literal["ternary", "binary", "pow2"]
ScaleKind = Literal["any", "powers_of_two"]
"""The scales that rows may have: any that a split multiplier can hold, or powers of two alone."""
LevelKind = WeightKind | Literal["int12"]
"""The kinds of weights of circuits: also "int12", a baseline without a quantiser."""

LOWEST_ACTIVATION_WIDTH, HIGHEST_ACTIVATION_WIDTH = 4, 16
MOST_EXPONENTS = 4
_WEIGHT_AXES = ("gate", "unit", "operand")
_MULTIPLIER_RESOLUTION = 1 << SIGNIFICAND_POSITION
_HIGHEST_MULTIPLIER = (1 << 31) - _MULTIPLIER_RESOLUTION


def levels_of(weights: LevelKind, exponents: int = 1) -> tuple[int, ...]:
    """Return the levels that a weight may have, in ascending order.

    Parameters
    ----------
    weights
        "ternary", "binary", "pow2" or "int12".
    exponents
        Number of magnitudes of "pow2" weights beside 0.
    """
    if weights == "int12":
        return tuple(range(-(1 << 11), 1 << 11))
    magnitudes = [1 << exponent for exponent in range(exponents if weights == "pow2" else 1)]
    middle = [] if weights == "binary" else [0]
    return (*(-magnitude for magnitude in reversed(magnitudes)), *middle, *magnitudes)


@dataclass(frozen=True, eq=False)
class TernaryLstm(Lstm):
    """A layer of binary, ternary or power-of-two weights, gates in the order i, f, g, o.

    Arrays of integers are copied and made read-only.

    Parameters
    ----------
    weights
        "ternary", "binary", "pow2" or "int12".
    input_weights
        Levels, shape (4, hidden, inputs), stored as int8, or with "int12" as int16.
    recurrent_weights
        Levels, shape (4, hidden, hidden), stored in the same type.
    bias
        Start values of the sums of the input rows, in units of those sums; shape (4, hidden),
        stored as int32. They have no effect where the row's multiplier is 0.
    input_multipliers, recurrent_multipliers
        Shape (4, hidden): multiples of 2^7 from 0 to 2^31 - 2^7.
    input_shifts, recurrent_shifts
        Shape (4, hidden): from -31 to 30. A row's scale, from its sum to raws of the gate, is
        ``multiplier / 2^31 * 2^shift``.
    input_scale
        Resolution of the input raws, rounded to binary32. The multipliers include it; it is stored
        for the conversion of reals to raws.
    activation_width
        Bits of inputs and hidden values, 4 to 16.
    exponents
        Number of magnitudes of "pow2" weights, 1 to 4; else 1.
    cell_exponent
        The resolution of the cell is ``2^cell_exponent``; from -15 to -9.
    cell_clip
        The cell saturates to ``-cell_clip...cell_clip``, in raws; from 0, for no limit, to 32767.
    activation
        "table" or "gemmlowp", a key of `fewbit.golden.activation.integer.ACTIVATIONS`.

    Raises
    ------
    ValueError
        If a shape or a range is wrong, or a weight is no level.
    """

    kind: ClassVar[str] = "ternary_lstm"
    title: ClassVar[str] = "few-bit"
    stored: ClassVar[Mapping[str, StoredArray]] = {
        "weights": StoredArray(("text",), choices=get_args(WeightKind)),
        "input_weights": StoredArray(("int8",), ("gates", "hidden", "inputs")),
        "recurrent_weights": StoredArray(("int8",), ("gates", "hidden", "outputs")),
        "bias": StoredArray(("int32",), ("gates", "hidden")),
        "input_multipliers": StoredArray(("int32",), ("gates", "hidden")),
        "input_shifts": StoredArray(("int8",), ("gates", "hidden")),
        "recurrent_multipliers": StoredArray(("int32",), ("gates", "hidden")),
        "recurrent_shifts": StoredArray(("int8",), ("gates", "hidden")),
        "input_scale": StoredArray(("float32",)),
        "activation_width": StoredArray(("int32",)),
        "exponents": StoredArray(("int32",)),
        "cell_exponent": StoredArray(("int32",)),
        "cell_clip": StoredArray(("int32",)),
        "activation": StoredArray(("text",), choices=get_args(ActivationKind)),
    }

    weights: LevelKind
    input_weights: npt.NDArray[np.int8 | np.int16]
    recurrent_weights: npt.NDArray[np.int8 | np.int16]
    bias: npt.NDArray[np.int32]
    input_multipliers: Raws
    input_shifts: Raws
    recurrent_multipliers: Raws
    recurrent_shifts: Raws
    input_scale: float
    activation_width: int = 12
    exponents: int = 1
    cell_exponent: int = -12
    cell_clip: int = 0
    activation: ActivationKind = "table"

    def __post_init__(self) -> None:
        """Check that shapes, types and ranges are legal."""
        check_choice("weights", self.weights, (*get_args(WeightKind), "int12"))
        most = MOST_EXPONENTS if self.weights == "pow2" else 1
        if most > 1:
            freeze_integer(self, "exponents", 1, most)
        elif self.exponents != 1:
            raise ValueError(
                f"exponents must be 1 for {self.weights} weights, not {self.exponents!r}."
            )
        freeze_integer(self, "activation_width", LOWEST_ACTIVATION_WIDTH, HIGHEST_ACTIVATION_WIDTH)
        freeze_integer(self, "cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
        freeze_integer(self, "cell_clip", 0, INT16_RANGE[1])
        check_choice("activation", self.activation, get_args(ActivationKind))
        object.__setattr__(self, "input_scale", _checked_scale(self.input_scale))
        shape = np.shape(self.input_weights)
        if len(shape) != len(_WEIGHT_AXES) or shape[0] != len(GATES) or 0 in shape:
            raise ValueError(
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                f"not {shape}."
            )
        gates, hidden, inputs = shape
        self._freeze_levels("input_weights", (gates, hidden, inputs))
        self._freeze_levels("recurrent_weights", (gates, hidden, hidden))
        rows = gates, hidden
        self._freeze("bias", np.int32, INT32_RANGE, rows)
        for part in PARTS:
            name = f"{part}_multipliers"
            self._freeze(name, np.int64, (0, _HIGHEST_MULTIPLIER), rows)
            wrong = getattr(self, name) % _MULTIPLIER_RESOLUTION != 0
            if wrong.any():
                raise ValueError(
                    f"{name} must be multiples of {_MULTIPLIER_RESOLUTION}, not "
                    f"{getattr(self, name)[wrong][0]}."
                )
            self._freeze(f"{part}_shifts", np.int64, (LOWEST_SHIFT, HIGHEST_SHIFT), rows)

    def _freeze(
        self, name: str, dtype: type[np.integer[Any]], bounds: tuple[int, int], shape: Any
    ) -> None:
        kept = as_shaped_raws(getattr(self, name), name, bounds, shape).astype(dtype)
        kept.setflags(write=False)
        object.__setattr__(self, name, kept)

    def _freeze_levels(self, name: str, shape: tuple[int, ...]) -> None:
        allowed = levels_of(self.weights, self.exponents)
        dtype = np.int16 if self.weights == "int12" else np.int8
        self._freeze(name, dtype, (allowed[0], allowed[-1]), shape)
        values = getattr(self, name)
        wrong = ~np.isin(values, allowed)
        if wrong.any():
            listed = ", ".join(str(level) for level in allowed[:-1])
            raise ValueError(
                f"{name} of {self.weights} weights must be {listed} or {allowed[-1]}, not "
                f"{values[wrong][0]}."
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
    def reads(self) -> Codec:
        return self._codec(self.input_scale)

    @property
    def keeps(self) -> Codec:
        return self._codec(self.hidden_scale)

    def _codec(self, scale: float) -> Codec:
        agreement = {"activation_width": self.activation_width, "input_scale": scale}
        return RawCodec(self.activation_width, scale, agreement=agreement)

    @property
    def description(self) -> str:
        exponents = f", exponents {self.exponents}" if self.weights == "pow2" else ""
        return (
            f"{self.weights}{exponents}, activation {self.activation}, "
            f"activation width {self.activation_width}"
        )

    def with_activation(self, activation: ActivationKind) -> Self:
        return replace(self, activation=activation)

    def reset_state(self, batch: int) -> tuple[Raws, Raws]:
        hidden, cell = np.zeros((2, batch, self.hidden), np.int64)
        return hidden, cell

    def step(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
    ) -> tuple[Raws, Raws]:
        """Compute one time step of a batch.

        Parameters
        ----------
        x
            Input raws of `activation_width` bits, shape (batch, inputs).
        hidden
            Old hidden raws of as many bits, shape (batch, hidden).
        cell
            Old cell raws of 16 bits, shape (batch, hidden).

        Returns
        -------
        hidden, cell
            New raws, shape (batch, hidden) each.

        Raises
        ------
        ValueError
            If a shape is wrong or a number is no raw.
        """
        inputs = as_shaped_raws(x, "x", self.activation_bounds, (-1, self.inputs))
        state = len(inputs), self.hidden
        old_hidden = as_shaped_raws(hidden, "hidden", self.activation_bounds, state)
        old_cell = as_shaped_raws(cell, "cell", INT16_RANGE, state)
        return update_unit(
            accumulators(self, inputs, old_hidden),
            self.multipliers,
            self.shifts,
            old_cell,
            cell_exponent=self.cell_exponent,
            cell_clip=self.cell_clip,
            hidden_multiplier=self.hidden_multiplier,
            hidden_shift=self.hidden_shift,
            hidden_zero_point=0,
            activation=self.activation,
            hidden_width=self.activation_width,
        )

    @property
    def activation_bounds(self) -> tuple[int, int]:
        """Return the lowest and highest raw of an input or a hidden value."""
        half = 1 << (self.activation_width - 1)
        return -half, half - 1

    @property
    def hidden_scale(self) -> float:
        """Return the resolution of the hidden raws, 2^-(A - 1)."""
        return 2.0 ** (1 - self.activation_width)

    @cached_property
    def multipliers(self) -> Raws:
        """Return the multipliers of all rows, shape (hidden, 4, 2): by unit, gate and part.

        The input part is before the recurrent one.
        """
        return _by_row(self.input_multipliers, self.recurrent_multipliers)

    @cached_property
    def shifts(self) -> Raws:
        """Return the shifts of all rows, shape (hidden, 4, 2): by unit, gate and part.

        The input part is before the recurrent one.
        """
        return _by_row(self.input_shifts, self.recurrent_shifts)

    @cached_property
    def starts(self) -> Raws:
        """Return the start values of all rows, shape (hidden, 4, 2): bias, or 0 if recurrent."""
        return _by_row(self.bias, np.zeros_like(self.bias))

    @property
    def hidden_multiplier(self) -> int:
        """Return the multiplier that requantises the output gate times tanh of the cell: 2^30."""
        return self._hidden_split[0]

    @property
    def hidden_shift(self) -> int:
        """Return the shift that requantises the output gate times tanh of the cell: A - 30."""
        return self._hidden_split[1]

    @property
    def _hidden_split(self) -> tuple[int, int]:
        # The product of two numbers in units of 2^-15 is in units of 2^-30.
        return split_multiplier(2.0**-30 / self.hidden_scale)

    @cached_property
    def matrices(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the levels as reals, shapes (inputs, 4 hidden) and (hidden, 4 hidden)."""
        first, second = (
            np.ascontiguousarray(levels.reshape(-1, levels.shape[2]).T, np.float64)
            for levels in (self.input_weights, self.recurrent_weights)
        )
        return first, second


def _checked_scale(scale: object) -> float:
    """Return the scale rounded to binary32."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(float(scale))) if isinstance(scale, Real) else 0.0
    if not 0 < rounded < math.inf:
        raise ValueError(f"input_scale must be a finite binary32 number above 0, not {scale!r}.")
    return rounded


def _by_row(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Raws:
    stacked = np.stack([first.T, second.T], axis=-1).astype(np.int64)
    stacked.setflags(write=False)
    return stacked


def accumulators(model: TernaryLstm, x: Raws, hidden: Raws) -> Raws:
    """Return the sums of the rows with their start values, wrapped to 32 bits.

    Parameters
    ----------
    model
        The layer.
    x
        Input raws, shape (batch, inputs).
    hidden
        Old hidden raws, shape (batch, hidden).

    Returns
    -------
    Shape (batch, hidden, 4, 2), by unit, gate and part.
    """
    # A product of a 16-bit raw and a level is at most 2^26, so binary64, which numpy multiplies
    # fastest, holds the sum of fewer than 2^27 products exactly.
    sums = [
        (operand.astype(np.float64) @ matrix).reshape(-1, len(GATES), model.hidden)
        for operand, matrix in zip((x, hidden), model.matrices, strict=True)
    ]
    by_unit = np.stack(sums, axis=-1).transpose(0, 2, 1, 3).astype(np.int64)
    return wrap(by_unit + model.starts, 32)
