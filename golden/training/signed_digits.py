"""The signed-digit trigger update: weights that are trained without a float master copy.

A number is an exponent and eight groups of signed digits, of which at most one is not zero in a
group: a group of n digits is 0 or ±1, ±2, ... ±2^(n-1), which are its indices -n to n. Only the
first two groups and the exponent make up the weight that is used; the other groups remember smaller
changes. An update u moves one group by one index:

1. The first group k for which abs(u) is at least half its unit is triggered. Where abs(u) is less
   than half the unit of the last group, nothing happens.
2. The index of that group moves by one against the sign of u. Past its end it wraps to its other
   end, and the group above moves by one in the same direction, a carry or borrow.
3. Where the first group would pass its end, the exponent grows by one. The first group keeps its
   index, so its value doubles, and all others move one index towards zero, which halves theirs. At
   the largest exponent, the whole update has no effect. The exponent never falls.

Two layouts have been published: `FLOATSD8_DIGITS`, whose first two groups and exponent are exactly
those of FloatSD8, and `EIGHT_OF_THREE`, whose weights need rounding to FloatSD8: of its mantissas
8a + b, ±31 and ±33 are no FloatSD8 mantissas at any exponent.

A carry changes less than it seems: 4 with a carry becomes 8 - 4, the same number, unless the
group above moves by more than one unit.

Source: the CUDA kernel of the group of arXiv 2001.08450 that implements the update of its earlier
paper (IEEE JETCAS 2019), as published, for layouts, thresholds, carries and the growth of the
exponent. In it, groups that have wrapped stay wrapped where the largest exponent ends the update;
that no such half of an update happens is this project's choice, as in a second kernel beside it. So
are `from_reals`, the ties, and the FloatSD8 codes of `EIGHT_OF_THREE`.
"""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from fewbit.golden.checks import as_raws, check_shape, freeze_integer
from fewbit.golden.formats import FloatSD8

__all__ = [
    "EIGHT_OF_THREE",
    "FLOATSD8_DIGITS",
    "GROUPS",
    "DigitLayout",
    "SignedDigits",
    "from_reals",
    "momentum_update",
    "trigger",
    "values",
    "weight_codes",
    "weights",
]

Indices = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

GROUPS = 8
_USED = 2
"""Number of groups that make up the weight that is used."""
_LOWEST_BIAS, _HIGHEST_BIAS = -64, 64


@dataclass(frozen=True)
class DigitLayout:
    """The sizes of the eight groups and of the exponent.

    Parameters
    ----------
    name
        The name of the layout.
    digits
        Signed digits of each group, the highest group first.
    exponent_bits
        Bits of the exponent.
    """

    name: str
    digits: tuple[int, ...]
    exponent_bits: int
    places: tuple[int, ...] = field(init=False)
    """Exponents of the groups' units, relative to the unit of the second group."""

    def __post_init__(self) -> None:
        """Compute the places."""
        ends = np.cumsum(self.digits)
        object.__setattr__(self, "places", tuple((ends[_USED - 1] - ends).tolist()))

    @property
    def largest_exponent(self) -> int:
        """Return the largest exponent, without the bias."""
        return 2**self.exponent_bits - 1


FLOATSD8_DIGITS = DigitLayout("floatsd8_digits", (3, 2, 3, 3, 2, 3, 3, 3), 3)
"""The layout whose weights are exactly those of FloatSD8, 25 bits a number in groups of 22."""
EIGHT_OF_THREE = DigitLayout("eight_of_three", (3,) * GROUPS, 2)
"""The layout of eight equal groups and an exponent of two bits, a range of 2^5 less."""


