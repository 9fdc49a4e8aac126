"""The layer of ternary, binary or power-of-two weights, and its image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import numpy as np

from fewbit.golden.accumulate.packing import PackingKind
from fewbit.golden.activation.integer import ActivationKind, activation_parameter
from fewbit.golden.arithmetic import HIGHEST_SHIFT, INT32_RANGE, LOWEST_SHIFT, SIGNIFICAND_POSITION
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
from fewbit.golden.layer.integer_schedule import integer_schedule
from fewbit.golden.layer.schedule import Phase, Row, Schedule, Task
from fewbit.golden.layer.sections import (
    cell_clip_field,
    cell_exponent_bits,
    cell_exponent_field,
    configuration_section,
    hidden_parameter,
    inputs_parameter,
    multipliers_field,
    neurons_parameter,
    records,
    split_bits,
)
from fewbit.golden.lstm.integer_variant import (
    GATES,
    HIGHEST_CELL_EXPONENT,
    LOWEST_CELL_EXPONENT,
    PARTS,
    IntegerVariant,
)
from fewbit.golden.lstm.ternary import LevelKind, ScaleKind, TernaryLstm, levels_of
from fewbit.golden.neuron.ternary import (
    MOST_LANES,
    SIDE_BY_SIDE,
    LaneWeights,
    exponents_parameter,
    value_width_parameter,
    weights_parameter,
)
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.layer.image import Arrays

    Raws = npt.NDArray[np.int64]

__all__ = [
    "NONZERO",
    "GateOrder",
    "TernaryLstmLayerContract",
    "random_model",
]

GateOrder = Literal["in_turn", "side_by_side"]
"""The order of the rows of a unit's gates: one after the other, or all four at once."""


START_BYTES = 4
_HALF_OF_Q31 = 1 << 30
"""The multiplier of a scale that is a power of two."""
NONZERO = 6
"""Bit of a shift's byte that is 1 unless the row's scale is 0, where scales are powers of two."""


