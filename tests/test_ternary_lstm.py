"""The golden LSTM of binary, ternary and power-of-two weights against plain integers, and reals."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.activation.integer import ACTIVATIONS
from fewbit.golden.activation.table import interpolation_table
from fewbit.golden.lstm import ternary
from fewbit.golden.lstm.batch_norm import BatchNorm, BatchNormLstm
from fewbit.golden.lstm.batch_norm import run_with_cell as run_real
from fewbit.golden.lstm.ternary import TernaryLstm, levels_of
from fewbit.golden.quantize.ternary import ardakani_binary, ardakani_ternary
from fewbit.golden.quantize.ternary_lstm import quantize_lstm

Raws = npt.NDArray[np.int64]

KINDS = [("ternary", 1), ("binary", 1), ("pow2", 1), ("pow2", 2), ("pow2", 3), ("pow2", 4)]
WIDTHS = (4, 5, 8, 12, 16)


# The oracle: a unit at a time, in whole numbers and fractions; it shares the published table alone
# (tests/test_activations.py checks that), and for gemmlowp the functions that LiteRT has checked.


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def half_away(value: Fraction) -> int:
    return half_up(value) if value >= 0 else -half_up(-value)


def within(value: int, bits: int) -> int:
    return max(-(2 ** (bits - 1)), min(value, 2 ** (bits - 1) - 1))


def wrapped(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def scaled(value: int, multiplier: int, shift: int) -> int:
    """By multiplier / 2^31 * 2^shift, rounded twice."""
    left = wrapped(value * 2 ** max(shift, 0))
    high = half_up(Fraction(left * multiplier, 2**31))
    return half_away(Fraction(high, 2 ** max(-shift, 0)))


def chord(position: Fraction) -> Fraction:
    """Interpolated sigmoid at 24 times its argument, in units of 2^-16."""
    table = interpolation_table()
    position = min(position, Fraction(255))
    index = min(floor(position), 254)
    low, high = int(table[index]), int(table[index + 1])
    return low + (position - index) * (high - low)


def sigmoid(kind: str, raw: int) -> int:
    if kind == "gemmlowp":
        return int(ACTIVATIONS["gemmlowp"].sigmoid(raw))
    half = chord(Fraction(24 * abs(raw), 2**12)) / 2
    return half_up(half) if raw >= 0 else -half_up(-(2**15 - half))


def tanh(kind: str, raw: int, exponent: int) -> int:
    if kind == "gemmlowp":
        return int(ACTIVATIONS["gemmlowp"].tanh(raw, 15 + exponent))
    # Twice the argument, at 24 table steps a unit, in 256ths of those.
    steps = half_up(Fraction(raw) * Fraction(2) ** exponent * 48 * 256)
    magnitude = chord(Fraction(abs(steps), 256)) - 2**15
    return half_away(magnitude if steps >= 0 else -magnitude)


def unit_step(
    model: TernaryLstm, unit: int, x: list[int], hidden: list[int], cell: int
) -> tuple[int, int]:
    gates: list[int] = []
    for gate in range(4):
        total = 0
        for start, levels, operands, multipliers, shifts in (
            (
                int(model.bias[gate, unit]),
                model.input_weights,
                x,
                model.input_multipliers,
                model.input_shifts,
            ),
            (
                0,
                model.recurrent_weights,
                hidden,
                model.recurrent_multipliers,
                model.recurrent_shifts,
            ),
        ):
            row = levels[gate, unit].tolist()
            exact = start + sum(
                level * operand for level, operand in zip(row, operands, strict=True)
            )
            part = scaled(wrapped(exact), int(multipliers[gate, unit]), int(shifts[gate, unit]))
            total = within(total + part, 16)
        gates.append(total)
    kind, exponent = model.activation, model.cell_exponent
    i, f, o = (sigmoid(kind, gates[index]) for index in (0, 1, 3))
    g = tanh(kind, gates[2], -12)
    kept = half_away(Fraction(f * cell, 2**15))
    new = within(kept + half_away(Fraction(i * g, 2 ** (30 + exponent))), 16)
    if model.cell_clip:
        new = max(-model.cell_clip, min(new, model.cell_clip))
    # From 2^-30 to 2^-(A - 1): half of it first, as by a multiplier of 2^30 / 2^31.
    product = half_up(Fraction(o * tanh(kind, new, exponent), 2))
    width = model.activation_width
    return within(half_away(Fraction(product, 2 ** (30 - width))), width), new


def by_integers(model: TernaryLstm, x: Raws) -> tuple[Raws, Raws]:
    """Hidden and cell raws (batch, time, hidden)."""
    hiddens, cells = np.zeros((2, *x.shape[:2], model.hidden), np.int64)
    for sequence, inputs in enumerate(x.tolist()):
        hidden, cell = [0] * model.hidden, [0] * model.hidden
        for moment, vector in enumerate(inputs):
            new = [
                unit_step(model, unit, vector, hidden, cell[unit]) for unit in range(model.hidden)
            ]
            hidden, cell = [h for h, _ in new], [c for _, c in new]
            hiddens[sequence, moment], cells[sequence, moment] = hidden, cell
    return hiddens, cells


# Random layers.


def random_layer(
    seed: int, kind: tuple[str, int] = ("ternary", 1), width: int = 12, **more: Any
) -> TernaryLstm:
    """A layer of an odd size; of its rows some have scales and biases of any size."""
    rng = np.random.default_rng(seed)
    hidden, inputs = int(rng.choice([1, 3, 5])), int(rng.choice([1, 4, 7]))
    rows = (4, hidden)
    levels = np.array(levels_of(kind[0], kind[1]))  # pyright: ignore[reportArgumentType]

    def scales() -> tuple[Raws, Raws]:
        """What takes a full sum to about 2^13, and one in six anything."""
        odd = rng.random(rows) < 1 / 6
        usual = 15 - width - 1 + rng.integers(-1, 2, rows) - kind[1] // 2
        shifts = np.where(odd, rng.choice([-31, -12, 0, 7, 30], rows), usual)
        multipliers = rng.integers(2**23, 2**24, rows) << 7
        corners = rng.choice([0, 128, 2**30, 2**31 - 128], rows)
        return np.where(rng.random(rows) < 1 / 6, corners, multipliers), shifts

    (x_multipliers, x_shifts), (h_multipliers, h_shifts) = scales(), scales()
    bias = rng.integers(-(2 ** (width - 1)), 2 ** (width - 1), rows)
    odd = rng.random(rows) < 1 / 6
    bias = np.where(odd, rng.choice([0, 1, -1, 2**31 - 1, -(2**31)], rows), bias)
    fields: dict[str, Any] = {
        "weights": kind[0],
        "input_weights": rng.choice(levels, (4, hidden, inputs)).astype(np.int8),
        "recurrent_weights": rng.choice(levels, (4, hidden, hidden)).astype(np.int8),
        "bias": bias.astype(np.int32),
        "input_multipliers": x_multipliers,
        "input_shifts": x_shifts,
        "recurrent_multipliers": h_multipliers,
        "recurrent_shifts": h_shifts,
        "input_scale": 0.01,
        "activation_width": width,
        "exponents": kind[1],
        "cell_exponent": int(rng.integers(-15, -8)),
        "cell_clip": int(rng.choice([0, 0, 1, 9000, 32767])),
    }
    return TernaryLstm(**(fields | more))


def random_raws(seed: int, model: TernaryLstm, batch: int = 2, time: int = 5) -> Raws:
    rng = np.random.default_rng(seed)
    low, high = model.activation_bounds
    x = rng.integers(low, high + 1, (batch, time, model.inputs))
    return np.where(rng.random(x.shape) < 0.2, rng.choice([low, high, 0], x.shape), x)


def assert_agrees(model: TernaryLstm, x: Raws) -> tuple[Raws, Raws]:
    got, wanted = model.run_with_cell(x), by_integers(model, x)
    for name, one, other in zip(("cell", "hidden"), got[::-1], wanted[::-1], strict=True):
        places = np.argwhere(one != other)
        if len(places):
            first = tuple(places[0].tolist())
            pytest.fail(
                f"{name} (batch, time, unit) {first}: golden {one[first]}, integers {other[first]}"
            )
    return got


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_agrees_with_plain_integers(kind: tuple[str, int], width: int) -> None:
    for seed in range(4):
        activation = "gemmlowp" if seed == 3 else "table"
        model = random_layer(1000 * width + seed, kind, width, activation=activation)
        x = random_raws(seed, model)
        hidden, _ = assert_agrees(model, x)
        np.testing.assert_array_equal(model.run(x), hidden)


def test_layers_reach_what_they_are_for() -> None:
    """The seeds above see many hidden values and cells, and all levels."""
    seen: dict[str, set[int]] = {"hidden": set(), "cell": set(), "levels": set()}
    for width in WIDTHS:
        for seed in range(4):
            model = random_layer(1000 * width + seed, KINDS[-1], width)
            hidden, cell = model.run_with_cell(random_raws(seed, model))
            if width == 12:
                seen["hidden"] |= set(hidden.ravel().tolist())
            seen["cell"] |= set(cell.ravel().tolist())
            seen["levels"] |= set(model.input_weights.ravel().tolist())
    assert seen["levels"] == set(levels_of("pow2", 4))
    assert len(seen["hidden"]) > 80
    assert len(seen["cell"]) > 200


@pytest.mark.parametrize("sign", [1, -1])
def test_cells_and_hidden_values_saturate(sign: int) -> None:
    """All gates open: a cell of fine steps ends at its last raw, a narrow hidden value, too."""
    bias = np.full((4, 1), 2**15)
    bias[2] *= sign
    zeros, ones = np.zeros((4, 1), np.int64), np.full((4, 1), 2**30)
    fields: dict[str, Any] = dict.fromkeys(("recurrent_multipliers", "recurrent_shifts"), zeros)
    fields |= {"input_multipliers": ones, "input_shifts": zeros + 1, "bias": bias, "cell_clip": 0}
    weights = np.zeros((4, 1, 1), np.int64)
    for width in WIDTHS:
        model = replace(
            random_layer(1, width=width), input_weights=weights, recurrent_weights=weights, **fields
        )
        wide = replace(model, cell_exponent=-10)
        x = np.zeros((1, 40, 1), np.int64)
        _, cell = assert_agrees(replace(model, cell_exponent=-15), x)
        assert cell[0, -1, 0] == (32767 if sign > 0 else -32768)
        hidden, _ = assert_agrees(wide, x)
        limits = model.activation_bounds
        assert hidden[0, -1, 0] in (limits if width < 12 else range(limits[0], limits[1] + 1))


def test_widest_rows_wrap_at_32_bits() -> None:
    """Sums beyond 32 bits come back from the other side, as a circuit's do."""
    inputs = 9000
    ones = np.full((4, 1, inputs), 8, np.int8)
    model = random_layer(
        1,
        ("pow2", 4),
        16,
        input_weights=ones,
        recurrent_weights=np.zeros((4, 1, 1), np.int8),
        **{
            name: np.full((4, 1), value)
            for name, value in (
                ("bias", 2**31 - 1),
                ("input_multipliers", 2**30),
                ("recurrent_multipliers", 0),
                ("input_shifts", -15),
                ("recurrent_shifts", 0),
            )
        },
    )
    sums = ternary.accumulators(model, np.full((1, inputs), 32767), np.zeros((1, 1), np.int64))
    exact = 8 * 32767 * inputs + 2**31 - 1
    assert exact > 2**32
    assert set(sums[..., 0].ravel().tolist()) == {wrapped(exact)}
    assert_agrees(model, np.full((1, 2, inputs), 32767))


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("once rounded", lambda **given: given | {"rounding": "single"}),
        ("a bit less", lambda **given: given | {"hidden_width": given["hidden_width"] - 1}),
        ("half as much", lambda **given: given | {"hidden_shift": given["hidden_shift"] - 1}),
        ("no clip", lambda **given: given | {"cell_clip": 0}),
    ],
)
def test_a_broken_copy_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Callable[..., dict[str, Any]]
) -> None:
    update = ternary.update_unit
    monkeypatch.setattr(
        ternary, "update_unit", lambda *rows, **given: update(*rows, **broken(**given))
    )
    caught = 0
    for seed in range(5):
        model = random_layer(12000 + seed, cell_clip=9000)
        try:
            assert_agrees(model, random_raws(seed, model, time=10))
        except pytest.fail.Exception:
            caught += 1
    assert caught, name


