"""Take a campaign's results over into the project: results, models and logs, tables of the manual.

``python -m examples.accuracy_publish --campaign build/accuracy`` does. Models and logs are taken
of the first seed, and where the data's licence lets them be published.
"""

import argparse
import json
import sys
from pathlib import Path

import fewbit.accuracy
from examples import accuracy_tables
from fewbit.accuracy.experiments import EXPERIMENTS, Experiment, folder_of
from fewbit.accuracy.measure import MODEL
from fewbit.accuracy.results import RESULTS, read_results
from fewbit.errors import write_bytes, write_text

MODELS = Path(__file__).parent / "accuracy"
_PACKAGE = Path(fewbit.accuracy.__file__).parent


def publish(campaign: Path) -> int:
    """Copy what is published, and return the number of models.

    Parameters
    ----------
    campaign
        The folder of the campaign.
    """
    rows = read_results(campaign / RESULTS)
    write_text(_PACKAGE / RESULTS, "".join(f"{json.dumps(row)}\n" for row in rows))
    for study in ("circuits", "precision"):
        file = campaign / f"{study}.jsonl"
        if file.exists():
            write_bytes(_PACKAGE / file.name, file.read_bytes())
    done = {row["experiment"] for row in rows if row["seed"] == 0}
    taken = [each for each in EXPERIMENTS if each.name in done and each.recipe.keeps_models]
    return sum(_copied(campaign, each) for each in taken)


def _copied(campaign: Path, experiment: Experiment) -> bool:
    """Copy a model, if there is one, and its log without the place where the data were."""
    source, target = (root / folder_of(experiment.name, 0) for root in (campaign, MODELS))
    log = source / "log.jsonl"
    if log.exists():
        first, *others = log.read_text("utf-8").splitlines()
        plan = json.loads(first) | {"data": experiment.recipe.data}
        write_text(target / log.name, "".join(f"{x}\n" for x in (json.dumps(plan), *others)))
    if (source / MODEL).exists():
        write_bytes(target / MODEL, (source / MODEL).read_bytes())
        return True
    return False


def main() -> int:
    """Publish a campaign's results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--campaign", type=Path, default=Path("build/accuracy"))
    options = parser.parse_args()
    if not (options.campaign / RESULTS).exists():
        parser.error(f"'{options.campaign}' has no {RESULTS}; give the folder of a campaign.")
    print(f"{publish(options.campaign)} models in {MODELS}")
    accuracy_tables.write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
