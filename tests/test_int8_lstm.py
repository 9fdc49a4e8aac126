"""The golden integer LSTM against LiteRT, byte for byte, on models written here."""

import importlib
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.activation.integer import ACTIVATIONS
from fewbit.golden.arithmetic import rounding_shift_right
from fewbit.golden.lstm import integer_step
from fewbit.golden.lstm.int8 import Int8Lstm, clip_code, update_unit
from tests.support.int8_cases import (
    EXPONENTS,
    HIDDEN_SIZES,
    INPUT_SIZES,
    SIZES,
    Case,
    Raws,
    random_case,
)

SEEDS = 12


@pytest.fixture(scope="module")
def litert() -> ModuleType:
    pytest.importorskip("ai_edge_litert")
    return importlib.import_module("tests.support.tflite_models")


def run_with_cell(model: Int8Lstm, x: npt.NDArray[np.int8]) -> tuple[Raws, Raws]:
    """Hidden raws of every step and the last cell."""
    batch, time, _ = x.shape
    hidden, cell = model.reset_state(batch)
    history = np.zeros((batch, time, model.hidden), np.int64)
    for moment in range(time):
        hidden, cell = model.step(x[:, moment], hidden, cell)
        history[:, moment] = hidden
    return history, cell


def litert_result(litert: ModuleType, case: Case) -> tuple[Raws, Raws]:
    batch, time, _ = case.x.shape
    file = litert.write_lstm(case.model, batch, time, **case.file_fields)
    return litert.run_lstm(file, case.x)


def assert_same(got: npt.NDArray[Any], wanted: npt.NDArray[Any], what: str) -> None:
    assert got.shape == wanted.shape, what
    positions = np.argwhere(got != wanted)
    if len(positions):
        first = tuple(positions[0].tolist())
        pytest.fail(
            f"{what}: {len(positions)} of {got.size} differ, first at {first}: "
            f"golden {got[first]}, LiteRT {wanted[first]}"
        )


def assert_agrees(litert: ModuleType, case: Case) -> None:
    output, cell = litert_result(litert, case)
    hidden, last = run_with_cell(case.model, case.x)
    what = f"seed {case.seed}, cell exponent {case.model.cell_exponent}, clip {case.cell_clip}"
    assert_same(hidden, output, f"hidden (batch, time, unit), {what}")
    assert_same(last, cell, f"cell (batch, unit), {what}")


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("sizes", SIZES)
def test_agrees_with_litert(litert: ModuleType, sizes: str, exponent: int) -> None:
    cases = [
        random_case(
            1000 * (exponent + 15) + seed, exponent=exponent, sizes=sizes, extreme=seed % 3 == 2
        )
        for seed in range(SEEDS)
    ]
    for case in cases:
        assert_agrees(litert, case)


def test_cases_cover_both_signs_of_shift_and_every_size() -> None:
    """What the seeds above are there for."""
    cases = [
        random_case(1000 * (exponent + 15) + seed, exponent=exponent, sizes=sizes)
        for sizes in SIZES
        for exponent in EXPONENTS
        for seed in range(SEEDS)
    ]
    assert {case.model.hidden for case in cases} == set(HIDDEN_SIZES)
    assert {case.model.inputs for case in cases} == set(INPUT_SIZES)
    shifts = np.stack([case.model.shifts for case in cases])
    assert shifts.min() < -20
    assert shifts.max() >= 7
    assert any((case.model.multipliers == 0).any() for case in cases), "scales of nothing"


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.999, 40.0])
def test_cell_clip_agrees_with_litert(litert: ModuleType, share: float, exponent: int) -> None:
    """Clips at a share of the cell's range; the last is beyond it and saturates."""
    clipped = 0
    for seed in (7, 8, 12):
        case = random_case(
            seed, exponent=exponent, sizes="large", clip=share * 2.0 ** (exponent + 15)
        )
        assert_agrees(litert, case)
        _, cell = run_with_cell(case.model, case.x)
        _, free = run_with_cell(replace(case.model, cell_clip=0), case.x)
        assert np.abs(cell).max() <= case.model.cell_clip
        clipped += np.count_nonzero(cell != free)
    # Near the whole range and beyond it, few cells or none are there to clip.
    assert clipped or share > 0.9, "the clip must clip"


