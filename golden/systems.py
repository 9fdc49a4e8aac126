"""The number systems: each one object, and the registry of all.

A number system is an LSTM (`golden.lstm.contract.Lstm`), a quantiser that makes it of a real one,
the options that the quantiser has, and the contract of the layer that runs it, with the name of
that layer's design. A package of a user's own registers one in the same way as this module, see the
page "Adding a number system" of the manual.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from golden.activations import ActivationKind
from golden.arithmetic import Rounding
from golden.layer.contract import LayerContract
from golden.layer.floatsd8 import FloatSD8LstmLayer
from golden.layer.int8 import Int8LstmLayer
from golden.layer.int8_dynamic import int8_layer_of
from golden.layer.ternary import Scales, TernaryLstmLayer
from golden.lstm.contract import Lstm
from golden.lstm.floatsd8 import FEWEST_PRODUCTS, MOST_PRODUCTS, FloatSD8Lstm
from golden.lstm.int8 import Int8Lstm
from golden.lstm.kinds import check_kind, register_kind
from golden.lstm.ternary import TernaryLstm, WeightKind
from golden.quantize import floatsd8, int8, ternary_lstm

if TYPE_CHECKING:
    from golden.network import Network

__all__ = [
    "SYSTEMS",
    "ModelLayer",
    "NumberSystem",
    "Option",
    "layer_of",
    "listed",
    "options_by_name",
    "register_system",
    "system_of",
]


@dataclass(frozen=True)
class Option:
    """A choice that a quantiser leaves to its user.

    Parameters
    ----------
    name
        Its keyword, and with ``-`` for ``_`` the option of ``fewbit quantize``.
    meaning
        What is chosen, its default included, as the help of the command says it.
    choices
        The words that it takes; a whole number where there are none.
    minimum, maximum
        The range of a whole number.
    none_means
        What ``none`` stands for; None where a number must be given.
    keyword
        The quantiser's own keyword where that is another.
    """

    name: str
    meaning: str
    choices: tuple[str, ...] = ()
    minimum: int = 1
    maximum: int = 1 << 30
    none_means: str | None = None
    keyword: str = ""


@dataclass(frozen=True)
class NumberSystem:
    """A number system of LSTMs.

    Parameters
    ----------
    name
        What the user calls it, as in ``fewbit quantize --to NAME``.
    lstm
        The class of its layers.
    quantize
        Takes a network of real layers, calibration sequences of shape (batch, time, inputs), the
        options by their keywords and ``done``, which it calls after every layer; gives the network
        of `lstm` layers.
    options
        What the quantiser leaves to choose.
    layer
        The contract of the layer that runs an LSTM of the system.
    design
        Name of that layer's design.
    layer_of
        Makes the contract for a model, with parameters of `LayerContract.chosen` by name; the
        contract's ``of`` where nothing is given.

    Raises
    ------
    TypeError
        If a part is missing or abstract.
    """

    name: str
    lstm: type[Lstm]
    quantize: Callable[..., Network]
    layer: type[LayerContract[Any]]
    design: str
    options: tuple[Option, ...] = ()
    layer_of: Callable[..., LayerContract[Any]] | None = None

    def __post_init__(self) -> None:
        """Refuse an entry that lacks a part."""
        if not self.name.isidentifier():
            raise TypeError(f"A number system's name must be a word, not {self.name!r}.")
        check_kind(self.lstm)
        if not callable(self.quantize):
            raise TypeError(f"The number system '{self.name}' must have a quantiser.")
        layer: Any = self.layer
        if not (inspect.isclass(layer) and issubclass(layer, LayerContract)):
            raise TypeError(f"The layer of '{self.name}' must be the class of a LayerContract.")
        if inspect.isabstract(self.layer):
            lacking = ", ".join(sorted(self.layer.__abstractmethods__))
            raise TypeError(f"{self.layer.__name__} must define {lacking} before it is registered.")
        if not self.design.isidentifier():
            raise TypeError(f"The number system '{self.name}' must name its layer's design.")

    def contract_of(self, model: Lstm, **chosen: Any) -> LayerContract[Any]:
        """The contract of the layer that runs a model.

        Parameters
        ----------
        model
            A layer of this system.
        chosen
            Parameters that the model doesn't say, by name; the usual ones where not given.

        Raises
        ------
        ValueError
            If the layer has no such parameter, or can't run the model with it.
        """
        for name in chosen:
            if name not in self.layer.chosen:
                having = [each.name for each in SYSTEMS.values() if name in each.layer.chosen]
                of_others = f"only those of {listed(having)} have" if having else "no layer has"
                raise ValueError(
                    f"A layer of {self.lstm.title} weights has no {name}; {of_others}."
                )
        return (self.layer_of or self.layer.of)(model, **chosen)


SYSTEMS: dict[str, NumberSystem] = {}
"""All number systems by name."""


def register_system(system: NumberSystem) -> NumberSystem:
    """Add a number system; the same one may be added again.

    Raises
    ------
    TypeError
        If its name is taken, or another design runs LSTMs of its class.
    """
    for known in SYSTEMS.values():
        if known.lstm is system.lstm and (known.design, known.layer) != (
            system.design,
            system.layer,
        ):
            raise TypeError(
                f"{system.lstm.__name__} runs on {known.design} already; give the number system"
                f" '{system.name}' a class of its own."
            )
    if SYSTEMS.get(system.name, system) != system:
        raise TypeError(f"There is a number system '{system.name}' already; take another name.")
    register_kind(system.lstm)
    SYSTEMS[system.name] = system
    return system


def system_of(model: Lstm) -> NumberSystem:
    """The number system of a quantised layer; the first one registered for its class.

    Raises
    ------
    ValueError
        If the layer is real.
    """
    for system in SYSTEMS.values():
        if type(model) is system.lstm:
            return system
    if not model.is_quantised:
        raise ValueError("The model is a real one; quantise it first with 'fewbit quantize'.")
    raise ValueError(f"No number system is registered for {type(model).__name__}; register one.")


@dataclass(frozen=True)
class ModelLayer:
    """A layer, and what makes it run a model.

    Parameters
    ----------
    design
        Name of the layer's design.
    contract
        The layer.
    parameters
        What the layer packs into its image.
    """

    design: str
    contract: LayerContract[Any]
    parameters: Any

    @property
    def image(self) -> bytes:
        """The parameter image."""
        return self.contract.pack(self.parameters)


def layer_of(model: Lstm, **chosen: Any) -> ModelLayer:
    """The layer that runs a model.

    Parameters
    ----------
    model
        A quantised LSTM.
    chosen
        Parameters that the model doesn't say, by name, such as ``lanes``; None counts as not given.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    system = system_of(model)
    given = {name: value for name, value in chosen.items() if value is not None}
    contract = system.contract_of(model, **given)
    return ModelLayer(system.design, contract, contract.parameters_of(model))


