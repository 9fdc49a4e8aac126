"""One step of the integer LSTM from its integers alone: the reference of every circuit.

`Int8Constants` holds what a layer is once its scales are multipliers and shifts, `step_constants`
computes with it. It takes any legal integers, also ones that come from no scales. Written to be
read; `golden.lstm.int8_fast` computes the same bits in fewer passes.

Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453, and
LiteRT's kernel where the paper leaves a step open.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import get_args

import numpy as np
import numpy.typing as npt

from golden.activations import ACTIVATIONS, Activation, ActivationKind
from golden.arithmetic import (
    HIGHEST_SHIFT,
    LOWEST_SHIFT,
    Raws,
    Rounding,
    as_raws,
    as_shaped_raws,
    multiply_by_split_multiplier,
    rounding_shift_right,
    saturate,
    wrap,
)
from golden.layer_norm import HIGHEST_UNITS, layer_norm
from golden.lstm.variant import COUPLED_GATES, GATES, Int8Variant

__all__ = [
    "PARTS",
    "Int8Constants",
    "accumulators",
    "check_choice",
    "check_integer",
    "freeze",
    "gates_and_state",
    "multiply_with_ties_up",
    "pre_activations",
    "step_constants",
    "update_unit",
]

PARTS = ("input", "recurrent")

LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT = -15, -9
INT8 = (-(1 << 7), (1 << 7) - 1)
INT16 = (-(1 << 15), (1 << 15) - 1)
INT32 = (-(1 << 31), (1 << 31) - 1)
_HIGHEST_MULTIPLIER = (1 << 31) - 1


def freeze(instance: object, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Replace a field by a read-only copy, refusing another type or shape."""
    given = np.asarray(getattr(instance, name))
    if given.dtype != dtype:
        raise ValueError(f"{name} must be {np.dtype(dtype)}, not {given.dtype}.")
    if given.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, not {given.shape}.")
    kept = given.copy()
    kept.setflags(write=False)
    object.__setattr__(instance, name, kept)


