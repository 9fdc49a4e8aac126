"""Random FloatSD8 models whose gates are lively, for tests of circuits."""

import numpy as np

from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm


def random_lstm(
    seed: int,
    inputs: int = 3,
    hidden: int = 5,
    products: int = 4,
    window: int | None = DEFAULT_WINDOW,
    input_bias: int = 17,
) -> FloatSD8Lstm:
    """A model for inputs and hidden values of about 1."""
    rng = np.random.default_rng(seed)
    shape = 4, hidden
    return FloatSD8Lstm(
        input_weights=rng.integers(0, 256, (*shape, inputs)),
        recurrent_weights=rng.integers(0, 256, (*shape, hidden)),
        bias=rng.integers(0x2000, 0x4400, shape) | rng.integers(0, 2, shape) << 15,
        input_weight_bias=9,
        recurrent_weight_bias=10,
        input_bias=input_bias,
        products=products,
        window=window,
    )


def random_inputs(model: FloatSD8Lstm, seed: int, batch: int, time: int) -> np.ndarray:
    """Codes of normal inputs, shape (batch, time, inputs)."""
    rng = np.random.default_rng(seed)
    return model.input_format.encode(rng.normal(size=(batch, time, model.inputs)))
