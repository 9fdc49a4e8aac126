"""Networks of layers: order, directions, files, quantisation."""

import io
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.codecs import dequantize, quantize
from fewbit.golden.files.model import Model, save_model
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.network import NETWORK_INPUT, Network, Node, golden_backend, run, trace
from fewbit.golden.quantize.int8 import asymmetric_parameters, quantize_lstm, quantize_network


def real_layer(
    seed: int,
    inputs: int,
    hidden: int,
    *,
    coupled: bool = False,
    peepholes: bool = False,
    outputs: int | None = None,
    bias: bool = True,
) -> Float64Lstm:
    rng = np.random.default_rng(seed)
    gates = 3 if coupled else 4
    projected = None if outputs is None else rng.normal(size=(outputs, hidden)) * 0.5
    return Float64Lstm(
        rng.normal(size=(gates, hidden, inputs)) * 0.6,
        rng.normal(size=(gates, hidden, outputs or hidden)) * 0.5,
        rng.normal(size=(gates, hidden)) * 0.5,
        peephole_weights=rng.normal(size=(gates - 1, hidden)) * 0.4 if peepholes else None,
        projection_weights=projected,
        projection_bias=None if outputs is None or not bias else rng.normal(size=outputs) * 0.3,
    )


def stack(**variant: object) -> Network:
    """A bidirectional layer, then one that reads both directions and the input."""
    return Network(
        (
            Node(real_layer(1, 3, 4), name="up"),
            Node(real_layer(2, 3, 5), reverse=True, name="down"),
            Node(real_layer(3, 12, 6, **variant), (0, NETWORK_INPUT, 1), name="ä top"),  # pyright: ignore
        )
    )


X = np.random.default_rng(0).normal(0.2, 1, size=(4, 9, 3))


