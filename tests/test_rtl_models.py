"""Models through the RTL of the layer: the same bytes as LiteRT and as the golden model.

Three circuits are compiled here; `RTL_MODELS=all` takes every variant, as `make layers` does.
"""

import os
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

import fewbit.sim.layer
from examples import layer_campaign
from fewbit.commands.cli import main
from fewbit.golden.layer.int8 import Int8LstmLayerContract
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.sim import bulk
from fewbit.sim.bulk import BulkOutcome, BulkSimulation
from fewbit.sim.layer import LayerBackend
from tests.support.int8_cases import Case, Variant, random_case
from tests.support.tflite_graphs import Graph, run_litert, small_layer
from tests.support.tflite_models import run_lstm, write_lstm

# Small circuits, which compile in seconds.
TINY = partial(LayerBackend, {"lanes": 1, "structure": "fpga"})
FLAGS = ("coupled", "peephole", "norm", "projection")
ALL = tuple(
    Variant(*(bool(number & 8 >> place) for place in range(4)), projection_bias=bool(number & 1))
    for number in range(16)
)
EVERYTHING = Variant(*[True] * 6)


def tiny_case(variant: Variant, hidden: int = 3) -> Case:
    """The first lively layer of so many units, with a few short sequences."""
    for seed in count():
        case = random_case(seed, exponent=-12, sizes="trained", variant=variant)
        batch, time, inputs = case.x.shape
        small = case.model.hidden == hidden and inputs <= 5 and batch > 1 and batch * time <= 40
        # A projection of another length than the cell's.
        small &= variant.projection == (case.model.outputs != hidden)
        if small and time > 2 and len(np.unique(case.model.run(case.x))) > 20:
            return case
    raise AssertionError


