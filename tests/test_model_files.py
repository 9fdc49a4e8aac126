"""Model files: what is written comes back, and nothing else is let in."""

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fewbit.golden.files import archive
from fewbit.golden.files.archive import (
    LARGEST_FILE,
    check_names,
    explained,
    read_archive,
    take_arrays,
    write_archive,
)
from fewbit.golden.files.model import (
    Model,
    ReadOut,
    StoredArray,
    arrays_of_layer,
    layer_arrays,
    layer_from,
    load_model,
    save_model,
)
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.network import Network, Node
from tests.support.damage import damage
from tests.support.int8_cases import VARIANTS, Variant, random_case

Layer = Float64Lstm | Int8Lstm | ReadOut

REMEDY = "write the file anew with fewbit.golden.files.model.save_model."


def float_layer(seed: int = 0) -> Float64Lstm:
    rng = np.random.default_rng(seed)
    return Float64Lstm(
        rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 5)), rng.normal(size=(4, 5))
    )


def int8_layer() -> Int8Lstm:
    rng = np.random.default_rng(1)
    return Int8Lstm(
        input_weights=rng.integers(-127, 128, (4, 5, 3)).astype(np.int8),
        recurrent_weights=rng.integers(-127, 128, (4, 5, 5)).astype(np.int8),
        bias=rng.integers(-(2**31), 2**31, (4, 5)).astype(np.int32),
        input_weight_scales=rng.uniform(0.01, 0.1, 4).astype(np.float32),
        recurrent_weight_scales=rng.uniform(0.01, 0.1, 4).astype(np.float32),
        input_scale=0.1,
        input_zero_point=-12,
        hidden_scale=0.0078,
        hidden_zero_point=3,
        intermediate_scale=0.0079,
        intermediate_zero_point=-4,
        cell_exponent=-11,
        cell_clip=20480,
        activation="gemmlowp",
        rounding="single",
    )


def full_layer() -> Int8Lstm:
    """A layer with every optional field."""
    variant = Variant(False, True, True, True, True, True)
    model = random_case(5, exponent=-12, variant=variant).model
    return replace(
        model,
        peephole_ties_up=1,
        precision_threshold=300,
        precision_hold=0,
        precision_group=2,
        precision_signal="output_gate",
        low_offsets=np.full((len(model.gates), 2, model.hidden), -128, np.int8),
    )


def read_out(seed: int = 2) -> ReadOut:
    rng = np.random.default_rng(seed)
    return ReadOut(rng.normal(size=(4, 5)), rng.normal(size=4), "mean")


def assert_same(one: Layer, other: Layer | None) -> None:
    assert type(one) is type(other)
    for field in fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        assert type(first) is type(second), field.name
        np.testing.assert_array_equal(first, second, err_msg=field.name)


@pytest.mark.parametrize("layer", [float_layer(), int8_layer()], ids=["float", "int8"])
@pytest.mark.parametrize("out", [None, read_out()], ids=["bare", "read out"])
def test_what_is_saved_comes_back(
    tmp_path: Path, layer: Float64Lstm | Int8Lstm, out: ReadOut | None
) -> None:
    path = tmp_path / "model.npz"
    save_model(path, Model(layer, out))
    loaded = load_model(path)
    assert_same(loaded.lstm, layer)
    if out is None:
        assert loaded.read_out is None
    else:
        assert_same(out, loaded.read_out)
    first = path.read_bytes()
    save_model(path, loaded)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_comes_back(tmp_path: Path, variant: Variant) -> None:
    layer = random_case(5, exponent=-12, variant=variant).model
    path = tmp_path / "model.npz"
    classes = ReadOut(np.ones((2, layer.outputs)), np.ones(2))
    save_model(path, Model(layer, classes))
    loaded = load_model(path)
    assert_same(loaded.lstm, layer)
    assert_same(classes, loaded.read_out)


def test_what_a_layer_lacks_is_not_stored() -> None:
    """Files of plain layers hold what they did before there were variants."""
    optional = {field.name for field in fields(Int8Lstm) if field.name not in PLAIN_FIELDS}
    assert len(optional) == 15
    assert set(arrays_of_layer(int8_layer())) == PLAIN_FIELDS | {"kind"}
    assert set(arrays_of_layer(full_layer())) == PLAIN_FIELDS | {"kind"} | optional


