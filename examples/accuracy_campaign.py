"""Train and measure the models of the accuracy campaign, as far as the time goes; then go on.

``make accuracy`` runs this; it needs PyTorch. Results are in ``results.jsonl`` of the campaign's
folder; ``fewbit reproduce accuracy --results`` shows them beside the papers' claims.
"""

import argparse
import signal
import sys
from pathlib import Path

from fewbit.accuracy.campaign import Campaign
from fewbit.accuracy.experiments import RECIPES, at_paper_size, jobs


def main() -> int:
    """Run the campaign; exit status 1 if jobs are left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of all data")
    parser.add_argument("--out", type=Path, default=Path("build/accuracy"))
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after so many")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a thread each")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="experiments, or recipes"
    )
    parser.add_argument("--seeds", type=int, default=3, help="at most so many seeds each")
    parser.add_argument(
        "--setup", choices=("campaign", "paper"), default="campaign", help="paper: for a GPU"
    )
    options = parser.parse_args()
    names = {job.experiment.name for job in jobs()} | {recipe.name for recipe in RECIPES}
    for name in options.only:
        if name not in names:
            parser.error(f"there is no experiment '{name}'; there are {', '.join(sorted(names))}.")
    if not options.data.is_dir():
        parser.error(f"'{options.data}' is no folder; give that of the data, as docs/accuracy.md.")
    chosen = [
        job
        for job in jobs()
        if job.seed < options.seeds
        and (
            not options.only or {job.experiment.name, job.experiment.recipe.name} & {*options.only}
        )
    ]
    if options.setup == "paper":
        chosen = at_paper_size(chosen)

    def tell(line: str) -> None:
        print(line, flush=True)

    # As an interrupt by hand: trainings write checkpoints and end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    campaign = Campaign(
        chosen, options.data, options.out, options.seconds, options.jobs, options.device, tell
    )
    try:
        left = campaign.run()
    except KeyboardInterrupt:
        tell("Interrupted; the same command goes on.")
        return 130
    tell(f"{len(chosen) - len(left)} of {len(chosen)} jobs done; {campaign.results}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
