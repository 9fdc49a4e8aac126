"""Reproduction of arXiv 2001.08450: multiply-accumulate units with FloatSD8 weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.activity import check_process, encode_operands, measure_activity
from fewbit.arrays import read_array
from fewbit.errors import UsageError
from fewbit.golden.formats import FLOATSD8
from fewbit.hdl.design import Design
from fewbit.hdl.designs import find
from fewbit.reproduce.claims import Finding, Measurement, Options, Paper, ratio
from fewbit.sim.gate_level import Delay
from fewbit.synthesis import Mapped, map_to_cells, plain_gates, synthesize

__all__ = ["PAPER", "Operands", "compare_macs", "lstm_rows", "read_operands"]

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Operands:
    """Real operands of a multiply-accumulate unit, in the order of its beats."""

    weights: Reals
    """Shape (runs, beats, products)."""
    activations: Reals
    """Shape (runs, beats, products)."""
    accumulator: Reals
    """The sum before each beat, shape (runs, beats)."""
    origin: str
    """The origin of the operands, in words."""
    option: str = ""
    """The option of the command line that selects these operands."""


def lstm_rows(rows: int, beats: int, products: int, seed: int) -> Operands:
    """Return random rows of an LSTM's pre-activations, each a run.

    Weights are normal with standard deviation 0.3, activations are tanh of standard normals, the
    start value is normal with standard deviation 0.5, and the accumulator is the exact running sum.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.3, (rows, beats, products))
    activations = np.tanh(rng.normal(0, 1, (rows, beats, products)))
    start = rng.normal(0, 0.5, (rows, 1))
    sums = np.cumsum((weights * activations).sum(axis=2), axis=1)
    accumulator = start + np.concatenate([np.zeros((rows, 1)), sums[:, :-1]], axis=1)
    origin = f"{rows} random LSTM rows of {beats} beats, seed {seed}"
    return Operands(weights, activations, accumulator, origin)


