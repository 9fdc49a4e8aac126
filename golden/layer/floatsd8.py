"""The layer of the FloatSD8 LSTM, and the image that holds its codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fewbit.golden.accumulate.float_sum import window_parameter
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.activation.floatsd8 import HIDDEN_FORMAT
from fewbit.golden.formats import BINARY16
from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.image import (
    Bits,
    Codes,
    Field,
    Matrix,
    Plan,
    RecordsPass,
    Weights,
    WeightsPass,
    WeightsRow,
)
from fewbit.golden.layer.schedule import Phase, Row, Schedule, Task
from fewbit.golden.layer.sections import (
    configuration_section,
    hidden_parameter,
    inputs_parameter,
    neurons_parameter,
    records,
)
from fewbit.golden.lstm.floatsd8 import (
    FEWEST_PRODUCTS,
    GATES,
    LOWEST_CONSTANT_BIAS,
    MOST_PRODUCTS,
    FloatSD8Lstm,
)
from fewbit.golden.neuron.floatsd8 import PAIRS, lively_starts
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.layer.image import Arrays

    CodeArray = npt.NDArray[np.int64]

__all__ = ["OFFSETS", "FloatSD8LstmLayerContract", "offsets_of", "random_model"]

OFFSETS = ("input", "recurrent")
"""The parts of a gate's sum, each with an offset in this order in the image's configuration."""


@dataclass(frozen=True)
class FloatSD8LstmLayerContract(LayerContract[FloatSD8Lstm]):
    """A layer of the FloatSD8 LSTM with its constants and its state.

    The layer receives packets and answers them in order, see :mod:`fewbit.golden.layer.packets`: an
    image, input vectors of ``inputs`` e5m2 codes, and states. An input vector is one time step; its
    answer is the new hidden vector of ``hidden`` e5m2 codes. A state is the hidden vector, then the
    binary16 codes of the cells, low byte first.

    Bit for bit, the layer computes :meth:`fewbit.golden.lstm.floatsd8.FloatSD8Lstm.step`. An image
    holds only the sum of the exponent biases of weights and inputs, because only the sum matters;
    an unpacked model has bias 15 for the inputs.

    Parameters
    ----------
    inputs, hidden
        Lengths of the input vector and of the cell.
    lanes
        Products of each neuron in a cycle: the number that the model adds at a time.
    neurons
        Number of neurons, which work on as many units side by side.
    window
        Bits below a sum's top that count; None for exact sums.
    image
        The image that the layer was generated with; None where packets bring it.

    Source: arXiv 2001.08450 for the formats; see :mod:`fewbit.golden.lstm.floatsd8`.
    """

    inputs: int = inputs_parameter()
    hidden: int = hidden_parameter()
    lanes: int = parameter(
        4, "products a neuron and cycle, added and rounded", FEWEST_PRODUCTS, MOST_PRODUCTS
    )
    neurons: int = neurons_parameter()
    window: int | None = window_parameter(DEFAULT_WINDOW)
    image: bytes | None = None

    interleave: ClassVar[int] = len(PAIRS[0])
    """Number of sums that take turns at the lanes, which orders the weights in the image. A sum has
    a beat every so many cycles, so the circuit's adder may have at most that latency."""

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.image is not None:
            self.unpack(self.image)

    @classmethod
    def of(
        cls,
        model: FloatSD8Lstm,
        lanes: int | None = None,
        neurons: int | None = None,
        **chosen: Any,
    ) -> Self:
        """Return the contract of the layer that runs a model; its lanes are the model's `products`.

        Raises
        ------
        ValueError
            If `lanes` is another number: the layer would not round where the model does.
        """
        _check_lanes(model.products if lanes is None else lanes, model)
        return cls(
            inputs=model.inputs,
            hidden=model.hidden,
            lanes=model.products,
            window=model.window,
            **cls._given(neurons=neurons, **chosen),
        )

    @staticmethod
    def constants_of(model: FloatSD8Lstm) -> Any:
        return model

    @property
    def raws_are_signed(self) -> bool:
        return False

    @property
    def schedule(self) -> Schedule:
        """Return the schedule of a time step."""
        rows = tuple(
            row
            for pair, names in enumerate(PAIRS)
            for gates in [tuple(GATES.index(gate) for gate in names)]
            for row in (
                Row(f"{''.join(names)}_input", "input", "image", gates, pair == 1),
                Row(f"{''.join(names)}_recurrent", "recurrent", "none", gates, pair == 1),
            )
        )
        update = Task("update", rows, "hidden", writes_cell=True)
        return Schedule(
            (Phase((update,)),),
            self.inputs,
            self.hidden,
            self.hidden,
            self.lanes,
            self.neurons,
            sums=self.interleave,
        )

    def make_plan(self) -> Plan:
        schedule = self.schedule
        (phase,) = schedule.phases
        groups = schedule.groups(phase)
        matrix = len(GATES), self.hidden
        order = ", ".join(GATES)
        codes = (
            f"FloatSD8, gates {order}: exponent in bits 7 to 5, sign in bit 4, index of the"
            " mantissa in bits 3 to 0"
        )
        least = LOWEST_CONSTANT_BIAS
        offset = Field((), 0, 31, f"bias of the weights plus that of the e5m2 codes, less {least}")
        return Plan(
            {
                "input_weights": Field((*matrix, self.inputs), 0, 255, codes),
                "recurrent_weights": Field((*matrix, self.hidden), 0, 255, codes),
                "bias": Field(matrix, 0, 65535, f"binary16, gates {order}"),
                **{f"{part}_offset": offset for part in OFFSETS},
            },
            (
                configuration_section(
                    tuple(Bits(8, f"{part}_offset") for part in OFFSETS),
                    "for the inputs, then for the hidden values (1 byte each): bias of the weights"
                    f" plus that of what they are multiplied by, less {least}",
                ),
                records(
                    "starts",
                    "bias of each neuron's gate, binary16: for each unit i, f, g, o",
                    self.neurons,
                    RecordsPass(
                        groups,
                        tuple(
                            (Bits(BINARY16.width, "bias", (gate,)),)
                            for row in schedule.rows
                            if row.start == "image"
                            for gate in row.gates
                        ),
                    ),
                ),
                Weights.of(
                    "weights",
                    "weights of a cycle: for each neuron its lanes; the gates i and f take turns,"
                    " then g and o; rows padded with zeros",
                    self.neurons,
                    self.lanes,
                    (
                        WeightsPass(
                            groups,
                            tuple(
                                WeightsRow(
                                    schedule.beats(row) // schedule.sums,
                                    tuple(
                                        Matrix(f"{row.part}_weights", (gate,)) for gate in row.gates
                                    ),
                                )
                                for row in schedule.rows
                            ),
                        ),
                    ),
                    Codes(8),
                ),
            ),
        )

    def check_fit(self, constants: FloatSD8Lstm) -> None:
        _check_lanes(self.lanes, constants)
        for name, own, given in (
            ("inputs", self.inputs, constants.inputs),
            ("hidden units", self.hidden, constants.hidden),
            ("window", self.window, constants.window),
        ):
            if own != given:
                raise ValueError(
                    f"The model's {name} must be {own}, as the layer's, not {given}; make a layer"
                    " for the model."
                )

    def arrays_of(self, constants: FloatSD8Lstm) -> dict[str, npt.NDArray[Any]]:
        names = ("input_weights", "recurrent_weights", "bias")
        arrays = {name: np.asarray(getattr(constants, name)) for name in names}
        for part, offset in zip(OFFSETS, offsets_of(constants), strict=True):
            arrays[f"{part}_offset"] = np.asarray(offset)
        return arrays

    def made_of(self, arrays: Arrays) -> FloatSD8Lstm:
        input_bias, recurrent_bias = (
            int(arrays[f"{part}_offset"]) + LOWEST_CONSTANT_BIAS - HIDDEN_FORMAT.bias
            for part in OFFSETS
        )
        return FloatSD8Lstm(
            input_weights=arrays["input_weights"],
            recurrent_weights=arrays["recurrent_weights"],
            bias=arrays["bias"],
            input_weight_bias=input_bias,
            recurrent_weight_bias=recurrent_bias,
            input_bias=HIDDEN_FORMAT.bias,
            products=self.lanes,
            window=self.window,
        )

    def reset_state(self, constants: FloatSD8Lstm) -> tuple[CodeArray, CodeArray]:
        return np.zeros(self.hidden, np.int64), np.zeros(self.hidden, np.int64)

    def next_state(
        self, constants: FloatSD8Lstm, x: CodeArray, hidden: CodeArray, cell: CodeArray
    ) -> tuple[CodeArray, CodeArray]:
        new = constants.step(*(codes[np.newaxis] for codes in (x, hidden, cell)))
        return new[0][0], new[1][0]

    def random_image(self, rng: np.random.Generator) -> bytes:
        return self.pack(random_model(self, rng))


