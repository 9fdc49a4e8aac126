"""Training in FloatSD8: FloatSD8 weights, FP8 activations and gradients, binary16 sums and masters.

Forward and backward pass see FloatSD8 weights; the parameters behind them are the master copy,
which `fewbit.train.optimise.MasterCopy` keeps in binary16 and updates with FP8 gradients of a
scaled loss. Each tensor of weights has a power of two of its own, its exponent bias: the finest at
which its largest weight does not saturate. It is looked at in every step, for weights that saturate
learn nothing from their excess, and chosen anew after an epoch.

What arXiv 2001.08450 leaves open is a field of `FloatSD8`, so that its effect can be measured.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewbit.golden import formats
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW
from fewbit.golden.checks import check_choice, freeze_integer
from fewbit.golden.formats import BINARY16
from fewbit.golden.lstm.floatsd8 import (
    FEWEST_PRODUCTS,
    HIDDEN_FORMAT,
    HIGHEST_BIAS,
    HIGHEST_CONSTANT_BIAS,
    HIGHEST_WINDOW,
    LOWEST_BIAS,
    LOWEST_CONSTANT_BIAS,
    LOWEST_WINDOW,
    MOST_PRODUCTS,
    FloatSD8Lstm,
)
from fewbit.golden.quantize.floatsd8 import input_bias, weight_bias
from fewbit.train.formats import floatsd8_nearest, nearest_binary16, nearest_e5m2
from fewbit.train.optimise import MasterCopy, SignedDigitTrigger, check_loss_scale
from fewbit.train.quantisers import straight_through
from fewbit.train.recurrence import GradientFormat, floatsd8_recurrence
from fewbit.train.schemes.contract import Cell, Scheme, Signal, by_gate, reals_of

__all__ = ["FloatSD8"]

Gradient = Literal["e5m2", "binary16", "binary32"]
Master = Literal["binary16", "binary32"]
FirstLayer = Literal["e5m2", "real"]
LastLayer = Literal["floatsd8", "real"]
Update = Literal["master", "signed_digits"]
_USUAL_BIAS = formats.FLOATSD8.bias
_LARGEST = formats.FloatSD8(0).largest
"""The largest number with exponent bias 0."""


@dataclass(frozen=True)
class FloatSD8(Scheme):
    """FloatSD8 training; every field is this project's choice where the paper is silent.

    Parameters
    ----------
    gradient
        The format of the gradients of activations and weights: "e5m2" with bias 24, "binary16" or
        "binary32".
    weight_gradient
        Another format for the gradients of weights; None for that of `gradient`.
    master
        The format of the master copy of the weights: "binary16" or "binary32".
    moments
        The format of the optimiser's own tensors, such as Adam's moments.
    rounding
        The rounding of the master copy: "nearest" or "stochastic".
    update
        "master": the optimiser updates the master copy. "signed_digits": there is no master copy,
        the signed-digit trigger update with `momentum` moves the weights themselves, and the
        learning rate is its own.
    momentum
        Of the signed-digit trigger update.
    loss_scale
        A constant by which the loss is multiplied, a power of two. None for the largest that is at
        most a quarter of the labels in a batch, over which the loss is a mean: so the gradient of
        one label's score is never above 1/4. It is 1024 for 64 windows of 99 characters, and 16 for
        64 sequences with a label each, whose gradients 1024 makes overflow.
    first
        The network's inputs in training: "e5m2", as the circuit reads them, or "real", which golden
        and the circuit round all the same.
    last
        The read-out: "floatsd8" for FloatSD8 weights and binary16 results, or "real".
    last_gradient
        The format of the gradients of the read-out's results: as they are, binary16 by default.
        In e5m2 each probability's error is off by up to an eighth, in one way for the right class
        and in another for the wrong ones, which costs 0.03 bits a character.
    products, window
        The fields of the golden layer.

    Source: arXiv 2001.08450, abstract: weights in FloatSD8, activations and gradients in 8 bits,
    sums and master copy in 16 bits.
    """

    name: ClassVar[str] = "floatsd8"
    system: ClassVar[str] = "floatsd8"

    gradient: Gradient = "e5m2"
    weight_gradient: Gradient | None = None
    master: Master = "binary16"
    moments: Master = "binary32"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    update: Update = "master"
    momentum: float = 0.9
    loss_scale: float | None = None
    first: FirstLayer = "e5m2"
    last: LastLayer = "floatsd8"
    last_gradient: Gradient = "binary16"
    products: int = FEWEST_PRODUCTS
    window: int | None = DEFAULT_WINDOW

    def __post_init__(self) -> None:
        """Check that every field has a value that exists."""
        check_choice("gradient", self.gradient, get_args(Gradient))
        if self.weight_gradient is not None:
            check_choice("weight_gradient", self.weight_gradient, get_args(Gradient))
        check_choice("master", self.master, get_args(Master))
        check_choice("moments", self.moments, get_args(Master))
        check_choice("first", self.first, get_args(FirstLayer))
        check_choice("last", self.last, get_args(LastLayer))
        check_choice("last_gradient", self.last_gradient, get_args(Gradient))
        check_choice("update", self.update, get_args(Update))
        check_choice("rounding", self.rounding, ("nearest", "stochastic"))
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, not {self.momentum}.")
        check_loss_scale(self.loss_scale)
        freeze_integer(self, "products", FEWEST_PRODUCTS, MOST_PRODUCTS)
        if self.window is not None:
            freeze_integer(self, "window", LOWEST_WINDOW, HIGHEST_WINDOW)

    def signal(self, *, hidden: bool) -> Signal:
        return _E5M2(fixed=hidden, rounds=hidden or self.first == "e5m2")

    def cell(self, inputs: int, hidden: int, reads: Signal, writes: Signal) -> Cell:
        return _FloatSD8Cell(self, inputs, hidden, reads, writes)

    def read_out(self, inputs: int, classes: int) -> nn.Linear:
        if self.last == "real":
            return nn.Linear(inputs, classes)
        return FloatSD8Linear(
            inputs, classes, GradientFormat(self.last_gradient), moves=self.update == "master"
        )

    def optimiser(self, optimiser: torch.optim.Optimizer, model: nn.Module, labels: int) -> Any:
        scale = self.loss_scale
        if scale is None:
            scale = 2.0 ** max(0, (labels // 4).bit_length() - 1)
        gradient = self.weight_gradient or self.gradient
        if self.update == "signed_digits":
            rate = optimiser.param_groups[0]["lr"]
            return MasterCopy(
                SignedDigitTrigger(model.parameters(), rate, self.momentum),
                loss_scale=scale,
                master="binary32",
                gradient=gradient,
            )
        return MasterCopy(
            optimiser,
            loss_scale=scale,
            master=self.master,
            gradient=gradient,
            moments=self.moments,
            rounding=self.rounding,
        )


def _finest_bias(weights: Tensor, activation_bias: int) -> int:
    """Return the largest exponent bias at which no weight saturates, within a circuit's bounds."""
    largest = float(weights.detach().abs().max())
    # FloatSD8's largest number is 18 * 2^(7 - bias).
    bias = math.floor(math.log2(_LARGEST / largest)) if 0 < largest < math.inf else _USUAL_BIAS
    low, high = LOWEST_CONSTANT_BIAS - activation_bias, HIGHEST_CONSTANT_BIAS - activation_bias
    return min(max(bias, low, LOWEST_BIAS), high, HIGHEST_BIAS)


