"""The area of a design by Yosys: in gate equivalents, FPGA resources, or a process's cells."""

import json
import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewbit.errors import UsageError
from fewbit.golden.words import option_name, plain, shown
from fewbit.hdl.design import ConfiguredDesign
from fewbit.sim import yosys
from fewbit.sim.verilog import verilog_of

__all__ = [
    "MAPPINGS",
    "TARGETS",
    "Mapped",
    "check_choices",
    "check_liberty",
    "map_to_cells",
    "plain_gates",
    "synthesize",
]

_LIBRARY = Path(__file__).with_name("gates.lib")
_LARGEST_LIBERTY = 256 * 2**20

_DFFR_MAP = """\
(* techmap_celltype = "$_SDFF_PP0_" *)
module with_reset (input D, C, R, output Q);
    DFFR _TECHMAP_REPLACE_ (.D(D), .CK(C), .R(R), .Q(Q));
endmodule
"""
# dfflibmap does not map synchronous resets, so that the library's cell for them is mapped by name.

_ABC_SCRIPTS = {
    "area": "strash;ifraig;scorr;dc2;dc2;dch;amap;topo",
    "delay": "strash;ifraig;scorr;dch;map;topo",
}

_GENERIC = """\
read_verilog design.v
synth -flatten -top {name} -run begin:fine
setattr -unset init w:*
opt -fast -full
memory_map -rom-only
opt -undriven -fine
techmap
opt -full
"""
# These steps are those of Yosys's own 'synth', with two differences. Only memories without a write
# port become logic; and ABC does not run before the registers are mapped, since in the WebAssembly
# build ABC on a module with several clock enables ends the whole program.

_GATES = (
    _GENERIC
    + """\
dfflegalize -cell $_DFF_P_ x -cell $_DFFE_PP_ x -cell $_SDFF_PP0_ x
techmap -map dffr.v
dfflibmap -liberty gates.lib
opt -full
abc -liberty gates.lib -script +{abc}
read_liberty -lib -overwrite gates.lib
opt_clean -purge
tee -q -o stat.json stat -json -liberty gates.lib
write_json netlist.json
"""
)

_PLAIN = (
    _GENERIC
    + """\
abc -g AND,OR,XOR,MUX,NAND,NOR,XNOR
opt_clean
tee -q -o stat.json stat -json
"""
)
_PLAIN_AREAS = {
    "$_NOT_": 0.67,
    "$_NAND_": 1.0,
    "$_NOR_": 1.0,
    "$_AND_": 1.33,
    "$_OR_": 1.33,
    "$_XOR_": 2.33,
    "$_XNOR_": 2.33,
    "$_MUX_": 2.33,
}

_LIBERTY = (
    _GENERIC
    + """\
dfflibmap -liberty process.lib
opt -full
abc -liberty process.lib{script}
read_liberty -lib -overwrite -ignore_miss_func process.lib
opt_clean -purge
tee -q -o stat.json stat -json -liberty process.lib
write_json netlist.json
"""
)

_FPGA = """\
read_verilog design.v
{command} -top {name}
tee -q -o stat.json stat -json
"""


@dataclass(frozen=True)
class _Family:
    """An FPGA family: its Yosys command, and the resource that each of its cells counts as."""

    command: str
    no_dsp: str
    dsp: str
    luts: str
    carries: str
    flip_flops: str
    dsps: str
    block_rams: str


_FAMILIES = {
    "ice40": _Family(
        "synth_ice40", "", "-dsp", r"SB_LUT4", r"SB_CARRY", r"SB_DFF\w*", r"SB_MAC16", r"SB_RAM40.*"
    ),
    "ecp5": _Family(
        "synth_ecp5",
        "-nodsp",
        "",
        r"LUT4",
        r"CCU2C",
        r"TRELLIS_FF",
        r"MULT\w+",
        r"(DP16KD|PDPW16KD)",
    ),
    "xilinx": _Family(
        "synth_xilinx -noiopad",
        "-nodsp",
        "",
        r"LUT[1-6]",
        r"CARRY[48]",
        r"FD[RSCP]E(_1)?",
        r"DSP48\w*",
        r"RAMB\w+",
    ),
    "gowin": _Family(
        "synth_gowin -noiopads",
        "-nodsp",
        "",
        r"LUT[1-8]",
        r"ALU",
        r"DFF\w*",
        r"(MULT|MULTADD|PADD)\w+",
        r"(SP|SDP|DP|SPX9|SDPX9B?|DPX9B?|SDPB|DPB|pROM)",
    ),
}

