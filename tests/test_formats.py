"""Number formats against ml_dtypes, numpy's own floats, and enumeration with Fractions."""

from fractions import Fraction
from itertools import pairwise, product

import ml_dtypes
import numpy as np
import pytest

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
    FloatSD8,
    Format,
    Minifloat,
)
from tests.support import exact

SMALL: list[Format] = [
    E5M2,
    BINARY16,
    FLOATSD8,
    FloatSD8(3),
    Minifloat(5, 2, 24),
    Minifloat(4, 3, 7),
    INT8,
    Q3_12,
    FixedPoint(5, 2, signed=False),
    TERNARY,
    Binary(),
]


def all_codes(number_format: Format) -> np.ndarray:
    return np.arange(2**number_format.width)


def nearest(values: list[Fraction], real: Fraction) -> Fraction:
    """The nearest of ascending distinct values; ties to the even index counted from zero."""
    zero = values.index(Fraction(0))
    return min(enumerate(values), key=lambda item: (abs(item[1] - real), (item[0] - zero) % 2))[1]


def test_binary16_equals_numpy_on_all_codes():
    codes = all_codes(BINARY16)
    expected = codes.astype(np.uint16).view(np.float16).astype(np.float64)
    np.testing.assert_array_equal(BINARY16.decode(codes), expected)
    assert np.signbit(BINARY16.decode(0x8000))


def test_binary16_encodes_as_numpy_casts():
    rng = np.random.default_rng(1)
    values = BINARY16.values
    middles = (values[:-1] + values[1:]) / 2
    reals = np.concatenate(
        [values, middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf)]
        + [rng.normal(0, scale, 20_000) for scale in (1e-8, 1e-5, 1.0, 1e4)]
        + [[-0.0, 65504.0, 65519.9, -65519.9, np.inf, -np.inf]]
    )
    expected = reals.astype(np.float16).view(np.uint16).astype(np.int64)
    np.testing.assert_array_equal(BINARY16.encode(reals), expected)


@pytest.mark.parametrize(("real", "code"), [(65520.0, 0x7BFF), (1e300, 0x7BFF), (-65536.0, 0xFBFF)])
def test_binary16_saturates_where_ieee_overflows(real, code):
    assert BINARY16.encode(real) == code


def test_binary32_equals_numpy():
    rng = np.random.default_rng(2)
    codes = np.concatenate([rng.integers(0, 2**32, 200_000), BINARY32.corners])
    codes = codes[(codes >> 23) & 255 != 255]
    reals = codes.astype(np.uint32).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(BINARY32.decode(codes), reals)
    np.testing.assert_array_equal(BINARY32.encode(reals), codes)
    inexact = reals * rng.uniform(0.5, 1.5, len(reals))
    inexact = inexact[np.abs(inexact) < float(np.finfo(np.float32).max)]
    expected = inexact.astype(np.float32).view(np.uint32).astype(np.int64)
    np.testing.assert_array_equal(BINARY32.encode(inexact), expected)


