"""Parameters and image sections that the layers of several number systems share."""

from __future__ import annotations

from typing import Any

from fewbit.golden.arithmetic import INT16_RANGE, SIGNIFICAND_POSITION
from fewbit.golden.layer.image import Bits, Field, Records, RecordsPass
from fewbit.golden.lstm.integer_variant import HIGHEST_CELL_EXPONENT, LOWEST_CELL_EXPONENT
from fewbit.golden.parameter import parameter

__all__ = [
    "LARGEST_LAYER",
    "cell_clip_field",
    "cell_exponent_bits",
    "cell_exponent_field",
    "configuration_section",
    "hidden_parameter",
    "inputs_parameter",
    "multipliers_field",
    "neurons_parameter",
    "records",
    "split_bits",
]

LARGEST_LAYER = 4096
"""Largest length of a layer's vectors."""
_BYTE = 8


def inputs_parameter() -> Any:
    """Return the field ``inputs`` of a layer's contract."""
    return parameter(16, "length of the input vector", 1, LARGEST_LAYER)


def hidden_parameter(meaning: str = "cells and hidden values") -> Any:
    """Return the field ``hidden`` of a layer's contract."""
    return parameter(32, meaning, 1, LARGEST_LAYER)


def neurons_parameter() -> Any:
    """Return the field ``neurons`` of a layer's contract."""
    return parameter(1, "hidden units side by side", 1, 16)


def records(name: str, meaning: str, units: int, *passes: RecordsPass) -> Records:
    """Return a section of records, with its words and their bytes counted."""
    words = sum(each.groups * len(each.rows) for each in passes)
    bits = sum(bits.width for bits in passes[0].rows[0])
    return Records(name, words, units * bits // _BYTE, meaning, units, passes)


def configuration_section(bits: tuple[Bits, ...], meaning: str) -> Records:
    """Return the section of one word that the layer keeps in registers."""
    return records("configuration", meaning, 1, RecordsPass(1, (bits,)))


def cell_exponent_field() -> Field:
    """Return the field ``cell_exponent`` of an image."""
    meaning = "the step of the cell is 2^cell_exponent"
    return Field((), LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT, meaning)


def cell_clip_field() -> Field:
    """Return the field ``cell_clip`` of an image."""
    return Field((), 0, INT16_RANGE[1], "the cell saturates to -cell_clip...cell_clip; 0 for none")


def cell_exponent_bits() -> Bits:
    """Return the byte that holds the integer bits of the cell."""
    return Bits(_BYTE, "cell_exponent", add=-LOWEST_CELL_EXPONENT)


def multipliers_field(shape: tuple[int, ...], meaning: str = "") -> Field:
    """Return the field of multipliers, whose 24 significant bits are the upper ones of 31."""
    return Field(shape, 0, (1 << 31) - 1, meaning, 1 << SIGNIFICAND_POSITION)


def split_bits(prefix: str, index: tuple[int, ...] = ()) -> tuple[Bits, Bits]:
    """Return the bits of a split multiplier: its upper 24 bits, then its shift.

    The names of the arrays begin with `prefix`. Those of arrays with axes are in the plural.
    """
    end = "s" if index else ""
    multiplier = f"{prefix}multiplier{end}"
    return (
        Bits(31 - SIGNIFICAND_POSITION, multiplier, index, right=SIGNIFICAND_POSITION),
        Bits(_BYTE, f"{prefix}shift{end}", index),
    )
