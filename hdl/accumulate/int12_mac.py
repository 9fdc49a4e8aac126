"""12-bit multiply-accumulate unit: the baseline for binary and ternary weights."""

from amaranth.hdl import Cat, Const, Module, Value

from fewbit.golden.accumulate.int12_mac import Int12MacContract
from fewbit.hdl.accumulate.rows import Beat, RowAccumulate, RowProducts
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.sums.addends import Addend, product_addends, sum_of_addends
from fewbit.hdl.sums.columns import Columns

__all__ = ["Int12Mac", "Int12Products", "add_product"]


class Int12Products(RowProducts):
    """Products of 12-bit weights and activations."""

    def _add_lanes(self, m: Module, beat: Beat, columns: Columns) -> None:
        for lane in range(self.lanes):
            add_product(m, columns, beat.activations[lane], beat.weights[lane], f"lane_{lane}")

    def _chained_lanes(self, m: Module, beat: Beat, before: Value) -> Value:
        rows: list[Addend] = []
        constant = 0
        for lane in range(self.lanes):
            partial, offset = product_addends(
                m,
                beat.activations[lane],
                beat.weights[lane],
                Const(0, 1),
                f"lane_{lane}",
                "fpga",
            )
            rows += partial
            constant += offset
        return sum_of_addends(
            m, [*rows, Addend(before)], self.accumulator_width, "sum", constant, "fpga"
        )

    def _plain_products(self, m: Module, beat: Beat) -> list[Value]:
        return [beat.weights[lane] * beat.activations[lane] for lane in range(self.lanes)]


class Int12Mac(RowAccumulate):
    """The sum of a row of signed 12-bit weights times activations, for a beat each cycle.

    Bit for bit :meth:`fewbit.golden.accumulate.int12_mac.Int12MacContract.compute`.
    """

    contract_type = Int12MacContract
    products_type = Int12Products


def add_product(
    m: Module, columns: Columns, multiplicand: Value, multiplier: Value, name: str
) -> None:
    """Add a product as rows, one for each digit from -2 to 2 of the multiplier (Booth, radix 4).

    Parameters
    ----------
    multiplicand
        Signed.
    multiplier
        Signed, of an even width.
    """
    width = len(multiplicand)
    bits = Cat(Const(0, 1), multiplier)
    for digit in range(len(multiplier) // 2):
        place = f"{name}_{digit}"
        low, middle, high = bits[2 * digit : 2 * digit + 3]
        is_one = wire(m, low ^ middle, f"{place}_is_one")
        is_two = wire(m, ~is_one & (middle ^ high), f"{place}_is_two")
        chosen = wire(
            m,
            (Cat(multiplicand, multiplicand[-1]) & is_one.replicate(width + 1))
            | (Cat(Const(0, 1), multiplicand) & is_two.replicate(width + 1)),
            f"{place}_chosen",
        )
        row = wire(m, chosen ^ high.replicate(width + 1), f"{place}_row")
        odd = wire(m, chosen[0], f"{place}_odd")
        columns.add_pair(high, odd, 2 * digit)
        columns.add_signed(row[1:], 2 * digit + 1)
