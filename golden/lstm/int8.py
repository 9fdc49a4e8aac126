"""The integer LSTM: int8 weights and activations, int16 cell, int32 accumulators.

The plain variant: four gates in the order i, f, g, o (input, forget, cell, output), cell clip, no
coupled gates, no peephole, no layer norm, no projection. A gate has two parts, each a row of
products summed exactly and requantised by itself: part 0 is the input's, part 1 the recurrent.

With the activation "gemmlowp" this is bit for bit what LiteRT runs for a fully integer
``UNIDIRECTIONAL_SEQUENCE_LSTM``. With "table" the recipe is the same but for sigmoid and tanh,
which are those of TensorFlow Lite Micro.

Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453, and
LiteRT's kernel where the paper leaves a step open.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import get_args

import numpy as np
import numpy.typing as npt

from golden.activations import ACTIVATIONS, Activation, ActivationKind
from golden.arithmetic import (
    Raws,
    Rounding,
    as_raws,
    as_shaped_raws,
    multiply_by_split_multiplier,
    rounding_shift_right,
    saturate,
    split_multiplier,
    wrap,
)

__all__ = [
    "GATES",
    "PARTS",
    "Int8Lstm",
    "clip_code",
    "reset_state",
    "run",
    "run_with_cell",
    "step",
    "update_unit",
]

GATES = ("i", "f", "g", "o")
PARTS = ("input", "recurrent")
WEIGHT_AXES = ("gate", "unit", "operand")

LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT = -15, -9
_INT8 = (-(1 << 7), (1 << 7) - 1)
_INT16 = (-(1 << 15), (1 << 15) - 1)
_INT32 = (-(1 << 31), (1 << 31) - 1)
_GATE_STEP = np.float32(2.0**-12)
_PRODUCT_STEP = np.float32(2.0**-30)


def clip_code(clip: float, scale: float, width: int = 16) -> int:
    """Raw of a clip: the binary32 quotient ``clip / scale``, truncated and saturated.

    Parameters
    ----------
    clip
        Real, at least 0; 0 means no clip.
    scale
        Step of what is clipped, above 0.
    width
        Bits of what is clipped: 16 for a cell.

    Returns
    -------
    From 0 to 2^(width-1) - 1, where 0 means no clip.
    """
    if not 0 <= clip < math.inf:
        raise ValueError(f"A clip must be a finite number of at least 0, not {clip}.")
    if not 0 < scale < math.inf:
        raise ValueError(f"The scale of a clip must be a finite number above 0, not {scale}.")
    highest = (1 << (width - 1)) - 1
    # Operands that binary32 cannot hold are far beyond the word: infinity, or a division by zero.
    with np.errstate(all="ignore"):
        rounded = np.float32(clip)
        quotient = rounded / np.float32(scale)
    if rounded == 0:
        return 0
    return int(quotient) if quotient < highest else highest


@dataclass(frozen=True, eq=False)
class Int8Lstm:
    """A quantised LSTM layer: weights, scales, and every constant that follows from them.

    Gates are in the order i, f, g, o. Scales are rounded to binary32, arrays are copied and made
    read-only.

    Parameters
    ----------
    input_weights
        int8, shape (4, hidden, inputs).
    recurrent_weights
        int8, shape (4, hidden, hidden).
    bias
        int32, shape (4, hidden), in steps of weight scale times input scale.
    input_weight_scales, recurrent_weight_scales
        float32, shape (4,).
    input_scale, input_zero_point
        Of the input raws.
    hidden_scale, hidden_zero_point
        Of the hidden raws as the recurrent part reads them, and at reset.
    intermediate_scale, intermediate_zero_point
        Of the hidden raws as the last requantisation writes them. A converted file may hold
        others than the hidden's; they are normally equal.
    cell_exponent
        Step of the cell is ``2^cell_exponent``; from -15 to -9.
    cell_clip
        The cell saturates to ``-cell_clip...cell_clip``, in raws; 0 for no clip. `clip_code` gives
        it.
    activation
        "table" or "gemmlowp", a key of `golden.activations.ACTIVATIONS`.
    rounding
        "double" or "single", see `golden.arithmetic.multiply_by_split_multiplier`.

    Raises
    ------
    ValueError
        If a shape, a type or a range is wrong, or an effective multiplier is 2^30 or more.
    """

    input_weights: npt.NDArray[np.int8]
    recurrent_weights: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    input_weight_scales: npt.NDArray[np.float32]
    recurrent_weight_scales: npt.NDArray[np.float32]
    input_scale: float
    input_zero_point: int
    hidden_scale: float
    hidden_zero_point: int
    intermediate_scale: float
    intermediate_zero_point: int
    cell_exponent: int
    cell_clip: int = 0
    activation: ActivationKind = "table"
    rounding: Rounding = "double"

    def __post_init__(self) -> None:
        """Check every field, then the multipliers that follow from them."""
        shape = np.shape(self.input_weights)
        if len(shape) != len(WEIGHT_AXES) or shape[0] != len(GATES) or 0 in shape:
            raise ValueError(
                f"input_weights must have the shape (4, hidden, inputs), not {shape}; "
                "the gates are i, f, g, o."
            )
        _, hidden, inputs = shape
        self._freeze("input_weights", np.int8, (len(GATES), hidden, inputs))
        self._freeze("recurrent_weights", np.int8, (len(GATES), hidden, hidden))
        self._freeze("bias", np.int32, (len(GATES), hidden))
        for name in ("input_weight_scales", "recurrent_weight_scales"):
            self._freeze(name, np.float32, (len(GATES),))
            for scale in getattr(self, name).tolist():
                _check_scale(name, scale)
        for part in ("input", "hidden", "intermediate"):
            name = f"{part}_scale"
            object.__setattr__(self, name, _check_scale(name, getattr(self, name)))
            self._check_integer(f"{part}_zero_point", *_INT8)
        self._check_integer("cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
        self._check_integer("cell_clip", 0, _INT16[1])
        _check_choice("activation", self.activation, get_args(ActivationKind))
        _check_choice("rounding", self.rounding, get_args(Rounding))
        _ = self._split, self._hidden_split

    def _freeze(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        given = np.asarray(getattr(self, name))
        if given.dtype != dtype:
            raise ValueError(f"{name} must be {np.dtype(dtype)}, not {given.dtype}.")
        if given.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, not {given.shape}.")
        kept = given.copy()
        kept.setflags(write=False)
        object.__setattr__(self, name, kept)

    def _check_integer(self, name: str, low: int, high: int) -> None:
        value: object = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name} must be an integer, not {value!r}.")
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"{name} must be from {low} to {high}, not {number}.")
        object.__setattr__(self, name, number)

    @property
    def inputs(self) -> int:
        """Length of an input vector."""
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        """Number of hidden units."""
        return self.input_weights.shape[1]

    @cached_property
    def effective_scales(self) -> npt.NDArray[np.float32]:
        """Real factor from accumulator to gate raw: shape (4, 2), by gate and part.

        Weight scale times activation scale, divided by the gate's step, each operation rounded to
        binary32 in that order: another order, or double precision, gives other bytes.
        """
        weights = np.stack([self.input_weight_scales, self.recurrent_weight_scales], axis=1)
        activations = np.array([self.input_scale, self.hidden_scale], np.float32)
        with np.errstate(over="ignore", under="ignore"):
            return weights * activations / _GATE_STEP

    @cached_property
    def _split(self) -> tuple[Raws, Raws]:
        split = np.zeros((2, len(GATES), len(PARTS)), np.int64)
        for gate, part in np.ndindex(len(GATES), len(PARTS)):
            factor = float(self.effective_scales[gate, part])
            if factor >= 2.0**30:
                raise ValueError(
                    f"The scales of the {PARTS[part]} part of gate {GATES[gate]} must give an "
                    f"effective multiplier below 2^30, not {factor}; quantise with finer steps."
                )
            split[:, gate, part] = split_multiplier(factor)
        split.setflags(write=False)
        return split[0], split[1]

    @cached_property
    def _hidden_split(self) -> tuple[int, int]:
        with np.errstate(over="ignore"):
            factor = float(_PRODUCT_STEP / np.float32(self.intermediate_scale))
        if factor >= 2.0**30:
            raise ValueError(
                f"intermediate_scale must be above 2^-60, not {self.intermediate_scale}."
            )
        return split_multiplier(factor)

    @property
    def multipliers(self) -> Raws:
        """Multipliers of the gates' requantisation: shape (4, 2), by gate and part."""
        return self._split[0]

    @property
    def shifts(self) -> Raws:
        """Shifts of the gates' requantisation: shape (4, 2), by gate and part."""
        return self._split[1]

    @property
    def hidden_multiplier(self) -> int:
        """Multiplier of the last requantisation: ``2^-30 / intermediate_scale``."""
        return self._hidden_split[0]

    @property
    def hidden_shift(self) -> int:
        """Shift of the last requantisation."""
        return self._hidden_split[1]

    @cached_property
    def folded_bias(self) -> npt.NDArray[np.int32]:
        """Start values of the accumulators: shape (4, 2, hidden), by gate and part.

        The zero points are folded in, so that the products take raw inputs: bias minus zero point
        times the sum of the row; the recurrent part has no bias. Wrapped to 32 bits.
        """
        row_sums = np.stack(
            [
                self.input_weights.sum(axis=2, dtype=np.int64),
                self.recurrent_weights.sum(axis=2, dtype=np.int64),
            ],
            axis=1,
        )
        zero_points = np.array([self.input_zero_point, self.hidden_zero_point], np.int64)
        folded = -zero_points[:, np.newaxis] * row_sums
        folded[:, 0] += self.bias
        result = wrap(folded, 32).astype(np.int32)
        result.setflags(write=False)
        return result


