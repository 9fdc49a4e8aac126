"""The signed-digit trigger update: against loops over Fractions of the published rule."""

from fractions import Fraction

import numpy as np
import pytest

from fewbit.golden.formats import FLOATSD8, FloatSD8
from fewbit.golden.training.signed_digits import (
    EIGHT_OF_THREE,
    FLOATSD8_DIGITS,
    GROUPS,
    SignedDigits,
    from_reals,
    momentum_update,
    trigger,
    values,
    weight_codes,
    weights,
)

LAYOUTS = [(FLOATSD8_DIGITS, 10), (EIGHT_OF_THREE, 7)]
# Exponents of the units of groups as published, the last group's unit being 1.
PUBLISHED = {
    FLOATSD8_DIGITS: (19, 17, 14, 11, 9, 6, 3, 0),
    EIGHT_OF_THREE: (21, 18, 15, 12, 9, 6, 3, 0),
}


def value_by_fractions(indices, exponent, layout, bias, groups=GROUPS) -> Fraction:
    units = PUBLISHED[layout]
    total = Fraction(0)
    for index, unit in list(zip(indices, units, strict=True))[:groups]:
        digit = Fraction(2) ** (abs(index) - 1) if index else Fraction(0)
        total += (digit if index > 0 else -digit) * Fraction(2) ** unit
    return total * Fraction(2) ** (exponent - bias - units[1])


def trigger_by_loops(indices, exponent, u, layout, bias):
    """The rule, one number at a time."""
    units = PUBLISHED[layout]
    old = list(indices)
    magnitude = abs(Fraction(u)) * Fraction(2) ** (bias - exponent + units[1])
    group = next((k for k in range(GROUPS) if magnitude >= Fraction(2) ** (units[k] - 1)), None)
    if group is None:
        return old, exponent
    step = -1 if u > 0 else 1
    new = list(old)
    while True:
        end = layout.digits[group] * step
        if new[group] != end:
            new[group] += step
            return new, exponent
        if group == 0:
            break
        new[group] = -end
        group -= 1
    if exponent == layout.largest_exponent:
        return old, exponent
    for k in range(1, GROUPS):
        new[k] -= (new[k] > 0) - (new[k] < 0)
    return new, exponent + 1


def random_numbers(rng, layout, bias, count):
    digits = np.array(layout.digits)
    indices = rng.integers(-digits, digits + 1, (count, GROUPS))
    # Many groups at their ends, so that carries run far and exponents grow.
    full = rng.random((count, GROUPS)) < 0.5
    sign = rng.choice([-1, 1], (count, 1))
    indices = np.where(full, sign * digits, indices)
    exponent = rng.integers(0, layout.largest_exponent + 1, count)
    return SignedDigits(indices, exponent, bias, layout)


def random_updates(rng, state):
    """Updates of all sizes, thresholds and their neighbours among them."""
    count = len(state.exponent)
    sizes = np.ldexp(1.0, rng.integers(-32, 4, count) + state.exponent - state.bias)
    factor = rng.choice([1.0, np.nextafter(1.0, 0), 1.5, 1.99, 0.0], count)
    return sizes * factor * rng.choice([-1.0, 1.0], count)


def check_triggers(layout, bias, count=4000, rule=trigger) -> None:
    seed = 3
    rng = np.random.default_rng(seed)
    state = random_numbers(rng, layout, bias, count)
    u = random_updates(rng, state)
    new = rule(state, u)
    grown = stayed = 0
    for place in range(count):
        given = state.indices[place].tolist(), int(state.exponent[place])
        expected = trigger_by_loops(*given, float(u[place]), layout, bias)
        got = new.indices[place].tolist(), int(new.exponent[place])
        assert got == expected, f"seed {seed}, {place}: {given} and {u[place]} give {got}"
        grown += got[1] > given[1]
        stayed += got == given
    assert grown > 20
    assert stayed > 20


@pytest.mark.parametrize(("layout", "bias"), LAYOUTS)
def test_triggers_equal_loops(layout, bias) -> None:
    check_triggers(layout, bias)


