"""The layer of ternary, binary or power-of-two weights, and its parameter image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from golden.activations import ActivationKind
from golden.arithmetic import SIGNIFICAND_POSITION
from golden.contract import check_whole
from golden.layer.contract import LayerContract
from golden.layer.image import Layout, Section, as_bytes, integers
from golden.layer.int8_schedule import int8_schedule
from golden.layer.schedule import Phase, Row, Schedule, Task
from golden.lstm.int8_step import PARTS
from golden.lstm.ternary import LevelKind, TernaryLstm, levels_of, reset_state, step
from golden.lstm.variant import GATES, Int8Variant
from golden.neuron.ternary import LaneWeights, Packing, check_activation_width

if TYPE_CHECKING:
    import numpy.typing as npt

    Raws = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]

__all__ = [
    "NONZERO",
    "SIDE_BY_SIDE",
    "Gates",
    "Scales",
    "TernaryLstmLayer",
    "gates_of",
    "random_model",
]

Scales = Literal["fixed", "powers_of_two"]
"""What scales rows may have."""

Gates = Literal["in_turn", "side_by_side"]
"""How the rows of a unit's gates are added: one after the other, or all four at once."""

SIDE_BY_SIDE = ("f", "i", "g", "o")
"""Gates in the order in which the image holds those of a row that are side by side."""

START_BYTES = 4
_HALF = 1 << 30
"""The multiplier of a power of two."""
NONZERO = 6
"""Bit of a shift's byte that is 1 unless the row's scale is 0, with scales of powers of two."""


