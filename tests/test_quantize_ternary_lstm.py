"""From a real model to binary, ternary or power-of-two weights: rules, files, the command line."""

from dataclasses import fields, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.codecs import dequantize, quantize
from fewbit.golden.files.model import Model, ReadOut, load_model, save_model
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.lstm.batch_norm import BatchNorm, BatchNormLstm
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.ternary import TernaryLstm, levels_of
from fewbit.golden.network import NETWORK_INPUT, Network, Node, run
from fewbit.golden.quantize.batch_norm import fold
from fewbit.golden.quantize.ternary import (
    ScaledWeights,
    ardakani_binary,
    ardakani_ternary,
    normalized_ternary,
    ott_ternary,
)
from fewbit.golden.quantize.ternary_lstm import (
    quantize_folded,
    quantize_lstm,
    quantize_network,
    quantize_rows,
)
from tests.support.commands import run as fewbit

X = np.random.default_rng(1).normal(size=(3, 5, 4))
GATE_RESOLUTION = Fraction(1, 2**12)


def real_layer(seed: int, inputs: int = 4, hidden: int = 5, scale: float = 0.5, **more: Any):
    rng = np.random.default_rng(seed)
    return Float64Lstm(
        rng.normal(size=(4, hidden, inputs)) * scale,
        rng.normal(size=(4, hidden, hidden)) * 0.4,
        rng.normal(size=(4, hidden)) * 0.5,
        **more,
    )


def normalised_layer(seed: int) -> BatchNormLstm:
    rng = np.random.default_rng(seed)

    def norm() -> BatchNorm:
        gain = rng.uniform(0.2, 1, (4, 5)) * rng.choice([-1, 1], (4, 5))
        return BatchNorm(gain, *rng.normal(0, 0.3, (2, 4, 5)), rng.uniform(0.05, 0.4, (4, 5)))

    real = real_layer(seed, scale=0.1)
    return BatchNormLstm(real.input_weights, real.recurrent_weights, real.bias, norm(), norm())


def stack() -> Network:
    """A bidirectional layer, and one that reads both directions."""
    first = Node(real_layer(1), name="forward")
    second = Node(real_layer(2), reverse=True, name="backward")
    return Network((first, second, Node(real_layer(3, 10, 4), (0, 1))))


# Rows


def error_of(row: list[Fraction], levels: tuple[int, ...], scale: Fraction) -> Fraction:
    return sum(
        ((real - scale * level) ** 2 for real, level in zip(row, levels, strict=True)), Fraction(0)
    )


def by_exhaustion(row: list[float], levels: tuple[int, ...]) -> Fraction:
    """Least squared error of all choices of levels, each with its best scale."""
    reals = [Fraction(real) for real in row]
    best = sum((real * real for real in reals), Fraction(0))
    for chosen in product(levels, repeat=len(row)):
        squares = sum(level * level for level in chosen)
        if squares:
            scale = sum(real * level for real, level in zip(reals, chosen, strict=True)) / squares
            best = min(best, error_of(reals, chosen, scale))
    return best


@pytest.mark.parametrize(("exponents", "operands"), [(1, 6), (2, 4), (3, 4), (4, 3)], ids=str)
def test_rows_of_pow2_have_the_least_error_of_all(exponents: int, operands: int) -> None:
    rng = np.random.default_rng(exponents)
    weights = rng.normal(size=(4, 3, operands)) * 2.0 ** rng.integers(-4, 4, (4, 3, operands))
    weights[0, 0] = 0
    weights[0, 1] = 0.25
    weights[0, 2, 1:] = 0
    made = quantize_rows(weights, "pow2", exponents)
    assert made.row_scales[0, 0] == 0
    assert not made.levels[0, 0].any()
    assert np.isin(made.levels, levels_of("pow2", exponents)).all()
    for place in np.ndindex(4, 3):
        row = weights[place].tolist()
        reals = [Fraction(real) for real in row]
        got = error_of(reals, tuple(made.levels[place].tolist()), Fraction(made.scale[place]))
        wanted = by_exhaustion(row, levels_of("pow2", exponents))
        assert got - wanted <= Fraction(1, 2**40) * (1 + wanted)


