"""Batch normalisation folded into one scale a row and matrix and one bias, and those in integers.

Let T_x and T_h be the sums of levels times operands of a gate's two rows. The pre-activation is::

    z = s_x T_x + s_h T_h + b
    s = weight scale * gain / sqrt(variance + epsilon)
    b = gate bias + the sum over both norms of (bias - gain mean / sqrt(variance + epsilon))

All scales are at least 0: the levels of a row with a negative gain change their sign. Where the
norm of a cell has a negative gain, the unit's cell changes its sign instead, and so do the levels
and the bias of its row of gate g. As tanh is odd, the hidden values stay the same.

In integers a scale is ``multiplier / 2^31 * 2^shift`` and a bias is a raw of the gate, see
`fewbit.golden.arithmetic.multiply_by_split_multiplier`. A scale is rounded to `bits` significant
bits, to the nearest value, ties to even. With one bit it is a power of two, which needs no
multiplier. The nearest power of two in value is from 2/3 to 4/3 of the scale. The nearest one in
the logarithm would be from 0.71 to 1.41 of it and never nearer in value; the error of a product is
proportional to the difference in value.

Error of an integer pre-activation against z, where each product is rounded once: for each part the
error of its scale times its sum plus half a gate raw, and half a gate raw for the bias.

Source: this project's, from the equations of `fewbit.golden.lstm.batch_norm`.
"""

import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import Raws, Rounding, multiply_by_split_multiplier, split_multiplier
from fewbit.golden.checks import as_shaped_raws
from fewbit.golden.lstm.batch_norm import BatchNormLstm, freeze_reals
from fewbit.golden.lstm.float64 import WEIGHT_AXES, Reals
from fewbit.golden.lstm.integer_variant import GATES
from fewbit.golden.quantize.ternary import ScaledWeights

__all__ = ["FixedLstm", "FixedScales", "FoldedLstm", "fix", "fix_scales", "fold"]

_GATE_RESOLUTION = 2.0**-12
_MOST_BITS = 24
_BIAS_WIDTH = 32
_INT32 = -(1 << 31), (1 << 31) - 1
_CELL_GATE = GATES.index("g")


@dataclass(frozen=True, eq=False)
class FoldedLstm:
    """A folded layer: levels, a real scale a row and matrix, and one bias, gates i, f, g, o.

    Parameters
    ----------
    input_levels, recurrent_levels
        Integers, shape (4, hidden, inputs) and (4, hidden, hidden).
    input_scales, recurrent_scales
        At least 0, shape (4, hidden).
    bias
        Shape (4, hidden).
    cell_scales, cell_bias
        Scale and bias of the cell before its tanh, shape (hidden,), scales at least 0; None for a
        layer without a norm of the cell.
    cell_signs
        -1 for units whose cell has the opposite sign of the original layer's, else 1; shape
        (hidden,).
    """

    input_levels: Raws
    recurrent_levels: Raws
    input_scales: Reals
    recurrent_scales: Reals
    bias: Reals
    cell_signs: Raws
    cell_scales: Reals | None = None
    cell_bias: Reals | None = None

    def __post_init__(self) -> None:
        """Check that shapes and numbers are legal."""
        shape = np.shape(self.input_levels)
        if len(shape) != len(WEIGHT_AXES) or shape[0] != len(GATES) or 0 in shape:
            raise ValueError(f"input_levels must have the shape (4, hidden, inputs), not {shape}.")
        gates, hidden, _ = shape
        for name, wanted in (
            ("input_levels", shape),
            ("recurrent_levels", (gates, hidden, hidden)),
            ("cell_signs", (hidden,)),
        ):
            kept = as_shaped_raws(getattr(self, name), name, _INT32, wanted).copy()
            kept.setflags(write=False)
            object.__setattr__(self, name, kept)
        for name in ("input_scales", "recurrent_scales", "bias"):
            freeze_reals(self, name, (gates, hidden))
        if (self.cell_scales is None) != (self.cell_bias is None):
            raise ValueError("cell_scales and cell_bias go together, but one of them is None.")
        for name in ("cell_scales", "cell_bias"):
            if getattr(self, name) is not None:
                freeze_reals(self, name, (hidden,))
        for name in ("input_scales", "recurrent_scales", "cell_scales"):
            values = getattr(self, name)
            if values is not None and (values < 0).any():
                raise ValueError(f"{name} must be at least 0, not {values[values < 0][0]}.")

    @property
    def inputs(self) -> int:
        """Return the length of an input vector."""
        return self.input_levels.shape[2]

    @property
    def hidden(self) -> int:
        """Return the number of units, each with a cell."""
        return self.input_levels.shape[1]

    def pre_activations(self, x: Reals, hidden: Reals) -> Reals:
        """Return the pre-activations of i, f, g, o, shape (batch, 4, hidden).

        Parameters
        ----------
        x, hidden
            Shape (batch, inputs) and (batch, hidden).
        """
        return (
            self.input_scales * _sums(x, self.input_levels)
            + self.recurrent_scales * _sums(hidden, self.recurrent_levels)
            + self.bias
        )

    def normalize_cell(self, cell: Reals) -> Reals:
        """Return the values that tanh reads in place of the cells, shape (batch, hidden)."""
        if self.cell_scales is None:
            return cell
        assert self.cell_bias is not None
        return self.cell_scales * cell + self.cell_bias