class _Scale:
    """A tensor's exponent bias: in training it falls as soon as a weight would saturate.

    Parameters
    ----------
    bias
        A tensor of one integer, which a module keeps among its buffers.
    activation_bias
        Exponent bias of the numbers that the weights are multiplied by.
    fixed
        Whether it keeps the bias that `choose` has given: that of signed digits.
    """

    def __init__(
        self, bias: Tensor, activation_bias: int = HIDDEN_FORMAT.bias, *, fixed: bool
    ) -> None:
        self._bias, self._other, self._fixed = bias, activation_bias, fixed

    def choose(self, weights: Tensor) -> None:
        """Take the bias that suits the first weights."""
        if self._fixed:
            self._bias.fill_(weight_bias(reals_of(weights), self._other))
        else:
            self.follow(weights)

    def follow(self, weights: Tensor) -> None:
        """Take the bias that suits weights which have moved."""
        if not self._fixed:
            self._bias.fill_(_finest_bias(weights, self._other))

    def rounded(self, weights: Tensor, *, training: bool) -> Tensor:
        """Return the FloatSD8 weights, with a gradient that passes straight to the given ones."""
        if training and not self._fixed:
            self._bias.clamp_(max=_finest_bias(weights, self._other))
        return straight_through(weights, floatsd8_nearest(weights.detach(), int(self._bias)))


class _E5M2(Signal):
    """e5m2 numbers; those of the network's input have the bias that suits the first ones best."""

    bias: Tensor
    known: Tensor

    def __init__(self, *, fixed: bool, rounds: bool) -> None:
        super().__init__()
        self._rounds = rounds
        self.register_buffer("bias", torch.tensor(HIDDEN_FORMAT.bias))
        self.register_buffer("known", torch.tensor(fixed))

    @property
    def is_known(self) -> bool:
        return bool(self.known)

    def forward(self, values: Tensor) -> Tensor:
        if not self._rounds:
            return values
        return straight_through(values, nearest_e5m2(values.detach(), int(self.bias)))

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        if not self.known:
            self.bias.fill_(input_bias(reals_of(values)))
            self.known.fill_(value=True)


