#!/usr/bin/env python3
"""Packs the integers of an LSTM layer into the parameter image of floatsd8.

    python floatsd8_pack.py CONSTANTS.npz IMAGE.bin
    python floatsd8_pack.py --check IMAGE.bin

CONSTANTS.npz holds the layer's codes, gates in the order of GATES:

    input_weights (gates, HIDDEN, INPUTS), recurrent_weights (gates, HIDDEN, HIDDEN): FloatSD8,
        exponent in bits 7 to 5, sign in bit 4, index of the mantissa in bits 3 to 0
    bias (gates, HIDDEN): binary16
    input_offset: exponent bias of the input weights, plus that of the e5m2 inputs, less 19
    recurrent_offset: exponent bias of the recurrent weights, less 4

Needs numpy only. Made by the generator for these parameters of the circuit and no others.
"""

import binascii
import sys
import zipfile
import zlib

import numpy as np

GATES = ["i", "f", "g", "o"]
LANES = 4
NEURONS = 2
INPUTS = 5
HIDDEN = 7
FIELDS = {
    "input_weights": [[4, 7, 5], 0, 255],
    "recurrent_weights": [[4, 7, 7], 0, 255],
    "bias": [[4, 7], 0, 65535],
    "input_offset": [[], 0, 31],
    "recurrent_offset": [[], 0, 31],
}
TEXTS = {}
GROUPS = 4
ROWS = [
    {"gates": [0, 1], "part": "input", "words": 2, "starts": 1},
    {"gates": [0, 1], "part": "recurrent", "words": 2, "starts": 0},
    {"gates": [2, 3], "part": "input", "words": 2, "starts": 1},
    {"gates": [2, 3], "part": "recurrent", "words": 2, "starts": 0},
]
IMAGE_SIZE = 580


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
