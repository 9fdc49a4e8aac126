"""Fast time steps of the FloatSD8 LSTM: the same codes, from reals and in few passes over arrays.

`fewbit.golden.lstm.floatsd8` is the plain form of the same computation, in integers. The code here
gets the same codes in faster ways:

- A number is a real, binary32 where the window is short and binary64 otherwise, and it is coded
  once, at the end. A product of a weight and an activation has 7 significant bits: it is exact.
- The window's unit is a power of two. A term divided by it and truncated to a whole number is the
  term without the bits below the window. A sum of such whole numbers is exact in any order, as none
  exceeds the 24 or 53 bits of a real.
- A sum is rounded to binary16 as 1.5 * 2^k is added and subtracted again, with k such that reals
  next to 2^k are as far apart as the binary16 numbers next to the sum. The real addition rounds to
  the nearest, ties to even.
- The input part depends on the input alone, so that vectors that occur more than once, such as
  those of symbols, are added up once.

What binary16 knows and a real here does not is the sign of a zero. In a term it has no meaning; so
it is only restored in a sum that is coded.

Rows are the units of gate i, then those of f, g and o. The *lead* of a number in a field of bits is
the exponent of the field's top bit. Leads are kept as the exponent fields of reals, with the bias,
in words in which they are shifted to their place: such a word is the real 2^lead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.activation.floatsd8 import (
    ACCUMULATOR_FORMAT,
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.formats import BINARY16, FloatSD8, Minifloat

__all__ = ["FastSteps", "Part"]

Codes = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Reals = npt.NDArray[np.floating[Any]]
Words = npt.NDArray[np.unsignedinteger[Any]]

_BLOCK = 1 << 15
"""Number of sums that are computed at once, so that their terms fit the cache."""
_PARTS = 1 << 22
"""Bound on the number of sums of input parts that are held at once."""
_LOWEST_LEAD = 1 - BINARY16.bias
_PRODUCT_LEAD = 6
"""Lead of a product's field of 7 bits, above the exponent of its unit."""
_EVERY = np.arange(1 << HIDDEN_FORMAT.width)
"""Every code of 8 bits."""
_FIELDS = np.maximum(_EVERY >> HIDDEN_FORMAT.mantissa_bits & 31, 1)
"""The exponent field of every e5m2 code; that of subnormals counts as 1."""
_PIECE_WIDTH = 3
_PIECES = 4
_SIGN = 1 << 4
"""The sign of a FloatSD8 code."""


