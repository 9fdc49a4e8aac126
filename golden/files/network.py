"""A network as a file: an ``.npz`` archive without pickles, see `fewbit.golden.files.archive`.

It holds ``network_version``, ``outputs``, and for every node the arrays of its layer, ``sources``,
``reverse`` and ``name`` (its UTF-8 bytes) with the prefix ``node0_``, ``node1_`` and so on. A model
file of one layer is read as a network of one node.

The file of a trained model is a network file with the arrays `TRAINED` besides; see
`fewbit.golden.files.trained`, which reads them.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from fewbit.golden.files.archive import (
    Contents,
    check_version,
    explained,
    read_archive,
    take_arrays,
    write_archive,
)
from fewbit.golden.files.model import (
    Pooling,
    arrays_of_layer,
    check_kinds,
    layer_arrays,
    layer_from,
    load_model,
)
from fewbit.golden.lstm.contract import REAL, StoredArray
from fewbit.golden.network import Network, Node

__all__ = ["TRAINED", "arrays_of_network", "load_network", "network_from", "save_network"]

_VERSION = 1
_HEADER = {"outputs": StoredArray(("int32",), ("outputs",))}
_NODE = {
    "sources": StoredArray(("int32",), ("sources",)),
    "reverse": StoredArray(("int32",)),
    "name": StoredArray(("int8",), ("letters",), optional=True),
}
TRAINED: Mapping[str, StoredArray] = {
    "read_out_weights": StoredArray(REAL, ("classes", "width")),
    "read_out_bias": StoredArray(REAL, ("classes",)),
    "read_out_pooling": StoredArray(("text",), choices=get_args(Pooling)),
    "embedding": StoredArray(REAL, ("symbols", "inputs"), optional=True),
    "task": StoredArray(("text",), optional=True),
    "symbol_letters": StoredArray(("uint8",), ("letters of symbols",), optional=True),
    "symbol_lengths": StoredArray(("int32",), ("symbols",), optional=True),
    "class_letters": StoredArray(("uint8",), ("letters of classes",), optional=True),
    "class_lengths": StoredArray(("int32",), ("classes",), optional=True),
}
"""The arrays that the file of a trained model has besides those of its network."""
_NODE_NAME = re.compile(r"node(0|[1-9]\d{0,2})_([a-z_]+)")
_REMEDY = "write the file anew with fewbit.golden.files.network.save_network"


def save_network(path: str | os.PathLike[str], network: Network) -> None:
    """Write a network file, whole or not at all.

    Raises
    ------
    ValueError
        If the file cannot be written, or would be larger than
        `fewbit.golden.files.archive.LARGEST_FILE`.
    """
    write_archive(path, arrays_of_network(network))


def arrays_of_network(network: Network) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays from which `network_from` makes the network again."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "network_version": np.array(_VERSION, np.int32),
        "outputs": np.array(network.outputs, np.int32),
    }
    for index, node in enumerate(network.nodes):
        of_node = arrays_of_layer(node.lstm)
        of_node["sources"] = np.array(node.sources, np.int32)
        of_node["reverse"] = np.array(node.reverse, np.int32)
        if node.name:
            of_node["name"] = np.frombuffer(node.name.encode("utf-8", "replace"), np.int8)
        arrays |= {f"node{index}_{name}": array for name, array in of_node.items()}
    return arrays


def load_network(path: str | os.PathLike[str]) -> Network:
    """Read a network file, or a model file of one layer as a network of one node.

    What the file of a trained model holds besides is checked for its types and sizes.

    Raises
    ------
    ValueError
        If the file cannot be read, is too large, is neither kind of file, or anything in it is
        wrong.
    """
    with explained(path, _REMEDY):
        contents = read_archive(path)
        if "network_version" in contents:
            return network_from(contents)[0]
    return Network((Node(load_model(path).lstm),))


def network_from(contents: Contents) -> tuple[Network, dict[str, Any]]:
    """Return the network whose arrays are in `contents`, and what else a trained model has.

    Returns
    -------
    network, further
        The network, and the arrays `TRAINED` by name, which fit each other in their types and
        shapes; none in the file of a network alone.

    Raises
    ------
    ValueError
        If an array is missing, unknown, or of a wrong type, shape, size or value.
    """
    check_version(contents, "network_version", _VERSION)
    check_kinds(contents)
    header = take_arrays(contents, _HEADER)
    further: dict[str, Any] = {}
    if not contents.keys().isdisjoint(TRAINED):
        further = take_arrays(contents, TRAINED)
    known = layer_arrays().union(_NODE)
    parts: dict[int, Contents] = {}
    for name, content in contents.items():
        match = _NODE_NAME.fullmatch(name)
        if match is None or match[2] not in known:
            raise ValueError(f"the file {name[:80]!r} in the archive is unknown")
        parts.setdefault(int(match[1]), {})[match[2]] = content
    if sorted(parts) != list(range(len(parts))):
        raise ValueError(
            f"the nodes must be numbered from 0 on, but there are {len(parts)} and "
            f"number {max(parts)}"
        )
    nodes = [_node_from(index, parts[index]) for index in range(len(parts))]
    return Network(tuple(nodes), tuple(header["outputs"].tolist())), further


def _node_from(index: int, contents: Contents) -> Node:
    try:
        taken = take_arrays(contents, _NODE)
        lstm = layer_from(contents)
        if contents:
            raise ValueError(f"{min(contents)} does not belong to such a layer")
        if taken["reverse"] not in {0, 1}:
            raise ValueError(f"reverse must be 0 or 1, not {taken['reverse']}")
    except ValueError as error:
        raise ValueError(f"node {index}: {error}") from error
    letters = taken.get("name", np.zeros(0, np.int8))
    return Node(
        lstm,
        tuple(taken["sources"].tolist()),
        bool(taken["reverse"]),
        letters.tobytes().decode("utf-8", "replace"),
    )
