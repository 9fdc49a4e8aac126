#!/usr/bin/env python3
"""The image of an LSTM layer: all its constants as bytes, packed by a plan.

    python DESIGN_pack.py CONSTANTS.npz IMAGE.bin     packs the arrays into an image
    python DESIGN_pack.py --check IMAGE.bin           says whether an image is whole
    python DESIGN_pack.py                             lists the arrays

A plan is data: it describes the arrays of integers that a layer has, and the sections of its image.
The words of the image are in the order in which the circuit needs them. The last two bytes are a
checksum. Numbers are little-endian, two's complement where signed; only the checksum is big-endian,
as its algorithm wants it.

This is one module, long as it is, because it is handed out: it needs Python 3.10 and numpy 1.21, or
newer versions, and nothing else. A generated layer
has a copy of it, DESIGN_pack.py, with that layer's plan, as JSON, in the comment at its end.
"""

from __future__ import annotations

import binascii
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

__all__ = [
    "CHECKSUM_BYTES",
    "Bits",
    "Codes",
    "Field",
    "Fold",
    "ImageError",
    "Matrix",
    "Plan",
    "Records",
    "RecordsPass",
    "Section",
    "Slice",
    "Weights",
    "WeightsPass",
    "WeightsRow",
    "as_bytes",
    "check_arrays",
    "check_image",
    "checksum",
    "integers",
    "main",
    "pack",
    "plan_in",
    "program",
    "unpack",
]

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[Any]
"""An array of int16 or int64."""
Arrays = Mapping[str, npt.NDArray[Any]]

CHECKSUM_BYTES = 2
_BYTE = 8
_BLOCK = 1 << 18
"""Number of weights that are packed at a time, which bounds the memory that packing needs."""
_MARK = "# PLAN: "
_CONTINUED = "# "
_LONGEST_SENTENCE = 400


class ImageError(ValueError):
    """An image, or an array for one, that the circuit cannot take."""


# The plan.


@dataclass(frozen=True)
class Field:
    """A description of one array of integers that an image holds.

    Parameters
    ----------
    shape
        Lengths of the array's axes.
    low, high
        Lowest and highest number in the array.
    meaning
        Meaning of the array, in words.
    multiple
        A power of two that divides all numbers.
    """

    shape: tuple[int, ...]
    low: int
    high: int
    meaning: str = ""
    multiple: int = 1


@dataclass(frozen=True)
class Bits:
    """Neighbouring bits of a word, which hold a number of an array, or zeros.

    Parameters
    ----------
    width
        Number of bits.
    array, index
        The number is ``array[index]``. If that is a single number, all units have it; if one axis
        is left, each unit has its own number along it. With no array the bits are 0.
    right
        Number of low bits to drop by a shift to the right; they are always 0.
    add
        Number to add after the shift.
    counts
        Whether the number is a count of units: the bits are 1 for so many first units, else 0.
    """

    width: int
    array: str = ""
    index: tuple[int, ...] = ()
    right: int = 0
    add: int = 0
    counts: bool = False


@dataclass(frozen=True)
class RecordsPass:
    """Words for all units, one group of neighbouring units after the other.

    Parameters
    ----------
    groups
        Number of groups.
    rows
        For each word of a group, the bits of one unit, the lowest first.
    """

    groups: int
    rows: tuple[tuple[Bits, ...], ...]


@dataclass(frozen=True)
class Section:
    """A section of the image: words of one kind.

    Parameters
    ----------
    name
        Name of the memory or the registers that hold the section.
    words
        Number of words.
    word_bytes
        Bytes of each word.
    meaning
        Meaning of a word of the section, as a text.
    """

    name: str
    words: int
    word_bytes: int
    meaning: str

    @property
    def size(self) -> int:
        """Return the number of bytes of the section."""
        return self.words * self.word_bytes


@dataclass(frozen=True)
class Records(Section):
    """A section whose words hold whole numbers side by side.

    Parameters
    ----------
    units
        Number of units in a group, side by side in a word. A place beyond the last unit holds 0,
        except for numbers that all units share.
    passes
        Parts of the section, one after the other.
    """

    units: int
    passes: tuple[RecordsPass, ...]


