# amaranth: UnusedElaboratable=no
"""FloatSD8 encoder and decoder: golden against Fractions, then the circuits on every code."""

from bisect import bisect_left
from fractions import Fraction

import numpy as np
import pytest

from fewbit.golden.floatsd8_conversion import FloatSD8DecodeContract, FloatSD8EncodeContract
from fewbit.hdl.designs import DESIGNS
from fewbit.hdl.floatsd8_conversion import encode_table
from fewbit.sim.bulk import BulkSimulation
from tests.support import exact

BIASES = range(-16, 41)
NUMBERS = np.arange(1 << 16)
CODES = np.arange(256)


def weights_of(bias: int) -> dict[Fraction, int]:
    """Non-negative values and their canonical codes: the smallest exponent that holds each."""
    weights: dict[Fraction, int] = {}
    for code in sorted(range(256), key=lambda code: code >> 5):
        if not code & 0b10000:
            weights.setdefault(exact.floatsd8(code, bias), 0 if code & 15 == 0 else code)
    return weights


@pytest.mark.parametrize("bias", [-16, 3, 10, 24, 33])
def test_golden_encoder_equals_fractions(bias):
    weights = weights_of(bias)
    values = sorted(weights)
    got = FloatSD8EncodeContract(bias).compute({"number": NUMBERS})["result"].tolist()
    for number in range(0, 1 << 15, 1 if bias == 10 else 7):
        real = exact.binary16(number)
        above = min(bisect_left(values, real), len(values) - 1)
        below = max(above - 1, 0)
        # Positions count from zero; a tie goes to the even one.
        nearest = min((below, above), key=lambda k: (abs(values[k] - real), k % 2))
        code = weights[values[nearest]]
        assert got[number] == code, (
            f"{number:04x} ({float(real)}): {got[number]:02x}, not {code:02x}"
        )
        assert got[number | 0x8000] == (code | 0b10000 if code else 0)


def test_golden_decoder_equals_fractions():
    for bias in BIASES:
        got = FloatSD8DecodeContract(bias).compute({"number": CODES})["result"].tolist()
        expected = [exact.to_binary16(exact.floatsd8(code, bias)) for code in range(256)]
        assert got == expected, f"bias {bias}"


def test_decoding_and_encoding_again_gives_the_canonical_code():
    for bias in range(-4, 25):
        numbers = FloatSD8DecodeContract(bias).compute({"number": CODES})["result"]
        again = FloatSD8EncodeContract(bias).compute({"number": numbers})["result"]
        reals = FloatSD8EncodeContract(bias).format.decode
        np.testing.assert_array_equal(reals(again), reals(CODES))
        assert (again >> 5 <= CODES >> 5).all()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("floatsd8_encode", 10),
        ("floatsd8_encode", 26),
        ("floatsd8_decode", 10),
        ("floatsd8_decode", 26),
        ("floatsd8_decode", -7),
    ],
)
def test_circuits_equal_golden_on_every_code(name, bias):
    circuit = BulkSimulation(DESIGNS[name].configure({"bias": bias}))
    arrays = {"number": NUMBERS if name == "floatsd8_encode" else CODES}
    got = circuit.run(arrays, len(arrays["number"]), stall_seed=3)["result"]
    expected = circuit.contract.compute(arrays)["result"]
    wrong = np.flatnonzero(got != expected)
    assert not len(wrong), "\n".join(circuit.contract.explain(arrays, int(wrong[0])))


def test_tables_of_the_encoder_equal_golden_at_every_bias():
    for bias in BIASES:
        expected = FloatSD8EncodeContract(bias).compute({"number": NUMBERS[: 1 << 15]})["result"]
        assert encode_table(bias) == expected.tolist(), f"bias {bias}"


def test_a_wrong_threshold_is_found(monkeypatch, tmp_path):
    table = encode_table(10)
    # The number just below the middle of 1.0625 and 1.125 encodes as above it.
    index = table.index(0xCF)
    table[index - 1] = table[index]
    monkeypatch.setattr("fewbit.hdl.floatsd8_conversion.encode_table", lambda bias: table)
    circuit = BulkSimulation(DESIGNS["floatsd8_encode"].configure(), cache_dir=tmp_path)
    arrays = {"number": NUMBERS}
    got = circuit.run(arrays, 1 << 16)["result"]
    expected = circuit.contract.compute(arrays)["result"]
    assert np.flatnonzero(got != expected).tolist() == [index - 1, index - 1 + (1 << 15)]


def test_bad_biases_are_refused():
    for contract in (FloatSD8EncodeContract, FloatSD8DecodeContract):
        with pytest.raises(ValueError, match=r"bias must be a whole number from -16 to 40, not 41"):
            contract(41)
