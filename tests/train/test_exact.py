"""The exact forward pass in PyTorch against golden, on every code of random layers of all kinds."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fewbit.golden.arithmetic import multiply_by_split_multiplier
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.ternary import TernaryLstm, levels_of
from fewbit.golden.network import NETWORK_INPUT, Network, Node, run
from fewbit.train import exact
from fewbit.train.exact import ExactLayer, ExactNetwork, exact_network
from tests.support.int8_cases import EXPONENTS, SIZES, Variant, random_case

Raws = npt.NDArray[np.int64]

KINDS = [("ternary", 1), ("binary", 1), ("pow2", 1), ("pow2", 3), ("pow2", 4), ("int12", 1)]
WIDTHS = (4, 8, 12, 16)
compared = 0
"""Number of hidden codes that were compared so far."""


def random_layer(
    seed: int,
    kind: tuple[str, int],
    width: int,
    *,
    hidden: int,
    inputs: int,
    powers: bool = False,
    wild: bool = False,
) -> TernaryLstm:
    """A layer whose full sums give gates of about 2^13; with `wild` some rows are of any size."""
    rng = np.random.default_rng(seed)
    rows = (4, hidden)
    levels = np.array(levels_of(kind[0], kind[1]))  # pyright: ignore[reportArgumentType]
    dtype = np.int16 if kind[0] == "int12" else np.int8
    largest = int(np.log2(levels[-1] + 1))
    odd = (rng.random(rows) < 1 / 4) if wild else np.zeros(rows, bool)

    def scales(operands: int) -> tuple[Raws, Raws]:
        usual = 14 - (width - 1) - largest - int(np.log2(operands)) // 2 + rng.integers(-1, 2, rows)
        shifts = np.where(odd, rng.choice([-31, -12, 0, 7, 30], rows), usual)
        multipliers = rng.integers(2**23, 2**24, rows) << 7
        corners = rng.choice([0, 128, 2**30, 2**31 - 128], rows)
        return np.where(powers, 2**30, np.where(odd, corners, multipliers)), shifts

    bias = rng.integers(-(2 ** (width - 1)), 2 ** (width - 1), rows)
    bias = np.where(odd, rng.choice([0, 1, -1, 2**30, 2**31 - 1, -(2**31)], rows), bias)
    (x_multipliers, x_shifts), (h_multipliers, h_shifts) = scales(inputs), scales(hidden)
    return TernaryLstm(
        weights=kind[0],  # pyright: ignore[reportArgumentType]
        input_weights=rng.choice(levels, (4, hidden, inputs)).astype(dtype),
        recurrent_weights=rng.choice(levels, (4, hidden, hidden)).astype(dtype),
        bias=bias.astype(np.int32),
        input_multipliers=x_multipliers,
        input_shifts=x_shifts,
        recurrent_multipliers=h_multipliers,
        recurrent_shifts=h_shifts,
        input_scale=0.01,
        activation_width=width,
        exponents=kind[1],
        cell_exponent=int(rng.integers(-15, -8)),
        cell_clip=int(rng.choice([0, 0, 1, 9000, 32767])),
        activation=["table", "gemmlowp"][seed % 2],  # pyright: ignore[reportArgumentType]
    )


def random_raws(seed: int, bounds: tuple[int, int], shape: tuple[int, ...]) -> Raws:
    rng = np.random.default_rng(seed)
    x = rng.integers(bounds[0], bounds[1] + 1, shape)
    return np.where(rng.random(shape) < 0.2, rng.choice([*bounds, 0], shape), x)


def check(lstm: Lstm, x: Raws, state: tuple[Raws, Raws] | None = None) -> Raws:
    """Assert that all hidden and cell raws agree, and show the first difference."""
    global compared  # noqa: PLW0603
    hidden, cell = state or (None, None)
    wanted = lstm.run_with_cell(x, hidden=hidden, cell=cell)
    given = [None if part is None else torch.from_numpy(part) for part in (hidden, cell)]
    found = ExactLayer(lstm).run_with_cell(torch.from_numpy(x), *given)
    for name, got, want in zip(("cell", "hidden"), found[::-1], wanted[::-1], strict=True):
        assert got.dtype == torch.int64
        assert tuple(got.shape) == want.shape
        places = np.argwhere(got.numpy() != want)
        if len(places):
            places = places[np.argsort(places[:, 1], kind="stable")]
            first = tuple(places[0].tolist())
            pytest.fail(
                f"{len(places)} of {want.size} {name} raws differ; first at (batch, time, unit) "
                f"{first}: PyTorch {got[first]}, golden {want[first]}"
            )
    compared += wanted[0].size
    return wanted[0]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_few_bit_layers(kind: tuple[str, int], width: int) -> None:
    """Both activations, scales of any kind and powers of two, rows of any size, several sizes."""
    distinct = set()
    for seed, (powers, wild) in enumerate(product((False, True), repeat=2)):
        for offset, (hidden, inputs) in enumerate([(1, 1), (7, 5), (32, 17)]):
            number = 100 * seed + 10 * offset + width
            lstm = random_layer(
                number, kind, width, hidden=hidden, inputs=inputs, powers=powers, wild=wild
            )
            x = random_raws(number, lstm.activation_bounds, (3, 12, inputs))
            distinct |= set(np.unique(check(lstm, x)).tolist())
    assert len(distinct) > min(2**width // 3, 200), "the layers hardly move"


@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize("sizes", [name for name in SIZES if name != "flat"])
@pytest.mark.parametrize("extreme", [False, True])
def test_int8_layers(rounding: Any, sizes: str, extreme: bool) -> None:
    """Every cell exponent, with and without an input gate and a limit, both activations."""
    for exponent, coupled in product(EXPONENTS, (False, True)):
        case = random_case(
            exponent + 100,
            exponent=exponent,
            sizes=sizes,
            clip=0.7 * (exponent % 2),
            extreme=extreme,
            variant=Variant(coupled=coupled),
        )
        lstm = replace(
            case.model, rounding=rounding, activation=("table", "gemmlowp")[exponent % 2]
        )
        check(lstm, case.x.astype(np.int64))


def test_states_are_read() -> None:
    lstm = random_layer(5, ("ternary", 1), 12, hidden=9, inputs=4)
    x = random_raws(1, lstm.activation_bounds, (2, 6, 4))
    state = (
        random_raws(2, lstm.activation_bounds, (2, 9)),
        random_raws(3, (-(2**15), 2**15 - 1), (2, 9)),
    )
    assert (check(lstm, x, state) != check(lstm, x)).any()
    whole = ExactLayer(lstm).run_with_cell(torch.from_numpy(x))
    start = [part[:, 2] for part in whole]
    assert torch.equal(ExactLayer(lstm)(torch.from_numpy(x[:, 3:]), *start), whole[0][:, 3:])


def test_sums_of_both_kinds_of_float() -> None:
    """Rows below 2^24 in float32, above it in float64; and float64 where float32 is not exact."""
    short = random_layer(1, ("ternary", 1), 12, hidden=64, inputs=40)
    long = random_layer(2, ("pow2", 4), 16, hidden=128, inputs=300)
    for lstm, kind in ((short, torch.float32), (long, torch.float64)):
        assert ExactLayer(lstm)._input.dtype == kind  # pyright: ignore[reportPrivateUsage]
        check(lstm, random_raws(3, lstm.activation_bounds, (4, 8, lstm.inputs)))
    torch.set_float32_matmul_precision("medium")
    try:
        assert ExactLayer(short)._input.dtype == torch.float64  # pyright: ignore[reportPrivateUsage]
        check(short, random_raws(4, short.activation_bounds, (4, 8, short.inputs)))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_long_sequences_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The input part of a long sequence is computed in blocks of time steps."""
    lstm = random_layer(8, ("binary", 1), 8, hidden=16, inputs=6)
    x = random_raws(8, lstm.activation_bounds, (2, 11, 6))
    for block in (1, 300, 1 << 20):
        monkeypatch.setattr("fewbit.train.exact._BLOCK", block)
        check(lstm, x)


