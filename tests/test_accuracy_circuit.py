"""Trained models through their circuits: what is counted, and that a wrong code is seen."""

from pathlib import Path

import numpy as np
import pytest

from fewbit.accuracy import circuit
from fewbit.accuracy.circuit import circuit_row

MODEL = Path(__file__).parent / "trained" / "ternary.npz"


class GoldenWithAnError:
    """A backend whose answers are golden's but for one code, if there is a place."""

    steps = cycles = 7
    place: tuple[int | slice, int, int] | None = None

    def __call__(self, lstm, x):
        output = np.array(lstm.forward(x))
        if self.place is not None:
            output[self.place] += 1
        return output


@pytest.fixture
def backend(monkeypatch):
    made = GoldenWithAnError()
    monkeypatch.setattr(circuit, "LayerBackend", lambda: made)
    return made


def test_codes_are_counted_without_padding(backend):
    row = circuit_row(MODEL, "temporal_order", None, 5)
    assert (row["system"], row["sequences"], row["differing"], row["first"]) == (
        *("few-bit", 5, 0, None),
    )
    # Sequences are 200 to 220 steps long.
    hidden = 8
    assert 5 * 200 * hidden <= row["codes"] <= 5 * 220 * hidden
    assert row["codes"] % hidden == 0


def test_a_wrong_code_is_named(backend):
    backend.place = (3, 17, 2)
    row = circuit_row(MODEL, "temporal_order", None, 5)
    assert row["differing"] == 1
    layer, sequence, step, unit, found, expected = row["first"]
    assert (layer, sequence, step, unit, found) == (0, 3, 17, 2, expected + 1)


def test_a_wrong_code_of_padding_is_no_error(backend):
    # The longest of these sequences is 219 steps long, of 220.
    for step, some in ((219, False), (218, True)):
        backend.place = (slice(None), step, 0)
        row = circuit_row(MODEL, "temporal_order", None, 40)
        assert (0 < row["differing"] < 40) == some


@pytest.mark.long
def test_a_circuit_agrees():
    row = circuit_row(MODEL, "temporal_order", None, 2)
    assert row["differing"] == 0
    assert row["cycles"] > row["steps"] > 400
