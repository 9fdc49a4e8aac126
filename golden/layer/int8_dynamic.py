"""The integer LSTM's layer that chooses a precision for each group of units and time step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import numpy as np

from fewbit.golden.arithmetic import INT8_RANGE
from fewbit.golden.layer.contract import History
from fewbit.golden.layer.image import (
    Bits,
    Codes,
    Field,
    Plan,
    Records,
    RecordsPass,
    Slice,
    Weights,
    as_bytes,
)
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.layer.int8_random import random_constants
from fewbit.golden.layer.packets import PASSES_SIZE
from fewbit.golden.layer.sections import records
from fewbit.golden.lstm.dynamic import (
    ALWAYS_HIGH,
    HIGHEST_THRESHOLD,
    OFFSET_RESOLUTION,
    decision_of,
    low_constants,
    mixed_step,
)
from fewbit.golden.lstm.int8 import PrecisionSignal
from fewbit.golden.lstm.int8_constants import Int8Constants
from fewbit.golden.lstm.integer_variant import PARTS
from fewbit.golden.parameter import Parameter, parameter, parameters_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.layer.image import Arrays
    from fewbit.golden.layer.schedule import Row, Schedule
    from fewbit.golden.lstm.int8 import Int8Lstm
    from fewbit.golden.parameter import Value

    Raws = npt.NDArray[np.int64]

__all__ = [
    "DynamicConstants",
    "DynamicInt8LstmLayerContract",
    "PrecisionHistory",
    "int8_layer",
    "int8_layer_of",
    "int8_layer_parameters",
    "random_dynamic_constants",
]

HALF = 4
"""Number of bits of half a weight."""
MIDDLE = 8
"""The circuit computes with the low half minus this number, so the image stores bit 3 inverted."""
DYNAMIC = Parameter("dynamic", 0, "1: precision of the weights chosen for each step and unit", 0, 1)
SHORT_ROW = 256
"""Largest number of products of a row whose start value fits three bytes beside its offset."""


@dataclass(frozen=True, eq=False)
class DynamicConstants:
    """The constants of a layer whose precision is chosen at every time step.

    Parameters
    ----------
    whole
        The layer's constants, with whole weights.
    threshold, hold, offsets
        The settings of :mod:`fewbit.golden.lstm.dynamic`; offsets int8, shape (gates, 2, hidden).
    group
        Number of units that share a mode, equal to the layer's neurons.
    signal
        The signal that is compared with the threshold, equal to the layer's.
    """

    whole: Int8Constants
    threshold: int
    hold: int
    offsets: npt.NDArray[np.int8]
    group: int
    signal: PrecisionSignal = "cell_change"

    @classmethod
    def of(cls, model: Int8Lstm) -> DynamicConstants:
        """Return the constants of a model."""
        offsets = model.low_offsets
        if offsets is None:
            offsets = np.zeros(model.constants.folded_bias.shape, np.int8)
        return cls(
            model.constants,
            model.precision_threshold,
            model.precision_hold,
            offsets,
            model.precision_group,
            model.precision_signal,
        )


class PrecisionHistory(History):
    """The counters of the groups of units, and the numbers of HIGH and LOW passes.

    Parameters
    ----------
    constants
        The constants of the layer.
    neurons
        Number of units of a group, which is HIGH if any of its units would be.
    """

    def __init__(self, constants: DynamicConstants, neurons: int) -> None:
        self.constants = constants
        self._decision = decision_of(
            constants.signal,
            constants.threshold,
            constants.hold,
            neurons,
            constants.whole.activation,
        )
        self.high_passes = self.low_passes = 0
        self._halves = low_constants(constants.whole, constants.offsets)
        self.restart()

    def restart(self) -> None:
        """Forget all earlier time steps: the next one is the first of a sequence."""
        self._moment = 0
        self._decision.start(1, self.constants.whole.input_weights.shape[1])

    def ask(self, request: bytes) -> bytes:
        """Set registers to the bytes after the first, and return the passes of each kind."""
        decision = self._decision
        wanted = bytearray([*decision.threshold.to_bytes(2, "little"), decision.hold])
        given = request[1 : 1 + len(wanted)]
        wanted[: len(given)] = given
        decision.threshold, decision.hold = int.from_bytes(wanted[:2], "little"), wanted[2]
        passes = np.array([self.high_passes, self.low_passes], np.int64)
        return as_bytes(passes, 4).tobytes()

    @property
    def high(self) -> npt.NDArray[np.bool_]:
        """Return which groups use whole weights in the next time step, shape (groups,)."""
        return self._decision.high_groups(self._moment)[0]

    def step(self, x: Raws, hidden: Raws, cell: Raws) -> tuple[Raws, Raws]:
        """Compute a time step: return new hidden raws and cell raws for input raws (inputs,)."""
        high = self.high
        (new_hidden,), observed = mixed_step(
            self.constants.whole,
            self._halves,
            x[np.newaxis],
            hidden[np.newaxis],
            cell[np.newaxis],
            self._decision.high(self._moment),
        )
        self._decision.observe(observed)
        self._moment += 1
        self.high_passes = (self.high_passes + int(high.sum())) % 2**32
        self.low_passes = (self.low_passes + int((~high).sum())) % 2**32
        return new_hidden, observed.new_cell[0]


@dataclass(frozen=True)
class DynamicInt8LstmLayerContract(Int8LstmLayerContract):
    """A layer of the plain integer LSTM that uses 8 or 4 bits of its weights.

    The layer is that of :class:`fewbit.golden.layer.int8.Int8LstmLayerContract`, except for the
    precision of its weights, which :mod:`fewbit.golden.lstm.dynamic` chooses. The neurons work on a
    group of ``neurons`` units at a time; a group is HIGH if any of its units would be. A pass is
    one time step of one group.

    A packet that asks for the state may hold three more bytes, which set the registers: threshold
    (2 bytes), then hold (1 byte). With fewer bytes, the remaining registers stay. The answer is the
    state, and then a packet with the numbers of HIGH and of LOW passes since the image was loaded,
    4 bytes each, modulo 2^32.

    Parameters
    ----------
    signal
        The signal that is compared with the threshold: "cell_change" or "output_gate".
    """

    signal: PrecisionSignal = parameter(
        "cell_change",
        "with dynamic=1, what chooses: the change of the cell or the output gate",
        choices=get_args(PrecisionSignal),
    )

    chooses_precision: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("cifg", "peephole", "layer_norm", "projection"):
            if getattr(self, name):
                raise ValueError(
                    f"A layer with dynamic precision takes no {name}; leave dynamic or {name} at 0."
                )
        super().__post_init__()

    @classmethod
    def of(
        cls, model: Int8Lstm, lanes: int | None = None, neurons: int | None = None, **chosen: Any
    ) -> Self:
        """Return the contract of a model's layer, whose neurons are the units that share a mode."""
        group = model.precision_group if neurons is None else neurons
        return super().of(model, lanes, group, signal=model.precision_signal, **chosen)

    @staticmethod
    def constants_of(model: Int8Lstm) -> Any:
        return DynamicConstants.of(model)

    @property
    def settings(self) -> dict[str, Value]:
        return {**super().settings, DYNAMIC.name: 1}

    @property
    def plain(self) -> Int8LstmLayerContract:
        """Return the contract of the layer that uses whole weights at every time step."""
        return Int8LstmLayerContract(
            self.inputs, self.hidden, self.lanes, self.neurons, activation=self.activation
        )

    @property
    def schedule(self) -> Schedule:
        """Return the schedule of a time step."""
        return replace(super().schedule, halves=True)

    @property
    def passes_size(self) -> int:
        return PASSES_SIZE

    @property
    def start_bytes(self) -> int:
        """Return the number of bytes of a row's start value; one more byte holds its offset."""
        return 3 if max(self.inputs, self.hidden) <= SHORT_ROW else 4

    def make_plan(self) -> Plan:
        gates, hidden = len(self.variant.gates), self.hidden
        rows = gates, len(PARTS), hidden
        end = 1 << (8 * self.start_bytes - 1)
        fields = {
            **self.image_fields,
            "folded_bias": replace(self.image_fields["folded_bias"], low=-end, high=end - 1),
            "threshold": Field((), 0, HIGHEST_THRESHOLD, "register of the precision at reset"),
            "hold": Field((), 0, ALWAYS_HIGH, "register of the precision at reset"),
            "offsets": Field(
                rows,
                *INT8_RANGE,
                f"what {OFFSET_RESOLUTION} times is added to a row's sum of high halves",
            ),
        }
        return Plan(
            fields,
            (
                *self.constant_sections,
                records(
                    "starts",
                    f"of a row of each neuron: folded bias ({self.start_bytes}), offset (1)",
                    self.neurons,
                    *(
                        RecordsPass(groups, tuple(self._start_and_offset(row) for row in rows))
                        for groups, rows in self.image_rows
                    ),
                ),
                self._half_weights("weights_first", 0, "word n is of beat n"),
                self._half_weights("weights_second", 1, "word n is of beat n ^ 1"),
            ),
            {**self.image_texts, "signal": self.signal},
            self.image_folds,
        )

    @property
    def configuration_bits(self) -> tuple[Bits, ...]:
        return *super().configuration_bits, Bits(16, "threshold"), Bits(8, "hold")

    @property
    def constant_sections(self) -> tuple[Records, ...]:
        first, *rest = super().constant_sections
        return replace(first, meaning=f"{first.meaning}, threshold (2), hold (1)"), *rest

    def _start_and_offset(self, row: Row) -> tuple[Bits, ...]:
        index = *row.gates, PARTS.index(row.part)
        return Bits(8 * self.start_bytes, "folded_bias", index), Bits(8, "offsets", index)

    def _half_weights(self, name: str, beat: int, which: str) -> Weights:
        return Weights.of(
            name,
            "half weights of 4 bits, each neuron's lanes, the first in bits 0 to 3: high halves"
            f" in even words, low halves, bit 3 inverted, in odd ones; padding is 0; {which}",
            self.neurons,
            self.lanes,
            self.weights_passes,
            # In high and in low words, the padding is code 0.
            Codes(8, padding=MIDDLE, flip=MIDDLE),
            slice=Slice(HALF, (HALF, 0), beat),
        )

    def check_fit(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, constants: DynamicConstants
    ) -> None:
        if constants.group != self.neurons:
            raise ValueError(
                f"The model's precision is chosen for groups of {constants.group} units, so the"
                f" layer must have {constants.group} neurons, not {self.neurons}."
            )
        if constants.signal != self.signal:
            raise ValueError(
                f"The model's precision is chosen by the {constants.signal}, so the layer's signal"
                f" must be {constants.signal}, not {self.signal}."
            )
        super().check_fit(constants.whole)
        folded = constants.whole.folded_bias
        if constants.offsets.shape != folded.shape:
            raise ValueError(
                f"The offsets must have the shape {folded.shape}, not {constants.offsets.shape}."
            )
        end = 1 << (8 * self.start_bytes - 1)
        if ((folded < -end) | (folded >= end)).any():
            wrong = folded[(folded < -end) | (folded >= end)][0]
            raise ValueError(
                f"The folded biases of a layer with dynamic precision must be from {-end} to"
                f" {end - 1}, not {wrong}; give the model a coarser scale of weights."
            )

    def pack(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, constants: DynamicConstants
    ) -> bytes:
        return super().pack(constants)  # pyright: ignore[reportArgumentType]

    def arrays_of(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, constants: DynamicConstants
    ) -> dict[str, npt.NDArray[Any]]:
        own = ("threshold", "hold", "offsets", "signal")
        names = (*self.plan.fields, *self.plan.texts)
        return {
            name: np.asarray(getattr(constants if name in own else constants.whole, name))
            for name in names
        }

    def made_of(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, arrays: Arrays
    ) -> DynamicConstants:
        plain = {name: array for name, array in arrays.items() if name in self.plain.plan.fields}
        return DynamicConstants(
            self.plain.made_of(plain),
            int(arrays["threshold"]),
            int(arrays["hold"]),
            arrays["offsets"].astype(np.int8),
            self.neurons,
            self.signal,
        )

    def reset_state(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, constants: DynamicConstants
    ) -> tuple[Raws, Raws]:
        return super().reset_state(constants.whole)

    def history(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, constants: DynamicConstants
    ) -> PrecisionHistory:
        return PrecisionHistory(constants, self.neurons)

    def random_image(self, rng: np.random.Generator) -> bytes:
        return self.pack(random_dynamic_constants(self, rng))


