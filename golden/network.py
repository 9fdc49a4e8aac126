"""LSTM layers in a row, of one direction or of two: what a trained model is run as.

A network is a list of nodes. Each node is an LSTM layer that reads the network's input, or the
outputs of earlier nodes side by side. A node may run over time reversed; its output is reversed
back, so that output t always belongs to input t. A bidirectional layer is two nodes that read the
same and whose outputs stand side by side, forward then backward.

Every sequence starts from reset by itself.

As a file, a network is an ``.npz`` archive without pickles, as `golden.model` describes it:
``network_version``, ``outputs``, and for every node the arrays of its layer, ``sources``,
``reverse`` and ``name`` (its UTF-8 bytes) with the prefix ``node0_``, ``node1_`` and so on. A model
file of one layer is a network of one node.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from golden.lstm.contract import Lstm, StoredArray
from golden.model import (
    Contents,
    arrays_of_layer,
    check_kinds,
    check_version,
    explained,
    layer_arrays,
    layer_from,
    load_model,
    read_archive,
    take_arrays,
    write_archive,
)

__all__ = [
    "NETWORK_INPUT",
    "Backend",
    "Imported",
    "Network",
    "Node",
    "golden_backend",
    "join",
    "load_network",
    "run",
    "save_network",
    "trace",
]

Values = npt.NDArray[Any]
Backend = Callable[[Any, Values], Values]
"""What runs a layer: the layer and its input (batch, time, inputs) to (batch, time, outputs)."""

NETWORK_INPUT = -1
"""Source of a node that reads the network's input."""

MOST_NODES = 256
LONGEST_NAME = 200


@dataclass(frozen=True, eq=False)
class Node:
    """A layer and what it reads.

    Parameters
    ----------
    lstm
        The layer.
    sources
        Indices of earlier nodes whose outputs it reads side by side, in this order;
        `NETWORK_INPUT` for the network's input.
    reverse
        Whether it runs from the last input to the first.
    name
        What messages call it.
    """

    lstm: Lstm
    sources: tuple[int, ...] = (NETWORK_INPUT,)
    reverse: bool = False
    name: str = ""


