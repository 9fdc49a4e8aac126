"""From a real model to a FloatSD8 model: biases, files, ``fewbit quantize`` and ``fewbit run``."""

from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fewbit.golden.files.model import Model, ReadOut, load_model, save_model
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.formats import E5M2, FLOATSD8, FloatSD8
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.floatsd8 import HIDDEN_FORMAT, FloatSD8Lstm
from fewbit.golden.network import NETWORK_INPUT, Network, Node, run
from fewbit.golden.quantize.floatsd8 import quantize_lstm, quantize_network, relative_errors
from fewbit.golden.quantize.int8 import quantize_network as quantize_to_int8
from tests.support import exact
from tests.support.commands import run as fewbit

X = np.random.default_rng(1).normal(size=(3, 5, 4))


def real_layer(seed: int, inputs: int = 4, hidden: int = 5, scale: float = 0.5, **more: object):
    rng = np.random.default_rng(seed)
    return Float64Lstm(
        rng.normal(size=(4, hidden, inputs)) * scale,
        rng.normal(size=(4, hidden, hidden)) * 0.4,
        rng.normal(size=(4, hidden)) * 0.5,
        **more,
    )


def stack(scale: float = 0.5) -> Network:
    """A bidirectional layer, and one that reads both directions."""
    first = Node(real_layer(1, scale=scale), name="forward")
    second = Node(real_layer(2, scale=scale), reverse=True, name="backward")
    return Network((first, second, Node(real_layer(3, 10, 4), (0, 1))))


# Biases


def error_by_fractions(values: list[float], grid: list[Fraction]) -> Fraction:
    """Squared error of the nearest values, relative to the sum of squares."""
    reals = [Fraction(value) for value in values]
    errors = (min(abs(real - value) for value in grid) ** 2 for real in reals)
    return sum(errors, Fraction(0)) / sum(real * real for real in reals)


@pytest.mark.parametrize("number_format", [FLOATSD8, E5M2], ids=["floatsd8", "e5m2"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-20, 1e6])
def test_errors_of_all_biases(number_format, scale) -> None:
    values = np.random.default_rng(2).normal(size=(3, 7)) * scale
    got = relative_errors(number_format, values)
    assert list(got) == list(range(-64, 65))
    value_of = exact.floatsd8 if number_format is FLOATSD8 else exact.e5m2
    at_zero = {value_of(code, 0) for code in range(256)}
    for bias in range(-64, 65, 4):
        grid = [value / Fraction(2) ** bias for value in at_zero]
        expected = error_by_fractions(values.ravel().tolist(), grid)
        assert got[bias] == pytest.approx(float(expected), rel=1e-9, abs=1e-15)


def test_errors_of_extreme_reals() -> None:
    assert set(relative_errors(E5M2, np.zeros(3)).values()) == {0.0}
    errors = relative_errors(E5M2, [1e308, -1e308])
    assert all(0.99 < error <= 1 for error in errors.values())


@pytest.mark.parametrize("seed", range(4))
def test_every_bias_has_the_least_error(seed: int) -> None:
    """The one of the least error comes out, whatever the scale: one more or less is no better."""
    rng = np.random.default_rng(seed)
    model = real_layer(seed, scale=float(2.0 ** rng.integers(-3, 4)))
    x = X * 2.0 ** float(rng.integers(-4, 5))
    made = quantize_lstm(model, x)
    for number_format, tensor, bias in (
        (FLOATSD8, model.input_weights, made.input_weight_bias),
        (FLOATSD8, model.recurrent_weights, made.recurrent_weight_bias),
        (E5M2, x, made.input_bias),
    ):
        errors = [
            float(((tried.decode(tried.encode(tensor)) - tensor) ** 2).sum())
            for tried in (replace(number_format, bias=other) for other in range(-64, 65))
        ]
        assert errors[bias + 64] == min(errors)


def test_codes_are_the_nearest() -> None:
    model = real_layer(4)
    made = quantize_lstm(model, X, products=16, window=None)
    assert (made.products, made.window) == (16, None)
    for name in ("input_weights", "recurrent_weights"):
        bias = getattr(made, name[:-1] + "_bias")
        codes, reals = getattr(made, name), getattr(model, name)
        np.testing.assert_array_equal(codes, FloatSD8(bias).encode(reals))
    # numpy rounds to binary16 by itself.
    np.testing.assert_array_equal(made.bias, model.bias.astype(np.float16).view(np.uint16))


def test_biases_fit_together() -> None:
    """Tiny weights of huge inputs: each alone would take biases that no circuit takes together."""
    model = real_layer(5, scale=2.0**-30)
    x = X * 2.0**-20
    made = quantize_lstm(model, x)
    assert 19 <= made.input_weight_bias + made.input_bias <= 50
    weights, inputs = relative_errors(FLOATSD8, model.input_weights), relative_errors(E5M2, x)
    pairs = {(w, i): weights[w] + inputs[i] for w in weights for i in inputs if 19 <= w + i <= 50}
    assert pairs[made.input_weight_bias, made.input_bias] == min(pairs.values())
    assert min(weights.values()) + min(inputs.values()) < min(pairs.values())


