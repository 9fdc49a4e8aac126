"""The golden training step: tables, sums and steps against Fractions; it learns; RTL agrees."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("mpmath")

from examples import training_step as example
from examples.japanese_vowels import train_golden
from fewbit.golden.activation.floatsd8 import ACCUMULATOR_FORMAT
from fewbit.golden.formats import BINARY16, FloatSD8, Minifloat
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm
from fewbit.golden.training import factors, floatsd8_step
from fewbit.golden.training.floatsd8_step import KINDS, sums_of_a_step, training_step
from fewbit.golden.training.masters import LayerArrays, layer_of
from fewbit.golden.training.options import TrainingOptions, input_factor_bias
from fewbit.golden.training.sums import contract_of
from tests.support import exact
from tests.support import floatsd8_training as scalar

CODES = np.arange(1 << 16)
GRADIENT = Minifloat(5, 2, 24)


def layer_with(
    inputs: int,
    hidden: int,
    rng: np.random.Generator,
    *,
    biases=(10, 10, 15),
    products: int = 4,
    window: int | None = 12,
) -> tuple[FloatSD8Lstm, LayerArrays]:
    """A layer as training finds it, and its masters."""
    scale = 1 / np.sqrt(hidden)
    ratios = 2.0 ** (10 - biases[0] + 15 - biases[2]), 2.0 ** (10 - biases[1])
    masters = LayerArrays.of_reals(
        rng.uniform(-scale, scale, (4, hidden, inputs)) * ratios[0],
        rng.uniform(-scale, scale, (4, hidden, hidden)) * ratios[1],
        rng.uniform(-1, 1, (4, hidden)),
    )
    empty = FloatSD8Lstm(
        np.zeros((4, hidden, inputs), np.int64),
        np.zeros((4, hidden, hidden), np.int64),
        np.zeros((4, hidden), np.int64),
        *biases,
        products,
        window,
    )
    return layer_of(masters, empty), masters


# Tables, for all codes.


def test_slopes_are_the_nearest_for_every_code() -> None:
    for got, expected in (
        (factors.sigmoid_slope(CODES), scalar.sigmoid_slope),
        (factors.tanh_slope(CODES), scalar.tanh_slope),
    ):
        for code, slope in enumerate(got.tolist()):
            assert slope == expected(code & 0x7FFF), f"{code:04x}"


def test_slopes_err_as_stated() -> None:
    x = ACCUMULATOR_FORMAT.decode(CODES)
    half = np.exp(-np.abs(x) / 2)
    slope = (half / (1 + half**2)) ** 2
    got = factors.SIGMOID_SLOPE_FORMAT.decode(factors.sigmoid_slope(CODES))
    assert 0.9 * 2.0**-6 < np.abs(got - slope).max() <= 2.0**-6
    assert got[0] == 0.25
    assert (got[slope < 2.0**-13] == 0).all()
    slope = 1 / np.cosh(np.minimum(np.abs(x), 300)) ** 2
    got = factors.TANH_SLOPE_FORMAT.decode(factors.tanh_slope(CODES))
    assert 0.9 * 2.0**-4 < np.abs(got - slope).max() <= 2.0**-4
    assert got[0] == 1
    assert (got[slope < 2.0**-11] == 0).all()


def test_factors_are_the_nearest_for_every_code() -> None:
    for code, got in enumerate(factors.hidden_factor(np.arange(256)).tolist()):
        assert got == scalar.nearest_floatsd8(exact.e5m2(code), 10)
    for input_bias, bias in ((15, 8), (15, 10), (13, 6), (20, 12)):
        given = factors.input_factor(np.arange(256), input_bias, bias)
        for code, got in enumerate(given.tolist()):
            assert got == scalar.nearest_floatsd8(exact.e5m2(code, input_bias), bias)
    for bias in (7, 9):
        for code, got in enumerate(factors.cell_factor(CODES, bias).tolist()):
            assert got == scalar.nearest_floatsd8(exact.binary16(code), bias), f"{code:04x}"


def test_factors_are_exact_where_stated() -> None:
    codes = np.arange(256)
    hidden = Minifloat(5, 2, 15).decode(codes)
    got = FloatSD8(10).decode(factors.hidden_factor(codes))
    within = (np.abs(hidden) >= 2.0**-8) & (np.abs(hidden) <= 1)
    assert (got == hidden)[within].all()
    got = FloatSD8(8).decode(factors.input_factor(codes, 15, 8))
    within = (np.abs(hidden) >= 2.0**-6) & (np.abs(hidden) <= 5)
    assert (got == hidden)[within].all()


@pytest.mark.parametrize("bias", [24, 15, 31])
def test_gradients_are_the_nearest(bias) -> None:
    codes = CODES if bias == 24 else CODES[::5]
    got = factors.nearest_gradient(codes, bias)
    saturated = factors.saturated_gradient(codes, bias)
    columns = (codes, got, saturated, factors.has_overflowed(got))
    for code, gradient, within, beyond in zip(*(c.tolist() for c in columns), strict=True):
        expected = scalar.nearest_gradient(code, bias)
        assert gradient == expected, f"{code:04x}"
        # The value midway to 2^(31 - bias) rounds to it, because its code is even.
        threshold = Fraction(15, 16) * Fraction(2) ** (31 - bias)
        assert beyond == (abs(exact.binary16(code)) >= threshold)
        assert within == (expected & 0x80 | 0x7B if beyond else expected)


def test_overflow_is_that_of_the_cast_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    codes = np.flatnonzero(CODES & 0x7C00 != 0x7C00)
    reals = BINARY16.decode(codes) * 2.0**9
    with np.errstate(over="ignore"):
        cast = reals.astype(ml_dtypes.float8_e5m2)
    got = factors.nearest_gradient(codes)
    finite = ~factors.has_overflowed(got)
    np.testing.assert_array_equal(np.isinf(cast.astype(np.float64)), ~finite)
    np.testing.assert_array_equal(cast.view(np.uint8)[finite], got[finite])


@pytest.mark.parametrize("bias", [24, 15, 31])
def test_pieces_are_truncations(bias) -> None:
    codes = CODES if bias == 24 else CODES[::7]
    for code, got in zip(codes.tolist(), factors.pieces_of(codes, bias).tolist(), strict=True):
        assert got == scalar.pieces(code, bias), f"{code:04x}"


def test_pieces_are_the_number() -> None:
    for bias in (23, 24, 25):
        within = ~factors.exceed_pieces(CODES, bias)
        reals = ACCUMULATOR_FORMAT.decode(CODES)
        np.testing.assert_array_equal(within, np.abs(reals) < 2.0 ** (32 - bias))
        sums = Minifloat(5, 2, bias).decode(factors.pieces_of(CODES, bias)).sum(axis=-1)
        np.testing.assert_array_equal(sums[within], reals[within])
        # So pieces of a gradient are the gradient.
        wide = factors.widened(factors.nearest_gradient(CODES, bias), bias)
        np.testing.assert_array_equal(
            ACCUMULATOR_FORMAT.decode(wide),
            Minifloat(5, 2, bias).decode(factors.nearest_gradient(CODES, bias)),
        )


# Steps, one number at a time.

CASES = [
    # inputs, hidden, batch, time, biases, products, window, options of the scalar step and golden's
    (2, 3, 2, 3, (10, 10, 15), 4, 12, {}),
    (3, 2, 5, 2, (11, 12, 15), 4, 12, {"chained": True}),
    (1, 4, 3, 3, (10, 10, 15), 5, None, {}),
    (2, 2, 3, 2, (7, 11, 17), 4, 8, {"bias": 20, "cell_bias": 6, "input_bias": 11}),
    (5, 1, 1, 4, (10, 10, 15), 16, 14, {}),
]


def problem(case, seed: int = 4, size: float = 4):
    inputs, hidden, batch, time, biases, products, window, _ = case
    rng = np.random.default_rng(seed)
    layer, masters = layer_with(
        inputs, hidden, rng, biases=biases, products=products, window=window
    )
    x = layer.input_format.encode(rng.normal(0, 2.0 ** (15 - biases[2]), (batch, time, inputs)))
    above = BINARY16.encode(rng.normal(0, size, (batch, time, hidden)))
    above[rng.random(above.shape) < 0.2] = 0
    return layer, masters, x, above


def options_of(case) -> TrainingOptions:
    given = case[-1]
    return TrainingOptions(
        gradient_bias=given.get("bias", 24),
        cell_factor_bias=given.get("cell_bias", 7),
        input_factor_bias=given.get("input_bias", 8),
        accumulation="chained" if given.get("chained") else "by_step",
    )


def check_step(case, size: float = 4, *, overflow: bool = False) -> None:
    layer, masters, x, above = problem(case, size=size)
    options = options_of(case)
    got = training_step(layer, masters, x, above, options)
    expected = scalar.ScalarStep(layer, x, above, **case[-1])
    assert got.pre_activation_gradients.tolist() == expected.d
    assert got.input_gradients.tolist() == expected.of_input
    assert got.first_hidden_gradients.tolist() == expected.first_hidden
    assert got.first_cell_gradients.tolist() == expected.first_cell
    assert got.sums.input_weights.tolist() == expected.rows["input"]
    assert got.sums.recurrent_weights.tolist() == expected.rows["recurrent"]
    assert got.sums.bias[..., np.newaxis].tolist() == expected.rows["bias"]
    assert got.overflow == expected.overflow == overflow
    check_update(layer, masters, got, options)


def check_update(layer, masters, got, options) -> None:
    factor, bias = options.update_factor
    zeros = [0] * (layer.products - 1)
    formats = (layer.input_weight_bias, layer.recurrent_weight_bias, None)
    names = ("input_weights", "recurrent_weights", "bias")
    for name, weight_bias in zip(names, formats, strict=True):
        flat = (
            getattr(owner, name).ravel().tolist()
            for owner in (masters, got.sums, got.gradients, got.masters, got.layer)
        )
        for old, total, gradient, new, code in zip(*flat, strict=True):
            nearest = scalar.nearest_gradient(total, options.gradient_bias)
            assert gradient == (nearest if nearest & 0x7F < 0x7C else nearest & 0x80 | 0x7B)
            if got.overflow:
                assert new == old
                continue
            assert new == exact.floatsd8_mac(
                [factor, *zeros],
                [gradient, *zeros],
                old,
                layer.window,
                bias,
                options.gradient_bias,
            )
            if weight_bias is None:
                assert code == new
            else:
                assert code == scalar.nearest_floatsd8(exact.binary16(new), weight_bias)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_equals_loops_over_fractions(case) -> None:
    check_step(case)


@pytest.mark.parametrize("size", [100, 5000, 40_000])
def test_a_step_that_overflows_is_defined_too(size) -> None:
    check_step(CASES[0], size, overflow=True)


def test_a_step_of_tiny_gradients() -> None:
    check_step(CASES[0], 2.0**-20)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("tanh_slope", factors.sigmoid_slope),
        ("pieces_of", lambda codes, bias: factors.pieces_of(codes, bias) & 0xFE),
        ("nearest_gradient", lambda codes, bias: factors.nearest_gradient(codes & 0xFF00, bias)),
        ("hidden_factor", lambda codes: factors.hidden_factor(codes & 0x7F)),
        ("cell_factor", lambda codes, bias: factors.cell_factor(codes, bias + 1)),
    ],
)
def test_another_definition_is_seen(monkeypatch, name, broken) -> None:
    monkeypatch.setattr(floatsd8_step, name, broken)
    with pytest.raises(AssertionError):
        check_step(CASES[0])


def test_a_step_of_one_unit_by_hand() -> None:
    """Two time steps of one unit whose gates i, f and o are 1/2: every number on paper."""
    half = BINARY16.encode(0.5)
    masters = LayerArrays.of_reals(np.zeros((4, 1, 1)), np.zeros((4, 1, 1)), np.zeros((4, 1)))
    # g reads the old hidden value with a weight of 1/2 and has a bias of 1/2.
    masters.recurrent_weights[2], masters.bias[2] = half, half
    zeros = np.zeros((4, 1, 1), np.int64)
    layer = layer_of(masters, FloatSD8Lstm(zeros, zeros, zeros[..., 0]))
    one = layer.input_format.encode([[[1.0], [1.0]]])
    above = BINARY16.encode([[[0.0], [1.0]]])
    step = training_step(layer, masters, one, above, TrainingOptions(rate=0.125, loss_scale=1))

    def fractions(number_format, codes) -> list[Fraction]:
        return [Fraction(real) for real in number_format.decode(codes).ravel().tolist()]

    # Forward: g = 7/16, c = 7/32, tanh(c) = 7/32, h = 7/64; g = 1/2, c = 23/64, tanh(c) = 3/8.
    assert fractions(Minifloat(5, 2, 15), step.hidden) == [Fraction(7, 64), Fraction(3, 16)]
    assert fractions(BINARY16, step.cell) == [Fraction(7, 32), Fraction(23, 64)]
    # Second step: dh = 1, dc = 7/8 * 1/2 = 7/16.
    later = [
        Fraction(1, 4) * Fraction(1, 2) * Fraction(7, 16),
        # 1/4 * 7/32 * 7/16 = 49/2048, of which three bits remain.
        Fraction(3, 128),
        # 3/4 * 1/2 * 7/16 = 21/128, likewise.
        Fraction(5, 32),
        Fraction(1, 4) * Fraction(3, 8),
    ]
    # First step: dh = 1/2 * 5/32, dc = 1/2 * 7/16 + 15/16 * 1/2 * dh = 523/2048.
    dh, dc = Fraction(5, 64), Fraction(523, 2048)
    earlier = [
        # 1/4 * 7/16 * dc = 0.0279
        Fraction(7, 256),
        Fraction(0),
        # 3/4 * 1/2 * dc = 0.0958
        Fraction(3, 32),
        # 1/4 * 7/32 * dh = 35/8192
        Fraction(1, 256),
    ]
    assert Fraction(7, 32) + Fraction(15, 16) * Fraction(1, 2) * dh == dc
    assert fractions(GRADIENT, step.pre_activation_gradients) == [*earlier, *later]
    assert fractions(BINARY16, step.first_cell_gradients) == [dc / 2]
    assert fractions(BINARY16, step.first_hidden_gradients) == [Fraction(3, 64)]
    assert fractions(BINARY16, step.input_gradients) == [0, 0]
    # Sums over both steps; only the second has an old hidden value, 7/64.
    totals = [a + b for a, b in zip(earlier, later, strict=True)]
    assert fractions(BINARY16, step.sums.bias) == totals
    assert fractions(BINARY16, step.sums.input_weights) == totals
    assert fractions(BINARY16, step.sums.recurrent_weights) == [Fraction(7, 64) * d for d in later]
    # 21/256, 3/128, 1/4, 25/256 in three bits, times -1/8.
    narrow = [Fraction(5, 64), Fraction(3, 128), Fraction(1, 4), Fraction(3, 32)]
    assert fractions(GRADIENT, step.gradients.bias) == narrow
    old = [Fraction(0), Fraction(0), Fraction(1, 2), Fraction(0)]
    assert fractions(BINARY16, step.masters.bias) == [
        master - gradient / 8 for master, gradient in zip(old, narrow, strict=True)
    ]
    # 7/64 * 5/32 = 35/2048 is 1/64 in three bits (32/2048 or 40/2048).
    assert fractions(BINARY16, step.masters.recurrent_weights)[2] == Fraction(1, 2) - Fraction(
        1, 512
    )
    assert not step.overflow


# Sums


def recorded(case):
    layer, masters, x, above = problem(case)
    sums = []
    training_step(layer, masters, x, above, options_of(case), record=sums.append)
    return layer, sums


def differences(sums, layer) -> int:
    """Number of recorded sums that are not those of the unit's contract."""
    count = 0
    for each in sums:
        contract = contract_of(each.bias, layer.products, layer.window)
        result = contract.compute(
            {
                "weights": each.weights,
                "activations": each.activations,
                "accumulator": each.start,
            }
        )["result"]
        count += int((result != each.result).sum())
    return count


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_sum_is_one_of_the_unit(case) -> None:
    layer, sums = recorded(case)
    assert {each.kind for each in sums} == set(KINDS)
    assert differences(sums, layer) == 0
    counted = Counter[str]()
    for each in sums:
        counted[each.kind] += len(each.result)
    _, _, batch, time, *_ = case
    accumulation = options_of(case).accumulation
    assert counted == sums_of_a_step(layer, batch, time, accumulation)


