"""The integer steps against exact Python integers and fractions."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest

from fewbit.golden.arithmetic import (
    multiply_by_split_multiplier,
    rounding_shift_right,
    saturate,
    saturating_rounding_doubling_high_multiply,
    split_multiplier,
    wrap,
)

HALF = Fraction(1, 2)
INT32_CORNERS = [
    *(-(2**31) + k for k in range(3)),
    -(2**30) - 1,
    -(2**30),
    *range(-3, 4),
    2**30 - 1,
    2**30,
    2**31 - 2,
    2**31 - 1,
]


def ties_away(value: Fraction) -> int:
    size = math.floor(abs(value) + HALF)
    return size if value >= 0 else -size


def ties_up(value: Fraction) -> int:
    return math.floor(value + HALF)


def to_word(value: int, width: int) -> int:
    """Two's complement by bytes and bits, not by arithmetic."""
    bits = format(value % 2**width, f"0{width}b")
    return int(bits, 2) - (2**width if bits[0] == "1" else 0)


def random_words(seed: int, count: int, width: int = 32) -> list[int]:
    """Words of every magnitude: a uniform number of bits, then a uniform word of it."""
    rng = np.random.default_rng(seed)
    shift = rng.integers(0, width, count)
    words = rng.integers(-(2 ** (width - 1)), 2 ** (width - 1), count) >> shift
    return words.tolist()


@pytest.mark.parametrize("width", [1, 2, 8, 16, 32, 63])
def test_saturate_and_wrap(width: int) -> None:
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    raws = [low - 1, low, low + 1, -1, 0, 1, high - 1, high, high + 1, -(2**63), 2**63 - 1]
    raws += random_words(width, 500, 64)
    assert saturate(raws, width).tolist() == [min(max(raw, low), high) for raw in raws]
    assert wrap(raws, width).tolist() == [to_word(raw, width) for raw in raws]


def test_rounding_shift_right_every_small_raw() -> None:
    raws = np.arange(-1500, 1501)
    for shift in range(12):
        expected = [ties_away(Fraction(raw, 2**shift)) for raw in raws.tolist()]
        assert rounding_shift_right(raws, shift).tolist() == expected


def test_rounding_shift_right_large() -> None:
    raws = [-(2**62), 2**62, 2**61, -(2**61), *INT32_CORNERS, *random_words(1, 500, 63)]
    for shift in [0, 1, 2, 31, 61, 62]:
        expected = [ties_away(Fraction(raw, 2**shift)) for raw in raws]
        assert rounding_shift_right(raws, shift).tolist() == expected


def test_rounding_shift_right_takes_a_shift_for_each_raw() -> None:
    assert rounding_shift_right([[5], [-5]], [0, 1, 2]).tolist() == [[5, 3, 1], [-5, -3, -1]]


