"""The plan of a training, from which all else follows, and what is noted of its circumstances."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewbit.train.schemes import SCHEMES, Scheme
from fewbit.train.tasks import Data, Setup

__all__ = ["Plan", "fingerprint", "versions"]


@dataclass(frozen=True)
class Plan:
    """All that a training follows from.

    Parameters
    ----------
    task
        Name of the task, a key of `fewbit.train.tasks.TASKS`.
    scheme
        The scheme.
    setup
        The model and the recipe.
    data
        Path of the task's data; None for a task that generates them.
    seed
        Seed of parameters, order, dropout and sampled weights.
    """

    task: str
    scheme: Scheme
    setup: Setup
    data: Path | None = None
    seed: int = 0

    def described(self) -> dict[str, Any]:
        """Return the plan as plain values, for a checkpoint or a log."""
        return {
            "task": self.task,
            "scheme": {"name": self.scheme.name, **asdict(self.scheme)},
            "setup": asdict(self.setup),
            "data": None if self.data is None else str(self.data),
            "seed": self.seed,
        }

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Plan":
        """Return the plan that `described` has described.

        Raises
        ------
        ValueError
            If it is none of this version.
        """
        try:
            scheme = dict(described["scheme"])
            made = SCHEMES[scheme.pop("name")](**scheme)
            given = described["setup"]
            setup = Setup(**{**given, "shrink": tuple(given["shrink"])})
            data = described["data"]
            path = None if data is None else Path(data)
            return cls(described["task"], made, setup, path, described["seed"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                "The checkpoint is of another version of fewbit; start anew in another folder."
            ) from error


def fingerprint(data: Data) -> str:
    """Return the SHA-256 of the training data as they were read."""
    digest = hashlib.sha256()
    for array in (data.train.x, data.train.lengths, data.train.labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def versions() -> dict[str, Any]:
    """Return the versions and the machine that a training runs on."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