TARGETS = ("gates", *_FAMILIES, "liberty")
"""The targets of ``fewbit synth``."""

MAPPINGS = tuple(_ABC_SCRIPTS)
"""The mappings of ``fewbit synth``."""


@dataclass(frozen=True)
class Mapped:
    """A design that is mapped to the cells of a library."""

    configured: ConfiguredDesign
    netlist: dict[str, Any]
    """The module as Yosys writes it to JSON."""
    library: Path
    """The Liberty file of the cells."""
    is_process: bool
    """Whether the cells are those of a process, and not the project's own."""
    figures: dict[str, Any]
    """The figures of :func:`synthesize` for the target ``gates``, with areas in the library's
    unit."""


def check_choices(target: str, liberty: Path | None, mapping: str, *, dsp: bool) -> None:
    """Refuse arguments that `synthesize` can't work with, before any work.

    Parameters
    ----------
    target, liberty, mapping, dsp
        The arguments of `synthesize` of the same names.

    Raises
    ------
    UsageError
        If the target or the mapping is unknown, or two of them don't go together.
    """
    if not isinstance(target, str) or target not in TARGETS:
        raise UsageError(f"Target must be one of {', '.join(TARGETS)}, not {plain(target)}.")
    if dsp and target in ("gates", "liberty"):
        raise UsageError(f"Target {target} has no DSP blocks; leave {option_name('dsp')} out.")
    if (target == "liberty") != (liberty is not None):
        raise UsageError(
            f"Target liberty and {option_name('liberty')} go together; give both or neither."
        )
    if not isinstance(mapping, str) or mapping not in MAPPINGS:
        raise UsageError(f"Mapping must be one of {', '.join(MAPPINGS)}, not {shown(mapping)}.")
    if mapping != "area" and target != "gates":
        raise UsageError(
            f"Target {target} is mapped for area only; leave {option_name('mapping')} out."
        )


def synthesize(
    configured: ConfiguredDesign,
    target: str = "gates",
    *,
    liberty: Path | None = None,
    dsp: bool = False,
    mapping: str = "area",
) -> dict[str, Any]:
    """Measure the area of a design, and return a row of figures.

    Parameters
    ----------
    configured
        The design with its parameters.
    target
        ``gates`` for areas in NAND2 equivalents, an FPGA family, or ``liberty``.
    liberty
        The Liberty file of the process, for ``liberty`` only.
    dsp
        Whether multipliers may use the FPGA's DSP blocks.
    mapping
        The goal for ``gates``: "area", or "delay" for the fewest gates in a row.

    Returns
    -------
    dict
        ``design``, ``parameters``, ``target``; for ``gates`` ``area_ge`` (flip-flops included),
        ``combinational_ge``, ``flip_flops``, ``memory_bits``, ``depth`` (gate levels of the longest
        path), ``cells`` (by type); for an FPGA ``luts``, ``carries``, ``flip_flops``, ``dsps``,
        ``block_rams``, ``cells``; for ``liberty`` ``area``, ``flip_flops``, ``memory_bits``,
        ``cells``. Memories are counted in bits and are in no area.

    Raises
    ------
    UsageError
        If `check_choices` refuses the arguments, or the Liberty file is missing or can't be used.
    """
    check_choices(target, liberty, mapping, dsp=dsp)
    row: dict[str, Any] = {
        "design": configured.name,
        "parameters": dict(configured.parameters),
        "target": target,
    }
    if target in _FAMILIES:
        inputs = {"design.v": verilog_of(configured)}
        return row | _fpga(configured.name, _FAMILIES[target], dsp, inputs)
    figures = map_to_cells(configured, liberty, mapping).figures
    if target == "gates":
        return row | {"mapping": mapping} | figures
    return row | {
        "area": figures["area_ge"],
        "flip_flops": figures["flip_flops"],
        "memory_bits": figures["memory_bits"],
        "depth": figures["depth"],
        "cells": figures["cells"],
    }


