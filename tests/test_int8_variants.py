"""Every variant of the integer LSTM: against LiteRT byte for byte, and the fast path against it."""

import importlib
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.arithmetic import multiply_by_split_multiplier
from fewbit.golden.lstm import int8_fast, integer_step
from fewbit.golden.lstm.int8 import (
    Int8Constants,
    Int8Lstm,
    clip_code,
    litert_peephole_ties_up,
    step_constants,
)
from fewbit.golden.lstm.int8_fast import FastSteps
from fewbit.golden.lstm.integer_step import update_unit
from fewbit.golden.lstm.layer_norm import inverse_square_root, layer_norm
from tests.support.int8_cases import (
    EXPONENTS,
    SIZES,
    VARIANTS,
    Case,
    Raws,
    Variant,
    random_case,
    within_litert,
)

PROJECTED = Variant(projection=True, projection_bias=True, projection_clip=True)
EVERYTHING = Variant(
    coupled=True,
    peephole=True,
    norm=True,
    projection=True,
    projection_bias=True,
    projection_clip=True,
)
FULL = replace(EVERYTHING, coupled=False)


@pytest.fixture(scope="module")
def litert() -> ModuleType:
    pytest.importorskip("ai_edge_litert")
    return importlib.import_module("tests.support.tflite_models")


def drawn_case(
    variant: Variant, seed: int, sizes: str, exponent: int, *, clips: bool, extreme: bool
) -> Case:
    clip = 0.3 * 2.0 ** (exponent + 15) if clips else 0.0
    return random_case(
        seed, exponent=exponent, sizes=sizes, clip=clip, extreme=extreme, variant=variant
    )


def plain_run(constants: Int8Constants, x: npt.NDArray[np.int8]) -> tuple[Raws, Raws]:
    """Hidden raws of every step and the last cell, step by step."""
    hidden = np.full((len(x), constants.outputs), constants.reset_hidden)
    cell = np.zeros((len(x), constants.hidden), np.int64)
    history = np.zeros((*x.shape[:2], constants.outputs), np.int64)
    for moment in range(x.shape[1]):
        hidden, cell = step_constants(constants, x[:, moment], hidden, cell)
        history[:, moment] = hidden
    return history, cell


def litert_run(litert: ModuleType, case: Case) -> tuple[Raws, Raws]:
    batch, time, _ = case.x.shape
    return litert.run_lstm(litert.write_lstm(case.model, batch, time, **case.file_fields), case.x)


def first_difference(got: Raws, wanted: Raws) -> str:
    """Position and values of the first difference; empty if there is none."""
    assert got.shape == wanted.shape
    at = np.argwhere(got != wanted)
    if not len(at):
        return ""
    first = tuple(at[0].tolist())
    return f"{len(at)} of {got.size}, first at {first}: {got[first]}, not {wanted[first]}"


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_agrees_with_litert(litert: ModuleType, variant: Variant) -> None:
    """Also the fast path and the plain one with each other; every second layer is trained-like."""
    for k, sizes in enumerate(("trained", "usual", "trained", "mixed")):
        case = within_litert(
            drawn_case(variant, 50 + k, sizes, EXPONENTS[k], clips=k > 1, extreme=False)
        )
        output, last = litert_run(litert, case)
        hidden, cell = plain_run(case.model.constants, case.x)
        assert not first_difference(hidden, output), f"hidden of {case.seed}"
        assert not first_difference(cell, last), f"cell of {case.seed}"
        fast_hidden, fast_cell = case.model.run_with_cell(case.x)
        assert not first_difference(fast_hidden, output), f"fast hidden of {case.seed}"
        assert not first_difference(fast_cell[:, -1], last), f"fast cell of {case.seed}"