def read_operands(path: Path) -> Operands:
    """Read operands from an ``.npy`` file of reals, shape (runs, beats, 2 · products + 1).

    A beat's values are its weights, its activations, and the accumulator before it. Weights are
    scaled by a power of two to FloatSD8's range of ±2.25, and activations by its inverse. Long runs
    are cut into pieces of 64 beats; beyond 16,384 beats, only evenly spaced pieces are used.

    Raises
    ------
    UsageError
        If the file holds anything else.
    """
    array = read_array(path).astype(np.float64)
    values = array.shape[2]
    if values % 2 == 0 or not 3 <= values <= 33:
        raise UsageError(
            f"'{path}' must hold 2 n + 1 values a beat, n weights, n activations and the"
            f" accumulator, n from 1 to 16, not {values}."
        )
    if not np.isfinite(array).all():
        raise UsageError(f"'{path}' must hold finite numbers; it holds others.")
    products = values // 2
    largest = float(np.abs(array[..., :products]).max())
    if largest > FLOATSD8.largest:
        raise UsageError(
            f"Weights in '{path}' must be within ±{FLOATSD8.largest}, not {largest:.3g}; scale them"
            " by a power of two and the activations back."
        )
    # The simulation takes a step for each beat of a run, and all runs at once.
    length = min(array.shape[1], _LONGEST_RUN)
    pieces = array.shape[1] // length
    runs = array[:, : pieces * length].reshape(-1, length, values)
    kept = min(len(runs), max(_MOST_BEATS // length, 1))
    runs = runs[np.arange(kept) * len(runs) // kept]
    return Operands(
        runs[..., :products],
        runs[..., products:-1],
        runs[..., -1],
        f"{path.name}, {kept} runs of {length} beats",
        f" --operands {path}",
    )


_AREA_CLAIM = 26_661 / 3_479
"""FP32 over FloatSD8 MAC in square micrometres at 40 nm; the paper's headline rounds it to 7.66."""
_POWER_CLAIM = 2.920 / 0.508
_RECALLED = "reported; headline recalled"
_FPNEW = {
    "FPnew FP32 multiply-accumulate": (9_779, "NaN and infinities"),
    "FPnew FP8 × FP8 + FP16 multiply-accumulate": (2_170, "NaN, infinities and other formats"),
}
"""Combinational gate equivalents of one product, measured as :func:`plain_gates` does, and the
features that only the other unit has."""
_LONGEST_RUN = 64
_MOST_BEATS = 16_384


def _floatsd8(options: Options) -> Sequence[Measurement]:
    operands = read_operands(options.operands) if options.operands else lstm_rows(256, 44, 4, 3)
    return compare_macs(find("fp32_mac"), find("floatsd8_mac"), operands, options.liberty)


def compare_macs(
    baseline: Design, unit: Design, operands: Operands, liberty: Path | None
) -> Sequence[Measurement]:
    """Return the measurements of the FloatSD8 paper's claims, for a unit and its baseline."""
    if liberty is not None:
        check_process(liberty)
    mapped: dict[tuple[str, Path | None, int | None], Mapped] = {}
    names = f"{baseline.name} {unit.name}"

    def mapped_once(design: Design, process: Path | None, products: int | None = None) -> Mapped:
        """Return a design mapped to cells, with so many products or, if None, its default."""
        is_default = products == design.configure().parameters["products"]
        key = design.name, process, None if is_default else products
        if key not in mapped:
            settings = {"products": products} if key[2] else {}
            mapped[key] = map_to_cells(design.configure(settings), process)
        return mapped[key]

    def area_in_gates() -> list[Finding]:
        figures = [mapped_once(design, None).figures for design in (baseline, unit)]
        whole, logic = (
            {
                design.name: float(row[name])
                for design, row in zip((baseline, unit), figures, strict=True)
            }
            for name in ("area_ge", "combinational_ge")
        )
        how = f"fewbit synth {names}"
        ours = "not the paper's"
        return [
            ratio("area, FP32 over FloatSD8 MAC", _AREA_CLAIM, whole, "GE", _RECALLED, how),
            ratio("the same without flip-flops", None, logic, "GE", ours, how),
            *recoded(whole[unit.name]),
        ]

    def recoded(of_unit: float) -> list[Finding]:
        """Return the baseline's area with multipliers of recoded digits, for wide significands."""
        if "multiplier" not in {parameter.name for parameter in baseline.parameters}:
            return []
        row = map_to_cells(baseline.configure({"multiplier": "booth"})).figures
        areas = {baseline.name: float(row["area_ge"]), unit.name: of_unit}
        claim = "area, FP32 with Booth multipliers over FloatSD8 MAC"
        how = f"fewbit synth {baseline.name} --set multiplier=booth"
        return [ratio(claim, _AREA_CLAIM, areas, "GE", _RECALLED, how)]

    def area_in_process() -> list[Finding]:
        assert liberty is not None
        areas = {
            design.name: float(mapped_once(design, liberty).figures["area_ge"])
            for design in (baseline, unit)
        }
        how = f"fewbit synth {names} --target liberty --liberty {liberty}"
        claim = f"area, FP32 over FloatSD8 MAC, in {liberty.stem}"
        return [ratio(claim, _AREA_CLAIM, areas, "area", _RECALLED, how)]

    def area_on_fpga(target: str, name: str) -> list[Finding]:
        luts: dict[str, float] = {}
        carries: dict[str, float] = {}
        for design in (baseline, unit):
            row = synthesize(design.configure(), target)
            luts[design.name] = row["luts"]
            carries[f"{design.name} carries"] = row["carries"]
        row = ratio(
            f"LUTs on {name}, FP32 over FloatSD8 MAC",
            None,
            luts,
            "LUT4",
            "not the paper's",
            f"fewbit synth {names} --target {target}",
            "carry cells beside the LUTs, in neither side's count; no DSP blocks",
        )
        row.figures.update(carries)
        return [row]

    def power(process: Path | None, delay: Delay) -> list[Finding]:
        activities = {}
        for design in (baseline, unit):
            netlist = mapped_once(design, process, operands.weights.shape[2])
            contract = netlist.configured.contract
            flat = encode_operands(
                contract,
                operands.weights.reshape(-1, operands.weights.shape[2]),
                operands.activations.reshape(-1, operands.weights.shape[2]),
                operands.accumulator.reshape(-1),
            )
            shape = operands.accumulator.shape
            codes = {name: array.reshape(*shape, *array.shape[1:]) for name, array in flat.items()}
            activities[design.name] = measure_activity(netlist, codes, delay)
        unit_name = next(iter(activities.values())).unit
        where = f" in {process.stem}" if process else ""
        how = "fewbit reproduce floatsd8" + (f" --liberty {process}" if process else "")
        rows: list[Finding] = []
        for clock, name in ((False, "without"), (True, "with")):
            figures = {
                design: value.with_clock if clock else value.without_clock
                for design, value in activities.items()
            }
            row = ratio(
                f"power, FP32 over FloatSD8 MAC: {delay}-delay toggles{where}, {name} clock",
                _POWER_CLAIM,
                figures,
                f"{unit_name} a beat",
                _RECALLED,
                how + operands.option,
                f"a proxy: {operands.origin}",
            )
            rows.append(row)
        return rows

    def against_peers() -> list[Finding]:
        configured = unit.configure()
        area = plain_gates(configured) / int(configured.parameters["products"] or 1)
        return [
            ratio(
                f"area a product, {peer} over FloatSD8 MAC",
                None,
                {peer: float(theirs), unit.name: area},
                "GE of logic",
                "not the paper's; FPnew checked",
                "fewbit reproduce floatsd8",
                f"{peer.split()[0]}'s unit also handles {more}, and rounds after every product",
            )
            for peer, (theirs, more) in _FPNEW.items()
        ]

    measurements: list[Measurement] = [area_in_gates]
    if liberty is not None:
        measurements.append(area_in_process)
    measurements += [partial(area_on_fpga, "ice40", "iCE40"), partial(area_on_fpga, "ecp5", "ECP5")]
    measurements += [partial(power, None, "zero"), partial(power, None, "unit")]
    if liberty is not None:
        measurements += [partial(power, liberty, "zero"), partial(power, liberty, "unit")]
    return [*measurements, against_peers, _accuracy]


def _accuracy() -> list[Finding]:
    return [
        Finding(
            "accuracy close to that of FP32",
            None,
            None,
            "",
            "recalled, without the paper's figures",
            "python -m examples.japanese_vowels.recognise",
            note="measured on this project's example, not on the paper's tasks",
        )
    ]


PAPER = Paper(
    "floatsd8",
    "Low-Complexity LSTM Training and Inference with FloatSD8 Weight Representation,"
    " arXiv 2001.08450",
    _floatsd8,
)
