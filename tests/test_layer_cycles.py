"""Cycles of a layer's time step: what the data sheet says against the circuit."""

import dataclasses
import itertools

import pytest

from examples import layer_cycles
from examples.layer_cycles import measured
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.hdl.designs import find
from fewbit.hdl.layer import integer_cycles
from fewbit.hdl.layer.integer_cycles import step_cycles, update_of
from fewbit.layer_files import cycles_section

DESIGN = find("int8_lstm_layer")


def layer_of(settings):
    return DESIGN.configure(settings).contract


# What limits the step: the lanes, uneven rows, the update, the bytes of the vector.
EXACT = {
    "lanes": {"inputs": 9, "hidden": 8, "lanes": 1},
    "uneven-rows": {"inputs": 30, "hidden": 5, "lanes": 2, "structure": "fpga"},
    "update-with-padding": {
        "inputs": 2,
        "hidden": 5,
        "lanes": 2,
        "neurons": 3,
        "structure": "fpga",
        "cifg": 1,
        "peephole": 1,
        "projection": 3,
    },
    "several-neurons": {"inputs": 1, "hidden": 7, "lanes": 1, "neurons": 2, "cifg": 1},
    "bytes": {"inputs": 70, "hidden": 1, "lanes": 8, "structure": "fpga"},
}


@pytest.mark.long
@pytest.mark.parametrize("settings", EXACT.values(), ids=EXACT)
def test_cycles_are_those_of_the_circuit(settings):
    layer = layer_of(settings)
    step = step_cycles(layer, settings.get("structure", "gates"))
    found = measured(settings)
    assert step.is_exact
    assert (step.interval, step.last_byte) == (found["cycles"], found["last_byte"])


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"inputs": 3, "hidden": 5, "lanes": 1, "activation": "gemmlowp"},
        {"inputs": 2, "hidden": 5, "lanes": 1, "layer_norm": 1, "structure": "fpga"},
    ],
    ids=["gemmlowp", "layer-norm"],
)
def test_cycles_are_never_more_than_the_bound(settings):
    step = step_cycles(layer_of(settings), settings.get("structure", "gates"))
    found = measured(settings)
    assert not step.is_exact
    assert 0.8 * step.interval < found["cycles"] <= step.interval
    assert 0.8 * step.last_byte < found["last_byte"] <= step.last_byte


def test_the_sum_of_the_phases_is_the_step():
    variants = itertools.product((0, 1), (0, 1), (0, 1), (0, 4), (1, 3), ("table", "gemmlowp"))
    for cifg, peephole, layer_norm, projection, neurons, activation in variants:
        layer = Int8LstmLayerContract(
            inputs=7,
            hidden=11,
            lanes=2,
            neurons=neurons,
            activation=activation,
            cifg=cifg,
            peephole=peephole,
            layer_norm=layer_norm,
            projection=projection,
        )
        for structure in ("gates", "fpga"):
            step = step_cycles(layer, structure)
            assert sum(phase.cycles for phase in step.phases) == step.cycles
            assert step.beats < step.cycles <= step.interval
            assert 1 < step.first_byte <= step.last_byte <= step.cycles + 1


def test_every_group_takes_as_long_as_the_one_before(monkeypatch):
    """Three groups say it all: a run of every group gives the same."""
    layers = [
        Int8LstmLayerContract(
            inputs=inputs,
            hidden=13,
            lanes=lanes,
            neurons=neurons,
            peephole=peephole,
            projection=projection,
        )
        for inputs, lanes, neurons, peephole, projection in itertools.product(
            (1, 9, 40), (1, 3, 16), (1, 2, 5), (0, 1), (0, 6)
        )
    ]
    short = [step_cycles(layer, "fpga") for layer in layers]
    step_cycles.cache_clear()
    monkeypatch.setattr(integer_cycles, "GROUPS_RUN", 4096)
    assert [step_cycles(layer, "fpga") for layer in layers] == short
    step_cycles.cache_clear()


def test_large_layers_keep_their_lanes_busy():
    """The update is chosen so that the lanes go on: 128 cells and more, with equal rows."""
    for hidden, lanes, neurons in itertools.product((128, 512), (1, 4, 8), (1, 4)):
        for projection, peephole in ((0, 0), (0, 1), (hidden // 2, 0)):
            layer = Int8LstmLayerContract(
                inputs=hidden,
                hidden=hidden,
                lanes=lanes,
                neurons=neurons,
                projection=projection,
                peephole=peephole,
            )
            step = step_cycles(layer, "gates")
            assert step.beats / step.cycles > 0.95, layer


def test_the_smallest_update_that_keeps_up_is_chosen():
    chunks = [
        update_of(Int8LstmLayerContract(inputs=inputs, hidden=inputs, lanes=1)).chunk
        for inputs in (3, 8, 20)
    ]
    assert chunks == [16, 8, 4]


def test_the_data_sheet_gives_the_cycles():
    layer = Int8LstmLayerContract(inputs=1, hidden=20, lanes=4)
    section = cycles_section(step_cycles(layer, "gates"))
    assert (section["beats"], section["cycles"], section["interval"]) == (480, 491, 491)
    assert section["utilisation"] == round(4 * 20 * 21 / (4 * 491), 4)
    assert section["formula"].startswith("exactly 35 for the first group of neurons + 19 times 24 ")
    assert cycles_section(step_cycles(layer, "fpga"))["cycles"] == 493
    timing = DESIGN.configure({"inputs": 1, "hidden": 20, "lanes": 4}).timing
    assert timing.interval == "491 a step, 480 of them with products"
    assert timing.latency == "36 to the first byte of an answer and 492 to the last"
    norm = DESIGN.configure({"layer_norm": 1}).timing
    assert norm.interval.startswith("at most ")


def test_the_example_tells_idle_lanes(monkeypatch, capsys, tmp_path):
    layers = ({"inputs": 48, "hidden": 128, "lanes": 4}, {"lanes": 64})
    monkeypatch.setattr(layer_cycles, "LAYERS", layers)
    found = {"cycles": 25000.0, "last_byte": 1}
    monkeypatch.setattr(layer_cycles, "measured", lambda settings: found)
    report = tmp_path / "cycles.json"
    assert layer_cycles.main(["--largest", "4", "--json", str(report)]) == 1
    assert "A layer of 128 cells uses 90.1% of its lanes' cycles" in capsys.readouterr().err
    assert '"ideal": 22528.0' in report.read_text()
    found["cycles"] = 22600.0
    assert layer_cycles.main(["--largest", "4"]) == 0
    assert layer_cycles.main(["--largest", "1"]) == 2
    assert layer_cycles.main(["--largest", "4", "--json", str(tmp_path / "no" / "file")]) == 2
    assert "can't be written: No such file or directory." in capsys.readouterr().err


@pytest.mark.long
def test_a_wrong_model_of_the_update_is_noticed(monkeypatch):
    settings = EXACT["lanes"]
    step_cycles.cache_clear()
    wrong = integer_cycles.Program.segments.func

    def slower(self):
        return {
            name: tuple(dataclasses.replace(op, independent=False) for op in ops)
            for name, ops in wrong(self).items()
        }

    monkeypatch.setattr(integer_cycles, "Program", _program_with(slower))
    step = step_cycles(layer_of(settings), "gates")
    step_cycles.cache_clear()
    assert step.last_byte != measured(settings)["last_byte"]


def _program_with(segments):
    return type("Slower", (integer_cycles.Program,), {"segments": property(segments)})
