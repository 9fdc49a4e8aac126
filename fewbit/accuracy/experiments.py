"""The experiments of the accuracy campaign: what is trained or converted, on what, in which order.

An `Experiment` is one model of one number system on one `Recipe`; all models of a recipe share
data, size, batches and number of epochs, so that they differ by their numbers alone. To add one
takes an entry of `EXPERIMENTS`; what it is compared with is in `fewbit.accuracy.claims`.

Two set-ups are known for each: the campaign's, which two cores train in hours, and "paper", the
literature's, for a GPU.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from fewbit.train.tasks import TASKS

__all__ = [
    "EXPERIMENTS",
    "RECIPES",
    "Experiment",
    "Job",
    "Recipe",
    "at_paper_size",
    "find_experiment",
    "folder_of",
    "jobs",
]


@dataclass(frozen=True)
class Recipe:
    """A task with the model's size and the training that all its experiments share.

    Parameters
    ----------
    name
        Its name, the first part of its experiments' names.
    title
        The task in words.
    task
        The task, a key of `fewbit.train.tasks.TASKS`.
    data
        Where its data are in the folder of all data.
    setup
        The task's set-up from which it starts.
    changes
        What differs from the set-up, ``NAME=VALUE``.
    sequences
        How many sequences of the test part golden runs, evenly spaced; None for all.
    keeps_models
        Whether models are kept in this project: the data's licence must let them be published.
    """

    name: str
    title: str
    task: str
    data: str
    setup: str
    changes: tuple[str, ...]
    sequences: int | None = None
    keeps_models: bool = False


@dataclass(frozen=True)
class Experiment:
    """A model of one number system.

    Parameters
    ----------
    recipe
        What it shares with others.
    scheme
        The scheme under which it is trained and its settings, as ``fewbit train --scheme`` takes
        them; empty for a model that is converted from a trained one.
    label
        The last part of its name.
    seeds
        How many seeds it is repeated with.
    changes
        What differs from the recipe, ``NAME=VALUE``.
    of, to
        Of a conversion: the label of the real model, and the number system into which it is
        converted, a key of `fewbit.golden.systems.SYSTEMS`.
    """

    recipe: Recipe
    label: str
    scheme: tuple[str, ...]
    seeds: int = 1
    changes: tuple[str, ...] = ()
    of: str = ""
    to: str = ""

    @property
    def name(self) -> str:
        """Return the name, such as "war_and_peace/ternary"."""
        return f"{self.recipe.name}/{self.label}"

    @property
    def source(self) -> str:
        """Return the name of the experiment whose model is converted; empty for none."""
        return f"{self.recipe.name}/{self.of}" if self.of else ""


def folder_of(name: str, seed: int) -> str:
    """Return the folder of an experiment with a seed, below the campaign's."""
    return f"{name}/seed{seed}"


@dataclass(frozen=True)
class Job:
    """An experiment with one seed."""

    experiment: Experiment
    seed: int

    @classmethod
    def of(cls, text: str) -> "Job":
        """Return the job that a text stands for."""
        given = json.loads(text)
        experiment, recipe = given["experiment"], given["experiment"]["recipe"]
        recipe["changes"] = tuple(recipe["changes"])
        for name in ("scheme", "changes"):
            experiment[name] = tuple(experiment[name])
        return cls(Experiment(**experiment | {"recipe": Recipe(**recipe)}), given["seed"])

    def __str__(self) -> str:
        """Return a text that stands for the job, for another process."""
        return json.dumps(asdict(self))

    @property
    def settings(self) -> str:
        """Return a text of all that its model follows from but the data."""
        own, recipe = self.experiment, self.experiment.recipe
        changes = [*recipe.changes, *own.changes]
        settings = [recipe.task, recipe.setup, changes, own.scheme, own.source, own.to, self.seed]
        return json.dumps(settings)

    @property
    def folder(self) -> str:
        """Return its folder below the campaign's."""
        return folder_of(self.experiment.name, self.seed)


