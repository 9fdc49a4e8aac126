"""Claims about circuits: each with a definition, which is written from the contract alone.

A definition is a circuit of its own: case tables of the formats' reals as integers, plain products,
shifts and sums of integers wide enough to lose nothing, and rounding by comparison with the middle
of every two neighbours. `fewbit.proofs` proves that the generated circuit equals it.

A design gets a proof by one function here that makes its claims, and one entry of `_CLAIMS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np

from fewbit.golden.accumulate.term_sum import TermSumContract
from fewbit.golden.activation.floatsd8 import ACCUMULATOR_FORMAT, sigmoid_floatsd8, tanh_e5m2
from fewbit.golden.contract import Contract
from fewbit.golden.formats import BINARY16, FixedPoint, FloatSD8, Format, Minifloat
from fewbit.golden.operands import Operand
from fewbit.hdl.accumulate.term_sum import TermSum
from fewbit.hdl.design import ConfiguredDesign, Design, Timing, Value
from fewbit.sim.verilog import verilog_of

__all__ = ["Claim", "claims_of"]


@dataclass(frozen=True)
class Claim:
    """The claim that a circuit equals its definition, of the same ports, on every input."""

    design: str
    statement: str
    """The claim in a few words."""
    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]
    unit: Callable[[], str]
    """A function that returns the Verilog of the unit in the circuit."""
    circuit: str
    """The body of the circuit's module, which instantiates the unit with the clock ``clk``."""
    definition: str
    """The body of the definition's module."""
    exposed: tuple[str, ...] = ()
    """The wires of the unit that become ports, so that the circuit can read them."""

    @property
    def inputs(self) -> int:
        """The number of bits of all operands: the claim is about 2**inputs inputs."""
        return sum(operand.width for operand in self.operands)


def claims_of(design: ConfiguredDesign) -> list[Claim]:
    """Return the claims that can be proven of a design with its parameters; most have none."""
    claims = _CLAIMS.get(design.design.name)
    return claims(design) if claims else []


# Parts of Verilog that several definitions use.


def _instance(heading: str, contract: Contract, connections: Mapping[str, str]) -> str:
    """Return an instance of a unit whose streams always flow.

    A port is connected as `connections` says, or else with the wire of its name.
    """
    (i_valid, _), (_, o_ready) = contract.handshakes["i"], contract.handshakes["o"]
    fields = (*contract.operands, *contract.results)
    ports = {"clk": "clk", "rst": "1'b0", i_valid: "1'b1", o_ready: "1'b1"}
    ports |= {field.name: field.name for field in fields}
    ports |= connections
    return f"{heading} ({', '.join(f'.{port}({wire})' for port, wire in ports.items())});"


def _table(name: str, width: int, entries: Sequence[int]) -> str:
    """Return a Verilog function from an index to the entry at it."""
    bits = (len(entries) - 1).bit_length()
    lines = [f"    {bits}'d{k}: {name} = {width}'d{entry};" for k, entry in enumerate(entries)]
    header = f"function [{width - 1}:0] {name}; input [{bits - 1}:0] code; case (code)"
    return "\n".join([header, *lines, "endcase endfunction"])


def _multiples(number_format: Format, unit: Fraction) -> list[int]:
    """Return the reals of all codes, without their signs, as whole multiples of a unit."""
    reals = number_format.decode(np.arange(2**number_format.width)).tolist()
    multiples = [abs(Fraction(real)) / unit for real in reals]
    if any(multiple.denominator != 1 for multiple in multiples):
        raise ValueError(f"{number_format.name} has values between multiples of {unit}.")
    return [int(multiple) for multiple in multiples]


def _nearest(name: str, width: int, twice: str, values: Sequence[int], codes: Sequence[int]) -> str:
    """Return Verilog of ``name``, the code of the value that is nearest to half of ``twice``.

    ``values`` ascend from 0. A tie goes to the even position.
    """
    lines = [f"reg [{width - 1}:0] {name};", "always @* begin", f"    {name} = {codes[0]};"]
    for position, (value, after) in enumerate(pairwise(values)):
        middle = value + after
        relation = ">" if position % 2 == 0 else ">="
        constant = f"{middle.bit_length()}'d{middle}"
        lines.append(f"    if ({twice} {relation} {constant}) {name} = {codes[position + 1]};")
    return "\n".join([*lines, "end"])


def _places(*names: str) -> str:
    """Return Verilog of ``largest``, the largest of some wires of 8 bits."""
    lines = ["reg [7:0] largest;", "always @* begin", f"    largest = {names[0]};"]
    lines += [f"    if ({name} > largest) largest = {name};" for name in names[1:]]
    return "\n".join([*lines, "end"])