class Files:
    """A model and sequences as files, and ``fewbit run`` of them."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.backends: list[LayerBackend] = []

    def outputs(self, content: bytes, x, **options):
        """Raws of the golden model and of the RTL."""

        def made(given):
            assert given == {}
            self.backends.append(TINY(**options))
            return self.backends[-1]

        self.monkeypatch.setattr(fewbit.sim.layer, "LayerBackend", made)
        model, given, taken = (self.folder / name for name in ("m.tflite", "x.npy", "y.npy"))
        model.write_bytes(content)
        np.save(given, x)
        found = []
        for kind in ("golden", "rtl"):
            words = ["run", model, "--input", given, "--output", taken, "--backend", kind]
            assert main([str(word) for word in words]) == 0
            assert f" in {kind}, " in self.capsys.readouterr().out
            found.append(np.load(taken, allow_pickle=False))
        return found


@pytest.fixture
def files(tmp_path, monkeypatch, capsys):
    return Files(tmp_path, monkeypatch, capsys)


def assert_same_as_litert(files: Files, case: Case, **options) -> None:
    batch, time, _ = case.x.shape
    file = write_lstm(case.model, batch, time, **case.file_fields)
    expected, last_cell = run_lstm(file, case.x)
    golden, rtl = files.outputs(file.content, case.x, asks_state=True, **options)
    np.testing.assert_array_equal(golden, expected)
    np.testing.assert_array_equal(rtl, expected)
    np.testing.assert_array_equal(files.backends[-1].last_cells, last_cell)
    assert files.backends[-1].steps == batch * time


if os.environ.get("RTL_MODELS") == "all":

    @pytest.mark.parametrize("variant", ALL, ids=str)
    def test_every_variant_gives_litert_s_bytes(files, variant):
        assert_same_as_litert(files, tiny_case(variant))


@pytest.mark.long
def test_everything_gives_litert_s_bytes_under_stalls(files):
    case = tiny_case(EVERYTHING)
    assert_same_as_litert(files, case, stall_seed=7)
    unstalled = TINY(asks_state=True)
    unstalled(case.model, case.x)
    assert unstalled.cycles < files.backends[-1].cycles


@pytest.mark.long
def test_peephole_ties_go_where_litert_sends_them(files):
    case = random_case(437, exponent=-12, sizes="trained", variant=Variant(peephole=True))
    assert (case.model.hidden, case.model.peephole_ties_up) == (17, 16)
    # Products that end in a half before they are rounded.
    weights = np.random.default_rng(437).choice(np.array([-24576, -8192, 8192, 24576]), (3, 17))
    model = replace(
        case.model,
        peephole_weights=weights.astype(np.int16),
        peephole_weight_scales=np.full(3, 2.0**-14, np.float32),
    )
    away = replace(model, peephole_ties_up=0)
    assert (model.run(case.x) != away.run(case.x)).sum() > 10
    assert_same_as_litert(files, replace(case, model=model))


def bidirectional(graph: Graph, x: int, first: Int8Lstm, second: Int8Lstm, name: str) -> int:
    there = graph.lstm(first, x, f"{name}_there")
    back = graph.lstm(second, graph.reverse(x), f"{name}_back")
    return graph.concatenate(there, graph.reverse(back))


@pytest.mark.long
def test_a_stacked_bidirectional_network_gives_litert_s_bytes(files):
    """Its four layers are of one shape, so one circuit is loaded with each in turn."""
    hidden = (0.0078, -2)
    layers = [small_layer(seed, 4, 2) for seed in (1, 2)]
    layers += [small_layer(seed, 4, 2, input_parameters=hidden) for seed in (3, 4)]
    graph = Graph(batch=3, time=6)
    x = graph.values("x", 4, (0.02, 3))
    lower = bidirectional(graph, x, *layers[:2], "lower")
    content = graph.content([x], [bidirectional(graph, lower, *layers[2:], "upper")])
    raws = np.random.default_rng(3).integers(-128, 128, (3, 6, 4)).astype(np.int8)
    expected = run_litert(content, raws)[0]
    golden, rtl = files.outputs(content, raws, stall_seed=1)
    np.testing.assert_array_equal(golden, expected)
    np.testing.assert_array_equal(rtl, expected)
    assert files.backends[-1].steps == 4 * 3 * 6


# The backend, on the circuit of the network above.


def test_sequences_of_different_lengths():
    model = small_layer(5, 4, 2)
    raws = np.random.default_rng(4).integers(-128, 128, (4, 6, 4))
    lengths = [6, 1, 4, 2]
    hidden, cell = model.run_with_cell(raws)
    whole, backend = TINY(), TINY(asks_state=True)
    np.testing.assert_array_equal(whole(model, raws), hidden)
    assert (whole.steps, whole.last_cells.shape) == (24, (0, 0))
    got = backend(model, raws, lengths)
    within = np.arange(6) < np.array(lengths)[:, None]
    np.testing.assert_array_equal(got, np.where(within[..., None], hidden, 0))
    last = cell[np.arange(4), np.array(lengths) - 1]
    np.testing.assert_array_equal(backend.last_cells, last)
    assert backend.steps == 13
    # No step of what lies behind a sequence is simulated.
    assert backend.cycles < whole.cycles * 3 // 4


def test_nothing_to_run():
    backend = TINY()
    assert backend(small_layer(5, 4, 2), np.zeros((0, 6, 4), np.int64)).shape == (0, 6, 2)
    assert backend(small_layer(5, 4, 2), np.zeros((3, 0, 4), np.int64)).shape == (3, 0, 2)
    assert backend.steps == 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([6, 1], r"lengths must have the shape \(3,\), not \(2,\)\."),
        ([6, 0, 2], r"lengths must be from 1 to 6 steps, not 0\."),
        ([6, 1, 7], r"lengths must be from 1 to 6 steps, not 7\."),
    ],
)
def test_wrong_lengths_are_refused(lengths, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TINY()(small_layer(5, 4, 2), np.zeros((3, 6, 4), np.int64), lengths)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "m_axis_tdest",
            2,
            "Answer 0 of the layer must be 2 bytes of kind 0, not 2 bytes of kind 2.",
        ),
        ("m_axis_tlast", 0, "Answer 0 of the layer must be 2 bytes of kind 0, not none."),
    ],
)
def test_other_answers_than_wanted_are_noticed(monkeypatch, name, value, message):
    honest = bulk.BulkSimulation.run

    def lying(self, arrays, results, **options):
        answers = honest(self, arrays, results, **options)
        return answers if results == 1 else answers | {name: answers[name] * 0 + value}

    monkeypatch.setattr(BulkSimulation, "run", lying)
    with pytest.raises(AssertionError) as caught:
        TINY()(small_layer(5, 4, 2), np.zeros((1, 2, 4), np.int64))
    assert str(caught.value) == message


def test_a_refused_image_is_noticed(monkeypatch):
    pack = Int8LstmLayerContract.pack
    monkeypatch.setattr(
        Int8LstmLayerContract, "pack", lambda self, constants: pack(self, constants)[:-1] + b"?"
    )
    with pytest.raises(AssertionError, match="refused its image: BROKEN_IMAGE"):
        TINY()(small_layer(5, 4, 2), np.zeros((1, 2, 4), np.int64))


# The long campaign.


def test_the_campaign_takes_every_variant_and_tells_what_differs(monkeypatch, capsys):
    taken: list[dict] = []

    def outcome(design, *, count, chunk, seed):
        assert count > chunk
        taken.append(dict(design.parameters))
        wrong, none = len(taken) == 3, len(taken) == 5
        vectors = 0 if none else count
        text = "byte 7 differs" if wrong else ""
        return BulkOutcome(design.name, seed, vectors, int(wrong), count, count, 0.0, 0.0, text)

    monkeypatch.setattr(layer_campaign, "check_bulk", outcome)
    assert layer_campaign.main(["--count", "100"]) == 1
    output, errors = capsys.readouterr()
    assert errors.splitlines() == [
        "projection, table: byte 7 differs",
        "layer_norm, table: nothing was compared.",
    ]
    assert "3,800" in output
    parts = [*layer_campaign.PARTS, "activation"]
    seen = {tuple(str(parameters[part]) for part in parts) for parameters in taken}
    assert len(seen) == 32
    assert sum(int(parameters["dynamic"]) for parameters in taken) == 7
    assert sum(parameters["signal"] == "output_gate" for parameters in taken) == 2
