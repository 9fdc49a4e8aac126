"""The FloatSD8 LSTM: FloatSD8 weights and gate values, FP8 activations, binary16 sums and cells.

Every sum is that of `fewbit.golden.accumulate.floatsd8_mac`: S(start; products) adds products of a
FloatSD8 weight and a 3-bit significand to a binary16 start value, aligned in a window, and rounds
once. One unit's time step, gates in the order i, f, g, o:

1. The pre-activation of a gate starts from its bias. S adds the products of the inputs, `products`
   at a time, then those of the old hidden values in the same way. The last group of either is
   padded with codes 0.
2. i, f and o are sigmoids, each represented by p and q, see `fewbit.golden.activation.floatsd8`:
   the gate's value is 1 - q where p is 1, else q. g is tanh in e5m2.
3. c1 = f c, c = c1 + i g and h = o tanh(c) take four, two and two products, each with one S. Where
   p is 1, the factor 1 - q gives two products, with -q and with 1. The cell's 11-bit significand is
   split into four pieces of 3 bits, so that the same multipliers can be used.
4. h is rounded again, to e5m2.

Hidden values are e5m2 with bias 15, cells binary16. At reset both are code 0.

This is the plain form, to be read; `fewbit.golden.lstm.floatsd8_fast` computes the same codes in
fewer passes.

Source: arXiv 2001.08450 for the formats and the two regions of the sigmoid; the order of the sums,
their rounding and the split of the cell are this project's, as the paper publishes none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fewbit.golden.accumulate.float_sum import round_sum, split
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.activation.floatsd8 import (
    ACCUMULATOR_FORMAT,
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.checks import check_shape, freeze_integer
from fewbit.golden.codecs import Codec, FloatCodec
from fewbit.golden.formats import BINARY16, FloatSD8, Format, Minifloat
from fewbit.golden.lstm.contract import Lstm, StoredArray
from fewbit.golden.lstm.floatsd8_fast import FastSteps, Part

__all__ = [
    "CELL_PIECES",
    "FEWEST_PRODUCTS",
    "GATES",
    "GATE_FORMAT",
    "HIDDEN_FORMAT",
    "HIGHEST_BIAS",
    "HIGHEST_CONSTANT_BIAS",
    "HIGHEST_WINDOW",
    "LOWEST_BIAS",
    "LOWEST_CONSTANT_BIAS",
    "LOWEST_WINDOW",
    "MOST_PRODUCTS",
    "FloatSD8Lstm",
    "add_products",
    "pre_activations",
    "update_unit",
]

Codes = npt.NDArray[np.int64]

GATES = ("i", "f", "g", "o")
FEWEST_PRODUCTS = 4
"""Smallest number of products, because the cell's four pieces are added in one sum."""
MOST_PRODUCTS = 16
LOWEST_CONSTANT_BIAS, HIGHEST_CONSTANT_BIAS = 19, 50
"""Range of weight bias plus activation bias, of which a circuit holds the excess in 5 bits."""
CELL_PIECES = 4
_WEIGHT_AXES = ("gate", "unit", "operand")
LOWEST_BIAS, HIGHEST_BIAS = -64, 64
LOWEST_WINDOW, HIGHEST_WINDOW = 8, 48
_PRODUCT_WIDTH = 7
"""Bits of |mantissa| * significand, at most 18 * 7 = 126."""
_START_WIDTH = BINARY16.mantissa_bits + 1
_PIECE_WIDTH = 3