def test_a_network_is_its_layers_by_hand() -> None:
    network = stack()
    up = network.nodes[0].lstm.run(X)  # pyright: ignore[reportArgumentType]
    down = network.nodes[1].lstm.run(X[:, ::-1])[:, ::-1]  # pyright: ignore[reportArgumentType]
    top = network.nodes[2].lstm.run(np.concatenate([up, X, down], axis=2))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(run(network, X), top)
    for got, expected in zip(trace(network, X), (up, down, top), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert (network.inputs, network.width, network.layers) == (3, 6, 2)
    pair = Network(network.nodes[:2], (0, 1))
    np.testing.assert_array_equal(run(pair, X), np.concatenate([up, down], axis=2))
    assert (pair.width, pair.layers) == (9, 1)
    # A sequence alone gives what it gives among others.
    np.testing.assert_allclose(run(network, X[1:2]), top[1:2], rtol=0, atol=1e-14)


def test_a_backend_runs_every_layer_in_time_order_of_its_own() -> None:
    network, seen = stack(), []

    def backend(lstm: Float64Lstm, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        seen.append(x)
        return golden_backend(lstm, x)

    done: list[int] = []
    output = run(network, X, backend, lambda: done.append(1))
    np.testing.assert_array_equal(output, run(network, X))
    np.testing.assert_array_equal(seen[0], X)
    np.testing.assert_array_equal(seen[1], X[:, ::-1])
    assert seen[2].shape == (4, 9, 12)
    assert len(done) == 3


@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ((), (), "A network must have 1 to 256 nodes, not 0."),
        (
            (Node(real_layer(1, 3, 4)), Node(real_layer(1, 5, 4), (0,))),
            (),
            "Node 1 must have 4 inputs, as its sources give, not 5.",
        ),
        (
            (Node(real_layer(1, 3, 4)), Node(real_layer(1, 4, 4))),
            (),
            "Node 1 must have 3 inputs, as its sources give, not 4.",
        ),
        (
            (Node(real_layer(1, 3, 4), (0,)),),
            (),
            "The sources of node 0 must be from -1 to -1, not 0.",
        ),
        ((Node(real_layer(1, 3, 4), ()),), (), "The sources of node 0 must be 1 to 256 indices"),
        ((Node(real_layer(1, 3, 4)),), (1,), "The outputs must be from 0 to 0, not 1."),
        (
            (
                Node(real_layer(1, 3, 4)),
                Node(quantize_lstm(real_layer(1, 4, 4), [X[0, :, [0] * 4].T]), (0,)),
            ),
            (),
            "All layers of a network must be of one kind, not Float64Lstm and Int8Lstm.",
        ),
        (
            (Node(real_layer(1, 3, 4), name="x" * 201),),
            (),
            "The name of node 0 must have at most 200 characters, not 201.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    nodes: tuple[Node, ...], outputs: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        Network(nodes, outputs)
    assert str(caught.value).startswith(message)


def test_input_of_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^x must have the shape \(batch, time, 3\), not \(9, 3"):
        run(stack(), X[0])


def assert_equal(first: Network, second: Network) -> None:
    assert first.outputs == second.outputs
    assert len(first.nodes) == len(second.nodes)
    for a, b in zip(first.nodes, second.nodes, strict=True):
        assert (a.sources, a.reverse, a.name) == (b.sources, b.reverse, b.name)
        assert type(a.lstm) is type(b.lstm)
        for field in fields(a.lstm):
            np.testing.assert_array_equal(getattr(a.lstm, field.name), getattr(b.lstm, field.name))


@pytest.mark.parametrize("quantised", [False, True])
def test_a_file_gives_the_network_back(tmp_path: Path, quantised: bool) -> None:
    network = stack(coupled=True, outputs=2)
    network = quantize_network(network, X) if quantised else network
    path = tmp_path / "network.npz"
    save_network(path, network)
    assert_equal(load_network(path), network)
    assert load_network(path).quantised == quantised


def test_a_model_file_is_a_network_of_one_node(tmp_path: Path) -> None:
    layer = real_layer(1, 3, 4)
    save_model(tmp_path / "model.npz", Model(layer))
    assert_equal(load_network(tmp_path / "model.npz"), Network((Node(layer),)))


def damaged(content: bytes, member: str, replacement: bytes | None) -> bytes:
    """Archive with one member exchanged, or left out, or added."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            if name != member:
                new.writestr(name, old.read(name))
        if replacement is not None:
            new.writestr(member, replacement)
    return stream.getvalue()


def npy(array: npt.ArrayLike, dtype: type = np.int32) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(array, dtype))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("member", "replacement", "message"),
    [
        ("network_version.npy", npy(0), "network_version must be at least 1, not 0;"),
        ("outputs.npy", npy([3]), "The outputs must be from 0 to 2, not 3;"),
        ("outputs.npy", None, "outputs is missing;"),
        ("node1_sources.npy", npy([1]), "The sources of node 1 must be from -1 to 0, not 1;"),
        ("node1_reverse.npy", npy(2), "node 1: reverse must be 0 or 1, not 2;"),
        ("node2_bias.npy", None, "node 2: bias is missing;"),
        ("node2_bias.npy", npy(1), "node 2: bias must be float32 or float64 of shape"),
        ("node0_other.npy", npy(1), "the file 'node0_other' in the archive is unknown;"),
        ("node1_cell_clip.npy", npy(1), "node 1: cell_clip does not belong to such a layer;"),
        ("node4_bias.npy", npy(1), "the nodes must be numbered from 0 on, but there are 4 and"),
        ("bias.npy", npy(1), "the file 'bias' in the archive is unknown;"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, member: str, replacement: bytes | None, message: str
) -> None:
    path = tmp_path / "network.npz"
    save_network(path, stack())
    path.write_bytes(damaged(path.read_bytes(), member, replacement))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        load_network(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def worst(real: Network, quantised: Network) -> float:
    """Largest error of the output, in reals."""
    reader, writer = quantised.nodes[0].lstm, quantised.nodes[-1].lstm
    assert isinstance(reader, Int8Lstm)
    assert isinstance(writer, Int8Lstm)
    raws = run(quantised, quantize(X, reader.input_scale, reader.input_zero_point))
    reals = dequantize(raws, writer.hidden_scale, writer.hidden_zero_point)
    return float(np.abs(reals - run(real, X)).max())


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"coupled": True},
        {"peepholes": True},
        {"coupled": True, "peepholes": True},
        {"outputs": 2},
        {"outputs": 9, "coupled": True, "bias": False},
        {"outputs": 6, "peepholes": True},
    ],
    ids=str,
)
def test_a_quantised_network_follows_the_real_one(variant: dict[str, object]) -> None:
    real = stack(**variant)
    quantised = quantize_network(real, X)
    layer = quantised.nodes[2].lstm
    assert isinstance(layer, Int8Lstm)
    span = float(np.ptp(run(real, X)))
    assert worst(real, quantised) < 0.035 * max(span, 1)
    # Each variant's own weights matter: without them, or with others, the error is far larger.
    for name in ("peephole_weights", "projection_weights", "bias"):
        value = getattr(layer, name)
        if value is not None:
            wrong = replace(layer, **{name: np.roll(value, 1, axis=-1)})
            nodes = (*quantised.nodes[:2], replace(quantised.nodes[2], lstm=wrong))
            assert worst(real, Network(nodes)) > 0.05 * max(span, 1)


def test_consecutive_layers_share_their_parameters() -> None:
    real = stack(outputs=2)
    quantised = quantize_network(real, X, activation="gemmlowp", rounding="single")
    up, down, top = (node.lstm for node in quantised.nodes)
    assert isinstance(up, Int8Lstm)
    assert isinstance(down, Int8Lstm)
    assert isinstance(top, Int8Lstm)
    assert {top.activation, top.rounding} == {"gemmlowp", "single"}
    # The input stands beside the hidden values, so all three share one range.
    outputs = trace(real, X)
    every = np.concatenate([X.ravel(), outputs[0].ravel(), outputs[1].ravel()])
    shared = asymmetric_parameters(every.min(), every.max())
    for layer in (up, down):
        assert (layer.input_scale, layer.input_zero_point) == shared
        assert (layer.hidden_scale, layer.hidden_zero_point) == shared
        assert (layer.intermediate_scale, layer.intermediate_zero_point) == shared
    assert (top.input_scale, top.input_zero_point) == shared
    last = asymmetric_parameters(outputs[2].min(), outputs[2].max())
    assert (top.hidden_scale, top.hidden_zero_point) == last
    traced = real.nodes[2].lstm.trace(np.concatenate([outputs[0], X, outputs[1]], 2))  # pyright: ignore
    scale, zero_point = asymmetric_parameters(traced.product.min(), traced.product.max())
    # Negated, for the kernel subtracts it: with the usual sign, the raws would saturate.
    assert (top.intermediate_scale, top.intermediate_zero_point) == (scale, -zero_point)


def test_one_layer_is_quantised_as_alone() -> None:
    layer = real_layer(1, 3, 4, coupled=True, peepholes=True)
    alone, network = quantize_lstm(layer, X), quantize_network(Network((Node(layer),)), X)
    assert_equal(network, Network((Node(alone),)))
    assert alone.peephole_weights is not None
    scales = np.abs(layer.peephole_weights).max(axis=1) / 32767  # pyright: ignore
    np.testing.assert_array_equal(alone.peephole_weight_scales, scales.astype(np.float32))
    assert (np.abs(alone.peephole_weights).max(axis=1) == 32767).all()


def test_peepholes_beside_a_narrowing_projection_are_refused() -> None:
    layer = real_layer(1, 3, 4, peepholes=True, outputs=2)
    with pytest.raises(ValueError, match=r"^A layer with peepholes and a projection must have as"):
        quantize_lstm(layer, X)


def test_quantised_layers_are_not_quantised_again() -> None:
    quantised = quantize_network(stack(), X)
    with pytest.raises(ValueError, match=r"^Layer 'up' must be real, but is quantised already\.$"):
        quantize_network(quantised, X)


def test_int8_backend_is_the_golden_run() -> None:
    quantised = quantize_network(Network((Node(real_layer(1, 3, 4)),)), X)
    layer = quantised.nodes[0].lstm
    assert isinstance(layer, Int8Lstm)
    raws = quantize(X, layer.input_scale, layer.input_zero_point)
    np.testing.assert_array_equal(run(quantised, raws), layer.run(raws))
