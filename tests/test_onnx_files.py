"""ONNX files read back and run, against the reference evaluator of the package `onnx`."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fewbit.golden.files.onnx import read_onnx
from fewbit.golden.network import NETWORK_INPUT, run

INPUTS, HIDDEN = 3, 2
X = np.random.default_rng(9).normal(size=(2, 6, INPUTS))


class Graph:
    """Nodes one after the other, with random weights in binary64 and an input ``x``."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def lstm(
        self,
        x: str,
        name: str,
        inputs: int = INPUTS,
        *,
        bias: bool = True,
        peepholes: bool = False,
        others: dict[int, str] | None = None,
        **attributes: Any,
    ) -> str:
        directions = 2 if attributes.get("direction") == "bidirectional" else 1
        shapes = {"W": (4 * HIDDEN, inputs), "R": (4 * HIDDEN, HIDDEN)}
        shapes |= {"B": (8 * HIDDEN,)} if bias else {}
        shapes |= {"P": (3 * HIDDEN,)} if peepholes else {}
        given = {
            key: self.constant(f"{name}.{key}", self.rng.normal(size=(directions, *shape)))
            for key, shape in shapes.items()
        }
        operands = [x, given["W"], given["R"], given.get("B", ""), "", "", "", given.get("P", "")]
        for place, operand in (others or {}).items():
            operands[place] = operand
        return self.add("LSTM", operands, name, hidden_size=HIDDEN, **attributes)

    def model(self, output: str) -> Any:
        kind = TensorProto.DOUBLE
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("x", kind, None)],
            [helper.make_tensor_value_info(output, kind, None)],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])


