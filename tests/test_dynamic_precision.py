"""Precision chosen per step: golden against plain integers and LiteRT; offsets and calibration."""

import importlib
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fewbit.golden.activation.integer import ACTIVATIONS
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.lstm import dynamic, signals
from fewbit.golden.lstm.dynamic import ALWAYS_HIGH, low_constants, run, run_signal
from fewbit.golden.lstm.int8 import Int8Lstm, update_unit
from fewbit.golden.lstm.integer_step import pre_activations
from fewbit.golden.lstm.integer_variant import GATES
from fewbit.golden.network import Network, Node, golden_backend
from fewbit.golden.network import run as run_network
from fewbit.golden.quantize.dynamic import (
    Point,
    calibrate,
    low_offsets,
    rms_deviation,
    settings_of,
)
from tests.support.commands import run as fewbit
from tests.support.int8_cases import VARIANTS, random_case

STEPS = 12


def layer(seed: int = 4, **change) -> Int8Lstm:
    """A layer whose cells move and rest."""
    model = random_case(seed, exponent=-12, sizes="trained").model
    rng = np.random.default_rng(seed)
    offsets = rng.integers(-128, 128, (4, 2, model.hidden)).astype(np.int8)
    fields = {"precision_threshold": 700, "precision_hold": 2, "low_offsets": offsets}
    return replace(model, **(fields | change))


def inputs(model: Int8Lstm, batch: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (batch, STEPS, model.inputs))


class AlwaysLow:
    """A signal that takes the first steps with high halves, too."""

    def start(self, batch: int, hidden: int) -> None:
        self.shape = (batch, hidden)

    def high(self, moment: int) -> np.ndarray:
        return np.zeros(self.shape, bool)

    def observe(self, step: dynamic.SignalStep) -> None:
        pass