def check_integer(instance: object, name: str, low: int, high: int) -> None:
    """Replace a field by a Python integer, refusing what is none or lies outside `low...high`."""
    value: object = getattr(instance, name)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be an integer, not {value!r}.")
    number = int(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {number}.")
    object.__setattr__(instance, name, number)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of `choices`."""
    if value not in choices:
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{name} must be {listed}, not {value!r}.")


@dataclass(frozen=True, eq=False)
class Int8Constants:
    """Every integer that a layer's steps take, and nothing else.

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
        int64, shape (G, 2): of the gates' requantisation, by gate and part.
    cell_exponent
        From -15 to -9.
    cell_clip
        From 0, for none, to 32767.
    hidden_multiplier, hidden_shift
        Of the requantisation of the output gate times tanh of the cell.
    hidden_offset
        What that requantisation adds, from -128 to 128: the zero point of its result, or with a
        projection minus that zero point, which the projection's bias adds again.
    reset_hidden
        Hidden raw at reset.
    peephole_weights
        int16, shape (G - 1, hidden): of the gates but g.
    peephole_multipliers, peephole_shifts
        int64, shape (G - 1,).
    peephole_ties_up
        Number of units, from the first, whose peephole's second rounding sends ties toward
        +infinity instead of away from zero; see `multiply_with_ties_up`.
    norm_weights
        int16, shape (G, hidden): gains of the layer norm.
    norm_bias
        int32, shape (G, hidden).
    norm_guards, norm_multipliers, norm_shifts
        int64, shape (G,): see `golden.layer_norm.layer_norm`.
    projection_weights
        int8, shape (outputs, hidden).
    projection_bias
        int32, shape (outputs,): start values of its accumulators.
    projection_multiplier, projection_shift, projection_offset
        Of its requantisation; the offset from -128 to 127.
    projection_clip
        The outputs saturate to ``-projection_clip...projection_clip``, from 0, for none, to 127.
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
        """Check every field."""
        if self.gates not in {GATES, COUPLED_GATES}:
            raise ValueError(f"gates must be {GATES} or {COUPLED_GATES}, not {self.gates!r}.")
        shape = np.shape(self.input_weights)
        if len(shape) != 3 or shape[0] != len(self.gates) or 0 in shape:
            raise ValueError(
                f"input_weights must have the shape ({len(self.gates)}, hidden, inputs), not "
                f"{shape}."
            )
        gates, hidden, _ = shape
        freeze(self, "input_weights", np.int8, shape)
        projection = self.projection_weights
        outputs = hidden if projection is None else len(projection)
        freeze(self, "recurrent_weights", np.int8, (gates, hidden, outputs))
        freeze(self, "folded_bias", np.int32, (gates, len(PARTS), hidden))
        self._freeze_split("multipliers", "shifts", (gates, len(PARTS)))
        check_integer(self, "cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
        check_integer(self, "cell_clip", 0, INT16[1])
        self._check_split("hidden_multiplier", "hidden_shift")
        check_integer(self, "hidden_offset", INT8[0], INT8[1] + (projection is not None))
        check_integer(self, "reset_hidden", *INT8)
        if self._has(["peephole_weights", "peephole_multipliers", "peephole_shifts"]):
            freeze(self, "peephole_weights", np.int16, (gates - 1, hidden))
            self._freeze_split("peephole_multipliers", "peephole_shifts", (gates - 1,))
        check_integer(self, "peephole_ties_up", 0, hidden)
        norm = ["norm_weights", "norm_bias", "norm_guards", "norm_multipliers", "norm_shifts"]
        if self._has(norm):
            if hidden > HIGHEST_UNITS:
                raise ValueError(f"A layer norm has at most {HIGHEST_UNITS} units, not {hidden}.")
            freeze(self, "norm_weights", np.int16, (gates, hidden))
            freeze(self, "norm_bias", np.int32, (gates, hidden))
            self._freeze_raws("norm_guards", 1, INT32[1], (gates,))
            self._freeze_split("norm_multipliers", "norm_shifts", (gates,))
        if self._has(["projection_weights", "projection_bias"]):
            freeze(self, "projection_weights", np.int8, (outputs, hidden))
            freeze(self, "projection_bias", np.int32, (outputs,))
        self._check_split("projection_multiplier", "projection_shift")
        check_integer(self, "projection_offset", *INT8)
        check_integer(self, "projection_clip", 0, INT8[1])
        check_choice("activation", self.activation, get_args(ActivationKind))
        check_choice("rounding", self.rounding, get_args(Rounding))

    def _has(self, names: list[str]) -> bool:
        """Whether fields that go together are there, refusing some without the others."""
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
        check_integer(self, multiplier, 0, _HIGHEST_MULTIPLIER)
        check_integer(self, shift, LOWEST_SHIFT, HIGHEST_SHIFT)

    @property
    def coupled(self) -> bool:
        """Whether the input gate is ``32767 - f``."""
        return self.gates == COUPLED_GATES

    @property
    def variant(self) -> Int8Variant:
        """Which parts the layer has."""
        return Int8Variant(
            coupled=self.coupled,
            peephole=self.peephole_weights is not None,
            norm=self.norm_weights is not None,
            projection=self.projection_weights is not None,
        )

    @property
    def inputs(self) -> int:
        """Length of an input vector."""
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        """Number of units, each with a cell."""
        return self.input_weights.shape[1]

    @property
    def outputs(self) -> int:
        """Length of a hidden vector: the projection's rows, or one for each unit."""
        return self.recurrent_weights.shape[2]


def _pre_activations(
    sums: Raws, multipliers: npt.ArrayLike, shifts: npt.ArrayLike, rounding: Rounding
) -> Raws:
    """Gate raws in Q3.12, shape (..., 4): the parts requantised one by one and summed.

    The running sum saturates after each part, so their order matters.
    """
    parts = multiply_by_split_multiplier(sums, multipliers, shifts, rounding)
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
    hidden_width: int = 8,
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
    hidden_width
        Bits of the hidden raws, to which they saturate.

    Returns
    -------
    hidden
        Raws of `hidden_width` bits, shape (...).
    cell
        Raws of 16 bits, shape (...).
    """
    sums = as_raws(accumulators, "accumulators", *INT32)
    if sums.shape[-2:] != (len(GATES), len(PARTS)):
        raise ValueError(f"accumulators must have the shape (..., 4, 2), not {sums.shape}.")
    old = as_raws(cell, "cell", *INT16)
    exponent = as_raws(cell_exponent, "cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
    clip = as_raws(cell_clip, "cell_clip", 0, INT16[1])
    zero_point = as_raws(hidden_zero_point, "hidden_zero_point", *INT8)
    if isinstance(activation, str):
        check_choice("activation", activation, get_args(ActivationKind))
        activation = ACTIVATIONS[activation]

    pre = _pre_activations(sums, multipliers, shifts, rounding)
    i = activation.sigmoid(pre[..., 0])
    f = activation.sigmoid(pre[..., 1])
    g = activation.tanh(pre[..., 2])
    new = _saturate_to_clip(_next_cell(i, f, g, old, exponent), clip)
    o = activation.sigmoid(pre[..., 3])
    product = o * activation.tanh(new, 15 + exponent)
    scaled = multiply_by_split_multiplier(product, hidden_multiplier, hidden_shift, rounding)
    return saturate(scaled + zero_point, hidden_width), new


def accumulators(constants: Int8Constants, x: Raws, hidden: Raws) -> Raws:
    """Sums of the gates' rows with their folded bias, wrapped to 32 bits.

    Parameters
    ----------
    constants
        The layer.
    x
        Input raws, shape (batch, inputs).
    hidden
        Old hidden raws, shape (batch, outputs).

    Returns
    -------
    Shape (batch, hidden, G, 2), by gate and part.
    """
    # (batch, inputs) by (G, hidden, inputs) gives (G, batch, hidden).
    sums = [
        operand @ weights.astype(np.int64).transpose(0, 2, 1)
        for operand, weights in (
            (x, constants.input_weights),
            (hidden, constants.recurrent_weights),
        )
    ]
    by_unit = np.stack(sums, axis=-1).transpose(1, 2, 0, 3)
    return wrap(by_unit + constants.folded_bias.transpose(2, 0, 1), 32)


def multiply_with_ties_up(
    raw: npt.ArrayLike, multiplier: npt.ArrayLike, shift: npt.ArrayLike
) -> Raws:
    """``raw * multiplier / 2^31 * 2^shift``, rounded twice, both times with ties toward +infinity.

    What LiteRT does with peepholes in whole vectors of 16 units, while the units left over are
    rounded as everywhere else. The operands are those of `multiply_by_split_multiplier`.
    """
    exponent = np.asarray(shift)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    high = multiply_by_split_multiplier(raw, multiplier, left)
    return (high + ((1 << right) >> 1)) >> right


def _gate(constants: Int8Constants, name: str, pre: Raws, cell: Raws) -> Raws:
    """Value of a gate, shape (batch, hidden), from its pre-activations and the cell it sees."""
    index = constants.gates.index(name)
    v = pre[..., index]
    peeping = constants.variant.peeping
    if name in peeping:
        assert constants.peephole_weights is not None
        assert constants.peephole_multipliers is not None
        assert constants.peephole_shifts is not None
        row = peeping.index(name)
        product = constants.peephole_weights[row] * cell
        scale = constants.peephole_multipliers[row], constants.peephole_shifts[row]
        seen = multiply_by_split_multiplier(product, *scale, constants.rounding)
        if constants.peephole_ties_up and constants.rounding == "double":
            first = slice(0, constants.peephole_ties_up)
            seen[:, first] = multiply_with_ties_up(product[:, first], *scale)
        v = saturate(v + seen, 16)
    if constants.norm_weights is not None:
        assert constants.norm_bias is not None
        assert constants.norm_guards is not None
        assert constants.norm_multipliers is not None
        assert constants.norm_shifts is not None
        v = layer_norm(
            v,
            constants.norm_weights[index],
            constants.norm_bias[index],
            int(constants.norm_guards[index]),
            int(constants.norm_multipliers[index]),
            int(constants.norm_shifts[index]),
            constants.rounding,
        )
    functions = ACTIVATIONS[constants.activation]
    return functions.tanh(v) if name == "g" else functions.sigmoid(v)


def _project(constants: Int8Constants, u: Raws) -> Raws:
    """New hidden raws, shape (batch, outputs), from the units' outputs."""
    assert constants.projection_weights is not None
    assert constants.projection_bias is not None
    sums = u @ constants.projection_weights.astype(np.int64).T + constants.projection_bias
    scaled = multiply_by_split_multiplier(
        wrap(sums, 32),
        constants.projection_multiplier,
        constants.projection_shift,
        constants.rounding,
    )
    projected = saturate(scaled + constants.projection_offset, 8)
    return _saturate_to_clip(projected, np.asarray(constants.projection_clip))


def step_constants(
    constants: Int8Constants, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
) -> tuple[Raws, Raws]:
    """One time step of a batch.

    Parameters
    ----------
    constants
        The layer.
    x
        Input raws of 8 bits, shape (batch, inputs).
    hidden
        Old hidden raws of 8 bits, shape (batch, outputs).
    cell
        Old cell raws of 16 bits, shape (batch, hidden).

    Returns
    -------
    hidden, cell
        New raws, shapes (batch, outputs) and (batch, hidden).

    Raises
    ------
    ValueError
        If a shape is wrong or a number is no raw.
    """
    inputs = as_shaped_raws(x, "x", INT8, (-1, constants.inputs))
    old_hidden = as_shaped_raws(hidden, "hidden", INT8, (len(inputs), constants.outputs))
    old_cell = as_shaped_raws(cell, "cell", INT16, (len(inputs), constants.hidden))
    pre = pre_activations(constants, accumulators(constants, inputs, old_hidden))
    return gates_and_state(constants, pre, old_cell)


def pre_activations(constants: Int8Constants, sums: Raws) -> Raws:
    """Gate raws in Q3.12, shape (batch, hidden, G), from the sums that `accumulators` gives."""
    return _pre_activations(sums, constants.multipliers, constants.shifts, constants.rounding)


def gates_and_state(constants: Int8Constants, pre: Raws, cell: Raws) -> tuple[Raws, Raws]:
    """All of a step that comes after the gates' parts are summed.

    Parameters
    ----------
    constants
        The layer.
    pre
        As `pre_activations` gives them.
    cell
        Old cell raws, shape (batch, hidden).

    Returns
    -------
    hidden, cell
        New raws, shapes (batch, outputs) and (batch, hidden).
    """
    exponent, clip = np.asarray(constants.cell_exponent), np.asarray(constants.cell_clip)
    f = _gate(constants, "f", pre, cell)
    i = INT16[1] - f if constants.coupled else _gate(constants, "i", pre, cell)
    g = _gate(constants, "g", pre, cell)
    new_cell = _saturate_to_clip(_next_cell(i, f, g, cell, exponent), clip)
    o = _gate(constants, "o", pre, new_cell)
    product = o * ACTIVATIONS[constants.activation].tanh(new_cell, 15 + exponent)
    scaled = multiply_by_split_multiplier(
        product, constants.hidden_multiplier, constants.hidden_shift, constants.rounding
    )
    unit = saturate(scaled + constants.hidden_offset, 8)
    new_hidden = unit if constants.projection_weights is None else _project(constants, unit)
    return new_hidden, new_cell
