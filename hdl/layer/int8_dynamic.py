# amaranth: UnusedElaboratable=no
# A layer that is never elaborated says so; that its parts are not either is no news.
"""The layer of the integer LSTM that chooses a precision for every group of units and time step."""

from collections.abc import Sequence

from amaranth.hdl import Const, Module, Value

from fewbit.golden.layer.int8_dynamic import DynamicInt8LstmLayerContract
from fewbit.hdl.accumulate.int8_halves import Int8HalfProducts
from fewbit.hdl.activation.table import Interpolation
from fewbit.hdl.arithmetic import wire
from fewbit.hdl.layer.cells import CellsWithResults
from fewbit.hdl.layer.collect import taken_layout
from fewbit.hdl.layer.engine import LayerEngine
from fewbit.hdl.layer.feed_halves import HalvesFeed, sum_width
from fewbit.hdl.layer.image import ImageStore
from fewbit.hdl.layer.int8 import Int8Neurons, places_of
from fewbit.hdl.layer.integer_cycles import SHARERS, shares_activation, update_of
from fewbit.hdl.layer.places import Places
from fewbit.hdl.layer.precision import REGISTERS, Precision
from fewbit.hdl.neuron.integer import IntegerLayerNeuron
from fewbit.hdl.structure import Structure

__all__ = ["DynamicInt8LstmLayer"]


class _DynamicNeurons(Int8Neurons):
    """The neurons of the integer LSTM whose weights can be taken by halves."""

    def __init__(self, places: Places[DynamicInt8LstmLayerContract], structure: Structure) -> None:
        contract = places.contract
        # With start values of three bytes, the sum of the longest row stays below 2^24: a product
        # is at most 2^14, and a little more in LOW. With four bytes sums may wrap.
        accumulator_width = 25 if contract.start_bytes == 3 else 32
        super().__init__(
            places,
            structure,
            [
                Int8HalfProducts(contract.lanes, sum_width(places), structure, accumulator_width)
                for _ in range(contract.neurons)
            ],
            shares_activation=shares_activation(contract, update_of(contract), structure),
            tells_output_gate=contract.signal == "output_gate",
        )

    def configure(self, m: Module, store: ImageStore) -> None:
        super().configure(m, store)
        if self.integer_neurons[0].update.shares_activation:
            for first in range(0, len(self.integer_neurons), SHARERS):
                sharers = self.integer_neurons[first : first + SHARERS]
                self._share(m, sharers, f"interpolation_{first}")

    def _share(self, m: Module, neurons: Sequence[IntegerLayerNeuron], name: str) -> None:
        """Add an interpolation that neurons share; if several ask at once, the first gets it."""
        m.submodules[name] = shared = Interpolation(self.structure)
        asked: Value = Const(0, 1)
        given = {port: Value.cast(Const(0)) for port in ("raw", "is_sigmoid", "integer_bits")}
        for index, neuron in enumerate(neurons):
            granted = wire(m, neuron.asks & ~asked, f"{name}_granted_{index}")
            m.d.comb += [neuron.granted.eq(granted), neuron.activated.eq(shared.result)]
            for port, value in given.items():
                asks = getattr(neuron, port)
                given[port] = value | (asks[:] & granted.replicate(len(asks)))
            asked = asked | neuron.asks
        m.d.comb += [getattr(shared, port).eq(value) for port, value in given.items()]


class DynamicInt8LstmLayer(LayerEngine):
    """A layer of the integer LSTM whose weights are multiplied with 8 bits or with the upper 4.

    Bit for bit :class:`fewbit.golden.layer.int8_dynamic.DynamicInt8LstmLayerContract`, which says
    what the packets mean. With whole weights a beat is ``lanes`` products, each of them a high and
    a low half. With high halves alone it is twice as many products, and low halves are not read.

    Parameters
    ----------
    contract
        The layer's parameters, and the image that it holds for good, if it does; None for the
        usual ones.
    structure
        "gates" or "fpga", see :mod:`fewbit.hdl.structure`.
    """

    def __init__(
        self,
        contract: DynamicInt8LstmLayerContract | None = None,
        structure: Structure = "gates",
    ) -> None:
        self.structure: Structure = structure
        contract = contract or DynamicInt8LstmLayerContract()
        places = places_of(contract, REGISTERS)
        neurons = _DynamicNeurons(places, structure)
        feed = HalvesFeed(places, neurons.segments)
        observed = contract.signal == "cell_change"
        cells = CellsWithResults(places, observed=observed)
        super().__init__(
            neurons,
            feed,
            cells,
            precision=Precision(places, contract.signal, taken_layout(places, neurons.result)),
        )
