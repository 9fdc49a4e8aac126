"""The registry: every design that can be generated, checked and measured, by name.

Adding a circuit is one module for its golden contract, one for the circuit, and one entry here;
the command line, the regression, the synthesis, the table in the README and the tests read it.
"""

from functools import partial
from typing import Any, get_args

from amaranth.lib import wiring

from golden.accumulate.binary import BinaryAccumulate as BinaryAccumulateContract
from golden.accumulate.float_mac import FloatMac as FloatMacContract
from golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from golden.accumulate.floatsd8_mac import FloatSD8Mac as FloatSD8MacContract
from golden.accumulate.int8_mac import Int8Mac as Int8MacContract
from golden.accumulate.int12_mac import Int12Mac as Int12MacContract
from golden.accumulate.pow2 import Pow2Accumulate as Pow2AccumulateContract
from golden.accumulate.ternary import PACKINGS
from golden.accumulate.ternary import TernaryAccumulate as TernaryAccumulateContract
from golden.convert import FloatSD8Activate as FloatSD8ActivateContract
from golden.convert import FloatSD8Decode as FloatSD8DecodeContract
from golden.convert import FloatSD8Encode as FloatSD8EncodeContract
from golden.formats import BFLOAT16, BINARY16, BINARY32, E5M2, Minifloat
from golden.layer.floatsd8 import FloatSD8LstmLayer as FloatSD8LstmLayerContract
from golden.layer.int8 import Int8LstmLayer as Int8LstmLayerContract
from golden.layer.int8_dynamic import DynamicInt8LstmLayer as DynamicContract
from golden.layer.ternary import Gates, Scales
from golden.layer.ternary import TernaryLstmLayer as TernaryLstmLayerContract
from golden.lstm.int8 import PrecisionSignal
from golden.neuron.floatsd8 import FloatSD8LstmNeuron as FloatSD8LstmNeuronContract
from golden.neuron.int8 import Int8LstmNeuron as Int8LstmNeuronContract
from golden.neuron.ternary import WEIGHTS, Packing
from golden.neuron.ternary import TernaryLstmNeuron as TernaryLstmNeuronContract
from hdl.accumulate.binary_accumulate import BinaryAccumulate
from hdl.accumulate.float_mac import FloatMac, Multiplier
from hdl.accumulate.float_sum import Objective
from hdl.accumulate.floatsd8_mac import FloatSD8Mac
from hdl.accumulate.int8_mac import Int8Mac
from hdl.accumulate.int12_mac import Int12Mac
from hdl.accumulate.pow2_accumulate import Pow2Accumulate
from hdl.accumulate.rows import Structure as LaneStructure
from hdl.accumulate.ternary_accumulate import TernaryAccumulate
from hdl.arithmetic import Structure
from hdl.convert import FloatSD8Activate, FloatSD8Decode, FloatSD8Encode
from hdl.design import Design, Parameter, ParameterError, Timing
from hdl.layer import floatsd8_cycles, int8_cycles, ternary_cycles
from hdl.layer.cycles import StepCycles
from hdl.layer.floatsd8 import FloatSD8LstmLayer
from hdl.layer.int8 import Int8LstmLayer
from hdl.layer.int8_dynamic import DynamicInt8LstmLayer
from hdl.layer.ternary import TernaryLstmLayer
from hdl.neuron.floatsd8 import FloatSD8LstmNeuron
from hdl.neuron.int8 import Int8LstmNeuron, default_chunk
from hdl.neuron.ternary import TernaryLstmNeuron

__all__ = ["DESIGNS", "find"]

PRODUCTS = Parameter("products", 4, "products a beat", 1, 16)
STAGES = Parameter("stages", 2, "register stages, so the latency in cycles", 1, 5)
OBJECTIVE = Parameter(
    "objective",
    "area",
    "normalises step by step, smallest, or by a count of zeros, fewer gates in a row",
    choices=get_args(Objective),
)
STRUCTURE = Parameter(
    "structure",
    "gates",
    "sums as carry-save trees for gates, or as adders for an FPGA's carry chains",
    choices=("gates", "fpga"),
)


