"""Random constants of an int8 layer, for the vectors of its regressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.arithmetic import SIGNIFICAND_POSITION
from fewbit.golden.lstm.int8 import Int8Constants
from fewbit.golden.lstm.integer_variant import HIGHEST_CELL_EXPONENT, LOWEST_CELL_EXPONENT

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.layer.int8 import Int8LstmLayerContract

    Raws = npt.NDArray[np.int64]

__all__ = ["random_constants"]


def random_constants(layer: Int8LstmLayerContract, rng: np.random.Generator) -> Int8Constants:
    """Return random constants: any weights, and scales that keep most gates from saturation."""
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
        """Return a split multiplier that scales raws from `largest` to about `target`, or any."""
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
        # Units beyond the outputs have no peephole.
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
        cell_exponent=int(rng.integers(LOWEST_CELL_EXPONENT, HIGHEST_CELL_EXPONENT + 1)),
        cell_clip=int(rng.choice([0, 0, 0, 0, 20480, 32767, int(rng.integers(1, 32768))])),
        hidden_multiplier=hidden_multiplier,
        hidden_shift=min(hidden_shift, 0),
        hidden_offset=-offset if layer.projection else offset,
        reset_hidden=reset_hidden,
        activation=layer.activation,
        rounding="double",
        **optional,  # pyright: ignore[reportArgumentType]
    )
