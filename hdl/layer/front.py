"""The front of a layer: packets in, their bytes to memories, and what they ask for."""

from enum import IntEnum, auto
from functools import reduce
from operator import xor

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring

from fewbit.golden.layer.image import CHECKSUM_BYTES, Plan
from fewbit.golden.layer.packets import PASSES_SIZE, Kind, Status
from fewbit.golden.layer.schedule import Schedule
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.image import BYTE, Writer
from fewbit.hdl.layer.selection import case

__all__ = ["Front", "Place"]


class _State(IntEnum):
    """What the front does."""

    DISPATCH = 0
    TAKE = auto()
    STATUS = auto()
    SAVE_READ = auto()
    SAVE_SEND = auto()


class Place(IntEnum):
    """Where bytes of a packet go, besides the sections of the image, which follow."""

    INPUT = 0
    HIDDEN = 1
    CELL = 2
    IMAGE = 3
    PASSES = 3
    """In a layer that counts passes; the image's places follow it there."""


class Front:
    """Takes packets one by one, and keeps what they leave behind beside the memories.

    Adds its logic to a module. The engine drives ``idle`` and ``answered``, and clears ``full`` and
    ``fresh`` when a step ends.

    Parameters
    ----------
    m
        The module.
    i
        The stream of packets.
    schedule, plan
        Of the layer.
    cell_bytes, value_bytes
        Of a cell raw, and of an input or a hidden value.
    holds_image
        Whether the parameters are inside the circuit.
    registers
        Registers of a byte each that a packet which asks for the state may write. With any, the
        passes follow the state.
    can_be_held_off
        Whether the engine drives ``held_off``.
    """

    def __init__(
        self,
        m: Module,
        i: wiring.PureInterface,
        schedule: Schedule,
        plan: Plan,
        cell_bytes: int,
        value_bytes: int = 1,
        *,
        holds_image: bool,
        registers: int = 0,
        can_be_held_off: bool = False,
    ) -> None:
        self._sizes = {section.name: section.word_bytes for section in plan.sections}
        self.loaded = Const(1, 1) if holds_image else Signal(name="loaded")
        self.fresh = Signal(init=holds_image, name="fresh")
        """The state is that at reset, whatever the memories hold."""
        self.full = Signal(2, name="full")
        """Which page of the input memory holds a vector to be used."""
        self.starts = Signal(2, name="starts")
        """Which page's vector starts a sequence."""
        self.write_page = Signal(name="write_page")
        self.idle = idle = Signal(name="idle")
        """No vector waits, no step is in progress."""
        self.answered = Signal(name="answered")
        """The byte that is offered as status or state is taken."""
        self.held_off = Signal(name="held_off") if can_be_held_off else None
        """No byte can be taken in this cycle."""
        lanes, neurons = schedule.lanes, schedule.neurons
        # For each place: bytes of a word, and the last byte of the last word.
        places: list[tuple[int, int, int]] = [
            *(
                (
                    lanes * value_bytes,
                    (length - 1) // lanes,
                    (length - 1) % lanes * value_bytes + value_bytes - 1,
                )
                for length in (schedule.inputs, schedule.outputs)
            ),
            (
                neurons * cell_bytes,
                (schedule.hidden - 1) // neurons,
                (schedule.hidden - 1) % neurons * cell_bytes + cell_bytes - 1,
            ),
        ]
        if registers:
            places.append((PASSES_SIZE, 0, PASSES_SIZE - 1))
        image_place = len(places)
        if not holds_image:
            places += [(s.word_bytes, s.words - 1, s.word_bytes - 1) for s in plan.sections]
            places.append((CHECKSUM_BYTES, 0, CHECKSUM_BYTES - 1))
        checksum = len(places) - 1
        self._sections = {
            section.name: image_place + index for index, section in enumerate(plan.sections)
        }
        self.place = place = Signal(range(len(places)), reset_less=True)
        self.word = word = Signal(range(max(2, *(end + 1 for _, end, _ in places))))
        self.byte = byte = Signal(range(max(2, *(size for size, _, _ in places))))
        is_last_byte_of_word = Signal()
        is_at_end = Signal()
        with m.Switch(place):
            for index, (size, last_word, last_byte) in enumerate(places):
                with case(m, index, places):
                    m.d.comb += [
                        is_last_byte_of_word.eq(byte == size - 1),
                        is_at_end.eq((word == last_word) & (byte == last_byte)),
                    ]
        ends = (Place.INPUT, Place.CELL, *((Place.PASSES,) if registers else ()), checksum)
        is_last_place = wire(m, place.matches(*ends), "is_last_place")
        self.is_whole = is_whole = wire(m, is_at_end & is_last_place, "is_whole")
        complete = Signal()
        state = Signal(_State)
        kind = Signal(Kind)
        self.status = status = Signal(Status)
        self.offers_status = wire(m, (state == _State.STATUS) & idle, "offers_status")
        """What is still to come of the steps before goes first."""
        self.offers_state = wire(m, state == _State.SAVE_SEND, "offers_state")
        beat = i.payload
        self.data = beat.s_axis_tdata
        checks = Signal(16)
        next_checks = wire(m, _crc(checks, self.data), "next_checks")
        can_take_byte = state == _State.TAKE
        if self.held_off is not None:
            can_take_byte &= ~self.held_off
        takes = wire(m, can_take_byte & i.valid, "takes")
        self.writes = wire(m, takes & ~complete, "writes")
        self.saves = wire(m, state == _State.SAVE_READ, "saves")
        self._value_bytes = value_bytes
        self._lanes = lanes
        if value_bytes > 1:
            self._low_byte = Signal(BYTE, name="low_byte", reset_less=True)
            with m.If(takes):
                m.d.sync += self._low_byte.eq(self.data)
        # The next byte of the places: taken now, or sent.
        moves_on = Signal()
        m.d.comb += i.ready.eq(can_take_byte)

        with m.If(moves_on):
            m.d.sync += byte.eq(byte + 1)
            with m.If(is_last_byte_of_word):
                m.d.sync += [byte.eq(0), word.eq(word + 1)]
            with m.If(is_at_end):
                m.d.sync += [byte.eq(0), word.eq(0), place.eq(place + 1)]

        self.register_writes = Const(0)
        if registers:
            # The bytes behind the first of a packet that asks for the state.
            asks = wire(m, takes & (kind == Kind.SAVE_STATE), "asks")
            self.register_writes = Cat(asks & (byte == 1 + index) for index in range(registers))
            m.d.comb += moves_on.eq(takes & ~(asks & (byte == 1 + registers)))
        else:
            m.d.comb += moves_on.eq(takes)
        with m.If(state == _State.DISPATCH):
            new_kind = beat.s_axis_tdest
            is_input = new_kind == Kind.INPUT
            m.d.sync += [
                kind.eq(new_kind),
                word.eq(0),
                byte.eq(0),
                # The byte that asks for the state is none of the state's.
                complete.eq(
                    (new_kind == Kind.SAVE_STATE) | ((new_kind == Kind.IMAGE) & Const(holds_image))
                ),
                checks.eq(0xFFFF),
            ]
            with m.If(is_input):
                m.d.sync += place.eq(Place.INPUT)
            with m.Elif(new_kind == Kind.IMAGE):
                m.d.sync += place.eq(0 if holds_image else image_place)
            if registers:
                with m.Elif(new_kind == Kind.SAVE_STATE):
                    m.d.sync += place.eq(Place.PASSES)
            with m.Else():
                m.d.sync += place.eq(Place.HIDDEN)
            can_take = Mux(is_input, ~self.full.bit_select(self.write_page, 1), idle)
            with m.If(i.valid & can_take):
                m.d.sync += state.eq(_State.TAKE)
                if not holds_image:
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
                    if holds_image:
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

    def begins(self, place: int) -> Value:
        """Whether the first byte of a place is written."""
        return self.writes & (self.place == place) & ~self.word.any() & ~self.byte.any()

    def writer(self, section: str) -> Writer:
        """Bytes of a section of the image."""
        return self.bytes_of(self._sections[section], self._sizes[section])

    def values_of(self, place: int, width: int) -> Writer:
        """Values of a vector's place: words of one of so many bits for each lane.

        A value of two bytes is written with its second one.
        """
        count = self._value_bytes
        writer = self.bytes_of(place, self._lanes * count, count)
        if count == 1:
            return Writer(writer.enable, writer.address, writer.data[:width])
        return Writer(writer.enable, writer.address, Cat(self._low_byte, writer.data)[:width])

    def bytes_of(self, place: int, size: int, step: int = 1) -> Writer:
        """Bytes of a place's words, of so many bytes each; of so many neighbours the last only."""
        here = self.writes & (self.place == place)
        enable = Cat(here & (self.byte == index) for index in range(step - 1, size, step))
        return Writer(enable, self.word, self.data)


def _crc(checks: Value, data: Value) -> Value:
    """CRC-16 (0x1021, highest bit first) after one more byte."""
    # Each bit of the new word is a sum modulo 2 of bits of the old one and of the byte.
    bits = [*checks, *data]
    terms = [_crc_of(1 << index if index < 16 else 0, index - 16) for index in range(len(bits))]
    return Cat(
        reduce(xor, (bit for bit, term in zip(bits, terms, strict=True) if term >> place & 1))
        for place in range(16)
    )


def _crc_of(checks: int, data_bit: int) -> int:
    """The new word where one bit of the old one, or of the byte, is set."""
    for index in reversed(range(BYTE)):
        feedback = checks >> 15 ^ (index == data_bit)
        checks = (checks << 1 & 0xFFFF) ^ (0x1021 if feedback else 0)
    return checks
