# amaranth: UnusedElaboratable=no
"""Units that sum rows: golden against plain Python integers, then the circuits against golden."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.sim import Simulator

from fewbit.golden.accumulate.pow2_accumulate import Pow2
from fewbit.golden.formats import TERNARY
from fewbit.hdl.designs import DESIGNS
from fewbit.hdl.sums.columns import Columns
from fewbit.sim.bulk import BulkSimulation, check_bulk
from fewbit.sim.verilog import verilog_of
from tests.support.dense_codes import LEVELS as DENSE_LEVELS

BINARY, TERNARY_UNIT, POW2, MAC = (
    "binary_accumulate",
    "ternary_accumulate",
    "pow2_accumulate",
    "int12_mac",
)
CASES = [
    (BINARY, {"lanes": 5}),
    (BINARY, {"lanes": 1, "activation_width": 2, "accumulator_width": 2}),
    (BINARY, {"lanes": 7, "activation_width": 4, "accumulator_width": 9, "structure": "fpga"}),
    (BINARY, {"lanes": 2, "structure": "plain"}),
    (TERNARY_UNIT, {"lanes": 10, "activation_width": 3, "packing": "dense"}),
    (TERNARY_UNIT, {"lanes": 5, "activation_width": 4, "packing": "dense", "structure": "plain"}),
    (TERNARY_UNIT, {"lanes": 3, "activation_width": 16, "structure": "fpga"}),
    (POW2, {"lanes": 2}),
    (POW2, {"lanes": 1, "activation_width": 2, "accumulator_width": 9, "exponent_bits": 3}),
    (POW2, {"lanes": 3, "exponent_bits": 1, "structure": "fpga"}),
    (POW2, {"lanes": 2, "exponent_bits": 3, "structure": "plain"}),
    (POW2, {"lanes": 1, "exponent_bits": 0}),
    (MAC, {"lanes": 1}),
    (MAC, {"lanes": 2, "activation_width": 4, "accumulator_width": 17}),
    (MAC, {"lanes": 1, "activation_width": 16, "accumulator_width": 48, "structure": "fpga"}),
    (MAC, {"lanes": 2, "structure": "plain"}),
]


def name_of(case):
    design, settings = case
    return "-".join([design, *(f"{name}={value}" for name, value in settings.items())])


def signed(code: int, width: int) -> int:
    return code - (code >> (width - 1) << width)


def weights_of(design: str, contract, codes: list[int]) -> list[Fraction]:
    """Weights of a beat by the definitions of their formats, spelled out."""
    if design == BINARY:
        return [Fraction({0: -1, 1: 1}[code]) for code in codes]
    if design == MAC:
        return [Fraction(signed(code, 12)) for code in codes]
    if design == POW2:
        bits = contract.exponent_bits
        reals = []
        for code in codes:
            exponent = code // 2 % 2**bits
            real = Fraction(code % 2, 2**exponent)
            reals.append(-real if code >= 2 ** (bits + 1) else real)
        return reals
    if contract.packing == "dense":
        return [Fraction(level) for code in codes for level in DENSE_LEVELS[code]]
    return [Fraction({0: 0, 1: 1, 2: 0, 3: -1}[code]) for code in codes]


def row_sums(design: str, contract, arrays) -> list[int]:
    """The stream read beat by beat, in fractions, and put in steps at the end."""
    steps = 2 ** (2**contract.exponent_bits - 1) if design == POW2 else 1
    results, total = [], Fraction(0)
    for beat in range(len(arrays["first"])):
        if arrays["first"][beat]:
            start = signed(int(arrays["accumulator"][beat]), contract.accumulator_width)
            total = Fraction(start, steps)
        weights = weights_of(design, contract, arrays["weights"][beat].tolist())
        for weight, activation in zip(weights, arrays["activations"][beat].tolist(), strict=True):
            total += weight * signed(activation, contract.activation_width)
        if arrays["last"][beat]:
            assert (total * steps).denominator == 1
            results.append(int(total * steps) % 2**contract.accumulator_width)
    return results


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_golden_equals_fractions(case):
    name, settings = case
    contract = DESIGNS[name].configure(settings).contract
    arrays = contract.stimulus(np.random.default_rng(3), 200)
    assert contract.compute(arrays)["result"].tolist() == row_sums(name, contract, arrays)
    assert arrays["last"].sum() == 200


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_circuit_equals_golden(case):
    name, settings = case
    # Every second chunk has pauses on both streams.
    outcome = check_bulk(DESIGNS[name].configure(settings), count=8_000, seed=1, chunk=2_000)
    assert outcome.passed, outcome.counterexample


def every_beat(weight_width: int, lanes: int, width: int, accumulator: int):
    """Rows of two beats: any state of the sum, then every operand of a beat that goes on."""
    bits = [weight_width * lanes, width * lanes, accumulator]
    weights, activations, start = (
        grid.ravel() for grid in np.mgrid[tuple(slice(0, 2**count) for count in bits)]
    )

    def split(codes, size):
        return np.stack([codes >> size * lane & 2**size - 1 for lane in range(lanes)], axis=1)

    beats = 2 * len(start)
    arrays = {
        "weights": np.zeros((beats, lanes), dtype=np.int64),
        "activations": np.zeros((beats, lanes), dtype=np.int64),
        "accumulator": np.repeat(start, 2),
        "first": np.tile([1, 0], len(start)),
        "last": np.tile([0, 1], len(start)),
    }
    arrays["weights"][1::2] = split(weights, weight_width)
    arrays["activations"][1::2] = split(activations, width)
    # What comes with a beat that starts no row must not count.
    arrays["accumulator"][1::2] ^= 2**accumulator - 1
    return arrays


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "settings", "weight_width"),
    [
        (BINARY, {"lanes": 1, "activation_width": 4, "accumulator_width": 6}, 1),
        (BINARY, {"lanes": 2, "activation_width": 3, "accumulator_width": 6}, 1),
        (TERNARY_UNIT, {"lanes": 1, "activation_width": 4, "accumulator_width": 6}, 2),
        (TERNARY_UNIT, {"lanes": 2, "activation_width": 3, "accumulator_width": 6}, 2),
        (POW2, {"lanes": 1, "activation_width": 4, "accumulator_width": 7}, 4),
    ],
    ids=str,
)
def test_every_beat_of_few_narrow_lanes(name, settings, weight_width):
    """All weights and activations on top of every running sum: a beat's whole truth table."""
    arrays = every_beat(weight_width, *settings.values())
    contract = DESIGNS[name].configure(settings).contract
    rows = len(arrays["last"]) // 2
    got = BulkSimulation(DESIGNS[name].configure(settings)).run(arrays, rows)["result"]
    steps = 2 ** (2**contract.exponent_bits - 1) if name == POW2 else 1
    codes = range(2**weight_width)
    level = np.array([int(weights_of(name, contract, [code])[0] * steps) for code in codes])
    width = settings["activation_width"]
    raws = arrays["activations"][1::2]
    raws = np.where(raws >> (width - 1), raws - 2**width, raws)
    expected = arrays["accumulator"][::2] + (level[arrays["weights"][1::2]] * raws).sum(axis=1)
    np.testing.assert_array_equal(got, expected % 2 ** settings["accumulator_width"])


