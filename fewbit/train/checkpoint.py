"""Checkpoints: all that a training needs to go on, in one ``.safetensors`` file without pickles.

State dicts of modules and optimisers are nested dictionaries and lists of tensors and plain values.
The tensors are stored by number; all else, with the numbers in the tensors' places, is JSON in the
file's metadata, and so is the digest of both. Keys that are no texts, as optimisers have, are kept
by storing a dictionary as pairs.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

__all__ = ["read_checkpoint", "write_checkpoint", "write_whole"]

_KEY, _DIGEST = "fewbit_checkpoint", "sha256"
_PLAIN = (str, int, float, bool, type(None))


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path
        The file.
    state
        Dictionaries, lists, tuples, tensors, texts, numbers, truth values and None, nested at will.

    Raises
    ------
    OSError
        If it cannot be written; an old file is then as it was.
    """
    tensors: list[Tensor] = []
    structure = json.dumps(_pack(state, tensors))
    named = {
        str(index): tensor.detach().cpu().contiguous().clone()
        for index, tensor in enumerate(tensors)
    }
    write_whole(path, save(named, {_KEY: structure, _DIGEST: _digest(structure, named)}))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written; an old file is then as it was.
    """
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            # On the disk before it takes the old one's place.
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that `write_checkpoint` has written; tuples come back as lists.

    Raises
    ------
    ValueError
        If the file cannot be read or is no checkpoint.
    """
    otherwise = f"'{path}' is no whole checkpoint of fewbit train; start anew in another folder."
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        structure, named = metadata[_KEY], load_file(path)
        if metadata[_DIGEST] != _digest(structure, named):
            raise ValueError(otherwise)
        state = _unpack(json.loads(structure), named)
    except FileNotFoundError as error:
        raise ValueError(
            f"'{path.parent}' holds no checkpoint to go on from; leave --resume out."
        ) from error
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(otherwise) from error
    if not isinstance(state, dict):
        raise ValueError(otherwise)
    return state


def _digest(structure: str, named: dict[str, Tensor]) -> str:
    """Return the SHA-256 of all that a checkpoint holds, by which damage is seen."""
    digest = hashlib.sha256(structure.encode())
    for name in sorted(named, key=int):
        digest.update(f"{name} {named[name].dtype} {tuple(named[name].shape)}".encode())
        digest.update(named[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pack(value: Any, tensors: list[Tensor]) -> Any:
    """Return a value as JSON can hold it; tensors go into the list."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        return {"pairs": [[key, _pack(each, tensors)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_pack(each, tensors) for each in value]
    if not isinstance(value, _PLAIN):
        raise TypeError(f"A checkpoint must not hold {type(value).__name__} objects.")
    return value


def _unpack(value: Any, named: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(each, named) for each in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return named[str(value["tensor"])]
        return {key: _unpack(each, named) for key, each in value["pairs"]}
    return value