def test_bfloat16_equals_ml_dtypes():
    codes = all_codes(BFLOAT16)
    codes = codes[(codes >> 7) & 255 != 255]
    reals = codes.astype(np.uint16).view(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_array_equal(BFLOAT16.decode(codes), reals)
    np.testing.assert_array_equal(BFLOAT16.encode(reals), codes)
    # ml_dtypes casts by way of binary32, so the neighbours of a tie are binary32's.
    middles = ((reals[:-1] + reals[1:])[np.diff(codes) == 1] / 2).astype(np.float32)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    inexact = np.concatenate([middles, np.nextafter(middles, up), np.nextafter(middles, down)])
    expected = inexact.astype(ml_dtypes.bfloat16).view(np.uint16).astype(np.int64)
    np.testing.assert_array_equal(BFLOAT16.encode(inexact), expected)


def test_e5m2_equals_ml_dtypes_below_its_infinity():
    codes = np.array([code for code in range(256) if code & 0x7C != 0x7C])
    expected = codes.astype(np.uint8).view(ml_dtypes.float8_e5m2).astype(np.float64)
    np.testing.assert_array_equal(E5M2.decode(codes), expected)
    reals = np.random.default_rng(3).normal(0, 1, 50_000) * np.exp2(np.arange(50_000) % 30 - 16)
    reals = reals[np.abs(reals) < 57344]
    expected = reals.astype(ml_dtypes.float8_e5m2).view(np.uint8).astype(np.int64)
    np.testing.assert_array_equal(E5M2.encode(reals), expected)


def test_e5m2_has_one_more_octave_in_place_of_infinity_and_nan():
    assert E5M2.decode([0x7C, 0x7D, 0x7E, 0x7F]).tolist() == [65536, 81920, 98304, 114688]
    assert E5M2.encode(np.inf) == 0x7F


@pytest.mark.parametrize("bias", [7, 11, 15, 24])
def test_e5m2_equals_its_definition_in_fractions(bias):
    reals = Minifloat(5, 2, bias).decode(np.arange(256))
    assert [Fraction(real) for real in reals] == [exact.e5m2(code, bias) for code in range(256)]


def test_other_minifloats_equal_ml_dtypes():
    codes = np.arange(256)
    e4m3 = codes.astype(np.uint8).view(ml_dtypes.float8_e4m3b11fnuz).astype(np.float64)
    normal = codes != 0x80  # the one NaN of that format, our negative zero
    np.testing.assert_array_equal(Minifloat(4, 3, 11).decode(codes)[normal], e4m3[normal])


def test_floatsd8_mantissas_are_all_sums_of_two_signed_digits():
    sums = {4 * a + b for a, b in product((0, 1, -1, 2, -2, 4, -4), (0, 1, -1, 2, -2))}
    assert set(FLOATSD8.mantissa(np.arange(256)).tolist()) == sums
    assert len(sums) == 31
    a, b = FLOATSD8.digits(np.arange(256))
    np.testing.assert_array_equal(4 * a + b, FLOATSD8.mantissa(np.arange(256)))
    assert set(a.tolist()) == {0, 1, -1, 2, -2, 4, -4}
    assert set(b.tolist()) <= {0, 1, -1, 2, -2}


def test_floatsd8_values_by_enumeration():
    sums = {4 * a + b for a, b in product((0, 1, -1, 2, -2, 4, -4), (0, 1, -1, 2, -2))}
    values = sorted({Fraction(m) * 2**e for m in sums for e in range(8)})
    assert len(values) == 129
    assert [Fraction(real) * 2**10 for real in FLOATSD8.values] == values
    assert Fraction(FLOATSD8.largest) == Fraction(2304, 1024)
    for code in range(256):
        assert Fraction(float(FLOATSD8.decode(code))) == exact.floatsd8(code)


def test_floatsd8_codes_are_canonical():
    codes = FLOATSD8.encode(FLOATSD8.values)
    for code, real in zip(codes, FLOATSD8.values, strict=True):
        same = [c for c in range(256) if exact.floatsd8(c) == Fraction(real)]
        smallest = min(same, key=lambda c: (c >> 5, c & 0b11111))
        assert code == smallest
        assert (code >> 5) == min(c >> 5 for c in same)
    assert FLOATSD8.encode([0.0, -0.0, 1e-9, -1e-9]).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("number_format", SMALL, ids=lambda number_format: number_format.name)
def test_round_trip_of_values(number_format):
    reals = number_format.values
    np.testing.assert_array_equal(number_format.decode(number_format.encode(reals)), reals)


@pytest.mark.long
@pytest.mark.parametrize(
    "number_format",
    [item for item in SMALL if item.width <= 8 and item.name != "binary"],
    ids=lambda number_format: number_format.name,
)
def test_encode_is_nearest_with_ties_to_even(number_format):
    values = [Fraction(real) for real in number_format.values]
    reals = [*values, *((a + b) / 2 for a, b in pairwise(values))]
    rng = np.random.default_rng(4)
    top = 1.5 * number_format.largest
    reals += [Fraction(real) for real in rng.uniform(-top, top, 500)]
    reals += [Fraction(real) for real in rng.normal(0, top / 1000, 500)]
    got = number_format.decode(number_format.encode([float(real) for real in reals]))
    for real, value in zip(reals, got, strict=True):
        assert Fraction(float(value)) == nearest(values, real), f"{float(real)!r}"


def test_floatsd8_ties_go_to_the_even_index():
    # 1/1024 and 2/1024 have the indices 1 and 2; 2304 and 2176 the indices 64 and 63.
    assert FLOATSD8.decode(FLOATSD8.encode([1.5 / 1024, -1.5 / 1024])).tolist() == [
        2 / 1024,
        -2 / 1024,
    ]
    assert FLOATSD8.decode(FLOATSD8.encode(2240 / 1024)) == 2304 / 1024
    assert FLOATSD8.decode(FLOATSD8.encode([9.0, -9.0])).tolist() == [2.25, -2.25]


def test_ternary_and_binary():
    assert TERNARY.decode([0, 1, 2, 3]).tolist() == [0, 1, 0, -1]
    assert TERNARY.encode([-7, -1, -0.5, 0, 0.5, 0.75, 9]).tolist() == [3, 3, 0, 0, 0, 1, 1]
    assert Binary().decode([0, 1]).tolist() == [-1, 1]
    assert Binary().encode([-2, -1e-9, -0.0, 0.0, 3]).tolist() == [0, 0, 1, 1, 1]


def test_fixed_point_equals_numpy_integers():
    codes = np.arange(256)
    np.testing.assert_array_equal(INT8.raw(codes), codes.astype(np.uint8).view(np.int8))
    np.testing.assert_array_equal(INT8.code(INT8.raw(codes)), codes)
    int4 = np.arange(16).astype(np.uint8).view(ml_dtypes.int4).astype(np.int64)
    np.testing.assert_array_equal(FixedPoint(4).raw(np.arange(16)), int4)
    assert Q3_12.encode([1.0, 7.99999, 8.0, -9.0]).tolist() == [4096, 32767, 32767, 32768]
    assert Q3_12.decode(0x8000) == -8.0
    assert INT8.encode([0.5, 1.5, -0.5, -1.5]).tolist() == [0, 2, 0, 254]


def test_names_and_encodings():
    formats = (E5M2, BFLOAT16, BINARY16, BINARY32, FLOATSD8, INT8, Q3_12, TERNARY)
    names = ["e5m2", "bfloat16", "binary16", "binary32", "floatsd8", "int8", "q3_12", "ternary"]
    assert [item.name for item in formats] == names
    for item in SMALL:
        assert len(item.encoding) == 2 + item.width


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([256], "int8 codes must be from 0 to 255, not 256 to 256."),
        ([-1, 3], "int8 codes must be from 0 to 255, not -1 to 3."),
        ([0.5], "int8 codes must be integers, not float64."),
    ],
)
def test_bad_codes_are_refused(codes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        INT8.decode(codes)
    assert str(error.value) == message


def test_bad_parameters_and_reals_are_refused():
    with pytest.raises(ValueError, match="FixedPoint width must be from 1 to 53 bits, not 0."):
        FixedPoint(0)
    with pytest.raises(ValueError, match="not 1 and 2"):
        Minifloat(1, 2, 0)
    with pytest.raises(ValueError, match="NaN has no e5m2 code; remove it before encoding."):
        E5M2.encode([1.0, np.nan])
    with pytest.raises(ValueError, match="int8 raws must be from -128 to 127, not 128 to 128."):
        INT8.code([128])
