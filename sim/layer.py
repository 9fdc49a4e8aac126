"""A quantised layer run on its generated layer circuit, in compiled RTL."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from golden.layer import packets
from golden.layer.int8 import Int8LstmLayer
from golden.layer.packets import Kind, Packet, Reply, Status
from golden.lstm.int8 import Int8Lstm
from hdl.designs import find
from sim.bulk import BulkSimulation

__all__ = ["LayerBackend"]

Raws = npt.NDArray[np.int64]


@dataclass
class LayerBackend:
    """Runs integer LSTMs on the RTL of ``int8_lstm_layer``, made for each model.

    The parameter image goes in as a packet, then every sequence from reset, vector by vector.

    Parameters
    ----------
    lanes, neurons, structure
        Of the circuit.
    stall_seed
        Seed of pauses on both streams; None for full rate.
    cache_dir
        Folder of compiled libraries.
    """

    lanes: int = 4
    neurons: int = 1
    structure: str = "gates"
    stall_seed: int | None = None
    cache_dir: Path = Path("build/bulk")
    cycles: int = 0
    """Clock cycles of all runs, the loading of the image included."""
    steps: int = 0
    """Time steps of all runs."""

    def __call__(self, model: Int8Lstm, x: Raws) -> Raws:
        """Hidden raws (batch, time, outputs) of input raws (batch, time, inputs)."""
        layer = Int8LstmLayer.of(model, self.lanes, self.neurons)
        design = find("int8_lstm_layer")
        settings = layer.settings | {"structure": self.structure}
        circuit = BulkSimulation(design, settings, self.cache_dir)
        self._send(circuit, [Packet(Kind.PARAMETERS, layer.pack(model.constants))], 1)
        batch, time, _ = x.shape
        vectors = [
            Packet(Kind.INPUT, vector.astype(np.int8).tobytes(), starts=step == 0)
            for sequence in x
            for step, vector in enumerate(sequence)
        ]
        count = batch * time * layer.outputs
        if not count:
            return np.zeros((batch, time, layer.outputs), np.int64)
        answers = self._send(circuit, vectors, count, reset=False)
        self.steps += batch * time
        data = answers["m_axis_tdata"].astype(np.uint8).view(np.int8)
        return data.reshape(batch, time, layer.outputs).astype(np.int64)

    def _send(
        self, circuit: BulkSimulation, sent: list[Packet], results: int, *, reset: bool = True
    ) -> dict[str, Raws]:
        answers = circuit.run(
            packets.beats(sent),
            results,
            stall_seed=self.stall_seed,
            reset=reset,
            patience=10_000_000,
        )
        self.cycles += circuit.cycles
        kinds = answers["m_axis_tdest"]
        wanted = Reply.STATUS if sent[0].kind == Kind.PARAMETERS else Reply.HIDDEN
        if (kinds != wanted).any() or (
            wanted is Reply.STATUS and int(answers["m_axis_tdata"][0]) != Status.LOADED
        ):
            raise AssertionError(
                f"The layer answered with a packet of kind {int(kinds[kinds != wanted][0])}"
                if (kinds != wanted).any()
                else "The layer refused its parameter image."
            )
        return answers
