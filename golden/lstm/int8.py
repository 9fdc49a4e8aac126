"""The integer LSTM: int8 weights and activations, int16 cell, int32 accumulators.

A layer has four gates in the order i, f, g, o (input, forget, cell, output), or three, f, g, o,
where the input gate is coupled to the forget gate. It may have peepholes (gates see the cell),
layer normalisation, a projection of the units' outputs, and limits (`cell_clip`,
`projection_clip`), in any combination. A gate has two parts, each a row of products that is summed
exactly and requantised by itself: part 0 is that of the inputs, part 1 the recurrent one.

With the activation "gemmlowp" the layer computes, bit for bit, what LiteRT computes for a fully
integer ``UNIDIRECTIONAL_SEQUENCE_LSTM``. With "table" only sigmoid and tanh differ: they are those
of TensorFlow Lite Micro.

`Int8Lstm` is a layer with its scales; its `constants` are the integers that follow from them, and
`step_constants` is the time step that they define. This is one module because the class is one: its
fields, the checks between them, and what follows from them.

Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453, and
LiteRT's kernel where the paper leaves a step open.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, Self, get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import INT8_RANGE, INT16_RANGE, Raws, Rounding, split_multiplier, wrap
from fewbit.golden.checks import as_shaped_raws, check_choice, freeze_array, freeze_integer
from fewbit.golden.codecs import Codec, RawCodec
from fewbit.golden.lstm import dynamic
from fewbit.golden.lstm.contract import Lstm, StoredArray
from fewbit.golden.lstm.int8_constants import Int8Constants
from fewbit.golden.lstm.int8_fast import FastSteps
from fewbit.golden.lstm.integer_step import step_constants, update_unit
from fewbit.golden.lstm.integer_variant import (
    COUPLED_GATES,
    GATES,
    HIGHEST_CELL_EXPONENT,
    LOWEST_CELL_EXPONENT,
    PARTS,
)
from fewbit.golden.lstm.precision import (
    ALWAYS_HIGH,
    HIGHEST_THRESHOLD,
    LARGEST_GROUP,
    PrecisionSignal,
)

__all__ = [
    "ALWAYS_HIGH",
    "COUPLED_GATES",
    "GATES",
    "HIGHEST_CELL_EXPONENT",
    "HIGHEST_THRESHOLD",
    "LARGEST_GROUP",
    "LOWEST_CELL_EXPONENT",
    "PARTS",
    "Int8Constants",
    "Int8Lstm",
    "PrecisionSignal",
    "clip_code",
    "litert_peephole_ties_up",
    "step_constants",
    "update_unit",
]

WEIGHT_AXES = ("gate", "unit", "operand")

_GATE_RESOLUTION = np.float32(2.0**-12)
_PRODUCT_RESOLUTION = np.float32(2.0**-30)
# A layer norm's result is in Q3.12, which has 12 places more than the gain's resolution.
_NORM_SHIFT = 12
# A variance of 0 is replaced by the gain's resolution times this number.
_GUARD_STEPS = np.float32(10000)


def clip_code(clip: float, scale: float, width: int = 16) -> int:
    """Return a clip's raw: the binary32 quotient ``clip / scale``, truncated and saturated.

    Parameters
    ----------
    clip
        The limit as a real of at least 0; 0 means no limit.
    scale
        Resolution of the limited raws, above 0. For a projection it is that of the file's output
        tensor, even where the layer's hidden resolution differs.
    width
        Bits of the limited raws: 16 for a cell, 8 for a projection.

    Returns
    -------
    From 0 to 2^(width-1) - 1, where 0 means no limit.
    """
    if not 0 <= clip < math.inf:
        raise ValueError(f"A clip must be a finite number of at least 0, not {clip}.")
    if not 0 < scale < math.inf:
        raise ValueError(f"The scale of a clip must be a finite number above 0, not {scale}.")
    highest = (1 << (width - 1)) - 1
    # An operand too large or too small for binary32 gives infinity, which saturates.
    with np.errstate(all="ignore"):
        rounded = np.float32(clip)
        quotient = rounded / np.float32(scale)
    if rounded == 0:
        return 0
    return int(quotient) if quotient < highest else highest


def _check_scale(name: str, scale: object) -> float:
    """Return the scale rounded to binary32."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(float(scale))) if isinstance(scale, Real) else 0.0
    if not 0 < rounded < math.inf:
        raise ValueError(f"{name} must be a finite binary32 number above 0, not {scale!r}.")
    return rounded