@pytest.mark.parametrize(("layout", "bias"), LAYOUTS)
def test_reals_equal_fractions(layout, bias) -> None:
    state = random_numbers(np.random.default_rng(4), layout, bias, 500)
    columns = state.indices.tolist(), state.exponent.tolist(), values(state), weights(state)
    for indices, exponent, whole, used in zip(*columns, strict=True):
        assert Fraction(float(whole)) == value_by_fractions(indices, exponent, layout, bias)
        assert Fraction(float(used)) == value_by_fractions(indices, exponent, layout, bias, 2)


def one(indices, exponent=0, bias=0, layout=FLOATSD8_DIGITS) -> SignedDigits:
    return SignedDigits(np.array([indices]), np.array([exponent]), bias, layout)


def after(state, u):
    new = trigger(state, np.array([u]))
    return new.indices[0].tolist(), int(new.exponent[0])


def test_a_group_moves_against_the_sign_of_u() -> None:
    # The first group's unit is 4, so from 2 on it is triggered.
    zero = one([0] * 8)
    assert after(zero, 2.0) == ([-1, 0, 0, 0, 0, 0, 0, 0], 0)
    assert after(zero, -np.inf) == ([1, 0, 0, 0, 0, 0, 0, 0], 0)
    assert after(zero, 1.99) == ([0, -1, 0, 0, 0, 0, 0, 0], 0)
    assert after(zero, -(2.0**-18)) == ([0, 0, 0, 0, 0, 0, 0, 1], 0)
    assert after(zero, np.nextafter(2.0**-18, 0)) == ([0] * 8, 0)
    # Thresholds grow with the exponent.
    assert after(one([0] * 8, 1), 2.0) == ([0, -1, 0, 0, 0, 0, 0, 0], 1)


def test_a_carry_wraps() -> None:
    assert after(one([0, 2, 0, 0, 0, 0, 0, 0]), -0.5) == ([1, -2, 0, 0, 0, 0, 0, 0], 0)
    # 2 and 4 - 2 are the same number; after 4 + 2 the first group moves by more than a unit.
    assert weights(one([0, 2, 0, 0, 0, 0, 0, 0])) == weights(one([1, -2, 0, 0, 0, 0, 0, 0]))
    assert after(one([-1, 0, -3, 0, 0, 0, 0, 0]), 2.0**-4) == ([-1, -1, 3, 0, 0, 0, 0, 0], 0)
    assert after(one([1, 2, 3, 3, 2, 3, 3, 3]), -(2.0**-18)) == (
        [2, -2, -3, -3, -2, -3, -3, -3],
        0,
    )


def test_the_exponent_grows_and_never_falls() -> None:
    # 16 + 1 becomes 32 + 1: the first group keeps its index, the second moves towards zero.
    grown = after(one([3, 2, -3, 1, 0, 0, 0, 0]), -4.0)
    assert grown == ([3, 1, -2, 0, 0, 0, 0, 0], 1)
    assert after(one([-3, -2, 0, 0, 0, 0, 0, 0], 6), 0.5 * 2**6) == (
        [-3, 1, 0, 0, 0, 0, 0, 0],
        7,
    )
    # At the largest exponent nothing happens, not even to the groups below.
    for indices, u in (([3, 2, 0, 0, 0, 0, 0, 0], -64.0), ([3, 2, 3, 0, 0, 0, 0, 0], -8.0)):
        assert after(one(indices, 7), u) == (indices, 7)
    state = one([0, 0, 0, 0, 0, 0, 0, 1], 5)
    for _ in range(50):
        state = trigger(state, np.array([1.0]))
    assert state.exponent[0] >= 5


def test_weights_of_the_first_layout_are_those_of_floatsd8() -> None:
    grid = np.array(np.meshgrid(range(-3, 4), range(-2, 3), range(8))).reshape(3, -1).T
    indices = np.zeros((len(grid), GROUPS), np.int64)
    indices[:, :2] = grid[:, :2]
    state = SignedDigits(indices, grid[:, 2], 10)
    np.testing.assert_array_equal(np.unique(weights(state)), FLOATSD8.values)
    assert state.weight_format == FLOATSD8
    np.testing.assert_array_equal(FLOATSD8.decode(weight_codes(state)), weights(state))