def test_any_layer_agrees_with_litert(litert: ModuleType) -> None:
    # Hypothesis would draw other examples when other modules are loaded, even derandomised.
    rng = np.random.default_rng(11)
    for seed in (0, *rng.integers(2**32, size=89).tolist()):
        variant, exponent = VARIANTS[rng.integers(len(VARIANTS))], int(rng.choice(EXPONENTS))
        sizes = str(rng.choice(sorted(SIZES)))
        clips, extreme = rng.integers(2, size=2).astype(bool).tolist()
        case = within_litert(
            drawn_case(variant, seed, sizes, exponent, clips=clips, extreme=extreme)
        )
        drawn = f"{variant}, {seed=}, {sizes=}, {exponent=}, {clips=}, {extreme=}"
        output, last = litert_run(litert, case)
        hidden, cell = case.model.run_with_cell(case.x)
        assert not first_difference(hidden, output), drawn
        assert not first_difference(cell[:, -1], last), drawn


def exact_norm(
    row: list[int], gains: list[int], bias: list[int], guard: int, multiplier: int, shift: int
) -> tuple[list[int], bool]:
    """`layer_norm` of one row in Python's integers, for a shift below 0.

    Also whether a sum leaves 32 bits. The reciprocal of the square root is the module's.
    """

    def towards_zero(number: int, divisor: int) -> int:
        return (number // divisor) if number >= 0 else -(-number // divisor)

    def scaled(number: int, factor: int, exponent: int) -> int:
        product = number * factor
        high = towards_zero(product + (2**30 if product >= 0 else 1 - 2**30), 2**31)
        half = 2**-exponent // 2
        return towards_zero(high + (half if high >= 0 else -half), 2**-exponent)

    mean = towards_zero(1024 * sum(row), len(row))
    squares = sum(raw * raw for raw in row) * (2**20 // len(row))
    variance = towards_zero(squares - mean * mean, 2**20)
    factor, exponent = inverse_square_root(variance if variance >= 1 else guard)
    found, beyond = [], False
    for raw, gain, offset in zip(row, gains, bias, strict=True):
        total = scaled(1024 * raw - mean, int(factor), int(exponent)) * gain + offset
        beyond |= not -(2**31) <= total < 2**31
        rounded = towards_zero(total + (512 if total > 0 else -512), 1024)
        found.append(max(-(2**15), min(2**15 - 1, scaled(rounded, multiplier, shift))))
    return found, beyond


def test_a_norm_whose_sum_leaves_32_bits_is_exact() -> None:
    """Where LiteRT's C++ is undefined: it rounds such a sum by a wrapped sign, thus one lower."""
    rng = np.random.default_rng(8)
    many = 0
    for units in (3, 8, 17, 32):
        v = rng.choice(np.array([-(2**15), -3530, 0, 907, 2**15 - 1]), (100, units))
        gains = rng.integers(-(2**15), 2**15, units)
        bias = rng.choice([-1, 1], units) * (2**31 - rng.integers(1, 2**20, units))
        # So that one more or less before this last multiplication is often seen after it.
        constants = 3, 2**30 + int(rng.integers(2**30)), -7
        got = layer_norm(v, gains, bias, *constants)
        for row, result in zip(v.tolist(), got.tolist(), strict=True):
            wanted, beyond = exact_norm(row, gains.tolist(), bias.tolist(), *constants)
            assert result == wanted
            many += beyond
    assert many > 100


@pytest.mark.parametrize("variant", [Variant(peephole=True, norm=True), Variant(norm=True)])
def test_litert_agrees_as_soon_as_a_norms_sum_fits(litert: ModuleType, variant: Variant) -> None:
    # With biases twice as wide the first layer, or the others without peepholes, differ.
    for seed, exponent in ((0, -15), (5, -10), (7, -15)):
        case = drawn_case(variant, seed, "large", exponent, clips=False, extreme=True)
        output, last = litert_run(litert, within_litert(case))
        hidden, cell = plain_run(within_litert(case).model.constants, case.x)
        assert not first_difference(hidden, output)
        assert not first_difference(cell, last)


# What must not go unnoticed.


def exact_variance_norm(v: Raws, *rest: Any) -> Raws:
    """The norm with the exact mean square: what a divisor that is a power of two would give."""
    units = v.shape[-1]
    padded = 1 << (units - 1).bit_length()
    if padded == units:
        return layer_norm(v, *rest)
    gains, bias, guard, *others = rest
    mean = np.rint(1024 * v.mean(axis=-1)).astype(np.int64)
    variance = np.maximum(np.rint(v.var(axis=-1)).astype(np.int64), guard)
    factor, exponent = inverse_square_root(variance)
    normalised = multiply_by_split_multiplier(
        1024 * v - mean[..., np.newaxis], factor[..., np.newaxis], exponent[..., np.newaxis]
    )
    rounded = (normalised * gains + bias + 512) >> 10
    return np.clip(multiply_by_split_multiplier(rounded, *others[:2]), -(2**15), 2**15 - 1)


def with_hidden_offset_of_the_other_sign(model: Int8Lstm) -> Int8Constants:
    offset = -model.constants.hidden_offset
    return replace(model.constants, hidden_offset=min(offset, 127))


def with_clip_around_the_zero_point(model: Int8Lstm) -> Int8Constants:
    clip = max(model.projection_clip - abs(model.hidden_zero_point), 1)
    return replace(model.constants, projection_clip=clip)


def with_bias_before_the_norm(model: Int8Lstm) -> Int8Constants:
    folded = model.constants.folded_bias.copy()
    folded[:, 0] += model.bias
    return replace(model.constants, folded_bias=folded)


def with_every_unit_seen(model: Int8Lstm) -> Int8Constants:
    return replace(model.constants, peephole_weights=model.peephole_weights)


def with_another_norm_guard(model: Int8Lstm) -> Int8Constants:
    guards = model.constants.norm_guards
    assert guards is not None
    return replace(model.constants, norm_guards=guards + 1)


def without_peephole(model: Int8Lstm) -> Int8Constants:
    return replace(model, peephole_weights=None, peephole_weight_scales=None).constants


def with_single_rounding(model: Int8Lstm) -> Int8Constants:
    return replace(model.constants, rounding="single")


@pytest.mark.parametrize(
    ("variant", "sizes", "broken"),
    [
        (PROJECTED, "trained", with_hidden_offset_of_the_other_sign),
        (PROJECTED, "trained", with_clip_around_the_zero_point),
        (PROJECTED, "trained", with_single_rounding),
        (Variant(norm=True), "trained", with_bias_before_the_norm),
        (Variant(norm=True), "flat", with_another_norm_guard),
        (Variant(peephole=True, projection=True), "trained", with_every_unit_seen),
        (Variant(peephole=True), "trained", without_peephole),
    ],
)
def test_a_broken_variant_disagrees_with_litert(
    litert: ModuleType,
    variant: Variant,
    sizes: str,
    broken: Callable[[Int8Lstm], Int8Constants],
) -> None:
    assert disagreements(litert, variant, sizes) == 0
    assert disagreements(litert, variant, sizes, broken) > 0


def disagreements(
    litert: ModuleType,
    variant: Variant,
    sizes: str = "trained",
    constants: Callable[[Int8Lstm], Int8Constants] = lambda model: model.constants,
) -> int:
    """Hidden raws and cells of 14 layers that differ when ours are broken."""
    count = 0
    for seed in range(14):
        case = within_litert(
            drawn_case(variant, seed, sizes, EXPONENTS[seed % 7], clips=False, extreme=False)
        )
        output, last = litert_run(litert, case)
        hidden, cell = plain_run(constants(case.model), case.x)
        count += int(np.count_nonzero(hidden != output) + np.count_nonzero(cell != last))
    return count


def test_an_exact_variance_disagrees_with_litert(
    litert: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert disagreements(litert, EVERYTHING) == 0
    monkeypatch.setattr(integer_step, "layer_norm", exact_variance_norm)
    assert disagreements(litert, EVERYTHING) > 0


def test_an_output_peephole_on_the_old_cell_disagrees_with_litert(
    litert: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = integer_step._gate
    old: list[Raws] = []

    def on_the_old_cell(constants: Int8Constants, name: str, pre: Raws, cell: Raws) -> Raws:
        if name == "f":
            old.append(cell)
        return gate(constants, name, pre, old[-1])

    variant = Variant(peephole=True)
    assert disagreements(litert, variant) == 0
    monkeypatch.setattr(integer_step, "_gate", on_the_old_cell)
    assert disagreements(litert, variant) > 0


# The fast path.


@pytest.mark.long
@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize("activation", ["gemmlowp", "table"])
def test_fast_steps_equal_plain_ones(rounding: Any, activation: Any) -> None:
    fast = slow = 0
    for seed, variant in enumerate(VARIANTS):
        sizes = sorted(SIZES)[seed % len(SIZES)]
        case = drawn_case(
            variant, seed, sizes, EXPONENTS[seed % 7], clips=seed % 3 == 0, extreme=seed % 9 == 0
        )
        model = replace(case.model, rounding=rounding, activation=activation)
        steps = FastSteps.of(model.constants)
        if steps is None:
            slow += 1
            continue
        fast += 1
        hidden, cells = steps.run(case.x, *model.reset_state(len(case.x)))
        plain, last = plain_run(model.constants, case.x)
        assert not first_difference(hidden, plain), f"hidden, seed {seed}"
        assert not first_difference(cells[:, -1], last), f"cell, seed {seed}"
    assert fast > 20
    assert slow > 2, "some constants must be beyond the fast path"


@pytest.mark.parametrize("rounding", ["double", "single"])
def test_fast_sums_are_requantised_as_plain_ones(rounding: Any) -> None:
    """Sums of every magnitude by multipliers that make ties, at every shift that has room."""
    rng = np.random.default_rng(4)
    sums = rng.integers(-(2**28) + 1, 2**28, (60, 4000)) >> rng.integers(0, 28, (60, 4000))
    multipliers = rng.choice([2**30, 3 * 2**29, 2**31 - 2**7, 2**30 + 2**7, 0], 60)
    shifts = rng.integers(-31, 12, 60)
    sums >>= np.maximum(shifts, 0)[:, np.newaxis]
    ties = (sums * multipliers[:, np.newaxis]) % 2**31 == 2**30
    assert ties.mean() > 0.01
    rows = int8_fast._Rows.made(
        np.zeros((60, 4000, 1), np.int8), sums.astype(np.int32), multipliers, shifts, rounding
    )
    assert rows is not None
    words = np.empty((60, 4000))
    rows.words(rows.operands(1), rows.sums(1), words)
    plain = multiply_by_split_multiplier(
        sums, multipliers[:, np.newaxis], shifts[:, np.newaxis], rounding
    )
    assert not first_difference(words, plain)


@pytest.mark.parametrize("rounding", ["double", "single"])
def test_fast_products_are_requantised_as_plain_ones(rounding: Any) -> None:
    rng = np.random.default_rng(5)
    for shift in range(-31, 1):
        words = rng.integers(-(2**30), 2**30 + 1, 2000) >> rng.integers(0, 30, 2000)
        for multiplier in (2**30, 2**31 - 1, int(rng.integers(2**30, 2**31))):
            plain = multiply_by_split_multiplier(words, multiplier, shift, rounding)
            fast = np.empty(2000)
            int8_fast._Words(multiplier, shift, rounding)(words.copy(), fast)
            assert not first_difference(fast, plain), (shift, multiplier)


def test_a_broken_fast_step_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties to even instead of away from zero change outputs of an ordinary layer."""
    monkeypatch.setattr(int8_fast, "_EXCESS", 1.0)
    int8_fast._tables.cache_clear()
    changed = 0
    for seed in range(12):
        case = drawn_case(Variant(), seed, "trained", -12, clips=False, extreme=False)
        _, cells = case.model.run_with_cell(case.x)
        changed += np.count_nonzero(cells[:, -1] != plain_run(case.model.constants, case.x)[1])
    int8_fast._tables.cache_clear()
    assert changed


# Constants.


def binary32(real: float | Fraction) -> Fraction:
    return Fraction(struct.unpack("f", struct.pack("f", float(real)))[0])


def split_value(multiplier: Any, shift: Any) -> Fraction:
    return Fraction(int(multiplier)) * Fraction(2) ** (int(shift) - 31)


def test_constants_of_variants_round_to_binary32_after_each_operation() -> None:
    in_double = 0
    for seed in range(20):
        model = drawn_case(FULL, seed, "usual", -13, clips=False, extreme=False).model
        got = model.constants
        gates = [0, 1, 3]
        for row, gate in enumerate(gates):
            product = Fraction(2) ** -13 * Fraction(float(model.peephole_weight_scales[row]))
            step = Fraction(float(model.norm_scales[gate]))
            wanted = binary32(binary32(product) / step)
            assert split_value(got.peephole_multipliers[row], got.peephole_shifts[row]) == wanted
        product = Fraction(model.projection_weight_scale) * Fraction(model.intermediate_scale)
        wanted = binary32(binary32(product) / Fraction(model.hidden_scale))
        in_double += wanted != binary32(product / Fraction(model.hidden_scale))
        assert split_value(got.projection_multiplier, got.projection_shift) == wanted
        for gate in range(4):
            scale = Fraction(float(model.norm_weight_scales[gate]))
            assert split_value(got.norm_multipliers[gate], got.norm_shifts[gate]) == scale * 2**12
            assert got.norm_guards[gate] == max(1, int(binary32(10000 * scale)))
        rows = model.projection_weights.astype(object).sum(axis=1)
        exact = model.projection_bias.astype(object) + model.intermediate_zero_point * rows
        assert got.projection_bias.tolist() == exact.tolist()
        assert got.hidden_offset == -model.intermediate_zero_point
        assert got.projection_offset == got.reset_hidden == model.hidden_zero_point
        assert (got.norm_bias == model.bias).all()
    assert in_double, "the rounding must matter somewhere"


def test_guard_is_the_truncated_binary32_product() -> None:
    case = drawn_case(Variant(norm=True), 1, "usual", -12, clips=False, extreme=False)
    scales = np.array([0.0002, 1e-9, 0.00029999, 200_000], np.float32)
    guards = replace(case.model, norm_weight_scales=scales).constants.norm_guards
    assert guards.tolist() == [2, 1, 2, 2_000_000_000]


def test_peepholes_end_with_the_outputs() -> None:
    """A layer with fewer outputs than units does not read the other units' weights."""
    for seed in range(40):
        case = drawn_case(
            Variant(peephole=True, projection=True),
            seed,
            "trained",
            -12,
            clips=False,
            extreme=False,
        )
        model = case.model
        if model.outputs < model.hidden:
            break
    assert model.outputs < model.hidden
    other = model.peephole_weights.copy()
    other[:, model.outputs :] = 7
    assert (replace(model, peephole_weights=other).run(case.x) == model.run(case.x)).all()
    other[:, 0] ^= 0x3FFF
    assert (replace(model, peephole_weights=other).run(case.x) != model.run(case.x)).any()


@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 31, 33, 48])
def test_ties_of_peepholes_are_those_of_litert(litert: ModuleType, hidden: int) -> None:
    """Products that are ties: LiteRT's vectors of 16 units send them up, the rest away from 0."""
    rng = np.random.default_rng(hidden)
    scale = np.full(4, 2.0**-10, np.float32)
    model = Int8Lstm(
        input_weights=np.zeros((4, hidden, 1), np.int8),
        recurrent_weights=np.zeros((4, hidden, hidden), np.int8),
        bias=np.tile(np.array([[300], [200], [2**17], [100]], np.int32), (1, hidden)),
        input_weight_scales=scale,
        recurrent_weight_scales=scale,
        input_scale=0.25,
        input_zero_point=0,
        hidden_scale=0.25,
        hidden_zero_point=0,
        intermediate_scale=2.0**-7,
        intermediate_zero_point=0,
        cell_exponent=-15,
        activation="gemmlowp",
        peephole_weights=rng.choice(np.array([1, 3, 5, 7], np.int16), (3, hidden)),
        peephole_weight_scales=np.full(3, 0.5, np.float32),
        peephole_ties_up=litert_peephole_ties_up(hidden),
    )
    cell = rng.integers(-300, 300, (200, hidden))
    x, start = np.zeros((200, 1), np.int8), np.zeros((200, hidden), np.int64)
    file = litert.write_lstm(model, 200, 1)
    made = litert.interpreter(file.content)
    made.set_tensor(file.cell_state, cell.astype(np.int16))
    made.set_tensor(made.get_input_details()[0]["index"], x[:, np.newaxis])
    made.invoke()
    wanted = made.get_tensor(file.cell_state)
    for rule, agrees in (
        (model.peephole_ties_up, True),
        (0, hidden < 16),
        (hidden, hidden % 16 == 0),
    ):
        other = replace(model, peephole_ties_up=rule)
        got = step_constants(other.constants, x, start, cell)[1]
        fast = other.run_with_cell(x[:, np.newaxis], hidden=start, cell=cell)[1][:, 0]
        assert (got == fast).all()
        assert (got == wanted).all() == agrees, rule


def test_any_legal_constants_have_a_step() -> None:
    """Integers that come from no scales; a plain layer's agree with what a unit computes."""
    rng = np.random.default_rng(6)
    constants = Int8Constants(
        gates=("i", "f", "g", "o"),
        input_weights=rng.integers(-128, 128, (4, 3, 2)).astype(np.int8),
        recurrent_weights=rng.integers(-128, 128, (4, 3, 3)).astype(np.int8),
        folded_bias=rng.integers(-(2**31), 2**31, (4, 2, 3)).astype(np.int32),
        multipliers=rng.integers(0, 2**31, (4, 2)),
        shifts=rng.integers(-31, 31, (4, 2)),
        cell_exponent=-12,
        hidden_multiplier=2**31 - 1,
        hidden_shift=-22,
        hidden_offset=-128,
        reset_hidden=5,
    )
    x, hidden = rng.integers(-128, 128, (5, 2)), rng.integers(-128, 128, (5, 3))
    cell = rng.integers(-(2**15), 2**15, (5, 3))
    got = step_constants(constants, x, hidden, cell)
    wanted = update_unit(
        integer_step.accumulators(constants, x, hidden),
        constants.multipliers,
        constants.shifts,
        cell,
        cell_exponent=-12,
        cell_clip=0,
        hidden_multiplier=2**31 - 1,
        hidden_shift=-22,
        hidden_zero_point=-128,
        activation="table",
    )
    assert (got[0] == wanted[0]).all()
    assert (got[1] == wanted[1]).all()
    assert FastSteps.of(constants) is None, "left shifts that wrap"
    with pytest.raises(ValueError, match=r"hidden_offset must be from -128 to 127, not 128\."):
        replace(constants, hidden_offset=128)
    with pytest.raises(ValueError, match=r"shifts must be from -31 to 30, not 31\."):
        replace(constants, shifts=np.full((4, 2), 31))
    with pytest.raises(ValueError, match="peephole_multipliers is None"):
        replace(constants, peephole_weights=np.zeros((3, 3), np.int16))
    with pytest.raises(ValueError, match=r"gates must be .*, not \('f', 'i', 'g', 'o'\)\."):
        replace(constants, gates=("f", "i", "g", "o"))


def test_clip_of_a_projection_goes_by_the_output_tensor() -> None:
    assert clip_code(1.0, 0.1, 8) == 10
    assert clip_code(100.0, 0.1, 8) == 127


# Refusals.


def full_model(**change: Any) -> Int8Lstm:
    case = drawn_case(FULL, 3, "usual", -12, clips=False, extreme=False)
    return replace(case.model, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"peephole_weights": None},
            (
                "peephole_weights and peephole_weight_scales go together, but peephole_weights is "
                "missing; give all or none."
            ),
        ),
        (
            {"norm_scales": None},
            (
                "norm_weights, norm_weight_scales and norm_scales go together, but norm_scales is "
                "missing; give all or none."
            ),
        ),
        (
            {"projection_weight_scale": None},
            (
                "projection_weights and projection_weight_scale go together, but "
                "projection_weight_scale is missing; give all or none."
            ),
        ),
        (
            {"projection_weights": np.zeros((2, 99), np.int8)},
            "projection_weights must have the shape (2, ",
        ),
        (
            {"projection_weights": np.zeros(3, np.int8)},
            "projection_weights must have the shape (outputs, ",
        ),
        ({"projection_clip": 128}, "projection_clip must be from 0 to 127, not 128."),
        ({"projection_bias": np.zeros(99, np.int32)}, "projection_bias must have the shape ("),
        ({"peephole_weights": np.zeros((4, 1), np.int16)}, "peephole_weights must have the shape"),
        ({"norm_weights": np.zeros((4, 1), np.int8)}, "norm_weights must be int16, not int8."),
        (
            {"norm_weight_scales": np.full(4, 300_000, np.float32)},
            "norm_weight_scales must be below 2^31 / 10000, not 300000.0; quantise with finer",
        ),
        (
            {"peephole_weight_scales": np.full(3, 1e30, np.float32)},
            (
                "The scales of the peephole of gate i must give an effective multiplier below "
                "2^30, not"
            ),
        ),
        (
            {"projection_weight_scale": 1e30},
            "The scales of the projection must give an effective multiplier below 2^30, not",
        ),
    ],
)
def test_a_bad_variant_is_refused_in_words(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        full_model(**change)
    assert message in str(error.value)


def test_what_needs_a_projection_is_refused_without() -> None:
    model = random_case(3, exponent=-12).model
    for name, value in (("projection_clip", 5), ("projection_bias", np.ones(1, np.int32))):
        with pytest.raises(ValueError, match=f"^{name} must be left out where there are no proj"):
            replace(model, **{name: value})


def test_peepholes_beyond_the_units_are_refused() -> None:
    for seed in range(40):
        model = drawn_case(
            Variant(projection=True), seed, "usual", -12, clips=False, extreme=False
        ).model
        if model.outputs > model.hidden:
            break
    with pytest.raises(ValueError, match="with peepholes must have at most .* remove the peephole"):
        replace(
            model,
            peephole_weights=np.zeros((3, model.hidden), np.int16),
            peephole_weight_scales=np.ones(3, np.float32),
        )


def test_layer_norm_refuses_in_words() -> None:
    good: dict[str, Any] = {
        "v": [[1, 2]],
        "gains": [1, 2],
        "bias": [0, 0],
        "guard": 1,
        "multiplier": 2**30,
        "shift": 0,
    }
    assert layer_norm(**good).shape == (1, 2)
    for change, message in (
        ({"v": [[2**15, 0]]}, r"^v must be from -32768 to 32767, not 32768\.$"),
        ({"v": np.zeros((3, 0), np.int64)}, r"^v must have from 1 to 1048576 units .* \(3, 0\)\.$"),
        ({"gains": [1]}, r"^gains must have the shape \(2,\), not \(1,\)\.$"),
        ({"bias": [1]}, r"^bias must have the shape \(2,\), not \(1,\)\.$"),
        ({"guard": 0}, r"^guard must be from 1 to 2147483647, not 0\.$"),
        ({"shift": 31}, r"^shift must be from -31 to 30, not 31\.$"),
    ):
        with pytest.raises(ValueError, match=message):
            layer_norm(**(good | change))


def test_every_array_of_a_layer_is_read_only() -> None:
    model = full_model()
    for field in fields(model):
        value = getattr(model, field.name)
        if isinstance(value, np.ndarray):
            assert not value.flags.writeable, field.name
