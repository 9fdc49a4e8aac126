"""Offsets, threshold and hold of the precision chosen per step, from calibration sequences."""

import numpy as np
import numpy.typing as npt

from golden.arithmetic import Raws, saturate
from golden.lstm import int8
from golden.lstm.dynamic import OFFSET_STEP
from golden.lstm.int8 import Int8Lstm


def low_offsets(
    model: Int8Lstm, x: Raws, lengths: npt.ArrayLike | None = None
) -> npt.NDArray[np.int8]:
    hidden = int8.run(model, x)
    old = np.concatenate([np.full_like(hidden[:, :1], model.hidden_zero_point), hidden[:, :-1]], 1)
    counts = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths)
    valid = np.arange(x.shape[1]) < counts[:, np.newaxis]
    offsets = [
        ((weights.astype(np.int64) % 16 - 8) @ read[valid].mean(axis=0)) / OFFSET_STEP
        for weights, read in ((model.input_weights, x), (model.recurrent_weights, old))
    ]
    return saturate(np.rint(np.stack(offsets, 1)).astype(np.int64), 8).astype(np.int8)
