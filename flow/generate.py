"""Verilog, data sheet and what else goes with a design; for a layer, also of a given model."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np

from flow.errors import UsageError, check_target, write_bytes
from flow.layer_files import c_header, constants_of, cycles_section, image_section, packer
from flow.models import told
from golden.layer.contract import LayerContract
from golden.layer.models import LAYERS, layer_of
from golden.lstm.floatsd8 import HIDDEN_FORMAT, FloatSD8Lstm
from golden.lstm.ternary import TernaryLstm
from golden.network import NETWORK_INPUT, Network
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
    if isinstance(contract, LayerContract):
        sheet["parameters_inside"] = contract.fixed_image is not None
        structure = "fpga" if parameters.get("structure") == "fpga" else "gates"
        sheet["step"] = cycles_section(contract, structure)
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

    The layers of a network of several have numbers behind their names, ``int8_lstm_layer0`` and so
    on; ``int8_lstm_layer_network.json`` says how they are connected.

    Parameters
    ----------
    design
        The layer's design.
    settings
        Parameters that the model doesn't say: lanes, neurons, structure, packing of weights, gates.
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
    own = {"lanes", "neurons", "structure", "packing", "gates"}
    if design.name not in LAYERS:
        raise UsageError(
            f"{design.name} takes no model; generate {' or '.join(LAYERS)} for it, by its kind."
        )
    for name in settings:
        if name not in own:
            raise UsageError(f"Parameter '{name}' follows from the model; leave it out.")
    jobs = [
        _job(design, settings, node.lstm, number if len(network.nodes) > 1 else None, fixed=fixed)
        for number, node in enumerate(network.nodes)
    ]
    files: dict[Path, bytes] = {folder / f"{design.name}_network.json": _network(network, jobs)}
    for path in (*files, *(path for job in jobs for path in job.paths(folder))):
        check_target(path)
    for job in jobs:
        files |= _files(job.design, job.settings, folder)
        files[folder / f"{job.design.name}.bin"] = job.image
        files[folder / f"{job.design.name}_constants.npz"] = job.constants
    return _write(files)


@dataclasses.dataclass(frozen=True)
class _Job:
    """A layer of a model, to be generated."""

    design: Design
    settings: Mapping[str, Value | str]
    image: bytes
    constants: bytes
    """The integers of the image, as an archive."""

    def paths(self, folder: Path) -> list[Path]:
        """What will be written."""
        beside = [folder / f"{self.design.name}{end}" for end in (".bin", "_constants.npz")]
        return [*_paths(self.design, self.settings, folder), *beside]


def _job(
    design: Design,
    settings: Mapping[str, Value | str],
    lstm: object,
    number: int | None,
    *,
    fixed: bool,
) -> _Job:
    with told():
        found = layer_of(lstm)
        if found.design != design.name:
            raise UsageError(f"The model is one for {found.design}; generate that.")
        whole = {**found.contract.settings, **settings}
        contract = design.contract(**design.resolve(whole))
        assert isinstance(contract, LayerContract)
        image = contract.pack(found.parameters)
    arrays = io.BytesIO()
    np.savez(arrays, allow_pickle=False, **constants_of(found.parameters))
    # Layers of one model may be used side by side: their modules have names of their own.
    named = dataclasses.replace(design, name=f"{design.name}{'' if number is None else number}")
    if fixed:
        named = named.holding(image)
    return _Job(named, whole, image, arrays.getvalue())


def _network(network: Network, jobs: Sequence[_Job]) -> bytes:
    """How the layers are connected, and what their raws or codes mean."""
    nodes = [
        {
            "layer": job.design.name,
            "name": node.name,
            "sources": [
                "input" if source == NETWORK_INPUT else jobs[source].design.name
                for source in node.sources
            ],
            "reverse": node.reverse,
            **_meanings(node.lstm),
        }
        for node, job in zip(network.nodes, jobs, strict=True)
    ]
    outputs = [jobs[index].design.name for index in network.outputs]
    return (json.dumps({"layers": nodes, "outputs": outputs}, indent=2) + "\n").encode()


def _meanings(lstm: object) -> dict[str, dict[str, float | str]]:
    """Of a layer's bytes: scale and zero point, or the format of floats."""
    if isinstance(lstm, FloatSD8Lstm):
        formats = {"input": lstm.input_format, "state": HIDDEN_FORMAT, "output": HIDDEN_FORMAT}
        return {
            part: {"format": "e5m2", "exponent_bias": each.bias} for part, each in formats.items()
        }
    if isinstance(lstm, TernaryLstm):
        scales = {
            "input": lstm.input_scale,
            "state": lstm.hidden_scale,
            "output": lstm.hidden_scale,
        }
        return {part: {"scale": scale, "zero_point": 0} for part, scale in scales.items()}
    # A projection writes the state's raws.
    projects = getattr(lstm, "projection_weights", None) is not None
    parts = {
        "input": "input",
        "state": "hidden",
        "output": "hidden" if projects else "intermediate",
    }
    return {
        part: {key: getattr(lstm, f"{name}_{key}") for key in ("scale", "zero_point")}
        for part, name in parts.items()
    }


def _paths(design: Design, settings: Mapping[str, Value | str], folder: Path) -> list[Path]:
    endings = [".v", ".json"]
    if isinstance(design.contract(**design.resolve(settings)), LayerContract):
        endings += [".h", "_pack.py"]
    return [folder / f"{design.name}{ending}" for ending in endings]


def _files(design: Design, settings: Mapping[str, Value | str], folder: Path) -> dict[Path, bytes]:
    contract = design.contract(**design.resolve(settings))
    texts = [
        verilog_of(design, settings),
        json.dumps(data_sheet(design, settings), indent=2) + "\n",
    ]
    if isinstance(contract, LayerContract):
        texts += [c_header(design.name, contract), packer(design.name, contract)]
    paths = _paths(design, settings, folder)
    return {path: text.encode() for path, text in zip(paths, texts, strict=True)}


def _write(files: Mapping[Path, bytes]) -> list[Path]:
    for path, content in files.items():
        write_bytes(path, content)
    return list(files)