@dataclass(frozen=True)
class TernaryLstmLayer(LayerContract[TernaryLstm]):
    """A layer of ternary, binary or power-of-two weights with its parameters and its state.

    It takes packets and answers them in order, see :mod:`golden.layer.packets`: a parameter image,
    input vectors of ``inputs`` raws, states. An input vector is one time step and gives the new
    hidden vector of ``hidden`` raws. A raw of more than 8 bits is two bytes, low byte first, its
    sign extended; of those that come in, only the low ``activation_width`` bits count. A state is
    the hidden vector, then the cell raws of 16 bits.

    Bit for bit :func:`golden.lstm.ternary.step`. An image doesn't hold the inputs' scale, which the
    multipliers contain: a model that was unpacked has the scale 1.

    Parameters
    ----------
    inputs, hidden
        Lengths of the input vector and of the cell, from 1 to 4096.
    lanes
        Weights a neuron and cycle, from 1 to 256: as many as whole bytes hold.
    neurons
        Units side by side, from 1 to 16.
    weights, exponents
        "ternary", "binary", "pow2" or "int12", see :mod:`golden.lstm.ternary`.
    packing
        "fields": each weight in bits of its own; "dense": five ternary weights in 8 bits.
    scales
        "fixed": split multipliers; "powers_of_two": multipliers of 2^30 and 0 alone.
    gates
        "in_turn": a neuron adds the rows of a unit's gates one after the other. "side_by_side":
        all four at once, each on so many lanes; with one neuron, scales of powers of two and the
        activation by table only.
    activation_width
        Bits of inputs and hidden values, from 4 to 16.
    activation
        "table" or "gemmlowp", see :mod:`golden.activations`.
    image
        The parameter image that the layer was generated with; None where packets bring it.

    Source: see :mod:`golden.lstm.ternary`.
    """

    inputs: int = 16
    hidden: int = 32
    lanes: int = 16
    neurons: int = 1
    weights: LevelKind = "ternary"
    exponents: int = 1
    packing: Packing = "fields"
    scales: Scales = "fixed"
    gates: Gates = "in_turn"
    activation_width: int = 12  # pyright: ignore[reportIncompatibleMethodOverride]
    activation: ActivationKind = "table"
    image: bytes | None = None

    def __post_init__(self) -> None:
        check_whole("inputs", self.inputs, 1, 4096)
        check_whole("hidden", self.hidden, 1, 4096)
        check_whole("neurons", self.neurons, 1, 16)
        check_activation_width(self.activation_width)
        _ = self.lane_weights.bytes
        if self.scales not in get_args(Scales):
            raise ValueError(f'scales must be "fixed" or "powers_of_two", not {self.scales!r}.')
        if self.activation not in get_args(ActivationKind):
            raise ValueError(f'activation must be "table" or "gemmlowp", not {self.activation!r}.')
        self._check_gates()
        if self.image is not None:
            self.unpack(self.image)

    def _check_gates(self) -> None:
        if self.gates not in get_args(Gates):
            raise ValueError(f'gates must be "in_turn" or "side_by_side", not {self.gates!r}.')
        if self.gates == "in_turn":
            return
        for name, needed in (
            ("neurons", 1),
            ("scales", "powers_of_two"),
            ("activation", "table"),
        ):
            if getattr(self, name) != needed:
                raise ValueError(
                    f"With gates side_by_side, {name} must be {needed}, not {getattr(self, name)}."
                )

    @classmethod
    def of(
        cls,
        model: TernaryLstm,
        lanes: int = 16,
        neurons: int = 1,
        packing: Packing = "fields",
        gates: Gates = "in_turn",
    ) -> TernaryLstmLayer:
        """The layer that runs a model, with scales of powers of two if the model's are."""
        return cls(
            inputs=model.inputs,
            hidden=model.hidden,
            lanes=lanes,
            neurons=neurons,
            weights=model.weights,
            exponents=model.exponents,
            packing=packing,
            scales="powers_of_two" if _has_powers_of_two(model) else "fixed",
            gates=gates,
            activation_width=model.activation_width,
            activation=model.activation,
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
    def lane_weights(self) -> LaneWeights:
        """The weights of a neuron in a cycle."""
        return LaneWeights(self.lanes, self.weights, self.exponents, self.packing)

    @property
    def variant(self) -> Int8Variant:
        """Parts beside the four gates: none."""
        return Int8Variant()

    @property
    def schedule(self) -> Schedule:
        """What the layer does in a time step: as the plain integer LSTM, or all gates at once."""
        if self.gates == "side_by_side":
            rows = tuple(Row(part, part) for part in PARTS)
            task = Task("update", rows, "hidden", writes_cell=True)
            return Schedule((Phase((task,)),), self.inputs, self.hidden, self.hidden, self.lanes, 1)
        return int8_schedule(
            self.variant, self.inputs, self.hidden, self.hidden, self.lanes, self.neurons
        )

    @property
    def rows_at_once(self) -> int:
        """Rows that a neuron adds at once."""
        return len(SIDE_BY_SIDE) if self.gates == "side_by_side" else 1

    @property
    def start_words(self) -> int:
        """Words of the section of start values."""
        return self.rows_at_once * self.schedule.start_words

    @property
    def scale_bytes(self) -> int:
        """Bytes of a row's scale."""
        return 4 if self.scales == "fixed" else 1

    @property
    def layout(self) -> Layout:
        """The sections of the parameter image."""
        schedule = self.schedule
        order = ", ".join(SIDE_BY_SIDE)
        starts, lanes = "of each neuron's row", "for each neuron its lanes"
        if self.gates == "side_by_side":
            starts = f"of each row, of gates {order}"
            lanes = f"for each of the gates {order} its lanes"
        scale = (
            "upper 24 bits of its split multiplier (3), shift (1)"
            if self.scales == "fixed"
            else f"shift in 6 bits, and bit {NONZERO} unless its scale is 0 (1)"
        )
        return Layout(
            (
                Section("configuration", 1, 3, "integer bits of the cell (1 byte), cell clip (2)"),
                Section(
                    "starts",
                    self.start_words,
                    (START_BYTES + self.scale_bytes) * self.neurons,
                    f"{starts}: what its sum starts from (4), {scale}",
                ),
                Section(
                    "weights",
                    schedule.weight_words,
                    self.neurons * self.rows_at_once * self.lane_weights.bytes,
                    f"weights of a cycle: {lanes}, the first in the lowest bits;"
                    " rows padded with zeros, or where there is no zero with any weight",
                ),
            )
        )

    def pack(self, parameters: TernaryLstm) -> bytes:
        """The parameter image of a model.

        Raises
        ------
        ValueError
            If the model is that of another layer.
        """
        self._check_fit(parameters)
        starts: list[Bytes] = []
        weights: list[Bytes] = []
        filling = levels_of(self.weights, self.exponents)[0] if self.weights == "binary" else 0
        for _, group, row in self.schedule.walk():
            units = slice(group * self.neurons, (group + 1) * self.neurons)
            part = PARTS.index(row.part)
            matrix = (parameters.input_weights, parameters.recurrent_weights)[part]
            beats = self.schedule.beats(row)
            lanes: list[Bytes] = []
            for gate in gates_of(row):
                words = np.concatenate(
                    [
                        as_bytes(parameters.starts[units, gate, part], START_BYTES),
                        self._scale_bytes(
                            parameters.multipliers[units, gate, part],
                            parameters.shifts[units, gate, part],
                        ),
                    ],
                    axis=1,
                )
                starts.append(np.pad(words, ((0, self.neurons - len(words)), (0, 0))).reshape(-1))
                chosen = matrix[gate, units]
                padded = np.full((self.neurons, beats * self.lanes), filling, np.int64)
                padded[: len(chosen), : chosen.shape[1]] = chosen
                lanes.append(self.lane_weights.pack(padded.reshape(self.neurons, beats, -1)))
            weights.append(np.concatenate(lanes).swapaxes(0, 1).reshape(beats, -1))
        return self.layout.join(
            {
                "configuration": np.concatenate(
                    [as_bytes(parameters.cell_exponent + 15, 1), as_bytes(parameters.cell_clip, 2)]
                ),
                "starts": np.stack(starts),
                "weights": np.concatenate(weights),
            }
        )

    def _check_fit(self, model: TernaryLstm) -> None:
        for name, field in (
            ("inputs", "inputs"),
            ("hidden units", "hidden"),
            ("weights", "weights"),
            ("exponents", "exponents"),
            ("activation width", "activation_width"),
            ("activation", "activation"),
        ):
            own, given = getattr(self, field), getattr(model, field)
            if own != given:
                raise ValueError(
                    f"The model's {name} must be {own}, as the layer's, not {given}; make a layer"
                    " for the model."
                )
        if self.scales == "powers_of_two" and not _has_powers_of_two(model):
            raise ValueError(
                "The model's scales must be powers of two, as the layer's; make a layer with fixed"
                " scales, or quantise to powers of two."
            )

    def _scale_bytes(self, multipliers: Raws, shifts: Raws) -> Bytes:
        if self.scales == "fixed":
            whole = as_bytes(multipliers >> SIGNIFICAND_POSITION, 3)
            return np.concatenate([whole, as_bytes(shifts, 1)], axis=1)
        return as_bytes((shifts & 0x3F) | (multipliers != 0).astype(np.int64) << NONZERO, 1)

    def _scales_of(self, content: Bytes) -> tuple[Raws, Raws]:
        """Multipliers and shifts of their bytes, the inverse of `_scale_bytes`."""
        if self.scales == "fixed":
            multipliers = integers(content[..., :3], signed=False) << SIGNIFICAND_POSITION
            return multipliers, integers(content[..., 3:])
        byte = content[..., 0].astype(np.int64)
        return (byte >> NONZERO & 1) * _HALF, ((byte & 0x3F) ^ 0x20) - 0x20

    def unpack(self, image: bytes) -> TernaryLstm:
        contents = self.layout.split(image)
        starts = contents["starts"].reshape(-1, self.neurons, START_BYTES + self.scale_bytes)
        side_by_side = self.neurons * self.rows_at_once
        words = contents["weights"].reshape(-1, side_by_side, self.lane_weights.bytes)
        configuration = contents["configuration"][0]
        groups = self.schedule.groups(self.schedule.phases[0])
        rows = len(GATES), groups * self.neurons
        bias = np.zeros(rows, np.int64)
        scales = np.zeros((len(PARTS), 2, *rows), np.int64)
        matrices = [np.zeros((*rows, length), np.int64) for length in (self.inputs, self.hidden)]
        start = word = 0
        for _, group, row in self.schedule.walk():
            units = slice(group * self.neurons, (group + 1) * self.neurons)
            part = PARTS.index(row.part)
            beats = self.schedule.beats(row)
            levels = self.lane_weights.unpack(words[word : word + beats]).swapaxes(0, 1)
            word += beats
            matrix = matrices[part]
            for place, gate in enumerate(gates_of(row)):
                values = starts[start]
                start += 1
                if row.part == "input":
                    bias[gate, units] = integers(values[:, :START_BYTES])
                scales[part, :, gate, units] = self._scales_of(values[:, START_BYTES:])
                chosen = levels[place * self.neurons : (place + 1) * self.neurons]
                matrix[gate, units] = chosen.reshape(self.neurons, -1)[:, : matrix.shape[2]]
        (input_multipliers, input_shifts), (recurrent_multipliers, recurrent_shifts) = scales[
            ..., : self.hidden
        ]
        return TernaryLstm(
            weights=self.weights,
            input_weights=matrices[0][:, : self.hidden].astype(np.int16),
            recurrent_weights=matrices[1][:, : self.hidden].astype(np.int16),
            bias=bias[:, : self.hidden].astype(np.int32),
            input_multipliers=input_multipliers,
            input_shifts=input_shifts,
            recurrent_multipliers=recurrent_multipliers,
            recurrent_shifts=recurrent_shifts,
            input_scale=1.0,
            activation_width=self.activation_width,
            exponents=self.exponents,
            cell_exponent=int(configuration[0]) - 15,
            cell_clip=int(integers(configuration[1:], signed=False)),
            activation=self.activation,
        )

    def reset_state(self, parameters: TernaryLstm) -> tuple[Raws, Raws]:
        hidden, cell = reset_state(parameters, 1)
        return hidden[0], cell[0]

    def next_state(
        self, parameters: TernaryLstm, x: Raws, hidden: Raws, cell: Raws
    ) -> tuple[Raws, Raws]:
        new = step(parameters, *(raws[np.newaxis] for raws in (x, hidden, cell)))
        return new[0][0], new[1][0]

    def random_image(self, rng: np.random.Generator) -> bytes:
        return self.pack(random_model(self, rng))


def gates_of(row: Row) -> tuple[int, ...]:
    """Numbers of the gates of a row: of one, or of all that are side by side."""
    gate, separator, _ = row.name.partition("_")
    return tuple(GATES.index(each) for each in ((gate,) if separator else SIDE_BY_SIDE))


def _has_powers_of_two(model: TernaryLstm) -> bool:
    return bool(np.isin(model.multipliers, (0, _HALF)).all())


def random_model(layer: TernaryLstmLayer, rng: np.random.Generator) -> TernaryLstm:
    """A random model: any weights, scales that take most gates to a lively range."""
    rows = len(GATES), layer.hidden
    levels = np.array(levels_of(layer.weights, layer.exponents))
    typical = float(np.sqrt((levels.astype(np.float64) ** 2).mean())) * 2.0**layer.activation_width
    scales: dict[str, Raws] = {}
    for part, length in zip(PARTS, (layer.inputs, layer.hidden), strict=True):
        multipliers = np.full(rows, _HALF)
        if layer.scales == "fixed":
            multipliers = rng.integers(1 << 23, 1 << 24, rows) << SIGNIFICAND_POSITION
        # Sums of uniform raws are about a quarter of this; a gate is lively up to 2^14.
        distance = 14.5 - np.log2(typical * np.sqrt(length)) + rng.uniform(-2, 2, rows)
        shifts = np.clip(np.rint(distance), -31, 30).astype(np.int64)
        wild = rng.random(rows) < 1 / 64
        shifts[wild] = rng.integers(-31, 31, int(wild.sum()))
        multipliers[rng.random(rows) < 1 / 64] = 0
        scales |= {f"{part}_multipliers": multipliers, f"{part}_shifts": shifts}
    largest = typical * np.sqrt(layer.inputs)
    bias = np.rint(rng.normal(0, largest / 4, rows)).astype(np.int64)
    wild = rng.random(rows) < 1 / 32
    bias[wild] = rng.integers(-(2**31), 2**31, int(wild.sum()))
    return TernaryLstm(
        weights=layer.weights,
        input_weights=rng.choice(levels, (*rows, layer.inputs)),
        recurrent_weights=rng.choice(levels, (*rows, layer.hidden)),
        bias=bias.astype(np.int32),
        **scales,
        input_scale=1.0,
        activation_width=layer.activation_width,
        exponents=layer.exponents,
        cell_exponent=int(rng.integers(-15, -8)),
        cell_clip=int(rng.choice([0, 0, 0, 20480, 32767, int(rng.integers(1, 32768))])),
        activation=layer.activation,
    )
