"""Readers and writers of models; the ending of a file's name decides which reader opens it."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

from fewbit.errors import UsageError, check_target
from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.checks import check_choice
from fewbit.golden.files.network import load_network, save_network
from fewbit.golden.files.trained import find_trained, save_trained, with_network
from fewbit.golden.network import Imported, Network
from fewbit.golden.words import option_name, shown

__all__ = ["archive_target", "check_network", "open_model", "save_model", "told"]

_READ = ".tflite, .safetensors, .onnx or .npz"
_REMEDIES = {
    ".pt": "a pickle, which may run anything; save its state dict with safetensors",
    ".pth": "a pickle, which may run anything; save its state dict with safetensors",
    ".ckpt": "a pickle, which may run anything; save its state dict with safetensors",
    ".pkl": "a pickle, which may run anything; save its state dict with safetensors",
    ".h5": "a Keras file; convert it to an integer .tflite",
    ".keras": "a Keras file; convert it to an integer .tflite",
}


@contextmanager
def told() -> Generator[None]:
    """Turn a fault of a file or an argument in the body into a user's mistake.

    Raises
    ------
    UsageError
        In place of any ValueError, with the same text, which is one sentence already.
    """
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_network(network: object) -> Network:
    """Return the network, or refuse another object that a user may take for one.

    Raises
    ------
    UsageError
        If the object is no network.
    """
    if not isinstance(network, Network):
        raise UsageError(
            f"The network must be a Network, as fewbit.load returns it, not {shown(network)}."
        )
    return network


def open_model(
    path: Path, lstm: str | None = None, activation: ActivationKind | None = None
) -> Imported:
    """Read the network of a model file, and return it with the reader's warnings.

    Parameters
    ----------
    path
        A file whose name ends in .tflite, .safetensors, .onnx or .npz.
    lstm
        The LSTM to read from a foreign file; see the file's reader in `golden`.
    activation
        The way in which all layers of an integer network activate, in place of its own.

    Raises
    ------
    UsageError
        If the file can't be read, or an option doesn't go with it.
    """
    ending = path.suffix.lower()
    if ending in _REMEDIES:
        raise UsageError(f"'{path}' is {_REMEDIES[ending]}.")
    with told():
        if activation is not None:
            check_choice("activation", activation, get_args(ActivationKind))
        if ending == ".tflite":
            from fewbit.golden.files.tflite import read_tflite

            return read_tflite(path, lstm=lstm, activation=activation or "gemmlowp")
        if ending == ".npz":
            if lstm is not None:
                raise UsageError(
                    f"A .npz model has no LSTMs to choose from; leave {option_name('lstm')} out."
                )
            imported = Imported(load_network(path))
        elif ending == ".safetensors":
            from fewbit.golden.files.torch import read_safetensors

            imported = read_safetensors(path, lstm=lstm)
        elif ending == ".onnx":
            from fewbit.golden.files.onnx import read_onnx

            imported = read_onnx(path, lstm=lstm)
        else:
            raise UsageError(f"'{path}' must be a model whose name ends in {_READ}.")
    if activation is None:
        return imported
    return replace(imported, network=_with_activation(path, imported.network, activation))


def archive_target(path: Path) -> Path:
    """Return where an ``.npz`` file is written: the path, with that ending where it has another.

    Raises
    ------
    UsageError
        If no file can be written there.
    """
    check_target(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def save_model(path: Path, network: Network, like: Path | None = None) -> None:
    """Write a model to an ``.npz`` file, whole or not at all, and its folder if it is missing.

    Parameters
    ----------
    path
        The file.
    network
        The network.
    like
        The file of the model that the network was made from. If it is that of a trained model, its
        read-out, embedding and names are written, too.

    Raises
    ------
    UsageError
        If the file can't be written, or the other can't be read or doesn't go with the network.
    """
    check_target(path)
    trained = None
    if like is not None and like.suffix.lower() == ".npz":
        with told():
            trained = find_trained(like)
            trained = trained and with_network(trained, network)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"File '{path}' can't be written ({error.strerror}); choose another place."
        ) from error
    with told():
        if trained is None:
            save_network(path, network)
        else:
            save_trained(path, trained)


def _with_activation(path: Path, network: Network, activation: ActivationKind) -> Network:
    try:
        nodes = tuple(
            replace(node, lstm=node.lstm.with_activation(activation)) for node in network.nodes
        )
    except ValueError as error:
        title = network.nodes[0].lstm.title
        raise UsageError(
            f"'{path}' is a {title} model, which has no such choice; leave"
            f" {option_name('activation')}."
        ) from error
    return Network(nodes, network.outputs)
