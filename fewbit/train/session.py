"""The start of a training from a user's words: a new one, or one that goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fewbit.train.loop import CHECKPOINT, Training
from fewbit.train.plan import Plan
from fewbit.train.schemes import SCHEMES
from fewbit.train.settings import parse_settings
from fewbit.train.tasks import TASKS
from fewbit.train.tasks.task import DEFAULT_SETUP

__all__ = ["Wish", "start"]

_MOST_THREADS = 1024


@dataclass(frozen=True)
class Wish:
    """A training that a user asks for, as the command line reads it.

    Parameters
    ----------
    task
        Name of the task.
    folder
        Where the training's files go.
    scheme
        Name of the scheme, then its settings, ``NAME=VALUE``; empty for none.
    setup
        Name of the set-up; None for `DEFAULT_SETUP`.
    changes
        What differs from the set-up, ``NAME=VALUE``.
    data
        Path of the data.
    seed
        The seed; None for 0.
    resume
        Whether to go on from the folder's checkpoint.
    device, threads
        The device, "cpu" or "cuda", and the number of the CPU's threads.
    """

    task: str
    folder: Path
    scheme: Sequence[str] = ()
    setup: str | None = None
    changes: Sequence[str] = ()
    data: Path | None = None
    seed: int | None = None
    resume: bool = False
    device: str = "cpu"
    threads: int = 1


def start(wish: Wish) -> Training:
    """Return the training that a user asks for.

    Raises
    ------
    ValueError
        If something is not to be had, in one sentence.
    """
    if wish.task not in TASKS:
        raise ValueError(f"There is no task '{wish.task}'; there are {', '.join(TASKS)}.")
    if not 1 <= wish.threads <= _MOST_THREADS:
        raise ValueError(f"--threads must be from 1 to {_MOST_THREADS}, not {wish.threads}.")
    if wish.device not in {"cpu", "cuda"}:
        raise ValueError(f"--device must be cpu or cuda, not '{wish.device}'.")
    if wish.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no CUDA device here; leave --device out.")
    if wish.folder.exists() and not wish.folder.is_dir():
        raise ValueError(f"'{wish.folder}' is no folder; choose another place with --out.")
    torch.set_num_threads(wish.threads)
    # Sums in another order would give other weights, and a resumed training another model.
    torch.use_deterministic_algorithms(mode=wish.device == "cpu")
    return _resumed(wish) if wish.resume else _new(wish)


def _new(wish: Wish) -> Training:
    if not wish.scheme:
        raise ValueError(f"Name a scheme with --scheme: {', '.join(SCHEMES)}.")
    if (wish.folder / CHECKPOINT).exists():
        raise ValueError(
            f"'{wish.folder}' holds a training already; give --resume to go on, or another folder."
        )
    task = TASKS[wish.task]
    name, *words = wish.scheme
    if name not in SCHEMES:
        raise ValueError(f"There is no scheme '{name}'; there are {', '.join(SCHEMES)}.")
    chosen = wish.setup or DEFAULT_SETUP
    if chosen not in task.setups:
        raise ValueError(
            f"The task {task.name} has no set-up '{chosen}'; it has {', '.join(task.setups)}."
        )
    scheme = SCHEMES[name](**parse_settings(SCHEMES[name], words, f"The scheme {name}"))
    setup = task.setups[chosen]
    setup = replace(setup, **parse_settings(type(setup), wish.changes, "A set-up"))
    plan = Plan(task.name, scheme, setup, wish.data, wish.seed or 0)
    return Training(plan, wish.folder, wish.device)


def _resumed(wish: Wish) -> Training:
    given = {
        "--scheme": bool(wish.scheme),
        "--setup": wish.setup is not None,
        "--set": bool(wish.changes),
        "--seed": wish.seed is not None,
    }
    for name, present in given.items():
        if present:
            raise ValueError(f"A resumed training keeps its settings; leave {name} out.")
    training = Training.resume(wish.folder, wish.data, wish.device)
    if training.task.name != wish.task:
        raise ValueError(
            f"'{wish.folder}' holds a training for {training.task.name}, not for {wish.task}."
        )
    return training
