"""What a layer of few-bit weights supplies whose gates' rows are added side by side."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Value
from amaranth.lib import wiring

from fewbit.golden.layer.ternary import NONZERO, SIDE_BY_SIDE, START_BYTES, TernaryLstmLayerContract
from fewbit.golden.lstm.ternary import levels_of
from fewbit.hdl.layer.image import BYTE, ImageStore
from fewbit.hdl.layer.normalize import GateReading
from fewbit.hdl.neuron.side_by_side import SideBySideNeuron
from fewbit.hdl.structure import LaneStructure

__all__ = ["SideBySideSystem", "sum_width", "sums_wait"]

_WIDEST = 32


def sum_width(contract: TernaryLstmLayerContract) -> int:
    """Bits that hold every row's sum without its start value; sums are modulo 2^32."""
    levels = levels_of(contract.weights, contract.exponents)
    highest = max(abs(level) for level in levels) << (contract.activation_width - 1)
    longest = max(contract.inputs, contract.hidden)
    return min(_WIDEST, (longest * highest).bit_length() + 1)


def sums_wait(contract: TernaryLstmLayerContract) -> bool:
    """Whether a second place for sums saves cycles: where a row is too short to use up four."""
    beats = [contract.schedule.beats(row) for row in contract.schedule.rows]
    count = len(SIDE_BY_SIDE)
    return sum(max(count, each) for each in beats) > max(sum(beats), 2 * count)


class SideBySideSystem:
    """What the number system supplies to the layer engine."""

    cell_width = 16
    cells_apart = True
    tells_part = True
    start_width = 0

    def __init__(self, contract: TernaryLstmLayerContract, structure: LaneStructure) -> None:
        self.contract = contract
        self.activation_width = contract.activation_width
        self.masks_padding = contract.weights == "binary"
        self.neuron = SideBySideNeuron(
            contract.hidden,
            contract.lane_weights,
            contract.activation_width,
            sum_width(contract),
            sums_wait=sums_wait(contract),
            structure=structure,
        )

    def segment(self, name: str) -> int:
        """Code of a task's program: there is one only."""
        return 0

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neuron, what its rows start from, and the configuration."""
        m.submodules.neuron = neuron = self.neuron
        configuration = image.registers(m, "configuration")
        row = image.memory(m, "starts").read_port()
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
        return [neuron], Const(0, self.activation_width)

    def normalizer(self, m: Module, image: ImageStore, reading: GateReading) -> wiring.Component:
        """Nothing is normalised."""
        raise NotImplementedError("The layer has no layer norm.")
