"""The registry: every design that can be generated, checked and measured, by name.

To add a circuit, write one module for its golden contract, one for the circuit, and one entry here;
the command line, the regression, the synthesis and the tests use the entry. A user's own package
adds its designs by `register_design`.
"""

from dataclasses import replace
from functools import partial
from typing import Any, get_args

from amaranth.lib import wiring

from fewbit.golden.accumulate.binary_accumulate import BinaryAccumulateContract
from fewbit.golden.accumulate.float_mac import FloatMacContract
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW, FloatSD8MacContract
from fewbit.golden.accumulate.int8_mac import Int8MacContract
from fewbit.golden.accumulate.int12_mac import Int12MacContract
from fewbit.golden.accumulate.pow2_accumulate import Pow2AccumulateContract
from fewbit.golden.accumulate.ternary_accumulate import TernaryAccumulateContract
from fewbit.golden.contract import Contract
from fewbit.golden.floatsd8_conversion import (
    FloatSD8ActivateContract,
    FloatSD8DecodeContract,
    FloatSD8EncodeContract,
)
from fewbit.golden.formats import BFLOAT16, BINARY16, BINARY32, E5M2, Minifloat
from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract
from fewbit.golden.layer.int8_dynamic import int8_layer, int8_layer_parameters
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.neuron.floatsd8 import FloatSD8LstmNeuronContract
from fewbit.golden.neuron.int8 import Int8LstmNeuronContract
from fewbit.golden.neuron.ternary import TernaryLstmNeuronContract
from fewbit.golden.parameter import parameters_of
from fewbit.golden.words import shown
from fewbit.hdl.accumulate.binary_accumulate import BinaryAccumulate
from fewbit.hdl.accumulate.float_mac import FloatMac, Multiplier
from fewbit.hdl.accumulate.float_sum import Objective
from fewbit.hdl.accumulate.floatsd8_mac import FloatSD8Mac
from fewbit.hdl.accumulate.int8_mac import Int8Mac
from fewbit.hdl.accumulate.int12_mac import Int12Mac
from fewbit.hdl.accumulate.pow2_accumulate import Pow2Accumulate
from fewbit.hdl.accumulate.ternary_accumulate import TernaryAccumulate
from fewbit.hdl.design import Design, Parameter, ParameterError, Timing
from fewbit.hdl.floatsd8_conversion import FloatSD8Activate, FloatSD8Decode, FloatSD8Encode
from fewbit.hdl.layer import floatsd8_cycles, integer_cycles, ternary_cycles
from fewbit.hdl.layer.floatsd8 import FloatSD8LstmLayer
from fewbit.hdl.layer.int8 import Int8LstmLayer
from fewbit.hdl.layer.int8_dynamic import DynamicInt8LstmLayer
from fewbit.hdl.layer.ternary import TernaryLstmLayer
from fewbit.hdl.neuron.floatsd8 import FloatSD8LstmNeuron
from fewbit.hdl.neuron.int8 import Int8LstmNeuron, default_chunk
from fewbit.hdl.neuron.ternary import TernaryLstmNeuron
from fewbit.hdl.structure import Structure

__all__ = ["DESIGNS", "check_design", "find", "register_design"]

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


def _at_once(contract: Contract, **_: object) -> Timing:
    """Return the timing of a beat each cycle, with its result in the next cycle."""
    return Timing(latency="1", interval="1")


def _staged(contract: Contract, stages: int, **_: object) -> Timing:
    """Return the timing of a beat each cycle, through one register for each stage."""
    return Timing(latency=str(stages), interval="1")


