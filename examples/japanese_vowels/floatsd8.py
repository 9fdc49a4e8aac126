"""The speaker model in FloatSD8: the cost of windows and of numbers of products.

``python -m examples.japanese_vowels.floatsd8`` takes two minutes.
"""

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from examples.japanese_vowels.recognise import (
    classify_float,
    decide,
    floatsd8_model,
    hidden_reals,
    int8_model,
    load_float_model,
    load_recordings,
    quantized_input,
    run_golden,
)
from fewbit.golden.formats import BINARY16
from fewbit.golden.lstm.float64 import Float64Lstm
from fewbit.golden.lstm.floatsd8 import FloatSD8Lstm
from fewbit.golden.lstm.padding import valid_steps

CASES = [(4, window) for window in (None, 18, 16, 14, 13, 12, 11, 10, 9, 8)] + [(8, 14), (16, 14)]


def main() -> int:
    """Run as a program; return the exit status."""
    _, test = load_recordings()
    model = load_float_model()
    within = valid_steps(test.padded, test.lengths)
    exact = model.lstm.run(test.padded)

    table = Table(title=f"Speakers recognised in {len(test)} utterances not trained on")
    table.add_column("arithmetic")
    for column in ("products", "window", "recognised", "rms error", "of it after quantisation"):
        table.add_column(column, justify="right")
    table.add_row("float64", "", "", str(classify_float(model, test).correct), "", "")

    in_int8 = int8_model()
    hidden = run_golden(in_int8.lstm, quantized_input(in_int8, test))
    reals = hidden_reals(in_int8, hidden)
    recognised = decide(in_int8, hidden, test).correct
    table.add_row("int8", "", "", str(recognised), _rms(reals - exact, within), "")

    for products, window in track(CASES, "FloatSD8", transient=True):
        recogniser = floatsd8_model(products, window)
        lstm = recogniser.lstm
        assert isinstance(lstm, FloatSD8Lstm)
        x = quantized_input(recogniser, test)
        hidden = run_golden(lstm, x)
        reals = hidden_reals(recogniser, hidden)
        # The same weights and inputs, everything after them in double precision.
        rounded = Float64Lstm(
            lstm.input_weight_format.decode(lstm.input_weights),
            lstm.recurrent_weight_format.decode(lstm.recurrent_weights),
            BINARY16.decode(lstm.bias),
        )
        same_operands = rounded.run(lstm.input_format.decode(x))
        table.add_row(
            "FloatSD8",
            str(products),
            "none" if window is None else str(window),
            str(decide(recogniser, hidden, test).correct),
            _rms(reals - exact, within),
            _rms(reals - same_operands, within),
        )
    console = Console(width=100)
    console.print(table)
    console.print(
        "rms error: of a hidden value against float64; after quantisation: against float64 with"
        " the FloatSD8 layer's weights and inputs.",
        style="dim",
    )
    return 0


def _rms(errors: np.ndarray, within: np.ndarray) -> str:
    return f"{np.sqrt((errors[within] ** 2).mean()):.4f}"


if __name__ == "__main__":
    raise SystemExit(main())