def _check_scale(name: str, scale: object) -> float:
    """Return the scale rounded to binary32."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(float(scale))) if isinstance(scale, Real) else 0.0
    if not 0 < rounded < math.inf:
        raise ValueError(f"{name} must be a finite binary32 number above 0, not {scale!r}.")
    return rounded


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {listed}, not {value!r}.")


def _pre_activations(
    accumulators: Raws, multipliers: npt.ArrayLike, shifts: npt.ArrayLike, rounding: Rounding
) -> Raws:
    """Gate raws in Q3.12, shape (..., 4): the parts requantised one by one and summed.

    The running sum saturates after each part, so their order matters.
    """
    parts = multiply_by_split_multiplier(accumulators, multipliers, shifts, rounding)
    total = np.zeros(parts.shape[:-1], np.int64)
    for part in range(parts.shape[-1]):
        total = saturate(total + parts[..., part], 16)
    return total


def _next_cell(i: Raws, f: Raws, g: Raws, cell: Raws, exponent: Raws) -> Raws:
    """``f*c + i*g`` in the cell's step, saturated to 16 bits."""
    # Both gates are in 2^-15: i*g is in 2^-30 and the cell in 2^exponent.
    kept = rounding_shift_right(f * cell, 15)
    new = rounding_shift_right(i * g, 30 + exponent)
    return saturate(kept + new, 16)