def _sums(operands: Reals, levels: Raws) -> Reals:
    """Return the sums of rows, shape (batch, 4, hidden); exact on integers that fit 53 bits."""
    return np.tensordot(operands, levels.astype(np.float64), (1, 2))


def fold(
    model: BatchNormLstm, input_weights: ScaledWeights, recurrent_weights: ScaledWeights
) -> FoldedLstm:
    """Fold the norms of a layer into the scales and the bias of its quantised weights.

    The result is exact except for the rounding of double precision.

    Parameters
    ----------
    model
        The layer with its norms and its bias; its own weights are not read.
    input_weights, recurrent_weights
        Quantised weights, shapes (4, hidden, inputs) and (4, hidden, hidden).

    Raises
    ------
    ValueError
        If the weights have other shapes than the model's.
    """
    bias = model.bias.copy()
    levels: list[Raws] = []
    scales: list[Reals] = []
    for part, weights, like, norm in (
        ("input_weights", input_weights, model.input_weights, model.input_norm),
        ("recurrent_weights", recurrent_weights, model.recurrent_weights, model.recurrent_norm),
    ):
        if weights.levels.shape != like.shape:
            raise ValueError(
                f"{part} must have the shape {like.shape}, not {weights.levels.shape}."
            )
        scale = weights.row_scales * (1.0 if norm is None else norm.scale)
        levels.append(weights.levels * np.where(scale < 0, -1, 1)[..., np.newaxis])
        scales.append(np.abs(scale))
        if norm is not None:
            bias += norm.offset
    signs = np.ones(model.hidden, np.int64)
    cell_scales = cell_bias = None
    if model.cell_norm is not None:
        signs = np.where(model.cell_norm.scale < 0, -1, 1)
        cell_scales, cell_bias = np.abs(model.cell_norm.scale), model.cell_norm.offset
        bias[_CELL_GATE] *= signs
        for matrix in levels:
            matrix[_CELL_GATE] *= signs[:, np.newaxis]
    return FoldedLstm(
        levels[0], levels[1], scales[0], scales[1], bias, signs, cell_scales, cell_bias
    )