# Claims.


def _floatsd8_mac(design: ConfiguredDesign) -> list[Claim]:
    """Claim every product of the generated unit, and its sum at widths that a solver can handle."""
    return [
        _floatsd8_product(design),
        _small_sum(design.name, magnitude_bits=3, window=None),
        _small_sum(design.name, magnitude_bits=2, window=4),
    ]


def _floatsd8_product(design: ConfiguredDesign) -> Claim:
    """Claim each lane's term, whatever the other lanes hold."""
    contract = design.contract
    weights, activations, _ = contract.operands
    weight_format, activation_format = weights.format, activations.format
    if not isinstance(weight_format, FloatSD8) or not isinstance(activation_format, Minifloat):
        raise TypeError(f"{design.name} has other operands than FloatSD8 and a small float.")
    lanes = weights.lanes or 1
    # The units are the smallest numbers: 2**-bias for a weight, and the smallest subnormal for an
    # activation. An exponent of 0 in a term stands for one place less.
    fraction = weight_format.bias + activation_format.bias + activation_format.mantissa_bits
    weight_unit = Fraction(2) ** -weight_format.bias
    activation_unit = Fraction(2) ** (weight_format.bias - fraction)
    # A term is at most 18 * 2**7 times 7 * 2**31, and has a sign.
    product = Operand("product", FixedPoint(47, fraction), "of each lane", lanes)
    exponent = Operand("exponent", FixedPoint(6, signed=False), "of each lane's term", lanes)
    operands = [
        Operand("weight", weight_format, "of the lane in question"),
        Operand("activation", activation_format, "of the lane in question"),
    ]
    if lanes > 1:
        operands += [
            Operand("other_weights", weight_format, "of all other lanes", lanes - 1),
            Operand("other_activations", activation_format, "of all other lanes", lanes - 1),
        ]
    # There is a unit for each lane. Logic that is the same in all of them, as it should be, is
    # merged before the solver sees it.
    circuit: list[str] = []
    for lane in range(lanes):
        term = [f"{name}_{lane}" for name in ("product", "exponent", "sign")]
        circuit += [
            f"wire [6:0] product_{lane};",
            f"wire [5:0] exponent_{lane};",
            f"wire sign_{lane};",
            _instance(
                f"{design.name} unit_{lane}",
                contract,
                {
                    "weights": _between("weight", "other_weights", lane, lanes),
                    "activations": _between("activation", "other_activations", lane, lanes),
                    # A positive accumulator leaves the terms' signs as they are.
                    "accumulator": "16'b0",
                    "result": "",
                    **{wire: wire for wire in term},
                },
            ),
            f"wire [46:0] size_{lane} = product_{lane} << exponent_{lane};",
            f"assign product[{47 * lane} +: 47] = sign_{lane} ? -size_{lane} : size_{lane};",
            f"assign exponent[{6 * lane} +: 6] = exponent_{lane};",
        ]
    definition = [
        _table("weight_real", 12, _multiples(weight_format, weight_unit)),
        _table("activation_real", 34, _multiples(activation_format, activation_unit)),
        "wire [46:0] size = weight_real(weight) * activation_real(activation);",
        "wire [46:0] real_product = weight[4] ^ activation[7] ? -size : size;",
        "wire [5:0] sum = weight[7:5] + (activation[6:2] == 0 ? 5'd1 : activation[6:2]);",
        f"assign product = {{{lanes}{{real_product}}}};",
        f"assign exponent = {{{lanes}{{sum}}}};",
    ]
    return Claim(
        design.name,
        "weight times activation, in each lane",
        tuple(operands),
        (product, exponent),
        lambda: verilog_of(design),
        "\n".join(circuit),
        "\n".join(definition),
        tuple(
            f"{name}_{lane}" for name in ("product", "exponent", "sign") for lane in range(lanes)
        ),
    )


def _between(own: str, others: str, lane: int, lanes: int) -> str:
    """Return the codes of 8 bits of all lanes: `own` in one lane, those of `others` around it."""
    left = [f"{others}[{8 * index} +: 8]" for index in range(lanes - 1)]
    return f"{{{', '.join(reversed([*left[:lane], own, *left[lane:]]))}}}"


