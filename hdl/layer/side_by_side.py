# amaranth: UnusedElaboratable=no
# A layer that is never elaborated says so; that its parts are not either is no news.
"""The neurons of a layer of few-bit weights whose gates' rows are added side by side."""

from amaranth.hdl import Cat, Module

from fewbit.golden.layer.ternary import NONZERO, START_BYTES, TernaryLstmLayerContract
from fewbit.golden.lstm.ternary import levels_of
from fewbit.golden.neuron.ternary import SIDE_BY_SIDE
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.neurons import Neurons
from fewbit.hdl.layer.places import BYTE, Places
from fewbit.hdl.neuron.side_by_side import SideBySideNeuron
from fewbit.hdl.structure import LaneStructure

__all__ = ["SideBySideNeurons", "sum_width", "sums_wait"]

_WIDEST = 32


def sum_width(contract: TernaryLstmLayerContract) -> int:
    """Return the bits that hold any row's sum without its start value; sums are modulo 2^32."""
    levels = levels_of(contract.weights, contract.exponents)
    highest = max(abs(level) for level in levels) << (contract.activation_width - 1)
    longest = max(contract.inputs, contract.hidden)
    return min(_WIDEST, (longest * highest).bit_length() + 1)


def sums_wait(contract: TernaryLstmLayerContract) -> bool:
    """Return whether a second place for four sums saves cycles.

    It does where the input or the recurrent rows have too few beats to use up four sums meanwhile.
    """
    beats = [contract.schedule.beats(row) for row in contract.schedule.rows]
    count = len(SIDE_BY_SIDE)
    return sum(max(count, each) for each in beats) > max(sum(beats), 2 * count)


class SideBySideNeurons(Neurons):
    """The one neuron that adds the rows of a unit's gates side by side, with their start values.

    Parameters
    ----------
    places
        The layer's places.
    structure
        "gates", "fpga" or "plain", see :mod:`fewbit.hdl.structure`.
    """

    def __init__(self, places: Places[TernaryLstmLayerContract], structure: LaneStructure) -> None:
        contract = places.contract
        self.neuron = SideBySideNeuron(
            contract.hidden,
            contract.lane_weights,
            contract.activation_width,
            sum_width(contract),
            sums_wait=sums_wait(contract),
            structure=structure,
        )
        self.vectors = self.neuron.vectors
        super().__init__(places, [self.neuron])

    def configure(self, m: Module, store: ImageStore) -> None:
        neuron = self.neuron
        configuration = store.registers(m, "configuration")
        row = store.memory(m, "starts").read_port()
        start = BYTE * START_BYTES
        m.d.comb += [
            row.addr.eq(neuron.row),
            row.en.eq(neuron.reads_row),
            neuron.start.eq(row.data[:start]),
            neuron.shift.eq(row.data[start : start + NONZERO]),
            neuron.nonzero.eq(row.data[start + NONZERO]),
            neuron.cell_integer_bits.eq(configuration[0][:3]),
            neuron.cell_clip.eq(Cat(configuration[1], configuration[2][:7])),
        ]