def test_a_sample_of_the_sums_equals_fractions() -> None:
    rng = np.random.default_rng(2)
    for case in CASES[:4]:
        layer, sums = recorded(case)
        for each in sums:
            for index in rng.choice(len(each.result), min(6, len(each.result)), replace=False):
                assert each.result[index] == exact.floatsd8_mac(
                    each.weights[index].tolist(),
                    each.activations[index].tolist(),
                    int(each.start[index]),
                    layer.window,
                    each.bias - 15,
                    15,
                ), each.kind


def test_a_flipped_bit_of_a_sum_is_seen() -> None:
    layer, sums = recorded(CASES[0])
    broken = sums[7].result.copy()
    broken[-1] ^= 1
    assert differences([*sums[:7], replace(sums[7], result=broken), *sums[8:]], layer) == 1


@pytest.mark.parametrize("bias", [-16, 0, 19, 34, 50, 71])
def test_a_contract_has_the_wanted_sum_of_biases(bias) -> None:
    contract = contract_of(bias, 4, 12)
    assert contract.weight_bias + contract.activation_bias == bias


@pytest.mark.long
def test_a_whole_step_in_rtl(capsys, monkeypatch) -> None:
    """The layer's Verilog forwards, the unit's for all sums; then flipped bits are found."""
    sizes = ["--inputs", "2", "--hidden", "3", "--batch", "3", "--time", "3"]
    assert example.main(sizes) == 0
    said = capsys.readouterr().out
    layer, _ = layer_with(2, 3, np.random.default_rng(1))
    total = sum(sums_of_a_step(layer, 3, 3).values())
    (row,) = [line for line in said.splitlines() if "units" in line and f"{total:,}" in line]
    assert row.split()[-2] == "0"
    assert "0 of 27 hidden and 0 of 9 last cell codes differ" in " ".join(said.split())

    def broken(*given, record, **named):
        def flip(each) -> None:
            flipped = (np.arange(len(each.result)) == 0) & (each.kind == "carry")
            record(replace(each, result=each.result ^ flipped))

        return training_step(*given, record=flip, **named)

    monkeypatch.setattr(example, "training_step", broken)
    assert example.main(sizes) == 1
    assert "differs from golden" in capsys.readouterr().err


