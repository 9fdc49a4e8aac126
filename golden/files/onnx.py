"""Reader of the LSTMs in an ONNX file.

It reads the operator ``LSTM`` of the default domain: forward, reverse and bidirectional, with
biases and peepholes, in either layout, and with ``input_forget``. Several LSTMs form one network
where one reads the other's output, directly or through operators that exporters write between them:
``Squeeze`` of the direction, ``Transpose``, ``Reshape`` that puts both directions side by side,
``Concat`` of the units, ``Identity``, ``Cast`` and ``Dropout``. All other operators are ignored.

ONNX orders the gates i, o, f, g and peepholes i, o, f. Its ``input_forget`` computes the forget
gate as one minus the input gate. Here the input gate is one minus the forget gate, which is the
same with the input gate's weights negated, because ``1 - sigmoid(v) = sigmoid(-v)``.

Source: the ONNX operator specification, LSTM, versions 7 to 22. The meaning of ``input_forget`` is
that of ONNX Runtime, because the specification leaves it open.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fewbit.golden.files.assembly import LARGEST_FILE, Found, assemble, read_file
from fewbit.golden.lstm.float64 import Float64Lstm, Reals
from fewbit.golden.network import Imported

__all__ = ["read_onnx"]

_GATE_ORDER = (0, 2, 3, 1)
"""Places of i, f, g, o in ONNX's order."""
_PEEPHOLE_ORDER = (0, 2, 1)
_ACTIVATIONS = ["Sigmoid", "Tanh", "Tanh"]
_MOST_NODES = 1 << 16
_MOST_LSTMS = 128
_MOST_JOINED = 64
_MOST_STEPS = 32
# Operators that map zeros to zeros: initial states come out of chains of them.
_KEEP_ZEROS = frozenset(
    {"Expand", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Identity", "Cast", "Tile"}
)
_PASS_ON = frozenset({"Identity", "Cast", "Dropout"})


@dataclass(frozen=True)
class _Signal:
    """The content of a tensor: outputs of LSTMs or a tensor from elsewhere, and its axes.

    Parameters
    ----------
    sources
        Places of LSTMs in the reader's list, or a tensor's name, side by side.
    axes
        Names among "time", "batch", "direction" and "units", in the tensor's order; () where they
        are unknown.
    transposed
        Whether time and batch of a tensor from elsewhere are exchanged.
    """

    sources: tuple[int | str, ...]
    axes: tuple[str, ...] = ()
    transposed: bool = False


def read_onnx(path: str | os.PathLike[str], *, lstm: str | None = None) -> Imported:
    """Return the network of the LSTMs in an ``.onnx`` file.

    Parameters
    ----------
    path
        The file, of at most 256 MiB.
    lstm
        Index or name of the node to read, or several separated by commas. None stands for all,
        which must then be connected.

    Raises
    ------
    ValueError
        If the file is damaged, holds no LSTM, or holds one that cannot be expressed here.
    """
    source = Path(path)
    content = read_file(source)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        # The exception for a damaged file depends on the version of the protocol buffers.
        raise ValueError(
            f"{source}: is no ONNX file, or a damaged one; export the model anew."
        ) from error
    try:
        return _Reader(model).read(lstm)
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).rstrip('.')}.") from error


