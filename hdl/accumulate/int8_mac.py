"""int8 multiply-accumulate unit: the integer baseline beside the float units."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.accumulate.int8_mac import Int8MacContract
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import stream_of
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.structure import Structure, check_structure
from fewbit.hdl.sums.addends import Addend, product_addends, sum_of_addends

__all__ = ["Int8Mac"]

_PRODUCT_WIDTH = 16
_WIDTH = 32


class Int8Mac(wiring.Component):
    """The sum of an accumulator and int8 products, modulo 2^32, a beat a cycle.

    Latency: ``stages`` cycles. Bit for bit
    :meth:`fewbit.golden.accumulate.int8_mac.Int8MacContract.compute`.

    Parameters
    ----------
    products
        Number of products a beat.
    stages
        Number of register stages. 1: the result; 2: also the sum of the products, before the
        accumulator is added; 3: also the products.
    structure
        Structure of products and sums: "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    """

    def __init__(
        self,
        contract: Int8MacContract | None = None,
        *,
        stages: int = 2,
        structure: Structure = "gates",
    ) -> None:
        if stages not in (1, 2, 3):
            raise ValueError(f"stages must be 1, 2 or 3, not {stages}.")
        check_structure(structure)
        self.contract = contract or Int8MacContract()
        self.products = self.contract.products
        self.stages = stages
        self.structure: Structure = structure
        super().__init__(
            {
                "i": In(stream_of(self.contract.operands)),
                "o": Out(stream_of(self.contract.results)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pipeline = Pipeline(m, self.i.valid)
        beat = self.i.payload
        start: Value = beat.accumulator
        rows: list[Addend] = []
        constant = 0
        for lane in range(self.products):
            partial, offset = product_addends(
                m,
                beat.activations[lane],
                beat.weights[lane],
                Const(0, 1),
                f"lane_{lane}",
                self.structure,
            )
            if self.stages >= 3:
                product = sum_of_addends(
                    m, partial, _PRODUCT_WIDTH, f"product_{lane}", offset, self.structure
                )
                partial, offset = [Addend(product.as_signed())], 0
            rows += partial
            constant += offset
        if self.stages >= 3:
            *products, start = pipeline.register(
                **{f"staged_product_{lane}": row.bits for lane, row in enumerate(rows)},
                staged_start=start,
            )
            rows, constant = self._rows(products)
        if self.stages == 1:
            total = sum_of_addends(
                m, [*rows, Addend(start)], _WIDTH, "total", constant, self.structure
            )
        else:
            # The largest product is -2**7 * -2**7 = 2**14, so each has a bit to spare.
            width = _PRODUCT_WIDTH + (self.products - 1).bit_length()
            added = sum_of_addends(m, rows, width, "added", constant, self.structure)
            staged, start = pipeline.register(staged_total=added.as_signed(), total_start=start)
            total = wire(m, (start + staged)[:_WIDTH], "total")
        (result,) = pipeline.register(result_code=total)
        m.d.comb += self.o.payload.eq(result)
        pipeline.connect(self.i.ready, self.o.valid, self.o.ready)
        return m

    def _rows(self, words: Sequence[Value]) -> tuple[list[Addend], int]:
        """Return signed words as addends of a sum, and the constant that the sum then needs."""
        if self.structure == "fpga":
            return [Addend(word) for word in words], 0
        # Carry-save trees add unsigned words: an inverted sign bit adds 2**(width - 1) too much.
        rows = [Addend(Cat(word[:-1], ~word[-1])) for word in words]
        return rows, -sum(1 << (len(word) - 1) for word in words)
