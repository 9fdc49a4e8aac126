"""What a window costs: sums of LSTM rows in FloatSD8, exact and with windows of several widths.

Weights are normal with a deviation of 0.3, activations hyperbolic tangents of normals, the start
value a normal of deviation 0.5: an LSTM's pre-activation of 176 products, four a beat.
"""

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from golden.accumulate.floatsd8_mac import FloatSD8Mac
from golden.formats import BINARY16, E5M2, FLOATSD8

_PRODUCTS = 4


def main() -> int:
    """Run as a program; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--beats", type=int, default=44, help="beats a row, default 44")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    shape = options.rows, options.beats, _PRODUCTS
    weights = FLOATSD8.encode(rng.normal(0, 0.3, shape))
    activations = E5M2.encode(np.tanh(rng.normal(0, 1, shape)))
    start = BINARY16.encode(rng.normal(0, 0.5, options.rows))
    products = FLOATSD8.decode(weights) * E5M2.decode(activations)
    exact = BINARY16.decode(start) + products.sum(axis=(1, 2))

    table = Table(title=f"{options.rows:,} rows of {options.beats} beats, seed {options.seed}")
    for column in ("window", "rms error of a row", "of the exact unit's", "largest", "beats off"):
        table.add_column(column, justify="right")
    reference = 0.0
    for window in (None, 10, 11, 12, 13, 14, 15, 16, 18):
        contract, exact_unit = FloatSD8Mac(window=window), FloatSD8Mac(window=None)
        accumulator, off = start, 0
        for beat in range(options.beats):
            arrays = {
                "weights": weights[:, beat],
                "activations": activations[:, beat],
                "accumulator": accumulator,
            }
            following = contract.compute(arrays)["result"]
            off += int((following != exact_unit.compute(arrays)["result"]).sum())
            accumulator = following
        errors = BINARY16.decode(accumulator) - exact
        rms = float(np.sqrt((errors**2).mean()))
        reference = reference or rms
        table.add_row(
            "none" if window is None else str(window),
            f"{rms:.3e}",
            f"{rms / reference:.3f}",
            f"{np.abs(errors).max():.3e}",
            f"{off / (options.rows * options.beats):.2%}",
        )
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
