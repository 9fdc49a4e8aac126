"""The accumulate unit of binary weights."""

from amaranth.hdl import Module, Mux, Value

from fewbit.golden.accumulate.binary_accumulate import BinaryAccumulateContract
from fewbit.hdl.accumulate.rows import Lane, SelectedLanes
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.structure import LaneStructure

__all__ = ["BinaryAccumulate"]


class BinaryAccumulate(SelectedLanes):
    """The sum of a row of binary weights times activations, for a beat each cycle.

    The sum follows the last beat of a row by one cycle. While it waits, the unit stalls. Bit for
    bit :meth:`fewbit.golden.accumulate.binary_accumulate.BinaryAccumulateContract.compute`.

    Parameters
    ----------
    contract
        The unit's contract; by default one with default parameters.
    structure
        "gates", "fpga" or "plain", see :mod:`fewbit.hdl.accumulate.rows`.
    """

    def __init__(
        self, contract: BinaryAccumulateContract | None = None, structure: LaneStructure = "gates"
    ) -> None:
        self.contract = contract or BinaryAccumulateContract()
        super().__init__(self.contract, structure)

    def _lanes(self, m: Module) -> list[Lane]:
        lanes: list[Lane] = []
        for lane in range(self.lanes):
            activation = self.i.payload.activations[lane].as_unsigned()
            negate = wire(m, ~self.i.payload.weights[lane], f"negates_{lane}")
            term = activation ^ negate.replicate(self.activation_width)
            # A number and its negative have the same lowest bit.
            lanes.append(Lane(wire(m, term, f"term_{lane}"), negate, activation[0]))
        return lanes

    def _plain_products(self, m: Module) -> list[Value]:
        beat = self.i.payload
        return [
            Mux(beat.weights[lane], beat.activations[lane], -beat.activations[lane])
            for lane in range(self.lanes)
        ]