def test_a_usual_size_and_the_number_of_codes() -> None:
    """A hundred thousand codes of one layer of each number system; no difference is left."""
    before = compared
    lstm = random_layer(3, ("ternary", 1), 12, hidden=128, inputs=83)
    check(lstm, random_raws(9, lstm.activation_bounds, (16, 50, 83)))
    check(int8_layer(128, 83), random_raws(9, (-128, 127), (16, 50, 83)))
    assert compared - before >= 200_000


def int8_layer(hidden: int, inputs: int) -> Int8Lstm:
    rng = np.random.default_rng(4)
    return Int8Lstm(
        input_weights=rng.integers(-127, 128, (4, hidden, inputs)).astype(np.int8),
        recurrent_weights=rng.integers(-127, 128, (4, hidden, hidden)).astype(np.int8),
        bias=rng.integers(-30_000, 30_000, (4, hidden)).astype(np.int32),
        input_weight_scales=np.full(4, 0.004, np.float32),
        recurrent_weight_scales=np.full(4, 0.003, np.float32),
        input_scale=0.02,
        input_zero_point=3,
        hidden_scale=1 / 128,
        hidden_zero_point=-2,
        intermediate_scale=1 / 128,
        intermediate_zero_point=-2,
        cell_exponent=-11,
    )


