"""The fast time steps of the FloatSD8 LSTM against the plain ones, code for code."""

import numpy as np
import pytest

from fewbit.golden.formats import BINARY16, FloatSD8, Minifloat
from fewbit.golden.lstm import floatsd8_fast
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.floatsd8 import (
    HIGHEST_CONSTANT_BIAS,
    HIGHEST_WINDOW,
    LOWEST_CONSTANT_BIAS,
    LOWEST_WINDOW,
    MOST_PRODUCTS,
    FloatSD8Lstm,
    add_products,
    update_unit,
)
from fewbit.golden.lstm.floatsd8_fast import Part, _codes_of, _Rows, _Sums, _Update
from tests.support.floatsd8_cases import random_inputs, random_lstm

EVERY = np.arange(1 << 8)
FINITE = Minifloat(5, 10, 15)
"""binary16 with exponent 31 as one more octave."""
WINDOWS = [*range(LOWEST_WINDOW, HIGHEST_WINDOW + 1), None]
CORNERS = np.array(
    [0, 1, 2, 0x3FF, 0x400, 0x7FF, 0x800, 0x3BFF, 0x3C00, 0x7BFF, 0x7C00, 0x7FFF]
)  # fmt: skip
STARTS = np.concatenate([CORNERS, CORNERS | 0x8000])


def difference(got: np.ndarray, wanted: np.ndarray, *given: np.ndarray) -> str:
    """The first difference in codes and reals, with what was given; empty if there is none."""
    at = np.argwhere(got != wanted)
    if not len(at):
        return ""
    first = tuple(at[0].tolist())
    pair = int(got[first]), int(wanted[first])
    reals = FINITE.decode(np.array(pair)).tolist()
    operands = [np.broadcast_to(each, got.shape)[first].tolist() for each in given]
    return (
        f"{len(at)} of {got.size}, first at {first}: {pair[0]:04x} ({reals[0]}), not {pair[1]:04x}"
        f" ({reals[1]}), from {operands}"
    )


def fast_part(start, weights, activations, biases, window, products) -> np.ndarray | None:
    """Codes of a part by reals, zeros unsigned, or None where binary64 is too short."""
    sums = _Sums.of([sum(biases)], products, window)
    if sums is None:
        return None
    part = Part(weights[np.newaxis], FloatSD8(biases[0]), Minifloat(5, 2, biases[1]))
    rows = _Rows(sums, part, products)
    rounded = rows.add(FINITE.decode(start).astype(sums.real), activations.astype(np.uint8))
    return unsigned_zeros(_codes_of(rounded))


def plain_part(start, weights, activations, biases, window, products) -> np.ndarray:
    for first in range(0, weights.shape[-1], products):
        chunk = slice(first, first + products)
        start = add_products(
            start, weights[:, chunk], activations[:, np.newaxis, chunk], sum(biases), window
        )
    return unsigned_zeros(start)


def unsigned_zeros(codes: np.ndarray) -> np.ndarray:
    """The codes with +0 for -0: of a real that goes on as a term, the sign of zero is lost."""
    return np.where(codes == 0x8000, 0, codes)


@pytest.mark.parametrize("bias", [LOWEST_CONSTANT_BIAS, 24, 25, 30, 31, 32, 40])
def test_every_product_is_added_as_by_the_plain_sum(bias) -> None:
    """All pairs of a weight and an activation, to starts that are corners, in all windows."""
    shape = len(EVERY), len(EVERY)
    biases = bias - 15, 15
    weights, activations = EVERY[:, np.newaxis], EVERY[:, np.newaxis]
    compared = 0
    for number, window in enumerate(WINDOWS):
        for code in np.roll(STARTS, number)[:2].tolist():
            start = np.full(shape, code)
            got = fast_part(start, weights, activations, biases, window, 4)
            if got is None:
                continue
            plain = plain_part(start, weights, activations, biases, window, 4)
            found = difference(got, plain, start, EVERY[np.newaxis], EVERY[:, np.newaxis])
            assert not found, (window, found)
            compared += 1
    assert compared >= 2 * (len(WINDOWS) - 1)


