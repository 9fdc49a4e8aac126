# amaranth: UnusedElaboratable=no
"""The layer-norm circuit: golden against exact integers, circuit against golden, cycles."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import trunc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fewbit.golden.contract import Contract, describe, random_codes
from fewbit.golden.formats import INT16, INT32, FixedPoint
from fewbit.golden.lstm.layer_norm import layer_norm
from fewbit.golden.operands import FLAG, Operand, checked
from fewbit.hdl.design import Design, Parameter, Timing
from fewbit.hdl.neuron.layer_norm import LayerNorm
from fewbit.sim.bulk import BulkSimulation, check_bulk
from fewbit.sim.verilog import verilog_of

if TYPE_CHECKING:
    from fewbit.golden.contract import Arrays, Codes

CACHE = Path("build/bulk")
LOWEST_SHIFT, HIGHEST_SHIFT = -31, 30


@dataclass(frozen=True)
class LayerNormContract(Contract):
    """Gates of `units` raws: twice the raws in, once the normalised out."""

    units: int = 20

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("value", INT16, "raw of a unit"),
            Operand("gain", INT16, "its gain, counts with normalizes"),
            Operand("bias", INT32, "its bias, counts with normalizes"),
            Operand("normalizes", FLAG, "the raws come the second time"),
        )

    @property
    def configuration(self) -> tuple[Operand, ...]:
        return (
            Operand("guard", FixedPoint(31, signed=False), "least variance"),
            Operand("multiplier", FixedPoint(24, signed=False), "upper bits of the multiplier"),
            Operand("shift", FixedPoint(6), "its shift"),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (Operand("result", INT16, "normalised raw"),)

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Beats of ``count // units`` gates of raws that lie far apart, close, or together."""
        gates, units = count // self.units, self.units
        shape = (gates, units)
        center = rng.choice([0, 0, 5, -5, 20000, -32768, 32767], (gates, 1))
        spread = 2.0 ** rng.uniform(-1, 16, (gates, 1))
        raws = np.rint(center + spread * rng.standard_normal(shape)).astype(np.int64)
        kind = rng.integers(0, 8, gates)
        alike = np.repeat(random_codes(rng, Operand("", INT16, ""), gates)[:, None], units, axis=1)
        raws[kind == 0] = INT16.raw(alike[kind == 0])
        raws[kind == 1] = np.where(rng.random(shape) < 0.5, -(2**15), 2**15 - 1)[kind == 1]
        # All at one end, but for one of them: the sum's extremes, and the largest deviations.
        outlier = np.where(rng.random((gates, 1)) < 0.5, -(2**15), 2**15 - 1)
        at = np.arange(units) == rng.integers(0, units, (gates, 1))
        raws[kind == 2] = np.where(at, -1 - outlier, outlier)[kind == 2]
        values = np.clip(raws, -(2**15), 2**15 - 1) & 0xFFFF

        beats = np.tile(values[:, None], (1, 2, 1)).reshape(-1)
        arrays = {field.name: random_codes(rng, field, len(beats)) for field in self.operands}
        modest = rng.integers(-(2**24), 2**24, len(beats)) >> rng.integers(0, 20, len(beats))
        takes_modest = rng.random(len(beats)) < 0.75
        arrays["bias"] = np.where(takes_modest, modest & 0xFFFFFFFF, arrays["bias"])
        arrays["value"] = beats
        arrays["normalizes"] = np.tile(np.repeat([0, 1], units), gates)
        drawn = {field.name: random_codes(rng, field, 1) for field in self.configuration}
        drawn["guard"] = np.array(
            [rng.choice([1, 1, 2, 3, 2**31 - 1, 2**29, int(2 ** rng.uniform(0, 31))])]
        )
        corners = [LOWEST_SHIFT, -1, 0, 1, 2, 3, HIGHEST_SHIFT]
        shift = int(rng.choice(corners) if rng.random() < 0.3 else rng.integers(-8, 3))
        drawn["shift"] = np.array([shift & 0x3F])
        if rng.random() < 0.75:
            drawn["multiplier"] |= 1 << 23
        if rng.random() < 0.4:
            # Powers of two around 1 show every unit of what they multiply, and make ties.
            drawn |= {
                "multiplier": np.array([1 << 23]),
                "shift": np.array([rng.choice([-3, -1, 0, 1, 1, 1]) & 0x3F]),
            }
            ties = rng.random(len(beats)) < 0.5
            gains = rng.choice([-2048, -1024, 0, 1024], len(beats))
            arrays["gain"] = np.where(ties, gains & 0xFFFF, arrays["gain"])
            odd_halves = 1024 * rng.integers(-(2**10), 2**10, len(beats)) + 512
            arrays["bias"] = np.where(ties, odd_halves & 0xFFFFFFFF, arrays["bias"])
        return arrays | drawn

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        codes = checked(self.operands, arrays)
        settings = checked(self.configuration, arrays)
        shape = (-1, 2, self.units)
        values, gains, biases = (
            field.format.raw(codes[field.name]).reshape(shape)
            for field in self.operands[:3]
            if isinstance(field.format, FixedPoint)
        )
        constants = (
            int(settings["guard"][0]),
            int(settings["multiplier"][0]) << 7,
            int(FixedPoint(6).raw(settings["shift"])[0]),
        )
        results = [
            layer_norm(value[1], gain[1], bias[1], *constants)
            for value, gain, bias in zip(values, gains, biases, strict=True)
        ]
        return {"result": INT16.code(np.concatenate(results))}

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        gate, unit = divmod(index, self.units)
        beat = (2 * gate + 1) * self.units + unit
        return [
            f"unit {unit} of gate {gate}",
            *(describe(field, arrays[field.name][beat]) for field in self.operands),
            *(describe(field, arrays[field.name][0]) for field in self.configuration),
        ]


