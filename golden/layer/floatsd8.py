"""The FloatSD8 LSTM's layer, and the parameter image that holds its codes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from golden.contract import check_whole
from golden.floatsd8_activations import HIDDEN_FORMAT
from golden.layer.contract import LayerContract
from golden.layer.image import Layout, Section, as_bytes, integers
from golden.layer.schedule import Phase, Row, Schedule, Task
from golden.lstm.floatsd8 import GATES, LOWEST_CONSTANT_BIAS, FloatSD8Lstm, step
from golden.neuron.floatsd8 import PAIRS, check_sums, lively_starts

if TYPE_CHECKING:
    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]

__all__ = ["OFFSETS", "FloatSD8LstmLayer", "offsets_of", "random_model"]

START_BYTES = 2
OFFSETS = ("input", "recurrent")
"""Parts with an offset of their own, in the order of the image's configuration."""


@dataclass(frozen=True)
class FloatSD8LstmLayer(LayerContract[FloatSD8Lstm]):
    """A layer of the FloatSD8 LSTM with its parameters and its state.

    It takes packets and answers them in order, see :mod:`golden.layer.packets`: a parameter image,
    input vectors of ``inputs`` e5m2 codes, states. An input vector is one time step and gives the
    new hidden vector of ``hidden`` e5m2 codes. A state is the hidden vector, then the binary16
    codes of the cells, low byte first.

    Bit for bit :func:`golden.lstm.floatsd8.step`. Of the biases of weights and inputs an image
    keeps only the sums that matter, so a model that was unpacked has the inputs' bias 15.

    Parameters
    ----------
    inputs, hidden
        Lengths of the input vector and of the cell, from 1 to 4096.
    lanes
        Products a neuron and cycle, from 4 to 16: as many as the model adds at a time.
    neurons
        Units side by side, from 1 to 16.
    window
        Bits that a sum keeps below its top, from 8 to 48; None for exact sums.
    image
        The parameter image that the layer was generated with; None where packets bring it.

    Source: arXiv 2001.08450 for the formats; see :mod:`golden.lstm.floatsd8`.
    """

    inputs: int = 16
    hidden: int = 32
    lanes: int = 4
    neurons: int = 1
    window: int | None = DEFAULT_WINDOW
    image: bytes | None = None

    def __post_init__(self) -> None:
        check_whole("inputs", self.inputs, 1, 4096)
        check_whole("hidden", self.hidden, 1, 4096)
        check_whole("neurons", self.neurons, 1, 16)
        check_sums(self.lanes, self.window)
        if self.image is not None:
            self.unpack(self.image)

    @classmethod
    def of(
        cls, model: FloatSD8Lstm, lanes: int | None = None, neurons: int = 1
    ) -> FloatSD8LstmLayer:
        """The layer that runs a model; its lanes are the model's products.

        Raises
        ------
        ValueError
            If others are wanted: where a sum is rounded would not be where the model rounds.
        """
        _check_lanes(model.products if lanes is None else lanes, model)
        return cls(
            inputs=model.inputs,
            hidden=model.hidden,
            lanes=model.products,
            neurons=neurons,
            window=model.window,
        )

    @property
    def settings(self) -> dict[str, int | str | None]:
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "image"
        }

    @property
    def fixed_image(self) -> bytes | None:
        return self.image

    @property
    def raws_are_signed(self) -> bool:
        return False

    @property
    def schedule(self) -> Schedule:
        """What the layer does in a time step."""
        rows = tuple(
            row
            for pair, gates in enumerate(PAIRS)
            for row in (
                Row(f"{''.join(gates)}_input", "input", needs_cell=pair == 1),
                Row(f"{''.join(gates)}_recurrent", "recurrent", "none", needs_cell=pair == 1),
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
            sums=len(PAIRS[0]),
        )

    @property
    def layout(self) -> Layout:
        """The sections of the parameter image."""
        schedule = self.schedule
        return Layout(
            (
                Section(
                    "configuration",
                    1,
                    len(OFFSETS),
                    "for the inputs, then for the hidden values (1 byte each): bias of the weights"
                    f" plus that of what they are multiplied by, less {LOWEST_CONSTANT_BIAS}",
                ),
                Section(
                    "starts",
                    schedule.start_words,
                    START_BYTES * self.neurons,
                    "bias of each neuron's gate, binary16: for each unit i, f, g, o",
                ),
                Section(
                    "weights",
                    schedule.weight_words,
                    self.neurons * self.lanes,
                    "weights of a cycle: for each neuron its lanes; the gates i and f take turns,"
                    " then g and o; rows padded with zeros",
                ),
            )
        )

    def pack(self, parameters: FloatSD8Lstm) -> bytes:
        """The parameter image of a model.

        Raises
        ------
        ValueError
            If the model is that of another layer.
        """
        _check_lanes(self.lanes, parameters)
        for name, own, given in (
            ("inputs", self.inputs, parameters.inputs),
            ("hidden units", self.hidden, parameters.hidden),
            ("window", self.window, parameters.window),
        ):
            if own != given:
                raise ValueError(
                    f"The model's {name} must be {own}, as the layer's, not {given}; make a layer"
                    " for the model."
                )
        starts: list[Codes] = []
        weights: list[Bytes] = []
        for group, row, gates in self._rows():
            units = slice(group * self.neurons, (group + 1) * self.neurons)
            matrix = (
                parameters.input_weights if row.part == "input" else parameters.recurrent_weights
            )
            beats = self.schedule.beats(row) // len(gates)
            words = np.zeros((beats, len(gates), self.neurons, self.lanes), np.int64)
            for index, gate in enumerate(gates):
                chosen = matrix[gate, units]
                padded = np.zeros((self.neurons, beats * self.lanes), np.int64)
                padded[: len(chosen), : chosen.shape[1]] = chosen
                words[:, index] = padded.reshape(self.neurons, beats, self.lanes).swapaxes(0, 1)
                if row.start == "image":
                    bias = parameters.bias[gate, units]
                    starts.append(np.pad(bias, (0, self.neurons - len(bias))))
            weights.append(as_bytes(words, 1).reshape(beats * len(gates), -1))
        return self.layout.join(
            {
                "configuration": as_bytes(list(offsets_of(parameters)), 1),
                "starts": as_bytes(np.stack(starts), START_BYTES),
                "weights": np.concatenate(weights),
            }
        )

    def rows_of_unit(self) -> list[tuple[Row, tuple[str, ...]]]:
        """The rows of a unit in order, each with its gates."""
        gates = [pair for pair in PAIRS for _ in OFFSETS]
        return list(zip(self.schedule.rows, gates, strict=True))

    def _rows(self) -> list[tuple[int, Row, tuple[int, ...]]]:
        """Every row in order: its group, itself, and the numbers of its gates."""
        groups = range(self.schedule.groups(self.schedule.phases[0]))
        numbered = [
            (row, tuple(GATES.index(gate) for gate in gates)) for row, gates in self.rows_of_unit()
        ]
        return [(group, row, gates) for group in groups for row, gates in numbered]

    def unpack(self, image: bytes) -> FloatSD8Lstm:
        contents = self.layout.split(image)
        offsets = contents["configuration"][0].astype(np.int64) + LOWEST_CONSTANT_BIAS
        starts = integers(contents["starts"].reshape(-1, self.neurons, START_BYTES), signed=False)
        weights = contents["weights"].reshape(-1, self.neurons, self.lanes).astype(np.int64)
        groups = self.schedule.groups(self.schedule.phases[0])
        bias = np.zeros((len(GATES), groups * self.neurons), np.int64)
        matrices = {
            part: np.zeros(
                (len(GATES), groups * self.neurons, self.schedule.length(part)), np.int64
            )
            for part in OFFSETS
        }
        start = word = 0
        for group, row, gates in self._rows():
            units = slice(group * self.neurons, (group + 1) * self.neurons)
            if row.start == "image":
                for gate in gates:
                    bias[gate, units] = starts[start]
                    start += 1
            beats = self.schedule.beats(row)
            words = weights[word : word + beats]
            word += beats
            for index, gate in enumerate(gates):
                whole = words[index :: len(gates)].swapaxes(0, 1).reshape(self.neurons, -1)
                matrix = matrices[row.part]
                matrix[gate, units] = whole[:, : matrix.shape[2]]
        return FloatSD8Lstm(
            input_weights=matrices["input"][:, : self.hidden],
            recurrent_weights=matrices["recurrent"][:, : self.hidden],
            bias=bias[:, : self.hidden],
            input_weight_bias=int(offsets[0]) - HIDDEN_FORMAT.bias,
            recurrent_weight_bias=int(offsets[1]) - HIDDEN_FORMAT.bias,
            input_bias=HIDDEN_FORMAT.bias,
            products=self.lanes,
            window=self.window,
        )

    def reset_state(self, parameters: FloatSD8Lstm) -> tuple[Codes, Codes]:
        return np.zeros(self.hidden, np.int64), np.zeros(self.hidden, np.int64)

    def next_state(
        self, parameters: FloatSD8Lstm, x: Codes, hidden: Codes, cell: Codes
    ) -> tuple[Codes, Codes]:
        new = step(parameters, *(codes[np.newaxis] for codes in (x, hidden, cell)))
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
    """What the image holds of a model's biases, in the order of `OFFSETS`."""
    return (
        model.input_weight_bias + model.input_bias - LOWEST_CONSTANT_BIAS,
        model.recurrent_weight_bias + HIDDEN_FORMAT.bias - LOWEST_CONSTANT_BIAS,
    )


def random_model(layer: FloatSD8LstmLayer, rng: np.random.Generator) -> FloatSD8Lstm:
    """A random model: any weights, offsets that keep many gates in a lively range."""
    gates, hidden, inputs = len(GATES), layer.hidden, layer.inputs
    any_offset = rng.random() < 0.2
    bias = lively_starts(rng, gates * hidden).reshape(gates, hidden)
    wild = rng.random(bias.shape) < 0.05
    bias[wild] = rng.integers(0, 1 << 16, int(wild.sum()))
    return FloatSD8Lstm(
        input_weights=rng.integers(0, 256, (gates, hidden, inputs)),
        recurrent_weights=rng.integers(0, 256, (gates, hidden, hidden)),
        bias=bias,
        # Random bytes are inputs of up to 2^17; hidden values are below 1.
        input_weight_bias=int(rng.integers(4, 36) if any_offset else rng.integers(22, 31)),
        recurrent_weight_bias=int(rng.integers(4, 36) if any_offset else rng.integers(8, 13)),
        products=layer.lanes,
        window=layer.window,
    )