class _Reader:
    """A walk through a graph, node by node, that follows the inputs of its LSTMs."""

    def __init__(self, model: Any) -> None:
        self._graph: Any = model.graph
        self._nodes: list[Any] = list(self._graph.node)
        if len(self._nodes) > _MOST_NODES:
            raise ValueError(f"it must have at most {_MOST_NODES} nodes, not {len(self._nodes)}")
        self._initializers: dict[str, Any] = {one.name: one for one in self._graph.initializer}
        self._made_by: dict[str, Any] = {
            name: node for node in self._nodes for name in node.output if name
        }
        self._signals: dict[str, _Signal] = {}
        self._found: list[Found] = []
        self._count = 0
        self._joined: list[tuple[int, ...]] = []
        self._warnings: list[str] = []
        self._bytes_read = 0

    def read(self, choice: str | None) -> Imported:
        for node in self._nodes:
            if node.domain not in {"", "ai.onnx"}:
                continue
            if node.op_type == "LSTM":
                self._find(node)
            elif len(node.input) and len(node.output) and node.input[0]:
                self._follow(node)
        if not self._found:
            raise ValueError("it has no node LSTM in its main graph")
        return Imported(assemble(self._found, self._joined, choice), tuple(self._warnings))

    def _signal(self, name: str) -> _Signal:
        return self._signals.get(name) or _Signal((f"tensor {name}",))

    def _follow(self, node: Any) -> None:
        """Store the content of a node's output where it is known."""
        signal = self._signal(node.input[0])
        result: _Signal | None = None
        if node.op_type in _PASS_ON:
            result = signal
        elif node.op_type == "Transpose":
            result = _transposed(signal, list(_attribute(node, "perm", [])))
        elif node.op_type == "Squeeze":
            result = self._squeezed(signal, node)
        elif node.op_type == "Reshape":
            result = self._side_by_side(signal, node)
        elif node.op_type == "Concat":
            result = self._concatenated(node)
        if result is not None:
            self._signals[node.output[0]] = result

    def _squeezed(self, signal: _Signal, node: Any) -> _Signal | None:
        axes = _attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            axes = self._integers(node.input[1])
        if axes is None or len(axes) != 1 or not signal.axes:
            return None
        rank = len(signal.axes)
        axis = int(axes[0]) % rank if -rank <= axes[0] < rank else -1
        if axis < 0 or signal.axes[axis] != "direction" or len(signal.sources) != 1:
            return None
        return _Signal(signal.sources, tuple(name for name in signal.axes if name != "direction"))

    def _side_by_side(self, signal: _Signal, node: Any) -> _Signal | None:
        """Return directions and units joined to one axis, the last."""
        target = self._integers(node.input[1]) if len(node.input) > 1 else None
        if (
            target is None
            or len(target) != 3
            or len(signal.axes) != 4
            or signal.axes[2:] != ("direction", "units")
        ):
            return None
        return _Signal(signal.sources, (*signal.axes[:2], "units"))

    def _concatenated(self, node: Any) -> _Signal | None:
        if len(node.input) > _MOST_JOINED:
            return None
        signals = [self._signal(name) for name in node.input]
        sources = tuple(source for signal in signals for source in signal.sources)
        inside = tuple(source for source in sources if isinstance(source, int))
        known = {signal.axes for signal in signals if signal.axes}
        if not inside or len(known) != 1 or len(sources) > _MOST_JOINED:
            return None
        (axes,) = known
        if _attribute(node, "axis", 0) not in {2, -1} or len(axes) != 3 or axes[2] != "units":
            return None
        # A tensor from elsewhere has the axes of its neighbours in the concatenation.
        transposed = {signal.transposed for signal in signals if not signal.axes}
        if len(transposed) > 1:
            return None
        if len(inside) == len(sources):
            self._joined.append(inside)
        return _Signal(sources, axes, bool(transposed and transposed.pop()))

    def _integers(self, name: str) -> list[int] | None:
        """Return the values of a short constant of integers, or None for any other tensor."""
        try:
            array = self._constant(name, "constant")
        except ValueError:
            return None
        if array.dtype.kind != "i" or array.size > 8:
            return None
        return array.ravel().tolist()

    def _constant(self, name: str, what: str) -> npt.NDArray[Any]:
        """Return the array of an initializer or of a constant node."""
        for _ in range(_MOST_STEPS):
            if name in self._initializers:
                return self._array(self._initializers[name], what)
            node = self._made_by.get(name)
            if node is None or node.op_type not in {"Constant", "Identity"}:
                break
            if node.op_type == "Constant":
                value = _attribute(node, "value", None)
                if value is None:
                    break
                return self._array(value, what)
            if len(node.input) != 1:
                break
            name = node.input[0]
        raise ValueError(f"{what} must be an initializer or a constant, not computed")

    def _array(self, tensor: Any, what: str) -> npt.NDArray[Any]:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"{what} must lie in the file itself, not in another; save it as one")
        # Tensors are decoded again for each LSTM that shares them.
        self._bytes_read += tensor.ByteSize()
        if self._bytes_read > LARGEST_FILE:
            raise ValueError(f"all weights together must have at most {LARGEST_FILE} bytes")
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except Exception as error:
            # A damaged tensor may lead the package to raise any exception.
            raise ValueError(f"{what} is damaged") from error

    def _find(self, node: Any) -> None:
        index = self._count
        self._count += 1
        if self._count > _MOST_LSTMS:
            raise ValueError(f"it must have at most {_MOST_LSTMS} nodes LSTM")
        name = node.name or (node.output[0] if len(node.output) else "")
        what = f"LSTM {index} {name[:60]!r}"
        if len(node.input) < 3:
            raise ValueError(f"{what} must have X, W and R")
        direction = _text(_attribute(node, "direction", b"forward"))
        if direction not in {"forward", "reverse", "bidirectional"}:
            raise ValueError(f"{what} has the unknown direction {direction!r}")
        layout = _attribute(node, "layout", 0)
        expected = ("batch", "time", "units") if layout else ("time", "batch", "units")
        signal = self._signal(node.input[0])
        if signal.axes and signal.axes != expected:
            raise ValueError(
                f"{what} must read the axes {', '.join(expected)}, not {', '.join(signal.axes)}"
            )
        by_time = bool(layout) == signal.transposed
        sources = tuple(
            source if isinstance(source, int) else source + (" by time" if by_time else " by batch")
            for source in signal.sources
        )
        reverses = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
        places: list[int] = []
        for number, reverse in enumerate(reverses[direction]):
            places.append(len(self._found))

            def build(number: int = number) -> Float64Lstm:
                return self._layer(node, what, number, len(reverses[direction]))

            self._found.append(Found(index, name, sources, reverse, build))
        if len(node.output) and node.output[0]:
            axes = (
                ("batch", "time", "direction", "units")
                if layout
                else ("time", "direction", "batch", "units")
            )
            self._signals[node.output[0]] = _Signal(tuple(places), axes)

    def _layer(self, node: Any, what: str, number: int, directions: int) -> Float64Lstm:
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        if number == 0:
            self._check_attributes(node, what)
            for name, state in (("initial_h", inputs[5]), ("initial_c", inputs[6])):
                if state and not self._is_zero(state):
                    raise ValueError(
                        f"{name} of {what} must be left out or 0; export the model without it"
                    )
            if inputs[4]:
                self._warnings.append(
                    f"{what}: sequence_lens is ignored, every sequence runs to its end"
                )
        weights = self._reals(inputs[1], f"W of {what}", 3)
        recurrent = self._reals(inputs[2], f"R of {what}", 3)
        units = recurrent.shape[2]
        given: list[tuple[str, Reals]] = [("W", weights), ("R", recurrent)]
        wanted: list[tuple[int, ...]] = [
            (directions, 4 * units, weights.shape[2]),
            (directions, 4 * units, units),
        ]
        bias, peepholes = np.zeros((directions, 8 * units)), None
        if inputs[3]:
            bias = self._reals(inputs[3], f"B of {what}", 2)
            given.append(("B", bias))
            wanted.append((directions, 8 * units))
        if inputs[7]:
            peepholes = self._reals(inputs[7], f"P of {what}", 2)
            given.append(("P", peepholes))
            wanted.append((directions, 3 * units))
        for (name, array), shape in zip(given, wanted, strict=True):
            if array.shape != shape:
                raise ValueError(f"{name} of {what} must have the shape {shape}, not {array.shape}")
        coupled = bool(_attribute(node, "input_forget", 0))
        order = list(_GATE_ORDER)
        ordered = [array[number].reshape(4, units, -1)[order] for array in (weights, recurrent)]
        with np.errstate(over="ignore"):
            summed = bias[number].reshape(2, 4, units).sum(axis=0)[order]
        seen = (
            None
            if peepholes is None
            else peepholes[number].reshape(3, units)[list(_PEEPHOLE_ORDER)]
        )
        if coupled:
            ordered = [_coupled(array) for array in ordered]
            summed = _coupled(summed)
            seen = None if seen is None else _coupled(seen)
        try:
            return Float64Lstm(ordered[0], ordered[1], summed, peephole_weights=seen)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error

    def _check_attributes(self, node: Any, what: str) -> None:
        if any(one.name == "clip" for one in node.attribute):
            raise ValueError(f"{what} must not clip its activations; export the model without clip")
        activations = [_text(one) for one in _attribute(node, "activations", [])]
        wrong = [
            name
            for name, wanted in zip(activations, _ACTIVATIONS * 2, strict=False)
            if name.lower() != wanted.lower()
        ]
        if wrong or len(activations) not in {0, 3, 6}:
            raise ValueError(
                f"{what} must have the activations {', '.join(_ACTIVATIONS)}, not "
                f"{', '.join(activations)}"
            )

    def _reals(self, name: str, what: str, axes: int) -> Reals:
        array = self._constant(name, what)
        if array.dtype.kind != "f" or array.ndim != axes or 0 in array.shape:
            raise ValueError(
                f"{what} must be floating-point numbers with {axes} axes, not {array.dtype} of "
                f"shape {array.shape}"
            )
        with np.errstate(invalid="ignore"):
            reals = array.astype(np.float64)
        if not np.isfinite(reals).all():
            raise ValueError(f"{what} must be finite, not {reals[~np.isfinite(reals)][0]}")
        return reals

    def _is_zero(self, name: str) -> bool:
        """Return whether a tensor holds zeros only, whatever its shape."""
        for _ in range(_MOST_STEPS):
            node = self._made_by.get(name)
            if node is None or node.op_type == "Constant" or not len(node.input):
                break
            if node.op_type == "ConstantOfShape":
                value = _attribute(node, "value", None)
                return value is None or not self._array(value, "value").any()
            if node.op_type not in _KEEP_ZEROS:
                return False
            name = node.input[0]
        try:
            return not self._constant(name, "initial state").any()
        except ValueError:
            return False


