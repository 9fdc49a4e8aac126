"""Functions for designs from Python: find, generate, simulate, measure and prove them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from fewbit.errors import UsageError
from fewbit.golden.words import shown
from fewbit.interface.calls import (
    as_path,
    check_flag,
    in_python,
    load_plugins_once,
    refuse_old_keywords,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from fewbit.golden.network import Network
    from fewbit.hdl.design import ConfiguredDesign, Design, Value
    from fewbit.proofs import Proof
    from fewbit.sim.runner import Outcome

    AnyDesign = str | Design | ConfiguredDesign
    """A design's name, its entry in the registry, or the design with its parameters."""
    AnyPath = str | os.PathLike[str]

__all__ = ["designs", "find", "generate", "prove", "regress", "synthesize", "vectors"]


def _entry(design: str | Design) -> Design:
    """Return the registry's entry for a name, or the entry itself."""
    from fewbit.hdl import designs as registry
    from fewbit.hdl.design import Design

    load_plugins_once()
    if isinstance(design, Design):
        return design
    if not isinstance(design, str):
        raise UsageError(
            f"The design must be a name, or what fewbit.find returns, not {shown(design)}."
        )
    return registry.find(design)


def _configured(design: AnyDesign, parameters: dict[str, Value]) -> ConfiguredDesign:
    """Return a design with its parameters, whether the user passed a name, an entry or a design."""
    from fewbit.hdl.design import ConfiguredDesign

    if not isinstance(design, ConfiguredDesign):
        return _entry(design).configure(parameters)
    if parameters:
        raise UsageError(
            f"{design.name} has its parameters already; give {' and '.join(parameters)} to"
            " fewbit.find."
        )
    return design


@in_python
def designs() -> tuple[Design, ...]:
    """Return all designs, those of installed plug-ins included, in the order of ``fewbit designs``.

    Returns
    -------
    tuple of Design
        Each has a ``name``, a ``summary`` and ``all_parameters`` with defaults and ranges.

    Raises
    ------
    fewbit.hdl.systems.PluginError
        If a plug-in fails; every function that takes a design or a network raises it, too.
    """
    from fewbit.hdl.designs import DESIGNS

    load_plugins_once()
    return tuple(DESIGNS.values())


@in_python
def find(name: str, /, **parameters: Value) -> ConfiguredDesign:
    """Return the design of a name, with all its parameters set and checked.

    Nothing is built. The result has the golden model (``contract``), the ``timing`` in cycles, the
    ``parameters``, and ``component()``, which returns a new Amaranth component.

    Parameters
    ----------
    name
        A design's name, as ``fewbit designs`` lists it.
    parameters
        Parameters that differ from their defaults.

    Raises
    ------
    ParameterError
        If there is no such design or parameter, or the parameter does not take the value.
    """
    return _entry(name).configure(parameters)


@in_python
def generate(
    design: AnyDesign,
    /,
    out: AnyPath,
    *,
    model: Network | None = None,
    image_inside: bool = False,
    **parameters: Value,
) -> list[Path]:
    """Write Verilog and a data sheet, and for a layer a C header and a packer; all files, or none.

    With a model, the layers that run it are written, with their images.

    Parameters
    ----------
    design
        A design's name, or the design. With a model, the layer of the model's number system, by
        name: the model gives the other parameters.
    out
        The folder to write to. It is made if it is missing.
    model
        A quantised network.
    image_inside
        Whether the circuit holds the model's weights for good, so that no packet brings them.
    parameters
        Parameters that differ from their defaults.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UsageError
        If a file cannot be written, or the design cannot run the model.
    ParameterError
        If there is no such design or parameter, or the parameter does not take the value.
    fewbit.sim.yosys.YosysError
        If Yosys is missing or fails.
    """
    from fewbit import generation
    from fewbit.hdl.design import ConfiguredDesign
    from fewbit.models import check_network
    from fewbit.sim import yosys

    folder = as_path("out", out)
    check_flag("image_inside", image_inside)
    entry = design.design if isinstance(design, ConfiguredDesign) else _entry(design)
    refuse_old_keywords(parameters, [each.name for each in entry.all_parameters])
    if model is None:
        if image_inside:
            raise UsageError("'image_inside' goes with 'model'; give the model, too.")
        configured = _configured(design, parameters)
        yosys.warm_up()
        return generation.generate([configured], folder)
    if isinstance(design, ConfiguredDesign):
        raise UsageError(
            f"The model gives the parameters of {design.name}; name the design, and add those that"
            " the model leaves open."
        )
    network = check_network(model)
    yosys.warm_up()
    return generation.generate_model(entry, parameters, folder, network, image_inside=image_inside)


@in_python
def vectors(
    design: AnyDesign, /, count: int = 1000, seed: int = 1, **parameters: Value
) -> dict[str, npt.NDArray[np.unsignedinteger]]:
    """Return reference vectors of the golden model: random operands, all corners, and results.

    Parameters
    ----------
    design
        A design's name, or the design.
    count
        The number of results, from 1 to 10^8.
    seed
        The seed of the operands, from 0 to 2^32 - 1. The same seed gives the same vectors.
    parameters
        Parameters that differ from their defaults.

    Returns
    -------
    dict
        Codes by the name of the port, in the smallest unsigned type that holds them. An array has
        the shape (beats,), or (beats, lanes) for a port of several lanes; operands of a design that
        adds up rows have more beats than there are results.

    Raises
    ------
    UsageError
        If the count or the seed is out of range.
    ParameterError
        If there is no such design or parameter, or the parameter does not take the value.
    """
    from fewbit.reference_vectors import check_count, reference_vectors

    count, seed = check_count(count, seed)
    return reference_vectors(_configured(design, parameters), count, seed)


