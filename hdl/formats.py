"""The Amaranth shape of a number format, and the payload layout of a tuple of operands."""

from collections.abc import Sequence

from amaranth.hdl import ShapeLike, signed, unsigned
from amaranth.lib import data, stream, wiring

from fewbit.golden.formats import FixedPoint, FloatSD8, Format, Minifloat, Ternary
from fewbit.golden.operands import Operand

__all__ = ["HasPorts", "payload_layout", "shape_of", "stream_of"]

HasPorts = wiring.PureInterface | wiring.Component
"""An object that has ports as attributes: a component, or an interface of one."""


def shape_of(number_format: Format) -> ShapeLike:
    """Return the shape of a code: an integer for fixed point, a struct for floats.

    The first field of a struct is in the lowest bits.
    """
    match number_format:
        case FixedPoint(width=width, signed=is_signed):
            return signed(width) if is_signed else unsigned(width)
        case Minifloat(exponent_bits=exponent_bits, mantissa_bits=mantissa_bits):
            return data.StructLayout(
                {"mantissa": mantissa_bits, "exponent": exponent_bits, "sign": 1}
            )
        case FloatSD8():
            return data.StructLayout({"index": 4, "sign": 1, "exponent": 3})
        case Ternary():
            return data.StructLayout({"nonzero": 1, "negative": 1})
        case _:
            return unsigned(number_format.width)


def payload_layout(operands: Sequence[Operand]) -> data.StructLayout:
    """Return the payload layout of a beat: a field for each operand, the first one lowest."""
    return data.StructLayout(
        {
            operand.name: shape_of(operand.format)
            if operand.lanes is None
            else data.ArrayLayout(shape_of(operand.format), operand.lanes)
            for operand in operands
        }
    )


def stream_of(operands: Sequence[Operand]) -> stream.Signature:
    """Return the signature of a stream of beats of operands, with valid and ready."""
    return stream.Signature(payload_layout(operands))