@dataclass(frozen=True, eq=False)
class FixedScales:
    """Scales that are represented as ``multiplier / 2^31 * 2^shift``.

    Parameters
    ----------
    exact
        The scales before rounding, any shape.
    multipliers
        0, or from 2^30 to 2^31 - 2^7, the same shape.
    shifts
        From -31 to 30, the same shape.
    """

    exact: Reals
    multipliers: Raws
    shifts: Raws

    @property
    def reals(self) -> Reals:
        """Return the real scales that the integers stand for."""
        return np.ldexp(self.multipliers.astype(np.float64), self.shifts - 31)

    def multiply(self, raw: npt.ArrayLike, rounding: Rounding = "single") -> Raws:
        """Return raws times scales, see `fewbit.golden.arithmetic.multiply_by_split_multiplier`."""
        return multiply_by_split_multiplier(raw, self.multipliers, self.shifts, rounding)

    def error(self, raw: npt.ArrayLike, rounding: Rounding = "single") -> Reals:
        """Return a bound on the error of `multiply` against the exact scales, where nothing wraps.

        It is the error of the scale times the raw, plus 1/2 for one rounding or 3/4 for two.
        """
        rounded = 0.75 if rounding == "double" else 0.5
        return np.abs(np.asarray(raw)) * np.abs(self.exact - self.reals) + rounded


def fix_scales(scales: npt.ArrayLike, bits: int = _MOST_BITS) -> FixedScales:
    """Round scales to `bits` significant bits, in the value, ties to even.

    Error: at most 1/(2^bits + 1) of a scale, for scales of 2^-32 or more.

    Parameters
    ----------
    scales
        From 0 to 2^30, any shape; a scale below 2^-32 after rounding becomes 0.
    bits
        Number of significant bits, from 1, for powers of two, to 24.

    Raises
    ------
    ValueError
        If a scale is negative or no number, or is 2^30 or more after rounding.
    """
    if isinstance(bits, bool) or not isinstance(bits, Integral) or not 1 <= bits <= _MOST_BITS:
        raise ValueError(f"bits must be an integer from 1 to {_MOST_BITS}, not {bits!r}.")
    given = np.asarray(scales, np.float64)
    fraction, exponent = np.frexp(given)
    rounded = np.ldexp(np.rint(np.ldexp(fraction, int(bits))), exponent - int(bits))
    split = [split_multiplier(scale) for scale in rounded.ravel().tolist()]
    pairs = np.array(split, np.int64).reshape(*given.shape, 2)
    return FixedScales(given, pairs[..., 0], pairs[..., 1])


@dataclass(frozen=True, eq=False)
class FixedLstm:
    """A folded layer whose scales and biases are integers.

    Parameters
    ----------
    folded
        Levels, and the real scales and biases before rounding.
    scales
        Factors from a row's sum, in units of its operands' resolution, to raws of the gate; shape
        (4, hidden, 2): by gate, unit and part, input before recurrent.
    bias
        Raws of the gate, of 32 bits, shape (4, hidden).
    gate_resolution
        Resolution of the pre-activations and of the values that tanh reads in place of a cell.
    cell_scales, cell_bias
        Factors from raws of the cell to raws of the gate, and biases as raws of the gate; shape
        (hidden,). None for no norm of the cell.
    """

    folded: FoldedLstm
    scales: FixedScales
    bias: Raws
    gate_resolution: float
    cell_scales: FixedScales | None = None
    cell_bias: Raws | None = None

    def sums(self, x: npt.ArrayLike, hidden: npt.ArrayLike) -> Raws:
        """Return the sums of the rows, in units of the resolution of their operands.

        Parameters
        ----------
        x, hidden
            Raws, shape (batch, inputs) and (batch, hidden).

        Returns
        -------
        Shape (batch, 4, hidden, 2), by gate, unit and part, input before recurrent.
        """
        pairs = (x, self.folded.input_levels), (hidden, self.folded.recurrent_levels)
        parts = [_sums(np.asarray(raws, np.float64), levels) for raws, levels in pairs]
        return np.stack(parts, axis=-1).astype(np.int64)

    def pre_activations(self, sums: npt.ArrayLike, rounding: Rounding = "single") -> Raws:
        """Return the pre-activations as raws of the gate: both scaled parts are added, unsaturated.

        Parameters
        ----------
        sums
            Sums of the rows, of 32 bits, shape (batch, 4, hidden, 2).
        rounding
            Rounding of the scaling, "single" or "double".

        Returns
        -------
        Shape (batch, 4, hidden).
        """
        return self.scales.multiply(sums, rounding).sum(axis=-1) + self.bias

    def error(self, sums: npt.ArrayLike, rounding: Rounding = "single") -> Reals:
        """Return a bound on the error of `pre_activations` against the real ones, in gate raws.

        It is the sum of the errors of both scaled parts, see `FixedScales.error`, plus 1/2 for the
        bias.
        """
        return self.scales.error(sums, rounding).sum(axis=-1) + 0.5

    def normalize_cell(self, cell: npt.ArrayLike, rounding: Rounding = "single") -> Raws:
        """Return the values that tanh reads in place of the cells, as unsaturated gate raws.

        Parameters
        ----------
        cell
            Raws, shape (batch, hidden).
        rounding
            Rounding of the scaling, "single" or "double".

        Raises
        ------
        ValueError
            If the layer has no norm of the cell.
        """
        if self.cell_scales is None or self.cell_bias is None:
            raise ValueError("The layer has no norm of the cell; tanh sees the cell itself.")
        return self.cell_scales.multiply(cell, rounding) + self.cell_bias