def _at_once(latency: str = "1") -> Timing:
    """A beat a cycle."""
    return Timing(latency=latency, interval="1")


def _window(accumulator: Minifloat) -> Parameter:
    # As floatsd8_mac's: the bits of the accumulator's significand and one.
    default = accumulator.mantissa_bits + 1 + (DEFAULT_WINDOW - BINARY16.mantissa_bits - 1)
    return Parameter(
        "window",
        default,
        "bits kept below the top of the largest operand",
        8,
        48,
        none_means="all bits, an exact sum",
    )


def _float_mac(name: str, summary: str, operand: Minifloat, accumulator: Minifloat) -> Design:
    """A baseline beside FloatSD8: the same core, plain formats."""
    return Design(
        name=name,
        summary=summary,
        parameters=(
            PRODUCTS,
            _window(accumulator),
            STAGES,
            STRUCTURE,
            OBJECTIVE,
            Parameter(
                "multiplier",
                "plain",
                "products left to synthesis, or as recoded digits in a carry-save tree",
                choices=get_args(Multiplier),
            ),
        ),
        component=partial(FloatMac, operand, accumulator),
        contract=lambda products, window, **_: FloatMacContract(
            operand, accumulator, products, window
        ),
        timing=lambda stages, **_: _at_once(str(stages)),
        transaction="beat",
        is_baseline=True,
    )


FLOATSD8_MAC = Design(
    name="floatsd8_mac",
    summary="FloatSD8 weights times FP8 activations, added to a binary16 accumulator",
    parameters=(
        PRODUCTS,
        _window(BINARY16),
        Parameter("activation_bias", 15, "exponent bias of the activations", 0, 31),
        Parameter("weight_bias", 10, "exponent bias of the weights", -16, 40),
        STAGES,
        STRUCTURE,
        OBJECTIVE,
    ),
    component=FloatSD8Mac,
    contract=lambda stages, structure, objective, **parameters: FloatSD8MacContract(**parameters),
    timing=lambda stages, **_: _at_once(str(stages)),
    transaction="beat",
)

FP32_MAC = _float_mac(
    "fp32_mac", "binary32 products, added to a binary32 accumulator", BINARY32, BINARY32
)
FP16_MAC = _float_mac(
    "fp16_mac", "binary16 products, added to a binary16 accumulator", BINARY16, BINARY16
)
BF16_MAC = _float_mac(
    "bf16_mac", "bfloat16 products, added to a bfloat16 accumulator", BFLOAT16, BFLOAT16
)
FP8_MAC = _float_mac(
    "fp8_mac", "FP8 (e5m2) products, added to a binary16 accumulator", E5M2, BINARY16
)

INT8_MAC = Design(
    name="int8_mac",
    summary="int8 products, added to an int32 accumulator",
    parameters=(
        PRODUCTS,
        Parameter("stages", 2, "register stages, so the latency in cycles", 1, 3),
        STRUCTURE,
    ),
    component=Int8Mac,
    contract=lambda stages, structure, **parameters: Int8MacContract(**parameters),
    timing=lambda stages, **_: _at_once(str(stages)),
    transaction="beat",
    is_baseline=True,
)

_LANES = Parameter("lanes", 16, "weights and activations a beat", 1, 256)
_ACTIVATION_WIDTH = Parameter("activation_width", 12, "bits of a signed activation", 2, 16)
_STRUCTURE = Parameter(
    "structure",
    "gates",
    "sums of full adders for gates, of adders for an FPGA's carry chains, or left to synthesis",
    choices=("gates", "fpga", "plain"),
)


def _accumulator_width(default: int) -> Parameter:
    return Parameter("accumulator_width", default, "bits of the sum, wide enough for a row", 2, 48)


TERNARY_ACCUMULATE = Design(
    name="ternary_accumulate",
    summary="rows of ternary weights times integer activations, added up",
    parameters=(
        _LANES,
        _ACTIVATION_WIDTH,
        _accumulator_width(24),
        Parameter(
            "packing", "fields", "weights of 2 bits each, or five in 8 bits", choices=PACKINGS
        ),
        _STRUCTURE,
    ),
    component=TernaryAccumulate,
    contract=lambda structure, **parameters: TernaryAccumulateContract(**parameters),
    timing=lambda **_: _at_once(),
    transaction="row",
)

