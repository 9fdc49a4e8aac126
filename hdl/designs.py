"""The registry: every design that can be generated, checked and measured, by name.

Adding a circuit is one module for its golden contract, one for the circuit, and one entry here;
the command line, the regression, the synthesis, the table in the README and the tests read it.
"""

from typing import Any

from golden.accumulate.floatsd8_mac import FloatSD8Mac as FloatSD8MacContract
from golden.accumulate.ternary import TernaryAccumulate as TernaryAccumulateContract
from golden.layer.int8 import Int8LstmLayer as Int8LstmLayerContract
from golden.neuron.int8 import Int8LstmNeuron as Int8LstmNeuronContract
from hdl.accumulate.floatsd8_mac import FloatSD8Mac
from hdl.accumulate.ternary_accumulate import TernaryAccumulate
from hdl.arithmetic import Structure
from hdl.design import Design, Parameter, ParameterError, Timing
from hdl.layer.int8 import Int8LstmLayer, step_cycles
from hdl.neuron.int8 import Int8LstmNeuron, default_chunk

__all__ = ["DESIGNS", "find"]

FLOATSD8_MAC = Design(
    name="floatsd8_mac",
    summary="FloatSD8 weights times FP8 activations, added to a binary16 accumulator",
    parameters=(
        Parameter("products", 4, "products a beat", 1, 16),
        Parameter(
            "window",
            14,
            "bits kept below the top of the largest operand",
            8,
            48,
            none_means="all bits, an exact sum",
        ),
        Parameter("activation_bias", 15, "exponent bias of the activations", 0, 31),
        Parameter("weight_bias", 10, "exponent bias of the weights", -16, 40),
        Parameter("stages", 2, "register stages, so the latency in cycles", 1, 3),
    ),
    component=FloatSD8Mac,
    contract=lambda stages, **parameters: FloatSD8MacContract(**parameters),
    timing=lambda stages, **_: Timing(latency=str(stages), interval="1"),
    transaction="beat",
)

TERNARY_ACCUMULATE = Design(
    name="ternary_accumulate",
    summary="rows of ternary weights times integer activations, added up",
    parameters=(
        Parameter("lanes", 16, "weights and activations a beat", 1, 256),
        Parameter("activation_width", 12, "bits of a signed activation", 2, 16),
        Parameter("accumulator_width", 24, "bits of the sum, wide enough for a row", 2, 48),
    ),
    component=TernaryAccumulate,
    contract=TernaryAccumulateContract,
    timing=lambda **_: Timing(latency="1", interval="1"),
    transaction="row",
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


def _layer_timing(structure: Structure, **parameters: Any) -> Timing:
    cycles = step_cycles(Int8LstmLayerContract(**parameters), structure)
    most, unless = ("", "") if cycles.is_exact else ("at most ", ", unless a scale shifts left")
    return Timing(
        f"{most}{cycles.first_byte} to the first byte of an answer and {cycles.last_byte} to the"
        f" last{unless}",
        f"{most}{cycles.interval} a step, {cycles.beats} of them with products{unless}",
    )


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
        Parameter(
            "structure",
            "gates",
            "sums as carry-save trees for gates, or as adders for an FPGA's carry chains",
            choices=("gates", "fpga"),
        ),
    ),
    component=Int8LstmLayer,
    contract=lambda structure, **parameters: Int8LstmLayerContract(**parameters),
    timing=_layer_timing,
    transaction="byte",
)

DESIGNS = {
    design.name: design
    for design in (FLOATSD8_MAC, TERNARY_ACCUMULATE, INT8_LSTM_NEURON, INT8_LSTM_LAYER)
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
