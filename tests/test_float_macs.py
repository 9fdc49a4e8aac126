# amaranth: UnusedElaboratable=no
"""The baselines beside FloatSD8: golden against outside oracles, circuits against golden."""

import ctypes
import ctypes.util

import ml_dtypes
import numpy as np
import pytest
from amaranth.hdl import Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.float_mac import FloatMacContract
from fewbit.golden.accumulate.float_sum import round_sum, split
from fewbit.golden.accumulate.int8_mac import Int8MacContract
from fewbit.golden.contract import Contract, random_codes
from fewbit.golden.formats import BFLOAT16, BINARY16, BINARY32, E5M2, FLOATSD8, FixedPoint
from fewbit.golden.operands import Operand
from fewbit.hdl.accumulate.float_sum import FloatSum, Term
from fewbit.hdl.accumulate.floatsd8_mac import floatsd8_product
from fewbit.hdl.design import Design, Parameter, Timing
from fewbit.hdl.designs import DESIGNS
from fewbit.hdl.formats import stream_of
from fewbit.hdl.pipeline import Pipeline
from fewbit.sim.bulk import BulkSimulation, check_bulk, compare
from fewbit.sim.verilog import verilog_of
from tests.support import exact

FORMATS = {
    "fp32_mac": (BINARY32, BINARY32, exact.BINARY32, exact.BINARY32),
    "fp16_mac": (BINARY16, BINARY16, exact.BINARY16, exact.BINARY16),
    "bf16_mac": (BFLOAT16, BFLOAT16, exact.BFLOAT16, exact.BFLOAT16),
    "fp8_mac": (E5M2, BINARY16, exact.E5M2, exact.BINARY16),
}
SEED = 5


