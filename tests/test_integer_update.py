# amaranth: UnusedElaboratable=no
"""The int8 update of every variant, segment by segment, against plain integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fewbit.golden.activation.integer import ACTIVATIONS, ActivationKind
from fewbit.golden.formats import INT8, INT16, INT32
from fewbit.golden.lstm.int8 import update_unit
from fewbit.golden.lstm.integer_variant import TIES_UP, IntegerVariant
from fewbit.hdl.neuron.integer import IntegerLayerNeuron
from fewbit.hdl.neuron.integer_update import IntegerUpdate
from tests.support.update_bench import FORMATS, Settings, simulation

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.hdl.structure import Structure
    from fewbit.sim.bulk import BulkSimulation

    Raws = npt.NDArray[np.int64]

# The reference: the recipe in integers, on arrays of units.


def divided(x: Raws, shift: Raws | int) -> Raws:
    """Rounded to nearest, ties away from zero."""
    return np.where(np.asarray(shift) == 0, x, _halves(x, np.maximum(shift, 1)))


def _halves(x: Raws, shift: Raws) -> Raws:
    return (x + (1 << (shift - 1)) - (x < 0)) >> shift


def within(x: Raws, bits: int) -> Raws:
    return np.clip(x, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def scaled(x: Raws, scale: tuple[int, int], ties_up: Raws | int = 0) -> Raws:
    """By a split multiplier of 24 bits and its shift, rounded twice."""
    multiplier, shift = scale
    left = (x << max(shift, 0)) & 0xFFFFFFFF
    wrapped = left - ((left >> 31) << 32)
    high = (wrapped * multiplier + (1 << 23)) >> 24
    # Ties away from zero are ties up but for a negative one, which an added unit takes up as well.
    is_negative_tie = (high < 0) & ((high & ((1 << max(-shift, 0)) - 1)) * 2 == 1 << max(-shift, 0))
    return divided(high, max(-shift, 0)) + (is_negative_tie & (np.asarray(ties_up) == 1))


def low(x: Raws) -> Raws:
    """The raw in the lower half of a row."""
    return ((x + 0x8000) & 0xFFFF) - 0x8000


def expected(
    settings: Settings,
    segment: str,
    rows: dict[str, Raws],
    cell: Raws,
    scales: dict[str, tuple[int, int]],
    fixed: dict[str, int],
) -> dict[str, Raws]:
    """What units of a segment give, from their rows by name and their old cells."""
    variant = settings.variant
    activation = ACTIVATIONS[settings.activation]
    bits = fixed["cell_integer_bits"]

    def part(name: str) -> Raws:
        return scaled(rows[name], scales[name])

    def gate(name: str, seen: Raws) -> Raws:
        if f"{name}_value" in rows:
            raw = low(rows[f"{name}_value"])
        else:
            raw = within(within(part(f"{name}_input"), 16) + part(f"{name}_recurrent"), 16)
        if f"{name}_peephole" in rows:
            weighed = low(rows[f"{name}_peephole"]) * seen
            ties_up = rows[f"{name}_peephole"] >> TIES_UP & 1
            seen_scaled = scaled(weighed, scales[f"{name}_peephole"], ties_up)
            raw = within(raw + seen_scaled, 16)
        return raw

    def hidden(new: Raws) -> Raws:
        exposed = activation.sigmoid(gate("o", new)) * activation.tanh(new, bits)
        return within(scaled(exposed, scales["hidden"]) + fixed["hidden_offset"], 8)

    if segment == "project":
        projected = within(part("projection") + fixed["projection_offset"], 8)
        clip = fixed["projection_clip"] or 128
        return {"result": np.clip(projected, -clip, clip)}
    if segment == "output":
        return {"result": hidden(cell)}
    if segment.startswith("collect_"):
        return {"value": gate(segment[-1], cell)}
    f = activation.sigmoid(gate("f", cell))
    i = 32767 - f if variant.coupled else activation.sigmoid(gate("i", cell))
    g = activation.tanh(gate("g", cell))
    new = within(divided(f * cell, 15) + divided(i * g, 15 + bits), 16)
    clip = fixed["cell_clip"] or 1 << 15
    new = np.clip(new, -clip, clip)
    if segment == "cell":
        return {"value": gate("o", new), "cell_result": new}
    return {"result": hidden(new), "cell_result": new}


# Stimulus.

CORNERS_32 = np.array([0, 1, -1, 2**31 - 1, -(2**31), 2**15, -(2**15) - 1, 2**23])
CORNERS_16 = np.array([0, 1, -1, 32767, -32768, -32767, 4096, -4096])


def random_words(rng: np.random.Generator, count: int, bits: int, corners: Raws) -> Raws:
    """Raws of all sizes, corners among them."""
    size = rng.uniform(1, bits, count)
    drawn = (rng.uniform(-1, 1, count) * 2 ** (size - 1)).astype(np.int64)
    return np.where(rng.random(count) < 0.15, rng.choice(corners, count), drawn)


def random_scale(rng: np.random.Generator, name: str) -> tuple[int, int]:
    """One that keeps most of the word within the result, or any."""
    if rng.random() < 0.2:
        multiplier = int(rng.choice([0, 1, 2**24 - 1, int(rng.integers(2**24))]))
        lowest, highest = -31, 0 if name == "hidden" else 30
        return multiplier, int(rng.choice([lowest, highest, int(rng.integers(lowest, highest))]))
    multiplier = int(rng.integers(2**23, 2**24))
    lowest, highest = {"hidden": (-24, -18), "projection": (-18, -8)}.get(name, (-12, 2))
    return multiplier, int(rng.integers(lowest, highest))


def random_configuration(rng: np.random.Generator, variant: IntegerVariant) -> dict[str, int]:
    drawn = {
        "cell_integer_bits": int(rng.integers(7)),
        "cell_clip": int(rng.choice([0, 0, 1, 32767, int(rng.integers(1, 2**15))])),
        "hidden_offset": int(rng.choice([0, -128, 128, int(rng.integers(-128, 129))])),
    }
    if variant.projection:
        drawn["projection_offset"] = int(rng.integers(-128, 128))
        drawn["projection_clip"] = int(rng.choice([0, 1, 127, int(rng.integers(1, 128))]))
    return drawn


def run(
    bulk: BulkSimulation,
    settings: Settings,
    segments: Raws,
    rng: np.random.Generator,
    *,
    stall_seed: int | None = None,
    reset: bool = True,
) -> int:
    """Drive units of these segments, assert every field that counts, and count them."""
    update = settings.update()
    scales = {name: random_scale(rng, name) for name in update.scales}
    fixed = random_configuration(rng, settings.variant)
    names = [update.rows(update.segments[segment]) for segment in segments]
    lengths = np.array([len(rows) for rows in names])
    total = int(lengths.sum())
    starts = np.cumsum(lengths) - lengths
    accumulator = random_words(rng, total, 32, CORNERS_32)
    old_cell = random_words(rng, total, 16, CORNERS_16)
    # What does not count is anything.
    segment = rng.integers(0, len(update.segments), total)
    segment[starts] = segments
    arrays = {
        "accumulator": INT32.code(accumulator),
        "old_cell": INT16.code(old_cell),
        "segment": segment,
        "multipliers": np.array([[scale[0] for scale in scales.values()]]),
        "shifts": np.array([[scale[1] & 0x3F for scale in scales.values()]]),
        **{name: FORMATS[name].code(np.array([number])) for name, number in fixed.items()},
    }
    got = bulk.run(arrays, len(segments), stall_seed=stall_seed, reset=reset)
    compared = 0
    for number, name in enumerate(update.segments):
        units = np.flatnonzero(segments == number)
        places = {row: starts[units] + index for index, row in enumerate(update.rows(name))}
        rows = {row: accumulator[at] for row, at in places.items()}
        cell_row = update.cell_row(name)
        cell = old_cell[places[cell_row]] if cell_row else np.zeros(len(units), np.int64)
        wanted = expected(settings, name, rows, cell, scales, fixed)
        for field, raws in wanted.items():
            found = {"result": INT8}.get(field, INT16).raw(got[field][units])
            wrong = np.flatnonzero(found != raws)
            if len(wrong):
                unit = wrong[0]
                raise AssertionError(
                    f"{field} of an {name} unit is {found[unit]}, not {raws[unit]}: rows"
                    f" { {row: int(word[unit]) for row, word in rows.items()} }, old cell"
                    f" {cell[unit]}, scales {scales}, configuration {fixed}."
                )
            compared += len(units)
    return compared


def campaign(
    settings: Settings, runs: int, units: int, seed: int = 1, bulk: BulkSimulation | None = None
) -> int:
    bulk = bulk or simulation(settings)
    rng = np.random.default_rng(seed)
    count = len(settings.update().segments)
    compared = 0
    for number in range(runs):
        segments = rng.integers(0, count, units)
        if number % 3 == 0:
            # As a layer does it: stretches of the same segment.
            segments = np.sort(segments)
        stall_seed = int(rng.integers(2**62)) if number % 2 else None
        compared += run(bulk, settings, segments, rng, stall_seed=stall_seed, reset=number == 0)
    return compared


@pytest.mark.parametrize("activation", ["table", "gemmlowp"])
def test_reference_equals_golden_where_golden_has_it(activation: ActivationKind) -> None:
    rng = np.random.default_rng(4)
    settings = Settings(activation=activation)
    update = settings.update()
    for _ in range(20):
        scales = {name: random_scale(rng, name) for name in update.scales}
        fixed = random_configuration(rng, settings.variant) | {"hidden_offset": 5}
        words = random_words(rng, 8 * 500, 32, CORNERS_32).reshape(8, 500)
        cell = random_words(rng, 500, 16, CORNERS_16)
        rows = dict(zip(update.rows("update"), words, strict=True))
        got = expected(settings, "update", rows, cell, scales, fixed)
        split = np.array(list(scales.values())).T
        hidden, new = update_unit(
            words.T.reshape(500, 4, 2),
            (split[0, :8] << 7).reshape(4, 2),
            split[1, :8].reshape(4, 2),
            cell,
            cell_exponent=fixed["cell_integer_bits"] - 15,
            cell_clip=fixed["cell_clip"],
            hidden_multiplier=scales["hidden"][0] << 7,
            hidden_shift=scales["hidden"][1],
            hidden_zero_point=5,
            activation=activation,
        )
        np.testing.assert_array_equal(got["result"], hidden)
        np.testing.assert_array_equal(got["cell_result"], new)


PLAIN = IntegerVariant()


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        # The structure for FPGAs compiles in half the time; the neuron has tests of that for gates.
        Settings(IntegerVariant(peephole=True)),
        Settings(IntegerVariant(norm=True), chunk=8, interpolates=True, structure="fpga"),
        Settings(IntegerVariant(True, True, True, True), structure="fpga"),
        Settings(IntegerVariant(peephole=True, norm=True), "gemmlowp", 4, structure="fpga"),
    ],
    ids=str,
)
def test_circuit_agrees_with_the_integers(settings: Settings) -> None:
    # Of the fields, one or two are compared a unit.
    assert campaign(settings, runs=24, units=60) >= 24 * 60


def test_a_broken_circuit_is_found() -> None:
    settings = Settings(PLAIN, structure="fpga")
    bulk = simulation(settings, ("is_cell = ", "is_cell = 1'h0 & "))
    with pytest.raises(AssertionError, match="result of an update unit is"):
        campaign(settings, runs=24, units=60, bulk=bulk)


@pytest.mark.parametrize(("structure", "cycles"), [("gates", 23), ("fpga", 24)])
def test_cycles_of_a_plain_unit(structure: Structure, cycles: int) -> None:
    settings = Settings(PLAIN, structure=structure)
    bulk = simulation(settings)
    fixed = {
        "cell_integer_bits": np.array([3]),
        "cell_clip": np.array([0]),
        "hidden_offset": np.array([0]),
        "multipliers": np.full((1, 9), 1 << 23),
        "shifts": np.full((1, 9), -9 & 0x3F),
    }
    taken = []
    for units in (20, 40):
        rows = {name: np.zeros(8 * units, np.int64) for name in ("old_cell", "segment")}
        bulk.run(fixed | rows | {"accumulator": np.arange(8 * units)}, units, silence=0)
        taken.append(bulk.cycles)
    assert taken[1] - taken[0] == 20 * cycles


@pytest.mark.parametrize(
    ("variant", "rows", "cell_rows"),
    [
        (
            PLAIN,
            {"update": 8},
            {"update": "f_recurrent"},
        ),
        (
            IntegerVariant(coupled=True, peephole=True),
            {"update": 8},
            {"update": "f_peephole"},
        ),
        (
            IntegerVariant(coupled=True, norm=True, projection=True),
            {"collect_f": 2, "collect_g": 2, "collect_o": 2, "update": 3, "project": 1},
            {"update": "f_value"},
        ),
        (
            IntegerVariant(peephole=True, norm=True),
            {
                "collect_i": 3,
                "collect_f": 3,
                "collect_g": 2,
                "collect_o": 2,
                "cell": 5,
                "output": 1,
            },
            {
                "collect_i": "i_peephole",
                "collect_f": "f_peephole",
                "cell": "f_value",
                "output": "o_value",
            },
        ),
    ],
)
def test_rows_of_a_variant(
    variant: IntegerVariant, rows: dict[str, int], cell_rows: dict[str, str]
) -> None:
    update = IntegerUpdate(variant=variant)
    assert {name: len(update.rows(name)) for name in update.segments} == rows
    found = {name: update.cell_row(name) for name in update.segments}
    assert {name: row for name, row in found.items() if row} == cell_rows


def test_layer_neuron_passes_on_what_its_update_has() -> None:
    variant = IntegerVariant(norm=True, projection=True)
    neuron = IntegerLayerNeuron(2, variant=variant)
    update = IntegerUpdate(variant=variant)
    assert neuron.segments == update.segments
    assert neuron.scales == update.scales
    assert neuron.rows("collect_i") == ("i_input", "i_recurrent")
    assert neuron.cell_row("update") == "f_value"
    for name in ("scale", "multiplier", "shift", "o", "projection_clip"):
        assert neuron.signature.members[name] == update.signature.members[name]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"chunk": 32}, "chunk must be 4, 8 or 16, not 32."),
        ({"structure": "lut"}, 'structure must be "gates" or "fpga", not \'lut\'.'),
        (
            {"activation": "gemmlowp", "interpolates": True},
            "Only the table has an interpolation of its own, not gemmlowp.",
        ),
    ],
)
def test_update_refuses_parameters(parameters: dict[str, int | str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntegerUpdate(**parameters)  # pyright: ignore[reportArgumentType]