_WAR_AND_PEACE = Recipe(
    "war_and_peace",
    "War and Peace, characters",
    "characters",
    "war_and_peace/war_and_peace.txt",
    "small",
    # Small batches and a high rate: a few epochs then do what dozens of the literature's do.
    ("batch=16", "epochs=8", "last_rate=0.001"),
    keeps_models=True,
)
_TUNING = Recipe(
    "tuning",
    "War and Peace, characters, 2 epochs",
    "characters",
    "war_and_peace/war_and_peace.txt",
    "small",
    ("batch=16", "epochs=2", "last_rate=0.001"),
    sequences=640,
)
_UDPOS = Recipe("udpos", "UDPOS, tags of words", "tagging", "udpos", "paper", ())
_MNIST = Recipe("mnist_rows", "MNIST by rows", "mnist_rows", "mnist", "paper", ("epochs=15",))
_DIGITS = Recipe(
    "spoken_digits", "Spoken digits", "spoken_digits", "spoken_digits/fsdd_mfcc.npz", "large", ()
)
_WORDS = Recipe(
    "wikitext2",
    "WikiText-2, 10,000 words",
    "words",
    "wikitext-2",
    "paper",
    ("vocabulary=10000", "epochs=4", "learning_rate=20", "last_rate=1"),
)
RECIPES = (_WAR_AND_PEACE, _TUNING, _UDPOS, _MNIST, _DIGITS, _WORDS)
"""All recipes."""


def _rate(rate: float) -> tuple[str, ...]:
    """Return the change of a set-up to a learning rate."""
    return (f"learning_rate={rate:g}",)


_FLOAT = ("float",)
_FLOAT_WEIGHT = ("float", "norm=weight")
_FLOAT_BATCH = ("float", "norm=batch")
_FLOATSD8 = ("floatsd8",)
_TERNARY_BATCH = ("ternary", "rule=ardakani_ternary", "sampled=true", "norm=batch")
_BINARY_BATCH = ("binary", "rule=ardakani_binary", "sampled=true", "norm=batch")
_NO_NORM = "norm=none"

# From short runs the learning rate of the long ones is taken, by the validation data.
_RATES = (
    ("float", _FLOAT, (0.005, 0.01, 0.02)),
    ("floatsd8", _FLOATSD8, (0.01, 0.02)),
    ("float_weight_norm", _FLOAT_WEIGHT, (0.01, 0.02, 0.04)),
    ("ternary", ("ternary",), (0.01, 0.02, 0.04, 0.08)),
    ("binary", ("binary",), (0.02, 0.04)),
)

# What each choice of FloatSD8 training costs, beside floatsd8_0.01. In the first design the scores'
# gradients were e5m2, too; where nothing else is said, the other choices are tried on that one.
_FIRST = "last_gradient=e5m2"
_ABLATIONS = (
    ("first_design", (_FIRST,)),
    ("all_binary32", ("gradient=binary32", "last_gradient=binary32", "master=binary32")),
    ("gradient_binary16", ("gradient=binary16",)),
    ("weight_gradient_binary16", ("weight_gradient=binary16", _FIRST)),
    ("activation_gradient_binary16", ("gradient=binary16", "weight_gradient=e5m2")),
    ("master_binary32", ("master=binary32", _FIRST)),
    ("master_stochastic", ("rounding=stochastic", _FIRST)),
    ("loss_scale_1", ("loss_scale=1", _FIRST)),
    ("loss_scale_1024", ("loss_scale=1024", _FIRST)),
    ("last_real", ("last=real",)),
    ("signed_digits", ("update=signed_digits", _FIRST)),
)
_CHARACTER_MODELS = (
    ("float", _FLOAT, 3, 0.01),
    ("floatsd8", _FLOATSD8, 3, 0.01),
    ("float_weight_norm", _FLOAT_WEIGHT, 3, 0.04),
    ("ternary", ("ternary",), 3, 0.04),
    ("binary", ("binary",), 3, 0.04),
    ("int8", ("int8",), 3, 0.01),
)
_MORE_CHARACTER_MODELS = (
    ("binary_no_norm", ("binary", "rule=ott_binary", _NO_NORM), 1, 0.01),
    ("ternary_no_norm", ("ternary", "rule=ott_ternary", _NO_NORM), 1, 0.01),
    ("pow2_ternary_no_norm", ("ternary", "rule=power_of_two", _NO_NORM), 1, 0.01),
    ("exponential_no_norm", ("exponential", _NO_NORM), 1, 0.01),
    ("float_batch_norm", _FLOAT_BATCH, 1, 0.01),
    ("ternary_batch_norm", _TERNARY_BATCH, 1, 0.01),
    ("binary_batch_norm", _BINARY_BATCH, 1, 0.01),
    ("exponential", ("exponential",), 1, 0.04),
    ("pow2_ternary", ("ternary", "rule=power_of_two"), 1, 0.04),
)

