"""The error of a window: sums of LSTM rows in FloatSD8, exact and with several windows.

``--model random``: weights are normal with a deviation of 0.3, activations hyperbolic tangents of
normals, the start value a normal of deviation 0.5: an LSTM's pre-activation of 176 products, four a
beat. ``--model speakers``: the rows of the speaker model of `examples.japanese_vowels`, 12 inputs
and 32 hidden values, on the recordings that it was not trained on.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from examples.japanese_vowels.operands import code_beats, real_beats
from examples.japanese_vowels.recordings import load_recordings
from fewbit.golden.accumulate.floatsd8_mac import FloatSD8MacContract
from fewbit.golden.formats import BINARY16, E5M2, FLOATSD8

_PRODUCTS = 4
_UTTERANCES = 40


@dataclass(frozen=True, eq=False)
class Rows:
    """Operands of rows: codes of shape (rows, beats, products), start values of shape (rows,).

    The biases, shape (beats,), are those of the weights; activations have 15 then.
    """

    weights: npt.NDArray[np.int64]
    activations: npt.NDArray[np.int64]
    weight_biases: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    title: str
    note: str = ""

    def contract(self, beat: int, window: int | None) -> FloatSD8MacContract:
        """Return the contract of the unit that adds a beat."""
        return FloatSD8MacContract(_PRODUCTS, window, E5M2.bias, int(self.weight_biases[beat]))

    @property
    def exact(self) -> npt.NDArray[np.float64]:
        """Return the sums without any rounding, shape (rows,)."""
        products = FLOATSD8.decode(self.weights) * E5M2.decode(self.activations)
        scales = 2.0 ** (FLOATSD8.bias - self.weight_biases)
        return BINARY16.decode(self.start) + (products.sum(axis=2) * scales).sum(axis=1)


def random_rows(rows: int, beats: int, seed: int) -> Rows:
    """Return random operands that belong to no model."""
    rng = np.random.default_rng(seed)
    shape = rows, beats, _PRODUCTS
    return Rows(
        FLOATSD8.encode(rng.normal(0, 0.3, shape)),
        E5M2.encode(np.tanh(rng.normal(0, 1, shape))),
        np.full(beats, FLOATSD8.bias, np.int64),
        BINARY16.encode(rng.normal(0, 0.5, rows)),
        f"{rows:,} random rows of {beats} beats, seed {seed}",
    )


def speaker_rows() -> Rows:
    """Return operands of the speaker model; its hidden values are those of exact sums."""
    _, test = load_recordings()
    some = test.spread(_UTTERANCES)
    taken, reals = code_beats(some, _PRODUCTS, None), real_beats(some, _PRODUCTS)
    rows, beats, _ = taken.weights.shape
    made = Rows(
        taken.weights,
        taken.activations,
        # Only the sum of both biases enters a product.
        taken.biases - E5M2.bias,
        taken.accumulators[:, 0],
        f"{rows:,} rows of {beats} beats of the speaker model, {_UTTERANCES} utterances",
    )
    # What the rows would be in double precision throughout.
    products = (reals.weights * reals.activations).reshape(rows, -1).sum(axis=1)
    unrounded = reals.accumulators.reshape(rows, beats)[:, 0] + products
    error = np.sqrt(((made.exact - unrounded) ** 2).mean())
    return replace(
        made,
        note="Against exact sums of these operands. Against float64 throughout, exact sums err by"
        f" {error:.2e} (rms), as weights, inputs and hidden values have 8 bits.",
    )


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--model", choices=("random", "speakers"), default="random")
    parser.add_argument("--rows", type=int, default=20_000, help="of random, default 20,000")
    parser.add_argument("--beats", type=int, default=44, help="of a random row, default 44")
    parser.add_argument("--seed", type=int, default=3, help="of random, default 3")
    options = parser.parse_args()
    if options.model == "random":
        rows = random_rows(options.rows, options.beats, options.seed)
    else:
        rows = speaker_rows()
    exact = rows.exact
    count, beats, _ = rows.weights.shape
    table = Table(title=rows.title)
    for column in ("window", "rms error of a row", "of the exact unit's", "largest", "beats off"):
        table.add_column(column, justify="right")
    reference = 0.0
    for window in (None, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18):
        accumulator, off = rows.start, 0
        for beat in range(beats):
            arrays = {
                "weights": rows.weights[:, beat],
                "activations": rows.activations[:, beat],
                "accumulator": accumulator,
            }
            following = rows.contract(beat, window).compute(arrays)["result"]
            off += int((following != rows.contract(beat, None).compute(arrays)["result"]).sum())
            accumulator = following
        errors = BINARY16.decode(accumulator) - exact
        rms = float(np.sqrt((errors**2).mean()))
        reference = reference or rms
        table.add_row(
            "none" if window is None else str(window),
            f"{rms:.3e}",
            f"{rms / reference:.3f}",
            f"{np.abs(errors).max():.3e}",
            f"{off / (count * beats):.2%}",
        )
    table.caption = rows.note
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
