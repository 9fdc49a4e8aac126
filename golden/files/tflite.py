"""Reader of fully integer LSTMs in a TensorFlow Lite file, bit for bit as LiteRT runs them.

It reads every variant of the operator ``UNIDIRECTIONAL_SEQUENCE_LSTM`` with int8 weights and
activations, int16 cell and five intermediates: coupled input gate, peepholes, layer norm,
projection, limits, batch-major and time-major. Several LSTMs form one network where one reads the
other's output, directly or through ``REVERSE_V2`` over time, ``CONCATENATION`` of the units, and
``TRANSPOSE`` of batch and time, as converters write bidirectional layers. All other operators are
ignored.

A file may come from any source: every offset, length and type is checked before it is used, see
`fewbit.golden.files.flatbuffer`.
"""

import math
import os
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from fewbit.golden.activation.integer import ActivationKind
from fewbit.golden.arithmetic import Rounding
from fewbit.golden.files.assembly import Found, assemble, read_file
from fewbit.golden.files.tflite_file import Operator, Tensor, TfliteFile
from fewbit.golden.files.tflite_lstm import is_time_major, read_lstm
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.network import Imported

__all__ = ["read_tflite"]


class _Code(IntEnum):
    """Codes of the operators that are looked at, by their names in the format's schema."""

    CONCATENATION = 2
    LSTM = 16
    RNN = 35
    TRANSPOSE = 39
    UNIDIRECTIONAL_SEQUENCE_LSTM = 44
    UNIDIRECTIONAL_SEQUENCE_RNN = 46
    BIDIRECTIONAL_SEQUENCE_LSTM = 52
    REVERSE_V2 = 105
    WHILE = 119


_CONCATENATION_TYPE = 10
_CONCATENATION_OPTIONS = {"axis": 4, "activation": 6}

_MOST_LSTMS = 256
_MOST_JOINED = 64
_MOST_AXES = 8
_SEQUENCE_RANK = 3
_UNITS_AXIS = 2


@dataclass(frozen=True)
class _Part:
    """One of the parts that a tensor holds side by side: an LSTM's output, or an outside tensor.

    Parameters
    ----------
    source
        Place of the LSTM in the reader's list, or the tensor's name.
    reversed_axes
        Axes of the tensor that run backward.
    time_axis
        The axis that is time; None where only the LSTM that reads the tensor defines it.
    transposed
        Whether batch and time are exchanged, compared with the source.
    """

    source: int | str
    reversed_axes: frozenset[int] = frozenset()
    time_axis: int | None = None
    transposed: bool = False

    def reverse(self, axis: int) -> "_Part":
        return replace(self, reversed_axes=self.reversed_axes ^ {axis})

    def transpose(self) -> "_Part":
        return _Part(
            self.source,
            frozenset(1 - axis for axis in self.reversed_axes),
            None if self.time_axis is None else 1 - self.time_axis,
            not self.transposed,
        )

    def read_along(self, time_axis: int) -> int | str:
        """Return the source as an LSTM names it whose time is `time_axis`."""
        if isinstance(self.source, int):
            return self.source
        # The same tensor with its axes exchanged is another input.
        return self.source + (" by time" if time_axis ^ self.transposed == 0 else " by batch")


def read_tflite(
    path: str | os.PathLike[str],
    *,
    lstm: str | None = None,
    activation: ActivationKind = "gemmlowp",
    rounding: Rounding = "double",
) -> Imported:
    """Return the network of the integer LSTMs in a ``.tflite`` file.

    Parameters
    ----------
    path
        The file, of at most 256 MiB.
    lstm
        Index, or name of the output tensor, of the LSTM to read, or several separated by commas.
        None stands for all, which must then be connected.
    activation, rounding
        The fields of all layers; the defaults give LiteRT's bytes.

    Raises
    ------
    ValueError
        If the file is damaged, holds no such LSTM, or holds one that LiteRT would not run on
        integers alone.
    """
    source = Path(path)
    content = read_file(source)
    try:
        return _Reader(TfliteFile(content), activation, rounding).read(lstm)
    except ValueError as error:
        raise ValueError(f"{source}: {str(error).rstrip('.')}.") from error


