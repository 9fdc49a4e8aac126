# amaranth: UnusedElaboratable=no
# A neuron that is never elaborated says so; that its parts are not either is no news.
"""The neuron of an integer LSTM's layer: lanes of products, followed by the update of a unit."""

from collections.abc import Mapping
from typing import Literal

from amaranth.hdl import (
    Cat,
    Const,
    EnableInserter,
    Module,
    Mux,
    Shape,
    ShapeLike,
    Signal,
    Value,
    signed,
)
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.lstm.integer_variant import IntegerVariant
from fewbit.hdl.accumulate.int8 import Int8Products
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.neuron.integer_update import IntegerUpdate, configuration_of
from fewbit.hdl.pipeline import Pipeline
from fewbit.hdl.structure import Structure

__all__ = ["IntegerLayerNeuron", "RowScales"]

_ASKED = ("asks", "raw", "is_sigmoid", "integer_bits")
"""The ports to an interpolation that neurons share."""

RowScales = Literal["shared", "any", "powers_of_two"]
"""The source of a row's scale: "shared" is a memory that all units share. Otherwise the scale comes
with the row, and may be any, or only a power of two."""


class IntegerLayerNeuron(wiring.Component):
    """The neuron of a layer: it turns the rows of one hidden unit after the other into results.

    It takes a beat a cycle. A row's sum goes to the update with its last beat, and the lanes sum up
    the next row while the update uses it. The lanes wait only where a row ends before there is
    room for its sum.

    Parameters
    ----------
    lanes
        Products in a beat, at least 1.
    waiting_rows
        Number of sums that can wait for the update in registers of their own, so that the lanes go
        on: from 0 to 3; 0 with a layer norm.
    products
        The lanes; by default lanes of int8 products.
    row_scales
        With "shared", the neuron asks for each scale by ``scale``. With the others, a row's scale
        comes with the row, and ``multiplier`` and ``shift`` are those of "hidden" alone.
    activation, chunk, variant, interpolates, structure, hidden_width, shares_activation,
    tells_output_gate
        The parameters of :class:`fewbit.hdl.neuron.integer_update.IntegerUpdate`.

    Ports
    -----
    i
        A beat: ``weights`` and ``activations`` of each lane; ``first`` and ``last``, which mark the
        ends of a row; ``start``, the row's start value, which counts with ``first``; any other
        ports of the lanes by their names, which always count; and ``old_cell`` and, if there are
        several, ``segment``, which count with ``last`` in the rows with which the update takes
        them. Unless scales are shared, ``start`` is a struct of the start ``value`` and the row's
        ``multiplier`` (its upper 24 bits, or for a power of two the highest alone) and ``shift``,
        which count with ``last``.
    scale, multiplier, shift, o, and the configuration
        The ports of the update.
    """

    def __init__(
        self,
        lanes: int,
        activation: ActivationKind = "table",
        chunk: int = 16,
        variant: IntegerVariant | None = None,
        *,
        interpolates: bool | None = None,
        structure: Structure = "gates",
        waiting_rows: int = 0,
        products: wiring.Component | None = None,
        row_scales: RowScales = "shared",
        hidden_width: int = 8,
        shares_activation: bool = False,
        tells_output_gate: bool = False,
    ) -> None:
        if waiting_rows not in range(4):
            raise ValueError(f"waiting_rows must be from 0 to 3, not {waiting_rows}.")
        if waiting_rows and variant is not None and variant.norm:
            raise ValueError("With a layer norm no rows can wait; leave waiting_rows at 0.")
        self.lanes = lanes
        self.waiting_rows = waiting_rows
        self.update = IntegerUpdate(
            activation,
            chunk,
            variant,
            interpolates=interpolates,
            structure=structure,
            hidden_width=hidden_width,
            shares_activation=shares_activation,
            tells_output_gate=tells_output_gate,
        )
        self.products: wiring.Component = products or Int8Products(lanes, structure)
        self.extras = {
            name: member.shape
            for name, member in self.products.signature.members.items()
            if name not in ("weights", "activations", "start", "total")
        }
        self.row_scales: RowScales = row_scales
        self.structure: Structure = structure
        self.activation = activation
        self.chunk = chunk
        self.variant = self.update.variant
        self.interpolates = self.update.interpolates
        beat: dict[str, ShapeLike] = {
            "weights": self.products.signature.members["weights"].shape,
            "activations": self.products.signature.members["activations"].shape,
            "first": 1,
            "last": 1,
            "start": signed(32),
            "old_cell": signed(16),
            **self.extras,
        }
        if row_scales == "any":
            beat["start"] = data.StructLayout(
                {"value": signed(32), "multiplier": 24, "shift": signed(6)}
            )
        elif row_scales == "powers_of_two":
            beat["start"] = data.StructLayout(
                {"value": signed(32), "shift": signed(6), "multiplier": 1}
            )
        if len(self.segments) > 1:
            beat["segment"] = Shape.cast(range(len(self.segments)))
        ports = self.update.signature.members
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(beat))),
                **{name: member for name, member in ports.items() if name != "i"},
            }
        )

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of the segments, in the order of their numbers."""
        return self.update.segments

    @property
    def scales(self) -> tuple[str, ...]:
        """The names of the scales, in the order of their numbers."""
        return self.update.scales

    def rows(self, segment: str) -> tuple[str, ...]:
        """Return the names of a segment's rows, in the order in which they are taken."""
        return self.update.rows(segment)

    def cell_row(self, segment: str) -> str | None:
        """Return the row of a segment that brings the old cell, or None if it needs none."""
        return self.update.cell_row(segment)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beat = self.i.payload

        # The lanes add to a running sum, which goes to the update with the last beat of a row.
        m.submodules.lanes = lanes = self.products  # pyright: ignore[reportArgumentType]
        update = self.update
        moves: Value = Const(1, 1)
        if update.shares_activation:
            moves = Signal(name="update_moves")
            m.submodules.update = EnableInserter(moves)(update)
            m.d.comb += [
                moves.eq(~update.asks | self.granted),
                *(getattr(self, name).eq(getattr(update, name)) for name in _ASKED),
                update.activated.eq(self.activated),
            ]
        else:
            m.submodules.update = update
        sum_so_far = Signal(lanes.signature.members["total"].shape, reset_less=True)
        row = update.i.payload
        shares = self.row_scales == "shared"
        start = beat.start if shares else beat.start.value
        ports = {"multiplier": self.multiplier, "shift": self.shift}
        m.d.comb += [
            lanes.weights.eq(beat.weights),
            lanes.activations.eq(beat.activations),
            lanes.start.eq(Mux(beat.first, start, sum_so_far)),
            *(getattr(lanes, name).eq(beat[name]) for name in self.extras),
            # The cell needs no waiting place: all rows that can be behind its row are of the same
            # unit, and come with the same cell.
            row.old_cell.eq(beat.old_cell),
            self.scale.eq(update.scale),
            *(getattr(update, name).eq(port) for name, port in ports.items() if shares),
            self.o.valid.eq(update.o.valid & moves if update.shares_activation else update.o.valid),
            self.o.payload.eq(update.o.payload),
            update.o.ready.eq(self.o.ready),
        ]
        update_is_ready = update.i.ready & moves if update.shares_activation else update.i.ready
        takes = wire(m, self.i.valid & self.i.ready, "takes")
        handed: dict[str, Value] = {"accumulator": lanes.total.as_signed()}
        if len(self.segments) > 1:
            handed["segment"] = beat.segment
        scale: dict[str, Value] = {}
        if not shares:
            scale = {"multiplier": beat.start.multiplier, "shift": beat.start.shift}
        handed |= scale
        if self.waiting_rows:
            pipeline = Pipeline(m, self.i.valid & beat.last)
            rows_are_taken = Signal()
            for _ in range(self.waiting_rows):
                handed = dict(zip(handed, pipeline.register(**handed), strict=True))
            pipeline.connect(rows_are_taken, update.i.valid, update_is_ready)
            m.d.comb += self.i.ready.eq(~beat.last | rows_are_taken)
        else:
            m.d.comb += [
                self.i.ready.eq(~beat.last | update_is_ready),
                update.i.valid.eq(self.i.valid & beat.last),
            ]
        of_row = {name: handed.pop(name) for name in scale}
        m.d.comb += [row[name].eq(value) for name, value in handed.items()]
        if not shares:
            self._connect_scale(m, of_row)
        for name in configuration_of(self.variant):
            m.d.comb += getattr(update, name).eq(getattr(self, name))
        with m.If(takes):
            m.d.sync += sum_so_far.eq(lanes.total)
        return m

    def _connect_scale(self, m: Module, of_row: Mapping[str, Value]) -> None:
        """Connect the update's scales: those that come with rows, and for "hidden" the ports."""
        update = self.update
        # Registers hold the scale of the row that the update has taken.
        takes = wire(m, update.i.valid & update.i.ready, "update_takes")
        is_hidden = wire(m, update.scale == update.scales.index("hidden"), "is_hidden")
        for name, value in of_row.items():
            kept = Signal(Shape.cast(value.shape()), name=f"row_{name}", reset_less=True)
            with m.If(takes):
                m.d.sync += kept.eq(value)
            port = getattr(self, name)
            # A multiplier with fewer bits has the highest ones; all others are 0.
            whole = kept if name == "shift" else Cat(Const(0, len(port) - len(kept)), kept)
            m.d.comb += getattr(update, name).eq(Mux(is_hidden, port, whole))
