"""``fewbit train``: trains a model for a task under a scheme; needs PyTorch."""

import argparse
import math
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewbit.commands.arguments import Command, real, seed
from fewbit.commands.display import progress_in_words
from fewbit.commands.models import enough_memory
from fewbit.errors import UsageError, refusal
from fewbit.models import told
from fewbit.train.tasks import TASKS
from fewbit.train.tasks.task import UNITS

if TYPE_CHECKING:
    from fewbit.train.loop import Training

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("task", metavar="TASK", help=", ".join(TASKS))
    command.add_argument(
        "--scheme",
        nargs="+",
        metavar=("NAME", "SETTING=VALUE"),
        help="float, floatsd8, binary, ternary, pow2, exponential, fixed_point or int8, and"
        " settings of it; a wrong setting tells those that there are",
    )
    command.add_argument("--data", type=Path, metavar="PATH", help="the task's data")
    command.add_argument(
        "--setup",
        metavar="NAME",
        help="the model and the recipe: small (default), for a CPU, or paper, the literature's",
    )
    command.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="what differs from the set-up, such as hidden=256 epochs=10",
    )
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for checkpoint.safetensors, log.jsonl and model.npz",
    )
    command.add_argument(
        "--seconds", type=real, metavar="S", help="stop after so many; --resume goes on"
    )
    command.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in the folder"
    )
    command.add_argument("--seed", type=seed, help="default 0")
    command.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of the CPU; default 1"
    )
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default) or cuda")


def _training(options: argparse.Namespace) -> "Training":
    """Return the training, new or resumed."""
    try:
        from fewbit.train.session import Wish, start
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError(
            "Training needs PyTorch, which is missing; install it with pip install 'fewbit[train]',"
            " or in a checkout with make setup-train and run .venv-train/bin/fewbit."
        ) from error
    wish = Wish(
        options.task,
        options.out,
        options.scheme or (),
        options.setup,
        options.changes,
        options.data,
        options.seed,
        options.resume,
        options.device,
        options.threads,
    )
    with told():
        return start(wish)


def _run(options: argparse.Namespace) -> int:
    with _enough_memory():
        training = _training(options)
        seconds = math.inf if options.seconds is None else options.seconds
        with _faults(training):
            # A folder that takes no files is found before hours of training, not after.
            training.save()
            try:
                with (
                    _asked_to_stop() as stop,
                    _warnings(),
                    progress_in_words("Training") as progress,
                ):

                    def after_step(done: int, total: int, words: str) -> None:
                        progress(done, total, words)
                        stop()

                    finished = training.run(seconds, after_step)
            except _Stopped as stopped:
                training.save()
                print(f"Interrupted; --resume goes on from step {training.step}.", file=sys.stderr)
                return 128 + stopped.signal
    print(_report(training, finished=finished))
    return 0


@contextmanager
def _warnings() -> Iterator[None]:
    """Show warnings as sentences, without the place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(
            f"Warning: {message}", file=sys.stderr
        )
        yield


class _Stopped(Exception):
    """The end of a step after which a signal wants the training to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal = signal_number


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], None]]:
    """Keep Ctrl-C and SIGTERM until the function that is given is called, which then raises.

    Between two steps, that is: within one, only some parameters have moved, and a batch that counts
    as seen has not been trained on. A second signal of a kind ends the command at once.
    """
    caught: list[int] = []
    before: dict[int, Any] = {}

    def keep(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(number, before[number])
        print("Stopping after this step or epoch; once more for at once.", file=sys.stderr)

    def stop() -> None:
        if caught:
            raise _Stopped(caught[0])

    # Only the main thread may have handlers.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.getsignal(number)
            # A caller's wish to ignore one is kept.
            if before[number] not in {signal.SIG_IGN, None}:
                signal.signal(number, keep)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Turn a lack of memory, of which PyTorch tells in its own way, into a user's mistake."""
    with enough_memory("make batch or hidden smaller with --set"):
        try:
            yield
        except RuntimeError as error:
            if "allocate memory" not in str(error) and "out of memory" not in str(error):
                raise
            raise MemoryError from error


@contextmanager
def _faults(training: "Training") -> Iterator[None]:
    """Turn what a training comes upon under way into a user's mistake, with what is left of it."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{refusal(error).rstrip('.')}; {_left(training)}.") from error
    except ValueError as error:
        # Such as weights that are not finite; its text is a sentence with a remedy.
        raise UsageError(str(error)) from error


def _left(training: "Training") -> str:
    from fewbit.train.loop import CHECKPOINT

    if (training.folder / CHECKPOINT).exists():
        return "the last checkpoint is whole, --resume goes on from it"
    return "choose another place with --out"


def _report(training: "Training", *, finished: bool) -> str:
    """Return what a training came to, in a few words."""
    epochs = training.plan.setup.epochs
    words = f"{training.task.name}, {training.plan.scheme.name}: {training.step} steps"
    words += f" of {training.epoch} of {epochs} epochs in {training.seconds:,.0f} s"
    if training.best is not None:
        unit = UNITS[training.task.metric]
        words += (
            f"; best validation {training.best['figure']:.4f} {unit} after epoch"
            f" {training.best['epoch'] + 1}"
        )
    if training.overflows:
        words += f"; {training.overflows} steps skipped, whose scaled loss overflowed"
    words += f"; {training.plan.scheme.lacks_circuit or training.model_file}"
    return words if finished else f"{words}; --resume goes on"


COMMAND = Command("train", "train a model for a task, in PyTorch", _add_arguments, _run)