@dataclass(frozen=True, eq=False)
class FloatSD8Lstm(Lstm):
    """A FloatSD8 layer, gates in the order i, f, g, o.

    Arrays of codes are copied as int64 and made read-only.

    Parameters
    ----------
    input_weights
        FloatSD8 codes, shape (4, hidden, inputs).
    recurrent_weights
        FloatSD8 codes, shape (4, hidden, hidden).
    bias
        binary16 codes, shape (4, hidden); exponent 31 is read as one more octave.
    input_weight_bias, recurrent_weight_bias
        Exponent biases of the two weight tensors' formats, each of which is a power-of-two scale.
        The sum of this bias and that of the activations must be from 19 to 50.
    input_bias
        Exponent bias of the e5m2 inputs; hidden values have 15.
    products
        Number of products that are added at a time, 4 to 16.
    window
        Bits below a sum's top that count, 8 to 48, or None for exact sums.

    Raises
    ------
    ValueError
        If a shape or a range is wrong.
    """

    kind: ClassVar[str] = "floatsd8_lstm"
    title: ClassVar[str] = "FloatSD8"
    stored: ClassVar[Mapping[str, StoredArray]] = {
        "input_weights": StoredArray(("uint8",), ("gates", "hidden", "inputs")),
        "recurrent_weights": StoredArray(("uint8",), ("gates", "hidden", "outputs")),
        "bias": StoredArray(("uint16",), ("gates", "hidden")),
        "input_weight_bias": StoredArray(("int32",)),
        "recurrent_weight_bias": StoredArray(("int32",)),
        "input_bias": StoredArray(("int32",)),
        "products": StoredArray(("int32",)),
        "window": StoredArray(("int32",), none_as=0),
    }

    input_weights: Codes
    recurrent_weights: Codes
    bias: Codes
    input_weight_bias: int = 10
    recurrent_weight_bias: int = 10
    input_bias: int = 15
    products: int = 4
    window: int | None = DEFAULT_WINDOW

    def __post_init__(self) -> None:
        """Check that shapes and ranges are legal."""
        shape = np.shape(self.input_weights)
        if len(shape) != len(_WEIGHT_AXES) or shape[0] != len(GATES) or 0 in shape:
            raise ValueError(
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                f"not {shape}."
            )
        _, hidden, inputs = shape
        for name in ("input_weight_bias", "recurrent_weight_bias", "input_bias"):
            freeze_integer(self, name, LOWEST_BIAS, HIGHEST_BIAS)
        _check_sum("input_weight_bias", self.input_weight_bias, "input_bias", self.input_bias)
        _check_sum(
            "recurrent_weight_bias",
            self.recurrent_weight_bias,
            "the bias of hidden values",
            HIDDEN_FORMAT.bias,
        )
        freeze_integer(self, "products", FEWEST_PRODUCTS, MOST_PRODUCTS)
        if self.window is not None:
            freeze_integer(self, "window", LOWEST_WINDOW, HIGHEST_WINDOW)
        self._freeze("input_weights", self.input_weight_format, (len(GATES), hidden, inputs))
        self._freeze(
            "recurrent_weights", self.recurrent_weight_format, (len(GATES), hidden, hidden)
        )
        self._freeze("bias", BINARY16, (len(GATES), hidden))

    def _freeze(self, name: str, number_format: Format, shape: tuple[int, ...]) -> None:
        given = np.asarray(getattr(self, name))
        check_shape(given, name, shape)
        try:
            kept = number_format.check(given).copy()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        kept.setflags(write=False)
        object.__setattr__(self, name, kept)

    @property
    def input_weight_format(self) -> FloatSD8:
        """Return FloatSD8 with the bias of the input weights."""
        return FloatSD8(self.input_weight_bias)

    @property
    def recurrent_weight_format(self) -> FloatSD8:
        """Return FloatSD8 with the bias of the recurrent weights."""
        return FloatSD8(self.recurrent_weight_bias)

    @property
    def input_format(self) -> Minifloat:
        """Return finite e5m2 with the bias of the inputs."""
        return Minifloat(5, 2, self.input_bias)

    @property
    def inputs(self) -> int:
        """Return the length of an input vector."""
        return self.input_weights.shape[2]

    @property
    def hidden(self) -> int:
        """Return the number of units, each with a cell."""
        return self.input_weights.shape[1]

    @property
    def reads(self) -> Codec:
        return FloatCodec(self.input_format, {"input_bias": self.input_bias})

    @property
    def keeps(self) -> Codec:
        return FloatCodec(HIDDEN_FORMAT, {"input_bias": HIDDEN_FORMAT.bias})

    @property
    def description(self) -> str:
        window = "none" if self.window is None else self.window
        return f"floatsd8, lanes {self.products}, window {window}"

    def reset_state(self, batch: int) -> tuple[Codes, Codes]:
        hidden, cell = np.zeros((2, batch, self.hidden), np.int64)
        return hidden, cell

    def step(
        self, x: npt.ArrayLike, hidden: npt.ArrayLike, cell: npt.ArrayLike
    ) -> tuple[Codes, Codes]:
        """Compute one time step of a batch.

        Parameters
        ----------
        x
            Input codes, e5m2 with bias `input_bias`, shape (batch, inputs).
        hidden
            Old hidden codes, e5m2 with bias 15, shape (batch, hidden).
        cell
            Old cell codes, binary16, shape (batch, hidden).

        Returns
        -------
        hidden, cell
            New codes, shape (batch, hidden) each.
        """
        inputs = _checked(self.input_format, x, "x", (-1, self.inputs))
        state = len(inputs), self.hidden
        old_hidden = _checked(HIDDEN_FORMAT, hidden, "hidden", state)
        old_cell = _checked(BINARY16, cell, "cell", state)
        return update_unit(pre_activations(self, inputs, old_hidden), old_cell, self.window)

    @cached_property
    def fast_steps(self) -> FastSteps | None:
        """Return the layer prepared for many time steps, or None where exact sums are too long."""
        parts = (
            Part(self.input_weights, self.input_weight_format, self.input_format),
            Part(self.recurrent_weights, self.recurrent_weight_format, HIDDEN_FORMAT),
        )
        return FastSteps.of(self.bias, parts, self.products, self.window)

    def run_with_cell(
        self,
        x: npt.ArrayLike,
        *,
        hidden: npt.ArrayLike | None = None,
        cell: npt.ArrayLike | None = None,
    ) -> tuple[Codes, Codes]:
        """Return hidden and cell codes of a batch of sequences at every time step.

        The codes are those of `step`. Where the layer's constants allow it,
        `fewbit.golden.lstm.floatsd8_fast` computes them.

        Parameters
        ----------
        x
            Input codes, e5m2 with bias `input_bias`, shape (batch, time, inputs).
        hidden, cell
            Codes before the first time step, shape (batch, hidden) each. The default is the state
            at reset.

        Returns
        -------
        hidden, cell
            Shape (batch, time, hidden) each.
        """
        # A subclass may redefine the time step.
        steps = self.fast_steps if type(self).step is FloatSD8Lstm.step else None
        if steps is None:
            return super().run_with_cell(x, hidden=hidden, cell=cell)
        inputs = _checked(self.input_format, x, "x", (-1, -1, self.inputs))
        state = len(inputs), self.hidden
        reset = self.reset_state(len(inputs))
        old_hidden = _checked(
            HIDDEN_FORMAT, reset[0] if hidden is None else hidden, "hidden", state
        )
        old_cell = _checked(BINARY16, reset[1] if cell is None else cell, "cell", state)
        return steps.run(inputs, old_hidden, old_cell)


