"""The float models of the examples: an LSTM and its read-out in a file."""

from pathlib import Path

from fewbit.golden.files.model import ReadOut, load_model
from fewbit.golden.lstm.float64 import Float64Lstm

__all__ = ["read_float_model"]


def read_float_model(path: Path, program: str) -> tuple[Float64Lstm, ReadOut]:
    """Return the LSTM and the read-out in a file that a program wrote.

    Parameters
    ----------
    path
        The file.
    program
        Module that writes it anew, for the error's remedy.

    Raises
    ------
    ValueError
        If the file is missing or damaged.
    """
    model = load_model(path)
    if not isinstance(model.lstm, Float64Lstm) or model.read_out is None:
        raise ValueError(
            f"{path}: must hold a float LSTM with a read-out; write it anew with python -m"
            f" {program}."
        )
    return model.lstm, model.read_out
