"""The component that sends a layer's answers: packets, one after the other on one stream."""

from amaranth.hdl import Module, Mux, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.packets import RESULTS, Reply, Status
from fewbit.hdl.formats import stream_of
from fewbit.hdl.layer.collect import byte_of
from fewbit.hdl.layer.feed import masked
from fewbit.hdl.layer.places import BYTE, Place, Places
from fewbit.hdl.selection import bits_of

__all__ = ["Answer"]


class Answer(wiring.Component):
    """Sends a status, a byte of the state, or else the hidden values of the time step in progress.

    It only chooses between these, and stores nothing: a byte leaves in the cycle in which it is
    offered.

    Parameters
    ----------
    places
        The layer's places.

    Ports
    -----
    o
        Packets, see :mod:`fewbit.golden.layer.packets`.
    hidden
        Bytes of new hidden values; ``last`` is 1 with the vector's last.
    offers_status, status, offers_state, is_whole
        See :class:`fewbit.hdl.layer.front.Front`.
    bus
        The place of the byte of the state, see `Places.bus`.
    fresh, reset_hidden
        Whether the state is that at reset; its hidden values are then ``reset_hidden``, and its
        cells 0.
    saved_hidden, saved_cell, passes
        Parts of the state, each at the place that the bus named in the cycle before: the word of
        hidden values, the byte of a cell, and the byte of the counted passes.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        super().__init__(
            {
                "o": Out(stream_of(RESULTS)),
                "hidden": In(stream.Signature(data.StructLayout({"data": BYTE, "last": 1}))),
                "offers_status": In(1),
                "status": In(Status),
                "offers_state": In(1),
                "is_whole": In(1),
                "bus": In(places.bus),
                "fresh": In(1),
                "reset_hidden": In(places.activation_width),
                "saved_hidden": In(places.activation_width * places.schedule.lanes),
                "saved_cell": In(BYTE),
                "passes": In(BYTE),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, bus, out = self.places, self.bus, self.o.payload
        width, count = places.activation_width, places.value_bytes
        lane = bus.byte[count - 1 :][: bits_of(places.schedule.lanes)]
        saved: Value = self.saved_hidden.word_select(lane, width)
        reset: Value = self.reset_hidden
        if width != BYTE:
            saved, reset = byte_of(saved, bus.byte[0]), byte_of(reset, bus.byte[0])
        state: Value = Mux(
            bus.place == Place.CELL,
            masked(self.saved_cell, ~self.fresh),
            Mux(self.fresh, reset, saved),
        )
        kind: Value | int = Reply.STATE
        if places.registers:
            is_passes = bus.place == Place.PASSES
            state = Mux(is_passes, self.passes, state)
            kind = Mux(is_passes, Reply.PASSES, Reply.STATE)
        with m.If(self.offers_status):
            m.d.comb += [
                self.o.valid.eq(1),
                out.m_axis_tdata.eq(self.status),
                out.m_axis_tlast.eq(1),
                out.m_axis_tdest.eq(Reply.STATUS),
            ]
        with m.Elif(self.offers_state):
            m.d.comb += [
                self.o.valid.eq(1),
                out.m_axis_tdata.eq(state),
                out.m_axis_tlast.eq(self.is_whole),
                out.m_axis_tdest.eq(kind),
            ]
        with m.Else():
            m.d.comb += [
                self.o.valid.eq(self.hidden.valid),
                out.m_axis_tdata.eq(self.hidden.payload.data),
                out.m_axis_tlast.eq(self.hidden.payload.last),
                out.m_axis_tdest.eq(Reply.HIDDEN),
            ]
        m.d.comb += self.hidden.ready.eq(self.o.ready)
        return m