def test_networks() -> None:
    """Two layers of two directions each, then one that reads the input beside them."""
    layers = [
        random_layer(20 + index, ("ternary", 1), 12, hidden=6, inputs=inputs)
        for index, inputs in enumerate((5, 5, 12, 12, 17))
    ]
    hidden_scale = layers[0].hidden_scale
    same = [replace(lstm, input_scale=hidden_scale) for lstm in layers]
    network = Network(
        (
            Node(same[0]),
            Node(same[1], reverse=True),
            Node(same[2], (0, 1)),
            Node(same[3], (1, 0), reverse=True),
            Node(same[4], (3, NETWORK_INPUT, 2)),
        ),
        (4, 2),
    )
    x = random_raws(6, same[0].activation_bounds, (4, 9, 5))
    found = exact_network(network)(torch.from_numpy(x))
    np.testing.assert_array_equal(found.numpy(), run(network, x))


def test_errors() -> None:
    lstm = random_layer(1, ("ternary", 1), 8, hidden=3, inputs=2)
    layer = ExactLayer(lstm)
    with pytest.raises(ValueError, match=r"of shape \(batch, time, 2\), not torch\.float32"):
        layer(torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match=r"raws must be integers of shape .* shape \(1, 2, 3\)\."):
        layer(torch.zeros(1, 2, 3, dtype=torch.int16))
    with pytest.raises(ValueError, match="raws must be from -128 to 127, not 0 to 128"):
        layer(torch.tensor([[[0, 128]]]))
    with pytest.raises(ValueError, match=r"cell must be integers of shape \(1, 3\), not"):
        layer(torch.zeros(1, 1, 2, dtype=torch.int64), cell=torch.zeros(2, 3, dtype=torch.int64))
    for variant in ("peephole", "norm", "projection"):
        case = random_case(1, exponent=-11, variant=Variant(**{variant: True}))
        with pytest.raises(ValueError, match=rf"without .*{variant}s?; run this one in golden"):
            ExactLayer(case.model)
    real = Float64Lstm(
        input_weights=np.zeros((4, 2, 3)),
        recurrent_weights=np.zeros((4, 2, 2)),
        bias=np.zeros((4, 2)),
    )
    with pytest.raises(ValueError, match="runs few-bit and int8 layers, not"):
        ExactNetwork(Network((Node(real),)))


def test_requantisation_of_every_shift() -> None:
    """The int64 requantisation alone, on the corners of its operands."""
    rng = np.random.default_rng(0)
    raws = np.concatenate(
        [rng.integers(-(2**31), 2**31, 200), [0, 1, -1, 2**31 - 1, -(2**31), 2**30, -(2**30)]]
    )
    factors = np.concatenate([rng.integers(0, 2**31, 20), [0, 1, 2**30, 2**31 - 1, 2**31 - 128]])
    operands = np.meshgrid(raws, factors, np.arange(-31, 31), indexing="ij")
    given = [torch.from_numpy(each) for each in operands]
    for rounding in ("double", "single"):
        wanted = multiply_by_split_multiplier(*operands, rounding)
        found = exact._multiply(given[0], given[1], given[2], rounding)
        np.testing.assert_array_equal(found.numpy(), wanted)


def test_sums_that_are_too_long_for_float64() -> None:
    """Rows whose product has 54 bits, the last of which decides both roundings.

    A product of k 2^24 + 2^23 - 1 is just below a tie, which float64 takes for one; and k + 1 is a
    tie of the second rounding, by 16 places.
    """
    rows: list[tuple[int, int]] = []
    for factor in range(2**24 - 1, 2**23, -2):
        low = (2**15 - 1) * 2**24 + 2**23 - 1
        high = -low * pow(2**40, -1, factor) % factor
        start, rest = divmod(high * 2**40 + low, factor)
        assert rest == 0
        if 2**30 <= start < 2**31:
            rows.append((start, factor * 128))
        if len(rows) == 4:
            break
    starts, multipliers = np.array(rows).T
    lstm = random_layer(1, ("ternary", 1), 12, hidden=4, inputs=1)
    lstm = replace(
        lstm,
        bias=np.tile(starts, (4, 1)),
        input_multipliers=np.tile(multipliers, (4, 1)),
        input_shifts=np.full((4, 4), -16),
    )
    zeros = torch.zeros(1, 1, dtype=torch.float64)
    found = ExactLayer(lstm)._input.words(zeros).view(4, 4)  # pyright: ignore[reportPrivateUsage]
    wanted = multiply_by_split_multiplier(lstm.bias, lstm.input_multipliers, lstm.input_shifts)
    np.testing.assert_array_equal(found.numpy(), wanted)
    check(lstm, np.zeros((1, 2, 1), np.int64))