def random_dynamic_constants(
    layer: DynamicInt8LstmLayerContract, rng: np.random.Generator
) -> DynamicConstants:
    """Return random constants with which some units change at most time steps, some seldom."""
    whole = random_constants(layer.plain, rng)
    end = 1 << (8 * layer.start_bytes - 1)
    folded = np.clip(whole.folded_bias, -end, end - 1)
    offsets = rng.integers(-128, 128, folded.shape).astype(np.int8)
    return DynamicConstants(
        replace(whole, folded_bias=folded),
        threshold=int(rng.choice([0, 1, 300, 1000, 4000, 20000, 65535])),
        hold=int(rng.choice([0, 1, 2, 3, 254, 255])),
        offsets=offsets,
        group=layer.neurons,
        signal=layer.signal,
    )


def int8_layer(
    dynamic: int = 0,
    signal: PrecisionSignal = "cell_change",
    image: bytes | None = None,
    **parameters: Any,
) -> Int8LstmLayerContract:
    """Return the contract of the integer LSTM's layer, with one precision or a chosen one.

    Parameters
    ----------
    dynamic
        1 for a precision that is chosen at every time step, 0 for whole weights.
    signal, image, parameters
        The other fields of the layer's contract.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or doesn't go with the others.
    """
    if DYNAMIC.check_field(DYNAMIC.name, dynamic):
        return DynamicInt8LstmLayerContract(signal=signal, image=image, **parameters)
    if signal != "cell_change":
        raise ValueError(
            f"Without dynamic=1 no precision is chosen; set dynamic=1 or leave signal={signal} out."
        )
    return Int8LstmLayerContract(image=image, **parameters)


def int8_layer_parameters() -> tuple[Parameter, ...]:
    """Return the the parameters of `int8_layer`."""
    *plain, signal = parameters_of(DynamicInt8LstmLayerContract)
    return (*plain, DYNAMIC, signal)


def int8_layer_of(
    model: Int8Lstm, lanes: int | None = None, neurons: int | None = None
) -> Int8LstmLayerContract:
    """Return the contract of a model's layer, with one precision or a chosen one.

    The parameters are those of :meth:`fewbit.golden.layer.contract.LayerContract.of`.
    """
    layer = DynamicInt8LstmLayerContract if model.dynamic else Int8LstmLayerContract
    return layer.of(model, lanes, neurons)
