"""Top modules: a component with one plain port for each operand, named as in its contract."""

from dataclasses import dataclass

from amaranth.back import rtlil
from amaranth.hdl import Cat, Fragment
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fewbit.golden.contract import Contract

__all__ = ["Port", "Top", "ports_of", "to_rtlil"]


@dataclass(frozen=True)
class Port:
    """A port of a generated Verilog module."""

    name: str
    width: int
    direction: str
    meaning: str
    format: str = "bit"
    lanes: int | None = None
    stream: str | None = None
    """The stream whose handshake marks when the port is valid: ``i``, ``o`` or None."""


def ports_of(contract: Contract) -> tuple[Port, ...]:
    """Return all ports of the module of a contract, in the order of the Verilog header."""
    ports = [
        Port("clk", 1, "input", "clock; all registers take the rising edge"),
        Port("rst", 1, "input", "synchronous reset, high for at least one cycle before use"),
    ]
    ports.extend(
        Port(operand.name, operand.width, "input", operand.meaning, operand.format.name)
        for operand in contract.configuration
    )
    for stream, operands, forward, backward in (
        ("i", contract.operands, "input", "output"),
        ("o", contract.results, "output", "input"),
    ):
        valid, ready = contract.handshakes[stream]
        ports.append(Port(valid, 1, forward, "the beat counts", stream=stream))
        ports.append(Port(ready, 1, backward, "the beat is taken", stream=stream))
        ports.extend(
            Port(
                operand.name,
                operand.width,
                forward,
                operand.meaning,
                operand.format.name,
                operand.lanes,
                stream,
            )
            for operand in operands
        )
    return tuple(ports)


class Top(wiring.Component):
    """A component with streams ``i`` and ``o``, wrapped with a plain port for each operand.

    The component's statements become the module's own, so that no level of hierarchy is added.
    """

    def __init__(self, component: wiring.Component, contract: Contract) -> None:
        self.component = component
        self.contract = contract
        super().__init__(
            {
                port.name: (In if port.direction == "input" else Out)(port.width)
                for port in ports_of(contract)
                if port.name not in ("clk", "rst")
            }
        )

    def elaborate(self, platform: object) -> Fragment:
        # As no submodule, whatever the component elaborates to.
        fragment = Fragment.get(self.component, platform)
        inner = self.component
        i_valid, i_ready, o_valid, o_ready = (
            getattr(self, name) for stream in "io" for name in self.contract.handshakes[stream]
        )
        fragment.add_statements(
            "comb",
            inner.i.payload.eq(Cat(getattr(self, field.name) for field in self.contract.operands)),
            inner.i.valid.eq(i_valid),
            i_ready.eq(inner.i.ready),
            Cat(getattr(self, field.name) for field in self.contract.results).eq(inner.o.payload),
            o_valid.eq(inner.o.valid),
            inner.o.ready.eq(o_ready),
            *(
                getattr(inner, field.name).eq(getattr(self, field.name))
                for field in self.contract.configuration
            ),
        )
        return fragment


def to_rtlil(component: wiring.Component, contract: Contract, name: str) -> str:
    """Return the RTLIL text of a component wrapped by :class:`Top`, the same every time."""
    return rtlil.convert(Top(component, contract), name=name, emit_src=False)
