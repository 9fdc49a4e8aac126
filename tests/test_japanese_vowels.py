"""The recordings, the trained recogniser, and how it does in float and in integers."""

import hashlib
import os
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from examples.japanese_vowels import prepare, recognise, rtl
from examples.japanese_vowels.operands import code_beats, real_beats
from examples.japanese_vowels.prepare import pack, read_ts
from examples.japanese_vowels.recognise import (
    QuantizedRecogniser,
    classify_float,
    classify_quantized,
    decide,
    floatsd8_model,
    int8_model,
    load_float_model,
    quantized_input,
    run_golden,
)
from examples.japanese_vowels.recordings import (
    LOW_BIT_MODEL_FILES,
    RECORDINGS_FILE,
    Recordings,
    load_recordings,
)
from fewbit.golden.accumulate.floatsd8_mac import DEFAULT_WINDOW, FloatSD8MacContract
from fewbit.golden.arithmetic import Raws
from fewbit.golden.formats import BINARY16, FLOATSD8
from fewbit.golden.layer.ternary import TernaryLstmLayerContract
from fewbit.golden.lstm import batch_norm, floatsd8
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.lstm.ternary import TernaryLstm
from fewbit.golden.quantize.ternary import ardakani_binary, ardakani_ternary
from fewbit.golden.quantize.ternary_lstm import quantize_lstm

README = Path(recognise.__file__).with_name("README.md")
PUBLISHED = "JAPANESE_VOWELS"
FRAMES_SHA256 = "58610bde208449208a90e116bc541da621a97a3b53c6a9798c1d97b9a2cfe953"


@pytest.fixture(scope="module")
def sets() -> tuple[Recordings, Recordings]:
    return load_recordings()


def test_recordings_are_those_published(sets: tuple[Recordings, Recordings]) -> None:
    """Counts as the authors state them, and a digest of the numbers."""
    train, test = sets
    assert np.bincount(train.speakers).tolist() == [30] * 9
    assert np.bincount(test.speakers).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = np.concatenate([train.lengths, test.lengths])
    assert (lengths.min(), lengths.max()) == (7, 29)
    frames = np.concatenate(train.utterances + test.utterances)
    assert frames.shape == (9961, 12)
    text = "\n".join(f"{number:.6f}" for number in frames.ravel().tolist())
    assert hashlib.sha256(text.encode()).hexdigest() == FRAMES_SHA256
    assert RECORDINGS_FILE.stat().st_size < 1_000_000


@pytest.mark.skipif(
    PUBLISHED not in os.environ,
    reason=f"shared data: {PUBLISHED} must name the folder of the two published .ts files",
)
def test_recordings_equal_the_published_files(sets: tuple[Recordings, Recordings]) -> None:
    for name, recordings in zip(("TRAIN", "TEST"), sets, strict=True):
        text = (Path(os.environ[PUBLISHED]) / f"JapaneseVowels_{name}.ts").read_text()
        lines = text.partition("@data\n")[2].splitlines()
        assert len(lines) == len(recordings)
        for line, utterance, speaker in zip(
            lines, recordings.utterances, recordings.speakers, strict=True
        ):
            *series, label = line.split(":")
            expected = [[float(number) for number in one.split(",")] for one in series]
            assert utterance.T.tolist() == expected
            assert int(label) == speaker + 1


def published(folder: Path, lines: dict[str, list[str]]) -> None:
    for name in ("TRAIN", "TEST"):
        text = "\n".join(["# a comment", "@problemName JapaneseVowels", "@data", *lines[name], ""])
        (folder / f"JapaneseVowels_{name}.ts").write_text(text)