def map_to_cells(
    configured: ConfiguredDesign,
    liberty: Path | None = None,
    mapping: str = "area",
) -> Mapped:
    """Map a design to a netlist of the project's own cells, in NAND2 equivalents, or of a process.

    Parameters
    ----------
    configured
        The design with its parameters.
    liberty
        The Liberty file of the process; None for the project's own cells.
    mapping
        The goal, as in :func:`synthesize`. It has no effect on a process, which is mapped by ABC's
        own script.

    Raises
    ------
    UsageError
        If the Liberty file is missing or can't be used.
    """
    name = configured.name
    library = _LIBRARY if liberty is None else check_liberty(liberty)
    inputs: dict[str, str | Path] = {"design.v": verilog_of(configured)}
    if liberty is None:
        inputs |= {"gates.lib": library, "dffr.v": _DFFR_MAP}
        script = _GATES.format(name=name, abc=_ABC_SCRIPTS[mapping])
        texts = yosys.run(script, inputs, ("stat.json", "netlist.json"))
    else:
        inputs["process.lib"] = library
        texts = _map_to_process(name, inputs, library)
    netlist = json.loads(texts["netlist.json"])["modules"][name]
    cells = _cells(library)
    _check_areas(library, cells, netlist)
    figures = _gates(netlist, texts["stat.json"], _registers(cells))
    return Mapped(configured, netlist, library, liberty is not None, figures)


def plain_gates(configured: ConfiguredDesign) -> float:
    """Return gate equivalents of a design's logic by Yosys's plain ``abc -g``, without flip-flops.

    The gates' areas are those by which other projects measured their circuits: NAND and NOR 1, NOT
    0.67, AND and OR 1.33, XOR, XNOR and MUX 2.33. The target ``gates`` optimises harder.
    """
    script = _PLAIN.format(name=configured.name)
    texts = yosys.run(script, {"design.v": verilog_of(configured)}, ("stat.json",))
    cells = json.loads(texts["stat.json"])["design"]["num_cells_by_type"]
    return sum(_PLAIN_AREAS.get(cell, 0.0) * number for cell, number in cells.items())


def _map_to_process(name: str, inputs: Mapping[str, str | Path], liberty: Path) -> dict[str, str]:
    """Return a netlist of a process's cells, by ABC's own script where the library allows it."""
    outputs = ("stat.json", "netlist.json")
    try:
        return yosys.run(_LIBERTY.format(name=name, script=""), inputs, outputs)
    except yosys.YosysError:
        # ABC's own script sizes gates and buffers nets, for which the library must have delays
        # and a buffer. For a library without them there is a plainer script.
        script = f" -script +{_ABC_SCRIPTS['area']}"
        try:
            return yosys.run(_LIBERTY.format(name=name, script=script), inputs, outputs)
        except yosys.YosysError as error:
            raise UsageError(f"Yosys can't use Liberty file '{liberty}': {error}") from error


