"""The synthetic task of 200 steps: its generator, and the model that is shipped."""

import numpy as np
import pytest

from examples.temporal_order.recognise import correct, int8_model, load_float_model, raws
from examples.temporal_order.sequences import LONGEST, RELEVANT, SHORTEST, SYMBOLS, generate
from fewbit.golden.codecs import dequantize


def test_sequences_are_what_the_source_says():
    """Symbols, places and classes read back from sequences without noise."""
    sequences = generate(200, 5, noise=0.0)
    assert sequences.padded.shape == (200, LONGEST, len(SYMBOLS))
    assert set(sequences.classes.tolist()) == set(range(8))
    for x, length, number in zip(
        sequences.padded, sequences.lengths, sequences.classes, strict=True
    ):
        assert SHORTEST <= length <= LONGEST
        text = "".join(SYMBOLS[row.argmax()] for row in x[:length])
        assert (x[:length].sum(axis=1) == 1).all()
        assert not x[length:].any()
        assert (text[0], text[-1]) == ("E", "B")
        places = [step for step, symbol in enumerate(text) if symbol in "XY"]
        assert all(low <= at <= high for at, (low, high) in zip(places, RELEVANT, strict=True))
        assert (
            "".join(text[at] for at in places).replace("X", "0").replace("Y", "1")
            == f"{number:03b}"
        )
        assert set(text[1:-1]) <= set("abcdXY")


def test_a_seed_gives_the_same_sequences():
    first, second, other = (generate(3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.padded, second.padded)
    assert not np.array_equal(first.padded, other.padded)
    assert 0.15 < (first.padded - generate(3, 1, noise=0.0).padded)[:, :SHORTEST].std() < 0.21


def test_short_sequences_keep_their_order():
    sequences = generate(50, 3, shrink=0.08, noise=0.0)
    symbols = sequences.padded.argmax(axis=2)
    assert ((symbols >= SYMBOLS.index("X")).sum(axis=1) == len(RELEVANT)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be at least 1, not 0."),
        ({"count": 1, "shrink": 2.0}, "shrink must be from 0.05 to 1, not 2.0."),
    ],
)
def test_bad_options_are_refused_in_words(options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        generate(seed=1, **options)
    assert str(caught.value) == message


def test_the_shipped_model_tells_the_orders():
    sequences = generate(60, 7)
    assert correct(load_float_model()[0].run(sequences.padded), sequences) == 60
    lstm = int8_model()
    hidden = lstm.run(raws(lstm, sequences))
    reals = dequantize(hidden, lstm.hidden_scale, lstm.hidden_zero_point)
    assert correct(reals, sequences) == 60