PLAIN_FIELDS = {
    "input_weights",
    "recurrent_weights",
    "bias",
    "input_weight_scales",
    "recurrent_weight_scales",
    "input_scale",
    "input_zero_point",
    "hidden_scale",
    "hidden_zero_point",
    "intermediate_scale",
    "intermediate_zero_point",
    "cell_exponent",
    "cell_clip",
    "activation",
    "rounding",
}


def test_several_layers_share_a_file_by_prefixes(tmp_path: Path) -> None:
    """The parts of which files of several layers are made."""
    layers = {"a_": int8_layer(), "b_": full_layer(), "c_": float_layer()}
    path = tmp_path / "layers.npz"
    arrays: Arrays = {"layers": np.array(3, np.int32), "order": np.array("a_b_c_")}
    for prefix, layer in layers.items():
        arrays |= {prefix + name: value for name, value in arrays_of_layer(layer).items()}
    write_archive(path, arrays)

    def known(name: str) -> bool:
        return name in {"layers", "order"} or (name[:2] in layers and name[2:] in layer_arrays())

    with explained(path, "write it anew"):
        contents = read_archive(path)
        check_names(contents, known)
        header = {"layers": StoredArray(("int32",)), "order": StoredArray(("text",))}
        assert take_arrays(contents, header) == {"layers": 3, "order": "a_b_c_"}
        for prefix, layer in layers.items():
            own = {name[2:]: contents.pop(name) for name in list(contents) if name[:2] == prefix}
            assert_same(layer_from(own), layer)
            assert not own
    assert not contents
    with (
        pytest.raises(ValueError, match=f"^{path}: the file 'c_bias.npy' in .*; do this\\.$"),
        explained(path, "do this"),
    ):
        check_names(read_archive(path), lambda name: name != "c_bias")


def test_reals_are_stored_short_where_that_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    exact = float_layer().recurrent_weights.astype(np.float32)
    save_model(path, Model(replace(float_layer(), recurrent_weights=exact)))
    with np.load(path, allow_pickle=False) as stored:
        assert stored["recurrent_weights"].dtype == np.float32
        assert stored["input_weights"].dtype == np.float64


def test_read_out_takes_the_last_vector_or_the_mean() -> None:
    hidden = np.array([[[1.0, 2.0], [3.0, 5.0], [100.0, np.nan]], [[4.0, 4.0], [1.0, 1.0], [7, 1]]])
    lengths = np.array([2, 3])
    weights, bias = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0.5, 0.0])
    last = ReadOut(weights, bias, "last").scores(hidden, lengths)
    mean = ReadOut(weights, bias, "mean").scores(hidden, lengths)
    assert last.tolist() == [[3.5, 10.0], [7.5, 2.0]]
    assert mean.tolist() == [[2.5, 7.0], [4.5, 4.0]]
    every = ReadOut(weights, bias, "every").scores(hidden, lengths)
    assert every[0, :2].tolist() == [[1.5, 4.0], [3.5, 10.0]]
    assert every[1].tolist() == [[4.5, 8.0], [1.5, 2.0], [7.5, 2.0]]
    with pytest.raises(ValueError, match=r"^lengths must have the shape \(2,\) and be from 1 to 3"):
        ReadOut(weights, bias).scores(hidden, np.array([0, 3]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ReadOut(np.ones(3), np.ones(3)),
            "weights must have the shape (classes, hidden), not (3,).",
        ),
        (
            lambda: ReadOut(np.ones((2, 3)), np.ones(3)),
            "bias must have the shape (2,), not (3,).",
        ),
        (
            lambda: ReadOut(np.full((2, 3), np.inf), np.ones(2)),
            "weights must be finite, not inf.",
        ),
        (
            lambda: ReadOut(np.ones((2, 3)), np.ones(2), "max"),  # pyright: ignore
            'pooling must be "last" or "mean" or "every", not \'max\'.',
        ),
        (
            lambda: Model(float_layer(), ReadOut(np.ones((2, 3)), np.ones(2))),
            "The read-out must have 5 hidden values, as the layer has, not 3.",
        ),
    ],
)
def test_bad_read_out_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        make()
    assert str(caught.value) == message


