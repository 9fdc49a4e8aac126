"""Tests of training: each needs PyTorch, so none is read where it is missing."""

from importlib.util import find_spec

import pytest

if find_spec("torch"):
    import torch

    # The tests' processes share the cores; a sum's order, too, depends on the number of threads.
    torch.set_num_threads(1)
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("torch")