@dataclass(frozen=True)
class Matrix:
    """A matrix of weights: ``array[index]``, of shape (units, operands)."""

    array: str
    index: tuple[int, ...] = ()


@dataclass(frozen=True)
class WeightsRow:
    """A row of the schedule for each unit, or several that are added together.

    Parameters
    ----------
    beats
        Number of words that the weights of one matrix take for a unit.
    matrices
        The weight matrix of each sum.
    """

    beats: int
    matrices: tuple[Matrix, ...]


@dataclass(frozen=True)
class WeightsPass:
    """Rows for all units, one group of neighbouring units after the other."""

    groups: int
    rows: tuple[WeightsRow, ...]


@dataclass(frozen=True)
class Codes:
    """The code by which weights are stored.

    Parameters
    ----------
    width
        Bits of a code.
    padding
        The weight that fills the places of a word beyond the end of a row.
    flip
        Mask of bits to invert. Without `levels` a code is the weight's low bits with these
        inverted.
    levels
        The weights that each code stands for, the same number for every code; empty if a code is
        the low bits of one weight.
    unwritten
        Codes that are never written, because other codes stand for the same weights.
    """

    width: int
    padding: int = 0
    flip: int = 0
    levels: tuple[tuple[int, ...], ...] = ()
    unwritten: tuple[int, ...] = ()

    @property
    def group(self) -> int:
        """Return the number of weights in a code."""
        return len(self.levels[0]) if self.levels else 1


@dataclass(frozen=True)
class Slice:
    """A part of every code, for weights that several memories share.

    Parameters
    ----------
    width
        Bits of the part.
    places
        Lowest bit of the part in words 0, 1 and so on; the list repeats.
    beat
        Word n holds codes of beat ``n ^ beat``. The number of words is a multiple of the number of
        places.
    """

    width: int
    places: tuple[int, ...]
    beat: int = 0