# Writing: whole or not at all.


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.npz"
    save_model(path, Model(float_layer()))
    before = path.read_bytes()

    def fill_the_disk(stream: io.BytesIO, **_: object) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.np, "savez", fill_the_disk)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        save_model(path, Model(int8_layer()))
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); name a file in a folder that can be "
        "written."
    )
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]


def test_missing_folder_and_oversize_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"cannot be written \(No such file or directory\); name"):
        save_model(tmp_path / "none" / "model.npz", Model(float_layer()))
    monkeypatch.setattr(archive, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="a model file must hold at most 1000 bytes, not"):
        save_model(tmp_path / "model.npz", Model(float_layer()))
    assert not list(tmp_path.iterdir())


# Reading: every array of the archive is open to change.

Arrays = dict[str, npt.NDArray[Any]]


def arrays_of(model: Model, tmp_path: Path) -> Arrays:
    path = tmp_path / "good.npz"
    save_model(path, model)
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def refused(path: Path) -> str:
    """Text after the file's name of the one sentence with which a file is refused."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        load_model(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bias", None, "bias is missing"),
        ("surprise", np.ones(1), "the file 'surprise.npy' in the archive is unknown"),
        ("kind", np.array("x" * 33), "kind must be text of shape (), not <U33 of shape ()"),
        ("kind", np.array(b"int8_lstm"), "kind must be text of shape (), not |S9 of shape ()"),
        ("kind", np.array(7), "kind must be text of shape (), not <i8 of shape ()"),
        ("version", np.array(0, np.int32), "version must be at least 1, not 0"),
        (
            "input_weights",
            np.ones((4, 5, 3)),
            (
                "input_weights must be int8 of shape (gates, hidden, inputs), not float64 of "
                "shape (4, 5, 3)"
            ),
        ),
        (
            "recurrent_weights",
            np.ones((4, 5, 6), np.int8),
            ("recurrent_weights must have the shape (4, 5, 5), not (4, 5, 6)"),
        ),
        (
            "input_weights",
            np.ones((4, 0, 3), np.int8),
            "input_weights must be int8 of shape (gates, hidden, inputs), not int8 of shape (4, 0,",
        ),
        (
            "bias",
            np.ones((4, 5), ">i4"),
            (
                "bias must be int32 of shape (gates, hidden), where gates is 4 and hidden is 5, "
                "not >i4 of shape (4, 5)"
            ),
        ),
        ("input_scale", np.array(0.0, np.float32), "input_scale must be a finite binary32 number"),
        ("input_scale", np.array(np.nan, np.float32), "input_scale must be a finite binary32"),
        ("hidden_zero_point", np.array(128, np.int32), "hidden_zero_point must be from -128 to"),
        ("cell_exponent", np.array(-16, np.int32), "cell_exponent must be from -15 to -9, not -16"),
        ("cell_clip", np.array([1], np.int32), "cell_clip must be int32 of shape (), not int32 of"),
        ("activation", np.array("relu"), 'activation must be "table" or "gemmlowp", not \'relu\''),
        ("rounding", np.array("\ud800"), 'rounding must be "double" or "single", not'),
        ("read_out_bias", None, "read_out_bias is missing"),
        (
            "read_out_weights",
            np.ones((4, 6)),
            (
                "read_out_weights must be float32 or float64 of shape (classes, outputs), where "
                "outputs is 5, not float64 of shape (4, 6)"
            ),
        ),
        ("read_out_weights", np.full((4, 5), np.nan), "weights must be finite, not nan"),
        (
            "peephole_weights",
            np.ones((3, 5), np.int8),
            (
                "peephole_weights must be int16 of shape (peepholes, hidden), where hidden is 5, "
                "not int8 of shape (3, 5)"
            ),
        ),
        (
            "peephole_weights",
            np.ones((3, 5), np.int16),
            "peephole_weights and peephole_weight_scales go together, but peephole_weight_scales",
        ),
        ("projection_clip", np.array(5, np.int32), "projection_clip must be left out where there"),
    ],
)
def test_wrong_array_is_refused(
    tmp_path: Path, name: str, value: npt.NDArray[Any] | None, message: str
) -> None:
    arrays = arrays_of(Model(int8_layer(), read_out()), tmp_path)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    path = tmp_path / "model.npz"
    np.savez(path, allow_pickle=False, **arrays)
    text = refused(path)
    assert text.startswith(message)
    assert text.endswith(REMEDY)


def test_array_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    arrays = arrays_of(Model(float_layer(), read_out()), tmp_path)
    path = tmp_path / "model.npz"
    np.savez(path, allow_pickle=False, **arrays, cell_clip=np.array(1, np.int32))
    assert refused(path) == f"cell_clip does not belong to a model of kind float64_lstm; {REMEDY}"


def with_member(tmp_path: Path, name: str, content: bytes, compression: int = 0) -> Path:
    """Write an archive in which one member's bytes are `content`."""
    path = tmp_path / "model.npz"
    save_model(path, Model(int8_layer()))
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    members[name] = content
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, bytes_ in members.items():
            archive.writestr(member, bytes_)
    return path


