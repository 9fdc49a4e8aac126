"""The integer LSTM's layer that chooses a precision for every group of units and time step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from golden.layer.contract import History
from golden.layer.image import Layout, Section, as_bytes, integers
from golden.layer.int8 import Int8LstmLayer, random_constants
from golden.layer.packets import PASSES_SIZE
from golden.layer.schedule import chunks
from golden.lstm.dynamic import decision_of, low_constants, mixed_step
from golden.lstm.int8 import PrecisionSignal
from golden.lstm.int8_step import Int8Constants, check_choice

if TYPE_CHECKING:
    import numpy.typing as npt

    from golden.layer.schedule import Schedule
    from golden.lstm.int8 import Int8Lstm

    Raws = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]

__all__ = [
    "DynamicConstants",
    "DynamicInt8LstmLayer",
    "PrecisionHistory",
    "random_dynamic_constants",
]

HALF, HALF_MASK = 4, 15
"""Bits of half a weight."""
MIDDLE = 8
"""A low half of a weight, less this, is signed; so its bit 3 is stored inverted."""
REGISTER_BYTES = 3
"""Threshold and hold."""
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
        As in :mod:`golden.lstm.dynamic`; offsets int8, shape (gates, 2, hidden).
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
class DynamicInt8LstmLayer(Int8LstmLayer):
    """A layer of the plain integer LSTM whose weights count with 8 or with 4 bits.

    As :class:`golden.layer.int8.Int8LstmLayer`, but for the precision of its weights, which is
    chosen by :mod:`golden.lstm.dynamic` for every group of ``neurons`` units that the neurons take
    together: HIGH where it would be for any of them. A pass is a group's step.

    A packet that asks for the state may hold three more bytes, threshold (2) and hold (1), which
    are the registers from then on; fewer set the first of them. The state is answered, and behind
    it in a packet of its own the HIGH and the LOW passes since the image was loaded, 4 bytes each,
    modulo 2^32.

    Parameters
    ----------
    signal
        "cell_change" or "output_gate": what is compared with the threshold.
    """

    signal: PrecisionSignal = "cell_change"

    def __post_init__(self) -> None:
        check_choice("signal", self.signal, get_args(PrecisionSignal))
        for name in ("cifg", "peephole", "layer_norm", "projection"):
            if getattr(self, name):
                raise ValueError(
                    f"A layer with dynamic precision takes no {name}; leave dynamic or {name} at 0."
                )
        super().__post_init__()

    @classmethod
    def of(cls, model: Int8Lstm, lanes: int = 4, neurons: int = 1) -> DynamicInt8LstmLayer:
        """The layer that runs a model."""
        plain = Int8LstmLayer.of(model, lanes, neurons)
        return cls(**vars(plain), signal=model.precision_signal)

    @property
    def plain(self) -> Int8LstmLayer:
        """The layer that takes whole weights at every step."""
        return Int8LstmLayer(
            self.inputs, self.hidden, self.lanes, self.neurons, activation=self.activation
        )

    @property
    def settings(self) -> dict[str, int | str]:
        """The parameters by name, but for a fixed image."""
        return {**super().settings, "dynamic": 1, "signal": self.signal}

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

    @property
    def half_words(self) -> int:
        """Words of each of the two memories of half weights, an even number."""
        return self.schedule.weight_words + self.schedule.weight_words % 2

    @property
    def layout(self) -> Layout:
        """The sections of the parameter image."""
        sections = {section.name: section for section in self.plain.layout.sections}
        configuration = sections["configuration"]
        word_bytes = chunks(self.neurons * self.lanes, 2)
        halves = (
            "half weights of 4 bits, each neuron's lanes, the first in bits 0 to 3: high halves"
            " in even words, low halves, bit 3 inverted, in odd ones; padding is 0;"
        )
        return Layout(
            (
                Section(
                    "configuration",
                    1,
                    configuration.word_bytes + REGISTER_BYTES,
                    f"{configuration.meaning}, threshold (2), hold (1)",
                ),
                sections["scales"],
                Section(
                    "starts",
                    sections["starts"].words,
                    self.neurons * (self.start_bytes + 1),
                    f"of a row of each neuron: folded bias ({self.start_bytes}), offset (1)",
                ),
                Section(
                    "weights_first",
                    self.half_words,
                    word_bytes,
                    f"{halves} word n is of beat n",
                ),
                Section(
                    "weights_second",
                    self.half_words,
                    word_bytes,
                    f"{halves} word n is of beat n ^ 1",
                ),
            )
        )

    def pack(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, constants: DynamicConstants
    ) -> bytes:
        """The parameter image of a layer's constants.

        Raises
        ------
        ValueError
            If the constants are those of another layer, round once, or have a bias of more bytes.
        """
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
        plain = self.plain.layout.split(self.plain.pack(constants.whole))
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
        # The offsets lie in the order of the starts, one behind each.
        offsets, _ = self._pack_rows(
            replace(constants.whole, folded_bias=constants.offsets.astype(np.int32))
        )
        starts = np.concatenate(
            [
                plain["starts"].reshape(-1, self.neurons, 4)[..., : self.start_bytes],
                offsets.reshape(-1, self.neurons, 4)[..., :1],
            ],
            axis=2,
        )
        first, second = self._halves(plain["weights"])
        registers = as_bytes(constants.threshold | constants.hold << 16, REGISTER_BYTES)
        return self.layout.join(
            {
                "configuration": np.concatenate([plain["configuration"][0], registers]),
                "scales": plain["scales"],
                "starts": starts,
                "weights_first": first,
                "weights_second": second,
            }
        )

    def _halves(self, words: Bytes) -> tuple[Bytes, Bytes]:
        """Words of both memories of half weights, of those of whole weights."""
        stored = words.reshape(len(words), self.neurons, self.lanes) ^ MIDDLE
        stored[self._is_padding] = 0
        stored = np.pad(stored.reshape(len(words), -1), ((0, len(words) % 2), (0, 0)))
        high, low = stored >> HALF, stored & HALF_MASK
        is_even = np.arange(len(stored))[:, np.newaxis] % 2 == 0
        first = np.where(is_even, high, low)
        second = np.where(is_even, low, high)[np.arange(len(stored)) ^ 1]
        return _joined(first), _joined(second)

    def _whole(self, first: Bytes, second: Bytes) -> Bytes:
        """Words of whole weights, of those of both memories."""
        halves = [_split(words)[:, : self.neurons * self.lanes] for words in (first, second)]
        halves[1] = halves[1][np.arange(len(first)) ^ 1]
        is_even = np.arange(len(first))[:, np.newaxis] % 2 == 0
        high, low = np.where(is_even, *halves), np.where(is_even, *halves[::-1])
        whole = (high << HALF | low) ^ MIDDLE
        whole = whole[: self.schedule.weight_words].reshape(-1, self.neurons, self.lanes)
        whole[self._is_padding] = 0
        return whole.reshape(len(whole), -1).astype(np.uint8)

    @property
    def _is_padding(self) -> npt.NDArray[np.bool_]:
        """Which weights are none of the model's, shape (words, neurons, lanes)."""
        schedule = self.schedule
        parts: list[npt.NDArray[np.bool_]] = []
        for _, group, row in schedule.walk():
            beats = schedule.beats(row)
            units = group * self.neurons + np.arange(self.neurons) >= self.hidden
            lanes = np.arange(beats * self.lanes).reshape(beats, 1, -1) >= schedule.length(row.part)
            parts.append(lanes | units[:, np.newaxis])
        return np.concatenate(parts)

    def unpack(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: bytes
    ) -> DynamicConstants:
        """The constants of a parameter image.

        Raises
        ------
        golden.layer.image.ImageError
            If the image has a wrong size or checksum.
        ValueError
            If a constant is out of its range.
        """
        contents = self.layout.split(image)
        configuration = contents["configuration"]
        starts = contents["starts"].reshape(-1, self.neurons, self.start_bytes + 1)
        weights = self._whole(contents["weights_first"], contents["weights_second"])
        folded = as_bytes(integers(starts[..., :-1]), 4).reshape(len(starts), -1)
        offsets = as_bytes(integers(starts[..., -1:]), 4).reshape(len(starts), -1)
        plain = {
            "configuration": configuration[:, :-REGISTER_BYTES],
            "scales": contents["scales"],
            "starts": folded,
            "weights": weights,
        }
        whole = self.plain.unpack(self.plain.layout.join(plain))
        found = self._unpack_rows({"starts": offsets, "weights": weights})
        return DynamicConstants(
            whole,
            int(integers(configuration[0, -3:-1], signed=False)),
            int(configuration[0, -1]),
            np.stack(
                [
                    np.stack([found[f"{gate}_{part}"] for part in ("input", "recurrent")])
                    for gate in whole.gates
                ]
            ).astype(np.int8),
            self.neurons,
            self.signal,
        )

    def reset_state(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, parameters: DynamicConstants
    ) -> tuple[Raws, Raws]:
        return super().reset_state(parameters.whole)

    def history(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, parameters: DynamicConstants
    ) -> PrecisionHistory:
        return PrecisionHistory(parameters, self.neurons)

    def random_image(self, rng: np.random.Generator) -> bytes:
        return self.pack(random_dynamic_constants(self, rng))


def random_dynamic_constants(
    layer: DynamicInt8LstmLayer, rng: np.random.Generator
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


def _joined(halves: Bytes) -> Bytes:
    """Half weights, shape (words, count), two a byte."""
    padded = np.pad(halves, ((0, 0), (0, halves.shape[1] % 2)))
    return (padded[:, ::2] | padded[:, 1::2] << HALF).astype(np.uint8)


def _split(words: Bytes) -> Bytes:
    """Half weights of bytes that hold two each."""
    halves = np.stack([words & HALF_MASK, words >> HALF], axis=2)
    return halves.reshape(len(words), -1).astype(np.uint8)