def test_step_by_step_is_the_run() -> None:
    model = random_layer(3)
    x = random_raws(4, model, time=6)
    hidden, cell = model.reset_state(len(x))
    hiddens, cells = model.run_with_cell(x)
    for moment in range(x.shape[1]):
        hidden, cell = model.step(x[:, moment], hidden, cell)
        np.testing.assert_array_equal(hidden, hiddens[:, moment])
        np.testing.assert_array_equal(cell, cells[:, moment])
    # From a state in the middle, the rest of it.
    rest = model.run(x[:, 3:], hidden=hiddens[:, 2], cell=cells[:, 2])
    np.testing.assert_array_equal(rest, hiddens[:, 3:])


def test_scales_of_rows_by_unit() -> None:
    model = random_layer(5)
    assert model.multipliers.shape == model.shifts.shape == model.starts.shape
    np.testing.assert_array_equal(model.multipliers[..., 0].T, model.input_multipliers)
    np.testing.assert_array_equal(model.shifts[..., 1].T, model.recurrent_shifts)
    np.testing.assert_array_equal(model.starts[..., 0].T, model.bias)
    assert not model.starts[..., 1].any()
    for width in range(4, 17):
        narrow = replace(model, activation_width=width)
        scale = narrow.hidden_multiplier * 2.0 ** (narrow.hidden_shift - 31)
        assert scale == 2.0**-30 / narrow.hidden_scale == 2.0 ** (width - 31)


