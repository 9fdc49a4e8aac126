"""Optimisers: updates by hand, skipped steps, exact resumption, signed digits against golden."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from fewbit.golden.formats import BINARY16, Minifloat
from fewbit.golden.training.signed_digits import momentum_update, values, weights
from fewbit.train.optimise import LAYOUTS, MasterCopy, SignedDigitTrigger

OPTIMISERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: Adam(parameters, lr=0.01),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01),
    "rmsprop": lambda parameters: RMSprop(parameters, lr=0.01),
    "adagrad": lambda parameters: Adagrad(parameters, lr=0.05),
}


def parameter(*numbers: float, dimensions: int = 2) -> nn.Parameter:
    tensor = torch.tensor(numbers)
    return nn.Parameter(tensor.unsqueeze(0) if dimensions == 2 else tensor)


def numbers(tensor: Tensor) -> list[float]:
    return tensor.detach().flatten().tolist()


def is_binary16(tensor: Tensor) -> bool:
    return torch.equal(tensor.half().float(), tensor)


class Regression:
    """A small network with its data: a loss to bring down, the same for every seed."""

    def __init__(self, make: Callable[[Any], Optimizer]) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
        for each in self.model.parameters():
            each.data.uniform_(-0.4, 0.4, generator=generator)
        self.x = torch.randn(32, 6, generator=generator)
        self.y = torch.stack([self.x[:, 0] * self.x[:, 1], self.x.sum(1)], dim=1) / 2
        self.optimiser = make(self.model.parameters())

    def step(self) -> float:
        self.optimiser.zero_grad()
        loss = (self.model(self.x) - self.y).square().mean()
        scaled = self.optimiser.scale(loss) if isinstance(self.optimiser, MasterCopy) else loss
        scaled.backward()
        self.optimiser.step()
        return float(loss.detach())

    def words(self) -> list[bytes]:
        return [each.detach().numpy().tobytes() for each in self.model.parameters()]


def test_an_update_by_hand() -> None:
    """SGD, rate 1/2, loss scale 1024; gradients 0.1, 0.3 and 0.00001.

    Scaled they are 102.4, 307.2 and 0.01024. FP8 has 96 and 112, ends at 224, and has 0.009765625
    and 0.01171875. Over 1024 that is 0.09375, 0.21875 and 0.00000953674. The bias keeps its 0.1.
    """
    weight, bias = parameter(1.0, 1.0, 1.0), parameter(1.0, dimensions=1)
    optimiser = MasterCopy(SGD([weight, bias], lr=0.5))
    slopes = torch.tensor([[0.1, 0.3, 0.00001]])
    loss = (weight * slopes).sum() + 0.1 * bias.sum()
    optimiser.scale(loss).backward()
    optimiser.step()
    # Near 1, binary16 has multiples of 2^-11 below and 2^-10 above.
    assert numbers(weight) == [1 - 0.046875, 1 - 0.109375, 1.0]
    assert numbers(bias) == [round(0.95 * 2**11) / 2**11]
    assert weight.grad is not None
    assert numbers(weight.grad) == [0.09375, 0.21875, 0.009765625 / 1024]
    assert (optimiser.steps, optimiser.overflows) == (1, 0)


def test_gradients_are_the_nearest_of_goldens_format() -> None:
    generator = torch.Generator().manual_seed(2)
    scaled = torch.randn(40, 50, generator=generator) * torch.logspace(-9, 3, 50)
    weight = nn.Parameter(torch.zeros(40, 50))
    weight.grad = scaled.clone()
    MasterCopy(SGD([weight], lr=0.0)).step()
    number_format = Minifloat(5, 2, 24)
    wanted = number_format.decode(number_format.encode(scaled.numpy())) / 1024
    np.testing.assert_array_equal(weight.grad.numpy(), wanted.astype(np.float32))
    weight.grad = scaled.clone()
    MasterCopy(SGD([weight], lr=0.0), gradient="binary16", loss_scale=1.0).step()
    wanted = BINARY16.decode(BINARY16.encode(scaled.numpy()))
    np.testing.assert_array_equal(weight.grad.numpy(), wanted.astype(np.float32))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_without_any_rounding_it_is_the_optimiser_itself(name: str) -> None:
    """A loss scale that is a power of two cancels exactly."""
    make = OPTIMISERS[name]
    plain = Regression(make)
    wrapped = Regression(
        lambda parameters: MasterCopy(
            make(parameters), loss_scale=4096.0, master="binary32", gradient="binary32"
        )
    )
    for _ in range(10):
        plain.step()
        wrapped.step()
    assert plain.words() == wrapped.words()


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_any_optimiser_learns_with_a_master_of_16_bits(name: str, rounding: Any) -> None:
    task = Regression(
        lambda parameters: MasterCopy(
            OPTIMISERS[name](parameters), loss_scale=16.0, rounding=rounding
        )
    )
    assert all(is_binary16(each.detach()) for each in task.model.parameters())
    losses = [task.step() for _ in range(150)]
    assert losses[-1] < losses[0] / 3
    assert all(is_binary16(each.detach()) for each in task.model.parameters())


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_step_with_gradients_that_are_not_finite_is_skipped(bad: float) -> None:
    task = Regression(lambda parameters: MasterCopy(Adam(parameters, lr=0.01), loss_scale=16.0))
    optimiser = task.optimiser
    assert isinstance(optimiser, MasterCopy)
    task.step()
    before, state = task.words(), deepcopy(optimiser.state_dict()["optimiser"]["state"])
    for each in task.model.parameters():
        each.grad = torch.ones_like(each)
    last = list(task.model.parameters())[-1]
    assert last.grad is not None
    last.grad[0] = bad
    optimiser.step()
    assert optimiser.overflowed
    assert task.words() == before
    after = optimiser.state_dict()["optimiser"]["state"]
    for index, each in state.items():
        assert all(torch.equal(value, after[index][name]) for name, value in each.items())
    task.step()
    assert not optimiser.overflowed
    assert task.words() != before
    assert (optimiser.steps, optimiser.overflows) == (3, 1)
    assert optimiser.skipped_share == 1 / 3


def test_many_skipped_steps_are_told_once() -> None:
    weight = parameter(1.0)
    optimiser = MasterCopy(SGD([weight], lr=0.1), loss_scale=2.0**20)

    def steps(count: int, gradient: float) -> None:
        for _ in range(count):
            weight.grad = torch.full_like(weight, gradient)
            optimiser.step()

    steps(18, 1.0)
    steps(2, math.inf)
    with pytest.warns(UserWarning, match=r"3 of 21 .* lower the loss scale or the learning rate"):
        steps(1, math.inf)
    steps(5, math.inf)
    assert optimiser.overflows == 8


@pytest.mark.parametrize("name", OPTIMISERS)
def test_resumed_training_is_the_same(name: str) -> None:
    """Ten steps at once, or five, then five more by new objects; a skipped step on the way."""

    def made() -> Regression:
        return Regression(
            lambda parameters: MasterCopy(
                OPTIMISERS[name](parameters),
                loss_scale=16.0,
                rounding="stochastic",
                moments="binary16",
                seed=7,
            )
        )

    whole, first, second = made(), made(), made()
    for task in (whole, first):
        for _ in range(5):
            task.step()
        next(task.model.parameters()).grad = torch.full((16, 6), math.inf)
        task.optimiser.step()
    second.model.load_state_dict(first.model.state_dict())
    second.optimiser.load_state_dict(deepcopy(first.optimiser.state_dict()))
    for task in (whole, second):
        for _ in range(5):
            task.step()
    assert second.words() == whole.words()
    assert first.words() != whole.words()
    assert isinstance(second.optimiser, MasterCopy)
    assert (second.optimiser.steps, second.optimiser.overflows) == (11, 1)
    assert repr(second.optimiser.state_dict()) == repr(whole.optimiser.state_dict())


def test_schedulers_of_the_rate_work() -> None:
    task = Regression(lambda parameters: MasterCopy(SGD(parameters, lr=0.4), loss_scale=16.0))
    for scheduler in (StepLR(task.optimiser, 2, 0.5), CosineAnnealingLR(task.optimiser, 4)):
        for _ in range(4):
            task.step()
            scheduler.step()
    assert isinstance(task.optimiser, MasterCopy)
    assert task.optimiser.optimiser is not None
    assert task.optimiser.param_groups is task.optimiser.optimiser.param_groups
    rate = task.optimiser.param_groups[0]["lr"]
    task.optimiser.load_state_dict(deepcopy(task.optimiser.state_dict()))
    assert task.optimiser.param_groups is task.optimiser.optimiser.param_groups
    assert task.optimiser.param_groups[0]["lr"] == rate
    other = parameter(1 / 3)
    task.optimiser.add_param_group({"params": [other], "lr": 0.1})
    assert is_binary16(other.detach())
    assert task.optimiser.param_groups[1]["lr"] == 0.1


def test_the_step_limit_by_hand() -> None:
    """Adam's first step is the rate: 0.5 is saturated to 0.125, and not where there's no limit."""
    limited, free = parameter(1.0, -1.0), parameter(1.0, -1.0)
    optimiser = MasterCopy(
        Adam([limited, free], lr=0.5, eps=0.0),
        loss_scale=1.0,
        master="binary32",
        gradient="binary32",
        step_limit={limited: 0.125},
    )
    for each in (limited, free):
        each.grad = torch.tensor([[3.0, -2.0]])
    optimiser.step()
    assert numbers(limited) == [0.875, -0.875]
    assert numbers(free) == pytest.approx([0.5, -0.5], rel=1e-6)
    for group in optimiser.param_groups:
        group["lr"] = 0.0625
    for each in (limited, free):
        each.grad = torch.tensor([[3.0, -2.0]])
    optimiser.step()
    assert numbers(limited) == pytest.approx([0.8125, -0.8125], rel=1e-6)


def test_parameters_that_are_left_alone() -> None:
    left, other = parameter(1 / 3), parameter(1 / 3)
    optimiser = MasterCopy(Adam([left, other], lr=0.1), left_alone=[left], moments="binary16")
    assert numbers(left) == [float(torch.tensor(1 / 3))]
    assert numbers(other) == [float(torch.tensor(1 / 3).half())]
    for each in (left, other):
        each.grad = torch.tensor([[99.7]])
    optimiser.step()
    assert left.grad is not None
    assert other.grad is not None
    assert numbers(left.grad) == numbers(torch.tensor(99.7) / 1024)
    assert numbers(other.grad) == [96 / 1024]
    assert is_binary16(optimiser.state[other]["exp_avg"])
    assert not is_binary16(optimiser.state[left]["exp_avg_sq"])


def test_moments_of_16_bits() -> None:
    task = Regression(
        lambda parameters: MasterCopy(
            Adam(parameters, lr=0.01), loss_scale=16.0, moments="binary16"
        )
    )
    for _ in range(7):
        task.step()
    for each in task.model.parameters():
        state = task.optimiser.state[each]
        assert is_binary16(state["exp_avg"])
        assert is_binary16(state["exp_avg_sq"])
        assert state["step"] == 7


def test_stochastic_rounding_goes_to_neighbours_with_the_right_mean() -> None:
    """1 + 2^-10/4 becomes 1 or 1 + 2^-10, one time in four; also among subnormals and negatives."""
    for low, unit in ((1.0, 2.0**-10), (-2.0, 2.0**-10), (3 * 2.0**-24, 2.0**-24), (0.0, 2.0**-24)):
        weight = nn.Parameter(torch.full((100, 400), low))
        optimiser = MasterCopy(SGD([weight], lr=1.0), rounding="stochastic", gradient="binary32")
        weight.grad = torch.full_like(weight, -unit / 4 * 1024)
        optimiser.step()
        found = weight.detach().double()
        assert set(found.unique().tolist()) == {low, low + unit}
        share = float((found == low + unit).double().mean())
        sigma = math.sqrt(0.25 * 0.75 / weight.numel())
        assert abs(share - 0.25) < 5 * sigma
    weight = nn.Parameter(torch.tensor([[70000.0, -1e9, 1.5, 0.0, 65504.0, 2.0**-24]]))
    optimiser = MasterCopy(SGD([weight], lr=1.0), rounding="stochastic")
    weight.grad = torch.zeros_like(weight)
    optimiser.step()
    assert numbers(weight) == [65504.0, -65504.0, 1.5, 0.0, 65504.0, 2.0**-24]


def test_closures() -> None:
    weight = parameter(1.0)
    optimiser = MasterCopy(SGD([weight], lr=0.5), loss_scale=4.0)

    def closure() -> Tensor:
        loss = (weight * 0.5).sum()
        optimiser.scale(loss).backward()
        return loss

    assert float(optimiser.step(closure).detach()) == 0.5
    assert numbers(weight) == [0.75]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"loss_scale": 1000.0}, r"loss_scale must be a power of two .*, not 1000\.0"),
        ({"loss_scale": -2.0}, r"loss_scale must be a power of two .*, not -2\.0"),
        ({"loss_scale": math.inf}, r"loss_scale must be a power of two .*, not inf"),
        ({"master": "fp16"}, "master must be"),
        ({"gradient": "fp8"}, "gradient must be"),
        ({"moments": "e5m2"}, "moments must be"),
        ({"rounding": "up"}, "rounding must be"),
    ],
)
def test_wrong_settings(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        MasterCopy(SGD([parameter(1.0)], lr=0.1), **fields)


def test_wrong_limits_and_types() -> None:
    weight = parameter(1.0)
    with pytest.raises(ValueError, match=r"step_limit must be a number above 0, not 0\.0"):
        MasterCopy(SGD([weight], lr=0.1), step_limit={weight: 0.0})
    double = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"float32 tensors, not torch\.float64"):
        MasterCopy(SGD([double], lr=0.1))
    with pytest.raises(ValueError, match=r"need float32 parameters, not torch\.float64"):
        SignedDigitTrigger([double])
    for fields, error in (
        ({"lr": -1.0}, "lr must be a number of at least 0, not -1.0"),
        ({"momentum": 1.0}, "momentum must be from 0 to below 1, not 1.0"),
        ({"layout": "nine"}, "layout must be"),
    ):
        with pytest.raises(ValueError, match=error):
            SignedDigitTrigger([parameter(1.0)], **fields)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_signed_digits_are_goldens(layout: str, momentum: float) -> None:
    """A hundred and fifty steps of a thousand weights: the same digits, velocities and weights."""
    rng = np.random.default_rng(4)
    start = rng.normal(0, 0.4, (25, 40)).astype(np.float32)
    weight = nn.Parameter(torch.from_numpy(start.copy()))
    optimiser = SignedDigitTrigger([weight], lr=0.3, momentum=momentum, layout=layout)
    state = optimiser.digits(weight)
    velocity = np.zeros(start.shape, np.float32)
    exponents: set[int] = set()
    for _ in range(150):
        gradient = (rng.normal(size=start.shape) * 2.0 ** rng.uniform(-22, 2, start.shape)).astype(
            np.float32
        )
        # Powers of two are on the thresholds; zeros trigger nothing.
        gradient[0] = np.sign(gradient[0]) * 2.0 ** rng.integers(-20, 2, 40)
        gradient[1, ::2] = 0
        state, velocity = momentum_update(state, velocity, gradient, rate=0.3, momentum=momentum)
        weight.grad = torch.from_numpy(gradient)
        optimiser.step()
        found = optimiser.digits(weight)
        for name in ("indices", "exponent"):
            got, wanted = getattr(found, name), getattr(state, name)
            wrong = np.argwhere(got != wanted)
            assert not len(wrong), f"{name} differ first at {wrong[0]}"
        np.testing.assert_array_equal(optimiser.state[weight]["velocity"].numpy(), velocity)
        np.testing.assert_array_equal(weight.detach().numpy(), weights(state))
        exponents |= set(np.unique(state.exponent).tolist())
    assert len(exponents) > 2, "no exponent has grown"
    assert (values(state) != weights(state)).any()


def test_signed_digits_start_near_their_weights() -> None:
    weight = nn.Parameter(torch.linspace(-1, 1, 400).view(20, 20))
    bias = nn.Parameter(torch.linspace(-1, 1, 5))
    before = weight.detach().clone()
    SignedDigitTrigger([weight, bias])
    assert (weight - before).abs().max() < 0.07
    assert torch.equal(bias.detach(), torch.linspace(-1, 1, 5))


def test_signed_digits_of_thresholds_by_hand() -> None:
    """Bias 10: the weight 1/1024 has exponent 0 and indices 0 1; its unit is 1/1024.

    Half that, 2^-11, moves the second group by one, to 2/1024; a little less moves a lower group,
    which is not seen.
    """
    for gradient, wanted in ((-(2.0**-11), 2.0), (2.0**-11, 0.0), (-(2.0**-11) * 0.999, 1.0)):
        weight = parameter(1 / 1024)
        optimiser = SignedDigitTrigger([weight], lr=1.0, momentum=0.0, bias=10)
        weight.grad = torch.full_like(weight, gradient)
        optimiser.step()
        assert numbers(weight) == [wanted / 1024]


def test_signed_digits_resume_and_learn_under_a_master_copy() -> None:
    def made() -> Regression:
        return Regression(
            lambda parameters: MasterCopy(
                SignedDigitTrigger(parameters, lr=0.05), loss_scale=16.0, master="binary32"
            )
        )

    whole, first, second = made(), made(), made()
    losses = [whole.step() for _ in range(200)]
    assert losses[-1] < losses[0] / 3
    for _ in range(90):
        first.step()
    second.model.load_state_dict(first.model.state_dict())
    second.optimiser.load_state_dict(deepcopy(first.optimiser.state_dict()))
    stored = second.optimiser.state[next(second.model.parameters())]
    assert stored["indices"].dtype == stored["exponent"].dtype == torch.int8
    for _ in range(110):
        second.step()
    assert second.words() == whole.words()


def test_signed_digits_refuse_nan() -> None:
    weight = parameter(0.5)
    optimiser = SignedDigitTrigger([weight])
    before = numbers(weight)
    weight.grad = torch.full_like(weight, math.nan)
    with pytest.raises(ValueError, match="u must not be NaN; check the loss scale"):
        optimiser.step()
    assert numbers(weight) == before
    assert numbers(optimiser.state[weight]["velocity"]) == [0.0]
    MasterCopy(optimiser, master="binary32").step()
    assert numbers(weight) == before