@dataclass(frozen=True, eq=False)
class SignedDigits:
    """Numbers as signed digits: the real is the sum of all groups times 2^(exponent - bias).

    The unit of the second group counts as 1 in that sum. Arrays are copied and made read-only.

    Parameters
    ----------
    indices
        Index of each group, the highest group first, shape (..., 8).
    exponent
        Exponents, shape (...).
    bias
        Exponent bias, -64 to 64. Bias 10 in `FLOATSD8_DIGITS` gives the weights of FloatSD8 with
        bias 10; in `EIGHT_OF_THREE` the same range has bias 7.
    layout
        The sizes of the groups.

    Raises
    ------
    ValueError
        If a shape is wrong, or an index or exponent is out of range.
    """

    indices: Indices
    exponent: Indices
    bias: int = 10
    layout: DigitLayout = FLOATSD8_DIGITS

    def __post_init__(self) -> None:
        """Check that shapes and ranges are legal."""
        freeze_integer(self, "bias", _LOWEST_BIAS, _HIGHEST_BIAS)
        exponent = as_raws(self.exponent, "exponent", 0, self.layout.largest_exponent).copy()
        most = max(self.layout.digits)
        indices = as_raws(self.indices, "indices", -most, most).copy()
        check_shape(indices, "indices", (*exponent.shape, GROUPS))
        if (np.abs(indices) > self.layout.digits).any():
            raise ValueError(
                f"indices must be at most {self.layout.digits} in magnitude, group by group."
            )
        for name, array in (("indices", indices), ("exponent", exponent)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def weight_format(self) -> FloatSD8:
        """Return the FloatSD8 format of `weight_codes`, which has the range of the weights."""
        # The largest weight is 18 * 2^7 units, or in eight groups of three 36 * 2^3.
        return FloatSD8(self.bias + (0 if self.layout == FLOATSD8_DIGITS else 3))


def trigger(state: SignedDigits, u: npt.ArrayLike) -> SignedDigits:
    """Return the numbers after an update, by the rule of this module.

    Parameters
    ----------
    state
        Numbers before the update.
    u
        Reals of which the numbers lose a part, such as a learning rate times a gradient, shape of
        `state.exponent`. They are compared with powers of two only, so that any float type gives
        the same result.

    Raises
    ------
    ValueError
        If the shape differs, or `u` holds NaN.
    """
    update = np.asarray(u, np.float64)
    check_shape(update, "u", state.exponent.shape)
    if np.isnan(update).any():
        raise ValueError("u must not be NaN; check the loss scale for overflow.")
    layout = state.layout
    halves = np.ldexp(0.5, state.exponent[..., np.newaxis] - state.bias + np.array(layout.places))
    reached = np.abs(update)[..., np.newaxis] >= halves
    triggered = np.where(reached.any(axis=-1), reached.argmax(axis=-1), GROUPS)
    direction = np.where(update > 0, -1, 1)
    indices = state.indices.copy()
    moves = np.zeros(update.shape, np.bool_)
    for group in range(GROUPS - 1, -1, -1):
        moves = moves | (triggered == group)
        moved = indices[..., group] + direction
        passes = moves & (np.abs(moved) > layout.digits[group])
        # The first group has no group above, so its carry is the exponent's growth, below.
        wrapped = indices[..., 0] if group == 0 else -direction * layout.digits[group]
        new = np.where(passes, wrapped, moved)
        indices[..., group] = np.where(moves, new, indices[..., group])
        moves = passes
    may_grow = state.exponent < layout.largest_exponent
    grows = (moves & may_grow)[..., np.newaxis]
    halved = indices - np.sign(indices)
    halved[..., 0] = indices[..., 0]
    indices = np.where(grows, halved, indices)
    indices = np.where((moves & ~may_grow)[..., np.newaxis], state.indices, indices)
    return SignedDigits(indices, state.exponent + grows[..., 0], state.bias, layout)


def momentum_update(
    state: SignedDigits,
    velocity: npt.NDArray[np.floating],
    gradient: npt.ArrayLike,
    *,
    rate: float,
    momentum: float = 0.9,
) -> tuple[SignedDigits, npt.NDArray[np.floating]]:
    """Return numbers and velocity after a step of gradient descent with momentum.

    The new velocity is momentum * velocity - rate * gradient, in the type of `velocity`; the
    numbers are triggered by u = -velocity.
    """
    new = (momentum * velocity - rate * np.asarray(gradient)).astype(velocity.dtype)
    return trigger(state, -new), new


def weights(state: SignedDigits) -> Reals:
    """Return the weights that are used, the reals of the first two groups, exactly."""
    return _reals(state, _USED)


def values(state: SignedDigits) -> Reals:
    """Return the reals of all eight groups, exactly."""
    return _reals(state, GROUPS)


def weight_codes(state: SignedDigits) -> npt.NDArray[np.int64]:
    """Return the codes of `state.weight_format` nearest to the weights, ties to the even index.

    In `FLOATSD8_DIGITS` they are exact. In `EIGHT_OF_THREE` all are exact but those of the
    mantissas ±31 and ±33: they are ties, and become ±32, at exponent 1 ±30 and ±34.
    """
    return state.weight_format.encode(weights(state))


def from_reals(
    reals: npt.ArrayLike, bias: int = 10, layout: DigitLayout = FLOATSD8_DIGITS
) -> SignedDigits:
    """Return numbers near to reals: the nearest weight, then the rest in the other groups.

    The weight is the nearest, ties to the even index of the sorted weights, saturated, with the
    smallest exponent and then the smallest first index that it can have. Each further group takes
    the nearest to what is left, ties towards zero.

    Error: the layouts have gaps, so that `values` of the result differ from the reals by up to
    3.9 % in `FLOATSD8_DIGITS` and 15 % in `EIGHT_OF_THREE`, for reals of the size of 1 to 1280
    units in the former, which are units of 2^-bias, and 1 to 160 in the latter.

    Parameters
    ----------
    reals
        Finite reals, any shape.
    bias, layout
        Fields of the result.

    Raises
    ------
    ValueError
        If a real is NaN or infinite.
    """
    given = np.asarray(reals, np.float64)
    if not np.isfinite(given).all():
        raise ValueError("reals must be finite to have signed digits.")
    table, exponents, first = _weight_table(layout)
    scaled = np.ldexp(given, bias)
    middles = (table[:-1] + table[1:]) / 2
    low, high = (np.searchsorted(middles, scaled, side=side) for side in ("left", "right"))
    zero = int(np.searchsorted(table, 0.0))
    chosen = np.where((low - zero) % 2 == 0, low, high)
    exponent = exponents[chosen]
    indices = np.zeros((*given.shape, GROUPS), np.int64)
    indices[..., :_USED] = first[chosen]
    left = np.ldexp(scaled - table[chosen], -exponent)
    for group in range(_USED, GROUPS):
        digits = np.array([0, *(2.0**k for k in range(layout.digits[group]))])
        unit = 2.0 ** layout.places[group]
        index = np.searchsorted((digits[:-1] + digits[1:]) / 2, np.abs(left) / unit, side="left")
        indices[..., group] = index * np.where(left < 0, -1, 1)
        left = left - np.copysign(digits[index], left) * unit
    return SignedDigits(indices, exponent, bias, layout)


def _reals(state: SignedDigits, groups: int) -> Reals:
    indices = state.indices[..., :groups]
    # Index ±k is ±2^(k - 1).
    digits = np.sign(indices) * np.ldexp(0.5, np.abs(indices))
    units = np.ldexp(1.0, np.array(state.layout.places[:groups]))
    return np.ldexp((digits * units).sum(axis=-1), state.exponent - state.bias)


@cache
def _weight_table(layout: DigitLayout) -> tuple[Reals, Indices, Indices]:
    """Return all weights of bias 0, ascending, with the exponent and first indices of each."""
    most = layout.digits[:_USED]
    found: dict[float, tuple[int, tuple[int, int]]] = {}
    for exponent in range(layout.largest_exponent + 1):
        for a in sorted(range(-most[0], most[0] + 1), key=abs):
            for b in range(-most[1], most[1] + 1):
                indices = np.array([a, b, *[0] * (GROUPS - _USED)])
                state = SignedDigits(indices, np.array(exponent), 0, layout)
                found.setdefault(float(weights(state)), (exponent, (a, b)))
    table = np.array(sorted(found))
    kept = [found[value] for value in table.tolist()]
    exponents = np.array([exponent for exponent, _ in kept])
    return table, exponents, np.array([first for _, first in kept])
