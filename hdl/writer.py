"""Values on their way into the words of a memory."""

from dataclasses import dataclass

from amaranth.hdl import Module, Value
from amaranth.lib.memory import WritePort

__all__ = ["Writer"]


@dataclass(frozen=True)
class Writer:
    """A value that is written into one place of a word, or into several."""

    enable: Value
    """A bit for each place of a word, which is 1 where the value is written now."""
    address: Value
    """The word."""
    data: Value
    """The value."""

    def connect(self, m: Module, port: WritePort) -> None:
        """Drive a write port whose granularity is a value."""
        m.d.comb += [
            port.addr.eq(self.address),
            port.data.eq(self.data.replicate(len(port.en))),
            port.en.eq(self.enable),
        ]
