"""Studies of the accuracy campaign's models: their circuits, and precision chosen per step.

``python -m examples.accuracy_studies circuits --data DATA`` runs a trained model of each number
system through the generated layer and compares every hidden code with golden's; ``precision``
measures what LOW steps cost by each signal. Each writes a file of JSON lines.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fewbit.accuracy.circuit import circuit_row
from fewbit.accuracy.experiments import Recipe, find_experiment, folder_of
from fewbit.accuracy.measure import MODEL
from fewbit.accuracy.precision import precision_rows
from fewbit.errors import write_text

# One of each kind of weights; their codes are more than 10^6 in all.
_CIRCUITS = (
    "war_and_peace/floatsd8",
    "war_and_peace/floatsd8_converted",
    "war_and_peace/ternary",
    "war_and_peace/pow2_ternary",
    "war_and_peace/ternary_batch_norm",
    "war_and_peace/binary",
    "war_and_peace/exponential",
    "war_and_peace/int8",
    "war_and_peace/int8_converted",
)
_SEQUENCES = 12
# The int8 models, and the number of test sequences; None for all.
_PRECISION = {
    "war_and_peace/int8_converted": 320,
    "spoken_digits/int8_converted": None,
    "udpos/int8_converted": None,
}


def _models(names: Iterable[str], models: Path) -> Iterator[tuple[str, Recipe, Path]]:
    """Yield name, recipe and file of each model that there is, of the first seed."""
    for name in names:
        model = models / folder_of(name, 0) / MODEL
        if model.exists():
            yield name, find_experiment(name).recipe, model
        else:
            print(f"{name}: no model in '{model.parent}'")


def _circuits(models: Path, data: Path) -> Iterator[dict[str, Any]]:
    for name, recipe, model in _models(_CIRCUITS, models):
        start = time.perf_counter()
        row = circuit_row(model, recipe.task, data / recipe.data, _SEQUENCES)
        seconds = time.perf_counter() - start
        print(f"{name}: {row['differing']} of {row['codes']:,} codes differ, {seconds:,.0f} s")
        yield {"experiment": name, "seed": 0, **row}


def _precision(models: Path, data: Path) -> Iterator[dict[str, Any]]:
    for name, recipe, model in _models(_PRECISION, models):
        place, sequences = data / recipe.data, _PRECISION[name]
        for row in precision_rows(model, recipe.task, place, sequences=sequences, progress=print):
            yield {"experiment": name, **row}


_STUDIES = {"circuits": _circuits, "precision": _precision}


def main() -> int:
    """Run a study; exit status 1 if a circuit's code differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("study", choices=tuple(_STUDIES))
    parser.add_argument("--data", type=Path, required=True, help="folder of all data")
    parser.add_argument(
        "--models", type=Path, default=Path("build/accuracy"), help="folder of the campaign"
    )
    parser.add_argument("--out", type=Path, help="file of the rows; default MODELS/STUDY.jsonl")
    options = parser.parse_args()
    rows = list(_STUDIES[options.study](options.models, options.data))
    target = options.out or options.models / f"{options.study}.jsonl"
    write_text(target, "".join(f"{json.dumps(row)}\n" for row in rows))
    print(target)
    return 1 if any(row.get("differing") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