def test_packing_is_exact(tmp_path: Path) -> None:
    """Exponents, few decimals and the last decimal survive; so do lengths and speakers."""
    one = ":".join(["1.5,-9.63E-4", *["0.000001,2.203141"] * 11, "3"])
    two = ":".join([*["-1.852765"] * 12, "9"])
    published(tmp_path, {"TRAIN": [two], "TEST": [one, two]})
    out = tmp_path / "packed.npz"
    pack(tmp_path, out)
    train, test = load_recordings(out)
    assert train.utterances[0].tolist() == [[-1.852765] * 12]
    assert test.utterances[0].tolist() == [[1.5, *[0.000001] * 11], [-0.000963, *[2.203141] * 11]]
    assert (train.speakers.tolist(), test.speakers.tolist()) == ([8], [2, 8])
    assert test.lengths.tolist() == [2, 1]
    assert test.padded[1].tolist() == [[-1.852765] * 12, [0.0] * 12]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (":".join([*["1"] * 11, "3"]), "must hold 12 series of equal length."),
        (":".join([*["1"] * 11, "1,2", "3"]), "must hold 12 series of equal length."),
        (":".join([*["1"] * 12, "10"]), "speaker must be 1 to 9, not '10'."),
        (":".join([*["1.0000001"] * 12, "3"]), "a number has more than six decimals."),
        (":".join([*["one"] * 12, "3"]), "holds something not a number."),
        (":".join([*["nan"] * 12, "3"]), "holds something not a number."),
    ],
)
def test_crooked_source_is_refused(tmp_path: Path, line: str, message: str) -> None:
    published(tmp_path, {"TRAIN": [line], "TEST": []})
    path = tmp_path / "JapaneseVowels_TRAIN.ts"
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        read_ts(path)
    assert str(caught.value) == f"{path}, line 4: {message}"


def test_prepare_as_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed.npz"
    monkeypatch.setattr(sys, "argv", ["prepare", str(tmp_path), "--out", str(out)])
    assert prepare.main() == 2
    assert "JapaneseVowels_TRAIN.ts" in capsys.readouterr().err
    assert not out.exists()
    line = ":".join([*["1"] * 12, "3"])
    published(tmp_path, {"TRAIN": [line], "TEST": [line]})
    assert prepare.main() == 0
    assert out.exists()


def test_spread_hears_every_speaker(sets: tuple[Recordings, Recordings]) -> None:
    _, test = sets
    some = test.spread(20)
    assert len(some) == 20
    assert set(some.speakers.tolist()) == set(range(9))
    assert test.spread(370).speakers.tolist() == test.speakers.tolist()
    with pytest.raises(ValueError, match=r"^count must be from 1 to 370 utterances, not 371\.$"):
        test.spread(371)


def test_missing_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.npz: there are no recordings; make them with"):
        load_recordings(tmp_path / "none.npz")


def test_accuracies_are_good_and_those_the_readme_states(
    sets: tuple[Recordings, Recordings],
) -> None:
    _, test = sets
    exact = classify_float(load_float_model(), test)
    assert exact.accuracy >= 0.97
    rows = {"| float64 | exact |": exact}
    for activation in ("table", "gemmlowp"):
        integer = classify_quantized(int8_model(activation), test)
        assert integer.accuracy >= exact.accuracy - 0.01
        assert (integer.classes == exact.classes).mean() >= 0.99
        rows[f"| int8 (golden model) | {activation} |"] = integer
    text = README.read_text()
    for start, row in rows.items():
        assert f"{start} {row.correct} | {row.accuracy:.1%} |" in text


def test_quantised_layer_is_the_same_every_time() -> None:
    first = int8_model("table").lstm
    int8_model.cache_clear()
    second = int8_model("table").lstm
    assert first is not second
    for field in fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))
    assert (first.inputs, first.hidden) == (12, 32)


def test_utterance_alone_gives_the_raws_it_gives_in_the_batch(
    sets: tuple[Recordings, Recordings],
) -> None:
    some = sets[1].spread(12)
    model = int8_model()
    together = run_golden(model.lstm, quantized_input(model, some))
    for index, length in enumerate(some.lengths.tolist()):
        one = some.select(np.array([index]))
        alone = run_golden(model.lstm, quantized_input(model, one))
        assert alone.shape == (1, length, 32)
        np.testing.assert_array_equal(alone[0], together[index, :length])