def test_every_start_passes_products_of_zero_as_by_the_plain_sum() -> None:
    """A product of value zero has an exponent, so it may decide what the window drops."""
    starts = np.arange(1 << 16)[np.newaxis]
    activations = np.array([[0, 0x80, 0x7C]])
    for window in (8, 10, 11, 12, 24, 48):
        for weight in (0x00, 0xE0, 0xEF):
            weights = np.broadcast_to([weight, 0x41, 0xA0], (1 << 16, 3))
            given = starts, weights, activations, (4, 15), window, 4
            got = fast_part(*given)
            assert got is not None
            found = difference(got, plain_part(*given), starts)
            assert not found, (window, weight, found)


def drawn_part(rng: np.random.Generator, products: int, bias: int, window: int | None):
    """Operands of three kinds: any, all of like size, and such as nearly cancel the start."""
    batch, rows, operands = 12, 60, 2 * products + 1
    weights = rng.integers(0, 256, (rows, operands))
    activations = rng.integers(0, 256, (batch, operands))
    near = rng.integers(0, 29, (batch, 1)) + rng.integers(0, 4, activations.shape)
    alike = rng.random((batch, 1)) < 0.6
    activations = np.where(alike, activations & 0x83 | near << 2, activations)
    activations[rng.random(activations.shape) < 0.1] = 0
    start = rng.integers(0, 1 << 16, (batch, rows))
    corner = rng.random(start.shape) < 0.1
    start[corner] = rng.choice(STARTS, corner.sum())
    first = slice(0, products)
    opposite = 0x8000 ^ add_products(
        np.zeros_like(start), weights[:, first], activations[:, np.newaxis, first], bias, None
    )
    nudged = np.clip((opposite & 0x7FFF) + rng.integers(-2, 3, start.shape), 0, 0x7FFF)
    return np.where(rng.random(start.shape) < 0.5, nudged | opposite & 0x8000, start), (
        weights,
        activations,
    )


@pytest.mark.parametrize("window", WINDOWS)
def test_parts_are_those_of_the_plain_sum(window) -> None:
    compared = 0
    for seed, products in enumerate((4, 5, 7, 8, MOST_PRODUCTS)):
        for bias in (LOWEST_CONSTANT_BIAS, 21, 25, 28, 33, HIGHEST_CONSTANT_BIAS):
            rng = np.random.default_rng([seed, bias])
            start, operands = drawn_part(rng, products, bias, window)
            given = start, *operands, (bias - 13, 13), window, products
            got = fast_part(*given)
            if got is None:
                assert window is None
                assert bias > 28
                continue
            found = difference(got, plain_part(*given), start)
            assert not found, f"seed {seed}, bias {bias}, products {products}: {found}"
            compared += got.size
    assert compared > 10_000


def check_updates(window: int | None, seed: int, count: int = 20_000) -> None:
    rng = np.random.default_rng(seed)
    pre = BINARY16.encode(rng.normal(0, 3, (count, 4)))
    cell = BINARY16.encode(rng.normal(0, 1, count) * 2.0 ** rng.integers(-20, 5, count))
    for array in (pre, cell):
        wild = rng.random(array.shape) < 0.2
        array[wild] = rng.integers(0, 1 << 16, wild.sum())
        corner = rng.random(array.shape) < 0.1
        array[corner] = rng.choice(STARTS, corner.sum())
    # A pre-activation is a rounded sum: it is finite in binary16.
    pre = np.where(pre & 0x7C00 == 0x7C00, pre & 0xFBFF, pre)
    check_update(pre, cell, window, f"seed {seed}")


def check_update(pre: np.ndarray, cell: np.ndarray, window: int | None, case: str) -> None:
    sums = _Sums.of([25], 4, window)
    assert sums is not None
    reals = [FINITE.decode(codes).astype(sums.real) for codes in (pre[..., np.newaxis], cell)]
    hidden, new_cell, codes = _Update(sums)(reals[0], reals[1][:, np.newaxis])
    plain_hidden, plain_cell = update_unit(pre, cell, window)
    given = pre[:, 0], pre[:, 1], pre[:, 2], cell
    found = difference(codes[:, 0], plain_cell, *given)
    assert not found, f"cell, {case}, window {window}: {found}"
    np.testing.assert_array_equal(new_cell[:, 0], FINITE.decode(plain_cell))
    found = difference(hidden[:, 0], plain_hidden, pre[:, 3], *given)
    assert not found, f"hidden, {case}, window {window}: {found}"


@pytest.mark.parametrize("window", WINDOWS)
def test_updates_are_those_of_the_plain_form(window) -> None:
    check_updates(window, 7)


