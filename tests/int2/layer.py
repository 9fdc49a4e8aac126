"""The contract of the layer of 2-bit weights: its parameters, its schedule and its image."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.integer import ActivationKind, activation_parameter
from fewbit.golden.arithmetic import HIGHEST_SHIFT, INT32_RANGE, LOWEST_SHIFT
from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.image import (
    Arrays,
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
from fewbit.golden.layer.schedule import Schedule
from fewbit.golden.layer.sections import (
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
from fewbit.golden.lstm.integer_variant import PARTS, IntegerVariant
from fewbit.golden.parameter import check_parameters, parameter

from .lstm import LEVELS, Int2Lstm

Raws = npt.NDArray[np.int64]
WEIGHTS_IN_A_BYTE = 4


@dataclass(frozen=True)
class Int2LstmLayerContract(LayerContract[Int2Lstm]):
    """A layer of 2-bit weights with its weights and its state; bit for bit `Int2Lstm.step`."""

    inputs: int = inputs_parameter()
    hidden: int = hidden_parameter()
    lanes: int = parameter(8, "weights a neuron and cycle, whole bytes of them", 4, 64)
    neurons: int = neurons_parameter()
    activation: ActivationKind = activation_parameter()
    image: bytes | None = None

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.lanes % WEIGHTS_IN_A_BYTE:
            raise ValueError(f"lanes must be a multiple of 4, not {self.lanes}.")
        if self.image is not None:
            self.unpack(self.image)

    @classmethod
    def of(
        cls, model: Int2Lstm, lanes: int | None = None, neurons: int | None = None, **chosen: Any
    ) -> Self:
        given = cls._given(lanes=lanes, neurons=neurons, **chosen)
        return cls(model.inputs, model.hidden, activation=model.activation, **given)

    @staticmethod
    def constants_of(model: Int2Lstm) -> Any:
        return model

    @property
    def variant(self) -> IntegerVariant:
        """Parts beside the four gates: none."""
        return IntegerVariant()

    @property
    def schedule(self) -> Schedule:
        sizes = self.inputs, self.hidden, self.hidden, self.lanes, self.neurons
        return integer_schedule(self.variant, *sizes)

    def make_plan(self) -> Plan:
        rows = self.schedule.rows
        (phase,) = self.schedule.phases
        groups = self.schedule.groups(phase)
        shape = 4, self.hidden
        starts = [
            (
                Bits(32, "bias" if row.part == "input" else "", row.gates),
                *split_bits("", (*row.gates, PARTS.index(row.part))),
            )
            for row in rows
        ]
        weights = [
            WeightsRow(self.schedule.beats(row), (Matrix(f"{row.part}_weights", row.gates),))
            for row in rows
        ]
        return Plan(
            fields={
                "input_weights": Field((*shape, self.inputs), *LEVELS),
                "recurrent_weights": Field((*shape, self.hidden), *LEVELS),
                "bias": Field(shape, *INT32_RANGE),
                "multipliers": multipliers_field((4, 2)),
                "shifts": Field((4, 2), LOWEST_SHIFT, HIGHEST_SHIFT),
                "cell_exponent": cell_exponent_field(),
            },
            sections=(
                configuration_section((cell_exponent_bits(),), "integer bits of the cell"),
                records(
                    "starts",
                    "of each neuron's row: start (4), multiplier (3), shift (1)",
                    self.neurons,
                    RecordsPass(groups, tuple(starts)),
                ),
                Weights.of(
                    "weights",
                    "weights of a cycle, 2 bits each",
                    self.neurons,
                    self.lanes,
                    (WeightsPass(groups, tuple(weights)),),
                    Codes(2),
                ),
            ),
            texts={"activation": self.activation},
        )

    def check_fit(self, constants: Int2Lstm) -> None:
        for name in ("inputs", "hidden", "activation"):
            own, given = getattr(self, name), getattr(constants, name)
            if own != given:
                raise ValueError(f"The model's {name} must be {own}, not {given}.")

    def made_of(self, arrays: Arrays) -> Int2Lstm:
        return Int2Lstm(
            arrays["input_weights"].astype(np.int8),
            arrays["recurrent_weights"].astype(np.int8),
            arrays["bias"].astype(np.int32),
            arrays["multipliers"].astype(np.int32),
            arrays["shifts"].astype(np.int8),
            # The image doesn't hold it: the multipliers contain it.
            1.0,
            int(arrays["cell_exponent"]),
            self.activation,
        )

    def reset_state(self, constants: Int2Lstm) -> tuple[Raws, Raws]:
        hidden, cell = constants.reset_state(1)
        return hidden[0], cell[0]

    def next_state(
        self, constants: Int2Lstm, x: Raws, hidden: Raws, cell: Raws
    ) -> tuple[Raws, Raws]:
        new = constants.step(*(raws[np.newaxis] for raws in (x, hidden, cell)))
        return new[0][0], new[1][0]

    def random_image(self, rng: np.random.Generator) -> bytes:
        shape = 4, self.hidden
        return self.pack(
            Int2Lstm(
                rng.integers(-2, 2, (*shape, self.inputs)).astype(np.int8),
                rng.integers(-2, 2, (*shape, self.hidden)).astype(np.int8),
                rng.integers(-200, 200, shape).astype(np.int32),
                (rng.integers(1 << 23, 1 << 24, (4, 2)) << 7).astype(np.int32),
                rng.integers(2, 7, (4, 2)).astype(np.int8),
                1.0,
                int(rng.integers(-15, -8)),
                self.activation,
            )
        )
