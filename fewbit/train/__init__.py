"""Training of LSTM layers in every number system, with PyTorch (the optional extra `train`).

``from fewbit.train import QuantLSTM, Ternary``: `QuantLSTM` stands where ``nn.LSTM`` stood, and a
scheme says in which numbers it computes. Names are loaded when they are first used, because the
tasks in `fewbit.train.tasks` are for machines without PyTorch, too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewbit.train.layers import QuantLSTM
    from fewbit.train.loop import Training
    from fewbit.train.optimise import MasterCopy, SignedDigitTrigger
    from fewbit.train.plan import Plan
    from fewbit.train.schemes.few_bit import (
        Binary,
        Exponential,
        FixedPoint,
        PowerOfTwo,
        Ternary,
    )
    from fewbit.train.schemes.floatsd8 import FloatSD8
    from fewbit.train.schemes.int8 import Int8
    from fewbit.train.schemes.real import Float

__all__ = [
    "Binary",
    "Exponential",
    "FixedPoint",
    "Float",
    "FloatSD8",
    "Int8",
    "MasterCopy",
    "Plan",
    "PowerOfTwo",
    "QuantLSTM",
    "SignedDigitTrigger",
    "Ternary",
    "Training",
]

_HOMES = {
    "Binary": "schemes.few_bit",
    "Exponential": "schemes.few_bit",
    "FixedPoint": "schemes.few_bit",
    "Float": "schemes.real",
    "FloatSD8": "schemes.floatsd8",
    "Int8": "schemes.int8",
    "MasterCopy": "optimise",
    "Plan": "plan",
    "PowerOfTwo": "schemes.few_bit",
    "QuantLSTM": "layers",
    "SignedDigitTrigger": "optimise",
    "Ternary": "schemes.few_bit",
    "Training": "loop",
}


def __getattr__(name: str) -> Any:
    """Return what is loaded late.

    Raises
    ------
    AttributeError
        If there is no such name.
    ImportError
        If PyTorch is missing.
    """
    if name not in _HOMES:
        raise AttributeError(f"Module {__name__!r} has no {name!r}.")
    try:
        module = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "Training needs PyTorch, which is missing; install it with pip install 'fewbit[train]'."
        ) from error
    return getattr(module, name)