def _check_sum(name: str, bias: int, other_name: str, other: int) -> None:
    if not LOWEST_CONSTANT_BIAS <= bias + other <= HIGHEST_CONSTANT_BIAS:
        raise ValueError(
            f"{name} and {other_name} must sum to {LOWEST_CONSTANT_BIAS} to "
            f"{HIGHEST_CONSTANT_BIAS}, not {bias} + {other}."
        )


@cache
def _mantissas() -> Codes:
    return GATE_FORMAT.mantissa(np.arange(1 << GATE_FORMAT.width))


@cache
def _significands() -> tuple[Codes, Codes]:
    """Return the signed significands of all e5m2 codes, and max(exponent field, 1) of each."""
    significand, ulp = split(HIDDEN_FORMAT, np.arange(1 << HIDDEN_FORMAT.width))
    return significand, ulp + HIDDEN_FORMAT.bias + HIDDEN_FORMAT.mantissa_bits


def add_products(
    start: Codes, weights: Codes, activations: Codes, bias: int, window: int | None
) -> Codes:
    """Return S(start; products): binary16 codes of start plus the sum of weights times activations.

    Parameters
    ----------
    start
        binary16 codes, any shape.
    weights, activations
        FloatSD8 and e5m2 codes; shapes that broadcast to that of `start` and one axis more.
    bias
        Exponent bias of the weights' format plus that of the activations' format.
    window
        Bits below the sum's top that count, or None for an exact sum.
    """
    significand, field = _significands()
    terms = _mantissas()[weights] * significand[activations]
    ulps = (weights >> 5) + (field - HIDDEN_FORMAT.mantissa_bits - bias)[activations]
    return _sum(start, terms, ulps, window)


def _sum(start: Codes, terms: Codes, ulps: Codes, window: int | None) -> Codes:
    """Return S of products that are integers of 7 bits times powers of two (exponents `ulps`)."""
    start_term, start_ulp = split(ACCUMULATOR_FORMAT, start)
    count = terms.shape[-1]
    # In memory each operand is contiguous, because numpy is several times faster along such arrays
    # than across them.
    all_terms, all_ulps = np.empty((2, 1 + count, *start.shape), np.int64)
    all_terms[0], all_ulps[0] = start_term, start_ulp
    all_terms[1:], all_ulps[1:] = np.moveaxis(terms, -1, 0), np.moveaxis(ulps, -1, 0)
    sums = round_sum(
        all_terms.reshape(1 + count, -1).T,
        all_ulps.reshape(1 + count, -1).T,
        [_START_WIDTH] + [_PRODUCT_WIDTH] * count,
        window,
        BINARY16,
    )
    return sums.reshape(start.shape)