@pytest.mark.parametrize("unit", [1.0, 0.3, 1e-3])
@pytest.mark.parametrize(
    ("to", "exponents"), [("ternary", 1), ("binary", 1), ("pow2", 1), ("pow2", 3)]
)
def test_rows_of_powers_of_two_have_the_least_error(to: Any, exponents: int, unit: float) -> None:
    """Each scale is the best of all powers of two times the unit, with its nearest levels."""
    weights = np.random.default_rng(3).normal(size=(4, 6, 7))
    made = quantize_rows(weights, to, exponents, unit)
    ratios = np.log2(made.row_scales / unit)
    np.testing.assert_allclose(ratios, np.rint(ratios), atol=1e-12)
    levels = np.array(levels_of(to, exponents))
    errors = ((made.reals - weights) ** 2).sum(axis=-1)
    for power in range(-14, 15):
        grid = levels * unit * 2.0**power
        nearest = grid[np.abs(weights[..., np.newaxis] - grid).argmin(axis=-1)]
        assert (errors <= ((nearest - weights) ** 2).sum(axis=-1) + 1e-12).all()


def test_rows_of_binary_and_ternary() -> None:
    weights = np.random.default_rng(4).normal(size=(4, 3, 6))
    weights[0, 0, 0] = 0.0
    made = quantize_rows(weights, "binary")
    assert made.levels[0, 0, 0] == 1
    np.testing.assert_array_equal(made.levels, np.where(weights < 0, -1, 1))
    np.testing.assert_allclose(made.scale, np.abs(weights).sum(axis=-1) / 6, rtol=1e-15)
    made, wanted = quantize_rows(weights, "ternary"), normalized_ternary(weights)
    np.testing.assert_array_equal(made.reals, wanted.reals)


# Layers


def reals_of(model: TernaryLstm, part: str) -> npt.NDArray[np.float64]:
    """Scales from sums to steps of the gate."""
    multipliers, shifts = getattr(model, f"{part}_multipliers"), getattr(model, f"{part}_shifts")
    return np.ldexp(multipliers.astype(float), shifts - 31)


@pytest.mark.parametrize("scales", ["any", "powers_of_two"])
@pytest.mark.parametrize("width", [4, 12])
@pytest.mark.parametrize("to", ["ternary", "binary", "pow2"])
def test_scales_and_biases_by_fractions(to: Any, width: int, scales: Any) -> None:
    model = real_layer(5)
    made = quantize_lstm(model, X, to=to, activation_width=width, scales=scales)
    step = np.float32(np.abs(X).max() / (2 ** (width - 1) - 1))
    assert made.input_scale == step
    assert (made.weights, made.activation_width) == (to, width)
    assert made.exponents == (4 if to == "pow2" else 1)
    units = {"input": Fraction(float(step)), "recurrent": Fraction(1, 2 ** (width - 1))}
    for part, unit in units.items():
        weights = getattr(model, f"{part}_weights")
        limit = None if scales == "any" else float(GATE_RESOLUTION / unit)
        rows = quantize_rows(weights, to, made.exponents, limit)
        np.testing.assert_array_equal(getattr(made, f"{part}_weights"), rows.levels)
        found = reals_of(made, part)
        if scales == "powers_of_two":
            assert set(getattr(made, f"{part}_multipliers").ravel().tolist()) == {2**30}
        for place in np.ndindex(4, 5):
            exact = Fraction(rows.row_scales[place]) * unit / GATE_RESOLUTION
            assert abs(Fraction(found[place]) - exact) <= exact * Fraction(1, 2**24)
    for place in np.ndindex(4, 5):
        exact = (
            Fraction(model.bias[place]) / GATE_RESOLUTION / Fraction(reals_of(made, "input")[place])
        )
        assert made.bias[place] == round(exact)


def test_input_and_cell_take_the_range_of_the_data() -> None:
    x = np.concatenate([X, np.full_like(X, 1e9)], axis=1)
    made = quantize_lstm(real_layer(1), x, lengths=np.full(3, 5))
    alone = quantize_lstm(real_layer(1), X)
    assert made.input_scale == alone.input_scale
    assert made.cell_exponent == alone.cell_exponent
    # A forget gate that stays open, and inputs of one sign: the cell grows with time.
    ones = np.ones((4, 1, 1))
    growing = Float64Lstm(ones * 4, ones * 0, np.array([[8.0], [8.0], [8.0], [0.0]]))
    made = quantize_lstm(growing, np.ones((1, 20, 1)))
    assert made.cell_exponent == -10  # from 16 to 32 in size


