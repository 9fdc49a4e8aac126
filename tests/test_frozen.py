"""Images, packers and model files as commit 4e8d448 made them: what must stay as it is.

The packers there were written by hand for each number system, so that they are a second
implementation of every layout; `frozen/README.md` says how the files came about.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewbit.golden.files.model import load_model, save_model
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.layer import image as image_module
from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.layer.int8_dynamic import DynamicInt8LstmLayerContract
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.network import run
from tests.support.layer_bench import packer_of

FROZEN = Path(__file__).with_name("frozen")
VARIANTS = json.loads((FROZEN / "variants.json").read_text())
# Names are those of that commit.
CONTRACTS = {
    contract.__name__.removesuffix("Contract"): contract
    for contract in (
        DynamicInt8LstmLayerContract,
        FloatSD8LstmLayerContract,
        Int8LstmLayerContract,
        TernaryLstmLayerContract,
    )
}
RENAMED = {"gates": "gate_order"}
PACKERS = sorted(path.stem for path in (FROZEN / "packers").glob("*.py"))
MODELS = sorted(path.stem for path in (FROZEN / "models").glob("*.npz"))


def layer_of(name):
    found = VARIANTS[name]
    parameters = {RENAMED.get(key, key): value for key, value in found["parameters"].items()}
    if parameters.get("scales") == "fixed":
        parameters["scales"] = "any"
    return CONTRACTS[found["contract"]](**parameters)


def frozen_arrays(name):
    """The arrays that an image was packed from, and the image."""
    with np.load(FROZEN / "images" / f"{name}_1.npz") as archive:
        arrays = dict(archive)
    return arrays, arrays.pop("image").tobytes()


@pytest.mark.parametrize("name", VARIANTS)
def test_images_are_those_of_old(name):
    layer = layer_of(name)
    arrays, image = frozen_arrays(name)
    assert image_module.pack(layer.plan, arrays) == image
    emitted = packer_of(layer)
    assert emitted.pack(emitted.plan, arrays) == image
    assert emitted.plan_in(image_module.program(layer.plan)) == emitted.plan
    # There and back.
    found = image_module.unpack(layer.plan, image)
    assert set(found) == set(arrays) - set(layer.plan.texts)
    for each, array in found.items():
        np.testing.assert_array_equal(array, arrays[each], each)
    assert layer.pack(layer.unpack(image)) == image


@pytest.mark.parametrize("name", PACKERS)
def test_the_packers_of_old_make_the_same_images(name):
    layer = layer_of(name)
    program: dict[str, Any] = {"__name__": "packer"}
    source = (FROZEN / "packers" / f"{name}.py").read_text()
    exec(compile(source, f"{name}.py", "exec"), program)
    for seed in range(20):
        constants = layer.unpack(layer.random_image(np.random.default_rng(seed)))
        arrays = layer.arrays_of(constants)
        assert program["pack"](arrays) == layer.pack(constants), f"seed {seed}"


def test_a_packer_that_lays_out_otherwise_is_noticed():
    layer = layer_of("int8_plain")
    arrays, image = frozen_arrays("int8_plain")
    first, *rest = layer.plan.sections
    swapped = image_module.Plan(layer.plan.fields, (*rest, first), layer.plan.texts)
    assert image_module.pack(swapped, arrays) != image


@pytest.mark.parametrize("name", MODELS)
def test_model_files_of_old_compute_the_same(name, tmp_path):
    path = FROZEN / "models" / f"{name}.npz"
    network = load_network(path)
    with np.load(FROZEN / "expected.npz") as expected:
        x, y = expected[f"{name}_x"], expected[f"{name}_y"]
    if network.quantised:
        np.testing.assert_array_equal(run(network, x), y)
    else:
        # A sum of binary64 products has the order that the processor's library gives it.
        np.testing.assert_allclose(run(network, x), y, rtol=1e-12, atol=1e-14)
    # Written again, they are the same bytes.
    again = tmp_path / "again.npz"
    if name.startswith("one_"):
        model = load_model(path)
        assert model.read_out is not None
        assert model.lstm.kind == network.nodes[0].lstm.kind
        save_model(again, model)
    else:
        save_network(again, network)
    assert again.read_bytes() == path.read_bytes()
