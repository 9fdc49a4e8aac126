#!/usr/bin/env python3
"""Packs the integers of an LSTM layer into the parameter image of int8_peephole_projection.

    python int8_peephole_projection_pack.py CONSTANTS.npz IMAGE.bin
    python int8_peephole_projection_pack.py --check IMAGE.bin

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

Needs numpy only. Made by the generator for these parameters of the circuit and no others.
"""

import binascii
import sys
import zipfile
import zlib

import numpy as np

GATES = ["i", "f", "g", "o"]
LANES = 3
NEURONS = 3
INPUTS = 5
HIDDEN = 7
OUTPUTS = 4
SCALES = ["i_input", "i_recurrent", "i_peephole", "f_input", "f_recurrent", "f_peephole", "g_input", "g_recurrent", "o_input", "o_recurrent", "o_peephole", "hidden", "projection"]
FIELDS = {
    "input_weights": [[4, 7, 5], -128, 127],
    "recurrent_weights": [[4, 7, 4], -128, 127],
    "folded_bias": [[4, 2, 7], -2147483648, 2147483647],
    "multipliers": [[4, 2], 0, 2147483647],
    "shifts": [[4, 2], -31, 30],
    "cell_exponent": [[], -15, -9],
    "cell_clip": [[], 0, 32767],
    "hidden_multiplier": [[], 0, 2147483647],
    "hidden_shift": [[], -31, 0],
    "hidden_offset": [[], -128, 128],
    "reset_hidden": [[], -128, 127],
    "peephole_weights": [[3, 7], -32768, 32767],
    "peephole_multipliers": [[3], 0, 2147483647],
    "peephole_shifts": [[3], -31, 30],
    "peephole_ties_up": [[], 0, 7],
    "projection_weights": [[4, 7], -128, 127],
    "projection_bias": [[4], -2147483648, 2147483647],
    "projection_multiplier": [[], 0, 2147483647],
    "projection_shift": [[], -31, 30],
    "projection_offset": [[], -128, 127],
    "projection_clip": [[], 0, 127],
}
TEXTS = {
    "activation": "gemmlowp",
    "rounding": "double",
}
ROWS = [
    {"name": "i_input", "part": "input", "beats": 2, "groups": 3, "phase": 0},
    {"name": "i_recurrent", "part": "recurrent", "beats": 2, "groups": 3, "phase": 0},
    {"name": "i_peephole", "part": "none", "beats": 1, "groups": 3, "phase": 0},
    {"name": "f_input", "part": "input", "beats": 2, "groups": 3, "phase": 0},
    {"name": "f_recurrent", "part": "recurrent", "beats": 2, "groups": 3, "phase": 0},
    {"name": "f_peephole", "part": "none", "beats": 1, "groups": 3, "phase": 0},
    {"name": "g_input", "part": "input", "beats": 2, "groups": 3, "phase": 0},
    {"name": "g_recurrent", "part": "recurrent", "beats": 2, "groups": 3, "phase": 0},
    {"name": "o_input", "part": "input", "beats": 2, "groups": 3, "phase": 0},
    {"name": "o_recurrent", "part": "recurrent", "beats": 2, "groups": 3, "phase": 0},
    {"name": "o_peephole", "part": "none", "beats": 1, "groups": 3, "phase": 0},
    {"name": "projection", "part": "inner", "beats": 3, "groups": 2, "phase": 1},
]
IMAGE_SIZE = 968


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