@pytest.mark.parametrize("to", ["ternary", "binary", "pow2"])
def test_layer_follows_the_folded_one(to: Any) -> None:
    """Widest activations: what is left is the tables' error."""
    model = real_layer(7)
    made = quantize_lstm(model, X, to=to, activation_width=16)
    quantised = Float64Lstm(
        *(
            made_levels * (reals_of(made, part) * unit)[..., np.newaxis]
            for made_levels, part, unit in (
                (made.input_weights, "input", 2.0**-12 / made.input_scale),
                (made.recurrent_weights, "recurrent", 2.0**-12 / made.hidden_scale),
            )
        ),
        model.bias,
    )
    got = made.run(quantize(X, made.input_scale, 0, 16)) * made.hidden_scale
    expected = quantised.run(X)
    assert np.abs(expected).max() > 0.2
    assert np.abs(got - expected).max() < 4e-4


@pytest.mark.parametrize(
    ("to", "rule"), [("ternary", ardakani_ternary), ("binary", ardakani_binary)]
)
def test_trained_layers_take_the_papers_rules(to: Any, rule: Any) -> None:
    model = normalised_layer(8)
    made = quantize_lstm(model, X, to=to)
    weights = rule(model.input_weights), rule(model.recurrent_weights)
    folded = fold(model, *weights)
    np.testing.assert_array_equal(made.input_weights, folded.input_levels)
    np.testing.assert_array_equal(made.recurrent_weights, folded.recurrent_levels)
    # Any other rule goes by way of the fold.
    other = fold(model, ott_ternary(model.input_weights), ott_ternary(model.recurrent_weights))
    by_hand = quantize_folded(other, X, to="ternary")
    np.testing.assert_array_equal(by_hand.input_weights, other.input_levels)
    with pytest.raises(ValueError, match="input_weights of binary weights must be -1 or 1, not 0"):
        quantize_folded(other, X, to="binary")


def test_powers_of_two_of_a_trained_layer_keep_its_levels() -> None:
    model = normalised_layer(9)
    exact = quantize_lstm(model, X)
    rounded = quantize_lstm(model, X, scales="powers_of_two")
    np.testing.assert_array_equal(exact.input_weights, rounded.input_weights)
    for part in ("input", "recurrent"):
        ratio = reals_of(rounded, part) / reals_of(exact, part)
        assert ratio.min() >= 2 / 3 * (1 - 1e-6)
        assert ratio.max() <= 4 / 3 * (1 + 1e-6)
    # A bias counts units of the rounded scale: its own error does not grow.
    biases = [made.bias * reals_of(made, "input") for made in (exact, rounded)]
    assert np.abs(biases[0] - biases[1]).max() <= reals_of(rounded, "input").max()


def one_unit(input_weight: float, bias: float) -> Float64Lstm:
    rows = np.zeros((4, 1, 1))
    return Float64Lstm(rows + input_weight, rows, rows[..., 0] + bias)


@pytest.mark.parametrize("to", ["ternary", "binary", "pow2"])
@pytest.mark.parametrize("scales", ["any", "powers_of_two"])
def test_a_bias_finds_its_way_through_a_row_of_nothing(to: Any, scales: Any) -> None:
    """Weights of 0, or so small that the bias would be too many units of their sum."""
    x = np.ones((1, 1, 1))
    for weight in (0.0, 1e-12, 1e-30):
        made = quantize_lstm(one_unit(weight, 0.5), x, to=to, scales=scales)
        assert 2**12 <= made.bias.min() <= made.bias.max() <= 1.5 * 2**30
        pre = made.bias * reals_of(made, "input")
        np.testing.assert_allclose(pre, 0.5 * 2**12, rtol=1e-6)
        assert made.input_weights.any() == (to == "binary")
    # Nothing at all: no multiplier, no bias.
    made = quantize_lstm(one_unit(0.0, 0.0), x, to=to)
    assert not made.bias.any()
    assert not made.input_multipliers.any()
    # So large a bias saturates the gate, not its 32 bits.
    made = quantize_lstm(one_unit(1.0, 1e5), x, to=to, scales=scales)
    assert (made.bias * reals_of(made, "input")).min() > 2**15
    assert made.bias.max() < 2**31 - 1


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
        quantize_lstm(layer, X, to="binary")
    text = "A {} layer must be a plain LSTM, but {} has {}; quantise it to int8."
    assert str(error.value) == text.format("binary", "this layer", found)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        quantize_network(Network((Node(layer, name="lower"),)), X)
    assert str(error.value) == text.format("ternary", "layer 'lower'", found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "int8"}, 'to must be "ternary" or "binary" or "pow2", not \'int8\'.'),
        ({"scales": "some"}, 'scales must be "any" or "powers_of_two", not \'some\'.'),
        ({"activation_width": 17}, "activation_width must be from 4 to 16, not 17."),
        (
            {"to": "pow2", "exponents": 5},
            "exponents must be from 1 to 4 for pow2, and left out for ternary and binary, not 5.",
        ),
        (
            {"exponents": 2},
            "exponents must be from 1 to 4 for pow2, and left out for ternary and binary, not 2.",
        ),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        quantize_lstm(real_layer(1), X, **options)
    assert str(error.value) == message