# Against the real cell with batch norm.


def trained_layer(seed: int, to: str, hidden: int = 9, inputs: int = 6) -> BatchNormLstm:
    """A layer with norms of signed gains, whose weights are those of the paper's quantiser."""
    rng = np.random.default_rng(seed)
    rows = (4, hidden)

    def norm(spread: float) -> BatchNorm:
        gain = rng.uniform(0.2, 1.0, rows) * rng.choice([-1, 1, 1], rows)
        mean, variance = rng.normal(0, spread, rows), rng.uniform(0.05, 0.4, rows)
        return BatchNorm(gain, np.zeros(rows), mean, variance)

    quantise = ardakani_binary if to == "binary" else ardakani_ternary
    return BatchNormLstm(
        quantise(rng.normal(0, 0.1, (*rows, inputs))).reals,
        quantise(rng.normal(0, 0.1, (*rows, hidden))).reals,
        rng.normal(0, 0.4, rows),
        norm(0.3),
        norm(0.2),
    )


# In units of 2^-15 against the real functions: tests/test_activations.py.
SIGMOID_ERROR, GATE_TANH_ERROR, CELL_TANH_ERROR = 1.02, 1.48, 2.45


def logistic(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("scales", ["any", "powers_of_two"])
@pytest.mark.parametrize("width", [6, 12, 16])
@pytest.mark.parametrize("to", ["ternary", "binary"])
def test_every_step_is_the_normalised_cells_within_its_bound(
    to: str, width: int, scales: str
) -> None:
    """From the same state: the error of scales and bias, of both tables, and of every rounding."""
    layer = trained_layer(1, to)
    x = np.random.default_rng(2).normal(0.2, 0.7, (4, 12, layer.inputs))
    options: dict[str, Any] = {"to": to, "activation_width": width, "scales": scales}
    model = quantize_lstm(layer, x, **options)
    low, high = model.activation_bounds
    raws = np.clip(np.rint(x / model.input_scale), low, high).astype(np.int64)
    hiddens, cells = model.run_with_cell(raws)
    cell_resolution, word = 2.0**model.cell_exponent, 2.0**-15
    hidden = cell = np.zeros((len(x), model.hidden), np.int64)
    tightest = 0.0
    for moment in range(x.shape[1]):
        h, c = hidden * model.hidden_scale, cell * cell_resolution
        z = layer.pre_activations(raws[:, moment] * model.input_scale, h)
        assert np.abs(z).max() < 7  # nothing saturates
        # What the scales take from the sums, exactly known; the rest is rounding.
        sums = ternary.accumulators(model, raws[:, moment], hidden).transpose(0, 2, 1, 3)
        reals = np.ldexp(model.multipliers.astype(float), model.shifts - 31).transpose(1, 0, 2)
        z_of_integers = (sums * reals).sum(axis=-1) * 2.0**-12
        z_error = np.abs(z_of_integers - z) + 1.5 * 2.0**-12
        if scales == "any":
            # 24 bits of a scale, and half a unit of the input row's sum for the bias.
            bias_error = reals[..., 0] / 2
            rounding = np.abs(sums - model.starts.transpose(1, 0, 2)) * reals * 2.0**-24
            limit = (bias_error + rounding.sum(axis=-1)) * 2.0**-12 * (1 + 2.0**-20)
            assert (np.abs(z_of_integers - z) <= limit).all()
        i, f, o = (logistic(z[:, gate]) for gate in (0, 1, 3))
        g = np.tanh(z[:, 2])
        new = f * c + i * g
        gate_error = z_error / 4 + SIGMOID_ERROR * word
        g_error = z_error[:, 2] + GATE_TANH_ERROR * word
        i_error, f_error, o_error = (gate_error[:, gate] for gate in (0, 1, 3))
        cell_error = np.abs(c) * f_error + i_error + (i + i_error) * g_error + cell_resolution
        tanh_error = cell_error + CELL_TANH_ERROR * word
        hidden_error = o_error + (o + o_error) * tanh_error + model.hidden_scale
        hidden, cell = hiddens[:, moment], cells[:, moment]
        assert (np.abs(cell * cell_resolution - new) <= cell_error).all()
        error = np.abs(hidden * model.hidden_scale - o * np.tanh(new))
        assert (error <= hidden_error).all()
        tightest = max(tightest, float((error / hidden_error).max()))
    assert tightest > 0.1, "the bound must be near what happens"


@pytest.mark.parametrize(
    ("width", "scales", "most"),
    [(16, "any", 2.5e-4), (12, "any", 1e-3), (8, "any", 0.015), (12, "powers_of_two", 0.2)],
)
def test_sequences_stay_with_the_normalised_cell(width: int, scales: str, most: float) -> None:
    """The layer runs by itself for 40 steps; the limits are measured ones, of six layers."""
    errors: list[float] = []
    for seed in range(6):
        layer = trained_layer(10 + seed, ("ternary", "binary")[seed % 2])
        x = np.random.default_rng(seed).normal(0.2, 0.7, (4, 40, layer.inputs))
        options: dict[str, Any] = {
            "to": ("ternary", "binary")[seed % 2],
            "activation_width": width,
            "scales": scales,
        }
        model = quantize_lstm(layer, x, **options)
        low, high = model.activation_bounds
        raws = np.clip(np.rint(x / model.input_scale), low, high).astype(np.int64)
        hidden, _ = run_real(layer, x)
        assert np.abs(hidden).max() > 0.3
        errors.append(float(np.abs(model.run(raws) * model.hidden_scale - hidden).max()))
    assert most / 2 < max(errors) < most


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": "quaternary"},
            'weights must be "ternary" or "binary" or "pow2" or "int12", not ',
        ),
        ({"exponents": 2}, "exponents must be 1 for ternary weights, not 2."),
        ({"weights": "pow2", "exponents": 5}, "exponents must be from 1 to 4, not 5."),
        ({"activation_width": 3}, "activation_width must be from 4 to 16, not 3."),
        ({"activation_width": 17}, "activation_width must be from 4 to 16, not 17."),
        ({"cell_exponent": -16}, "cell_exponent must be from -15 to -9, not -16."),
        ({"cell_clip": -1}, "cell_clip must be from 0 to 32767, not -1."),
        ({"activation": "relu"}, 'activation must be "table" or "gemmlowp", not \'relu\'.'),
        ({"input_scale": 0.0}, "input_scale must be a finite binary32 number above 0, not 0.0."),
        ({"input_weights": np.zeros((3, 2, 2))}, "input_weights must have the shape (4, hidden, "),
        ({"input_weights": np.full((4, 3, 4), 2)}, "input_weights must be from -1 to 1, not 2."),
        (
            {"weights": "binary", "input_weights": np.ones((4, 3, 4), int)},
            "recurrent_weights of binary weights must be -1 or 1, not 0.",
        ),
        (
            {"weights": "pow2", "exponents": 3, "recurrent_weights": np.full((4, 3, 3), 3)},
            "recurrent_weights of pow2 weights must be -4, -2, -1, 0, 1, 2 or 4, not 3.",
        ),
        ({"recurrent_weights": np.zeros((4, 3, 4), int)}, "recurrent_weights must have the shape"),
        ({"bias": np.full((4, 3), 2**31)}, "bias must be from -2147483648 to 2147483647, not "),
        ({"bias": np.zeros((4, 3))}, "bias must be integers, not float64; round them to raws"),
        (
            {"input_multipliers": np.full((4, 3), 64)},
            "input_multipliers must be multiples of 128, not 64.",
        ),
        (
            {"recurrent_multipliers": np.full((4, 3), 2**31 - 1)},
            "recurrent_multipliers must be from 0 to 2147483520, not 2147483647.",
        ),
        ({"input_shifts": np.full((4, 3), 31)}, "input_shifts must be from -31 to 30, not 31."),
    ],
)
def test_a_wrong_layer_is_refused(change: dict[str, Any], message: str) -> None:
    zeros = {"input_weights": np.zeros((4, 3, 4), int), "bias": np.zeros((4, 3), int)}
    scales = {
        f"{part}_{name}": np.zeros((4, 3), int)
        for part in ("input", "recurrent")
        for name in ("multipliers", "shifts")
    }
    fields: dict[str, Any] = {
        "weights": "ternary",
        "recurrent_weights": np.zeros((4, 3, 3), int),
        "input_scale": 1.0,
        **zeros,
        **scales,
    }
    assert TernaryLstm(**fields).outputs == 3
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared
        TernaryLstm(**(fields | change))
    assert str(error.value).startswith(message)


def test_wrong_raws_are_refused() -> None:
    model = random_layer(3, width=8)
    x = random_raws(1, model)
    with pytest.raises(ValueError, match=r"^x must be from -128 to 127, not 128\.$"):
        model.run(np.full_like(x, 128))
    with pytest.raises(ValueError, match=r"^hidden must be from -128 to 127, not -129\.$"):
        model.run(x, hidden=np.full((len(x), model.hidden), -129))
    with pytest.raises(ValueError, match="x must have the shape"):
        model.run(x[0])


def test_arrays_are_copies_that_stay() -> None:
    given = np.zeros((4, 1, 1), np.int64)
    rows = np.zeros((4, 1), np.int64)
    model = TernaryLstm("ternary", given, given, rows, rows, rows, rows, rows, 1.0)  # pyright: ignore
    given[:] = 1
    assert not model.input_weights.any()
    assert (model.input_weights.dtype, model.bias.dtype) == (np.int8, np.int32)
    with pytest.raises(ValueError, match="read-only"):
        model.bias[0] = 1