def _saturate_to_clip(cell: Raws, clip: Raws) -> Raws:
    return np.where(clip > 0, np.clip(cell, -clip, clip), cell)


def update_unit(
    accumulators: npt.ArrayLike,
    multipliers: npt.ArrayLike,
    shifts: npt.ArrayLike,
    cell: npt.ArrayLike,
    *,
    cell_exponent: npt.ArrayLike,
    cell_clip: npt.ArrayLike,
    hidden_multiplier: npt.ArrayLike,
    hidden_shift: npt.ArrayLike,
    hidden_zero_point: npt.ArrayLike,
    activation: ActivationKind | Activation,
    rounding: Rounding = "double",
) -> tuple[Raws, Raws]:
    """Hidden and cell raws of a unit from the sums of its eight rows.

    All that comes after the dot products, for any accumulator, multiplier and shift. Sums of raws
    are exact before they saturate; only the requantisation wraps, where it shifts left.

    Parameters
    ----------
    accumulators
        Raws of 32 bits, shape (..., 4, 2): by gate i, f, g, o and by part, folded bias included.
    multipliers, shifts
        Of the gates' requantisation, which broadcast with `accumulators`; multipliers from 0 to
        2^31 - 1, shifts from -31 to 30.
    cell
        Old cell raws of 16 bits, shape (...).
    cell_exponent
        From -15 to -9; broadcasts with `cell`, as do the rest.
    cell_clip
        From 0, for none, to 32767.
    hidden_multiplier, hidden_shift, hidden_zero_point
        Of the last requantisation; the zero point from -128 to 127.
    activation
        "table", "gemmlowp", or an `Activation`.
    rounding
        "double" or "single".

    Returns
    -------
    hidden
        Raws of 8 bits, shape (...).
    cell
        Raws of 16 bits, shape (...).
    """
    sums = as_raws(accumulators, "accumulators", *_INT32)
    if sums.shape[-2:] != (len(GATES), len(PARTS)):
        raise ValueError(f"accumulators must have the shape (..., 4, 2), not {sums.shape}.")
    old = as_raws(cell, "cell", *_INT16)
    exponent = as_raws(cell_exponent, "cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
    clip = as_raws(cell_clip, "cell_clip", 0, _INT16[1])
    zero_point = as_raws(hidden_zero_point, "hidden_zero_point", *_INT8)
    if isinstance(activation, str):
        _check_choice("activation", activation, get_args(ActivationKind))
        activation = ACTIVATIONS[activation]

    pre = _pre_activations(sums, multipliers, shifts, rounding)
    i = activation.sigmoid(pre[..., 0])
    f = activation.sigmoid(pre[..., 1])
    g = activation.tanh(pre[..., 2])
    new = _saturate_to_clip(_next_cell(i, f, g, old, exponent), clip)
    o = activation.sigmoid(pre[..., 3])
    product = o * activation.tanh(new, 15 + exponent)
    scaled = multiply_by_split_multiplier(product, hidden_multiplier, hidden_shift, rounding)
    return saturate(scaled + zero_point, 8), new


def _accumulators(model: Int8Lstm, x: Raws, hidden: Raws) -> Raws:
    """Sum the rows with their folded bias, wrapped to 32 bits: shape (batch, hidden, 4, 2)."""
    # (batch, inputs) by (4, hidden, inputs) gives (4, batch, hidden).
    sums = [
        operand @ weights.astype(np.int64).transpose(0, 2, 1)
        for operand, weights in ((x, model.input_weights), (hidden, model.recurrent_weights))
    ]
    by_unit = np.stack(sums, axis=-1).transpose(1, 2, 0, 3)
    return wrap(by_unit + model.folded_bias.transpose(2, 0, 1), 32)


def step(
    model: Int8Lstm, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
) -> tuple[Raws, Raws]:
    """One time step of a batch.

    Parameters
    ----------
    model
        The layer.
    x
        Input raws of 8 bits, shape (batch, inputs).
    hidden
        Old hidden raws of 8 bits, shape (batch, hidden).
    cell
        Old cell raws of 16 bits, shape (batch, hidden).

    Returns
    -------
    hidden, cell
        New raws, shape (batch, hidden) each.
    """
    inputs = as_shaped_raws(x, "x", _INT8, (-1, model.inputs))
    units = (len(inputs), model.hidden)
    old_hidden = as_shaped_raws(hidden, "hidden", _INT8, units)
    old_cell = as_shaped_raws(cell, "cell", _INT16, units)
    return update_unit(
        _accumulators(model, inputs, old_hidden),
        model.multipliers,
        model.shifts,
        old_cell,
        cell_exponent=model.cell_exponent,
        cell_clip=model.cell_clip,
        hidden_multiplier=model.hidden_multiplier,
        hidden_shift=model.hidden_shift,
        hidden_zero_point=model.intermediate_zero_point,
        activation=model.activation,
        rounding=model.rounding,
    )


def reset_state(model: Int8Lstm, batch: int) -> tuple[Raws, Raws]:
    """Hidden and cell raws before the first step, shape (batch, hidden): both mean zero."""
    units = (batch, model.hidden)
    return np.full(units, model.hidden_zero_point, np.int64), np.zeros(units, np.int64)


def run_with_cell(
    model: Int8Lstm,
    x: npt.ArrayLike,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
) -> tuple[Raws, Raws]:
    """Hidden and cell raws of a batch of sequences, shape (batch, time, hidden) each.

    The parameters are those of `run`.
    """
    inputs = as_shaped_raws(x, "x", _INT8, (-1, -1, model.inputs))
    batch, time, _ = inputs.shape
    state = reset_state(model, batch)
    new_hidden = state[0] if hidden is None else hidden
    new_cell = state[1] if cell is None else cell
    hiddens, cells = np.zeros((2, batch, time, model.hidden), np.int64)
    for moment in range(time):
        new_hidden, new_cell = step(model, inputs[:, moment], new_hidden, new_cell)
        hiddens[:, moment], cells[:, moment] = new_hidden, new_cell
    return hiddens, cells


def run(
    model: Int8Lstm,
    x: npt.ArrayLike,
    *,
    hidden: npt.ArrayLike | None = None,
    cell: npt.ArrayLike | None = None,
) -> Raws:
    """Hidden raws of a batch of sequences.

    A step depends on no later one, so sequences of different lengths can be padded at their ends
    and the surplus of the result ignored.

    Parameters
    ----------
    model
        The layer.
    x
        Input raws of 8 bits, shape (batch, time, inputs).
    hidden, cell
        Raws before the first step, shape (batch, hidden); those at reset if not given.

    Returns
    -------
    Raws of 8 bits, shape (batch, time, hidden).
    """
    return run_with_cell(model, x, hidden=hidden, cell=cell)[0]
