"""How near PyTorch's forward pass comes to the golden model of what it has trained.

Training rounds a row's sum once, or not at all; golden rounds as the circuit does. So their hidden
values differ a little, and so do their losses. What counts is golden's.
"""

from dataclasses import dataclass

import numpy as np
import torch

from fewbit.golden.files.trained import TrainedModel
from fewbit.golden.network import run
from fewbit.train.model import SequenceModel
from fewbit.train.tasks.task import NO_LABEL, Split, cross_entropies

__all__ = ["Comparison", "compare"]

_MOST_PRODUCTS = 150_000_000
"""Products of weights that golden computes at most; in FloatSD8 they take some seconds."""
_MOST_SEQUENCES = 64
_MOST_STEPS = 200


@dataclass(frozen=True)
class Comparison:
    """Hidden values and losses of some sequences, in PyTorch and in golden.

    Parameters
    ----------
    sequences
        The number of sequences.
    codes
        The number of hidden codes of the last layer.
    equal
        The share of them that is the same in both; None for reals, which PyTorch has in binary32
        and golden in binary64.
    loss, golden_loss
        The mean cross-entropy over all labels, natural logarithm, of both.
    """

    sequences: int
    codes: int
    equal: float | None
    loss: float
    golden_loss: float


@torch.no_grad()
def compare(model: SequenceModel, trained: TrainedModel, split: Split) -> Comparison:
    """Return the comparison on the first sequences of a part, as many as take seconds.

    Parameters
    ----------
    model
        The frozen model.
    trained
        Its golden model.
    split
        The part of the data.
    """
    model.eval()
    network = trained.network
    steps = min(split.x.shape[1], _MOST_STEPS)
    products = sum(
        4 * node.lstm.hidden * (node.lstm.inputs + node.lstm.hidden) for node in network.nodes
    )
    count = max(1, min(_MOST_SEQUENCES, len(split), _MOST_PRODUCTS // (products * steps)))
    codes = equal = labels = 0
    losses = np.zeros(2)
    # Sequences of one length run together, for a layer may run from their last step.
    lengths = np.minimum(split.lengths[:count], steps)
    for length in np.unique(lengths).tolist():
        chosen = np.flatnonzero(lengths == length)
        x = split.x[chosen, :length]
        given = torch.from_numpy(np.ascontiguousarray(x)).to(model.read_out.weight.device)
        vectors = model.inputs_of(given if given.is_floating_point() else given.long())
        hidden = model.lstm(vectors)[0].transpose(0, 1)
        golden = run(network, network.nodes[0].lstm.reads.encode(trained.inputs_of(x)))
        own = network.encode(hidden.cpu().double().numpy())
        codes, equal = codes + own.size, equal + int((own == golden).sum())
        # A sequence that was cut short has no last value to read out.
        whole = split.labels.ndim > 1 or split.lengths[chosen] == length
        wanted = split.labels[chosen]
        wanted = wanted[:, :length] if wanted.ndim > 1 else np.where(whole, wanted, NO_LABEL)
        of_torch = model.read_out(hidden if model.per_step else hidden[:, -1])
        scores = trained.read_out.scores(network.decode(golden), np.full(len(chosen), length))
        kept = wanted != NO_LABEL
        for number, each in enumerate((of_torch.cpu().double().numpy(), scores)):
            losses[number] += float(cross_entropies(each[kept], wanted[kept]).sum())
        labels += int(kept.sum())
    mean = losses / max(labels, 1)
    share = equal / codes if network.quantised else None
    return Comparison(count, codes, share, float(mean[0]), float(mean[1]))