def _check_lanes(lanes: int, model: FloatSD8Lstm) -> None:
    if lanes != model.products:
        raise ValueError(
            f"A layer of {lanes} lanes rounds after every {lanes} products, the model after every"
            f" {model.products}; take {model.products} lanes, or quantise for {lanes} products."
        )


def offsets_of(model: FloatSD8Lstm) -> tuple[int, int]:
    """Return a model's offsets for the image, in the order of `OFFSETS`."""
    return (
        model.input_weight_bias + model.input_bias - LOWEST_CONSTANT_BIAS,
        model.recurrent_weight_bias + HIDDEN_FORMAT.bias - LOWEST_CONSTANT_BIAS,
    )


def random_model(layer: FloatSD8LstmLayerContract, rng: np.random.Generator) -> FloatSD8Lstm:
    """Return a random model: any weights, and offsets that keep many gates away from saturation."""
    gates, hidden, inputs = len(GATES), layer.hidden, layer.inputs
    any_offset = rng.random() < 0.2
    bias = lively_starts(rng, gates * hidden).reshape(gates, hidden)
    wild = rng.random(bias.shape) < 0.05
    bias[wild] = rng.integers(0, 1 << 16, int(wild.sum()))
    return FloatSD8Lstm(
        input_weights=rng.integers(0, 256, (gates, hidden, inputs)),
        recurrent_weights=rng.integers(0, 256, (gates, hidden, hidden)),
        bias=bias,
        # Random bytes give inputs of up to 2^17, while hidden values are below 1.
        input_weight_bias=int(rng.integers(4, 36) if any_offset else rng.integers(22, 31)),
        recurrent_weight_bias=int(rng.integers(4, 36) if any_offset else rng.integers(8, 13)),
        products=layer.lanes,
        window=layer.window,
    )