@dataclass(frozen=True)
class TernaryLstmLayerContract(LayerContract[TernaryLstm]):
    """A layer of ternary, binary or power-of-two weights with its constants and its state.

    The layer receives packets and answers them in order, see :mod:`fewbit.golden.layer.packets`: an
    image, input vectors of ``inputs`` raws, and states. An input vector is one time step; its
    answer is the new hidden vector of ``hidden`` raws. A raw of more than 8 bits takes two bytes,
    low byte first, with its sign extended; the layer reads only the low ``activation_width`` bits.
    A state is the hidden vector, then the cell raws of 16 bits.

    Bit for bit, the layer computes :meth:`fewbit.golden.lstm.ternary.TernaryLstm.step`. An image
    does not hold the inputs' scale, which is part of the multipliers: an unpacked model has the
    scale 1.

    Parameters
    ----------
    inputs, hidden
        Lengths of the input vector and of the cell.
    lanes
        Weights of each neuron in a cycle; they must fill whole bytes.
    neurons
        Number of neurons, which work on as many units side by side.
    weights, exponents
        "ternary", "binary", "pow2" or "int12", see :mod:`fewbit.golden.lstm.ternary`.
    packing
        "fields": each weight in bits of its own; "dense": five ternary weights in 8 bits.
    scales
        "any": split multipliers; "powers_of_two": multipliers of 2^30 and 0 alone.
    gate_order
        "in_turn": a neuron adds the rows of a unit's gates one after the other. "side_by_side": it
        adds the rows of all four gates at once, each on its own ``lanes``; that needs one neuron,
        scales of powers of two and the activation "table".
    activation_width
        Bits of inputs and hidden values.
    activation
        "table" or "gemmlowp", see :mod:`fewbit.golden.activation.integer`.
    image
        The image that the layer was generated with; None where packets bring it.

    Source: see :mod:`fewbit.golden.lstm.ternary`.
    """

    inputs: int = inputs_parameter()
    hidden: int = hidden_parameter()
    lanes: int = parameter(16, "weights a neuron and cycle, whole bytes of them", 1, MOST_LANES)
    neurons: int = neurons_parameter()
    weights: LevelKind = weights_parameter()
    exponents: int = exponents_parameter()
    packing: PackingKind = parameter(
        "fields",
        "each weight in bits of its own, or five ternary ones in 8",
        choices=get_args(PackingKind),
    )
    scales: ScaleKind = parameter(
        "any", "what scales rows have: any, or powers of two", choices=get_args(ScaleKind)
    )
    gate_order: GateOrder = parameter(
        "in_turn",
        "rows of a unit's gates one after the other, or all four at once",
        choices=get_args(GateOrder),
    )
    activation_width: int = value_width_parameter()  # pyright: ignore[reportIncompatibleMethodOverride]
    activation: ActivationKind = activation_parameter()
    image: bytes | None = None

    chosen: ClassVar[tuple[str, ...]] = ("lanes", "neurons", "packing", "gate_order")

    def __post_init__(self) -> None:
        check_parameters(self)
        _ = self.lane_weights.bytes
        self._check_gate_order()
        if self.image is not None:
            self.unpack(self.image)

    def _check_gate_order(self) -> None:
        if self.gate_order == "in_turn":
            return
        for name, needed in (
            ("neurons", 1),
            ("scales", "powers_of_two"),
            ("activation", "table"),
        ):
            given = getattr(self, name)
            if given != needed:
                raise ValueError(
                    f"With gate_order side_by_side, {name} must be {needed}, not {given}."
                )

    @classmethod
    def of(
        cls,
        model: TernaryLstm,
        lanes: int | None = None,
        neurons: int | None = None,
        **chosen: Any,
    ) -> Self:
        """Return the contract of a model's layer, with the kind of scales that the model has."""
        return cls(
            inputs=model.inputs,
            hidden=model.hidden,
            weights=model.weights,
            exponents=model.exponents,
            scales="powers_of_two" if _has_powers_of_two(model) else "any",
            activation_width=model.activation_width,
            activation=model.activation,
            **cls._given(lanes=lanes, neurons=neurons, **chosen),
        )

    @staticmethod
    def constants_of(model: TernaryLstm) -> Any:
        return model

    @property
    def lane_weights(self) -> LaneWeights:
        """Return the weights of a neuron in a cycle."""
        return LaneWeights(self.lanes, self.weights, self.exponents, self.packing)

    @property
    def variant(self) -> IntegerVariant:
        """Return the variant without any part beside the four gates."""
        return IntegerVariant()

    @property
    def schedule(self) -> Schedule:
        """Return the schedule: that of the plain integer LSTM, or all gates at once."""
        if self.gate_order == "side_by_side":
            gates = tuple(GATES.index(gate) for gate in SIDE_BY_SIDE)
            rows = tuple(Row(part, part, gates=gates) for part in PARTS)
            task = Task("update", rows, "hidden", writes_cell=True)
            return Schedule((Phase((task,)),), self.inputs, self.hidden, self.hidden, self.lanes, 1)
        return integer_schedule(
            self.variant, self.inputs, self.hidden, self.hidden, self.lanes, self.neurons
        )

    @property
    def rows_at_once(self) -> int:
        """Return the number of rows that a neuron adds at once."""
        return len(SIDE_BY_SIDE) if self.gate_order == "side_by_side" else 1

    @property
    def scale_bytes(self) -> int:
        """Return the number of bytes of a row's scale."""
        return 4 if self.scales == "any" else 1

    def make_plan(self) -> Plan:
        schedule = self.schedule
        (phase,) = schedule.phases
        groups = schedule.groups(phase)
        order = ", ".join(SIDE_BY_SIDE)
        starts, lanes = "of each neuron's row", "for each neuron its lanes"
        if self.gate_order == "side_by_side":
            starts = f"of each row, of gates {order}"
            lanes = f"for each of the gates {order} its lanes"
        scale = (
            "upper 24 bits of its split multiplier (3), shift (1)"
            if self.scales == "any"
            else f"shift in 6 bits, and bit {NONZERO} unless its scale is 0 (1)"
        )
        return Plan(
            self._image_fields,
            (
                configuration_section(
                    (cell_exponent_bits(), Bits(16, "cell_clip")),
                    "integer bits of the cell (1 byte), cell clip (2)",
                ),
                records(
                    "starts",
                    f"{starts}: what its sum starts from (4), {scale}",
                    self.neurons,
                    RecordsPass(
                        groups,
                        tuple(
                            self._start_bits(row.part, gate)
                            for row in schedule.rows
                            for gate in row.gates
                        ),
                    ),
                ),
                Weights.of(
                    "weights",
                    f"weights of a cycle: {lanes}, the first in the lowest bits;"
                    " rows padded with zeros, or where there is no zero with any weight",
                    self.neurons,
                    self.lanes,
                    (
                        WeightsPass(
                            groups,
                            tuple(
                                WeightsRow(
                                    schedule.beats(row),
                                    tuple(
                                        Matrix(f"{row.part}_weights", (gate,)) for gate in row.gates
                                    ),
                                )
                                for row in schedule.rows
                            ),
                        ),
                    ),
                    _codes_of(self.lane_weights),
                    self.rows_at_once,
                ),
            ),
            {"activation": self.activation},
        )

    @property
    def _image_fields(self) -> dict[str, Field]:
        """Return the fields of the image by name."""
        levels = levels_of(self.weights, self.exponents)
        ends = levels[0], levels[-1]
        rows = len(GATES), self.hidden
        listed = f"levels, gates {', '.join(GATES)}"
        scale = "a row's scale, from its sum to the gate, is multiplier / 2^31 * 2^shift"
        multipliers = multipliers_field(rows, scale)
        if self.scales == "powers_of_two":
            multipliers = Field(rows, 0, _HALF_OF_Q31, f"{scale}; 0 or 2^30", _HALF_OF_Q31)
        fields = {
            "input_weights": Field((*rows, self.inputs), *ends, listed),
            "recurrent_weights": Field((*rows, self.hidden), *ends, listed),
            "bias": Field(rows, *INT32_RANGE, "what the sums of the input rows start from"),
        }
        for part in PARTS:
            fields[f"{part}_multipliers"] = multipliers
            fields[f"{part}_shifts"] = Field(rows, LOWEST_SHIFT, HIGHEST_SHIFT)
        return fields | {
            "cell_exponent": cell_exponent_field(),
            "cell_clip": cell_clip_field(),
        }

    def _start_bits(self, part: str, gate: int) -> tuple[Bits, ...]:
        """Return the layout of a unit's record in the memory of starts, for one row.

        A start value of 32 bits, then the scale: any scale takes the bits of a multiplier and a
        shift. A power of two takes a byte: the shift, a bit that is 1 unless the scale is 0, and a
        bit 0.
        """
        start = Bits(8 * START_BYTES, "bias" if part == "input" else "", (gate,))
        if self.scales == "any":
            return start, *split_bits(f"{part}_", (gate,))
        multiplier = Bits(1, f"{part}_multipliers", (gate,), right=_HALF_OF_Q31.bit_length() - 1)
        return start, Bits(NONZERO, f"{part}_shifts", (gate,)), multiplier, Bits(7 - NONZERO)

    def check_fit(self, constants: TernaryLstm) -> None:
        model = constants
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
                "The model's scales must be powers of two, as the layer's; make a layer with any"
                " scales, or quantise to powers of two."
            )

    def made_of(self, arrays: Arrays) -> TernaryLstm:
        return TernaryLstm(
            weights=self.weights,
            input_weights=arrays["input_weights"].astype(np.int16),
            recurrent_weights=arrays["recurrent_weights"].astype(np.int16),
            bias=arrays["bias"].astype(np.int32),
            input_multipliers=arrays["input_multipliers"],
            input_shifts=arrays["input_shifts"],
            recurrent_multipliers=arrays["recurrent_multipliers"],
            recurrent_shifts=arrays["recurrent_shifts"],
            input_scale=1.0,
            activation_width=self.activation_width,
            exponents=self.exponents,
            cell_exponent=int(arrays["cell_exponent"]),
            cell_clip=int(arrays["cell_clip"]),
            activation=self.activation,
        )

    def reset_state(self, constants: TernaryLstm) -> tuple[Raws, Raws]:
        hidden, cell = constants.reset_state(1)
        return hidden[0], cell[0]

    def next_state(
        self, constants: TernaryLstm, x: Raws, hidden: Raws, cell: Raws
    ) -> tuple[Raws, Raws]:
        new = constants.step(*(raws[np.newaxis] for raws in (x, hidden, cell)))
        return new[0][0], new[1][0]

    def random_image(self, rng: np.random.Generator) -> bytes:
        return self.pack(random_model(self, rng))