@pytest.mark.parametrize("width", [16, 32])
def test_high_multiply(width: int) -> None:
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    ties = [2 ** (width // 2 - 1) * k for k in (-3, -1, 1, 3)]
    corners = [low, low + 1, low // 2, *ties, -1, 0, 1, high // 2 + 1, high - 1, high]
    pairs = [(a, b) for a in corners for b in corners]
    pairs += zip(random_words(2, 3000, width), random_words(3, 3000, width), strict=True)
    a, b = np.array(pairs).T
    expected = [min(ties_up(Fraction(x * y, 2 ** (width - 1))), high) for x, y in pairs]
    assert saturating_rounding_doubling_high_multiply(a, b, width).tolist() == expected
    assert expected[0] == high, "the lowest times the lowest saturates"


def test_high_multiply_sends_ties_up() -> None:
    assert saturating_rounding_doubling_high_multiply([1, -1], 2**14, 16).tolist() == [1, 0]
    assert saturating_rounding_doubling_high_multiply([1, -1], 2**30, 32).tolist() == [1, 0]


def binary32(real: float) -> float:
    return struct.unpack("f", struct.pack("f", real))[0]


def test_split_multiplier_is_exact_in_binary32() -> None:
    rng = np.random.default_rng(4)
    reals = [1.0, 0.5, 2.0**-32, 2.0**-31, 2.0**29, 1 - 2.0**-24, 0.1, 1 / 3]
    reals += (2 ** rng.uniform(-32, 29.999, 3000)).tolist()
    for real in reals:
        multiplier, shift = split_multiplier(real)
        assert Fraction(multiplier) * Fraction(2) ** (shift - 31) == Fraction(binary32(real)), real
        assert 2**30 <= multiplier < 2**31
        assert multiplier % 2**7 == 0, "24 significant bits"
        assert -31 <= shift <= 30


def test_split_multiplier_of_almost_nothing_is_zero() -> None:
    below = math.nextafter(2.0**-32, 0)
    assert split_multiplier(2.0**-32) == (2**30, -31)
    assert split_multiplier(binary32(2.0**-32 * (1 - 2.0**-24))) == (0, 0)
    # Rounds to 2^-32 in binary32, which still counts.
    assert split_multiplier(below) == (2**30, -31)
    assert split_multiplier(0.0) == (0, 0)


@pytest.mark.parametrize("real", [-1.0, math.inf, math.nan])
def test_split_multiplier_refuses_what_is_no_multiplier(real: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number of at least 0, not"):
        split_multiplier(real)


@pytest.mark.parametrize("real", [2.0**30, math.nextafter(2.0**30, 0), 1e300])
def test_split_multiplier_refuses_what_is_too_large(real: float) -> None:
    with pytest.raises(ValueError, match=r"must be below 2\^30"):
        split_multiplier(real)


def double_rounding(raw: int, multiplier: int, shift: int) -> int:
    left = to_word(raw * 2 ** max(shift, 0), 32)
    high = ties_up(Fraction(left * multiplier, 2**31))
    return ties_away(Fraction(high) / 2 ** max(-shift, 0))


def single_rounding(raw: int, multiplier: int, shift: int) -> int:
    return to_word(ties_up(raw * multiplier * Fraction(2) ** (shift - 31)), 32)


def split_cases() -> list[tuple[int, int, int]]:
    multipliers = [0, 1, 2**30, 2**30 + 2**7, 2**31 - 2**7, 2**31 - 1, 1_518_500_250]
    cases = [
        (raw, multiplier, shift)
        for raw in INT32_CORNERS
        for multiplier in multipliers
        for shift in range(-31, 31)
    ]
    rng = np.random.default_rng(5)
    cases += zip(
        random_words(6, 5000),
        (rng.integers(2**23, 2**24, 5000) << 7).tolist(),
        rng.integers(-31, 31, 5000).tolist(),
        strict=True,
    )
    return cases


def test_multiply_by_split_multiplier() -> None:
    cases = split_cases()
    raw, multiplier, shift = np.array(cases).T
    double = multiply_by_split_multiplier(raw, multiplier, shift)
    assert double.tolist() == [double_rounding(*case) for case in cases]
    single = multiply_by_split_multiplier(raw, multiplier, shift, rounding="single")
    assert single.tolist() == [single_rounding(*case) for case in cases]
    assert np.count_nonzero(double != single), "the two kinds must differ somewhere"


def test_multiply_by_split_multiplier_broadcasts() -> None:
    raws = np.arange(24).reshape(3, 4, 2) * 1000
    multiplier = np.full((4, 2), 2**30)
    shift = np.arange(8).reshape(4, 2) - 3
    result = multiply_by_split_multiplier(raws, multiplier, shift)
    assert result.shape == (3, 4, 2)
    assert result[2, 3, 1] == double_rounding(23_000, 2**30, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: saturate([1.0], 8), "raw must be integers, not float64; round them to raws first"),
        (lambda: saturate(1, 0), "width must be from 1 to 63 bits, not 0."),
        (lambda: wrap(1, 64), "width must be from 1 to 63 bits, not 64."),
        (lambda: wrap(np.uint64(2**63), 8), "not 9223372036854775808."),
        (lambda: rounding_shift_right(1, -1), "shift must be from 0 to 62, not -1."),
        (lambda: rounding_shift_right(2**62 + 1, 1), "raw must be from"),
        (
            lambda: saturating_rounding_doubling_high_multiply(1, 1, 8),
            "width must be 16 or 32 bits, not 8.",
        ),
        (
            lambda: saturating_rounding_doubling_high_multiply(40_000, 1, 16),
            "a must be from -32768 to 32767, not 40000.",
        ),
        (
            lambda: multiply_by_split_multiplier(2**31, 1, 0),
            "raw must be from -2147483648 to 2147483647, not 2147483648.",
        ),
        (
            lambda: multiply_by_split_multiplier(1, -1, 0),
            "multiplier must be from 0 to 2147483647, not -1.",
        ),
        (lambda: multiply_by_split_multiplier(1, 1, 31), "shift must be from -31 to 30, not 31."),
        (
            lambda: multiply_by_split_multiplier(1, 1, 0, rounding="triple"),  # type: ignore[arg-type]
            'rounding must be "double" or "single", not \'triple\'.',
        ),
    ],
)
def test_bad_operands_are_refused_in_words(call, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        call()
    assert message in str(error.value)
