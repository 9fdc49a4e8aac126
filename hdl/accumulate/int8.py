"""Lanes of int8 products that are summed with a start value in one cycle."""

from amaranth.hdl import Const, Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.addends import Addend, product_addends, sum_of_addends

__all__ = ["Int8Products"]


class Int8Products(wiring.Component):
    """The sum of a start value and int8 products, modulo 2^32; combinational.

    ``total = start + sum of weights * activations``.

    Parameters
    ----------
    lanes
        Number of products, at least 1.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    """

    def __init__(self, lanes: int, structure: Structure = "gates") -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, not {lanes}.")
        check_structure(structure)
        self.lanes = lanes
        self.structure: Structure = structure
        super().__init__(
            {
                "weights": In(data.ArrayLayout(signed(8), lanes)),
                "activations": In(data.ArrayLayout(signed(8), lanes)),
                "start": In(signed(32)),
                "total": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows: list[Addend] = []
        constant = 0
        for lane in range(self.lanes):
            partial, offset = product_addends(
                m,
                self.activations[lane],
                self.weights[lane],
                Const(0, 1),
                f"lane_{lane}",
                self.structure,
            )
            rows += partial
            constant += offset
        rows.append(Addend(self.start))
        m.d.comb += self.total.eq(sum_of_addends(m, rows, 32, "sum", constant, self.structure))
        return m