@dataclass(frozen=True, eq=False)
class Network:
    """Layers that run one after the other.

    Parameters
    ----------
    nodes
        In the order in which they run.
    outputs
        Indices of the nodes whose outputs, side by side, are the network's; the last node's if
        not given.

    Raises
    ------
    ValueError
        If there is no node or more than 256, a node reads a later one, widths don't fit, layers
        are of different kinds, or a layer reads other codes or raws than it is given.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...] = ()
    inputs: int = field(init=False)
    """Length of an input vector."""

    def __post_init__(self) -> None:
        """Check that the nodes fit each other."""
        object.__setattr__(self, "nodes", tuple(self.nodes))
        if not 1 <= len(self.nodes) <= MOST_NODES:
            raise ValueError(f"A network must have 1 to {MOST_NODES} nodes, not {len(self.nodes)}.")
        object.__setattr__(self, "outputs", tuple(self.outputs) or (len(self.nodes) - 1,))
        kinds = {type(node.lstm).__name__ for node in self.nodes}
        if len(kinds) > 1:
            raise ValueError(
                f"All layers of a network must be of one kind, not {' and '.join(sorted(kinds))}."
            )
        widths: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            _check_references(f"The sources of node {index}", node.sources, NETWORK_INPUT, index)
            if len(node.name) > LONGEST_NAME:
                raise ValueError(
                    f"The name of node {index} must have at most {LONGEST_NAME} characters, not "
                    f"{len(node.name)}."
                )
            given = sum(widths[source] for source in node.sources if source in widths)
            unknown = node.sources.count(NETWORK_INPUT) if NETWORK_INPUT not in widths else 0
            if unknown == 1 and node.lstm.inputs > given:
                widths[NETWORK_INPUT] = node.lstm.inputs - given
                given = node.lstm.inputs
            if unknown > 1 or given != node.lstm.inputs:
                raise ValueError(
                    f"Node {index} must have {given} inputs, as its sources give, not "
                    f"{node.lstm.inputs}."
                )
            widths[index] = node.lstm.outputs
        if NETWORK_INPUT not in widths:
            raise ValueError("A node must read the network's input, but none does.")
        _check_references("The outputs", self.outputs, 0, len(self.nodes))
        self._check_readers()
        object.__setattr__(self, "inputs", widths[NETWORK_INPUT])

    def _check_readers(self) -> None:
        """Refuse layers that read one code or raw as different reals."""
        given: dict[int, Mapping[str, float]] = {}
        for index, node in enumerate(self.nodes):
            reads = node.lstm.reads.agreement
            given[index] = node.lstm.writes.agreement
            for source in sorted(node.sources, reverse=True):
                wanted = given.setdefault(source, reads)
                for name, value in reads.items():
                    if wanted[name] != value:
                        what = "the network's input" if source == NETWORK_INPUT else "hidden values"
                        raise ValueError(
                            f"Node {index} must have {name} {wanted[name]}, as {what} that it "
                            f"reads, not {value}."
                        )

    @property
    def quantised(self) -> bool:
        """Whether the layers compute with raws or codes, and not with reals."""
        return self.nodes[0].lstm.is_quantised

    @property
    def width(self) -> int:
        """Length of an output vector."""
        return sum(self.nodes[node].lstm.outputs for node in self.outputs)

    @property
    def layers(self) -> int:
        """Number of layers one after the other; a bidirectional pair counts as one."""
        depths: dict[int, int] = {NETWORK_INPUT: 0}
        for index, node in enumerate(self.nodes):
            depths[index] = 1 + max(depths[source] for source in node.sources)
        return max(depths.values())


def _check_references(what: str, given: tuple[int, ...], low: int, high: int) -> None:
    if not given or len(given) > MOST_NODES:
        raise ValueError(f"{what} must be 1 to {MOST_NODES} indices, not {len(given)}.")
    for index in given:
        if not low <= index < high:
            raise ValueError(f"{what} must be from {low} to {high - 1}, not {index}.")


@dataclass(frozen=True)
class Imported:
    """A network read from a foreign file, and what its reader must tell the user.

    Parameters
    ----------
    network
        The network.
    warnings
        One sentence each; empty if the file says nothing surprising.
    """

    network: Network
    warnings: tuple[str, ...] = ()


def golden_backend(lstm: Lstm, x: Values) -> Values:
    """Output of a layer as the golden model computes it, shape (batch, time, outputs)."""
    return lstm.forward(x)


def join(sources: Sequence[int], x: Values, outputs: Sequence[Values]) -> Values:
    """What a node with these sources reads, in the order of time, shape (batch, time, inputs).

    Parameters
    ----------
    sources
        Of a node.
    x
        The network's input.
    outputs
        Those of the nodes so far.
    """
    parts = [x if source == NETWORK_INPUT else outputs[source] for source in sources]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def trace(
    network: Network,
    x: npt.ArrayLike,
    backend: Backend = golden_backend,
    done: Callable[[], None] = lambda: None,
) -> list[Values]:
    """Output of every node at every time step, shape (batch, time, outputs) each.

    Parameters
    ----------
    network
        The network.
    x
        Raws, codes or reals, as the network's first layers read them; shape (batch, time, inputs).
    backend
        Runs a layer; an input that is to be reversed reaches it reversed.
    done
        Called after every node.

    Raises
    ------
    ValueError
        If the shape of `x` is wrong.
    """
    given = np.asarray(x)
    if given.ndim != 3 or given.shape[2] != network.inputs:
        raise ValueError(
            f"x must have the shape (batch, time, {network.inputs}), not {given.shape}."
        )
    outputs: list[Values] = []
    for node in network.nodes:
        read = join(node.sources, given, outputs)
        output = backend(node.lstm, read[:, ::-1] if node.reverse else read)
        outputs.append(output[:, ::-1] if node.reverse else output)
        done()
    return outputs


def run(
    network: Network,
    x: npt.ArrayLike,
    backend: Backend = golden_backend,
    done: Callable[[], None] = lambda: None,
) -> Values:
    """Output of the network at every time step, shape (batch, time, width).

    The parameters are those of `trace`.
    """
    outputs = trace(network, x, backend, done)
    return join(network.outputs, np.zeros(0), outputs)


_VERSION = 1
_HEADER = {"outputs": StoredArray(("int32",), ("outputs",))}
_NODE = {
    "sources": StoredArray(("int32",), ("sources",)),
    "reverse": StoredArray(("int32",)),
    "name": StoredArray(("int8",), ("letters",), optional=True),
}
_NODE_NAME = re.compile(r"node(0|[1-9]\d{0,2})_([a-z_]+)")
_REMEDY = "write the file anew with golden.network.save_network"


def save_network(path: str | os.PathLike[str], network: Network) -> None:
    """Write a network file, whole or not at all.

    Raises
    ------
    ValueError
        If the file cannot be written, or would be larger than `golden.model.LARGEST_FILE`.
    """
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
    write_archive(path, arrays)


def load_network(path: str | os.PathLike[str]) -> Network:
    """Read a network file, or a model file of one layer.

    Raises
    ------
    ValueError
        If the file cannot be read, is neither, is too large, or anything in it is wrong.
    """
    with explained(path, _REMEDY):
        contents = read_archive(path)
        if "network_version" in contents:
            return _network_from(contents)
    return Network((Node(load_model(path).lstm),))


def _network_from(contents: Contents) -> Network:
    check_version(contents, "network_version", _VERSION)
    check_kinds(contents)
    header = take_arrays(contents, _HEADER)
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
    return Network(tuple(nodes), tuple(header["outputs"].tolist()))


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
