"""The integer LSTM's layer that chooses a precision for every group of units and time step."""

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
from fewbit.golden.layer.int8 import Int8LstmLayerContract, random_constants
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
"""Bits of half a weight."""
MIDDLE = 8
"""A low half of a weight, less this, is signed; so its bit 3 is stored inverted."""
DYNAMIC = Parameter("dynamic", 0, "1: precision of the weights chosen for each step and unit", 0, 1)
SHORT_ROW = 256
"""Products of the longest row whose start fits three bytes, and leaves the fourth to the offset."""


@dataclass(frozen=True, eq=False)
class DynamicConstants:
    """What a layer with a precision chosen per step packs into its image.

    Parameters
    ----------
    whole
        The layer's constants with all bits of the weights.
    threshold, hold, offsets
        As in :mod:`fewbit.golden.lstm.dynamic`; offsets int8, shape (gates, 2, hidden).
    group
        Units that share a mode: the layer's neurons.
    signal
        What is compared with the threshold: the layer's.
    """

    whole: Int8Constants
    threshold: int
    hold: int
    offsets: npt.NDArray[np.int8]
    group: int
    signal: PrecisionSignal = "cell_change"

    @classmethod
    def of(cls, model: Int8Lstm) -> DynamicConstants:
        """Those of a model."""
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
    """Counters of the groups, and the passes of each kind.

    Parameters
    ----------
    constants
        The layer's.
    neurons
        Units of a group: HIGH for one is HIGH for all.
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
        """The next step is the first of a sequence."""
        self._moment = 0
        self._decision.start(1, self.constants.whole.input_weights.shape[1])

    def ask(self, request: bytes) -> bytes:
        """Set registers by the bytes behind the first, and give the passes of each kind."""
        decision = self._decision
        wanted = bytearray([*decision.threshold.to_bytes(2, "little"), decision.hold])
        given = request[1 : 1 + len(wanted)]
        wanted[: len(given)] = given
        decision.threshold, decision.hold = int.from_bytes(wanted[:2], "little"), wanted[2]
        passes = np.array([self.high_passes, self.low_passes], np.int64)
        return as_bytes(passes, 4).tobytes()

    @property
    def high(self) -> npt.NDArray[np.bool_]:
        """Which groups the next step takes with whole weights."""
        return self._decision.high_groups(self._moment)[0]

    def step(self, x: Raws, hidden: Raws, cell: Raws) -> tuple[Raws, Raws]:
        """New hidden raws and cell raws for input raws (inputs,)."""
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
    """A layer of the plain integer LSTM whose weights count with 8 or with 4 bits.

    As :class:`fewbit.golden.layer.int8.Int8LstmLayerContract`, but for the precision of its
    weights, which is chosen by :mod:`fewbit.golden.lstm.dynamic` for every group of ``neurons``
    units that the neurons take together: HIGH where it would be for any of them. A pass is a
    group's step.

    A packet that asks for the state may hold three more bytes, threshold (2) and hold (1), which
    are the registers from then on; fewer set the first of them. The state is answered, and behind
    it in a packet of its own the HIGH and the LOW passes since the image was loaded, 4 bytes each,
    modulo 2^32.

    Parameters
    ----------
    signal
        "cell_change" or "output_gate": what is compared with the threshold.
    """

    signal: PrecisionSignal = parameter(
        "cell_change",
        "of dynamic=1: what chooses, the cell's change or the output gate",
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
        """The layer that runs a model: with as many neurons as units of the model share a mode."""
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
        """The layer that takes whole weights at every step."""
        return Int8LstmLayerContract(
            self.inputs, self.hidden, self.lanes, self.neurons, activation=self.activation
        )

    @property
    def schedule(self) -> Schedule:
        """What the layer does in a time step."""
        return replace(super().schedule, halves=True)

    @property
    def passes_size(self) -> int:
        return PASSES_SIZE

    @property
    def start_bytes(self) -> int:
        """Bytes of a row's start; one more holds its offset."""
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
            # The padding becomes code 0.
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
    """Constants of a random layer, some units of which move at most steps, and some seldom."""
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
    """The integer LSTM's layer with one precision, or with a precision chosen per step.

    Parameters
    ----------
    dynamic
        1 for a precision chosen per step.
    signal, image, parameters
        Those of the layer.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or doesn't go with the others.
    """
    DYNAMIC.check_field(DYNAMIC.name, dynamic)
    if dynamic:
        return DynamicInt8LstmLayerContract(signal=signal, image=image, **parameters)
    if signal != "cell_change":
        raise ValueError(
            f"Without dynamic=1 no precision is chosen; set dynamic=1 or leave signal={signal} out."
        )
    return Int8LstmLayerContract(image=image, **parameters)


def int8_layer_parameters() -> tuple[Parameter, ...]:
    """The parameters of `int8_layer`."""
    *plain, signal = parameters_of(DynamicInt8LstmLayerContract)
    return (*plain, DYNAMIC, signal)


def int8_layer_of(
    model: Int8Lstm, lanes: int | None = None, neurons: int | None = None
) -> Int8LstmLayerContract:
    """The layer that runs a model, with one precision or with one chosen per step.

    The parameters are those of :meth:`fewbit.golden.layer.contract.LayerContract.of`.
    """
    layer = DynamicInt8LstmLayerContract if model.dynamic else Int8LstmLayerContract
    return layer.of(model, lanes, neurons)
