"""The choices of a FloatSD8 training step that the layer does not decide."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy.typing as npt

from fewbit.golden.checks import check_choice, freeze_integer
from fewbit.golden.formats import FLOATSD8, FloatSD8
from fewbit.golden.lstm.floatsd8 import HIGHEST_CONSTANT_BIAS, LOWEST_CONSTANT_BIAS, FloatSD8Lstm
from fewbit.golden.quantize.floatsd8 import relative_errors
from fewbit.golden.training.factors import CELL_FACTOR_BIAS, GRADIENT_BIAS, INPUT_FACTOR_BIAS

__all__ = ["ACCUMULATIONS", "Accumulation", "TrainingOptions", "input_factor_bias"]

Accumulation = Literal["by_step", "chained"]

ACCUMULATIONS: tuple[Accumulation, ...] = ("by_step", "chained")
_CONSTANT_BIASES = (LOWEST_CONSTANT_BIAS, HIGHEST_CONSTANT_BIAS)
_LOWEST_RATE_BIAS, _HIGHEST_RATE_BIAS = -16, 40
_LOWEST_GRADIENT_BIAS, _HIGHEST_GRADIENT_BIAS = 9, 31


@dataclass(frozen=True)
class TrainingOptions:
    """The choices of a training step that the layer does not decide.

    Parameters
    ----------
    rate
        Learning rate, positive.
    loss_scale
        Factor by which dL/dh is larger than the gradient of the loss, positive. It cancels in the
        update.
    gradient_bias
        Exponent bias of the gradients, 9 to 31.
    cell_factor_bias
        Exponent bias of the old cell as a factor, whose range is then ±18 * 2^(7 - bias).
    input_factor_bias
        Exponent bias of the input as a factor, whose range is then ±9 * 2^(8 - bias); see
        `input_factor_bias`.
    accumulation
        The accumulator of a weight's gradient. With "by_step" the sum over the batch starts from 0
        in every time step, and its four pieces, times 1, are then added to the accumulator by one
        more sum. With "chained" the accumulator is the start value of the batch's sum, so that
        small products are lost beside a large accumulator.

    Raises
    ------
    ValueError
        If a field is out of range, or rate and loss scale do not fit FloatSD8.
    """

    rate: float = 0.125
    loss_scale: float = 1024.0
    gradient_bias: int = GRADIENT_BIAS
    cell_factor_bias: int = CELL_FACTOR_BIAS
    input_factor_bias: int = INPUT_FACTOR_BIAS
    accumulation: Accumulation = "by_step"

    def __post_init__(self) -> None:
        """Check ranges, and that the update's factor has a FloatSD8 code."""
        for name in ("rate", "loss_scale"):
            value = float(getattr(self, name))
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, not {value}.")
            object.__setattr__(self, name, value)
        freeze_integer(self, "gradient_bias", _LOWEST_GRADIENT_BIAS, _HIGHEST_GRADIENT_BIAS)
        self._freeze_factor_bias("cell_factor_bias")
        self._freeze_factor_bias("input_factor_bias")
        check_choice("accumulation", self.accumulation, ACCUMULATIONS)
        self.update_factor  # noqa: B018 - refuses what it cannot encode

    def _freeze_factor_bias(self, name: str) -> None:
        low, high = (limit - self.gradient_bias for limit in _CONSTANT_BIASES)
        freeze_integer(self, name, low, high)

    @property
    def update_factor(self) -> tuple[int, int]:
        """Return the code of minus rate over loss scale, and the exponent bias of its format.

        It is the nearest number of all biases that a unit can have, of equally near ones that with
        the largest mantissa, which fills its field, and then the smallest bias. Powers of two are
        exact.

        Raises
        ------
        ValueError
            If the quotient is too large or too small.
        """
        wanted = -self.rate / self.loss_scale
        biases = range(_LOWEST_RATE_BIAS, _HIGHEST_RATE_BIAS + 1)
        found = {bias: int(FloatSD8(bias).encode(wanted)) for bias in biases}

        def error(bias: int) -> tuple[float, int, int]:
            number_format, code = FloatSD8(bias), found[bias]
            distance = abs(float(number_format.decode(code)) - wanted)
            return distance, -abs(int(number_format.mantissa(code))), bias

        bias = min(found, key=error)
        if error(bias)[0] > abs(wanted) / 8:
            raise ValueError(
                f"rate over loss_scale must be from 2^{-_HIGHEST_RATE_BIAS} to"
                f" 2^{11 - _LOWEST_RATE_BIAS}, not {-wanted:g}."
            )
        return found[bias], bias

    def check_layer(self, layer: FloatSD8Lstm) -> None:
        """Refuse a layer whose biases do not fit those of the gradients.

        Raises
        ------
        ValueError
            If the sum of two biases is outside 19 to 50, the range of a circuit.
        """
        biases = {
            "input_weight_bias": layer.input_weight_bias,
            "recurrent_weight_bias": layer.recurrent_weight_bias,
        }
        low, high = _CONSTANT_BIASES
        for name, bias in biases.items():
            if not low <= bias + self.gradient_bias <= high:
                raise ValueError(
                    f"{name} and gradient_bias must sum to {low} to {high}, not {bias} +"
                    f" {self.gradient_bias}."
                )


def input_factor_bias(x: npt.ArrayLike, gradient_bias: int = GRADIENT_BIAS) -> int:
    """Return the exponent bias of an input as a factor that suits typical inputs.

    It has the least squared error of all that fit the gradients, of equally good ones it is the
    one nearest to 8.

    Parameters
    ----------
    x
        Finite reals, any shape: inputs of the training data.
    gradient_bias
        Exponent bias of the gradients.
    """
    errors = relative_errors(FLOATSD8, x)
    low, high = (limit - gradient_bias for limit in _CONSTANT_BIASES)
    return min(range(low, high + 1), key=lambda bias: (errors[bias], abs(bias - INPUT_FACTOR_BIAS)))