@in_python
def regress(
    design: AnyDesign,
    /,
    *,
    simulator: Literal["verilator", "icarus"] = "verilator",
    count: int = 2000,
    seed: int = 1,
    build: AnyPath = "build/sim",
    **parameters: Value,
) -> Outcome:
    """Simulate the generated Verilog, and compare it bit for bit with the golden model.

    Parameters
    ----------
    design
        A design's name, or the design.
    simulator
        The simulator that runs the cocotb bench.
    count
        The number of results to compare at full rate, from 1 to 10^8. Tests with pauses on both
        streams compare a part of that number each.
    seed
        The seed of all operands and pauses, from 0 to 2^32 - 1.
    build
        The folder of the builds. A build in it is used again while nothing has changed.
    parameters
        Parameters that differ from their defaults.

    Returns
    -------
    Outcome
        ``passed``; ``tests``, ``failed`` and ``transactions``, numbers of tests and of results
        compared; ``failures``, for each failed test its first counterexample; ``seconds``.

    Raises
    ------
    UsageError
        If the simulator is unknown, the count or the seed is out of range, or the folder cannot be
        written.
    ParameterError
        If there is no such design or parameter, or the parameter does not take the value.
    fewbit.sim.runner.SimulatorError
        If the simulator is missing or cannot build the circuit.
    fewbit.sim.yosys.YosysError
        If Yosys is missing or fails.
    """
    from fewbit import regression
    from fewbit.models import told
    from fewbit.reference_vectors import check_count
    from fewbit.sim import yosys
    from fewbit.sim.runner import check_tools

    with told():
        check_tools(simulator)
    folder = as_path("build", build)
    count, seed = check_count(count, seed)
    configured = _configured(design, parameters)
    yosys.warm_up()
    (outcome,) = regression.regress(
        [configured], simulator=simulator, seed=seed, count=count, jobs=1, folder=folder
    )
    return outcome


@in_python
def synthesize(
    design: AnyDesign,
    /,
    target: str = "gates",
    *,
    liberty: AnyPath | None = None,
    dsp: bool = False,
    mapping: str = "area",
    **parameters: Value,
) -> dict[str, Any]:
    """Measure a design's area with Yosys.

    Parameters
    ----------
    design
        A design's name, or the design.
    target
        ``gates``, ``ice40``, ``ecp5``, ``xilinx``, ``gowin`` or ``liberty``.
    liberty
        The Liberty file of the process, for the target ``liberty``.
    dsp
        Whether an FPGA's DSP blocks may be used.
    mapping
        ``area``, or ``delay`` for the smallest depth in gates, which only the target ``gates``
        takes.
    parameters
        Parameters that differ from their defaults.

    Returns
    -------
    dict
        The design, its parameters, the target and the figures. For ``gates`` these are ``area_ge``
        and ``combinational_ge`` in NAND2 equivalents, ``flip_flops``, ``memory_bits``, ``depth`` in
        gates and ``cells`` by type. An FPGA has ``luts``, ``carries``, ``flip_flops``, ``dsps``,
        ``block_rams`` and ``cells``. A process has ``area`` in its own unit, ``flip_flops``,
        ``memory_bits``, ``depth`` and ``cells``.

    Raises
    ------
    UsageError
        If the target or the mapping is unknown, two of the arguments contradict each other, or the
        Liberty file cannot be used.
    ParameterError
        If there is no such design or parameter, or the parameter does not take the value.
    fewbit.sim.yosys.YosysError
        If Yosys is missing or fails.
    """
    from fewbit import synthesis
    from fewbit.sim import yosys

    library = None if liberty is None else as_path("liberty", liberty)
    check_flag("dsp", dsp)
    synthesis.check_choices(target, library, mapping, dsp=dsp)
    configured = _configured(design, parameters)
    yosys.warm_up()
    return synthesis.synthesize(configured, target, liberty=library, dsp=dsp, mapping=mapping)


@in_python
def prove(design: AnyDesign, /, *, jobs: int | None = None, **parameters: Value) -> list[Proof]:
    """Prove that a generated circuit equals its definition, for every input.

    Parameters
    ----------
    design
        A design's name, or the design.
    jobs
        The number of proofs to work on at a time; by default one for each core.
    parameters
        Parameters that differ from their defaults.

    Returns
    -------
    list of Proof
        One for each property, at least one: ``proven``; ``counterexample``, lines about an input on
        which the circuit is wrong; ``broken_copy_refuted``, whether the solver found the fault in a
        copy that was broken on purpose; ``claim``, what was proven; ``seconds``.

    Raises
    ------
    UsageError
        If there is nothing to prove of the design, or the number of jobs is out of range.
    ParameterError
        If there is no such design or parameter, or the parameter does not take the value.
    fewbit.sim.yosys.YosysError
        If Yosys is missing or fails.
    """
    from fewbit import proofs
    from fewbit.golden.checks import check_whole
    from fewbit.models import told
    from fewbit.sim import yosys

    at_a_time = (os.cpu_count() or 1) if jobs is None else jobs
    with told():
        at_a_time = check_whole("jobs", at_a_time, 1, 1 << 16)
    claims = proofs.claims_of_all([_configured(design, parameters)])
    yosys.warm_up()
    return proofs.prove_all(claims, at_a_time)
