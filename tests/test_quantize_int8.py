"""Quantisation to the integer LSTM, against exact fractions and PyTorch's observer."""

import math
from dataclasses import fields
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.codecs import dequantize, quantize
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.quantize.int8 import asymmetric_parameters, cell_exponent, quantize_lstm


def random_layer(seed: int, inputs: int = 5, hidden: int = 7, spread: float = 0.5) -> Float64Lstm:
    rng = np.random.default_rng(seed)
    return Float64Lstm(
        rng.normal(size=(4, hidden, inputs)) * spread,
        rng.normal(size=(4, hidden, hidden)) * spread,
        rng.normal(size=(4, hidden)) * spread,
    )


def random_sequences(seed: int, inputs: int = 5) -> list[npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.3, 1, size=(time, inputs)) for time in (9, 1, 14, 6)]


def nearest(exact: Fraction) -> int:
    """Integer nearest to a fraction; Python's ``round`` takes ties to even."""
    return round(exact)


def test_asymmetric_parameters_follow_the_formula() -> None:
    rng = np.random.default_rng(0)
    for low, high in np.sort(rng.normal(0.5, 1, size=(500, 2))).tolist():
        scale, zero_point = asymmetric_parameters(low, high)
        bottom, top = min(Fraction(low), Fraction(0)), max(Fraction(high), Fraction(0))
        exact = (top - bottom) / 255
        assert scale == float(np.float32(scale))
        assert abs(Fraction(scale) - exact) <= exact * Fraction(1, 2**24) * 2
        assert zero_point == min(max(nearest(-128 - bottom / Fraction(scale)), -128), 127)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, -128),
        (-255.0, 0.0, 1.0, 127),
        (3.0, 255.0, 1.0, -128),  # widened down to 0
        (-255.0, -3.0, 1.0, 127),  # and up
        (-128.0, 127.0, 1.0, 0),
        (-127.5, 127.5, 1.0, 0),  # -0.5: a tie, to even
        (-126.5, 128.5, 1.0, -2),  # -1.5: a tie, to even
    ],
)
def test_asymmetric_parameters_by_hand(
    low: float, high: float, scale: float, zero_point: int
) -> None:
    assert asymmetric_parameters(low, high) == (scale, zero_point)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_asymmetric_parameters_agree_with_pytorch() -> None:
    import torch
    from torch.ao.quantization.observer import MinMaxObserver

    rng = np.random.default_rng(1)
    for _ in range(200):
        # Whole 1024ths, so that max - min is exact in binary32, in which PyTorch computes.
        values = rng.integers(-4000, 4000, size=8) / 1024 + rng.integers(-3, 4)
        observer = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_affine)
        observer(torch.from_numpy(values.astype(np.float32)))
        scale, zero_point = observer.calculate_qparams()
        expected = float(scale.item()), int(zero_point.item())
        assert asymmetric_parameters(values.min(), values.max()) == expected


@pytest.mark.parametrize(
    ("largest", "exponent"),
    [
        (0.0, -15),
        (1e-300, -15),
        (1.0, -15),
        (math.nextafter(1.0, 2), -14),
        (1.5, -14),
        (2.0, -14),
        (math.nextafter(2.0, 3), -13),
        (31.9, -10),
        (64.0, -9),
        (65.0, -9),
        (1e300, -9),
    ],
)
def test_cell_exponent(largest: float, exponent: int) -> None:
    assert cell_exponent(largest) == exponent


def test_quantize_takes_the_nearest_raw_exhaustively() -> None:
    """Every quarter step from below to above the word, for every zero point."""
    quarters = np.arange(-4 * 300, 4 * 300 + 1)
    scale = 0.125
    for zero_point in range(-128, 128):
        raws = quantize(quarters / 4 * scale, scale, zero_point)
        floors, rest = np.divmod(quarters, 4)
        # Ties of the quotient to even, before the zero point is added.
        up = (rest == 3) | ((rest == 2) & (floors % 2 == 1))
        np.testing.assert_array_equal(raws, np.clip(floors + up + zero_point, -128, 127))


def test_raws_survive_being_made_real() -> None:
    raws = np.arange(-128, 128)
    for scale in (1e-30, 0.0078125, float(np.float32(0.1)), 1e30):
        for zero_point in (-128, -5, 0, 127):
            reals = dequantize(raws, scale, zero_point)
            np.testing.assert_array_equal(quantize(reals, scale, zero_point), raws)


def test_quantize_saturates_whatever_is_finite_and_refuses_the_rest() -> None:
    assert quantize([1e308, -1e308], 1e-30, 5).tolist() == [127, -128]
    with pytest.raises(ValueError, match=r"^Values must be finite, not nan\.$"):
        quantize([0.0, np.nan], 1.0, 0)


