"""PyTorch's nn.LSTM out of safetensors files, against PyTorch."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save, save_file

from fewbit.golden.files.torch import read_safetensors
from fewbit.golden.network import NETWORK_INPUT, run

Tensors = dict[str, npt.NDArray[np.float32]]


def module(
    prefix: str = "", inputs: int = 3, hidden: int = 2, layers: int = 1, seed: int = 0
) -> Tensors:
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    for layer in range(layers):
        shapes = {
            "weight_ih": (4 * hidden, inputs if layer == 0 else hidden),
            "weight_hh": (4 * hidden, hidden),
            "bias_ih": (4 * hidden,),
            "bias_hh": (4 * hidden,),
        }
        for name, shape in shapes.items():
            tensors[f"{prefix}{name}_l{layer}"] = rng.normal(size=shape).astype(np.float32)
    return tensors


def written(tmp_path: Path, tensors: Tensors) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    return path


def refusal(path: Path, **options: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        read_safetensors(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith(".")
    return text.removeprefix(f"{path}: ")


@pytest.mark.torch
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"num_layers": 3},
        {"bidirectional": True},
        {"num_layers": 2, "bidirectional": True},
        {"proj_size": 2},
        {"proj_size": 3, "num_layers": 2, "bidirectional": True, "bias": False},
        {"hidden_size": 1, "input_size": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_agrees_with_pytorch(tmp_path: Path, options: dict[str, int | bool], dtype: str) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    torch.manual_seed(1)
    sizes = {"input_size": 4, "hidden_size": 5} | options
    layer = torch.nn.LSTM(**sizes, batch_first=True).to(getattr(torch, dtype))
    path = tmp_path / "model.safetensors"
    state = torch.nn.ModuleDict({"encoder": torch.nn.ModuleDict({"lstm": layer})}).state_dict()
    save_torch({**state, "head.weight": torch.zeros(3)}, path)
    network = read_safetensors(path).network
    x = np.random.default_rng(2).normal(size=(3, 6, sizes["input_size"]))
    expected = layer.to(torch.float64)(torch.from_numpy(x))[0].detach().numpy()
    # Every dtype holds exact float64 values, so only the order of sums differs.
    np.testing.assert_allclose(run(network, x), expected, rtol=0, atol=1e-13)
    assert network.layers == sizes.get("num_layers", 1)
    assert network.nodes[0].name == "encoder.lstm.l0"


@pytest.mark.torch
def test_a_wrong_gate_order_is_seen(tmp_path: Path) -> None:
    import torch

    layer = torch.nn.LSTM(3, 2, batch_first=True, dtype=torch.float64)
    tensors = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    x = np.random.default_rng(2).normal(size=(1, 6, 3))
    expected = layer(torch.from_numpy(x))[0].detach().numpy()
    good = read_safetensors(written(tmp_path, tensors)).network
    np.testing.assert_allclose(run(good, x), expected, rtol=0, atol=1e-13)
    tensors["weight_ih_l0"] = np.roll(tensors["weight_ih_l0"], 2, axis=0)
    bad = read_safetensors(written(tmp_path, tensors)).network
    assert np.abs(run(bad, x) - expected).max() > 1e-3


def test_several_modules_ask_for_a_choice(tmp_path: Path) -> None:
    tensors = module("encoder.", layers=2) | module("decoder.lstm.", seed=1)
    path = written(tmp_path, tensors)
    assert refusal(path) == (
        "it holds 2 LSTMs: 'decoder.lstm', 'encoder'; choose one with --lstm NAME."
    )
    for choice in ("encoder", "encoder."):
        network = read_safetensors(path, lstm=choice).network
        assert [node.sources for node in network.nodes] == [(NETWORK_INPUT,), (0,)]
    assert refusal(path, lstm="lstm") == (
        "no LSTM is called 'lstm'; there are 'decoder.lstm', 'encoder'."
    )


def gru() -> Tensors:
    good = module()
    return {name: tensor[: 6 if tensor.ndim else 0] for name, tensor in good.items()}


def without(name: str) -> Tensors:
    return {key: tensor for key, tensor in module(layers=2).items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": np.zeros(3, np.float32)}, "it holds no parameters of an nn.LSTM."),
        (gru(), "it holds no parameters of an nn.LSTM."),
        (without("weight_hh_l1"), "bias_hh_l1 has no weight_hh beside it."),
        (
            {**module(), "bias_ih_l0": np.zeros(3, np.float32)},
            "bias_ih_l0 must have the shape (8,), not (3,).",
        ),
        (
            {**module(), "weight_ih_l0": np.zeros((7, 3), np.float32)},
            "weight_ih_l0 must have four rows for each unit, not 7 rows.",
        ),
        (
            {**module(), "weight_ih_l0": np.zeros((12, 3), np.float32)},
            "weight_hh_l0 must have 12 rows, not 8.",
        ),
        (
            {**module(), "weight_ih_l0": np.zeros((8, 3), np.int32)},
            "weight_ih_l0 must be floating-point numbers, not I32.",
        ),
        (
            {**module(), "weight_ih_l0": np.full((8, 3), np.nan, np.float32)},
            "weight_ih_l0 must be finite, not nan.",
        ),
        (
            {**module(), "bias_ih_l0": np.full(8, 1e308), "bias_hh_l0": np.full(8, 1e308)},
            "weight_ih_l0: bias must be finite, not inf.",
        ),
        (
            {**module(), "bias_hh_l0": np.zeros((8, 1), np.float32)},
            "bias_hh_l0 must have 1 axes, not the shape (8, 1).",
        ),
        (
            {**module(), "weight_ih_l2": np.zeros((8, 3), np.float32)},
            "layer 1 of '' is missing.",
        ),
        (
            module(layers=2) | {"weight_ih_l1": np.zeros((8, 9), np.float32)},
            "Node 1 must have 2 inputs, as its sources give, not 9.",
        ),
    ],
)
def test_what_is_no_lstm_is_refused(tmp_path: Path, tensors: Tensors, message: str) -> None:
    assert refusal(written(tmp_path, tensors)) == message


def test_damage_never_gets_through_as_anything_but_a_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    content = save(module("lstm.", layers=2))
    path = tmp_path / "model.safetensors"
    refused = 0
    damaged = [content[:length] for length in range(0, len(content), 29)]
    for _ in range(600):
        words = bytearray(content)
        for at in rng.integers(0, len(words) // 2, int(rng.integers(1, 4))).tolist():
            words[at] = int(rng.integers(256))
        damaged.append(bytes(words))
    for words in damaged:
        path.write_bytes(words)
        try:
            read_safetensors(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - not all are refused
            refused += 1
    assert refused > 300