class _Sums:
    """Sums S, see `fewbit.golden.lstm.floatsd8`, of terms that are reals.

    Parameters
    ----------
    real
        The type of a real: binary32 or binary64.
    window
        Bits below a sum's top that count, or None for exact sums.
    """

    def __init__(self, real: type[np.floating[Any]], window: int | None) -> None:
        self.real = real
        self.window = window
        form = np.finfo(real)
        self._fraction = form.nmant
        self.bias = 1 - int(form.minexp)
        self.word = np.uint32 if real is np.float32 else np.uint64
        self._exponent = self.field(2 * self.bias + 1)
        self._lowest = self.field(self.bias + _LOWEST_LEAD)
        # A sum of lead k is rounded by 1.5 * 2^(k + distance).
        distance = self._fraction - BINARY16.mantissa_bits
        self._to_large = self.field(distance) | self.word(1 << self._fraction - 1)
        self._largest, self._least = real(BINARY16.largest), real(-BINARY16.largest)
        if window is not None:
            self._to_unit = self.field(window - 1)
            self._to_reciprocal = self.field(2 * self.bias + window - 1)

    @staticmethod
    def of(biases: Sequence[int], products: int, window: int | None) -> "_Sums | None":
        """Return sums that are exact, or None where a sum may need more bits than binary64 has.

        Parameters
        ----------
        biases
            Sums of the weights' and the activations' bias, one for each part.
        products
            Number of products that are added at a time, at least the number of a cell's pieces.
        window
            Bits below a sum's top that count, or None for exact sums.
        """
        growth = (products + 1).bit_length()
        if window is not None:
            return _Sums(np.float32 if window + growth <= 24 else np.float64, window)
        # Start values have bits from 2^16 to 2^-24, the highest if it is a bias. The update needs
        # less: a cell times q or 1 - q, and a cell plus a product of at least 2^-27.
        highest = max(16, 7 + 31 - HIDDEN_FORMAT.mantissa_bits + _PRODUCT_LEAD - min(biases))
        lowest = min(-24, 1 - HIDDEN_FORMAT.mantissa_bits - max(biases))
        return _Sums(np.float64, None) if highest - lowest + 1 + growth <= 53 else None

    def field(self, exponent: int) -> np.unsignedinteger[Any]:
        """Return the word with a number in the place of a real's exponent."""
        return self.word(exponent << self._fraction)

    def words(self, leads: npt.NDArray[Any]) -> Words:
        """Return the words of leads that have the bias already."""
        return np.left_shift(leads, self._fraction, dtype=self.word)

    def leads(self, reals: Reals) -> Words:
        """Return the words of the leads of reals, each in the field of a binary16 significand."""
        leads = reals.view(self.word) & self._exponent
        return np.maximum(leads, self._lowest, out=leads)

    def add(self, start: Reals, terms: Reals, leads: Words) -> Reals:
        """Return start values plus terms, exact but for what the window drops.

        Parameters
        ----------
        start
            Values of binary16, shape (...).
        terms
            Terms, shape (n, ...); they are overwritten.
        leads
            Words of the highest lead of each sum's terms, shape (...).
        """
        if self.window is None:
            return np.add(np.add.reduce(terms), start)
        highest = self.leads(start)
        np.maximum(highest, leads, out=highest)
        per_unit = np.subtract(self._to_reciprocal, highest).view(self.real)
        unit = np.subtract(highest, self._to_unit, out=highest).view(self.real)
        terms *= per_unit
        total = np.add.reduce(np.trunc(terms, out=terms))
        kept = np.multiply(start, per_unit, out=per_unit)
        total += np.trunc(kept, out=kept)
        total *= unit
        return total

    def round(self, sums: Reals) -> Reals:
        """Return the nearest values of binary16, ties to even, saturated, zeros of any sign."""
        power = self.leads(sums)
        power += self._to_large
        large = power.view(self.real)
        rounded = sums + large
        rounded -= large
        np.minimum(rounded, self._largest, out=rounded)
        return np.maximum(rounded, self._least, out=rounded)

    def round_and_code(self, sums: Reals) -> tuple[Reals, npt.NDArray[np.uint16]]:
        """Return the nearest values of binary16 and their codes: -0 is a rounded negative sum."""
        rounded = np.copysign(self.round(sums), sums + self.real(0))
        return rounded, _codes_of(rounded)


def _codes_of(values: Reals) -> npt.NDArray[np.uint16]:
    """Return the codes of reals that are finite values of binary16."""
    return values.astype(np.float16).view(np.uint16)


@dataclass(frozen=True)
class Part:
    """The input or the recurrent part of all rows of a layer, as codes.

    Parameters
    ----------
    weights
        FloatSD8 codes, shape (4, hidden, operands).
    weight_format, activation_format
        Their format, and that of the activations.
    """

    weights: Codes
    weight_format: FloatSD8
    activation_format: Minifloat

    @property
    def bias(self) -> int:
        """Return the sum of the weights' and the activations' bias."""
        return self.weight_format.bias + self.activation_format.bias


class _Rows:
    """The rows of a part, as reals.

    Parameters
    ----------
    sums
        The sums that are used.
    part
        The part.
    products
        Number of products that are added at a time.
    """

    def __init__(self, sums: _Sums, part: Part, products: int) -> None:
        operands = part.weights.shape[-1]
        by_operand = np.ascontiguousarray(part.weights.reshape(-1, operands).T)[:, np.newaxis]
        self._sums = sums
        self._weights = part.weight_format.decode(by_operand).astype(sums.real)
        self._exponents = part.weight_format.exponent(by_operand).astype(np.uint16)
        self._reals = part.activation_format.decode(_EVERY).astype(sums.real)
        place = _PRODUCT_LEAD - HIDDEN_FORMAT.mantissa_bits - part.bias
        self._fields = (_FIELDS + (place + sums.bias)).astype(np.uint16)
        self._chunks = [slice(k, k + products) for k in range(0, operands, products)]

    def add(self, start: Reals, activations: Bytes) -> Reals:
        """Return start values plus the part, rounded to binary16 after each group of products.

        Parameters
        ----------
        start
            Values of binary16, shape (batch, rows).
        activations
            Codes, shape (batch, operands).
        """
        columns = np.ascontiguousarray(activations.T)[..., np.newaxis]
        reals, fields = self._reals[columns], self._fields[columns]
        lowest = self._sums.bias + _LOWEST_LEAD
        total = start
        for chunk in self._chunks:
            leads = self._exponents[chunk] + fields[chunk]
            highest = np.maximum.reduce(leads, initial=lowest)
            terms = self._weights[chunk] * reals[chunk]
            total = self._sums.round(self._sums.add(total, terms, self._sums.words(highest)))
        return total


