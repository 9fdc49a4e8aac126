"""The sections of the image in the circuit, as memories and registers."""

from amaranth.hdl import Const, Module, Signal, Value, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory

from fewbit.hdl.layer.places import BYTE, Places

__all__ = ["ImageStore"]


class ImageStore:
    """The sections of an image that one component keeps, in memories and registers of its own.

    Parameters
    ----------
    places
        The layer's places. If the layer holds its image for good, the memories are initialised with
        it; otherwise they are written from the bus.
    bus
        The component's port of the signature `Places.bus`.
    """

    def __init__(self, places: Places, bus: wiring.PureInterface) -> None:
        self._places = places
        self._bus = bus
        self._sections = {section.name: section for section in places.plan.sections}
        image = places.contract.image
        self._held = None if image is None else places.plan.split(image)

    def memory(self, m: Module, name: str) -> Memory:
        """Add a memory, named as its section, that holds the section's words."""
        section = self._sections[name]
        init: list[int] = []
        if self._held is not None:
            init = [int.from_bytes(word.tobytes(), "little") for word in self._held[name]]
        memory = Memory(
            shape=unsigned(BYTE * section.word_bytes),
            # An address has at least one bit.
            depth=max(2, section.words),
            init=init,
        )
        m.submodules[name] = memory
        if self._held is None:
            writer = self._places.section(self._bus, name)
            writer.connect(m, memory.write_port(granularity=BYTE))
        return memory

    def registers(
        self,
        m: Module,
        name: str,
        first: int = 0,
        count: int | None = None,
        *,
        writable: bool = False,
    ) -> list[Value]:
        """Add registers for bytes of a section of one word, and return one value for each byte.

        Parameters
        ----------
        m
            The component's module.
        name
            The section.
        first, count
            The first byte, and the number of bytes; None for all that follow.
        writable
            Whether the component itself writes the registers, too. Otherwise the bytes are
            constants in a layer that holds its image for good.
        """
        size = self._sections[name].word_bytes
        places = range(first, size if count is None else first + count)
        if self._held is not None:
            held = [int(byte) for byte in self._held[name][0]]
            return [
                Signal(BYTE, name=f"{name}_{index}", init=held[index])
                if writable
                else Const(held[index], BYTE)
                for index in places
            ]
        writer = self._places.section(self._bus, name)
        registers: list[Value] = []
        for index in places:
            register = Signal(BYTE, name=f"{name}_{index}", reset_less=True)
            with m.If(writer.enable[index]):
                m.d.sync += register.eq(writer.data)
            registers.append(register)
        return registers
