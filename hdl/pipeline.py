"""A pipeline between two streams: its registers wait, stage by stage, when the sink waits."""

from amaranth.hdl import Module, Shape, Signal, Value, ValueLike

__all__ = ["Pipeline"]


class Pipeline:
    """A pipeline's stages: registers with valid and ready.

    A stage loads when it is empty or the next one loads, so bubbles close and a beat can pass every
    cycle. Valid never waits for ready. The source's ready depends combinationally on the sink's,
    through one OR for each stage. Data registers have no reset.

    Parameters
    ----------
    m
        Module to which the registers are added.
    valid
        The source's valid.
    """

    def __init__(self, m: Module, valid: ValueLike) -> None:
        self._m = m
        self._valid = Value.cast(valid)
        self._loads: list[Signal] = []
        self._valids: list[Signal] = []

    def register(self, **values: ValueLike) -> tuple[Signal, ...]:
        """Add one stage and return its registers, one for each value, named by keyword."""
        stage = len(self._loads) + 1
        load = Signal(name=f"load_{stage}")
        valid = Signal(name=f"valid_{stage}")
        registers: list[Signal] = []
        with self._m.If(load):
            self._m.d.sync += valid.eq(self._valids[-1] if self._valids else self._valid)
            for name, value in values.items():
                shape = Shape.cast(Value.cast(value).shape())
                data = Signal(shape, name=name, reset_less=True)
                self._m.d.sync += data.eq(value)
                registers.append(data)
        self._loads.append(load)
        self._valids.append(valid)
        return tuple(registers)

    def connect(self, ready: Signal, sink_valid: Signal, sink_ready: ValueLike) -> None:
        """End the pipeline: drive the source's ready and the sink's valid."""
        following = Value.cast(sink_ready)
        for load, valid in zip(reversed(self._loads), reversed(self._valids), strict=True):
            self._m.d.comb += load.eq(~valid | following)
            following = load
        self._m.d.comb += [ready.eq(following), sink_valid.eq(self._valids[-1])]
