"""What the tests of all layers do with one: run its emitted packer, count its cycles."""

from __future__ import annotations

import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fewbit.golden.layer import packets
from fewbit.golden.layer.image import program
from fewbit.golden.layer.packets import Kind, Packet
from fewbit.sim.bulk import BulkFailure

if TYPE_CHECKING:
    import numpy as np

    from fewbit.golden.layer.contract import LayerContract
    from fewbit.sim.bulk import BulkSimulation


def packer_of(layer: LayerContract[Any]) -> Any:
    """The program that `fewbit generate` emits for a layer, as a module with its own `plan`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "emitted_packer.py"
        path.write_text(program(layer.plan), encoding="utf-8")
        spec = spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        emitted: Any = module_from_spec(spec)
        # Its dataclasses look for their module.
        sys.modules[path.stem] = emitted
        try:
            spec.loader.exec_module(emitted)
        finally:
            del sys.modules[path.stem]
        emitted.plan = emitted.plan_in(path.read_text(encoding="utf-8"))
    return emitted


def check_packer(layer: LayerContract[Any], parameters: Any) -> None:
    """The emitted packer makes the image that the layer packs, and knows a broken one."""
    emitted, image = packer_of(layer), layer.pack(parameters)
    assert emitted.pack(emitted.plan, layer.arrays_of(parameters)) == image
    emitted.check_image(emitted.plan, image)
    with pytest.raises(ValueError, match=r"checksum must be .* the image is broken"):
        emitted.check_image(emitted.plan, bytes([image[0] ^ 1]) + image[1:])


def count_cycles(
    circuit: BulkSimulation, image: bytes, rng: np.random.Generator
) -> tuple[float, int, int]:
    """Cycles of a step, and to the first and the last byte of a single answer."""
    layer: Any = circuit.contract
    circuit.run(packets.beats([Packet(Kind.IMAGE, image)]), 1, reset=True)
    cycles: dict[int, int] = {}
    sent: list[Packet] = []
    for count in (1, 2, 6):
        sent = [Packet(Kind.INPUT, rng.bytes(layer.input_size)) for _ in range(count)]
        circuit.run(packets.beats(sent), count * layer.output_size, reset=False)
        cycles[count] = circuit.cycles
    loading = layer.input_size + 1
    first = cycles[1]
    if layer.output_size > 1:
        # As if one byte were all, and the next one too many.
        with pytest.raises(BulkFailure, match="a result came after the last"):
            circuit.run(packets.beats(sent[:1]), 1, reset=False)
        first = circuit.cycles
    return (cycles[6] - cycles[2]) / 4, first - loading, cycles[1] - loading