def test_wrong_data_and_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="The calibration inputs must not all be 0, for they"):
        quantize_lstm(real_layer(1), X * 0)
    with pytest.raises(ValueError, match="must span a range that binary32 can hold, but their"):
        quantize_lstm(real_layer(1), X * 1e-44)
    with pytest.raises(ValueError, match=r"A multiplier must be below 2\^30"):
        quantize_lstm(real_layer(1, scale=1e9), X)
    unit = BatchNorm(*np.ones((4, 5)))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        quantize_lstm(replace(normalised_layer(1), cell_norm=unit), X)
    assert str(error.value) == (
        "A ternary layer has no norm of the cell, but the model has one; train it without."
    )


# Networks


def test_one_layer_is_quantised_as_alone() -> None:
    for to in ("ternary", "binary", "pow2"):
        alone = quantize_lstm(real_layer(1), X, to=to)
        assert_same(
            alone, quantize_network(Network((Node(real_layer(1)),)), X, to=to).nodes[0].lstm
        )


def test_a_network_follows_the_real_one() -> None:
    calls: list[None] = []
    quantised = quantize_network(stack(), X, to="pow2", done=lambda: calls.append(None))
    assert len(calls) == 3
    first, second, third = (node.lstm for node in quantised.nodes)
    assert first.input_scale == second.input_scale
    assert third.input_scale == 2.0**-11
    got = run(quantised, quantize(X, first.input_scale, 0, 12)) * third.hidden_scale
    expected = run(stack(), X)
    assert np.abs(got - expected).max() < 0.1
    assert np.abs(got).max() > 0.2


def test_later_layers_are_calibrated_on_quantised_ones() -> None:
    """A weight of 0, which binary ones cannot be, drives the layer above: its cells show it."""
    rows = np.zeros((4, 1, 2))
    rows[2] = [4.0, 0.0]
    lower = Float64Lstm(rows, np.zeros((4, 1, 1)), np.array([[9.0], [-9.0], [0.0], [9.0]]))
    ones = np.ones((4, 1, 1))
    upper = Float64Lstm(ones * 6, ones * 0, np.array([[9.0], [9.0], [0.0], [0.0]]))
    x = np.zeros((1, 30, 2))
    x[..., 1] = 1
    x[0, 0, 0] = 1e-3
    network = Network((Node(lower), Node(upper, (0,))))
    exponents = [
        [node.lstm.cell_exponent for node in quantize_network(network, x, to=to).nodes]
        for to in ("ternary", "binary")
    ]
    assert exponents == [[-15, -15], [-15, -10]]


def test_a_layer_beside_hidden_values_takes_their_step() -> None:
    nodes = (Node(real_layer(1)), Node(real_layer(2, 9, 4), (NETWORK_INPUT, 0), name="upper"))
    network = Network(nodes)
    made = quantize_network(network, X / 4)
    assert [node.lstm.input_scale for node in made.nodes] == [2.0**-11] * 2
    with pytest.raises(ValueError) as error:  # noqa: PT011
        quantize_network(network, X)
    assert str(error.value) == (
        "Layer 'upper' reads the network's input beside hidden values, which are from -1 to 1: so "
        f"must the calibration inputs be, not {np.abs(X).max():g} in size; rescale the model's "
        "input."
    )