def written(tmp_path: Path, model: Any) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        read_onnx(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    return text.removeprefix(f"{path}: ")


def reference(model: Any, x: npt.NDArray[np.float64]) -> Any:
    """Output of the file, with batch and time as it has them."""
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def joined(y: npt.NDArray[np.float64], layout: int) -> npt.NDArray[np.float64]:
    """Output of an LSTM node as (batch, time, directions and units)."""
    batch_major = y if layout else y.transpose(2, 0, 1, 3)
    return batch_major.reshape(*batch_major.shape[:2], -1)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("peepholes", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_one_node_agrees_with_the_reference(
    tmp_path: Path, direction: str, layout: int, peepholes: bool, bias: bool
) -> None:
    graph = Graph()
    options: dict[str, Any] = {"direction": direction, "layout": layout}
    model = graph.model(graph.lstm("x", "y", bias=bias, peepholes=peepholes, **options))
    imported = read_onnx(written(tmp_path, model))
    expected = joined(reference(model, X if layout else X.swapaxes(0, 1)), layout)
    np.testing.assert_allclose(run(imported.network, X), expected, rtol=0, atol=1e-13)
    assert imported.network.layers == 1
    assert imported.warnings == ()


@pytest.mark.parametrize("key", ["W", "R", "B", "P"])
def test_every_weight_counts(tmp_path: Path, key: str) -> None:
    """Exchanged gates are seen: the comparison above can fail."""
    graph = Graph()
    model = graph.model(graph.lstm("x", "y", peepholes=True))
    expected = joined(reference(model, X.swapaxes(0, 1)), 0)
    for tensor in model.graph.initializer:
        if tensor.name == f"y.{key}":
            wrong = np.roll(numpy_helper.to_array(tensor), HIDDEN, axis=1)
            tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    assert np.abs(run(read_onnx(written(tmp_path, model)).network, X) - expected).max() > 1e-3


@pytest.mark.parametrize("peepholes", [False, True])
def test_coupled_forget_gate(tmp_path: Path, peepholes: bool) -> None:
    """f = 1 - i, by scalars: the reference evaluator leaves ``input_forget`` out."""
    graph = Graph()
    model = graph.model(graph.lstm("x", "y", peepholes=peepholes, input_forget=1))
    network = read_onnx(written(tmp_path, model)).network
    given = {one.name[2:]: numpy_helper.to_array(one)[0] for one in model.graph.initializer}
    w, r = given["W"], given["R"]
    b = given["B"][: 4 * HIDDEN] + given["B"][4 * HIDDEN :]
    p_i, p_o, _ = np.split(given.get("P", np.zeros(3 * HIDDEN)), 3)
    for sequence, output in zip(X, run(network, X), strict=True):
        h, c = np.zeros((2, HIDDEN))
        for x, expected in zip(sequence, output, strict=True):
            i, o, _, g = np.split(w @ x + r @ h + b, 4)
            i = 1 / (1 + np.exp(-i - p_i * c))
            c = (1 - i) * c + i * np.tanh(g)
            h = np.tanh(c) / (1 + np.exp(-o - p_o * c))
            np.testing.assert_allclose(h, expected, rtol=0, atol=1e-13)


def stack(graph: Graph, *, bidirectional: bool) -> str:
    """Three layers as exporters write them, of a batch-major input."""
    x = graph.add("Transpose", ["x"], "time_major", perm=[1, 0, 2])
    inputs = INPUTS
    for layer in range(3):
        direction = "bidirectional" if bidirectional else "forward"
        y = graph.lstm(x, f"lstm{layer}", inputs, direction=direction)
        if bidirectional:
            swapped = graph.add("Transpose", [y], f"swapped{layer}", perm=[0, 2, 1, 3])
            shape = graph.constant(f"shape{layer}", np.array([0, 0, -1]))
            x = graph.add("Reshape", [swapped, shape], f"joined{layer}")
            inputs = 2 * HIDDEN
        else:
            axes = graph.constant(f"axes{layer}", np.array([1]))
            x = graph.add("Squeeze", [y, axes], f"squeezed{layer}")
            x = graph.add("Dropout", [x], f"dropout{layer}")
            inputs = HIDDEN
    return graph.add("Transpose", [x], "y", perm=[1, 0, 2])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_stacked(tmp_path: Path, bidirectional: bool) -> None:
    graph = Graph()
    model = graph.model(stack(graph, bidirectional=bidirectional))
    network = read_onnx(written(tmp_path, model)).network
    np.testing.assert_allclose(run(network, X), reference(model, X), rtol=0, atol=1e-13)
    assert network.layers == 3
    if bidirectional:
        assert [node.sources for node in network.nodes] == [(-1,)] * 2 + [(0, 1)] * 2 + [(2, 3)] * 2
    upper = read_onnx(tmp_path / "model.onnx", lstm="1,2").network
    assert (upper.layers, upper.inputs) == (2, 2 * HIDDEN if bidirectional else HIDDEN)


def test_two_nodes_make_a_bidirectional_layer(tmp_path: Path) -> None:
    """And a third reads them beside the input."""
    graph = Graph()
    axes = graph.constant("axes", np.array([-3]))
    names = [
        graph.add("Squeeze", [graph.lstm("x", f"{way}_lstm", direction=way), axes], way)
        for way in ("reverse", "forward")
    ]
    both = graph.add("Concat", [names[1], "x", names[0]], "both", axis=-1)
    y = graph.lstm(both, "y", 2 * HIDDEN + INPUTS)
    model = graph.model(y)
    network = read_onnx(written(tmp_path, model)).network
    assert [node.sources for node in network.nodes] == [(-1,), (-1,), (1, -1, 0)]
    expected = joined(reference(model, X.swapaxes(0, 1)), 0)
    np.testing.assert_allclose(run(network, X), expected, rtol=0, atol=1e-13)
    pair = read_onnx(tmp_path / "model.onnx", lstm="0,1").network
    assert pair.outputs == (1, 0)


@pytest.mark.torch
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_export_of_pytorch(tmp_path: Path, bidirectional: bool, dynamic: bool) -> None:
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(
                3, 4, num_layers=2, bidirectional=bidirectional, batch_first=True
            )

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    module, stream = First().eval(), io.BytesIO()
    x = torch.from_numpy(X.astype(np.float32))
    with warnings.catch_warnings():
        # The exporter warns that a newer one is there; this one's graphs are the usual ones.
        warnings.simplefilter("ignore")
        axes = {"x": {0: "batch", 1: "time"}} if dynamic else None
        torch.onnx.export(module, (x,), stream, dynamo=False, input_names=["x"], dynamic_axes=axes)
    path = tmp_path / "model.onnx"
    path.write_bytes(stream.getvalue())
    imported = read_onnx(path)
    expected = module.double()(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(run(imported.network, X), expected, rtol=0, atol=1e-13)
    assert imported.warnings == ()


def test_unconnected_ask_for_a_choice(tmp_path: Path) -> None:
    graph = Graph()
    relu = graph.add("Relu", [graph.lstm("x", "first")], "relu")
    path = written(tmp_path, graph.model(graph.lstm(relu, "second", HIDDEN)))
    assert refusal(path) == (
        "2 LSTMs or groups of them are not connected: 0 'first'; 1 'second'; choose with --lstm "
        "INDEX or --lstm INDEX,INDEX."
    )
    (node,) = read_onnx(path, lstm="second").network.nodes
    assert (node.sources, node.lstm.inputs) == ((NETWORK_INPUT,), HIDDEN)


def test_sequence_lengths_are_ignored_with_a_warning(tmp_path: Path) -> None:
    graph = Graph()
    lengths = graph.constant("lengths", np.array([6, 3], np.int32))
    y = graph.lstm("x", "y", others={4: lengths})
    assert read_onnx(written(tmp_path, graph.model(y))).warnings == (
        "LSTM 0 'y': sequence_lens is ignored, every sequence runs to its end",
    )


def test_initial_states_must_be_zero(tmp_path: Path) -> None:
    for value in (0.0, 1.0):
        graph = Graph()
        ones = graph.constant("ones", np.ones(3, np.int64))
        tensor = numpy_helper.from_array(np.array([value]))
        filled = graph.add("ConstantOfShape", [ones], "filled", value=tensor)
        state = graph.add("Expand", [filled, ones], "state")
        path = written(tmp_path, graph.model(graph.lstm("x", "y", others={6: state})))
        if value == 0:
            assert read_onnx(path).network.layers == 1
        else:
            assert refusal(path) == (
                "initial_c of LSTM 0 'y' must be left out or 0; export the model without it."
            )
    graph = Graph()
    path = written(tmp_path, graph.model(graph.lstm("x", "y", others={5: "x"})))
    assert refusal(path).startswith("initial_h of LSTM 0 'y' must be left out or 0;")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"clip": 3.0},
            "LSTM 0 'y' must not clip its activations; export the model without clip.",
        ),
        (
            {"activations": ["Sigmoid", "Relu", "Tanh"]},
            ("LSTM 0 'y' must have the activations Sigmoid, Tanh, Tanh, not Sigmoid, Relu, Tanh."),
        ),
        ({"direction": "sideways"}, "LSTM 0 'y' has the unknown direction 'sideways'."),
        ({"others": {1: "x"}}, "W of LSTM 0 'y' must be an initializer or a constant, not"),
        ({"others": {1: "y.R"}}, "W of LSTM 0 'y' must have the shape"),
        ({"inputs": 4, "others": {2: "y.W"}}, "W of LSTM 0 'y' must have the shape (1, 16, 4), "),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    tmp_path: Path, attributes: dict[str, Any], message: str
) -> None:
    graph = Graph()
    path = written(tmp_path, graph.model(graph.lstm("x", "y", **attributes)))
    if attributes.get("others") == {1: "y.R"}:
        # As wide as the recurrent weights is a legal width.
        assert read_onnx(path).network.inputs == HIDDEN
    else:
        assert refusal(path).startswith(message)


def test_data_elsewhere_and_other_files_are_refused(tmp_path: Path) -> None:
    graph = Graph()
    model = graph.model(graph.lstm("x", "y"))
    (weights,) = (one for one in model.graph.initializer if one.name == "y.W")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    assert refusal(written(tmp_path, model)) == (
        "W of LSTM 0 'y' must lie in the file itself, not in another; save it as one."
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model at all")
    assert refusal(path) == "is no ONNX file, or a damaged one; export the model anew."
    path.write_bytes(b"")
    assert refusal(path) == "it has no node LSTM in its main graph."


def test_damage_never_gets_through_as_anything_but_a_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    graph = Graph()
    content = graph.model(stack(graph, bidirectional=True)).SerializeToString()
    path = tmp_path / "model.onnx"
    refused = 0
    damaged = [content[:length] for length in range(0, len(content), 97)]
    for _ in range(600):
        words = bytearray(content)
        for at in rng.integers(0, len(words), int(rng.integers(1, 9))).tolist():
            words[at] = int(rng.choice([0, 1, 127, 255, int(rng.integers(256))]))
        damaged.append(bytes(words))
    for words in damaged:
        path.write_bytes(words)
        try:
            read_onnx(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - not all are refused
            refused += 1
    assert refused > 100
