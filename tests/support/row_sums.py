# amaranth: UnusedElaboratable=no
"""A small design with faults to choose from: what the benches must and mustn't let pass."""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fewbit.golden.contract import Contract, random_codes
from fewbit.golden.formats import FixedPoint
from fewbit.golden.operands import FLAG, Operand, check_arrays
from fewbit.hdl.design import Design, Parameter, Timing
from fewbit.hdl.formats import stream_of

INT8 = FixedPoint(8)
INT24 = FixedPoint(24)


class Fault(enum.IntEnum, shape=4):
    """The faults that the circuit can be given."""

    NONE = 0
    WRONG = 1
    CHANGES = 2
    WITHDRAWS = 3
    DROPS = 4
    DUPLICATES = 5
    WAITS = 6
    SLOW = 7
    REMEMBERS = 8
    CHATTERS = 9
    HANGS = 10


@dataclass(frozen=True)
class RowSums(Contract):
    """Sum of the products of a row, plus an offset; the golden model may be wrong on purpose."""

    fault: Fault = Fault.NONE
    golden_error: int = 0

    @property
    def operands(self):
        return (
            Operand("left", INT8, "left factors", 2),
            Operand("right", INT8, "right factors", 2),
            Operand("last", FLAG, "the beat ends a row"),
        )

    @property
    def results(self):
        return (
            Operand("result", INT24, "sum of the row"),
            Operand("sign", FLAG, "the sum is negative"),
        )

    @property
    def configuration(self):
        return (
            Operand("offset", INT8, "added to every sum"),
            Operand("fault", FixedPoint(4, signed=False), "what is wrong"),
        )

    def stimulus(self, rng, count):
        last = np.zeros(2 * count, dtype=np.int64)
        last[rng.choice(2 * count - 1, count - 1, replace=False)] = 1
        last[-1] = 1
        left, right = (random_codes(rng, field, 2 * count) for field in self.operands[:2])
        # Corners of both factors at once are too rare to be left to chance.
        corners = self.operands[0].format.corners
        both = slice(None, None, 16)
        left[both] = rng.choice(corners, left[both].shape)
        right[both] = rng.choice(corners, right[both].shape)
        return {
            "left": left,
            "right": right,
            "last": last,
            "offset": random_codes(rng, self.configuration[0], 1),
            "fault": np.array([self.fault.value]),
        }

    def compute(self, arrays):
        check_arrays(self.operands, arrays)
        products = (INT8.raw(arrays["left"]) * INT8.raw(arrays["right"])).sum(axis=1)
        ends = np.flatnonzero(arrays["last"])
        sums = np.diff(np.cumsum(products)[ends], prepend=0) + INT8.raw(arrays["offset"])[0]
        sums[sums % 64 == 5] += self.golden_error
        return {"result": sums & (2**24 - 1), "sign": (sums < 0).astype(np.int64)}


class Product(wiring.Component):
    """Signed product, to have a submodule."""

    a: In(signed(8))
    b: In(signed(8))
    y: Out(signed(16))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(self.a * self.b)
        return m


class RowSumsCircuit(wiring.Component):
    """One register between the streams; the fault is an input."""

    def __init__(self):
        contract = RowSums()
        super().__init__(
            {
                "i": In(stream_of(contract.operands)),
                "o": Out(stream_of(contract.results)),
                "offset": In(signed(8)),
                "fault": In(4),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat, fault = self.i.payload, self.fault
        valid, room, go, given = Signal(), Signal(), Signal(), Signal()
        waited, quiet, odd = Signal(3), Signal(7), Signal()
        total, result = Signal(signed(24)), Signal(signed(24), reset_less=True)
        # The same as total, but a reset doesn't clear it.
        kept = Signal(signed(24), reset_less=True)
        before = Signal(signed(24))
        following = Signal(signed(24))
        products = [Product() for _ in range(2)]
        for k, product in enumerate(products):
            m.submodules[f"product_{k}"] = product
            m.d.comb += [product.a.eq(beat.left[k]), product.b.eq(beat.right[k])]
        # A memory that nobody needs, to have one in the Verilog.
        m.submodules.history = history = Memory(shape=8, depth=16, init=[])
        write, read = history.write_port(), history.read_port()
        m.d.comb += [write.en.eq(go), write.data.eq(following[:8]), read.en.eq(1)]

        m.d.comb += [
            before.eq(Mux(fault == Fault.REMEMBERS, kept, total)),
            following.eq(before + products[0].y + products[1].y),
            room.eq(~valid | self.o.ready),
            go.eq(self.i.valid & self.i.ready & room),
            given.eq(self.o.valid & self.o.ready),
            self.o.valid.eq(valid),
            self.o.payload.result.eq(result),
            self.o.payload.sign.eq(result < 0),
            self.i.ready.eq(room),
        ]
        m.d.sync += [
            odd.eq(~odd),
            waited.eq(Mux(valid & ~self.o.ready, waited + (waited != 7), 0)),
            quiet.eq(Mux(self.i.valid | valid, 0, quiet + (quiet != 127))),
            kept.eq(Mux(go, Mux(beat.last, 0, following), kept)),
        ]
        with m.If(given):
            m.d.sync += valid.eq(0)
        with m.If(go):
            m.d.sync += [valid.eq(beat.last), total.eq(Mux(beat.last, 0, following))]
            with m.If(beat.last):
                m.d.sync += result.eq(following + self.offset)

        with m.Switch(fault):
            with m.Case(Fault.WRONG), m.If((products[0].y == 2**14) | (products[1].y == 2**14)):
                # Only where two corners meet.
                m.d.comb += following.eq(before + products[0].y + products[1].y + 1)
            with m.Case(Fault.CHANGES):
                m.d.comb += self.o.payload.result.eq(result ^ (waited == 3))
            with m.Case(Fault.WITHDRAWS):
                m.d.comb += self.o.valid.eq(valid & (waited != 2))
            with m.Case(Fault.DROPS):
                m.d.comb += self.i.ready.eq(room | (waited == 1))
            with m.Case(Fault.DUPLICATES), m.If(given & (waited >= 2)):
                m.d.comb += self.i.ready.eq(0)
                m.d.sync += [valid.eq(1), waited.eq(0)]
            with m.Case(Fault.WAITS):
                m.d.comb += self.o.valid.eq(valid & self.o.ready)
            with m.Case(Fault.SLOW):
                m.d.comb += self.i.ready.eq(room & odd)
            with m.Case(Fault.CHATTERS), m.If(quiet == 40):
                m.d.sync += valid.eq(1)
            with m.Case(Fault.HANGS):
                m.d.comb += self.i.ready.eq(room & (waited != 3))
                with m.If(waited == 3):
                    m.d.sync += waited.eq(3)
        return m


def design(latency: str = "1", golden_error: int = 0) -> Design:
    """The test design, with a data sheet or a golden model that may be wrong."""
    faults = tuple(fault.name for fault in Fault)
    return Design(
        name="row_sums",
        summary="sums of products, to try the benches on",
        parameters=(Parameter("fault", "NONE", "what is wrong", choices=faults),),
        component=lambda contract: RowSumsCircuit(),
        contract=lambda fault: RowSums(Fault[fault], golden_error),
        timing=lambda contract: Timing(latency=latency, interval="1"),
        transaction="row",
    )