def by_hand(model: Int8Lstm, x: list[list[int]]) -> tuple[list, list]:
    """Hidden raws and modes of one sequence, in Python's integers, from the module's text."""
    units, group = model.hidden, model.precision_group
    offsets = np.zeros((4, 2, units)) if model.low_offsets is None else model.low_offsets
    hidden, cell = [model.hidden_zero_point] * units, [0] * units
    counters = [0] * -(-units // group)
    hiddens, modes = [], []
    for moment, vector in enumerate(x):
        high = [
            counters[unit // group] > 0 or moment < 2 or model.precision_hold == 255
            for unit in range(units)
        ]
        new_hidden, new_cell, every = [], [], []
        for unit in range(units):
            sums = [[0, 0] for _ in range(4)]
            for gate in range(4):
                for part, (weights, read) in enumerate(
                    ((model.input_weights, vector), (model.recurrent_weights, hidden))
                ):
                    total = int(model.folded_bias[gate, part, unit])
                    for weight, raw in zip(weights[gate, unit].tolist(), read, strict=True):
                        code = weight & 255
                        low_half = code & 15
                        high_half = (code >> 4) - 16 * (code >> 7)
                        total += 16 * high_half * raw + (low_half if high[unit] else 8) * raw
                    if not high[unit]:
                        total += 64 * int(offsets[gate, part, unit])
                    sums[gate][part] = (total + 2**31) % 2**32 - 2**31
            every.append(sums)
            written, kept = update_unit(
                np.array(sums),
                model.multipliers,
                model.shifts,
                cell[unit],
                cell_exponent=model.cell_exponent,
                cell_clip=model.cell_clip,
                hidden_multiplier=model.hidden_multiplier,
                hidden_shift=model.hidden_shift,
                hidden_zero_point=model.intermediate_zero_point,
                activation=model.activation,
                rounding=model.rounding,
            )
            new_hidden.append(int(written))
            new_cell.append(int(kept))
        seen = [abs(after - before) for after, before in zip(new_cell, cell, strict=True)]
        if model.precision_signal == "output_gate":
            raws = pre_activations(model.constants, np.array([every]))[0, :, GATES.index("o")]
            seen = ACTIVATIONS[model.activation].sigmoid(raws).tolist()
        for index in range(len(counters)):
            members = range(index * group, min(units, (index + 1) * group))
            if any(seen[u] > model.precision_threshold for u in members):
                counters[index] = model.precision_hold
            elif counters[index]:
                counters[index] -= 1
        hidden, cell = new_hidden, new_cell
        hiddens.append(hidden)
        modes.append(high)
    return hiddens, modes


@pytest.mark.long
@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("hold", [0, 1, 3, 255])
@pytest.mark.parametrize("signal", ["cell_change", "output_gate"])
def test_agrees_with_plain_integers(signal, hold, group):
    threshold = 700 * group if signal == "cell_change" else 20_000 + 2000 * group
    model = layer(
        precision_threshold=threshold,
        precision_hold=hold,
        precision_group=group,
        precision_signal=signal,
    )
    x = inputs(model)
    outcome = run(model, x)
    for number, sequence in enumerate(x.tolist()):
        hiddens, modes = by_hand(model, sequence)
        assert outcome.hidden[number].tolist() == hiddens, f"sequence {number} of seed 0"
        assert outcome.high[number].tolist() == modes, f"sequence {number} of seed 0"
    if hold in (1, 3):
        assert 0.02 < outcome.high[:, 2:].mean() < 0.98, "both modes must be there"


def test_a_broken_decision_disagrees_with_plain_integers(monkeypatch):
    """What the test above is worth: a counter that starts a step late is found."""
    model = layer()
    x = inputs(model)
    monkeypatch.setattr(dynamic, "FIRST_STEPS", 3)
    assert run(model, x).high[0].tolist() != by_hand(model, x[0].tolist())[1]


@pytest.mark.parametrize("number", range(0, len(VARIANTS), 3))
def test_every_step_high_is_the_int8_layer(number):
    case = random_case(number, exponent=-12, variant=VARIANTS[number])
    outcome = run(replace(case.model, precision_hold=ALWAYS_HIGH), case.x)
    np.testing.assert_array_equal(outcome.hidden, case.model.run(case.x))
    assert outcome.high.all()


@pytest.mark.parametrize("seed", range(6))
def test_every_step_low_is_litert_on_middle_weights(seed):
    """The zero point of the hidden values is 0, as LiteRT's recurrent part has no bias."""
    pytest.importorskip("ai_edge_litert")
    litert = importlib.import_module("tests.support.tflite_models")
    case = random_case(seed, exponent=-12, sizes="trained")
    model = replace(case.model, hidden_zero_point=0, intermediate_zero_point=0)
    offsets = np.zeros((4, 2, model.hidden), np.int8)
    offsets[:, 0] = np.random.default_rng(seed).integers(-128, 128, (4, model.hidden))
    low = run_signal(replace(model, low_offsets=offsets), case.x, AlwaysLow())

    def middles(weights):
        return ((weights.astype(int) & 0xF0) + 8).astype(np.uint8).view(np.int8)

    # The layer folds whole weights at the zero point; LiteRT folds the weights that it is given.
    lost = (middles(model.input_weights).astype(int) - model.input_weights).sum(axis=2)
    bias = model.bias + model.input_zero_point * lost + 64 * offsets[:, 0].astype(int)
    other = replace(
        model,
        input_weights=middles(model.input_weights),
        recurrent_weights=middles(model.recurrent_weights),
        bias=bias.astype(np.int32),
    )
    fields = case.file_fields | {"output_zero_point": 0}
    batch, time, _ = case.x.shape
    output, cell = litert.run_lstm(litert.write_lstm(other, batch, time, **fields), case.x)
    np.testing.assert_array_equal(low.hidden, output)
    np.testing.assert_array_equal(low.cell[:, -1], cell)
    assert not np.array_equal(low.hidden, model.run(case.x))


@pytest.mark.parametrize("number", range(0, len(VARIANTS), 5))
def test_fast_steps_are_the_plain_ones(number, monkeypatch):
    case = random_case(7 + number, exponent=-12, variant=VARIANTS[number])
    model = case.model
    rng = np.random.default_rng(number)
    offsets = rng.integers(-128, 128, (len(model.gates), 2, model.hidden)).astype(np.int8)
    model = replace(model, precision_threshold=200, precision_hold=2, low_offsets=offsets)
    fast = run(model, case.x)
    seen = [run_signal(model, case.x, signals.OpenInput(3000)).high]
    monkeypatch.setattr(dynamic._FastSteps, "of", staticmethod(lambda model: None))
    plain = run(model, case.x)
    seen.append(run_signal(model, case.x, signals.OpenInput(3000)).high)
    for name in ("hidden", "cell", "high"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name), err_msg=name)
    if not model.coupled:
        np.testing.assert_array_equal(*seen)


def test_a_run_may_start_anywhere():
    """A state that is loaded starts a sequence: two steps HIGH."""
    model = layer()
    x = inputs(model)
    before = run(model, x[:, :5])
    state = {"hidden": before.hidden[:, -1], "cell": before.cell[:, -1]}
    after = run(model, x[:, 5:], **state)
    assert after.high[:, :2].all()
    first = model.run(x[:, 5:6], **state)
    np.testing.assert_array_equal(after.hidden[:, :1], first)


def test_weights_at_both_ends_have_middles():
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    middles = dynamic._middles(every).ravel().tolist()
    for weight, middle in zip(range(-128, 128), middles, strict=True):
        sixteen = [w for w in range(-128, 128) if w // 16 == weight // 16]
        assert middle == Fraction(min(sixteen) + max(sixteen) + 1, 2), weight


def test_offsets_wrap_as_the_sum_does():
    model = layer(low_offsets=np.full((4, 2, layer().hidden), 127, np.int8))
    bias = np.full_like(model.constants.folded_bias, 2**31 - 1)
    low = low_constants(replace(model.constants, folded_bias=bias), model.low_offsets)
    assert (low.folded_bias == 2**31 - 1 + 64 * 127 - 2**32).all()


def test_passes_count_what_is_no_padding():
    high = np.zeros((2, 4, 3), bool)
    high[0, :2] = high[1, 3] = True
    outcome = dynamic.DynamicRun(np.zeros((2, 4, 3)), np.zeros((2, 4, 3)), high)
    assert outcome.passes() == (9, 15)
    assert outcome.passes([3, 2]) == (6, 9)
    assert outcome.low_share([3, 2]) == 9 / 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision_threshold": 65536}, "precision_threshold must be from 0 to 65535, not 65536."),
        ({"precision_hold": 256}, "precision_hold must be from 0 to 255, not 256."),
        ({"precision_group": 0}, "precision_group must be from 1 to 65536, not 0."),
        (
            {"low_offsets": np.zeros((4, 2, 1), np.int16)},
            "low_offsets must be int8, not int16.",
        ),
    ],
)
def test_bad_fields_are_refused_in_words(change, message):
    with pytest.raises(ValueError, match=r".") as caught:
        layer(**change)
    assert str(caught.value) == message