def test_cell_clip_of_keras(litert: ModuleType) -> None:
    """A clip of 10 is the raw 20480 at 2^-11 and saturates at 2^-12."""
    assert clip_code(10.0, 2.0**-11) == 20480
    assert clip_code(10.0, 2.0**-12) == 32767
    for exponent in (-12, -11):
        assert_agrees(litert, random_case(7, exponent=exponent, sizes="large", clip=10.0))


def test_clip_code_is_truncated_and_saturated() -> None:
    assert clip_code(0.0, 1.0) == 0
    assert clip_code(1.999, 1.0) == 1
    assert clip_code(0.999, 1.0) == 0, "a raw of 0 means no clip"
    assert clip_code(1e300, 1e-300) == 32767
    assert clip_code(200.0, 1.0, width=8) == 127
    # Exactly 2 in binary32, just below it in binary64.
    assert clip_code(2 - 2.0**-30, 1.0) == 2
    with pytest.raises(ValueError, match=r"at least 0, not -1.0\."):
        clip_code(-1.0, 1.0)
    with pytest.raises(ValueError, match=r"above 0, not 0.0\."):
        clip_code(1.0, 0.0)


def single_gate_model(exponent: int, bias: Raws, weights: Raws) -> Int8Lstm:
    """256 units of one input, whose gate raws are ``weights * x + bias``."""
    unit = np.full(4, 2.0**-10, np.float32)
    return Int8Lstm(
        input_weights=weights.astype(np.int8),
        recurrent_weights=np.zeros((4, 256, 256), np.int8),
        bias=bias.astype(np.int32),
        input_weight_scales=unit,
        recurrent_weight_scales=unit,
        input_scale=0.25,
        input_zero_point=0,
        hidden_scale=0.25,
        hidden_zero_point=0,
        intermediate_scale=2.0**-7,
        intermediate_zero_point=0,
        cell_exponent=exponent,
        activation="gemmlowp",
    )


OPEN = 2**17
"""A bias that saturates a gate."""


@pytest.mark.parametrize("gate", [0, 1, 2])
def test_every_gate_raw_agrees_with_litert(litert: ModuleType, gate: int) -> None:
    """All 65,536 pre-activations of i, f and g, seen through 16 bits of the cell."""
    bias = np.zeros((4, 256), np.int64)
    bias[[0, 1, 2, 3]] = OPEN
    bias[gate] = 256 * np.arange(-128, 128)
    weights = np.zeros((4, 256, 1), np.int64)
    weights[gate] = 1
    model = single_gate_model(-15, bias, weights)
    x = np.arange(-128, 128).astype(np.int8).reshape(256, 1, 1)
    start = np.full((256, 256), 32767 if gate == 1 else 0, np.int16)
    if gate == 1:
        # Only f*c is seen: g is 0.
        model = replace(model, bias=np.where(np.arange(4)[:, None] == 2, 0, model.bias))

    hidden, cell = model.step(x[:, 0], np.zeros((256, 256), np.int64), start)
    wanted_hidden, wanted_cell = litert_step(litert, model, x, start)
    assert_same(cell, wanted_cell, f"cell by (x, unit) of gate {gate}")
    assert_same(hidden, wanted_hidden, f"hidden by (x, unit) of gate {gate}")
    functions = ACTIVATIONS["gemmlowp"]
    values = (functions.tanh if gate == 2 else functions.sigmoid)(np.arange(-(2**15), 2**15))
    assert len(np.unique(cell)) > 0.99 * len(np.unique(values)), "the cell must show the gate"


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_every_cell_agrees_with_litert(litert: ModuleType, exponent: int) -> None:
    """All 65,536 old cells with an open forget gate: nearly every input of the cell's tanh."""
    bias = np.zeros((4, 256), np.int64)
    bias[[1, 3]] = OPEN
    model = single_gate_model(exponent, bias, np.zeros((4, 256, 1), np.int64))
    start = np.arange(-(2**15), 2**15).reshape(256, 256).astype(np.int16)
    # Eight bits of tanh around 0, then the eight highest.
    for scale in (2.0**-15, 2.0**-7):
        scaled = replace(model, intermediate_scale=scale)
        x = np.zeros((256, 1, 1), np.int8)
        hidden, cell = scaled.step(x[:, 0], np.zeros((256, 256), np.int64), start)
        wanted_hidden, wanted_cell = litert_step(litert, scaled, x, start)
        assert_same(cell, wanted_cell, f"cell of exponent {exponent}")
        assert_same(hidden, wanted_hidden, f"hidden of exponent {exponent}, scale {scale}")
        assert len(np.unique(cell)) > 65_000


