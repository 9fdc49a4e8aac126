"""The master copy of a FloatSD8 layer: a binary16 number for each weight and bias.

Source: arXiv 2001.08450.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.floatsd8 import ACCUMULATOR_FORMAT
from fewbit.golden.checks import check_shape
from fewbit.golden.formats import BINARY16
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm

__all__ = ["LayerArrays", "check_masters", "layer_of"]

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """A number for each weight and bias of a layer, as codes of one format.

    Parameters
    ----------
    input_weights
        Shape (4, hidden, inputs).
    recurrent_weights
        Shape (4, hidden, hidden).
    bias
        Shape (4, hidden).
    """

    input_weights: Codes
    recurrent_weights: Codes
    bias: Codes

    @classmethod
    def of_reals(
        cls, input_weights: npt.ArrayLike, recurrent_weights: npt.ArrayLike, bias: npt.ArrayLike
    ) -> Self:
        """Return real weights and biases as binary16 codes, a master copy."""
        return cls(*(BINARY16.encode(reals) for reals in (input_weights, recurrent_weights, bias)))

    @classmethod
    def of_layer(cls, layer: FloatSD8Lstm) -> Self:
        """Return a master copy that has exactly the layer's weights, if binary16 has them."""
        return cls.of_reals(
            layer.input_weight_format.decode(layer.input_weights),
            layer.recurrent_weight_format.decode(layer.recurrent_weights),
            ACCUMULATOR_FORMAT.decode(layer.bias),
        )

    @property
    def arrays(self) -> tuple[Codes, Codes, Codes]:
        """Return the three arrays in the order of the fields."""
        return self.input_weights, self.recurrent_weights, self.bias


def layer_of(masters: LayerArrays, like: FloatSD8Lstm) -> FloatSD8Lstm:
    """Return the layer with the weights nearest to a master copy; the rest is that of `like`."""
    return replace(
        like,
        input_weights=like.input_weight_format.encode(
            ACCUMULATOR_FORMAT.decode(masters.input_weights)
        ),
        recurrent_weights=like.recurrent_weight_format.encode(
            ACCUMULATOR_FORMAT.decode(masters.recurrent_weights)
        ),
        bias=masters.bias,
    )


def check_masters(layer: FloatSD8Lstm, masters: LayerArrays) -> None:
    """Refuse a master copy of another layer.

    Raises
    ------
    ValueError
        If a shape or code is wrong, or the layer's weights are not the nearest to the masters.
    """
    for each in fields(masters):
        codes = BINARY16.check(getattr(masters, each.name))
        check_shape(codes, f"masters.{each.name}", getattr(layer, each.name).shape)
    rounded = layer_of(masters, layer)
    formats = (layer.input_weight_format, layer.recurrent_weight_format, ACCUMULATOR_FORMAT)
    for each, number_format in zip(fields(masters), formats, strict=True):
        held, nearest = (
            number_format.decode(getattr(owner, each.name)) for owner in (layer, rounded)
        )
        if (held != nearest).any():
            raise ValueError(
                f"The layer's {each.name} must be the nearest to its masters; take the layer from"
                " layer_of(masters, layer)."
            )
