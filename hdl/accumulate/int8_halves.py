"""Lanes of half weights: two products of 4-bit weights each, or one of an 8-bit weight."""

from amaranth.hdl import Cat, Const, Module, Mux, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.hdl.arithmetic import wire
from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.addends import Addend, product_addends, sum_of_addends

__all__ = ["Int8HalfProducts", "nibbles"]

HALVES = ("first", "second")
CORRECTION_PLACE = 3
"""Binary place of the correction: the middle of a low half is 2^3."""
OFFSET_PLACE = 6
"""Binary place of an offset: `fewbit.golden.lstm.dynamic.OFFSET_RESOLUTION` is 2^6."""
HALF = 4
"""Number of bits of half a weight."""


def nibbles(lanes: int) -> data.StructLayout:
    """Return the layout of the half weights in a cycle, signed, for both halves of the lanes."""
    of_lanes = data.ArrayLayout(signed(HALF), lanes)
    return data.StructLayout({"first": of_lanes, "second": of_lanes})


class Int8HalfProducts(wiring.Component):
    """The sum of products of half weights, at high or low places, modulo 2^width; combinational.

    ``total = start + 8 correction + 64 offset + 16^a sum first + 16^b sum second``.

    Each half has ``lanes`` products of a signed weight of 4 bits and an activation of 8 bits. So
    both halves together have as many partial products as ``lanes`` products of 8 bits.

    Parameters
    ----------
    lanes
        Number of products of each half, at least 1.
    correction_width
        Bits of ``correction``, which is signed.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    width
        Bits of ``start`` and ``total``, which are signed.

    Ports
    -----
    weights, activations
        Weights and activations of the halves ``first`` and ``second``.
    raises
        Bit 0 is a and bit 1 is b in the formula: 1 if the half's weights are high halves.
    start, correction, offset
        Numbers to add, as in the formula.
    total
        The sum of all products and numbers.
    """

    def __init__(
        self,
        lanes: int,
        correction_width: int,
        structure: Structure = "gates",
        width: int = 32,
    ) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}.")
        check_structure(structure)
        self.lanes = lanes
        self.correction_width = correction_width
        self.structure: Structure = structure
        self.width = width
        of_lanes = data.ArrayLayout(signed(8), lanes)
        super().__init__(
            {
                "weights": In(nibbles(lanes)),
                "activations": In(data.StructLayout({"first": of_lanes, "second": of_lanes})),
                "raises": In(2),
                "correction": In(signed(correction_width)),
                "offset": In(signed(8)),
                "start": In(signed(width)),
                "total": Out(signed(width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = [Addend(self.start)]
        constant = 0
        for row in (
            *(self._raised(m, index) for index in range(len(HALVES))),
            Addend(self.correction, CORRECTION_PLACE),
            Addend(self.offset, OFFSET_PLACE),
        ):
            # The constant corrects the weight of the inverted sign, as in partial products.
            bits = row.bits
            rows.append(Addend(Cat(bits[:-1], ~bits[-1]), row.offset))
            constant -= 1 << (len(bits) - 1 + row.offset)
        m.d.comb += self.total.eq(
            sum_of_addends(m, rows, self.width, "sum", constant, self.structure)
        )
        return m

    def _raised(self, m: Module, index: int) -> Addend:
        """Return the sum of one half's products, at its place."""
        name = HALVES[index]
        total = self._sum(m, name)
        low, high = Cat(total, total[-1].replicate(HALF)), Cat(Const(0, HALF), total)
        return Addend(wire(m, Mux(self.raises[index], high, low), f"{name}_raised"))

    def _sum(self, m: Module, name: str) -> Value:
        """Return the sum of one half's products."""
        rows: list[Addend] = []
        constant = 0
        for lane in range(self.lanes):
            partial, offset = product_addends(
                m,
                self.activations[name][lane],
                self.weights[name][lane],
                Const(0, 1),
                f"{name}_{lane}",
                self.structure,
            )
            rows += partial
            constant += offset
        # |sum| is at most lanes * 8 * 128. Only a positive sum reaches it, and that fits.
        width = 11 + (self.lanes - 1).bit_length() + 1
        return sum_of_addends(m, rows, width, f"{name}_sum", constant, self.structure)
