"""Binary accumulate unit."""

from amaranth.hdl import Module, Mux, Value

from golden.accumulate.binary import BinaryAccumulate as Contract
from hdl.accumulate.rows import Lane, SelectedLanes, Structure
from hdl.arithmetic import wire

__all__ = ["BinaryAccumulate"]


class BinaryAccumulate(SelectedLanes):
    """Sum of a row of binary weights times activations, a beat a cycle.

    The sum follows the last beat of a row by one cycle. While it waits, no beat is taken. Bit for
    bit :meth:`golden.accumulate.binary.BinaryAccumulate.compute`.

    Parameters
    ----------
    contract
        The unit's parameters; None for the usual ones.
    structure
        "gates", "fpga" or "plain", see :mod:`hdl.accumulate.rows`.
    """

    def __init__(self, contract: Contract | None = None, structure: Structure = "gates") -> None:
        self.contract = contract or Contract()
        super().__init__(self.contract, structure)

    def _lanes(self, m: Module) -> list[Lane]:
        lanes: list[Lane] = []
        for lane in range(self.lanes):
            activation = self.i.payload.activations[lane].as_unsigned()
            negate = wire(m, ~self.i.payload.weights[lane], f"negates_{lane}")
            term = activation ^ negate.replicate(self.activation_width)
            # A number is as odd as its negative.
            lanes.append(Lane(wire(m, term, f"term_{lane}"), negate, activation[0]))
        return lanes

    def _plain_products(self, m: Module) -> list[Value]:
        beat = self.i.payload
        return [
            Mux(beat.weights[lane], beat.activations[lane], -beat.activations[lane])
            for lane in range(self.lanes)
        ]
