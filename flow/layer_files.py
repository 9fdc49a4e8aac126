"""What goes with a layer's Verilog: a C header, a packer of parameter images, the image."""

import dataclasses
import json
from typing import Any

import numpy as np

from golden.layer.contract import CELL_BYTES, LayerContract
from golden.layer.floatsd8 import OFFSETS, FloatSD8LstmLayer, offsets_of
from golden.layer.int8 import Int8LstmLayer
from golden.layer.int8_dynamic import DynamicConstants, DynamicInt8LstmLayer
from golden.layer.packets import Kind, Reply, Status
from golden.layer.ternary import TernaryLstmLayer, gates_of
from golden.lstm.floatsd8 import GATES, FloatSD8Lstm
from golden.lstm.int8 import Int8Constants
from golden.lstm.ternary import TernaryLstm, levels_of
from golden.neuron.ternary import LaneWeights
from hdl.arithmetic import Structure
from hdl.layer import floatsd8_cycles, int8_cycles, ternary_cycles
from hdl.layer.cycles import StepCycles

__all__ = ["c_header", "constants_of", "cycles_section", "image_section", "packer"]


def c_header(name: str, contract: LayerContract) -> str:
    """C header of a layer: packets, sizes, the image's sections and its checksum."""
    prefix = name.upper()
    schedule, layout = contract.schedule, contract.layout
    sizes = {
        "INPUTS": (contract.input_size, "bytes of an input vector"),
        "OUTPUTS": (contract.output_size, "bytes of a hidden vector"),
        "HIDDEN": (schedule.hidden, "cells"),
        "STATE_SIZE": (
            contract.state_size,
            f"bytes of a state: outputs, then cells of {CELL_BYTES}",
        ),
        "IMAGE_SIZE": (layout.size, "bytes of a parameter image"),
    }
    lines = [
        f"/* Sizes, packets and parameter image of {name}.",
        " *",
        f" * {_parameters(contract)}",
        " */",
        f"#ifndef {prefix}_H",
        f"#define {prefix}_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        *(f"#define {prefix}_{key} {value} /* {text} */" for key, (value, text) in sizes.items()),
        "",
        "/* TDEST of packets to the layer. */",
        *(f"#define {prefix}_{kind.name} {kind.value}" for kind in Kind),
        "",
        "/* TDEST of packets from the layer. */",
        *(
            f"#define {prefix}_REPLY_{reply.name} {reply.value}"
            for reply in Reply
            if reply != Reply.PASSES or contract.passes_size
        ),
        "",
        "/* The byte of a status packet. */",
        *(f"#define {prefix}_STATUS_{status.name} {status.value}" for status in Status),
        "",
        "/* Sections of the image: first byte, words, bytes of a word. */",
    ]
    for section in layout.sections:
        lines += [
            f"/* {section.meaning} */",
            f"#define {prefix}_{section.name.upper()}_OFFSET {layout.offset(section.name)}",
            f"#define {prefix}_{section.name.upper()}_WORDS {section.words}",
            f"#define {prefix}_{section.name.upper()}_WORD_SIZE {section.word_bytes}",
        ]
    lines += [
        "/* Of all bytes before it, high byte first. */",
        f"#define {prefix}_CHECKSUM_OFFSET {layout.offset('checksum')}",
        "",
        "/* CRC-16: polynomial 0x1021, start 0xFFFF. 0 for a whole image with its checksum. */",
        f"static inline uint16_t {name}_checksum(const uint8_t *bytes, size_t count)",
        "{",
        "    uint16_t checks = 0xFFFF;",
        "    for (size_t index = 0; index < count; index++) {",
        "        checks ^= (uint16_t)(bytes[index] << 8);",
        "        for (int bit = 0; bit < 8; bit++)",
        "            checks = (uint16_t)(checks << 1 ^ (checks & 0x8000 ? 0x1021 : 0));",
        "    }",
        "    return checks;",
        "}",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _parameters(contract: LayerContract) -> str:
    assert dataclasses.is_dataclass(contract)
    named = {field.name: getattr(contract, field.name) for field in dataclasses.fields(contract)}
    return ", ".join(f"{key} {value}" for key, value in named.items() if key != "image")


def cycles_section(contract: LayerContract, structure: Structure = "gates") -> dict[str, Any]:
    """Cycles of a time step as the data sheet gives them.

    Parameters
    ----------
    contract
        The layer.
    structure
        Of a layer's circuit that has such a parameter.
    """
    if isinstance(contract, TernaryLstmLayer):
        step = ternary_cycles.step_cycles(contract, structure)
    elif isinstance(contract, Int8LstmLayer):
        step = int8_cycles.step_cycles(contract, structure)
    else:
        assert isinstance(contract, FloatSD8LstmLayer)
        step = floatsd8_cycles.step_cycles(contract)
    sheet = {} if step.least_cycles is None else {"cycles_low": step.least_cycles}
    return {
        "beats": step.beats,
        "cycles": step.cycles,
        **sheet,
        "interval": step.interval,
        "latency": {"first_byte": step.first_byte, "last_byte": step.last_byte},
        "utilisation": round(step.utilisation, 4),
        "exact": step.is_exact,
        "formula": _formula(step),
    }


def _formula(step: StepCycles) -> str:
    """The sum that gives the cycles of a step, in words."""
    terms: list[str] = []
    for phase in step.phases:
        terms.append(f"{phase.first} for the first group of neurons")
        if phase.groups > 1:
            terms.append(f"{phase.groups - 1} times {phase.period} for the others")
        if phase.normalising:
            terms.append(f"{phase.normalising} to normalise")
    known = "exactly" if step.is_exact else "at most"
    return (
        f"{known} {' + '.join(terms)} = {step.cycles} from step to step, while results are taken at"
        " once and vectors come in time" + (f"; {step.note}" if step.note else "")
    )


def image_section(contract: LayerContract) -> dict[str, Any]:
    """The parameter image as the data sheet describes it."""
    layout = contract.layout
    return {
        "size": layout.size,
        "byte_order": "little; the checksum big",
        "sections": [
            {
                "name": section.name,
                "offset": layout.offset(section.name),
                "words": section.words,
                "word_bytes": section.word_bytes,
                "meaning": section.meaning,
            }
            for section in layout.sections
        ],
        "checksum": {
            "offset": layout.offset("checksum"),
            "algorithm": "CRC-16, polynomial 0x1021, start 0xFFFF, of all bytes before it",
        },
    }


def constants_of(
    constants: Int8Constants | DynamicConstants | FloatSD8Lstm | TernaryLstm,
) -> dict[str, np.ndarray]:
    """The arrays that the packer takes, by name."""
    arrays: dict[str, np.ndarray] = {}
    if isinstance(constants, DynamicConstants):
        names = ("threshold", "hold", "offsets", "signal")
        chosen = {name: np.asarray(getattr(constants, name)) for name in names}
        return {**constants_of(constants.whole), **chosen}
    if isinstance(constants, FloatSD8Lstm):
        for name in ("input_weights", "recurrent_weights", "bias"):
            arrays[name] = getattr(constants, name)
        for part, offset in zip(OFFSETS, offsets_of(constants), strict=True):
            arrays[f"{part}_offset"] = np.asarray(offset)
        return arrays
    if isinstance(constants, TernaryLstm):
        names = (*_TERNARY_ARRAYS_BY_ROW, "cell_exponent", "cell_clip", "activation")
        return {name: np.asarray(getattr(constants, name)) for name in names}
    for field in dataclasses.fields(constants):
        value = getattr(constants, field.name)
        if field.name == "gates":
            continue
        # What a layer hasn't leaves no array, not a 0.
        variant = field.name.partition("_")[0]
        if value is not None and getattr(constants, f"{variant}_weights", 0) is not None:
            arrays[field.name] = np.asarray(value)
    return arrays


def packer(name: str, contract: LayerContract) -> str:
    """A program, of Python and numpy alone, that packs a layer's constants into an image."""
    if isinstance(contract, DynamicInt8LstmLayer):
        constants, documentation, pack = (
            _dynamic_packing(contract),
            _INT8_ARRAYS + _DYNAMIC_ARRAYS,
            _dynamic_pack(),
        )
    elif isinstance(contract, Int8LstmLayer):
        constants, documentation, pack = _int8_packing(contract), _INT8_ARRAYS, _PACK_INT8
    elif isinstance(contract, TernaryLstmLayer):
        constants, documentation, pack = (
            _ternary_packing(contract),
            _TERNARY_ARRAYS,
            _PACK_TERNARY,
        )
    else:
        assert isinstance(contract, FloatSD8LstmLayer)
        constants, documentation, pack = (
            _floatsd8_packing(contract),
            _FLOATSD8_ARRAYS,
            _PACK_FLOATSD8,
        )
    text = _PACKER.replace("# ARRAYS\n", documentation).replace("# PACK\n", pack)
    values = "\n".join(f"{key} = {_literal(value)}" for key, value in constants.items())
    return text.replace("NAME", name).replace("# CONSTANTS\n", values + "\n")


def _int8_packing(contract: Int8LstmLayer) -> dict[str, object]:
    """What the packer of an integer layer has to know."""
    variant = contract.variant
    rows = [
        {
            "name": row.name,
            "part": row.part,
            "beats": contract.schedule.beats(row),
            "groups": contract.schedule.groups(phase),
            "phase": number,
        }
        for number, phase in enumerate(contract.schedule.phases)
        for task in phase.tasks
        for row in task.rows
        if row.start == "image"
    ]
    return {
        "GATES": list(variant.gates),
        "LANES": contract.lanes,
        "NEURONS": contract.neurons,
        "INPUTS": contract.inputs,
        "HIDDEN": contract.hidden,
        "OUTPUTS": contract.outputs,
        "SCALES": list(contract.scales),
        "FIELDS": _fields(contract),
        "TEXTS": {"activation": contract.activation, "rounding": "double"},
        "ROWS": rows,
        "IMAGE_SIZE": contract.layout.size,
    }


def _dynamic_packing(contract: DynamicInt8LstmLayer) -> dict[str, object]:
    """What the packer of an integer layer has to know that chooses the precision of weights."""
    constants = _int8_packing(contract)
    gates, hidden = len(contract.variant.gates), contract.hidden
    end = 1 << (8 * contract.start_bytes - 1)
    fields = {
        **_fields(contract),
        "folded_bias": [[gates, 2, hidden], -end, end - 1],
        "threshold": [[], 0, 65535],
        "hold": [[], 0, 255],
        "offsets": [[gates, 2, hidden], -128, 127],
    }
    texts = {"activation": contract.activation, "rounding": "double", "signal": contract.signal}
    more = {"FIELDS": fields, "TEXTS": texts, "START_BYTES": contract.start_bytes}
    return {**constants, **more}


def _dynamic_pack() -> str:
    """The integer layer's packing, but that each weight goes to two memories by halves."""
    pack = _PACK_INT8
    for old, new in _PACK_DYNAMIC:
        if pack.count(old) != 1:
            raise ValueError(f"The integer layer's packing must hold this once: {old}")
        pack = pack.replace(old, new)
    return pack


def _floatsd8_packing(contract: FloatSD8LstmLayer) -> dict[str, object]:
    """What the packer of a FloatSD8 layer has to know."""
    schedule = contract.schedule
    rows = [
        {
            "gates": [GATES.index(gate) for gate in gates],
            "part": row.part,
            "words": schedule.beats(row) // schedule.sums,
            "starts": int(row.start == "image"),
        }
        for row, gates in contract.rows_of_unit()
    ]
    shape = [len(GATES), contract.hidden]
    return {
        "GATES": list(GATES),
        "LANES": contract.lanes,
        "NEURONS": contract.neurons,
        "INPUTS": contract.inputs,
        "HIDDEN": contract.hidden,
        "FIELDS": {
            "input_weights": [[*shape, contract.inputs], 0, 255],
            "recurrent_weights": [[*shape, contract.hidden], 0, 255],
            "bias": [shape, 0, 65535],
            **{f"{part}_offset": [[], 0, 31] for part in OFFSETS},
        },
        "TEXTS": {},
        "GROUPS": schedule.groups(schedule.phases[0]),
        "ROWS": rows,
        "IMAGE_SIZE": contract.layout.size,
    }


def _ternary_packing(contract: TernaryLstmLayer) -> dict[str, object]:
    """What the packer of a layer of ternary, binary or power-of-two weights has to know."""
    schedule, weights = contract.schedule, contract.lane_weights
    group = contract.lanes // (weights.operand.lanes or 1)
    levels = np.array(levels_of(contract.weights, contract.exponents))
    lowest, base = int(levels[0]), int(levels[-1] - levels[0]) + 1
    # Codes of all groups of levels by their number; of whole numbers a code is the low bits.
    codes = np.full(base**group, -1)
    if contract.weights != "int12":
        groups = np.stack(np.meshgrid(*[levels] * group, indexing="ij"), -1).reshape(-1, group)
        row = LaneWeights(group, contract.weights, contract.exponents, contract.packing)
        codes[(groups - lowest) @ base ** np.arange(group)] = row.codes(groups).reshape(-1)
    rows = [
        {
            "gates": list(gates_of(row)),
            "part": row.part,
            "beats": schedule.beats(row),
        }
        for row in schedule.rows
    ]
    by_row = [len(GATES), contract.hidden]
    bounds: list[list[int]] = [[-(2**31), 2**31 - 1], [0, 2**31 - 1], [-31, 30]]
    ends = [lowest, int(levels[-1])]
    return {
        "GATES": list(GATES),
        "LANES": contract.lanes,
        "NEURONS": contract.neurons,
        "INPUTS": contract.inputs,
        "HIDDEN": contract.hidden,
        "WEIGHT_BITS": weights.operand.format.width,
        "LEVELS": [lowest, base, group],
        "CODES": [] if contract.weights == "int12" else codes.tolist(),
        "HAS_ZERO": int(0 in levels),
        "POWERS_OF_TWO": int(contract.scales == "powers_of_two"),
        "FIELDS": {
            "input_weights": [[*by_row, contract.inputs], *ends],
            "recurrent_weights": [[*by_row, contract.hidden], *ends],
            "bias": [by_row, *bounds[0]],
            **{
                f"{part}_{name}": [by_row, *bounds[index]]
                for part in ("input", "recurrent")
                for index, name in ((1, "multipliers"), (2, "shifts"))
            },
            "cell_exponent": [[], -15, -9],
            "cell_clip": [[], 0, 32767],
        },
        "TEXTS": {"activation": contract.activation},
        "GROUPS": schedule.groups(schedule.phases[0]),
        "ROWS": rows,
        "IMAGE_SIZE": contract.layout.size,
    }


def _fields(contract: Int8LstmLayer) -> dict[str, list[object]]:
    """Shape, lowest and highest value of every array that the packer takes."""
    variant = contract.variant
    gates, hidden, outputs = len(variant.gates), contract.hidden, contract.outputs
    int8, int16, int32 = ([-(2 ** (width - 1)), 2 ** (width - 1) - 1] for width in (8, 16, 32))
    multiplier, shift = [0, 2**31 - 1], [-31, 30]
    fields: dict[str, list[object]] = {
        "input_weights": [[gates, hidden, contract.inputs], *int8],
        "recurrent_weights": [[gates, hidden, outputs], *int8],
        "folded_bias": [[gates, 2, hidden], *int32],
        "multipliers": [[gates, 2], *multiplier],
        "shifts": [[gates, 2], *shift],
        "cell_exponent": [[], -15, -9],
        "cell_clip": [[], 0, 32767],
        "hidden_multiplier": [[], *multiplier],
        "hidden_shift": [[], -31, 0],
        "hidden_offset": [[], -128, 128 if variant.projection else 127],
        "reset_hidden": [[], *int8],
    }
    if variant.peephole:
        fields |= {
            "peephole_weights": [[gates - 1, hidden], *int16],
            "peephole_multipliers": [[gates - 1], *multiplier],
            "peephole_shifts": [[gates - 1], *shift],
            "peephole_ties_up": [[], 0, hidden],
        }
    if variant.norm:
        fields |= {
            "norm_weights": [[gates, hidden], *int16],
            "norm_bias": [[gates, hidden], *int32],
            "norm_guards": [[gates], 1, 2**31 - 1],
            "norm_multipliers": [[gates], *multiplier],
            "norm_shifts": [[gates], *shift],
        }
    if variant.projection:
        fields |= {
            "projection_weights": [[outputs, hidden], *int8],
            "projection_bias": [[outputs], *int32],
            "projection_multiplier": [[], *multiplier],
            "projection_shift": [[], *shift],
            "projection_offset": [[], *int8],
            "projection_clip": [[], 0, 127],
        }
    return fields


def _literal(value: object) -> str:
    if isinstance(value, dict) and value:
        items = value.items()
        return "{\n" + "".join(f'    "{key}": {json.dumps(item)},\n' for key, item in items) + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + "".join(f"    {json.dumps(item)},\n" for item in value) + "]"
    return json.dumps(value)


_INT8_ARRAYS = """\
CONSTANTS.npz holds the layer's integers, gates in the order of GATES, each gate's input part first:

    input_weights (gates, HIDDEN, INPUTS), recurrent_weights (gates, HIDDEN, OUTPUTS), of 8 bits
    folded_bias (gates, 2, HIDDEN): bias - zero point of the input * sum of the row's weights;
        for the recurrent part - zero point of the hidden values * sum of the row's weights
    multipliers, shifts (gates, 2): effective scale = multiplier / 2^31 * 2^shift
    cell_exponent, cell_clip, hidden_multiplier, hidden_shift, hidden_offset, reset_hidden
    with peepholes: peephole_weights (gates - 1, HIDDEN), peephole_multipliers, peephole_shifts,
        peephole_ties_up: units, from the first, whose ties go up as LiteRT's do in vectors
    with layer norm: norm_weights, norm_bias (gates, HIDDEN), norm_guards, norm_multipliers,
        norm_shifts (gates,)
    with a projection: projection_weights (OUTPUTS, HIDDEN), projection_bias (OUTPUTS,),
        projection_multiplier, projection_shift, projection_offset, projection_clip
"""

_DYNAMIC_ARRAYS = """\
    threshold, hold: the registers of the precision at reset
    offsets (gates, 2, HIDDEN): what 64 times is added to a row's sum of high halves
"""

_FLOATSD8_ARRAYS = """\
CONSTANTS.npz holds the layer's codes, gates in the order of GATES:

    input_weights (gates, HIDDEN, INPUTS), recurrent_weights (gates, HIDDEN, HIDDEN): FloatSD8,
        exponent in bits 7 to 5, sign in bit 4, index of the mantissa in bits 3 to 0
    bias (gates, HIDDEN): binary16
    input_offset: exponent bias of the input weights, plus that of the e5m2 inputs, less 19
    recurrent_offset: exponent bias of the recurrent weights, less 4
"""

_TERNARY_ARRAYS_BY_ROW = (
    "input_weights",
    "recurrent_weights",
    "bias",
    "input_multipliers",
    "input_shifts",
    "recurrent_multipliers",
    "recurrent_shifts",
)
_TERNARY_ARRAYS = """\
CONSTANTS.npz holds the layer's integers, gates in the order of GATES:

    input_weights (gates, HIDDEN, INPUTS), recurrent_weights (gates, HIDDEN, HIDDEN): levels
    bias (gates, HIDDEN): what the sums of the input rows start from
    input_multipliers, input_shifts, recurrent_multipliers, recurrent_shifts (gates, HIDDEN):
        a row's scale, from its sum to the gate, is multiplier / 2^31 * 2^shift
    cell_exponent, cell_clip
"""

_PACK_INT8 = '''\
def pack(arrays):
    """The image of a mapping of arrays."""
    arrays = check_arrays(arrays)
    gates = len(GATES)
    peeping = [gate for gate in GATES if f"{gate}_peephole" in SCALES]
    projects = "projection" in SCALES
    weights = {
        "input": arrays["input_weights"],
        "recurrent": arrays["recurrent_weights"],
    }
    bias = arrays["folded_bias"]
    scales = {"hidden": (int(arrays["hidden_multiplier"]), int(arrays["hidden_shift"]))}
    pairs = [arrays[name] for name in ("multipliers", "shifts")]
    for index, gate in enumerate(GATES):
        for part, name in enumerate(("input", "recurrent")):
            scales[f"{gate}_{name}"] = tuple(int(pair[index, part]) for pair in pairs)
    starts = {
        f"{gate}_{name}": bias[index, part]
        for index, gate in enumerate(GATES)
        for part, name in enumerate(("input", "recurrent"))
    }
    if peeping:
        ties_up = np.arange(HIDDEN) < int(arrays["peephole_ties_up"])
        peephole = arrays["peephole_weights"]
        multipliers = arrays["peephole_multipliers"]
        shifts = arrays["peephole_shifts"]
        for index, gate in enumerate(peeping):
            # Bit 16: ties of the product go up, and not away from zero.
            starts[f"{gate}_peephole"] = peephole[index] & 0xFFFF | ties_up << 16
            scales[f"{gate}_peephole"] = int(multipliers[index]), int(shifts[index])
    if projects:
        projection = arrays["projection_weights"]
        starts["projection"] = arrays["projection_bias"]
        scales["projection"] = (
            int(arrays["projection_multiplier"]),
            int(arrays["projection_shift"]),
        )
    image = bytes([int(arrays["cell_exponent"]) + 15])
    image += little(int(arrays["cell_clip"]), 2).tobytes()
    image += little(int(arrays["hidden_offset"]), 2).tobytes()
    image += little(int(arrays["reset_hidden"]), 1).tobytes()
    if projects:
        image += little(int(arrays["projection_offset"]), 1).tobytes()
        image += little(int(arrays["projection_clip"]), 1).tobytes()
    for name in SCALES:
        multiplier, shift = scales[name]
        image += little(multiplier >> 7, 3).tobytes() + little(shift, 1).tobytes()
    if "norm_weights" in arrays:
        gains = arrays["norm_weights"]
        norm_bias = arrays["norm_bias"]
        guards = arrays["norm_guards"]
        multipliers = arrays["norm_multipliers"]
        shifts = arrays["norm_shifts"]
        for gate in range(gates):
            image += little(multipliers[gate] >> 7, 3).tobytes()
            image += little(shifts[gate], 1).tobytes() + little(guards[gate], 4).tobytes()
        pairs = np.concatenate([little(gains, 2), little(norm_bias, 4)], axis=-1)
        image += pairs.tobytes()

    start_bytes, weight_bytes = [], []
    for phase in sorted({row["phase"] for row in ROWS}):
        rows = [row for row in ROWS if row["phase"] == phase]
        for group in range(rows[0]["groups"]):
            for row in rows:
                gate = row["name"].split("_")[0]
                values = starts[row["name"]][group * NEURONS :][:NEURONS]
                padded = np.zeros(NEURONS, np.int64)
                padded[: len(values)] = values
                start_bytes.append(little(padded, 4).tobytes())
                if row["part"] == "none":
                    continue
                if row["part"] == "inner":
                    matrix = projection
                else:
                    matrix = weights[row["part"]][GATES.index(gate)]
                for beat in range(row["beats"]):
                    word = np.zeros((NEURONS, LANES), np.int64)
                    lanes = matrix[group * NEURONS :][:NEURONS, beat * LANES :][:, :LANES]
                    word[: lanes.shape[0], : lanes.shape[1]] = lanes
                    weight_bytes.append(little(word, 1).tobytes())
    # At reset the circuit takes the recurrent sums for 0.
    folded = -int(arrays["reset_hidden"]) * weights["recurrent"].sum(axis=2)
    if ((folded - bias[:, 1]) % 2**32).any():
        raise SystemExit("The folded_bias of the recurrent part doesn't fit reset_hidden.")
    return whole(image + b"".join(start_bytes) + b"".join(weight_bytes))
'''

_PACK_DYNAMIC = (
    (
        """    for name in SCALES:
        multiplier, shift = scales[name]
""",
        """    image += little(int(arrays["threshold"]), 2).tobytes()
    image += little(int(arrays["hold"]), 1).tobytes()
    offsets = {
        f"{gate}_{name}": arrays["offsets"][index, part]
        for index, gate in enumerate(GATES)
        for part, name in enumerate(("input", "recurrent"))
    }
    for name in SCALES:
        multiplier, shift = scales[name]
""",
    ),
    (
        """                start_bytes.append(little(padded, 4).tobytes())
""",
        """                both = np.zeros((NEURONS, START_BYTES + 1), np.uint8)
                both[:, :START_BYTES] = little(padded, START_BYTES)
                chosen = offsets[row["name"]][group * NEURONS :][:NEURONS]
                both[: len(chosen), START_BYTES:] = little(chosen, 1)
                start_bytes.append(both.tobytes())
""",
    ),
    (
        """                    word[: lanes.shape[0], : lanes.shape[1]] = lanes
                    weight_bytes.append(little(word, 1).tobytes())
""",
        """                    # The low half, less 8, is signed.
                    word[: lanes.shape[0], : lanes.shape[1]] = (lanes ^ 8) & 255
                    weight_bytes.append(word.reshape(-1))
""",
    ),
    (
        """    return whole(image + b"".join(start_bytes) + b"".join(weight_bytes))
""",
        """    if len(weight_bytes) % 2:
        weight_bytes.append(np.zeros(NEURONS * LANES, np.int64))
    # Even words hold high halves, odd ones low halves; of the other memory beats change places.
    number = np.arange(len(weight_bytes))
    words = np.stack(weight_bytes)
    halves = [
        (np.stack([words[beat] >> 4, words[beat] & 15])[number % 2, number])
        for beat in (number, number ^ 1)
    ]
    for half in halves:
        if half.shape[1] % 2:
            half = np.pad(half, ((0, 0), (0, 1)))
        start_bytes.append(little(half[:, ::2] | half[:, 1::2] << 4, 1).tobytes())
    return whole(image + b"".join(start_bytes))
""",
    ),
)

_PACK_FLOATSD8 = '''\
def pack(arrays):
    """The image of a mapping of arrays."""
    arrays = check_arrays(arrays)
    weights = {part: arrays[part + "_weights"] for part in ("input", "recurrent")}
    image = bytes([int(arrays["input_offset"]), int(arrays["recurrent_offset"])])
    start_bytes, weight_bytes = [], []
    for group in range(GROUPS):
        units = slice(group * NEURONS, (group + 1) * NEURONS)
        for row in ROWS:
            for gate in row["gates"] if row["starts"] else []:
                values = arrays["bias"][gate, units]
                padded = np.zeros(NEURONS, np.int64)
                padded[: len(values)] = values
                start_bytes.append(little(padded, 2).tobytes())
            # The gates of a row take turns.
            for number in range(row["words"]):
                for gate in row["gates"]:
                    word = np.zeros((NEURONS, LANES), np.int64)
                    lanes = weights[row["part"]][gate, units, number * LANES :][:, :LANES]
                    word[: lanes.shape[0], : lanes.shape[1]] = lanes
                    weight_bytes.append(little(word, 1).tobytes())
    return whole(image + b"".join(start_bytes) + b"".join(weight_bytes))
'''

_PACK_TERNARY = '''\
def weight_bytes(levels):
    """Bytes of the lanes' levels, shape (..., LANES), the first lane in the lowest bits."""
    lowest, base, group = LEVELS
    codes = levels & (1 << WEIGHT_BITS) - 1
    if CODES:
        groups = levels.reshape(*levels.shape[:-1], -1, group) - lowest
        codes = np.array(CODES)[groups @ base ** np.arange(group)]
        if codes.min() < 0:
            raise SystemExit("A weight is none of the circuit's levels; generate it for the model.")
    bits = codes[..., np.newaxis] >> np.arange(WEIGHT_BITS) & 1
    flat = bits.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    return np.packbits(flat, axis=-1, bitorder="little")


def pack(arrays):
    """The image of a mapping of arrays."""
    arrays = check_arrays(arrays)
    image = bytes([int(arrays["cell_exponent"]) + 15])
    image += little(int(arrays["cell_clip"]), 2).tobytes()
    # Where there is no weight of 0, any does.
    filling = 0 if HAS_ZERO else LEVELS[0]
    starts, words = [], []
    for group in range(GROUPS):
        units = slice(group * NEURONS, (group + 1) * NEURONS)
        for row in ROWS:
            part, lanes = row["part"], []
            for gate in row["gates"]:
                multiplier = arrays[part + "_multipliers"][gate, units]
                shift = arrays[part + "_shifts"][gate, units]
                start = arrays["bias"][gate, units] if part == "input" else 0 * shift
                if POWERS_OF_TWO:
                    if not np.isin(multiplier, (0, 1 << 30)).all():
                        raise SystemExit("The multipliers must be 0 or 2^30, as the circuit's are.")
                    scale = little(shift & 0x3F | (multiplier != 0).astype(np.int64) << 6, 1)
                else:
                    scale = np.concatenate([little(multiplier >> 7, 3), little(shift, 1)], axis=1)
                start = np.concatenate([little(start, 4), scale], axis=1)
                starts.append(start.tobytes() + bytes((NEURONS - len(start)) * start.shape[1]))
                padded = np.full((NEURONS, row["beats"] * LANES), filling)
                chosen = arrays[part + "_weights"][gate, units]
                padded[: len(chosen), : chosen.shape[1]] = chosen
                lanes.append(weight_bytes(padded.reshape(NEURONS, row["beats"], LANES)))
            words.append(np.concatenate(lanes).swapaxes(0, 1).tobytes())
    return whole(image + b"".join(starts) + b"".join(words))
'''

_PACKER = '''\
#!/usr/bin/env python3
"""Packs the integers of an LSTM layer into the parameter image of NAME.

    python NAME_pack.py CONSTANTS.npz IMAGE.bin
    python NAME_pack.py --check IMAGE.bin

# ARRAYS

Needs numpy only. Made by the generator for these parameters of the circuit and no others.
"""

import binascii
import sys
import zipfile
import zlib

import numpy as np

# CONSTANTS


def little(values, width):
    """Integers as little-endian bytes, shape (..., width)."""
    words = np.asarray(values).astype("<i8")
    return words[..., np.newaxis].view(np.uint8)[..., :width]


def check_arrays(arrays):
    """Arrays of 64 bits by name, refused unless they are those of FIELDS, within their ranges."""
    for name in sorted(set(FIELDS) | set(TEXTS) | set(arrays)):
        if name not in arrays:
            raise SystemExit(f"Array {name} is missing; the circuit needs it.")
        if name not in FIELDS and name not in TEXTS:
            raise SystemExit(f"Array {name} is none of this circuit's; generate it for the model.")
    for name, text in TEXTS.items():
        if str(arrays[name]) != text:
            raise SystemExit(f"The {name} must be {text}, as the circuit's, not {arrays[name]}.")
    checked = {}
    for name, (shape, low, high) in FIELDS.items():
        array = arrays[name]
        if array.dtype.kind not in "iu" or list(array.shape) != shape:
            raise SystemExit(
                f"Array {name} must be integers of shape {tuple(shape)}, not {array.dtype} of"
                f" shape {array.shape}."
            )
        if array.size and not (low <= array.min() and array.max() <= high):
            raise SystemExit(f"Array {name} must be from {low} to {high}.")
        # A binary32 has 24 bits, of which these are the upper ones of 31.
        if "multiplier" in name and (array % 128).any():
            raise SystemExit(f"Array {name} must hold multiples of 2^7, as binary32 scales give.")
        checked[name] = array.astype(np.int64)
    return checked


def whole(image):
    """The image with its checksum."""
    image += binascii.crc_hqx(image, 0xFFFF).to_bytes(2, "big")
    if len(image) != IMAGE_SIZE:
        raise SystemExit(f"The arrays make {len(image)} bytes, but the circuit takes {IMAGE_SIZE}.")
    return image


# PACK


def check(image):
    """Refuse an image that the circuit would refuse."""
    if len(image) != IMAGE_SIZE:
        raise SystemExit(f"The image must hold {IMAGE_SIZE} bytes, not {len(image)}.")
    if binascii.crc_hqx(image, 0xFFFF):
        raise SystemExit("The image's checksum is wrong; pack it anew.")


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        if sys.argv[1] == "--check":
            with open(sys.argv[2], "rb") as file:
                check(file.read(IMAGE_SIZE + 1))
            print(f"{sys.argv[2]}: whole, {IMAGE_SIZE} bytes")
            return
        # What is no archive at all numpy would read in other ways.
        zipfile.ZipFile(sys.argv[1]).close()
        with np.load(sys.argv[1], allow_pickle=False) as file:
            image = pack(dict(file))
        with open(sys.argv[2], "wb") as file:
            file.write(image)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SystemExit(f"The file can't be used: {error}") from None


if __name__ == "__main__":
    main()
'''
