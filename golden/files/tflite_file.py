"""Tensors and operators of a TensorFlow Lite file, with every access checked.

Source: the TensorFlow Lite schema, version 3, for the places of the fields.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fewbit.golden.files.assembly import LARGEST_FILE
from fewbit.golden.files.flatbuffer import Table, root_table

__all__ = ["Operator", "Parameters", "Tensor", "TfliteFile"]

Parameters = tuple[float, int]
"""Scale and zero point of a tensor."""

_IDENTIFIER = b"TFL3"
_VERSION = 3

# Slots of the schema's tables, see `fewbit.golden.files.flatbuffer`.
_MODEL = {"version": 4, "operator_codes": 6, "subgraphs": 8, "buffers": 12}
_SUBGRAPH = {"tensors": 4, "operators": 10}
_TENSOR = {
    "shape": 4,
    "type": 6,
    "buffer": 8,
    "name": 10,
    "quantization": 12,
    "sparsity": 16,
    "external_buffer": 24,
}
_QUANTIZATION = {"scale": 8, "zero_point": 10}
_BUFFER = {"data": 4, "offset": 6}
_OPERATOR_CODE = {"old_code": 4, "code": 10}
_OPERATOR = {"code": 4, "inputs": 6, "outputs": 8, "options_type": 10, "options": 12}
_INTERMEDIATES_SLOT = 20

_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8"}
_MOST_OPERATORS = 1 << 16
# Limit for the wanted kinds of operators, because a reader needs time for each.
_MOST_FOLLOWED = 1 << 12
_MOST_OPERANDS = 256
_MOST_AXES = 8
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Tensor:
    """The description of a tensor; its data are read on request.

    Parameters
    ----------
    index
        Place in the list of tensors.
    name
        Name in the file.
    type
        A numpy name such as "int8", or words for a type that no tensor here may have.
    shape
        Shape in the file, not checked; it may be () where it is unknown.
    table
        Table of the file that describes the tensor.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    table: Table

    def __str__(self) -> str:
        """Return the name, as messages show it."""
        shown = self.name[:_LONGEST_NAME] + "..." * (len(self.name) > _LONGEST_NAME)
        return f"tensor {shown!r}"


@dataclass(frozen=True)
class Operator:
    """An operator of the main graph.

    Parameters
    ----------
    code
        Number of its kind in the schema's ``BuiltinOperator``.
    inputs, outputs
        Indices of tensors; -1 stands for an absent one.
    table
        Table of the file that describes the operator.
    """

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: Table

    @property
    def intermediates(self) -> tuple[int, ...]:
        """Return the indices of tensors that describe the quantisation inside the operator."""
        return _indices(self.table, _INTERMEDIATES_SLOT)

    def options(self, kind: int) -> Table | None:
        """Return the options of the operator, or None if it has none of this kind."""
        if self.table.number(_OPERATOR["options_type"], "uint8") != kind:
            return None
        return self.table.table(_OPERATOR["options"])


def _indices(table: Table, slot: int) -> tuple[int, ...]:
    return tuple(table.numbers(slot, "int32", _MOST_OPERANDS).tolist())


