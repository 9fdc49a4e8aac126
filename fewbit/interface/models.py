"""Functions for trained models from Python: read, quantise, run and write them."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Literal

from fewbit.golden.words import on_one_line
from fewbit.interface.calls import as_path, check_flag, in_python, load_plugins_once

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from fewbit.golden.activation.integer import ActivationKind
    from fewbit.golden.network import Network
    from fewbit.hdl.design import Value

    AnyPath = str | os.PathLike[str]

__all__ = ["load", "quantize", "run", "save"]


@in_python
def load(
    path: AnyPath, /, *, lstm: str | int | None = None, activation: ActivationKind | None = None
) -> Network:
    """Read a trained model: a .tflite, .safetensors, .onnx or .npz file.

    If the reader leaves out a part of the file, or has another remark, it issues a warning.

    Parameters
    ----------
    path
        The file.
    lstm
        The LSTM to read from a file of several, by name or index; for more than one, with commas
        between them.
    activation
        The approximation of sigmoid and tanh in an integer model, in place of the model's own.

    Raises
    ------
    UsageError
        If the file is missing or damaged or holds another kind of model, or an option does not go
        with it.
    """
    from fewbit.models import open_model

    load_plugins_once()
    imported = open_model(as_path("path", path), None if lstm is None else str(lstm), activation)
    for warning in imported.warnings:
        # The warning shows the caller's line, which is two frames up, beyond the wrapper.
        warnings.warn(on_one_line(f"{warning}."), stacklevel=3)
    return imported.network


@in_python
def save(network: Network, path: AnyPath, /, *, like: AnyPath | None = None) -> Path:
    """Write a network to an .npz file, whole or not at all, for `load` and for the commands.

    Parameters
    ----------
    network
        A real or a quantised network.
    path
        The file. It gets the ending .npz if it has another, and its folder is made if it is
        missing.
    like
        The file of the trained model that the network was made from, by `quantize` for example: its
        read-out, embedding and names are written, too.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    UsageError
        If the file cannot be written, or the other cannot be read or does not go with the network.
    """
    from fewbit.models import archive_target, check_network, save_model

    target = archive_target(as_path("path", path))
    source = None if like is None else as_path("like", like)
    save_model(target, check_network(network), source)
    return target


@in_python
def quantize(network: Network, x: npt.ArrayLike, /, to: str = "int8", **options: Value) -> Network:
    """Return a quantised network of a real one, calibrated on sequences.

    Parameters
    ----------
    network
        A real network.
    x
        Real numbers of shape (batch, time, inputs), of the training data.
    to
        The number system: ``int8``, ``floatsd8``, ``ternary``, ``binary``, ``pow2``, or a
        plug-in's.
    options
        Options of the quantiser, by the names that ``fewbit quantize --help`` lists, with ``_`` for
        ``-``.

    Raises
    ------
    UsageError
        If the network is quantised already, there is no such number system, an option does not go
        with it, or the sequences do not suit the network.
    """
    from fewbit.arrays import as_sequences
    from fewbit.models import check_network
    from fewbit.quantization import quantize_network

    load_plugins_once()
    return quantize_network(check_network(network), as_sequences(x), to=to, options=options)


@in_python
def run(
    network: Network,
    x: npt.ArrayLike,
    /,
    *,
    backend: Literal["golden", "rtl"] = "golden",
    real: bool = False,
    **parameters: Value,
) -> npt.NDArray[Any]:
    """Run sequences through a network, each from reset.

    Parameters
    ----------
    network
        A real or a quantised network.
    x
        Numbers of shape (batch, time, inputs): reals for a real network; raws or codes, integers,
        for a quantised one.
    backend
        ``golden`` for the golden model, or ``rtl`` for the generated layer in compiled simulation,
        whose numbers are the same. The compiled circuit stays in ``build/bulk`` for the next time.
    real
        Whether a quantised network takes and gives real numbers: `x` is rounded to its input's
        format, and the output decoded.
    parameters
        Parameters of the generated layer that the model leaves open, such as ``lanes``, for
        ``rtl``.

    Returns
    -------
    ndarray
        The last layer's output at every time step, shape (batch, time, outputs): float64 of a real
        network or with `real`, else the raws or codes in their integer type.

    Raises
    ------
    UsageError
        If the sequences do not suit the network, or a parameter does not go with the backend.
    fewbit.sim.bulk.BulkError
        If the circuit cannot be compiled.
    fewbit.sim.yosys.YosysError
        If Yosys is missing or fails.
    """
    from fewbit.arrays import as_sequences
    from fewbit.models import check_network
    from fewbit.sequences import run_sequences

    check_flag("real", real)
    load_plugins_once()
    outcome = run_sequences(
        check_network(network), as_sequences(x), kind=backend, settings=parameters, real=real
    )
    return outcome.output