def pre_activations(model: FloatSD8Lstm, x: Codes, hidden: Codes) -> Codes:
    """Return the pre-activations of a batch, binary16 codes of shape (batch, hidden, 4).

    Parameters
    ----------
    model
        The layer.
    x
        Input codes, shape (batch, inputs).
    hidden
        Old hidden codes, shape (batch, hidden).
    """
    start = np.broadcast_to(model.bias.T, (len(x), model.hidden, len(GATES))).copy()
    parts = (
        (model.input_weights, x, model.input_weight_bias + model.input_bias),
        (model.recurrent_weights, hidden, model.recurrent_weight_bias + HIDDEN_FORMAT.bias),
    )
    for weights, activations, bias in parts:
        rows = weights.transpose(1, 0, 2)
        columns = activations[:, np.newaxis, np.newaxis]
        # The last group may be short. Padding it with codes 0 would change nothing, because their
        # product has the lowest exponent that a product of this part can have.
        for first in range(0, rows.shape[2], model.products):
            chunk = slice(first, first + model.products)
            start = add_products(start, rows[..., chunk], columns[..., chunk], bias, model.window)
    return start


def update_unit(
    pre: npt.ArrayLike, cell: npt.ArrayLike, window: int | None = DEFAULT_WINDOW
) -> tuple[Codes, Codes]:
    """Return new hidden and cell codes of units from their pre-activations.

    Parameters
    ----------
    pre
        Pre-activations of the gates i, f, g, o: binary16 codes, shape (..., 4).
    cell
        Old cells: binary16 codes, shape (...).
    window
        Bits below a sum's top that count, or None for exact sums.

    Returns
    -------
    hidden, cell
        `HIDDEN_FORMAT` codes and binary16 codes, of the shape of `cell`.
    """
    gates, old = BINARY16.check(pre), BINARY16.check(cell)
    check_shape(gates, "pre", (*old.shape, len(GATES)))
    i, f, o = (sigmoid_floatsd8(gates[..., index]) for index in (0, 1, 3))
    g = tanh_e5m2(gates[..., 2])
    kept = _scale_cell(f, old, window)
    new_cell = _add_gated(kept, i, g, window)
    wide = _add_gated(np.zeros_like(old), o, tanh_e5m2(new_cell), window)
    return _narrow(wide), new_cell


def _scale_cell(gate: tuple[Codes, Codes], cell: Codes, window: int | None) -> Codes:
    """Return the gate times the cell, by S from 0 or the cell: binary16 codes.

    It is S(p ? cell : 0; the products of ±q and the pieces of the cell).
    """
    q, positive = gate
    significand, ulp = split(ACCUMULATOR_FORMAT, cell)
    magnitude = np.abs(significand)
    # The pieces are s[10:8], s[7:5], s[4:2], and s[1:0] with a 0 below: 3 bits each, from the top.
    places = _START_WIDTH - _PIECE_WIDTH * np.arange(1, CELL_PIECES + 1)
    doubled = magnitude[..., np.newaxis] << 1
    pieces = doubled >> (places + 1) & (1 << _PIECE_WIDTH) - 1
    sign = np.where((significand < 0) ^ (positive == 1), -1, 1)
    terms = (sign * _mantissas()[q])[..., np.newaxis] * pieces
    ulps = ((q >> 5) - GATE_FORMAT.bias + ulp)[..., np.newaxis] + places
    return _sum(np.where(positive, cell, 0), terms, ulps, window)


def _add_gated(
    start: Codes, gate: tuple[Codes, Codes], activation: Codes, window: int | None
) -> Codes:
    """Return `start` plus the gate times an activation, by S: binary16 codes.

    The products are ±q times the activation and, where p is 1, the activation itself.
    """
    q, positive = gate
    half = np.full_like(q, _half())
    significand, field = _significands()
    factor = significand[activation]
    scale = field[activation] - HIDDEN_FORMAT.bias - HIDDEN_FORMAT.mantissa_bits - GATE_FORMAT.bias
    product = np.where(positive, -1, 1) * _mantissas()[q] * factor
    ulp = (q >> 5) + scale
    # FloatSD8 gate codes have 1/2 but not 1, so the product of 1 and the activation is computed as
    # 1/2 times twice the activation: that is the + 1 in the exponent. A lane without this product
    # has the exponent of the first product, so it never decides the window's top.
    second = np.where(positive, _mantissas()[half] * factor, 0)
    second_ulp = np.where(positive, (half >> 5) + scale + 1, ulp)
    return _sum(
        start, np.stack([product, second], axis=-1), np.stack([ulp, second_ulp], axis=-1), window
    )


@cache
def _half() -> int:
    return int(GATE_FORMAT.encode(0.5))


@cache
def _narrowing_table() -> Codes:
    return HIDDEN_FORMAT.encode(ACCUMULATOR_FORMAT.decode(np.arange(1 << 16)))


def _narrow(codes: Codes) -> Codes:
    """Return the hidden codes nearest to binary16 codes: ties to even, saturated, sign kept."""
    return _narrowing_table()[codes]


def _checked(
    number_format: Format, codes: npt.ArrayLike, name: str, shape: tuple[int, ...]
) -> Codes:
    array = np.asarray(codes)
    check_shape(array, name, shape)
    try:
        return number_format.check(array)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
