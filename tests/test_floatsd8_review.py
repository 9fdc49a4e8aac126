"""What a critical user of the FloatSD8 designs found: mistakes that must end in one sentence."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewbit.golden.files.model import Model, load_model, save_model
from fewbit.golden.layer.floatsd8 import FloatSD8LstmLayerContract, random_model
from fewbit.golden.layer.image import program as program_of
from tests.support.commands import run

GATES = Path(__file__).parents[1] / "fewbit" / "gates.lib"
LAYER = FloatSD8LstmLayerContract(inputs=3, hidden=2)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.npz"
    save_model(path, Model(random_model(LAYER, np.random.default_rng(1))))
    return path


def test_a_missing_compiler_is_told_in_a_sentence(model, tmp_path, capsys, monkeypatch):
    x = tmp_path / "x.npy"
    np.save(x, np.zeros((1, 1, 3), np.uint8))
    monkeypatch.setenv("PATH", str(tmp_path))
    output = tmp_path / "y.npy"
    status, _, error = run(
        capsys, "run", model, "--input", x, "--output", output, "--backend", "rtl"
    )
    assert status == 2
    assert error.startswith("Bulk simulation needs the C++ compiler g++, missing here")
    assert error.count("\n") == 1
    assert not output.exists()


def test_a_name_of_64_kib_in_an_archive_is_not_quoted_whole(model):
    """A local header whose name is said to be longer: the name is what follows, zeros and all."""
    content = bytearray(model.read_bytes())
    # Upper byte of the length of the first member's name.
    content[27] = 2
    model.write_bytes(content)
    with pytest.raises(ValueError, match="is no readable .npz archive") as refused:
        load_model(model)
    assert len(str(refused.value)) < len(str(model)) + 250


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--mapping", "speed"), "Mapping must be one of area, delay, not 'speed'."),
        (
            ("--mapping", "delay", "--target", "ice40"),
            "Target ice40 is mapped for area only; leave --mapping out.",
        ),
    ],
)
def test_a_mapping_that_is_none_is_refused(capsys, words, expected):
    status, _, error = run(capsys, "synth", "floatsd8_decode", *words)
    assert (status, error) == (2, f"{expected}\n")


def _damaged(content):
    """Files that are no constants, by what they are."""
    broken = bytearray(content)
    broken[300] ^= 255
    return {
        "cut": content[:700],
        "empty": b"",
        "text": b"hello",
        "array": b"\x93NUMPY\x01\x00",
        "wrong byte": bytes(broken),
    }


def test_the_packer_refuses_damaged_files_in_a_sentence(tmp_path):
    program = tmp_path / "pack.py"
    program.write_text(program_of(LAYER.plan), encoding="utf-8")
    parameters = random_model(LAYER, np.random.default_rng(2))
    whole = tmp_path / "whole.npz"
    np.savez(whole, allow_pickle=False, **LAYER.arrays_of(parameters))
    image = tmp_path / "image.bin"

    def pack(path):
        # Isolated and outside the project: what is emitted stands alone.
        return subprocess.run(
            [sys.executable, "-I", program, path, image],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    for what, content in _damaged(whole.read_bytes()).items():
        path = tmp_path / "damaged.npz"
        path.write_bytes(content)
        outcome = pack(path)
        assert outcome.returncode == 1, what
        assert outcome.stderr.startswith("The file can't be used: "), what
        assert outcome.stderr.count("\n") == 1, what
        assert not image.exists(), what
    assert pack(whole).returncode == 0
    assert image.read_bytes() == LAYER.pack(parameters)


@pytest.mark.parametrize("area", ["", "area : unknown;", "area : -1;"])
def test_a_library_without_areas_is_refused(tmp_path, capsys, area):
    """Of one cell, too: its area would be missing from the sum, and nothing would say so."""
    library = tmp_path / "process.lib"
    text = GATES.read_text(encoding="utf-8")
    library.write_text(re.sub(r"(cell \(DFF\w*\) *\{) area : [\d.]+;", rf"\1 {area}", text))
    status, _, error = run(
        capsys, "synth", "floatsd8_decode", "--target", "liberty", "--liberty", library
    )
    assert status == 2
    assert re.fullmatch(
        rf"Liberty file '{library}' gives its cell DFF\w* no area; give one with areas\.\n", error
    )