def _small_sum(design: str, magnitude_bits: int, window: int | None) -> Claim:
    """Claim the sum of the core that adds a unit's products, at widths of a few bits."""
    accumulator_format = Minifloat(3, 2, bias=3, ieee=True)
    # With this offset, terms and accumulator reach above and below each other.
    terms, exponent_bits, place = 2, 3, 7
    contract = TermSumContract(
        accumulator_format, terms, magnitude_bits, exponent_bits, place, window
    )
    unit = Design(
        name="term_sum",
        summary="sum of floating-point terms",
        contract=lambda: contract,
        parameters=(),
        component=partial(TermSum, stages=2),
        timing=lambda _: Timing("2", "1"),
        transaction="beat",
    ).configure()
    mantissa_bits = accumulator_format.mantissa_bits
    # The accumulator's top exponent is read as one more octave.
    finite = Minifloat(accumulator_format.exponent_bits, mantissa_bits, accumulator_format.bias)
    # The window's places below the lowest unit make every shift one to the left.
    spare = window or 0
    unit_real = Fraction(2) ** -(place + spare)
    starts = _multiples(finite, unit_real)
    width = max(magnitude_bits + 2**exponent_bits - 1 + spare, max(starts).bit_length())
    codes = np.arange(2**finite.width)
    exponents = np.maximum(codes >> mantissa_bits & 2**finite.exponent_bits - 1, 1)
    tops = exponents - finite.bias + 1 + place + spare
    lines = [
        _table("start", width, starts),
        _table("top", 8, tops.tolist()),
        f"wire [{width - 1}:0] field_0 = start(accumulator);",
        "wire [7:0] top_0 = top(accumulator);",
        f"wire minus_0 = accumulator[{finite.width - 1}];",
    ]
    for index in range(terms):
        exponent = f"exponents[{exponent_bits * index} +: {exponent_bits}]"
        magnitude = f"magnitudes[{magnitude_bits * index} +: {magnitude_bits}]"
        lines += [
            f"wire [7:0] place_{index + 1} = {exponent} + 8'd{spare};",
            f"wire [{width - 1}:0] field_{index + 1} = {magnitude} << place_{index + 1};",
            f"wire [7:0] top_{index + 1} = place_{index + 1} + 8'd{magnitude_bits};",
            f"wire minus_{index + 1} = signs[{index}];",
        ]
    fields = range(terms + 1)
    if window is None:
        lines.append("wire [7:0] cut = 0;")
    else:
        lines += [
            _places(*(f"top_{index}" for index in fields)),
            f"wire [7:0] cut = largest - 8'd{window};",
        ]
    total_width = width + 3
    for index in fields:
        lines += [
            f"wire [{total_width - 1}:0] kept_{index} = (field_{index} >> cut) << cut;",
            (
                f"wire [{total_width - 1}:0] value_{index} ="
                f" minus_{index} ? -kept_{index} : kept_{index};"
            ),
        ]
    largest = finite.encode(accumulator_format.largest)
    magnitudes = np.arange(int(largest) + 1)
    lines += [
        f"wire [{total_width - 1}:0] total = {' + '.join(f'value_{index}' for index in fields)};",
        f"wire minus = total[{total_width - 1}];",
        f"wire [{total_width - 1}:0] distance = minus ? -total : total;",
        _nearest(
            "magnitude",
            finite.width - 1,
            "{distance, 1'b0}",
            [starts[code] for code in magnitudes.tolist()],
            magnitudes.tolist(),
        ),
        "assign result = {minus, magnitude};",
    ]
    kept = "exact" if window is None else f"window {window}"
    return Claim(
        design,
        f"sum of {terms} terms of {magnitude_bits} bits, {kept}",
        contract.operands,
        contract.results,
        lambda: verilog_of(unit),
        _instance(f"{unit.name} unit", contract, {}),
        "\n".join(lines),
    )


def _floatsd8_encode(design: ConfiguredDesign) -> list[Claim]:
    """Claim that the weight is the nearest one, by the middle of every two neighbours."""
    contract = design.contract
    result = contract.results[0].format
    values = [Fraction(value) for value in result.values.tolist() if value >= 0]
    codes = [int(code) for code in result.encode([float(value) for value in values])]
    # The unit is fine enough for the smallest subnormal number and half of the smallest weight.
    unit = min(Fraction(2) ** -24, values[1])
    numbers = _multiples(ACCUMULATOR_FORMAT, unit)
    width = max(numbers).bit_length()
    shift = (Fraction(2) ** -24 / unit).numerator.bit_length() - 1
    definition = [
        "wire [4:0] exponent = number[14:10] == 0 ? 5'd1 : number[14:10];",
        "wire [10:0] significand = {number[14:10] != 0, number[9:0]};",
        f"wire [{width - 1}:0] value = significand << (exponent - 5'd1 + 8'd{shift});",
        _nearest("magnitude", 8, "{value, 1'b0}", [int(value / unit) for value in values], codes),
        "assign result = magnitude == 0 ? 8'd0 : magnitude | {3'b0, number[15], 4'b0};",
    ]
    return [_whole(design, "nearest code", definition)]


