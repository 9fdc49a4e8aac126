"""The dense packing of five ternary weights in 8 bits, spelt out row by row of its table."""

from itertools import product

__all__ = ["ALIASES", "LEVELS", "spelt_densely"]

_FIELD = {1: "01", -1: "11", 0: "00"}
_SIGN = {1: "0", -1: "1"}


def spelt_densely(levels: tuple[int, ...]) -> int:
    """Code of a group, from the weights to the bits."""
    a, b, c, d, e = levels
    if c == 0:
        low = "0" + _FIELD[b] + _FIELD[a]
    elif a == b == 0:
        low = "00" + _SIGN[c] + "10"
    elif a == 0:
        low = "1" + _SIGN[c] + "10" + _SIGN[b]
    else:
        low = "1" + _SIGN[c] + _FIELD[b] + _SIGN[a]
    if (e, d) == (-1, -1):
        return int(low[2:] + "010" + low[:2], 2)
    return int((f"{d}10" if e == -1 else f"{e}{_FIELD[d]}") + low, 2)


def _escaped(low: int) -> int:
    """Code of weights -1 and -1 above five bits of the others."""
    return (low & 0b111) << 5 | 0b01000 | low >> 3


def _aliases() -> dict[int, int]:
    # 01s10 is read as 00s10 where s is 1; with s = 0 bits 4...2 would be the escape.
    codes = {high << 5 | 0b01110: high << 5 | 0b00110 for high in range(8)}
    for low in (0b01000, 0b01001, 0b01011):  # BB = 10 is read as 0
        codes[_escaped(low)] = _escaped(low & 0b10011)
    for low in (0b01010, 0b01110):
        codes[_escaped(low)] = _escaped(low & 0b10111)
    return codes


ALIASES = _aliases()
"""Codes that are never written, and the code as which each is read."""
_WRITTEN = {spelt_densely(levels): levels for levels in product((-1, 0, 1), repeat=5)}
LEVELS = _WRITTEN | {code: _WRITTEN[other] for code, other in ALIASES.items()}
"""Weights of each of the 256 codes."""