def options_by_name() -> Mapping[str, dict[str, Option]]:
    """Options of all quantisers by name, each by the names of the systems that have it."""
    found: dict[str, dict[str, Option]] = {}
    for system in SYSTEMS.values():
        for option in system.options:
            found.setdefault(option.name, {})[system.name] = option
    return found


def listed(names: list[str]) -> str:
    """Names as a sentence has them."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


_ACTIVATION = Option(
    "activation", "approximation of sigmoid and tanh, default table", get_args(ActivationKind)
)
_FEW_BIT_OPTIONS = (
    _ACTIVATION,
    Option("activation_width", "bits of inputs and hidden values, 4 to 16, default 12"),
    Option("scales", "fixed (default), or powers_of_two, for no multipliers", get_args(Scales)),
)
_EXPONENTS = Option("exponents", "magnitudes beside 0, 1 to 4, default 4")

register_system(
    NumberSystem(
        "int8",
        Int8Lstm,
        int8.quantize_network,
        Int8LstmLayer,
        "int8_lstm_layer",
        (
            _ACTIVATION,
            Option("rounding", "of a requantisation, default double", get_args(Rounding)),
        ),
        int8_layer_of,
    )
)
register_system(
    NumberSystem(
        "floatsd8",
        FloatSD8Lstm,
        floatsd8.quantize_network,
        FloatSD8LstmLayer,
        "floatsd8_lstm_layer",
        (
            Option(
                "lanes",
                "products added at a time, 4 to 16, default 4",
                minimum=FEWEST_PRODUCTS,
                maximum=MOST_PRODUCTS,
                keyword="products",
            ),
            Option(
                "window",
                "bits that a sum keeps, 8 to 48, or none for exact sums; default 12",
                none_means="exact sums",
            ),
        ),
    )
)
for _weights in get_args(WeightKind):
    register_system(
        NumberSystem(
            _weights,
            TernaryLstm,
            partial(ternary_lstm.quantize_network, to=_weights),
            TernaryLstmLayer,
            "ternary_lstm_layer",
            _FEW_BIT_OPTIONS + ((_EXPONENTS,) if _weights == "pow2" else ()),
        )
    )
