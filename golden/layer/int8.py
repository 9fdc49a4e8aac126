"""The integer LSTM's layer, and the parameter image that holds its constants."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, get_args

import numpy as np

from golden.activations import ActivationKind
from golden.arithmetic import SIGNIFICAND_POSITION, wrap
from golden.contract import check_whole
from golden.layer.contract import LayerContract
from golden.layer.image import Layout, Section, as_bytes, integers
from golden.layer.int8_schedule import int8_schedule
from golden.lstm.int8 import Int8Constants, Int8Lstm, step_constants
from golden.lstm.variant import TIES_UP, Int8Variant

if TYPE_CHECKING:
    import numpy.typing as npt

    from golden.layer.schedule import Row, Schedule

    Raws = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]

__all__ = ["Int8LstmLayer", "random_constants"]


@dataclass(frozen=True)
class Int8LstmLayer(LayerContract[Int8Constants]):
    """A layer of the integer LSTM with its parameters and its state.

    It takes packets and answers them in order, see :mod:`golden.layer.packets`: a parameter image,
    input vectors of ``inputs`` raws of 8 bits, states. An input vector is one time step and gives
    the new hidden vector of ``outputs`` raws of 8 bits. A state is the hidden vector, then the
    cell raws of 16 bits, low byte first.

    Bit for bit :func:`golden.lstm.int8.step_constants` with double rounding.

    Parameters
    ----------
    inputs, hidden
        Lengths of the input vector and of the cell, from 1 to 4096.
    lanes
        Products a neuron and cycle, from 1 to 64.
    neurons
        Units side by side, from 1 to 16.
    activation
        "table" or "gemmlowp", see :mod:`golden.activations`.
    cifg, peephole, layer_norm
        1 for a layer with coupled input and forget gates, with peepholes, with layer norm; else 0.
    projection
        Length of the hidden vector where it is a projection; 0 for none.
    image
        The parameter image that the layer was generated with; None where packets bring it.

    Source: Li and Alvarez, "On the quantization of recurrent neural networks", arXiv 2101.05453.
    """

    inputs: int = 16
    hidden: int = 32
    lanes: int = 4
    neurons: int = 1
    activation: ActivationKind = "table"
    cifg: int = 0
    peephole: int = 0
    layer_norm: int = 0
    projection: int = 0
    image: bytes | None = None

    def __post_init__(self) -> None:
        check_whole("inputs", self.inputs, 1, 4096)
        check_whole("hidden", self.hidden, 1, 4096)
        check_whole("lanes", self.lanes, 1, 64)
        check_whole("neurons", self.neurons, 1, 16)
        for name in ("cifg", "peephole", "layer_norm"):
            check_whole(name, getattr(self, name), 0, 1)
        check_whole("projection", self.projection, 0, 4096)
        if self.peephole and self.projection > self.hidden:
            raise ValueError(
                f"projection must be at most hidden, {self.hidden}, in a layer with peepholes, not"
                f" {self.projection}."
            )
        if self.activation not in get_args(ActivationKind):
            raise ValueError(f'activation must be "table" or "gemmlowp", not {self.activation!r}.')
        if self.image is not None:
            self.unpack(self.image)

    @classmethod
    def of(cls, model: Int8Lstm, lanes: int = 4, neurons: int = 1) -> Int8LstmLayer:
        """The layer that runs a model."""
        return cls(
            inputs=model.inputs,
            hidden=model.hidden,
            lanes=lanes,
            neurons=neurons,
            activation=model.activation,
            cifg=int(model.coupled),
            peephole=int(model.peephole_weights is not None),
            layer_norm=int(model.norm_weights is not None),
            projection=0 if model.projection_weights is None else model.outputs,
        )

    @property
    def settings(self) -> dict[str, int | str]:
        """The parameters by name, but for a fixed image."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "image"
        }

    @property
    def fixed_image(self) -> bytes | None:
        return self.image

    @property
    def outputs(self) -> int:
        """Length of the hidden vector."""
        return self.projection or self.hidden

    @property
    def variant(self) -> Int8Variant:
        """Which parts the layer has."""
        return Int8Variant(
            bool(self.cifg), bool(self.peephole), bool(self.layer_norm), bool(self.projection)
        )

    @property
    def schedule(self) -> Schedule:
        """What the layer does in a time step."""
        return int8_schedule(
            self.variant, self.inputs, self.hidden, self.outputs, self.lanes, self.neurons
        )

    @property
    def scales(self) -> tuple[str, ...]:
        """Rows and results with a split multiplier of their own, in the image's order."""
        names = [
            row.name
            for row in dict.fromkeys(self.schedule.rows)
            if row.start == "image" and row.name != "projection"
        ]
        # The order of the gates, whatever the phase: a peephole of "o" may come later.
        order = [
            f"{gate}_{part}"
            for gate in self.variant.gates
            for part in ("input", "recurrent", "peephole")
        ]
        listed = sorted(names, key=order.index)
        return (*listed, "hidden", *(["projection"] if self.projection else []))

    @property
    def layout(self) -> Layout:
        """The sections of the parameter image."""
        schedule = self.schedule
        gates = len(self.variant.gates)
        sections = [
            Section(
                "configuration",
                1,
                8 if self.projection else 6,
                "integer bits of the cell (1 byte), cell clip (2), what the last requantisation"
                " adds (2), hidden raw at reset (1)"
                + (", what the projection adds (1), its clip (1)" if self.projection else ""),
            ),
            Section(
                "scales",
                len(self.scales),
                4,
                "upper 24 bits of a split multiplier, then its shift: " + ", ".join(self.scales),
            ),
        ]
        if self.layer_norm:
            sections += [
                Section(
                    "norm_scales",
                    gates,
                    8,
                    "a gate's norm: upper 24 bits of its split multiplier, shift (1), least"
                    " variance (4)",
                ),
                Section(
                    "norm",
                    gates * self.hidden,
                    6,
                    "gain (2) and bias (4) of each unit, gate by gate",
                ),
            ]
        sections += [
            Section(
                "starts",
                schedule.start_words,
                4 * self.neurons,
                "what a row of each neuron starts from: folded bias, or the peephole weight with"
                " bit 16 for ties of its product that go up",
            ),
            Section(
                "weights",
                schedule.weight_words,
                self.neurons * self.lanes,
                "weights of a cycle: for each neuron its lanes; rows padded with zeros",
            ),
        ]
        return Layout(tuple(sections))

    def pack(self, constants: Int8Constants) -> bytes:
        """The parameter image of a layer's constants.

        Raises
        ------
        ValueError
            If the constants are those of another layer, or round once.
        """
        self._check_fit(constants)
        starts, weights = self._pack_rows(constants)
        configuration = [
            as_bytes(constants.cell_exponent + 15, 1),
            as_bytes(constants.cell_clip, 2),
            as_bytes(constants.hidden_offset, 2),
            as_bytes(constants.reset_hidden, 1),
        ]
        if self.projection:
            configuration += [
                as_bytes(constants.projection_offset, 1),
                as_bytes(constants.projection_clip, 1),
            ]
        multipliers, shifts = self._scales_of(constants)
        contents = {
            "configuration": np.concatenate(configuration),
            "scales": np.concatenate(
                [as_bytes(multipliers >> SIGNIFICAND_POSITION, 3), as_bytes(shifts, 1)], axis=1
            ),
            "starts": starts,
            "weights": weights,
        }
        if self.layer_norm:
            assert constants.norm_weights is not None
            assert constants.norm_bias is not None
            assert constants.norm_shifts is not None
            assert constants.norm_guards is not None
            norm_multipliers = np.asarray(constants.norm_multipliers, np.int64)
            contents["norm_scales"] = np.concatenate(
                [
                    as_bytes(norm_multipliers >> SIGNIFICAND_POSITION, 3),
                    as_bytes(constants.norm_shifts, 1),
                    as_bytes(constants.norm_guards, 4),
                ],
                axis=1,
            )
            contents["norm"] = np.concatenate(
                [
                    as_bytes(constants.norm_weights.reshape(-1), 2),
                    as_bytes(constants.norm_bias.reshape(-1), 4),
                ],
                axis=1,
            )
        return self.layout.join(contents)

    def _check_fit(self, constants: Int8Constants) -> None:
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
        # What the circuit takes for granted when it starts a sequence: its recurrent sums are 0.
        sums = constants.recurrent_weights.sum(axis=2, dtype=np.int64)
        if (wrap(-constants.reset_hidden * sums, 32) != constants.folded_bias[:, 1]).any():
            raise ValueError(
                "The folded bias of the recurrent part must be minus the hidden raw at reset times"
                " the sum of a row's weights; compute it from the model."
            )
        multipliers = [*self._scales_of(constants)[0].tolist()]
        if constants.norm_multipliers is not None:
            multipliers += constants.norm_multipliers.tolist()
        if any(multiplier % (1 << SIGNIFICAND_POSITION) for multiplier in multipliers):
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

    def _scales_of(self, constants: Int8Constants) -> tuple[Raws, Raws]:
        pairs: list[tuple[int, int]] = []
        for name in self.scales:
            if name == "hidden":
                pairs.append((constants.hidden_multiplier, constants.hidden_shift))
            elif name == "projection":
                pairs.append((constants.projection_multiplier, constants.projection_shift))
            else:
                gate, part = name.split("_")
                if part == "peephole":
                    index = self.variant.peeping.index(gate)
                    assert constants.peephole_multipliers is not None
                    assert constants.peephole_shifts is not None
                    multipliers, shifts = constants.peephole_multipliers, constants.peephole_shifts
                    pairs.append((int(multipliers[index]), int(shifts[index])))
                else:
                    place = self.variant.gates.index(gate), ("input", "recurrent").index(part)
                    pairs.append((int(constants.multipliers[place]), int(constants.shifts[place])))
        whole = np.array(pairs, np.int64)
        return whole[:, 0], whole[:, 1]

    def _matrix(self, constants: Int8Constants, row: Row) -> npt.NDArray[np.int8]:
        """Weights of a row for every unit or output."""
        if row.part == "inner":
            assert constants.projection_weights is not None
            return constants.projection_weights
        index = self.variant.gates.index(row.name.split("_")[0])
        if row.part == "input":
            return constants.input_weights[index]
        return constants.recurrent_weights[index]

    def _starts(self, constants: Int8Constants, row: Row) -> Raws:
        """Start values of a row for every unit or output."""
        if row.part == "inner":
            assert constants.projection_bias is not None
            return constants.projection_bias.astype(np.int64)
        gate = row.name.split("_")[0]
        if row.part == "none":
            assert constants.peephole_weights is not None
            index = self.variant.peeping.index(gate)
            weights = constants.peephole_weights[index].astype(np.int64) & 0xFFFF
            ties_up = np.arange(self.hidden) < constants.peephole_ties_up
            return weights | ties_up.astype(np.int64) << TIES_UP
        part = ("input", "recurrent").index(row.part)
        return constants.folded_bias[self.variant.gates.index(gate), part].astype(np.int64)

    def _pack_rows(self, constants: Int8Constants) -> tuple[Bytes, Bytes]:
        schedule = self.schedule
        starts: list[Raws] = []
        weights: list[npt.NDArray[np.int8]] = []
        for _, group, row in schedule.walk():
            if row.start != "image":
                continue
            units = slice(group * self.neurons, (group + 1) * self.neurons)
            values = self._starts(constants, row)[units]
            starts.append(np.pad(values, (0, self.neurons - len(values))))
            if row.part == "none":
                continue
            chosen = self._matrix(constants, row)[units]
            beats = schedule.beats(row)
            padded = np.zeros((self.neurons, beats * self.lanes), np.int8)
            padded[: len(chosen), : chosen.shape[1]] = chosen
            words = padded.reshape(self.neurons, beats, self.lanes).swapaxes(0, 1)
            weights.append(words.reshape(beats, -1))
        return (
            as_bytes(np.stack(starts), 4).reshape(len(starts), -1),
            np.concatenate(weights).view(np.uint8),
        )

    def unpack(self, image: bytes) -> Int8Constants:
        """The constants of a parameter image.

        Raises
        ------
        golden.layer.image.ImageError
            If the image has a wrong size or checksum.
        ValueError
            If a constant is out of its range.
        """
        contents = self.layout.split(image)
        gates = self.variant.gates
        found = self._unpack_rows(contents)
        configuration = contents["configuration"][0]
        scales = contents["scales"]
        multipliers = integers(scales[:, :3], signed=False) << SIGNIFICAND_POSITION
        shifts = integers(scales[:, 3:])
        by_name = {
            name: (int(multipliers[index]), int(shifts[index]))
            for index, name in enumerate(self.scales)
        }

        def pairs(names: list[str]) -> tuple[Raws, Raws]:
            whole = np.array([by_name[name] for name in names], np.int64)
            return whole[:, 0], whole[:, 1]

        plain = [f"{gate}_{part}" for gate in gates for part in ("input", "recurrent")]
        gate_multipliers, gate_shifts = (array.reshape(len(gates), 2) for array in pairs(plain))
        optional: dict[str, object] = {}
        if self.peephole:
            peepholes = [f"{gate}_peephole" for gate in self.variant.peeping]
            peephole = pairs(peepholes)
            starts = np.stack([found[name] for name in peepholes])
            ties_up = starts[0] >> TIES_UP & 1
            optional |= {
                "peephole_weights": (starts & 0xFFFF).astype(np.uint16).view(np.int16),
                "peephole_ties_up": int(ties_up.sum()),
                "peephole_multipliers": peephole[0],
                "peephole_shifts": peephole[1],
            }
        if self.layer_norm:
            norm, norm_scales = contents["norm"], contents["norm_scales"]
            optional |= {
                "norm_weights": integers(norm[:, :2]).astype(np.int16).reshape(len(gates), -1),
                "norm_bias": integers(norm[:, 2:]).astype(np.int32).reshape(len(gates), -1),
                "norm_multipliers": integers(norm_scales[:, :3], signed=False)
                << SIGNIFICAND_POSITION,
                "norm_shifts": integers(norm_scales[:, 3:4]),
                "norm_guards": integers(norm_scales[:, 4:]),
            }
        if self.projection:
            optional |= {
                "projection_weights": found["projection_weights"].astype(np.int8),
                "projection_bias": found["projection"].astype(np.int32),
                "projection_multiplier": by_name["projection"][0],
                "projection_shift": by_name["projection"][1],
                "projection_offset": int(integers(configuration[6:7])),
                "projection_clip": int(configuration[7]),
            }
        return Int8Constants(
            gates=gates,
            input_weights=np.stack([found[f"{gate}_input_weights"] for gate in gates]).astype(
                np.int8
            ),
            recurrent_weights=np.stack(
                [found[f"{gate}_recurrent_weights"] for gate in gates]
            ).astype(np.int8),
            folded_bias=np.stack(
                [
                    np.stack([found[f"{gate}_{part}"] for part in ("input", "recurrent")])
                    for gate in gates
                ]
            ).astype(np.int32),
            multipliers=gate_multipliers,
            shifts=gate_shifts,
            cell_exponent=int(configuration[0]) - 15,
            cell_clip=int(integers(configuration[1:3], signed=False)),
            hidden_multiplier=by_name["hidden"][0],
            hidden_shift=by_name["hidden"][1],
            hidden_offset=int(integers(configuration[3:5])),
            reset_hidden=int(integers(configuration[5:6])),
            activation=self.activation,
            rounding="double",
            **optional,  # pyright: ignore[reportArgumentType]
        )

    def _unpack_rows(self, contents: dict[str, Bytes]) -> dict[str, Raws]:
        """Start values and weights of every row by its name, without the padding."""
        schedule = self.schedule
        starts = integers(contents["starts"].reshape(-1, self.neurons, 4))
        weights = contents["weights"].view(np.int8).reshape(-1, self.neurons, self.lanes)
        collected: dict[str, list[Raws]] = {}
        start = word = 0
        for _, _, row in schedule.walk():
            if row.start != "image":
                continue
            collected.setdefault(row.name, []).append(starts[start])
            start += 1
            if row.part == "none":
                continue
            beats = schedule.beats(row)
            rows = weights[word : word + beats].swapaxes(0, 1).reshape(self.neurons, -1)
            length = schedule.length(row.part)
            collected.setdefault(f"{row.name}_weights", []).append(
                rows[:, :length].astype(np.int64)
            )
            word += beats
        found = {name: np.concatenate(parts) for name, parts in collected.items()}
        return {
            name: values[: self.outputs if name.startswith("projection") else self.hidden]
            for name, values in found.items()
        }

    def reset_state(self, parameters: Int8Constants) -> tuple[Raws, Raws]:
        hidden = np.full(self.outputs, parameters.reset_hidden, np.int64)
        return hidden, np.zeros(self.hidden, np.int64)

    def next_state(
        self, parameters: Int8Constants, x: Raws, hidden: Raws, cell: Raws
    ) -> tuple[Raws, Raws]:
        new = step_constants(parameters, *(raws[np.newaxis] for raws in (x, hidden, cell)))
        return new[0][0], new[1][0]

    def random_image(self, rng: np.random.Generator) -> bytes:
        return self.pack(random_constants(self, rng))


