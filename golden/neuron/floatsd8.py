"""The FloatSD8 LSTM's neuron: two pairs of sums of products become a hidden and a cell code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.accumulate.float_sum import window_parameter
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.activation.floatsd8 import HIDDEN_FORMAT
from fewbit.golden.contract import Contract, describe, random_codes
from fewbit.golden.formats import BINARY16, FLOATSD8, FixedPoint
from fewbit.golden.lstm.floatsd8 import (
    FEWEST_PRODUCTS,
    LOWEST_CONSTANT_BIAS,
    MOST_PRODUCTS,
    add_products,
    update_unit,
)
from fewbit.golden.operands import FLAG, Operand, checked
from fewbit.golden.parameter import check_parameters, parameter

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.contract import Arrays

    Codes = npt.NDArray[np.int64]

__all__ = ["PAIRS", "FloatSD8LstmNeuronContract", "lively_starts"]

PAIRS = (("i", "f"), ("g", "o"))
"""Pairs of gates whose sums take turns, in the order of a unit's beats."""
GATES_OF_PAIR = 2
OFFSET = FixedPoint(5, signed=False)


@dataclass(frozen=True)
class FloatSD8LstmNeuronContract(Contract):
    """A neuron that computes one hidden unit of the FloatSD8 LSTM at a time.

    A unit has two pairs of gates, i and f, then g and o. The beats of a pair's two gates take
    turns, beginning with the first gate. A gate's sum starts from the binary16 code in its first
    beat, and is rounded to binary16 after each beat. The computation after the sums is
    :func:`fewbit.golden.lstm.floatsd8.update_unit`.

    Parameters
    ----------
    lanes
        Number of products of a beat.
    window
        Bits below a sum's top that count; None for exact sums.

    Source: arXiv 2001.08450 for the formats; see :mod:`fewbit.golden.lstm.floatsd8`.
    """

    lanes: int = parameter(4, "products a beat, added and rounded", FEWEST_PRODUCTS, MOST_PRODUCTS)
    window: int | None = window_parameter(DEFAULT_WINDOW)

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            Operand(
                "weights", FLOATSD8, "weight of each lane; the offset counts its bias", self.lanes
            ),
            Operand(
                "activations",
                HIDDEN_FORMAT,
                "input or old hidden code of each lane; the offset counts its bias",
                self.lanes,
            ),
            Operand("first", FLAG, "the beat starts a sum: the first two beats of a pair"),
            Operand("last", FLAG, "the beat ends a sum: the last two beats of a pair"),
            Operand("recurrent", FLAG, "the activations are old hidden codes, not inputs"),
            Operand("start", BINARY16, "bias of the gate, counts with first only"),
            Operand(
                "old_cell", BINARY16, "old cell code, counts with the last beat of a unit only"
            ),
        )

    @property
    def configuration(self) -> tuple[Operand, ...]:
        return tuple(
            Operand(
                f"{part}_offset",
                OFFSET,
                f"bias of the {part} weights plus that of their activations, less"
                f" {LOWEST_CONSTANT_BIAS}",
            )
            for part in ("input", "recurrent")
        )

    @property
    def results(self) -> tuple[Operand, ...]:
        return (
            Operand("result", HIDDEN_FORMAT, "new hidden code of the unit"),
            Operand("cell_result", BINARY16, "new cell code of the unit"),
        )

    def stimulus(self, rng: np.random.Generator, count: int) -> dict[str, Codes]:
        """Return beats of ``count`` units: gates of 1 to 5 beats, and one random pair of offsets.

        Three of four beats have activations within a few octaves, and most start values are within
        the gates' range, so that most sums are, too. All others are arbitrary. Fields hold random
        codes where the circuit ignores them.
        """
        pairs = count * len(PAIRS)
        beats = rng.integers(1, 6, size=pairs)
        beats[rng.random(pairs) < 0.3] = 1
        total = int(beats.sum()) * GATES_OF_PAIR
        arrays = {operand.name: random_codes(rng, operand, total) for operand in self.operands}
        ends = np.cumsum(beats) * GATES_OF_PAIR
        starts = ends - beats * GATES_OF_PAIR
        for name, first in (("first", starts), ("last", ends - GATES_OF_PAIR)):
            arrays[name] = np.zeros(total, np.int64)
            arrays[name][first] = arrays[name][first + 1] = 1
        # In a layer the two gates of a pair share their activations, so they sometimes do here.
        shares = np.repeat(rng.random(total // 2) < 0.5, 2)
        for name in ("activations", "recurrent"):
            of_first = np.repeat(arrays[name][::2], 2, axis=0)
            arrays[name][shares] = of_first[shares]
        offsets = rng.integers(0, 32, 2) if rng.random() < 0.25 else rng.integers(4, 24, 2)
        # A product with a weight of the top octave is then about 1: 2^(7 + 4 + exponent - offset).
        tame = rng.random(total) < 0.75
        top = offsets[arrays["recurrent"]] + LOWEST_CONSTANT_BIAS + 2 - 12
        top = top[:, np.newaxis] - rng.integers(-2, 8, (total, self.lanes))
        near = np.clip(top, 0, 31)
        activations = arrays["activations"]
        activations[tame] = (activations[tame] & 0b10000011) | (near[tame] << 2)
        tame = rng.random(total) < 0.75
        arrays["start"][tame] = lively_starts(rng, int(tame.sum()))
        tame = rng.random(total) < 0.75
        arrays["old_cell"][tame] = lively_starts(rng, int(tame.sum()))
        return arrays | {
            "input_offset": offsets[:1].copy(),
            "recurrent_offset": offsets[1:].copy(),
        }

    def explain(self, arrays: Arrays, index: int) -> list[str]:
        """Return lines with the configuration and all beats of a unit, each beat with its gate."""
        ends = np.flatnonzero(arrays["last"])[1::GATES_OF_PAIR] + 1
        bounds = np.concatenate(([0], ends)).tolist()
        lines = [describe(field, arrays[field.name][0]) for field in self.configuration]
        for number, gates in enumerate(PAIRS):
            pair = index * len(PAIRS) + number
            for beat in range(bounds[pair], bounds[pair + 1]):
                lines.append(f"gate {gates[(beat - bounds[pair]) % GATES_OF_PAIR]}:")
                counts = {"weights", "activations", "recurrent"}
                counts |= {"start"} if arrays["first"][beat] else set()
                counts |= {"old_cell"} if beat + 1 == bounds[(index + 1) * len(PAIRS)] else set()
                lines += [
                    f"  {describe(field, arrays[field.name][beat])}"
                    for field in self.operands
                    if field.name in counts
                ]
        return lines

    def compute(self, arrays: Arrays) -> dict[str, Codes]:
        """Return new hidden and cell codes, one of each for two pairs of gates.

        Beats of ``arrays`` are those of a stream: ``weights`` and ``activations`` of shape
        (beats, lanes), the others (beats,); the configuration (1,).
        """
        offsets = checked(self.configuration, arrays)
        arrays = checked(self.operands, arrays)
        starts, ends = _pairs(arrays["first"], arrays["last"])
        units = len(ends) // len(PAIRS)
        starts, ends = starts[: units * len(PAIRS)], ends[: units * len(PAIRS)]
        # Beats of all gates are computed side by side: the first of each, then the second of each.
        first = (starts[:, np.newaxis] + np.arange(GATES_OF_PAIR)).ravel()
        beats = np.repeat((ends - starts) // GATES_OF_PAIR, GATES_OF_PAIR)
        sums = arrays["start"][first].copy()
        for number in range(int(beats.max(initial=0))):
            gates = np.flatnonzero(beats > number)
            beat = first[gates] + number * GATES_OF_PAIR
            for recurrent, part in enumerate(("input", "recurrent")):
                of_part = arrays["recurrent"][beat] == recurrent
                chosen = beat[of_part]
                sums[gates[of_part]] = add_products(
                    sums[gates[of_part]],
                    arrays["weights"][chosen],
                    arrays["activations"][chosen],
                    int(offsets[f"{part}_offset"][0]) + LOWEST_CONSTANT_BIAS,
                    self.window,
                )
        hidden, cell = update_unit(
            sums.reshape(units, -1), arrays["old_cell"][ends[1::2] - 1], self.window
        )
        return {"result": hidden, "cell_result": cell}


def _pairs(first: Codes, last: Codes) -> tuple[Codes, Codes]:
    """Return the first beats of all complete pairs, and the beats after their last ones.

    Raises
    ------
    ValueError
        If the flags do not describe pairs of gates.
    """
    starts, ends = (np.flatnonzero(flag) for flag in (first, last))
    count = len(ends) // GATES_OF_PAIR
    starts, ends = starts[: count * GATES_OF_PAIR], ends[: count * GATES_OF_PAIR]
    after = ends[1::GATES_OF_PAIR] + 1
    before = np.concatenate(([0], after[:-1]))[:count]
    fits = (
        len(starts) == len(ends)
        and (starts[::GATES_OF_PAIR] == before).all()
        and (np.diff(starts)[::GATES_OF_PAIR] == 1).all()
        and (np.diff(ends)[::GATES_OF_PAIR] == 1).all()
        and ((after - before) % GATES_OF_PAIR == 0).all()
    )
    if not fits:
        raise ValueError(
            "A pair of gates must have an even number of beats, the first two with 'first', the"
            " last two with 'last', and no other with either."
        )
    return before, after


def lively_starts(rng: np.random.Generator, count: int) -> Codes:
    """Return random binary16 codes of both signs, with magnitudes from 2^-10 to 8."""
    magnitude = rng.integers(5 << 10, 18 << 10, count)
    return magnitude | rng.integers(0, 2, count) << 15
