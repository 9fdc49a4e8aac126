"""The layer of the integer LSTM."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import wiring

from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.integer_cycles import step_cycles, update_of, waiting_rows
from fewbit.hdl.layer.normalize import GateReading
from fewbit.hdl.neuron.int8 import IntegerLayerNeuron
from fewbit.hdl.neuron.layer_norm import LayerNorm
from fewbit.hdl.structure import Structure

__all__ = ["Int8LstmLayer", "Int8System", "step_cycles", "update_of"]


class Int8System:
    """What the integer LSTM supplies to the layer engine."""

    activation_width = 8
    start_width = 32
    cell_width = 16
    masks_padding = False
    cells_apart = False
    tells_part = False
    shares_activation = False
    """Whether neurons take turns at an interpolation."""
    tells_output_gate = False
    """Whether a unit's output gate comes with its result."""
    registers = 0
    """Bytes at the end of the configuration that packets write one by one."""

    def __init__(self, contract: Int8LstmLayerContract, structure: Structure) -> None:
        self.contract = contract
        self.structure: Structure = structure
        self.update = update_of(contract)
        self.variant = contract.variant
        self.waiting_rows = waiting_rows(contract, self.update, structure)
        self._neurons: list[IntegerLayerNeuron] = []

    def _neuron(self) -> IntegerLayerNeuron:
        return IntegerLayerNeuron(
            lanes=self.contract.lanes,
            activation=self.contract.activation,
            chunk=self.update.chunk,
            interpolates=self.update.interpolates,
            variant=self.variant,
            structure=self.structure,
            waiting_rows=self.waiting_rows,
            products=self.products(),
            shares_activation=self.shares_activation,
            tells_output_gate=self.tells_output_gate,
        )

    def products(self) -> wiring.Component | None:
        """The lanes of a neuron; None for those of int8 products."""
        return None

    def segment(self, name: str) -> int:
        """Code of a task's program."""
        return self._neurons[0].segments.index(name)

    def attach(self, m: Module, image: ImageStore) -> tuple[Sequence[wiring.Component], Value]:
        """Adds the neurons, their scales and the configuration."""
        self.configuration = configuration = image.registers(m, "configuration", self.registers)
        fields: dict[str, Value] = {
            "cell_integer_bits": configuration[0][:3],
            "cell_clip": Cat(configuration[1], configuration[2][:7]),
            "hidden_offset": Cat(configuration[3], configuration[4][0]),
        }
        if self.variant.projection:
            fields |= {
                "projection_offset": configuration[6],
                "projection_clip": configuration[7][:7],
            }
        scales = image.memory(m, "scales")
        self._neurons = [self._neuron() for _ in range(self.contract.neurons)]
        for index, neuron in enumerate(self._neurons):
            m.submodules[f"neuron_{index}"] = neuron
            if neuron.scales != self.contract.scales:
                raise ValueError(
                    f"The neuron's scales are {neuron.scales}, the image's {self.contract.scales}."
                )
            port = scales.read_port(domain="comb")
            m.d.comb += [
                port.addr.eq(neuron.scale),
                neuron.multiplier.eq(port.data[:24]),
                neuron.shift.eq(port.data[24:30]),
                *(getattr(neuron, name).eq(value) for name, value in fields.items()),
            ]
        return self._neurons, configuration[5]

    def normalizer(self, m: Module, image: ImageStore, reading: GateReading) -> wiring.Component:
        """Adds the layer norm's constants; the engine adds the unit itself."""
        unit = LayerNorm(units=self.contract.hidden)
        constants = image.memory(m, "norm").read_port()
        scale = image.memory(m, "norm_scales").read_port(domain="comb")
        m.d.comb += [
            constants.addr.eq(reading.index),
            constants.en.eq(reading.advances),
            unit.i.payload.gain.eq(constants.data[:16]),
            unit.i.payload.bias.eq(constants.data[16:]),
            scale.addr.eq(reading.gate),
            unit.multiplier.eq(scale.data[:24]),
            unit.shift.eq(scale.data[24:32].as_signed()),
            unit.guard.eq(scale.data[32:]),
        ]
        return unit


class Int8LstmLayer(LayerEngine):
    """A layer of the integer LSTM with its parameters and its state.

    Bit for bit :class:`fewbit.golden.layer.int8.Int8LstmLayerContract`, which says what the packets
    mean.

    Parameters
    ----------
    contract
        The layer's parameters, and the image that it holds for good, if it does; None for the
        usual ones.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.arithmetic`.
    """

    def __init__(
        self, contract: Int8LstmLayerContract | None = None, structure: Structure = "gates"
    ) -> None:
        self.structure: Structure = structure
        contract = contract or Int8LstmLayerContract()
        super().__init__(contract, Int8System(contract, structure))
