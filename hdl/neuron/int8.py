# amaranth: UnusedElaboratable=no
# A neuron that is never elaborated says so; that its parts are not either is no news.
"""The neuron of the plain integer LSTM by itself: each row's scale comes with the row."""

from amaranth.hdl import (
    Module,
    Signal,
    signed,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.neuron.int8 import Int8LstmNeuronContract
from fewbit.hdl.formats import shape_of, stream_of
from fewbit.hdl.neuron.integer import IntegerLayerNeuron
from fewbit.hdl.structure import Structure

__all__ = ["Int8LstmNeuron", "default_chunk"]


def default_chunk(lanes: int, activation: ActivationKind) -> int:
    """Return the smallest chunk of the update's multiplier that keeps up with the lanes."""
    few, some = (4, 8) if activation == "table" else (1, 2)
    return 4 if lanes <= few else 8 if lanes <= some else 16


class Int8LstmNeuron(wiring.Component):
    """The integer LSTM's neuron by itself: one hidden unit at a time, from weights to new state.

    It is an :class:`IntegerLayerNeuron` of the plain LSTM, which takes a beat a cycle, with
    registers for the scale that comes with each row.

    Bit for bit :class:`fewbit.golden.neuron.int8.Int8LstmNeuronContract`, which says what each port
    means.

    Parameters
    ----------
    contract
        The neuron's parameters; None for the usual ones.
    chunk
        Bits of the second factor that the update's multiplier takes a cycle: 4, 8 or 16. The first
        has 24. By default as few as keep up with the lanes in rows of a usual length.
    interpolates, structure
        The parameters of :class:`fewbit.hdl.neuron.integer_update.IntegerUpdate`.
    """

    def __init__(
        self,
        contract: Int8LstmNeuronContract | None = None,
        chunk: int | None = None,
        *,
        interpolates: bool = False,
        structure: Structure = "gates",
    ) -> None:
        self.contract = contract = contract or Int8LstmNeuronContract()
        lanes, activation = contract.lanes, contract.activation
        if chunk is None:
            chunk = default_chunk(lanes, activation)
        if chunk not in (4, 8, 16):
            raise ValueError(f"chunk must be 4, 8 or 16, not {chunk}.")
        self.lanes = lanes
        self.activation: ActivationKind = activation
        self.chunk = chunk
        self.neuron = IntegerLayerNeuron(
            lanes, activation, chunk, interpolates=interpolates, structure=structure
        )
        super().__init__(
            {
                "i": In(stream_of(contract.operands)),
                "o": Out(stream_of(contract.results)),
                **{field.name: In(shape_of(field.format)) for field in contract.configuration},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload
        m.submodules.neuron = neuron = self.neuron
        m.d.comb += [
            neuron.i.payload.weights.eq(beat.weights),
            neuron.i.payload.activations.eq(beat.activations),
            neuron.i.payload.first.eq(beat.first),
            neuron.i.payload.last.eq(beat.last),
            neuron.i.payload.start.eq(beat.bias),
            neuron.i.payload.old_cell.eq(beat.old_cell),
            neuron.i.valid.eq(self.i.valid),
            self.i.ready.eq(neuron.i.ready),
            neuron.cell_integer_bits.eq(self.cell_integer_bits),
            neuron.cell_clip.eq(self.cell_clip),
            neuron.hidden_offset.eq(self.hidden_zero_point),
            self.o.payload.result.eq(neuron.o.payload.result),
            self.o.payload.cell_result.eq(neuron.o.payload.cell_result),
            self.o.valid.eq(neuron.o.valid),
            neuron.o.ready.eq(self.o.ready),
        ]

        # Registers hold the scale of the row that the update has taken.
        multiplier = Signal(24, reset_less=True)
        shift = Signal(signed(6), reset_less=True)
        with m.If(self.i.valid & self.i.ready & beat.last):
            m.d.sync += [multiplier.eq(beat.multiplier), shift.eq(beat.shift)]
        of_row = neuron.scale != neuron.scales.index("hidden")
        with m.If(of_row):
            m.d.comb += [neuron.multiplier.eq(multiplier), neuron.shift.eq(shift)]
        with m.Else():
            m.d.comb += [
                neuron.multiplier.eq(self.hidden_multiplier),
                neuron.shift.eq(-self.hidden_shift),
            ]
        return m
