"""Tasks of sequences, real ones and a generated one, without PyTorch.

Each family of tasks is a module; `TASKS` lists all by name. A reader takes the path of a user's
data: no data come with the package.
"""

from collections.abc import Mapping

from fewbit.train.tasks import characters, images, recordings, tagging, temporal_order, words
from fewbit.train.tasks.task import Batch, Data, DataError, Names, Setup, Split, Task

__all__ = ["TASKS", "Batch", "Data", "DataError", "Names", "Setup", "Split", "Task"]

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        characters.TASK,
        words.TASK,
        tagging.TASK,
        images.ROWS,
        images.PIXELS,
        recordings.DIGITS,
        recordings.SPEAKERS,
        temporal_order.TASK,
    )
}
"""All tasks by name."""
