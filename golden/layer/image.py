"""The parameter image of a layer: every weight and constant as bytes, in the circuit's order.

Sections lie one after the other, each of so many words of so many bytes; the last is a checksum.
Numbers are little-endian, two's complement where signed; only the checksum is big-endian, as its
algorithm wants it.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

__all__ = ["CHECKSUM_BYTES", "ImageError", "Layout", "Section", "as_bytes", "checksum", "integers"]

CHECKSUM_BYTES = 2


class ImageError(ValueError):
    """An image that is not what it must be."""


@dataclass(frozen=True)
class Section:
    """Words of one kind."""

    name: str
    words: int
    word_bytes: int
    meaning: str

    @property
    def size(self) -> int:
        """Bytes of the section."""
        return self.words * self.word_bytes


@dataclass(frozen=True)
class Layout:
    """The sections of an image, without the checksum."""

    sections: tuple[Section, ...]

    @property
    def size(self) -> int:
        """Bytes of the image, the checksum included."""
        return sum(section.size for section in self.sections) + CHECKSUM_BYTES

    def offset(self, name: str) -> int:
        """First byte of a section; of the checksum for "checksum"."""
        offset = 0
        for section in self.sections:
            if section.name == name:
                return offset
            offset += section.size
        if name != "checksum":
            raise KeyError(name)
        return offset

    def join(self, contents: Mapping[str, Bytes]) -> bytes:
        """The image of sections' bytes, with its checksum.

        Raises
        ------
        ValueError
            If a section has another size.
        """
        parts: list[bytes] = []
        for section in self.sections:
            content = contents[section.name].tobytes()
            if len(content) != section.size:
                raise ValueError(
                    f"Section {section.name} must hold {section.size} bytes, not {len(content)}."
                )
            parts.append(content)
        body = b"".join(parts)
        return body + checksum(body)

    def split(self, image: bytes) -> dict[str, Bytes]:
        """Bytes of each section by name, shape (words, bytes of a word).

        Raises
        ------
        ImageError
            If the image has a wrong size or checksum.
        """
        if len(image) != self.size:
            raise ImageError(
                f"The parameter image must hold {self.size} bytes, not {len(image)}; it belongs to"
                " a layer of other parameters, or is cut."
            )
        body, found = image[:-CHECKSUM_BYTES], image[-CHECKSUM_BYTES:]
        if checksum(body) != found:
            raise ImageError(
                f"The parameter image's checksum must be {checksum(body).hex()}, not"
                f" {found.hex()}; the image is broken, make it anew."
            )
        contents: dict[str, Bytes] = {}
        flat = np.frombuffer(body, np.uint8)
        for section in self.sections:
            start = self.offset(section.name)
            words = flat[start : start + section.size]
            contents[section.name] = words.reshape(section.words, section.word_bytes)
        return contents


def checksum(body: bytes) -> bytes:
    """CRC-16 of bytes: polynomial 0x1021, start 0xFFFF, highest bit first, no final inversion.

    The CRC of a body with its checksum behind it is 0.
    """
    return binascii.crc_hqx(body, 0xFFFF).to_bytes(CHECKSUM_BYTES, "big")


def as_bytes(values: npt.ArrayLike, width: int) -> Bytes:
    """Integers as little-endian bytes: shape (...) to (..., width)."""
    words = np.asarray(values, np.int64)[..., np.newaxis] >> (8 * np.arange(width, dtype=np.int64))
    return (words & 0xFF).astype(np.uint8)


def integers(content: Bytes, *, signed: bool = True) -> npt.NDArray[np.int64]:
    """Integers of little-endian bytes: shape (..., width) to (...)."""
    width = content.shape[-1]
    weights = np.int64(1) << (8 * np.arange(width, dtype=np.int64))
    value = (content.astype(np.int64) * weights).sum(axis=-1)
    if not signed:
        return value
    sign = np.int64(1) << (8 * width - 1)
    return (value ^ sign) - sign