def litert_peephole_ties_up(outputs: int) -> int:
    """Return how many units' peepholes LiteRT computes in vectors of 16, with other ties.

    The rule was found by running LiteRT 2.3.0 on x86-64.

    Parameters
    ----------
    outputs
        Length of the layer's hidden vector, by which LiteRT counts the units of a peephole.
    """
    return outputs // 16 * 16


@dataclass(frozen=True, eq=False)
class Int8Lstm(Lstm):
    """A quantised LSTM layer: weights and scales, from which all its integers follow.

    The G gates are in the order i, f, g, o, or f, g, o for a coupled input gate. Scales are rounded
    to binary32; arrays are copied and made read-only. A layer has peepholes, a layer norm or a
    projection if the fields of that variant are not None.

    Parameters
    ----------
    input_weights
        int8, shape (G, hidden, inputs), where G is 4, or 3 for a coupled input gate.
    recurrent_weights
        int8, shape (G, hidden, outputs), where outputs equals hidden unless there is a projection.
    bias
        int32, shape (G, hidden), in units of weight scale times input scale. With a layer norm it
        is the norm's bias, in units of ``norm_weight_scales`` times 2^-10.
    input_weight_scales, recurrent_weight_scales
        float32, shape (G,).
    input_scale, input_zero_point
        Scale and zero point of the input raws.
    hidden_scale, hidden_zero_point
        Scale and zero point of the hidden raws that the recurrent part reads, and of those at
        reset; with a projection also of the raws that it writes.
    intermediate_scale, intermediate_zero_point
        Scale and zero point of the raws of output gate times tanh of the cell. These are the hidden
        raws, or with a projection its inputs. Without a projection the values normally equal those
        of the hidden raws, but a converted file may hold others.
    cell_exponent
        The resolution of the cell is ``2^cell_exponent``; from -15 to -9.
    cell_clip
        The cell saturates to ``-cell_clip...cell_clip``, in raws; 0 for no limit. `clip_code`
        computes it.
    activation
        "table" or "gemmlowp", a key of `fewbit.golden.activation.integer.ACTIVATIONS`.
    rounding
        "double" or "single", see `fewbit.golden.arithmetic.multiply_by_split_multiplier`.
    peephole_weights
        int16, shape (G - 1, hidden), for the gates i, f, o, or f, o. Where a projection has fewer
        outputs than there are units, only the first `outputs` units have peepholes; the other
        weights are not read.
    peephole_weight_scales
        float32, shape (G - 1,).
    peephole_ties_up
        Number of first units whose peephole's second rounding sends ties toward +infinity instead
        of away from zero. 0 rounds all units alike; `litert_peephole_ties_up` computes the number
        that gives LiteRT's bits.
    norm_weights
        int16, shape (G, hidden): gains of the layer norm.
    norm_weight_scales
        float32, shape (G,).
    norm_scales
        float32, shape (G,): resolutions of the gates before the norm.
    projection_weights
        int8, shape (outputs, hidden).
    projection_weight_scale
        One float32 scale for all weights of the projection.
    projection_bias
        int32, shape (outputs,), in units of ``projection_weight_scale`` times
        ``intermediate_scale``; None for zeros.
    projection_clip
        Outputs saturate to ``-projection_clip...projection_clip``, in raws, around raw 0 whatever
        the zero point; 0 for no limit. `clip_code` computes it.
    precision_threshold, precision_hold, precision_group, low_offsets
        Settings of dynamic precision, see `fewbit.golden.lstm.dynamic`: the threshold, from 0 to
        65535; the hold, from 0 to 255, where 255 means whole weights at every time step; the number
        of units that share a mode, at least 1; and the offsets, int8, shape (G, 2, hidden), or None
        for zeros. `run` and `step` ignore these settings; `forward` applies them.
    precision_signal
        The signal that is compared with the threshold: "cell_change" or "output_gate".

    Raises
    ------
    ValueError
        If a shape, a type or a range is wrong, fields that go together are not together, or an
        effective multiplier is 2^30 or more.
    """

    kind: ClassVar[str] = "int8_lstm"
    title: ClassVar[str] = "int8"
    stored: ClassVar[Mapping[str, StoredArray]] = {
        "input_weights": StoredArray(("int8",), ("gates", "hidden", "inputs")),
        "recurrent_weights": StoredArray(("int8",), ("gates", "hidden", "outputs")),
        "bias": StoredArray(("int32",), ("gates", "hidden")),
        "input_weight_scales": StoredArray(("float32",), ("gates",)),
        "recurrent_weight_scales": StoredArray(("float32",), ("gates",)),
        "input_scale": StoredArray(("float32",)),
        "input_zero_point": StoredArray(("int32",)),
        "hidden_scale": StoredArray(("float32",)),
        "hidden_zero_point": StoredArray(("int32",)),
        "intermediate_scale": StoredArray(("float32",)),
        "intermediate_zero_point": StoredArray(("int32",)),
        "cell_exponent": StoredArray(("int32",)),
        "cell_clip": StoredArray(("int32",)),
        "activation": StoredArray(("text",), choices=get_args(ActivationKind)),
        "rounding": StoredArray(("text",), choices=get_args(Rounding)),
        "peephole_weights": StoredArray(("int16",), ("peepholes", "hidden"), optional=True),
        "peephole_weight_scales": StoredArray(("float32",), ("peepholes",), optional=True),
        "peephole_ties_up": StoredArray(("int32",), optional=True),
        "norm_weights": StoredArray(("int16",), ("gates", "hidden"), optional=True),
        "norm_weight_scales": StoredArray(("float32",), ("gates",), optional=True),
        "norm_scales": StoredArray(("float32",), ("gates",), optional=True),
        "projection_weights": StoredArray(("int8",), ("outputs", "hidden"), optional=True),
        "projection_weight_scale": StoredArray(("float32",), optional=True),
        "projection_bias": StoredArray(("int32",), ("outputs",), optional=True),
        "projection_clip": StoredArray(("int32",), optional=True),
        "precision_threshold": StoredArray(("int32",), optional=True),
        "precision_hold": StoredArray(("int32",), optional=True),
        "precision_group": StoredArray(("int32",), optional=True),
        "precision_signal": StoredArray(
            ("text",), optional=True, choices=get_args(PrecisionSignal)
        ),
        "low_offsets": StoredArray(("int8",), ("gates", "parts", "hidden"), optional=True),
    }

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
    peephole_weights: npt.NDArray[np.int16] | None = None
    peephole_weight_scales: npt.NDArray[np.float32] | None = None
    peephole_ties_up: int = 0
    norm_weights: npt.NDArray[np.int16] | None = None
    norm_weight_scales: npt.NDArray[np.float32] | None = None
    norm_scales: npt.NDArray[np.float32] | None = None
    projection_weights: npt.NDArray[np.int8] | None = None
    projection_weight_scale: float | None = None
    projection_bias: npt.NDArray[np.int32] | None = None
    projection_clip: int = 0
    precision_threshold: int = 0
    precision_hold: int = ALWAYS_HIGH
    precision_group: int = 1
    low_offsets: npt.NDArray[np.int8] | None = None
    precision_signal: PrecisionSignal = "cell_change"

    def __post_init__(self) -> None:
        """Check every field, then compute the constants that follow from them."""
        shape = np.shape(self.input_weights)
        allowed = {len(GATES), len(COUPLED_GATES)}
        if len(shape) != len(WEIGHT_AXES) or shape[0] not in allowed or 0 in shape:
            raise ValueError(
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                f"or (3, hidden, inputs) for f, g, o, not {shape}."
            )
        gates, hidden, inputs = shape
        outputs = self._check_projection(hidden)
        freeze_array(self, "input_weights", np.int8, (gates, hidden, inputs))
        freeze_array(self, "recurrent_weights", np.int8, (gates, hidden, outputs))
        freeze_array(self, "bias", np.int32, (gates, hidden))
        for name in ("input_weight_scales", "recurrent_weight_scales"):
            self._freeze_scales(name, gates)
        for part in ("input", "hidden", "intermediate"):
            name = f"{part}_scale"
            object.__setattr__(self, name, _check_scale(name, getattr(self, name)))
            freeze_integer(self, f"{part}_zero_point", *INT8_RANGE)
        freeze_integer(self, "cell_exponent", LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT)
        freeze_integer(self, "cell_clip", 0, INT16_RANGE[1])
        check_choice("activation", self.activation, get_args(ActivationKind))
        check_choice("rounding", self.rounding, get_args(Rounding))
        if self._has("peephole_weights", "peephole_weight_scales"):
            freeze_array(self, "peephole_weights", np.int16, (gates - 1, hidden))
            self._freeze_scales("peephole_weight_scales", gates - 1)
            if outputs > hidden:
                raise ValueError(
                    f"A layer with peepholes must have at most {hidden} outputs, as it has units, "
                    f"not {outputs}; remove the peepholes."
                )
        freeze_integer(self, "peephole_ties_up", 0, hidden)
        if self._has("norm_weights", "norm_weight_scales", "norm_scales"):
            freeze_array(self, "norm_weights", np.int16, (gates, hidden))
            self._freeze_scales("norm_weight_scales", gates)
            self._freeze_scales("norm_scales", gates)
        self._check_precision(gates, hidden)
        _ = self.constants

    def _check_precision(self, gates: int, hidden: int) -> None:
        """Check the fields of dynamic precision."""
        freeze_integer(self, "precision_threshold", 0, HIGHEST_THRESHOLD)
        freeze_integer(self, "precision_hold", 0, ALWAYS_HIGH)
        freeze_integer(self, "precision_group", 1, LARGEST_GROUP)
        check_choice("precision_signal", self.precision_signal, get_args(PrecisionSignal))
        if self.low_offsets is not None:
            freeze_array(self, "low_offsets", np.int8, (gates, len(PARTS), hidden))

    def _check_projection(self, hidden: int) -> int:
        """Check the projection, if there is one, and return the number of outputs."""
        freeze_integer(self, "projection_clip", 0, INT8_RANGE[1])
        weights = self.projection_weights
        if not self._has("projection_weights", "projection_weight_scale") or weights is None:
            for name in ("projection_bias", "projection_clip"):
                value = getattr(self, name)
                if value is not None and np.any(value):
                    raise ValueError(
                        f"{name} must be left out where there are no projection_weights."
                    )
            object.__setattr__(self, "projection_bias", None)
            return hidden
        shape = np.shape(weights)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(
                f"projection_weights must have the shape (outputs, {hidden}), not {shape}."
            )
        freeze_array(self, "projection_weights", np.int8, (shape[0], hidden))
        name = "projection_weight_scale"
        object.__setattr__(self, name, _check_scale(name, self.projection_weight_scale))
        if self.projection_bias is not None:
            freeze_array(self, "projection_bias", np.int32, (shape[0],))
        return shape[0]

    def _has(self, *names: str) -> bool:
        """Return whether a set of fields is present, or refuse an incomplete set."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing and len(missing) < len(names):
            listed = ", ".join(names[:-1])
            raise ValueError(
                f"{listed} and {names[-1]} go together, but {missing[0]} is missing; give all or "
                "none."
            )
        return not missing

    def _freeze_scales(self, name: str, length: int) -> None:
        freeze_array(self, name, np.float32, (length,))
        for scale in getattr(self, name).tolist():
            _check_scale(name, scale)

    @property
    def gates(self) -> tuple[str, ...]:
        """Return the names of the gates in their order."""
        return GATES if len(self.input_weights) == len(GATES) else COUPLED_GATES

    @property
    def coupled(self) -> bool:
        """Return whether the input gate is one minus the forget gate."""
        return self.gates == COUPLED_GATES

    @property
    def dynamic(self) -> bool:
        """Return whether the precision of the weights is chosen at every time step."""
        return self.precision_hold != ALWAYS_HIGH

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

    @property
    def effective_scales(self) -> npt.NDArray[np.float32]:
        """Return the real factors from accumulator to gate raw, shape (G, 2), by gate and part.

        A factor is weight scale times activation scale, divided by the gate's resolution. Each
        operation is rounded to binary32 in that order: another order, or double precision, would
        give other bytes.
        """
        weights = np.stack([self.input_weight_scales, self.recurrent_weight_scales], axis=1)
        activations = np.array([self.input_scale, self.hidden_scale], np.float32)
        with np.errstate(over="ignore", under="ignore"):
            return weights * activations / self._gate_steps[:, np.newaxis]

    @property
    def _gate_steps(self) -> npt.NDArray[np.float32]:
        """Return the resolutions of the gates' raws before a layer norm, shape (G,)."""
        if self.norm_scales is not None:
            return self.norm_scales
        return np.full(len(self.gates), _GATE_RESOLUTION)

    @cached_property
    def constants(self) -> Int8Constants:
        """Return the integers that the time steps of this layer use."""
        splits = [
            [
                _split(
                    self.effective_scales[gate, part],
                    f"the {PARTS[part]} part of gate {self.gates[gate]}",
                )
                for part in range(len(PARTS))
            ]
            for gate in range(len(self.gates))
        ]
        split = np.array(splits, np.int64)
        hidden_split = _split_quotient(self.intermediate_scale)
        variants: dict[str, Any] = {}
        if self.peephole_weights is not None:
            variants |= self._peephole_constants(self.peephole_weights)
        if self.norm_weights is not None:
            variants |= self._norm_constants(self.norm_weights)
        if self.projection_weights is not None:
            variants |= self._projection_constants(self.projection_weights)
        return Int8Constants(
            gates=self.gates,
            input_weights=self.input_weights,
            recurrent_weights=self.recurrent_weights,
            folded_bias=self._folded_bias(),
            multipliers=split[..., 0],
            shifts=split[..., 1],
            cell_exponent=self.cell_exponent,
            cell_clip=self.cell_clip,
            hidden_multiplier=hidden_split[0],
            hidden_shift=hidden_split[1],
            hidden_offset=(
                self.intermediate_zero_point
                if self.projection_weights is None
                else -self.intermediate_zero_point
            ),
            reset_hidden=self.hidden_zero_point,
            activation=self.activation,
            rounding=self.rounding,
            **variants,
        )

    @cached_property
    def fast_steps(self) -> FastSteps | None:
        """Return a faster way to the same bits, or None where the constants do not allow it."""
        return FastSteps.of(self.constants)

    def _peephole_constants(self, weights: npt.NDArray[np.int16]) -> dict[str, Any]:
        """Return the constants of the peepholes.

        A gate's multiplier takes cell raws times weights to raws of the gate, before its norm if it
        has one.
        """
        assert self.peephole_weight_scales is not None
        gates = [index for index, name in enumerate(self.gates) if name != "g"]
        with np.errstate(over="ignore", under="ignore"):
            factors = (
                np.float32(2.0**self.cell_exponent)
                * self.peephole_weight_scales
                / self._gate_steps[gates]
            )
        split = np.array(
            [
                _split(factor, f"the peephole of gate {self.gates[gate]}")
                for factor, gate in zip(factors, gates, strict=True)
            ],
            np.int64,
        )
        # In LiteRT only the first units, as many as there are outputs, have peepholes.
        kept = weights.copy()
        kept[:, self.outputs :] = 0
        return {
            "peephole_weights": kept,
            "peephole_multipliers": split[:, 0],
            "peephole_shifts": split[:, 1],
            "peephole_ties_up": self.peephole_ties_up,
        }

    def _norm_constants(self, weights: npt.NDArray[np.int16]) -> dict[str, Any]:
        assert self.norm_weight_scales is not None
        with np.errstate(over="ignore"):
            guards = _GUARD_STEPS * self.norm_weight_scales
        if not (guards < 2.0**31).all():
            raise ValueError(
                "norm_weight_scales must be below 2^31 / 10000, not "
                f"{self.norm_weight_scales.max()}; quantise with finer resolutions."
            )
        split = np.array(
            [split_multiplier(scale) for scale in self.norm_weight_scales.tolist()], np.int64
        )
        return {
            "norm_weights": weights,
            "norm_bias": self.bias,
            "norm_guards": np.maximum(guards.astype(np.int64), 1),
            "norm_multipliers": split[:, 0],
            "norm_shifts": split[:, 1] + _NORM_SHIFT,
        }

    def _projection_constants(self, weights: npt.NDArray[np.int8]) -> dict[str, Any]:
        assert self.projection_weight_scale is not None
        with np.errstate(over="ignore", under="ignore"):
            factor = (
                np.float32(self.projection_weight_scale)
                * np.float32(self.intermediate_scale)
                / np.float32(self.hidden_scale)
            )
        multiplier, shift = _split(factor, "the projection")
        bias = np.zeros(self.outputs, np.int64)
        if self.projection_bias is not None:
            bias += self.projection_bias
        bias += self.intermediate_zero_point * weights.sum(axis=1, dtype=np.int64)
        return {
            "projection_weights": weights,
            "projection_bias": wrap(bias, 32).astype(np.int32),
            "projection_multiplier": multiplier,
            "projection_shift": shift,
            "projection_offset": self.hidden_zero_point,
            "projection_clip": self.projection_clip,
        }

    def _folded_bias(self) -> npt.NDArray[np.int32]:
        """Return the accumulators' start values, shape (G, 2, hidden), by gate and part.

        A start value is the bias minus the zero point times the sum of the row's weights, wrapped
        to 32 bits, so that the products can use raw inputs. The recurrent part has no bias.
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
        if self.norm_weights is None:
            folded[:, 0] += self.bias
        return wrap(folded, 32).astype(np.int32)

    @property
    def multipliers(self) -> Raws:
        """Return the multipliers of the gates' requantisation, shape (G, 2), by gate and part."""
        return self.constants.multipliers

    @property
    def shifts(self) -> Raws:
        """Return the shifts of the gates' requantisation, shape (G, 2), by gate and part."""
        return self.constants.shifts

    @property
    def hidden_multiplier(self) -> int:
        """Return the multiplier of the requantisation by ``2^-30 / intermediate_scale``."""
        return self.constants.hidden_multiplier

    @property
    def hidden_shift(self) -> int:
        """Return the shift of the requantisation by ``2^-30 / intermediate_scale``."""
        return self.constants.hidden_shift

    @property
    def folded_bias(self) -> npt.NDArray[np.int32]:
        """Return the accumulators' start values, shape (G, 2, hidden), by gate and part."""
        return self.constants.folded_bias

    @property
    def reads(self) -> Codec:
        return RawCodec(8, self.input_scale, self.input_zero_point)

    @property
    def keeps(self) -> Codec:
        return RawCodec(8, self.hidden_scale, self.hidden_zero_point)

    @property
    def writes(self) -> Codec:
        # A projection writes what the recurrent part reads.
        if self.projection_weights is not None:
            return self.keeps
        return RawCodec(8, self.intermediate_scale, self.intermediate_zero_point)

    @property
    def description(self) -> str:
        return f"int8, activation {self.activation}"

    def with_activation(self, activation: ActivationKind) -> Self:
        return replace(self, activation=activation)

    def reset_state(self, batch: int) -> tuple[Raws, Raws]:
        hidden = np.full((batch, self.outputs), self.hidden_zero_point, np.int64)
        return hidden, np.zeros((batch, self.hidden), np.int64)

    def step(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
    ) -> tuple[Raws, Raws]:
        """Compute one time step of a batch: `step_constants` with the model's integers."""
        return step_constants(self.constants, x, hidden, cell)

    def run_with_cell(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> tuple[Raws, Raws]:
        steps = self.fast_steps if self._steps_are_own else None
        if steps is None:
            return super().run_with_cell(x, hidden=hidden, cell=cell)
        return self._run_fast(steps, x, hidden, cell, cells=True)

    @property
    def _steps_are_own(self) -> bool:
        """Return whether a time step is this class's, not one that a subclass redefines."""
        return type(self).step is Int8Lstm.step

    def run(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> Raws:
        """Return the hidden raws of a batch of sequences, with whole weights at every time step.

        The bits are those of `step`. Where the layer's constants allow it,
        `fewbit.golden.lstm.int8_fast` computes them.

        Parameters
        ----------
        x
            Input raws of 8 bits, shape (batch, time, inputs).
        hidden, cell
            Raws before the first time step, shapes (batch, outputs) and (batch, hidden). The
            default is the state at reset.

        Returns
        -------
        Raws of 8 bits, shape (batch, time, outputs).
        """
        steps = self.fast_steps if self._steps_are_own else None
        if steps is None:
            return super().run(x, hidden=hidden, cell=cell)
        return self._run_fast(steps, x, hidden, cell, cells=False)[0]

    def _run_fast(
        self,
        steps: FastSteps,
        x: npt.ArrayLike,
        hidden: npt.ArrayLike | None,
        cell: npt.ArrayLike | None,
        *,
        cells: bool,
    ) -> tuple[Raws, Raws]:
        """Return hidden and, where `cells` is true, cell raws at every time step."""
        inputs = as_shaped_raws(x, "x", INT8_RANGE, (-1, -1, self.inputs))
        state = self.reset_state(len(inputs))
        first_hidden = state[0] if hidden is None else hidden
        first_cell = state[1] if cell is None else cell
        return steps.run(inputs, first_hidden, first_cell, cells=cells)

    def forward(self, x: npt.ArrayLike) -> Raws:
        """Return the hidden raws of sequences from reset, with dynamic precision if chosen."""
        return dynamic.run(self, x).hidden if self.decides else self.run(x)

    @property
    def decides(self) -> bool:
        return self.dynamic and self._steps_are_own


def _split(factor: np.float32, what: str) -> tuple[int, int]:
    """Split an effective multiplier, or refuse one that is too large for `what`."""
    if not factor < 2.0**30:
        raise ValueError(
            f"The scales of {what} must give an effective multiplier below 2^30, not {factor}; "
            "quantise with finer resolutions."
        )
    return split_multiplier(float(factor))


def _split_quotient(intermediate_scale: float) -> tuple[int, int]:
    with np.errstate(over="ignore"):
        factor = float(_PRODUCT_RESOLUTION / np.float32(intermediate_scale))
    if factor >= 2.0**30:
        raise ValueError(f"intermediate_scale must be above 2^-60, not {intermediate_scale}.")
    return split_multiplier(factor)