BINARY_ACCUMULATE = Design(
    name="binary_accumulate",
    summary="rows of binary weights times integer activations, added up",
    parameters=(_LANES, _ACTIVATION_WIDTH, _accumulator_width(24), _STRUCTURE),
    component=BinaryAccumulate,
    contract=lambda structure, **parameters: BinaryAccumulateContract(**parameters),
    timing=lambda **_: _at_once(),
    transaction="row",
)

POW2_ACCUMULATE = Design(
    name="pow2_accumulate",
    summary="rows of power-of-two weights times integer activations, added up",
    parameters=(
        _LANES,
        _ACTIVATION_WIDTH,
        _accumulator_width(27),
        Parameter("exponent_bits", 2, "bits of a weight's exponent", 0, 3),
        _STRUCTURE,
    ),
    component=Pow2Accumulate,
    contract=lambda structure, **parameters: Pow2AccumulateContract(**parameters),
    timing=lambda **_: _at_once(),
    transaction="row",
)

INT12_MAC = Design(
    name="int12_mac",
    summary="rows of 12-bit weights times integer activations, added up: the baseline",
    parameters=(_LANES, _ACTIVATION_WIDTH, _accumulator_width(36), _STRUCTURE),
    component=Int12Mac,
    contract=lambda structure, **parameters: Int12MacContract(**parameters),
    timing=lambda **_: _at_once(),
    transaction="row",
    is_baseline=True,
)


def _neuron_timing(chunk: int, activation: str) -> Timing:
    """Cycles of the update by the bits that its multiplier takes; left shifts take more."""
    if activation == "table":
        latency, unit = {4: (26, 107), 8: (15, 60), 16: (9, 34)}[chunk]
        return Timing(str(latency), f"1 a beat; a unit takes the larger of its beats and {unit}")
    latency, unit = {4: (125, 580), 8: (75, 360), 16: (50, 230)}[chunk]
    return Timing(
        f"about {latency}, depending on data",
        f"1 a beat; a unit takes the larger of its beats and about {unit}, depending on data",
    )


def _step_timing(cycles: StepCycles, unless: str = "") -> Timing:
    """What a data sheet says of a step."""
    most = "" if cycles.is_exact else "at most "
    unless = "" if cycles.is_exact else unless
    return Timing(
        f"{most}{cycles.first_byte} to the first byte of an answer and {cycles.last_byte} to the"
        f" last{unless}",
        f"{most}{cycles.interval} a step, {cycles.beats} of them with products{unless}",
    )


def _int8_layer(
    dynamic: int = 0, signal: PrecisionSignal = "cell_change", **parameters: Any
) -> wiring.Component:
    if dynamic:
        return DynamicInt8LstmLayer(signal=signal, **parameters)
    return Int8LstmLayer(**parameters)


def _int8_layer_contract(
    structure: Structure,
    dynamic: int = 0,
    signal: PrecisionSignal = "cell_change",
    **parameters: Any,
) -> Int8LstmLayerContract:
    if dynamic:
        return DynamicContract(signal=signal, **parameters)
    if signal != "cell_change":
        raise ValueError(
            f"Without dynamic=1 no precision is chosen; set dynamic=1 or leave signal={signal} out."
        )
    return Int8LstmLayerContract(**parameters)


def _int8_layer_timing(structure: Structure, **parameters: Any) -> Timing:
    contract = _int8_layer_contract(structure, **parameters)
    cycles = int8_cycles.step_cycles(contract, structure)
    return _step_timing(cycles, ", unless a scale shifts left")


def _ternary_layer_timing(structure: LaneStructure, **parameters: Any) -> Timing:
    cycles = ternary_cycles.step_cycles(TernaryLstmLayerContract(**parameters), structure)
    return _step_timing(cycles, ", unless a scale shifts left")


