"""`QuantLSTM`, which stands where ``nn.LSTM`` stood and computes in a scheme's numbers."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from fewbit.golden.network import NETWORK_INPUT, Network, Node
from fewbit.train.schemes.contract import Cell, Scheme, Signal
from fewbit.train.schemes.real import Float

__all__ = ["QuantLSTM"]

State = tuple[Tensor, Tensor]
_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class QuantLSTM(nn.Module):
    """A recurrent network of LSTM layers, trained under a scheme.

    Arguments, results and the names of the parameters are those of ``torch.nn.LSTM``, so the state
    dict of a trained ``nn.LSTM`` can be loaded; what a scheme has beside them, such as gains, then
    starts from these weights. Beyond ``nn.LSTM``, a padded batch may come with its lengths.

    Parameters
    ----------
    input_size, hidden_size
        Length of an input vector, and number of units of each layer and direction.
    num_layers, bias, batch_first, dropout, bidirectional
        As in ``nn.LSTM``. Projections, ``proj_size``, do not exist.
    device, dtype
        As in ``nn.LSTM``, but that all schemes other than `fewbit.train.Float` need float32.
    scheme
        The scheme; by default `fewbit.train.Float`, which rounds nothing.

    Raises
    ------
    ValueError
        If an argument has no sensible value.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        scheme: Scheme | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be from 0 to 1, not {dropout}.")
        if scheme is not None and not isinstance(scheme, Scheme):
            raise ValueError(
                f"scheme must be a scheme, such as fewbit.train.Ternary(), not {scheme!r}."
            )
        if proj_size:
            raise ValueError(f"proj_size must be 0, as no scheme has projections, not {proj_size}.")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional = bidirectional
        self.scheme: Scheme = Float() if scheme is None else scheme
        directions = 2 if bidirectional else 1
        # The signal of the network's input, and that of every layer's output.
        self.signals = nn.ModuleList(
            self.scheme.signal(hidden=layer > 0) for layer in range(num_layers + 1)
        )
        self.cells = nn.ModuleDict()
        for suffix, layer, _ in self._places():
            inputs = input_size if layer == 0 else hidden_size * directions
            for name in _PARAMETERS if bias else _PARAMETERS[:2]:
                columns = {"weight_ih": (inputs,), "weight_hh": (hidden_size,)}.get(name, ())
                self.register_parameter(
                    f"{name}{suffix}", nn.Parameter(torch.empty(4 * hidden_size, *columns))
                )
            self.cells[suffix.strip("_")] = self.scheme.cell(
                inputs, hidden_size, self._signal(layer), self._signal(layer + 1)
            )
        self.reset_parameters()
        self.to(device=device, dtype=dtype)
        self.register_load_state_dict_post_hook(_complete)

    def _places(self) -> list[tuple[str, int, bool]]:
        """Return suffix, layer and whether it is backward of all cells, in PyTorch's order."""
        return [
            (f"_l{layer}{'_reverse' if reverse else ''}", layer, reverse)
            for layer in range(self.num_layers)
            for reverse in ((False, True) if self.bidirectional else (False,))
        ]

    def _cell(self, suffix: str) -> Cell:
        cell = self.cells[suffix.strip("_")]
        assert isinstance(cell, Cell)
        return cell

    def _weights(self, suffix: str) -> tuple[Tensor, Tensor]:
        return self.get_parameter(f"weight_ih{suffix}"), self.get_parameter(f"weight_hh{suffix}")

    def _bias(self, suffix: str) -> Tensor:
        if not self.bias:
            return self.get_parameter(f"weight_hh{suffix}").new_zeros(4 * self.hidden_size)
        return self.get_parameter(f"bias_ih{suffix}") + self.get_parameter(f"bias_hh{suffix}")

    def reset_parameters(self) -> None:
        """Draw the first parameters: uniform in ±1/sqrt(hidden), unless the scheme's rule differs.

        These are the first parameters of ``nn.LSTM``, drawn in the same order.
        """
        bound = self.hidden_size**-0.5
        with torch.no_grad():
            for suffix, _, _ in self._places():
                for name in _PARAMETERS if self.bias else _PARAMETERS[:2]:
                    self.get_parameter(f"{name}{suffix}").uniform_(-bound, bound)
                self._cell(suffix).draw(*self._weights(suffix))
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Take anew what a scheme derives from the first weights, such as the gains of a norm."""
        for suffix, _, _ in self._places():
            self._cell(suffix).start(*self._weights(suffix))

    @torch.no_grad()
    def follow(self) -> None:
        """Take anew what follows from weights that have moved, such as their power-of-two scales.

        A training loop calls it now and then, for example after each epoch.

        Raises
        ------
        ValueError
            If a parameter is not finite.
        """
        self._check_finite()
        for suffix, _, _ in self._places():
            self._cell(suffix).follow(*self._weights(suffix))

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"{self.input_size}, {self.hidden_size}, {self.num_layers}, scheme={self.scheme}"

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Any, State]:
        """Return the last layer's hidden values, and the last states of all layers.

        Parameters
        ----------
        input
            Shape (time, batch, inputs), (batch, time, inputs) with `batch_first`, or (time,
            inputs); or a packed sequence.
        hx
            First hidden values and cells, shape (layers times directions, batch, hidden) each;
            None for zeros.
        lengths
            Number of steps in each sequence of a padded batch; None for all. Behind them the output
            is 0.

        Returns
        -------
        output
            Shape (time, batch, directions times hidden), laid out or packed like the input.
        hidden, cell
            States after each sequence's last step, shape (layers times directions, batch, hidden).
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths must be None for a packed sequence, which has its own.")
            padded, counts = pad_packed_sequence(input)
            output, state = self._run(padded, hx, counts)
            order = input.sorted_indices
            if order is not None:
                output, counts = output.index_select(1, order), counts[order.cpu()]
            # Sequences of one length keep the order that they have in the input's rows.
            data = pack_padded_sequence(output, counts).data
            return PackedSequence(data, input.batch_sizes, order, input.unsorted_indices), state
        if input.dim() not in {2, 3} or input.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have the shape (time, batch, {self.input_size}), not "
                f"{tuple(input.shape)}."
            )
        if input.dim() == 2:
            state = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            output, (hidden, cell) = self._run(input.unsqueeze(1), state, lengths)
            return output.squeeze(1), (hidden.squeeze(1), cell.squeeze(1))
        output, state = self._run(input.transpose(0, 1) if self.batch_first else input, hx, lengths)
        return output.transpose(0, 1) if self.batch_first else output, state

    def _run(
        self, x: Tensor, state: State | None, lengths: Tensor | Sequence[int] | None
    ) -> tuple[Tensor, State]:
        """Return output and last states for an input of shape (time, batch, inputs)."""
        time, batch, _ = x.shape
        if not (time and batch):
            raise ValueError("input must have at least one sequence of one step, not none.")
        self._check_type(x)
        places = self._places()
        shape = len(places), batch, self.hidden_size
        if state is None:
            state = x.new_zeros(shape), x.new_zeros(shape)
        if len(state) != 2:
            raise ValueError(f"hx must be hidden values and cells, not {len(state)} tensors.")
        for name, given in zip(("hidden", "cell"), state, strict=True):
            if tuple(given.shape) != shape:
                raise ValueError(
                    f"The first {name} must have the shape {shape}, not {tuple(given.shape)}."
                )
        padding = None if lengths is None else _Padding(lengths, time, batch, x.device)
        if self.training:
            self._observe(x if padding is None else x[padding.valid])
        read = self._signal(0)(x)
        hiddens: list[Tensor] = []
        cells: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                read = nn.functional.dropout(read, self.dropout, self.training)
            outputs: list[Tensor] = []
            for index, (suffix, own, reverse) in enumerate(places):
                if own != layer:
                    continue
                parameters = (*self._weights(suffix), self._bias(suffix))
                output, cell = self._cell(suffix).run(
                    _reversed(read, padding) if reverse else read,
                    state[0][index],
                    state[1][index],
                    parameters,
                    None if padding is None else padding.valid,
                )
                self._cell(suffix).observe_cells(cell, None if padding is None else padding.valid)
                hiddens.append(output[-1] if padding is None else padding.last(output))
                cells.append(cell[-1] if padding is None else padding.last(cell))
                outputs.append(_reversed(output, padding) if reverse else output)
            read = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if self.training:
                self._signal(layer + 1).observe(read if padding is None else read[padding.valid])
        if padding is not None:
            read = read * padding.valid.unsqueeze(-1)
        return read, (torch.stack(hiddens), torch.stack(cells))

    def _check_type(self, x: Tensor) -> None:
        """Refuse inputs of another type than the weights, or one that is not the scheme's."""
        kind = self.get_parameter("weight_ih_l0").dtype
        if x.dtype != kind:
            raise ValueError(f"input must be {kind}, as the weights are, not {x.dtype}.")
        if kind != torch.float32 and not isinstance(self.scheme, Float):
            raise ValueError(
                f"The scheme {self.scheme.name} computes in torch.float32, not {kind}; convert the"
                " layer and its input with .float()."
            )

    def _check_finite(self) -> None:
        for name, parameter in self.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise ValueError(
                    f"The parameter {name} is not finite, as the training has diverged; train anew"
                    " with a lower learning rate."
                )

    def _observe(self, x: Tensor) -> None:
        """Let the input's signal learn from values; the first ones may decide weights' scales."""
        signal = self._signal(0)
        known = signal.is_known
        signal.observe(x)
        if not known:
            self.follow()

    def _signal(self, layer: int) -> Signal:
        signal = self.signals[layer]
        assert isinstance(signal, Signal)
        return signal

    @torch.no_grad()
    def effective_state_dict(self) -> dict[str, Tensor]:
        """Return a state dict for ``nn.LSTM`` with the weights that the layers compute with.

        An ``nn.LSTM`` that loads it computes the same function but for the rounding of activations.
        """
        state: dict[str, Tensor] = {}
        for suffix, _, _ in self._places():
            used = self._cell(suffix).weights(*self._weights(suffix))
            for name, weight in zip(_PARAMETERS, used, strict=False):
                state[f"{name}{suffix}"] = weight.clone()
            if self.bias:
                state[f"bias_ih{suffix}"] = self._bias(suffix).clone()
                state[f"bias_hh{suffix}"] = torch.zeros_like(self._bias(suffix))
        return state

    @torch.no_grad()
    def freeze(self, batches: Sequence[tuple[Tensor, Tensor | Sequence[int] | None]]) -> None:
        """Make the network what a circuit holds: fixed weights, ranges and shared statistics.

        The network is then in evaluation mode, and `network` gives its golden model.

        Parameters
        ----------
        batches
            Inputs of the training data as `forward` takes them, each with its lengths or None.

        Raises
        ------
        ValueError
            If there is no batch, or a parameter is not finite.
        """
        if not batches:
            raise ValueError("batches must hold at least one batch of training data, not none.")
        self._check_finite()
        self.eval()
        if not self._signal(0).is_known:
            for x, lengths in batches:
                by_time = x.transpose(0, 1) if self.batch_first and x.dim() == 3 else x
                if lengths is not None:
                    padding = _Padding(lengths, len(by_time), by_time.shape[1], x.device)
                    by_time = by_time[padding.valid]
                self._observe(by_time)
        places = [suffix for suffix, _, _ in self._places()]
        for _ in range(max(self._cell(suffix).freezing() for suffix in places)):
            with ExitStack() as stack:
                for suffix in places:
                    stack.enter_context(self._cell(suffix).freeze(*self._weights(suffix)))
                for x, lengths in batches:
                    self(x, lengths=lengths)

    @torch.no_grad()
    def network(self) -> Network:
        """Return the golden model of the frozen network.

        Raises
        ------
        ValueError
            If the network is not frozen, or the scheme has no circuit.
        """
        if self.scheme.lacks_circuit:
            raise ValueError(self.scheme.lacks_circuit)
        nodes: list[Node] = []
        sources: tuple[int, ...] = (NETWORK_INPUT,)
        for layer in range(self.num_layers):
            before = len(nodes)
            for suffix, own, reverse in self._places():
                if own == layer:
                    lstm = self._cell(suffix).golden(*self._weights(suffix), self._bias(suffix))
                    nodes.append(Node(lstm, sources, reverse, suffix.strip("_")))
            sources = tuple(range(before, len(nodes)))
        return Network(tuple(nodes), sources)