def test_every_code_of_five_weights():
    """Five activations of their own magnitudes tell all the digits of a code from the sum."""
    settings = {"lanes": 5, "activation_width": 12, "accumulator_width": 16, "packing": "dense"}
    codes = np.arange(256)
    arrays = {
        "weights": codes[:, None],
        "activations": np.tile(4 ** np.arange(5), (256, 1)),
        "accumulator": np.zeros_like(codes),
        "first": np.ones_like(codes),
        "last": np.ones_like(codes),
    }
    sums = BulkSimulation(DESIGNS[TERNARY_UNIT].configure(settings)).run(arrays, 256)["result"]
    expected = [
        sum(level * 4**place for place, level in enumerate(DENSE_LEVELS[code]))
        for code in range(256)
    ]
    assert np.where(sums >> 15, sums - 2**16, sums).tolist() == expected
    assert len(set(expected)) == 243


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        # A carry, and the sum of a pair.
        ("sum_9_carry = ", "sum_9_carry = ~"),
        ("sum_0_sum = ", "sum_0_sum = ~"),
    ],
)
def test_broken_circuits_are_caught(tmp_path, right, wrong):
    settings = {"lanes": 2, "activation_width": 6}
    text = verilog_of(DESIGNS[BINARY].configure(settings))
    assert text.count(right) == 1
    outcome = check_bulk(
        DESIGNS[BINARY].configure(settings),
        count=100,
        cache_dir=tmp_path,
        verilog=text.replace(right, wrong),
    )
    assert not outcome.passed