def _floatsd8_layer_timing(**parameters: Any) -> Timing:
    return _step_timing(floatsd8_cycles.step_cycles(FloatSD8LstmLayerContract(**parameters)))


ACTIVATION = Parameter(
    "activation",
    "table",
    "sigmoid and tanh: interpolated table, or LiteRT's gemmlowp polynomials",
    choices=("table", "gemmlowp"),
)

INT8_LSTM_NEURON = Design(
    name="int8_lstm_neuron",
    summary="one hidden unit of an integer LSTM at a time: gate rows in, hidden and cell value out",
    parameters=(
        Parameter("lanes", 16, "int8 products a beat", 1, 64),
        ACTIVATION,
    ),
    component=Int8LstmNeuron,
    contract=lambda activation, lanes: Int8LstmNeuronContract(lanes=lanes, activation=activation),
    timing=lambda lanes, activation: _neuron_timing(default_chunk(lanes, activation), activation),
    transaction="hidden unit",
)

INT8_LSTM_LAYER = Design(
    name="int8_lstm_layer",
    summary="a layer of an integer LSTM with its parameters and state: packets in, packets out",
    parameters=(
        Parameter("inputs", 16, "length of the input vector", 1, 4096),
        Parameter("hidden", 32, "cells, and hidden values unless there is a projection", 1, 4096),
        Parameter("lanes", 4, "int8 products a neuron and cycle", 1, 64),
        Parameter("neurons", 1, "hidden units side by side", 1, 16),
        ACTIVATION,
        Parameter("cifg", 0, "1: the input gate is one minus the forget gate", 0, 1),
        Parameter("peephole", 0, "1: the gates i, f and o see the cell", 0, 1),
        Parameter("layer_norm", 0, "1: the gates are normalised", 0, 1),
        Parameter("projection", 0, "hidden values after a projection; 0: no projection", 0, 4096),
        Parameter("dynamic", 0, "1: precision of the weights chosen for each step and unit", 0, 1),
        Parameter(
            "signal",
            "cell_change",
            "of dynamic=1: what chooses, the cell's change or the output gate",
            choices=get_args(PrecisionSignal),
        ),
        STRUCTURE,
    ),
    component=_int8_layer,
    contract=_int8_layer_contract,
    timing=_int8_layer_timing,
    transaction="byte",
)

FLOATSD8_LSTM_NEURON = Design(
    name="floatsd8_lstm_neuron",
    summary="one hidden unit of a FloatSD8 LSTM at a time: gate sums in, hidden and cell value out",
    parameters=(
        Parameter("lanes", 4, "products a beat, added and rounded", 4, 16),
        _window(BINARY16),
    ),
    component=FloatSD8LstmNeuron,
    contract=FloatSD8LstmNeuronContract,
    timing=lambda **_: Timing(
        "11, or with the next unit's beats where these follow at once",
        "1 a beat, and 3 for each unit",
    ),
    transaction="hidden unit",
)

FLOATSD8_LSTM_LAYER = Design(
    name="floatsd8_lstm_layer",
    summary="a layer of a FloatSD8 LSTM with its parameters and state: packets in, packets out",
    parameters=(
        Parameter("inputs", 16, "length of the input vector", 1, 4096),
        Parameter("hidden", 32, "cells and hidden values", 1, 4096),
        Parameter("lanes", 4, "products a neuron and cycle, added and rounded", 4, 16),
        Parameter("neurons", 1, "hidden units side by side", 1, 16),
        _window(BINARY16),
    ),
    component=FloatSD8LstmLayer,
    contract=FloatSD8LstmLayerContract,
    timing=_floatsd8_layer_timing,
    transaction="byte",
)

_FEW_BIT_WEIGHTS = (
    Parameter("weights", "ternary", "levels of weights; int12 to compare with", choices=WEIGHTS),
    Parameter("exponents", 1, "magnitudes of pow2 weights: 1, 2, 4, 8", 1, 4),
)
_VALUE_WIDTH = Parameter("activation_width", 12, "bits of inputs and hidden values", 4, 16)

