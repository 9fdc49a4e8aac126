# amaranth: UnusedElaboratable=no
"""FloatSD8 multiply-accumulate: golden against Fractions, then the circuit against both."""

import numpy as np
import pytest

from fewbit.golden.accumulate import float_sum
from fewbit.golden.accumulate.float_sum import round_sum
from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.golden.formats import BINARY16
from fewbit.hdl.designs import DESIGNS
from fewbit.sim.bulk import BulkSimulation, check_bulk
from tests.support import exact

DESIGN = DESIGNS["floatsd8_mac"]
CASES = [
    {},
    {"window": None},
    {"window": 8},
    {"window": 11, "products": 1},
    {"window": None, "products": 3, "activation_bias": 24, "weight_bias": -5},
    {"window": 20, "products": 9, "activation_bias": 7, "weight_bias": 3},
    {"window": 48, "products": 2, "activation_bias": 0, "weight_bias": 40},
    {"window": None, "products": 16, "activation_bias": 31, "weight_bias": -16},
]


def name_of(settings):
    return "-".join(f"{name}={value}" for name, value in settings.items()) or "default"


def by_fractions(contract: FloatSD8MacContract, arrays, index: int) -> int:
    return exact.floatsd8_mac(
        arrays["weights"][index].tolist(),
        arrays["activations"][index].tolist(),
        int(arrays["accumulator"][index]),
        contract.window,
        contract.weight_bias,
        contract.activation_bias,
    )


@pytest.mark.parametrize("settings", CASES, ids=name_of)
def test_golden_equals_fractions(settings):
    contract = FloatSD8MacContract(**settings)
    seed = 11
    arrays = contract.stimulus(np.random.default_rng(seed), 1500)
    got = contract.compute(arrays)["result"]
    for index, code in enumerate(got.tolist()):
        expected = by_fractions(contract, arrays, index)
        reals = "\n".join(contract.explain(arrays, index))
        assert code == expected, (
            f"seed {seed}, beat {index}: {code:04x}, not {expected:04x}\n{reals}"
        )


