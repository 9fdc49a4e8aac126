"""The integer LSTM's neuron: lanes of products, and the update of a unit behind them."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.activations import ActivationKind
from golden.neuron.int8 import Int8LstmNeuron as Contract
from hdl.accumulate.int8 import Int8Products
from hdl.formats import shape_of, stream_of
from hdl.neuron.int8_update import Int8Update

__all__ = ["Int8LstmNeuron", "default_chunk"]


def default_chunk(lanes: int, activation: ActivationKind) -> int:
    """Bits that the update's multiplier takes a cycle: as few as keep up with the lanes."""
    few, some = (4, 8) if activation == "table" else (1, 2)
    return 4 if lanes <= few else 8 if lanes <= some else 16


class Int8LstmNeuron(wiring.Component):
    """One hidden unit of the integer LSTM at a time, from its weights to its new state.

    Takes a beat a cycle. A row's accumulator is handed over with its last beat, so that the rows
    that follow add up while it is used; the lanes wait only where a row ends before the one
    before it has been used.

    Bit for bit :class:`golden.neuron.int8.Int8LstmNeuron`, which says what each port means.

    Parameters
    ----------
    lanes
        Products of a beat, from 1 to 64.
    activation
        "table" or "gemmlowp".
    chunk
        Bits of the other factor that the update's multiplier of 24 bits takes a cycle: 4, 8 or
        16; by default as few as keep up with the lanes where rows are long enough to pay.
    """

    def __init__(
        self,
        lanes: int = 16,
        activation: ActivationKind = "table",
        chunk: int | None = None,
    ) -> None:
        contract = Contract(lanes=lanes, activation=activation)
        if chunk is None:
            chunk = default_chunk(lanes, activation)
        if chunk not in (4, 8, 16):
            raise ValueError(f"chunk must be 4, 8 or 16, not {chunk}.")
        self.lanes = lanes
        self.activation: ActivationKind = activation
        self.chunk = chunk
        self._configuration = [field.name for field in contract.configuration]
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

        # The lanes: a running sum, handed over with the last beat of a row.
        m.submodules.lanes = lanes = Int8Products(self.lanes)
        sum_so_far = Signal(signed(32), reset_less=True)
        takes = Signal()
        m.submodules.update = update = Int8Update(self.activation, self.chunk)
        m.d.comb += [
            lanes.weights.eq(beat.weights),
            lanes.activations.eq(beat.activations),
            lanes.start.eq(Mux(beat.first, beat.bias, sum_so_far)),
            self.i.ready.eq(~beat.last | update.i.ready),
            takes.eq(self.i.valid & self.i.ready),
            update.i.valid.eq(self.i.valid & beat.last),
            update.i.payload.accumulator.eq(lanes.total),
            update.i.payload.multiplier.eq(beat.multiplier),
            update.i.payload.shift.eq(beat.shift),
            update.i.payload.old_cell.eq(beat.old_cell),
            self.o.valid.eq(update.o.valid),
            update.o.ready.eq(self.o.ready),
            self.o.payload.result.eq(update.o.payload.result),
            self.o.payload.cell_result.eq(update.o.payload.cell_result),
        ]
        m.d.comb += [getattr(update, name).eq(getattr(self, name)) for name in self._configuration]
        with m.If(takes):
            m.d.sync += sum_so_far.eq(lanes.total)
        return m
