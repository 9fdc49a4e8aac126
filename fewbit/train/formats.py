"""Number formats in PyTorch: the nearest number of a format, as `fewbit.golden.formats` defines it.

All functions take float32 tensors of any shape and give new ones. A rounding goes to the nearest
number, ties to the even code or index, exactly as golden's ``encode`` and ``decode`` do. NaN stays
NaN, so that a training that diverges is seen.

- E5M2 is PyTorch's ``float8_e5m2`` cast, which rounds float32 once; its topmost exponent holds
  infinities. Golden's finite format has one more octave there, and is rounded by an addition.
- FloatSD8 is looked up. All of its numbers and all midpoints between them have at most six
  significant bits, and the upper half of a float32 has eight. So the upper half, its last bit set
  where the lower half is not zero ("round to odd"), lies on the same side of every midpoint as the
  number itself, and a table of 65,536 entries is exact.
- Sigmoid and tanh of the FloatSD8 LSTM are looked up by the binary16 code of their operand.
"""

from dataclasses import dataclass, fields
from functools import cache
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewbit.golden.activation.floatsd8 import (
    GATE_FORMAT,
    HIDDEN_FORMAT,
    sigmoid_floatsd8,
    tanh_e5m2,
)
from fewbit.golden.formats import BINARY16, FloatSD8
from fewbit.golden.training.factors import GRADIENT_BIAS

__all__ = [
    "LARGEST_BINARY16",
    "GateTables",
    "floatsd8_codes",
    "floatsd8_nearest",
    "gate_tables",
    "nearest_binary16",
    "nearest_e5m2",
    "nearest_gradient",
    "nearest_small_e5m2",
    "powers_of_two",
]

LARGEST_BINARY16 = 65504.0
_CAST_BIAS = 15
_FLOAT32_MANTISSA, _FLOAT32_BIAS = 23, 127
_EXPONENT = 0xFF << _FLOAT32_MANTISSA
_THREE_SHIFTED = (21 << _FLOAT32_MANTISSA) + (1 << (_FLOAT32_MANTISSA - 1))
"""Added to the word of a power of two it multiplies it by 1.5 * 2^21."""
_HALF_WORD = 1 << 16


def _check(x: Tensor) -> None:
    if x.dtype != torch.float32:
        raise ValueError(f"Formats take float32 tensors, not {x.dtype}; convert with .float().")


def powers_of_two(exponents: Tensor) -> Tensor:
    """Return 2^e as float32, exactly, which ``ldexp`` of PyTorch does not promise.

    Parameters
    ----------
    exponents
        int32, from -126 to 127.
    """
    return exponents.add(_FLOAT32_BIAS).bitwise_left_shift_(_FLOAT32_MANTISSA).view(torch.float32)


def nearest_binary16(x: Tensor) -> Tensor:
    """Return the nearest binary16 numbers, saturated to ±65504.

    Infinities saturate, too, while golden's ``BINARY16.encode`` keeps them; all other numbers agree
    with it.
    """
    _check(x)
    return x.half().float().clamp_(-LARGEST_BINARY16, LARGEST_BINARY16)


def _cast_e5m2(x: Tensor) -> Tensor:
    """Return the float8_e5m2 cast of x, whose magnitudes from 61440 upwards become infinite."""
    rounded = x.to(torch.float8_e5m2)
    if rounded.is_cuda:
        return rounded.float()
    # An e5m2 code is the upper byte of a binary16 code; on a CPU this is faster than the cast back.
    return rounded.view(torch.uint8).to(torch.int16).mul_(256).view(torch.float16).float()


def nearest_small_e5m2(x: Tensor) -> Tensor:
    """Return the nearest E5M2 numbers with bias 15 of numbers whose magnitudes are below 61440.

    This is `nearest_e5m2` without its last octave, and faster. A larger number becomes infinite.
    """
    _check(x)
    return _cast_e5m2(x)


def nearest_e5m2(x: Tensor, bias: int = _CAST_BIAS) -> Tensor:
    """Return the nearest numbers of golden's ``Minifloat(5, 2, bias)``.

    Exponent 31 is one more octave of finite numbers. Beyond it, infinities included, the result
    saturates to ±1.75 * 2^(31 - bias).

    Parameters
    ----------
    x
        float32, any shape.
    bias
        From -64 to 124, where all numbers of the format are normal float32 numbers.
    """
    _check(x)
    if not -64 <= bias <= 124:
        raise ValueError(f"bias must be from -64 to 124, not {bias}.")
    largest = 1.75 * 2.0 ** (31 - bias)
    saturated = x.clamp(-largest, largest)
    # 1.5 * 2^21 times the power of two at or below x, or that of the subnormals: in a sum with it
    # the last bit of a float32 is the last bit of the format, so the addition rounds as wanted.
    power = saturated.view(torch.int32).bitwise_and(_EXPONENT)
    power.clamp_min_((_FLOAT32_BIAS + 1 - bias) << _FLOAT32_MANTISSA).add_(_THREE_SHIFTED)
    large = power.view(torch.float32)
    return saturated.add_(large).sub_(large).copysign_(x)


