"""Quantised layers on their generated neuron, time step by time step, in compiled RTL."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.golden.formats import INT8, INT16
from fewbit.golden.lstm.int8 import Int8Lstm
from fewbit.golden.neuron.beats import neuron_configuration, step_beats
from fewbit.hdl.design import Value
from fewbit.hdl.designs import find
from fewbit.sim.bulk import BulkSimulation

__all__ = ["NeuronBackend"]

Raws = npt.NDArray[np.int64]


class NeuronBackend:
    """A backend that runs an integer LSTM on the RTL of ``int8_lstm_neuron``.

    All sequences of a batch advance together. In each time step every unit of every sequence passes
    through the one neuron, with its state from the time step before.

    Parameters
    ----------
    lanes
        Number of products of a beat.
    stall_seed
        Seed of pauses on both streams; None for full rate.
    cache_dir
        Folder of compiled libraries.
    """

    def __init__(
        self,
        lanes: int = 16,
        stall_seed: int | None = None,
        cache_dir: Path = Path("build/bulk"),
    ) -> None:
        self.lanes = lanes
        self.stall_seed = stall_seed
        self.cache_dir = cache_dir
        self.cycles = 0
        """Number of clock cycles of all runs."""
        self.units = 0
        """Number of hidden units of all runs."""
        self.cells: Raws = np.empty((0, 0, 0), dtype=np.int64)
        """Cell raws of the last run, shape (batch, time, hidden)."""

    def __call__(self, model: Int8Lstm, x: Raws) -> Raws:
        """Return the hidden raws (batch, time, hidden) for input raws (batch, time, inputs)."""
        settings: dict[str, Value] = {"lanes": self.lanes, "activation": model.activation}
        circuit = BulkSimulation(find("int8_lstm_neuron").configure(settings), self.cache_dir)
        configuration = neuron_configuration(model)
        batch, steps, _ = x.shape
        hidden, cell = model.reset_state(batch)
        outputs = np.empty((batch, steps, model.hidden), dtype=np.int64)
        self.cells = np.empty_like(outputs)
        for step in range(steps):
            beats = step_beats(model, x[:, step], hidden, cell, self.lanes)
            seed = None if self.stall_seed is None else self.stall_seed + step
            results = circuit.run(
                beats | configuration, batch * model.hidden, stall_seed=seed, reset=step == 0
            )
            hidden = INT8.raw(results["result"]).reshape(batch, model.hidden)
            cell = INT16.raw(results["cell_result"]).reshape(batch, model.hidden)
            outputs[:, step], self.cells[:, step] = hidden, cell
            self.cycles += circuit.cycles
            self.units += batch * model.hidden
        return outputs