TERNARY_LSTM_NEURON = Design(
    name="ternary_lstm_neuron",
    summary="one hidden unit of an LSTM of few-bit weights at a time: gate rows in, new state out",
    parameters=(
        Parameter("lanes", 16, "weights a beat", 1, 256),
        *_FEW_BIT_WEIGHTS,
        _VALUE_WIDTH,
        ACTIVATION,
    ),
    component=TernaryLstmNeuron,
    contract=lambda weights, **parameters: TernaryLstmNeuronContract(
        weights_kind=weights, **parameters
    ),
    timing=lambda lanes, activation, **_: _neuron_timing(
        default_chunk(lanes, activation), activation
    ),
    transaction="hidden unit",
)

TERNARY_LSTM_LAYER = Design(
    name="ternary_lstm_layer",
    summary="a layer of an LSTM of few-bit weights with its parameters and state",
    parameters=(
        Parameter("inputs", 16, "length of the input vector", 1, 4096),
        Parameter("hidden", 32, "cells and hidden values", 1, 4096),
        Parameter("lanes", 16, "weights a neuron and cycle, whole bytes of them", 1, 256),
        Parameter("neurons", 1, "hidden units side by side", 1, 16),
        *_FEW_BIT_WEIGHTS,
        Parameter(
            "packing",
            "fields",
            "each weight in bits of its own, or five ternary ones in 8",
            choices=get_args(Packing),
        ),
        Parameter(
            "scales",
            "fixed",
            "what scales rows have: any, or powers of two",
            choices=get_args(Scales),
        ),
        Parameter(
            "gates",
            "in_turn",
            "rows of a unit's gates one after the other, or all four at once",
            choices=get_args(Gates),
        ),
        _VALUE_WIDTH,
        ACTIVATION,
        _STRUCTURE,
    ),
    component=TernaryLstmLayer,
    contract=lambda structure, **parameters: TernaryLstmLayerContract(**parameters),
    timing=_ternary_layer_timing,
    transaction="byte",
)

_BIAS = Parameter("bias", 10, "exponent bias of the FloatSD8 number", -16, 40)


FLOATSD8_ENCODE = Design(
    name="floatsd8_encode",
    summary="binary16 numbers to the nearest FloatSD8 numbers",
    parameters=(_BIAS,),
    component=FloatSD8Encode,
    contract=FloatSD8EncodeContract,
    timing=lambda **_: _at_once(),
    transaction="beat",
)

FLOATSD8_DECODE = Design(
    name="floatsd8_decode",
    summary="FloatSD8 numbers to binary16",
    parameters=(_BIAS,),
    component=FloatSD8Decode,
    contract=FloatSD8DecodeContract,
    timing=lambda **_: _at_once(),
    transaction="beat",
)

FLOATSD8_ACTIVATE = Design(
    name="floatsd8_activate",
    summary="sigmoid to FloatSD8 or tanh to e5m2, of binary16 numbers",
    parameters=(),
    component=FloatSD8Activate,
    contract=FloatSD8ActivateContract,
    timing=lambda **_: _at_once(),
    transaction="beat",
)

DESIGNS = {
    design.name: design
    for design in (
        FLOATSD8_MAC,
        FP32_MAC,
        FP16_MAC,
        BF16_MAC,
        FP8_MAC,
        INT8_MAC,
        TERNARY_ACCUMULATE,
        BINARY_ACCUMULATE,
        POW2_ACCUMULATE,
        INT12_MAC,
        INT8_LSTM_NEURON,
        INT8_LSTM_LAYER,
        FLOATSD8_LSTM_NEURON,
        FLOATSD8_LSTM_LAYER,
        TERNARY_LSTM_NEURON,
        TERNARY_LSTM_LAYER,
        FLOATSD8_ENCODE,
        FLOATSD8_DECODE,
        FLOATSD8_ACTIVATE,
    )
}
"""All designs by name, in the order in which they are listed."""


def find(name: str) -> Design:
    """The design of a name.

    Raises
    ------
    ParameterError
        If there is none.
    """
    if name not in DESIGNS:
        raise ParameterError(f"There is no design '{name}'; there are {', '.join(DESIGNS)}.")
    return DESIGNS[name]
