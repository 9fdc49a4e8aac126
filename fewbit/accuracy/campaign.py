"""The campaign: carries out jobs in order, several at a time, within a time; goes on where it was.

Each job trains in a process of its own, ``fewbit train`` with one thread, which writes checkpoints
and may be stopped at any time. A finished job is evaluated in golden and gives one line of the
results. A job whose data are missing is left out.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from fewbit.accuracy.experiments import Job, folder_of
from fewbit.accuracy.measure import MODEL
from fewbit.accuracy.results import RESULTS, Row, key_of, read_results
from fewbit.errors import write_text

__all__ = ["Campaign", "command_of"]

_LEAST_SECONDS = 20.0
"""A job is not begun or gone on with for less."""

Tell = Callable[[str], None]


def command_of(job: Job, folder: Path, data: Path, device: str = "cpu") -> list[str]:
    """Return the arguments of ``fewbit`` that train a job's model.

    Parameters
    ----------
    job
        The job.
    folder
        The job's folder; a checkpoint in it is gone on from.
    data
        The path of the recipe's data.
    device
        The device.
    """
    experiment, recipe = job.experiment, job.experiment.recipe
    command = ["train", recipe.task, "--data", str(data), "--out", str(folder)]
    command += ["--device", device]
    if (folder / "checkpoint.safetensors").exists():
        return [*command, "--resume"]
    changes = [*recipe.changes, *experiment.changes]
    command += ["--scheme", *experiment.scheme, "--setup", recipe.setup, "--seed", str(job.seed)]
    return [*command, "--set", *changes] if changes else command


@dataclass
class Campaign:
    """Jobs, where their files are, and what has come of them.

    Parameters
    ----------
    jobs
        The jobs in order.
    data
        The folder of all data.
    out
        The folder of all jobs; its ``results.jsonl`` has a line for each that is done.
    seconds
        The time after which no job goes on.
    workers
        How many jobs are carried out at a time.
    device
        The device of the trainings.
    tell
        A function that is called with a line on each job.
    """

    jobs: Sequence[Job]
    data: Path
    out: Path
    seconds: float
    workers: int = 2
    device: str = "cpu"
    tell: Tell = print
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _begun: set[str] = field(default_factory=set, repr=False)
    _children: "set[subprocess.Popen[str]]" = field(default_factory=set, repr=False)
    _stopped: bool = field(default=False, repr=False)

    @property
    def results(self) -> Path:
        """Return the file of the results."""
        return self.out / RESULTS

    def run(self) -> list[Job]:
        """Carry jobs out until all are done or the time is up, and return those that are left."""
        self._end = time.monotonic() + self.seconds
        with ThreadPoolExecutor(self.workers) as pool:
            workers = [pool.submit(self._work) for _ in range(self.workers)]
            try:
                wait(workers)
            finally:
                # After an interrupt, too, no training goes on by itself; each writes a checkpoint.
                self._stop()
        for worker in workers:
            worker.result()
        return self._left()

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.terminate()

    def _left(self) -> list[Job]:
        done = {key_of(row) for row in read_results(self.results)}
        return [job for job in self.jobs if (job.experiment.name, job.seed) not in done]

    def _work(self) -> None:
        while not self._stopped and self._remaining() > _LEAST_SECONDS and (job := self._next()):
            self._carry_out(job)

    def _remaining(self) -> float:
        return self._end - time.monotonic()

    def _data_of(self, job: Job) -> Path:
        return self.data / job.experiment.recipe.data

    def _model_of_source(self, job: Job) -> Path:
        return self.out / folder_of(job.experiment.source, job.seed) / MODEL

    def _next(self) -> Job | None:
        """Return the first job that can begin and no worker has begun; None without one."""
        with self._lock:
            left = self._left()
            unfinished = {(job.experiment.name, job.seed) for job in left}
            for job in left:
                if job.folder in self._begun or not self._data_of(job).exists():
                    continue
                if (job.experiment.source, job.seed) in unfinished:
                    continue
                self._begun.add(job.folder)
                return job
        return None

    def _carry_out(self, job: Job) -> None:
        folder = self.out / job.folder
        start = time.monotonic()
        if not self._is_of(folder, job):
            self.tell(
                f"{job.folder}: failed: '{folder}' is of other settings; take it away, or choose"
                " another --out."
            )
            return
        if not job.experiment.to and not _is_trained(folder):
            seconds = ["--seconds", f"{self._remaining():.0f}"]
            command = [*command_of(job, folder, self._data_of(job), self.device), *seconds]
            if not self._called(job, ["-m", "fewbit", *command]) or not _is_trained(folder):
                return
        # In a process of its own, as it keeps a core busy.
        command = ["-m", "fewbit.accuracy.measure", str(job)]
        paths = [str(folder), str(self._data_of(job))]
        if job.experiment.to:
            paths += ["--source", str(self._model_of_source(job))]
        if self._called(job, [*command, *paths]):
            row = json.loads((folder / "row.json").read_text("utf-8"))
            self._keep(row)
            self.tell(f"{job.folder}: {_in_words(row)}, {time.monotonic() - start:,.0f} s")

    def _is_of(self, folder: Path, job: Job) -> bool:
        """Return whether a folder is a job's, and make it so if it is new."""
        note = folder / "job.json"
        if not note.exists() and not (folder / "checkpoint.safetensors").exists():
            write_text(note, job.settings)
        return note.exists() and note.read_text("utf-8") == job.settings

    def _called(self, job: Job, arguments: Sequence[str]) -> bool:
        """Call Python, and return whether it did well; else tell the last line of its errors."""
        with self._lock:
            if self._stopped:
                return False
            child = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            self._children.add(child)
        said = child.communicate()[1].strip().splitlines()
        with self._lock:
            self._children.remove(child)
        if child.returncode and not self._stopped:
            self.tell(f"{job.folder}: failed: {said[-1] if said else child.returncode}")
        return child.returncode == 0

    def _keep(self, row: Row) -> None:
        with self._lock:
            rows = {key_of(each): each for each in read_results(self.results)} | {key_of(row): row}
            write_text(self.results, "".join(f"{json.dumps(each)}\n" for each in rows.values()))


def _is_trained(folder: Path) -> bool:
    """Return whether a folder's training has come to its end."""
    log = folder / "log.jsonl"
    if not log.exists():
        return False
    lines = log.read_text("utf-8").splitlines()
    return bool(lines) and json.loads(lines[-1])["event"] == "end"


def _in_words(row: Row) -> str:
    golden, training = row["golden"], row["training"]
    if golden is not None:
        return f"{golden['figure']:.4f} {golden['metric']} in golden"
    return f"{training['test']:.4f} in PyTorch" if training else "no figure"
