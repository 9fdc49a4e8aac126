"""The forward pass of frozen integer layers in PyTorch, equal to golden's on every code.

`ExactLayer` runs a layer of few-bit or int8 weights, `ExactNetwork` a network of them. Both take
and give raws, integer tensors of shape (batch, time, inputs or outputs). Nothing here has a
gradient.

The integers are float64 numbers on their way, because PyTorch multiplies matrices of those fastest
and because all of them are exact:

- A row's sum is below 2^53, and below 2^24 it is one of float32 numbers.
- A scale has at most 24 significant bits, and a sum usually fewer than 28, so their product is
  exact, and ``floor(product + 1/2)`` is golden's first rounding. The second one, ties away from
  zero, is a product by ``2^-shift (1 + 2^-40)``, rounded to the nearest: the excess decides every
  tie, and changes nothing else, as any other number is at least 2^-31 of itself away from a tie.
- Where a row's sum may be too long for that, and after the output gate of an int8 layer, the
  requantisation is golden's own on int64.

Sigmoid and tanh are looked up in golden's results for all 65,536 raws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewbit.golden.activation.integer import ACTIVATIONS, ActivationKind
from fewbit.golden.arithmetic import INT8_RANGE, INT16_RANGE, Rounding
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.ternary import TernaryLstm
from fewbit.golden.network import NETWORK_INPUT, Network

__all__ = ["ExactLayer", "ExactNetwork", "exact_network"]

Integers = npt.NDArray[np.int64]

_FEWER = 1 << 31
"""Bound on the magnitude of sums, shifted to the left, that do not wrap."""
_EXACT = 1 << 52
"""Bound on a sum times the significant bits of its multiplier, which float64 holds with a half."""
_EXCESS = 1 + 2.0**-40
_ONE = 1 << 30
"""The multiplier of a power of two."""
_LOWEST, _HIGHEST = INT16_RANGE
_RAISED = 2.0**52 - _LOWEST
"""Added to a raw, it makes the low bits of the float64 word the raw's index in a table."""
_BLOCK = 1 << 20
"""Number of gate values whose input part is computed at once."""


def _wrap(raw: Tensor) -> Tensor:
    """Return the low 32 bits as a signed word, like golden's `wrap`."""
    return ((raw & 0xFFFFFFFF) ^ (1 << 31)) - (1 << 31)


def _multiply(raw: Tensor, multiplier: Tensor, shift: Tensor, rounding: Rounding) -> Tensor:
    """Return golden's `multiply_by_split_multiplier` of int64 tensors."""
    if rounding == "single":
        half = torch.ones_like(shift) << (30 - shift)
        return _wrap((raw * multiplier + half) >> (31 - shift))
    left = _wrap(raw << shift.clamp_min(0))
    # A multiplier is not negative, so that the high product never saturates.
    high = (left * multiplier + (1 << 30)) >> 31
    right = shift.neg().clamp_min(0)
    half = (torch.ones_like(right) << right) >> 1
    return (high + half - ((high < 0) & (right > 0)).long()) >> right


@dataclass(frozen=True, eq=False)
class _Integers:
    """The numbers of a layer, whatever its number system; gates are i or none, f, o, g.

    Each tuple has the input part first, then the recurrent one.
    """

    weights: tuple[Integers, Integers]
    """Shape (gates, hidden, operands)."""
    starts: tuple[Integers, Integers]
    """Start values of the sums, shape (gates, hidden)."""
    multipliers: tuple[Integers, Integers]
    shifts: tuple[Integers, Integers]
    bounds: tuple[int, int]
    """Lowest and highest raw of inputs and of hidden values."""
    reset_hidden: int
    hidden_multiplier: int
    hidden_shift: int
    hidden_offset: int
    cell_exponent: int
    cell_clip: int
    activation: ActivationKind
    rounding: Rounding


def _integers_of(lstm: Lstm) -> _Integers:
    """Return the numbers of a layer, or refuse one that this module does not run."""
    if isinstance(lstm, TernaryLstm):
        return _of_few_bits(lstm)
    if isinstance(lstm, Int8Lstm):
        return _of_int8(lstm)
    raise ValueError(
        f"The exact forward pass runs few-bit and int8 layers, not {lstm.title} ones; run this one "
        "in golden."
    )


def _ordered(names: Sequence[str]) -> list[int]:
    """Return the indices of the gates that have weights, the sigmoids first."""
    return [names.index(name) for name in ("i", "f", "o", "g") if name in names]