def test_raws_of_another_step_or_width_are_refused() -> None:
    first, second, third = quantize_network(stack(), X).nodes
    lstm = first.lstm

    def refused(*nodes: Node) -> str:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            Network(nodes)
        return str(error.value)

    odd = replace(second, lstm=replace(second.lstm, input_scale=1.0))
    assert refused(first, odd, third) == (
        f"Node 1 must have input_scale {lstm.input_scale}, as the network's input that it reads, "
        "not 1.0."
    )
    odd = replace(third, lstm=replace(third.lstm, input_scale=1.0))
    assert refused(first, second, odd) == (
        "Node 2 must have input_scale 0.00048828125, as hidden values that it reads, not 1.0."
    )
    odd = replace(third, lstm=replace(third.lstm, activation_width=8))
    assert refused(first, second, odd) == (
        "Node 2 must have activation_width 12, as hidden values that it reads, not 8."
    )


# Files


def assert_same(one: TernaryLstm, other: object) -> None:
    assert isinstance(other, TernaryLstm)
    for field in fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        assert type(first) is type(second)
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("to", ["ternary", "binary", "pow2"])
def test_what_is_saved_comes_back(tmp_path: Path, to: Any) -> None:
    lstm = quantize_lstm(real_layer(1), X, to=to, activation_width=9, activation="gemmlowp")
    save_model(tmp_path / "m.npz", Model(lstm, ReadOut(np.ones((2, 5)), np.zeros(2))))
    loaded = load_model(tmp_path / "m.npz")
    assert_same(lstm, loaded.lstm)
    assert loaded.read_out is not None
    network = quantize_network(stack(), X, to=to)
    save_network(tmp_path / "n.npz", network)
    again = load_network(tmp_path / "n.npz")
    for one, other in zip(network.nodes, again.nodes, strict=True):
        assert_same(one.lstm, other.lstm)
        assert (one.sources, one.reverse, one.name) == (other.sources, other.reverse, other.name)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weights", None, "weights is missing"),
        (
            "weights",
            np.array("any"),
            'weights must be "ternary" or "binary" or "pow2", not \'any\'',
        ),
        ("weights", np.array("binary"), "input_weights of binary weights must be -1 or 1, not 0"),
        ("exponents", np.int32(2), "exponents must be 1 for ternary weights, not 2"),
        ("activation_width", np.int32(17), "activation_width must be from 4 to 16, not 17"),
        ("input_scale", np.float32(np.nan), "input_scale must be a finite binary32 number above"),
        (
            "input_weights",
            np.zeros((4, 5, 4), np.int16),
            "input_weights must be int8 of shape (gates, hidden, inputs), not int16 of shape (4,",
        ),
        ("input_weights", np.full((4, 5, 4), 2, np.int8), "input_weights must be from -1 to 1"),
        (
            "input_multipliers",
            np.full((4, 5), 100, np.int32),
            "input_multipliers must be multiples of 128, not 100",
        ),
        (
            "recurrent_multipliers",
            np.full((4, 5), -128, np.int32),
            "recurrent_multipliers must be from 0 to 2147483520, not -128",
        ),
        (
            "recurrent_shifts",
            np.zeros((4, 6), np.int8),
            (
                "recurrent_shifts must be int8 of shape (gates, hidden), where gates is 4 and "
                "hidden is 5, not"
            ),
        ),
        ("input_shifts", np.full((4, 5), -32, np.int8), "input_shifts must be from -31 to 30"),
        (
            "rounding",
            np.array("double"),
            "rounding does not belong to a model of kind ternary_lstm",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, name: str, value: Any, message: str) -> None:
    path = tmp_path / "m.npz"
    lstm = quantize_lstm(real_layer(1), X)
    assert (lstm.input_weights == 0).any()
    save_model(path, Model(lstm))
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