def contract_of(name: str, **settings) -> FloatMacContract:
    return FloatMacContract(*FORMATS[name][:2], **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"window": None},
        {"window": 8, "products": 1},
        {"window": 14},
        {"window": 27, "products": 3},
        {"window": 48, "products": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", FORMATS)
def test_golden_equals_fractions(name, settings):
    contract = contract_of(name, **settings)
    arrays = contract.stimulus(np.random.default_rng(SEED), 200)
    got = contract.compute(arrays)["result"]
    for index, code in enumerate(got.tolist()):
        expected = exact.float_mac(
            arrays["weights"][index].tolist(),
            arrays["activations"][index].tolist(),
            int(arrays["accumulator"][index]),
            *FORMATS[name][2:],
            contract.window,
        )
        reals = "\n".join(contract.explain(arrays, index))
        assert code == expected, f"seed {SEED}, beat {index}: {code:x}, not {expected:x}\n{reals}"


@pytest.mark.parametrize("name", FORMATS)
def test_stimulus_reaches_every_kind_of_result(name):
    contract = contract_of(name, window=14)
    target = contract.accumulator_format
    sign = 1 << (target.width - 1)
    arrays = contract.stimulus(np.random.default_rng(SEED), 20_000)
    magnitude = contract.compute(arrays)["result"] & (sign - 1)
    smallest_normal = 1 << target.mantissa_bits
    largest = (target.largest_exponent + 1 << target.mantissa_bits) - 1
    assert (magnitude == 0).any()
    assert ((magnitude > 0) & (magnitude < smallest_normal)).any()
    assert (magnitude == largest).any()
    assert ((magnitude > smallest_normal) & (magnitude < largest)).mean() > 0.5


def fma_codes(weights, activations, accumulators):
    """libm's fmaf on codes of finite values, as the contract has it: saturated, sums of zero +0."""
    fmaf = ctypes.CDLL(ctypes.util.find_library("m")).fmaf
    fmaf.restype, fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    columns = [
        codes.astype(np.uint32).view(np.float32).tolist()
        for codes in (weights, activations, accumulators)
    ]
    reals = [fmaf(*operands) for operands in zip(*columns, strict=True)]
    codes = np.array(reals, dtype=np.float32).view(np.uint32).astype(np.int64)
    codes[codes & 0x7FFFFFFF == 0x7F800000] -= 1
    factors_zero = (weights & 0x7FFFFFFF == 0) | (activations & 0x7FFFFFFF == 0)
    codes[factors_zero & (accumulators & 0x7FFFFFFF == 0)] = 0
    return codes


def fp32_operands(count: int):
    """Stimulus of one binary32 product, exponents of infinities and NaN brought to finite ones."""
    arrays = FloatMacContract(BINARY32, BINARY32, 1).stimulus(np.random.default_rng(SEED), count)
    return {
        name: np.where(codes & 0x7F800000 == 0x7F800000, codes ^ 0x40000000, codes)
        for name, codes in arrays.items()
    }


@pytest.fixture(scope="module")
def fp32_fma():
    """Operands of one product, and what libm makes of them."""
    arrays = fp32_operands(100_000)
    columns = arrays["weights"][:, 0], arrays["activations"][:, 0], arrays["accumulator"]
    return arrays, fma_codes(*columns)


def test_one_binary32_product_is_the_fused_multiply_add_of_ieee(fp32_fma):
    arrays, expected = fp32_fma
    got = FloatMacContract(BINARY32, BINARY32, 1).compute(arrays)["result"]
    np.testing.assert_array_equal(got, expected)
    # The comparison sees the last bit: a window that is too small by its two lowest bits fails.
    cut = FloatMacContract(BINARY32, BINARY32, 1, 48).compute(arrays)["result"]
    assert (cut != expected).any()


@pytest.mark.long
def test_the_fp32_circuit_is_the_fused_multiply_add_of_ieee(fp32_fma):
    arrays, expected = fp32_fma
    count = 5000
    arrays, expected = {name: codes[:count] for name, codes in arrays.items()}, expected[:count]
    circuit = BulkSimulation(
        DESIGNS["fp32_mac"].configure({"products": 1, "window": None}), optimized=False
    )
    got = circuit.run(arrays, len(expected), stall_seed=SEED)["result"]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16_mac", np.float16), ("bf16_mac", ml_dtypes.bfloat16)]
)
def test_a_product_alone_is_numpys(name, dtype):
    contract = contract_of(name, products=1)
    arrays = contract.stimulus(np.random.default_rng(SEED), 50_000)
    arrays["accumulator"] = np.zeros(50_000, np.int64)
    weights, activations = (
        arrays[field][:, 0].astype(np.uint16).view(dtype).astype(np.float32)
        for field in ("weights", "activations")
    )
    # Exact in binary32 unless tiny; then rounded once.
    with np.errstate(all="ignore"):
        products = weights * activations
        expected = products.astype(dtype)
        usable = np.isfinite(expected) & (np.abs(products) > 2.0**-100)
    got = contract.compute(arrays)["result"]
    assert usable.mean() > 0.3
    np.testing.assert_array_equal(got[usable], expected[usable].view(np.uint16))


def test_a_sum_of_two_is_numpys():
    contract = contract_of("fp16_mac", products=1)
    arrays = contract.stimulus(np.random.default_rng(SEED), 50_000)
    arrays["weights"][:] = 0x3C00
    first, second = (
        codes.astype(np.uint16).view(np.float16)
        for codes in (arrays["activations"][:, 0], arrays["accumulator"])
    )
    with np.errstate(all="ignore"):
        expected = first + second
    usable = np.isfinite(expected) & (expected != 0)
    got = contract.compute(arrays)["result"]
    np.testing.assert_array_equal(got[usable], expected[usable].view(np.uint16))


def all_e5m2_pairs():
    weights, activations = (grid.reshape(-1, 1) for grid in np.mgrid[0:256, 0:256])
    finite = (weights & 0x7C != 0x7C) & (activations & 0x7C != 0x7C)
    return weights[finite].reshape(-1, 1), activations[finite].reshape(-1, 1)


