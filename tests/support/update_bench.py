# amaranth: UnusedElaboratable=no
"""The int8 update as a design of its own, with its scales in ports that hold still."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amaranth.hdl import Module, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.contract import Contract
from fewbit.golden.formats import INT8, INT16, INT32, FixedPoint
from fewbit.golden.lstm.integer_variant import IntegerVariant
from fewbit.golden.operands import Operand
from fewbit.hdl.design import Design, Timing
from fewbit.hdl.neuron.integer_update import IntegerUpdate, configuration_of
from fewbit.hdl.structure import Structure
from fewbit.sim.bulk import BulkSimulation
from fewbit.sim.verilog import verilog_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["FORMATS", "Settings", "simulation"]

SIGNIFICAND = FixedPoint(24, signed=False)
SHIFT = FixedPoint(6)
FORMATS = {
    "cell_integer_bits": FixedPoint(3, signed=False),
    "cell_clip": FixedPoint(15, signed=False),
    "hidden_offset": FixedPoint(9),
    "projection_offset": INT8,
    "projection_clip": FixedPoint(7, signed=False),
}


@dataclass(frozen=True)
class Settings:
    """What an update is built of."""

    variant: IntegerVariant = field(default_factory=IntegerVariant)
    activation: ActivationKind = "table"
    chunk: int = 16
    interpolates: bool | None = None
    structure: Structure = "gates"

    def update(self) -> IntegerUpdate:
        return IntegerUpdate(
            self.activation,
            self.chunk,
            self.variant,
            interpolates=self.interpolates,
            structure=self.structure,
        )


class Bench(wiring.Component):
    """The update, whose scales come from two wide ports."""

    def __init__(self, settings: Settings) -> None:
        self.update = settings.update()
        self.fixed = configuration_of(settings.variant)
        count = len(self.update.scales)
        beat = data.StructLayout({"accumulator": signed(32), "old_cell": signed(16), "segment": 4})
        super().__init__(
            {
                "i": In(stream.Signature(beat)),
                "o": self.update.signature.members["o"],
                "multipliers": In(24 * count),
                "shifts": In(6 * count),
                **{name: In(shape) for name, shape in self.fixed.items()},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.update = update = self.update
        row, taken = self.i.payload, update.i.payload
        m.d.comb += [
            taken.accumulator.eq(row.accumulator),
            taken.old_cell.eq(row.old_cell),
            update.i.valid.eq(self.i.valid),
            self.i.ready.eq(update.i.ready),
            update.multiplier.eq(self.multipliers.word_select(update.scale, 24)),
            update.shift.eq(self.shifts.word_select(update.scale, 6)),
            self.o.payload.eq(update.o.payload),
            self.o.valid.eq(update.o.valid),
            update.o.ready.eq(self.o.ready),
        ]
        if len(update.segments) > 1:
            m.d.comb += taken.segment.eq(row.segment)
        for name in self.fixed:
            m.d.comb += getattr(update, name).eq(getattr(self, name))
        return m


@dataclass(frozen=True)
class BenchContract(Contract):
    """Ports of the bench; what they give, `expected` says."""

    settings: Settings

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand("accumulator", INT32, "row"),
            Operand("old_cell", INT16, "old cell raw"),
            Operand("segment", FixedPoint(4, signed=False), "segment of the unit"),
        )

    @property
    def configuration(self) -> tuple[Operand, ...]:
        count = len(self.settings.update().scales)
        return (
            Operand("multipliers", SIGNIFICAND, "multiplier of each scale", count),
            Operand("shifts", SHIFT, "shift of each scale", count),
            *(
                Operand(name, FORMATS[name], "configuration")
                for name in configuration_of(self.settings.variant)
            ),
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (
            Operand("result", INT8, "hidden raw"),
            Operand("cell_result", INT16, "cell raw"),
            Operand("value", INT16, "gate raw"),
            Operand("exposed", INT32, "hidden value before its requantisation"),
        )

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        raise NotImplementedError

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        raise NotImplementedError


def simulation(settings: Settings, break_it: tuple[str, str] | None = None) -> BulkSimulation:
    design = Design(
        name="int8_update_bench",
        summary="the update of an int8 LSTM unit, with its scales",
        parameters=(),
        component=lambda contract: Bench(settings),
        contract=lambda: BenchContract(settings),
        timing=lambda contract: Timing("", ""),
        transaction="unit",
    )
    verilog = None
    if break_it:
        verilog = verilog_of(design.configure())
        assert break_it[0] in verilog
        verilog = verilog.replace(*break_it, 1)
    return BulkSimulation(design.configure(), verilog=verilog)
