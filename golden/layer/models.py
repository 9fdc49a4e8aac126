"""The layer that runs a model, whatever the model's number system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from golden.layer.floatsd8 import FloatSD8LstmLayer
from golden.layer.int8 import Int8LstmLayer
from golden.layer.int8_dynamic import DynamicConstants, DynamicInt8LstmLayer
from golden.layer.ternary import Gates, TernaryLstmLayer
from golden.lstm.floatsd8 import FloatSD8Lstm
from golden.lstm.int8 import Int8Constants, Int8Lstm
from golden.lstm.ternary import TernaryLstm

if TYPE_CHECKING:
    from golden.layer.contract import LayerContract

__all__ = ["LAYERS", "ModelLayer", "layer_of"]

LAYERS: dict[str, type[LayerContract[Any]]] = {
    "int8_lstm_layer": Int8LstmLayer,
    "floatsd8_lstm_layer": FloatSD8LstmLayer,
    "ternary_lstm_layer": TernaryLstmLayer,
}
"""Contracts of layers by the names of their designs."""


@dataclass(frozen=True)
class ModelLayer:
    """A layer, and what makes it run a model."""

    design: str
    """Name of the layer's design."""
    contract: LayerContract[Any]
    parameters: Int8Constants | DynamicConstants | FloatSD8Lstm | TernaryLstm
    """What the layer packs into its image."""

    @property
    def image(self) -> bytes:
        """The parameter image."""
        return self.contract.pack(self.parameters)


def layer_of(
    model: object,
    lanes: int | None = None,
    neurons: int | None = None,
    gates: Gates = "in_turn",
) -> ModelLayer:
    """The layer that runs a model.

    Parameters
    ----------
    model
        An integer LSTM, a FloatSD8 LSTM, or one of ternary, binary or power-of-two weights.
    lanes
        Products a neuron and cycle; if not given, 4 for an integer LSTM, what a FloatSD8 LSTM adds
        at a time, and 16 for weights of few bits.
    neurons
        Units side by side; if not given, 1, or as many as share a mode where the precision is
        chosen per step, and then it can't be another number.
    gates
        Of weights of few bits: whether a unit's gates are added "in_turn" or "side_by_side".

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    if gates != "in_turn" and not isinstance(model, TernaryLstm):
        raise ValueError("Only a layer of few-bit weights has gates side_by_side.")
    if isinstance(model, Int8Lstm) and model.dynamic:
        group = model.precision_group if neurons is None else neurons
        dynamic = DynamicInt8LstmLayer.of(model, 4 if lanes is None else lanes, group)
        return ModelLayer("int8_lstm_layer", dynamic, DynamicConstants.of(model))
    neurons = 1 if neurons is None else neurons
    if isinstance(model, Int8Lstm):
        integer = Int8LstmLayer.of(model, 4 if lanes is None else lanes, neurons)
        return ModelLayer("int8_lstm_layer", integer, model.constants)
    if isinstance(model, FloatSD8Lstm):
        layer = FloatSD8LstmLayer.of(model, lanes, neurons)
        return ModelLayer("floatsd8_lstm_layer", layer, model)
    if isinstance(model, TernaryLstm):
        few = TernaryLstmLayer.of(model, 16 if lanes is None else lanes, neurons, gates=gates)
        return ModelLayer("ternary_lstm_layer", few, model)
    raise ValueError("The model is a real one; quantise it first with 'fewbit quantize'.")