EXPERIMENTS = (
    *(
        Experiment(_TUNING, f"{label}_{rate:g}", scheme, changes=_rate(rate))
        for label, scheme, rates in _RATES
        for rate in rates
    ),
    Experiment(_TUNING, "converted", (), of="float_0.01", to="floatsd8"),
    *(
        Experiment(_TUNING, label, (*_FLOATSD8, *settings), changes=_rate(0.01))
        for label, settings in _ABLATIONS
    ),
    *(
        Experiment(_WAR_AND_PEACE, label, scheme, seeds, _rate(rate))
        for label, scheme, seeds, rate in _CHARACTER_MODELS
    ),
    Experiment(_WAR_AND_PEACE, "int8_converted", (), 3, of="float", to="int8"),
    Experiment(_UDPOS, "float", _FLOAT, 3),
    Experiment(_UDPOS, "floatsd8", _FLOATSD8, 3),
    Experiment(_UDPOS, "int8_converted", (), 3, of="float", to="int8"),
    Experiment(_UDPOS, "floatsd8_converted", (), 3, of="float", to="floatsd8"),
    Experiment(_UDPOS, "int8", ("int8",), 3),
    Experiment(_MNIST, "float", _FLOAT, 3),
    Experiment(_MNIST, "floatsd8", _FLOATSD8, 3),
    Experiment(_MNIST, "int8_converted", (), 3, of="float", to="int8"),
    Experiment(_MNIST, "int8", ("int8",), 3),
    Experiment(_MNIST, "float_weight_norm", _FLOAT_WEIGHT, 3),
    Experiment(_MNIST, "ternary", ("ternary",), 3),
    Experiment(_MNIST, "binary", ("binary",), 3),
    Experiment(_MNIST, "float_batch_norm", _FLOAT_BATCH),
    Experiment(_MNIST, "ternary_batch_norm", _TERNARY_BATCH),
    Experiment(_MNIST, "binary_batch_norm", _BINARY_BATCH),
    Experiment(_DIGITS, "float", _FLOAT, 3),
    Experiment(_DIGITS, "int8_converted", (), 3, of="float", to="int8"),
    Experiment(_DIGITS, "floatsd8", _FLOATSD8),
    *(
        Experiment(_WAR_AND_PEACE, label, scheme, seeds, _rate(rate))
        for label, scheme, seeds, rate in _MORE_CHARACTER_MODELS
    ),
    Experiment(_WAR_AND_PEACE, "floatsd8_converted", (), 3, of="float", to="floatsd8"),
    Experiment(_WORDS, "float", _FLOAT),
    Experiment(_WORDS, "floatsd8", _FLOATSD8),
)
"""All experiments in the order in which a campaign takes them, each once; then the other seeds."""


_BY_NAME = {each.name: each for each in EXPERIMENTS}


def find_experiment(name: str) -> Experiment:
    """Return the experiment of a name.

    Raises
    ------
    KeyError
        If there is none.
    """
    return _BY_NAME[name]


def jobs() -> list[Job]:
    """Return all jobs in order: every experiment once, then with the second seed, and so on."""
    most = max(each.seeds for each in EXPERIMENTS)
    return [Job(each, seed) for seed in range(most) for each in EXPERIMENTS if seed < each.seeds]


def at_paper_size(some: Iterable[Job]) -> list[Job]:
    """Return jobs with the literature's set-ups, for a GPU; short runs are left out."""
    found: list[Job] = []
    for job in some:
        recipe = replace(job.experiment.recipe, setup="paper", changes=())
        if job.experiment.recipe != _TUNING and "paper" in TASKS[recipe.task].setups:
            found.append(
                replace(job, experiment=replace(job.experiment, recipe=recipe, changes=()))
            )
    return found
