"""What tests/conftest.py does: PyTorch's tests are left out without it, skips fail in CI."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest

TESTS = Path(__file__).parent
CASES = """\
import pytest

def test_passes(): pass
def test_xfails(): pytest.xfail("a known fault")
def test_lacks_data(): pytest.skip("shared data: no recordings")
@pytest.mark.torch
def test_needs_torch(): import torch
"""
SKIPS = """\
@pytest.mark.skipif(True, reason="no compiler")
def test_marked(): pass
def test_called(): pytest.skip("no compiler")
"""
MODULE_SKIPS = 'import pytest\npytest.importorskip("no_such_package")\ndef test_it(): pass\n'


def outcome(folder: Path, content: str, **variables: str) -> tuple[int, str]:
    """Exit status and output of the tests in a folder of their own, run without PyTorch."""
    copy(TESTS / "conftest.py", folder)
    (folder / "test_it.py").write_text(content)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = torch\naddopts = --strict-markers\n")
    # Python takes what stands in the way of PyTorch for its absence.
    script = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "import pytest; sys.exit(pytest.main(['-q', '-rs', '-p', 'no:cacheprovider']))"
    )
    environment = {name: text for name, text in os.environ.items() if "FEWBIT" not in name}
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return process.returncode, process.stdout


def test_what_lacks_pytorch_is_left_out_and_data_may_be_absent(tmp_path):
    status, output = outcome(tmp_path, CASES, FEWBIT_NO_SKIPS="1")
    assert status == 0, output
    assert "1 passed, 1 skipped, 1 deselected, 1 xfailed" in output


@pytest.mark.parametrize(
    ("content", "skipped", "failed"),
    [
        (
            CASES + SKIPS,
            "1 passed, 3 skipped",
            "1 failed, 1 passed, 1 skipped, 1 deselected, 1 xfailed, 1 error",
        ),
        (MODULE_SKIPS, "1 skipped", "1 error"),
    ],
    ids=["tests", "module"],
)
def test_a_skip_fails_where_it_is_told_to(tmp_path, content, skipped, failed):
    status, output = outcome(tmp_path, content)
    assert skipped in output
    assert status in (0, pytest.ExitCode.NO_TESTS_COLLECTED), output
    status, output = outcome(tmp_path, content, FEWBIT_NO_SKIPS="1")
    assert status != 0
    assert failed in output
    assert "FEWBIT_NO_SKIPS is set, and test_it.py" in output