DESIGN = Design(
    name="layer_norm",
    summary="integer layer normalisation of a gate",
    contract=LayerNormContract,
    parameters=(Parameter("units", 20, "raws of a gate", 1, 4096),),
    component=lambda contract, chunk: LayerNorm(units=contract.units, chunk=chunk),
    build=(Parameter("chunk", 16, "bits a cycle", 8, 16),),
    timing=lambda contract, chunk: Timing("10", "10"),
    transaction="raw",
)


def half_up(dividend: int, divisor: int) -> int:
    """Nearest integer, ties up."""
    return (2 * dividend + divisor) // (2 * divisor)


def half_away(dividend: int, divisor: int) -> int:
    """Nearest integer, ties away from zero."""
    nearest = half_up(abs(dividend), divisor)
    return nearest if dividend >= 0 else -nearest


def word_product(a: int, b: int) -> int:
    return half_up(a * b, 2**31)


def word_shift(a: int, places: int) -> int:
    return min(max(a * 2**places, -(2**31)), 2**31 - 1)


def in_word(a: int) -> int:
    return (a + 2**31) % 2**32 - 2**31


def requantised(raw: int, multiplier: int, shift: int) -> int:
    left = in_word(raw * 2 ** max(shift, 0))
    return half_away(word_product(left, multiplier), 2 ** max(-shift, 0))