def npy(header: bytes, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


class Mine:
    """Unpickling it would leave a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Raise from within ``pickle.load``."""
        return exec, ("raise SystemError('executed')",)


def test_pickle_is_never_opened(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([Mine()], object), allow_pickle=True)
    path = with_member(tmp_path, "bias.npy", stream.getvalue())
    assert refused(path).startswith("bias must be an array as numpy writes it")
    path.write_bytes(pickle.dumps(Mine()))
    assert refused(path).startswith("is no readable .npz archive (File is not a zip file); write")


@pytest.mark.parametrize(
    ("header", "content", "message"),
    [
        (
            b"{'descr': '<i4', 'fortran_order': False, 'shape': (4, 5), }\n",
            b"",
            "bias must hold 80",
        ),
        (
            b"{'descr': '<i4', 'fortran_order': False, 'shape': (4, 5), }\n",
            b"\0" * 81,
            "bias must hold 80 bytes, not 81;",
        ),
        (
            b"{'descr': '<i4', 'fortran_order': False, 'shape': (4, 999999999), }\n",
            b"",
            "bias must be int32 of shape (gates, hidden), where gates is 4 and hidden is 5, not",
        ),
        (b"{'descr': '<i4', 'fortran_order': False, 'shape': (4, -5), }\n", b"", "bias must be an"),
        (
            b"{'descr': '<i4', 'fortran_order': 1, 'shape': (4, 5), }\n",
            b"",
            "bias must be an array",
        ),
        (b"[" * 5000, b"", "bias must be an array as numpy writes it"),
        (b"", b"", "bias must be an array as numpy writes it"),
    ],
)
def test_crooked_header_is_refused(
    tmp_path: Path, header: bytes, content: bytes, message: str
) -> None:
    assert refused(with_member(tmp_path, "bias.npy", npy(header, content))).startswith(message)


def test_column_order_is_understood(tmp_path: Path) -> None:
    stream = io.BytesIO()
    bias = int8_layer().bias
    np.save(stream, np.asfortranarray(bias))
    assert b"'fortran_order': True" in stream.getvalue()
    loaded = load_model(with_member(tmp_path, "bias.npy", stream.getvalue()))
    assert isinstance(loaded.lstm, Int8Lstm)
    np.testing.assert_array_equal(loaded.lstm.bias, bias)


def test_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"\0" * (LARGEST_FILE + 1)
    path = with_member(tmp_path, "bias.npy", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < LARGEST_FILE // 100
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    assert refused(path).startswith(f"the arrays must unpack to at most {LARGEST_FILE} bytes, but")


def test_file_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with path.open("wb") as stream:
        stream.truncate(LARGEST_FILE + 1)
    assert refused(path).startswith(f"a model file must hold at most {LARGEST_FILE} bytes, not")


def test_archive_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    """The declared size of a member bounds what is unpacked of it."""
    path = with_member(tmp_path, "bias.npy", b"\0" * 1_000_000, zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    assert content.count((1_000_000).to_bytes(4, "little")) == 2
    path.write_bytes(
        content.replace((1_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    )
    assert "Bad CRC-32" in refused(path)


def test_twin_and_odd_packing_are_refused(tmp_path: Path) -> None:
    path = with_member(tmp_path, "bias.npy", b"")
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("bias.npy", b"")
    assert refused(path).startswith("bias must be in the archive once, not twice;")
    path = with_member(tmp_path, "bias.npy", b"", zipfile.ZIP_BZIP2)
    assert "must be stored or deflated, not packed by method 12;" in refused(path)


def test_a_name_of_64_kib_in_an_archive_is_not_quoted_whole(tmp_path: Path) -> None:
    """A local header whose name is said to be longer: the name is what follows, zeros and all."""
    path = tmp_path / "model.npz"
    save_model(path, Model(int8_layer()))
    content = bytearray(path.read_bytes())
    # Upper byte of the length of the first member's name.
    content[27] = 2
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no readable .npz archive") as error:
        load_model(path)
    assert len(str(error.value)) < len(str(path)) + 250


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"a model must be a file, not a folder or a device; {REMEDY}"
    missing = tmp_path / "none.npz"
    assert refused(missing) == "there is no such file; give the path of a model."


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "arrays"])
@pytest.mark.parametrize("layer", [int8_layer(), full_layer()], ids=["plain", "full"])
def test_damage_never_gets_through_as_anything_but_a_sentence(
    tmp_path: Path, layer: Int8Lstm, packed: bool
) -> None:
    """Bytes changed, cut or added: a model or one sentence, and no warning.

    With `packed`, the damage is to the archive, where checksums find most of it; else to one
    array before it is packed, where nothing but our own checks stands in the way.
    """
    rng = np.random.default_rng(3)
    good = tmp_path / "good.npz"
    save_model(good, Model(layer))
    content = good.read_bytes()
    with zipfile.ZipFile(good) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    refusals = 0
    for _ in range(400):
        name = str(rng.choice(list(members)))
        damaged = damage(rng, content if packed else members[name])
        path = tmp_path / "model.npz"
        if packed:
            path.write_bytes(damaged)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for member, bytes_ in members.items():
                    archive.writestr(member, bytes(damaged) if member == name else bytes_)
        try:
            load_model(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - not every file is refused
            refusals += 1
    assert refusals > 200


@pytest.mark.parametrize("network", [False, True])
def test_a_newer_file_is_refused_in_one_sentence(tmp_path: Path, network: bool) -> None:
    # Whatever else is new in it.
    name = "network_version" if network else "version"
    path = tmp_path / "newer.npz"
    np.savez(path, **{name: np.array(2, np.int32), "tensors": np.zeros((2, 2), np.float16)})
    with pytest.raises(ValueError, match="its format is version 2") as caught:
        (load_network if network else load_model)(path)
    assert str(caught.value) == (
        f"{path}: its format is version 2, and this fewbit reads versions up to 1; install a newer "
        "fewbit."
    )


@pytest.mark.parametrize("network", [False, True])
def test_a_kind_that_no_number_system_has_is_refused_in_one_sentence(
    tmp_path: Path, network: bool
) -> None:
    path = tmp_path / "foreign.npz"
    kinds = {"node0_kind": np.array("int2_lstm"), "node0_levels": np.zeros(3, np.int8)}
    head = {"network_version": np.array(1, np.int32), "outputs": np.array([0], np.int32)}
    if network:
        np.savez(path, **head, **kinds)
    else:
        np.savez(path, version=np.array(1, np.int32), kind=kinds["node0_kind"], levels=np.zeros(3))
    with pytest.raises(ValueError, match="kind must be") as caught:
        (load_network if network else load_model)(path)
    assert str(caught.value) == (
        f"{path}: its kind must be float64_lstm or int8_lstm or floatsd8_lstm or ternary_lstm, not "
        "'int2_lstm'; install or register the package of its number system, or install a newer "
        "fewbit."
    )


def test_a_network_is_not_a_model_of_one_layer(tmp_path: Path) -> None:
    path = tmp_path / "network.npz"
    save_network(path, Network((Node(float_layer()),)))
    with pytest.raises(ValueError, match="load it with fewbit.golden.files.network.load_network"):
        load_model(path)