# Overflow of the loss scale


@pytest.mark.parametrize(
    ("above", "overflow"),
    [(119.9, False), (120.0, True), (-120.0, True), (np.inf, True), (np.nan, True)],
)
def test_an_overflow_is_seen_and_skips_the_update(above, overflow) -> None:
    layer, masters, x, given = problem(CASES[0])
    code = 0x7E00 if np.isnan(above) else int(BINARY16.encode(above))
    given[:] = 0
    given[0, -1, 0] = code
    step = training_step(layer, masters, x, given)
    assert step.overflow == overflow
    for old, new in zip(masters.arrays, step.masters.arrays, strict=True):
        assert (old != new).any() != overflow
    assert (step.layer is layer) == overflow


def test_a_lower_bias_of_gradients_raises_the_threshold() -> None:
    layer, masters, x, above = problem(CASES[0])
    above[0, -1, 0] = BINARY16.encode(200.0)
    assert training_step(layer, masters, x, above).overflow
    assert not training_step(layer, masters, x, above, TrainingOptions(gradient_bias=22)).overflow


def test_weight_gradients_saturate_without_overflow() -> None:
    layer, masters, x, above = problem((1, 1, 64, 1, (10, 10, 15), 4, 12, {}))
    above[:] = BINARY16.encode(12.0)
    masters = replace(masters, bias=BINARY16.encode(np.full((4, 1), 0.5)))
    layer = layer_of(masters, layer)
    step = training_step(layer, masters, x, above)
    assert not step.overflow
    assert 120 < np.abs(BINARY16.decode(step.sums.bias)).max() < 256
    assert np.abs(GRADIENT.decode(step.gradients.bias)).max() == 112