def inverse_root(variance: int) -> tuple[int, int]:
    """Multiplier and right shift of about 1 / sqrt(variance), as the kernel goes about it."""
    if variance <= 1:
        return 2**31 - 1, 0
    shift = 11
    while variance >= 2**29:
        variance //= 4
        shift += 1
    leading_zeros = 32 - len(f"{variance:b}")
    places = (leading_zeros - 1) // 2 - 1
    shift -= places
    half = half_away((variance * 4**places) // 2, 2)
    x = 2**28
    for _ in range(5):
        cube = word_shift(word_product(word_product(x, x), x), 6)
        x = word_shift(word_product(3 * 2**27, x) - word_product(half, cube), 3)
    multiplier = word_product(x, 1518500250)
    return (multiplier * 2**-shift, 0) if shift < 0 else (multiplier, shift)


def reference(
    raws: list[int],
    gains: list[int],
    biases: list[int],
    guard: int,
    multiplier: int,
    shift: int,
) -> list[int]:
    """Layer normalisation, word by word in whole numbers of any size."""
    count = len(raws)
    mean = trunc(Fraction(1024 * sum(raws), count))
    squares = sum(raw * raw for raw in raws) * (2**20 // count)
    variance = trunc(Fraction(squares - mean * mean, 2**20))
    if variance < 1:
        variance = guard
    factor, places = inverse_root(variance)
    results = []
    for raw, gain, bias in zip(raws, gains, biases, strict=True):
        product = requantised(1024 * raw - mean, factor, -places) * gain + bias
        word = in_word(trunc(Fraction(product + (512 if product > 0 else -512), 1024)))
        result = requantised(word, multiplier, shift)
        results.append(min(max(result, -(2**15)), 2**15 - 1))
    return results


def reference_of(arrays: Arrays, units: int) -> list[int]:
    """Results of a contract's arrays."""
    chosen = arrays["normalizes"] == 1
    value, gain, bias = (
        form.raw(arrays[name][chosen]).reshape(-1, units).tolist()
        for name, form in (("value", INT16), ("gain", INT16), ("bias", INT32))
    )
    constants = (
        int(arrays["guard"][0]),
        int(arrays["multiplier"][0]) * 2**7,
        int(FixedPoint(6).raw(arrays["shift"])[0]),
    )
    return [
        result
        for gate in zip(value, gain, bias, strict=True)
        for result in reference(*gate, *constants)
    ]


@pytest.mark.parametrize("units", [1, 2, 3, 7, 16, 17, 128])
def test_golden_agrees_with_whole_numbers(units: int) -> None:
    contract = LayerNormContract(units)
    rng = np.random.default_rng(units)
    for _ in range(20):
        arrays = contract.stimulus(rng, 6 * units)
        got = INT16.raw(contract.compute(arrays)["result"]).tolist()
        assert got == reference_of(arrays, units)


def test_stimulus_spans_the_results() -> None:
    contract = LayerNormContract(17)
    rng = np.random.default_rng(3)
    results = np.concatenate(
        [contract.compute(contract.stimulus(rng, 170))["result"] for _ in range(60)]
    )
    assert len(np.unique(results)) > 2000
    assert np.isin([0, 1, 0x7FFF, 0x8000, 0xFFFF], results).all()


def test_golden_wraps_where_a_word_is_exceeded() -> None:
    # 2^20 / 4081 is nearly 257, so the variance comes out below 1, and the guard is as low.
    units = 4081
    raws = [2**15 - 1] * (units - 1) + [-(2**15)]
    gains = [-(2**15)] * units
    biases = [2**31 - 1] * units
    constants = (1, 2**30, -15)
    got = layer_norm(np.array(raws), np.array(gains), np.array(biases), *constants)
    assert got.tolist() == reference(raws, gains, biases, *constants)
    # Of the product, 2149021824 after the division by 1024, what is left is negative.
    assert got[-1] == -32745


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"units": 0}, "units must be a whole number from 1 to 4096, not 0."),
        ({"units": 4097}, "units must be a whole number from 1 to 4096, not 4097."),
        ({"units": 20, "chunk": 4}, "chunk must be 8 or 16, not 4."),
    ],
)
def test_circuit_refuses_parameters(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerNorm(**parameters)


@pytest.mark.long
@pytest.mark.parametrize(
    ("units", "chunk", "gates"), [(1, 8, 1000), (3, 8, 1000), (17, 16, 500), (128, 8, 100)]
)
def test_circuit_agrees_with_golden(units: int, chunk: int, gates: int) -> None:
    # Configurations change from chunk to chunk; every second one has stalls on both sides.
    outcome = check_bulk(
        DESIGN.configure({"units": units, "chunk": chunk}),
        count=gates * units,
        seed=7,
        chunk=10 * units,
        cache_dir=CACHE,
    )
    assert outcome.passed, outcome.counterexample
    assert outcome.vectors == gates * units


@pytest.mark.parametrize(
    ("units", "chunk", "size", "cycles"),
    [
        # Variances of 2^20, 2^4 and, with the guard of 1, of 1: that needs no root, but one cycle
        # to see it.
        (17, 16, 1024, 17 + 88 + 6 + 5 + 170),
        (17, 16, 4, 17 + 88 + 6 + 13 + 1 + 170),
        (17, 16, 0, 17 + 30 + 6 + 14 + 170),
        (128, 8, 1024, 256 + 120 + 10 + 5 + 128 * 17),
    ],
)
def test_cycles_of_a_gate(units: int, chunk: int, size: int, cycles: int) -> None:
    simulation = BulkSimulation(DESIGN.configure({"units": units, "chunk": chunk}), CACHE)
    gates = 3
    values = np.where(np.arange(units) % 2, -size, size)
    arrays = {
        "value": np.tile(values, 2 * gates) & 0xFFFF,
        "gain": np.full(2 * gates * units, 0x4000),
        "bias": np.arange(2 * gates * units),
        "normalizes": np.tile(np.repeat([0, 1], units), gates),
        "guard": np.array([1]),
        "multiplier": np.array([1 << 23]),
        "shift": np.array([-1 & 0x3F]),
    }
    got = simulation.run(arrays, gates * units)
    assert (got["result"] == simulation.contract.compute(arrays)["result"]).all()
    assert simulation.cycles == gates * cycles + gates - 1
    # Each left shift by one is a cycle a result.
    simulation.run(arrays | {"shift": np.array([3])}, gates * units)
    assert simulation.cycles == gates * (cycles + 3 * units) + gates - 1


@pytest.mark.long
def test_a_broken_circuit_is_found() -> None:
    settings = {"units": 3, "chunk": 8}
    text = verilog_of(DESIGN.configure(settings))
    # The nearest multiple of 1024 to a negative product: its ties go up, not down.
    name = "tie_goes_down"
    start = text.index(f"assign {name} =")
    end = text.index(";", start)
    broken = text[:start] + f"assign {name} = 1'h0" + text[end:]
    outcome = check_bulk(
        DESIGN.configure(settings), count=3000, seed=7, chunk=30, cache_dir=CACHE, verilog=broken
    )
    assert not outcome.passed
    assert "differs from the golden model" in outcome.counterexample
