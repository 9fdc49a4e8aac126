"""Optimisers for training at few bits: a master copy in binary16, and one without a master.

`MasterCopy` wraps any optimiser of PyTorch. The parameters are the master copy: a layer quantises
them anew in every forward pass, so that nothing is left to be done after a step but to round them.

`SignedDigitTrigger` trains numbers that are signed digits, bit for bit as
`fewbit.golden.training.signed_digits` defines it.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from fewbit.golden.checks import check_choice
from fewbit.golden.quantize.floatsd8 import weight_bias
from fewbit.golden.training.factors import GRADIENT_BIAS
from fewbit.golden.training.signed_digits import (
    EIGHT_OF_THREE,
    FLOATSD8_DIGITS,
    GROUPS,
    DigitLayout,
    SignedDigits,
    from_reals,
    weights,
)
from fewbit.train.formats import (
    LARGEST_BINARY16,
    nearest_binary16,
    nearest_e5m2,
    powers_of_two,
)

__all__ = ["LAYOUTS", "MasterCopy", "SignedDigitTrigger", "check_loss_scale"]

Real = Literal["binary16", "binary32"]
GradientKind = Literal["e5m2", "binary16", "binary32"]
Rounding = Literal["nearest", "stochastic"]

_FEWEST_STEPS = 20
"""Steps before a share of skipped ones is worth a warning."""
_BINARY16_MANTISSA, _LOWEST_EXPONENT = 10, -14
_FLOAT32_MANTISSA, _FLOAT32_BIAS = 23, 127
_LARGEST_LOSS_SCALE = 64
"""Its exponent: with it and with its inverse a gradient of usual size is a binary32 number."""


def check_loss_scale(loss_scale: float | None) -> None:
    """Refuse a loss scale that is no power of two from 2^-64 to 2^64; None is left to a scheme.

    Raises
    ------
    ValueError
        If it is none.
    """
    if loss_scale is None:
        return
    mantissa, exponent = math.frexp(loss_scale)
    if mantissa != 0.5 or abs(exponent - 1) > _LARGEST_LOSS_SCALE:
        raise ValueError(
            f"loss_scale must be a power of two from 2^-{_LARGEST_LOSS_SCALE} to"
            f" 2^{_LARGEST_LOSS_SCALE}, not {loss_scale}."
        )


class MasterCopy(Optimizer):
    """An optimiser whose parameters are a master copy of few bits, with scaled gradients.

    A step looks for gradients that are not finite, and is skipped if there are any. Else it rounds
    the scaled gradients of weights, saturated, divides all gradients by the loss scale, lets the
    wrapped optimiser take its step, and rounds parameters and moments. As an optimiser of PyTorch
    it can have schedulers of the learning rate; its groups are those of the wrapped one.

    Parameters
    ----------
    optimiser
        Any optimiser of PyTorch; it steps without a closure.
    loss_scale
        A constant, a power of two from 2^-64 to 2^64, by which `scale` multiplies the loss.
    master
        Format of the parameters, "binary16" (saturated) or "binary32". They are rounded at once.
    gradient
        Format of the gradients of weights: "e5m2" with bias 24, saturated to ±224, "binary16" or
        "binary32". Parameters of fewer than two dimensions (biases, norms) keep their gradients.
    moments
        Format of the optimiser's tensors that have a parameter's shape. Squares of gradients below
        2^-12 are lost in "binary16".
    rounding
        Rounding of the parameters after a step, "nearest" (ties to even) or "stochastic": up with
        the share of the distance that a number has gone to the next one.
    step_limit
        Numbers above 0 by parameter: the step of such a parameter saturates to plus or minus it.
    left_alone
        Parameters that are neither rounded, nor their gradients and moments.
    warn_above
        Share of skipped steps above which a warning is given, once.
    seed
        Seed of the stochastic rounding.

    Raises
    ------
    ValueError
        If a parameter of this class is out of its range.

    Source: arXiv 2001.08450 for gradients of 8 bits and the master copy of 16; public code of its
    group for the bias and the parameters that are left alone; arXiv 1809.11086 for the step limit.
    """

    def __init__(
        self,
        optimiser: Optimizer,
        *,
        loss_scale: float = 1024.0,
        master: Real = "binary16",
        gradient: GradientKind = "e5m2",
        moments: Real = "binary32",
        rounding: Rounding = "nearest",
        step_limit: Mapping[Tensor, float] | None = None,
        left_alone: Iterable[Tensor] = (),
        warn_above: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_choice("master", master, get_args(Real))
        check_choice("gradient", gradient, get_args(GradientKind))
        check_choice("moments", moments, get_args(Real))
        check_choice("rounding", rounding, get_args(Rounding))
        check_loss_scale(loss_scale)
        self.step_limit = dict(step_limit or {})
        for limit in self.step_limit.values():
            if not 0 < limit < math.inf:
                raise ValueError(f"A step_limit must be a number above 0, not {limit}.")
        self.optimiser: Optimizer | None = None
        super().__init__(optimiser.param_groups, dict(optimiser.defaults))
        self.optimiser = optimiser
        self.loss_scale = float(loss_scale)
        self.master: Real = master
        self.gradient: GradientKind = gradient
        self.moments: Real = moments
        self.rounding: Rounding = rounding
        self.left_alone = set(left_alone)
        self.warn_above = warn_above
        self.steps = 0
        """Number of steps, skipped ones included."""
        self.overflows = 0
        """Number of steps that were skipped."""
        self.overflowed = False
        """Whether the last step was skipped."""
        self._warned = False
        self._share()
        device = next(self._parameters()).device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._round_masters("nearest")

    def _share(self) -> None:
        """Have the groups and the state of the wrapped optimiser, the same objects."""
        self.param_groups, self.state = self._wrapped.param_groups, self._wrapped.state

    @property
    def _wrapped(self) -> Optimizer:
        assert self.optimiser is not None
        return self.optimiser

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters to the wrapped optimiser, and round them."""
        if self.optimiser is None:
            # The base class adds the wrapped optimiser's own groups when it is made.
            super().add_param_group(param_group)
            return
        self.optimiser.add_param_group(param_group)
        self._round_masters("nearest")

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss times the loss scale; its gradients are those that `step` takes."""
        return loss * self.loss_scale

    @property
    def skipped_share(self) -> float:
        """Return the share of steps that were skipped; 0 before the first one."""
        return self.overflows / self.steps if self.steps else 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step with scaled gradients, or skip it if one of them is not finite.

        Parameters
        ----------
        closure
            A function that computes the scaled gradients and returns the loss, called once.

        Returns
        -------
        The result of `closure`, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [each.grad for each in self._parameters() if each.grad is not None]
        self.steps += 1
        norm = torch.nn.utils.get_total_norm(gradients, math.inf)
        self.overflowed = not bool(norm.isfinite())
        if self.overflowed:
            self.overflows += 1
            self._warn()
            return loss
        self._prepare_gradients()
        before = {each: each.detach().clone() for each in self.step_limit if each.grad is not None}
        self._wrapped.step()
        for parameter, old in before.items():
            limit = self.step_limit[parameter]
            parameter.clamp_(old - limit, old + limit)
        self._round_masters(self.rounding)
        self._round_moments()
        return loss

    def _prepare_gradients(self) -> None:
        """Round the gradients of weights, and divide all by the loss scale, in place."""
        for parameter in self._parameters():
            if parameter.grad is None:
                continue
            scaled = parameter.grad
            if parameter.ndim > 1 and parameter not in self.left_alone:
                if self.gradient == "e5m2":
                    scaled = nearest_e5m2(scaled, GRADIENT_BIAS)
                elif self.gradient == "binary16":
                    scaled = nearest_binary16(scaled)
            if self.loss_scale != 1 or scaled is not parameter.grad:
                torch.mul(scaled, 1 / self.loss_scale, out=parameter.grad)

    def _round_masters(self, rounding: Rounding) -> None:
        if self.master != "binary16":
            return
        for parameter in self._parameters():
            if parameter not in self.left_alone:
                value = parameter.detach()
                if rounding == "nearest":
                    value.copy_(nearest_binary16(value))
                else:
                    value.copy_(_stochastic_binary16(value, self._generator))

    def _round_moments(self) -> None:
        if self.moments != "binary16":
            return
        for parameter, state in self.state.items():
            for value in state.values():
                if (
                    isinstance(value, Tensor)
                    and value.dtype == torch.float32
                    and value.shape == parameter.shape
                    and parameter not in self.left_alone
                    and value.ndim
                ):
                    value.copy_(nearest_binary16(value))

    def _warn(self) -> None:
        """Warn, once, if many steps were skipped."""
        if self._warned or self.steps < _FEWEST_STEPS or self.skipped_share <= self.warn_above:
            return
        self._warned = True
        remedy = "loss scale or the learning rate" if self.loss_scale > 1 else "learning rate"
        warnings.warn(
            f"{self.overflows} of {self.steps} training steps were skipped, because gradients were"
            f" not finite; lower the {remedy} (the loss scale is {self.loss_scale:g}).",
            stacklevel=3,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the wrapped optimiser's state, the counts, and the state of random rounding."""
        return {
            "optimiser": self._wrapped.state_dict(),
            "steps": self.steps,
            "overflows": self.overflows,
            "warned": self._warned,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, bit for bit.

        The parameters themselves belong to the model, whose state is loaded apart.
        """
        self._wrapped.load_state_dict(state_dict["optimiser"])
        self._share()
        self.steps, self.overflows = state_dict["steps"], state_dict["overflows"]
        self._warned = state_dict["warned"]
        self._generator.set_state(state_dict["generator"].cpu())


def _stochastic_binary16(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return one of the two binary16 neighbours of float32 numbers, the expected value exact.

    Beyond the largest number the result saturates. The random numbers are multiples of 2^-53.
    """
    words = values.view(torch.int32).bitwise_right_shift(_FLOAT32_MANTISSA).bitwise_and(0xFF)
    exponents = words.sub_(_FLOAT32_BIAS).clamp_(_LOWEST_EXPONENT, _FLOAT32_BIAS)
    units = powers_of_two(exponents.sub_(_BINARY16_MANTISSA)).double()
    chance = torch.rand(
        values.shape, generator=generator, device=values.device, dtype=torch.float64
    )
    rounded = (values.double() / units).add_(chance).floor_().mul_(units)
    return rounded.clamp_(-LARGEST_BINARY16, LARGEST_BINARY16).float()


LAYOUTS: dict[str, DigitLayout] = {
    layout.name: layout for layout in (FLOATSD8_DIGITS, EIGHT_OF_THREE)
}
"""The layouts of signed digits by their names."""


class SignedDigitTrigger(Optimizer):
    """Gradient descent with momentum on signed digits, without a float master copy.

    A parameter of two or more dimensions is held as eight groups of signed digits and an exponent.
    Its tensor has the weights that are used, exactly: the first two groups. The velocity becomes
    momentum * velocity - rate * gradient, and u = -velocity triggers at most one group, by the rule
    of `fewbit.golden.training.signed_digits`. Parameters of fewer dimensions (biases, norms) move
    by the same velocity as ordinary numbers.

    Under a `MasterCopy` with "binary32" masters it also gets a loss scale and FP8 gradients.

    Parameters
    ----------
    params
        Parameters in float32, or groups of them. They are rounded to signed digits at once.
    lr
        Learning rate, at least 0.
    momentum
        From 0 to below 1.
    bias
        Exponent bias of all weights, -64 to 64; None for the one that suits each tensor's weights
        in FloatSD8, see `fewbit.golden.quantize.floatsd8.weight_bias`. It stays as it is.
    layout
        "floatsd8_digits" or "eight_of_three".

    Raises
    ------
    ValueError
        If a parameter of this class is out of its range, or a weight is not finite.

    Source: as for `fewbit.golden.training.signed_digits`.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.125,
        momentum: float = 0.9,
        *,
        bias: int | None = None,
        layout: str = FLOATSD8_DIGITS.name,
    ) -> None:
        check_choice("layout", layout, tuple(LAYOUTS))
        if not 0 <= lr < math.inf:
            raise ValueError(f"lr must be a number of at least 0, not {lr}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, not {momentum}.")
        self.layout = LAYOUTS[layout]
        super().__init__(params, {"lr": lr, "momentum": momentum, "bias": bias})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, and round the weights among them to signed digits."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"]:
            if parameter.dtype != torch.float32:
                raise ValueError(f"Signed digits need float32 parameters, not {parameter.dtype}.")
            self.state[parameter]["velocity"] = torch.zeros_like(parameter)
            if parameter.ndim > 1:
                self._start(parameter, group["bias"])

    @torch.no_grad()
    def _start(self, parameter: Tensor, bias: int | None) -> None:
        """Round a parameter to signed digits, and keep them as its state."""
        reals = parameter.detach().cpu().double().numpy()
        if bias is None:
            # The same range has a bias 3 lower where the mantissas are 8a + b.
            bias = weight_bias(reals) - (0 if self.layout == FLOATSD8_DIGITS else 3)
        digits = from_reals(reals, bias, self.layout)
        parameter.copy_(torch.from_numpy(weights(digits)))
        state = self.state[parameter]
        state["bias"] = bias
        # Groups first, so that each is contiguous.
        state["indices"] = _small(np.moveaxis(digits.indices, -1, 0), parameter.device)
        state["exponent"] = _small(digits.exponent, parameter.device)

    def digits(self, parameter: Tensor) -> SignedDigits:
        """Return a weight's signed digits as the golden model has them."""
        state = self.state[parameter]
        indices = np.moveaxis(state["indices"].cpu().numpy().astype(np.int64), 0, -1)
        exponent = state["exponent"].cpu().numpy().astype(np.int64)
        return SignedDigits(indices, exponent, state["bias"], self.layout)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every parameter that has a gradient by one step.

        Parameters
        ----------
        closure
            A function that computes the gradients and returns the loss, called once.

        Returns
        -------
        The result of `closure`, or None.

        Raises
        ------
        ValueError
            If a gradient of a weight is NaN; nothing of that weight has changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                # Two products and a difference, each rounded, as golden's arithmetic has them.
                kept = state["velocity"] * group["momentum"]
                velocity = kept.sub_(parameter.grad * group["lr"])
                if parameter.ndim > 1:
                    if bool(velocity.isnan().any()):
                        raise ValueError("u must not be NaN; check the loss scale for overflow.")
                    self._trigger(parameter, velocity)
                else:
                    parameter.add_(velocity)
                state["velocity"] = velocity
        return loss

    def _trigger(self, parameter: Tensor, velocity: Tensor) -> None:
        """Move the digits of a weight by u = -velocity, and write the weight that is used."""
        state, layout = self.state[parameter], self.layout
        indices, exponent = state["indices"].clone(), state["exponent"]
        unit_exponents = exponent.int().sub_(state["bias"])
        size = velocity.abs()
        # The direction is against the sign of u; a u of 0 triggers nothing.
        direction = torch.where(velocity < 0, -1, 1).to(torch.int8)
        reached = [size >= powers_of_two(unit_exponents + (place - 1)) for place in layout.places]
        moves = torch.zeros_like(reached[0])
        for group in range(GROUPS - 1, -1, -1):
            # The first group that is reached is triggered: those above are not.
            first = reached[group] if group == 0 else reached[group] & ~reached[group - 1]
            moves = moves | first
            old = indices[group]
            moved = old + direction
            passes = moves & (moved.abs() > layout.digits[group])
            wrapped = old if group == 0 else -direction * layout.digits[group]
            indices[group] = torch.where(moves, torch.where(passes, wrapped, moved), old)
            moves = passes
        grows = moves & (exponent < layout.largest_exponent)
        halved = indices - indices.sign()
        halved[0] = indices[0]
        indices = torch.where(grows, halved, indices)
        state["indices"] = torch.where(moves & ~grows, state["indices"], indices)
        state["exponent"] = exponent + grows.to(torch.int8)
        self._write(parameter)

    def _write(self, parameter: Tensor) -> None:
        """Write the weight that is used: the first two groups, exactly."""
        state = self.state[parameter]
        total = torch.zeros_like(parameter)
        for index, place in zip(state["indices"][:2].int(), self.layout.places[:2], strict=True):
            # Index ±k is ±2^(k - 1).
            magnitude = powers_of_two(index.abs() + (place - 1))
            total += magnitude * index.sign()
        parameter.copy_(total * powers_of_two(state["exponent"].int() - state["bias"]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, bit for bit."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("indices", "exponent"):
                if name in state:
                    # The base class gives all tensors the type of their parameter.
                    state[name] = state[name].to(torch.int8)


def _small(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.int8))).to(device)
