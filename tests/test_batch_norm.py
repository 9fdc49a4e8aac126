"""Batch normalisation, real, folded and in integers, against PyTorch, the paper, and fractions."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbit.golden.arithmetic import Rounding
from fewbit.golden.lstm.batch_norm import BatchNorm, BatchNormLstm, run_with_cell
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.quantize.batch_norm import FoldedLstm, fix, fix_scales, fold
from fewbit.golden.quantize.ternary import (
    ScaledWeights,
    ardakani_binary,
    ardakani_ternary,
    normalized_ternary,
    ott_ternary,
    power_of_two,
)

Reals = npt.NDArray[np.float64]
INPUTS, HIDDEN = 6, 9
QUANTISERS: dict[str, Callable[[Reals], ScaledWeights]] = {
    "binary": ardakani_binary,
    "ternary": ardakani_ternary,
    "ott": ott_ternary,
    "power of two": power_of_two,
    "a scale a row": normalized_ternary,
}
SIGNED = pytest.mark.parametrize("cell", [False, True], ids=["no norm of the cell", "with one"])


def random_norm(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> BatchNorm:
    """A norm of values around `spread`; a third of the gains are negative and one is 0."""
    gain = rng.uniform(0.1, 1.2, shape) * rng.choice([-1, 1, 1], shape)
    gain.ravel()[0] = 0
    return BatchNorm(
        gain,
        rng.normal(0, 0.5, shape),
        rng.normal(0, spread, shape),
        rng.uniform(0.2, 2, shape) * spread**2,
    )


def random_layer(
    seed: int, cell: bool = True, inputs: int = INPUTS, hidden: int = HIDDEN
) -> BatchNormLstm:
    rng = np.random.default_rng(seed)
    return BatchNormLstm(
        rng.normal(0, 0.3, (4, hidden, inputs)),
        rng.normal(0, 0.3, (4, hidden, hidden)),
        rng.normal(0, 0.3, (4, hidden)),
        random_norm(rng, (4, hidden), 0.5),
        random_norm(rng, (4, hidden), 0.3),
        random_norm(rng, (hidden,), 0.6) if cell else None,
    )


def quantised(
    name: str, seed: int, cell: bool = True
) -> tuple[BatchNormLstm, ScaledWeights, ScaledWeights]:
    """A layer with quantised weights, and these."""
    layer = random_layer(seed, cell)
    weights = QUANTISERS[name](layer.input_weights), QUANTISERS[name](layer.recurrent_weights)
    layer = replace(layer, input_weights=weights[0].reals, recurrent_weights=weights[1].reals)
    return layer, *weights


def sequences(seed: int, inputs: int = INPUTS) -> Reals:
    return np.random.default_rng(seed).normal(0.2, 1, (5, 12, inputs))


def by_pytorch(layer: BatchNormLstm, x: Reals) -> tuple[Reals, Reals]:
    """The same layer of PyTorch's BatchNorm1d modules, in evaluation mode."""
    import torch

    def module(norm: BatchNorm):
        made = torch.nn.BatchNorm1d(norm.gain.size, eps=norm.epsilon).double()
        for target, values in (
            (made.weight.data, norm.gain),
            (made.bias.data, norm.bias),
            (made.running_mean, norm.mean),
            (made.running_var, norm.variance),
        ):
            target.copy_(torch.tensor(values.ravel()))
        return made.eval()

    assert layer.input_norm is not None
    assert layer.recurrent_norm is not None
    norms = module(layer.input_norm), module(layer.recurrent_norm)
    cell_norm = torch.nn.Identity() if layer.cell_norm is None else module(layer.cell_norm)
    units = layer.hidden
    w = torch.tensor(layer.input_weights.reshape(4 * units, -1))
    r = torch.tensor(layer.recurrent_weights.reshape(4 * units, -1))
    b = torch.tensor(layer.bias.ravel())
    given_x = torch.tensor(x)
    h = c = torch.zeros(len(x), units, dtype=torch.float64)
    hiddens, cells = [], []
    with torch.no_grad():
        for moment in range(x.shape[1]):
            z = norms[0](given_x[:, moment] @ w.T) + norms[1](h @ r.T) + b
            i, f, g, o = z.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(cell_norm(c))
            hiddens.append(h.numpy())
            cells.append(c.numpy())
    return np.stack(hiddens, axis=1), np.stack(cells, axis=1)