def nearest_gradient(x: Tensor, bias: int = GRADIENT_BIAS) -> Tensor:
    """Return the nearest FP8 numbers of gradients, infinite where they are too large.

    The numbers are those of the float8_e5m2 cast times 2^(15 - bias). With bias 24 they reach from
    2^-25 to 112, and a gradient of 120 or more becomes infinite, so that an overflow of the scaled
    loss is seen and its step can be skipped. Bias 15 needs no multiplication and takes two thirds
    of the time: a loss scale that is 2^9 times larger has the same effect.

    Parameters
    ----------
    x
        float32, any shape.
    bias
        From 15 to 124.

    Source: public code of the authors of arXiv 2001.08450 for the bias and the overflow.
    """
    _check(x)
    if bias == _CAST_BIAS:
        return _cast_e5m2(x)
    if not _CAST_BIAS < bias <= 124:
        raise ValueError(f"bias must be from 15 to 124, not {bias}.")
    return _cast_e5m2(x * 2.0 ** (bias - _CAST_BIAS)).mul_(2.0 ** (_CAST_BIAS - bias))


def floatsd8_nearest(x: Tensor, bias: int = 10) -> Tensor:
    """Return the nearest FloatSD8 numbers, ties to the even index; beyond the largest, saturated.

    Parameters
    ----------
    x
        float32, any shape.
    bias
        Bias of the format, from -64 to 96; a tensor's scale is 2^(10 - bias).
    """
    return _look_up(_floatsd8_tables(bias, x.device)[0], _odd_upper_halves(x))


def floatsd8_codes(x: Tensor, bias: int = 10) -> Tensor:
    """Return the canonical codes of the nearest FloatSD8 numbers as uint8; NaN gives code 0.

    The parameters are those of `floatsd8_nearest`.
    """
    return _look_up(_floatsd8_tables(bias, x.device)[1], _odd_upper_halves(x))


def _odd_upper_halves(x: Tensor) -> Tensor:
    """Return the upper halves of float32 words plus 2^15, odd where the lower half is not zero."""
    _check(x)
    words = x.detach().view(torch.int32)
    # The sum carries into bit 16 where the lower half is not zero.
    sticky = words.bitwise_and(_HALF_WORD - 1).add_(_HALF_WORD - 1)
    upper = sticky.bitwise_or_(words).bitwise_right_shift_(16)
    return upper.add_(_HALF_WORD // 2)


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """Return the table's entries; of all ways to index, ``index_select`` is the fastest by far."""
    return table.index_select(0, index.reshape(-1)).view(index.shape)


@cache
def _floatsd8_tables(bias: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the nearest numbers and their codes, by upper half plus 2^15."""
    if not -64 <= bias <= 96:
        raise ValueError(f"bias must be from -64 to 96, not {bias}.")
    number_format = FloatSD8(bias)
    halves = np.arange(_HALF_WORD, dtype=np.uint32) ^ (_HALF_WORD // 2)
    reals = (halves << 16).view(np.float32)
    missing = np.isnan(reals)
    codes = number_format.encode(np.where(missing, np.float32(0), reals))
    numbers = np.where(missing, np.nan, number_format.decode(codes)).astype(np.float32)
    return torch.from_numpy(numbers).to(device), _tensor(codes.astype(np.uint8), device)


def _tensor(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


@dataclass(frozen=True, eq=False)
class GateTables:
    """Sigmoid and tanh of the FloatSD8 LSTM, and their slopes, for every binary16 code.

    Each table is a float32 tensor of 65,536 entries. The values are golden's. The slopes are those
    of the real functions, rounded to float32, as the straight-through gradient needs them. Entries
    at the codes of NaN are NaN; golden, which knows no NaN, reads these codes as large numbers.
    """

    sigmoid: Tensor
    """q for a code at most 0, 1 - q for one above, see `fewbit.golden.activation.floatsd8`."""
    sigmoid_slope: Tensor
    tanh: Tensor
    tanh_slope: Tensor

    @staticmethod
    def codes(x: Tensor) -> Tensor:
        """Return the codes of the nearest binary16 numbers, as int32 in the shape of `x`.

        Where binary16 is too short the code is that of an infinity, whose sigmoid and tanh are
        those of the largest number.
        """
        _check(x)
        return x.half().view(torch.uint16).int()

    @staticmethod
    def look_up(table: Tensor, codes: Tensor) -> Tensor:
        """Return the entries of one of the tables at `codes`, in the shape of `codes`."""
        return _look_up(table, codes)

    def to(self, device: torch.device | str) -> Self:
        """Return the tables on a device."""
        return type(self)(*(getattr(self, field.name).to(device) for field in fields(self)))


@cache
def gate_tables(device: torch.device | str = "cpu") -> GateTables:
    """Return the tables of a device; they are made once."""
    codes = np.arange(_HALF_WORD)
    missing = np.isnan(BINARY16.decode(codes))
    reals = np.where(missing, 0.0, BINARY16.decode(codes))
    q, positive = sigmoid_floatsd8(codes)
    part = GATE_FORMAT.decode(q)
    tanh = np.tanh(reals)
    # s (1 - s) is sigmoid(-x) sigmoid(x); the product of both has no cancellation.
    magnitude = np.abs(reals)
    smaller = np.exp(-np.logaddexp(0.0, magnitude))
    larger = 1 / (1 + np.exp(-magnitude))
    tables = (
        np.where(positive == 1, 1 - part, part),
        smaller * larger,
        HIDDEN_FORMAT.decode(tanh_e5m2(codes)),
        (1 - tanh) * (1 + tanh),
    )
    return GateTables(
        *(
            _tensor(np.where(missing, np.nan, table).astype(np.float32), torch.device("cpu"))
            for table in tables
        )
    ).to(device)
