"""The training loop: it may stop at any step, and goes on from its checkpoint to the same bits.

A training follows from its `Plan` alone: on one machine, with one number of threads, the same plan
gives the same parameters, whether it was interrupted or not. Its folder holds

``checkpoint.safetensors``
    All that it needs to go on; written after each epoch, every few minutes, and at the end.
``log.jsonl``
    One JSON object a line: the plan and the versions first, then losses and figures.
``model.npz``
    The golden model of the best epoch by the validation data.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbit.golden.files.trained import TrainedModel, save_trained
from fewbit.train.checkpoint import read_checkpoint, write_checkpoint, write_whole
from fewbit.train.comparison import compare
from fewbit.train.layers import QuantLSTM, State
from fewbit.train.model import SequenceModel, as_tensors
from fewbit.train.optimise import MasterCopy
from fewbit.train.plan import Plan, fingerprint, versions
from fewbit.train.schemes.floatsd8 import FloatSD8Linear
from fewbit.train.tasks import TASKS, Data, Task
from fewbit.train.tasks.batches import batches_by_length, batches_of_streams
from fewbit.train.tasks.task import NO_LABEL, Batch, Split

__all__ = ["CHECKPOINT", "LOG", "MODEL", "Progress", "Training"]

CHECKPOINT, LOG, MODEL = "checkpoint.safetensors", "log.jsonl", "model.npz"
_VERSION = 1
_SECONDS_BETWEEN = 300.0
_STEPS_BETWEEN_LINES = 100
_FREEZING_BATCHES = 20
_STREAM_STEPS = 1000
"""Steps of each stream from which ranges are learnt."""

Progress = Callable[[int, int, str], None]
"""A function of the steps done, those of the whole training, and a few words on how it goes."""


class Training:
    """A training under way.

    Parameters
    ----------
    plan
        What it follows from.
    folder
        Where its files go.
    device
        The device of the model.

    Raises
    ------
    fewbit.train.tasks.DataError
        If the data are wrong.
    """

    def __init__(self, plan: Plan, folder: Path, device: str = "cpu") -> None:
        self.plan, self.folder, self.device = plan, folder, torch.device(device)
        self.task: Task = TASKS[plan.task]
        self.data: Data = self.task.load(plan.data, plan.setup)
        if plan.setup.embedding and np.issubdtype(self.data.train.x.dtype, np.floating):
            raise ValueError(
                f"embedding must be 0 for the task {plan.task}, whose inputs are real vectors."
            )
        torch.manual_seed(plan.seed)
        self.model = SequenceModel(
            self.data, plan.setup, plan.scheme, per_step=self.task.per_step
        ).to(self.device)
        self._steps_of_an_epoch, labels = self._measured_epoch()
        self.optimiser: Any = plan.scheme.optimiser(self._plain_optimiser(), self.model, labels)
        self.epoch = self.step = self.index = 0
        self.seconds = 0.0
        self.best: dict[str, Any] | None = None
        self._state: State | None = None
        # Sums of the epoch so far: cross-entropies and labels.
        self._sums = [0.0, 0]
        self._log: list[str] = []
        self.data_sha256 = fingerprint(self.data)
        self._note("plan", **plan.described(), data_sha256=self.data_sha256, **versions())

    def _plain_optimiser(self) -> torch.optim.Optimizer:
        setup = self.plan.setup
        kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "sgd": torch.optim.SGD,
        }
        return kinds[setup.optimiser](
            self.model.parameters(), lr=setup.learning_rate, weight_decay=setup.weight_decay
        )

    @classmethod
    def resume(cls, folder: Path, data: Path | None = None, device: str = "cpu") -> "Training":
        """Return the training of a folder's checkpoint.

        Parameters
        ----------
        folder
            The folder.
        data
            Where the data are now; None for where they were.
        device
            The device of the model.

        Raises
        ------
        ValueError
            If there is no checkpoint, or the data are wrong.
        """
        state = read_checkpoint(folder / CHECKPOINT)
        if state.get("version") != _VERSION:
            raise ValueError(
                f"'{folder / CHECKPOINT}' is of another version of fewbit; start anew in another"
                " folder."
            )
        plan = Plan.of(state["plan"])
        training = cls(plan if data is None else replace(plan, data=data), folder, device)
        if training.data_sha256 != state["data_sha256"]:
            raise ValueError(
                f"The data are not those that '{folder}' was trained on; give theirs with --data."
            )
        training.load_state_dict(state)
        return training

    def state_dict(self) -> dict[str, Any]:
        """Return all that the training needs to go on."""
        return {
            "version": _VERSION,
            "plan": self.plan.described(),
            "data_sha256": self.data_sha256,
            "model": dict(self.model.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "epoch": self.epoch,
            "index": self.index,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "state": self._state,
            "sums": self._sums,
            "log": self._log,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        self.epoch, self.index = state["epoch"], state["index"]
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self._sums, self._log = state["best"], state["sums"], state["log"]
        carried = state["state"]
        if carried is not None:
            self._state = carried[0].to(self.device), carried[1].to(self.device)

    @property
    def finished(self) -> bool:
        """Return whether all epochs are done."""
        return self.epoch >= self.plan.setup.epochs

    @property
    def model_file(self) -> Path:
        """Return where the golden model goes."""
        return self.folder / MODEL

    @property
    def overflows(self) -> int:
        """Return how many steps were skipped because the scaled loss overflowed."""
        return self.optimiser.overflows if isinstance(self.optimiser, MasterCopy) else 0

    def _end(self) -> None:
        """Write the model of the best epoch, and log its figures on the test data."""
        self.save()
        found: dict[str, Any] = self.tested()
        if not self.plan.scheme.lacks_circuit:
            model, trained = self.frozen()
            save_trained(self.model_file, trained)
            # How near PyTorch's pass, from which the figure is, comes to golden's.
            found["golden"] = asdict(compare(model, trained, self.data.test))
        self._note("end", **found)
        self.save()

    @property
    def loss_scale(self) -> float:
        """Return the factor of the loss, 1 where it is not scaled."""
        return self.optimiser.loss_scale if isinstance(self.optimiser, MasterCopy) else 1.0

    def run(self, seconds: float = math.inf, progress: Progress = lambda *_: None) -> bool:
        """Train until all epochs are done or the time is up, and write the folder's files.

        Parameters
        ----------
        seconds
            The time after which to stop, apart from what is needed to finish the step and to write.
        progress
            See `Progress`.

        Returns
        -------
        Whether all epochs are done.

        Raises
        ------
        OSError
            If a file cannot be written; the last checkpoint is then as it was.
        """
        begin = last = time.monotonic()
        before = self.seconds
        total = self._steps_of_an_epoch * self.plan.setup.epochs
        while not self.finished:
            for batch in self._remaining():
                loss = self._train(batch)
                # An interrupt comes before this, with the step undone, or after it.
                self.index += 1
                now = time.monotonic()
                self.seconds = before + now - begin
                if self.step % _STEPS_BETWEEN_LINES == 0:
                    self._note("step", loss=loss)
                progress(self.step, total, f"epoch {self.epoch + 1}, loss {loss:.3f}")
                if now - begin >= seconds:
                    self._write()
                    return False
                if now - last >= _SECONDS_BETWEEN:
                    last = now
                    self.save()
            self._end_epoch()
            last = time.monotonic()
        self._end()
        return True

    def _measured_epoch(self) -> tuple[int, int]:
        """Return the number of batches in an epoch, and that of labels in its largest batch."""
        steps = labels = 0
        for batch in self.task.batches(self.data, self.plan.setup, 0, self.plan.seed):
            steps, labels = steps + 1, max(labels, int((batch.labels != NO_LABEL).sum()))
        return steps, labels

    def _remaining(self) -> Iterator[Batch]:
        """Yield the batches of the epoch that are still to be trained on."""
        self._set_rate()
        start = self.index
        batches = self.task.batches(self.data, self.plan.setup, self.epoch, self.plan.seed)
        for number, batch in enumerate(batches):
            if number >= start:
                yield batch

    def _set_rate(self) -> None:
        setup = self.plan.setup
        rate = setup.learning_rate
        if setup.last_rate is not None and setup.epochs > 1:
            rate *= (setup.last_rate / rate) ** (self.epoch / (setup.epochs - 1))
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _train(self, batch: Batch) -> float:
        """Take one step, and return the mean loss of the batch."""
        setup = self.plan.setup
        self.model.train()
        x, lengths, labels = as_tensors(batch, self.device)
        state = self._state if batch.carries else None
        counts = None if bool((lengths == x.shape[1]).all()) else lengths
        scores, new_state = self.model(x, counts, state)
        self._state = (new_state[0].detach(), new_state[1].detach()) if self.task.streams else None
        loss = self.model.losses(scores, labels, setup.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        (loss * self.loss_scale).backward()
        if setup.largest_gradient:
            # Gradients are still scaled, by a power of two.
            largest = setup.largest_gradient * self.loss_scale
            nn.utils.clip_grad_norm_(self.model.parameters(), largest)
        self.optimiser.step()
        self.step += 1
        value, count = float(loss.detach()), int((labels != NO_LABEL).sum())
        self._sums[0] += value * count
        self._sums[1] += count
        return value

    def _end_epoch(self) -> None:
        """Look at the validation data, keep the best model, and write a checkpoint."""
        for module in self.model.modules():
            if isinstance(module, (QuantLSTM, FloatSD8Linear)):
                module.follow()
        figure, loss = self.validate()
        # No comparison with NaN is true, so a model that has diverged is never the best.
        worst = -math.inf if self.task.better_is_higher else math.inf
        before = worst if self.best is None else self.best["figure"]
        if figure > before if self.task.better_is_higher else figure < before:
            model = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.best = {"figure": figure, "epoch": self.epoch, "model": model}
        self._note(
            "epoch",
            loss=self._sums[0] / max(self._sums[1], 1),
            validation_loss=loss,
            validation=figure,
            metric=self.task.metric,
            rate=self.optimiser.param_groups[0]["lr"],
            overflows=self.overflows,
            loss_scale=self.loss_scale,
        )
        self.epoch, self.index, self._sums, self._state = self.epoch + 1, 0, [0.0, 0], None
        self.save()

    def tested(self) -> dict[str, Any]:
        """Return figure and mean loss of the best model on the test data, by PyTorch's pass."""
        figure, loss = self._figure(self._best_model(), self.data.test)
        return {"test": figure, "test_loss": loss, "metric": self.task.metric}

    def validate(self) -> tuple[float, float]:
        """Return the task's figure and the mean loss on the validation data, by PyTorch's pass."""
        return self._figure(self.model, self.data.validation)

    @torch.no_grad()
    def _figure(self, model: SequenceModel, split: Split) -> tuple[float, float]:
        model.eval()
        total, hits, labels = 0.0, 0, 0
        state: State | None = None
        for batch in self._whole(split):
            x, lengths, wanted = as_tensors(batch, self.device)
            scores, new_state = model(x, lengths, state if batch.carries else None)
            state = new_state
            flat, given = scores.flatten(0, -2), wanted.flatten()
            losses = nn.functional.cross_entropy(
                flat, given, ignore_index=NO_LABEL, reduction="sum"
            )
            total += float(losses)
            hits += int((flat.argmax(-1) == given).sum())
            labels += int((given != NO_LABEL).sum())
        return self.task.figure(total, hits, labels), total / labels

    def _whole(self, split: Split) -> Iterator[Batch]:
        """Return all sequences of a part, streams in windows."""
        if self.task.streams:
            return batches_of_streams(split, self.plan.setup.window or split.x.shape[1])
        return batches_by_length(split, self.plan.setup.batch)

    def _best_model(self) -> SequenceModel:
        """Return the model of the best epoch so far, or of now if none has ended."""
        model = SequenceModel(
            self.data, self.plan.setup, self.plan.scheme, per_step=self.task.per_step
        ).to(self.device)
        model.load_state_dict(self.model.state_dict() if self.best is None else self.best["model"])
        return model

    def frozen(self) -> tuple[SequenceModel, TrainedModel]:
        """Return the best model so far, frozen, or that of now if no epoch has ended; and golden's.

        Raises
        ------
        ValueError
            If the scheme has no circuit.
        """
        model = self._best_model()
        batches: list[tuple[Tensor, Tensor | None]] = []
        with torch.no_grad():
            for x, lengths in self._freezing_batches():
                batches.append((model.inputs_of(x), lengths))
        # Freezing may sample weights; training goes on as if it had not been.
        random = torch.get_rng_state()
        model.lstm.freeze(batches)
        torch.set_rng_state(random)
        return model, model.trained(self.task, self.data)

    def _freezing_batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        if self.task.streams:
            # Cells grow over a stream, so windows of it would show too small a range.
            yield (
                torch.from_numpy(self.data.train.x[:, :_STREAM_STEPS]).to(self.device).long(),
                None,
            )
            return
        setup = self.plan.setup
        batches = self.task.batches(self.data, setup, max(setup.epochs - 1, 0), self.plan.seed)
        for _, batch in zip(range(_FREEZING_BATCHES), batches, strict=False):
            x, lengths, _ = as_tensors(batch, self.device)
            yield x, lengths

    def _write(self) -> None:
        """Write the checkpoint, the log and the model."""
        self.save()
        if not self.plan.scheme.lacks_circuit:
            save_trained(self.model_file, self.frozen()[1])

    def save(self) -> None:
        """Write the checkpoint and the log.

        Raises
        ------
        OSError
            If a file cannot be written; the old one is then as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(self.folder / CHECKPOINT, self.state_dict())
        write_whole(self.folder / LOG, "".join(f"{line}\n" for line in self._log).encode())

    def _note(self, event: str, **values: Any) -> None:
        place = {"epoch": self.epoch, "step": self.step, "seconds": round(self.seconds, 3)}
        self._log.append(json.dumps({"event": event, **place, **values}))
