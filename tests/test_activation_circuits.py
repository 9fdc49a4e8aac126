# amaranth: UnusedElaboratable=no
"""Sigmoid and tanh of the int8 update, every raw and every cell step, in compiled RTL.

The circuits share one multiplier with the rest of the update, so they are reached through it: rows
of identity multipliers bring any gate raw and any cell raw, and ``exposed``, the product of output
gate and tanh of the cell before its requantisation, shows both to the last bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fewbit.golden.activation.integer import ACTIVATIONS, ActivationKind
from fewbit.golden.activation.table import interpolation_table
from fewbit.golden.arithmetic import rounding_shift_right, saturate
from fewbit.golden.formats import INT8, INT16, INT32
from tests.support.update_bench import Settings, simulation

if TYPE_CHECKING:
    import numpy.typing as npt

    from fewbit.sim.bulk import BulkSimulation

    Raws = npt.NDArray[np.int64]

EVERY_RAW = np.arange(-(1 << 15), 1 << 15)
HIGHEST = (1 << 15) - 1
CIRCUITS = (
    Settings(),
    Settings(structure="fpga"),
    Settings(activation="gemmlowp", structure="fpga"),
)


@pytest.fixture(scope="module", params=CIRCUITS, ids=str)
def circuit(request: pytest.FixtureRequest) -> tuple[ActivationKind, BulkSimulation]:
    return request.param.activation, simulation(request.param)


def run(bulk: BulkSimulation, gates: list[npt.ArrayLike], cell: Raws, bits: int) -> dict[str, Raws]:
    """Signed results of units with these gate raws i, f, g, o and old cells."""
    units = len(cell)
    rows = np.zeros((units, 8), np.int64)
    for gate, raw in enumerate(gates):
        # All in the input part on even units and in the recurrent one on odd: both are the raw.
        rows[np.arange(units), 2 * gate + np.arange(units) % 2] = raw
    # A multiplier of exactly 1 is 2^30 shifted left by one; the last one is the hidden value's.
    arrays = {
        "accumulator": INT32.code(rows.ravel()),
        "segment": np.zeros(units * 8, np.int64),
        "multipliers": np.full((1, 9), 1 << 23),
        "shifts": np.array([[1] * 8 + [-22 & 0x3F]]),
        "old_cell": INT16.code(np.repeat(cell, 8)),
        "cell_integer_bits": np.array([bits]),
        "cell_clip": np.array([0]),
        "hidden_offset": np.array([0]),
    }
    codes = bulk.run(arrays, units)
    formats = {"result": INT8, "cell_result": INT16, "exposed": INT32}
    return {name: formats[name].raw(codes[name]) for name in formats}


def units_for_cells(kind: ActivationKind, cells: Raws, bits: int) -> tuple[Raws, Raws]:
    """Raws of gate g and old cells that give new cells, gates i and f being as high as can be."""
    activation = ACTIVATIONS[kind]
    gate = int(activation.sigmoid(HIGHEST))
    added = rounding_shift_right(gate * activation.tanh(EVERY_RAW), 15 + bits)
    available, first = np.unique(added, return_index=True)
    kept = rounding_shift_right(gate * EVERY_RAW, 15)
    raws, old = np.zeros_like(cells), np.zeros_like(cells)
    missing = np.ones(len(cells), bool)
    for away in sorted(range(-40, 41), key=abs):
        candidate = np.clip(cells + away, EVERY_RAW[0], EVERY_RAW[-1])
        rest = cells - kept[candidate - EVERY_RAW[0]]
        index = np.minimum(np.searchsorted(available, rest), len(available) - 1)
        found = missing & (available[index] == rest)
        raws[found], old[found] = EVERY_RAW[first[index]][found], candidate[found]
        missing &= ~found
    assert not missing.any()
    return raws, old


@pytest.mark.long
def test_sigmoid_of_every_raw(circuit: tuple[ActivationKind, BulkSimulation]) -> None:
    kind, bulk = circuit
    activation = ACTIVATIONS[kind]
    # Input gate of 1 nearly and g of 1 nearly put the cell near its highest: tanh is not 0.
    got = run(bulk, [HIGHEST, HIGHEST, HIGHEST, EVERY_RAW], np.full(len(EVERY_RAW), 9), 3)
    tanh = activation.tanh(got["cell_result"], 3)
    assert tanh.min() > 1000
    np.testing.assert_array_equal(got["exposed"], activation.sigmoid(EVERY_RAW) * tanh)


@pytest.mark.long
@pytest.mark.parametrize("bits", range(7))
def test_tanh_of_every_cell(circuit: tuple[ActivationKind, BulkSimulation], bits: int) -> None:
    kind, bulk = circuit
    # Gemmlowp's steps take five times as long; so one raw in 15, others for each step.
    cells = EVERY_RAW if kind == "table" else EVERY_RAW[2 * bits :: 15]
    activation = ACTIVATIONS[kind]
    raws, old = units_for_cells(kind, cells, bits)
    got = run(bulk, [HIGHEST, HIGHEST, raws, HIGHEST], old, bits)
    np.testing.assert_array_equal(got["cell_result"], cells)
    np.testing.assert_array_equal(
        got["exposed"], activation.sigmoid(HIGHEST) * activation.tanh(cells, bits)
    )


@pytest.mark.long
def test_input_and_cell_gates_of_every_raw(
    circuit: tuple[ActivationKind, BulkSimulation],
) -> None:
    kind, bulk = circuit
    activation = ACTIVATIONS[kind]
    raws = EVERY_RAW if kind == "table" else EVERY_RAW[::15]
    got = run(bulk, [raws, raws[::-1], raws, 0], raws, 0)
    products = activation.sigmoid(raws) * activation.tanh(raws)
    kept = activation.sigmoid(raws[::-1]) * raws
    expected = saturate(rounding_shift_right(products, 15) + rounding_shift_right(kept, 15), 16)
    np.testing.assert_array_equal(got["cell_result"], expected)


@pytest.mark.long
def test_a_wrong_table_entry_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = interpolation_table().copy()
    table[77] += 1
    monkeypatch.setattr("fewbit.hdl.activation.table.interpolation_table", lambda: table)
    bulk = simulation(Settings())
    activation = ACTIVATIONS["table"]
    got = run(bulk, [HIGHEST, HIGHEST, HIGHEST, EVERY_RAW], np.full(len(EVERY_RAW), 9), 3)
    expected = activation.sigmoid(EVERY_RAW) * activation.tanh(got["cell_result"], 3)
    assert (got["exposed"] != expected).any()