def _of_few_bits(lstm: TernaryLstm) -> _Integers:
    order = _ordered(("i", "f", "g", "o"))
    recurrent = lstm.recurrent_weights[order]
    return _Integers(
        (lstm.input_weights[order].astype(np.int64), recurrent.astype(np.int64)),
        (lstm.bias[order].astype(np.int64), np.zeros(recurrent.shape[:2], np.int64)),
        (lstm.input_multipliers[order], lstm.recurrent_multipliers[order]),
        (lstm.input_shifts[order], lstm.recurrent_shifts[order]),
        lstm.activation_bounds,
        0,
        lstm.hidden_multiplier,
        lstm.hidden_shift,
        0,
        lstm.cell_exponent,
        lstm.cell_clip,
        lstm.activation,
        "double",
    )


def _of_int8(lstm: Int8Lstm) -> _Integers:
    constants = lstm.constants
    variant = constants.variant
    for there, name in (
        (variant.peephole, "peepholes"),
        (variant.norm, "a layer norm"),
        (variant.projection, "a projection"),
    ):
        if there:
            raise ValueError(
                f"The exact forward pass runs int8 layers without {name}; run this one in golden."
            )
    order = _ordered(constants.gates)
    shape = len(order), constants.hidden

    def of_part(rows: npt.NDArray[np.integer], part: int) -> Integers:
        return np.broadcast_to(rows[order, part].reshape(len(order), -1), shape).astype(np.int64)

    return _Integers(
        (
            constants.input_weights[order].astype(np.int64),
            constants.recurrent_weights[order].astype(np.int64),
        ),
        (of_part(constants.folded_bias, 0), of_part(constants.folded_bias, 1)),
        (of_part(constants.multipliers, 0), of_part(constants.multipliers, 1)),
        (of_part(constants.shifts, 0), of_part(constants.shifts, 1)),
        INT8_RANGE,
        constants.reset_hidden,
        constants.hidden_multiplier,
        constants.hidden_shift,
        constants.hidden_offset,
        constants.cell_exponent,
        constants.cell_clip,
        constants.activation,
        constants.rounding,
    )


