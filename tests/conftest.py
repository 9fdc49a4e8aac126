"""Which tests are run: none that needs PyTorch without it, and in CI none is skipped unseen."""

import os
from collections.abc import Generator
from importlib.util import find_spec
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

NO_SKIPS = "FEWBIT_NO_SKIPS"
"""Name of the variable by which `.ci/run` turns a skip into a failure."""
PERMITTED = "shared data"
"""Words of the only reason for a skip that stays one: data that are no part of the project."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests marked `torch` where PyTorch is missing, as it is in .venv."""
    if find_spec("torch"):
        return
    left_out = [item for item in items if item.get_closest_marker("torch")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def without_skips(report: Report) -> Report:
    """Return the report, as a failure if it skips for another reason than absent shared data."""
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and os.environ.get(NO_SKIPS):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        if PERMITTED not in str(reason):
            report.outcome = "failed"
            report.longrepr = f"{NO_SKIPS} is set, and {report.nodeid} skips: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return without_skips((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return without_skips((yield))
