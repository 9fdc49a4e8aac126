"""The LSTM of 2-bit weights: levels -2 to 1, a scale for each gate and part, int8 activations.

Sums are exact modulo 2^32 and requantised to Q3.12; all that follows is the integer LSTM's update.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import INT8_RANGE, INT16_RANGE, Raws, split_multiplier, wrap
from fewbit.golden.checks import as_shaped_raws, freeze_array
from fewbit.golden.codecs import Codec, RawCodec
from fewbit.golden.lstm.contract import Lstm, StoredArray
from fewbit.golden.lstm.integer_step import update_unit

LEVELS = (-2, 1)
"""Lowest and highest weight."""
HIDDEN_SCALE = 2.0**-7


@dataclass(frozen=True, eq=False)
class Int2Lstm(Lstm):
    """A layer of 2-bit weights, gates in the order i, f, g, o.

    Parameters
    ----------
    input_weights, recurrent_weights
        int8 from -2 to 1, shapes (4, hidden, inputs) and (4, hidden, hidden).
    bias
        int32, shape (4, hidden), in units of the input rows' sums.
    multipliers, shifts
        int32 and int8, shape (4, 2), by gate and part: ``multiplier / 2^31 * 2^shift`` takes a sum
        to the gate.
    input_scale
        Step of the input raws.
    cell_exponent
        The step of the cell is ``2^cell_exponent``.
    activation
        "table" or "gemmlowp".
    """

    kind: ClassVar[str] = "int2_lstm"
    title: ClassVar[str] = "int2"
    stored: ClassVar[Mapping[str, StoredArray]] = {
        "input_weights": StoredArray(("int8",), ("gates", "hidden", "inputs")),
        "recurrent_weights": StoredArray(("int8",), ("gates", "hidden", "outputs")),
        "bias": StoredArray(("int32",), ("gates", "hidden")),
        "multipliers": StoredArray(("int32",), ("gates", "parts")),
        "shifts": StoredArray(("int8",), ("gates", "parts")),
        "input_scale": StoredArray(("float32",)),
        "cell_exponent": StoredArray(("int32",)),
        "activation": StoredArray(("text",), choices=get_args(ActivationKind)),
    }

    input_weights: npt.NDArray[np.int8]
    recurrent_weights: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    multipliers: npt.NDArray[np.int32]
    shifts: npt.NDArray[np.int8]
    input_scale: float
    cell_exponent: int = -12
    activation: ActivationKind = "table"

    def __post_init__(self) -> None:
        """Check shapes and levels."""
        _, hidden, inputs = self.input_weights.shape
        freeze_array(self, "input_weights", np.int8, (4, hidden, inputs))
        freeze_array(self, "recurrent_weights", np.int8, (4, hidden, hidden))
        freeze_array(self, "bias", np.int32, (4, hidden))
        freeze_array(self, "multipliers", np.int32, (4, 2))
        freeze_array(self, "shifts", np.int8, (4, 2))
        for name in ("input_weights", "recurrent_weights"):
            values = getattr(self, name)
            if values.min() < LEVELS[0] or values.max() > LEVELS[1]:
                raise ValueError(f"{name} must be from {LEVELS[0]} to {LEVELS[1]}.")

    @property
    def inputs(self) -> int:
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        return self.input_weights.shape[1]

    @property
    def reads(self) -> Codec:
        return RawCodec(8, self.input_scale, agreement={"input_scale": self.input_scale})

    @property
    def keeps(self) -> Codec:
        return RawCodec(8, HIDDEN_SCALE, agreement={"input_scale": HIDDEN_SCALE})

    @property
    def description(self) -> str:
        return f"int2, activation {self.activation}"

    def reset_state(self, batch: int) -> tuple[Raws, Raws]:
        hidden, cell = np.zeros((2, batch, self.hidden), np.int64)
        return hidden, cell

    def step(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
    ) -> tuple[Raws, Raws]:
        inputs = as_shaped_raws(x, "x", INT8_RANGE, (-1, self.inputs))
        state = len(inputs), self.hidden
        old_hidden = as_shaped_raws(hidden, "hidden", INT8_RANGE, state)
        old_cell = as_shaped_raws(cell, "cell", INT16_RANGE, state)
        # Shape (batch, hidden, gates, parts).
        sums = np.stack(
            [
                np.einsum("bi,ghi->bhg", inputs, self.input_weights) + self.bias.T,
                np.einsum("bi,ghi->bhg", old_hidden, self.recurrent_weights.astype(np.int64)),
            ],
            axis=-1,
        )
        multiplier, shift = split_multiplier(2.0**-30 / HIDDEN_SCALE)
        return update_unit(
            wrap(sums, 32),
            self.multipliers,
            self.shifts,
            old_cell,
            cell_exponent=self.cell_exponent,
            cell_clip=0,
            hidden_multiplier=multiplier,
            hidden_shift=shift,
            hidden_zero_point=0,
            activation=self.activation,
        )
