"""The front of a layer: it takes packets, and puts their bytes on a bus."""

from enum import IntEnum, auto
from functools import reduce
from operator import xor

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.layer.packets import OPERANDS, Kind, Status
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.formats import stream_of
from fewbit.hdl.layer.places import BYTE, Place, Places
from fewbit.hdl.selection import case

__all__ = ["Front"]


class _State(IntEnum):
    """The states of the front: it takes a packet, or answers one."""

    DISPATCH = 0
    TAKE = auto()
    STATUS = auto()
    SAVE_READ = auto()
    SAVE_SEND = auto()


class Front(wiring.Component):
    """Takes packets one by one, puts their bytes on a bus, and asks for their answers.

    It takes a byte a cycle: an input vector's once a page is free, any other packet's once the
    layer is idle. Between two packets a cycle passes.

    Parameters
    ----------
    places
        The layer's places, which packets fill.

    Ports
    -----
    i
        Packets, see :mod:`fewbit.golden.layer.packets`.
    bus
        The byte that is taken, or the place of the one that is sent, see `Places.bus`.
    full, starts
        For each page of the input vector: whether it holds a vector that is not used up yet, and
        whether that vector starts a sequence.
    write_page
        The page to which the next input vector goes.
    fresh
        Whether the state is that at reset, whatever the memories hold.
    loaded
        Whether the layer has a complete image.
    page, ends
        Where ``ends`` is 1, a time step ends in this cycle; ``page`` is the page that it used.
    idle
        Whether no input vector waits, and no time step is in progress.
    held_off
        Whether no byte can be taken in this cycle.
    offers_status, status, offers_state, answered
        Whether a status is to be sent, and which; whether a byte of the state is to be sent; and
        whether either is taken in this cycle.
    is_whole
        Whether the byte on the bus is the last of its packet.
    saves
        Whether the word on the bus is to be read from the state's memories.
    register_writes
        For each register: whether it takes the byte ``data`` on the bus.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        super().__init__(
            {
                "i": In(stream_of(OPERANDS)),
                "bus": Out(places.bus),
                "full": Out(2),
                "starts": Out(2),
                "write_page": Out(1),
                "fresh": Out(1, init=int(places.holds_image)),  # pyright: ignore[reportCallIssue]
                "loaded": Out(1),
                "page": In(1),
                "ends": In(1),
                "idle": In(1),
                "held_off": In(1),
                "offers_status": Out(1),
                "status": Out(Status),
                "offers_state": Out(1),
                "answered": In(1),
                "is_whole": Out(1),
                "saves": Out(1),
                "register_writes": Out(max(1, places.registers)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places, i, idle = self.places, self.i, self.idle
        registers, is_whole, status = places.registers, self.is_whole, self.status
        word, byte = self.bus.word, self.bus.byte
        place = Signal(range(len(places.ends)), reset_less=True)
        m.d.comb += self.bus.place.eq(place)
        if places.holds_image:
            m.d.comb += self.loaded.eq(1)
        is_last_byte_of_word = Signal()
        is_at_end = Signal()
        with m.Switch(place):
            for index, (size, last_word, last_byte) in enumerate(places.ends):
                with case(m, index, places.ends):
                    m.d.comb += [
                        is_last_byte_of_word.eq(byte == size - 1),
                        is_at_end.eq((word == last_word) & (byte == last_byte)),
                    ]
        ends = (Place.INPUT, Place.CELL, *((Place.PASSES,) if registers else ()), places.checksum)
        is_last_place = wire(m, place.matches(*ends), "is_last_place")
        complete = Signal()
        state = Signal(_State)
        kind = Signal(Kind)
        beat = i.payload
        data = beat.s_axis_tdata
        checks = Signal(16)
        next_checks = wire(m, _crc(checks, data), "next_checks")
        can_take_byte = (state == _State.TAKE) & ~self.held_off
        takes = wire(m, can_take_byte & i.valid, "takes")
        m.d.comb += [
            is_whole.eq(is_at_end & is_last_place),
            # Hidden values of time steps in progress leave before a status.
            self.offers_status.eq((state == _State.STATUS) & idle),
            self.offers_state.eq(state == _State.SAVE_SEND),
            self.saves.eq(state == _State.SAVE_READ),
            self.bus.writes.eq(takes & ~complete),
            self.bus.data.eq(data),
            i.ready.eq(can_take_byte),
        ]
        if places.value_bytes > 1:
            low_byte = Signal(BYTE, reset_less=True)
            m.d.comb += self.bus.low_byte.eq(low_byte)
            with m.If(takes):
                m.d.sync += low_byte.eq(data)
        # The walk through the places: the next byte, when this one is taken or sent.
        moves_on = Signal()
        with m.If(moves_on):
            m.d.sync += byte.eq(byte + 1)
            with m.If(is_last_byte_of_word):
                m.d.sync += [byte.eq(0), word.eq(word + 1)]
            with m.If(is_at_end):
                m.d.sync += [byte.eq(0), word.eq(0), place.eq(place + 1)]

        if registers:
            # In a packet that asks for the state, the bytes after the first write registers.
            asks = wire(m, takes & (kind == Kind.SAVE_STATE), "asks")
            writes = Cat(asks & (byte == 1 + index) for index in range(registers))
            m.d.comb += [
                self.register_writes.eq(writes),
                moves_on.eq(takes & ~(asks & (byte == 1 + registers))),
            ]
        else:
            m.d.comb += moves_on.eq(takes)
        with m.If(state == _State.DISPATCH):
            new_kind = beat.s_axis_tdest
            is_input = new_kind == Kind.INPUT
            m.d.sync += [
                kind.eq(new_kind),
                word.eq(0),
                byte.eq(0),
                # No byte goes to a place if the packet only asks for the state, or brings an image
                # to a layer that holds one for good.
                complete.eq(
                    (new_kind == Kind.SAVE_STATE)
                    | ((new_kind == Kind.IMAGE) & Const(places.holds_image))
                ),
                checks.eq(0xFFFF),
            ]
            with m.If(is_input):
                m.d.sync += place.eq(Place.INPUT)
            with m.Elif(new_kind == Kind.IMAGE):
                m.d.sync += place.eq(0 if places.holds_image else places.image)
            if registers:
                with m.Elif(new_kind == Kind.SAVE_STATE):
                    m.d.sync += place.eq(Place.PASSES)
            with m.Else():
                m.d.sync += place.eq(Place.HIDDEN)
            can_take = Mux(is_input, ~self.full.bit_select(self.write_page, 1), idle)
            with m.If(i.valid & can_take):
                m.d.sync += state.eq(_State.TAKE)
                if not places.holds_image:
                    with m.If(new_kind == Kind.IMAGE):
                        m.d.sync += self.loaded.eq(0)
        with m.Elif(state == _State.TAKE):
            with m.If(takes):
                m.d.sync += [checks.eq(next_checks), complete.eq(complete | is_whole)]
            with m.If(takes & beat.s_axis_tlast):
                has_length = wire(m, is_whole & ~complete, "has_length")
                m.d.sync += [
                    state.eq(_State.DISPATCH),
                    status.eq(Status.WRONG_LENGTH),
                ]
                with m.If(kind == Kind.IMAGE):
                    m.d.sync += state.eq(_State.STATUS)
                    if places.holds_image:
                        m.d.sync += status.eq(Status.IMAGE_INSIDE)
                    else:
                        is_right = wire(m, ~next_checks.any(), "is_right")
                        m.d.sync += [
                            self.loaded.eq(has_length & is_right),
                            self.fresh.eq(1),
                        ]
                        with m.If(has_length):
                            m.d.sync += status.eq(Mux(is_right, Status.LOADED, Status.BROKEN_IMAGE))
                with m.Elif(~self.loaded):
                    m.d.sync += [
                        state.eq(_State.STATUS),
                        status.eq(Status.NO_IMAGE),
                    ]
                with m.Elif(kind == Kind.SAVE_STATE):
                    m.d.sync += [
                        state.eq(_State.SAVE_READ),
                        place.eq(Place.HIDDEN),
                        word.eq(0),
                        byte.eq(0),
                    ]
                with m.Elif(kind == Kind.LOAD_STATE):
                    m.d.sync += self.fresh.eq(~has_length)
                    with m.If(~has_length):
                        m.d.sync += state.eq(_State.STATUS)
                with m.Elif(has_length):
                    m.d.sync += [
                        self.full.bit_select(self.write_page, 1).eq(1),
                        self.starts.bit_select(self.write_page, 1).eq(beat.s_axis_tuser),
                        self.write_page.eq(~self.write_page),
                    ]
                with m.Else():
                    m.d.sync += state.eq(_State.STATUS)
        # Answers come in the order of the packets.
        with m.Elif(self.offers_status & self.answered):
            m.d.sync += state.eq(_State.DISPATCH)
        with m.Elif(self.saves):
            m.d.sync += state.eq(_State.SAVE_SEND)
        with m.Elif(self.offers_state & self.answered):
            m.d.comb += moves_on.eq(1)
            is_answered: Value = is_whole
            if registers:
                is_answered = is_whole & (place == Place.PASSES)
            m.d.sync += state.eq(Mux(is_answered, _State.DISPATCH, _State.SAVE_READ))
        with m.If(self.ends):
            m.d.sync += [self.full.bit_select(self.page, 1).eq(0), self.fresh.eq(0)]
        return m


def _crc(checks: Value, data: Value) -> Value:
    """Return the CRC-16 (0x1021, highest bit first) after one more byte."""
    # Each bit of the new word is a sum modulo 2 of bits of the old one and of the byte.
    bits = [*checks, *data]
    terms = [_crc_of(1 << index if index < 16 else 0, index - 16) for index in range(len(bits))]
    return Cat(
        reduce(xor, (bit for bit, term in zip(bits, terms, strict=True) if term >> place & 1))
        for place in range(16)
    )


def _crc_of(checks: int, data_bit: int) -> int:
    """Return the new CRC if just one bit is set, of the old CRC or of the byte."""
    for index in reversed(range(BYTE)):
        feedback = checks >> 15 ^ (index == data_bit)
        checks = (checks << 1 & 0xFFFF) ^ (0x1021 if feedback else 0)
    return checks
