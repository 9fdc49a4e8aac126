"""Schemes of training, one module a family; `SCHEMES` lists all by name."""

from collections.abc import Mapping

from fewbit.train.schemes.contract import Cell, Scheme, Signal
from fewbit.train.schemes.few_bit import Binary, Exponential, FixedPoint, PowerOfTwo, Ternary
from fewbit.train.schemes.floatsd8 import FloatSD8
from fewbit.train.schemes.int8 import Int8
from fewbit.train.schemes.real import Float

__all__ = ["SCHEMES", "Cell", "Scheme", "Signal"]

SCHEMES: Mapping[str, type[Scheme]] = {
    scheme.name: scheme
    for scheme in (Float, FloatSD8, Binary, Ternary, PowerOfTwo, Exponential, FixedPoint, Int8)
}
"""All schemes by the word for them on the command line."""