def test_every_number_of_a_layer_follows_the_rules() -> None:
    model, sequences = random_layer(3), random_sequences(4)
    layer = quantize_lstm(model, sequences)
    frames = np.concatenate(sequences)
    traces = [model.run_with_cell(one[np.newaxis]) for one in sequences]
    hidden = np.concatenate([trace[0][0] for trace in traces])
    cell = np.concatenate([trace[1][0] for trace in traces])
    expected_input = asymmetric_parameters(frames.min(), frames.max())
    expected_hidden = asymmetric_parameters(hidden.min(), hidden.max())
    assert (layer.input_scale, layer.input_zero_point) == expected_input
    assert (layer.hidden_scale, layer.hidden_zero_point) == expected_hidden
    assert (layer.intermediate_scale, layer.intermediate_zero_point) == expected_hidden
    assert layer.cell_exponent == math.ceil(math.log2(np.abs(cell).max())) - 15
    assert layer.cell_clip == 0
    for reals, raws, scales in (
        (model.input_weights, layer.input_weights, layer.input_weight_scales),
        (model.recurrent_weights, layer.recurrent_weights, layer.recurrent_weight_scales),
    ):
        for gate in range(4):
            assert scales[gate] == np.float32(np.abs(reals[gate]).max() / 127)
            step = Fraction(float(scales[gate]))
            assert raws[gate].ravel().tolist() == [
                nearest(Fraction(weight) / step) for weight in reals[gate].ravel().tolist()
            ]
            assert np.abs(raws[gate]).max() == 127
    for gate in range(4):
        step = Fraction(float(layer.input_weight_scales[gate] * np.float32(layer.input_scale)))
        assert layer.bias[gate].tolist() == [
            nearest(Fraction(bias) / step) for bias in model.bias[gate].tolist()
        ]


@pytest.mark.parametrize("activation", ["table", "gemmlowp"])
@pytest.mark.parametrize("seed", range(5))
def test_quantised_layer_follows_the_real_one(seed: int, activation: ActivationKind) -> None:
    model, sequences = random_layer(seed), random_sequences(seed + 50)
    layer = quantize_lstm(model, sequences, activation=activation)
    assert layer.activation == activation

    def worst(candidate: Int8Lstm) -> float:
        errors = [
            model.run(one[np.newaxis])
            - dequantize(
                candidate.run(
                    quantize(one, candidate.input_scale, candidate.input_zero_point)[np.newaxis],
                ),
                candidate.intermediate_scale,
                candidate.intermediate_zero_point,
            )
            for one in sequences
        ]
        return max(float(np.abs(error).max()) for error in errors)

    assert worst(layer) < 0.03
    parameters = {field.name: getattr(layer, field.name) for field in fields(layer)}
    parameters["bias"] = np.roll(layer.bias, 1, axis=0)
    assert worst(Int8Lstm(**parameters)) > 0.1


def test_padding_is_not_calibrated_on() -> None:
    model, sequences = random_layer(5), random_sequences(6)
    lengths = np.array([len(one) for one in sequences])
    padded = np.full((len(sequences), lengths.max(), 5), np.nan)
    for row, one in zip(padded, sequences, strict=True):
        row[: len(one)] = one
    first = quantize_lstm(model, sequences, rounding="single")
    second = quantize_lstm(model, padded, lengths, rounding="single")
    for field in fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    assert first.rounding == "single"


def test_what_the_layer_does_in_the_padding_is_not_calibrated_on() -> None:
    """Cell and hidden value of this layer grow with every step, and padding is many steps."""
    model = Float64Lstm(np.zeros((4, 1, 1)), np.zeros((4, 1, 1)), np.full((4, 1), 3.0))
    short = np.ones((1, 2, 1))
    padded = np.ones((1, 40, 1))
    first, second = quantize_lstm(model, short), quantize_lstm(model, padded, [2])
    longest = quantize_lstm(model, padded)
    assert first.cell_exponent == second.cell_exponent < longest.cell_exponent
    assert first.hidden_scale == second.hidden_scale < longest.hidden_scale


def test_gate_without_weights_keeps_its_bias() -> None:
    model = random_layer(7)
    weights, recurrent = model.input_weights.copy(), model.recurrent_weights.copy()
    weights[1], recurrent[2] = 0, 0
    layer = quantize_lstm(Float64Lstm(weights, recurrent, model.bias), random_sequences(8))
    assert (layer.input_weights[1] == 0).all()
    assert (layer.recurrent_weights[2] == 0).all()
    np.testing.assert_allclose(layer.effective_scales[[1, 2], [0, 1]], 1, rtol=1e-6)
    np.testing.assert_allclose(layer.bias[1] * 2.0**-12, model.bias[1], rtol=0, atol=2.0**-13)