def test_all_products_of_fp8_are_those_of_ml_dtypes():
    weights, activations = all_e5m2_pairs()
    reals = [
        codes[:, 0].astype(np.uint8).view(ml_dtypes.float8_e5m2).astype(np.float32)
        for codes in (weights, activations)
    ]
    with np.errstate(over="ignore"):
        expected = (reals[0] * reals[1]).astype(np.float16).view(np.uint16).astype(np.int64)
    expected[expected & 0x7FFF == 0x7C00] -= 1
    zero = (weights[:, 0] & 0x7F == 0) | (activations[:, 0] & 0x7F == 0)
    expected[zero] = 0
    beats = {
        "weights": weights,
        "activations": activations,
        "accumulator": np.zeros(len(weights), np.int64),
    }
    got = contract_of("fp8_mac", products=1).compute(beats)["result"]
    np.testing.assert_array_equal(got, expected)


def test_int8_golden_wraps_as_numpys_int32():
    contract = Int8MacContract(16)
    arrays = contract.stimulus(np.random.default_rng(SEED), 5000)
    with np.errstate(over="ignore"):
        expected = arrays["accumulator"].astype(np.uint32).view(np.int32)
        for lane in range(16):
            weight, activation = (
                arrays[name][:, lane].astype(np.uint8).view(np.int8).astype(np.int32)
                for name in ("weights", "activations")
            )
            expected = expected + weight * activation
    np.testing.assert_array_equal(contract.compute(arrays)["result"], expected.view(np.uint32))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fp32_mac", {"products": 2, "stages": 3, "multiplier": "booth"}),
        ("fp16_mac", {"products": 2, "multiplier": "booth"}),
        ("fp16_mac", {"products": 1, "window": None, "stages": 1}),
        ("bf16_mac", {"products": 3, "window": 20, "structure": "fpga", "multiplier": "booth"}),
        ("bf16_mac", {"products": 2, "window": None, "stages": 1}),
        ("fp8_mac", {"stages": 5, "objective": "delay"}),
        ("fp8_mac", {"products": 1, "window": None, "stages": 4}),
        ("floatsd8_mac", {"structure": "fpga"}),
        ("floatsd8_mac", {"products": 1, "window": None}),
        ("floatsd8_mac", {"products": 1, "window": None, "weight_bias": -16}),
        ("int8_mac", {}),
        ("int8_mac", {"products": 1, "stages": 3}),
        ("int8_mac", {"products": 7, "stages": 1, "structure": "fpga"}),
        ("int8_mac", {"products": 5, "stages": 3, "structure": "fpga"}),
    ],
    ids=str,
)
def test_circuit_equals_golden(name, settings):
    # Compiling a wide circuit with optimisation would take longer than running it without.
    circuit = BulkSimulation(DESIGNS[name].configure(settings), optimized=False)
    count = {"fp32_mac": 2000, "fp16_mac": 4000}.get(name, 12_000)
    outcome = compare(circuit, count=count, seed=SEED, chunk=1000)
    assert outcome.passed, outcome.counterexample


@pytest.mark.long
def test_a_window_too_small_is_caught():
    design = DESIGNS["fp8_mac"]
    narrow = verilog_of(design.configure({"window": 13}))
    outcome = check_bulk(design.configure(), count=20_000, seed=SEED, verilog=narrow)
    assert outcome.mismatches > 0
    assert "differs from the golden model" in outcome.counterexample


LANES = 2