def test_two_mantissas_of_the_second_layout_are_not_those_of_floatsd8() -> None:
    grid = np.array(np.meshgrid(range(-3, 4), range(-3, 4), range(4))).reshape(3, -1).T
    indices = np.zeros((len(grid), GROUPS), np.int64)
    indices[:, :2] = grid[:, :2]
    state = SignedDigits(indices, grid[:, 2], 7, EIGHT_OF_THREE)
    assert state.weight_format == FLOATSD8
    assert np.abs(weights(state)).max() == FLOATSD8.largest
    coded = FLOATSD8.decode(weight_codes(state))
    differ = coded != weights(state)
    mantissa = weights(state) * 2.0**7 / 2.0 ** grid[:, 2]
    assert set(np.abs(mantissa[differ])) == {31, 33}
    nearest = np.abs(coded * 2.0**7 / 2.0 ** grid[:, 2])
    at_one = grid[:, 2] == 1
    assert set(nearest[differ & ~at_one]) == {32}
    assert set(nearest[differ & at_one]) == {30, 34}


def test_reals_are_kept_as_stated() -> None:
    for (layout, bias), bound, last in zip(LAYOUTS, (0.039, 0.15), (1280, 160), strict=True):
        reals = np.linspace(-2.25, 2.25, 200_001)
        state = from_reals(reals, bias, layout)
        size = np.abs(reals) * 2.0**bias
        within = (size >= 1) & (size <= last)
        error = np.abs(values(state) - reals)[within] / np.abs(reals)[within]
        assert 0.9 * bound < error.max() <= bound
        assert (np.abs(values(state) - reals) <= np.abs(weights(state) - reals)).all()
    for bias in (7, 10, 13):
        reals = np.random.default_rng(5).normal(0, 2.0 ** (8 - bias), 20_000)
        ties = (FloatSD8(bias).values[:-1] + FloatSD8(bias).values[1:]) / 2
        for given in (reals, ties, FloatSD8(bias).values):
            state = from_reals(given, bias)
            np.testing.assert_array_equal(weight_codes(state), FloatSD8(bias).encode(given))


def test_momentum_is_that_of_gradient_descent() -> None:
    rng = np.random.default_rng(6)
    start = rng.normal(0, 0.3, 200)
    target = rng.normal(0, 0.3, 200)
    state, velocity = from_reals(start), np.zeros(200, np.float32)
    before = np.abs(weights(state) - target).mean()
    for _ in range(300):
        gradient = weights(state) - target
        kept = velocity
        state, velocity = momentum_update(state, kept, gradient, rate=0.02, momentum=0.5)
        expected = (np.float32(0.5) * kept - 0.02 * gradient).astype(np.float32)
        np.testing.assert_array_equal(velocity, expected)
    assert np.abs(weights(state) - target).mean() < 0.1 * before


def half_the_exponents_growth(state, u) -> SignedDigits:
    """The first group moves towards zero, too, where the exponent grows."""
    new = trigger(state, u)
    indices = new.indices.copy()
    indices[new.exponent > state.exponent, 0] //= 2
    return SignedDigits(indices, new.exponent, new.bias, new.layout)


@pytest.mark.parametrize(
    "rule",
    [
        lambda state, u: trigger(state, u / 2),
        lambda state, u: trigger(state, -u),
        half_the_exponents_growth,
    ],
)
def test_another_rule_is_seen(rule) -> None:
    with pytest.raises(AssertionError, match="seed 3"):
        check_triggers(FLOATSD8_DIGITS, 10, rule=rule)


def test_float_types_of_u_agree() -> None:
    state = random_numbers(np.random.default_rng(7), FLOATSD8_DIGITS, 10, 300)
    u = random_updates(np.random.default_rng(8), state).astype(np.float32)
    narrow, wide = trigger(state, u), trigger(state, u.astype(np.float64))
    np.testing.assert_array_equal(narrow.indices, wide.indices)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match=r"indices must have the shape \(2, 8\), not \(2, 7\)"):
        SignedDigits(np.zeros((2, 7), int), np.zeros(2, int))
    with pytest.raises(ValueError, match="exponent must be from 0 to 3, not 4"):
        SignedDigits(np.zeros(8, int), np.array(4), 7, EIGHT_OF_THREE)
    with pytest.raises(ValueError, match="indices must be at most"):
        one([0, 3, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="u must not be NaN"):
        trigger(one([0] * 8), np.array([np.nan]))
    with pytest.raises(ValueError, match=r"u must have the shape \(1,\), not \(2,\)"):
        trigger(one([0] * 8), np.zeros(2))
    with pytest.raises(ValueError, match="reals must be finite"):
        from_reals([np.inf])
