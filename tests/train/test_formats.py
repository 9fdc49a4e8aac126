"""Formats in PyTorch against golden: all codes, all ties and their neighbours, all exponents."""

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fewbit.golden.activation.floatsd8 import (
    ACCUMULATOR_FORMAT,
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.formats import BINARY16, FloatSD8, Format, Minifloat
from fewbit.train.formats import (
    GateTables,
    floatsd8_codes,
    floatsd8_nearest,
    gate_tables,
    nearest_binary16,
    nearest_e5m2,
    nearest_gradient,
    nearest_small_e5m2,
)

Floats = npt.NDArray[np.float32]


def cases(number_format: Format, random: int = 60_000) -> Floats:
    """All numbers of a format, all midpoints, neighbours of both, extremes, and random words."""
    values = number_format.values
    points = np.concatenate([values, (values[:-1] + values[1:]) / 2])
    exact = points.astype(np.float32)
    assert (exact == points).all(), "a midpoint is no float32"
    ends = np.array([0.0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-45], np.float32)
    words = np.random.default_rng(1).integers(0, 1 << 32, random, dtype=np.uint32)
    wild = words.view(np.float32)
    near = np.ldexp(
        np.random.default_rng(2).uniform(1, 2, random),
        np.random.default_rng(3).integers(-30, 20, random),
    ).astype(np.float32)
    around = [np.nextafter(exact, np.float32(end)) for end in (-np.inf, np.inf)]
    largest = np.float32(number_format.largest)
    top = largest * np.array([1.01, 1.1, 1.2, 2, 4], np.float32)
    every = np.concatenate([exact, *around, ends, wild[~np.isnan(wild)], near, -near, top, -top])
    return every.astype(np.float32)


def same(given: Floats, found: Tensor, wanted: npt.ArrayLike, *, zeros: bool = True) -> None:
    """Assert that words agree, or without `zeros` that reals do, and show the first difference."""
    got, want = found.numpy(), np.asarray(wanted, np.float32)
    wrong = got.view(np.uint32) != want.view(np.uint32) if zeros else got != want
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        pytest.fail(
            f"{wrong.sum()} of {wrong.size} differ; first {float(given[first]).hex()} gives "
            f"{got[first]!r}, golden {want[first]!r}"
        )


def golden(number_format: Format, x: Floats) -> npt.NDArray[np.float64]:
    return number_format.decode(number_format.encode(x))


def test_binary16() -> None:
    x = cases(BINARY16)
    x = x[np.isfinite(x)]
    same(x, nearest_binary16(torch.from_numpy(x)), golden(BINARY16, x))
    special = nearest_binary16(torch.tensor([math.nan, math.inf, -math.inf]))
    assert special[1:].tolist() == [65504.0, -65504.0]
    assert special[0].isnan()


@pytest.mark.parametrize("bias", [15, 24, 0, -64, 100, 124])
def test_finite_e5m2(bias: int) -> None:
    number_format = Minifloat(5, 2, bias)
    x = cases(number_format)
    same(x, nearest_e5m2(torch.from_numpy(x), bias), golden(number_format, x))
    assert nearest_e5m2(torch.tensor([math.nan]), bias).isnan().all()


def test_small_e5m2_is_the_finite_format_below_its_last_octave() -> None:
    x = cases(HIDDEN_FORMAT)
    small = x[np.abs(x) < 61440]
    same(small, nearest_small_e5m2(torch.from_numpy(small)), golden(HIDDEN_FORMAT, small))
    rest = x[np.abs(x) >= 61440]
    assert nearest_small_e5m2(torch.from_numpy(rest)).isinf().all()


@pytest.mark.parametrize("bias", [15, 24, 30])
def test_gradients(bias: int) -> None:
    number_format = Minifloat(5, 2, bias, ieee=True)
    x = cases(number_format)
    with np.errstate(over="ignore"):
        outside = (x.astype(np.float64) * 2.0 ** (bias - 15)).astype(ml_dtypes.float8_e5m2)
    wanted = outside.astype(np.float64) * 2.0 ** (15 - bias)
    same(x, nearest_gradient(torch.from_numpy(x), bias), wanted)
    finite = np.abs(x) < 61440 * 2.0 ** (15 - bias)
    some = x[finite]
    same(some, nearest_gradient(torch.from_numpy(some), bias), golden(number_format, some))
    assert nearest_gradient(torch.tensor([math.nan]), bias).isnan().all()


def test_an_overflow_of_gradients_is_seen() -> None:
    x = torch.tensor([112.0, 119.99999, 120.0, -120.0, 2.0**-26, -(2.0**-25)])
    assert nearest_gradient(x).tolist() == [112, 112, math.inf, -math.inf, 0, -(2.0**-25)]


@pytest.mark.parametrize("bias", [10, 11, 0, 15, -64, 96])
def test_floatsd8(bias: int) -> None:
    number_format = FloatSD8(bias)
    x = cases(number_format)
    codes = number_format.encode(x)
    same(x, floatsd8_nearest(torch.from_numpy(x), bias), number_format.decode(codes), zeros=False)
    np.testing.assert_array_equal(floatsd8_codes(torch.from_numpy(x), bias).numpy(), codes)
    assert floatsd8_nearest(torch.tensor([math.nan]), bias).isnan().all()


def test_floatsd8_agrees_with_a_search_of_midpoints() -> None:
    """The look-up by round to odd against PyTorch's own search, on every upper half twice."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    x = np.concatenate([upper, upper | 1, upper | 0x8000]).view(np.float32)
    x = x[np.isfinite(x)]
    values = torch.from_numpy(FloatSD8().values.astype(np.float32))
    middles = (values[1:] + values[:-1]) / 2
    low = torch.bucketize(torch.from_numpy(x), middles)
    high = torch.bucketize(torch.from_numpy(x), middles, right=True)
    even = torch.where((low - int((values == 0).nonzero())) % 2 == 0, low, high)
    same(x, floatsd8_nearest(torch.from_numpy(x)), values[even].numpy(), zeros=False)


def test_gate_tables() -> None:
    """Every binary16 code but those of NaN: golden's values, and slopes from float64."""
    codes = np.arange(1 << 16)
    numbers = ~np.isnan(BINARY16.decode(codes))
    assert numbers.sum() == 2 * 31 * 1024 + 2
    codes = codes[numbers]
    x = BINARY16.decode(codes).astype(np.float32)
    tables = gate_tables()
    given = torch.from_numpy(x)
    found = tables.codes(given)
    np.testing.assert_array_equal(found.numpy(), codes)
    q, positive = sigmoid_floatsd8(codes)
    real = GATE_FORMAT.decode(q)
    sigmoid = np.where(positive == 1, 1 - real, real)
    same(x, tables.look_up(tables.sigmoid, found), sigmoid)
    same(x, tables.look_up(tables.tanh, found), HIDDEN_FORMAT.decode(tanh_e5m2(codes)))
    operand = torch.from_numpy(ACCUMULATOR_FORMAT.decode(codes)).requires_grad_()
    for function, table in ((torch.sigmoid, "sigmoid_slope"), (torch.tanh, "tanh_slope")):
        (slope,) = torch.autograd.grad(function(operand).sum(), operand)
        ours = tables.look_up(getattr(tables, table), found).double()
        # PyTorch's own 1 - tanh^2 and 1 - s cancel in float64.
        bound = slope * 2.0**-24 + 2.0**-52
        assert ((ours - slope).abs() <= bound).all()


def test_gate_tables_saturate_and_keep_nan() -> None:
    tables = gate_tables()
    codes = GateTables.codes(torch.tensor([[1e9, -1e9], [math.inf, math.nan]]))
    assert codes.shape == (2, 2)
    assert tables.look_up(tables.sigmoid, codes)[:, 0].tolist() == [1.0, 1.0]
    assert tables.look_up(tables.sigmoid, codes)[0, 1] == 0
    assert tables.look_up(tables.tanh, codes)[0].tolist() == [1.0, -1.0]
    for table in (tables.sigmoid, tables.sigmoid_slope, tables.tanh, tables.tanh_slope):
        assert tables.look_up(table, codes)[1, 1].isnan()
    assert gate_tables() is gate_tables()


@pytest.mark.parametrize(
    "function",
    [nearest_binary16, nearest_e5m2, nearest_small_e5m2, nearest_gradient, floatsd8_nearest],
)
def test_operands(function: Callable[[Tensor], Tensor]) -> None:
    """Other types are refused; strides and an empty tensor are not; the operand stays as it is."""
    with pytest.raises(ValueError, match=r"float32 tensors, not torch\.float64"):
        function(torch.zeros(3, dtype=torch.float64))
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    assert torch.equal(function(x.T), function(x.T.contiguous()))
    assert torch.equal(function(x[::2, ::3]), function(x)[::2, ::3])
    assert torch.equal(x, kept)
    assert function(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    ("function", "bias"),
    [(nearest_e5m2, 125), (nearest_gradient, 14), (floatsd8_nearest, 97), (floatsd8_codes, -65)],
)
def test_biases_out_of_range(function: Callable[..., Tensor], bias: int) -> None:
    with pytest.raises(ValueError, match=f"bias must be from .* not {bias}"):
        function(torch.zeros(1), bias)
