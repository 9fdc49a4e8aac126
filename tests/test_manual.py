"""The manual, and the README: their tables are the registry's, and what they name is there."""

import ast
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from fewbit.claims import claims_of
from fewbit.golden.accumulate.pow2_accumulate import Pow2
from fewbit.golden.formats import FixedPoint, Format
from fewbit.hdl.designs import DESIGNS

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    + [page for page in ROOT.glob("examples/**/*.md") if ".venv" not in page.parts]
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# The manual says why there must be no such file.
ABSENT = {"fewbit/quantize.py"}
PLACES = ("docs", "examples", "fewbit", "golden", "hdl", "sim", "tests")


def rows_below(text: str, header: str) -> list[list[str]]:
    """Cells of the table that has this first line."""
    lines = text[text.index(header) :].splitlines()[2:]
    table = lines[: next((k for k, line in enumerate(lines) if not line.startswith("|")), None)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def code_spans(text: str) -> list[str]:
    """What stands between single backticks, outside blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as the hosting site makes them."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    words = [re.sub(r"\]\([^)]*\)", "", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in words}


def broken_links(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (
            anchor and anchor not in anchors(target.read_text(encoding="utf-8"))
        ):
            broken.append(link)
    return broken


def missing_files(text: str) -> list[str]:
    """Files of the project that a text names in backticks, and that are not there."""
    named = [
        span
        for span in code_spans(text)
        if span.partition("/")[0] in PLACES and re.fullmatch(r"[\w./*-]+", span)
    ]
    # NAME stands for what a reader adds.
    known = [span for span in named if "NAME" not in span and span not in ABSENT]
    return [span for span in known if not list(ROOT.glob(span.rstrip("/")))]


def unresolved(dotted: str) -> bool:
    """Whether a name of fewbit is neither a module nor something in one."""
    module, names = dotted, []
    while find_module(module) is None:
        module, _, name = module.rpartition(".")
        names.insert(0, name)
    try:
        found = importlib.import_module(module)
        _ = names and hasattr(found, names[0])
    except ImportError:
        # Without PyTorch the source tells what training has.
        return bool(names) and names[0] not in names_in_source(module)
    for name in names:
        if not hasattr(found, name) and name not in getattr(found, "__annotations__", {}):
            return True
        found = getattr(found, name, None)
    return False


def names_in_source(module: str) -> set[str]:
    """Names that a module defines or lists, as its source says."""
    origin = getattr(find_module(module), "origin", None)
    assert origin is not None
    found: set[str] = set()
    for node in ast.parse(Path(origin).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
            if "__all__" in found and isinstance(node.value, ast.List):
                found |= set(ast.literal_eval(node.value))
    return found


def find_module(name: str):
    """The module's place; None also of an empty folder, which Python takes for a package."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return None
    if spec is not None and spec.origin is None:
        folders = map(Path, spec.submodule_search_locations or ())
        return spec if any(list(folder.glob("*.py")) for folder in folders) else None
    return spec


def unresolved_names(text: str) -> list[str]:
    names = {name for span in code_spans(text) for name in re.findall(r"\bfewbit(?:\.\w+)+", span)}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S):
        try:
            tree = ast.parse(block)
        except SyntaxError:
            # A piece of a class or of a call.
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fewbit"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {each.name for each in node.names if each.name.startswith("fewbit")}
    commands = re.findall(r"python -m ((?:fewbit|flow|golden|hdl|sim|examples)[\w.]*)", text)
    return sorted(
        [name for name in names if unresolved(name)]
        + [name for name in commands if find_module(name) is None]
    )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    assert broken_links(page) == []
    assert missing_files(text) == []
    assert unresolved_names(text) == []


def test_what_is_not_there_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n[there](#a-page) [a](#no-heading) [b](none.md) [c](https://none.example)\n"
        "`golden/none.py` `golden/formats.py` `fewbit.golden.none` `fewbit.golden.formats.NONE`\n"
        "`fewbit.golden.formats.FixedPoint.width` `python -m flow`\n"
        "`fewbit.train.QuantLSTM` `fewbit.train.Nothing` `fewbit.train.exact.exact_network`\n"
        "```python\nfrom fewbit.golden.formats import NOTHING\n```\n"
    )
    text = page.read_text()
    assert broken_links(page) == ["#no-heading", "none.md"]
    assert missing_files(text) == ["golden/none.py"]
    assert unresolved_names(text) == [
        "fewbit.golden.formats.NONE",
        "fewbit.golden.formats.NOTHING",
        "fewbit.golden.none",
        "fewbit.train.Nothing",
        "flow",
    ]


def test_the_readmes_table_has_every_design_with_its_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = [row[0] for row in rows_below(text, "| design | what it computes | from |")]
    linked = {
        name: target
        for cell in cells
        for name, target in re.findall(r"\[`(\w+)`\]\(([^)#]+)[^)]*\)", cell)
    }
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(linked) == set(DESIGNS)
    for name, target in linked.items():
        page = (ROOT / target).read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", page), (name, target)


def test_the_readmes_example_prints_what_it_says(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    assert blocks
    for block in blocks:
        exec(block, {})
        said = re.findall(r"^print\(.*\)  # (.+)$", block, re.M)
        assert said
        assert capsys.readouterr().out.splitlines() == said


def test_the_manuals_table_has_every_page():
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w/]+\.md)\)", text))
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")}
    assert pages - {"README.md"} <= linked


def row_of(number_format: Format) -> str:
    """Name by which the table has a format, families of formats by one name."""
    if isinstance(number_format, FixedPoint) and not number_format.fraction:
        return "intN" if number_format.signed else "uintN"
    if isinstance(number_format, Pow2):
        return "pow2_N"
    return number_format.name.partition("_bias")[0]


def test_the_formats_of_the_interface_are_those_of_the_contracts():
    text = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
    rows = {
        name: encoding.strip("`")
        for cell, encoding, _ in rows_below(text, "| format | encoding | meaning |")
        for name in re.findall(r"`(\w+)`", cell)
    }
    used = {}
    for design in DESIGNS.values():
        contract = design.configure().contract
        for operand in (*contract.operands, *contract.configuration, *contract.results):
            used.setdefault(row_of(operand.format), operand.format.encoding)
    assert set(rows) == set(used)
    for name, encoding in rows.items():
        if not name.endswith("N"):
            assert encoding == used[name], name


def test_the_rows_of_the_interface_are_those_of_the_contracts():
    """The page names, for beats that make up a row, the designs that have such beats."""
    text = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"A row's beats run from `first` to `last` in (.+?)\. ", text)
    (layers,) = re.findall(r"A beat is a byte of a packet in (.+?)\.", text)
    operands = {
        name: {operand.name for operand in design.configure().contract.operands}
        for name, design in DESIGNS.items()
    }
    assert set(re.findall(r"`(\w+)`", listed)) == {
        name for name, names in operands.items() if {"first", "last"} <= names
    }
    assert set(re.findall(r"`(\w+)`", layers)) == {
        name for name, names in operands.items() if "s_axis_tdata" in names
    }


def test_the_table_of_proofs_has_every_claim_with_its_inputs():
    text = (ROOT / "docs" / "proofs.md").read_text(encoding="utf-8")
    told = {}
    for designs, _, inputs in rows_below(text, "| design | claim | inputs |"):
        for name in re.findall(r"`(\w+)`", designs):
            told.setdefault(name, []).extend(re.findall(r"2\^(\d+)", inputs))
    found = {
        name: [str(claim.inputs) for claim in claims_of(design.configure())]
        for name, design in DESIGNS.items()
    }
    assert told == {name: inputs for name, inputs in found.items() if inputs}