@pytest.mark.parametrize(
    ("to", "words", "said", "dtype"),
    [
        ("ternary", [], "ternary, activation table, activation width 12", np.int16),
        (
            "binary",
            ["--activation-width", 8, "--activation", "gemmlowp"],
            "binary, activation gemmlowp, activation width 8",
            np.int8,
        ),
        (
            "pow2",
            ["--exponents", 2, "--scales", "powers_of_two"],
            "pow2, exponents 2, activation table, activation width 12",
            np.int16,
        ),
    ],
)
def test_quantize_then_run(
    capsys, tmp_path: Path, real_file: Path, to: Any, words: list[Any], said: str, dtype: Any
) -> None:
    made, reals = tmp_path / "made.npz", tmp_path / "x.npy"
    raws, out = tmp_path / "raws.npy", tmp_path / "y.npy"
    command = ["quantize", real_file, "--to", to, "--calibrate", reals, "--out", made, *words]
    status, text, err = fewbit(capsys, *command)
    assert (status, err) == (0, "")
    assert text == f"{made}: 2 layers, {said}, calibrated on 3 sequences of 5 steps\n"
    given = {str(key)[2:].replace("-", "_"): value for key, value in zip(*[iter(words)] * 2)}  # noqa: B905
    expected = quantize_network(stack(), X, to=to, **given)
    network = load_network(made)
    for one, other in zip(network.nodes, expected.nodes, strict=True):
        assert_same(one.lstm, other.lstm)
    first, last = expected.nodes[0].lstm, expected.nodes[2].lstm
    x = quantize(X, first.input_scale, 0, first.activation_width)
    np.save(raws, x.astype(dtype))
    assert fewbit(capsys, "run", made, "--input", raws, "--output", out)[0] == 0
    output = np.load(out)
    assert output.dtype == dtype
    np.testing.assert_array_equal(output, run(expected, x))
    assert fewbit(capsys, "run", made, "--input", reals, "--output", out, "--real")[0] == 0
    np.testing.assert_array_equal(np.load(out), dequantize(run(expected, x), last.hidden_scale, 0))
    words = ["run", made, "--input", raws, "--output", out, "--activation", "gemmlowp"]
    assert fewbit(capsys, *words)[0] == 0
    changed = [
        replace(node, lstm=replace(node.lstm, activation="gemmlowp")) for node in network.nodes
    ]
    np.testing.assert_array_equal(np.load(out), run(Network(tuple(changed)), x))


def test_mistakes_are_answered_in_one_sentence(capsys, tmp_path: Path, real_file: Path) -> None:
    out, raws, made = tmp_path / "y.npy", tmp_path / "raws.npy", tmp_path / "made.npz"
    save_network(made, quantize_network(stack(), X))
    narrow = tmp_path / "narrow.npz"
    save_network(narrow, quantize_network(stack(), X, activation_width=6))

    def refused(*words: object) -> str:
        status, text, err = fewbit(capsys, *words)
        assert (status, text) == (2, "")
        assert not out.exists()
        return err

    words = ["quantize", real_file, "--calibrate", tmp_path / "x.npy", "--out", out, "--to"]
    for option, value in (("activation-width", 8), ("scales", "any")):
        assert refused(*words, "int8", f"--{option}", value) == (
            f"--{option} goes with --to ternary, binary or pow2; leave it out.\n"
        )
    assert refused(*words, "ternary", "--exponents", 2) == (
        "--exponents goes with --to pow2; leave it out.\n"
    )
    assert refused(*words, "binary", "--lanes", 8) == (
        "--lanes goes with --to floatsd8; leave it out.\n"
    )
    assert refused(*words, "binary", "--activation-width", 17) == (
        "--activation-width must be from 4 to 16, not 17.\n"
    )
    for model, array, sentence in (
        (made, X, "integer raws from -2048 to 2047, not float64; for real numbers give --real."),
        (made, np.full(X.shape, 2048), "raws from -2048 to 2047, not 2048; for real numbers give"),
        (made, np.zeros(X.shape, np.uint16), "signed raws from -2048 to 2047, not uint16; save"),
        (narrow, np.full(X.shape, -33), "raws from -32 to 31, not -33; for real numbers give"),
        (narrow, np.zeros(X.shape, np.uint8), "signed raws from -32 to 31, not uint8; save them"),
    ):
        np.save(raws, array)
        sentence_given = refused("run", model, "--output", out, "--input", raws)
        assert sentence_given.startswith(f"The sequences must be {sentence}")
        assert sentence_given.count("\n") == 1
    np.save(raws, np.full(X.shape, np.nan))
    assert refused("run", made, "--output", out, "--input", raws, "--real") == (
        "Values must be finite, not nan.\n"
    )
    assert refused("quantize", made, *words[2:], "binary") == (
        f"'{made}' is quantised already; give a real model.\n"
    )


def test_scaled_weights_stay_what_they_were() -> None:
    """A layer without norms folds to its rows' scales: nothing is lost on the way."""
    model = real_layer(6)
    rows = [
        quantize_rows(weights, "ternary")
        for weights in (model.input_weights, model.recurrent_weights)
    ]
    folded = fold(BatchNormLstm(model.input_weights, model.recurrent_weights, model.bias), *rows)
    assert isinstance(rows[0], ScaledWeights)
    np.testing.assert_array_equal(folded.input_scales, rows[0].row_scales)
    assert_same(quantize_folded(folded, X), quantize_lstm(model, X))