class _Part:
    """The rows of the input or the recurrent part: their sums and what requantises them."""

    def __init__(self, integers: _Integers, part: int, device: torch.device) -> None:
        weights, starts = integers.weights[part], integers.starts[part]
        multipliers, shifts = integers.multipliers[part], integers.shifts[part]
        most = -integers.bounds[0]
        largest = most * np.abs(weights).sum(axis=-1) + np.abs(starts)
        left = np.maximum(shifts, 0)
        # Without its zeros at the end a multiplier of 2^30, a power of two, has one bit.
        odd = multipliers // np.maximum(multipliers & -multipliers, 1)
        self._fits = bool(
            (largest * 2.0**left < _FEWER).all()
            and (largest * odd.astype(np.float64) < _EXACT).all()
        )
        self._short = bool(largest.max() < 1 << 24) and device.type == "cpu"
        self._rounding: Rounding = integers.rounding
        rows = weights.shape[0] * weights.shape[1]

        def tensor(array: npt.NDArray[np.generic], *shape: int) -> Tensor:
            return torch.from_numpy(np.array(array).reshape(*shape)).to(device)

        kinds = (torch.float64, torch.float32) if self._short else (torch.float64,)
        self._matrices = {
            kind: (tensor(starts, rows, 1).to(kind), tensor(weights, rows, -1).to(kind))
            for kind in kinds
        }
        self._multipliers, self._shifts = tensor(multipliers, rows, 1), tensor(shifts, rows, 1)
        first = multipliers * 2.0**-31 * 2.0 ** (left if self._rounding == "double" else shifts)
        self._first = tensor(first, rows, 1)
        self._second = tensor(2.0 ** np.minimum(shifts, 0) * _EXCESS, rows, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the operands, which is float32 where that is exact.

        PyTorch multiplies float32 matrices with fewer bits where the user has allowed it to.
        """
        exact = self._short and torch.get_float32_matmul_precision() == "highest"
        return torch.float32 if exact else torch.float64

    def words(self, operands: Tensor) -> Tensor:
        """Return the requantised sums, not saturated: float64, shape (rows, columns).

        Parameters
        ----------
        operands
            Raws as `dtype`, shape (operands, columns).
        """
        sums = torch.addmm(*self._matrices[operands.dtype], operands)
        if not self._fits:
            wrapped = _wrap(sums.long())
            return _multiply(wrapped, self._multipliers, self._shifts, self._rounding).double()
        words = sums.double().mul_(self._first).add_(0.5).floor_()
        return words.mul_(self._second).round_() if self._rounding == "double" else words


@cache
def _tables(
    kind: ActivationKind, cell_exponent: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sigmoid, scaled tanh of a gate, and tanh of a cell, at all raws from -2^15."""
    activation = ACTIVATIONS[kind]
    every = np.arange(_LOWEST, _HIGHEST + 1)
    # The cell adds i*g, in units of 2^-30, after it is rounded to the cell's resolution.
    step = 2.0 ** -(30 + cell_exponent) * _EXCESS
    arrays = (
        activation.sigmoid(every).astype(np.float64),
        activation.tanh(every) * step,
        activation.tanh(every, 15 + cell_exponent).astype(np.float64),
    )
    sigmoid, gate, cell = (torch.from_numpy(array).to(device) for array in arrays)
    return sigmoid, gate, cell


def _indices(raised: Tensor) -> Tensor:
    """Return the indices of raised raws, which saturate to 16 bits; the operand is overwritten."""
    words = raised.clamp_(_RAISED + _LOWEST, _RAISED + _HIGHEST).view(torch.int64)
    return words.bitwise_and_(_HIGHEST - _LOWEST)


class ExactLayer:
    """A frozen few-bit or int8 layer whose hidden raws are golden's, code for code.

    Peepholes, a layer norm and a projection of int8 layers are refused. Settings of dynamic
    precision have no effect, as in golden's ``run``.

    Parameters
    ----------
    lstm
        The layer.
    device
        Where it runs.

    Raises
    ------
    ValueError
        If the layer is of another number system or variant.
    """

    def __init__(self, lstm: Lstm, device: torch.device | str = "cpu") -> None:
        self.lstm = lstm
        self.device = torch.device(device)
        self._integers = _integers_of(lstm)
        self._input, self._recurrent = (
            _Part(self._integers, part, self.device) for part in range(2)
        )
        self._sigmoid, self._tanh, self._cell_tanh = _tables(
            self._integers.activation, self._integers.cell_exponent, self.device
        )

    def __call__(
        self, raws: Tensor, hidden: Tensor | None = None, cell: Tensor | None = None
    ) -> Tensor:
        """Return the hidden raws of a batch of sequences, int64 of shape (batch, time, hidden).

        The parameters and errors are those of `run_with_cell`.
        """
        return self.run_with_cell(raws, hidden, cell)[0]

    @torch.no_grad()
    def run_with_cell(
        self, raws: Tensor, hidden: Tensor | None = None, cell: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return hidden and cell raws of a batch of sequences at every time step.

        Parameters
        ----------
        raws
            Input raws, an integer tensor of shape (batch, time, inputs).
        hidden, cell
            Raws before the first time step, shape (batch, hidden); None for the state at reset.

        Returns
        -------
        hidden, cell
            int64, shape (batch, time, hidden).

        Raises
        ------
        ValueError
            If a shape or a type is wrong, or a raw is out of range.
        """
        integers, lstm = self._integers, self.lstm
        given = self._checked("raws", raws, (-1, -1, lstm.inputs), integers.bounds)
        batch, time, _ = given.shape
        state = batch, lstm.hidden
        new_hidden = torch.full(
            (lstm.hidden, batch), integers.reset_hidden, dtype=torch.int64, device=self.device
        )
        new_cell = torch.zeros(lstm.hidden, batch, dtype=torch.float64, device=self.device)
        if hidden is not None:
            new_hidden = self._checked("hidden", hidden, state, integers.bounds).T
        if cell is not None:
            new_cell = self._checked("cell", cell, state, INT16_RANGE).T.double()
        hiddens, cells = torch.empty(
            2, time, *new_cell.shape, dtype=torch.float64, device=self.device
        )
        kind = self._recurrent.dtype
        column = new_hidden.to(kind)
        rows = integers.weights[0].shape[0] * lstm.hidden
        length = max(1, _BLOCK // max(1, rows * batch))
        for start in range(0, time, length):
            for t, part in enumerate(self._input_parts(given[:, start : start + length]), start):
                pre = self._recurrent.words(column).add_(part)
                unit, new_cell = self._update(pre, new_cell)
                hiddens[t], cells[t] = unit, new_cell
                column = unit.to(kind)
        return hiddens.permute(2, 0, 1).long().contiguous(), cells.permute(
            2, 0, 1
        ).long().contiguous()

    def _checked(
        self, name: str, raws: Tensor, shape: tuple[int, ...], bounds: tuple[int, int]
    ) -> Tensor:
        """Return raws as int64 on the layer's device, or refuse them."""
        low, high = bounds
        wanted = ["batch" if length < 0 else length for length in shape[:1]]
        wanted += ["time" if length < 0 else length for length in shape[1:]]
        fits = raws.ndim == len(shape) and all(
            want in {-1, length} for want, length in zip(shape, raws.shape, strict=True)
        )
        if not fits or raws.is_floating_point() or raws.is_complex() or raws.dtype == torch.bool:
            listed = ", ".join(str(length) for length in wanted)
            raise ValueError(
                f"{name} must be integers of shape ({listed}), not {raws.dtype} of shape "
                f"{tuple(raws.shape)}."
            )
        if raws.numel() and (int(raws.min()) < low or int(raws.max()) > high):
            raise ValueError(
                f"{name} must be from {low} to {high}, not {int(raws.min())} to {int(raws.max())}."
            )
        return raws.to(self.device, torch.int64)

    def _input_parts(self, raws: Tensor) -> tuple[Tensor, ...]:
        """Return each time step's input part, saturated and raised: (rows, batch) each."""
        batch, time, inputs = raws.shape
        operands = raws.permute(2, 1, 0).reshape(inputs, time * batch).to(self._input.dtype)
        words = self._input.words(operands).clamp_(_LOWEST, _HIGHEST).add_(_RAISED)
        return words.view(-1, time, batch).unbind(1)

    def _update(self, pre: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden and cell raws as float64 from raised pre-activations, (rows, batch)."""
        integers = self._integers
        gates = _indices(pre).view(-1, cell.numel())
        sigmoids = self._sigmoid.index_select(0, gates[:-1].reshape(-1)).view(-1, *cell.shape)
        g = self._tanh.index_select(0, gates[-1]).view_as(cell)
        f, o = sigmoids[-2], sigmoids[-1]
        i = sigmoids[0] if len(sigmoids) > 2 else _HIGHEST - f
        new = (f * cell).mul_(2.0**-15 * _EXCESS).round_().add_(g.mul_(i).round_())
        clip = integers.cell_clip
        new.clamp_(-clip if clip else _LOWEST, clip or _HIGHEST)
        index = _indices(new + _RAISED).view(-1)
        product = self._cell_tanh.index_select(0, index).view_as(cell).mul_(o)
        return self._requantise(product).clamp_(*integers.bounds), new

    def _requantise(self, product: Tensor) -> Tensor:
        """Return the output gate times tanh of the cell as hidden raws that are not saturated."""
        integers = self._integers
        multiplier, shift = integers.hidden_multiplier, integers.hidden_shift
        if multiplier == _ONE and shift <= 0 and integers.rounding == "double":
            halves = product.mul_(0.5).add_(0.5).floor_()
            return halves.mul_(2.0**shift * _EXCESS).round_().add_(integers.hidden_offset)
        scaled = _multiply(
            product.long(),
            torch.tensor(multiplier, device=self.device),
            torch.tensor(shift, device=self.device),
            integers.rounding,
        )
        return scaled.add_(integers.hidden_offset).double()


class ExactNetwork:
    """A network of frozen few-bit or int8 layers whose output raws are golden's.

    Parameters
    ----------
    network
        The network.
    device
        Where it runs.

    Raises
    ------
    ValueError
        If a layer is of another number system or variant.
    """

    def __init__(self, network: Network, device: torch.device | str = "cpu") -> None:
        self.network = network
        self.layers = tuple(ExactLayer(node.lstm, device) for node in network.nodes)

    def __call__(self, raws: Tensor) -> Tensor:
        """Return the output raws from reset, int64 of shape (batch, time, width).

        Parameters
        ----------
        raws
            Input raws, an integer tensor of shape (batch, time, inputs).

        Raises
        ------
        ValueError
            If shape or type is wrong, or a raw is out of range.
        """
        outputs: list[Tensor] = []
        for node, layer in zip(self.network.nodes, self.layers, strict=True):
            parts = [
                raws if source == NETWORK_INPUT else outputs[source].to(raws.device)
                for source in node.sources
            ]
            read = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
            output = layer(read.flip(1) if node.reverse else read)
            outputs.append(output.flip(1) if node.reverse else output)
        return torch.cat([outputs[index] for index in self.network.outputs], dim=-1)


def exact_network(network: Network, device: torch.device | str = "cpu") -> ExactNetwork:
    """Return a function from input raws to output raws that equals golden's `run` of a network.

    The parameters and errors are those of `ExactNetwork`.
    """
    return ExactNetwork(network, device)
