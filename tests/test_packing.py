"""Packed weights: every code and every group of weights, against digits spelt out."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbit.golden.accumulate.packing import (
    BINARY_BYTES,
    TERNARY_BYTES,
    TERNARY_DENSE,
    Packing,
)
from tests.support.dense_codes import ALIASES, LEVELS, spelt_densely

PACKINGS: dict[str, Packing] = {
    "binary": BINARY_BYTES,
    "two bits": TERNARY_BYTES,
    "dense": TERNARY_DENSE,
}
BITS = {"binary": {1: "1", -1: "0"}, "two bits": {1: "01", -1: "11", 0: "00"}}
by_packing = pytest.mark.parametrize("name", PACKINGS)


def spelt(name: str, levels: tuple[int, ...]) -> int:
    """Code of a group, its digits written as a text, most significant first, and read by int()."""
    if name == "dense":
        return spelt_densely(levels)
    return int("".join(BITS[name][level] for level in reversed(levels)), 2)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("binary", 1.0), ("two bits", 2.0), ("dense", 1.6)],
    ids=PACKINGS,
)
def test_bits_a_weight(name: str, bits: float) -> None:
    packing = PACKINGS[name]
    assert (packing.width, packing.bits_per_weight) == (8, bits)


@by_packing
def test_every_group_of_weights_round_trips(name: str) -> None:
    packing = PACKINGS[name]
    groups = list(product(packing.levels, repeat=packing.group))
    codes = packing.pack(groups)
    assert codes.shape == (len(groups), 1)
    assert codes[:, 0].tolist() == [spelt(name, group) for group in groups]
    assert len(set(codes[:, 0].tolist())) == {"binary": 256, "two bits": 81, "dense": 243}[name]
    np.testing.assert_array_equal(packing.unpack(codes, packing.group), groups)


def test_every_code_is_read() -> None:
    codes = np.arange(256)[:, np.newaxis]
    assert dict(enumerate(map(tuple, TERNARY_DENSE.unpack(codes, 5).tolist()))) == LEVELS
    # 10 is read as 0, too, so that writing again makes it canonical.
    for code, levels in enumerate(TERNARY_BYTES.unpack(codes, 4).tolist()):
        fields = [code >> 2 * place & 3 for place in range(4)]
        assert levels == [{0: 0, 1: 1, 2: 0, 3: -1}[field] for field in fields]


def test_dense_codes_that_are_never_written() -> None:
    codes = np.arange(256)[:, np.newaxis]
    read = TERNARY_DENSE.unpack(codes, 5)
    written = TERNARY_DENSE.pack(read)[:, 0].tolist()
    aliases = {code: other for code, other in enumerate(written) if code != other}
    assert aliases == ALIASES
    assert len(aliases) == 256 - 243


def test_codes_worth_knowing() -> None:
    assert TERNARY_DENSE.pack([0, 0, 0, 0, 0]).tolist() == [0]
    assert TERNARY_DENSE.pack([1, -1, 0, 1, 1]).tolist() == [0b101_01101]
    assert TERNARY_DENSE.pack([-1] * 5).tolist() == [0b111_010_11]
    assert TERNARY_BYTES.pack([1, -1, 0, 1]).tolist() == [0b01_00_11_01]
    assert BINARY_BYTES.pack([1, -1, -1, -1, -1, -1, -1, 1]).tolist() == [0b10000001]


@by_packing
def test_rows_are_filled_up(name: str) -> None:
    packing = PACKINGS[name]
    filling = {"binary": -1, "two bits": 0, "dense": 0}[name]
    for length in range(1, 2 * packing.group + 1):
        levels = [1] * length
        whole = levels + [filling] * (packing.codes(length) * packing.group - length)
        np.testing.assert_array_equal(packing.pack(levels), packing.pack(whole))


@by_packing
@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 20)),
    seed=st.integers(0, 2**32 - 1),
)
def test_arrays_round_trip(name: str, shape: tuple[int, ...], seed: int) -> None:
    packing = PACKINGS[name]
    levels = np.random.default_rng(seed).choice(packing.levels, size=shape)
    codes = packing.pack(levels)
    assert codes.shape == (*shape[:-1], -(-shape[-1] // packing.group))
    np.testing.assert_array_equal(packing.unpack(codes, shape[-1]), levels)
    for index in np.ndindex(shape[:-1]):
        np.testing.assert_array_equal(codes[index], packing.pack(levels[index]))


def test_another_digit_order_is_seen() -> None:
    """The comparison with spelt digits can fail."""
    groups = np.array(list(product((-1, 0, 1), repeat=5)))
    expected = [spelt("dense", tuple(group)) for group in groups.tolist()]
    assert TERNARY_DENSE.pack(groups[:, ::-1])[:, 0].tolist() != expected


@pytest.mark.parametrize(
    ("name", "levels", "message"),
    [
        ("binary", [1, 0], r"levels must be -1 or 1, not 0."),
        ("two bits", [2], r"levels must be -1, 0 or 1, not 2."),
        ("dense", [-3], r"levels must be -1, 0 or 1, not -3."),
        ("dense", [0.5], r"levels must be integers of shape \(..., weights\), not float64"),
        ("dense", 1, r"not int64 of shape \(\)."),
    ],
)
def test_refuses_what_is_no_weight(name: str, levels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PACKINGS[name].pack(levels)


@pytest.mark.parametrize(
    ("codes", "weights", "message"),
    [
        ([0, 256], 10, "codes must be from 0 to 255, not 0 to 256."),
        ([-1], 5, "codes must be from 0 to 255, not -1 to -1."),
        ([0.0], 5, "codes must be integers, not float64."),
        ([0], 6, r"6 weights must have the shape \(..., 2\) in codes, not \(1,\)."),
    ],
)
def test_refuses_what_is_no_code(codes: list[float], weights: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TERNARY_DENSE.unpack(codes, weights)