class _Padding:
    """The lengths of a padded batch's sequences, and what follows from them."""

    def __init__(
        self, lengths: Tensor | Sequence[int], time: int, batch: int, device: torch.device
    ) -> None:
        given = torch.as_tensor(lengths)
        if given.is_floating_point():
            raise ValueError(f"lengths must be whole numbers, not {given.dtype}.")
        counts = given.to(device, torch.int64)
        if counts.shape != (batch,) or int(counts.min()) < 1 or int(counts.max()) > time:
            raise ValueError(
                f"lengths must be {batch} numbers from 1 to {time}, not {counts.tolist()}."
            )
        steps = torch.arange(time, device=device).unsqueeze(1)
        self._counts = counts
        self.valid = steps < counts
        # A sequence runs backward within its length; padding stays where it is.
        self.backward = torch.where(self.valid, counts - 1 - steps, steps)

    def last(self, values: Tensor) -> Tensor:
        """Return the values after each sequence's last step, shape (batch, hidden)."""
        return values[self._counts - 1, torch.arange(len(self._counts), device=values.device)]


def _reversed(values: Tensor, padding: _Padding | None) -> Tensor:
    """Return sequences from their last step to their first."""
    if padding is None:
        return values.flip(0)
    return values.gather(0, padding.backward.unsqueeze(-1).expand_as(values))


def _complete(module: nn.Module, incompatible: Any) -> None:
    """After loading: derive what a plain ``nn.LSTM`` state lacks, and do not call it missing."""
    assert isinstance(module, QuantLSTM)
    own = [name for name in incompatible.missing_keys if ".cells." in f".{name}"]
    lacking = [name for name in incompatible.missing_keys if ".signals." in f".{name}"]
    if own:
        module.restart()
    for name in own + lacking:
        incompatible.missing_keys.remove(name)
