"""The packets that a layer takes and gives on its AXI4-Streams: bytes, the last one marked.

Every packet has a kind (TDEST). One is done before the next has any effect, so a program for the
circuit is the order of its packets, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.formats import FixedPoint
from fewbit.golden.operands import FLAG, Operand

if TYPE_CHECKING:
    from fewbit.golden.contract import Arrays, Codes

__all__ = [
    "HANDSHAKES",
    "OPERANDS",
    "PASSES_SIZE",
    "RESULTS",
    "Kind",
    "Packet",
    "Reply",
    "Status",
    "value_bytes",
]

BYTE = FixedPoint(8, signed=False)
DESTINATION = FixedPoint(2, signed=False)

OPERANDS = (
    Operand("s_axis_tdata", BYTE, "byte of the packet"),
    Operand("s_axis_tlast", FLAG, "last byte of the packet"),
    Operand(
        "s_axis_tdest",
        DESTINATION,
        "kind of packet: 0 input vector, 1 image, 2 state to load, 3 state wanted",
    ),
    Operand(
        "s_axis_tuser",
        FLAG,
        "with the last byte of an input vector: it starts a sequence, the state is reset before it",
    ),
)

RESULTS = (
    Operand("m_axis_tdata", BYTE, "byte of the packet"),
    Operand("m_axis_tlast", FLAG, "last byte of the packet"),
    Operand(
        "m_axis_tdest", DESTINATION, "kind of packet: 0 hidden vector, 1 state asked for, 2 status"
    ),
)

HANDSHAKES = {
    "i": ("s_axis_tvalid", "s_axis_tready"),
    "o": ("m_axis_tvalid", "m_axis_tready"),
}
"""Names of valid and ready of the two streams."""


PASSES_SIZE = 8
"""Bytes of a packet of passes: HIGH, then LOW ones."""


class Kind(IntEnum):
    """TDEST of a packet that the layer takes."""

    INPUT = 0
    """A vector of inputs; answered by the new hidden vector."""
    IMAGE = 1
    """A image; answered by a status. The state is that at reset afterwards."""
    LOAD_STATE = 2
    """Hidden vector and cells; takes effect without an answer."""
    SAVE_STATE = 3
    """One byte of any value; answered by hidden vector and cells, as LOAD_STATE takes them."""


class Reply(IntEnum):
    """TDEST of a packet that the layer gives."""

    HIDDEN = 0
    STATE = 1
    STATUS = 2
    PASSES = 3
    """Behind a state that was asked for, from layers that count passes."""


class Status(IntEnum):
    """The byte of a status packet."""

    LOADED = 0
    """The image is whole, and its checksum right."""
    BROKEN_IMAGE = 1
    """The image's checksum is wrong; no parameters are loaded now."""
    WRONG_LENGTH = 2
    """The packet had too few bytes or too many. An input vector had no effect; after an image no
    parameters are loaded; after a state to load the state is that at reset."""
    NO_IMAGE = 3
    """The packet needs parameters, and none are loaded; it had no effect."""
    IMAGE_INSIDE = 4
    """The layer was generated with its parameters; the image had no effect."""


@dataclass(frozen=True)
class Packet:
    """A packet that the layer takes or gives."""

    kind: int
    data: bytes
    starts: bool = False
    """An input vector that starts a sequence."""


def value_bytes(width: int) -> int:
    """Bytes of a value of so many bits in a packet, low byte first, its sign extended."""
    return 1 if width <= BYTE.width else 2


def beats(packets: Iterable[Packet]) -> dict[str, Codes]:
    """Operand arrays of packets, a row a byte.

    Raises
    ------
    ValueError
        If a packet is empty, which a stream can't express.
    """
    return {f"s_axis_{name}": array for name, array in _rows(packets).items()}


def results(packets: Iterable[Packet]) -> dict[str, Codes]:
    """Result arrays of packets that the layer gives, a row a byte.

    Raises
    ------
    ValueError
        If a packet is empty, which a stream can't express.
    """
    rows = _rows(packets)
    return {f"m_axis_{name}": rows[name] for name in ("tdata", "tlast", "tdest")}


def packets_in(arrays: Arrays) -> Iterator[Packet]:
    """The packets of operand arrays.

    The kind counts with a packet's first byte, the start of a sequence with its last. Bytes after
    the last mark make no packet.
    """
    for kind, data, end in _split(arrays, "s_axis"):
        yield Packet(kind, data, bool(arrays["s_axis_tuser"][end]))


def replies_in(arrays: Arrays) -> Iterator[Packet]:
    """The packets of result arrays."""
    for kind, data, _ in _split(arrays, "m_axis"):
        yield Packet(kind, data)


def _rows(packets: Iterable[Packet]) -> dict[str, Codes]:
    """Signals of packets on a stream, a row a byte."""
    listed = list(packets)
    if any(not packet.data for packet in listed):
        raise ValueError("A packet must hold at least one byte; leave empty ones out.")
    sizes = np.array([len(packet.data) for packet in listed], np.int64)
    last = np.zeros(int(sizes.sum()), np.int64)
    last[np.cumsum(sizes) - 1] = 1
    data = np.frombuffer(b"".join(packet.data for packet in listed), np.uint8)
    return {
        "tdata": data.astype(np.int64),
        "tlast": last,
        "tdest": np.repeat(np.array([packet.kind for packet in listed], np.int64), sizes),
        "tuser": np.repeat(np.array([packet.starts for packet in listed], np.int64), sizes),
    }


def _split(arrays: Arrays, stream: str) -> Iterator[tuple[int, bytes, int]]:
    """Kind and bytes of each packet on a stream, and the row of its last byte."""
    data = arrays[f"{stream}_tdata"].astype(np.uint8).tobytes()
    begin = 0
    for end in np.flatnonzero(arrays[f"{stream}_tlast"]).tolist():
        yield int(arrays[f"{stream}_tdest"][begin]), data[begin : end + 1], end
        begin = end + 1
