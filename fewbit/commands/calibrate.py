"""``fewbit calibrate``: finds where 4 bits of an int8 model's weights are enough."""

import argparse
from pathlib import Path
from typing import Any, get_args

from fewbit.arrays import read_array
from fewbit.calibration import calibrate_network, row_of, tries
from fewbit.commands.arguments import Command, add_json, count, real
from fewbit.commands.display import console, progress, table_of, write_json
from fewbit.commands.models import (
    add_model,
    enough_memory,
    layers_in_words,
    open_network,
)
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.lstm.int8 import ALWAYS_HIGH, PrecisionSignal
from fewbit.models import archive_target, save_model
from fewbit.sim.verilog import generator_version

__all__ = ["COMMAND"]


def _add_arguments(command: argparse.ArgumentParser) -> None:
    add_model(command, "quantised int8 .npz or .tflite")
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="X.npy",
        help="raws of shape (batch, time, inputs), of the training data",
    )
    command.add_argument("--real", action="store_true", help="X.npy holds real numbers")
    command.add_argument(
        "--tolerance",
        type=real,
        metavar="STEPS",
        help="largest rms deviation of the output from that with all 8 bits, default 0",
    )
    command.add_argument(
        "--share",
        type=real,
        help="instead: smallest share of steps with 4 bits, from 0 to 1, at the least deviation",
    )
    command.add_argument(
        "--group",
        type=count,
        default=1,
        help="neighbouring units that share a mode, as many as the circuit has neurons; default 1",
    )
    command.add_argument(
        "--signal",
        choices=get_args(PrecisionSignal),
        default="cell_change",
        help="what is compared with the threshold: the change of the cell (default), after Silfa"
        " et al., or the output gate",
    )
    command.add_argument(
        "--no-offsets", action="store_true", help="for a circuit without the offsets' memory"
    )
    command.add_argument(
        "--activation", choices=get_args(ActivationKind), help="in place of the model's own"
    )
    command.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    add_json(command)


def _run(options: argparse.Namespace) -> int:
    target = archive_target(options.out)
    network = open_network(options)
    x = read_array(options.data)
    with (
        progress("Calibrating", tries(network)) as advance,
        enough_memory("calibrate with fewer"),
    ):
        found = calibrate_network(
            network,
            x,
            name=f"'{options.model}'",
            tolerance=options.tolerance,
            share=options.share,
            group=options.group,
            signal=options.signal,
            offsets=not options.no_offsets,
            real=options.real,
            done=advance,
        )
        save_model(target, found.network, options.model)
    rows: list[dict[str, Any]] = []
    table = table_of(
        "layer", "threshold", "hold", "4 bits", "speed-up", "rms loss", "chosen", right=0
    )
    for layer, (curve, chosen) in enumerate(zip(found.curves, found.chosen, strict=True)):
        table.add_section()
        for point in curve:
            rows.append(row_of(layer, point, chosen=point == chosen))
            table.add_row(
                str(layer),
                str(point.threshold),
                "all 8 bits" if point.hold == ALWAYS_HIGH else str(point.hold),
                f"{point.low_share:.1%}",
                f"{point.speed_up:.2f}",
                f"{point.loss:.2f}",
                "yes" if point == chosen else "",
                style="bold" if point == chosen else None,
            )
    table.caption = "4 bits: share of units' steps; rms loss: of the output, in its raws"
    console().print(table)
    print(f"{target}: {layers_in_words(found.network)}, {len(x)} sequences of {x.shape[1]} steps")
    write_json(options.json, generator_version(), rows)
    return 0


COMMAND = Command(
    "calibrate", "find where 4 bits of an int8 model's weights do", _add_arguments, _run
)