def _codes_of(weights: LaneWeights) -> Codes:
    """Return the code of a weight in the image, or of weights that share a code."""
    width = weights.operand.format.width
    if weights.weights == "int12":
        return Codes(width)
    one = replace(weights, lanes=weights.lanes // (weights.operand.lanes or 1))
    codes = np.arange(1 << width)[:, np.newaxis]
    levels = one.levels(codes)
    known = np.isin(levels, levels_of(weights.weights, 1 << weights.exponent_bits)).all(axis=1)
    unwritten = np.ones(len(codes), np.bool_)
    unwritten[known] = one.codes(levels[known])[:, 0] != codes[known, 0]
    return Codes(
        width,
        # If there is no weight 0, any weight may fill a word.
        0 if (levels == 0).any() else int(levels[0, 0]),
        levels=tuple(tuple(group) for group in levels.tolist()),
        unwritten=tuple(np.flatnonzero(unwritten).tolist()),
    )


def _has_powers_of_two(model: TernaryLstm) -> bool:
    return bool(np.isin(model.multipliers, (0, _HALF_OF_Q31)).all())


def random_model(layer: TernaryLstmLayerContract, rng: np.random.Generator) -> TernaryLstm:
    """Return a random model: any weights, and scales that keep most gates away from saturation."""
    rows = len(GATES), layer.hidden
    levels = np.array(levels_of(layer.weights, layer.exponents))
    typical = float(np.sqrt((levels.astype(np.float64) ** 2).mean())) * 2.0**layer.activation_width
    scales: dict[str, Raws] = {}
    for part, length in zip(PARTS, (layer.inputs, layer.hidden), strict=True):
        multipliers = np.full(rows, _HALF_OF_Q31)
        if layer.scales == "any":
            multipliers = rng.integers(1 << 23, 1 << 24, rows) << SIGNIFICAND_POSITION
        # Sums of uniform raws are about a quarter of this; up to 2^14 a gate does not saturate.
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
        cell_exponent=int(rng.integers(LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT + 1)),
        cell_clip=int(rng.choice([0, 0, 0, 20480, 32767, int(rng.integers(1, 32768))])),
        activation=layer.activation,
    )
