"""Where the image goes: memories and registers, written by a stream or fixed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy.typing as npt
from amaranth.hdl import Const, Module, Signal, Value, unsigned
from amaranth.lib.memory import Memory, WritePort

from fewbit.golden.layer.image import Plan

__all__ = ["BYTE", "ImageStore", "Writer"]

BYTE = 8


@dataclass(frozen=True)
class Writer:
    """Bytes on their way from the stream into words of a memory."""

    enable: Value
    """A bit for each byte of a word: this one is written now."""
    address: Value
    """The word."""
    data: Value
    """The byte."""

    def connect(self, m: Module, port: WritePort) -> None:
        """Drive a write port of a memory whose words are whole bytes."""
        m.d.comb += [
            port.addr.eq(self.address),
            port.data.eq(self.data.replicate(len(port.en))),
            port.en.eq(self.enable),
        ]


class ImageStore:
    """The sections of an image in the circuit.

    Parameters
    ----------
    plan
        The image's plan.
    held
        Bytes of each section, shape (words, bytes of a word), which the memories hold for good;
        None where the stream writes them.
    writer
        The stream's bytes of a section.
    """

    def __init__(
        self,
        plan: Plan,
        held: Mapping[str, npt.NDArray] | None,
        writer: Callable[[str], Writer],
    ) -> None:
        self._sections = {section.name: section for section in plan.sections}
        self._held = held
        self._writer = writer

    def memory(self, m: Module, name: str) -> Memory:
        """A memory, named as its section, that holds the section's words."""
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
            self._writer(name).connect(m, memory.write_port(granularity=BYTE))
        return memory

    def registers(self, m: Module, name: str, writable: int = 0) -> list[Value]:
        """The bytes of a section of one word, all at once.

        So many of the last ones are registers, whether the memories are fixed or not.
        """
        if self._held is not None:
            held = [int(byte) for byte in self._held[name][0]]
            constant = len(held) - writable
            return [
                Const(byte, BYTE)
                if index < constant
                else Signal(BYTE, name=f"{name}_{index}", init=byte)
                for index, byte in enumerate(held)
            ]
        writer = self._writer(name)
        registers: list[Value] = []
        for index in range(self._sections[name].word_bytes):
            register = Signal(BYTE, name=f"{name}_{index}", reset_less=True)
            with m.If(writer.enable[index]):
                m.d.sync += register.eq(writer.data)
            registers.append(register)
        return registers
