"""The layer of the integer LSTM, and the image that holds its constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fewbit.golden.activation.integer import ActivationKind, activation_parameter
from fewbit.golden.arithmetic import (
    HIGHEST_SHIFT,
    INT8_RANGE,
    INT16_RANGE,
    INT32_RANGE,
    LOWEST_SHIFT,
    SIGNIFICAND_POSITION,
    wrap,
)
from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.image import (
    Bits,
    Codes,
    Field,
    Fold,
    Matrix,
    Plan,
    Records,
    RecordsPass,
    Weights,
    WeightsPass,
    WeightsRow,
)
from fewbit.golden.layer.int8_random import random_constants
from fewbit.golden.layer.integer_schedule import integer_schedule
from fewbit.golden.layer.sections import (
    LARGEST_LAYER,
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
from fewbit.golden.lstm.int8 import Int8Constants, Int8Lstm, step_constants
from fewbit.golden.lstm.integer_variant import PARTS, TIES_UP, IntegerVariant
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.layer.image import Arrays
    from fewbit.golden.layer.schedule import Row, Schedule

    Raws = npt.NDArray[np.int64]

__all__ = ["Int8LstmLayerContract"]

_TYPES: dict[tuple[str, ...], type[np.integer[Any]]] = {
    ("input_weights", "recurrent_weights", "projection_weights"): np.int8,
    ("peephole_weights", "norm_weights"): np.int16,
    ("folded_bias", "norm_bias", "projection_bias"): np.int32,
}
"""Types of the constants' arrays by name; all other arrays are int64."""


