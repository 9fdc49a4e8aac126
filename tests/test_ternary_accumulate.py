"""Ternary accumulate: golden against plain Python integers, then the circuit against golden."""

import numpy as np
import pytest

from fewbit.golden.accumulate.ternary_accumulate import TernaryAccumulateContract
from fewbit.hdl.designs import DESIGNS
from fewbit.sim.bulk import BulkSimulation, check_bulk

DESIGN = DESIGNS["ternary_accumulate"]
CASES = [
    {},
    {"lanes": 1, "activation_width": 2, "accumulator_width": 2},
    {"lanes": 3, "activation_width": 8, "accumulator_width": 12},
    {"lanes": 5, "activation_width": 16, "accumulator_width": 48},
    {"lanes": 24, "activation_width": 4, "accumulator_width": 16},
]


def name_of(settings):
    return "-".join(f"{name}={value}" for name, value in settings.items()) or "default"


def signed(code: int, width: int) -> int:
    return code - (code >> (width - 1) << width)


def row_sums(contract: TernaryAccumulateContract, arrays) -> list[int]:
    """The stream read beat by beat, in Python integers."""
    results, total = [], 0
    for beat in range(len(arrays["first"])):
        if arrays["first"][beat]:
            total = signed(int(arrays["accumulator"][beat]), contract.accumulator_width)
        for weight, activation in zip(
            arrays["weights"][beat].tolist(), arrays["activations"][beat].tolist(), strict=True
        ):
            total += {0: 0, 1: 1, 2: 0, 3: -1}[weight] * signed(
                activation, contract.activation_width
            )
        if arrays["last"][beat]:
            results.append(total % 2**contract.accumulator_width)
    return results


@pytest.mark.parametrize("settings", CASES, ids=name_of)
def test_golden_equals_python_integers(settings):
    contract = TernaryAccumulateContract(**settings)
    arrays = contract.stimulus(np.random.default_rng(3), 300)
    assert contract.compute(arrays)["result"].tolist() == row_sums(contract, arrays)
    assert arrays["last"].sum() == 300


@pytest.mark.long
@pytest.mark.parametrize("settings", CASES, ids=name_of)
def test_circuit_equals_golden(settings):
    outcome = check_bulk(DESIGN.configure(settings), count=50_000, seed=1)
    assert outcome.passed, outcome.counterexample


def test_every_operand_of_one_narrow_lane():
    """All weights, activations, start values and flags of a 4-bit lane: 4 * 16 * 64 rows."""
    weights, activations, start = (grid.ravel() for grid in np.mgrid[0:4, 0:16, 0:64])
    settings = {"lanes": 1, "activation_width": 4, "accumulator_width": 6}
    arrays = {
        "weights": weights[:, None],
        "activations": activations[:, None],
        "accumulator": start,
        "first": np.ones_like(start),
        "last": np.ones_like(start),
    }
    got = BulkSimulation(DESIGN.configure(settings)).run(arrays, len(start))["result"]
    digit = np.array([0, 1, 0, -1])[weights]
    raw = np.where(activations > 7, activations - 16, activations)
    np.testing.assert_array_equal(got, (start + digit * raw) % 64)


def test_a_row_that_fits_is_right_whatever_its_partial_sums_do():
    contract = TernaryAccumulateContract(1, 4, 4)
    # 7 + 7 overflows four bits; - 7 - 7 brings it back to 0.
    arrays = {
        "weights": np.array([[1], [1], [3], [3]]),
        "activations": np.array([[7], [7], [7], [7]]),
        "accumulator": np.zeros(4, dtype=np.int64),
        "first": np.array([1, 0, 0, 0]),
        "last": np.array([0, 0, 0, 1]),
    }
    assert contract.compute(arrays)["result"].tolist() == [0]


def test_rows_without_a_start_are_refused():
    contract = TernaryAccumulateContract(1, 4, 8)
    arrays = {
        "weights": np.array([[1], [1]]),
        "activations": np.array([[7], [7]]),
        "accumulator": np.zeros(2, dtype=np.int64),
        "first": np.array([1, 0]),
        "last": np.array([1, 1]),
    }
    with pytest.raises(ValueError, match="beat 1 continues a row that ended"):
        contract.compute(arrays)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lanes": 0}, "lanes must be a whole number from 1 to 256, not 0."),
        (
            {"activation_width": 12, "accumulator_width": 8},
            "accumulator_width must be at least activation_width (12), not 8.",
        ),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        TernaryAccumulateContract(**parameters)
    assert str(error.value) == message