@pytest.mark.torch
@SIGNED
def test_reference_agrees_with_pytorch(cell: bool) -> None:
    layer, x = random_layer(1, cell), sequences(2)
    for ours, theirs in zip(run_with_cell(layer, x), by_pytorch(layer, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


def test_without_norms_it_is_the_plain_lstm() -> None:
    layer = replace(random_layer(3), input_norm=None, recurrent_norm=None, cell_norm=None)
    plain = Float64Lstm(layer.input_weights, layer.recurrent_weights, layer.bias)
    x = sequences(4)
    for ours, theirs in zip(run_with_cell(layer, x), plain.run_with_cell(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


def test_papers_gate_order() -> None:
    """The paper's cell, its parts g, f, i, o side by side, with those parts put at 2, 1, 0, 3."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(HIDDEN, 4 * HIDDEN)), rng.normal(size=(INPUTS, 4 * HIDDEN))
    gain_a, gain_b, beta, mean_a, mean_b = rng.normal(size=(5, 4 * HIDDEN))
    var_a, var_b = rng.uniform(0.5, 2, (2, 4 * HIDDEN))
    x = sequences(6)

    h, c = np.zeros((2, len(x), HIDDEN))
    expected: list[Reals] = []
    for moment in range(x.shape[1]):
        normal_a = (h @ a - mean_a) * gain_a / np.sqrt(var_a + 1e-5) + beta
        normal_b = (x[:, moment] @ b - mean_b) * gain_b / np.sqrt(var_b + 1e-5)
        parts = np.split(normal_a + normal_b, 4, axis=1)
        g, (f, i, o) = np.tanh(parts[0]), (1 / (1 + np.exp(-part)) for part in parts[1:])
        c = f * c + i * g
        h = o * np.tanh(c)
        expected.append(h)

    def ours(vector: Reals) -> Reals:
        return vector.reshape(4, HIDDEN, *vector.shape[1:])[[2, 1, 0, 3]]

    layer = BatchNormLstm(
        ours(b.T),
        ours(a.T),
        np.zeros((4, HIDDEN)),
        BatchNorm(ours(gain_b), np.zeros((4, HIDDEN)), ours(mean_b), ours(var_b)),
        BatchNorm(ours(gain_a), ours(beta), ours(mean_a), ours(var_a)),
    )
    actual = run_with_cell(layer, x)[0]
    np.testing.assert_allclose(actual, np.stack(expected, axis=1), rtol=0, atol=1e-12)


@SIGNED
@pytest.mark.parametrize("name", QUANTISERS)
def test_folded_layer_is_the_normalised_one(name: str, cell: bool) -> None:
    layer, *weights = quantised(name, 7, cell)
    folded, x = fold(layer, *weights), sequences(8)
    hidden, cells = run_with_cell(layer, x)
    folded_hidden, folded_cells = run_with_cell(folded, x)
    np.testing.assert_allclose(folded_hidden, hidden, rtol=0, atol=1e-13)
    np.testing.assert_allclose(folded_cells * folded.cell_signs, cells, rtol=0, atol=1e-13)
    assert np.abs(hidden).max() > 0.2  # the sequences drive the layer somewhere
    assert (folded.input_scales >= 0).all()
    assert (folded.recurrent_scales >= 0).all()
    assert (folded.cell_signs < 0).any() == cell
    levels = set(np.unique(weights[0].levels).tolist())
    assert set(np.unique(folded.input_levels).tolist()) == levels


def test_folded_scales_by_fractions() -> None:
    """s = scale gain / sqrt(variance + epsilon), and b with both means, in exact arithmetic."""
    layer, *weights = quantised("ternary", 9, cell=False)
    folded = fold(layer, *weights)
    norms = layer.input_norm, layer.recurrent_norm
    for row in np.ndindex(4, HIDDEN):
        bias = Fraction(layer.bias[row])
        for norm, part, scales in zip(
            norms, weights, (folded.input_scales, folded.recurrent_scales), strict=True
        ):
            assert norm is not None
            # The square of the scale has no root in it.
            inverse = Fraction(norm.gain[row]) ** 2 / (
                Fraction(norm.variance[row]) + Fraction(norm.epsilon)
            )
            exact = inverse * Fraction(float(part.scale)) ** 2
            assert float(scales[row]) ** 2 == pytest.approx(float(exact), rel=1e-14)
            sign = -1 if norm.gain[row] < 0 else 1
            root = sign * Fraction(math.sqrt(inverse))
            bias += Fraction(norm.bias[row]) - Fraction(norm.mean[row]) * root
        assert folded.bias[row] == pytest.approx(float(bias), abs=1e-14)


def test_a_forgotten_mean_or_sign_is_seen() -> None:
    """The comparison of folded and normalised layers can fail."""
    layer, *weights = quantised("ternary", 7)
    folded, x = fold(layer, *weights), sequences(8)
    hidden = run_with_cell(layer, x)[0]
    assert layer.input_norm is not None
    shifted = replace(folded, bias=folded.bias + 0.01 * layer.input_norm.mean)
    turned = replace(folded, input_levels=np.abs(folded.input_levels))
    for wrong in (shifted, turned):
        assert np.abs(run_with_cell(wrong, x)[0] - hidden).max() > 1e-4


def nearest_by_fractions(scale: Fraction, bits: int) -> Fraction:
    """`bits` significant bits: the nearest of the two neighbours, ties to the even one."""
    exponent = math.floor(math.log2(scale)) + 1 - bits
    while scale >= Fraction(2) ** (exponent + bits):
        exponent += 1
    while scale < Fraction(2) ** (exponent + bits - 1):
        exponent -= 1
    ulp = Fraction(2) ** exponent
    return round(scale / ulp) * ulp


@settings(max_examples=300, deadline=None)
@given(
    st.floats(2.0**-31, 2.0**29),
    st.integers(1, 24),
)
def test_scales_are_rounded_to_nearest(scale: float, bits: int) -> None:
    fixed = fix_scales(scale, bits)
    exact, real = Fraction(scale), Fraction(float(fixed.reals))
    assert real == nearest_by_fractions(exact, bits)
    assert abs(real - exact) <= exact / (2**bits + 1)
    assert int(fixed.multipliers) % 2 ** (31 - bits) == 0
    assert 2**30 <= fixed.multipliers < 2**31


def test_powers_of_two() -> None:
    scales = [1.0, 1.4999, 1.5, 1.5001, 2.0, 2.9, 3.0, 0.0, 0.75, 2.0**-32, 2.0**-34]
    fixed = fix_scales(scales, 1)
    expected = [1, 1, 2, 2, 2, 2, 4, 0, 1, 2.0**-32, 0]
    assert fixed.reals.tolist() == expected
    # No multiplier: every one is 2^30, and the shift alone counts.
    assert set(fixed.multipliers.tolist()) == {0, 2**30}
    # The bound is reached at a tie, and nearest in the logarithm would do worse there.
    assert abs(fix_scales(1.5, 1).reals / 1.5 - 1) == pytest.approx(1 / 3)
    grid = np.linspace(1, 2, 1001)
    by_logarithm = 2 ** np.rint(np.log2(grid))
    errors = np.abs(fix_scales(grid, 1).reals / grid - 1), np.abs(by_logarithm / grid - 1)
    assert (errors[0] <= errors[1]).all()
    assert errors[0].max() <= 1 / 3 < 0.41 < errors[1].max()


def random_raws(
    rng: np.random.Generator, count: int, inputs: int, hidden: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Activations of 12 bits, some vectors of extremes."""
    x = rng.integers(-2048, 2048, (count, inputs))
    h = rng.integers(-2048, 2048, (count, hidden))
    x[0], h[0] = -2048, 2047
    return x, h


@pytest.mark.parametrize("rounding", ["single", "double"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 24])
@pytest.mark.parametrize("name", QUANTISERS)
def test_integer_pre_activations_keep_the_stated_bound(
    name: str, bits: int, rounding: Rounding
) -> None:
    layer, *weights = quantised(name, 10)
    folded = fold(layer, *weights)
    x, h = random_raws(np.random.default_rng(11), 50, INPUTS, HIDDEN)
    fixed = fix(
        folded,
        input_resolution=2.0**-9,
        hidden_resolution=2.0**-11,
        cell_resolution=2.0**-12,
        bits=bits,
    )
    exact = folded.pre_activations(x * 2.0**-9, h * 2.0**-11) / fixed.gate_resolution
    sums = fixed.sums(x, h)
    error = np.abs(fixed.pre_activations(sums, rounding) - exact)
    bound = fixed.error(sums, rounding)
    assert (error <= bound + 1e-6).all()
    # Neither is the bound idle: with 24 bits it is two roundings and the bias.
    assert error.max() > (0.4 if bits < 24 else 0.3) * bound.max()
    if bits == 24:
        assert bound.max() <= 1.51 if rounding == "single" else 2.01
    # What the header says of all scales.
    relative = np.abs(sums * fixed.scales.exact).sum(axis=-1) / (2**bits + 1) + 1.5
    assert (bound <= relative + 0.5 * (rounding == "double") + 1e-9).all()


@pytest.mark.parametrize("rounding", ["single", "double"])
def test_sums_by_fractions(rounding: Rounding) -> None:
    """One row after the other, exact products rounded as the split multiplier rounds."""
    layer, *weights = quantised("ternary", 12)
    folded = fold(layer, *weights)
    fixed = fix(
        folded,
        input_resolution=2.0**-9,
        hidden_resolution=2.0**-11,
        cell_resolution=2.0**-12,
        bits=5,
    )
    x, h = random_raws(np.random.default_rng(13), 3, INPUTS, HIDDEN)
    sums = fixed.sums(x, h)
    actual = fixed.pre_activations(sums, rounding)

    def scaled(total: int, multiplier: int, shift: int) -> int:
        if rounding == "single":
            return math.floor(Fraction(total * multiplier, 2**31) * Fraction(2) ** shift + HALF)
        left, right = max(shift, 0), max(-shift, 0)
        high = math.floor(Fraction((total << left) * multiplier, 2**31) + HALF)
        magnitude = math.floor(Fraction(abs(high), 2**right) + HALF)
        return magnitude if high >= 0 else -magnitude

    for vector, gate, unit in np.ndindex(3, 4, HIDDEN):
        totals = [
            sum(int(level) * int(raw) for level, raw in zip(row, operand, strict=True))
            for row, operand in (
                (folded.input_levels[gate, unit], x[vector]),
                (folded.recurrent_levels[gate, unit], h[vector]),
            )
        ]
        assert sums[vector, gate, unit].tolist() == totals
        expected = int(fixed.bias[gate, unit]) + sum(
            scaled(total, int(multiplier), int(shift))
            for total, multiplier, shift in zip(
                totals,
                fixed.scales.multipliers[gate, unit],
                fixed.scales.shifts[gate, unit],
                strict=True,
            )
        )
        assert actual[vector, gate, unit] == expected


HALF = Fraction(1, 2)


@pytest.mark.parametrize("bits", [1, 8, 24])
def test_integer_norm_of_the_cell(bits: int) -> None:
    layer, *weights = quantised("ternary", 14)
    folded = fold(layer, *weights)
    fixed = fix(
        folded, input_resolution=1.0, hidden_resolution=1.0, cell_resolution=2.0**-12, bits=bits
    )
    assert fixed.cell_scales is not None
    raws = np.random.default_rng(15).integers(-(2**15), 2**15, (100, HIDDEN))
    exact = folded.normalize_cell(raws * 2.0**-12) / fixed.gate_resolution
    error = np.abs(fixed.normalize_cell(raws) - exact)
    assert (error <= fixed.cell_scales.error(raws) + 0.5 + 1e-6).all()
    without = fix(
        fold(*quantised("ternary", 14, cell=False)), input_resolution=1.0, hidden_resolution=1.0
    )
    with pytest.raises(ValueError, match="The layer has no norm of the cell"):
        without.normalize_cell(raws)


def rounded(fixed_bits: int, folded: FoldedLstm) -> FoldedLstm:
    """The folded layer with scales of `fixed_bits` bits."""
    fixed = fix(
        folded, input_resolution=1.0, hidden_resolution=1.0, cell_resolution=1.0, bits=fixed_bits
    )
    scales = fixed.scales.reals * fixed.gate_resolution
    assert fixed.cell_scales is not None
    return replace(
        folded,
        input_scales=scales[..., 0],
        recurrent_scales=scales[..., 1],
        cell_scales=fixed.cell_scales.reals * fixed.gate_resolution,
    )


@pytest.mark.parametrize(
    ("bits", "largest"), [(24, 3e-7), (12, 1e-3), (8, 2e-2), (4, 0.25), (1, 1.2)]
)
def test_hidden_values_with_rounded_scales(bits: int, largest: float) -> None:
    """Measured, not proven: the largest error of a hidden value of random layers, 12 steps."""
    errors = []
    for seed in range(5):
        folded = fold(*quantised("ternary", 100 + seed))
        x = sequences(seed)
        error = run_with_cell(rounded(bits, folded), x)[0] - run_with_cell(folded, x)[0]
        errors.append(np.abs(error).max())
    assert largest / 20 < max(errors) < largest


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fix_scales(-1.0), "A multiplier must be a finite number of at least 0, not -1.0"),
        (lambda: fix_scales(np.nan), "A multiplier must be a finite number of at least 0, not nan"),
        (lambda: fix_scales(np.inf), "A multiplier must be a finite number of at least 0, not inf"),
        (lambda: fix_scales(2.0**30), r"A multiplier must be below 2\^30, not 1073741824.0"),
        (lambda: fix_scales(1.0, 25), "bits must be an integer from 1 to 24, not 25."),
        (lambda: fix_scales(1.0, 0), "bits must be an integer from 1 to 24, not 0."),
        (
            lambda: fix(
                fold(*quantised("ternary", 1)), input_resolution=1.0, hidden_resolution=1.0
            ),
            "cell_resolution must be given, because the layer has a norm of the cell.",
        ),
        (
            lambda: fix(
                fold(*quantised("ott", 1, False)), input_resolution=0.0, hidden_resolution=1.0
            ),
            "input_resolution must be a finite number above 0, not 0.0.",
        ),
        (
            lambda: fix(
                fold(*quantised("ott", 1, False)),
                input_resolution=2.0**-40,
                hidden_resolution=2.0**-40,
                gate_resolution=2.0**-40,
            ),
            "A bias must be below 0.00195312",
        ),
        (
            lambda: fold(random_layer(1), *quantised("ternary", 1)[:0:-1]),
            r"input_weights must have the shape \(4, 9, 6\), not \(4, 9, 9\).",
        ),
        (
            lambda: replace(fold(*quantised("ott", 1)), input_scales=-np.ones((4, 9))),
            "input_scales must be at least 0, not -1.0.",
        ),
        (
            lambda: replace(fold(*quantised("ott", 1)), cell_bias=None),
            "cell_scales and cell_bias go together, but one of them is None.",
        ),
        (
            lambda: replace(fold(*quantised("ott", 1)), recurrent_levels=np.ones((4, 9, 6), int)),
            r"recurrent_levels must have the shape \(4, 9, 9\), not \(4, 9, 6\).",
        ),
        (
            lambda: BatchNorm(np.ones(3), np.ones(3), np.ones(3), np.array([1.0, -1.0, 0.0])),
            "variance must be at least 0, and greater than 0 where epsilon is 0, not -1.0.",
        ),
        (
            lambda: BatchNorm(np.ones(3), np.ones(3), np.ones(2), np.ones(3)),
            r"mean must have the shape \(3,\), not \(2,\).",
        ),
        (
            lambda: replace(random_layer(1), cell_norm=random_layer(1).input_norm),
            r"cell_norm must have the shape \(9,\), not \(4, 9\).",
        ),
        (
            lambda: replace(random_layer(1), bias=np.full((4, 9), np.nan)),
            "bias must be finite, not nan.",
        ),
        (
            lambda: replace(random_layer(1), input_weights=np.ones((3, 9, 6))),
            r"input_weights must have the shape \(4, hidden, inputs\)",
        ),
    ],
)
def test_refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