def test_a_network_runs_its_layers_with_their_precision():
    model = layer()
    x = inputs(model)
    np.testing.assert_array_equal(golden_backend(model, x), run(model, x).hidden)
    whole = replace(model, precision_hold=ALWAYS_HIGH)
    np.testing.assert_array_equal(golden_backend(whole, x), model.run(x))


def test_offsets_are_the_exact_means():
    model = layer()
    x, lengths = inputs(model), [12, 5, 1]
    hidden = model.run(x)
    read = [x[b, t].tolist() for b in range(3) for t in range(lengths[b])]
    old = [
        hidden[b, t - 1].tolist() if t else [model.hidden_zero_point] * model.hidden
        for b in range(3)
        for t in range(lengths[b])
    ]
    offsets = low_offsets(model, x, lengths)
    for part, (weights, vectors) in enumerate(
        ((model.input_weights, read), (model.recurrent_weights, old))
    ):
        for gate in range(4):
            for unit in range(model.hidden):
                exact = sum(
                    Fraction(int(w) % 16 - 8) * sum(v[i] for v in vectors) / len(vectors)
                    for i, w in enumerate(weights[gate, unit])
                )
                assert offsets[gate, part, unit] == min(max(round(exact / 64), -128), 127)


def test_signals_decide_by_the_last_step():
    step = dynamic.SignalStep(
        old_cell=np.array([[0, 0, 10]]),
        new_cell=np.array([[30, 0, 10]]),
        # Gates i, f, g, o of three units: open and undecided, shut, open and saturated.
        pre=lambda: np.array([[[32767, 0, 0, 0], [-32768, 0, 0, 0], [32767, 0, 32767, 32767]]]),
    )
    for signal, wanted in (
        (signals.OpenInput(1000), [True, False, False]),
        (signals.CellInput(1000), [False, False, True]),
        (dynamic.OutputGate(20000, 1), [False, False, True]),
        (dynamic.CellChange(29, 1), [True, False, False]),
        (signals.LayerChange(9), [True, True, True]),
        (signals.LayerChange(10), [False, False, False]),
        (signals.Saturation(-1), [True, True, True]),
    ):
        signal.start(1, 3)
        assert signal.high(1).all()
        assert not signal.high(2).any()
        signal.observe(step)
        assert signal.high(2).tolist() == [wanted], signal


