"""Functions for trained models from Python: read, quantise, run, evaluate and write them."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Literal

from fewbit.golden.words import on_one_line
from fewbit.interface.calls import as_path, check_flag, in_python, load_plugins_once

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from fewbit.evaluation import Evaluation
    from fewbit.golden.activation.integer import ActivationKind
    from fewbit.golden.files.trained import TrainedModel
    from fewbit.golden.network import Network
    from fewbit.hdl.design import Value

    AnyPath = str | os.PathLike[str]

__all__ = ["evaluate", "load", "quantize", "run", "save"]


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


@in_python
def evaluate(
    model: AnyPath | TrainedModel,
    task: str,
    /,
    data: AnyPath | None = None,
    *,
    split: Literal["test", "validation"] = "test",
    sequences: int | None = None,
    steps: int | None = None,
    setup: str | None = None,
    backend: Literal["golden", "rtl"] = "golden",
    **parameters: Value,
) -> Evaluation:
    """Return a task's figure of a trained model, on data that the model's own symbols are read by.

    Parameters
    ----------
    model
        The file that ``fewbit train`` wrote, or a model as
        ``fewbit.golden.files.trained.load_trained`` returns it.
    task
        The name of the task.
    data
        The path of the task's data; None for a task that generates them.
    split
        The part of the data.
    sequences
        The number of sequences, evenly spaced in that part; by default all, or 20 in ``rtl``.
    steps
        The number of first steps of each stream; by default all, or 100 in ``rtl``.
    setup
        The task's set-up by which sequences are generated.
    backend
        ``golden`` for the golden model, or ``rtl`` for the generated layer in simulation.
    parameters
        Parameters of the generated layer that the model leaves open, such as ``lanes``, for
        ``rtl``.

    Returns
    -------
    Evaluation
        ``figure`` with its ``metric`` and ``unit``, ``loss``, ``accuracy``, ``sequences``,
        ``steps``, ``labels``, ``unknown``, ``seconds``.

    Raises
    ------
    UsageError
        If the model or the data cannot be read, do not go with each other or with the task, or an
        option is out of its range.
    fewbit.sim.bulk.BulkError
        If the circuit cannot be compiled.
    fewbit.sim.yosys.YosysError
        If Yosys is missing or fails.
    """
    from fewbit import evaluation
    from fewbit.golden.files.trained import TrainedModel

    load_plugins_once()
    entry = evaluation.find_task(task)
    name = "the model"
    if not isinstance(model, TrainedModel):
        path = as_path("model", model)
        name, model = f"'{path}'", evaluation.open_trained(path)
    planned = evaluation.plan(
        model,
        entry,
        None if data is None else as_path("data", data),
        name=name,
        setup=setup,
        split=split,
        sequences=sequences,
        steps=steps,
        kind=backend,
        settings=parameters,
    )
    return evaluation.evaluate(planned)