# Use


def test_the_loss_falls() -> None:
    """A layer learns to hold the sign of its last input but one, with this step alone."""
    rng = np.random.default_rng(1)
    layer, masters = layer_with(1, 6, rng)
    options = TrainingOptions(rate=2, loss_scale=256)
    losses = []
    for _ in range(40):
        signs = rng.choice([-1.0, 1.0], (8, 4, 1))
        target = np.zeros((8, 4))
        target[:, 1:] = 0.5 * signs[:, :-1, 0]

        def gradient(hidden, target=target):
            error = Minifloat(5, 2, 15).decode(hidden)[..., 0] - target
            losses.append(float((error**2).mean()))
            all_units = np.zeros(hidden.shape)
            all_units[..., 0] = 2 * error / error.size * options.loss_scale
            return BINARY16.encode(all_units)

        step = training_step(layer, masters, layer.input_format.encode(signs), gradient, options)
        assert not step.overflow
        layer, masters = step.layer, step.masters
    assert np.mean(losses[:5]) > 0.18
    assert np.mean(losses[-5:]) < 0.1, losses


def test_the_speaker_example_learns_as_in_float64(capsys) -> None:
    rng = np.random.default_rng(3)
    start = [rng.uniform(-0.3, 0.3, shape) for shape in ((4, 6, 12), (4, 6, 6), (4, 6))]
    x = rng.normal(0, 1, (9, 5, 12))
    within = np.full((9, 5, 1), 1 / 5)
    losses = {}
    for layer in (
        train_golden.Golden(start, TrainingOptions(rate=1)),
        train_golden.Real(start, rate=1),
    ):
        read_out = train_golden.ReadOut(np.linspace(-1, 1, 54).reshape(9, 6), rate=1)
        for _ in range(12):
            assert not layer.learn(x, read_out.top(within, np.arange(9)))
        losses[type(layer)] = read_out.losses
    golden, real = losses.values()
    assert real[-1] < 0.8 * real[0]
    np.testing.assert_allclose(golden, real, rtol=0.03)
    assert train_golden.main(["--arithmetic", "float64", "--epochs", "1"]) == 0
    assert "of 370 test utterances" in capsys.readouterr().out