@dataclass(frozen=True)
class Weights(Section):
    """A section whose words hold the weights of the lanes, a word for each cycle.

    Parameters
    ----------
    units
        Number of units in a group, side by side in a word.
    lanes
        Number of weights of a unit in a word.
    passes
        Parts of the section, one after the other. A row of several matrices has words of each
        matrix in turn, or words that `at_once` matrices share.
    codes
        The code of a weight.
    at_once
        Number of matrices that share a word.
    slice
        The part of the codes that this section holds; None for whole codes.
    """

    units: int
    lanes: int
    passes: tuple[WeightsPass, ...]
    codes: Codes
    at_once: int = 1
    slice: Slice | None = None

    @staticmethod
    def of(
        name: str,
        meaning: str,
        units: int,
        lanes: int,
        passes: tuple[WeightsPass, ...],
        codes: Codes,
        at_once: int = 1,
        slice: Slice | None = None,
    ) -> Weights:
        """Make the section and count its words."""
        words = sum(
            each.groups * row.beats * len(row.matrices) // at_once
            for each in passes
            for row in each.rows
        )
        width = codes.width if slice is None else slice.width
        if slice is not None:
            words += -words % len(slice.places)
        bits = units * at_once * lanes // codes.group * width
        return Weights(
            name, words, -(-bits // _BYTE), meaning, units, lanes, passes, codes, at_once, slice
        )


@dataclass(frozen=True)
class Fold:
    """A relation that the circuit relies on when a sequence starts: some sums are 0 then.

    The array ``starts[:, part]`` must be minus the number `raw` times the sums of the rows of
    `weights`, modulo 2^32.
    """

    starts: str
    part: int
    raw: str
    weights: str


@dataclass(frozen=True)
class Plan:
    """The plan of a layer's image: its arrays, and the layout of its sections.

    Parameters
    ----------
    fields
        The arrays of integers by name.
    sections
        The sections of the image, one after the other.
    texts
        Texts by name that the constants must have, too, such as the activation of the circuit.
    folds
        Relations among the arrays that the circuit relies on.
    """

    fields: Mapping[str, Field]
    sections: tuple[Records | Weights, ...]
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    folds: tuple[Fold, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a plan whose image would not hold all of the arrays.

        Raises
        ------
        ValueError
            If the plan has a fault; the sentence says which.
        """
        _check_plan(self)

    @property
    def size(self) -> int:
        """Return the number of bytes of the image, with its checksum."""
        return sum(section.size for section in self.sections) + CHECKSUM_BYTES

    def offset(self, name: str) -> int:
        """Return the first byte of a section, or with "checksum" that of the checksum."""
        offset = 0
        for section in self.sections:
            if section.name == name:
                return offset
            offset += section.size
        if name != "checksum":
            raise KeyError(name)
        return offset

    def split(self, image: bytes) -> dict[str, Bytes]:
        """Return the bytes of each section by name, shape (words, bytes of a word).

        Raises
        ------
        ImageError
            If the image has a wrong size or checksum.
        """
        check_image(self, image)
        flat = np.frombuffer(image, np.uint8)
        contents: dict[str, Bytes] = {}
        for section in self.sections:
            start = self.offset(section.name)
            words = flat[start : start + section.size]
            contents[section.name] = words.reshape(section.words, section.word_bytes)
        return contents


def _check_plan(plan: Plan) -> None:
    names = [section.name for section in plan.sections]
    if len(set(names)) < len(names):
        raise ValueError(f"The sections of a plan must have names of their own, not {names}.")
    stored: set[tuple[str, tuple[int, ...]]] = set()
    for section in plan.sections:
        if isinstance(section, Records):
            stored |= _checked_records(plan, section)
        else:
            stored |= _checked_weights(plan, section)
    for name, each in plan.fields.items():
        if each.low > each.high:
            raise ValueError(f"Field {name} must not begin at {each.low} and end at {each.high}.")
        # A section may hold the whole array, or one entry of its first axes.
        found = {index for array, index in stored if array == name}
        for index in np.ndindex(*each.shape[: max(map(len, found), default=0)]):
            if not any(index[: len(part)] == part for part in found):
                raise ValueError(f"No section of the plan holds {name}{list(index)}.")
        if not found:
            raise ValueError(f"No section of the plan holds the field {name}.")


def _checked_records(plan: Plan, section: Records) -> set[tuple[str, tuple[int, ...]]]:
    stored: set[tuple[str, tuple[int, ...]]] = set()
    for each in section.passes:
        for row in each.rows:
            width = section.units * sum(bits.width for bits in row)
            if width != _BYTE * section.word_bytes:
                raise ValueError(
                    f"A word of section {section.name} must have {_BYTE * section.word_bytes} bits,"
                    f" not {width}."
                )
            for bits in row:
                if not bits.array:
                    continue
                stored.add((bits.array, bits.index))
                found, rest = _axes_left(plan, section, bits.array, bits.index, most=1)
                if rest and rest[0] > each.groups * section.units:
                    raise ValueError(
                        f"Section {section.name} has words for {each.groups * section.units} units,"
                        f" but {bits.array} has {rest[0]}."
                    )
                low, high = ((end >> bits.right) + bits.add for end in (found.low, found.high))
                # Two's complement where the number may be below 0.
                least = -(1 << bits.width - 1) if low < 0 else 0
                most = least + (1 << bits.width) - 1
                if not bits.counts and not (least <= low and high <= most):
                    raise ValueError(
                        f"{bits.width} bits of section {section.name} can't hold {bits.array},"
                        f" which is from {found.low} to {found.high}."
                    )
    return stored


def _checked_weights(plan: Plan, section: Weights) -> set[tuple[str, tuple[int, ...]]]:
    stored: set[tuple[str, tuple[int, ...]]] = set()
    codes = section.codes
    for each in section.passes:
        for row in each.rows:
            for matrix in row.matrices:
                stored.add((matrix.array, matrix.index))
                found, rest = _axes_left(plan, section, matrix.array, matrix.index, most=2)
                room = each.groups * section.units, row.beats * section.lanes
                if len(rest) != 2 or rest[0] > room[0] or rest[1] > room[1]:
                    raise ValueError(
                        f"Section {section.name} has room for {room[0]} units of {room[1]} weights,"
                        f" but {matrix.array} has the shape {rest}."
                    )
                ends = found.low, found.high
                if codes.levels:
                    levels = {level for group in codes.levels for level in group}
                    fits = set(ends) <= levels
                else:
                    fits = found.high - found.low < 1 << codes.width
                if not fits:
                    raise ValueError(
                        f"{codes.width} bits of section {section.name} can't hold {matrix.array},"
                        f" which is from {found.low} to {found.high}."
                    )
    return stored


def _axes_left(
    plan: Plan, section: Section, array: str, index: tuple[int, ...], most: int
) -> tuple[Field, tuple[int, ...]]:
    """Return the field of an array, and the lengths of the axes that an index leaves."""
    if array not in plan.fields:
        raise ValueError(f"Section {section.name} holds {array}, which is no field of the plan.")
    found = plan.fields[array]
    inside = len(index) <= len(found.shape) and all(
        0 <= place < length for place, length in zip(index, found.shape, strict=False)
    )
    rest = found.shape[len(index) :]
    if not inside or len(rest) > most:
        raise ValueError(
            f"Section {section.name} holds {array}{list(index)}, but the field's shape is"
            f" {found.shape}."
        )
    return found, rest


def as_json(plan: Plan) -> str:
    """Return the plan as JSON text, with a line for each array and section."""
    entries = {
        "fields": {name: _plain(each) for name, each in plan.fields.items()},
        "texts": dict(plan.texts),
        "folds": [_plain(fold) for fold in plan.folds],
        "sections": [_plain(section) for section in plan.sections],
    }
    lines: list[str] = []
    for key, entry in entries.items():
        if isinstance(entry, dict):
            inner = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in entry.items()]
        else:
            inner = [json.dumps(each) for each in entry]
        opening, closing = "{}" if isinstance(entry, dict) else "[]"
        lines.append(f"{json.dumps(key)}: {opening}" + ",\n".join(["", *inner])[1:] + closing)
    return "{" + ",\n".join(lines) + "}"


def _plain(value: Any) -> Any:
    """Return dataclasses as mappings of the values that differ from defaults, tuples as lists."""
    if is_dataclass(value):
        named = {each.name: (getattr(value, each.name), each.default) for each in fields(value)}
        return {
            name: _plain(own)
            for name, (own, default) in named.items()
            if default is MISSING or own != default
        }
    if isinstance(value, tuple):
        return [_plain(each) for each in cast("tuple[Any, ...]", value)]
    return value


def from_json(text: str) -> Plan:
    """Return the plan that JSON text describes."""
    found = json.loads(text)
    return Plan(
        {name: Field(**_tuples(entry)) for name, entry in found["fields"].items()},
        tuple(_section(entry) for entry in found["sections"]),
        found["texts"],
        tuple(Fold(**entry) for entry in found["folds"]),
    )


def _section(entry: dict[str, Any]) -> Records | Weights:
    rest = {key: value for key, value in entry.items() if key not in {"passes", "codes", "slice"}}
    if "codes" not in entry:
        return Records(
            **rest,
            passes=tuple(
                RecordsPass(
                    each["groups"],
                    tuple(tuple(Bits(**_tuples(bits)) for bits in row) for row in each["rows"]),
                )
                for each in entry["passes"]
            ),
        )
    return Weights(
        **rest,
        passes=tuple(
            WeightsPass(
                each["groups"],
                tuple(
                    WeightsRow(
                        row["beats"],
                        tuple(Matrix(**_tuples(matrix)) for matrix in row["matrices"]),
                    )
                    for row in each["rows"]
                ),
            )
            for each in entry["passes"]
        ),
        codes=Codes(**_tuples(entry["codes"])),
        slice=Slice(**_tuples(entry["slice"])) if "slice" in entry else None,
    )


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping with tuples in place of lists, at any depth."""

    def made(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return tuple(made(each) for each in cast("list[Any]", value))

    return {key: made(value) for key, value in entry.items()}


# Bytes.


def checksum(body: bytes) -> bytes:
    """Return the CRC-16 of bytes: polynomial 0x1021, start 0xFFFF, highest bit first.

    There is no final inversion. The CRC of a body that its checksum follows is 0.
    """
    return binascii.crc_hqx(body, 0xFFFF).to_bytes(CHECKSUM_BYTES, "big")


def as_bytes(values: npt.ArrayLike, width: int) -> Bytes:
    """Return integers as little-endian bytes: shape (...) to (..., width)."""
    words = np.asarray(values, np.int64)[..., np.newaxis] >> (8 * np.arange(width, dtype=np.int64))
    return (words & 0xFF).astype(np.uint8)


def integers(content: Bytes, *, signed: bool = True) -> Integers:
    """Return the integers of little-endian bytes: shape (..., width) to (...)."""
    width = content.shape[-1]
    weights = np.int64(1) << (8 * np.arange(width, dtype=np.int64))
    value = (content.astype(np.int64) * weights).sum(axis=-1)
    return _signed(value, 8 * width) if signed else value


def _signed(codes: Integers, width: int) -> Integers:
    sign = np.int64(1) << (width - 1)
    return (codes ^ sign) - sign


def _joined(codes: Integers, width: int) -> Bytes:
    """Return codes of `width` bits packed side by side, shape (..., count) to (..., bytes)."""
    if width == _BYTE:
        return codes.astype(np.uint8)
    bits = (codes[..., np.newaxis] >> np.arange(width) & 1).astype(np.uint8)
    return np.packbits(bits.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def _parted(content: Bytes, width: int, count: int) -> Integers:
    """Return the codes that bytes hold, the inverse of `_joined`."""
    if width == _BYTE:
        return content.astype(np.int64)
    bits = np.unpackbits(content, axis=-1, bitorder="little")[..., : count * width]
    return _of_bits(bits.reshape(*content.shape[:-1], count, width))


def _of_bits(bits: npt.NDArray[np.uint8]) -> Integers:
    """Return the numbers of their bits, shape (..., width) to (...), the lowest bit first."""
    return (bits.astype(np.int64) << np.arange(bits.shape[-1], dtype=np.int64)).sum(axis=-1)


def _kind_of(each: Field) -> type[np.int16] | type[np.int64]:
    """Return the type for an array's numbers: short for weights, which are most of an image."""
    return np.int16 if each.low >= -(1 << 15) and each.high < 1 << 15 else np.int64


# Packing.


def pack(plan: Plan, arrays: Arrays) -> bytes:
    """Return the image that holds arrays of integers.

    Raises
    ------
    ImageError
        If an array is missing, unknown, of another shape, or holds a number out of its range.
    """
    checked = check_arrays(plan, arrays)
    body = b"".join(
        (
            _packed_records(section, checked)
            if isinstance(section, Records)
            else _packed_weights(section, checked)
        ).tobytes()
        for section in plan.sections
    )
    return body + checksum(body)


def check_arrays(plan: Plan, arrays: Arrays) -> dict[str, Integers]:
    """Check the arrays of `Plan.fields`, and return them as integers of 16 or 64 bits.

    Raises
    ------
    ImageError
        If an array is missing, unknown, of another shape, or holds a number out of its range.
    """
    for name in sorted(set(plan.fields) | set(plan.texts) | set(arrays)):
        if name not in arrays:
            raise ImageError(f"Array {name} is missing; the circuit needs it.")
        if name not in plan.fields and name not in plan.texts:
            raise ImageError(f"Array {name} is none of this circuit's; generate it for the model.")
    for name, text in plan.texts.items():
        if str(arrays[name]) != text:
            raise ImageError(f"The {name} must be {text}, as the circuit's, not {arrays[name]}.")
    checked: dict[str, Integers] = {}
    for name, wanted in plan.fields.items():
        array = np.asarray(arrays[name])
        if array.dtype.kind not in "iu" or array.shape != wanted.shape:
            raise ImageError(
                f"Array {name} must be integers of shape {wanted.shape}, not {array.dtype} of"
                f" shape {array.shape}."
            )
        if array.size and not (wanted.low <= array.min() and array.max() <= wanted.high):
            raise ImageError(f"Array {name} must be from {wanted.low} to {wanted.high}.")
        checked[name] = array.astype(_kind_of(wanted), copy=False)
        if wanted.multiple > 1 and (checked[name] & (wanted.multiple - 1)).any():
            power = wanted.multiple.bit_length() - 1
            raise ImageError(f"Array {name} must hold multiples of 2^{power}.")
    for fold in plan.folds:
        row_sums = checked[fold.weights].sum(axis=-1, dtype=np.int64)
        wanted_starts = -int(checked[fold.raw]) * row_sums
        if ((wanted_starts - checked[fold.starts][:, fold.part]) % 2**32).any():
            raise ImageError(
                f"Array {fold.starts} must hold, in part {fold.part}, minus {fold.raw} times the"
                f" sum of each row of {fold.weights}; compute it from the model."
            )
    return checked


def _packed_records(section: Records, arrays: Mapping[str, Integers]) -> Bytes:
    parts: list[Bytes] = []
    for each in section.passes:
        # Shape (groups, units, bits), row by row.
        rows = [
            np.concatenate(
                [_bits_of(bits, arrays, each.groups, section.units) for bits in row], axis=2
            )
            for row in each.rows
        ]
        words = np.stack([row.reshape(each.groups, -1) for row in rows], axis=1)
        parts.append(np.packbits(words, axis=2, bitorder="little").reshape(-1))
    return np.concatenate(parts)


def _bits_of(bits: Bits, arrays: Mapping[str, Integers], groups: int, units: int) -> Bytes:
    """Return the bits of a number for all units, shape (groups, units, width)."""
    count = groups * units
    if not bits.array:
        return np.zeros((groups, units, bits.width), np.uint8)
    number = arrays[bits.array][bits.index].astype(np.int64)
    if bits.counts:
        stored = (np.arange(count) < number).astype(np.int64)
    else:
        stored = (number >> bits.right) + bits.add
        if not stored.ndim:
            stored = np.full(count, stored)
    flat = (stored[:, np.newaxis] >> np.arange(bits.width) & 1).astype(np.uint8)
    padded = np.zeros((count, bits.width), np.uint8)
    padded[: len(flat)] = flat
    return padded.reshape(groups, units, bits.width)


def _packed_weights(section: Weights, arrays: Mapping[str, Integers]) -> Bytes:
    if section.slice is None:
        width = section.codes.width
        return np.concatenate([_joined(codes, width) for codes in _codes(section, arrays)])
    part = section.slice
    parts = list(_codes(section, arrays))
    count = sum(map(len, parts))
    codes = np.concatenate([*parts, np.zeros((section.words - count, parts[0].shape[1]), np.int8)])
    number = np.arange(section.words)
    places = np.array(part.places, codes.dtype)[number % len(part.places)]
    sliced = codes[number ^ part.beat] >> places[:, np.newaxis] & (1 << part.width) - 1
    return _joined(sliced, part.width)


def _codes(section: Weights, arrays: Mapping[str, Integers]) -> Iterator[Integers]:
    """Yield the codes of a section's words in order, shape (words, codes), block by block."""
    for each in section.passes:
        for groups in _blocks(section, each):
            rows: list[Integers] = []
            for row in each.rows:
                stacked = np.stack(
                    [
                        _padded(arrays[matrix.array][matrix.index], section, groups, row.beats)
                        for matrix in row.matrices
                    ],
                    axis=2,
                )
                rows.append(stacked.reshape(len(groups), -1))
            weights = np.concatenate(rows, axis=1)
            words = weights.reshape(-1, section.units * section.at_once * section.lanes)
            yield _encoded(words, section.codes)


def _blocks(section: Weights, each: WeightsPass) -> Iterator[range]:
    """Yield the numbers of a pass's groups in blocks that hold few weights each."""
    of_group = (
        section.units * section.lanes * sum(row.beats * len(row.matrices) for row in each.rows)
    )
    step = max(1, _BLOCK // max(1, of_group))
    for first in range(0, each.groups, step):
        yield range(first, min(first + step, each.groups))


def _padded(weights: Integers, section: Weights, groups: range, beats: int) -> Integers:
    """Return weights (units, operands) of groups as (groups, beats, units of a group, lanes)."""
    units = section.units
    own = weights[groups.start * units : groups.stop * units]
    whole = np.full((len(groups) * units, beats * section.lanes), section.codes.padding, own.dtype)
    whole[: own.shape[0], : own.shape[1]] = own
    return whole.reshape(len(groups), units, beats, section.lanes).swapaxes(1, 2)


def _encoded(weights: Integers, codes: Codes) -> Integers:
    """Return the codes of rows of weights, shape (words, weights) to (words, codes)."""
    if not codes.levels:
        return (weights ^ codes.flip) & (1 << codes.width) - 1
    levels = np.array(codes.levels)
    lowest, base = int(levels.min()), int(levels.max() - levels.min()) + 1
    places = base ** np.arange(codes.group)
    table = np.full(base**codes.group, -1, np.int16)
    written = np.setdiff1d(np.arange(len(levels)), codes.unwritten)
    table[(levels[written] - lowest) @ places] = written
    encoded = table[(weights.reshape(len(weights), -1, codes.group) - lowest) @ places]
    if encoded.size and encoded.min() < 0:
        raise ImageError("A weight is none of the circuit's levels; generate it for the model.")
    return encoded


# Unpacking.


def unpack(plan: Plan, image: bytes) -> dict[str, Integers]:
    """Return the arrays that an image holds, the inverse of `pack`, without the texts.

    Raises
    ------
    ImageError
        If the image has a wrong size or checksum.
    """
    contents = plan.split(image)
    arrays = {name: np.zeros(each.shape, _kind_of(each)) for name, each in plan.fields.items()}
    counted: set[str] = set()
    for section in plan.sections:
        if isinstance(section, Records):
            _take_records(section, contents[section.name], plan, arrays, counted)
    weights = [section for section in plan.sections if isinstance(section, Weights)]
    if weights:
        parts = [(section, contents[section.name]) for section in weights]
        _take_weights(parts, plan, arrays)
    return arrays


def _take_records(
    section: Records,
    content: Bytes,
    plan: Plan,
    arrays: dict[str, Integers],
    counted: set[str],
) -> None:
    word = 0
    for each in section.passes:
        words = content[word : word + each.groups * len(each.rows)]
        word += len(words)
        bits_of_words = np.unpackbits(words, axis=1, bitorder="little")
        for number, row in enumerate(each.rows):
            width = sum(bits.width for bits in row)
            own = bits_of_words[number :: len(each.rows), : section.units * width]
            # Shape (units, bits).
            units = own.reshape(-1, width)
            place = 0
            for bits in row:
                stored = _of_bits(units[:, place : place + bits.width])
                place += bits.width
                if bits.counts:
                    # Several rows may hold the same count, which is read once.
                    if bits.array not in counted:
                        arrays[bits.array][bits.index] = stored.sum()
                        counted.add(bits.array)
                elif bits.array:
                    low = (plan.fields[bits.array].low >> bits.right) + bits.add
                    number_of = _signed(stored, bits.width) if low < 0 else stored
                    value = (number_of - bits.add) << bits.right
                    target = arrays[bits.array]
                    if target[bits.index].ndim:
                        target[bits.index] = value[: target.shape[-1]]
                    else:
                        target[bits.index] = value[0]


def _codes_of(parts: list[tuple[Weights, Bytes]], words: range) -> Integers:
    """Return the codes of words, shape (words, codes), from all sections with slices of them."""
    codes = np.zeros(0, np.int64)
    for section, content in parts:
        count = section.units * section.at_once * section.lanes // section.codes.group
        part = section.slice
        if part is None:
            return _parted(content[words.start : words.stop], section.codes.width, count)
        number = np.arange(words.start, words.stop) ^ part.beat
        places = np.array(part.places)[number % len(part.places)]
        sliced = _parted(content[number], part.width, count) << places[:, np.newaxis]
        codes = codes | sliced if codes.size else sliced
    return codes


def _take_weights(
    parts: list[tuple[Weights, Bytes]], plan: Plan, arrays: dict[str, Integers]
) -> None:
    section = parts[0][0]
    word = 0
    for each in section.passes:
        counts = [row.beats * len(row.matrices) // section.at_once for row in each.rows]
        for groups in _blocks(section, each):
            words = range(word, word + len(groups) * sum(counts))
            word = words.stop
            weights = _decoded(_codes_of(parts, words), section.codes)
            by_group = weights.reshape(len(groups), sum(counts), -1)
            first = 0
            for row, count in zip(each.rows, counts, strict=True):
                shape = len(groups), row.beats, len(row.matrices), section.units, section.lanes
                whole = by_group[:, first : first + count].reshape(shape)
                first += count
                for number, matrix in enumerate(row.matrices):
                    # Shape (groups, units, beats, lanes), then (units, operands).
                    own = whole[:, :, number].swapaxes(1, 2)
                    flat = own.reshape(len(groups) * section.units, row.beats * section.lanes)
                    target = arrays[matrix.array][matrix.index]
                    rows = target[groups.start * section.units : groups.stop * section.units]
                    taken = flat[: rows.shape[0], : rows.shape[1]]
                    if not section.codes.levels and plan.fields[matrix.array].low < 0:
                        taken = _signed(taken, section.codes.width)
                    rows[:] = taken


def _decoded(codes: Integers, how: Codes) -> Integers:
    """Return the weights of codes, shape (words, codes) to (words, weights), or their low bits."""
    if not how.levels:
        return codes ^ how.flip
    return np.array(how.levels)[codes].reshape(len(codes), -1)


# The program.


def check_image(plan: Plan, image: bytes) -> None:
    """Refuse an image that the circuit would refuse, too.

    Raises
    ------
    ImageError
        If the image has a wrong size or checksum.
    """
    if len(image) != plan.size:
        raise ImageError(
            f"The image must hold {plan.size} bytes, not {len(image)}; it belongs to"
            " a layer of other parameters, or is cut."
        )
    body, found = image[:-CHECKSUM_BYTES], image[-CHECKSUM_BYTES:]
    if checksum(body) != found:
        raise ImageError(
            f"The image's checksum must be {checksum(body).hex()}, not"
            f" {found.hex()}; the image is broken, make it anew."
        )


def program(plan: Plan) -> str:
    """Return the text of a program that packs by a plan: this file, with the plan at its end."""
    source = Path(__file__).read_text(encoding="utf-8")
    lines = as_json(plan).splitlines()
    return source + _MARK + f"\n{_CONTINUED}".join(lines) + "\n"


def plan_in(source: str) -> Plan:
    """Return the plan at the end of such a program's text.

    Raises
    ------
    ImageError
        If the text holds no plan.
    """
    lines = source.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(_MARK)]
    if not starts:
        raise ImageError("This file holds no plan; run the DESIGN_pack.py beside a layer.")
    text = lines[starts[-1]].removeprefix(_MARK)
    rest = (line.removeprefix(_CONTINUED) for line in lines[starts[-1] + 1 :])
    return from_json("\n".join([text, *rest]))


def _listed(plan: Plan) -> Iterator[str]:
    """Yield lines that name every array of a plan."""
    yield "The arrays of integers, by name in an .npz archive:"
    for name, each in plan.fields.items():
        shape = f"({', '.join(map(str, each.shape))})" if each.shape else "a number"
        yield f"  {name}: {shape}, {each.low} to {each.high}"
        if each.meaning:
            yield f"      {each.meaning}"
    for name, text in plan.texts.items():
        yield f"  {name}: the text {text}"


def main(arguments: list[str] | None = None, write: Callable[[str], object] = print) -> int:
    """Run as a program and return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        plan = plan_in(Path(__file__).read_text(encoding="utf-8"))
        if len(words) != 2:
            write("\n".join([(__doc__ or "").split("\n\nA plan")[0], "", *_listed(plan)]))
            return 0 if not words else 2
        if words[0] == "--check":
            with Path(words[1]).open("rb") as stream:
                check_image(plan, stream.read(plan.size + 1))
            write(f"{words[1]}: whole, {plan.size} bytes")
            return 0
        _replace(Path(words[1]), pack(plan, _archive(words[0])))
    except ImageError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"The file can't be used: {error}")
    return 0


def _archive(path: str) -> dict[str, npt.NDArray[Any]]:
    try:
        # numpy would read a file that is no archive in another way.
        zipfile.ZipFile(path).close()
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except OSError:
        raise
    except (Exception, MemoryError) as error:
        # A damaged or malicious archive may raise any exception.
        raise ImageError(f"The file can't be used: {error or type(error).__name__}") from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside `path`, then rename it, so that `path` is never half written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _refuse(sentence: str) -> int:
    """Print one line of bounded length for a sentence that may quote a file from any source."""
    plain = "".join(letter if letter.isprintable() else " " for letter in sentence)
    print(plain[:_LONGEST_SENTENCE], file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