class _OffsetContract(Contract):
    """FloatSD8 weights times significands with exponents of their own, and an offset a beat."""

    def __init__(self, window: int | None) -> None:
        self.window = window

    @property
    def operands(self):
        significand, exponent, sign, offset = (
            FixedPoint(width, signed=False) for width in (3, 6, 1, 5)
        )
        return (
            Operand("weights", FLOATSD8, "", LANES),
            Operand("significands", significand, "", LANES),
            Operand("exponents", exponent, "", LANES),
            Operand("signs", sign, "", LANES),
            Operand("start", BINARY16, ""),
            Operand("offset", offset, ""),
        )

    @property
    def results(self):
        return (Operand("result", BINARY16, ""),)

    def stimulus(self, rng, count):
        arrays = {field.name: random_codes(rng, field, count) for field in self.operands}
        near = rng.integers(0, 38, (count, 1)) + rng.integers(0, 4, (count, LANES))
        exponents = np.where(np.arange(count)[:, None] % 2, near, arrays["exponents"])
        # Only a lane without a product has exponent 0.
        nothing = arrays["significands"] == 0
        arrays["exponents"] = np.clip(exponents, np.where(nothing, 0, 1), 41)
        return arrays

    def compute(self, arrays):
        products = FLOATSD8.mantissa(arrays["weights"]) * arrays["significands"]
        products *= 1 - 2 * arrays["signs"]
        ulps = (arrays["weights"] >> 5) + arrays["exponents"] - (arrays["offset"][:, None] + 21)
        start, ulp = split(BINARY16, arrays["start"])
        sums = round_sum(
            np.column_stack([products, start]),
            np.column_stack([ulps, ulp]),
            [7] * LANES + [11],
            self.window,
            BINARY16,
        )
        return {"result": sums}


class _OffsetUnit(wiring.Component):
    def __init__(self, contract: _OffsetContract, stages: int) -> None:
        self.contract = contract
        self.core = FloatSum(
            accumulator=BINARY16,
            products=LANES,
            product_width=7,
            exponents=range(1, 49),
            offset=range(32),
            window=contract.window,
            stages=stages,
        )
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pipeline = Pipeline(m, self.i.valid)
        beat = self.i.payload
        terms = []
        for lane in range(LANES):
            weight = beat.weights[lane]
            product = floatsd8_product(
                m, weight, beat.significands[lane], beat.exponents[lane], Const(0, 1), str(lane)
            )
            terms.append(Term(*product, weight.sign ^ beat.signs[lane]))
        m.d.comb += self.o.payload.eq(self.core.add(m, pipeline, terms, beat.start, beat.offset))
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m


@pytest.mark.long
@pytest.mark.parametrize(("window", "stages"), [(14, 2), (14, 3), (None, 3)])
def test_an_offset_may_come_with_every_beat(window, stages):
    design = Design(
        name="offset_unit",
        summary="",
        contract=_OffsetContract,
        parameters=(Parameter("window", 14, "", 8, 48, none_means="exact"),),
        component=_OffsetUnit,
        build=(Parameter("stages", 2, "", 1, 3),),
        timing=lambda contract, stages: Timing("2", "1"),
        transaction="beat",
    )
    outcome = check_bulk(
        design.configure({"window": window, "stages": stages}), count=20_000, seed=SEED
    )
    assert outcome.passed, outcome.counterexample


def test_the_core_refuses_what_it_was_not_made_for():
    unit = _OffsetUnit(_OffsetContract(14), 2)
    beat = unit.i.payload
    m = Module()
    pipeline = Pipeline(m, unit.i.valid)
    term = Term(Const(0, 7), Const(0, 6), Const(0, 1))
    with pytest.raises(ValueError, match="The core adds 2 products, not 1"):
        unit.core.add(m, pipeline, [term], beat.start, beat.offset)
    with pytest.raises(ValueError, match="takes an offset a beat if and only if"):
        unit.core.add(m, pipeline, [term, term], beat.start)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"products": 0}, "products must be a whole number from 1 to 16, not 0."),
        ({"window": 7}, "window must be a whole number from 8 to 48, not 7."),
        (
            {"accumulator_format": E5M2},
            (
                "The accumulator must be a format of IEEE 754's kind, which saturates below its"
                " top exponent, not e5m2."
            ),
        ),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    settings = {"operand_format": BINARY32, "accumulator_format": BINARY32, **parameters}
    with pytest.raises(ValueError) as error:  # noqa: PT011
        FloatMacContract(**settings)
    assert str(error.value) == message
