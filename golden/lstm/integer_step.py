"""One time step of the integer LSTM from its integers alone: the reference of every circuit.

The functions accept any legal integers, even those that follow from no scales. The code is meant to
be read; `fewbit.golden.lstm.int8_fast` computes the same bits in fewer passes.

Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453, and
LiteRT's kernel where the paper leaves a step open.
"""

from typing import get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ACTIVATIONS, Activation, ActivationKind
from fewbit.golden.arithmetic import (
    INT8_RANGE,
    INT16_RANGE,
    INT32_RANGE,
    Raws,
    Rounding,
    multiply_by_split_multiplier,
    rounding_shift_right,
    saturate,
    wrap,
)
from fewbit.golden.checks import as_raws, as_shaped_raws, check_choice
from fewbit.golden.lstm.int8_constants import Int8Constants
from fewbit.golden.lstm.integer_variant import (
    GATES,
    HIGHEST_CELL_EXPONENT,
    LOWEST_CELL_EXPONENT,
    PARTS,
)
from fewbit.golden.lstm.layer_norm import layer_norm

__all__ = [
    "accumulators",
    "gates_and_state",
    "multiply_with_ties_up",
    "pre_activations",
    "step_constants",
    "update_unit",
]


def _pre_activations(
    sums: Raws, multipliers: npt.ArrayLike, shifts: npt.ArrayLike, rounding: Rounding
) -> Raws:
    """Return gate raws in Q3.12, shape (..., 4): the sum of the parts, each requantised by itself.

    The running sum saturates after each part, so the order of the parts matters.
    """
    parts = multiply_by_split_multiplier(sums, multipliers, shifts, rounding)
    total = np.zeros(parts.shape[:-1], np.int64)
    for part in range(parts.shape[-1]):
        total = saturate(total + parts[..., part], 16)
    return total


def _next_cell(i: Raws, f: Raws, g: Raws, cell: Raws, exponent: Raws) -> Raws:
    """Return ``f*c + i*g`` in the cell's resolution, saturated to 16 bits."""
    # Gates are in units of 2^-15, so i*g is in units of 2^-30; the cell is in units of 2^exponent.
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
    """Return hidden and cell raws of a unit from the sums of its eight rows.

    This is all computation after the dot products, for any accumulator, multiplier and shift. Sums
    of raws are exact before they saturate; only the requantisation wraps, where it shifts left.

    Parameters
    ----------
    accumulators
        Raws of 32 bits, shape (..., 4, 2): by gate i, f, g, o and by part, folded bias included.
    multipliers, shifts
        Scales of the gates' requantisation, which broadcast with `accumulators`; multipliers from 0
        to 2^31 - 1, shifts from -31 to 30.
    cell
        Old cell raws of 16 bits, shape (...).
    cell_exponent
        Exponent of the cell's resolution, from -15 to -9. It broadcasts with `cell`, as do all
        arguments below.
    cell_clip
        Limit of the cell, from 0, for no limit, to 32767.
    hidden_multiplier, hidden_shift, hidden_zero_point
        Scale and zero point of the last requantisation; the zero point is from -128 to 127.
    activation
        "table", "gemmlowp", or an `Activation`.
    rounding
        "double" or "single".
    hidden_width
        Bits of the hidden raws, which saturate to this width.

    Returns
    -------
    hidden
        Raws of `hidden_width` bits, shape (...).
    cell
        Raws of 16 bits, shape (...).
    """
    sums = as_raws(accumulators, "accumulators", *INT32_RANGE)
    if sums.shape[-2:] != (len(GATES), len(PARTS)):
        raise ValueError(f"accumulators must have the shape (..., 4, 2), not {sums.shape}.")
    old = as_raws(cell, "cell", *INT16_RANGE)
    exponent = as_raws(cell_exponent, "cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
    clip = as_raws(cell_clip, "cell_clip", 0, INT16_RANGE[1])
    zero_point = as_raws(hidden_zero_point, "hidden_zero_point", *INT8_RANGE)
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
    """Return the sums of the gates' rows with their folded bias, wrapped to 32 bits.

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
    """Return ``raw * multiplier / 2^31 * 2^shift``, rounded twice, both ties toward +infinity.

    LiteRT rounds the peepholes of whole vectors of 16 units so. It rounds those of the remaining
    units like all other products. The operands are those of `multiply_by_split_multiplier`.
    """
    exponent = np.asarray(shift)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    high = multiply_by_split_multiplier(raw, multiplier, left)
    return (high + ((1 << right) >> 1)) >> right


def _gate(constants: Int8Constants, name: str, pre: Raws, cell: Raws) -> Raws:
    """Return the value of a gate, shape (batch, hidden), from its pre-activations and the cell."""
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
    """Return the new hidden raws, shape (batch, outputs), from the units' outputs."""
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
    """Compute one time step of a batch.

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
    inputs = as_shaped_raws(x, "x", INT8_RANGE, (-1, constants.inputs))
    old_hidden = as_shaped_raws(hidden, "hidden", INT8_RANGE, (len(inputs), constants.outputs))
    old_cell = as_shaped_raws(cell, "cell", INT16_RANGE, (len(inputs), constants.hidden))
    pre = pre_activations(constants, accumulators(constants, inputs, old_hidden))
    return gates_and_state(constants, pre, old_cell)


def pre_activations(constants: Int8Constants, sums: Raws) -> Raws:
    """Return gate raws in Q3.12, shape (batch, hidden, G), from the sums of `accumulators`."""
    return _pre_activations(sums, constants.multipliers, constants.shifts, constants.rounding)


def gates_and_state(constants: Int8Constants, pre: Raws, cell: Raws) -> tuple[Raws, Raws]:
    """Compute the rest of a time step after the gates' parts are summed.

    Parameters
    ----------
    constants
        The layer.
    pre
        The result of `pre_activations`, shape (batch, hidden, G).
    cell
        Old cell raws, shape (batch, hidden).

    Returns
    -------
    hidden, cell
        New raws, shapes (batch, outputs) and (batch, hidden).
    """
    exponent, clip = np.asarray(constants.cell_exponent), np.asarray(constants.cell_clip)
    f = _gate(constants, "f", pre, cell)
    i = INT16_RANGE[1] - f if constants.coupled else _gate(constants, "i", pre, cell)
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
