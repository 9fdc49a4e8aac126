"""12-bit multiply-accumulate unit: the baseline beside binary and ternary weights."""

from amaranth.hdl import Cat, Const, Module, Value

from golden.accumulate.int12_mac import Int12Mac as Contract
from hdl.accumulate.rows import RowAccumulate, Structure
from hdl.arithmetic import Row, product_rows, sum_of_rows, wire
from hdl.columns import Columns

__all__ = ["Int12Mac"]


class Int12Mac(RowAccumulate):
    """Sum of a row of signed 12-bit weights times activations, a beat a cycle.

    The sum follows the last beat of a row by one cycle. While it waits, no beat is taken. Bit for
    bit :meth:`golden.accumulate.int12_mac.Int12Mac.compute`.

    Parameters
    ----------
    lanes
        Weights and activations a beat.
    activation_width
        Bits of a signed activation.
    accumulator_width
        Bits of the sum, which is exact modulo 2**accumulator_width.
    structure
        "gates", "fpga" or "plain", see :mod:`hdl.accumulate.rows`.
    """

    def __init__(
        self,
        *,
        lanes: int = 16,
        activation_width: int = 12,
        accumulator_width: int = 36,
        structure: Structure = "gates",
    ) -> None:
        self.contract = Contract(lanes, activation_width, accumulator_width)
        super().__init__(self.contract, structure)

    def _add_lanes(self, m: Module, columns: Columns) -> None:
        for lane in range(self.lanes):
            self._add_digits(m, columns, lane)

    def _add_digits(self, m: Module, columns: Columns, lane: int) -> None:
        """A product as rows, one for each digit from -2 to 2 of the weight (Booth, radix 4)."""
        activation = self.i.payload.activations[lane]
        width = self.activation_width
        bits = Cat(Const(0, 1), self.i.payload.weights[lane])
        for digit in range(len(self.i.payload.weights[lane]) // 2):
            name = f"lane_{lane}_{digit}"
            low, middle, high = bits[2 * digit : 2 * digit + 3]
            is_one = wire(m, low ^ middle, f"{name}_is_one")
            is_two = wire(m, ~is_one & (middle ^ high), f"{name}_is_two")
            chosen = wire(
                m,
                (Cat(activation, activation[-1]) & is_one.replicate(width + 1))
                | (Cat(Const(0, 1), activation) & is_two.replicate(width + 1)),
                f"{name}_chosen",
            )
            row = wire(m, chosen ^ high.replicate(width + 1), f"{name}_row")
            odd = wire(m, chosen[0], f"{name}_odd")
            columns.add_pair(high, odd, 2 * digit)
            columns.add_signed(row[1:], 2 * digit + 1)

    def _chained_lanes(self, m: Module, before: Value) -> Value:
        rows: list[Row] = []
        constant = 0
        for lane in range(self.lanes):
            partial, offset = product_rows(
                m,
                self.i.payload.activations[lane],
                self.i.payload.weights[lane],
                Const(0, 1),
                f"lane_{lane}",
                "fpga",
            )
            rows += partial
            constant += offset
        return sum_of_rows(m, [*rows, Row(before)], self.accumulator_width, "sum", constant, "fpga")

    def _plain_products(self, m: Module) -> list[Value]:
        beat = self.i.payload
        return [beat.weights[lane] * beat.activations[lane] for lane in range(self.lanes)]