def test_a_broken_golden_model_is_caught(tmp_path):
    contract = DESIGNS[BINARY].contract

    def wrong(**parameters):
        right = contract(**parameters)

        class Wrong(type(right)):
            def levels(self, codes):
                # As if 1 were -1: the other convention for a binary weight.
                return 1 - 2 * codes

        return Wrong(**parameters)

    design = replace(DESIGNS[BINARY], contract=wrong)
    outcome = check_bulk(design.configure({"lanes": 2}), count=100, cache_dir=tmp_path)
    assert not outcome.passed
    assert "weights = " in outcome.counterexample


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8])
def test_columns_add_rows_pairs_and_constants(width):
    module, given = Module(), Signal(9)
    columns = Columns(module, width, "total")
    columns.add_word(given[0:2], 1)
    columns.add_signed(given[2:5])
    columns.add_signed(given[5:7], 2)
    columns.add_pair(given[7], given[8], 1)
    columns.add_constant(-3)
    total = columns.sum()

    async def bench(ctx):
        for bits in range(2**9):
            ctx.set(given, bits)
            expected = (bits & 3) * 2 + signed(bits >> 2 & 7, 3) + signed(bits >> 5 & 3, 2) * 4 - 3
            expected += 2 * ((bits >> 7 & 1) + ((bits >> 7 ^ bits >> 8) & 1))
            assert ctx.get(total) == expected % 2**width

    simulator = Simulator(module)
    simulator.add_testbench(bench)
    simulator.run()


def test_a_pair_alone_in_a_column():
    module = Module()
    bit, differs = Signal(), Signal()
    columns = Columns(module, 2, "total")
    columns.add_pair(bit, differs)
    columns.add_pair(bit, differs, place=2)
    total = columns.sum()

    async def bench(ctx):
        for code in range(4):
            ctx.set(Cat(bit, differs), code)
            assert ctx.get(total) == (code & 1) + ((code ^ code >> 1) & 1)

    simulator = Simulator(module)
    simulator.add_testbench(bench)
    simulator.run()


def test_pow2_without_exponents_is_ternary():
    pow2 = Pow2(0)
    np.testing.assert_array_equal(pow2.decode(range(4)), TERNARY.decode(range(4)))
    np.testing.assert_array_equal(pow2.encode([-9, -1, 0, 0.6]), TERNARY.encode([-9, -1, 0, 0.6]))


def test_pow2_codes():
    pow2 = Pow2(2)
    assert pow2.name == "pow2_4"
    assert pow2.encoding == "0bNEEZ"
    assert pow2.values.tolist() == [-1, -0.5, -0.25, -0.125, 0, 0.125, 0.25, 0.5, 1]
    assert pow2.decode([0b0001, 0b1001, 0b0111, 0b1110]).tolist() == [1, -1, 0.125, 0]
    assert pow2.encode([1, -1, 0.125, 0]).tolist() == [0b0001, 0b1001, 0b0111, 0]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (BINARY, {"lanes": 0}, "lanes must be a whole number from 1 to 256, not 0."),
        (
            POW2,
            {"accumulator_width": 14},
            "accumulator_width must be at least 15, a product's width, not 14.",
        ),
        (POW2, {"exponent_bits": 4}, "exponent_bits must be a whole number from 0 to 3, not 4."),
        (
            TERNARY_UNIT,
            {"packing": "base_3"},
            'packing must be "fields" or "dense", not \'base_3\'.',
        ),
        (
            TERNARY_UNIT,
            {"packing": "dense"},
            "lanes must be a multiple of 5 with packing dense, not 16.",
        ),
        (
            MAC,
            {"accumulator_width": 23},
            "accumulator_width must be at least 24, a product's width, not 23.",
        ),
    ],
)
def test_bad_parameters_are_refused(name, settings, message):
    parameters = {p.name: p.default for p in DESIGNS[name].parameters} | settings
    with pytest.raises(ValueError) as error:  # noqa: PT011
        DESIGNS[name].contract(**parameters)
    assert str(error.value) == message


def test_an_unknown_structure_is_refused():
    with pytest.raises(ValueError) as error:  # noqa: PT011
        DESIGNS[BINARY].component(None, structure="tree")
    assert str(error.value) == 'structure must be "gates", "fpga" or "plain", not \'tree\'.'