class FloatSD8Linear(nn.Linear):
    """A linear layer of FloatSD8 weights, whose results are binary16.

    Parameters
    ----------
    inputs, classes
        Length of its input and of its result.
    gradient
        The format to which the gradient of its result is rounded.
    moves
        Whether `follow` chooses the exponent bias anew.
    """

    weight_bias: Tensor

    def __init__(
        self, inputs: int, classes: int, gradient: GradientFormat, *, moves: bool = True
    ) -> None:
        super().__init__(inputs, classes)
        self.gradient, self._moves = gradient, moves
        self.register_buffer("weight_bias", torch.tensor(0))
        self._scale.choose(self.weight)

    @property
    def _scale(self) -> "_Scale":
        # Made anew, because the buffer is another one after a move to another device.
        return _Scale(self.weight_bias, fixed=not self._moves)

    def follow(self) -> None:
        """Choose the exponent bias that suits the weights."""
        self._scale.follow(self.weight)

    @property
    def rounded(self) -> Tensor:
        """Return the FloatSD8 weights, with a gradient that passes straight to the master copy."""
        return self._scale.rounded(self.weight, training=self.training)

    @property
    def rounded_bias(self) -> Tensor:
        """Return the biases in binary16."""
        return straight_through(self.bias, nearest_binary16(self.bias.detach()))

    def forward(self, input: Tensor) -> Tensor:
        scores = functional.linear(input, self.rounded, self.rounded_bias)
        return _RoundedGradient.apply(
            straight_through(scores, nearest_binary16(scores.detach())), self.gradient
        )


class _RoundedGradient(torch.autograd.Function):
    """The identity, whose gradient is rounded."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, gradient: GradientFormat) -> Tensor:
        ctx.gradient = gradient
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        scale = ctx.gradient.scale
        return ctx.gradient.nearest(gradients[0] * scale) / scale, None


class _FloatSD8Cell(Cell):
    weight_bias_ih: Tensor
    weight_bias_hh: Tensor

    def __init__(
        self, scheme: FloatSD8, inputs: int, hidden: int, reads: Signal, writes: Signal
    ) -> None:
        super().__init__(inputs, hidden, reads, writes)
        self.scheme = scheme
        self.gradient = GradientFormat(scheme.gradient)
        for name in ("weight_bias_ih", "weight_bias_hh"):
            self.register_buffer(name, torch.tensor(0))

    @property
    def input_bias(self) -> int:
        """Return the exponent bias of the inputs."""
        assert isinstance(self.reads, _E5M2)
        return int(self.reads.bias)

    @property
    def _scales(self) -> tuple[_Scale, _Scale]:
        """Return the scales of the weights of inputs and of hidden values."""
        fixed = self.scheme.update == "signed_digits"
        return (
            _Scale(self.weight_bias_ih, self.input_bias, fixed=fixed),
            _Scale(self.weight_bias_hh, fixed=fixed),
        )

    def start(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        for scale, weights in zip(self._scales, (weight_ih, weight_hh), strict=True):
            scale.choose(weights)

    def follow(self, weight_ih: Tensor, weight_hh: Tensor) -> None:
        for scale, weights in zip(self._scales, (weight_ih, weight_hh), strict=True):
            scale.follow(weights)

    def weights(self, weight_ih: Tensor, weight_hh: Tensor) -> tuple[Tensor, Tensor]:
        of_inputs, of_hidden = self._scales
        return (
            of_inputs.rounded(weight_ih, training=self.training),
            of_hidden.rounded(weight_hh, training=self.training),
        )

    def run(
        self,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        parameters: tuple[Tensor, Tensor, Tensor],
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        weight_ih, weight_hh = self.weights(*parameters[:2])
        bias = straight_through(parameters[2], nearest_binary16(parameters[2].detach()))
        return floatsd8_recurrence(
            functional.linear(x, weight_ih, bias),
            weight_hh,
            self.writes(hidden),
            straight_through(cell, nearest_binary16(cell.detach())),
            self.gradient,
        )

    def golden(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor) -> FloatSD8Lstm:
        biases = int(self.weight_bias_ih), int(self.weight_bias_hh)
        return FloatSD8Lstm(
            formats.FloatSD8(biases[0]).encode(reals_of(by_gate(weight_ih))),
            formats.FloatSD8(biases[1]).encode(reals_of(by_gate(weight_hh))),
            BINARY16.encode(reals_of(by_gate(bias))),
            *biases,
            self.input_bias,
            self.scheme.products,
            self.scheme.window,
        )