def test_every_cell_and_every_gate_is_updated_as_by_the_plain_form() -> None:
    """Each of the 65,536 cells, then each of the finite pre-activations at each gate."""
    rng = np.random.default_rng(8)
    cells = np.arange(1 << 16)
    finite = cells[cells & 0x7C00 != 0x7C00]
    for window in (8, 12, 22, None):
        pre = rng.choice(finite[finite & 0x7FFF < 0x4800], (len(cells), 4))
        check_update(pre, cells, window, "every cell")
        for gate in range(4):
            pre = rng.choice(finite[finite & 0x7FFF < 0x4800], (len(finite), 4))
            pre[:, gate] = finite
            cell = BINARY16.encode(rng.normal(0, 1, len(finite)))
            check_update(pre, cell, window, f"every code of gate {gate}")


def check_layer(model: FloatSD8Lstm, seed: int, batch: int = 5, time: int = 12) -> None:
    rng = np.random.default_rng(seed)
    x = random_inputs(model, seed, batch, time)
    x[0] = rng.integers(0, 256, x[0].shape)
    # Vectors of one symbol, as they come from text.
    x[1:3] = 0x3C * (rng.integers(0, model.inputs, (2, time, 1)) == np.arange(model.inputs))
    state = {
        "hidden": rng.integers(0, 256, (batch, model.hidden)),
        "cell": rng.integers(0, 1 << 16, (batch, model.hidden)),
    }
    for given in ({}, state):
        got = model.run_with_cell(x, **given)
        wanted = Lstm.run_with_cell(model, x, **given)
        for name, mine, plain in zip(("hidden", "cell"), got, wanted, strict=True):
            assert mine.dtype == plain.dtype
            assert mine.shape == plain.shape
            found = difference(mine, plain)
            assert not found, f"{name}, seed {seed}: {found}"


@pytest.mark.parametrize("window", [8, 9, 11, 12, 19, 20, 21, 22, 32, 48, None])
@pytest.mark.parametrize("products", [4, 6, 16])
def test_layers_are_run_as_by_their_steps(window, products) -> None:
    model = random_lstm(3, 7, 9, products, window)
    assert model.fast_steps is not None
    check_layer(model, 4)


def test_a_layer_with_too_long_sums_is_run_by_its_steps() -> None:
    model = random_lstm(3, window=None, input_bias=40)
    assert model.fast_steps is None
    check_layer(model, 4, time=4)


def test_blocks_change_nothing(monkeypatch) -> None:
    model = random_lstm(5, 4, 6)
    monkeypatch.setattr(floatsd8_fast, "_BLOCK", 50)
    monkeypatch.setattr(floatsd8_fast, "_PARTS", 24 * 5 * 5)
    check_layer(model, 6)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_nothing_runs_to_nothing(shape) -> None:
    model = random_lstm(5, 4, 6)
    hidden, cell = model.run_with_cell(np.zeros((*shape, 4), np.int64))
    assert hidden.shape == cell.shape == (*shape, 6)


def test_a_step_of_a_subclass_is_its_own() -> None:
    class Still(FloatSD8Lstm):
        def step(self, x, hidden, cell):
            return hidden, cell

    model = random_lstm(5)
    still = Still(model.input_weights, model.recurrent_weights, model.bias)
    assert not still.run(np.full((1, 3, 3), 0x3C)).any()


@pytest.mark.parametrize(
    ("name", "broken"),
    [("_PRODUCT_LEAD", 7), ("_LOWEST_LEAD", -13), ("_PIECE_WIDTH", 2), ("_SIGN", 1 << 5)],
)
def test_a_broken_fast_step_is_seen(monkeypatch, name, broken) -> None:
    monkeypatch.setattr(floatsd8_fast, name, broken)
    floatsd8_fast._gate_codes.cache_clear()
    try:
        with pytest.raises(AssertionError, match="seed"):
            check_updates(12, 7)
    finally:
        floatsd8_fast._gate_codes.cache_clear()


def test_a_broken_product_is_seen(monkeypatch) -> None:
    """A field of 8 bits in place of 7 moves the window, in a layer of the usual kind."""
    monkeypatch.setattr(floatsd8_fast, "_PRODUCT_LEAD", 7)
    with pytest.raises(AssertionError, match="from"):
        test_parts_are_those_of_the_plain_sum(12)
