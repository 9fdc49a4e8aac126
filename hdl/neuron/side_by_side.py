"""The neuron whose four gates' rows are added side by side, from the same activations."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.lstm.integer_variant import PARTS
from fewbit.golden.neuron.ternary import SIDE_BY_SIDE, LaneWeights
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.neuron.side_by_side_sum import SideBySideSum
from fewbit.hdl.neuron.side_by_side_update import SideBySideUpdate
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.structure import LaneStructure

__all__ = ["SideBySideNeuron"]


class SideBySideNeuron(wiring.Component):
    """The neuron that takes four rows at a time: a unit's input rows, then its recurrent rows.

    It takes a beat a cycle, for all four gates at once. The four sums go to the update with the
    last beat of their rows. The lanes wait only where the update still holds the sums before.

    Parameters
    ----------
    units
        Number of units in the layer, which pass in turn.
    weights
        The format of a row's weights in a beat.
    activation_width
        Bits of inputs and hidden values.
    sum_width
        Bits of a row's sum without its start value, up to 32.
    sums_wait
        Whether four sums may wait in registers of their own until the update takes them, so that
        the lanes go on.
    structure
        "gates" or "fpga"; "plain" is "gates" with lanes that are written with operators alone and
        left to synthesis.

    Ports
    -----
    i
        A beat: ``weights`` of each row, gates in the order of `SIDE_BY_SIDE`; ``activations``, a
        word of `vectors`; ``first`` and ``last``, which mark the ends of the rows; and
        ``recurrent``, whether they are the recurrent rows.
    row, cell_address
        The numbers of the row whose start value, and of the unit whose old cell, is read next.
        After the layer's last one the first follows.
    fresh, reads_row, start, shift, nonzero, reads_cell, old_cell, cells, o, and the configuration
        The ports of :class:`fewbit.hdl.neuron.side_by_side_update.SideBySideUpdate`.
    """

    def __init__(
        self,
        units: int,
        weights: LaneWeights,
        activation_width: int,
        sum_width: int,
        *,
        sums_wait: bool = False,
        structure: LaneStructure = "gates",
    ) -> None:
        self.units = units
        self.sums_wait = sums_wait
        self.structure: LaneStructure = structure
        self.update = SideBySideUpdate(
            sum_width, activation_width, "fpga" if structure == "fpga" else "gates"
        )
        self.lane_sums = [
            SideBySideSum(weights, activation_width, sum_width, structure) for _ in SIDE_BY_SIDE
        ]
        lanes = self.lane_sums[0]
        self.vectors = lanes.vectors
        members = lanes.signature.members
        beat = data.StructLayout(
            {
                "weights": data.ArrayLayout(members["weights"].shape, len(SIDE_BY_SIDE)),
                "activations": members["activations"].shape,
                "first": 1,
                "last": 1,
                "recurrent": 1,
            }
        )
        ports = self.update.signature.members
        super().__init__(
            {
                "i": In(stream.Signature(beat)),
                "row": Out(range(self._rows)),
                "cell_address": Out(range(max(2, units))),
                **{name: member for name, member in ports.items() if name != "i"},
            }
        )

    @property
    def _rows(self) -> int:
        return len(PARTS) * len(SIDE_BY_SIDE) * self.units

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        m.submodules.update = update = self.update
        takes = wire(m, self.i.valid & self.i.ready, "takes")
        totals: dict[str, Signal] = {}
        for index, (gate, lanes) in enumerate(zip(SIDE_BY_SIDE, self.lane_sums, strict=True)):
            m.submodules[f"lanes_{gate}"] = lanes
            so_far = Signal(lanes.width, name=f"sum_so_far_{gate}", reset_less=True)
            m.d.comb += [
                lanes.weights.eq(beat.weights[index]),
                lanes.activations.eq(beat.activations),
                lanes.start.eq(so_far & (~beat.first).replicate(lanes.width)),
            ]
            with m.If(takes):
                m.d.sync += so_far.eq(lanes.total)
            totals[f"total_{gate}"] = lanes.total
        ends = wire(m, self.i.valid & beat.last, "ends")
        handed = [*totals.values(), beat.recurrent]
        if self.sums_wait:
            pipeline = Pipeline(m, ends)
            handed = pipeline.register(**totals, of_recurrent=beat.recurrent)
            taken = Signal()
            pipeline.connect(taken, update.i.valid, update.i.ready)
            m.d.comb += self.i.ready.eq(~beat.last | taken)
        else:
            m.d.comb += [self.i.ready.eq(~beat.last | update.i.ready), update.i.valid.eq(ends)]
        *sums, recurrent = handed
        m.d.comb += [
            *(update.i.payload.sums[k].eq(total) for k, total in enumerate(sums)),
            update.i.payload.recurrent.eq(recurrent),
        ]
        # The update asks for the cell while it reads a unit's recurrent rows, so that the row's
        # number gives the unit.
        row = Signal(range(self._rows))
        with m.If(update.reads_row):
            m.d.sync += row.eq(Mux(row == self._rows - 1, 0, row + 1))
        m.d.comb += [
            self.row.eq(row),
            self.cell_address.eq(row[(self._rows // self.units - 1).bit_length() :]),
        ]
        for name in (
            "fresh",
            "start",
            "shift",
            "nonzero",
            "old_cell",
            "cell_integer_bits",
            "cell_clip",
        ):
            m.d.comb += getattr(update, name).eq(getattr(self, name))
        for name in ("reads_row", "reads_cell"):
            m.d.comb += getattr(self, name).eq(getattr(update, name))
        for name in ("cells", "o"):
            own, inner = getattr(self, name), getattr(update, name)
            m.d.comb += [
                own.valid.eq(inner.valid),
                own.payload.eq(inner.payload),
                inner.ready.eq(own.ready),
            ]
        return m