def _float_mac(name: str, summary: str, operand: Minifloat, accumulator: Minifloat) -> Design:
    """Return a baseline for FloatSD8: the same core with plain formats."""
    # As in floatsd8_mac, the window is one bit more than the accumulator's significand.
    window = accumulator.mantissa_bits + 1 + (DEFAULT_WINDOW - BINARY16.mantissa_bits - 1)
    return Design(
        name=name,
        summary=summary,
        contract=partial(FloatMacContract, operand, accumulator),
        parameters=parameters_of(FloatMacContract, window=window),
        component=FloatMac,
        build=(
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
        timing=_staged,
        transaction="beat",
        is_baseline=True,
    )


FLOATSD8_MAC = Design(
    name="floatsd8_mac",
    summary="FloatSD8 weights times FP8 activations, added to a binary16 accumulator",
    contract=FloatSD8MacContract,
    parameters=parameters_of(FloatSD8MacContract),
    component=FloatSD8Mac,
    build=(STAGES, STRUCTURE, OBJECTIVE),
    timing=_staged,
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
    contract=Int8MacContract,
    parameters=parameters_of(Int8MacContract),
    component=Int8Mac,
    build=(replace(STAGES, maximum=3), STRUCTURE),
    timing=_staged,
    transaction="beat",
    is_baseline=True,
)

_STRUCTURE = Parameter(
    "structure",
    "gates",
    "sums of full adders for gates, of adders for an FPGA's carry chains, or left to synthesis",
    choices=("gates", "fpga", "plain"),
)


TERNARY_ACCUMULATE = Design(
    name="ternary_accumulate",
    summary="rows of ternary weights times integer activations, added up",
    contract=TernaryAccumulateContract,
    parameters=parameters_of(TernaryAccumulateContract),
    component=TernaryAccumulate,
    build=(_STRUCTURE,),
    timing=_at_once,
    transaction="row",
)

BINARY_ACCUMULATE = Design(
    name="binary_accumulate",
    summary="rows of binary weights times integer activations, added up",
    contract=BinaryAccumulateContract,
    parameters=parameters_of(BinaryAccumulateContract),
    component=BinaryAccumulate,
    build=(_STRUCTURE,),
    timing=_at_once,
    transaction="row",
)

POW2_ACCUMULATE = Design(
    name="pow2_accumulate",
    summary="rows of power-of-two weights times integer activations, added up",
    contract=Pow2AccumulateContract,
    parameters=parameters_of(Pow2AccumulateContract),
    component=Pow2Accumulate,
    build=(_STRUCTURE,),
    timing=_at_once,
    transaction="row",
)

INT12_MAC = Design(
    name="int12_mac",
    summary="rows of 12-bit weights times integer activations, added up: the baseline",
    contract=Int12MacContract,
    parameters=parameters_of(Int12MacContract),
    component=Int12Mac,
    build=(_STRUCTURE,),
    timing=_at_once,
    transaction="row",
    is_baseline=True,
)


def _neuron_timing(contract: Int8LstmNeuronContract | TernaryLstmNeuronContract) -> Timing:
    """Return the cycles of the update, by the multiplier's bits a cycle; left shifts take more."""
    chunk = default_chunk(contract.lanes, contract.activation)
    if contract.activation == "table":
        latency, unit = {4: (26, 107), 8: (15, 60), 16: (9, 34)}[chunk]
        return Timing(str(latency), f"1 a beat; a unit takes the larger of its beats and {unit}")
    latency, unit = {4: (125, 580), 8: (75, 360), 16: (50, 230)}[chunk]
    return Timing(
        f"about {latency}, depending on data",
        f"1 a beat; a unit takes the larger of its beats and about {unit}, depending on data",
    )


def _floatsd8_neuron_timing(contract: Contract) -> Timing:
    return Timing(
        "11, or with the next unit's beats where these follow at once",
        "1 a beat, and 3 for each unit",
    )


def _int8_layer(contract: Any, structure: Structure) -> wiring.Component:
    circuit = DynamicInt8LstmLayer if contract.chooses_precision else Int8LstmLayer
    return circuit(contract, structure)


INT8_LSTM_NEURON = Design(
    name="int8_lstm_neuron",
    summary="one hidden unit of an integer LSTM at a time: gate rows in, hidden and cell value out",
    contract=Int8LstmNeuronContract,
    parameters=parameters_of(Int8LstmNeuronContract),
    component=Int8LstmNeuron,
    timing=_neuron_timing,
    transaction="hidden unit",
)

INT8_LSTM_LAYER = Design(
    name="int8_lstm_layer",
    summary="a layer of an integer LSTM with its weights and state: packets in, packets out",
    contract=int8_layer,
    parameters=int8_layer_parameters(),
    component=_int8_layer,
    build=(STRUCTURE,),
    cycles=integer_cycles.step_cycles,
    transaction="byte",
)

FLOATSD8_LSTM_NEURON = Design(
    name="floatsd8_lstm_neuron",
    summary="one hidden unit of a FloatSD8 LSTM at a time: gate sums in, hidden and cell value out",
    contract=FloatSD8LstmNeuronContract,
    parameters=parameters_of(FloatSD8LstmNeuronContract),
    component=FloatSD8LstmNeuron,
    timing=_floatsd8_neuron_timing,
    transaction="hidden unit",
)

FLOATSD8_LSTM_LAYER = Design(
    name="floatsd8_lstm_layer",
    summary="a layer of a FloatSD8 LSTM with its weights and state: packets in, packets out",
    contract=FloatSD8LstmLayerContract,
    parameters=parameters_of(FloatSD8LstmLayerContract),
    component=FloatSD8LstmLayer,
    cycles=floatsd8_cycles.step_cycles,
    transaction="byte",
)

TERNARY_LSTM_NEURON = Design(
    name="ternary_lstm_neuron",
    summary="one hidden unit of an LSTM of few-bit weights at a time: gate rows in, new state out",
    contract=TernaryLstmNeuronContract,
    parameters=parameters_of(TernaryLstmNeuronContract),
    component=TernaryLstmNeuron,
    timing=_neuron_timing,
    transaction="hidden unit",
)

TERNARY_LSTM_LAYER = Design(
    name="ternary_lstm_layer",
    summary="a layer of an LSTM of few-bit weights with its weights and state",
    contract=TernaryLstmLayerContract,
    parameters=parameters_of(TernaryLstmLayerContract),
    component=TernaryLstmLayer,
    build=(_STRUCTURE,),
    cycles=ternary_cycles.step_cycles,
    transaction="byte",
)

FLOATSD8_ENCODE = Design(
    name="floatsd8_encode",
    summary="binary16 numbers to the nearest FloatSD8 numbers",
    contract=FloatSD8EncodeContract,
    parameters=parameters_of(FloatSD8EncodeContract),
    component=FloatSD8Encode,
    timing=_at_once,
    transaction="beat",
)

FLOATSD8_DECODE = Design(
    name="floatsd8_decode",
    summary="FloatSD8 numbers to binary16",
    contract=FloatSD8DecodeContract,
    parameters=parameters_of(FloatSD8DecodeContract),
    component=FloatSD8Decode,
    timing=_at_once,
    transaction="beat",
)

FLOATSD8_ACTIVATE = Design(
    name="floatsd8_activate",
    summary="sigmoid to FloatSD8 or tanh to e5m2, of binary16 numbers",
    contract=FloatSD8ActivateContract,
    parameters=parameters_of(FloatSD8ActivateContract),
    component=FloatSD8Activate,
    timing=_at_once,
    transaction="beat",
)

DESIGNS: dict[str, Design] = {}
"""All designs by name, in the order in which they are listed."""


def register_design(design: Design) -> Design:
    """Register a design; the same one may be registered again.

    Raises
    ------
    TypeError
        If another design has this name.
    """
    check_design(design)
    return DESIGNS.setdefault(design.name, design)


def check_design(design: Design) -> None:
    """Refuse a design whose name stands for another.

    Raises
    ------
    TypeError
        If another design has this name.
    """
    if DESIGNS.get(design.name, design) != design:
        raise TypeError(f"There is a design '{design.name}' already; take another name.")


for _design in (
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
):
    register_design(_design)


def find(name: str) -> Design:
    """Return the design that has this name.

    Raises
    ------
    ParameterError
        If there is no such design.
    """
    if name not in DESIGNS:
        raise ParameterError(f"There is no design {shown(name)}; there are {', '.join(DESIGNS)}.")
    return DESIGNS[name]