class _Update:
    """The update of a layer's units, as reals.

    A gate value is q, or 1 - q where p is 1. Its code here is that of q, with the sign where p is
    1, so that the code stands for the factor ±q, and its sign for p.
    """

    def __init__(self, sums: _Sums) -> None:
        self._sums = sums
        positive = _EVERY & _SIGN != 0
        self._factors = GATE_FORMAT.decode(_EVERY).astype(sums.real)
        self._positive = positive.astype(sums.real)
        # Exponents of q's unit, and of that of the 1 in 1 - q. The 1 is a product of 1/2 and twice
        # the other factor.
        own = GATE_FORMAT.exponent(_EVERY) - GATE_FORMAT.bias
        half = int(GATE_FORMAT.exponent(GATE_FORMAT.encode(0.5))) - GATE_FORMAT.bias
        both = np.maximum(own, np.where(positive, half + 1, own))
        place = _PRODUCT_LEAD - HIDDEN_FORMAT.mantissa_bits - HIDDEN_FORMAT.bias
        self._activations = HIDDEN_FORMAT.decode(_EVERY).astype(sums.real)
        # Unsigned words wrap, so that a negative exponent can be added in them.
        self._own = sums.words(own.astype(sums.word))
        self._both = sums.words(both.astype(sums.word))
        self._fields = sums.words((_FIELDS + (place + sums.bias)).astype(sums.word))

    def __call__(self, pre: Reals, cell: Reals) -> tuple[Bytes, Reals, npt.NDArray[np.uint16]]:
        """Return hidden codes, new cells and their codes.

        Parameters
        ----------
        pre
            Pre-activations, values of binary16, shape (batch, 4, hidden).
        cell
            Old cells, values of binary16, shape (batch, hidden).
        """
        codes = _codes_of(pre)
        i, f, o = (_gate_codes()[codes[:, index]] for index in (0, 1, 3))
        kept = self._sums.round(self._scale_cell(f, cell))
        sums = self._add_gated(kept, i, _tanh_codes()[codes[:, 2]])
        new_cell, cell_codes = self._sums.round_and_code(sums)
        wide = self._add_gated(np.zeros_like(cell), o, _tanh_codes()[cell_codes])
        return _narrow_codes()[self._sums.round_and_code(wide)[1]], new_cell, cell_codes

    def _scale_cell(self, gate: Bytes, cell: Reals) -> Reals:
        """Return the gate times the cell, by four products of ±q and the cell's pieces."""
        sums = self._sums
        leads = sums.leads(cell)
        place = leads.view(sums.real) * sums.real(2.0 ** (1 - _PIECE_WIDTH))
        # In units of a piece's lowest bit the piece is a whole number, and the rest a fraction.
        rest = cell / place
        terms = np.empty((_PIECES, *cell.shape), sums.real)
        for index in range(_PIECES):
            piece = np.trunc(rest, out=terms[index])
            rest -= piece
            rest *= 1 << _PIECE_WIDTH
            piece *= place
            place *= sums.real(2.0**-_PIECE_WIDTH)
        terms *= self._factors[gate]
        # The first piece is the highest, also if it is 0. Its unit lies two places below the lead.
        leads += self._own[gate]
        leads += sums.field(_PRODUCT_LEAD + 1 - _PIECE_WIDTH)
        return sums.add(self._positive[gate] * cell, terms, leads)

    def _add_gated(self, start: Reals, gate: Bytes, activation: Bytes) -> Reals:
        """Return `start` plus the gate times an activation, by a product with ±q and one with 1."""
        sums = self._sums
        terms = np.stack([self._factors[gate], self._positive[gate]])
        terms *= self._activations[activation]
        return sums.add(start, terms, self._both[gate] + self._fields[activation])