def test_backend_is_plugged_in(sets: tuple[Recordings, Recordings]) -> None:
    """Another backend gets the input raws, and what it gives is what is recognised from."""
    some = sets[1].spread(40)
    model = int8_model()
    seen: list[tuple[Int8Lstm, Raws]] = []

    def late(lstm: Int8Lstm, x: Raws) -> Raws:
        """Give every hidden vector a step too late."""
        seen.append((lstm, x))
        return np.roll(run_golden(lstm, x), 1, axis=1)

    def deaf(lstm: Int8Lstm, x: Raws) -> Raws:
        return np.full((*x.shape[:2], lstm.hidden), lstm.hidden_zero_point)

    golden = classify_quantized(model, some)
    assert golden.accuracy > 0.9
    late_scores = classify_quantized(model, some, late)
    assert seen[0][0] is model.lstm
    np.testing.assert_array_equal(seen[0][1], quantized_input(model, some))
    expected = decide(model, np.roll(run_golden(model.lstm, seen[0][1]), 1, axis=1), some)
    np.testing.assert_array_equal(late_scores.classes, expected.classes)
    unheard = classify_quantized(model, some, deaf)
    assert len(set(unheard.classes.tolist())) == 1
    assert unheard.accuracy < 0.3


@pytest.mark.long
def test_recognise_as_a_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recognise.main() == 0
    output = capsys.readouterr().out
    assert "370 utterances" in output
    assert "gemmlowp" in output
    # The row that takes long is computed here alone: 362, and no more than two fewer than float.
    row = next(line for line in output.splitlines() if "FloatSD8" in line)
    _, _, _, recognised, accuracy, agreeing, _ = (cell.strip() for cell in row.split("│"))
    assert int(recognised) >= 360
    assert int(agreeing) >= 366
    assert (
        f"| FloatSD8 (golden model) | nearest | {recognised} | {accuracy} |" in README.read_text()
    )
    load_float_model.cache_clear()
    monkeypatch.setattr(recognise, "FLOAT_MODEL_FILE", tmp_path / "none.npz")
    try:
        assert recognise.main() == 2
    finally:
        load_float_model.cache_clear()
    assert capsys.readouterr().err.count("\n") == 1


def test_beats_are_those_of_the_layer(sets: tuple[Recordings, Recordings]) -> None:
    """As codes and as reals; the sums that they make are those of the multiply-accumulate unit."""
    some = sets[1].spread(2)
    model = floatsd8_model().lstm
    assert isinstance(model, FloatSD8Lstm)
    beats, reals = code_beats(some), real_beats(some)
    rows, count, products = beats.weights.shape
    assert (rows, count, products) == (some.lengths.sum() * 32 * 4, 11, 4)
    np.testing.assert_array_equal(FLOATSD8.encode(reals.weights), beats.weights.reshape(-1, 4))
    real_sums = reals.accumulators.reshape(rows, count)
    assert np.sqrt(((BINARY16.decode(beats.accumulators) - real_sums) ** 2).mean()) < 0.1
    following = beats.accumulators[:, 0]
    for beat in range(count):
        np.testing.assert_array_equal(following, beats.accumulators[:, beat])
        unit = FloatSD8MacContract(4, DEFAULT_WINDOW, weight_bias=int(beats.biases[beat]) - 15)
        arrays = {
            "weights": beats.weights[:, beat],
            "activations": beats.activations[:, beat],
            "accumulator": following,
        }
        following = unit.compute(arrays)["result"]
    # The last frame's pre-activations give the last hidden vector.
    x = quantized_input(QuantizedRecogniser(model, load_float_model().read_out), some)
    hidden, cell = model.run_with_cell(x)
    end = some.lengths[-1] - 1
    pre = following.reshape(-1, 32, 4)[-1]
    new_hidden, new_cell = floatsd8.update_unit(pre, cell[-1, end - 1])
    np.testing.assert_array_equal(new_hidden, hidden[-1, end])
    np.testing.assert_array_equal(new_cell, cell[-1, end])


