"""Docstrings are whole sentences: none leaves out its subject, and each public one ends."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("golden", "hdl", "sim", "fewbit", "examples")
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    # The links in fewbit/ lead to folders that are read in their own place.
    if not any(parent.is_symlink() for parent in path.parents)
)
FRAGMENT = re.compile(r"(Of|What|Those of|As) ")
"""Beginnings of a docstring that leaves out what it is about."""
FEWEST_WORDS = 4

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def definitions(node: Definition, name: str) -> Iterator[tuple[str, Definition]]:
    yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from definitions(child, f"{name}.{child.name}")


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split(".")[1:])


def first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def faults_of_docstrings(source: str, name: str) -> list[str]:
    tree = ast.parse(source)
    faults: list[str] = []
    for place, node in definitions(tree, name):
        text = ast.get_docstring(node)
        if text is None:
            continue
        first = first_paragraph(text)
        if FRAGMENT.match(first):
            faults.append(f"{place} leaves out its subject: {first}")
        elif is_public(place) and (not first.endswith(".") or len(first.split()) < FEWEST_WORDS):
            faults.append(f"{place} is no sentence: {first}")
    return faults


def faults_of_attributes(source: str, name: str) -> list[str]:
    """Texts below constants and fields, which are documentation, too."""
    documented = {
        node.body[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, Definition) and ast.get_docstring(node) is not None
    }
    places = {node.lineno for node in documented}
    return [
        f"{name}:{node.lineno} leaves out its subject: {first_paragraph(node.value.value)}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.lineno not in places
        and FRAGMENT.match(first_paragraph(node.value.value))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_sentences(path):
    name = str(path.relative_to(ROOT))
    source = path.read_text(encoding="utf-8")
    faults = faults_of_docstrings(source, name) + faults_of_attributes(source, name)
    assert not faults, "\n".join(faults)


def test_sources_are_found():
    assert len(SOURCES) > 150


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('def f():\n    """Of a weight."""\n', "leaves out its subject"),
        ('def _f():\n    """Of a weight."""\n', "leaves out its subject"),
        ('class C:\n    """What is fed now."""\n', "leaves out its subject"),
        ('def f():\n    """Nothing to see."""\n', "is no sentence"),
        ('def f():\n    """Return the sum of a row"""\n', "is no sentence"),
    ],
)
def test_faults_are_found(source, fault):
    (found,) = faults_of_docstrings(source, "module")
    assert fault in found


def test_faults_below_constants_are_found():
    assert faults_of_attributes('"""A module."""\nX = 1\n"""Of q: 1."""\n', "module")


def test_private_functions_may_be_terse():
    assert faults_of_docstrings('def _f():\n    """Nearest levels."""\n', "module") == []
