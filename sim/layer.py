"""Quantised layers on the RTL of their generated layer circuit, in compiled simulation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fewbit.golden.arithmetic import Raws
from fewbit.golden.checks import as_shaped_raws, check_shape
from fewbit.golden.layer import packets
from fewbit.golden.layer.contract import CELL_BYTES, LayerContract
from fewbit.golden.layer.image import integers
from fewbit.golden.layer.packets import Kind, Packet, Reply, Status
from fewbit.golden.lstm.contract import Lstm
from fewbit.golden.lstm.padding import valid_steps
from fewbit.hdl.design import Value
from fewbit.hdl.systems import configure_for
from fewbit.sim.bulk import BulkSimulation

__all__ = ["LayerBackend"]

_LOADED = Packet(Reply.STATUS, bytes([Status.LOADED]))


@dataclass
class LayerBackend:
    """A backend that runs quantised LSTMs on the RTL of their layer's design, made for each model.

    It sends the image as a packet, and then every sequence from reset, vector by vector.

    Parameters
    ----------
    settings
        Parameters of the circuit that the model leaves open, by name, such as ``lanes``; see
        :attr:`fewbit.golden.layer.contract.LayerContract.chosen` and the build's parameters of the
        design.
    stall_seed
        Seed of pauses on both streams; None for full rate.
    cache_dir
        Folder of compiled libraries.
    asks_state
        Whether to request the state after every sequence, see `last_cells`.
    """

    settings: Mapping[str, Value] = field(default_factory=dict[str, Value])
    stall_seed: int | None = None
    cache_dir: Path = Path("build/bulk")
    asks_state: bool = False
    cycles: int = 0
    """Number of clock cycles of all runs, including the loading of the image."""
    steps: int = 0
    """Number of time steps of all runs."""
    last_cells: Raws = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """Cell raws (batch, hidden) after each sequence of the last run, if `asks_state` is set."""
    passes: tuple[int, int] = (0, 0)
    """HIGH and LOW passes of the last run, if `asks_state` is set and the layer counts them."""

    def __call__(self, model: Lstm, x: Raws, lengths: npt.ArrayLike | None = None) -> Raws:
        """Return the hidden raws (batch, time, outputs) for input raws (batch, time, inputs).

        For a layer of floats, codes take the place of raws.

        Parameters
        ----------
        model, x
            The layer, and the sequences.
        lengths
            Number of time steps of each sequence to run, shape (batch,), from 1 to time; None for
            all. The raws after them are 0.

        Raises
        ------
        ValueError
            If x does not have this shape or holds a number that is no raw of the layer, if a length
            is out of range, or if the layer cannot hold the model.
        fewbit.sim.bulk.BulkFailure
            If the circuit hangs or breaks the stream protocol.
        AssertionError
            If the circuit's answers differ from the expected packets in kind or size.
        """
        configured, image = configure_for(model, self.settings)
        layer = configured.contract
        assert isinstance(layer, LayerContract)
        schedule, outputs = layer.schedule, layer.schedule.outputs
        width, size = layer.activation_width, layer.output_size
        kind = np.dtype(f"<{'i' if layer.raws_are_signed else 'u'}{layer.value_bytes}")
        low = -(1 << (width - 1)) if layer.raws_are_signed else 0
        x = as_shaped_raws(x, "x", (low, low + (1 << width) - 1), (-1, -1, schedule.inputs))
        batch, time, _ = x.shape
        ends = _checked_lengths(lengths, batch, time)
        circuit = BulkSimulation(configured, self.cache_dir)
        sent = [Packet(Kind.IMAGE, image)]
        status = self._send(circuit, sent, [(Reply.STATUS, 1)], reset=True)
        if status[0] != _LOADED:
            raise AssertionError(f"The layer refused its image: {Status(status[0].data[0]).name}.")
        hidden = np.zeros((batch, time, outputs), np.int64)
        if not x.size:
            self.last_cells = np.zeros((batch, schedule.hidden), np.int64)
            return hidden
        sent = []
        wanted: list[tuple[Reply, int]] = []
        for sequence, end in zip(x, ends.tolist(), strict=True):
            sent += [
                Packet(Kind.INPUT, vector.astype(kind).tobytes(), starts=step == 0)
                for step, vector in enumerate(sequence[:end])
            ]
            wanted += [(Reply.HIDDEN, size)] * end
            if self.asks_state:
                sent.append(Packet(Kind.SAVE_STATE, b"\0"))
                wanted.append((Reply.STATE, layer.state_size))
                if layer.passes_size:
                    wanted.append((Reply.PASSES, layer.passes_size))
        replies = self._send(circuit, sent, wanted)
        self.steps += int(ends.sum())
        vectors = [reply.data for reply in replies if reply.kind == Reply.HIDDEN]
        within = valid_steps(hidden, ends)
        hidden[within] = np.frombuffer(b"".join(vectors), kind).reshape(-1, outputs)
        states = [reply.data for reply in replies if reply.kind == Reply.STATE]
        if self.asks_state:
            raws = np.frombuffer(b"".join(states), np.uint8).reshape(batch, layer.state_size)
            cells = raws[:, size:].reshape(batch, schedule.hidden, CELL_BYTES)
            self.last_cells = integers(cells, signed=layer.raws_are_signed)
        # They count from the image on, so the last answer holds those of the whole run.
        counts = [reply.data for reply in replies if reply.kind == Reply.PASSES]
        if counts:
            high, low = integers(np.frombuffer(counts[-1], np.uint8).reshape(2, -1), signed=False)
            self.passes = int(high), int(low)
        return hidden

    def _send(
        self,
        circuit: BulkSimulation,
        sent: list[Packet],
        wanted: Sequence[tuple[Reply, int]],
        *,
        reset: bool = False,
    ) -> list[Packet]:
        """Return the answers to packets, whose kinds and sizes must be those in ``wanted``."""
        answers = circuit.run(
            packets.beats(sent),
            sum(size for _, size in wanted),
            stall_seed=self.stall_seed,
            reset=reset,
            patience=10_000_000,
        )
        self.cycles += circuit.cycles
        replies = list(packets.replies_in(answers))
        got = [(reply.kind, len(reply.data)) for reply in replies]
        for number, pair in enumerate(zip_longest(got, wanted)):
            if pair[0] != pair[1]:
                raise AssertionError(
                    f"Answer {number} of the layer must be {_named(pair[1])}, not"
                    f" {_named(pair[0])}."
                )
        return replies


def _named(answer: tuple[int, int] | None) -> str:
    return "none" if answer is None else f"{answer[1]} bytes of kind {int(answer[0])}"


def _checked_lengths(lengths: npt.ArrayLike | None, batch: int, time: int) -> Raws:
    if lengths is None:
        return np.full(batch, time, np.int64)
    ends = np.asarray(lengths, np.int64)
    check_shape(ends, "lengths", (batch,))
    if ((ends < 1) | (ends > time)).any():
        wrong = ends[(ends < 1) | (ends > time)][0]
        raise ValueError(f"lengths must be from 1 to {time} steps, not {wrong}.")
    return ends