class FastSteps:
    """A layer that is prepared to run many time steps.

    Parameters
    ----------
    sums
        Sums that are exact for the layer.
    bias
        binary16 codes, shape (4, hidden); exponent 31 is read as one more octave.
    parts
        The input and the recurrent part.
    products
        Number of products that are added at a time.
    """

    def __init__(self, sums: _Sums, bias: Codes, parts: tuple[Part, Part], products: int) -> None:
        self._sums = sums
        self._bias = ACCUMULATOR_FORMAT.decode(bias).astype(sums.real).reshape(-1)
        self._input, self._recurrent = (_Rows(sums, part, products) for part in parts)
        self._update = _Update(sums)

    @staticmethod
    def of(
        bias: Codes, parts: tuple[Part, Part], products: int, window: int | None
    ) -> "FastSteps | None":
        """Return a layer prepared, or None where binary64 is too short for its exact sums.

        The window is that of `fewbit.golden.lstm.floatsd8`, the others are those of the class.
        """
        sums = _Sums.of([part.bias for part in parts], products, window)
        return None if sums is None else FastSteps(sums, bias, parts, products)

    def run(self, x: Codes, hidden: Codes, cell: Codes) -> tuple[Codes, Codes]:
        """Return hidden and cell codes of a batch of sequences at every time step.

        Parameters
        ----------
        x
            Input codes, shape (batch, time, inputs). All codes were checked.
        hidden, cell
            Codes before the first time step, shape (batch, hidden) each.

        Returns
        -------
        hidden, cell
            Shape (batch, time, hidden) each.
        """
        batch, time, _ = x.shape
        rows = len(self._bias)
        inputs = x.astype(np.uint8)
        hiddens = np.empty((batch, time, hidden.shape[1]), np.int64)
        cells = np.empty_like(hiddens)
        old_hidden = hidden.astype(np.uint8)
        old_cell = ACCUMULATOR_FORMAT.decode(cell).astype(self._sums.real)
        length = max(1, _PARTS // max(1, batch * rows))
        for first in range(0, time, length):
            steps = slice(first, min(first + length, time))
            parts, index = self._input_parts(inputs[:, steps])
            for some in _blocks(batch, rows):
                h, c = old_hidden[some], old_cell[some]
                for t in range(steps.start, steps.stop):
                    start = parts[index[some, t - first]]
                    pre = self._recurrent.add(start, h).reshape(len(h), -1, h.shape[1])
                    h, c, codes = self._update(pre, c)
                    hiddens[some, t], cells[some, t] = h, codes
                old_hidden[some], old_cell[some] = h, c
        return hiddens, cells

    def _input_parts(self, x: Bytes) -> tuple[Reals, npt.NDArray[np.intp]]:
        """Return the input parts with bias of the distinct vectors, and each step's place therein.

        The shapes are (distinct vectors, rows) and (batch, time).
        """
        batch, time, width = x.shape
        vectors, index = np.unique(x.reshape(-1, width), axis=0, return_inverse=True)
        parts = np.empty((len(vectors), len(self._bias)), self._sums.real)
        for some in _blocks(*parts.shape):
            start = np.broadcast_to(self._bias, parts[some].shape)
            parts[some] = self._input.add(start, vectors[some])
        return parts, index.reshape(batch, time)


def _blocks(count: int, rows: int) -> Iterator[slice]:
    """Yield slices of `count` vectors, so that about as many sums as fit the cache go together."""
    size = max(1, _BLOCK // rows)
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


@cache
def _gate_codes() -> Bytes:
    """Return the code of the gate value, see `_Update`, at all binary16 codes."""
    q, positive = sigmoid_floatsd8(np.arange(1 << 16))
    return (q | positive * _SIGN).astype(np.uint8)


@cache
def _tanh_codes() -> Bytes:
    return tanh_e5m2(np.arange(1 << 16)).astype(np.uint8)


@cache
def _narrow_codes() -> Bytes:
    """Return the hidden code nearest to each binary16 code, which keeps its sign."""
    return HIDDEN_FORMAT.encode(ACCUMULATOR_FORMAT.decode(np.arange(1 << 16))).astype(np.uint8)