def test_bias_beyond_its_word_coarsens_the_weights() -> None:
    model = random_layer(9)
    bias = model.bias.copy()
    bias[0, 0] = 1e9
    layer = quantize_lstm(
        Float64Lstm(model.input_weights, model.recurrent_weights, bias), random_sequences(10)
    )
    assert abs(int(layer.bias[0, 0]) - 2**30) < 2**7
    assert layer.input_weight_scales[0] > layer.input_weight_scales[1]


NO_RANGE = "must not all be 0, for they would have no scale."


@pytest.mark.parametrize(
    ("x", "lengths", "message"),
    [
        ([], None, "Calibration data must hold at least one sequence, not none."),
        (
            np.zeros((0, 3, 5)),
            None,
            "Calibration data must not be empty, but their shape is (0, 3, 5).",
        ),
        (
            [np.zeros((0, 5))],
            None,
            "A calibration sequence must not be empty, but the shape of one is (0, 5).",
        ),
        (
            np.zeros((3, 5)),
            None,
            (
                "Calibration data must be real numbers of shape (batch, time, inputs), not float64 "
                "of shape (3, 5)."
            ),
        ),
        (
            [np.zeros(5)],
            None,
            (
                "A calibration sequence must be real numbers of shape (time, inputs), not float64 "
                "of shape (5,)."
            ),
        ),
        (
            np.zeros((1, 3, 5), np.complex128),
            None,
            (
                "Calibration data must be real numbers of shape (batch, time, inputs), not "
                "complex128 of shape (1, 3, 5)."
            ),
        ),
        (
            np.ones((2, 3, 4)),
            None,
            "Calibration data must have 5 inputs, as the model has, not 4.",
        ),
        (
            [np.ones((3, 5)), np.ones((3, 4))],
            None,
            "Calibration data must have 5 inputs, as the model has, not 4.",
        ),
        (
            [np.ones((3, 5)), np.full((1, 5), np.inf)],
            None,
            (
                "Calibration data must be finite, not inf at (sequence, time, input) (1, 0, 0); "
                "remove or repair that sequence."
            ),
        ),
        (np.ones((2, 3, 5)), [3, 4], "lengths must be from 1 to 3, not 4."),
        (np.ones((2, 3, 5)), [3, 0], "lengths must be from 1 to 3, not 0."),
        (
            np.ones((2, 3, 5)),
            [3],
            "lengths must be integers of shape (2,), not int64 of shape (1,).",
        ),
        (
            np.ones((2, 3, 5)),
            [3.0, 1.0],
            "lengths must be integers of shape (2,), not float64 of shape (2,).",
        ),
        (
            [np.ones((3, 5))],
            [3],
            "lengths must be None where x is a sequence of arrays, which have theirs.",
        ),
        (np.zeros((1, 3, 5)), None, f"The calibration inputs {NO_RANGE}"),
        (
            np.full((1, 3, 5), 1e-50),
            None,
            (
                "The calibration inputs must span a range that binary32 can hold, but its scale "
                "would be 3.92e-53; rescale the data or the model."
            ),
        ),
        (
            np.full((1, 3, 5), 1e300),
            None,
            (
                "The calibration inputs must span a range that binary32 can hold, but its scale "
                "would be 3.92e+297; rescale the data or the model."
            ),
        ),
    ],
)
def test_bad_calibration_is_refused(
    x: npt.NDArray[np.float64] | list[npt.NDArray[np.float64]],
    lengths: npt.ArrayLike | None,
    message: str,
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        quantize_lstm(random_layer(0), x, lengths)
    assert str(caught.value) == message


def test_layer_without_output_or_within_no_word_is_refused() -> None:
    model = random_layer(0)
    weights, recurrent, bias = (
        getattr(model, name).copy() for name in ("input_weights", "recurrent_weights", "bias")
    )
    weights[2], recurrent[2], bias[2] = 0, 0, 0
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        quantize_lstm(Float64Lstm(weights, recurrent, bias), random_sequences(0))
    of = "The hidden values of the model on the calibration data"
    assert str(caught.value) == f"{of} {NO_RANGE}"
    weights[:] = model.input_weights
    weights[0] = 1e300
    with pytest.raises(ValueError, match=r"^The weights of a gate must span a range that binary32"):
        quantize_lstm(
            Float64Lstm(weights, model.recurrent_weights, model.bias), random_sequences(0)
        )