class TfliteFile:
    """The main graph of a file; the graphs of branches and loops are not read.

    Parameters
    ----------
    content
        The whole file.

    Raises
    ------
    ValueError
        If the file does not follow this schema, or is damaged. All methods raise it for damage. The
        sentence does not name the file.
    """

    def __init__(self, content: bytes) -> None:
        self._model = root_table(content, _IDENTIFIER)
        version = self._model.number(_MODEL["version"], "uint32")
        if version != _VERSION:
            raise ValueError(f"the schema's version must be {_VERSION}, not {version}")
        self._graph = self._model.element(_MODEL["subgraphs"], 0)
        self._tensors: dict[int, Tensor] = {}
        self._bytes_read = 0

    def operators(self, codes: frozenset[int]) -> list[Operator]:
        """Return the operators of some kinds in the order in which they run."""
        known = self._codes()
        count = self._graph.length(_SUBGRAPH["operators"])
        if count > _MOST_OPERATORS:
            raise ValueError(f"it must have at most {_MOST_OPERATORS} operators, not {count}")
        result: list[Operator] = []
        for index in range(count):
            table = self._graph.element(_SUBGRAPH["operators"], index)
            kind = int(table.number(_OPERATOR["code"], "uint32"))
            if kind >= len(known):
                raise ValueError(f"operator {index} is of kind {kind}, but {len(known)} are listed")
            if known[kind] in codes:
                inputs = _indices(table, _OPERATOR["inputs"])
                outputs = _indices(table, _OPERATOR["outputs"])
                result.append(Operator(known[kind], inputs, outputs, table))
                if len(result) > _MOST_FOLLOWED:
                    raise ValueError(
                        f"it must have at most {_MOST_FOLLOWED} operators of the kinds of LSTM "
                        "networks"
                    )
        return result

    def _codes(self) -> list[int]:
        count = self._model.length(_MODEL["operator_codes"])
        if count > _MOST_OPERATORS:
            raise ValueError(f"it must list at most {_MOST_OPERATORS} operators, not {count}")
        codes: list[int] = []
        for index in range(count):
            table = self._model.element(_MODEL["operator_codes"], index)
            # Old files have only the field of one byte; in new ones the larger field is valid.
            old = int(table.number(_OPERATOR_CODE["old_code"], "int8"))
            codes.append(max(old, int(table.number(_OPERATOR_CODE["code"], "int32"))))
        return codes

    def tensor(self, index: int) -> Tensor:
        """Return the tensor with this index."""
        if index not in self._tensors:
            table = self._graph.element(_SUBGRAPH["tensors"], index)
            kind = table.number(_TENSOR["type"], "int8")
            self._tensors[index] = Tensor(
                index,
                table.text(_TENSOR["name"]),
                _TYPES.get(kind, f"of type number {kind}"),
                tuple(table.numbers(_TENSOR["shape"], "int32", _MOST_AXES).tolist()),
                table,
            )
        return self._tensors[index]

    def quantisation(self, tensor: Tensor, what: str) -> Parameters:
        """Return scale and zero point of a tensor that has one of each; errors call it `what`."""
        table = tensor.table.table(_TENSOR["quantization"])
        scales, zero_points = np.zeros(0), np.zeros(0, np.int64)
        if table is not None:
            scales = table.numbers(_QUANTIZATION["scale"], "float32", LARGEST_FILE)
            zero_points = table.numbers(_QUANTIZATION["zero_point"], "int64", LARGEST_FILE)
        if len(scales) != 1 or len(zero_points) > 1:
            raise ValueError(
                f"{what} must have one scale and one zero point, not {len(scales)} scales; "
                "quantise the whole tensor by one"
            )
        scale = float(scales[0])
        if not 0 < scale < math.inf:
            raise ValueError(f"{what} must have a finite scale above 0, not {scale}")
        return scale, int(zero_points[0]) if len(zero_points) else 0

    def data(self, tensor: Tensor, what: str) -> npt.NDArray[Any]:
        """Return the constant data of a tensor in its shape; errors call it `what`."""
        if tensor.table.table(_TENSOR["sparsity"]) is not None:
            raise ValueError(f"{what} must not be sparse; convert the model without sparsity")
        buffer = self._model.element(
            _MODEL["buffers"], tensor.table.number(_TENSOR["buffer"], "uint32")
        )
        # A model beyond 2 GB has its data behind the tables; an offset of 1 is a placeholder.
        if (
            tensor.table.number(_TENSOR["external_buffer"], "uint32")
            or buffer.number(_BUFFER["offset"], "uint64") > 1
        ):
            raise ValueError(f"{what} must lie in the file's own buffers, not outside of them")
        data = buffer.numbers(_BUFFER["data"], "uint8", LARGEST_FILE)
        if len(data) == 0:
            raise ValueError(f"{what} must be constant, but the file has no data of it")
        dtype = np.dtype(tensor.type).newbyteorder("<")
        expected = math.prod(tensor.shape) * dtype.itemsize
        if min(tensor.shape, default=1) < 1 or expected != len(data):
            raise ValueError(
                f"{what} must have the data of {tensor.type} of shape {tensor.shape}, but has "
                f"{len(data)} bytes"
            )
        # Tensors may share a buffer: a small file must not become large weights.
        self._bytes_read += len(data)
        if self._bytes_read > LARGEST_FILE:
            raise ValueError(f"all weights together must have at most {LARGEST_FILE} bytes")
        return data.view(dtype).reshape(tensor.shape).astype(tensor.type)
