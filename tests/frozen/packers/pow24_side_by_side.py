#!/usr/bin/env python3
"""Packs the integers of an LSTM layer into the parameter image of pow24_side_by_side.

    python pow24_side_by_side_pack.py CONSTANTS.npz IMAGE.bin
    python pow24_side_by_side_pack.py --check IMAGE.bin

CONSTANTS.npz holds the layer's integers, gates in the order of GATES:

    input_weights (gates, HIDDEN, INPUTS), recurrent_weights (gates, HIDDEN, HIDDEN): levels
    bias (gates, HIDDEN): what the sums of the input rows start from
    input_multipliers, input_shifts, recurrent_multipliers, recurrent_shifts (gates, HIDDEN):
        a row's scale, from its sum to the gate, is multiplier / 2^31 * 2^shift
    cell_exponent, cell_clip

Needs numpy only. Made by the generator for these parameters of the circuit and no others.
"""

import binascii
import sys
import zipfile
import zlib

import numpy as np

GATES = ["i", "f", "g", "o"]
LANES = 8
NEURONS = 1
INPUTS = 9
HIDDEN = 7
WEIGHT_BITS = 4
LEVELS = [-8, 17, 1]
CODES = [9, -1, -1, -1, 11, -1, 13, 15, 0, 7, 5, -1, 3, -1, -1, -1, 1]
HAS_ZERO = 1
POWERS_OF_TWO = 1
FIELDS = {
    "input_weights": [[4, 7, 9], -8, 8],
    "recurrent_weights": [[4, 7, 7], -8, 8],
    "bias": [[4, 7], -2147483648, 2147483647],
    "input_multipliers": [[4, 7], 0, 2147483647],
    "input_shifts": [[4, 7], -31, 30],
    "recurrent_multipliers": [[4, 7], 0, 2147483647],
    "recurrent_shifts": [[4, 7], -31, 30],
    "cell_exponent": [[], -15, -9],
    "cell_clip": [[], 0, 32767],
}
TEXTS = {
    "activation": "table",
}
GROUPS = 7
ROWS = [
    {"gates": [1, 0, 2, 3], "part": "input", "beats": 2},
    {"gates": [1, 0, 2, 3], "part": "recurrent", "beats": 1},
]
IMAGE_SIZE = 621


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
