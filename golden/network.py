"""Networks: LSTM layers in a row, each of one direction or of two, as a trained model has them.

A network is a list of nodes. Each node is an LSTM layer that reads the network's input, or the
outputs of earlier nodes side by side. A node may run from the last time step to the first; its
output is then reversed, so that output t always belongs to input t. A bidirectional layer is two
nodes that read the same input; their outputs stand side by side, forward then backward.

Every sequence starts from the reset state.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.lstm.contract import Lstm

__all__ = [
    "NETWORK_INPUT",
    "Backend",
    "Imported",
    "Network",
    "Node",
    "golden_backend",
    "join",
    "run",
    "run_on",
    "trace",
]

Values = npt.NDArray[Any]
Backend = Callable[[Any, Values], Values]
"""A function that runs a layer: it maps the layer and its input to the layer's output.

The input has the shape (batch, time, inputs), the output (batch, time, outputs).
"""

State = tuple[Values, Values]
"""Hidden and cell numbers of a layer, shapes (batch, outputs) and (batch, hidden)."""
NETWORK_INPUT = -1
"""Source of a node that reads the network's input."""

MOST_NODES = 256
LONGEST_NAME = 200


@dataclass(frozen=True, eq=False)
class Node:
    """An LSTM layer in a network, and the outputs that it reads.

    Parameters
    ----------
    lstm
        The layer.
    sources
        Indices of the earlier nodes whose outputs the layer reads side by side, in this order;
        `NETWORK_INPUT` for the network's input.
    reverse
        Whether the layer runs from the last time step to the first.
    name
        The node's name in messages.
    """

    lstm: Lstm
    sources: tuple[int, ...] = (NETWORK_INPUT,)
    reverse: bool = False
    name: str = ""


@dataclass(frozen=True, eq=False)
class Network:
    """A network of layers that run one after the other.

    Parameters
    ----------
    nodes
        The layers in the order in which they run.
    outputs
        Indices of the nodes whose outputs, side by side, are the network's output. The default is
        the last node alone.

    Raises
    ------
    ValueError
        If there is no node or more than 256, a node reads a later one, widths don't fit, layers
        are of different kinds, or a layer reads numbers otherwise than its source writes them.
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
        """Refuse a network in which two layers read one code or raw as different reals."""
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
        """Return whether the layers compute with raws or codes, and not with reals."""
        return self.nodes[0].lstm.is_quantised

    @property
    def goes_on(self) -> bool:
        """Return whether hidden and cell numbers alone say how a sequence goes on; see `run_on`."""
        return not any(node.reverse or node.lstm.decides for node in self.nodes)

    @property
    def width(self) -> int:
        """Return the length of an output vector."""
        return sum(self.nodes[node].lstm.outputs for node in self.outputs)

    def encode(self, reals: npt.NDArray[Any]) -> Values:
        """Return the output codes or raws nearest to reals, shape (..., width) both."""
        return self._by_output(reals, lambda lstm, part: lstm.writes.encode(part))

    def decode(self, output: Values) -> npt.NDArray[np.float64]:
        """Return the reals of output codes or raws, shape (..., width) both."""
        return self._by_output(output, lambda lstm, part: lstm.writes.decode(part))

    def _by_output(self, values: Values, function: Callable[[Lstm, Values], Values]) -> Values:
        """Return what a function makes of the values of each node that gives the output."""
        lstms = [self.nodes[index].lstm for index in self.outputs]
        ends = np.cumsum([lstm.outputs for lstm in lstms])[:-1]
        parts = np.split(values, ends, axis=-1)
        return np.concatenate(
            [function(lstm, part) for lstm, part in zip(lstms, parts, strict=True)], axis=-1
        )

    @property
    def layers(self) -> int:
        """Return the number of layers one after the other; a bidirectional pair counts as one."""
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
    """A network that was read from a foreign file, and the warnings of its reader.

    Parameters
    ----------
    network
        The network.
    warnings
        One sentence each; empty if there is nothing to warn of.
    """

    network: Network
    warnings: tuple[str, ...] = ()


def golden_backend(lstm: Lstm, x: Values) -> Values:
    """Return the golden output of a layer for input `x`, shape (batch, time, outputs)."""
    return lstm.forward(x)


def join(sources: Sequence[int], x: Values, outputs: Sequence[Values]) -> Values:
    """Return the input of a node in the order of time, shape (batch, time, inputs).

    Parameters
    ----------
    sources
        The indices in the node's field `Node.sources`.
    x
        The network's input, shape (batch, time, inputs).
    outputs
        The outputs of all earlier nodes, in order.
    """
    parts = [x if source == NETWORK_INPUT else outputs[source] for source in sources]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def trace(
    network: Network,
    x: npt.ArrayLike,
    backend: Backend = golden_backend,
    done: Callable[[], None] = lambda: None,
) -> list[Values]:
    """Return the output of every node at every time step, shape (batch, time, outputs) each.

    Parameters
    ----------
    network
        The network.
    x
        Raws, codes or reals, as the network's first layers read them; shape (batch, time, inputs).
    backend
        The function that runs a layer. Its input is already reversed where the node is.
    done
        A function that is called after every node.

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
    """Return the output of the network at every time step, shape (batch, time, width).

    The parameters are those of `trace`.
    """
    outputs = trace(network, x, backend, done)
    return join(network.outputs, np.zeros(0), outputs)


def run_on(
    network: Network, x: npt.ArrayLike, states: Sequence[State] | None = None
) -> tuple[Values, list[State]]:
    """Return the output for the next time steps of sequences, and the states after them.

    Parameters
    ----------
    network
        A network that `goes_on`.
    x
        The next steps, at least one; shape (batch, time, inputs).
    states
        The states of all nodes, as the last call returned them; None for reset.

    Returns
    -------
    output, states
        The output, shape (batch, time, width), and a state for each node.

    Raises
    ------
    ValueError
        If a layer runs in reverse or decides at run time, or the shape of `x` is wrong.
    """
    if not network.goes_on:
        raise ValueError(
            "A network that runs in reverse, or whose layers decide at run time, must run whole"
            " sequences."
        )
    after: list[State] = []

    def backend(lstm: Lstm, part: Values) -> Values:
        before = states[len(after)] if states else (None, None)
        hidden, cell = lstm.run_with_cell(part, hidden=before[0], cell=before[1])
        after.append((hidden[:, -1], cell[:, -1]))
        return hidden

    return run(network, x, backend), after
