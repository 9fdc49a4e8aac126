"""The recurrences: values and gradients against PyTorch's own, and against slow ones."""

import pytest
import torch
from torch import Tensor, nn

from fewbit.golden.activation.floatsd8 import sigmoid_floatsd8, tanh_e5m2
from fewbit.golden.formats import BINARY16, FLOATSD8
from fewbit.golden.lstm.floatsd8 import GATE_FORMAT, HIDDEN_FORMAT, FloatSD8Lstm
from fewbit.train.recurrence import GradientFormat, float_recurrence, floatsd8_recurrence

TIME, BATCH, UNITS = 7, 3, 5


def operands(dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        values = torch.randn(shape, generator=generator, dtype=dtype) * scale
        return values.requires_grad_()

    return (
        draw(TIME, BATCH, 4 * UNITS),
        draw(4 * UNITS, UNITS),
        draw(BATCH, UNITS),
        draw(BATCH, UNITS),
    )


def test_float_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(float_recurrence, operands())


def test_float_gradients_of_last_states_alone():
    parts, recurrent, hidden, cell = operands()

    def last(*given):
        hiddens, cells = float_recurrence(*given)
        return hiddens[-1] * cells[-1] + cells[2]

    assert torch.autograd.gradcheck(last, (parts, recurrent, hidden, cell))


def test_float_is_nn_lstm():
    lstm = nn.LSTM(4, UNITS).double()
    x = torch.randn(TIME, BATCH, 4, dtype=torch.float64)
    wanted, _ = lstm(x)
    parts = nn.functional.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
    zeros = x.new_zeros(BATCH, UNITS)
    hiddens, _ = float_recurrence(parts, lstm.weight_hh_l0, zeros, zeros)
    weights = torch.randn_like(wanted)
    torch.testing.assert_close(hiddens, wanted, rtol=1e-12, atol=1e-14)
    first = torch.autograd.grad((wanted * weights).sum(), list(lstm.parameters()))
    second = torch.autograd.grad((hiddens * weights).sum(), list(lstm.parameters()))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_rounding_goes_straight_through():
    parts, recurrent, hidden, cell = operands()

    def nearest(values):
        return torch.round(values * 8) / 8

    hiddens, _ = float_recurrence(parts, recurrent, hidden, cell, nearest)
    assert torch.equal(hiddens, nearest(hiddens))
    gradients = torch.autograd.grad(hiddens.sum(), (parts, recurrent))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    # The first step's hidden value has no rounding behind it but its own.
    exact, _ = float_recurrence(parts, recurrent, hidden, cell)
    assert torch.equal(hiddens[0], nearest(exact[0]))


class Rounded(torch.autograd.Function):
    """A rounding of the value forward and another of the gradient backward."""

    @staticmethod
    def forward(ctx, values, forward, backward):
        ctx.backward_rounding = backward
        return forward(values)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.backward_rounding(gradient), None, None


class Activated(torch.autograd.Function):
    """A function by table forward, with the real function's slope backward."""

    @staticmethod
    def forward(ctx, values, function, slope):
        ctx.save_for_backward(slope(values))
        return function(values)

    @staticmethod
    def backward(ctx, gradient):
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


def half(values: Tensor) -> Tensor:
    return values.half().float()


def same(values: Tensor) -> Tensor:
    return values


def sigmoid(values: Tensor) -> Tensor:
    q, positive = sigmoid_floatsd8(BINARY16.encode(values.numpy().astype(float)))
    part = torch.from_numpy(GATE_FORMAT.decode(q)).float()
    return torch.where(torch.from_numpy(positive) == 1, 1 - part, part)


def tanh(values: Tensor) -> Tensor:
    codes = tanh_e5m2(BINARY16.encode(values.numpy().astype(float)))
    return torch.from_numpy(HIDDEN_FORMAT.decode(codes)).float()


def e5m2(values: Tensor) -> Tensor:
    codes = HIDDEN_FORMAT.encode(values.numpy().astype(float))
    return torch.from_numpy(HIDDEN_FORMAT.decode(codes)).float()


def gradient8(values: Tensor) -> Tensor:
    """Return e5m2 of bias 24, in exact steps: frexp gives the last place."""
    _, exponent = torch.frexp(values)
    place = torch.ldexp(torch.ones_like(values), torch.clamp(exponent - 3, min=-25))
    return torch.round(values / place) * place


def slow_floatsd8(parts, recurrent, hidden, cell):
    """The FloatSD8 recurrence by PyTorch's own differentiation of one operation at a time."""

    def slope_of_sigmoid(values):
        wide = values.double()
        return (torch.sigmoid(wide) * torch.sigmoid(-wide)).float()

    def slope_of_tanh(values):
        return (1 - torch.tanh(values.double()) ** 2).float()

    hiddens = []
    for part in parts.unbind(0):
        pre = Rounded.apply(part + hidden @ recurrent.t(), half, gradient8)
        i, f, g, o = pre.split(UNITS, 1)
        i, f, o = (Activated.apply(gate, sigmoid, slope_of_sigmoid) for gate in (i, f, o))
        g = Activated.apply(g, tanh, slope_of_tanh)
        # The gradient of a cell is binary16: that of its sum, and what goes back through f.
        old = Rounded.apply(cell, same, half)
        kept = f.detach() * old
        product = half(f.detach() * cell.detach())
        kept = Rounded.apply(kept, lambda _, product=product: product, same)
        through = f * cell.detach() + i * g
        new = half(kept.detach() + i.detach() * g.detach())
        both = kept + through
        cell = Rounded.apply(both, lambda _, new=new: new, half)
        second = Activated.apply(cell, tanh, slope_of_tanh)
        wide = o * second
        hidden = Rounded.apply(
            wide, lambda values: e5m2(half(values)), lambda values: gradient8(half(values))
        )
        hiddens.append(hidden)
    return torch.stack(hiddens)


@pytest.mark.parametrize("scale", [1.0, 1 / 64, 1 / 4096])
def test_floatsd8_gradients_are_those_of_a_slow_recurrence(scale):
    generator = torch.Generator().manual_seed(1)
    weights = torch.from_numpy(
        FLOATSD8.decode(torch.randint(0, 256, (4 * UNITS, UNITS), generator=generator).numpy())
    ).float()
    weights = (weights / 2).requires_grad_()
    parts = half(torch.randn(TIME, BATCH, 4 * UNITS, generator=generator)).requires_grad_()
    hidden = torch.zeros(BATCH, UNITS)
    cell = half(torch.randn(BATCH, UNITS, generator=generator))
    above = half(torch.randn(TIME, BATCH, UNITS, generator=generator) * scale)
    fast, _ = floatsd8_recurrence(parts, weights, hidden, cell, GradientFormat())
    slow = slow_floatsd8(parts, weights, hidden, cell)
    assert torch.equal(fast, slow)
    assert torch.equal(e5m2(fast.detach()), fast.detach())
    one = torch.autograd.grad(fast, (parts, weights), above)
    other = torch.autograd.grad(slow, (parts, weights), above)
    # Sums are of short numbers, and exact in binary32 in any order; those of weights are not.
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1], other[1], rtol=1e-5, atol=1e-6 * scale)
    assert one[0].abs().sum() > 0


