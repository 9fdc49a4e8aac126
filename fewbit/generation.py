"""Verilog, data sheets and other files of a design, or of the layers that run a model."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np

from fewbit.errors import UsageError, check_target, write_files
from fewbit.golden.layer.contract import LayerContract
from fewbit.golden.layer.image import program
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.network import NETWORK_INPUT, Network
from fewbit.golden.systems import SYSTEMS
from fewbit.hdl.design import ConfiguredDesign, Design, Value
from fewbit.hdl.systems import configure_for
from fewbit.hdl.top import ports_of
from fewbit.layer_files import c_header, cycles_section, image_section
from fewbit.models import told
from fewbit.sim import yosys
from fewbit.sim.verilog import generator_version, verilog_of

__all__ = ["data_sheet", "generate", "generate_model"]


def data_sheet(configured: ConfiguredDesign) -> dict[str, Any]:
    """Return all that an integrator needs to know about a design, ready for JSON."""
    contract, timing = configured.contract, configured.timing
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
        "design": configured.name,
        "summary": configured.summary,
        "parameters": dict(configured.parameters),
        "ports": [dataclasses.asdict(port) for port in ports_of(contract)],
        "formats": formats,
        "transaction": configured.design.transaction,
        "latency": _number(timing.latency),
        "interval": _number(timing.interval),
        "versions": {
            "fewbit": generator_version().removeprefix("fewbit "),
            "amaranth": package_version("amaranth"),
            "engine": yosys.version(),
        },
    }
    if isinstance(contract, LayerContract) and configured.cycles is not None:
        sheet["image_inside"] = contract.image is not None
        sheet["step"] = cycles_section(configured.cycles)
        sheet["image"] = image_section(contract.plan)
    return sheet


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def generate(designs: Sequence[ConfiguredDesign], folder: Path) -> list[Path]:
    """Write ``DESIGN.v``, ``DESIGN.json`` and a design's other files to a folder; all, or none.

    Parameters
    ----------
    designs
        The designs, whose names must differ.
    folder
        The folder. It is made if it is missing.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UsageError
        If a file cannot be written.
    """
    files: dict[Path, bytes] = {}
    for configured in designs:
        for path in _paths(configured, folder):
            check_target(path)
    for configured in designs:
        files |= _files(configured, folder)
    return _write(files)


def generate_model(
    design: Design,
    settings: Mapping[str, Value | str],
    folder: Path,
    network: Network,
    *,
    image_inside: bool = False,
) -> list[Path]:
    """Write the layers that run a quantised model, with their images; all, or none.

    The layers of a network of several have numbers behind their names, ``int8_lstm_layer0`` and so
    on; ``int8_lstm_layer_network.json`` says how they are connected.

    Parameters
    ----------
    design
        The layer's design.
    settings
        The parameters that the model leaves open: see :func:`fewbit.hdl.systems.configure_for`.
    folder
        The folder to write to.
    network
        The model.
    image_inside
        Whether the circuits hold the constants for good.

    Raises
    ------
    UsageError
        If the design can't run the model, or a setting contradicts it.
    """
    layers = list(dict.fromkeys(system.design for system in SYSTEMS.values()))
    if design.name not in layers:
        raise UsageError(
            f"{design.name} takes no model; generate {' or '.join(layers)} for it, by its kind."
        )
    jobs = [
        _job(
            design,
            settings,
            node.lstm,
            number if len(network.nodes) > 1 else None,
            image_inside=image_inside,
        )
        for number, node in enumerate(network.nodes)
    ]
    files: dict[Path, bytes] = {folder / f"{design.name}_network.json": _network(network, jobs)}
    for path in (*files, *(path for job in jobs for path in job.paths(folder))):
        check_target(path)
    for job in jobs:
        files |= _files(job.configured, folder)
        files[folder / f"{job.name}.bin"] = job.image
        files[folder / f"{job.name}_constants.npz"] = job.constants
    return _write(files)


@dataclasses.dataclass(frozen=True)
class _Job:
    """A layer of a model that is about to be generated."""

    configured: ConfiguredDesign
    image: bytes
    constants: bytes
    """The integers of the image, as an ``.npz`` archive."""

    @property
    def name(self) -> str:
        """Return the name of the module."""
        return self.configured.name

    def paths(self, folder: Path) -> list[Path]:
        """Return the files that will be written."""
        beside = [folder / f"{self.name}{end}" for end in (".bin", "_constants.npz")]
        return [*_paths(self.configured, folder), *beside]


def _job(
    design: Design,
    settings: Mapping[str, Value | str],
    lstm: Lstm,
    number: int | None,
    *,
    image_inside: bool,
) -> _Job:
    # Layers of one model may be used side by side, so that their modules need different names.
    name = f"{design.name}{'' if number is None else number}"
    with told():
        configured, image = configure_for(lstm, settings, design=design.name, name=name)
    contract = configured.contract
    assert isinstance(contract, LayerContract)
    arrays = io.BytesIO()
    constants = contract.arrays_of(contract.constants_of(lstm))
    np.savez(arrays, allow_pickle=False, **constants)
    return _Job(configured.holding(image) if image_inside else configured, image, arrays.getvalue())


def _network(network: Network, jobs: Sequence[_Job]) -> bytes:
    """Return the connections of the layers, and the meaning of their raws or codes, for JSON."""
    nodes = [
        {
            "layer": job.name,
            "name": node.name,
            "sources": [
                "input" if source == NETWORK_INPUT else jobs[source].name for source in node.sources
            ],
            "reverse": node.reverse,
            "input": node.lstm.reads.meaning,
            "state": node.lstm.keeps.meaning,
            "output": node.lstm.writes.meaning,
        }
        for node, job in zip(network.nodes, jobs, strict=True)
    ]
    outputs = [jobs[index].name for index in network.outputs]
    return (json.dumps({"layers": nodes, "outputs": outputs}, indent=2) + "\n").encode()


def _paths(configured: ConfiguredDesign, folder: Path) -> list[Path]:
    endings = [".v", ".json"]
    if isinstance(configured.contract, LayerContract):
        endings += [".h", "_pack.py"]
    return [folder / f"{configured.name}{ending}" for ending in endings]


def _files(configured: ConfiguredDesign, folder: Path) -> dict[Path, bytes]:
    contract = configured.contract
    texts = [verilog_of(configured), json.dumps(data_sheet(configured), indent=2) + "\n"]
    if isinstance(contract, LayerContract):
        texts += [c_header(configured.name, contract), program(contract.plan)]
    paths = _paths(configured, folder)
    return {path: text.encode() for path, text in zip(paths, texts, strict=True)}


def _write(files: Mapping[Path, bytes]) -> list[Path]:
    write_files(files)
    return list(files)
