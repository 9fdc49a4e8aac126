"""The connection of a value to the write port of a memory whose words hold several values."""

from dataclasses import dataclass

from amaranth.hdl import Module, Value
from amaranth.lib.memory import WritePort

__all__ = ["Writer"]


@dataclass(frozen=True)
class Writer:
    """The signals that write a value into one place of a memory's word, or into several."""

    enable: Value
    """A bit for each place of a word, which is 1 where the value is written now."""
    address: Value
    """The address of the word."""
    data: Value
    """The value, which is the same for every place."""

    def connect(self, m: Module, port: WritePort) -> None:
        """Drive a write port, whose granularity must be one value."""
        m.d.comb += [
            port.addr.eq(self.address),
            port.data.eq(self.data.replicate(len(port.en))),
            port.en.eq(self.enable),
        ]