def test_the_layer_below_takes_the_gradient_of_the_input() -> None:
    rng = np.random.default_rng(5)
    below, below_masters = layer_with(2, 3, rng)
    above, above_masters = layer_with(3, 2, rng)
    x = below.input_format.encode(rng.normal(0, 1, (2, 4, 2)))
    hidden = below.run(x)
    given = BINARY16.encode(rng.normal(0, 8, (2, 4, 2)))
    upper = training_step(above, above_masters, hidden, given)
    lower = training_step(below, below_masters, x, upper.input_gradients)
    np.testing.assert_array_equal(lower.hidden, hidden)
    assert (lower.gradients.bias != 0).any()


def test_a_step_starts_from_a_given_state() -> None:
    layer, masters, x, above = problem(CASES[0])
    whole = training_step(layer, masters, x, above)
    later = training_step(
        layer,
        masters,
        x[:, 1:],
        above[:, 1:],
        hidden=whole.hidden[:, 0],
        cell=whole.cell[:, 0],
    )
    np.testing.assert_array_equal(later.hidden, whole.hidden[:, 1:])
    np.testing.assert_array_equal(
        later.pre_activation_gradients, whole.pre_activation_gradients[:, 1:]
    )


def test_masters_of_a_layer_are_its_weights() -> None:
    layer, _ = layer_with(3, 4, np.random.default_rng(6))
    again = layer_of(LayerArrays.of_layer(layer), layer)
    np.testing.assert_array_equal(again.input_weights, layer.input_weights)
    np.testing.assert_array_equal(again.bias, layer.bias)


