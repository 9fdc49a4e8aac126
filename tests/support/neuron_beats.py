"""An integer layer run on its neuron: a time step as beats, and all of them in compiled RTL.

So the tests hold the neuron, golden and circuit, to the layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fewbit.golden.arithmetic import SIGNIFICAND_POSITION
from fewbit.golden.checks import as_shaped_raws
from fewbit.golden.formats import INT8, INT16, INT32
from fewbit.golden.lstm.int8 import GATES
from fewbit.golden.neuron.int8 import SHIFT
from fewbit.hdl.designs import find
from fewbit.sim.bulk import BulkSimulation

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.golden.lstm.int8 import Int8Lstm
    from fewbit.hdl.design import Value

    Codes = npt.NDArray[np.int64]
    Raws = npt.NDArray[np.int64]


def beats_of_unit(model: Int8Lstm, lanes: int) -> int:
    """Beats of a unit: four gates, the input and the recurrent part each padded to whole beats."""
    return len(GATES) * (-(-model.inputs // lanes) + -(-model.hidden // lanes))


def neuron_configuration(model: Int8Lstm) -> dict[str, Codes]:
    """Configuration arrays of the neuron for a model, one row each.

    Raises
    ------
    ValueError
        If the model rounds in a way that the circuit doesn't, or is no plain LSTM.
    """
    variants = {
        "a coupled input gate": model.coupled,
        "peepholes": model.peephole_weights is not None,
        "a layer norm": model.norm_weights is not None,
        "a projection": model.projection_weights is not None,
    }
    for variant, there in variants.items():
        if there:
            raise ValueError(
                f"The neuron runs plain LSTMs only, not one with {variant}; use the layer."
            )
    if model.rounding != "double":
        raise ValueError(
            f"The neuron rounds twice; quantise the model with rounding 'double',"
            f" not '{model.rounding}'."
        )
    if model.hidden_shift > 0:
        raise ValueError(
            f"The neuron's last requantisation only shifts right, not left by"
            f" {model.hidden_shift}; give the model a coarser hidden scale."
        )
    return {
        "cell_integer_bits": np.array([model.cell_exponent + 15]),
        "cell_clip": np.array([model.cell_clip]),
        "hidden_multiplier": np.array([model.hidden_multiplier >> SIGNIFICAND_POSITION]),
        "hidden_shift": np.array([-model.hidden_shift]),
        "hidden_zero_point": INT8.code(np.array([model.intermediate_zero_point])),
    }


def step_beats(model: Int8Lstm, x: Raws, hidden: Raws, cell: Raws, lanes: int) -> dict[str, Codes]:
    """Beats of one time step: for each sequence, all units; for each unit, its eight rows.

    Parameters
    ----------
    model
        The quantised layer.
    x, hidden, cell
        Input raws (batch, inputs), old hidden and cell raws (batch, hidden).
    lanes
        Products of a beat; rows are padded with zeros to whole beats.

    Returns
    -------
    dict
        Codes by operand of :class:`fewbit.golden.neuron.int8.Int8LstmNeuronContract`, a row a beat.

    Raises
    ------
    ValueError
        If an array has a wrong shape, or holds what is no raw.
    """
    x = as_shaped_raws(x, "x", (-128, 127), (-1, model.inputs))
    batch, units = len(x), model.hidden
    hidden = as_shaped_raws(hidden, "hidden", (-128, 127), (batch, units))
    cell = as_shaped_raws(cell, "cell", (-(2**15), 2**15 - 1), (batch, units))
    weights = np.concatenate(
        [_in_beats(model.input_weights, lanes), _in_beats(model.recurrent_weights, lanes)], axis=2
    )
    activations = np.concatenate([_in_beats(x, lanes), _in_beats(hidden, lanes)], axis=1)
    beats = weights.shape[2]
    recurrent = -(-model.inputs // lanes)
    # (batch, unit, gate, beat), the order in which the neuron wants them.
    shape = (batch, units, len(GATES), beats)
    count = batch * units * len(GATES) * beats
    part = np.repeat(np.array([0, 1]), [recurrent, beats - recurrent])
    first, last = np.zeros((2, beats), dtype=np.int64)
    first[[0, recurrent]] = 1
    last[[recurrent - 1, beats - 1]] = 1

    def whole(values: Codes) -> Codes:
        return np.broadcast_to(values, shape).reshape(count)

    bias = model.folded_bias.astype(np.int64)[:, part, :].transpose(2, 0, 1)
    return {
        "weights": INT8.code(
            np.broadcast_to(weights.swapaxes(0, 1), (*shape, lanes)).reshape(count, lanes)
        ),
        "activations": INT8.code(
            np.broadcast_to(activations[:, None, None], (*shape, lanes)).reshape(count, lanes)
        ),
        "first": whole(first),
        "last": whole(last),
        "bias": INT32.code(whole(bias)),
        "multiplier": whole(model.multipliers[:, part] >> SIGNIFICAND_POSITION),
        "shift": SHIFT.code(whole(model.shifts[:, part])),
        "old_cell": INT16.code(whole(cell[:, :, None, None])),
    }


def _in_beats(rows: npt.NDArray[np.integer], lanes: int) -> Raws:
    """Rows (…, n) as (…, beats, lanes), padded with zeros."""
    padding = [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % lanes)]
    padded = np.pad(rows.astype(np.int64), padding)
    return padded.reshape(*rows.shape[:-1], padded.shape[-1] // lanes, lanes)


def run_on_circuit(model: Int8Lstm, x: Raws, *, lanes: int, stall_seed: int) -> Raws:
    """Hidden raws (batch, time, hidden) of input raws (batch, time, inputs), from compiled RTL.

    All sequences advance together: in each time step every unit of every sequence passes through
    the one neuron, with its state from the step before, with pauses on both streams.
    """
    settings: dict[str, Value] = {"lanes": lanes, "activation": model.activation}
    circuit = BulkSimulation(find("int8_lstm_neuron").configure(settings))
    configuration = neuron_configuration(model)
    batch, steps, _ = x.shape
    hidden, cell = model.reset_state(batch)
    outputs = np.empty((batch, steps, model.hidden), dtype=np.int64)
    for t in range(steps):
        beats = step_beats(model, x[:, t], hidden, cell, lanes)
        results = circuit.run(
            beats | configuration, batch * model.hidden, stall_seed=stall_seed + t, reset=t == 0
        )
        hidden = INT8.raw(results["result"]).reshape(batch, model.hidden)
        cell = INT16.raw(results["cell_result"]).reshape(batch, model.hidden)
        outputs[:, t] = hidden
    return outputs