class _Reader:
    """A walk through a file, operator by operator, that follows the inputs of its LSTMs."""

    def __init__(self, file: TfliteFile, activation: ActivationKind, rounding: Rounding) -> None:
        self._file = file
        self._activation: ActivationKind = activation
        self._rounding: Rounding = rounding
        self._parts: dict[int, tuple[_Part, ...]] = {}
        self._found: list[Found] = []
        self._joined: list[tuple[int, ...]] = []
        self._warnings: list[str] = []

    def read(self, choice: str | None) -> Imported:
        others: set[str] = set()
        for operator in self._file.operators(frozenset(_Code)):
            match _Code(operator.code):
                case _Code.UNIDIRECTIONAL_SEQUENCE_LSTM:
                    self._find(operator)
                case _Code.CONCATENATION:
                    self._concatenate(operator)
                case _Code.TRANSPOSE:
                    self._transpose(operator)
                case _Code.REVERSE_V2:
                    self._reverse(operator)
                case other:
                    others.add(other.name)
        if not self._found:
            instead = f", only {' and '.join(sorted(others))}, which is not read" if others else ""
            raise ValueError(
                f"it has no operator UNIDIRECTIONAL_SEQUENCE_LSTM in its main graph{instead}"
            )
        network = assemble(self._found, self._joined, choice)
        return Imported(network, tuple(self._warnings))

    def _parts_of(self, tensor: int) -> tuple[_Part, ...]:
        return self._parts.get(tensor) or (_Part(f"tensor {tensor}"),)

    def _find(self, operator: Operator) -> None:
        place = len(self._found)
        if place == _MOST_LSTMS:
            raise ValueError(f"it must have at most {_MOST_LSTMS} LSTMs")
        what = f"LSTM {place}"
        time_axis = 0 if is_time_major(operator, what) else 1
        output = self._file.tensor(operator.outputs[0])
        what = f"LSTM {place} with output {output}"
        parts = self._parts_of(operator.inputs[0])
        for part in parts:
            if part.time_axis == 1 - time_axis or 1 - time_axis in part.reversed_axes:
                raise ValueError(f"{what} takes for time what is batch to another operator")
        directions = {time_axis in part.reversed_axes for part in parts}
        if len(directions) > 1:
            raise ValueError(f"{what} reads sequences of which only some are reversed in time")
        reverse = directions.pop()
        self._parts[output.index] = (
            _Part(place, frozenset({time_axis} if reverse else ()), time_axis),
        )

        def build() -> Int8Lstm:
            layer, warnings = read_lstm(
                self._file, operator, what, self._activation, self._rounding
            )
            self._warnings.extend(warnings)
            return layer

        sources = tuple(part.read_along(time_axis) for part in parts)
        self._found.append(Found(place, output.name, sources, reverse, build))

    def _axes(self, operator: Operator) -> list[int]:
        """Return the axes in an operator's second input, or [] if it is no short constant list."""
        if len(operator.inputs) != 2 or len(operator.outputs) != 1:
            return []
        tensor = self._file.tensor(operator.inputs[1])
        if tensor.type != "int32" or not 1 <= math.prod(tensor.shape) <= _MOST_AXES:
            return []
        try:
            return self._file.data(tensor, str(tensor)).ravel().tolist()
        except ValueError:
            # The axes are computed, so the operator's effect is unknown and nothing is connected.
            return []

    def _reverse(self, operator: Operator) -> None:
        axes = self._axes(operator)
        axis = _from_front(self._file.tensor(operator.inputs[0]), axes[0]) if axes else -1
        if len(axes) == 1 and 0 <= axis < _UNITS_AXIS:
            parts = self._parts_of(operator.inputs[0])
            self._parts[operator.outputs[0]] = tuple(part.reverse(axis) for part in parts)

    def _transpose(self, operator: Operator) -> None:
        if self._axes(operator) == [1, 0, 2]:
            parts = self._parts_of(operator.inputs[0])
            self._parts[operator.outputs[0]] = tuple(part.transpose() for part in parts)

    def _concatenate(self, operator: Operator) -> None:
        options = operator.options(_CONCATENATION_TYPE)
        if options is None or not operator.inputs or len(operator.outputs) != 1:
            return
        if sum(len(self._parts_of(tensor)) for tensor in operator.inputs) > _MOST_JOINED:
            return
        result = self._file.tensor(operator.outputs[0])
        axis = options.number(_CONCATENATION_OPTIONS["axis"], "int32")
        activation = options.number(_CONCATENATION_OPTIONS["activation"], "int8")
        parts = [part for tensor in operator.inputs for part in self._parts_of(tensor)]
        inside = tuple(part.source for part in parts if isinstance(part.source, int))
        if _from_front(result, axis) != _UNITS_AXIS or activation or not inside:
            return
        if result.type == "int8":
            self._check_equal_parameters(operator, result)
        self._parts[result.index] = tuple(parts)
        if len(inside) == len(parts):
            self._joined.append(inside)

    def _check_equal_parameters(self, operator: Operator, result: Tensor) -> None:
        expected = self._file.quantisation(result, str(result))
        for index in operator.inputs:
            tensor = self._file.tensor(index)
            if self._file.quantisation(tensor, str(tensor)) != expected:
                raise ValueError(
                    f"the CONCATENATION to {result} must not requantise {tensor}, which LiteRT "
                    "refuses, too; give both the same scale and zero point"
                )


def _from_front(tensor: Tensor, axis: int) -> int:
    """Return the axis of a sequence counted from the front; -1 for any other tensor."""
    rank = len(tensor.shape)
    return axis % rank if rank == _SEQUENCE_RANK and -rank <= axis < rank else -1
