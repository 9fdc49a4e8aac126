"""Sigmoid and tanh of both kinds over all 65,536 inputs, against what was not written here."""

import hashlib
import importlib
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.activation.gemmlowp import sigmoid_gemmlowp, tanh_gemmlowp
from fewbit.golden.activation.integer import ACTIVATIONS
from fewbit.golden.activation.table import interpolation_table, sigmoid_table, tanh_table

EVERY = np.arange(-(2**15), 2**15)
EXPONENTS = range(-15, -8)

# TensorFlow Lite Micro's `sigmoid_table_uint16` (tensorflow/lite/kernels/internal/common.h), its
# 256 published entries as little-endian 16-bit words.
PUBLISHED_TABLE = "c79a34d2c8c6e794fbb0207601538fe0169e968cd6d9d5ca65fff859dcd55183"


@pytest.fixture(scope="module")
def litert() -> ModuleType:
    pytest.importorskip("ai_edge_litert")
    return importlib.import_module("tests.support.tflite_models")


def mirrored(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``f(x) + f(-x)`` for x from -32767 to 32767."""
    return values[1:] + values[:0:-1]


def sigmoid_error(values: npt.NDArray[np.int64]) -> float:
    """Largest distance from the real function in units of 2^-15."""
    return float(np.abs(values - 2**15 / (1 + np.exp(-EVERY / 2**12))).max())


def tanh_error(values: npt.NDArray[np.int64], exponent: int) -> float:
    return float(np.abs(values - 2**15 * np.tanh(EVERY * 2.0**exponent)).max())


def test_real_functions_are_right() -> None:
    """The float64 functions that the errors are measured against, at 50 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(50):
        for x in (-8, -3.3, -1e-4, 0, 2e-3, 0.7, 5.5, 7.99):
            assert 1 / (1 + np.exp(-x)) == pytest.approx(float(1 / (1 + mpmath.exp(-x))), rel=1e-14)
            assert np.tanh(x) == pytest.approx(float(mpmath.tanh(x)), rel=1e-14)


def test_table_is_the_published_one() -> None:
    table = interpolation_table()
    assert table.shape == (256,)
    assert hashlib.sha256(table.astype("<u2").tobytes()).hexdigest() == PUBLISHED_TABLE


def test_sigmoid_table() -> None:
    values = sigmoid_table(EVERY)
    assert sigmoid_error(values) < 1.02
    assert (np.diff(values) >= 0).all()
    assert (mirrored(values) == 2**15).all()
    assert (values.min(), values.max()) == (11, 32757)


@pytest.mark.parametrize(
    ("exponent", "bound"),
    [(-15, 2.45), (-14, 2.45), (-13, 2.45), (-12, 1.48), (-11, 1.42), (-10, 1.30), (-9, 1.29)],
)
def test_tanh_table(exponent: int, bound: float) -> None:
    values = tanh_table(EVERY, exponent)
    assert tanh_error(values, exponent) < bound
    assert (np.diff(values) >= 0).all()
    if exponent >= -12:
        assert (mirrored(values) == 0).all()
    else:
        assert set(mirrored(values).tolist()) == {0, 1, 2, 3}


def test_tanh_table_of_a_gate_is_q3_12() -> None:
    assert (tanh_table(EVERY) == tanh_table(EVERY, -12)).all()


def test_sigmoid_gemmlowp() -> None:
    values = sigmoid_gemmlowp(EVERY)
    assert sigmoid_error(values) < 6.4
    assert (np.diff(values) < 0).any(), "known not to be monotone"
    middle = EVERY[1:] == 0
    assert (mirrored(values) == np.where(middle, 2**15, 2**15 - 1)).all()
    assert (values.min(), values.max()) == (11, 32756)


@pytest.mark.parametrize("integer_bits", range(7))
def test_tanh_gemmlowp(integer_bits: int) -> None:
    values = tanh_gemmlowp(EVERY, integer_bits)
    assert tanh_error(values, integer_bits - 15) < 12.05
    assert (mirrored(values) == 0).all()
    assert (np.diff(values) >= 0).all() == (integer_bits == 6)


def test_table_kind_equals_litert(litert: ModuleType) -> None:
    """LiteRT's reference LOGISTIC and TANH interpolate in the same table."""
    words = EVERY.astype(np.int16)
    logistic = litert.run_activation(litert.write_activation("LOGISTIC", 2.0**-12, 2**16), words)
    assert np.flatnonzero(sigmoid_table(EVERY) != logistic).tolist() == []
    for exponent in EXPONENTS:
        tanh = litert.run_activation(litert.write_activation("TANH", 2.0**exponent, 2**16), words)
        assert np.flatnonzero(tanh_table(EVERY, exponent) != tanh).tolist() == [], exponent


def test_activation_objects_look_up_the_functions() -> None:
    table, gemmlowp = ACTIVATIONS["table"], ACTIVATIONS["gemmlowp"]
    assert (table.kind, gemmlowp.kind) == ("table", "gemmlowp")
    assert (table.sigmoid(EVERY) == sigmoid_table(EVERY)).all()
    assert (gemmlowp.sigmoid(EVERY) == sigmoid_gemmlowp(EVERY)).all()
    assert (table.tanh(EVERY) == tanh_table(EVERY)).all()
    assert (gemmlowp.tanh(EVERY) == tanh_gemmlowp(EVERY, 3)).all()
    # One call with the integer bits of each element.
    bits = np.arange(7)[:, np.newaxis]
    assert (table.tanh(EVERY, bits) == [tanh_table(EVERY, k - 15) for k in range(7)]).all()
    assert (gemmlowp.tanh(EVERY, bits) == [tanh_gemmlowp(EVERY, k) for k in range(7)]).all()


def test_any_shape() -> None:
    cube = EVERY.reshape(16, 64, 64)
    for function in (sigmoid_table, sigmoid_gemmlowp, ACTIVATIONS["table"].sigmoid):
        assert (function(cube) == function(EVERY).reshape(cube.shape)).all()
    assert ACTIVATIONS["gemmlowp"].sigmoid(0) == 2**14


def test_bad_operands_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"activation must be from -32768 to 32767, not 32768\."):
        sigmoid_table([0, 32768])
    with pytest.raises(ValueError, match="must be integers, not float64"):
        sigmoid_gemmlowp([0.5])
    with pytest.raises(ValueError, match=r"from 0 to 6 .* not 7\."):
        tanh_gemmlowp(0, 7)
    with pytest.raises(ValueError, match=r"from 0 to 6 .* not -1\."):
        tanh_table(0, -16)
    with pytest.raises(ValueError, match=r"integer_bits must be from 0 to 6, not 7\."):
        ACTIVATIONS["table"].tanh(0, 7)