def litert_step(
    litert: ModuleType, model: Int8Lstm, x: npt.NDArray[np.int8], cell: npt.NDArray[np.int16]
) -> tuple[Raws, Raws]:
    """One step of LiteRT from a given cell."""
    file = litert.write_lstm(model, len(x), 1)
    made = litert.interpreter(file.content)
    made.set_tensor(file.cell_state, cell)
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    output = made.get_tensor(made.get_output_details()[0]["index"])
    return output[:, 0], made.get_tensor(file.cell_state)


def broken_model(change: dict[str, Any]) -> Callable[[Int8Lstm], Int8Lstm]:
    return lambda model: replace(model, **change)


@pytest.mark.parametrize(
    "broken",
    [
        broken_model({"rounding": "single"}),
        broken_model({"activation": "table"}),
        lambda model: replace(
            model,
            intermediate_scale=model.hidden_scale,
            intermediate_zero_point=model.hidden_zero_point,
        ),
        lambda model: replace(model, cell_clip=0),
        lambda model: replace(model, input_weights=model.input_weights[[1, 0, 2, 3]]),
    ],
    ids=["single rounding", "table", "hidden's parameters last", "no clip", "gates swapped"],
)
def test_a_broken_model_disagrees_with_litert(
    litert: ModuleType, broken: Callable[[Int8Lstm], Int8Lstm]
) -> None:
    assert disagreements(litert, broken) > 0


