"""Reader of PyTorch's ``nn.LSTM`` in a state dict that was saved as safetensors.

Each layer and direction has ``weight_ih_l0`` and ``weight_hh_l0``; with biases also ``bias_ih_l0``
and ``bias_hh_l0``, with a projection also ``weight_hr_l0``. Further layers have l1, l2 and so on,
and the names of the backward direction end with ``_reverse``. The text before these names, such as
``encoder.lstm.``, is the module's prefix.

PyTorch's gates are in the order i, f, g, o, as here. The reader adds its two biases.

Source: the documentation of ``torch.nn.LSTM``; the documentation of the safetensors format.
"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors

from fewbit.golden.files.assembly import read_file
from fewbit.golden.lstm.float64 import Float64Lstm, Reals
from fewbit.golden.network import NETWORK_INPUT, Imported, Network, Node
from fewbit.golden.words import option_name

__all__ = ["read_safetensors"]

_PARAMETER = re.compile(
    r"(?P<prefix>.*?)(?P<kind>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)"
    r"_l(?P<layer>0|[1-9]\d{0,2})(?P<reverse>_reverse)?"
)
_GATES = 4
_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_MOST_LISTED = 8


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file that is not decoded yet."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def reals(self, axes: int) -> Reals:
        if len(self.shape) != axes or 0 in self.shape:
            raise ValueError(f"{self.name} must have {axes} axes, not the shape {self.shape}")
        if self.dtype == "BF16":
            # bfloat16 is a binary32 without its lower half.
            halves = np.frombuffer(self.data, "<u2").astype(np.uint32)
            flat = (halves << np.uint32(16)).view(np.float32)
        elif self.dtype in _DTYPES:
            flat = np.frombuffer(self.data, _DTYPES[self.dtype])
        else:
            raise ValueError(f"{self.name} must be floating-point numbers, not {self.dtype}")
        if flat.size != math.prod(self.shape):
            raise ValueError(f"{self.name} must have the data of shape {self.shape}")
        with np.errstate(invalid="ignore"):
            reals = flat.astype(np.float64).reshape(self.shape)
        if not np.isfinite(reals).all():
            raise ValueError(f"{self.name} must be finite, not {reals[~np.isfinite(reals)][0]}")
        return reals


_Parameters = dict[tuple[int, bool], dict[str, _Tensor]]
"""Tensors of one module, by layer and whether it is backward, then by kind."""


def read_safetensors(path: str | os.PathLike[str], *, lstm: str | None = None) -> Imported:
    """Return the network of an ``nn.LSTM`` in a ``.safetensors`` file.

    Parameters
    ----------
    path
        The file, of at most 256 MiB.
    lstm
        Prefix of the module's tensors, such as "encoder.lstm"; not needed where the file has one
        ``nn.LSTM``.

    Raises
    ------
    ValueError
        If the file is damaged, holds no ``nn.LSTM``, or holds several and `lstm` names none.
    """
    source = Path(path)
    content = read_file(source)
    try:
        modules = _modules(content)
        prefix = _choose(modules, lstm)
        return Imported(_network(modules[prefix], prefix))
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{source}: is no safetensors file ({error}); save the state dict with "
            "safetensors.torch.save_file."
        ) from error
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).rstrip('.')}.") from error


def _modules(content: bytes) -> dict[str, _Parameters]:
    """Return the tensors of every ``nn.LSTM`` by prefix."""
    modules: dict[str, _Parameters] = {}
    # The package is compiled and has no type annotations.
    unpacked = safetensors.deserialize(content)  # pyright: ignore
    tensors = cast("list[tuple[str, dict[str, Any]]]", unpacked)
    for name, given in tensors:
        match = _PARAMETER.fullmatch(name)
        if match is not None:
            tensor = _Tensor(name, given["dtype"], tuple(given["shape"]), bytes(given["data"]))
            place = int(match["layer"]), match["reverse"] is not None
            module = modules.setdefault(match["prefix"], {})
            module.setdefault(place, {})[match["kind"]] = tensor
    return {prefix: module for prefix, module in sorted(modules.items()) if _is_lstm(module)}


def _is_lstm(module: _Parameters) -> bool:
    """Return whether a module has four gates, and so is an ``nn.LSTM``.

    An ``nn.GRU`` has three, an ``nn.RNN`` one, under the same names.
    """
    first = module.get((0, False), {})
    if not {"weight_ih", "weight_hh"} <= set(first):
        return False
    inner = first["weight_hr"] if "weight_hr" in first else first["weight_hh"]
    rows, columns = first["weight_hh"].shape[:1], inner.shape[1:]
    return rows == tuple(_GATES * length for length in columns)


def _choose(modules: dict[str, _Parameters], lstm: str | None) -> str:
    if not modules:
        raise ValueError("it holds no parameters of an nn.LSTM")
    shown = ", ".join(repr(prefix.rstrip(".")) for prefix in list(modules)[:_MOST_LISTED])
    shown += ", ..." * (len(modules) > _MOST_LISTED)
    if lstm is None:
        if len(modules) > 1:
            raise ValueError(
                f"it holds {len(modules)} LSTMs: {shown}; choose one with"
                f" {option_name('lstm')} NAME"
            )
        return next(iter(modules))
    for prefix in (lstm, f"{lstm}."):
        if prefix in modules:
            return prefix
    raise ValueError(f"no LSTM is called {lstm!r}; there are {shown}")


def _network(module: _Parameters, prefix: str) -> Network:
    layers = 1 + max(layer for layer, _ in module)
    directions = (False, True) if (0, True) in module else (False,)
    places = [(layer, reverse) for layer in range(layers) for reverse in directions]
    if sorted(module) != sorted(places):
        odd = min(set(module) ^ set(places))
        name = f"layer {odd[0]}{' backward' if odd[1] else ''} of {prefix.rstrip('.')!r}"
        raise ValueError(f"{name} is {'missing' if odd in places else 'alone'}")
    nodes: list[Node] = []
    sources: tuple[int, ...] = (NETWORK_INPUT,)
    for layer in range(layers):
        before = len(nodes)
        for reverse in directions:
            name = f"{prefix}l{layer}{'_reverse' if reverse else ''}"
            nodes.append(Node(_layer(module[layer, reverse]), sources, reverse, name[-200:]))
        sources = tuple(range(before, len(nodes)))
    return Network(tuple(nodes), sources)


def _layer(parameters: dict[str, _Tensor]) -> Float64Lstm:
    for name in ("weight_ih", "weight_hh"):
        if name not in parameters:
            beside = min(tensor.name for tensor in parameters.values())
            raise ValueError(f"{beside} has no {name} beside it")
    weights = {
        name: parameters[name].reals(1 if name.startswith("bias") else 2) for name in parameters
    }
    rows = len(weights["weight_ih"])
    if rows % _GATES:
        raise ValueError(
            f"{parameters['weight_ih'].name} must have four rows for each unit, not {rows} rows"
        )
    units = rows // _GATES
    recurrent = weights["weight_hh"]
    if len(recurrent) != rows:
        raise ValueError(
            f"{parameters['weight_hh'].name} must have {rows} rows, not {len(recurrent)}"
        )
    bias = np.zeros(rows)
    for name in ("bias_ih", "bias_hh"):
        if name in weights:
            if weights[name].shape != (rows,):
                raise ValueError(
                    f"{parameters[name].name} must have the shape {(rows,)}, not "
                    f"{weights[name].shape}"
                )
            with np.errstate(over="ignore"):
                bias = bias + weights[name]
    try:
        return Float64Lstm(
            weights["weight_ih"].reshape(_GATES, units, -1),
            recurrent.reshape(_GATES, units, -1),
            bias.reshape(_GATES, units),
            projection_weights=weights.get("weight_hr"),
        )
    except ValueError as error:
        raise ValueError(f"{parameters['weight_ih'].name}: {error}") from error
