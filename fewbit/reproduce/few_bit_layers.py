"""Layers of ternary and binary weights beside one of 12-bit weights: memory, throughput."""

from collections.abc import Mapping
from dataclasses import dataclass

from fewbit.golden.accumulate.packing import BINARY_BYTES, TERNARY_BYTES, TERNARY_DENSE
from fewbit.golden.layer.contract import LayerContract
from fewbit.hdl.designs import find
from fewbit.reproduce.claims import Finding, Settings, command, with_goal
from fewbit.reproduce.few_bit import (
    BASELINES,
    KINDS,
    MACS,
    STANDING,
)
from fewbit.synthesis import synthesize

__all__ = ["LAYERS", "LAYER_SIZE", "Layers", "compare_layers", "compare_memory"]

_LAYER = "ternary_lstm_layer"

Layers = Mapping[str, Settings]
"""Settings of ternary_lstm_layer by the kind of its weights."""

LAYER_SIZE: Settings = {"inputs": 48, "hidden": 128}
_SIDE_BY_SIDE: Settings = {"gate_order": "side_by_side", "scales": "powers_of_two"}
LAYERS: Mapping[str, Layers] = {
    # The lanes that suit each kind of weights best, of those tried.
    "gates side by side, scales of powers of two": {
        "int12": _SIDE_BY_SIDE | {"lanes": 16},
        "ternary": _SIDE_BY_SIDE | {"lanes": 24},
        "binary": _SIDE_BY_SIDE | {"lanes": 24},
    },
    "gates in turn, 16 lanes each": {
        weights: {"lanes": 16} for weights in ("int12", "ternary", "binary")
    },
}
"""Groups of layers whose throughput at equal area is compared, by name."""

_MEMORY_SIZE: Settings = {"inputs": 83, "hidden": 512}
"""The paper's model of War and Peace: an alphabet of 83 characters, 512 hidden values."""

_LEFT_OUT = (
    "memories left out on both sides; cycles from the data sheets that fewbit generate writes with"
    " the same settings"
)


def compare_memory() -> list[Finding]:
    """Return the memory of weights, one by one, and in the layers' memories."""
    packings = (
        ("ternary weight, 2 bits each", TERNARY_BYTES, 6.0, "follows from 2 bits a ternary weight"),
        ("ternary weight, five in 8 bits", TERNARY_DENSE, 6.0, "the paper stores 2 bits a weight"),
        ("binary weight", BINARY_BYTES, 12.0, "checked, of its abstract: up to 12"),
    )
    each = [
        Finding(
            f"bits, 12-bit weight over {name}",
            paper,
            12 / packing.bits_per_weight,
            "×",
            standing,
            "python -m pytest tests/test_packing.py",
            {"12 bits": 12, "here, bits": packing.bits_per_weight},
        )
        for name, packing, paper, standing in packings
    ]
    each[1:] = [with_goal(each[1], 7.4), with_goal(each[2], 12)]
    layers: tuple[tuple[str, Settings], ...] = (
        ("ternary, 2 bits each", {"weights": "ternary", "lanes": 16}),
        ("ternary, five in 8 bits", {"weights": "ternary", "lanes": 20, "packing": "dense"}),
        ("binary", {"weights": "binary", "lanes": 16}),
    )
    return [*each, *(_layer_memory(name, settings) for name, settings in layers)]


def _layer_memory(name: str, settings: Settings) -> Finding:
    """Return a layer's memory of weights and start words, compared with that of 12-bit weights."""
    whole = _MEMORY_SIZE | settings
    baseline = _MEMORY_SIZE | {"weights": "int12", "lanes": settings["lanes"]}
    contracts = [find(_LAYER).configure(each).contract for each in (baseline, whole)]
    kilobytes: list[dict[str, float]] = []
    for contract in contracts:
        assert isinstance(contract, LayerContract)
        kilobytes.append(
            {
                section.name: section.words * section.word_bytes / 1000
                for section in contract.plan.sections
                if section.name in ("weights", "starts")
            }
        )
    of_mac, of_kind = (sum(each.values()) for each in kilobytes)
    return Finding(
        f"memory of weights and start words of a layer, 12-bit weights over {name}",
        None,
        of_mac / of_kind,
        "×",
        "not the paper's",
        command("generate", _LAYER, whole),
        {
            "12-bit weights, kB": kilobytes[0]["weights"],
            "weights, kB": kilobytes[1]["weights"],
            "start words of both, kB": kilobytes[1]["starts"],
        },
        "83 inputs and 512 hidden values, as the paper's model of War and Peace; every row has a"
        " bias and a scale in 8 bytes",
    )


def compare_layers(name: str, layers: Layers, size: Settings) -> list[Finding]:
    """Return the throughput at equal area of few-bit layers over that of 12-bit layers.

    Parameters
    ----------
    name
        Name of this group of layers, in words.
    layers
        Settings by the kind of weights, "int12" among them.
    size
        Settings that all layers share.
    """
    measured = {
        weights: _measure_layer(size | {"weights": weights} | settings)
        for weights, settings in layers.items()
    }
    rows: list[Finding] = []
    for structure, baseline in BASELINES.items():
        of_mac = measured["int12"]
        if structure == "plain":
            of_mac = _measure_layer(of_mac.settings | {"structure": structure})
        for kind in KINDS:
            of_kind = measured[kind.weights]
            row = Finding(
                f"throughput at equal area, {kind.weights} layer over that of {baseline}, {name}",
                kind.units / MACS,
                of_mac.area * of_mac.cycles / (of_kind.area * of_kind.cycles),
                "×",
                STANDING,
                f"{command('synth', _LAYER, of_kind.settings)};"
                f" {command('synth', _LAYER, of_mac.settings)}",
                {
                    "int12, GE": of_mac.area,
                    "int12, cycles of a step": of_mac.cycles,
                    f"{kind.weights}, GE": of_kind.area,
                    f"{kind.weights}, cycles of a step": of_kind.cycles,
                },
                _LEFT_OUT,
            )
            rows.append(with_goal(row, kind.throughput_goal))
    return rows


@dataclass(frozen=True)
class _Layer:
    """The area and the cycles of a layer."""

    settings: Settings
    area: float
    """Area in gate equivalents, without memories."""
    cycles: int
    """Number of cycles of a time step."""


def _measure_layer(settings: Settings) -> _Layer:
    configured = find(_LAYER).configure(settings)
    assert configured.cycles is not None
    area = synthesize(configured)["area_ge"]
    return _Layer(settings, float(area), configured.cycles.cycles)