def test_random_choice_is_the_same_every_time():
    model = layer()
    x = inputs(model, batch=40)
    first, second = (run_signal(model, x, signals.RandomChoice(0.3, 5)) for _ in range(2))
    np.testing.assert_array_equal(first.high, second.high)
    assert abs(first.high[:, 2:].mean() - 0.3) < 0.05


def network() -> Network:
    lower, upper = layer(4), layer(5)
    weights = np.random.default_rng(1).integers(-127, 128, (4, upper.hidden, lower.hidden))
    upper = replace(upper, input_weights=weights.astype(np.int8))
    return Network((Node(lower), Node(upper, (0,))))


def test_calibration_keeps_to_its_tolerance():
    given = network()
    x = inputs(given.nodes[0].lstm, batch=6)
    count = []
    found = calibrate(given, x, tolerance=3.0, group=2, done=lambda: count.append(1))
    assert len(found.curves) == len(found.chosen) == 2
    assert sum(map(len, found.curves)) == len(count)
    for node, point, curve in zip(found.network.nodes, found.chosen, found.curves, strict=True):
        assert node.lstm.precision_threshold == point.threshold
        assert node.lstm.precision_hold == point.hold
        assert node.lstm.precision_group == 2
        assert point in curve
        assert curve[0].hold == ALWAYS_HIGH
        assert curve[0].low_share == 0
    high = run_network(
        Network(tuple(replace(n, lstm=replace(n.lstm, precision_hold=255)) for n in given.nodes)), x
    )
    assert rms_deviation(high)(run_network(found.network, x)) == found.chosen[-1].loss <= 3.0
    assert found.chosen[0].loss <= 1.5
    assert all(p.low_share <= found.chosen[0].low_share for p in found.curves[0] if p.loss <= 1.5)


def test_calibration_to_a_share_takes_the_least_loss():
    model = layer()
    x = inputs(model, batch=6)
    found = calibrate(Network((Node(model),)), x, share=0.3, offsets=False)
    (point,), (curve,) = found.chosen, found.curves
    assert point.low_share >= 0.3
    assert point.loss == min(other.loss for other in curve if other.low_share >= 0.3)
    assert found.network.nodes[0].lstm.low_offsets is None
    assert [p.low_share for p in curve[1:]] == sorted(p.low_share for p in curve[1:])


def test_no_tolerance_is_no_loss_by_any_measure():
    """A loss of one's own, that of the decisions, say."""
    model = layer()
    x, lengths = inputs(model, batch=6), [12, 9, 12, 3, 2, 5]
    classes = model.run(x)[range(6), np.array(lengths) - 1].argmax(axis=1)

    def lost(output):
        return float((output[range(6), np.array(lengths) - 1].argmax(axis=1) != classes).mean())

    found = calibrate(Network((Node(model),)), x, lengths, loss=lost)
    assert found.chosen[0].loss == 0
    assert found.chosen[0].low_share == max(p.low_share for p in found.curves[0] if p.loss == 0)


