"""The golden training step against PyTorch: autograd in float64, and the cheap pass of training.

``python -m tests.train.test_floatsd8_step`` prints the figures of docs/floatsd8_training.md.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from examples.japanese_vowels import recognise
from examples.training_step import Problem, problem_of
from fewbit.golden.activation.floatsd8 import ACCUMULATOR_FORMAT, HIDDEN_FORMAT
from fewbit.golden.formats import BINARY16, FLOATSD8, FloatSD8, Minifloat
from fewbit.golden.training import floatsd8_step
from fewbit.golden.training.factors import hidden_factor, input_factor
from fewbit.golden.training.floatsd8_step import TrainingStep, training_step
from fewbit.golden.training.masters import LayerArrays
from fewbit.golden.training.options import ACCUMULATIONS, Accumulation, TrainingOptions
from fewbit.train.recurrence import GradientFormat, floatsd8_recurrence

GRADIENT = Minifloat(5, 2, 24)
SIZES = [
    {"inputs": 5, "hidden": 8, "batch": 4, "steps": 8, "seed": 2},
    {"inputs": 16, "hidden": 32, "batch": 8, "steps": 16, "seed": 1},
]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of pre-activations, weights and biases, times the loss scale."""

    pre: np.ndarray
    input_weights: np.ndarray
    recurrent_weights: np.ndarray
    bias: np.ndarray

    def errors(self, other: "Gradients") -> list[float]:
        """Rms of the difference over rms of the other, tensor by tensor."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return [float(np.sqrt(((a - b) ** 2).sum() / (b**2).sum())) for a, b in pairs]

    def cosines(self, other: "Gradients") -> list[float]:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return [float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())) for a, b in pairs]


def of_golden(step: TrainingStep) -> Gradients:
    sums = (BINARY16.decode(array) for array in step.sums.arrays)
    return Gradients(GRADIENT.decode(step.pre_activation_gradients), *sums)


def tensors(problem: Problem, kind: torch.dtype) -> list[torch.Tensor]:
    """Real input, input weights, recurrent weights and biases of the quantised layer."""
    layer = problem.layer
    reals = (
        layer.input_format.decode(problem.x),
        layer.input_weight_format.decode(layer.input_weights),
        layer.recurrent_weight_format.decode(layer.recurrent_weights),
        ACCUMULATOR_FORMAT.decode(layer.bias),
    )
    return [torch.tensor(array, dtype=kind) for array in reals]


def by_autograd(problem: Problem, above: np.ndarray) -> Gradients:
    """Gradients of the real LSTM with the same weights: no rounding forwards or backwards."""
    x, *weights = tensors(problem, torch.float64)
    input_weights, recurrent_weights, bias = (each.requires_grad_() for each in weights)
    batch, steps, _ = x.shape
    hidden, cell = torch.zeros(2, batch, problem.layer.hidden, dtype=torch.float64)
    pres, hiddens = [], []
    for t in range(steps):
        pre = (
            torch.einsum("guk,bk->bgu", input_weights, x[:, t])
            + torch.einsum("guk,bk->bgu", recurrent_weights, hidden)
            + bias
        )
        pre.retain_grad()
        i, f, g, o = pre.unbind(1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        pres.append(pre)
        hiddens.append(hidden)
    torch.stack(hiddens, dim=1).backward(torch.tensor(above))
    grads = [torch.stack([pre.grad for pre in pres], dim=1)]
    grads += [each.grad for each in (input_weights, recurrent_weights, bias)]
    return Gradients(*(grad.numpy() for grad in grads))


def by_cheap_pass(problem: Problem, above: np.ndarray) -> tuple[Gradients, np.ndarray]:
    """Gradients and hidden values of PyTorch's pass, which rounds a row's sum once."""
    x, input_weights, recurrent_weights, bias = tensors(problem, torch.float32)
    batch, steps, _ = x.shape
    units = problem.layer.hidden
    parts = torch.einsum("guk,btk->tbgu", input_weights, x) + bias
    parts = parts.reshape(steps, batch, 4 * units).requires_grad_()
    recurrent = recurrent_weights.reshape(4 * units, units).requires_grad_()
    zero = torch.zeros(batch, units)
    hidden, _ = floatsd8_recurrence(parts, recurrent, zero, zero, GradientFormat())
    hidden.backward(torch.tensor(above, dtype=torch.float32).transpose(0, 1))
    pre = parts.grad.reshape(steps, batch, 4, units).transpose(0, 1)
    grads = (
        pre,
        torch.einsum("btgu,btk->guk", pre, x),
        recurrent.grad.reshape(4, units, units),
        pre.sum(dim=(0, 1)),
    )
    return Gradients(*(grad.double().numpy() for grad in grads)), hidden.detach().numpy()


@pytest.fixture(params=SIZES, ids=lambda sizes: f"hidden={sizes['hidden']}")
def solved(request) -> tuple[Problem, np.ndarray, TrainingStep]:
    problem = problem_of(**request.param)
    above = problem.gradient_of_hidden(problem.layer.run(problem.x))
    step = training_step(problem.layer, problem.masters, problem.x, above, problem.options)
    return problem, BINARY16.decode(above), step


def test_gradients_are_near_those_of_autograd(solved) -> None:
    """Forward and backward rounding together: a tenth in size, six degrees in direction."""
    problem, above, step = solved
    expected = by_autograd(problem, above)
    got = of_golden(step)
    assert not step.overflow
    assert max(got.errors(expected)) < 0.13, got.errors(expected)
    assert min(got.cosines(expected)) > 0.992, got.cosines(expected)


@pytest.mark.parametrize("name", ["tanh_slope", "sigmoid_slope", "cell_factor"])
def test_a_wrong_factor_breaks_the_bound(monkeypatch, name) -> None:
    """The slope of tanh of 1, that of a sigmoid of 1/8, an old cell of 1."""
    problem = problem_of(**SIZES[1])
    reals = {"tanh_slope": FLOATSD8, "sigmoid_slope": FloatSD8(12), "cell_factor": FloatSD8(7)}
    constant = int(reals[name].encode(0.125 if name == "sigmoid_slope" else 1.0))
    monkeypatch.setattr(
        floatsd8_step, name, lambda codes, *_: np.full(codes.shape, constant, np.int64)
    )
    above = problem.gradient_of_hidden(problem.layer.run(problem.x))
    step = training_step(problem.layer, problem.masters, problem.x, above, problem.options)
    errors = of_golden(step).errors(by_autograd(problem, BINARY16.decode(above)))
    assert max(errors) > 0.16, errors


def test_the_cheap_pass_is_near(solved) -> None:
    problem, above, step = solved
    cheap, hidden = by_cheap_pass(problem, above)
    got = of_golden(step)
    assert (HIDDEN_FORMAT.decode(step.hidden).swapaxes(0, 1) == hidden).mean() > 0.85
    assert max(got.errors(cheap)) < 0.13, got.errors(cheap)
    assert min(got.cosines(cheap)) > 0.992, got.cosines(cheap)


def test_both_see_the_same_overflow() -> None:
    problem = problem_of(**SIZES[0])
    zero = np.zeros((4, 8, 8))
    for size, overflows in ((119.9, False), (120.0, True)):
        above = zero.copy()
        above[0, -1, 0] = size
        step = training_step(
            problem.layer, problem.masters, problem.x, BINARY16.encode(above), problem.options
        )
        cheap, _ = by_cheap_pass(problem, above)
        assert step.overflow == overflows
        assert np.isfinite(cheap.pre).all() != overflows


# The figures of the manual.


def speakers() -> tuple[str, Problem, np.ndarray]:
    """A trained layer on recordings, with the gradient of the cross entropy of every frame."""
    frames, count = 14, 32
    model, real = recognise.floatsd8_model(), recognise.load_float_model()
    _, test = recognise.load_recordings()
    chosen = np.flatnonzero(test.lengths >= frames)[:count]
    x = recognise.quantized_input(model, test)[chosen][:, :frames]
    layer = model.lstm
    logits = HIDDEN_FORMAT.decode(layer.run(x)) @ real.read_out.weights.T + real.read_out.bias
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    errors = shares - np.eye(shares.shape[-1])[test.speakers[chosen]][:, np.newaxis]
    above = errors @ real.read_out.weights * (1024 / (frames * count))
    masters = LayerArrays.of_layer(layer)
    problem = Problem(layer, masters, x, np.zeros(above.shape), TrainingOptions())
    return "speakers, trained, batch 32, 14 frames", problem, BINARY16.encode(above)


def problems():
    for sizes in (SIZES[1], {"inputs": 16, "hidden": 128, "batch": 16, "steps": 32, "seed": 1}):
        problem = problem_of(**sizes)
        above = problem.gradient_of_hidden(problem.layer.run(problem.x))
        yield ", ".join(f"{name} {size}" for name, size in sizes.items()), problem, above
    yield speakers()


def main() -> None:
    for title, problem, above in problems():
        step = training_step(problem.layer, problem.masters, problem.x, above, problem.options)
        reals = BINARY16.decode(above)
        golden, exact = of_golden(step), by_autograd(problem, reals)
        cheap, hidden = by_cheap_pass(problem, reals)
        print(title)
        for name, got, other in (
            ("golden, against float64", golden, exact),
            ("cheap, against float64", cheap, exact),
            ("golden, against cheap", golden, cheap),
        ):
            errors = ", ".join(f"{error:.1%}" for error in got.errors(other))
            cosines = ", ".join(f"{cosine:.4f}" for cosine in got.cosines(other))
            print(f"  {name}: error {errors}; cosine {cosines}")
        same = (HIDDEN_FORMAT.decode(step.hidden).swapaxes(0, 1) == hidden).mean()
        print(f"  equal: {same:.1%} of hidden values, {(cheap.pre == golden.pre).mean():.1%} of d")
    problem = problem_of(inputs=8, hidden=16, batch=64, steps=99, seed=1)
    for accumulation in ACCUMULATIONS:
        for window in (12, None):
            errors = ", ".join(f"{each:.2%}" for each in lost(problem, accumulation, window))
            print(f"accumulation {accumulation}, window {window}: {errors}")


def lost(problem: Problem, accumulation: Accumulation, window: int | None) -> list[float]:
    """Error of the accumulated weights' gradients against exact sums of the same products."""
    layer = replace(problem.layer, window=window)
    step = training_step(
        layer,
        problem.masters,
        problem.x,
        problem.gradient_of_hidden,
        replace(problem.options, accumulation=accumulation),
    )
    d = GRADIENT.decode(step.pre_activation_gradients)
    x = FloatSD8(8).decode(input_factor(problem.x, layer.input_bias, 8))
    old = np.zeros_like(step.hidden)
    old[:, 1:] = step.hidden[:, :-1]
    hidden = FLOATSD8.decode(hidden_factor(old))
    exact = Gradients(
        d,
        np.einsum("btgu,btk->guk", d, x),
        np.einsum("btgu,btk->guk", d, hidden),
        d.sum(axis=(0, 1)),
    )
    return of_golden(step).errors(exact)[1:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
