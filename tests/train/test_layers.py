"""QuantLSTM against nn.LSTM, under every scheme, and what it hands over."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fewbit.golden.network import Network, run
from fewbit.golden.systems import SYSTEMS
from fewbit.train import (
    Binary,
    Exponential,
    FixedPoint,
    Float,
    FloatSD8,
    Int8,
    PowerOfTwo,
    QuantLSTM,
    Ternary,
)
from fewbit.train.exact import exact_network
from fewbit.train.quantisers import RULES

INPUTS, HIDDEN, TIME, BATCH = 5, 6, 11, 4
LENGTHS = torch.tensor([11, 4, 7, 1])
SHAPES = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False},
]
INTEGERS = [
    Binary(),
    Binary(rule="ardakani_binary", norm="batch", sampled=True),
    Binary(rule="ott_binary", norm=None, activation_width=8),
    Ternary(),
    Ternary(scales="powers_of_two"),
    Ternary(norm="batch", activation="gemmlowp"),
    Ternary(rule="ardakani_ternary", norm="batch", sampled=True, frozen="sample"),
    Ternary(rule="ott_ternary", norm=None),
    PowerOfTwo(),
    PowerOfTwo(exponents=2, norm=None, scales="powers_of_two"),
    Exponential(),
    Exponential(exponents=3, norm=None),
    FixedPoint(),
    Int8(),
    Int8(activation="gemmlowp"),
]
ALL = [
    Float(),
    Float(norm="weight"),
    Float(norm="batch"),
    FloatSD8(),
    FloatSD8(first="real", gradient="binary32"),
    *INTEGERS,
]


def shown(scheme) -> str:
    return repr(scheme).replace(" ", "")


def made(scheme, seed=0, **shape) -> QuantLSTM:
    torch.manual_seed(seed)
    return QuantLSTM(INPUTS, HIDDEN, **shape, scheme=scheme)


def sequences(seed=1, batch_first=False):
    torch.manual_seed(seed)
    x = torch.randn(TIME, BATCH, INPUTS)
    return x.transpose(0, 1) if batch_first else x


def trained(scheme, **shape) -> QuantLSTM:
    """A layer after some steps on a nonsense loss, frozen."""
    layer = made(scheme, **shape)
    optimiser = torch.optim.Adam(layer.parameters(), 0.02)
    for step in range(3):
        output, _ = layer(sequences(step))
        optimiser.zero_grad()
        (output - 0.3).square().mean().backward()
        optimiser.step()
    layer.follow()
    layer.freeze([(sequences(step), None) for step in range(3)])
    return layer


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float_is_nn_lstm(shape):
    theirs = nn.LSTM(INPUTS, HIDDEN, **shape)
    ours = QuantLSTM(INPUTS, HIDDEN, **shape)
    assert ours.load_state_dict(theirs.state_dict()) == theirs.load_state_dict(ours.state_dict())
    x = sequences(batch_first=shape.get("batch_first", False))
    layers = shape.get("num_layers", 1) * (2 if shape.get("bidirectional") else 1)
    state = torch.randn(2, layers, BATCH, HIDDEN).unbind(0)
    for first in (None, state):
        wanted, (hidden, cell) = theirs(x, first)
        output, (own_hidden, own_cell) = ours(x, first)
        for one, other in ((output, wanted), (own_hidden, hidden), (own_cell, cell)):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        loss, own_loss = (
            given.square().sum() + last.sum()
            for given, last in ((wanted, cell), (output, own_cell))
        )
        gradients = torch.autograd.grad(loss, list(theirs.parameters()))
        own = torch.autograd.grad(own_loss, list(ours.parameters()))
        for one, other in zip(own, gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_first_parameters_are_those_of_nn_lstm():
    torch.manual_seed(3)
    theirs = nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=True)
    torch.manual_seed(3)
    ours = QuantLSTM(INPUTS, HIDDEN, 2, bidirectional=True)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_those_of_packed_sequences(bidirectional):
    theirs = nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=bidirectional)
    ours = QuantLSTM(INPUTS, HIDDEN, 2, bidirectional=bidirectional)
    ours.load_state_dict(theirs.state_dict())
    x = sequences()
    packed = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    wanted, (hidden, cell) = theirs(packed)
    wanted, _ = pad_packed_sequence(wanted)
    output, state = ours(x, lengths=LENGTHS)
    own_packed, own_state = ours(packed)
    again, lengths = pad_packed_sequence(own_packed)
    assert torch.equal(lengths, LENGTHS)
    assert torch.equal(again, output)
    assert torch.equal(own_state[0], state[0])
    for one, other in ((output, wanted), (state[0], hidden), (state[1], cell)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", ALL, ids=shown)
def test_padding_changes_nothing(scheme):
    layer = trained(scheme, num_layers=2, bidirectional=True)
    x = sequences(7)
    output, (hidden, cell) = layer(x, lengths=LENGTHS)
    other = x.clone()
    for index, length in enumerate(LENGTHS.tolist()):
        other[length:, index] = 99.0
        alone, (last, last_cell) = layer(x[:length, index : index + 1])
        torch.testing.assert_close(alone[:, 0], output[:length, index], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(last[:, 0], hidden[:, index], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(last_cell[:, 0], cell[:, index], rtol=1e-4, atol=1e-4)
        assert not output[length:, index].any()
    assert torch.equal(layer(other, lengths=LENGTHS)[0], output)


@pytest.mark.parametrize("scheme", ALL, ids=shown)
def test_a_plain_state_dict_loads_and_goes_back(scheme):
    theirs = nn.LSTM(INPUTS, HIDDEN, 2)
    layer = made(scheme, seed=5, num_layers=2)
    layer.load_state_dict(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(layer.get_parameter(name), value)
    gains = [name for name, _ in layer.named_parameters() if "gain_hh" in name]
    if getattr(scheme, "norm", None) == "weight":
        assert gains
        row = layer.get_parameter("weight_hh_l1").norm(dim=1)
        assert torch.equal(layer.get_parameter("cells.l1.gain_hh").flatten(), row)
    lacking = theirs.load_state_dict(layer.state_dict(), strict=False)
    assert not lacking.missing_keys
    assert all(name.startswith(("cells.", "signals.")) for name in lacking.unexpected_keys)
    # A whole state of the scheme's own comes back as it was.
    other = made(scheme, seed=9, num_layers=2)
    other.load_state_dict(layer.state_dict())
    assert all(
        torch.equal(value, layer.state_dict()[name]) for name, value in other.state_dict().items()
    )


@pytest.mark.parametrize(
    "scheme", [each for each in ALL if not str(getattr(each, "norm", "")).startswith("batch")],
    ids=shown,
)  # fmt: skip
def test_effective_weights_make_nn_lstm_compute_the_same(scheme):
    layer = trained(scheme)
    theirs = nn.LSTM(INPUTS, HIDDEN)
    theirs.load_state_dict(layer.effective_state_dict())
    with torch.no_grad():
        difference = (theirs(sequences())[0] - layer(sequences())[0]).abs().max()
    # FloatSD8's gates err by up to 2^-5; the others round inputs and hidden values alone.
    assert difference < (0.25 if isinstance(scheme, FloatSD8) else 0.1)
    assert difference > 0 or isinstance(scheme, Float)


@pytest.mark.parametrize("scheme", ALL, ids=shown)
def test_every_parameter_has_a_gradient(scheme):
    layer = made(scheme, num_layers=2, bidirectional=True)
    output, (_, cell) = layer(sequences(), lengths=LENGTHS)
    (output.square().sum() + cell.sum()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def codes_of(network: Network, x: torch.Tensor) -> np.ndarray:
    """The codes of sequences (time, batch, inputs), shape (batch, time, inputs)."""
    return network.nodes[0].lstm.reads.encode(x.transpose(0, 1).double().numpy())


@pytest.mark.parametrize("shape", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("scheme", INTEGERS, ids=shown)
def test_a_frozen_layer_is_golden_on_every_code(scheme, shape):
    network = trained(scheme, **shape).network()
    for node in network.nodes:
        assert type(node.lstm) is SYSTEMS[scheme.system].lstm
        assert getattr(node.lstm, "weights", scheme.system) == scheme.system
    x = codes_of(network, sequences(8) * 1.5)
    golden = run(network, x)
    ours = exact_network(network)(torch.from_numpy(x.astype(np.int64)))
    wrong = np.argwhere(ours.numpy() != golden)
    assert not len(wrong), (wrong[0], ours[tuple(wrong[0])], golden[tuple(wrong[0])])
    assert len(np.unique(golden)) > 5


@pytest.mark.parametrize("scheme", ALL, ids=shown)
def test_golden_is_near_what_was_trained(scheme):
    layer = trained(scheme, num_layers=2)
    network = layer.network()
    with torch.no_grad():
        wanted, _ = layer(sequences(8))
    golden = run(network, codes_of(network, sequences(8)))
    reals = network.nodes[-1].lstm.writes.decode(golden)
    difference = np.abs(reals - wanted.transpose(0, 1).numpy())
    # Some raws of 2^-11, with 8 bits of 2^-7; and FP8 numbers.
    width = getattr(scheme, "activation_width", 8)
    assert difference.mean() < 2.0 ** -(width - 4), difference.mean()


def test_what_has_no_circuit_says_so():
    for scheme, words in (
        (Ternary(norm="batch_per_step", steps=4), "norm=batch"),
        (Exponential(exponents=None), "exponents from 1 to 4"),
        (FixedPoint(fraction=2), "fraction=1"),
    ):
        layer = made(scheme)
        assert words in scheme.lacks_circuit
        layer(sequences())
        layer.freeze([(sequences(), None)])
        with pytest.raises(ValueError, match=words):
            layer.network()


def test_sampled_weights_differ_from_pass_to_pass_and_then_are_fixed():
    scheme = Ternary(rule="ardakani_ternary", norm="batch", sampled=True, frozen="sample")
    layer = made(scheme)
    parameters = layer.get_parameter("weight_ih_l0"), layer.get_parameter("weight_hh_l0")
    cell = layer.cells["l0"]
    assert not torch.equal(cell.weights(*parameters)[1], cell.weights(*parameters)[1])
    layer.freeze([(sequences(), None)])
    assert torch.equal(cell.weights(*parameters)[1], cell.weights(*parameters)[1])


def test_scales_trained_as_powers_of_two_are_not_rounded_again():
    layer = trained(Ternary(scales="powers_of_two"))
    lstm = layer.network().nodes[0].lstm
    for multipliers in (lstm.input_multipliers, lstm.recurrent_multipliers):
        assert set(np.unique(multipliers)) <= {0, 1 << 30}
    cell = layer.cells["l0"]
    _, scale = cell._scaled(layer.get_parameter("weight_hh_l0"), 1)
    real = lstm.recurrent_multipliers / 2.0**31 * 2.0**lstm.recurrent_shifts
    wanted = scale.abs().detach().numpy() * 2.0**-11 / 2.0**-12
    assert np.array_equal(real, wanted)


def test_zero_rows_and_gates_do_no_harm():
    for scheme in ALL:
        layer = made(scheme)
        with torch.no_grad():
            layer.get_parameter("weight_hh_l0")[: 2 * HIDDEN] = 0
        output, _ = layer(sequences())
        output.sum().backward()
        assert all(torch.isfinite(each.grad).all() for each in layer.parameters())
        layer.freeze([(sequences(), None)])
        assert layer.network().nodes[0].lstm.hidden == HIDDEN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, not 0."),
        ({"dropout": 2.0}, "dropout must be from 0 to 1, not 2.0."),
        ({"proj_size": 3}, "proj_size must be 0, as no scheme has projections, not 3."),
        (
            {"scheme": "ternary"},
            "scheme must be a scheme, such as fewbit.train.Ternary(), not 'ternary'.",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        QuantLSTM(**{"input_size": 3, "hidden_size": 4} | arguments)


def test_wrong_inputs_are_refused():
    layer = made(Float())
    for x, options, words in (
        (torch.zeros(3, 2, INPUTS + 1), {}, "input must have the shape"),
        (torch.zeros(0, 2, INPUTS), {}, "at least one sequence of one step"),
        (torch.zeros(2, 0, INPUTS), {}, "at least one sequence of one step"),
        (sequences().double(), {}, "input must be torch.float32, as the weights are, not torch.fl"),
        (sequences().long(), {}, "input must be torch.float32, as the weights are, not torch.int"),
        (sequences(), {"lengths": torch.full((4,), 1.5)}, "lengths must be whole numbers"),
        (sequences(), {"hx": (torch.zeros(1, 4, 6),)}, "hx must be hidden values and cells"),
        (sequences(), {"lengths": [1, 2]}, "lengths must be 4 numbers from 1 to 11"),
        (sequences(), {"lengths": [1, 2, 3, 12]}, "lengths must be 4 numbers"),
        (sequences(), {"hx": (torch.zeros(2, 4, 6), torch.zeros(2, 4, 6))}, "The first hidden"),
    ):
        with pytest.raises(ValueError, match=words):
            layer(x, **options)
    with pytest.raises(ValueError, match="at least one batch"):
        layer.freeze([])


@pytest.mark.parametrize("scheme", [*INTEGERS, FloatSD8()], ids=repr)
def test_schemes_need_float32(scheme):
    layer = made(scheme).double()
    with pytest.raises(ValueError, match=r"computes in torch.float32, not .*; convert the layer"):
        layer(sequences().double())


def test_device_and_type_are_those_of_pytorch():
    layer = QuantLSTM(INPUTS, HIDDEN, device="cpu", dtype=torch.float64)
    assert layer(sequences().double())[0].dtype == torch.float64


@pytest.mark.parametrize("ordered", [False, True])
def test_packed_rows_are_in_the_order_of_the_input(ordered):
    # Many sequences of one length, for which a sort that is not stable has many orders.
    torch.manual_seed(1)
    reference = nn.LSTM(INPUTS, HIDDEN, bidirectional=True)
    layer = QuantLSTM(INPUTS, HIDDEN, bidirectional=True)
    layer.load_state_dict(reference.state_dict())
    lengths = torch.randint(1, 10, (300,))
    if ordered:
        lengths = lengths.sort(descending=True).values
    packed = pack_padded_sequence(torch.randn(9, 300, INPUTS), lengths, enforce_sorted=ordered)
    (output, state), (expected, last) = layer(packed), reference(packed)
    torch.testing.assert_close(output.data, expected.data)
    torch.testing.assert_close(state, last)
    assert (output.sorted_indices is None) == (expected.sorted_indices is None)


@pytest.mark.parametrize("scheme", [Float(), FloatSD8(), Ternary(norm="batch"), Int8()], ids=repr)
def test_weights_that_are_not_finite_are_named(scheme):
    layer = made(scheme)
    layer(sequences())
    with torch.no_grad():
        layer.get_parameter("weight_hh_l0")[3, 2] = float("nan")
    for fails in (layer.follow, lambda: layer.freeze([(sequences(), None)])):
        with pytest.raises(ValueError, match="weight_hh_l0 is not finite, .* lower learning rate"):
            fails()


def test_schemes_refuse_settings_that_no_circuit_has():
    for make, words in (
        (lambda: FloatSD8(products=3), "products must be from 4 to 16, not 3."),
        (lambda: FloatSD8(window=0), "window must be from 8 to 48, not 0."),
        (lambda: FloatSD8(momentum=1.0), "momentum must be from 0 to below 1, not 1.0."),
        (lambda: FloatSD8(loss_scale=3.0), "loss_scale must be a power of two"),
        (lambda: FloatSD8(loss_scale=2.0**-128), "loss_scale must be a power of two from 2^-64"),
        (lambda: PowerOfTwo(exponents=5), "exponents must be from 1 to 4, not 5."),
        (lambda: Ternary(activation_width=8.5), "activation_width must be an integer, not 8.5."),  # type: ignore
        (lambda: Ternary(steps=10**12), "steps must be from 1 to 65536, not 1000000000000."),
        (lambda: FixedPoint(fraction=0), "integer_bits plus fraction must be an integer from 1"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            make()


def test_floatsd8_scales_widen_before_weights_saturate():
    layer = made(FloatSD8())
    weights = layer.get_parameter("weight_ih_l0"), layer.get_parameter("weight_hh_l0")
    cell = layer.cells["l0"]
    with torch.no_grad():
        for weight in weights:
            weight[3, 2] = -9.0
    fine = int(cell.weight_bias_ih), int(cell.weight_bias_hh)
    layer.eval()
    # A frozen layer keeps its scales, and saturates.
    assert cell.weights(*weights)[0][3, 2] > -1
    layer.train()
    assert [float(used[3, 2].detach()) for used in cell.weights(*weights)] == [-9.0, -9.0]
    # 2304 / 2^8 is 9: the finest scale that holds it.
    assert (int(cell.weight_bias_ih), int(cell.weight_bias_hh)) == (8, 8)
    with torch.no_grad():
        for weight in weights:
            weight[3, 2] = 0.0
    cell.weights(*weights)
    assert int(cell.weight_bias_ih) == 8
    layer.follow()
    assert (int(cell.weight_bias_ih), int(cell.weight_bias_hh)) == fine
    read_out = FloatSD8().read_out(4, 3)
    with torch.no_grad():
        read_out.weight[0, 0] = 9.0
    assert float(read_out.rounded[0, 0].detach()) == 9.0


def test_batch_norm_has_no_scales_that_are_trained_as_powers_of_two():
    with pytest.raises(ValueError, match="must be trained with norm=weight or norm=none"):
        Ternary(norm="batch", scales="powers_of_two")


def test_inputs_of_zeros_have_no_scale():
    layer = made(Ternary())
    layer.freeze([(torch.zeros(TIME, BATCH, INPUTS), None)])
    with pytest.raises(ValueError, match="all 0 and have no scale; give others"):
        layer.network()


def test_levels_and_scale_of_exponential_weights_come_from_one_sample():
    scheme = Exponential(sampled=True, norm=None)
    layer = made(scheme)
    weights = layer.get_parameter("weight_ih_l0"), layer.get_parameter("weight_hh_l0")
    with torch.no_grad():
        for weight in weights:
            # Rounded to 1, but sampled as 1 or 2.
            weight.fill_(1.4)
    rng = torch.get_rng_state()
    used = layer.cells["l0"].weights(*weights)
    torch.set_rng_state(rng)
    for weight, own in zip(weights, used, strict=True):
        gates = weight.detach().unflatten(0, (4, -1))
        exact = RULES["exponential"].levels(gates, RULES["exponential"].uniforms(gates))
        kept = exact.abs() >= exact.abs().max() / 8
        assert torch.equal(own.unflatten(0, (4, -1)), torch.where(kept, exact, 0.0))


def test_gradients_of_weights_may_have_a_format_of_their_own():
    scheme = FloatSD8(weight_gradient="binary16")
    layer = made(scheme)
    optimiser = scheme.optimiser(torch.optim.SGD(layer.parameters(), 0.1), layer, 64)
    assert (optimiser.gradient, layer.cells["l0"].gradient.kind) == ("binary16", "e5m2")
    with pytest.raises(ValueError, match="weight_gradient must be"):
        FloatSD8(weight_gradient="e4m3")  # type: ignore