def test_tensors_of_zeros_take_the_usual_biases() -> None:
    model = Float64Lstm(np.zeros((4, 1, 1)), np.zeros((4, 1, 1)), np.zeros((4, 1)))
    made = quantize_lstm(model, np.zeros((1, 1, 1)))
    assert (made.input_weight_bias, made.recurrent_weight_bias, made.input_bias) == (10, 10, 15)


def test_only_true_vectors_of_padded_sequences_count() -> None:
    x = np.concatenate([X, np.full_like(X, 1e9)], axis=1)
    made = quantize_lstm(real_layer(1), x, lengths=np.full(3, 5))
    assert made.input_bias == quantize_lstm(real_layer(1), X).input_bias
    assert made.input_bias != quantize_lstm(real_layer(1), x).input_bias


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        (real_layer(1, peephole_weights=np.ones((3, 5))), "peepholes"),
        (real_layer(1, hidden=5, projection_weights=np.eye(5)), "projection"),
        (
            Float64Lstm(np.ones((3, 2, 4)), np.ones((3, 2, 2)), np.ones((3, 2)), np.ones((2, 2))),
            "peepholes and coupled input gate",
        ),
    ],
)
def test_variants_are_refused(layer: Float64Lstm, found: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is compared
        quantize_lstm(layer, X)
    text = "A FloatSD8 layer must be a plain LSTM, but {} has {}; quantise it to int8."
    assert str(error.value) == text.format("this layer", found)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        quantize_network(Network((Node(layer, name="lower"),)), X)
    assert str(error.value) == text.format("layer 'lower'", found)


# Networks


def test_one_layer_is_quantised_as_alone() -> None:
    alone = quantize_lstm(real_layer(1), X * 9)
    node = quantize_network(Network((Node(real_layer(1)),)), X * 9).nodes[0].lstm
    assert_same(alone, node)


def test_a_network_follows_the_real_one() -> None:
    calls: list[None] = []
    network = stack()
    quantised = quantize_network(network, X, done=lambda: calls.append(None))
    assert len(calls) == 3
    assert [node.lstm.input_bias for node in quantised.nodes][2] == 15
    first = quantised.nodes[0].lstm
    got = HIDDEN_FORMAT.decode(run(quantised, first.input_format.encode(X)))
    expected = run(network, X)
    assert np.abs(got - expected).max() < 0.07
    assert np.abs(got).max() > 0.2


def test_readers_of_one_input_share_its_bias() -> None:
    """Weights of different scales: the two directions still read the same codes."""
    network = Network(
        (Node(real_layer(1, scale=30.0)), Node(real_layer(2, scale=2.0**-6), reverse=True)), (0, 1)
    )
    made = quantize_network(network, X * 1e6)
    assert made.nodes[0].lstm.input_bias == made.nodes[1].lstm.input_bias < 15
    # One that reads hidden values, too, takes the input as those are.
    wide = Network((*network.nodes, Node(real_layer(3, 9, 4), (NETWORK_INPUT, 0))))
    assert [node.lstm.input_bias for node in quantize_network(wide, X * 1e6).nodes] == [15] * 3


def test_codes_of_another_bias_are_refused() -> None:
    made = quantize_network(stack(), X)
    first, second, third = made.nodes
    odd = replace(second, lstm=replace(second.lstm, input_bias=second.lstm.input_bias + 1))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Network((first, odd, third))
    bias = first.lstm.input_bias
    assert str(error.value) == (
        f"Node 1 must have input_bias {bias}, as the network's input that it reads, not {bias + 1}."
    )
    with pytest.raises(ValueError, match="Node 2 must have input_bias 15, as hidden values that"):
        Network((first, second, replace(third, lstm=replace(third.lstm, input_bias=14))))


# Files


def assert_same(one: FloatSD8Lstm, other: object) -> None:
    assert isinstance(other, FloatSD8Lstm)
    for field in fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("window", [14, None, 8])
def test_what_is_saved_comes_back(tmp_path: Path, window: int | None) -> None:
    lstm = quantize_lstm(real_layer(1), X, products=7, window=window)
    model = Model(lstm, ReadOut(np.ones((2, 5)), np.zeros(2)))
    save_model(tmp_path / "m.npz", model)
    loaded = load_model(tmp_path / "m.npz")
    assert_same(lstm, loaded.lstm)
    assert loaded.read_out is not None
    network = quantize_network(stack(), X, window=window)
    save_network(tmp_path / "n.npz", network)
    again = load_network(tmp_path / "n.npz")
    for one, other in zip(network.nodes, again.nodes, strict=True):
        assert_same(one.lstm, other.lstm)
        assert (one.sources, one.reverse, one.name) == (other.sources, other.reverse, other.name)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("window", None, "window is missing"),
        ("window", np.int32(7), "window must be from 8 to 48, not 7"),
        ("window", np.int32(-1), "window must be from 8 to 48, not -1"),
        ("window", np.float64(14), "window must be int32 of shape (), not float64 of shape ()"),
        ("products", np.int32(2**31 - 1), "products must be from 4 to 16, not 2147483647"),
        (
            "input_weights",
            np.zeros((4, 5, 4), np.int8),
            (
                "input_weights must be uint8 of shape (gates, hidden, inputs), not int8 of shape "
                "(4, 5, 4)"
            ),
        ),
        (
            "bias",
            np.zeros((4, 6), np.uint16),
            "bias must be uint16 of shape (gates, hidden), where gates is 4 and hidden is 5, not",
        ),
        ("recurrent_weight_bias", np.int32(3), "recurrent_weight_bias and the bias of hidden"),
        ("input_bias", np.int32(65), "input_bias must be from -64 to 64, not 65"),
        ("cell_clip", np.int32(0), "cell_clip does not belong to a model of kind floatsd8_lstm"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, name, value, message) -> None:
    path = tmp_path / "m.npz"
    save_model(path, Model(quantize_lstm(real_layer(1), X)))
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(path, allow_pickle=False, **arrays)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_model(path)
    assert str(error.value).startswith(f"{path}: {message}")


# The command line


@pytest.fixture
def real_file(tmp_path: Path) -> Path:
    save_network(tmp_path / "real.npz", stack())
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "real.npz"


def test_quantize_then_run(capsys, tmp_path: Path, real_file: Path) -> None:
    made = tmp_path / "sd8.npz"
    reals, codes, out = tmp_path / "x.npy", tmp_path / "codes.npy", tmp_path / "y.npy"
    words = ["quantize", real_file, "--to", "floatsd8", "--calibrate", reals, "--out", made]
    status, text, err = fewbit(capsys, *words)
    assert (status, err) == (0, "")
    assert text == (
        f"{made}: 2 layers, floatsd8, lanes 4, window 12, calibrated on 3 sequences of 5 steps\n"
    )
    network = load_network(made)
    expected = quantize_network(stack(), X)
    x = expected.nodes[0].lstm.input_format.encode(X)
    np.save(codes, x.astype(np.uint8))
    assert fewbit(capsys, "run", made, "--input", codes, "--output", out)[0] == 0
    output = np.load(out)
    assert output.dtype == np.uint8
    np.testing.assert_array_equal(output, run(expected, x))
    assert fewbit(capsys, "run", made, "--input", reals, "--output", out, "--real")[0] == 0
    np.testing.assert_array_equal(np.load(out), HIDDEN_FORMAT.decode(run(network, x)))
    status, text, _ = fewbit(capsys, *words, "--lanes", 8, "--window", "none")
    assert ", floatsd8, lanes 8, window none, " in text
    chosen = load_network(made).nodes[0].lstm
    assert isinstance(chosen, FloatSD8Lstm)
    assert (chosen.products, chosen.window) == (8, None)


def test_mistakes_are_answered_in_one_sentence(capsys, tmp_path: Path, real_file: Path) -> None:
    out, codes = tmp_path / "y.npy", tmp_path / "codes.npy"
    sd8, int8 = tmp_path / "sd8.npz", tmp_path / "int8.npz"
    save_network(sd8, quantize_network(stack(), X))
    save_network(int8, quantize_to_int8(stack(), X))

    def refused(*words: object) -> str:
        status, text, err = fewbit(capsys, *words)
        assert (status, text) == (2, "")
        assert not out.exists()
        return err

    quantize = ["quantize", real_file, "--calibrate", tmp_path / "x.npy", "--out", out, "--to"]
    for option, value, others in (
        ("activation", "table", "int8, ternary, binary or pow2"),
        ("rounding", "single", "int8"),
    ):
        sentence = refused(*quantize, "floatsd8", f"--{option}", value)
        assert sentence == f"--{option} goes with --to {others}; leave it out.\n"
    for option in ("lanes", "window"):
        sentence = refused(*quantize, "int8", f"--{option}", 8)
        assert sentence == f"--{option} goes with --to floatsd8; leave it out.\n"
    assert refused(*quantize, "floatsd8", "--lanes", 2) == (
        "--lanes must be from 4 to 16, not 2.\n"
    )
    assert (
        refused(*quantize, "floatsd8", "--window", 7)
        == "--window must be from 8 to 48, or none, not 7.\n"
    )
    run_sd8 = ["run", sd8, "--output", out, "--input", codes]
    for array, sentence in (
        (X, "integer codes from 0 to 255, not float64; for real numbers give --real."),
        (np.zeros(X.shape, np.int8), "codes from 0 to 255, not int8; save them as uint8."),
        (np.full(X.shape, 256), "codes from 0 to 255, not 256; for real numbers give --real."),
        (np.full(X.shape, -1), "codes from 0 to 255, not -1; for real numbers give --real."),
    ):
        np.save(codes, array)
        assert refused(*run_sd8) == f"The sequences must be {sentence}\n"
    np.save(codes, np.full(X.shape, np.nan))
    assert refused(*run_sd8, "--real") == "Values must be finite, not nan.\n"
    assert refused(*run_sd8, "--activation", "table") == (
        f"'{sd8}' is a FloatSD8 model, which has no such choice; leave --activation.\n"
    )
    assert refused("quantize", sd8, *quantize[2:], "floatsd8") == (
        f"'{sd8}' is quantised already; give a real model.\n"
    )