def test_floatsd8_gradients_overflow_to_infinity():
    parts, recurrent, hidden, cell = (
        each.detach().requires_grad_() for each in operands(torch.float32, 0.1)
    )
    hiddens, _ = floatsd8_recurrence(parts, recurrent, hidden, cell, GradientFormat())
    (gradient,) = torch.autograd.grad(hiddens, parts, torch.full_like(hiddens, 1e3))
    assert not torch.isfinite(gradient).all()


def test_it_is_golden_where_sums_are_exact():
    """With one product a gate no sum is rounded twice, and PyTorch's pass is golden's."""
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 256, (4, 40, 1), generator=generator).numpy()
    bias = torch.zeros(4, 40)
    model = FloatSD8Lstm(
        codes, torch.zeros(4, 40, 40, dtype=torch.int64).numpy(), BINARY16.encode(bias.numpy()),
        window=None,
    )  # fmt: skip
    # Magnitudes up to 2^5, so that no pre-activation leaves binary16.
    x = torch.randint(0, 80, (30, 9, 1), generator=generator).numpy()
    hidden = model.run(x)
    weights = torch.from_numpy(model.input_weight_format.decode(model.input_weights)).float()
    reals = torch.from_numpy(model.input_format.decode(x)).float().transpose(0, 1)
    parts = nn.functional.linear(reals, weights.flatten(0, 1))
    zeros = torch.zeros(30, 40)
    hiddens, _ = floatsd8_recurrence(parts, torch.zeros(160, 40), zeros, zeros, GradientFormat())
    wanted = torch.from_numpy(HIDDEN_FORMAT.decode(hidden)).float().transpose(0, 1)
    assert torch.equal(hiddens, wanted)
    assert len(wanted.unique()) > 60
