"""Places for the bytes of packets: vectors, cells, counted passes, and sections of the image.

The front of a layer walks through these places byte by byte, and says on a bus where it is. Each
memory takes the bytes of its own place from that bus.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Generic, TypeVar

from amaranth.hdl import Cat, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.image import CHECKSUM_BYTES, Plan
from fewbit.golden.layer.packets import PASSES_SIZE, value_bytes
from fewbit.golden.layer.schedule import Schedule, chunks
from fewbit.hdl.memory_writer import Writer

__all__ = ["BYTE", "Place", "Places"]

BYTE = 8


class Place(IntEnum):
    """The numbers of the places; those of the image's sections follow from `IMAGE` on."""

    INPUT = 0
    HIDDEN = 1
    CELL = 2
    IMAGE = 3
    PASSES = 3
    """Only in a layer that counts passes, where the image's places begin one later."""


Layer_co = TypeVar("Layer_co", bound=LayerContract[Any], covariant=True)


@dataclass(frozen=True, eq=False)
class Places(Generic[Layer_co]):
    """All places of a layer, in the order in which a packet fills them.

    Parameters
    ----------
    contract
        The layer.
    activation_width, cell_width
        Bits of an input or a hidden value, and of a cell raw. Cells are whole bytes.
    registers
        Number of registers of one byte each that a packet may write when it asks for the state.
        Such a layer also counts passes, which follow the state in its answer.
    """

    contract: Layer_co
    activation_width: int
    cell_width: int
    registers: int = 0

    @property
    def schedule(self) -> Schedule:
        """The order of the layer's rows in a time step."""
        return self.contract.schedule

    @property
    def plan(self) -> Plan:
        """The plan of the layer's image."""
        return self.contract.plan

    @property
    def holds_image(self) -> bool:
        """Whether the circuit holds its image for good, so that no packet brings one."""
        return self.contract.image is not None

    @property
    def value_bytes(self) -> int:
        """Bytes of an input or a hidden value in a packet."""
        return value_bytes(self.activation_width)

    @property
    def cell_bytes(self) -> int:
        """Bytes of a cell."""
        return self.cell_width // BYTE

    @cached_property
    def ends(self) -> list[tuple[int, int, int]]:
        """For each place: the bytes of a word, the last word, and the last byte in that word."""
        schedule, size = self.schedule, self.value_bytes
        lanes, neurons = schedule.lanes, schedule.neurons
        places = [
            (lanes * size, (length - 1) // lanes, (length - 1) % lanes * size + size - 1)
            for length in (schedule.inputs, schedule.outputs)
        ]
        cells = schedule.hidden - 1
        size = self.cell_bytes
        places.append((neurons * size, cells // neurons, cells % neurons * size + size - 1))
        if self.registers:
            places.append((PASSES_SIZE, 0, PASSES_SIZE - 1))
        if not self.holds_image:
            sections = self.plan.sections
            places += [(each.word_bytes, each.words - 1, each.word_bytes - 1) for each in sections]
            places.append((CHECKSUM_BYTES, 0, CHECKSUM_BYTES - 1))
        return places

    @property
    def image(self) -> int:
        """The first place of the image."""
        return Place.IMAGE + bool(self.registers)

    @property
    def checksum(self) -> int:
        """The place of the image's checksum."""
        return len(self.ends) - 1

    @property
    def bus(self) -> wiring.Signature:
        """The signature of the bus, on which the front says which byte it takes, or sends.

        While ``writes`` is 1, the byte ``data`` goes to byte number ``byte`` of word ``word`` of
        place ``place``. While a state is sent, these three say which byte is sent. Where values
        have two bytes, ``low_byte`` is the byte that came before.
        """
        members = {
            "writes": Out(1),
            "place": Out(range(len(self.ends))),
            "word": Out(range(max(2, *(last + 1 for _, last, _ in self.ends)))),
            "byte": Out(range(max(2, *(size for size, _, _ in self.ends)))),
            "data": Out(BYTE),
        }
        if self.value_bytes > 1:
            members["low_byte"] = Out(BYTE)
        return wiring.Signature(members)

    @property
    def group(self) -> range:
        """The numbers of groups, of which there are at least two, so that a number has a bit."""
        return range(max(2, *map(self.schedule.groups, self.schedule.phases)))

    @property
    def new_value(self) -> data.StructLayout:
        """The layout of a new value and the place where it goes.

        ``value`` goes to place ``lane`` of word ``word`` of the new hidden vector, or of the inner
        vector, where ``to_hidden`` or ``to_inner`` is 1.
        """
        schedule = self.schedule
        words = chunks(max(schedule.hidden, schedule.outputs), schedule.lanes)
        return data.StructLayout(
            {
                "to_hidden": 1,
                "to_inner": 1,
                "word": range(max(2, words)),
                "lane": range(max(2, schedule.lanes)),
                "value": self.activation_width,
            }
        )

    @property
    def cells(self) -> data.ArrayLayout:
        """The layout of a group's cells, one of each neuron."""
        return data.ArrayLayout(unsigned(self.cell_width), self.schedule.neurons)

    @property
    def new_cells(self) -> data.StructLayout:
        """The layout of a group's new cells; ``enable`` has a bit for each neuron."""
        neurons = self.schedule.neurons
        return data.StructLayout({"enable": neurons, "group": self.group, "cell": self.cells})

    def begins(self, bus: wiring.PureInterface, place: int) -> Value:
        """Return whether the first byte of a place is written in this cycle."""
        return bus.writes & (bus.place == place) & ~bus.word.any() & ~bus.byte.any()

    def section(self, bus: wiring.PureInterface, name: str) -> Writer:
        """Return the writer of a section of the image, byte by byte."""
        names = [each.name for each in self.plan.sections]
        index = names.index(name)
        return self.bytes(bus, self.image + index, self.plan.sections[index].word_bytes)

    def values(self, bus: wiring.PureInterface, place: int) -> Writer:
        """Return the writer of a vector, value by value; a word has a value for each lane.

        A value of two bytes is written when the second one comes.
        """
        size, width = self.value_bytes, self.activation_width
        writer = self.bytes(bus, place, self.schedule.lanes * size, size)
        data = writer.data if size == 1 else Cat(bus.low_byte, writer.data)
        return Writer(writer.enable, writer.address, data[:width])

    def bytes(self, bus: wiring.PureInterface, place: int, size: int, step: int = 1) -> Writer:
        """Return the writer of a place whose words have `size` bytes.

        It has an enable for every byte, or with a `step` above 1 only for the last one of every so
        many neighbours.
        """
        here = bus.writes & (bus.place == place)
        enable = Cat(here & (bus.byte == index) for index in range(step - 1, size, step))
        return Writer(enable, bus.word, bus.data)