@pytest.mark.parametrize("spread", [1, 6, 20, 200])
def test_sums_of_any_fields_equal_fractions(spread):
    """Fields up to 40 bits, units far finer and coarser than the result's, all windows."""
    rng = np.random.default_rng(spread)
    for case in range(40):
        widths = rng.integers(1, 41 if case % 2 else 12, rng.integers(1, 8)).tolist()
        shape = 8, len(widths)
        terms = np.stack([rng.integers(1 - 2**w, 2**w, 8) for w in widths], axis=1)
        # Single bits, for ties; zeros, which count with their exponents.
        terms = np.where(rng.random(shape) < 0.3, np.sign(terms), terms)
        terms[rng.random(shape) < 0.2] = 0
        ulps = rng.integers(-spread, spread + 1, shape) + rng.integers(-36, 4)
        window = None if case % 4 == 0 else int(rng.integers(2, 70))
        codes = round_sum(terms, ulps, widths, window, BINARY16).tolist()
        for code, beat, exponents in zip(codes, terms.tolist(), ulps.tolist(), strict=True):
            pairs = list(zip(beat, exponents, strict=True))
            reals = [exact.Fraction(term) * exact.Fraction(2) ** ulp for term, ulp in pairs]
            if window is not None:
                top = max(ulp + width for ulp, width in zip(exponents, widths, strict=True))
                step = exact.Fraction(2) ** (top - window)
                reals = [(1 if real >= 0 else -1) * (abs(real) // step) * step for real in reals]
            assert code == exact.to_binary16(sum(reals, exact.Fraction(0))), (pairs, window)


def test_a_sum_does_not_depend_on_its_block(monkeypatch):
    contract = FloatSD8MacContract()
    arrays = contract.stimulus(np.random.default_rng(4), 1000)
    whole = contract.compute(arrays)["result"]
    monkeypatch.setattr(float_sum, "_BLOCK", 7)
    np.testing.assert_array_equal(contract.compute(arrays)["result"], whole)


def test_stimulus_reaches_every_kind_of_result():
    contract = FloatSD8MacContract()
    arrays = contract.stimulus(np.random.default_rng(1), 20_000)
    magnitude = contract.compute(arrays)["result"] & 0x7FFF
    assert (magnitude == 0).any()
    assert ((magnitude > 0) & (magnitude < 0x400)).any()
    assert (magnitude == 0x7BFF).any()
    assert ((magnitude > 0x400) & (magnitude < 0x7BFF)).mean() > 0.5


def test_zero_sums_are_positive_and_tiny_negative_ones_are_not():
    # A window of 14 bits keeps the smallest product beside an accumulator of zero.
    contract = FloatSD8MacContract(1, window=14)
    beats = {
        # 0 * 0 + -0; 2^-10 * 2^-16 * -1 rounds to -0; 1 * 1 - 1.
        "weights": np.array([[0], [0x11], [0xE8]]),
        "activations": np.array([[0], [0x01], [0x3C]]),
        "accumulator": np.array([0x8000, 0, 0xBC00]),
    }
    assert contract.compute(beats)["result"].tolist() == [0, 0x8000, 0]


def test_error_of_a_window_is_below_its_bound():
    # Each of five operands loses less than one unit of 2^-window of the largest field.
    arrays = FloatSD8MacContract(window=None).stimulus(np.random.default_rng(5), 3000)
    got = FloatSD8MacContract(window=14).compute(arrays)["result"]
    for index, code in enumerate(got.tolist()):
        pairs = list(zip(arrays["weights"][index], arrays["activations"][index], strict=True))
        start = int(arrays["accumulator"][index])
        total = sum(exact.floatsd8(int(w)) * exact.e5m2(int(a)) for w, a in pairs)
        total += exact.binary16(start)
        tops = [int(w >> 5) + max(int(a) >> 2 & 31, 1) - 20 for w, a in pairs]
        tops.append(max(start >> 10 & 31, 1) - 14)
        bound = 5 * exact.Fraction(2) ** (max(tops) - 14)
        low, high = exact.to_binary16(total - bound), exact.to_binary16(total + bound)
        assert exact.binary16(low) <= exact.binary16(code) <= exact.binary16(high)


@pytest.mark.long
def test_all_pairs_of_one_product_in_the_circuit_equal_fractions():
    """All 65,536 (weight, activation) pairs through the compiled RTL, against Fractions."""
    weights, activations = (grid.reshape(-1, 1) for grid in np.mgrid[0:256, 0:256])
    arrays = {
        "weights": weights,
        "activations": activations,
        "accumulator": np.zeros(65_536, dtype=np.int64),
    }
    for window in (None, 14):
        circuit = BulkSimulation(DESIGN.configure({"products": 1, "window": window}))
        got = circuit.run(arrays, 65_536)["result"]
        reals = [exact.floatsd8(code) for code in range(256)]
        others = [exact.e5m2(code) for code in range(256)]
        # A product has 7 bits, so a window of 14 keeps it whole beside an accumulator of zero,
        # unless the zero's own exponent is far above; that case is the contract's.
        expected = [
            exact.to_binary16(weight * activation)
            if window is None
            else exact.floatsd8_mac([w], [a], 0, window)
            for w, weight in enumerate(reals)
            for a, activation in enumerate(others)
        ]
        np.testing.assert_array_equal(got, expected)


@pytest.mark.long
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("settings", CASES[:3], ids=name_of)
def test_circuit_equals_golden(settings, stages):
    outcome = check_bulk(
        DESIGN.configure({**settings, "stages": stages}), count=200_000, seed=stages
    )
    assert outcome.passed, outcome.counterexample


@pytest.mark.long
@pytest.mark.parametrize("settings", CASES[3:], ids=name_of)
def test_circuit_equals_golden_at_odd_parameters(settings):
    outcome = check_bulk(DESIGN.configure(settings), count=50_000, seed=7)
    assert outcome.passed, outcome.counterexample


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"products": 0}, "products must be a whole number from 1 to 16, not 0."),
        ({"products": 4.0}, "products must be a whole number from 1 to 16, not 4.0."),
        ({"window": "14"}, "window must be a whole number from 8 to 48, not '14'."),
        ({"window": 7}, "window must be a whole number from 8 to 48, not 7."),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        FloatSD8MacContract(**parameters)
    assert str(error.value) == message


def test_bad_arrays_are_refused():
    contract = FloatSD8MacContract()
    arrays = contract.stimulus(np.random.default_rng(1), 4)
    with pytest.raises(ValueError, match=r"must have shape \(4, 4\), not \(4, 3\)"):
        contract.compute({**arrays, "weights": arrays["weights"][:, :3]})
    with pytest.raises(ValueError, match="Operand 'accumulator' is missing"):
        contract.compute({name: arrays[name] for name in ("weights", "activations")})
    with pytest.raises(ValueError, match="binary16 codes must be from 0 to 65535"):
        contract.compute({**arrays, "accumulator": arrays["accumulator"] + 65536})
