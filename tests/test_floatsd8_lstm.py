"""The FloatSD8 LSTM: activations against mpmath, the step against Fractions, the whole in float."""

from bisect import bisect_left
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from fewbit.golden.activation import floatsd8 as activations
from fewbit.golden.activation.floatsd8 import (
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.formats import BINARY16
from fewbit.golden.lstm import floatsd8
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm, update_unit
from tests.support import exact

mpmath = pytest.importorskip("mpmath")

CODES = np.arange(1 << 16)
CASES = [
    # inputs, hidden, products, window, biases of input weights, recurrent weights and inputs
    (3, 2, 4, 14, 10, 10, 15),
    (9, 3, 4, None, 7, 11, 13),
    (1, 5, 4, 8, 4, 4, 15),
    (5, 6, 5, 11, 30, 35, 20),
    (2, 17, 16, 14, 10, 12, 15),
]
GATE_BIAS = GATE_FORMAT.bias


# The contract once more, in Fractions and one number at a time.


def nearest(number_format, value: Fraction) -> int:
    """Code of the value nearest to a non-negative Fraction, ties to the even index."""
    table, codes = grid(number_format)
    place = bisect_left(table, value)
    if place == len(table):
        return codes[-1]
    if place == 0:
        return codes[0]
    below, above = value - table[place - 1], table[place] - value
    return codes[place - 1 if below < above or (below == above and place % 2 == 1) else place]


@cache
def grid(number_format) -> tuple[list[Fraction], list[int]]:
    """Non-negative values in their order, and of each the smallest code: that is canonical."""
    value_of = exact.floatsd8 if number_format is GATE_FORMAT else exact.e5m2
    smallest: dict[Fraction, int] = {}
    for code in range(256):
        smallest.setdefault(value_of(code, number_format.bias), code)
    kept = sorted(value for value in smallest if value >= 0)
    return kept, [smallest[value] for value in kept]


def by_mpmath(function, number_format, magnitude: int) -> int:
    """Code nearest to a function of a binary16 magnitude, at 40 digits."""
    x = exact.binary16(magnitude)
    with mpmath.workdps(40):
        _, mantissa, exponent, _ = function(mpmath.mpf(x.numerator) / x.denominator)._mpf_
    # Down there everything is nearest to zero, and a Fraction of it would have 100,000 digits.
    return nearest(number_format, Fraction(int(mantissa)) * Fraction(2) ** max(int(exponent), -400))


@cache
def sigmoid_of(magnitude: int) -> int:
    return by_mpmath(lambda x: 1 / (1 + mpmath.exp(x)), GATE_FORMAT, magnitude)


@cache
def tanh_of(magnitude: int) -> int:
    return by_mpmath(mpmath.tanh, HIDDEN_FORMAT, magnitude)


def sigmoid_by_mpmath(code: int) -> tuple[int, int]:
    return sigmoid_of(code & 0x7FFF), int(0 < code < 0x8000)


def tanh_by_mpmath(code: int) -> int:
    return tanh_of(code & 0x7FFF) | (code >> 15 << 7)


def rounded_sum(terms: list[tuple[Fraction, int]], window: int | None) -> int:
    """binary16 code of a sum of reals with the exponents of their fields' tops."""
    if window is None:
        return exact.to_binary16(sum((real for real, _ in terms), Fraction(0)))
    unit = Fraction(2) ** (max(top for _, top in terms) - window)
    kept = [(abs(real) // unit) * unit * (1 if real > 0 else -1) for real, _ in terms]
    return exact.to_binary16(sum(kept, Fraction(0)))


def start_term(code: int) -> tuple[Fraction, int]:
    return exact.binary16(code), max(code >> 10 & 31, 1) - 14


def product_term(
    weight: int, weight_bias: int, activation: int, activation_bias: int, sign: int = 1
) -> tuple[Fraction, int]:
    real = exact.floatsd8(weight, weight_bias) * exact.e5m2(activation, activation_bias)
    exponent = (weight >> 5) - weight_bias + max(activation >> 2 & 31, 1) - activation_bias
    return sign * real, exponent - 2 + 7


def times_gate(p: int, q: int, activation: int) -> list[tuple[Fraction, int]]:
    """Terms of (p ? 1 - q : q) times an e5m2 value."""
    terms = [product_term(q, GATE_BIAS, activation, 15, -1 if p else 1)]
    if p:
        # One times the value as a half times twice the value; a half is a FloatSD8 code.
        half = nearest(GATE_FORMAT, Fraction(1, 2))
        terms.append(product_term(half, GATE_BIAS, activation, 14))
    return terms


def update_by_fractions(pre: list[int], cell: int, window: int | None) -> tuple[int, int]:
    (q_i, p_i), (q_f, p_f), (q_o, p_o) = (sigmoid_by_mpmath(pre[gate]) for gate in (0, 1, 3))
    g = tanh_by_mpmath(pre[2])
    exponent = cell >> 10 & 31
    significand = cell & 1023 | (1024 if exponent else 0)
    sign = (-1 if cell >> 15 else 1) * (-1 if p_f else 1)
    pieces = [
        (significand >> 8, 8),
        (significand >> 5 & 7, 5),
        (significand >> 2 & 7, 2),
        ((significand & 3) * 2, -1),
    ]
    terms = [start_term(cell if p_f else 0)]
    for piece, place in pieces:
        unit = max(exponent, 1) - 25 + place
        real = sign * exact.floatsd8(q_f, GATE_BIAS) * piece * Fraction(2) ** unit
        terms.append((real, (q_f >> 5) - GATE_BIAS + unit + 7))
    kept = rounded_sum(terms, window)
    new_cell = rounded_sum([start_term(kept), *times_gate(p_i, q_i, g)], window)
    wide = rounded_sum([start_term(0), *times_gate(p_o, q_o, tanh_by_mpmath(new_cell))], window)
    hidden = nearest(HIDDEN_FORMAT, abs(exact.binary16(wide))) | (wide >> 15 << 7)
    return hidden, new_cell


def step_by_fractions(
    model: FloatSD8Lstm, x: list[int], hidden: list[int], cell: list[int]
) -> tuple[list[int], list[int]]:
    parts = (
        (model.input_weights.tolist(), x, model.input_weight_bias, model.input_bias),
        (model.recurrent_weights.tolist(), hidden, model.recurrent_weight_bias, 15),
    )
    results: list[tuple[int, int]] = []
    for unit in range(len(hidden)):
        pre: list[int] = []
        for gate in range(4):
            total = int(model.bias[gate, unit])
            for weights, values, weight_bias, value_bias in parts:
                pairs = list(zip(weights[gate][unit], values, strict=True))
                while pairs:
                    taken, pairs = pairs[: model.products], pairs[model.products :]
                    taken += [(0, 0)] * (model.products - len(taken))
                    terms = [product_term(w, weight_bias, a, value_bias) for w, a in taken]
                    total = rounded_sum([start_term(total), *terms], model.window)
            pre.append(total)
        results.append(update_by_fractions(pre, cell[unit], model.window))
    return [new for new, _ in results], [new for _, new in results]


# Activations


def test_sigmoid_is_the_nearest_for_every_code() -> None:
    q, p = sigmoid_floatsd8(CODES)
    for code, pair in enumerate(zip(q.tolist(), p.tolist(), strict=True)):
        assert pair == sigmoid_by_mpmath(code), f"{code:04x}, {float(exact.binary16(code))}"


def test_tanh_is_the_nearest_for_every_code() -> None:
    for code, got in enumerate(tanh_e5m2(CODES).tolist()):
        assert got == tanh_by_mpmath(code), f"{code:04x}, {float(exact.binary16(code))}"


def test_activations_err_as_stated() -> None:
    x = np.array([float(exact.binary16(code)) for code in CODES.tolist()])
    q, p = sigmoid_floatsd8(CODES)
    small = GATE_FORMAT.decode(q)
    gate = np.where(p, 1 - small, small)
    assert 0.99 * 2.0**-5 < np.abs(gate - sigmoid(x)).max() <= 2.0**-5
    tanh = HIDDEN_FORMAT.decode(tanh_e5m2(CODES))
    assert 0.999 * 2.0**-4 < np.abs(tanh - np.tanh(x)).max() <= 2.0**-4
    normal = np.abs(np.tanh(x)) >= 2.0**-14
    assert (np.abs(tanh - np.tanh(x)) / np.abs(np.tanh(x) + ~normal))[normal].max() <= 1 / 9


def sigmoid(x):
    return np.exp(-np.logaddexp(0.0, -x))


def test_activations_at_zero_and_beyond() -> None:
    half = int(GATE_FORMAT.encode(0.5))
    codes = [0x0000, 0x8000, 0x7BFF, 0xFBFF, 0x7FFF, 0xFFFF]
    q, p = sigmoid_floatsd8(codes)
    assert q.tolist() == [half, half, 0, 0, 0, 0]
    assert p.tolist() == [0, 0, 1, 0, 1, 0]
    assert tanh_e5m2(codes).tolist() == [0x00, 0x80, 0x3C, 0xBC, 0x3C, 0xBC]


def test_a_wrong_entry_of_a_table_is_seen(monkeypatch) -> None:
    table, positive = activations._sigmoid_table()
    broken = table.copy()
    broken[0x3C01] += 1
    monkeypatch.setattr(activations, "_sigmoid_table", lambda: (broken, positive))
    with pytest.raises(AssertionError, match="3c01"):
        test_sigmoid_is_the_nearest_for_every_code()


# The update of a unit


def random_state(rng: np.random.Generator, count: int):
    """Pre-activations and cells of an LSTM's size, and random codes, corners among them."""
    pre = BINARY16.encode(rng.normal(0, 3, (count, 4)))
    cell = BINARY16.encode(rng.normal(0, 2, count))
    for array in (pre, cell):
        wild = rng.random(array.shape) < 0.2
        array[wild] = rng.integers(0, 1 << 16, wild.sum())
        corner = rng.random(array.shape) < 0.1
        array[corner] = rng.choice([*BINARY16.corners, 0x7BFF, 0xFBFF, 0x03FF], corner.sum())
    return pre, cell


def check_updates(count: int, window: int | None) -> None:
    seed = 5
    pre, cell = random_state(np.random.default_rng(seed), count)
    got = np.stack(update_unit(pre, cell, window), axis=-1).tolist()
    for index in range(count):
        expected = update_by_fractions(pre[index].tolist(), int(cell[index]), window)
        assert tuple(got[index]) == expected, (
            f"seed {seed}, {index}: {pre[index]} and {cell[index]:04x} give {got[index]}, not "
            f"{expected}"
        )


@pytest.mark.parametrize("window", [14, None, 8, 11, 48])
def test_update_equals_fractions(window) -> None:
    check_updates(1500, window)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("sigmoid_floatsd8", lambda codes: (sigmoid_floatsd8(codes)[0], np.zeros_like(codes))),
        ("tanh_e5m2", lambda codes: tanh_e5m2(codes) & 0x7F),
        ("_PIECE_WIDTH", 2),
        ("_narrow", lambda codes: HIDDEN_FORMAT.encode(BINARY16.decode(codes & 0x7FF0))),
    ],
)
def test_a_broken_update_is_seen(monkeypatch, name, broken) -> None:
    monkeypatch.setattr(floatsd8, name, broken)
    with pytest.raises(AssertionError, match="seed 5"):
        check_updates(300, 14)


def test_update_takes_any_shape() -> None:
    pre, cell = random_state(np.random.default_rng(2), 24)
    flat = update_unit(pre, cell)
    folded = update_unit(pre.reshape(2, 3, 4, 4), cell.reshape(2, 3, 4))
    for got, expected in zip(folded, flat, strict=True):
        np.testing.assert_array_equal(got.ravel(), expected)
    with pytest.raises(ValueError, match=r"pre must have the shape \(24, 4\), not \(24, 3\)"):
        update_unit(pre[:, :3], cell)


# The layer


def random_layer(seed: int, case) -> FloatSD8Lstm:
    """A layer whose pre-activations are those of an LSTM, with some random codes among its own."""
    inputs, hidden, products, window, *biases = case
    rng = np.random.default_rng(seed)
    scale = 2.0 ** (10 - biases[0] + 15 - biases[2]), 2.0 ** (10 - biases[1])
    layer = FloatSD8Lstm(
        np.zeros((4, hidden, inputs), np.int64),
        np.zeros((4, hidden, hidden), np.int64),
        BINARY16.encode(rng.normal(0, 0.5, (4, hidden))),
        *biases,
        products,
        window,
    )
    weights = (
        layer.input_weight_format.encode(rng.normal(0, 0.5, (4, hidden, inputs)) * scale[0]),
        layer.recurrent_weight_format.encode(rng.normal(0, 0.3, (4, hidden, hidden)) * scale[1]),
    )
    for tensor in weights:
        wild = rng.random(tensor.shape) < 0.1
        tensor[wild] = rng.integers(0, 256, wild.sum())
    return FloatSD8Lstm(*weights, layer.bias, *biases, products, window)


def check_steps(case, times: int = 4) -> None:
    model = random_layer(3, case)
    rng = np.random.default_rng(4)
    x = model.input_format.encode(rng.normal(0, 1, (2, times, model.inputs)))
    x[0, 0] = rng.integers(0, 256, model.inputs)
    hidden, cell = model.reset_state(2)
    hidden[1] = rng.integers(0, 256, model.hidden)
    cell[1] = rng.integers(0, 1 << 16, model.hidden)
    for moment in range(times):
        got = model.step(x[:, moment], hidden, cell)
        for row in range(2):
            expected = step_by_fractions(
                model, x[row, moment].tolist(), hidden[row].tolist(), cell[row].tolist()
            )
            assert (got[0][row].tolist(), got[1][row].tolist()) == expected, (moment, row)
        hidden, cell = got


@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_equal_fractions(case) -> None:
    check_steps(case)


def test_a_broken_sum_is_seen(monkeypatch) -> None:
    monkeypatch.setattr(floatsd8, "_PRODUCT_WIDTH", 8)
    with pytest.raises(AssertionError):
        check_steps(CASES[2])


def test_run_is_its_steps() -> None:
    model = random_layer(8, CASES[0])
    rng = np.random.default_rng(9)
    x = rng.integers(0, 256, (3, 6, model.inputs))
    hidden, cell = model.reset_state(3)
    hiddens, cells = model.run_with_cell(x)
    for moment in range(6):
        hidden, cell = model.step(x[:, moment], hidden, cell)
        np.testing.assert_array_equal(hiddens[:, moment], hidden)
        np.testing.assert_array_equal(cells[:, moment], cell)
    np.testing.assert_array_equal(model.run(x), hiddens)
    # A run goes on where another stopped.
    later = model.run(x[:, 2:], hidden=hiddens[:, 1], cell=cells[:, 1])
    np.testing.assert_array_equal(later, hiddens[:, 2:])


def real_layer(model: FloatSD8Lstm) -> Float64Lstm:
    return Float64Lstm(
        model.input_weight_format.decode(model.input_weights),
        model.recurrent_weight_format.decode(model.recurrent_weights),
        BINARY16.decode(model.bias),
    )


def errors(model: FloatSD8Lstm, real: Float64Lstm):
    """Errors of hidden values against the float64 LSTM with the same weights and inputs."""
    x = model.input_format.encode(np.random.default_rng(1).normal(0, 1, (16, 25, model.inputs)))
    expected = real.run(model.input_format.decode(x))
    return HIDDEN_FORMAT.decode(model.run(x)) - expected


@pytest.mark.parametrize("products", [4, 16])
def test_stays_close_to_the_real_lstm(products) -> None:
    """Over 25 steps: at most 0.3 of 1, and an rms of 0.04; e5m2 alone errs up to 0.0625."""
    rng = np.random.default_rng(6)
    drawn = (rng.normal(0, 0.4, (4, 24, size)) for size in (12, 24))
    weights = [floatsd8.FloatSD8(10).encode(values) for values in drawn]
    model = FloatSD8Lstm(*weights, np.zeros((4, 24), np.int64), products=products)
    difference = errors(model, real_layer(model))
    assert np.abs(difference).max() < 0.3
    assert np.sqrt((difference**2).mean()) < 0.04
    order = [1, 0, 2, 3]
    wrong = Float64Lstm(
        *(
            getattr(real_layer(model), name)[order]
            for name in ("input_weights", "recurrent_weights")
        ),
        np.zeros((4, 24)),
    )
    assert np.sqrt((errors(model, wrong) ** 2).mean()) > 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"input_weights": np.zeros((3, 2, 1), int)},
            "input_weights must have the shape (4, hidden",
        ),
        ({"recurrent_weights": np.zeros((4, 2, 1), int)}, "recurrent_weights must have the shape"),
        (
            {"input_weights": np.full((4, 2, 1), 256)},
            "input_weights: floatsd8 codes must be from 0",
        ),
        ({"bias": np.zeros((4, 2))}, "bias: binary16 codes must be integers, not float64."),
        ({"products": 3}, "products must be from 4 to 16, not 3."),
        ({"products": 17}, "products must be from 4 to 16, not 17."),
        ({"window": 7}, "window must be from 8 to 48, not 7."),
        ({"window": 14.0}, "window must be an integer, not 14.0."),
        (
            {"input_weight_bias": 3},
            "input_weight_bias and input_bias must sum to 19 to 50, not 3 + 15.",
        ),
        (
            {"recurrent_weight_bias": 36},
            "recurrent_weight_bias and the bias of hidden values must sum to 19 to 50, not 36",
        ),
        (
            {"input_bias": 65, "input_weight_bias": -20},
            "input_bias must be from -64 to 64, not 65.",
        ),
    ],
)
def test_bad_layers_are_refused(fields, message) -> None:
    good = {
        "input_weights": np.zeros((4, 2, 1), int),
        "recurrent_weights": np.zeros((4, 2, 2), int),
        "bias": np.zeros((4, 2), int),
    }
    with pytest.raises(ValueError) as error:  # noqa: PT011
        FloatSD8Lstm(**{**good, **fields})
    assert str(error.value).startswith(message)


def test_bad_codes_are_refused() -> None:
    model = random_layer(1, CASES[0])
    with pytest.raises(ValueError, match="x: e5m2 codes must be from 0 to 255, not -1 to 0"):
        model.run(np.array([[[0, 0, -1]]]))
    with pytest.raises(ValueError, match=r"x must have the shape \(any, any, 3\), not \(1, 1, 2\)"):
        model.run(np.zeros((1, 1, 2), int))
    with pytest.raises(ValueError, match=r"hidden must have the shape \(1, 2\)"):
        model.step(np.zeros((1, 3), int), np.zeros((1, 3), int), np.zeros((1, 2), int))
