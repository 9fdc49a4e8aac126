"""Packets of a layer on its AXI4-Streams: bytes, the last of which is marked.

Every packet has a kind (TDEST). The layer finishes a packet before the next one has any effect, so
a program for the circuit is the order of its packets, and nothing else.
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
"""Names of the signals valid and ready of the two streams."""


PASSES_SIZE = 8
"""Number of bytes of a packet of passes: the number of HIGH passes, then that of LOW ones."""


class Kind(IntEnum):
    """The kind of a packet that the layer receives, on TDEST."""

    INPUT = 0
    """The packet is an input vector; the answer is the new hidden vector."""
    IMAGE = 1
    """The packet is an image; the answer is a status. Afterwards the state is that at reset."""
    LOAD_STATE = 2
    """The packet holds a hidden vector and cells, which become the state; there is no answer."""
    SAVE_STATE = 3
    """The packet is one byte of any value; the answer is the state in the form of LOAD_STATE."""


class Reply(IntEnum):
    """The kind of a packet that the layer sends, on TDEST."""

    HIDDEN = 0
    STATE = 1
    STATUS = 2
    PASSES = 3
    """The numbers of passes, which follow a requested state in layers that count passes."""


class Status(IntEnum):
    """The status of the last packet: the one byte of a status packet."""

    LOADED = 0
    """The image is whole and its checksum is right."""
    BROKEN_IMAGE = 1
    """The image's checksum is wrong; now no image is loaded."""
    WRONG_LENGTH = 2
    """The packet had too few bytes or too many. An input vector had no effect; after a wrong image
    no image is loaded; after a wrong state the state is that at reset."""
    NO_IMAGE = 3
    """The packet needs an image, but none is loaded; the packet had no effect."""
    IMAGE_INSIDE = 4
    """The layer was generated with its image; the packet had no effect."""


@dataclass(frozen=True)
class Packet:
    """A packet that the layer receives or sends."""

    kind: int
    data: bytes
    starts: bool = False
    """Whether the packet is an input vector that starts a sequence."""


def value_bytes(width: int) -> int:
    """Return how many bytes a value of `width` bits has in a packet.

    The low byte is first, and the sign is extended to whole bytes.
    """
    return 1 if width <= BYTE.width else 2


def beats(packets: Iterable[Packet]) -> dict[str, Codes]:
    """Return the operand arrays that carry packets, one row for each byte.

    Raises
    ------
    ValueError
        If a packet is empty, because a stream cannot express that.
    """
    return {f"s_axis_{name}": array for name, array in _rows(packets).items()}


def results(packets: Iterable[Packet]) -> dict[str, Codes]:
    """Return the result arrays that carry the layer's packets, one row for each byte.

    Raises
    ------
    ValueError
        If a packet is empty, because a stream cannot express that.
    """
    rows = _rows(packets)
    return {f"m_axis_{name}": rows[name] for name in ("tdata", "tlast", "tdest")}


def packets_in(arrays: Arrays) -> Iterator[Packet]:
    """Yield the packets that operand arrays carry.

    The kind of a packet is that of its first byte; the start of a sequence is marked with its last
    byte. Bytes after the last mark form no packet.
    """
    for kind, data, end in _split(arrays, "s_axis"):
        yield Packet(kind, data, bool(arrays["s_axis_tuser"][end]))


def replies_in(arrays: Arrays) -> Iterator[Packet]:
    """Yield the packets that result arrays carry."""
    for kind, data, _ in _split(arrays, "m_axis"):
        yield Packet(kind, data)


def _rows(packets: Iterable[Packet]) -> dict[str, Codes]:
    """Return the signals of packets on a stream, one row for each byte."""
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
    """Yield kind and bytes of each packet on a stream, and the row of its last byte."""
    data = arrays[f"{stream}_tdata"].astype(np.uint8).tobytes()
    begin = 0
    for end in np.flatnonzero(arrays[f"{stream}_tlast"]).tolist():
        yield int(arrays[f"{stream}_tdest"][begin]), data[begin : end + 1], end
        begin = end + 1