def test_rtl_as_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the golden model in the circuit's place, honest and not: the counts and the status."""

    class Layer:
        wrong = 0

        def __init__(self, settings: dict[str, int], **options: object) -> None:
            assert (settings, options.pop("asks_state")) == ({}, True)
            self.steps, self.cycles = 0, 100

        def __call__(self, lstm: Int8Lstm, x: Raws, lengths: Raws) -> Raws:
            hidden, cell = lstm.run_with_cell(x)
            self.steps = int(lengths.sum())
            self.last_cells = cell[np.arange(len(x)), lengths - 1]
            # Before an utterance's end, after it, and in its last cell.
            shortest = int(lengths.argmin())
            hidden[shortest, lengths[shortest] - 1, 0] ^= self.wrong
            hidden[shortest, lengths[shortest], 0] ^= 1
            self.last_cells[1, 2] ^= self.wrong
            return hidden

    monkeypatch.setattr(rtl, "LayerBackend", Layer)
    monkeypatch.setattr("sys.argv", ["rtl", "--utterances", "20"])
    assert rtl.main() == 0
    assert "; 0 of 9,952 hidden and cell codes differ" in capsys.readouterr().out
    monkeypatch.setattr(Layer, "wrong", 1)
    assert rtl.main() == 1
    output = capsys.readouterr().out
    assert "; 2 of 9,952 hidden and cell codes differ" in output
    assert "weights take 5,632 bytes; 291 frames in 100 cycles" in output


@pytest.mark.parametrize(
    ("words", "weights", "powers_of_two", "size"),
    [
        # Rows of 12 and 32 weights in words of 16 lanes.
        (["--to", "ternary"], "ternary", False, 128 * 48 // 4),
        (["--to", "binary", "--scales", "powers_of_two"], "binary", True, 128 * 48 // 8),
        (["--to", "pow2", "--lanes", "4"], "pow2", False, 128 * 44 // 2),
    ],
)
def test_rtl_of_few_bit_models_as_a_program(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    weights: str,
    powers_of_two: bool,
    size: int,
) -> None:
    """The model that is asked for, on the golden model in the circuit's place."""

    class Layer:
        def __init__(self, settings: dict[str, int], **_: object) -> None:
            assert settings == ({"lanes": 4} if "--lanes" in words else {})
            self.steps, self.cycles = 1, 1

        def __call__(self, lstm: TernaryLstm, x: Raws, lengths: Raws) -> Raws:
            assert lstm.weights == weights
            layer = TernaryLstmLayerContract.of(lstm)
            assert (layer.scales == "powers_of_two") == powers_of_two
            hidden, cell = lstm.run_with_cell(x)
            self.last_cells = cell[np.arange(len(x)), lengths - 1]
            return hidden

    monkeypatch.setattr(rtl, "LayerBackend", Layer)
    monkeypatch.setattr("sys.argv", ["rtl", "--utterances", "9", *words])
    assert rtl.main() == 0
    assert f" codes differ from golden; weights take {size:,} bytes; " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--to", "binary", "--activation", "table"], "--activation goes with --to int8; leave it"),
        (["--scales", "any"], "--scales goes with --to ternary, binary or pow2; leave it out."),
    ],
)
def test_options_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    sentence: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["rtl", *words])
    with pytest.raises(SystemExit, match="2"):
        rtl.main()
    assert sentence in capsys.readouterr().err