def random_constants(layer: Int8LstmLayer, rng: np.random.Generator) -> Int8Constants:
    """Constants of a random layer: any weights, scales that take most gates to a lively range."""
    gates, hidden, inputs, outputs = (
        len(layer.variant.gates),
        layer.hidden,
        layer.inputs,
        layer.outputs,
    )

    def weights(*shape: int) -> npt.NDArray[np.int8]:
        drawn = rng.integers(-128, 128, shape)
        corner = rng.integers(0, 8, shape) == 0
        return np.where(corner, rng.choice([-128, -127, 0, 127], shape), drawn).astype(np.int8)

    def scale(largest: float, target: float) -> tuple[int, int]:
        """A split multiplier that takes a spread of raws to one of the target, or any."""
        multiplier = int(rng.integers(1 << 23, 1 << 24)) << SIGNIFICAND_POSITION
        if rng.integers(0, 64) == 0:
            return (0, 0) if rng.integers(0, 4) == 0 else (multiplier, int(rng.integers(-31, 31)))
        spread = float(rng.uniform(-2, 2))
        return multiplier, int(np.clip(round(np.log2(target / largest) + spread), -31, 30))

    def scales(largest: list[float], target: float) -> tuple[Raws, Raws]:
        whole = np.array([scale(each, target) for each in largest], np.int64)
        return whole[:, 0], whole[:, 1]

    folded = rng.integers(-(2**14), 2**14, (gates, 2, hidden))
    wild = rng.integers(0, 32, folded.shape) == 0
    folded = np.where(wild, rng.integers(-(2**31), 2**31, folded.shape), folded)
    typical = [74.0**2 * np.sqrt(length) for length in (inputs, outputs)]
    multipliers, shifts = scales(typical * gates, 2.0**13)
    optional: dict[str, object] = {}
    if layer.peephole:
        peephole = rng.integers(-(2**15), 2**15, (gates - 1, hidden)).astype(np.int16)
        # Beyond the outputs a peephole sees nothing.
        peephole[:, outputs:] = 0
        peephole_scales = scales([2.0**28] * (gates - 1), 2.0**13)
        optional |= {
            "peephole_weights": peephole,
            "peephole_ties_up": int(rng.choice([0, hidden, int(rng.integers(0, hidden + 1))])),
            "peephole_multipliers": peephole_scales[0],
            "peephole_shifts": peephole_scales[1],
        }
    if layer.layer_norm:
        gains = rng.integers(-(2**15), 2**15, (gates, hidden)).astype(np.int16)
        norm_scales = scales([2.0**15] * gates, 2.0**12)
        optional |= {
            "norm_weights": gains,
            "norm_bias": rng.integers(-(2**24), 2**24, (gates, hidden)).astype(np.int32),
            "norm_guards": rng.choice([1, 2, 100, 2**20], gates),
            "norm_multipliers": norm_scales[0],
            "norm_shifts": norm_scales[1],
        }
    if layer.projection:
        pair = scale(74.0**2 * np.sqrt(hidden), 2.0**6)
        optional |= {
            "projection_weights": weights(outputs, hidden),
            "projection_bias": rng.integers(-(2**14), 2**14, outputs).astype(np.int32),
            "projection_multiplier": pair[0],
            "projection_shift": pair[1],
            "projection_offset": int(rng.integers(-128, 128)),
            "projection_clip": int(rng.choice([0, 0, 1, 90, 127])),
        }
    recurrent_weights = weights(gates, hidden, outputs)
    reset_hidden = int(rng.integers(-128, 128))
    # At reset the recurrent sums are 0.
    folded[:, 1] = -reset_hidden * recurrent_weights.sum(axis=2, dtype=np.int64)
    hidden_multiplier, hidden_shift = scale(2.0**28, 2.0**7)
    offset = int(rng.choice(np.array([-128, 127, *rng.integers(-64, 64, 6).tolist()])))
    return Int8Constants(
        gates=layer.variant.gates,
        input_weights=weights(gates, hidden, inputs),
        recurrent_weights=recurrent_weights,
        folded_bias=folded.astype(np.int32),
        multipliers=multipliers.reshape(gates, 2),
        shifts=shifts.reshape(gates, 2),
        cell_exponent=int(rng.integers(-15, -8)),
        cell_clip=int(rng.choice([0, 0, 0, 0, 20480, 32767, int(rng.integers(1, 32768))])),
        hidden_multiplier=hidden_multiplier,
        hidden_shift=min(hidden_shift, 0),
        hidden_offset=-offset if layer.projection else offset,
        reset_hidden=reset_hidden,
        activation=layer.activation,
        rounding="double",
        **optional,  # pyright: ignore[reportArgumentType]
    )