def _coupled(array: Reals) -> Reals:
    """Return gates f, g, o of i, f, g, o; the new forget gate is minus the input gate."""
    return np.concatenate([-array[:1], array[2:]])


def _transposed(signal: _Signal, permutation: list[int]) -> _Signal | None:
    if not signal.axes:
        swapped = permutation == [1, 0, 2]
        return _Signal(signal.sources, (), not signal.transposed) if swapped else None
    if sorted(permutation) != list(range(len(signal.axes))):
        return None
    return _Signal(
        signal.sources,
        tuple(signal.axes[axis] for axis in permutation),
        signal.transposed != (permutation[:2] == [1, 0]),
    )


def _attribute(node: Any, name: str, default: Any) -> Any:
    """Return the value of a node's attribute, or `default` if it is absent or of another type."""
    for one in node.attribute:
        if one.name == name:
            match one.type:
                case onnx.AttributeProto.INT:
                    value: Any = one.i
                case onnx.AttributeProto.INTS:
                    value = list(one.ints)
                case onnx.AttributeProto.STRING:
                    value = one.s
                case onnx.AttributeProto.STRINGS:
                    value = list(one.strings)
                case onnx.AttributeProto.TENSOR:
                    value = one.t
                case _:
                    return default
            known = default is None or isinstance(value, type(default))
            return value if known else default
    return default


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")