def test_a_broken_tie_rule_disagrees_with_litert(
    litert: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ties_up(raw: Raws, shift: npt.ArrayLike) -> Raws:
        return -rounding_shift_right(-2 * np.asarray(raw) - 1, np.asarray(shift) + 1)

    assert ties_up(np.array([-3, -1, 1, 3]), 1).tolist() == [-1, 0, 1, 2]
    assert disagreements(litert, lambda model: model) == 0
    monkeypatch.setattr(integer_step, "rounding_shift_right", ties_up)
    assert disagreements(litert, lambda model: model) > 0


def test_a_missing_saturation_disagrees_with_litert(
    litert: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integer_step, "saturate", integer_step.wrap)
    assert disagreements(litert, lambda model: model) > 0


def disagreements(litert: ModuleType, broken: Callable[[Int8Lstm], Int8Lstm]) -> int:
    """Bytes and cells of twelve models that differ from LiteRT's when the golden one is broken."""
    count = 0
    for seed in range(12):
        exponent = EXPONENTS[seed % 7]
        case = random_case(
            seed, exponent=exponent, sizes="mixed", clip=0.3 * 2.0 ** (exponent + 15)
        )
        output, cell = litert_result(litert, case)
        hidden, last = run_with_cell(broken(case.model), case.x)
        count += int(np.count_nonzero(hidden != output) + np.count_nonzero(last != cell))
    return count


def small_model(**change: Any) -> Int8Lstm:
    return replace(random_case(3, exponent=-12).model, **change)


def binary32(real: float) -> float:
    return struct.unpack("f", struct.pack("f", real))[0]


def test_derived_constants_round_to_binary32_after_each_operation() -> None:
    """The products and quotients in binary64 are exact enough to round once."""
    in_double = 0
    for seed in range(40):
        model = random_case(seed, exponent=-12, sizes="mixed").model
        for gate in range(4):
            for part, scales, scale in (
                (0, model.input_weight_scales, model.input_scale),
                (1, model.recurrent_weight_scales, model.hidden_scale),
            ):
                exact = Fraction(float(scales[gate])) * Fraction(scale)
                effective = Fraction(binary32(float(exact))) * 2**12
                shift = int(model.shifts[gate, part])
                multiplier = int(model.multipliers[gate, part])
                assert Fraction(multiplier) * Fraction(2) ** (shift - 31) == effective
                in_double += effective != exact * 2**12
        hidden = Fraction(model.hidden_multiplier) * Fraction(2) ** (model.hidden_shift - 31)
        assert hidden == Fraction(binary32(2.0**-30 / model.intermediate_scale))
    assert in_double, "the rounding must matter somewhere"


def test_folded_bias_is_the_sum_at_the_zero_points() -> None:
    model = small_model(bias=np.full_like(small_model().bias, 2**31 - 5), input_zero_point=-128)
    for gate, unit in np.ndindex(4, model.hidden):
        row = model.input_weights[gate, unit].tolist()
        exact = 2**31 - 5 + 128 * sum(row)
        wrapped = (exact + 2**31) % 2**32 - 2**31
        assert model.folded_bias[gate, 0, unit] == wrapped
        row = model.recurrent_weights[gate, unit].tolist()
        assert model.folded_bias[gate, 1, unit] == -model.hidden_zero_point * sum(row)
    assert model.folded_bias.dtype == np.int32


def test_run_is_step_by_step_and_may_start_anywhere() -> None:
    case = random_case(11, exponent=-11, sizes="mixed")
    hidden, _ = run_with_cell(case.model, case.x)
    assert (case.model.run(case.x) == hidden).all()
    batch, time, _ = case.x.shape
    assert time > 1
    state = case.model.step(case.x[:, 0], *case.model.reset_state(batch))
    rest = case.model.run(case.x[:, 1:], hidden=state[0], cell=state[1])
    assert (rest == hidden[:, 1:]).all()


def test_update_unit_takes_each_element_its_own_constants() -> None:
    """Arrays of every constant give what the elements give one by one, at all corners."""
    rng = np.random.default_rng(8)
    count = 300
    corners = np.array([-(2**31), -(2**31) + 1, -(2**30), -1, 0, 1, 2**30, 2**31 - 1])
    accumulators = np.where(
        rng.random((count, 4, 2)) < 0.3,
        rng.choice(corners, (count, 4, 2)),
        rng.integers(-(2**31), 2**31, (count, 4, 2)) >> rng.integers(0, 31, (count, 4, 2)),
    )
    multipliers = rng.integers(2**23, 2**24, (count, 4, 2)) << 7
    shifts = rng.integers(-31, 31, (count, 4, 2))
    cell = rng.choice([-32768, 32767, 0, 12345], count)
    constants = {
        "cell_exponent": rng.choice(EXPONENTS, count),
        "cell_clip": rng.choice([0, 1, 20480, 32767], count),
        "hidden_multiplier": rng.integers(2**23, 2**24, count) << 7,
        "hidden_shift": rng.integers(-31, 31, count),
        "hidden_zero_point": rng.choice([-128, 0, 127], count),
    }
    for activation in ("table", "gemmlowp"):
        for rounding in ("double", "single"):
            hidden, new = update_unit(
                accumulators,
                multipliers,
                shifts,
                cell,
                activation=activation,
                rounding=rounding,
                **constants,
            )
            assert hidden.shape == new.shape == (count,)
            assert len(np.unique(new)) > 50
            for k in range(count):
                alone = update_unit(
                    accumulators[k],
                    multipliers[k],
                    shifts[k],
                    cell[k],
                    activation=activation,
                    rounding=rounding,
                    **{name: values[k] for name, values in constants.items()},
                )
                assert (int(alone[0]), int(alone[1])) == (hidden[k], new[k])


def test_a_model_keeps_its_own_read_only_arrays() -> None:
    bias = small_model().bias.copy()
    model = small_model(bias=bias)
    bias[:] = 0
    assert model.bias.any()
    with pytest.raises(ValueError, match="read-only"):
        model.bias[0, 0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_weights": np.zeros((2, 2, 2), np.int8)},
            (
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                "or (3, hidden, inputs) for f, g, o, not (2, 2, 2)."
            ),
        ),
        (
            {"input_weights": np.zeros((4, 0, 2), np.int8)},
            (
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                "or (3, hidden, inputs) for f, g, o, not (4, 0, 2)."
            ),
        ),
        (
            {"recurrent_weights": np.zeros((4, 99, 99), np.int8)},
            "recurrent_weights must have the shape",
        ),
        ({"bias": np.zeros((4, 1), np.int64)}, "bias must be int32, not int64."),
        (
            {"input_weight_scales": np.array([1, 1, 0, 1], np.float32)},
            "input_weight_scales must be a finite binary32 number above 0, not 0.0.",
        ),
        (
            {"hidden_scale": np.nan},
            "hidden_scale must be a finite binary32 number above 0, not nan",
        ),
        ({"input_scale": 1e-60}, "input_scale must be a finite binary32 number above 0, not"),
        ({"input_scale": 1e60}, "input_scale must be a finite binary32 number above 0, not"),
        ({"input_scale": "1"}, "input_scale must be a finite binary32 number above 0, not"),
        ({"intermediate_scale": 2.0**-60}, "intermediate_scale must be above 2^-60, not"),
        ({"hidden_zero_point": 128}, "hidden_zero_point must be from -128 to 127, not 128."),
        ({"hidden_zero_point": 1.0}, "hidden_zero_point must be an integer, not 1.0."),
        ({"cell_exponent": -16}, "cell_exponent must be from -15 to -9, not -16."),
        ({"cell_clip": -1}, "cell_clip must be from 0 to 32767, not -1."),
        ({"activation": "relu"}, 'activation must be "table" or "gemmlowp", not \'relu\'.'),
        ({"rounding": "none"}, 'rounding must be "double" or "single", not \'none\'.'),
        (
            {"recurrent_weight_scales": np.full(4, 1e30, np.float32)},
            (
                "The scales of the recurrent part of gate i must give an effective multiplier "
                "below 2^30, not"
            ),
        ),
        (
            {"input_weight_scales": np.full(4, 3e38, np.float32), "input_scale": 1e30},
            (
                "The scales of the input part of gate i must give an effective multiplier "
                "below 2^30, not inf; quantise with finer resolutions."
            ),
        ),
    ],
)
def test_a_bad_model_is_refused_in_words(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        small_model(**change)
    assert message in str(error.value)


def test_bad_data_is_refused_in_words() -> None:
    model = small_model()
    x = np.zeros((2, 3, model.inputs), np.int64)
    with pytest.raises(ValueError, match=r"x must be from -128 to 127, not 128\."):
        model.run(x + 128)
    with pytest.raises(ValueError, match="x must be integers, not float64"):
        model.run(x * 1.0)
    with pytest.raises(
        ValueError, match=r"x must have the shape \(any, any, \d+\), not \(3, \d+\)"
    ):
        model.run(x[0])
    with pytest.raises(ValueError, match=r"cell must have the shape \(2, \d+\), not \(1, 1\)\."):
        model.run(x, cell=[[0]])
    with pytest.raises(ValueError, match=r"accumulators must have the shape \(\.\.\., 4, 2\)"):
        update_unit(
            np.zeros((4, 3), np.int64),
            2**30,
            0,
            0,
            cell_exponent=-12,
            cell_clip=0,
            hidden_multiplier=2**30,
            hidden_shift=0,
            hidden_zero_point=0,
            activation="table",
        )