@pytest.mark.parametrize("rate", [2.0**-10, 0.1, 1.0, 0.0013, 3.0])
@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_the_factor_of_the_update_is_near(rate, loss_scale) -> None:
    code, bias = TrainingOptions(rate=rate, loss_scale=loss_scale).update_factor
    wanted = -rate / loss_scale
    got = float(FloatSD8(bias).decode(code))
    assert abs(got - wanted) <= abs(wanted) / 14
    if rate in (1.0, 2.0**-10):
        assert got == wanted


@pytest.mark.parametrize("size", [2.0**-6, 1.0, 30.0])
def test_the_bias_of_inputs_suits_them(size) -> None:
    x = np.random.default_rng(9).normal(0, size, 5000)
    bias = input_factor_bias(x)
    kept = FloatSD8(bias).decode(FloatSD8(bias).encode(x))
    assert np.sqrt(((kept - x) ** 2).mean()) < 0.05 * size
    assert input_factor_bias(np.ones(3)) == 8


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rate": 0.0}, "rate must be a positive number, not 0.0"),
        ({"loss_scale": float("nan")}, "loss_scale must be a positive number, not nan"),
        ({"gradient_bias": 8}, "gradient_bias must be from 9 to 31, not 8"),
        ({"cell_factor_bias": 40}, "cell_factor_bias must be from -5 to 26, not 40"),
        ({"accumulation": "exact"}, 'accumulation must be "by_step" or "chained", not'),
        ({"rate": 1e-20}, "rate over loss_scale must be from 2.-40 to"),
    ],
)
def test_wrong_options_are_refused(settings, text) -> None:
    with pytest.raises(ValueError, match=text):
        TrainingOptions(**settings)


def test_wrong_use_is_refused() -> None:
    layer, masters, x, above = problem(CASES[0])
    with pytest.raises(ValueError, match=r"gradient_of_hidden must have the shape \(2, 3, 3\)"):
        training_step(layer, masters, x, above[:, 1:])
    with pytest.raises(ValueError, match=r"x must have the shape \('?any'?, any, 2\)"):
        training_step(layer, masters, x[0], above)
    with pytest.raises(ValueError, match="x must have at least one sequence of one time step"):
        training_step(layer, masters, x[:, :0], above[:, :0])
    other = replace(masters, input_weights=masters.input_weights ^ 0x8000)
    with pytest.raises(ValueError, match="The layer's input_weights must be the nearest to its"):
        training_step(layer, other, x, above)
    steep, steep_masters = layer_with(2, 3, np.random.default_rng(1), biases=(28, 10, 15))
    with pytest.raises(ValueError, match=r"input_weight_bias and gradient_bias must sum to 19 to"):
        training_step(steep, steep_masters, x, above)