def _floatsd8_decode(design: ConfiguredDesign) -> list[Claim]:
    """Claim the numbers of all 256 codes."""
    contract = design.contract
    reals = contract.operands[0].format.decode(np.arange(256))
    definition = [
        _table("nearest", 16, BINARY16.encode(reals).tolist()),
        "assign result = nearest(number);",
    ]
    return [_whole(design, "nearest code", definition)]


def _floatsd8_activate(design: ConfiguredDesign) -> list[Claim]:
    """Claim both functions, by the inputs at which the golden ones change."""
    magnitudes = np.arange(2**15)
    gate, _ = sigmoid_floatsd8(magnitudes | 2**15)
    definition = [
        _steps("gate", 8, "number[14:0]", gate.tolist()),
        _steps("tanh", 8, "number[14:0]", tanh_e5m2(magnitudes).tolist()),
        "assign result = is_tanh ? tanh | {number[15], 7'b0} : gate;",
        "assign complement = number[15] == 0 && number != 0;",
    ]
    return [_whole(design, "nearest sigmoid or tanh", definition)]


def _selected_lanes(design: ConfiguredDesign, levels: str) -> list[Claim]:
    """Claim a row of one beat at small widths, as a solver can't handle the inputs of full ones."""
    lanes, width, total = 3, 4, 8
    sizes: dict[str, Value] = {
        "lanes": lanes,
        "activation_width": width,
        "accumulator_width": total,
    }
    small = design.design.configure(sizes)
    contract = small.contract
    bits = contract.operands[0].format.width
    definition: list[str] = []
    for lane in range(lanes):
        definition += [
            f"wire [{bits - 1}:0] weight_{lane} = weights[{bits * lane} +: {bits}];",
            f"wire signed [{width - 1}:0] activation_{lane};",
            f"assign activation_{lane} = activations[{width * lane} +: {width}];",
            f"wire signed [{total - 1}:0] wide_{lane} = activation_{lane};",
            f"wire [{total - 1}:0] term_{lane} = {levels.format(lane=lane)};",
        ]
    terms = " + ".join(f"term_{lane}" for lane in range(lanes))
    definition.append(f"assign result = accumulator + {terms};")
    return [
        Claim(
            design.name,
            f"row of one beat, {lanes} lanes of {width} bits",
            contract.operands[:3],
            contract.results,
            lambda: verilog_of(small),
            _instance(f"{design.name} unit", contract, {"first": "1'b1", "last": "1'b1"}),
            "\n".join(definition),
        )
    ]


_TERNARY = "weight_{lane} == 2'b01 ? wide_{lane} : weight_{lane} == 2'b11 ? -wide_{lane} : 0"
_BINARY = "weight_{lane} ? wide_{lane} : -wide_{lane}"


def _whole(design: ConfiguredDesign, claim: str, definition: Sequence[str]) -> Claim:
    """Return a claim about all operands and results of a design as it is generated."""
    contract = design.contract
    return Claim(
        design.name,
        claim,
        contract.operands,
        contract.results,
        lambda: verilog_of(design),
        _instance(f"{design.name} unit", contract, {}),
        "\n".join(definition),
    )


def _steps(name: str, width: int, index: str, entries: Sequence[int]) -> str:
    """Return Verilog of ``name``, the entry at ``index``, by the indices where entries change."""
    lines = [f"reg [{width - 1}:0] {name};", "always @* begin", f"    {name} = {entries[0]};"]
    for position, (before, entry) in enumerate(pairwise(entries), start=1):
        if entry != before:
            lines.append(f"    if ({index} >= {position}) {name} = {entry};")
    return "\n".join([*lines, "end"])


_CLAIMS: dict[str, Callable[[ConfiguredDesign], list[Claim]]] = {
    "floatsd8_mac": _floatsd8_mac,
    "floatsd8_encode": _floatsd8_encode,
    "floatsd8_decode": _floatsd8_decode,
    "floatsd8_activate": _floatsd8_activate,
    "ternary_accumulate": partial(_selected_lanes, levels=_TERNARY),
    "binary_accumulate": partial(_selected_lanes, levels=_BINARY),
}
