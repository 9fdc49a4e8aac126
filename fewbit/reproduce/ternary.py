"""Reproduction of arXiv 1809.11086: circuits for ternary and binary weights."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from fewbit.activity import measure_activity
from fewbit.golden.arithmetic import Raws
from fewbit.golden.lstm.ternary import LevelKind
from fewbit.golden.neuron.ternary import LaneWeights
from fewbit.golden.quantize.ternary import ardakani_binary, normalized_ternary
from fewbit.hdl.designs import find
from fewbit.reproduce.claims import (
    Finding,
    Measurement,
    Options,
    Paper,
    Settings,
    command,
    ratio,
    with_goal,
)
from fewbit.reproduce.few_bit import (
    BASELINES,
    KINDS,
    MAC,
    MACS,
    STANDING,
    Kind,
)
from fewbit.reproduce.few_bit_layers import LAYER_SIZE, LAYERS, compare_layers, compare_memory
from fewbit.sim.gate_level import Delay
from fewbit.synthesis import Mapped, map_to_cells, synthesize

__all__ = ["PAPER", "compare_units"]

_NOT_THE_PAPERS = "not the paper's"
_WIDTH = 12


def _measurements(options: Options) -> Sequence[Measurement]:
    layers = [partial(compare_layers, name, each, LAYER_SIZE) for name, each in LAYERS.items()]
    return [*compare_units((16, 4, 1), options.liberty), compare_memory, *layers, _accuracy]


def compare_units(
    lanes: Sequence[int], liberty: Path | None = None, runs: int = 256
) -> Sequence[Measurement]:
    """Return measurements of ternary and binary units against the 12-bit one.

    Parameters
    ----------
    lanes
        Numbers of lanes of the units. Only units of the first number are counted, and measured on
        FPGAs, in a process and for their switching activity.
    liberty
        Liberty file of a process in which areas are measured as well.
    runs
        Number of sequences of four rows on which the switching activity is measured.
    """
    most = lanes[0]

    @cache
    def cells(design: str, number: int, structure: str = "gates") -> Mapped:
        return map_to_cells(find(design).configure({"lanes": number, "structure": structure}))

    def area(design: str, number: int, structure: str = "gates") -> float:
        return float(cells(design, number, structure).figures["area_ge"])

    def both(kind: Kind, number: int, structure: str) -> dict[str, float]:
        return {
            MAC: area(MAC, number, structure),
            kind.design: area(kind.design, number),
        }

    def how(kind: Kind, number: int, structure: str) -> str:
        own: Settings = {"lanes": number}
        return (
            f"{command('synth', MAC, own | {'structure': structure})};"
            f" {command('synth', kind.design, own)}"
        )

    def in_gates(number: int) -> list[Finding]:
        rows = [
            (
                kind,
                ratio(
                    f"area, {baseline} over {kind.weights} unit, {_lanes(number)}",
                    kind.area,
                    both(kind, number, structure),
                    "GE",
                    STANDING,
                    how(kind, number, structure),
                ),
            )
            for structure, baseline in BASELINES.items()
            for kind in KINDS
        ]
        return [with_goal(row, kind.area_goal) if number == most else row for kind, row in rows]

    def how_many() -> list[Finding]:
        rows: list[Finding] = []
        for structure, baseline in BASELINES.items():
            for kind in KINDS:
                of_mac, of_kind = both(kind, most, structure).values()
                row = Finding(
                    f"{kind.weights} units in the area of {MACS} of {baseline}, {_lanes(most)}",
                    kind.units,
                    MACS * of_mac / of_kind,
                    "units",
                    STANDING,
                    how(kind, most, structure),
                    note="all units take a product a lane and cycle: as many times the speed",
                )
                rows.append(row)
        return rows

    def on_fpga(target: str, name: str) -> list[Finding]:
        settings: Settings = {"lanes": most, "structure": "fpga"}
        designs = (MAC, *(kind.design for kind in KINDS))
        found = {each: synthesize(find(each).configure(settings), target) for each in designs}
        rows: list[Finding] = []
        for kind in KINDS:
            row = ratio(
                f"LUTs on {name}, 12-bit MAC over {kind.weights} unit, {_lanes(most)}",
                None,
                {each: found[each]["luts"] for each in (MAC, kind.design)},
                "LUT4",
                _NOT_THE_PAPERS,
                command("synth", f"{MAC} {kind.design}", settings, f"--target {target}"),
                "carry cells beside the LUTs, in neither side's count; no DSP blocks",
            )
            carries = {f"{each} carries": found[each]["carries"] for each in (MAC, kind.design)}
            row.figures.update(carries)
            rows.append(row)
        return rows

    def in_process() -> list[Finding]:
        assert liberty is not None
        settings: Settings = {"lanes": most}

        def measured(design: str) -> float:
            return float(
                synthesize(find(design).configure(settings), "liberty", liberty=liberty)["area"]
            )

        of_mac = measured(MAC)
        return [
            ratio(
                f"area, {BASELINES['gates']} over {kind.weights} unit, {_lanes(most)},"
                f" in {liberty.stem}",
                kind.area,
                {MAC: of_mac, kind.design: measured(kind.design)},
                "area",
                STANDING,
                command(
                    "synth",
                    f"{MAC} {kind.design}",
                    settings,
                    f"--target liberty --liberty {liberty}",
                ),
            )
            for kind in KINDS
        ]

    def power(delay: Delay) -> list[Finding]:
        figures: dict[str, float] = {}
        units: dict[str, LevelKind] = {MAC: "int12"}
        units |= {kind.design: kind.weights for kind in KINDS}
        for design, weights in units.items():
            codes = _rows(most, runs, weights)
            figures[design] = measure_activity(cells(design, most), codes, delay).with_clock
        return [
            ratio(
                f"power, {BASELINES['gates']} over {kind.weights} unit: {delay}-delay toggles,"
                f" with clock, {_lanes(most)}",
                kind.power,
                {each: figures[each] for each in (MAC, kind.design)},
                "GE a beat",
                STANDING,
                "fewbit reproduce ternary",
                f"a proxy: {4 * runs} random rows of {_BEATS} beats",
            )
            for kind in KINDS
        ]

    measurements: list[Measurement] = [*(partial(in_gates, number) for number in lanes), how_many]
    if liberty is not None:
        measurements.append(in_process)
    measurements += [partial(on_fpga, "ice40", "iCE40"), partial(on_fpga, "ecp5", "ECP5")]
    return [*measurements, partial(power, "zero"), partial(power, "unit")]


_BEATS = 11
"""Number of beats of a row: with 16 lanes 176 products, for 48 inputs and 128 hidden values."""


def _rows(lanes: int, runs: int, weights: LevelKind) -> dict[str, Raws]:
    """Return the codes of runs of four rows each: the same random weights for every unit.

    The weights are normal and quantised for each unit, the activations are tanh of normals, and the
    sums start from 0.
    """
    rng = np.random.default_rng(3)
    shape = runs, 4 * _BEATS, lanes
    reals = rng.normal(size=shape)
    activations = np.tanh(rng.normal(size=shape))
    highest = (1 << (_WIDTH - 1)) - 1
    if weights == "int12":
        # Five deviations fill the range; one normal in two million is larger.
        levels = np.rint(reals * (highest / 5)).clip(-highest, highest).astype(np.int64)
    else:
        rule = ardakani_binary if weights == "binary" else normalized_ternary
        levels = rule(reals).levels
    beat = np.broadcast_to(np.arange(4 * _BEATS) % _BEATS, shape[:2])
    return {
        "weights": LaneWeights(lanes, weights).codes(levels),
        "activations": np.rint(activations * highest).astype(np.int64) & (2 * highest + 1),
        "accumulator": np.zeros(shape[:2], np.int64),
        "first": (beat == 0).astype(np.int64),
        "last": (beat == _BEATS - 1).astype(np.int64),
    }


def _lanes(number: int) -> str:
    return f"{number} lane{'s' * (number > 1)}"


def _accuracy() -> list[Finding]:
    return [
        Finding(
            f"accuracy of {kind.weights} weights close to that of full precision",
            None,
            None,
            "",
            "checked, through Hou et al., NeurIPS 2019: bits per character of War and Peace"
            f" {figure} against 1.72",
            "python -m examples.japanese_vowels.recognise",
            note="measured on this project's example, not on the paper's tasks",
        )
        for kind, figure in zip(KINDS, ("1.72", "1.78"), strict=True)
    ]


PAPER = Paper(
    "ternary", "Learning Recurrent Binary/Ternary Weights, arXiv 1809.11086", _measurements
)
