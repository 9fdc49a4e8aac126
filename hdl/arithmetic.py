"""The operations of :mod:`fewbit.golden.arithmetic`, name for name, as circuits.

Each function adds named signals to a module and returns the one with the result, so that a value
that is used twice is written once.
"""

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike

__all__ = ["RoundedShift", "rounding_shift_right", "saturate", "saturate_to_clip", "wire"]


def wire(m: Module, value: ValueLike, name: str) -> Signal:
    """A named signal with the value, for use in more than one place."""
    value = Value.cast(value)
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def saturate(m: Module, value: Value, width: int, name: str, beyond: ValueLike = 0) -> Signal:
    """Nearest raw of a signed word.

    Parameters
    ----------
    value
        Signed, wider than ``width``.
    width
        Bits of the result.
    beyond
        1 where ``value`` stands for something out of range whose sign is the value's.
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
    """The nearest of -clip to clip; a clip of 0 changes nothing.

    Parameters
    ----------
    value
        Signed, of a width of at least the clip's and one.
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
    """A shifted word before its rounding is added: ``quotient + round_up`` is the result."""

    quotient: Signal
    round_up: Signal
    beyond: Signal


def rounding_shift_right(
    m: Module, value: Value, shift: Value, width: int, name: str, ties_up: ValueLike = 0
) -> RoundedShift:
    """``value / 2**shift`` rounded to nearest; ties go away from zero, or up where asked.

    Parameters
    ----------
    value
        Signed.
    shift
        Unsigned, less than the width of ``value``.
    width
        Bits of the quotient that are kept.
    ties_up
        1 sends ties toward plus infinity.

    Returns
    -------
    The floor of the quotient, the bit that rounding adds to it (left to the next addition, which
    has a carry to spare), and whether the floor does not fit ``width`` bits; then its sign is
    that of ``value``, and the kept bits mean nothing.
    """
    negative = wire(m, value[-1], f"{name}_negative")
    # One bit below the point decides the rounding; whether any bit below that one is set decides
    # whether it is a tie. The word loses high bits on the way that only tell that it does not fit.
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
        # What either choice drops at the top must equal the sign.
        dropped_if_shifted = padded[step + keep :]
        dropped_if_stayed = padded[keep:]
        signs = [dropped_if_stayed[:step] ^ negative.replicate(min(step, len(dropped_if_stayed)))]
        beyond.append(~chosen & signs[0].any())
        if len(dropped_if_shifted):
            beyond.append((dropped_if_shifted ^ negative.replicate(len(dropped_if_shifted))).any())
        word = wire(m, Mux(chosen, shifted, stayed), f"{name}_by_{step}")
    quotient = wire(m, word[1:].as_signed(), f"{name}_quotient")
    # The sign bit itself is kept, so a lost bit that differs from the sign, or a kept top bit
    # that does, means that the word does not fit.
    top = quotient[-1] ^ negative
    is_tie = wire(m, ~Cat(*sticky).any(), f"{name}_is_tie")
    round_up = wire(m, word[0] & ~(negative & is_tie & ~Value.cast(ties_up)), f"{name}_round_up")
    return RoundedShift(quotient, round_up, wire(m, Cat(*beyond, top).any(), f"{name}_beyond"))
