"""Verilog, data sheet and what else goes with a design; for a layer, also of a given model."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import UsageError, check_target, write_bytes
from flow.layer_files import c_header, constants_of, cycles_section, image_section, packer
from flow.models import told
from golden.layer.int8 import Int8LstmLayer
from golden.lstm.int8 import Int8Lstm
from golden.network import Network
from hdl.design import Design, Value
from hdl.top import ports_of
from sim import yosys
from sim.verilog import generator_version, verilog_of

__all__ = ["data_sheet", "generate", "generate_model"]


def data_sheet(design: Design, settings: Mapping[str, Value | str]) -> dict[str, Any]:
    """All that an integrator needs to know of a design, ready for JSON."""
    parameters = design.resolve(settings)
    contract = design.contract(**parameters)
    timing = design.timing(**parameters)
    formats = {
        operand.name: {
            "name": operand.format.name,
            "width": operand.format.width,
            "encoding": operand.format.encoding,
            "lanes": operand.lanes,
        }
        for operand in (*contract.configuration, *contract.operands, *contract.results)
    }
    sheet: dict[str, Any] = {
        "design": design.name,
        "summary": design.summary,
        "parameters": parameters,
        "ports": [dataclasses.asdict(port) for port in ports_of(contract)],
        "formats": formats,
        "transaction": design.transaction,
        "latency": _number(timing.latency),
        "interval": _number(timing.interval),
        "versions": {
            "fewbit": generator_version().removeprefix("fewbit "),
            "amaranth": package_version("amaranth"),
            "engine": yosys.version(),
        },
    }
    if isinstance(contract, Int8LstmLayer):
        sheet["step"] = cycles_section(contract)
        sheet["image"] = image_section(contract)
    return sheet


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def generate(
    designs: Sequence[Design], settings: Mapping[str, Value | str], folder: Path
) -> list[Path]:
    """Writes ``DESIGN.v``, ``DESIGN.json`` and what else a design has to a folder; all, or none.

    Returns the paths.
    """
    files: dict[Path, bytes] = {}
    for design in designs:
        for path in _paths(design, settings, folder):
            check_target(path)
    for design in designs:
        files |= _files(design, settings, folder)
    return _write(files)


def generate_model(
    design: Design,
    settings: Mapping[str, Value | str],
    folder: Path,
    network: Network,
    *,
    fixed: bool = False,
) -> list[Path]:
    """Writes the layers that run a quantised model, with their parameter images; all, or none.

    A network of several layers gets a folder each, ``layer0``, ``layer1`` and so on.

    Parameters
    ----------
    design
        The layer's design.
    settings
        Parameters that the model doesn't say: lanes, neurons and structure.
    folder
        Where to write to.
    network
        The model.
    fixed
        Whether the circuits hold the parameters for good.

    Raises
    ------
    UsageError
        If the design can't run the model, or a setting contradicts it.
    """
    own = {"lanes", "neurons", "structure"}
    if not isinstance(design.contract(**design.resolve({})), Int8LstmLayer):
        raise UsageError(f"{design.name} takes no model; generate int8_lstm_layer for it.")
    for name in settings:
        if name not in own:
            raise UsageError(f"Parameter '{name}' follows from the model; leave it out.")
    files: dict[Path, bytes] = {}
    for number, node in enumerate(network.nodes):
        if not isinstance(node.lstm, Int8Lstm):
            raise UsageError("The model is a real one; quantise it first with 'fewbit quantize'.")
        place = folder / f"layer{number}" if len(network.nodes) > 1 else folder
        with told():
            whole = Int8LstmLayer.of(node.lstm).settings | dict(settings)
            contract = design.contract(**design.resolve(whole))
            assert isinstance(contract, Int8LstmLayer)
            image = contract.pack(node.lstm.constants)
        chosen = design
        if fixed:
            chosen = dataclasses.replace(
                design,
                component=partial(design.component, image=image),
                contract=partial(design.contract, image=image),
            )
        arrays = io.BytesIO()
        np.savez(arrays, allow_pickle=False, **constants_of(node.lstm.constants))
        files |= _files(chosen, whole, place)
        files[place / f"{design.name}.bin"] = image
        files[place / f"{design.name}_constants.npz"] = arrays.getvalue()
    for path in files:
        check_target(path)
    return _write(files)


def _paths(design: Design, settings: Mapping[str, Value | str], folder: Path) -> list[Path]:
    endings = [".v", ".json"]
    if isinstance(design.contract(**design.resolve(settings)), Int8LstmLayer):
        endings += [".h", "_pack.py"]
    return [folder / f"{design.name}{ending}" for ending in endings]


def _files(design: Design, settings: Mapping[str, Value | str], folder: Path) -> dict[Path, bytes]:
    contract = design.contract(**design.resolve(settings))
    texts = [
        verilog_of(design, settings),
        json.dumps(data_sheet(design, settings), indent=2) + "\n",
    ]
    if isinstance(contract, Int8LstmLayer):
        texts += [c_header(design.name, contract), packer(design.name, contract)]
    paths = _paths(design, settings, folder)
    return {path: text.encode() for path, text in zip(paths, texts, strict=True)}


def _write(files: Mapping[Path, bytes]) -> list[Path]:
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)
