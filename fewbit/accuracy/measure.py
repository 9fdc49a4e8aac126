"""The end of a job of the campaign: its model, converted if need be, is measured in golden."""

import argparse
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.accuracy.experiments import Experiment, Job
from fewbit.accuracy.results import Row
from fewbit.errors import write_text
from fewbit.evaluation import Evaluation, evaluate, open_trained, plan
from fewbit.golden.files.trained import TrainedModel, save_trained, with_network
from fewbit.quantization import quantize_network
from fewbit.train.tasks import TASKS, Batch, Names, Task
from fewbit.train.tasks.batches import joined

__all__ = ["MODEL", "calibration", "convert", "evaluated", "measured", "training_batches"]

MODEL = "model.npz"
_CALIBRATION_BATCHES = 8
_CALIBRATION_SEQUENCES = 128


def training_batches(model: TrainedModel, task: Task, data: Path) -> Iterator[Batch]:
    """Return the batches of a task's training part by a model's own symbols, set-up "small"."""
    setup = task.setups["small"]
    loaded = task.load(data, setup, Names(model.symbols, model.classes))
    return task.batches(loaded, setup, 0, 0)


def calibration(model: TrainedModel, task: Task, data: Path) -> npt.NDArray[np.float64]:
    """Return sequences of the training part as a model's network reads them.

    Parameters
    ----------
    model
        The model.
    task
        Its task.
    data
        The path of the task's data.

    Returns
    -------
    Reals of shape (at most 128, time, inputs), from the first batches of set-up "small"; shorter
    sequences have zeros at their end.
    """
    taken = list(islice(training_batches(model, task, data), _CALIBRATION_BATCHES))
    return model.inputs_of(joined(taken).x[:_CALIBRATION_SEQUENCES])


def convert(source: Path, target: Path, to: str, data: Path) -> None:
    """Write the model of another number system that a trained real model is converted into.

    Parameters
    ----------
    source, target
        The files of the real model and of the converted one.
    to
        The number system.
    data
        The path of the task's data, on whose training part ranges are calibrated.
    """
    model = open_trained(source)
    network = quantize_network(model.network, calibration(model, TASKS[model.task], data), to=to)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_trained(target, with_network(model, network))


def evaluated(experiment: Experiment, model: Path, data: Path) -> Evaluation:
    """Return the figure of an experiment's model on its recipe's test part, in golden."""
    recipe = experiment.recipe
    trained, task = open_trained(model), TASKS[recipe.task]
    return evaluate(plan(trained, task, data, name=f"'{model}'", sequences=recipe.sequences))


def measured(job: Job, folder: Path, data: Path) -> Row:
    """Return a job's results as plain values.

    Parameters
    ----------
    job
        The job.
    folder
        Its folder, with the model and, of one that was trained, the log.
    data
        The path of its recipe's data.

    Returns
    -------
    Experiment, seed, and what they consist of; "training", what the log says; "golden", the
    evaluation in golden, None where golden has no such layer; SHA-256 and size of the model's file;
    and the machine.
    """
    experiment, recipe = job.experiment, job.experiment.recipe
    model = folder / MODEL
    row: Row = {
        "experiment": experiment.name,
        "seed": job.seed,
        "task": recipe.task,
        "setup": recipe.setup,
        "changes": [*recipe.changes, *experiment.changes],
        "scheme": list(experiment.scheme),
        "of": experiment.of,
        "to": experiment.to,
        "training": None if experiment.to else _training(folder / "log.jsonl"),
        "golden": None,
        "model_sha256": None,
        "model_bytes": None,
        "machine": {"cpu": _processor(), "cores": os.cpu_count()},
    }
    if model.exists():
        content = model.read_bytes()
        row |= {"model_sha256": hashlib.sha256(content).hexdigest(), "model_bytes": len(content)}
        row["golden"] = evaluated(experiment, model, data).row
    return row


def _training(log: Path) -> dict[str, Any]:
    """Return what the log of a finished training says."""
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    plan_line, end = lines[0], lines[-1]
    epochs = [line for line in lines if line["event"] == "epoch"]
    return {
        "steps": end["step"],
        "seconds": end["seconds"],
        "validation": [line["validation"] for line in epochs],
        "loss": [line["loss"] for line in epochs],
        "overflows": epochs[-1]["overflows"],
        "test": end["test"],
        "codes_equal": (end.get("golden") or {}).get("equal"),
        "data_sha256": plan_line["data_sha256"],
        **{name: plan_line[name] for name in ("torch", "numpy", "python", "threads")},
    }


def _processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _main() -> None:
    """Measure one job in a process of its own, and write its row into its folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Job.of)
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--source", type=Path)
    given = parser.parse_args()
    if given.source is not None:
        convert(given.source, given.folder / MODEL, given.job.experiment.to, given.data)
    row = measured(given.job, given.folder, given.data)
    write_text(given.folder / "row.json", json.dumps(row))


if __name__ == "__main__":
    _main()