@dataclass(frozen=True)
class Int8LstmLayerContract(LayerContract[Int8Constants]):
    """A layer of the integer LSTM with its constants and its state.

    The layer receives packets and answers them in order, see :mod:`fewbit.golden.layer.packets`: an
    image, input vectors of ``inputs`` raws of 8 bits, and states. An input vector is one time step;
    its answer is the new hidden vector of ``outputs`` raws of 8 bits. A state is the hidden vector,
    then the cell raws of 16 bits, low byte first.

    Bit for bit, the layer computes :func:`fewbit.golden.lstm.integer_step.step_constants` with
    double rounding.

    Parameters
    ----------
    inputs, hidden
        Lengths of the input vector and of the cell.
    lanes
        Products of each neuron in a cycle.
    neurons
        Number of neurons, which work on as many units side by side.
    activation
        "table" or "gemmlowp", see :mod:`fewbit.golden.activation.integer`.
    cifg, peephole, layer_norm
        1 for a layer with coupled input and forget gates, with peepholes, with layer norm; else 0.
    projection
        Length of the hidden vector where it is a projection; 0 for none.
    image
        The image that the layer was generated with; None where packets bring it.

    Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453.
    """

    inputs: int = inputs_parameter()
    hidden: int = hidden_parameter("cells, and hidden values unless there is a projection")
    lanes: int = parameter(4, "int8 products a neuron and cycle", 1, 64)
    neurons: int = neurons_parameter()
    activation: ActivationKind = activation_parameter()
    cifg: int = parameter(0, "1: the input gate is one minus the forget gate", 0, 1)
    peephole: int = parameter(0, "1: the gates i, f and o see the cell", 0, 1)
    layer_norm: int = parameter(0, "1: the gates are normalised", 0, 1)
    projection: int = parameter(
        0, "hidden values after a projection; 0: no projection", 0, LARGEST_LAYER
    )
    image: bytes | None = None

    chooses_precision: ClassVar[bool] = False
    """Whether the layer chooses 8 or 4 bits of the weights for each time step and unit."""

    def __post_init__(self) -> None:
        check_parameters(self)
        if self.peephole and self.projection > self.hidden:
            raise ValueError(
                f"projection must be at most hidden, {self.hidden}, in a layer with peepholes, not"
                f" {self.projection}."
            )
        if self.image is not None:
            self.unpack(self.image)

    @classmethod
    def of(
        cls, model: Int8Lstm, lanes: int | None = None, neurons: int | None = None, **chosen: Any
    ) -> Self:
        """Return the contract of the layer that runs a model.

        Raises
        ------
        ValueError
            If the model's precision is chosen at every time step: that needs another class.
        """
        if model.dynamic and not cls.chooses_precision:
            raise ValueError(
                "The model's precision is chosen per step; its layer is a DynamicInt8LstmLayer."
            )
        return cls(
            inputs=model.inputs,
            hidden=model.hidden,
            activation=model.activation,
            cifg=int(model.coupled),
            peephole=int(model.peephole_weights is not None),
            layer_norm=int(model.norm_weights is not None),
            projection=0 if model.projection_weights is None else model.outputs,
            **cls._given(lanes=lanes, neurons=neurons, **chosen),
        )

    @staticmethod
    def constants_of(model: Int8Lstm) -> Any:
        return model.constants

    @property
    def outputs(self) -> int:
        """Return the length of the hidden vector."""
        return self.projection or self.hidden

    @property
    def variant(self) -> IntegerVariant:
        """Return the variant of the LSTM: the parts that the layer has."""
        return IntegerVariant(
            bool(self.cifg), bool(self.peephole), bool(self.layer_norm), bool(self.projection)
        )

    @property
    def schedule(self) -> Schedule:
        """Return the schedule of a time step."""
        return integer_schedule(
            self.variant, self.inputs, self.hidden, self.outputs, self.lanes, self.neurons
        )

    @property
    def scales(self) -> tuple[str, ...]:
        """Return the names of all split multipliers of rows and results, in the image's order."""
        return tuple(self._scales)

    @property
    def _scales(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return prefix and index of the arrays that hold each split multiplier, by its name."""
        scales: dict[str, tuple[str, tuple[int, ...]]] = {}
        peeping = self.variant.peeping
        for index, gate in enumerate(self.variant.gates):
            for part, name in enumerate(PARTS):
                scales[f"{gate}_{name}"] = "", (index, part)
            if self.variant.peeps(gate):
                scales[f"{gate}_peephole"] = "peephole_", (peeping.index(gate),)
        scales["hidden"] = "hidden_", ()
        if self.projection:
            scales["projection"] = "projection_", ()
        return scales

    def make_plan(self) -> Plan:
        return Plan(
            self.image_fields,
            (*self.constant_sections, self._starts, self._weights),
            self.image_texts,
            self.image_folds,
        )

    @property
    def image_texts(self) -> dict[str, str]:
        """Return the texts that the constants' arrays must agree with."""
        return {"activation": self.activation, "rounding": "double"}

    @property
    def image_folds(self) -> tuple[Fold, ...]:
        """Return the relations that the circuit relies on at reset."""
        recurrent = PARTS.index("recurrent")
        return (Fold("folded_bias", recurrent, "reset_hidden", "recurrent_weights"),)

    @property
    def image_fields(self) -> dict[str, Field]:
        """Return the fields of the image by name."""
        gates, hidden, outputs = len(self.variant.gates), self.hidden, self.outputs
        order = ", ".join(self.variant.gates)
        fields = {
            "input_weights": Field((gates, hidden, self.inputs), *INT8_RANGE, f"gates {order}"),
            "recurrent_weights": Field((gates, hidden, outputs), *INT8_RANGE, f"gates {order}"),
            "folded_bias": Field(
                (gates, len(PARTS), hidden),
                *INT32_RANGE,
                "input part: bias - zero point of the input * sum of the row's weights; recurrent"
                " part: - zero point of the hidden values * sum of the row's weights",
            ),
            "multipliers": multipliers_field(
                (gates, len(PARTS)), "effective scale = multiplier / 2^31 * 2^shift"
            ),
            "shifts": Field((gates, len(PARTS)), LOWEST_SHIFT, HIGHEST_SHIFT),
            "cell_exponent": cell_exponent_field(),
            "cell_clip": cell_clip_field(),
            "hidden_multiplier": multipliers_field((), "of the last requantisation"),
            "hidden_shift": Field((), LOWEST_SHIFT, 0),
            "hidden_offset": Field(
                (),
                INT8_RANGE[0],
                INT8_RANGE[1] + bool(self.projection),
                "what it adds: its zero point",
            ),
            "reset_hidden": Field((), *INT8_RANGE, "hidden raw at reset"),
        }
        if self.peephole:
            fields |= {
                "peephole_weights": Field((gates - 1, hidden), *INT16_RANGE, "of all gates but g"),
                "peephole_multipliers": multipliers_field((gates - 1,)),
                "peephole_shifts": Field((gates - 1,), LOWEST_SHIFT, HIGHEST_SHIFT),
                "peephole_ties_up": Field(
                    (), 0, hidden, "units, from the first, whose ties go up as LiteRT's in vectors"
                ),
            }
        if self.layer_norm:
            fields |= {
                "norm_weights": Field((gates, hidden), *INT16_RANGE, "gains of the layer norm"),
                "norm_bias": Field((gates, hidden), *INT32_RANGE),
                "norm_guards": Field((gates,), 1, INT32_RANGE[1], "least variance"),
                "norm_multipliers": multipliers_field((gates,)),
                "norm_shifts": Field((gates,), LOWEST_SHIFT, HIGHEST_SHIFT),
            }
        if self.projection:
            fields |= {
                "projection_weights": Field((outputs, hidden), *INT8_RANGE),
                "projection_bias": Field((outputs,), *INT32_RANGE),
                "projection_multiplier": multipliers_field(()),
                "projection_shift": Field((), LOWEST_SHIFT, HIGHEST_SHIFT),
                "projection_offset": Field((), *INT8_RANGE, "zero point of the hidden values"),
                "projection_clip": Field((), 0, INT8_RANGE[1], "0 for none"),
            }
        return fields

    @property
    def configuration_bits(self) -> tuple[Bits, ...]:
        """Return the bits of the image's section "configuration"."""
        bits = (
            cell_exponent_bits(),
            Bits(16, "cell_clip"),
            Bits(16, "hidden_offset"),
            Bits(8, "reset_hidden"),
        )
        if self.projection:
            bits += Bits(8, "projection_offset"), Bits(8, "projection_clip")
        return bits

    @property
    def constant_sections(self) -> tuple[Records, ...]:
        """Return the sections of the image that precede those of its rows."""
        gates = range(len(self.variant.gates))
        sections = [
            configuration_section(
                self.configuration_bits,
                "integer bits of the cell (1 byte), cell clip (2), what the last requantisation"
                " adds (2), hidden raw at reset (1)"
                + (", what the projection adds (1), its clip (1)" if self.projection else ""),
            ),
            records(
                "scales",
                "upper 24 bits of a split multiplier, then its shift: " + ", ".join(self.scales),
                1,
                RecordsPass(
                    1,
                    tuple(split_bits(prefix, index) for prefix, index in self._scales.values()),
                ),
            ),
        ]
        if self.layer_norm:
            sections += [
                records(
                    "norm_scales",
                    "a gate's norm: upper 24 bits of its split multiplier, shift (1), least"
                    " variance (4)",
                    1,
                    RecordsPass(
                        1,
                        tuple(
                            (
                                *split_bits("norm_", (gate,)),
                                Bits(32, "norm_guards", (gate,)),
                            )
                            for gate in gates
                        ),
                    ),
                ),
                records(
                    "norm",
                    "gain (2) and bias (4) of each unit, gate by gate",
                    1,
                    *(
                        RecordsPass(
                            self.hidden,
                            ((Bits(16, "norm_weights", (gate,)), Bits(32, "norm_bias", (gate,))),),
                        )
                        for gate in gates
                    ),
                ),
            ]
        return tuple(sections)

    @property
    def _starts(self) -> Records:
        return records(
            "starts",
            "what a row of each neuron starts from: folded bias, or the peephole weight with"
            " bit 16 for ties of its product that go up",
            self.neurons,
            *(
                RecordsPass(groups, tuple(self._start_bits(row) for row in rows))
                for groups, rows in self.image_rows
            ),
        )

    @property
    def image_rows(self) -> list[tuple[int, list[Row]]]:
        """Return the rows that start from the image, phase by phase, with the phase's groups."""
        schedule = self.schedule
        found: list[tuple[int, list[Row]]] = []
        for phase in schedule.phases:
            rows = [row for task in phase.tasks for row in task.rows if row.start == "image"]
            if rows:
                found.append((schedule.groups(phase), rows))
        return found

    def _start_bits(self, row: Row) -> tuple[Bits, ...]:
        if row.part == "inner":
            return (Bits(32, "projection_bias"),)
        (gate,) = row.gates
        if row.part == "none":
            index = self.variant.peeping.index(self.variant.gates[gate])
            # Bit TIES_UP and, above it, zeros.
            ties_up = Bits(32 - TIES_UP, "peephole_ties_up", counts=True)
            return Bits(TIES_UP, "peephole_weights", (index,)), ties_up
        return (Bits(32, "folded_bias", (gate, PARTS.index(row.part))),)

    @property
    def _weights(self) -> Weights:
        return Weights.of(
            "weights",
            "weights of a cycle: for each neuron its lanes; rows padded with zeros",
            self.neurons,
            self.lanes,
            self.weights_passes,
            Codes(8),
        )

    @property
    def weights_passes(self) -> tuple[WeightsPass, ...]:
        """Return the rows of weights, phase by phase."""
        passes: list[WeightsPass] = []
        for groups, rows in self.image_rows:
            found = tuple(
                WeightsRow(self.schedule.beats(row), (_matrix_of(row),))
                for row in rows
                if row.part != "none"
            )
            if found:
                passes.append(WeightsPass(groups, found))
        return tuple(passes)

    def check_fit(self, constants: Int8Constants) -> None:
        found = (
            constants.input_weights.shape[2],
            constants.input_weights.shape[1],
            constants.recurrent_weights.shape[2],
            len(constants.gates) == 3,
            constants.peephole_weights is not None,
            constants.norm_weights is not None,
            constants.projection_weights is not None,
            constants.activation,
        )
        wanted = (
            self.inputs,
            self.hidden,
            self.outputs,
            bool(self.cifg),
            bool(self.peephole),
            bool(self.layer_norm),
            bool(self.projection),
            self.activation,
        )
        names = (
            "inputs",
            "hidden units",
            "outputs",
            "coupled gates",
            "peepholes",
            "layer norm",
            "projection",
            "activation",
        )
        for name, have, want in zip(names, found, wanted, strict=True):
            if have != want:
                raise ValueError(
                    f"The model's {name} must be {want}, as the layer's, not {have}; generate the"
                    " layer for this model."
                )
        # The circuit relies on this: when a sequence starts, its recurrent sums are 0.
        sums = constants.recurrent_weights.sum(axis=2, dtype=np.int64)
        if (wrap(-constants.reset_hidden * sums, 32) != constants.folded_bias[:, 1]).any():
            raise ValueError(
                "The folded bias of the recurrent part must be minus the hidden raw at reset times"
                " the sum of a row's weights; compute it from the model."
            )
        multipliers = [
            constants.multipliers,
            constants.hidden_multiplier,
            constants.projection_multiplier,
            constants.peephole_multipliers,
            constants.norm_multipliers,
        ]
        given = [np.asarray(each) for each in multipliers if each is not None]
        if any((each % (1 << SIGNIFICAND_POSITION)).any() for each in given):
            raise ValueError(
                "The multipliers must be multiples of 2^7, as those of binary32 scales are."
            )
        if constants.hidden_shift > 0:
            raise ValueError(
                "The layer's last requantisation only shifts right, not left by"
                f" {constants.hidden_shift}; give the model a coarser hidden scale."
            )
        if constants.rounding != "double":
            raise ValueError(
                "The layer rounds twice; quantise the model with rounding 'double', not"
                f" '{constants.rounding}'."
            )

    def made_of(self, arrays: Arrays) -> Int8Constants:
        numbers: dict[str, Any] = dict(arrays)
        for name, field in self.plan.fields.items():
            if not field.shape:
                numbers[name] = int(arrays[name])
        for names, dtype in _TYPES.items():
            numbers |= {name: numbers[name].astype(dtype) for name in names if name in numbers}
        numbers |= self.plan.texts
        return Int8Constants(gates=self.variant.gates, **numbers)

    def reset_state(self, constants: Int8Constants) -> tuple[Raws, Raws]:
        hidden = np.full(self.outputs, constants.reset_hidden, np.int64)
        return hidden, np.zeros(self.hidden, np.int64)

    def next_state(
        self, constants: Int8Constants, x: Raws, hidden: Raws, cell: Raws
    ) -> tuple[Raws, Raws]:
        new = step_constants(constants, *(raws[np.newaxis] for raws in (x, hidden, cell)))
        return new[0][0], new[1][0]

    def random_image(self, rng: np.random.Generator) -> bytes:
        return self.pack(random_constants(self, rng))


def _matrix_of(row: Row) -> Matrix:
    """Return the place of a row's weights in the constants."""
    if row.part == "inner":
        return Matrix("projection_weights")
    return Matrix(f"{row.part}_weights", row.gates)
