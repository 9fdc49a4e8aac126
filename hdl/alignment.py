"""Steps of a floating-point sum: largest exponent, alignment, normalisation."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike

__all__ = ["largest", "normalize", "shift_down", "shift_up"]


def largest(m: Module, values: Sequence[Value], name: str) -> Signal:
    """The largest of unsigned values of one width.

    From the highest bit down, a value drops out where it has 0 and one that is still in has 1:
    smaller than a tournament of comparators (by 70 of 2,000 gate equivalents for five values of
    six bits).
    """
    width = len(values[0])
    result = Signal(width, name=name)
    remaining: list[Value] = [Const(1, 1)] * len(values)
    for bit in reversed(range(width)):
        ones = Signal(len(values), name=f"{name}_ones_{bit}")
        m.d.comb += [
            ones.eq(Cat(left & value[bit] for left, value in zip(remaining, values, strict=True))),
            result[bit].eq(ones.any()),
        ]
        if bit:
            left = Signal(len(values), name=f"{name}_left_{bit}")
            m.d.comb += left.eq(
                Cat(
                    before & (value[bit] | ~result[bit])
                    for before, value in zip(remaining, values, strict=True)
                )
            )
            remaining = [left[k] for k in range(len(values))]
    return result


def shift_down(m: Module, value: Value, distance: Value, width: int, name: str) -> Value:
    """``value`` at the top of a field of ``width`` bits, shifted down; what falls out is lost.

    ``distance`` may be any unsigned value; from ``width`` on the result is zero. Small steps come
    first: as long as few bits are set, few multiplexers are needed.
    """
    steps = (width - 1).bit_length()
    near = Signal(len(value), name=f"{name}_near")
    m.d.comb += near.eq(value & (~distance[steps:].any()).replicate(len(value)))
    field: Value = near[max(len(value) - width, 0) :]
    for step in range(steps):
        moved = min(len(field) + 2**step, width)
        # Bits are counted from the top, since that is where the field is anchored.
        stay = Cat(Const(0, moved - len(field)), field)
        down = Cat(Const(0, moved - len(field)), field)[2**step :] if 2**step < moved else Const(0)
        shifted = Signal(moved, name=f"{name}_by_{2**step}")
        m.d.comb += shifted.eq(Mux(distance[step], down, stay))
        field = shifted
    return Cat(Const(0, width - len(field)), field)


def shift_up(m: Module, value: Value, distance: Value, width: int, name: str) -> Value:
    """``value`` at the bottom of a field of ``width`` bits, shifted up by ``distance``.

    The caller knows that nothing is shifted out of the field.
    """
    field = value
    for step in range(len(distance)):
        shifted = Signal(min(len(field) + 2**step, width), name=f"{name}_by_{2**step}")
        m.d.comb += shifted.eq(Mux(distance[step], Cat(Const(0, 2**step), field), field))
        field = shifted
    return Cat(field, Const(0, width - len(field)))


def normalize(
    m: Module, value: Value, room: Value, fill: ValueLike, name: str
) -> tuple[Signal, Signal]:
    """``value`` shifted up until its highest bit is set, or by ``room`` if that is less.

    Returns the shifted value, its freed low bits copies of ``fill``, and what is left of ``room``.
    One step a power of two, the largest first: each looks at the highest bits alone, so that
    counting zeros and shifting are one circuit. Up to 2**steps - 1 places, enough for any value
    that isn't zero.
    """
    width = len(value)
    filler = Value.cast(fill)
    for step in reversed(range((width - 1).bit_length())):
        distance = 2**step
        # The highest bits are zero where they are shifted out, which no optimiser can know: an OR
        # joins what a multiplexer would choose.
        kept = width - distance
        moved = Cat(filler.replicate(distance), value)[:width]
        take = Signal(name=f"{name}_take_{distance}")
        shifted = Signal(width, name=f"{name}_by_{distance}")
        left = Signal(len(room), name=f"{name}_room_{distance}")
        m.d.comb += [
            take.eq(~value[width - distance :].any() & room[step:].any()),
            shifted.eq(
                Cat(
                    Mux(take, moved[:kept], value[:kept]),
                    value[kept:] | (moved[kept:] & take.replicate(distance)),
                )
            ),
            left.eq(Cat(room[:step], room[step:] - take)),
        ]
        value, room = shifted, left
    return value, room  # pyright: ignore[reportReturnType] -- a value of one bit needs no step
