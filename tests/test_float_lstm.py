"""The LSTM in double precision, against scalar arithmetic and against PyTorch."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.lstm.float64 import Float64Lstm

SIZES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 12, 32, 6), (1, 5, 17, 4)]


def random_layer(rng: np.random.Generator, inputs: int, hidden: int) -> Float64Lstm:
    return Float64Lstm(
        rng.normal(size=(4, hidden, inputs)),
        rng.normal(size=(4, hidden, hidden)),
        rng.normal(size=(4, hidden)),
    )


def by_scalars(model: Float64Lstm, sequence: npt.NDArray[np.float64]) -> list[list[float]]:
    """One sequence, one number at a time, sums by ``math.fsum``."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    w, r, b = model.input_weights.tolist(), model.recurrent_weights.tolist(), model.bias.tolist()
    hidden = [0.0] * model.hidden
    cell = [0.0] * model.hidden
    result: list[list[float]] = []
    for x in sequence.tolist():
        new: list[float] = []
        for unit in range(model.hidden):
            i, f, g, o = (
                math.fsum(
                    [
                        b[gate][unit],
                        *(a * c for a, c in zip(w[gate][unit], x, strict=True)),
                        *(a * c for a, c in zip(r[gate][unit], hidden, strict=True)),
                    ]
                )
                for gate in range(4)
            )
            cell[unit] = sigmoid(f) * cell[unit] + sigmoid(i) * math.tanh(g)
            new.append(sigmoid(o) * math.tanh(cell[unit]))
        hidden = new
        result.append(hidden)
    return result


@pytest.mark.parametrize(("batch", "inputs", "hidden", "time"), SIZES)
def test_agrees_with_scalar_arithmetic(batch: int, inputs: int, hidden: int, time: int) -> None:
    rng = np.random.default_rng(hidden)
    model = random_layer(rng, inputs, hidden)
    x = rng.normal(size=(batch, time, inputs))
    expected = [by_scalars(model, sequence) for sequence in x]
    np.testing.assert_allclose(model.run(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("gate", range(4))
def test_every_gate_counts(gate: int) -> None:
    """Exchanging a gate for its neighbour is seen: the comparison above can fail."""
    rng = np.random.default_rng(7)
    model = random_layer(rng, 3, 5)
    x = rng.normal(size=(1, 4, 3))
    order = [0, 1, 2, 3]
    order[gate], order[gate - 1] = order[gate - 1], order[gate]
    wrong = Float64Lstm(
        model.input_weights[order], model.recurrent_weights[order], model.bias[order]
    )
    assert np.abs(wrong.run(x) - by_scalars(model, x[0])).max() > 1e-3


@pytest.mark.torch
@pytest.mark.parametrize(("batch", "inputs", "hidden", "time"), SIZES)
def test_agrees_with_pytorch(batch: int, inputs: int, hidden: int, time: int) -> None:
    import torch

    rng = np.random.default_rng(hidden + 100)
    model = random_layer(rng, inputs, hidden)
    x = rng.normal(size=(batch, time, inputs))
    second = rng.normal(size=4 * hidden)
    layer = torch.nn.LSTM(inputs, hidden, batch_first=True, dtype=torch.float64)
    layer.load_state_dict(
        {
            "weight_ih_l0": torch.from_numpy(model.input_weights.reshape(-1, inputs).copy()),
            "weight_hh_l0": torch.from_numpy(model.recurrent_weights.reshape(-1, hidden).copy()),
            "bias_ih_l0": torch.from_numpy(model.bias.ravel() - second),
            "bias_hh_l0": torch.from_numpy(second),
        }
    )
    with torch.no_grad():
        expected, (_, last_cell) = layer(torch.from_numpy(x))
    hiddens, cells = model.run_with_cell(x)
    np.testing.assert_allclose(hiddens, expected.numpy(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(cells[:, -1], last_cell.numpy()[0], rtol=0, atol=1e-13)


def test_state_lasts_and_padding_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    model = random_layer(rng, 4, 6)
    x = rng.normal(size=(3, 9, 4))
    hiddens, cells = model.run_with_cell(x)
    first_hiddens, first_cells = model.run_with_cell(x[:, :5])
    rest = model.run(x[:, 5:], hidden=first_hiddens[:, -1], cell=first_cells[:, -1])
    np.testing.assert_array_equal(first_hiddens, hiddens[:, :5])
    np.testing.assert_array_equal(first_cells, cells[:, :5])
    np.testing.assert_array_equal(rest, hiddens[:, 5:])


@pytest.mark.parametrize(("sign", "expected"), [(1, math.tanh(1)), (-1, 0.0)])
def test_far_from_zero_gates_are_open_or_shut(sign: int, expected: float) -> None:
    """Without an overflow, which is a warning and so an error here."""
    model = Float64Lstm(np.full((4, 1, 1), 1e6), np.zeros((4, 1, 1)), np.zeros((4, 1)))
    hidden, cell = model.step([[sign * 1e3]], [[0.0]], [[0.0]])
    assert hidden[0, 0] == expected
    assert cell[0, 0] == max(sign, 0)


def test_arrays_are_copied_and_frozen() -> None:
    weights = np.ones((4, 2, 3), np.float32)
    model = Float64Lstm(weights, np.ones((4, 2, 2)), np.ones((4, 2)))  # pyright: ignore[reportArgumentType]
    weights[:] = 7
    assert (model.input_weights == 1).all()
    assert model.input_weights.dtype == np.float64
    assert (model.inputs, model.hidden) == (3, 2)
    with pytest.raises(ValueError, match="read-only"):
        model.bias[0, 0] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"input_weights": np.ones((2, 2, 3))},
            (
                "input_weights must have the shape (4, hidden, inputs) for the gates i, f, g, o, "
                "or (3, hidden, inputs) for f, g, o, not (2, 2, 3)."
            ),
        ),
        (
            {"recurrent_weights": np.ones((4, 2, 3))},
            "recurrent_weights must have the shape (4, 2, 2), not (4, 2, 3).",
        ),
        ({"bias": np.ones(2)}, "bias must have the shape (4, 2), not (2,)."),
        ({"bias": np.full((4, 2), np.nan)}, "bias must be finite, not nan."),
        ({"bias": np.full((4, 2), "a")}, "bias must be real numbers, not <U1."),
    ],
)
def test_bad_layer_is_refused(change: dict[str, npt.NDArray[np.float64]], message: str) -> None:
    good = {
        "input_weights": np.ones((4, 2, 3)),
        "recurrent_weights": np.ones((4, 2, 2)),
        "bias": np.ones((4, 2)),
    }
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        Float64Lstm(**(good | change))
    assert str(caught.value) == message


def test_bad_input_is_refused() -> None:
    model = random_layer(np.random.default_rng(2), 3, 2)
    with pytest.raises(
        ValueError, match=r"^x must have the shape \(any, any, 3\), not \(5, 3\)\.$"
    ):
        model.run(np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"^hidden must have the shape \(5, 2\), not \(1, 2\)\.$"):
        model.run(np.zeros((5, 1, 3)), hidden=np.zeros((1, 2)))