def test_a_network_is_calibrated_by_the_output_gate(tmp_path):
    model = layer()
    x = inputs(model, batch=6)
    found = calibrate(Network((Node(model),)), x, share=0.3, signal="output_gate")
    lstm = found.network.nodes[0].lstm
    assert isinstance(lstm, Int8Lstm)
    assert lstm.precision_signal == "output_gate"
    assert found.chosen[0].low_share >= 0.3
    assert run(lstm, x).low_share() == found.chosen[0].low_share
    # Thresholds are of the gate's range, not of the cell's.
    gates = ACTIVATIONS["table"].sigmoid(np.array([-(2**15), 2**15 - 1]))
    inner = [point.threshold for point in found.curves[0] if 0 < point.hold < ALWAYS_HIGH]
    assert gates[0] < min(inner) <= max(inner) <= gates[1]
    save_network(tmp_path / "gate.npz", found.network)
    again = load_network(tmp_path / "gate.npz").nodes[0].lstm
    assert isinstance(again, Int8Lstm)
    assert again.precision_signal == "output_gate"
    with pytest.raises(ValueError, match='precision_signal must be "cell_change" or'):
        replace(model, precision_signal="cell")  # pyright: ignore[reportArgumentType]


def test_settings_span_the_changes():
    model = layer(precision_hold=ALWAYS_HIGH)
    settings = settings_of(model, inputs(model))
    assert settings[0] == (0, ALWAYS_HIGH)
    assert settings[-1] == (0, 0)
    assert len(settings) > 20


@pytest.mark.parametrize(("steps", "lengths"), [(1, None), (5, [1, 1])])
@pytest.mark.parametrize("signal", ["cell_change", "output_gate"])
def test_sequences_of_one_step_leave_one_threshold(signal, steps, lengths):
    model = layer(precision_hold=ALWAYS_HIGH, precision_signal=signal)
    settings = settings_of(model, inputs(model, batch=2)[:, :steps], lengths)
    assert {threshold for threshold, _ in settings} == {0}


def test_speed_up_of_a_share():
    assert Point(0, 0, 0.75, 0.0).speed_up == 1.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, "share must be from 0 to 1, not 1.5."),
        ({"tolerance": -1.0}, "tolerance must be a finite number of at least 0, not -1.0."),
        (
            {"share": 0.9},
            (
                "share must be at most 0.833, which is all but the first 2 steps of a sequence, "
                "not 0.9."
            ),
        ),
    ],
)
def test_bad_options_are_refused_in_words(options, message):
    model = layer()
    with pytest.raises(ValueError, match=r".") as caught:
        calibrate(Network((Node(model),)), inputs(model), **options)
    assert str(caught.value) == message


def test_the_command_finds_writes_and_runs(capsys, tmp_path):
    model = layer(precision_hold=ALWAYS_HIGH, low_offsets=None)
    x = inputs(model, batch=6)
    given, data, found = (tmp_path / name for name in ("model.npz", "x.npy", "found.npz"))
    save_network(given, Network((Node(model),)))
    np.save(data, x.astype(np.int8))
    words = ["calibrate", given, "--data", data, "--share", "0.5", "--out", found]
    status, out, err = fewbit(capsys, *words, "--json", tmp_path / "rows.json")
    assert (status, err) == (0, "")
    assert f"{found}: 1 layer, 6 sequences of 12 steps" in out
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    (chosen,) = (row for row in rows if row["chosen"])
    wanted = calibrate(Network((Node(model),)), x, share=0.5)
    assert [row["rms_loss"] for row in rows] == [point.loss for point in wanted.curves[0]]
    assert (chosen["threshold"], chosen["hold"]) == (
        wanted.chosen[0].threshold,
        wanted.chosen[0].hold,
    )
    assert chosen["low_share"] >= 0.5
    output = tmp_path / "y.npy"
    fewbit(capsys, "run", found, "--input", data, "--output", output)
    written = np.load(output)
    np.testing.assert_array_equal(written, run(wanted.network.nodes[0].lstm, x).hidden)
    assert not np.array_equal(written, model.run(x))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share", "0.5", "--tolerance", "1"], "--tolerance and --share exclude each other;"),
        (["--share", "-1"], "Argument --share: must be a number of at least 0, not -1;"),
        (["--share", "2"], "share must be from 0 to 1, not 2.0."),
    ],
)
def test_mistakes_are_answered_in_one_sentence(capsys, tmp_path, words, message):
    model = layer()
    given, data = tmp_path / "model.npz", tmp_path / "x.npy"
    save_network(given, Network((Node(model),)))
    np.save(data, inputs(model).astype(np.int8))
    status, _, err = fewbit(
        capsys, "calibrate", given, "--data", data, "--out", tmp_path / "found.npz", *words
    )
    assert status == 2
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not (tmp_path / "found.npz").exists()
