"""Random layers of the integer LSTM, of every variant, each with an input: what LiteRT judges."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.lstm.int8 import Int8Lstm, clip_code, litert_peephole_ties_up

Raws = npt.NDArray[np.int64]
Bounds = tuple[float, float]

EXPONENTS = range(-15, -8)
HIDDEN_SIZES, INPUT_SIZES, OUTPUT_SIZES = (1, 3, 17, 32), (1, 5, 12), (1, 2, 7, 20)


@dataclass(frozen=True)
class Variant:
    """What a layer has beside gates and cell."""

    coupled: bool = False
    peephole: bool = False
    norm: bool = False
    projection: bool = False
    projection_bias: bool = False
    projection_clip: bool = False

    def __str__(self) -> str:
        """Name what is there."""
        return "+".join(name for name, there in vars(self).items() if there) or "plain"


PLAIN = Variant()
PROJECTIONS = (
    (False, False, False),
    (True, False, False),
    (True, True, False),
    (True, False, True),
    (True, True, True),
)
VARIANTS = tuple(
    Variant(coupled, peephole, norm, *projection)
    for coupled, peephole, norm, projection in product(
        (False, True), (False, True), (False, True), PROJECTIONS
    )
)


@dataclass(frozen=True)
class Sizes:
    """Base-2 logarithms of the effective multipliers, from lowest to highest.

    None of a gate or a projection: what takes a row's sum to a gate of about 1, or to half of the
    output's range, as training does.
    """

    gate: Bounds | None = None
    peephole: Bounds = (-17, -14)
    norm: Bounds = (-16, -13)
    projection: Bounds | None = None
    bias_width: int = 14


# Shifts on both sides of 0, and beyond each end.
SIZES = {
    "trained": Sizes(),
    "usual": Sizes((-13, 1), (-24, -8), (-20, -8), (-14, -3), 20),
    # Gates of a few steps: a layer norm then finds a variance below 1, where its guard stands in.
    "flat": Sizes((-15, -13), norm=(-13, -8)),
    # A wide bias needs a small multiplier to be of any use.
    "small": Sizes((-34, -12), (-34, -20), (-34, -20), (-34, -8), 32),
    "large": Sizes((-3, 8), (-12, 4), (-10, 6), (-6, 6), 20),
    "mixed": Sizes((-20, 6), (-30, 4), (-30, 6), (-30, 6), 20),
}


@dataclass(frozen=True)
class Case:
    """A random layer with its input, and what the file holds beside it."""

    seed: int
    model: Int8Lstm
    x: npt.NDArray[np.int8]
    cell_clip: float
    projection_clip: float
    output_scale: float
    output_zero_point: int

    @property
    def file_fields(self) -> dict[str, Any]:
        """Keyword arguments of ``tests.support.tflite_models.write_lstm`` beside the model."""
        return {
            "cell_clip": self.cell_clip,
            "projection_clip": self.projection_clip,
            "output_scale": self.output_scale,
            "output_zero_point": self.output_zero_point,
        }


def random_case(
    seed: int,
    *,
    exponent: int,
    sizes: str = "usual",
    clip: float = 0.0,
    extreme: bool = False,
    variant: Variant = PLAIN,
) -> Case:
    """A layer of an odd size with inputs of every magnitude.

    `clip` is the cell's, a real. `extreme` draws weights, inputs, biases and zero points from the
    ends of their ranges.
    """
    rng = np.random.default_rng(seed)
    chosen = SIZES[sizes]
    hidden, inputs = int(rng.choice(HIDDEN_SIZES)), int(rng.choice(INPUT_SIZES))
    outputs = int(rng.choice(OUTPUT_SIZES)) if variant.projection else hidden
    if variant.peephole:
        outputs = min(outputs, hidden)
    batch, time = int(rng.integers(1, 6)), int(rng.integers(1, 21))
    gates = 3 if variant.coupled else 4

    def words(*shape: int, width: int = 8) -> Raws:
        low, high = -(2 ** (width - 1)), 2 ** (width - 1)
        if extreme:
            return rng.choice(np.array([low, low + 1, 0, high - 1]), shape)
        return rng.integers(low, high, shape)

    def zero_point() -> int:
        return int(words(1)[0])

    def factors(count: int, bounds: Bounds | None, terms: int, target: float) -> Any:
        """Effective multipliers; without bounds, what takes a sum of `terms` to `target`."""
        if bounds is None:
            middle = np.log2(target / 74 / 74 / np.sqrt(terms))
            bounds = (middle - 1, middle + 1)
        return 2 ** rng.uniform(*bounds, count)

    def scales(reals: Any) -> npt.NDArray[np.float32]:
        return np.asarray(reals).astype(np.float32)

    input_scale, hidden_scale = (2 ** rng.uniform(-9, -3, 2)).astype(np.float32).tolist()
    intermediate_scale = float(2 ** rng.uniform(-10, -6))
    steps = 2 ** rng.uniform(-16, -9, gates) if variant.norm else np.full(gates, 2.0**-12)
    output_scale = float(2 ** rng.uniform(-9, -3))
    bias_width = 32 if extreme else chosen.bias_width + (12 if variant.norm else 0)
    fields: dict[str, Any] = {}
    if variant.peephole:
        seen = np.delete(steps, gates - 2)  # all but g
        fields |= {
            "peephole_weights": words(gates - 1, hidden, width=16).astype(np.int16),
            "peephole_ties_up": litert_peephole_ties_up(outputs),
            "peephole_weight_scales": scales(
                factors(gates - 1, chosen.peephole, 1, 1) * seen * 2.0**-exponent
            ),
        }
    if variant.norm:
        fields |= {
            "norm_weights": words(gates, hidden, width=16).astype(np.int16),
            "norm_weight_scales": scales(factors(gates, chosen.norm, 1, 1)),
            "norm_scales": scales(steps),
        }
    projection_clip = 0.0
    if variant.projection:
        factor = float(factors(1, chosen.projection, hidden, 50)[0])
        fields |= {
            "projection_weights": words(outputs, hidden).astype(np.int8),
            "projection_weight_scale": factor * hidden_scale / intermediate_scale,
        }
        if variant.projection_bias:
            width = 32 if extreme else 18
            fields["projection_bias"] = words(outputs, width=width).astype(np.int32)
        if variant.projection_clip:
            projection_clip = float(output_scale * rng.uniform(0.5, 130))
            fields["projection_clip"] = clip_code(projection_clip, output_scale, 8)
    model = Int8Lstm(
        input_weights=words(gates, hidden, inputs).astype(np.int8),
        recurrent_weights=words(gates, hidden, outputs).astype(np.int8),
        bias=words(gates, hidden, width=min(bias_width, 32)).astype(np.int32),
        input_weight_scales=scales(factors(gates, chosen.gate, inputs, 4096) * steps / input_scale),
        recurrent_weight_scales=scales(
            factors(gates, chosen.gate, outputs, 4096) * steps / hidden_scale
        ),
        input_scale=input_scale,
        input_zero_point=zero_point(),
        hidden_scale=hidden_scale,
        hidden_zero_point=zero_point(),
        intermediate_scale=intermediate_scale,
        intermediate_zero_point=zero_point(),
        cell_exponent=exponent,
        cell_clip=clip_code(clip, 2.0**exponent),
        activation="gemmlowp",
        **fields,
    )
    return Case(
        seed=seed,
        model=model,
        x=words(batch, time, inputs).astype(np.int8),
        cell_clip=clip,
        projection_clip=projection_clip,
        output_scale=output_scale,
        output_zero_point=zero_point(),
    )


def within_litert(case: Case) -> Case:
    """The same case, with biases of its layer norms halved, so that LiteRT defines its outputs.

    LiteRT's kernel adds a norm's product and bias as C++ ints of 32 bits before it widens them.
    A sum beyond 32 bits is undefined there: compiled for x86-64, the sum comes out exact but its
    sign, by which it is rounded, wrapped. Here the sum is exact. The products of 32 units stay
    below 2^28, thus a bias of 31 bits leaves room.
    """
    if case.model.norm_weights is None:
        return case
    return replace(case, model=replace(case.model, bias=case.model.bias >> 1))