@pytest.mark.torch
def test_training_is_repeatable_and_its_model_file_says_the_same(
    sets: tuple[Recordings, Recordings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch: the folded standardisation, gate order and read-out are those of the network."""
    import torch

    from examples.japanese_vowels import train as training
    from fewbit.golden.lstm import float64

    monkeypatch.setattr(training, "EPOCHS", 1)
    recordings, _ = sets
    data, mean, deviation = training.standardise(recordings)
    for pooling in training.POOLINGS:
        network = training.fit(data, pooling, seed=4)
        model = training.as_model(network, mean, deviation)
        again = training.as_model(training.fit(data, pooling, seed=4), mean, deviation)
        np.testing.assert_array_equal(model.lstm.input_weights, again.lstm.input_weights)
        with torch.no_grad():
            expected = network(data.x, data.lengths).numpy()
        assert isinstance(model.lstm, float64.Float64Lstm)
        assert model.read_out is not None
        hidden = model.lstm.run(recordings.padded)
        scores = model.read_out.scores(hidden, recordings.lengths)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-5)


@pytest.mark.torch
def test_folds_are_runs_of_every_speaker() -> None:
    from examples.japanese_vowels.train import FOLDS, folds

    speakers: npt.NDArray[np.int64] = np.repeat(np.arange(9), 30)
    fold_of = folds(speakers)
    for speaker in range(9):
        assert fold_of[speakers == speaker].tolist() == np.repeat(np.arange(FOLDS), 6).tolist()


@pytest.mark.torch
def test_low_bit_training_is_repeatable_and_its_layer_says_the_same(
    sets: tuple[Recordings, Recordings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch: gate order, norms and frozen weights are those of the network."""
    import torch

    from examples.japanese_vowels import train_low_bit as training

    monkeypatch.setattr(training, "EPOCHS", 1)
    recordings = sets[0].select(np.arange(0, 270, 3))
    data, deviation = training.as_recorded(recordings)
    for weights, rule in (("ternary", ardakani_ternary), ("binary", ardakani_binary)):
        network = training.fit(data, deviation, weights, sampled=weights == "binary")
        layer, read_out = training.as_layer(network)
        again, _ = training.as_layer(
            training.fit(data, deviation, weights, sampled=weights == "binary")
        )
        np.testing.assert_array_equal(layer.recurrent_weights, again.recurrent_weights)
        with torch.no_grad():
            expected = network(data.x.double(), data.lengths).numpy()
        frozen = replace(
            layer,
            input_weights=rule(layer.input_weights).reals,
            recurrent_weights=rule(layer.recurrent_weights).reals,
        )
        hidden, _ = batch_norm.run_with_cell(frozen, recordings.padded)
        scores = read_out.scores(hidden, recordings.lengths)
        # Coefficients and read-out are rounded to binary32 on one side each.
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
        made = quantize_lstm(layer, recordings.padded, recordings.lengths, to=weights)
        model = QuantizedRecogniser(made, read_out)
        reals = recognise.hidden_reals(model, run_golden(made, quantized_input(model, recordings)))
        within = np.arange(hidden.shape[1]) < recordings.lengths[:, np.newaxis]
        assert np.abs(hidden[within]).max() > 0.1
        assert np.abs((reals - hidden)[within]).max() < 0.01


@pytest.mark.long
def test_low_bit_accuracies_are_those_the_readme_states(
    sets: tuple[Recordings, Recordings],
) -> None:
    _, test = sets
    text = README.read_text()
    for name, model in recognise.low_bit_models():
        row = classify_quantized(model, test)
        assert f"| {name} (golden model) | table | {row.correct} | {row.accuracy:.1%} |" in text
        if "not" not in name:
            assert row.accuracy >= 0.95
            assert isinstance(model.lstm, TernaryLstm)
            assert model.lstm.activation_width == 12
    sizes = [path.stat().st_size for path in LOW_BIT_MODEL_FILES.values()]
    assert max(sizes) < 20_000


def test_missing_low_bit_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognise.retrained_model.cache_clear()
    monkeypatch.setitem(LOW_BIT_MODEL_FILES, ("binary", "any"), recognise.FLOAT_MODEL_FILE)
    with pytest.raises(ValueError, match="must hold an LSTM of binary weights with a read-out; "):
        recognise.retrained_model("binary")
    recognise.retrained_model.cache_clear()