def check_liberty(path: Path) -> Path:
    """Return the path, or refuse it if no Liberty library seems to start there.

    Raises
    ------
    UsageError
        If it is no file, can't be read, is too large, or is no Liberty library.
    """
    if not path.is_file():
        raise UsageError(f"Liberty file '{path}' is not a file; give the path of a .lib file.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(2**16)
    except OSError as error:
        raise UsageError(f"Liberty file '{path}' can't be read ({error.strerror}).") from error
    if size > _LARGEST_LIBERTY:
        raise UsageError(f"Liberty file '{path}' is larger than 256 MiB; give one corner only.")
    if not re.search(rb"\blibrary\s*\(", start):
        raise UsageError(
            f"File '{path}' doesn't start a Liberty library; give an uncompressed .lib file."
        )
    return path


def _cells(liberty: Path) -> dict[str, str]:
    """Return the text after the name of each cell of a library, by the name."""
    text = liberty.read_text(encoding="utf-8", errors="replace")
    parts = re.split(r"\bcell\s*\(\s*\"?([\w.$]+)\"?\s*\)", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _registers(cells: Mapping[str, str]) -> frozenset[str]:
    """Return the names of a library's cells that hold state."""
    return frozenset(
        name
        for name, body in cells.items()
        if re.search(r"\b(ff|ff_bank|latch|latch_bank|statetable)\s*\(", body)
    )


def _check_areas(liberty: Path, cells: Mapping[str, str], netlist: Mapping[str, Any]) -> None:
    """Refuse a library in which a cell of the netlist has no area: Yosys would count it as 0."""
    for name in sorted({cell["type"] for cell in netlist["cells"].values()} & set(cells)):
        if not re.search(r"\barea\s*:\s*\"?\s*\+?\.?\d", cells[name]):
            raise UsageError(
                f"Liberty file '{liberty}' gives its cell {name} no area; give one with areas."
            )


def _gates(netlist: Mapping[str, Any], stat_text: str, registers: frozenset[str]) -> dict[str, Any]:
    """Return the figures of a netlist of library cells."""
    stat = json.loads(stat_text)["design"]
    cells = Counter(cell["type"] for cell in netlist["cells"].values())
    memories = [
        cell["parameters"] for cell in netlist["cells"].values() if cell["type"] == "$mem_v2"
    ]
    sequential = float(stat.get("sequential_area", 0.0))
    return {
        "area_ge": round(float(stat["area"]), 2),
        "combinational_ge": round(float(stat["area"]) - sequential, 2),
        "flip_flops": sum(number for cell, number in cells.items() if cell in registers),
        "memory_bits": sum(int(memory["SIZE"], 2) * int(memory["WIDTH"], 2) for memory in memories),
        "depth": _depth(netlist, registers),
        "cells": dict(sorted(cells.items())),
    }


def _depth(netlist: Mapping[str, Any], registers: frozenset[str]) -> int:
    """Return the number of cells on the longest path between registers, memories and ports."""
    drives: dict[int, str] = {}
    reads: dict[str, list[int]] = {}
    for name, cell in netlist["cells"].items():
        if cell["type"] in registers or cell["type"].startswith("$"):
            continue
        reads[name] = []
        for pin, bits in cell["connections"].items():
            for bit in bits:
                if not isinstance(bit, int):
                    continue
                if cell["port_directions"][pin] == "output":
                    drives[bit] = name
                else:
                    reads[name].append(bit)
    readers: dict[str, list[str]] = {name: [] for name in reads}
    missing: dict[str, int] = {}
    for name, bits in reads.items():
        sources = [drives[bit] for bit in bits if bit in drives]
        missing[name] = len(sources)
        for source in sources:
            readers[source].append(name)
    level = dict.fromkeys(reads, 1)
    ready = deque(name for name, count in missing.items() if count == 0)
    while ready:
        name = ready.popleft()
        for reader in readers[name]:
            level[reader] = max(level[reader], level[name] + 1)
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    return max(level.values(), default=0)


def _fpga(
    name: str, family: _Family, dsp: bool, inputs: Mapping[str, str | Path]
) -> dict[str, Any]:
    command = f"{family.command} {family.dsp if dsp else family.no_dsp}"
    texts = yosys.run(_FPGA.format(command=command, name=name), inputs, ("stat.json",))
    cells = json.loads(texts["stat.json"])["design"]["num_cells_by_type"]

    def count(pattern: str) -> int:
        return sum(number for cell, number in cells.items() if re.fullmatch(pattern, cell))

    return {
        "luts": count(family.luts),
        "carries": count(family.carries),
        "flip_flops": count(family.flip_flops),
        "dsps": count(family.dsps),
        "block_rams": count(family.block_rams),
        "cells": dict(sorted(cells.items())),
    }
