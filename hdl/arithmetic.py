"""The operations of :mod:`fewbit.golden.arithmetic`, name for name, as circuits.

Each function adds named signals to a module and returns the one with the result. So a value that is
used twice is written once in the Verilog.
"""

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike

__all__ = ["RoundedShift", "rounding_shift_right", "saturate", "saturate_to_clip", "wire"]


def wire(m: Module, value: ValueLike, name: str) -> Signal:
    """Return a named signal with the value, for use in more than one place."""
    value = Value.cast(value)
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def saturate(m: Module, value: Value, width: int, name: str, beyond: ValueLike = 0) -> Signal:
    """Return the raw of a signed word of ``width`` bits that is nearest to ``value``.

    Parameters
    ----------
    value
        Signed, wider than ``width``.
    width
        Bits of the result.
    beyond
        1 where the true value, of the same sign, is out of the range of ``width`` bits.
    """
    negative = wire(m, value[-1], f"{name}_negative")
    fits = wire(
        m,
        (value[width - 1 :] == negative.replicate(len(value) - width + 1)) & ~Value.cast(beyond),
        f"{name}_fits",
    )
    extreme = Cat((~negative).replicate(width - 1), negative)
    return wire(m, Mux(fits, value[:width], extreme).as_signed(), name)


def saturate_to_clip(m: Module, value: Value, clip: Value, name: str) -> Signal:
    """Return the nearest number from -clip to clip; a clip of 0 changes nothing.

    Parameters
    ----------
    value
        Signed, at least one bit wider than ``clip``.
    clip
        Unsigned.
    """
    negative = wire(m, value[-1], f"{name}_negative")
    # The ones' complement of a negative value is one below its distance from zero.
    distance = wire(m, value[:-1] ^ negative.replicate(len(value) - 1), f"{name}_distance")
    exceeds = wire(m, (distance + negative > clip) & clip.any(), f"{name}_exceeds")
    signs = negative.replicate(len(value))
    limit = wire(m, ((clip ^ signs) + negative)[: len(value)], f"{name}_limit")
    return wire(m, Mux(exceeds, limit, value[:]).as_signed(), name)


class RoundedShift(NamedTuple):
    """A shifted word before its rounding is added: the result is ``quotient + round_up``."""

    quotient: Signal
    round_up: Signal
    beyond: Signal


def rounding_shift_right(
    m: Module, value: Value, shift: Value, width: int, name: str, ties_up: ValueLike = 0
) -> RoundedShift:
    """Return ``value / 2**shift`` rounded to nearest, ties away from zero or, by ``ties_up``, up.

    Parameters
    ----------
    value
        Signed.
    shift
        Unsigned, less than the width of ``value``.
    width
        Bits of the quotient in the result.
    ties_up
        1 if ties go toward plus infinity.

    Returns
    -------
    The floor of the quotient; the bit that rounding adds to it, which is left to the next addition
    as its carry; and whether the floor does not fit ``width`` bits. If it does not fit, its sign is
    that of ``value``, and its bits are meaningless.
    """
    negative = wire(m, value[-1], f"{name}_negative")
    # The bit below the point decides the rounding, and any lower bit that is set rules out a tie.
    # On the way the word loses high bits, which only show whether it fits.
    word: Value = Cat(Const(0, 1), value)
    sticky: list[Value] = []
    beyond: list[Value] = []
    for stage in reversed(range(len(shift))):
        step = 1 << stage
        chosen = shift[stage]
        keep = width + 1 + step - 1
        padded = Cat(word, negative.replicate(max(0, keep + step - len(word))))
        sticky.append(chosen & word[:step].any())
        shifted = padded[step : step + keep]
        stayed = padded[:keep]
        # The bits that either choice drops at the top must equal the sign.
        dropped_if_shifted = padded[step + keep :]
        dropped_if_stayed = padded[keep:]
        signs = [dropped_if_stayed[:step] ^ negative.replicate(min(step, len(dropped_if_stayed)))]
        beyond.append(~chosen & signs[0].any())
        if len(dropped_if_shifted):
            beyond.append((dropped_if_shifted ^ negative.replicate(len(dropped_if_shifted))).any())
        word = wire(m, Mux(chosen, shifted, stayed), f"{name}_by_{step}")
    quotient = wire(m, word[1:].as_signed(), f"{name}_quotient")
    # The word does not fit if a dropped bit, or the top bit of the result, differs from its sign.
    top = quotient[-1] ^ negative
    is_tie = wire(m, ~Cat(*sticky).any(), f"{name}_is_tie")
    round_up = wire(m, word[0] & ~(negative & is_tie & ~Value.cast(ties_up)), f"{name}_round_up")
    return RoundedShift(quotient, round_up, wire(m, Cat(*beyond, top).any(), f"{name}_beyond"))