def fix(
    folded: FoldedLstm,
    *,
    input_resolution: float,
    hidden_resolution: float,
    cell_resolution: float | None = None,
    gate_resolution: float = _GATE_RESOLUTION,
    bits: int = _MOST_BITS,
) -> FixedLstm:
    """Round the scales and biases of a folded layer to integers.

    Parameters
    ----------
    folded
        The layer.
    input_resolution, hidden_resolution, cell_resolution, gate_resolution
        Resolutions of inputs, hidden values, cells and pre-activations. That of cells is needed
        only for a layer with a norm of the cell.
    bits
        Number of significant bits of a scale, from 1, for powers of two, to 24.

    Raises
    ------
    ValueError
        If a resolution is not above 0, a scale is 2^30 or more, or a bias does not fit 32 bits.
    """
    if cell_resolution is None and folded.cell_scales is not None:
        raise ValueError("cell_resolution must be given, because the layer has a norm of the cell.")
    for name, step in (
        ("input_resolution", input_resolution),
        ("hidden_resolution", hidden_resolution),
        ("cell_resolution", 1.0 if cell_resolution is None else cell_resolution),
        ("gate_resolution", gate_resolution),
    ):
        if not 0 < step < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, not {step}.")
    scales = np.stack(
        [
            folded.input_scales * (input_resolution / gate_resolution),
            folded.recurrent_scales * (hidden_resolution / gate_resolution),
        ],
        axis=-1,
    )
    cell_scales = cell_bias = None
    if (
        folded.cell_scales is not None
        and folded.cell_bias is not None
        and cell_resolution is not None
    ):
        cell_scales = fix_scales(folded.cell_scales * (cell_resolution / gate_resolution), bits)
        cell_bias = _fix_bias(folded.cell_bias, gate_resolution)
    return FixedLstm(
        folded,
        fix_scales(scales, bits),
        _fix_bias(folded.bias, gate_resolution),
        gate_resolution,
        cell_scales,
        cell_bias,
    )


def _fix_bias(bias: Reals, step: float) -> Raws:
    """Return biases as raws of this resolution, rounded to the nearest, ties to even."""
    rounded = np.rint(bias / step)
    wrong = np.abs(rounded) >= 2.0**_BIAS_WIDTH / 2
    if wrong.any():
        raise ValueError(
            f"A bias must be below {2.0**_BIAS_WIDTH / 2 * step:g}, not {bias[wrong][0]:g}."
        )
    return rounded.astype(np.int64)
