"""Amaranth shapes against the golden formats: the same bits mean the same fields."""

import pytest
from amaranth.hdl import Shape
from amaranth.lib import data

from fewbit.golden.formats import (
    BFLOAT16,
    BINARY16,
    BINARY32,
    E5M2,
    FLOATSD8,
    INT8,
    Q3_12,
    TERNARY,
    Binary,
    FixedPoint,
)
from fewbit.golden.operands import FLAG, Operand, total_width
from fewbit.hdl.formats import payload_layout, shape_of

FORMATS = [
    INT8,
    Q3_12,
    FixedPoint(5, signed=False),
    E5M2,
    BFLOAT16,
    BINARY16,
    BINARY32,
    FLOATSD8,
    TERNARY,
]


@pytest.mark.parametrize("number_format", [*FORMATS, Binary()], ids=lambda item: item.name)
def test_shapes_have_the_width_of_the_code(number_format):
    shape = Shape.cast(shape_of(number_format))
    assert shape.width == number_format.width
    assert shape.signed == (isinstance(number_format, FixedPoint) and number_format.signed)


def test_fields_of_every_floatsd8_code():
    for code in range(256):
        fields = shape_of(FLOATSD8).from_bits(code)
        magnitude = fields.index if fields.index <= 10 else fields.index + 3
        real = (-1) ** fields.sign * magnitude * 2.0 ** (fields.exponent - FLOATSD8.bias)
        assert real == FLOATSD8.decode(code)


@pytest.mark.long
@pytest.mark.parametrize("number_format", [E5M2, BINARY16], ids=lambda item: item.name)
def test_fields_of_every_float_code(number_format):
    for code in range(2**number_format.width):
        fields = shape_of(number_format).from_bits(code)
        if number_format.ieee and fields.exponent == 31:
            continue
        hidden = 2**number_format.mantissa_bits if fields.exponent else 0
        scale = max(fields.exponent, 1) - number_format.bias - number_format.mantissa_bits
        real = (-1) ** fields.sign * (hidden + fields.mantissa) * 2.0**scale
        assert real == number_format.decode(code)


def test_fields_of_every_ternary_code():
    for code in range(4):
        fields = shape_of(TERNARY).from_bits(code)
        assert fields.nonzero * (-1) ** fields.negative == TERNARY.decode(code)


def test_payloads_pack_as_the_golden_operands():
    operands = (
        Operand("weights", TERNARY, "", 3),
        Operand("accumulator", INT8, ""),
        Operand("first", FLAG, ""),
    )
    layout = payload_layout(operands)
    assert layout.size == total_width(operands) == 15
    assert [layout[field.name].offset for field in operands] == [0, 6, 14]
    assert isinstance(layout["weights"].shape, data.ArrayLayout)
